/* Attempts of a checkpoint, and the decisions that claim them, each bound to its call's arguments. */
#include "store_i.h"

#include <errno.h>
#include <string.h>

#include "util/text.h"

int attempt_open(struct conn *c, int64_t checkpoint, int64_t opened_by, int64_t *ret, struct err *e)
{
    cleanup_result PGresult *res = NULL;
    int r = q(c, &res, e, "INSERT INTO checkpointfs.attempts (checkpoint_id, opened_by) VALUES ($1, $2) RETURNING id", "ii",
              checkpoint, opened_by);

    if (r)
        return r;
    *ret = col_int(res, 0, 0);
    return q(c, NULL, e,
             "UPDATE checkpointfs.checkpoints SET attempt_id = $2, outcome = NULL, changed_at = checkpointfs.now_ns()"
             " WHERE id = $1", "ii", checkpoint, *ret);
}

int attempt_set(struct conn *c, int64_t attempt, const char *state, struct err *e)
{
    return q(c, NULL, e, "UPDATE checkpointfs.attempts SET state = $2, changed_at = now() WHERE id = $1", "is", attempt, state);
}

/* The list of decisions in `{"decisions":[…],"input":…}`, or the document itself when it is a list. */
static json_t *decision_list(json_t *doc)
{
    return json_is_array(doc) ? doc : json_object_get(doc, "decisions");
}

/* Stores one decision with the SHA-256 of the arguments that the call has in the sealed checkpoint. */
static int store_one(struct conn *c, int64_t checkpoint, int64_t attempt, int64_t action, json_t *d, json_t *decided,
                     struct err *e)
{
    const char *id = json_string_value(json_object_get(d, "id"));
    const char *word = json_string_value(json_object_get(d, "decision"));
    const char *meant = json_string_value(json_object_get(d, "arguments_sha256"));
    cleanup_free char *detail = json_dumps(d, JSON_COMPACT);
    cleanup_result PGresult *res = NULL;
    json_t *copy;
    int r;

    if (!id || !word)
        return err_set(e, EINVAL, "a decision needs an id and a decision");
    if (!detail)
        return err_set(e, ENOMEM, "out of memory");
    r = q(c, &res, e,
          "SELECT arguments_sha256, tool FROM checkpointfs.calls WHERE checkpoint_id = $1 AND call_id = $2 ORDER BY ord LIMIT 1",
          "is", checkpoint, id);
    if (r == 0 && PQntuples(res) == 0)
        r = err_set(e, EINVAL, "the checkpoint has no call %s", id);
    if (r == 0 && meant && !str_equal(meant, col_text(res, 0, 0)))
        r = err_set(e, ESTALE, "call %s has other arguments than the ones that were decided on: read pending/ again", id);
    if (r == 0)
        r = q(c, NULL, e,
              "INSERT INTO checkpointfs.decisions (attempt_id, action_id, call_id, tool, decision, detail, arguments_sha256)"
              " VALUES ($1, $2, $3, $4, $5, $6, $7)",
              "iisssss", attempt, action, id, col_text(res, 0, 1), word, detail, col_text(res, 0, 0));
    if (r == -EEXIST)
        return err_set(e, EINVAL, "call %s is decided twice", id);
    if (r)
        return r;
    copy = json_copy(d);
    if (!copy || (col_text(res, 0, 0) && json_object_set_new(copy, "arguments_sha256", json_text(col_text(res, 0, 0)))) ||
        (col_text(res, 0, 1) && json_object_set_new(copy, "tool", json_text(col_text(res, 0, 1))))) {
        json_decref(copy);
        return err_set(e, ENOMEM, "out of memory");
    }
    return json_array_append_new(decided, copy) ? err_set(e, ENOMEM, "out of memory") : 0;
}

static int store_input(struct conn *c, int64_t attempt, int64_t action, json_t *input, struct err *e)
{
    cleanup_free char *detail = NULL;

    if (!input || json_is_null(input))
        return 0;
    detail = json_dumps(input, JSON_COMPACT | JSON_ENCODE_ANY);
    if (!detail)
        return err_set(e, ENOMEM, "out of memory");
    return q(c, NULL, e,
             "INSERT INTO checkpointfs.decisions (attempt_id, action_id, decision, detail) VALUES ($1, $2, 'answer', $3)",
             "iis", attempt, action, detail);
}

int attempt_claim(struct conn *c, int64_t checkpoint, int64_t attempt, int64_t action, const char *decisions,
                  json_t **ret_decided, struct err *e)
{
    cleanup_json json_t *doc = json_loads(decisions ? decisions : "{}", JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    cleanup_json json_t *decided = json_array();
    json_t *list = decision_list(doc);
    json_t *one;
    size_t i;
    int r = 0;

    if (!doc || (list && !json_is_array(list)))
        return err_set(e, EINVAL, "the decisions aren't the JSON they should be");
    if (!decided)
        return err_set(e, ENOMEM, "out of memory");
    json_array_foreach(list, i, one) {
        r = store_one(c, checkpoint, attempt, action, one, decided, e);
        if (r)
            return r;
    }
    r = store_input(c, attempt, action, json_object_get(doc, "input"), e);
    if (r == 0)
        r = q(c, NULL, e,
              "UPDATE checkpointfs.attempts SET state = 'claimed', claimed_by = $2, changed_at = now() WHERE id = $1", "ii",
              attempt, action);
    if (r == 0)
        r = q(c, NULL, e, "UPDATE checkpointfs.actions SET attempt_id = $2 WHERE id = $1", "ii", action, attempt);
    if (r == 0)
        r = q(c, NULL, e,
              "UPDATE checkpointfs.checkpoints SET outcome = NULL, changed_at = checkpointfs.now_ns() WHERE id = $1", "i",
              checkpoint);
    if (r == 0)
        *ret_decided = steal_ptr(&decided);
    return r;
}

int decided_event(struct conn *c, const struct event *base, int64_t attempt, bool again, json_t *decided, const char *decisions,
                  struct err *e)
{
    cleanup_json json_t *doc = json_loads(decisions ? decisions : "{}", JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    json_t *input = json_object_get(doc, "input");
    cleanup_json json_t *more = json_pack("{s:I, s:O}", "attempt", (json_int_t)attempt, "decisions", decided);
    struct event ev = *base;

    if (!more || (input && !json_is_null(input) && json_object_set(more, "input", input)) ||
        (again && json_object_set_new(more, "again", json_true())))
        return err_set(e, ENOMEM, "out of memory");
    ev.what = "approval.decided";
    ev.more = more;
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
