/* What an adopt changes in the record: somebody else made a branch the active one. */
#include "store_i.h"

#include <errno.h>
#include <stdlib.h>

#include "util/offer.h"
#include "util/text.h"

struct adopt_args {
    int64_t action;
    const char *branch, *endpoint_id, *snapshot_id;
    bool active_there;
    int64_t checkpoint;
    char *before; /* the branch that was active */
};

/* The line's active branch before, owned by the caller. -EEXIST when `branch` is in another line, -EBUSY when it is being deleted. */
static int adoptable(struct conn *c, const struct act_row *act, const char *branch, char **ret_before, struct err *e)
{
    cleanup_result PGresult *res = NULL;
    bool failed = false;
    int r = q(c, &res, e,
              "SELECT l.active_branch, b.line_id, EXISTS (SELECT 1 FROM checkpointfs.actions x WHERE x.line_id = l.id AND x.kind = 'prune'"
              " AND x.state IN ('queued', 'running') AND x.data->>'branch' = $2) FROM checkpointfs.lines l"
              " LEFT JOIN checkpointfs.line_branches b ON b.project_id = l.project_id AND b.branch_id = $2 WHERE l.id = $1",
              "is", act->line_id, branch);

    if (r)
        return r;
    if (!col_null(res, 0, 1) && col_int(res, 0, 1) != act->line_id)
        return err_set(e, EEXIST, "branch %s belongs to another line of checkpoints in this store: mount that one with NEON_BRANCH_ID=%s",
                       branch, branch);
    if (col_bool(res, 0, 2)) /* its deletion looks no more at what is active */
        return err_set(e, EBUSY, "branch %s is being deleted, as a command to prune asked: adopt another one", branch);
    *ret_before = col_dup(res, 0, 0, &failed);
    return failed ? err_set(e, ENOMEM, "out of memory") : 0;
}

/* The newest checkpoint of the line that the snapshot belongs to; 0 = none. */
static int checkpoint_with(struct conn *c, const struct act_row *act, const char *snapshot, int64_t *ret, struct err *e)
{
    cleanup_result PGresult *res = NULL;
    int r = q(c, &res, e,
              "SELECT id FROM checkpointfs.checkpoints WHERE line_id = $1 AND snapshot_id = $2 AND phase IN ('saved', 'sealed')"
              " ORDER BY seq DESC LIMIT 1", "is", act->line_id, snapshot);

    if (r == 0)
        *ret = PQntuples(res) ? col_int(res, 0, 0) : 0;
    return r;
}

/* A database that nobody knows: no checkpoint belongs to it. */
static int record_unknown(struct conn *c, const struct act_row *act, const struct done_args *d, struct err *e)
{
    int r = q(c, NULL, e,
              "INSERT INTO checkpointfs.restores (action_id, line_id, checkpoint_id, old_branch, new_branch, old_attempt,"
              " old_offline_by, old_closed) VALUES ($1, $2, 0, $3, $4, 0, 0, false)",
              "iiss", act->id, act->line_id, d->old_branch, d->new_branch);

    if (r == 0)
        r = q(c, NULL, e,
              "UPDATE checkpointfs.checkpoints SET offline_by = $2, changed_at = checkpointfs.now_ns() WHERE line_id = $1"
              " AND offline_by = 0 AND isolated_id = 0 AND phase <> 'failed'",
              "ii", act->line_id, act->id);
    return r;
}

static int only_promoted(const struct iso_row *i, const char *branch, struct err *e)
{
    cleanup_free char *file = str_format("%s/promote", i->path);
    cleanup_free char *how = offer_write(file, "promote");

    return how ? err_set(e, EXDEV, "branch %s is the isolated branch %s of %s: %s", branch, i->name, i->checkpoint_name, how)
                : err_set(e, ENOMEM, "out of memory");
}

/* The isolated branch that it is; *ret keeps 0 when it is none. Nobody makes a replay the production by accident: only one that Neon has
 * made the active one already is adopted, and then that is its promotion. */
static int isolated_of(struct conn *c, const struct act_row *act, const struct adopt_args *a, struct iso_row *ret, struct err *e)
{
    cleanup_result PGresult *res = NULL;
    int r = q(c, &res, e,
              "SELECT i.id, i.line_id FROM checkpointfs.isolated_branches i JOIN checkpointfs.lines l ON l.id = i.line_id"
              " WHERE l.project_id = $1 AND i.branch_id = $2 AND i.state IN ('making', 'ready')",
              "ss", act->project_id, a->branch);

    if (r || PQntuples(res) == 0)
        return r;
    r = iso_read(c, col_int(res, 0, 0), ret, e);
    if (r)
        return r;
    if (col_int(res, 0, 1) != act->line_id)
        return err_set(e, EXDEV, "branch %s is an isolated branch of another line of checkpoints in this store", a->branch);
    if (!a->active_there)
        return only_promoted(ret, a->branch, e);
    return iso_busy(c, ret, true, e);
}

/* What it means for the checkpoints. */
static int record_adopted(struct conn *c, const struct act_row *act, const struct ck_row *k, const struct iso_row *i,
                          const struct done_args *d, struct err *e)
{
    if (i->id)
        return record_promoted(c, act, k, i, d, e);
    return k->id ? record_line(c, act, k, d, e) : record_unknown(c, act, d, e);
}

/* It was recorded before the mount was killed: what was found out then. */
static int adopted_already(struct conn *c, struct adopt_args *a, struct err *e)
{
    cleanup_result PGresult *res = NULL;
    bool failed = false;
    int r = q(c, &res, e, "SELECT checkpoint_id, old_branch FROM checkpointfs.restores WHERE action_id = $1", "i", a->action);

    if (r)
        return r;
    a->checkpoint = col_int(res, 0, 0);
    a->before = col_dup(res, 0, 1, &failed);
    return failed ? err_set(e, ENOMEM, "out of memory") : 0;
}

static int adopted_fn(struct conn *c, void *arg, struct err *e)
{
    struct adopt_args *a = arg;
    cleanup_act struct act_row act = {0};
    cleanup_ck struct ck_row k = {0};
    cleanup_iso struct iso_row i = {0};
    cleanup_json json_t *more = NULL;
    struct done_args d = {.action = a->action, .new_branch = a->branch, .endpoint_id = a->endpoint_id};
    struct event ev = {.what = "adopt.finished"};
    int r = act_lock(c, a->action, &act, e);

    free(a->before);
    a->before = NULL;
    if (r || act.restored)
        return r ? r : adopted_already(c, a, e);
    if (act_settled(&act))
        return err_set(e, EALREADY, "the action %s was settled before", act.uid);
    r = adoptable(c, &act, a->branch, &a->before, e);
    if (r == 0 && str_equal(a->before, a->branch)) {
        a->checkpoint = -1;
        return q(c, NULL, e, "UPDATE checkpointfs.lines SET endpoint_id = $2 WHERE id = $1", "is", act.line_id, a->endpoint_id);
    }
    d.old_branch = a->before;
    if (r == 0)
        r = isolated_of(c, &act, a, &i, e);
    a->checkpoint = i.checkpoint;
    if (r == 0 && !i.id)
        r = checkpoint_with(c, &act, a->snapshot_id, &a->checkpoint, e);
    if (r == 0 && a->checkpoint)
        r = ck_read(c, a->checkpoint, &k, e);
    if (r == 0)
        r = record_branches(c, &act, &d, e);
    if (r == 0)
        r = record_adopted(c, &act, &k, &i, &d, e);
    if (r == 0)
        r = takes_may_pass(c, &act, e);
    if (r)
        return r;
    more = json_pack("{s:o*, s:o*}", "branch", json_text(a->branch), "replaced", json_text(a->before));
    event_about(&ev, &act, &k);
    ev.line_id = act.line_id;
    ev.more = more;
    r = event_append(c, &ev, e);
    ev.more = NULL;
    ev.asked_by = 0;
    return r || k.phase != PHASE_SEALED || !k.id || i.id ? r : new_attempt(c, &act, &k, &d, &ev, e);
}

int store_adopt_done(struct store *s, int64_t action, const char *branch, const char *endpoint_id, const char *snapshot_id,
                     bool active_there, int64_t *ret_checkpoint, char **ret_before, struct err *e)
{
    struct adopt_args a = {.action = action, .branch = branch, .endpoint_id = endpoint_id, .snapshot_id = snapshot_id,
                           .active_there = active_there};
    int r = store_tx(s, TX_WRITE, adopted_fn, &a, e);

    if (r) {
        free(a.before);
        return r;
    }
    *ret_checkpoint = a.checkpoint;
    *ret_before = a.before;
    return 0;
}
