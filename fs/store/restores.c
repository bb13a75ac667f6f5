/* What a restore in place and a delete change in the record, once they are true in Neon. */
#include "store_i.h"

#include <errno.h>
#include <string.h>

#include "util/text.h"

struct done_args {
    int64_t action;
    const char *new_branch, *old_branch, *replaced_name, *endpoint_id, *decisions;
    const char *doc;
};

static int record_branches(struct conn *c, const struct act_row *act, const struct done_args *a, struct err *e)
{
    int r = q(c, NULL, e,
              "INSERT INTO checkpointfs.line_branches AS b (line_id, project_id, branch_id, replaced_name, replaced_by,"
              " replaced_at) VALUES ($1, $2, $3, $4, $5, now()) ON CONFLICT (project_id, branch_id) DO UPDATE SET"
              " replaced_name = excluded.replaced_name, replaced_by = excluded.replaced_by, replaced_at = now()",
              "isssi", act->line_id, act->project_id, a->old_branch, a->replaced_name, act->id);

    if (r == 0)
        r = q(c, NULL, e,
              "INSERT INTO checkpointfs.line_branches (line_id, project_id, branch_id) VALUES ($1, $2, $3)"
              " ON CONFLICT (project_id, branch_id) DO UPDATE SET replaced_name = NULL, replaced_by = NULL, replaced_at = NULL",
              "iss", act->line_id, act->project_id, a->new_branch);
    if (r == 0)
        r = q(c, NULL, e,
              "UPDATE checkpointfs.lines SET active_branch = $2, endpoint_id = coalesce($3, endpoint_id) WHERE id = $1", "iss",
              act->line_id, a->new_branch, a->endpoint_id);
    return r;
}

/* Which checkpoints belong to the database that is there now. */
static int record_line(struct conn *c, const struct act_row *act, const struct ck_row *k, const struct done_args *a,
                       struct err *e)
{
    int r = q(c, NULL, e,
              "INSERT INTO checkpointfs.restores (action_id, line_id, checkpoint_id, old_branch, new_branch, old_attempt,"
              " old_offline_by, old_closed, old_outcome) SELECT $1, line_id, id, $3, $4, attempt_id, offline_by, closed, outcome"
              " FROM checkpointfs.checkpoints WHERE id = $2",
              "iiss", act->id, k->id, a->old_branch, a->new_branch);

    if (r == 0)
        r = q(c, NULL, e,
              "UPDATE checkpointfs.checkpoints SET offline_by = $3, changed_at = checkpointfs.now_ns() WHERE line_id = $1"
              " AND seq > $2 AND offline_by = 0 AND phase <> 'failed'",
              "iii", k->line_id, k->seq, act->id);
    if (r == 0)
        r = q(c, NULL, e,
              "UPDATE checkpointfs.checkpoints SET offline_by = 0, closed = closed OR phase = 'saved', outcome = NULL,"
              " changed_at = checkpointfs.now_ns() WHERE id = $1",
              "i", k->id);
    if (r == 0 && k->phase == PHASE_SAVED) /* it takes no state any more: what was begun is void */
        r = q(c, NULL, e, "DELETE FROM checkpointfs.state_parts WHERE checkpoint_id = $1", "i", k->id);
    return r;
}

/* A new attempt: open for whoever decides, or claimed at once by the replay that brings its decision along. */
static int new_attempt(struct conn *c, const struct act_row *act, const struct ck_row *k, const struct done_args *a,
                       const struct event *base, struct err *e)
{
    cleanup_json json_t *decided = NULL;
    struct event ev = *base;
    int64_t attempt = 0;
    int r = attempt_open(c, k->id, act->id, &attempt, e);

    if (r)
        return r;
    if (act->kind != ACTION_REPLAY)
        return approval_requested(c, base, attempt, e);
    r = attempt_claim(c, k->id, attempt, act->id, a->decisions, &decided, e);
    if (r == 0)
        r = decided_event(c, base, attempt, false, decided, a->decisions, e);
    ev.what = "resume.started";
    return r ? r : event_append(c, &ev, e);
}

static int done_fn(struct conn *c, void *arg, struct err *e)
{
    const struct done_args *a = arg;
    cleanup_act struct act_row act = {0};
    cleanup_ck struct ck_row k = {0};
    cleanup_json json_t *more = json_pack("{s:o*, s:o*}", "branch", json_text(a->new_branch), "replaced",
                                          json_text(a->old_branch));
    struct event ev = {.what = "restore.finished", .more = more};
    int r = act_lock(c, a->action, &act, e);

    if (r || act.restored) /* recorded before the mount was killed: true already */
        return r;
    if (act_settled(&act))
        return err_set(e, EALREADY, "the action %s was settled before", act.uid);
    r = ck_read(c, act.checkpoint, &k, e);
    if (r == 0)
        r = record_branches(c, &act, a, e);
    if (r == 0)
        r = record_line(c, &act, &k, a, e);
    if (r == 0)
        r = q(c, NULL, e,
              "UPDATE checkpointfs.actions SET blocks_takes = false, changed_at = checkpointfs.now_ns() WHERE id = $1", "i",
              act.id);
    if (r)
        return r;
    event_about(&ev, &act, &k);
    r = event_append(c, &ev, e);
    ev.more = NULL;
    return r || k.phase != PHASE_SEALED ? r : new_attempt(c, &act, &k, a, &ev, e);
}

int store_restore_done(struct store *s, int64_t action, const char *new_branch, const char *old_branch, const char *replaced_name,
                       const char *endpoint_id, const char *decisions, struct err *e)
{
    struct done_args a = {.action = action, .new_branch = new_branch, .old_branch = old_branch, .replaced_name = replaced_name,
                          .endpoint_id = endpoint_id, .decisions = decisions};

    return store_tx(s, TX_WRITE, done_fn, &a, e);
}

static int deleted_fn(struct conn *c, void *arg, struct err *e)
{
    const struct done_args *a = arg;
    cleanup_act struct act_row act = {0};
    cleanup_ck struct ck_row k = {0};
    struct event ev = {.what = "checkpoint.deleted"};
    int r = act_lock(c, a->action, &act, e);

    if (r == 0 && act_settled(&act))
        r = err_set(e, EALREADY, "the action %s was settled before", act.uid);
    if (r == 0)
        r = ck_read(c, act.checkpoint, &k, e);
    if (r == 0 && a->doc)
        r = act_doc(c, act.id, 0, a->doc, true, e);
    if (r == 0)
        r = act_settle(c, act.id, ACTION_DONE, 0, NULL, e);
    if (r == 0)
        r = checkpoint_remove(c, k.id, e);
    if (r)
        return r;
    event_about(&ev, &act, &k);
    return event_append(c, &ev, e);
}

int store_delete_done(struct store *s, int64_t action, const char *doc, struct err *e)
{
    struct done_args a = {.action = action, .doc = doc};

    return store_tx(s, TX_WRITE, deleted_fn, &a, e);
}
