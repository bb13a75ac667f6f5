/* Prune: what is known for a plan, plans, and their application item by item, each checked again when its turn comes. */
#include "store_i.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "util/text.h"

/* ---- what a plan is made of ------------------------------------------------------------------------------------------ */

void store_facts_free(struct store_fact *f, size_t n)
{
    for (size_t i = 0; f && i < n; i++) {
        free(f[i].uid);
        free(f[i].name);
        free(f[i].parent);
    }
    free(f);
}

/* The newest sealed checkpoint that is on line, by id. */
#define LATEST                                                                                                                   \
    "(SELECT id FROM checkpointfs.checkpoints WHERE line_id = $1 AND phase = 'sealed' AND offline_by = 0 AND isolated_id = 0"   \
    " ORDER BY seq DESC LIMIT 1)"
#define PENDING                                                                                                                  \
    "(k.phase = 'sealed' AND k.offline_by = 0 AND coalesce(a.state = 'open', false) AND (k.waits_input OR EXISTS"               \
    " (SELECT 1 FROM checkpointfs.calls c WHERE c.checkpoint_id = k.id)))"

struct facts_args {
    int64_t line_id;
    struct store_fact *list;
    size_t n;
};

static bool read_fact(const PGresult *res, int row, struct store_fact *f)
{
    bool failed = false;

    f->id = col_int(res, row, 0);
    f->uid = col_dup(res, row, 1, &failed);
    f->name = col_dup(res, row, 2, &failed);
    f->parent = col_dup(res, row, 3, &failed);
    f->seq = col_int(res, row, 4);
    f->created_at = col_int(res, row, 5);
    f->state_bytes = col_int(res, row, 6);
    f->has_snapshot = col_bool(res, row, 7);
    f->pending = col_bool(res, row, 8);
    f->busy = col_bool(res, row, 9);
    f->latest = col_bool(res, row, 10);
    f->branched = col_bool(res, row, 12);
    f->pinned = !col_null(res, row, 11) && meta_pinned(PQgetvalue(res, row, 11), (size_t)PQgetlength(res, row, 11));
    return !failed;
}

static int facts_fn(struct conn *c, void *arg, struct err *e)
{
    struct facts_args *a = arg;
    cleanup_result PGresult *res = NULL;
    int r = q(c, &res, e,
              "SELECT k.id, k.uid, k.name, s.parent, k.seq, k.created_at, greatest(k.state_size, 0),"
              " k.snapshot_id IS NOT NULL AND NOT k.missing AND NOT " SHARED_SNAPSHOT ", " PENDING ","
              " EXISTS (SELECT 1 FROM checkpointfs.actions b WHERE b.checkpoint_id = k.id AND b.state IN ('queued', 'running'))"
              "  OR " UNSEALED_STATE ", k.id IS NOT DISTINCT FROM " LATEST ", m.bytes,"
              " EXISTS (SELECT 1 FROM checkpointfs.isolated_branches i WHERE i.checkpoint_id = k.id)"
              " FROM checkpointfs.checkpoints k LEFT JOIN checkpointfs.states s ON s.checkpoint_id = k.id"
              " LEFT JOIN checkpointfs.attempts a ON a.id = k.attempt_id"
              " LEFT JOIN checkpointfs.files m ON m.checkpoint_id = k.id AND m.kind = 'meta'"
              " WHERE k.line_id = $1 AND k.phase IN ('saved', 'sealed') ORDER BY k.seq",
              "i", a->line_id);

    store_facts_free(a->list, a->n);
    a->list = NULL;
    a->n = 0;
    if (r)
        return r;
    a->list = calloc((size_t)PQntuples(res) + 1, sizeof(*a->list));
    if (!a->list)
        return err_set(e, ENOMEM, "out of memory");
    for (int i = 0; i < PQntuples(res); i++) {
        a->n++;
        if (!read_fact(res, i, &a->list[i]))
            return err_set(e, ENOMEM, "out of memory");
    }
    return 0;
}

int store_facts(struct store *s, int64_t line_id, struct store_fact **ret, size_t *ret_n, struct err *e)
{
    struct facts_args a = {.line_id = line_id};
    int r = store_tx(s, TX_READ_LONG, facts_fn, &a, e);

    if (r) {
        store_facts_free(a.list, a.n);
        return r;
    }
    *ret = a.list;
    *ret_n = a.n;
    return 0;
}

/* ---- the action ------------------------------------------------------------------------------------------------------- */

struct prune_args {
    const struct store_begin *b;
    const char *plan, *branch;
    bool queued;
    struct store_action act;
};

static int check_plan(struct conn *c, const struct prune_args *a, int64_t *ret_plan, struct err *e)
{
    cleanup_result PGresult *res = NULL;
    int r = q(c, &res, e,
              "SELECT p.id, x.uid, p.made_at < checkpointfs.now_ns() - $3 * 3600000000000, (SELECT b.uid FROM checkpointfs.plans o"
              " JOIN checkpointfs.actions b ON b.id = o.applied_by WHERE o.line_id = $2 AND b.state IN ('queued', 'running') LIMIT 1)"
              " FROM checkpointfs.plans p LEFT JOIN checkpointfs.actions x ON x.id = p.applied_by WHERE p.uid = $1 AND p.line_id = $2",
              "sii", a->plan, a->b->line_id, (int64_t)STORE_PLAN_HOURS);

    if (r)
        return r;
    if (PQntuples(res) == 0)
        return err_set(e, ENOENT, "there is no plan %s: write the rules first, `result` names the plan", a->plan);
    if (!col_null(res, 0, 1))
        return err_set(e, EALREADY, "%s was applied already, by the action %s: write the rules again for a new plan", a->plan,
                       col_text(res, 0, 1));
    if (col_bool(res, 0, 2))
        return err_set(e, ESTALE, "%s is older than %d hours, and much may have changed since: write the rules again for a new plan",
                       a->plan, STORE_PLAN_HOURS);
    if (!col_null(res, 0, 3))
        return err_set(e, EBUSY, "another plan is being applied (%s): wait for it", col_text(res, 0, 3));
    *ret_plan = col_int(res, 0, 0);
    return 0;
}

static int check_branch(struct conn *c, const struct prune_args *a, struct err *e)
{
    cleanup_result PGresult *res = NULL;
    int r = q(c, &res, e,
              "SELECT b.replaced_at IS NOT NULL, b.replaced_by IS NOT NULL, b.gone, EXISTS (SELECT 1 FROM checkpointfs.actions x"
              " WHERE x.line_id = $2 AND x.kind = 'prune' AND x.state IN ('queued', 'running') AND x.data->>'branch' = $1)"
              " FROM checkpointfs.line_branches b WHERE b.branch_id = $1 AND b.line_id = $2",
              "si", a->branch, a->b->line_id);

    if (r)
        return r;
    if (PQntuples(res) == 0)
        return err_set(e, EPERM, "%s is no branch that a restore from here replaced; .control/replaced/ lists those. Others are deleted in"
                       " Neon's console", a->branch);
    if (!col_bool(res, 0, 0))
        return err_set(e, EPERM, "%s is the active branch", a->branch);
    if (!col_bool(res, 0, 1))
        return err_set(e, EPERM, "%s was replaced from outside and not by a restore from here: delete it in Neon's console", a->branch);
    if (col_bool(res, 0, 2))
        return err_set(e, ENOENT, "%s is gone from Neon already", a->branch);
    return col_bool(res, 0, 3) ? err_set(e, EBUSY, "%s is being deleted", a->branch) : 0;
}

static int begin_fn(struct conn *c, void *arg, struct err *e)
{
    struct prune_args *a = arg;
    cleanup_free char *by = who_json(a->b->who);
    cleanup_free char *uid = NULL;
    cleanup_free char *sql = str_format("%sWHERE id = $1", act_columns);
    cleanup_result PGresult *res = NULL;
    cleanup_json json_t *more = json_pack("{s:o*, s:o*, s:o*}", "command", json_text(a->b->command), "plan", json_text(a->plan), "branch",
                                          json_text(a->branch));
    struct act_new n = {.kind = ACTION_PRUNE, .state = a->queued ? ACTION_QUEUED : ACTION_RUNNING, .line_id = a->b->line_id,
                        .mount_id = a->b->mount_id, .command = a->b->command, .by = by, .waiting = a->queued};
    struct event ev = {.what = "prune.started", .line_id = a->b->line_id, .by = by, .more = more};
    int64_t plan = 0;
    int64_t id = 0;
    int r = by && sql ? line_lock(c, a->b->line_id, e) : err_set(e, ENOMEM, "out of memory");

    if (r == 0 && a->plan)
        r = check_plan(c, a, &plan, e);
    if (r == 0 && a->branch)
        r = check_branch(c, a, e);
    if (r == 0)
        r = act_insert(c, &n, &id, &uid, e);
    if (r == 0 && plan)
        r = q(c, NULL, e, "UPDATE checkpointfs.plans SET applied_by = $2 WHERE id = $1", "ii", plan, id);
    if (r == 0 && a->branch)
        r = q(c, NULL, e, "UPDATE checkpointfs.actions SET data = json_build_object('branch', $2::text) WHERE id = $1", "is", id,
              a->branch);
    if (r == 0)
        r = q(c, &res, e, sql, "i", id);
    store_action_free(&a->act);
    if (r == 0)
        r = act_read(res, 0, &a->act, e);
    ev.action = uid;
    return r || !(plan || a->branch) ? r : event_append(c, &ev, e);
}

int store_prune_begin(struct store *s, const struct store_begin *b, const char *plan, const char *branch, bool queued,
                      struct store_action *ret, struct err *e)
{
    struct prune_args a = {.b = b, .plan = plan, .branch = branch, .queued = queued};
    int r = store_tx(s, TX_WRITE, begin_fn, &a, e);

    if (r)
        store_action_free(&a.act);
    else
        *ret = a.act;
    return r;
}

/* ---- plans ------------------------------------------------------------------------------------------------------------- */

void store_plan_item_clear(struct store_plan_item *i)
{
    char *texts[] = {i->uid, i->name, i->why, i->snapshot_id, i->outcome, i->message, i->requests};

    for (size_t k = 0; k < sizeof(texts) / sizeof(*texts); k++)
        free(texts[k]);
    *i = (struct store_plan_item){0};
}

void store_plan_items_free(struct store_plan_item *items, size_t n)
{
    for (size_t i = 0; items && i < n; i++)
        store_plan_item_clear(&items[i]);
    free(items);
}

struct put_args {
    int64_t action;
    const char *uid, *rules;
    bool apply;
    const struct store_plan_item *items;
    size_t n;
};

static int put_items(struct conn *c, int64_t plan, const struct put_args *a, struct err *e)
{
    int r = 0;

    for (size_t i = 0; i < a->n && r == 0; i++) {
        const struct store_plan_item *x = &a->items[i];

        r = q(c, NULL, e,
              "INSERT INTO checkpointfs.plan_items (plan_id, n, checkpoint_id, uid, name, what, why, pending, latest, snapshots,"
              " state_bytes) VALUES ($1, $2::int, $3, $4, $5, $6, $7, $8, $9, $10::int, $11)",
              "iiissssbbii", plan, (int64_t)i + 1, x->checkpoint, x->uid, x->name, x->whole ? "checkpoint" : "snapshot", x->why,
              (int)x->pending, (int)x->latest, (int64_t)x->has_snapshot, x->state_bytes);
    }
    return r;
}

static int put_fn(struct conn *c, void *arg, struct err *e)
{
    const struct put_args *a = arg;
    cleanup_act struct act_row act = {0};
    cleanup_result PGresult *res = NULL;
    cleanup_json json_t *more = json_pack("{s:s, s:s, s:I}", "plan", a->uid, "rules", a->rules, "items", (json_int_t)a->n);
    struct event ev = {.what = a->apply ? "prune.started" : "prune.planned", .more = more};
    int r = act_lock(c, a->action, &act, e);

    if (r == 0 && act_settled(&act))
        r = err_set(e, EALREADY, "the action %s was settled before", act.uid);
    if (r == 0)
        r = q(c, &res, e,
              "INSERT INTO checkpointfs.plans (uid, line_id, made_by, rules, applied_by) VALUES ($1, $2, $3, $4, nullif($5, 0))"
              " RETURNING id", "siisi", a->uid, act.line_id, act.id, a->rules, a->apply ? act.id : (int64_t)0);
    if (r == 0)
        r = put_items(c, col_int(res, 0, 0), a, e);
    ev.line_id = act.line_id;
    ev.action = act.uid;
    ev.by = act.by;
    return r ? r : event_append(c, &ev, e);
}

int store_plan_put(struct store *s, int64_t action, const char *uid, const char *rules, bool apply, const struct store_plan_item *items,
                   size_t n, struct err *e)
{
    struct put_args a = {.action = action, .uid = uid, .rules = rules, .apply = apply, .items = items, .n = n};

    return store_tx(s, TX_WRITE_LONG, put_fn, &a, e);
}

int plan_item_read(const PGresult *res, int row, struct store_plan_item *ret, struct err *e)
{
    bool failed = false;

    ret->n = (int)col_int(res, row, 0);
    ret->checkpoint = col_int(res, row, 1);
    ret->uid = col_dup(res, row, 2, &failed);
    ret->name = col_dup(res, row, 3, &failed);
    ret->whole = col_bool(res, row, 4);
    ret->why = col_dup(res, row, 5, &failed);
    ret->pending = col_bool(res, row, 6);
    ret->latest = col_bool(res, row, 7);
    ret->has_snapshot = col_bool(res, row, 8);
    ret->state_bytes = col_int(res, row, 9);
    ret->snapshot_id = col_dup(res, row, 10, &failed);
    ret->outcome = col_dup(res, row, 11, &failed);
    ret->message = col_dup(res, row, 12, &failed);
    ret->requests = col_dup(res, row, 13, &failed);
    return failed ? err_set(e, ENOMEM, "out of memory") : 0;
}

struct items_args {
    int64_t action;
    struct store_plan_item *list;
    size_t n;
};

static int items_fn(struct conn *c, void *arg, struct err *e)
{
    struct items_args *a = arg;
    cleanup_result PGresult *res = NULL;
    int r = q(c, &res, e, PLAN_ITEM_COLUMNS "WHERE p.applied_by = $1 ORDER BY i.n", "i", a->action);

    store_plan_items_free(a->list, a->n);
    a->list = NULL;
    a->n = 0;
    if (r)
        return r;
    a->list = calloc((size_t)PQntuples(res) + 1, sizeof(*a->list));
    if (!a->list)
        return err_set(e, ENOMEM, "out of memory");
    for (int i = 0; i < PQntuples(res) && r == 0; i++) {
        a->n++;
        r = plan_item_read(res, i, &a->list[i], e);
    }
    return r;
}

int store_plan_items(struct store *s, int64_t action, struct store_plan_item **ret, size_t *ret_n, struct err *e)
{
    struct items_args a = {.action = action};
    int r = store_tx(s, TX_ONE_READ, items_fn, &a, e);

    if (r) {
        store_plan_items_free(a.list, a.n);
        return r;
    }
    *ret = a.list;
    *ret_n = a.n;
    return 0;
}
