/* What .control/metrics asks: how many actions there were of each kind, and the heads of the audit log's chains. */
#include "store_i.h"

#include <errno.h>

void store_metrics_free(struct store_metrics *m)
{
    for (size_t i = 0; i < m->n_actions; i++) {
        free(m->actions[i].kind);
        free(m->actions[i].state);
    }
    for (size_t i = 0; i < m->n_heads; i++) {
        free(m->heads[i].uid);
        free(m->heads[i].name);
        free(m->heads[i].hash);
    }
    free(m->actions);
    free(m->heads);
    *m = (struct store_metrics){0};
}

static int read_actions(struct conn *c, int64_t line_id, struct store_metrics *m, struct err *e)
{
    cleanup_result PGresult *res = NULL;
    bool failed = false;
    int r = q(c, &res, e,
              "SELECT kind, state, count(*), sum(changed_at - created_at)::bigint FROM checkpointfs.actions WHERE line_id = $1"
              " GROUP BY kind, state ORDER BY kind, state",
              "i", line_id);

    if (r)
        return r;
    m->actions = calloc((size_t)PQntuples(res) + 1, sizeof(*m->actions));
    if (!m->actions)
        return err_set(e, ENOMEM, "out of memory");
    for (int i = 0; i < PQntuples(res); i++)
        m->actions[m->n_actions++] = (struct store_action_count){
            .kind = col_dup(res, i, 0, &failed), .state = col_dup(res, i, 1, &failed), .n = col_int(res, i, 2), .ns = col_int(res, i, 3),
        };
    return failed ? err_set(e, ENOMEM, "out of memory") : 0;
}

/* One statement: what it returns was all true at one moment. */
static int read_heads(struct conn *c, int64_t line_id, struct store_metrics *m, struct err *e)
{
    cleanup_result PGresult *res = NULL;
    bool failed = false;
    int r = q(c, &res, e,
              "SELECT NULL AS uid, NULL AS name, 0 AS id, coalesce(h.seq, 0), coalesce(h.hash, repeat('0', 64)) FROM checkpointfs.lines l"
              " LEFT JOIN checkpointfs.event_heads h ON h.line_id = l.id WHERE l.id = $1 UNION ALL"
              " SELECT k.uid, k.name, k.id, h.n, h.hash FROM checkpointfs.checkpoints k JOIN checkpointfs.history_heads h"
              " ON h.checkpoint_id = k.id WHERE k.line_id = $1 ORDER BY id",
              "i", line_id);

    if (r)
        return r;
    m->heads = calloc((size_t)PQntuples(res) + 1, sizeof(*m->heads));
    if (!m->heads)
        return err_set(e, ENOMEM, "out of memory");
    for (int i = 0; i < PQntuples(res); i++)
        m->heads[m->n_heads++] = (struct store_head){
            .uid = col_dup(res, i, 0, &failed), .name = col_dup(res, i, 1, &failed), .lines = col_int(res, i, 3),
            .hash = col_dup(res, i, 4, &failed),
        };
    return failed ? err_set(e, ENOMEM, "out of memory") : 0;
}

struct metrics_args { int64_t line_id; struct store_metrics m; };

static int metrics_fn(struct conn *c, void *arg, struct err *e)
{
    struct metrics_args *a = arg;
    int r;

    store_metrics_free(&a->m); /* of an earlier try */
    r = read_actions(c, a->line_id, &a->m, e);
    return r ? r : read_heads(c, a->line_id, &a->m, e);
}

int store_metrics(struct store *s, int64_t line_id, struct store_metrics *ret, struct err *e)
{
    struct metrics_args a = {.line_id = line_id};
    int r = store_tx(s, TX_BOUNDED, metrics_fn, &a, e);

    if (r)
        store_metrics_free(&a.m);
    else
        *ret = a.m;
    return r;
}
