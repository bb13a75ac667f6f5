/* The application of a plan: one item after the other is claimed, deleted in Neon by the engine, and recorded. */
#include "store_i.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "util/text.h"

/* ---- may it still go? ------------------------------------------------------------------------------------------------- */

/* What has changed since the plan. One row; the first column that is true says why it stays. */
static const char checks[] =
    "SELECT EXISTS (SELECT 1 FROM checkpointfs.actions x WHERE x.checkpoint_id = k.id AND x.state IN ('queued', 'running') AND x.id <> $3)"
    "  OR " UNSEALED_STATE ","
    " EXISTS (SELECT 1 FROM checkpointfs.restores x WHERE x.checkpoint_id = k.id AND x.action_id > p.made_by),"
    " coalesce(a.state = 'open', false) AND k.offline_by = 0 AND NOT i.pending AND (k.waits_input OR EXISTS (SELECT 1"
    "  FROM checkpointfs.calls c WHERE c.checkpoint_id = k.id)),"
    " NOT i.latest AND k.id IS NOT DISTINCT FROM (SELECT id FROM checkpointfs.checkpoints WHERE line_id = k.line_id AND phase = 'sealed'"
    "  AND offline_by = 0 AND isolated_id = 0 ORDER BY seq DESC LIMIT 1),"
    " EXISTS (SELECT 1 FROM checkpointfs.isolated_branches b WHERE b.checkpoint_id = k.id),"
    " i.what = 'checkpoint' AND EXISTS (SELECT 1 FROM checkpointfs.states s WHERE s.parent = k.uid),"
    " i.what = 'snapshot' AND (k.missing OR k.snapshot_id IS NULL), i.what = 'snapshot' AND " SHARED_SNAPSHOT
    " FROM checkpointfs.plan_items i JOIN checkpointfs.plans p ON p.id = i.plan_id"
    " JOIN checkpointfs.checkpoints k ON k.id = i.checkpoint_id"
    " LEFT JOIN checkpointfs.attempts a ON a.id = k.attempt_id WHERE p.id = $1 AND i.n = $2::int";

/* Why the item stays now: NULL = it goes. `e` only when the store fails. */
static int stays(struct conn *c, int64_t plan, const struct store_plan_item *i, int64_t action, const char **ret, struct err *e)
{
    static const char *const why[] = {
        "something is under way on it", "it was restored since the plan was made", "it awaits a decision again", "it is the latest now",
        "isolated branches were made of it",
        "it is the parent of one that is kept", "its snapshot is gone already",
        "another checkpoint stands on its snapshot too",
    };
    cleanup_result PGresult *res = NULL;
    cleanup_ck struct ck_row k = {0};
    cleanup_err struct err pinned = {0};
    int r = ck_read(c, i->checkpoint, &k, e);

    *ret = NULL;
    if (r == -ENOENT) {
        err_clear(e);
        *ret = "it is gone already";
        return 0;
    }
    if (r)
        return r;
    r = ck_unpinned(c, &k, &pinned);
    if (r == -EPERM) {
        *ret = "it is pinned now";
        return 0;
    }
    if (r)
        return err_move(e, &pinned);
    r = q(c, &res, e, checks, "iii", plan, (int64_t)i->n, action);
    if (r)
        return r;
    for (int n = 0; PQntuples(res) > 0 && n < (int)(sizeof(why) / sizeof(*why)) && !*ret; n++)
        if (col_bool(res, 0, n))
            *ret = why[n];
    return 0;
}

/* ---- the next one ----------------------------------------------------------------------------------------------------- */

struct next_args {
    int64_t action;
    struct store_plan_item item;
    size_t total;
    int found; /* 0 nothing is left, 1 claimed, 2 skipped */
};

static int settle_item(struct conn *c, int64_t plan, int n, const char *outcome, const char *message, const char *requests, struct err *e)
{
    return q(c, NULL, e,
             "UPDATE checkpointfs.plan_items SET outcome = $3, message = $4, requests = $5::json WHERE plan_id = $1 AND n = $2::int",
             "iisss", plan, (int64_t)n, outcome, message, requests);
}

static int total(struct conn *c, int64_t plan, size_t *ret, struct err *e)
{
    cleanup_result PGresult *res = NULL;
    int r = q(c, &res, e, "SELECT count(*) FROM checkpointfs.plan_items WHERE plan_id = $1", "i", plan);

    if (r == 0)
        *ret = (size_t)col_int(res, 0, 0);
    return r;
}

static int claim(struct conn *c, int64_t plan, struct next_args *a, struct err *e)
{
    cleanup_free char *activity = str_format("deleting %d/%zu", a->item.n, a->total);
    int r = activity ? 0 : err_set(e, ENOMEM, "out of memory");

    if (r == 0)
        r = q(c, NULL, e,
              "UPDATE checkpointfs.plan_items i SET outcome = 'deleting',"
              " snapshot_id = CASE WHEN k.missing THEN NULL ELSE k.snapshot_id END"
              " FROM checkpointfs.checkpoints k WHERE i.plan_id = $1 AND i.n = $2::int AND k.id = i.checkpoint_id", "ii", plan,
              (int64_t)a->item.n);
    if (r == 0)
        r = q(c, NULL, e, "UPDATE checkpointfs.actions SET checkpoint_id = $2, changed_at = checkpointfs.now_ns() WHERE id = $1", "ii",
              a->action, a->item.checkpoint);
    if (r == 0)
        r = q(c, NULL, e, "UPDATE checkpointfs.checkpoints SET activity = $2, changed_at = checkpointfs.now_ns() WHERE id = $1", "is",
              a->item.checkpoint, activity);
    return r ? r : notify_change(c, a->item.checkpoint, e);
}

/* The plan that the action applies, its line locked. -ENOENT. */
static int plan_of(struct conn *c, int64_t action, struct act_row *act, int64_t *ret_plan, struct err *e)
{
    cleanup_result PGresult *res = NULL;
    int r = act_lock(c, action, act, e);

    if (r == 0 && act_settled(act))
        r = err_set(e, EALREADY, "the action %s was settled before", act->uid);
    if (r == 0)
        r = q(c, &res, e, "SELECT id FROM checkpointfs.plans WHERE applied_by = $1", "i", action);
    if (r == 0 && PQntuples(res) == 0)
        r = err_set(e, ENOENT, "the action %s applies no plan", act->uid);
    if (r == 0)
        *ret_plan = col_int(res, 0, 0);
    return r;
}

static int next_fn(struct conn *c, void *arg, struct err *e)
{
    struct next_args *a = arg;
    cleanup_act struct act_row act = {0};
    cleanup_result PGresult *res = NULL;
    const char *why = NULL;
    int64_t plan = 0;
    int r = plan_of(c, a->action, &act, &plan, e);

    store_plan_item_clear(&a->item);
    a->found = 0;
    if (r == 0)
        r = q(c, &res, e,
              PLAN_ITEM_COLUMNS "WHERE i.plan_id = $1 AND coalesce(i.outcome, 'deleting') = 'deleting'"
                                " ORDER BY i.outcome IS NULL, i.n LIMIT 1",
              "i", plan);
    if (r || PQntuples(res) == 0)
        return r;
    r = plan_item_read(res, 0, &a->item, e);
    if (r == 0)
        r = total(c, plan, &a->total, e);
    if (r == 0 && a->item.outcome) { /* it was claimed before a mount died */
        a->found = 1;
        return 0;
    }
    if (r == 0)
        r = stays(c, plan, &a->item, a->action, &why, e);
    if (r)
        return r;
    a->found = why ? 2 : 1;
    r = why ? settle_item(c, plan, a->item.n, "skipped", why, NULL, e) : claim(c, plan, a, e);
    if (r)
        return r;
    {
        cleanup_result PGresult *now = NULL;

        r = q(c, &now, e, PLAN_ITEM_COLUMNS "WHERE i.plan_id = $1 AND i.n = $2::int", "ii", plan, (int64_t)a->item.n);
        store_plan_item_clear(&a->item);
        return r ? r : plan_item_read(now, 0, &a->item, e);
    }
}

int store_prune_next(struct store *s, int64_t action, struct store_plan_item *ret, size_t *ret_total, struct err *e)
{
    struct next_args a = {.action = action};
    int r = store_tx(s, TX_WRITE, next_fn, &a, e);

    if (r || !a.found) {
        store_plan_item_clear(&a.item);
        return r;
    }
    *ret = a.item;
    *ret_total = a.total;
    return a.found;
}

/* ---- it is gone, or it stays ------------------------------------------------------------------------------------------ */

struct settle_args {
    int64_t action;
    int item;
    const char *message; /* NULL: it is gone */
    const char *requests;
};

/* The checkpoint is nobody's business any more. */
static int let_go(struct conn *c, const struct act_row *act, int64_t checkpoint, struct err *e)
{
    int r = q(c, NULL, e, "UPDATE checkpointfs.actions SET checkpoint_id = NULL, changed_at = checkpointfs.now_ns() WHERE id = $1", "i",
              act->id);

    return r ? r : q(c, NULL, e,
                     "UPDATE checkpointfs.checkpoints SET activity = NULL, changed_at = checkpointfs.now_ns() WHERE id = $1", "i",
                     checkpoint);
}

static int snapshot_gone(struct conn *c, const struct ck_row *k, struct err *e)
{
    return q(c, NULL, e, "UPDATE checkpointfs.checkpoints SET missing = true, changed_at = checkpointfs.now_ns() WHERE id = $1", "i",
             k->id);
}

static int settle_fn(struct conn *c, void *arg, struct err *e)
{
    const struct settle_args *a = arg;
    cleanup_act struct act_row act = {0};
    cleanup_ck struct ck_row k = {0};
    cleanup_result PGresult *res = NULL;
    cleanup_json json_t *more = NULL;
    struct store_plan_item item = {0};
    struct event ev = {0};
    int64_t plan = 0;
    int r = plan_of(c, a->action, &act, &plan, e);

    if (r == 0)
        r = q(c, &res, e, PLAN_ITEM_COLUMNS "WHERE i.plan_id = $1 AND i.n = $2::int AND i.outcome = 'deleting'", "ii", plan,
              (int64_t)a->item);
    if (r || PQntuples(res) == 0)
        return r; /* it was recorded before */
    r = plan_item_read(res, 0, &item, e);
    if (r == 0)
        r = ck_read(c, item.checkpoint, &k, e);
    if (r == 0)
        r = settle_item(c, plan, a->item, a->message ? "skipped" : "deleted", a->message, a->requests, e);
    if (r == 0)
        r = let_go(c, &act, k.id, e);
    if (r == 0 && !a->message)
        r = item.whole ? checkpoint_remove(c, k.id, e) : snapshot_gone(c, &k, e);
    if (r == 0 && a->message) {
        r = notify_change(c, k.id, e);
    } else if (r == 0) {
        ev.what = item.whole ? "checkpoint.deleted" : "snapshot.deleted";
        more = json_pack("{s:o*, s:o*, s:o*}", "why", json_text(item.why),
                         "snapshot", item.snapshot_id ? json_text(item.snapshot_id) : NULL,
                         "requests", a->requests ? json_loads(a->requests, 0, NULL) : NULL);
        ev.more = more;
        event_about(&ev, &act, &k);
        r = event_append(c, &ev, e);
    }
    store_plan_item_clear(&item);
    return r;
}

int store_prune_done(struct store *s, int64_t action, int item, const char *requests, struct err *e)
{
    struct settle_args a = {.action = action, .item = item, .requests = requests};

    return store_tx(s, TX_WRITE, settle_fn, &a, e);
}

int store_prune_skip(struct store *s, int64_t action, int item, const char *message, const char *requests, struct err *e)
{
    struct settle_args a = {.action = action, .item = item, .message = message, .requests = requests};

    return store_tx(s, TX_WRITE, settle_fn, &a, e);
}

static int release_fn(struct conn *c, void *arg, struct err *e)
{
    int64_t action = *(const int64_t *)arg;
    cleanup_act struct act_row act = {0};
    int64_t plan = 0;
    int r = plan_of(c, action, &act, &plan, e);

    if (r == 0 && act.checkpoint)
        r = let_go(c, &act, act.checkpoint, e);
    if (r == 0)
        r = q(c, NULL, e, "UPDATE checkpointfs.plan_items SET outcome = NULL, message = NULL, snapshot_id = NULL WHERE plan_id = $1", "i",
              plan);
    if (r == 0)
        r = q(c, NULL, e, "UPDATE checkpointfs.plans SET applied_by = NULL WHERE id = $1", "i", plan);
    return r || !act.checkpoint ? r : notify_change(c, act.checkpoint, e);
}

int store_prune_release(struct store *s, int64_t action, struct err *e)
{
    return store_tx(s, TX_WRITE, release_fn, &action, e);
}

/* ---- the rest of the action ------------------------------------------------------------------------------------------- */

struct doc_args {
    int64_t action;
    const char *step, *data, *doc;
};

static int doc_fn(struct conn *c, void *arg, struct err *e)
{
    const struct doc_args *a = arg;
    cleanup_act struct act_row act = {0};
    int r = act_lock(c, a->action, &act, e);

    if (r == 0 && act_settled(&act))
        r = err_set(e, EALREADY, "the action %s was settled before", act.uid);
    if (r == 0)
        r = q(c, NULL, e, "UPDATE checkpointfs.actions SET step = $2, data = $3::json WHERE id = $1", "iss", act.id, a->step, a->data);
    return r ? r : act_doc(c, act.id, 0, 0, a->doc, false, e);
}

int store_prune_doc(struct store *s, int64_t action, const char *step, const char *data, const char *doc, struct err *e)
{
    struct doc_args a = {.action = action, .step = step, .data = data, .doc = doc};

    return store_tx(s, TX_WRITE, doc_fn, &a, e);
}

struct gone_args {
    int64_t action;
    const char *branch;
};

/* Once: the step that it comes with says that it is recorded. */
static int gone_fn(struct conn *c, void *arg, struct err *e)
{
    const struct gone_args *a = arg;
    cleanup_act struct act_row act = {0};
    cleanup_result PGresult *res = NULL;
    cleanup_json json_t *more = json_pack("{s:o*}", "branch", json_text(a->branch));
    struct event ev = {.what = "branch.deleted", .more = more};
    int r = act_lock(c, a->action, &act, e);

    if (r == 0)
        r = q(c, &res, e, "UPDATE checkpointfs.actions SET step = $2, changed_at = checkpointfs.now_ns() WHERE id = $1 AND step <> $2",
              "is", act.id, STORE_STEP_GONE);
    if (r || affected(res) == 0)
        return r;
    r = q(c, NULL, e, "UPDATE checkpointfs.line_branches SET gone = true WHERE branch_id = $1 AND line_id = $2 AND NOT gone", "si",
          a->branch, act.line_id);
    ev.line_id = act.line_id;
    ev.action = act.uid;
    ev.by = act.by;
    return r ? r : event_append(c, &ev, e);
}

int store_branch_gone(struct store *s, int64_t action, const char *branch, struct err *e)
{
    struct gone_args a = {.action = action, .branch = branch};

    return store_tx(s, TX_WRITE, gone_fn, &a, e);
}
