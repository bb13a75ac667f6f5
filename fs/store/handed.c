/* Actions that one mount hands to another: given, taken up, cancelled, asked about. */
#include "store_i.h"

#include <errno.h>

#include "util/text.h"

struct handed_args {
    int64_t id;
    const char *worker;
    int64_t branch;
    bool take;
    int64_t found;
    struct store_action *list;
    size_t n;
};

#define UNSETTLED " AND state IN ('queued', 'running')"
/* Whether action `a` is one of the branch $2's own, or, with 0, none of any branch's. */
#define OF " AND CASE WHEN $2 = 0 THEN NOT " ACT_OF_BRANCH " ELSE a.isolated_id = $2 AND a.kind <> 'take' END"

/* ---- given to a worker ----------------------------------------------------------------------------------------------- */

int worker_pick(struct conn *c, int64_t line_id, const char *worker, int64_t *ret, char **ret_host, struct err *e)
{
    cleanup_result PGresult *res = NULL;
    bool any = str_equal(worker, "any");
    bool failed = false;
    int r = q(c, &res, e,
              "SELECT m.id, m.host FROM checkpointfs.mounts m WHERE m.line_id = $1 AND m.can_resume AND m.left_at IS NULL"
              " AND m.beat_at > clock_timestamp() - $2 * interval '1 ms' AND ($3::text IS NULL OR m.host = $3)"
              " ORDER BY (SELECT count(*) FROM checkpointfs.actions a WHERE a.mount_id = m.id AND a.state IN ('queued', 'running')),"
              " m.id LIMIT 1",
              "iis", line_id, (int64_t)STORE_LEASE_MS, any ? NULL : worker);

    if (r)
        return r;
    if (PQntuples(res) == 0 && any)
        return err_set(e, EOPNOTSUPP, "nothing is configured to resume with: start this mount with --resume=COMMAND (or `command` under "
                       "[resume] in the configuration file), or another one on this store");
    if (PQntuples(res) == 0)
        return err_set(e, EOPNOTSUPP, "no live mount on host %s ([resume] run-on) has a resume command", worker);
    *ret = col_int(res, 0, 0);
    *ret_host = col_dup(res, 0, 1, &failed);
    return failed ? err_set(e, ENOMEM, "out of memory") : 0;
}

int worker_give(struct conn *c, int64_t action, int64_t checkpoint, int64_t branch, const char *host, struct err *e)
{
    cleanup_free char *activity = str_format("agent is to run on %s", host);
    int r = activity ? q(c, NULL, e, "UPDATE checkpointfs.actions SET assigned = true WHERE id = $1", "i", action)
                     : err_set(e, ENOMEM, "out of memory");

    if (r == 0 && branch)
        return iso_activity(c, branch, activity, e);
    return r ? r
             : q(c, NULL, e, "UPDATE checkpointfs.checkpoints SET activity = $2, changed_at = checkpointfs.now_ns() WHERE id = $1",
                 "is", checkpoint, activity);
}

static int hand_on_fn(struct conn *c, void *arg, struct err *e)
{
    const struct handed_args *a = arg;
    cleanup_act struct act_row act = {0};
    cleanup_free char *host = NULL;
    int64_t to = 0;
    int r = act_lock(c, a->id, &act, e);

    if (r == 0 && act_settled(&act))
        r = err_set(e, EALREADY, "the action %s was settled before", act.uid);
    if (r == 0)
        r = worker_pick(c, act.line_id, a->worker, &to, &host, e);
    if (r == 0)
        r = q(c, NULL, e, "UPDATE checkpointfs.actions SET mount_id = $2 WHERE id = $1", "ii", act.id, to);
    if (r == 0)
        r = worker_give(c, act.id, act.checkpoint, act.of_branch ? act.isolated : 0, host, e);
    return r ? r : over_event(c, act.mount_id, to, &act, e);
}

int store_hand_on(struct store *s, int64_t action, const char *worker, struct err *e)
{
    struct handed_args a = {.id = action, .worker = worker};

    return store_tx(s, TX_WRITE, hand_on_fn, &a, e);
}

/* ---- cancelled, taken up, asked about ---------------------------------------------------------------------------------- */

static int cancel_fn(struct conn *c, void *arg, struct err *e)
{
    struct handed_args *a = arg;
    cleanup_result PGresult *res = NULL;
    int r = q(c, &res, e,
              "UPDATE checkpointfs.actions a SET cancel = true WHERE checkpoint_id = $1 AND kind IN ('resume', 'replay')" UNSETTLED OF
              " RETURNING id", "ii", a->id, a->branch);

    if (r)
        return r;
    if (PQntuples(res) == 0)
        return err_set(e, ESRCH, "no agent is running here, and none is waited for; see status");
    a->found = col_int(res, 0, 0);
    return 0;
}

int store_cancel(struct store *s, int64_t checkpoint, int64_t branch, int64_t *ret_action, struct err *e)
{
    struct handed_args a = {.id = checkpoint, .branch = branch};
    int r = store_tx(s, TX_BOUNDED, cancel_fn, &a, e);

    if (r == 0)
        *ret_action = a.found;
    return r;
}

static int told_fn(struct conn *c, void *arg, struct err *e)
{
    struct handed_args *a = arg;
    cleanup_result PGresult *res = NULL;
    cleanup_free char *sql = str_format("%sWHERE mount_id = $1" UNSETTLED " AND (assigned OR cancel) ORDER BY id", act_columns);
    int r = sql ? q(c, &res, e, sql, "i", a->id) : err_set(e, ENOMEM, "out of memory");

    if (r)
        return r;
    a->list = calloc((size_t)PQntuples(res) + 1, sizeof(*a->list));
    if (!a->list)
        return err_set(e, ENOMEM, "out of memory");
    for (a->n = 0; r == 0 && a->n < (size_t)PQntuples(res); a->n++)
        r = act_read(res, (int)a->n, &a->list[a->n], e);
    return r;
}

int store_told(struct store *s, int64_t mount_id, struct store_action **ret, size_t *ret_n, struct err *e)
{
    struct handed_args a = {.id = mount_id};
    int r = store_tx(s, TX_ONE_READ, told_fn, &a, e);

    if (r) {
        for (size_t i = 0; i < a.n; i++)
            store_action_free(&a.list[i]);
        free(a.list);
        return r;
    }
    *ret = a.list;
    *ret_n = a.n;
    return 0;
}

static int accept_fn(struct conn *c, void *arg, struct err *e)
{
    struct handed_args *a = arg;
    cleanup_result PGresult *res = NULL;
    cleanup_act struct act_row act = {0};
    int r = act_lock(c, a->id, &act, e);

    if (r == 0)
        r = q(c, &res, e, "UPDATE checkpointfs.actions SET assigned = false WHERE id = $1 AND assigned" UNSETTLED, "i", a->id);
    if (r == 0)
        a->found = affected(res);
    return r;
}

int store_accept(struct store *s, int64_t action, struct err *e)
{
    struct handed_args a = {.id = action};
    int r = store_tx(s, TX_WRITE, accept_fn, &a, e);

    return r < 0 ? r : a.found > 0;
}

static int under_way_fn(struct conn *c, void *arg, struct err *e)
{
    struct handed_args *a = arg;
    cleanup_result PGresult *res = NULL;
    int r = q(c, &res, e,
              "SELECT id FROM checkpointfs.actions a WHERE checkpoint_id = $1" UNSETTLED " AND kind <> 'cancel'"
              " AND (kind = 'take' OR NOT $3)" OF " ORDER BY id LIMIT 1", "iib", a->id, a->branch, (int)a->take);

    if (r == 0)
        a->found = PQntuples(res) ? col_int(res, 0, 0) : 0;
    return r;
}

int store_under_way(struct store *s, int64_t checkpoint, int64_t branch, bool take, int64_t *ret_action, struct err *e)
{
    struct handed_args a = {.id = checkpoint, .branch = branch, .take = take};
    int r = store_tx(s, TX_ONE_READ, under_way_fn, &a, e);

    if (r == 0)
        *ret_action = a.found;
    return r;
}
