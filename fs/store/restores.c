/* What a restore in place, an undo, a promotion and a delete change in the record, once they are true in Neon. */
#include "store_i.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "util/text.h"

int record_branches(struct conn *c, const struct act_row *act, const struct done_args *a, struct err *e)
{
    int r = q(c, NULL, e,
              "INSERT INTO checkpointfs.line_branches AS b (line_id, project_id, branch_id, replaced_name, replaced_by,"
              " replaced_at) VALUES ($1, $2, $3, $4, nullif($5, 0), now()) ON CONFLICT (project_id, branch_id) DO UPDATE SET"
              " replaced_name = excluded.replaced_name, replaced_by = excluded.replaced_by, replaced_at = now()",
              "isssi", act->line_id, act->project_id, a->old_branch, a->replaced_name,
              act->kind == ACTION_ADOPT ? 0 : act->id); /* by somebody else */

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
int record_line(struct conn *c, const struct act_row *act, const struct ck_row *k, const struct done_args *a,
                struct err *e)
{
    int r = q(c, NULL, e,
              "INSERT INTO checkpointfs.restores (action_id, line_id, checkpoint_id, old_branch, new_branch, old_attempt,"
              " old_offline_by, old_closed, old_outcome) SELECT $1, line_id, id, $3, $4, attempt_id, offline_by, closed, outcome"
              " FROM checkpointfs.checkpoints WHERE id = $2",
              "iiss", act->id, k->id, a->old_branch, a->new_branch);

    if (r == 0)
        r = others_off_line(c, k, act->id, e);
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
int new_attempt(struct conn *c, const struct act_row *act, const struct ck_row *k, const struct done_args *a,
                const struct event *base, struct err *e)
{
    cleanup_free char *told = NULL;
    struct event ev = *base;
    int64_t attempt = 0;
    int r = attempt_open(c, k->id, 0, act->id, &attempt, e);

    if (r)
        return r;
    if (act->kind != ACTION_REPLAY)
        return approval_requested(c, base, attempt, e);
    r = attempt_claim(c, k->id, 0, attempt, act->id, a->decisions, &told, e);
    if (r == 0)
        r = decided_event(c, base, attempt, false, told, e);
    ev.what = "resume.started";
    return r ? r : event_append(c, &ev, e);
}

int takes_may_pass(struct conn *c, const struct act_row *act, struct err *e)
{
    return q(c, NULL, e, "UPDATE checkpointfs.actions SET blocks_takes = false, changed_at = checkpointfs.now_ns() WHERE id = $1", "i",
             act->id);
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
        r = takes_may_pass(c, &act, e);
    if (r)
        return r;
    event_about(&ev, &act, &k);
    r = event_append(c, &ev, e);
    ev.more = NULL;
    ev.asked_by = 0;
    return r || k.phase != PHASE_SEALED ? r : new_attempt(c, &act, &k, a, &ev, e);
}

int store_restore_done(struct store *s, int64_t action, const char *new_branch, const char *old_branch, const char *replaced_name,
                       const char *endpoint_id, const char *decisions, struct err *e)
{
    struct done_args a = {.action = action, .new_branch = new_branch, .old_branch = old_branch, .replaced_name = replaced_name,
                          .endpoint_id = endpoint_id, .decisions = decisions};

    return store_tx(s, TX_WRITE, done_fn, &a, e);
}

/* ---- going back ------------------------------------------------------------------------------------------------------ */

void store_undo_free(struct store_undo *u)
{
    free(u->uid);
    free(u->name);
    free(u->old_branch);
    *u = (struct store_undo){0};
}

#define NEXT_SQL                                                                                                                 \
    "SELECT r.action_id, a.uid, r.checkpoint_id, k.name, r.old_branch FROM checkpointfs.restores r JOIN checkpointfs.actions a"   \
    " ON a.id = r.action_id LEFT JOIN checkpointfs.checkpoints k ON k.id = r.checkpoint_id WHERE r.line_id = $1 AND"              \
    " r.undone_by = 0 ORDER BY r.action_id DESC LIMIT 1"

static int nothing_left(struct err *e)
{
    return err_set(e, ENODATA, "there is nothing to undo: no restore in place is left on this line that wasn't undone");
}

int undo_left(struct conn *c, int64_t line_id, struct err *e)
{
    cleanup_result PGresult *res = NULL;
    int r = q(c, &res, e, NEXT_SQL, "i", line_id);

    return r || PQntuples(res) > 0 ? r : nothing_left(e);
}

struct next_args {
    int64_t line_id;
    struct store_undo u;
};

static int next_fn(struct conn *c, void *arg, struct err *e)
{
    struct next_args *a = arg;
    cleanup_result PGresult *res = NULL;
    bool failed = false;
    int r = q(c, &res, e, NEXT_SQL, "i", a->line_id);

    if (r)
        return r;
    if (PQntuples(res) == 0)
        return nothing_left(e);
    a->u.action = col_int(res, 0, 0);
    a->u.uid = col_dup(res, 0, 1, &failed);
    a->u.checkpoint = col_int(res, 0, 2);
    a->u.name = col_dup(res, 0, 3, &failed);
    a->u.old_branch = col_dup(res, 0, 4, &failed);
    return failed ? err_set(e, ENOMEM, "out of memory") : 0;
}

int store_undo_next(struct store *s, int64_t line_id, struct store_undo *ret, struct err *e)
{
    struct next_args a = {.line_id = line_id};
    int r = store_tx(s, TX_ONE_READ, next_fn, &a, e);

    if (r)
        store_undo_free(&a.u);
    else
        *ret = a.u;
    return r;
}

struct ids_args {
    int64_t line_id;
    char **ids;
};

static void ids_free(char **ids)
{
    for (char **p = ids; p && *p; p++)
        free(*p);
    free(ids);
}

static int ids_fn(struct conn *c, void *arg, struct err *e)
{
    struct ids_args *a = arg;
    cleanup_result PGresult *res = NULL;
    bool failed = false;
    int r = q(c, &res, e,
              "SELECT branch_id FROM checkpointfs.line_branches WHERE line_id = $1 AND replaced_by IS NOT NULL ORDER BY replaced_at", "i",
              a->line_id);

    if (r)
        return r;
    ids_free(a->ids);
    a->ids = calloc((size_t)PQntuples(res) + 1, sizeof(*a->ids));
    for (int i = 0; a->ids && i < PQntuples(res) && !failed; i++)
        a->ids[i] = col_dup(res, i, 0, &failed);
    return failed || !a->ids ? err_set(e, ENOMEM, "out of memory") : 0;
}

int store_replaced_ids(struct store *s, int64_t line_id, char ***ret, struct err *e)
{
    struct ids_args a = {.line_id = line_id};
    int r = store_tx(s, TX_ONE_READ, ids_fn, &a, e);

    if (r)
        ids_free(a.ids);
    else
        *ret = a.ids;
    return r;
}

/* The checkpoints as they were before the restore `undone`: in the order of the journal, what was taken since belongs to what goes
 * away now. A failed take stays as it is: whoever made it may have to hear why. */
static int put_back(struct conn *c, const struct act_row *act, int64_t undone, struct err *e)
{
    int r = q(c, NULL, e,
              "UPDATE checkpointfs.checkpoints SET offline_by = $3, changed_at = checkpointfs.now_ns() WHERE line_id = $1"
              " AND (seq > $2 OR promoted_by = $2) AND offline_by = 0 AND isolated_id = 0 AND phase <> 'failed'",
              "iii", act->line_id, undone, act->id);

    if (r == 0)
        r = q(c, NULL, e,
              "UPDATE checkpointfs.checkpoints SET offline_by = 0, changed_at = checkpointfs.now_ns() WHERE line_id = $1"
              " AND offline_by = $2 AND phase <> 'failed'",
              "ii", act->line_id, undone);
    if (r == 0)
        r = q(c, NULL, e,
              "UPDATE checkpointfs.checkpoints k SET attempt_id = r.old_attempt, offline_by = r.old_offline_by, closed = r.old_closed,"
              " outcome = r.old_outcome, changed_at = checkpointfs.now_ns() FROM checkpointfs.restores r WHERE r.action_id = $1"
              " AND k.id = r.checkpoint_id",
              "i", undone);
    if (r == 0)
        r = q(c, NULL, e, "UPDATE checkpointfs.restores SET undone_by = $2 WHERE action_id = $1 AND undone_by = 0", "ii", undone,
              act->id);
    return r;
}

/* The checkpoint that was restored, if it is still there: the event stands in its history too. */
static int checkpoint_of(struct conn *c, int64_t restore, struct ck_row *ret, char **ret_uid, struct err *e)
{
    cleanup_result PGresult *res = NULL;
    bool failed = false;
    int r = q(c, &res, e,
              "SELECT a.uid, coalesce(k.id, 0) FROM checkpointfs.restores r JOIN checkpointfs.actions a ON a.id = r.action_id"
              " LEFT JOIN checkpointfs.checkpoints k ON k.id = r.checkpoint_id WHERE r.action_id = $1",
              "i", restore);

    if (r == 0 && PQntuples(res) == 0)
        r = err_set(e, ENODATA, "the record has no restore %lld", (long long)restore);
    if (r == 0) {
        *ret_uid = col_dup(res, 0, 0, &failed);
        r = failed ? err_set(e, ENOMEM, "out of memory") : 0;
    }
    return r || !col_int(res, 0, 1) ? r : ck_read(c, col_int(res, 0, 1), ret, e);
}

static int undone_fn(struct conn *c, void *arg, struct err *e)
{
    const struct done_args *a = arg;
    cleanup_act struct act_row act = {0};
    cleanup_ck struct ck_row k = {0};
    cleanup_free char *uid = NULL;
    cleanup_json json_t *more = NULL;
    struct event ev = {.what = "undo.finished"};
    int r = act_lock(c, a->action, &act, e);

    if (r || act.restored) /* recorded before the mount was killed: true already */
        return r;
    if (act_settled(&act))
        return err_set(e, EALREADY, "the action %s was settled before", act.uid);
    r = checkpoint_of(c, a->undone, &k, &uid, e);
    if (r == 0)
        r = record_branches(c, &act, a, e);
    if (r == 0)
        r = put_back(c, &act, a->undone, e);
    if (r == 0)
        r = takes_may_pass(c, &act, e);
    if (r)
        return r;
    more = json_pack("{s:o*, s:o*, s:o*}", "undone", json_text(uid), "branch", json_text(a->new_branch), "replaced",
                     json_text(a->old_branch));
    event_about(&ev, &act, &k);
    ev.line_id = act.line_id;
    ev.more = more;
    return event_append(c, &ev, e);
}

int store_undo_done(struct store *s, int64_t action, int64_t undone, const char *new_branch, const char *old_branch,
                    const char *replaced_name, const char *endpoint_id, struct err *e)
{
    struct done_args a = {.action = action, .undone = undone, .new_branch = new_branch, .old_branch = old_branch,
                          .replaced_name = replaced_name, .endpoint_id = endpoint_id};

    return store_tx(s, TX_WRITE, undone_fn, &a, e);
}

/* ---- a promoted branch ----------------------------------------------------------------------------------------------- */

/* The checkpoint the branch was made from, the one that the branch it was taken on was made from, and so on: its database's past. */
#define PAST                                                                                                                     \
    "WITH RECURSIVE past AS (SELECT id, seq, isolated_id FROM checkpointfs.checkpoints WHERE id = $1 UNION ALL"                  \
    " SELECT k.id, k.seq, k.isolated_id FROM past JOIN checkpointfs.isolated_branches i ON i.id = past.isolated_id"              \
    " JOIN checkpointfs.checkpoints k ON k.id = i.checkpoint_id) "

/* What the branch's database has not behind it goes off line; what was taken on the branch, and on those before it
 * up to where it began, comes onto it. */
static int promote_checkpoints(struct conn *c, const struct act_row *act, const struct ck_row *k, const struct iso_row *i, struct err *e)
{
    int r = others_off_line(c, k, act->id, e);

    return r ? r : q(c, NULL, e,
                     PAST "UPDATE checkpointfs.checkpoints k SET isolated_id = 0, promoted_by = $3, changed_at = checkpointfs.now_ns()"
                     " WHERE k.isolated_id = $2 OR EXISTS (SELECT 1 FROM past WHERE past.isolated_id <> 0"
                     " AND past.isolated_id = k.isolated_id AND k.seq <= past.seq)",
                     "iii", k->id, i->id, act->id);
}

int record_promoted(struct conn *c, const struct act_row *act, const struct ck_row *k, const struct iso_row *i,
                    const struct done_args *a, struct err *e)
{
    int r = q(c, NULL, e,
              "INSERT INTO checkpointfs.restores (action_id, line_id, checkpoint_id, old_branch, new_branch, old_attempt,"
              " old_offline_by, old_closed, old_outcome, isolated_id) SELECT $1, line_id, id, $3, $4, attempt_id, offline_by, closed,"
              " outcome, $5 FROM checkpointfs.checkpoints WHERE id = $2",
              "iissi", act->id, k->id, a->old_branch, a->new_branch, i->id);

    if (r == 0)
        r = promote_checkpoints(c, act, k, i, e);
    if (r == 0)
        r = q(c, NULL, e,
              "UPDATE checkpointfs.checkpoints k SET offline_by = 0, closed = k.closed OR k.phase = 'saved', attempt_id = i.attempt_id,"
              " outcome = i.outcome, changed_at = checkpointfs.now_ns() FROM checkpointfs.isolated_branches i WHERE k.id = $1"
              " AND i.id = $2", "ii", k->id, i->id);
    if (r == 0)
        r = q(c, NULL, e, "UPDATE checkpointfs.isolated_branches SET state = 'promoted' WHERE id = $1", "i", i->id);
    if (r == 0 && k->phase == PHASE_SAVED)
        r = q(c, NULL, e, "DELETE FROM checkpointfs.state_parts WHERE checkpoint_id = $1", "i", k->id);
    return r ? r : iso_touch(c, i->id, e);
}

static int promoted_fn(struct conn *c, void *arg, struct err *e)
{
    const struct done_args *a = arg;
    cleanup_act struct act_row act = {0};
    cleanup_ck struct ck_row k = {0};
    cleanup_iso struct iso_row i = {0};
    cleanup_json json_t *more = json_pack("{s:o*, s:o*}", "branch", json_text(a->new_branch), "replaced", json_text(a->old_branch));
    struct event ev = {.what = "promote.finished", .more = more};
    int r = act_lock(c, a->action, &act, e);

    if (r || act.restored) /* recorded before the mount was killed: true already */
        return r;
    if (act_settled(&act))
        return err_set(e, EALREADY, "the action %s was settled before", act.uid);
    r = ck_read(c, act.checkpoint, &k, e);
    if (r == 0)
        r = iso_read(c, act.isolated, &i, e);
    if (r == 0)
        r = record_branches(c, &act, a, e);
    if (r == 0)
        r = record_promoted(c, &act, &k, &i, a, e);
    if (r == 0)
        r = takes_may_pass(c, &act, e);
    if (r)
        return r;
    event_about(&ev, &act, &k);
    ev.branch = i.name;
    return event_append(c, &ev, e);
}

int store_promote_done(struct store *s, int64_t action, const char *new_branch, const char *old_branch, const char *replaced_name,
                       const char *endpoint_id, struct err *e)
{
    struct done_args a = {.action = action, .new_branch = new_branch, .old_branch = old_branch, .replaced_name = replaced_name,
                          .endpoint_id = endpoint_id};

    return store_tx(s, TX_WRITE, promoted_fn, &a, e);
}

/* ---- delete ------------------------------------------------------------------------------------------------------------ */

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
        r = act_doc(c, act.id, 0, 0, a->doc, true, e);
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
