/* Isolated branches: their rows, who is in whose way there, made, looked at, promoted, removed. */
#include "store_i.h"

#include <errno.h>
#include <string.h>

#include "util/offer.h"
#include "util/text.h"

static const char *const isolated_names[] = {"making", "ready", "failed", "gone", "promoted", NULL};

void store_branch_free(struct store_branch *b)
{
    char *texts[] = {b->name, b->branch_id, b->branch_name, b->endpoint_id, b->restored_for, b->activity, b->outcome};

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        free(texts[i]);
    *b = (struct store_branch){0};
}

void iso_row_free(struct iso_row *i)
{
    free(i->checkpoint_name);
    free(i->name);
    free(i->path);
    free(i->branch_id);
    free(i->attempt_state);
    *i = (struct iso_row){0};
}

/* ---- reading --------------------------------------------------------------------------------------------------------- */

const char iso_columns[] =
    "SELECT i.checkpoint_id, i.id, i.name, i.state, i.branch_id, i.branch_name, i.endpoint_id, i.restored_for, i.created_at, i.changed_at,"
    " i.ready_at, i.expires_at, i.activity, i.outcome, i.attempt_id, coalesce(a.state = 'open', false), i.result_bytes, i.result_at,"
    " coalesce(o.total, -1), coalesce(o.changed_at, 0) FROM checkpointfs.isolated_branches i"
    " LEFT JOIN checkpointfs.attempts a ON a.id = i.attempt_id"
    " LEFT JOIN checkpointfs.outputs o ON o.checkpoint_id = i.checkpoint_id AND o.isolated_id = i.id";

int iso_branch_read(const PGresult *r, int row, struct store_branch *ret)
{
    bool failed = false;
    struct store_branch b = {
        .checkpoint = col_int(r, row, 0),
        .id = col_int(r, row, 1),
        .name = col_dup(r, row, 2, &failed),
        .state = (enum isolated_state)name_index(isolated_names, col_text(r, row, 3)),
        .branch_id = col_dup(r, row, 4, &failed),
        .branch_name = col_dup(r, row, 5, &failed),
        .endpoint_id = col_dup(r, row, 6, &failed),
        .restored_for = col_dup(r, row, 7, &failed),
        .created_at = col_int(r, row, 8),
        .changed_at = col_int(r, row, 9),
        .ready_at = col_int(r, row, 10),
        .expires_at = col_int(r, row, 11),
        .activity = col_dup(r, row, 12, &failed),
        .outcome = col_dup(r, row, 13, &failed),
        .attempt_id = col_int(r, row, 14),
        .attempt_open = col_bool(r, row, 15),
        .result_size = col_int(r, row, 16),
        .result_at = col_int(r, row, 17),
        .output_size = output_shown(col_int(r, row, 18)),
        .output_at = col_int(r, row, 19),
    };

    if (failed) {
        store_branch_free(&b);
        return -ENOMEM;
    }
    *ret = b;
    return 0;
}

struct branch_args {
    int64_t id;
    int64_t action;
    const struct store_branch_made *made;
    const struct store_who *who;
    const char *doc;
    bool gone;
    int64_t expires_at;
    struct buf *out;
    struct store_branch b;
};

static int get_fn(struct conn *c, void *arg, struct err *e)
{
    struct branch_args *a = arg;
    cleanup_result PGresult *res = NULL;
    cleanup_free char *sql = str_format("%s WHERE i.id = $1", iso_columns);
    int r = sql ? q(c, &res, e, sql, "i", a->id) : err_set(e, ENOMEM, "out of memory");

    if (r)
        return r;
    if (PQntuples(res) == 0)
        return err_set(e, ENOENT, "the branch is no longer in the store");
    store_branch_free(&a->b);
    return iso_branch_read(res, 0, &a->b) < 0 ? err_set(e, ENOMEM, "out of memory") : 0;
}

int store_branch(struct store *s, int64_t id, struct store_branch *ret, struct err *e)
{
    struct branch_args a = {.id = id};
    int r = store_tx(s, TX_ONE_READ, get_fn, &a, e);

    if (r == 0)
        *ret = a.b;
    return r;
}

static int result_fn(struct conn *c, void *arg, struct err *e)
{
    const struct branch_args *a = arg;

    return q_bytes(c, a->out, e, "result",
                   "SELECT a.doc FROM checkpointfs.isolated_branches i JOIN checkpointfs.actions a ON a.id = i.result_action"
                   " WHERE i.id = $1",
                   a->id);
}

int store_read_branch_result(struct store *s, int64_t id, struct buf *ret, struct err *e)
{
    struct branch_args a = {.id = id, .out = ret};

    return store_tx(s, TX_ONE_READ, result_fn, &a, e);
}

int iso_read(struct conn *c, int64_t id, struct iso_row *ret, struct err *e)
{
    cleanup_result PGresult *res = NULL;
    struct iso_row i = {.id = id};
    bool failed = false;
    int r = q(c, &res, e,
              "SELECT i.checkpoint_id, k.name, i.name, i.state, i.branch_id, i.attempt_id, a.state, k.uid"
              " FROM checkpointfs.isolated_branches i"
              " JOIN checkpointfs.checkpoints k ON k.id = i.checkpoint_id LEFT JOIN checkpointfs.attempts a ON a.id = i.attempt_id"
              " WHERE i.id = $1", "i", id);

    if (r)
        return r;
    if (PQntuples(res) == 0)
        return err_set(e, ESTALE, "the isolated branch was deleted");
    i.checkpoint = col_int(res, 0, 0);
    i.checkpoint_name = col_dup(res, 0, 1, &failed);
    i.name = col_dup(res, 0, 2, &failed);
    i.state = (enum isolated_state)name_index(isolated_names, col_text(res, 0, 3));
    i.branch_id = col_dup(res, 0, 4, &failed);
    i.attempt = col_int(res, 0, 5);
    i.attempt_state = col_dup(res, 0, 6, &failed);
    i.path = offer_branch_path(i.checkpoint_name, col_text(res, 0, 7), i.name);
    if (failed || !i.path) {
        iso_row_free(&i);
        return err_set(e, ENOMEM, "out of memory");
    }
    *ret = i;
    return 0;
}

/* ---- what is refused ------------------------------------------------------------------------------------------------- */

int iso_ready(const struct iso_row *i, struct err *e)
{
    cleanup_free char *how = offer_run("rmdir", i->path, NULL);

    if (!how)
        return err_set(e, ENOMEM, "out of memory");
    switch (i->state) {
    case ISOLATED_MAKING:
        return err_set(e, EBUSY, "the branch %s of %s is still being made: see its status", i->name, i->checkpoint_name);
    case ISOLATED_FAILED:
        return err_set(e, ENODATA, "the branch %s of %s was never made: see its status, and %s", i->name, i->checkpoint_name, how);
    case ISOLATED_GONE:
        return err_set(e, ESTALE, "the branch %s of %s is gone from Neon: make another one", i->name, i->checkpoint_name);
    case ISOLATED_PROMOTED:
        return err_set(e, ESTALE, "the branch %s of %s was promoted: it is the line's now, write to the checkpoint's own files", i->name,
                       i->checkpoint_name);
    case ISOLATED_READY:
        break;
    }
    return 0;
}

static int busy(struct conn *c, const struct iso_row *i, const char *sql, struct err *e)
{
    cleanup_result PGresult *res = NULL;
    int r = q(c, &res, e, sql, "i", i->id);

    if (r || PQntuples(res) == 0)
        return r;
    return err_set(e, EBUSY, "a %s on the branch %s of %s is under way (%s): wait for it", col_text(res, 0, 0), i->name, i->checkpoint_name,
                   col_text(res, 0, 1));
}

#define UNSETTLED_ON "SELECT kind, uid FROM checkpointfs.actions WHERE isolated_id = $1 AND state IN ('queued', 'running')"

int iso_busy(struct conn *c, const struct iso_row *i, bool takes, struct err *e)
{
    return busy(c, i,
                takes ? UNSETTLED_ON " AND kind NOT IN ('cancel', 'dry-run') ORDER BY id LIMIT 1"
                      : UNSETTLED_ON " AND kind NOT IN ('take', 'cancel', 'dry-run') ORDER BY id LIMIT 1",
                e);
}

int iso_changing(struct conn *c, const struct iso_row *i, struct err *e)
{
    return busy(c, i, UNSETTLED_ON " AND kind IN ('branch', 'promote', 'delete') ORDER BY id LIMIT 1", e);
}

int iso_none_of(struct conn *c, const struct ck_row *k, struct err *e)
{
    cleanup_result PGresult *res = NULL;
    cleanup_free char *path = NULL;
    cleanup_free char *how = NULL;
    int r = q(c, &res, e, "SELECT name, state FROM checkpointfs.isolated_branches WHERE checkpoint_id = $1 ORDER BY id LIMIT 1", "i",
              k->id);

    if (r || PQntuples(res) == 0)
        return r;
    path = offer_branch_path(k->name, k->uid, col_text(res, 0, 0));
    how = strcmp(col_text(res, 0, 1), "failed") == 0 ? offer_run("rmdir", path, NULL) : offer_delete(path);
    if (!how)
        return err_set(e, ENOMEM, "out of memory");
    return err_set(e, EBUSY, "%s has branches: %s first", k->name, how);
}

/* ---- changing a row -------------------------------------------------------------------------------------------------- */

int iso_make(struct conn *c, const struct ck_row *k, const char *name, int64_t *ret_action, int64_t *ret, struct err *e)
{
    cleanup_result PGresult *res = NULL;
    int r = q(c, &res, e,
              "INSERT INTO checkpointfs.isolated_branches (line_id, checkpoint_id, name, made_by) VALUES ($1, $2, $3,"
              " nextval('checkpointfs.actions_id_seq')) ON CONFLICT (checkpoint_id, name) DO NOTHING RETURNING id, made_by",
              "iis", k->line_id, k->id, name);

    if (r)
        return r;
    if (PQntuples(res) == 0)
        return err_set(e, EEXIST, "%s has a branch called %s already", k->name, name);
    *ret = col_int(res, 0, 0);
    *ret_action = col_int(res, 0, 1);
    return iso_touch(c, *ret, e);
}

int iso_touch(struct conn *c, int64_t id, struct err *e)
{
    int r = q(c, NULL, e, "UPDATE checkpointfs.isolated_branches SET changed_at = checkpointfs.now_ns() WHERE id = $1", "i", id);

    return r ? r : q(c, NULL, e,
                     "UPDATE checkpointfs.checkpoints k SET changed_at = checkpointfs.now_ns() FROM checkpointfs.isolated_branches i"
                     " WHERE i.id = $1 AND k.id = i.checkpoint_id", "i", id);
}

int iso_activity(struct conn *c, int64_t id, const char *activity, struct err *e)
{
    int r = q(c, NULL, e, "UPDATE checkpointfs.isolated_branches SET activity = nullif($2, '') WHERE id = $1", "is", id, activity);

    return r ? r : iso_touch(c, id, e);
}

int iso_finish(struct conn *c, int64_t id, bool idle, const char *outcome, struct err *e)
{
    int r = q(c, NULL, e,
              "UPDATE checkpointfs.isolated_branches SET activity = CASE WHEN $2 THEN NULL ELSE activity END,"
              " outcome = CASE WHEN $3::text IS NULL THEN outcome ELSE nullif($3, '') END WHERE id = $1", "ibs", id, (int)idle, outcome);

    return r ? r : iso_touch(c, id, e);
}

/* What belongs to a database that is gone: off line until it is restored. `by`: the action, or -1 when none of ours did it. */
static int take_off_line(struct conn *c, int64_t isolated, int64_t by, struct err *e)
{
    return q(c, NULL, e,
             "UPDATE checkpointfs.checkpoints SET offline_by = $2, changed_at = checkpointfs.now_ns() WHERE isolated_id = $1"
             " AND offline_by = 0 AND phase <> 'failed'", "ii", isolated, by);
}

/* ---- made ------------------------------------------------------------------------------------------------------------ */

struct three_rows {
    struct act_row act;
    struct ck_row k;
    struct iso_row i;
};

static void three_free(struct three_rows *t)
{
    act_row_free(&t->act);
    ck_row_free(&t->k);
    iso_row_free(&t->i);
}
#define cleanup_three __attribute__((cleanup(three_free)))

/* The action, its checkpoint and its branch, under the line's lock. */
static int read_three(struct conn *c, int64_t action, struct three_rows *t, struct err *e)
{
    int r = act_lock(c, action, &t->act, e);

    if (r == 0 && act_settled(&t->act))
        r = err_set(e, EALREADY, "the action %s was settled before", t->act.uid);
    if (r == 0)
        r = ck_read(c, t->act.checkpoint, &t->k, e);
    return r ? r : iso_read(c, t->act.isolated, &t->i, e);
}

static void about(struct event *ev, const struct three_rows *t)
{
    event_about(ev, &t->act, &t->k);
    ev->branch = t->i.name;
}

static int made_attempt(struct conn *c, const struct three_rows *t, const char *decisions, const struct event *base, struct err *e)
{
    cleanup_free char *told = NULL;
    struct event ev = *base;
    int64_t attempt = 0;
    int r = attempt_open(c, t->k.id, t->i.id, t->act.id, &attempt, e);

    if (r)
        return r;
    if (t->act.kind != ACTION_REPLAY)
        return approval_requested(c, base, attempt, e);
    r = attempt_claim(c, t->k.id, t->i.id, attempt, t->act.id, decisions, &told, e);
    if (r == 0)
        r = decided_event(c, base, attempt, false, told, e);
    ev.what = "resume.started";
    return r ? r : event_append(c, &ev, e);
}

static int made_fn(struct conn *c, void *arg, struct err *e)
{
    const struct branch_args *a = arg;
    const struct store_branch_made *m = a->made;
    cleanup_three struct three_rows t = {0};
    cleanup_json json_t *more = json_pack("{s:o*, s:o*}", "branch", json_text(m->branch_id), "branch_in_neon", json_text(m->branch_name));
    struct event ev = {.what = "branch.ready", .more = more};
    int r = read_three(c, a->action, &t, e);

    if (r || t.i.state == ISOLATED_READY) /* recorded before the mount was killed */
        return r;
    r = q(c, NULL, e,
          "UPDATE checkpointfs.isolated_branches SET state = 'ready', branch_id = $2, branch_name = $3, endpoint_id = $4,"
          " restored_for = $5, expires_at = $6, ready_at = checkpointfs.now_ns() WHERE id = $1",
          "issssi", t.i.id, m->branch_id, m->branch_name, m->endpoint_id, m->restored_for, m->expires_at);
    if (r == 0)
        r = iso_touch(c, t.i.id, e);
    if (r)
        return r;
    about(&ev, &t);
    r = event_append(c, &ev, e);
    ev.more = NULL;
    ev.asked_by = 0;
    return r || t.k.phase != PHASE_SEALED ? r : made_attempt(c, &t, m->decisions, &ev, e);
}

int store_branch_made(struct store *s, int64_t action, const struct store_branch_made *m, struct err *e)
{
    struct branch_args a = {.action = action, .made = m};

    return store_tx(s, TX_WRITE, made_fn, &a, e);
}

static int failed_fn(struct conn *c, void *arg, struct err *e)
{
    const struct branch_args *a = arg;
    cleanup_three struct three_rows t = {0};
    int r = read_three(c, a->action, &t, e);

    if (r || t.i.state != ISOLATED_MAKING)
        return r;
    r = q(c, NULL, e, "UPDATE checkpointfs.isolated_branches SET state = 'failed' WHERE id = $1", "i", t.i.id);
    return r ? r : iso_touch(c, t.i.id, e);
}

int store_branch_failed(struct store *s, int64_t action, struct err *e)
{
    struct branch_args a = {.action = action};

    return store_tx(s, TX_WRITE, failed_fn, &a, e);
}

/* ---- looked at ------------------------------------------------------------------------------------------------------- */

static int lock_branch(struct conn *c, int64_t id, struct ck_row *ret_k, struct iso_row *ret, struct err *e)
{
    int r = iso_read(c, id, ret, e);
    int64_t checkpoint = ret->checkpoint;

    iso_row_free(ret);
    if (r == 0)
        r = ck_lock(c, checkpoint, ret_k, e);
    return r ? r : iso_read(c, id, ret, e);
}

static int look_fn(struct conn *c, void *arg, struct err *e)
{
    const struct branch_args *a = arg;
    cleanup_ck struct ck_row k = {0};
    cleanup_iso struct iso_row i = {0};
    struct event ev = {.what = "branch.gone"};
    int r = lock_branch(c, a->id, &k, &i, e);

    if (r || i.state != ISOLATED_READY)
        return r;
    if (!a->gone) {
        r = q(c, NULL, e, "UPDATE checkpointfs.isolated_branches SET expires_at = $2 WHERE id = $1", "ii", i.id, a->expires_at);
        return r ? r : iso_touch(c, i.id, e);
    }
    r = q(c, NULL, e, "UPDATE checkpointfs.isolated_branches SET state = 'gone' WHERE id = $1", "i", i.id);
    if (r == 0)
        r = take_off_line(c, i.id, -1, e);
    if (r == 0)
        r = iso_touch(c, i.id, e);
    if (r)
        return r;
    ev.line_id = k.line_id;
    ev.checkpoint = k.id;
    ev.uid = k.uid;
    ev.name = k.name;
    ev.branch = i.name;
    return event_append(c, &ev, e);
}

int store_branch_look(struct store *s, int64_t id, bool gone, int64_t expires_at, struct err *e)
{
    struct branch_args a = {.id = id, .gone = gone, .expires_at = expires_at};

    return store_tx(s, TX_WRITE, look_fn, &a, e);
}

/* ---- removed --------------------------------------------------------------------------------------------------------- */

static int drop(struct conn *c, const struct ck_row *k, const struct iso_row *i, struct err *e)
{
    int r = q(c, NULL, e, "DELETE FROM checkpointfs.output_parts WHERE checkpoint_id = $1 AND isolated_id = $2", "ii", k->id, i->id);

    if (r == 0)
        r = q(c, NULL, e, "DELETE FROM checkpointfs.outputs WHERE checkpoint_id = $1 AND isolated_id = $2", "ii", k->id, i->id);
    if (r == 0)
        r = iso_touch(c, i->id, e);
    return r ? r : q(c, NULL, e, "DELETE FROM checkpointfs.isolated_branches WHERE id = $1", "i", i->id);
}

static int not_by_rmdir(const struct iso_row *i, struct err *e)
{
    cleanup_free char *how = offer_delete(i->path);

    return how ? err_set(e, EPERM, "only `%s` deletes a branch", how) : err_set(e, ENOMEM, "out of memory");
}

static int remove_fn(struct conn *c, void *arg, struct err *e)
{
    const struct branch_args *a = arg;
    cleanup_ck struct ck_row k = {0};
    cleanup_iso struct iso_row i = {0};
    cleanup_free char *by = who_json(a->who);
    struct event ev = {.what = "branch.deleted", .by = by};
    int r = by ? lock_branch(c, a->id, &k, &i, e) : err_set(e, ENOMEM, "out of memory");

    if (r == 0 && i.state != ISOLATED_FAILED)
        r = not_by_rmdir(&i, e);
    if (r == 0)
        r = iso_busy(c, &i, true, e);
    if (r == 0)
        r = drop(c, &k, &i, e);
    if (r)
        return r;
    ev.line_id = k.line_id;
    ev.checkpoint = k.id;
    ev.uid = k.uid;
    ev.name = k.name;
    ev.branch = i.name;
    return event_append(c, &ev, e);
}

int store_branch_remove(struct store *s, int64_t id, const struct store_who *who, struct err *e)
{
    struct branch_args a = {.id = id, .who = who};

    return store_tx(s, TX_BOUNDED, remove_fn, &a, e);
}

static int deleted_fn(struct conn *c, void *arg, struct err *e)
{
    const struct branch_args *a = arg;
    cleanup_three struct three_rows t = {0};
    struct event ev = {.what = "branch.deleted"};
    int r = read_three(c, a->action, &t, e);

    if (r == 0 && a->doc)
        r = act_doc(c, t.act.id, 0, 0, a->doc, true, e);
    if (r == 0)
        r = act_settle(c, t.act.id, ACTION_DONE, 0, NULL, e);
    if (r == 0)
        r = take_off_line(c, t.i.id, t.act.id, e);
    if (r == 0)
        r = drop(c, &t.k, &t.i, e);
    if (r)
        return r;
    about(&ev, &t);
    return event_append(c, &ev, e);
}

int store_branch_deleted(struct store *s, int64_t action, const char *doc, struct err *e)
{
    struct branch_args a = {.action = action, .doc = doc};

    return store_tx(s, TX_WRITE, deleted_fn, &a, e);
}

