/* Attempts of a checkpoint, and the decisions that claim them, each bound to its call's arguments. */
#include "store_i.h"

#include <errno.h>
#include <string.h>

#include "formats/jdoc.h"
#include "util/buf.h"
#include "util/text.h"

int attempt_open(struct conn *c, int64_t checkpoint, int64_t isolated, int64_t opened_by, int64_t *ret, struct err *e)
{
    cleanup_result PGresult *res = NULL;
    int r = q(c, &res, e, "INSERT INTO checkpointfs.attempts (checkpoint_id, isolated_id, opened_by) VALUES ($1, $2, $3)"
              " RETURNING id", "iii", checkpoint, isolated, opened_by);

    if (r)
        return r;
    *ret = col_int(res, 0, 0);
    if (isolated) {
        r = q(c, NULL, e, "UPDATE checkpointfs.isolated_branches SET attempt_id = $2, outcome = NULL WHERE id = $1", "ii", isolated, *ret);
        return r ? r : iso_touch(c, isolated, e);
    }
    return q(c, NULL, e,
             "UPDATE checkpointfs.checkpoints SET attempt_id = $2, outcome = NULL, changed_at = checkpointfs.now_ns()"
             " WHERE id = $1", "ii", checkpoint, *ret);
}

int attempt_set(struct conn *c, int64_t attempt, const char *state, struct err *e)
{
    return q(c, NULL, e, "UPDATE checkpointfs.attempts SET state = $2, changed_at = now() WHERE id = $1", "is", attempt, state);
}

/* A member's content; NULL when it is no string, or memory is out. Owned by the caller. */
static char *text_of(struct jval object, const char *key)
{
    char *text = NULL;

    return j_string(j_get(object, key), &text) == 0 ? text : NULL;
}

static char *compact(struct jval v)
{
    cleanup_buf struct buf b = {0};

    j_add_compact(&b, v);
    return buf_steal(&b);
}

/* A member of the object under way, which begins with a brace; `v` may be none. */
static void add_member(struct buf *b, const char *key, struct jval v)
{
    if (!v.node)
        return;
    buf_addf(b, "%s\"%s\":", b->len && b->data[b->len - 1] == '{' ? "" : ",", key);
    j_add_compact(b, v);
}

/* One decision for the audit log: as it was made, with the SHA-256 of the arguments and the tool that the call has. */
static void add_decided(struct buf *b, struct jval d, const char *sha256, const char *tool)
{
    static const char *const as_made[] = {"id", "decision", "message", "arguments", "value"};

    buf_adds(b, b->len ? ",{" : "{");
    for (size_t i = 0; i < sizeof as_made / sizeof *as_made; i++)
        add_member(b, as_made[i], j_get(d, as_made[i]));
    if (sha256) {
        buf_adds(b, ",\"arguments_sha256\":");
        json_add_quoted(b, sha256, strlen(sha256));
    }
    if (tool) {
        buf_adds(b, ",\"tool\":");
        json_add_quoted(b, tool, strlen(tool));
    }
    buf_addc(b, '}');
}

/* Stores one decision with the SHA-256 of the arguments that the call has in the sealed checkpoint. */
static int store_one(struct conn *c, int64_t checkpoint, int64_t attempt, int64_t action, struct jval d, struct buf *decided, struct err *e)
{
    cleanup_free char *id = text_of(d, "id");
    cleanup_free char *word = text_of(d, "decision");
    cleanup_free char *meant = text_of(d, "arguments_sha256");
    cleanup_free char *detail = compact(d);
    cleanup_result PGresult *res = NULL;
    int r;

    if (!id || !word)
        return err_set(e, EINVAL, "a decision needs an id and a decision");
    if (!detail)
        return err_set(e, ENOMEM, "out of memory");
    r = q(c, &res, e,
          "SELECT arguments_sha256, tool, EXISTS (SELECT 1 FROM checkpointfs.decisions WHERE action_id = $3 AND call_id = $2)"
          " FROM checkpointfs.calls WHERE checkpoint_id = $1 AND call_id = $2 ORDER BY ord LIMIT 1",
          "isi", checkpoint, id, action);
    if (r == 0 && PQntuples(res) == 0)
        r = err_set(e, EINVAL, "the checkpoint has no call %s", id);
    if (r == 0 && meant && !str_equal(meant, col_text(res, 0, 0)))
        r = err_set(e, ESTALE, "call %s has other arguments than the ones that were decided on: read pending/ again", id);
    if (r == 0 && col_bool(res, 0, 2)) /* all of an action's are stored by one transaction */
        r = err_set(e, EINVAL, "call %s is decided twice", id);
    if (r == 0)
        r = q(c, NULL, e,
              "INSERT INTO checkpointfs.decisions (attempt_id, action_id, call_id, tool, decision, detail, arguments_sha256)"
              " VALUES ($1, $2, $3, $4, $5, $6, $7)",
              "iisssss", attempt, action, id, col_text(res, 0, 1), word, detail, col_text(res, 0, 0));
    if (r == 0)
        add_decided(decided, d, col_text(res, 0, 0), col_text(res, 0, 1));
    return r;
}

static int store_input(struct conn *c, int64_t attempt, int64_t action, struct jval input, struct err *e)
{
    cleanup_free char *detail = NULL;

    if (!j_has(input))
        return 0;
    detail = compact(input);
    if (!detail)
        return err_set(e, ENOMEM, "out of memory");
    return q(c, NULL, e,
             "INSERT INTO checkpointfs.decisions (attempt_id, action_id, decision, detail) VALUES ($1, $2, 'answer', $3)",
             "iis", attempt, action, detail);
}

/* Its state and what is told of it are kept, for attempt_release. */
static int claim(struct conn *c, int64_t checkpoint, int64_t isolated, int64_t attempt, int64_t action, struct err *e)
{
    return q(c, NULL, e,
             "UPDATE checkpointfs.attempts SET was = state, was_outcome = CASE WHEN $4::bigint = 0"
             " THEN (SELECT outcome FROM checkpointfs.checkpoints WHERE id = $3)"
             " ELSE (SELECT outcome FROM checkpointfs.isolated_branches WHERE id = $4) END,"
             " state = 'claimed', claimed_by = $2, changed_at = now() WHERE id = $1", "iiii",
             attempt, action, checkpoint, isolated);
}

int attempt_release(struct conn *c, int64_t attempt, char **ret, struct err *e)
{
    cleanup_result PGresult *res = NULL;
    int r = q(c, &res, e,
              "UPDATE checkpointfs.attempts SET state = was, changed_at = now() WHERE id = $1"
              " RETURNING CASE WHEN was = 'open' THEN '' ELSE coalesce(was_outcome, '') END", "i", attempt);

    if (r)
        return r;
    *ret = str_dup(PQntuples(res) ? col_text(res, 0, 0) : "");
    return *ret ? 0 : err_set(e, ENOMEM, "out of memory");
}

static int outcome_clear(struct conn *c, int64_t checkpoint, int64_t isolated, struct err *e)
{
    int r;

    if (!isolated)
        return q(c, NULL, e,
                 "UPDATE checkpointfs.checkpoints SET outcome = NULL, changed_at = checkpointfs.now_ns() WHERE id = $1", "i",
                 checkpoint);
    r = q(c, NULL, e, "UPDATE checkpointfs.isolated_branches SET outcome = NULL WHERE id = $1", "i", isolated);
    return r ? r : iso_touch(c, isolated, e);
}

/* What the audit log tells of them, without secrets: the agent gets them as they were written. A secret that is part of the JSON itself (a
 * digit, say) leaves none. */
static char *without_secrets(const struct store *s, const char *told)
{
    cleanup_free char *masked = s->mask ? s->mask(s->mask_arg, told) : str_dup(told);
    cleanup_free char *whole = masked ? str_format("{%s}", masked) : NULL;
    cleanup_jdoc struct jdoc doc = {0};

    if (!whole)
        return NULL;
    return jdoc_parse(whole, strlen(whole), &doc) == 0 ? steal_ptr(&masked) : str_dup("\"decisions\":\"***\"");
}

/* Every decision, and the input; what the audit log tells of them is `*ret`. */
static int store_decisions(struct conn *c, int64_t checkpoint, int64_t attempt, int64_t action, struct jval list, struct jval input,
                           char **ret, struct err *e)
{
    cleanup_buf struct buf decided = {0};
    cleanup_buf struct buf told = {0};
    int r = 0;

    for (struct jval one = j_first(list); r == 0 && one.node; one = j_next(list, one))
        r = store_one(c, checkpoint, attempt, action, one, &decided, e);
    if (r == 0)
        r = store_input(c, attempt, action, input, e);
    if (r)
        return r;
    buf_addf(&told, "\"decisions\":[%s]", decided.len ? decided.data : "");
    if (j_has(input))
        add_member(&told, "input", input);
    *ret = buf_error(&decided) || buf_error(&told) ? NULL : without_secrets(c->store, told.data);
    return *ret ? 0 : err_set(e, ENOMEM, "out of memory");
}

/* A replay's are read here when Neon has replaced the branch already, and the record must not fail on a number: by the tolerant view, as
 * they were read when they were given. */
int attempt_claim(struct conn *c, int64_t checkpoint, int64_t isolated, int64_t attempt, int64_t action, const char *decisions,
                  char **ret_told, struct err *e)
{
    const char *text = decisions ? decisions : "{}";
    cleanup_jdoc struct jdoc doc = {0};
    cleanup_free char *told = NULL;
    struct jval root, list;
    int r = jdoc_parse(text, strlen(text), &doc);

    if (r == -ENOMEM)
        return err_set(e, ENOMEM, "out of memory");
    root = j_root(&doc);
    list = j_is(root, J_ARRAY) ? root : j_get(root, "decisions");
    if (r < 0 || (list.node && !j_is(list, J_ARRAY)))
        return err_set(e, EINVAL, "the decisions aren't the JSON they should be");
    r = store_decisions(c, checkpoint, attempt, action, list, j_get(root, "input"), &told, e);
    if (r == 0)
        r = claim(c, checkpoint, isolated, attempt, action, e);
    if (r == 0)
        r = q(c, NULL, e, "UPDATE checkpointfs.actions SET attempt_id = $2 WHERE id = $1", "ii", action, attempt);
    if (r == 0)
        r = outcome_clear(c, checkpoint, isolated, e);
    if (r == 0)
        *ret_told = steal_ptr(&told);
    return r;
}

int decided_event(struct conn *c, const struct event *base, int64_t attempt, bool again, const char *told, struct err *e)
{
    cleanup_json json_t *more = json_pack("{s:I}", "attempt", (json_int_t)attempt);
    struct event ev = *base;

    if (!more || (again && json_object_set_new(more, "again", json_true())))
        return err_set(e, ENOMEM, "out of memory");
    ev.what = "approval.decided";
    ev.more = more;
    ev.told = told;
    return event_append(c, &ev, e);
}

int approval_requested(struct conn *c, const struct event *base, int64_t attempt, struct err *e)
{
    cleanup_result PGresult *res = NULL;
    cleanup_json json_t *calls = json_array();
    cleanup_json json_t *more = NULL;
    struct event ev = *base;
    int r = calls ? q(c, &res, e,
                      "SELECT call_id, tool, arguments_sha256 FROM checkpointfs.calls WHERE checkpoint_id = $1 AND decided"
                      " IS NULL ORDER BY ord", "i", base->checkpoint)
                  : err_set(e, ENOMEM, "out of memory");

    if (r || PQntuples(res) == 0)
        return r;
    for (int i = 0; i < PQntuples(res); i++) {
        json_t *one = json_pack("{s:o*, s:o*, s:o*}", "id", json_text(col_text(res, i, 0)), "tool",
                                json_text(col_text(res, i, 1)),
                                "arguments_sha256", json_text(col_text(res, i, 2)));

        if (!one || json_array_append_new(calls, one))
            return err_set(e, ENOMEM, "out of memory");
    }
    more = json_pack("{s:I, s:O}", "attempt", (json_int_t)attempt, "calls", calls);
    if (!more)
        return err_set(e, ENOMEM, "out of memory");
    ev.what = "approval.requested";
    ev.more = more;
    return event_append(c, &ev, e);
}
