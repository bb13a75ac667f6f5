/* Lines (the branches of a project that replaced each other) and the mounts that work on them. */
#include "store_i.h"

#include <errno.h>
#include <string.h>

#include "util/text.h"

void store_line_free(struct store_line *l)
{
    free(l->active_branch);
    free(l->endpoint_id);
    free(l->connection_uri);
    *l = (struct store_line){0};
}

static int read_line(const PGresult *res, struct store_line *ret, struct err *e)
{
    struct store_line l = {0};
    bool failed = false;

    l.id = col_int(res, 0, 0);
    l.active_branch = col_dup(res, 0, 1, &failed);
    l.endpoint_id = col_dup(res, 0, 2, &failed);
    if (failed) {
        store_line_free(&l);
        return err_set(e, ENOMEM, "out of memory");
    }
    *ret = l;
    return 0;
}

struct line_args {
    const char *project_id, *branch_id, *endpoint_id;
    int64_t id;
    struct store_line line;
};

static int find_fn(struct conn *c, void *arg, struct err *e)
{
    struct line_args *a = arg;
    cleanup_result PGresult *res = NULL;
    int r = q(c, &res, e,
              "SELECT l.id, l.active_branch, l.endpoint_id FROM checkpointfs.line_branches b JOIN checkpointfs.lines l"
              " ON l.id = b.line_id WHERE b.project_id = $1 AND b.branch_id = $2",
              "ss", a->project_id, a->branch_id);

    if (r)
        return r;
    if (PQntuples(res) == 0)
        return err_set(e, ENOENT, "the store knows no line with branch %s of project %s", a->branch_id, a->project_id);
    return read_line(res, &a->line, e);
}

static int only_fn(struct conn *c, void *arg, struct err *e)
{
    struct line_args *a = arg;
    cleanup_result PGresult *res = NULL;
    int r = q(c, &res, e,
              "SELECT id, active_branch, endpoint_id FROM checkpointfs.lines WHERE project_id = $1"
              " AND ($2::text IS NULL OR endpoint_id = $2) LIMIT 2",
              "ss", a->project_id, a->endpoint_id);

    if (r)
        return r;
    if (PQntuples(res) != 1)
        return err_set(e, ENOENT, "the store knows %s line of project %s that it could be", PQntuples(res) ? "more than one" : "no",
                       a->project_id);
    return read_line(res, &a->line, e);
}

int store_line_find(struct store *s, const char *project_id, const char *branch_id, struct store_line *ret, struct err *e)
{
    struct line_args a = {.project_id = project_id, .branch_id = branch_id};
    int r = store_tx(s, TX_ONE_READ, branch_id ? find_fn : only_fn, &a, e);

    if (r == 0)
        *ret = a.line;
    return r;
}

static int create_fn(struct conn *c, void *arg, struct err *e)
{
    struct line_args *a = arg;
    cleanup_result PGresult *res = NULL;
    int r = q(c, &res, e,
              "INSERT INTO checkpointfs.lines (project_id, active_branch, endpoint_id) VALUES ($1, $2, $3)"
              " RETURNING id, active_branch, endpoint_id",
              "sss", a->project_id, a->branch_id, a->endpoint_id);

    if (r == 0)
        r = q(c, NULL, e, "INSERT INTO checkpointfs.line_branches (line_id, project_id, branch_id) VALUES ($1, $2, $3)", "iss",
              col_int(res, 0, 0), a->project_id, a->branch_id);
    if (r == -EEXIST)
        return err_set(e, EEXIST, "branch %s of project %s belongs to a line already", a->branch_id, a->project_id);
    if (r == 0)
        r = q(c, NULL, e, "INSERT INTO checkpointfs.turns (project_id) VALUES ($1) ON CONFLICT DO NOTHING", "s", a->project_id);
    store_line_free(&a->line);
    return r ? r : read_line(res, &a->line, e);
}

int store_line_by_endpoint(struct store *s, const char *project_id, const char *endpoint_id, struct store_line *ret, struct err *e)
{
    struct line_args a = {.project_id = project_id, .endpoint_id = endpoint_id};
    int r = store_tx(s, TX_ONE_READ, only_fn, &a, e);

    if (r == 0)
        *ret = a.line;
    return r;
}

int store_line_create(struct store *s, const char *project_id, const char *branch_id, const char *endpoint_id,
                      struct store_line *ret, struct err *e)
{
    struct line_args a = {.project_id = project_id, .branch_id = branch_id, .endpoint_id = endpoint_id};
    int r = store_tx(s, TX_WRITE, create_fn, &a, e);

    if (r)
        store_line_free(&a.line);
    else
        *ret = a.line;
    return r;
}

static int get_fn(struct conn *c, void *arg, struct err *e)
{
    struct line_args *a = arg;
    cleanup_result PGresult *res = NULL;
    int r = q(c, &res, e, "SELECT id, active_branch, endpoint_id FROM checkpointfs.lines WHERE id = $1", "i", a->id);

    if (r)
        return r;
    if (PQntuples(res) == 0)
        return err_set(e, ENOENT, "the store has no line %lld", (long long)a->id);
    return read_line(res, &a->line, e);
}

int store_line_get(struct store *s, int64_t line_id, struct store_line *ret, struct err *e)
{
    struct line_args a = {.id = line_id};
    int r = store_tx(s, TX_ONE_READ, get_fn, &a, e);

    if (r == 0)
        *ret = a.line;
    return r;
}

/* ---- mounts ---------------------------------------------------------------------------------------------------------- */

struct mount_args {
    int64_t line_id;
    struct store_mount *m;
    int64_t id;
};

/* Not told to the log: nothing was done to a checkpoint, and a backup after a remount has to find the log as it was (design.md §7.2). */
static int register_fn(struct conn *c, void *arg, struct err *e)
{
    struct mount_args *a = arg;
    cleanup_result PGresult *res = NULL;
    int r = q(c, &res, e,
              "INSERT INTO checkpointfs.mounts (line_id, host, boot_id, pid, pid_start, mountpoint, can_resume)"
              " VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING id",
              "issiisb", a->line_id, a->m->host, a->m->boot_id, (int64_t)a->m->pid, a->m->pid_start, a->m->mountpoint,
              (int)a->m->can_resume);

    if (r)
        return r;
    a->id = col_int(res, 0, 0);
    return 0;
}

int store_mount_register(struct store *s, int64_t line_id, struct store_mount *m, struct err *e)
{
    struct mount_args a = {.line_id = line_id, .m = m};
    int r = store_tx(s, TX_BOUNDED, register_fn, &a, e);

    if (r == 0) {
        m->id = a.id;
        atomic_store(&s->mount_id, a.id);
    }
    return r;
}

static int beat_fn(struct conn *c, void *arg, struct err *e)
{
    cleanup_result PGresult *res = NULL;
    int r = q(c, &res, e, "UPDATE checkpointfs.mounts SET beat_at = clock_timestamp() WHERE id = $1 AND left_at IS NULL", "i",
              *(const int64_t *)arg);

    if (r)
        return r;
    return affected(res) ? 0 : err_set(e, ESTALE, "the store no longer counts this mount among the living");
}

int store_mount_beat(struct store *s, int64_t mount_id, struct err *e)
{
    return store_tx(s, TX_BOUNDED, beat_fn, &mount_id, e);
}

static int leave_fn(struct conn *c, void *arg, struct err *e)
{
    return q(c, NULL, e, "UPDATE checkpointfs.mounts SET left_at = now() WHERE id = $1 AND left_at IS NULL", "i", *(const int64_t *)arg);
}

int store_mount_leave(struct store *s, int64_t mount_id, struct err *e)
{
    return store_tx(s, TX_BOUNDED, leave_fn, &mount_id, e);
}

/* ---- what dead mounts left ------------------------------------------------------------------------------------------- */

void store_left_free(struct store_left *l, size_t n)
{
    for (size_t i = 0; l && i < n; i++) {
        free(l[i].host);
        free(l[i].boot_id);
    }
    free(l);
}

struct left_args {
    int64_t line_id, mine;
    struct store_left *list;
    size_t n;
};

static int left_fn(struct conn *c, void *arg, struct err *e)
{
    struct left_args *a = arg;
    cleanup_result PGresult *res = NULL;
    bool failed = false;
    struct store_left *list;
    size_t n;
    int r = q(c, &res, e,
              "SELECT m.id, m.host, m.boot_id, m.pid, m.pid_start, m.beat_at < clock_timestamp() - $3 * interval '1 ms',"
              " m.left_at IS NOT NULL FROM checkpointfs.mounts m WHERE m.line_id = $1 AND m.id <> $2 AND EXISTS (SELECT 1"
              " FROM checkpointfs.actions a WHERE a.mount_id = m.id AND a.state IN ('queued', 'running')) ORDER BY m.id",
              "iii", a->line_id, a->mine, (int64_t)STORE_LEASE_MS);

    if (r)
        return r;
    n = (size_t)PQntuples(res);
    list = calloc(n + 1, sizeof(*list));
    if (!list)
        return err_set(e, ENOMEM, "out of memory");
    for (size_t i = 0; i < n; i++) {
        list[i].mount_id = col_int(res, (int)i, 0);
        list[i].host = col_dup(res, (int)i, 1, &failed);
        list[i].boot_id = col_dup(res, (int)i, 2, &failed);
        list[i].pid = (pid_t)col_int(res, (int)i, 3);
        list[i].pid_start = col_int(res, (int)i, 4);
        list[i].lease_over = col_bool(res, (int)i, 5);
        list[i].left = col_bool(res, (int)i, 6);
    }
    if (failed) {
        store_left_free(list, n);
        return err_set(e, ENOMEM, "out of memory");
    }
    a->list = list;
    a->n = n;
    return 0;
}

int store_left_mounts(struct store *s, int64_t line_id, int64_t my_mount, struct store_left **ret, size_t *ret_n, struct err *e)
{
    struct left_args a = {.line_id = line_id, .mine = my_mount};
    int r = store_tx(s, TX_ONE_READ, left_fn, &a, e);

    if (r == 0) {
        *ret = a.list;
        *ret_n = a.n;
    }
    return r;
}
