/* What Neon holds beside snapshots, as it was seen last: the plan's limits, replaced branches; and which expiries it is still to be
 * told. */
#include "store_i.h"

#include <errno.h>
#include <stdlib.h>

#include "util/clock.h"

/* ---- limits ------------------------------------------------------------------------------------------------------------- */

struct room_args {
    const char *project_id;
    struct store_room room;
};

static int room_fn(struct conn *c, void *arg, struct err *e)
{
    struct room_args *a = arg;
    cleanup_result PGresult *res = NULL;
    int r = q(c, &res, e,
              "SELECT max_snapshots, max_root_branches, max_branches, snapshots, root_branches, branches FROM checkpointfs.room"
              " WHERE project_id = $1", "s", a->project_id);

    a->room = (struct store_room){.max_snapshots = -1, .max_root_branches = -1, .max_branches = -1};
    if (r == 0 && PQntuples(res) > 0)
        a->room = (struct store_room){
            .max_snapshots = col_int(res, 0, 0), .max_root_branches = col_int(res, 0, 1), .max_branches = col_int(res, 0, 2),
            .snapshots = col_int(res, 0, 3), .root_branches = col_int(res, 0, 4), .branches = col_int(res, 0, 5),
        };
    return r;
}

int store_room(struct store *s, const char *project_id, struct store_room *ret, struct err *e)
{
    struct room_args a = {.project_id = project_id};
    int r = store_tx(s, TX_ONE_READ, room_fn, &a, e);

    if (r == 0)
        *ret = a.room;
    return r;
}

static int room_put_fn(struct conn *c, void *arg, struct err *e)
{
    const struct room_args *a = arg;
    const struct store_room *m = &a->room;

    return q(c, NULL, e,
             "INSERT INTO checkpointfs.room AS m (project_id, max_snapshots, max_root_branches, max_branches, snapshots, root_branches,"
             " branches) VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (project_id) DO UPDATE SET max_snapshots = $2,"
             " max_root_branches = $3, max_branches = $4, snapshots = $5, root_branches = $6, branches = $7,"
             " looked_at = checkpointfs.now_ns() WHERE (m.max_snapshots, m.max_root_branches, m.max_branches, m.snapshots,"
             " m.root_branches, m.branches) IS DISTINCT FROM ($2, $3, $4, $5, $6, $7)",
             "siiiiii", a->project_id, m->max_snapshots, m->max_root_branches, m->max_branches, m->snapshots, m->root_branches,
             m->branches);
}

int store_room_put(struct store *s, const char *project_id, const struct store_room *room, struct err *e)
{
    struct room_args a = {.project_id = project_id, .room = *room};

    return store_tx(s, TX_ONE, room_put_fn, &a, e);
}

/* ---- replaced branches ---------------------------------------------------------------------------------------------------- */

void store_replaced_free(struct store_replaced *l, size_t n)
{
    for (size_t i = 0; l && i < n; i++) {
        char *texts[] = {l[i].branch_id, l[i].name, l[i].by_action, l[i].by_checkpoint, l[i].by_name};

        for (size_t k = 0; k < sizeof(texts) / sizeof(*texts); k++)
            free(texts[k]);
    }
    free(l);
}

struct replaced_args {
    int64_t line_id;
    struct store_replaced *list;
    size_t n;
};

static int read_replaced(const PGresult *res, int row, struct store_replaced *b, struct err *e)
{
    bool failed = false;

    b->id = col_int(res, row, 0);
    b->branch_id = col_dup(res, row, 1, &failed);
    b->name = col_dup(res, row, 2, &failed);
    b->size = col_int(res, row, 3);
    b->created_at = col_int(res, row, 4);
    b->replaced_at = col_int(res, row, 5);
    b->changed_at = col_int(res, row, 6);
    b->made_here = col_bool(res, row, 7);
    b->by_action = col_dup(res, row, 8, &failed);
    b->by_checkpoint = col_dup(res, row, 9, &failed);
    b->by_name = col_dup(res, row, 10, &failed);
    return failed ? err_set(e, ENOMEM, "out of memory") : 0;
}

static int replaced_fn(struct conn *c, void *arg, struct err *e)
{
    struct replaced_args *a = arg;
    cleanup_result PGresult *res = NULL;
    int r = q(c, &res, e,
              "SELECT id, branch_id, coalesce(name, replaced_name), size, created_at,"
              " (extract(epoch FROM replaced_at) * 1000000000)::bigint, changed_at, replaced_by IS NOT NULL,"
              " by_action, by_checkpoint, by_name FROM checkpointfs.line_branches"
              " WHERE line_id = $1 AND replaced_at IS NOT NULL AND NOT gone ORDER BY id",
              "i", a->line_id);

    store_replaced_free(a->list, a->n);
    a->list = NULL;
    a->n = 0;
    if (r)
        return r;
    a->list = calloc((size_t)PQntuples(res) + 1, sizeof(*a->list));
    if (!a->list)
        return err_set(e, ENOMEM, "out of memory");
    for (int i = 0; i < PQntuples(res) && r == 0; i++) {
        a->n++;
        r = read_replaced(res, i, &a->list[i], e);
    }
    return r;
}

int store_replaced(struct store *s, int64_t line_id, struct store_replaced **ret, size_t *ret_n, struct err *e)
{
    struct replaced_args a = {.line_id = line_id};
    int r = store_tx(s, TX_ONE_READ, replaced_fn, &a, e);

    if (r) {
        store_replaced_free(a.list, a.n);
        return r;
    }
    *ret = a.list;
    *ret_n = a.n;
    return 0;
}

struct now_args {
    int64_t id;
    const char *name;
    int64_t size, created_at;
    bool gone;
};

static int now_fn(struct conn *c, void *arg, struct err *e)
{
    const struct now_args *a = arg;

    return q(c, NULL, e,
             "UPDATE checkpointfs.line_branches SET name = coalesce($2, name), size = $3, created_at = $4, gone = $5 WHERE id = $1"
             " AND replaced_at IS NOT NULL", "isiib", a->id, a->name, a->size, a->created_at, (int)a->gone);
}

int store_replaced_put(struct store *s, int64_t id, const char *name, int64_t size, int64_t created_at, bool gone, struct err *e)
{
    struct now_args a = {.id = id, .name = name, .size = size, .created_at = created_at, .gone = gone};

    return store_tx(s, TX_ONE, now_fn, &a, e);
}

/* ---- when snapshots expire -------------------------------------------------------------------------------------------------- */

void store_expiries_free(struct store_expiry *l, size_t n)
{
    for (size_t i = 0; l && i < n; i++)
        free(l[i].snapshot_id);
    free(l);
}

struct expiry_args {
    int64_t line_id;
    struct store_expiry *list;
    size_t n;
};

static int expiries_fn(struct conn *c, void *arg, struct err *e)
{
    struct expiry_args *a = arg;
    cleanup_result PGresult *res = NULL;
    bool failed = false;
    int r = q(c, &res, e,
              "SELECT id, snapshot_id, wanted_expiry FROM checkpointfs.checkpoints WHERE line_id = $1 AND wanted_expiry <> asked_expiry"
              " AND phase IN ('saved', 'sealed') AND snapshot_id IS NOT NULL AND NOT missing ORDER BY id", "i", a->line_id);

    store_expiries_free(a->list, a->n);
    a->list = NULL;
    a->n = 0;
    if (r)
        return r;
    a->list = calloc((size_t)PQntuples(res) + 1, sizeof(*a->list));
    for (int i = 0; a->list && i < PQntuples(res); i++, a->n++)
        a->list[i] = (struct store_expiry){.checkpoint = col_int(res, i, 0), .snapshot_id = col_dup(res, i, 1, &failed),
                                           .at = col_int(res, i, 2)};
    return a->list && !failed ? 0 : err_set(e, ENOMEM, "out of memory");
}

int store_expiries(struct store *s, int64_t line_id, struct store_expiry **ret, size_t *ret_n, struct err *e)
{
    struct expiry_args a = {.line_id = line_id};
    int r = store_tx(s, TX_ONE_READ, expiries_fn, &a, e);

    if (r) {
        store_expiries_free(a.list, a.n);
        return r;
    }
    *ret = a.list;
    *ret_n = a.n;
    return 0;
}

struct asked_args {
    int64_t checkpoint, at;
    const char *refused, *requests;
};

static int asked_fn(struct conn *c, void *arg, struct err *e)
{
    const struct asked_args *a = arg;
    char when[CLOCK_TEXT_MAX];
    cleanup_ck struct ck_row k = {0};
    cleanup_result PGresult *res = NULL;
    cleanup_json json_t *more = json_pack("{s:o, s:o*}", "expires_at",
                                          a->at ? json_string(clock_format_seconds(a->at, when)) : json_null(), "requests",
                                          a->requests ? json_loads(a->requests, 0, NULL) : NULL);
    struct event ev = {.what = a->refused ? "snapshot.expiry_refused" : "snapshot.expiry_set", .message = a->refused, .more = more};
    int r = ck_lock(c, a->checkpoint, &k, e);

    if (r == 0)
        r = q(c, &res, e, "UPDATE checkpointfs.checkpoints SET asked_expiry = $2 WHERE id = $1 AND asked_expiry <> $2", "ii", k.id, a->at);
    if (r || affected(res) == 0)
        return r; /* another mount was a moment faster */
    ev.line_id = k.line_id;
    ev.checkpoint = k.id;
    ev.uid = k.uid;
    ev.name = k.name;
    return event_append(c, &ev, e);
}

int store_expiry_done(struct store *s, int64_t checkpoint, int64_t at, const char *refused, const char *requests, struct err *e)
{
    struct asked_args a = {.checkpoint = checkpoint, .at = at, .refused = refused, .requests = requests};

    return store_tx(s, TX_WRITE, asked_fn, &a, e);
}
