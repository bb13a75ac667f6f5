/* From the store into the index, and word of it to the mount. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "actions_i.h"
#include "util/cleanup.h"
#include "util/log.h"
#include "util/text.h"

void engine_changed(struct engine *g, struct index_change *change)
{
    if (g->c.changed)
        g->c.changed(g->c.changed_arg, change);
    index_change_clear(change);
}

static int refresh_action(struct engine *g, int64_t action, struct err *e)
{
    struct store_action_entry a;
    int r = store_action_entry(g->c.store, action, &a, e);

    return r > 0 ? index_action_put(g->c.index, &a) : r;
}

/* Index and store under one lock, so that an older answer never replaces a newer one. */
static int refresh_locked(struct engine *g, int64_t checkpoint, int64_t action, struct index_change *change, struct err *e)
{
    struct store_checkpoint c = {0};
    int64_t size, mtime;
    int r = 0;

    if (checkpoint) {
        r = store_checkpoint(g->c.store, checkpoint, &c, e);
        if (r == 0)
            r = index_put(g->c.index, &c, change);
        else if (r == -ENOENT)
            index_remove(g->c.index, checkpoint, change);
    }
    if (r == -ENOENT)
        r = 0;
    if (r == 0 && action)
        r = refresh_action(g, action, e);
    if (r == 0)
        r = store_events_size(g->c.store, g->line_id, &size, &mtime, e);
    if (r == 0)
        index_set_events(g->c.index, size, mtime);
    return r;
}

int engine_refresh(struct engine *g, int64_t checkpoint, int64_t action)
{
    struct index_change change = {0};
    cleanup_err struct err e = {0};
    int r;

    pthread_mutex_lock(&g->refresh);
    r = refresh_locked(g, checkpoint, action, &change, &e);
    pthread_mutex_unlock(&g->refresh);
    if (r < 0)
        log_warn("the index can't follow the store: %s", err_text(&e));
    engine_changed(g, &change); /* the log has grown, even where no checkpoint has changed */
    return r;
}

/* ---- everything --------------------------------------------------------------------------------------------------------- */

struct loading {
    struct engine *g;
    bool reloading;
    int64_t *ids; /* that the store has, in order of id after the load */
    size_t n, cap;
};

static int loaded(struct loading *l, int64_t id)
{
    if (l->n == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 256;
        int64_t *grown = realloc(l->ids, cap * sizeof(*grown));

        if (!grown)
            return -ENOMEM;
        l->ids = grown;
        l->cap = cap;
    }
    l->ids[l->n++] = id;
    return 0;
}

static int load_checkpoint(void *arg, struct store_checkpoint *c)
{
    struct loading *l = arg;
    struct index_change change = {0};
    int r = l->reloading ? loaded(l, c->id) : 0;

    follow_heard(l->g);
    if (r < 0) {
        store_checkpoint_free(c);
        return r;
    }
    r = index_put(l->g->c.index, c, l->reloading ? &change : NULL);
    if (l->reloading)
        engine_changed(l->g, &change);
    return r;
}

static int load_action(void *arg, const struct store_action_entry *a)
{
    struct loading *l = arg;

    follow_heard(l->g);
    return index_action_put(l->g->c.index, a);
}

static int by_number(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a;
    int64_t y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

/* The next checkpoint of the index from `id` on that the store didn't have; 0 = none. */
static int64_t next_gone(struct loading *l, int64_t id)
{
    struct index_entry *e;
    int64_t found = 0;

    index_read_lock(l->g->c.index);
    for (e = index_next(l->g->c.index, id); e && !found; e = index_next(l->g->c.index, e->c.id + 1))
        if (l->n == 0 || !bsearch(&e->c.id, l->ids, l->n, sizeof(*l->ids), by_number))
            found = e->c.id;
    index_unlock(l->g->c.index);
    return found;
}

static void remove_gone(struct loading *l)
{
    int64_t id = 0;

    if (l->n > 0) /* else there is no array */
        qsort(l->ids, l->n, sizeof(*l->ids), by_number);
    while ((id = next_gone(l, id + 1))) {
        struct index_change change = {0};

        index_remove(l->g->c.index, id, &change);
        engine_changed(l->g, &change);
    }
}

int engine_reload(struct engine *g, struct err *e)
{
    struct loading l = {.g = g, .reloading = g->loaded};
    cleanup_err struct err why = {0};
    int r;

    pthread_mutex_lock(&g->refresh);
    r = store_checkpoints(g->c.store, g->line_id, load_checkpoint, &l, &why);
    if (r == 0 && l.reloading)
        remove_gone(&l);
    if (r == 0)
        r = store_actions(g->c.store, g->line_id, load_action, &l, &why);
    if (r == 0)
        r = refresh_locked(g, 0, 0, NULL, &why);
    g->loaded = g->loaded || r == 0;
    pthread_mutex_unlock(&g->refresh);
    free(l.ids);
    if (r < 0) {
        if (!e)
            log_error("the index can't be loaded from the store: %s", err_text(&why));
        return err_move(e, &why);
    }
    replaced_refresh(g);
    return engine_follow_line(g, e);
}

int engine_follow_line(struct engine *g, struct err *e)
{
    struct store_line line = {0};
    bool same, moved;
    int r = store_line_get(g->c.store, g->line_id, &line, e);

    if (r < 0)
        return r;
    pthread_mutex_lock(&g->lock);
    same = str_equal(g->active_branch, line.active_branch) && (!line.endpoint_id || str_equal(g->endpoint_id, line.endpoint_id));
    moved = !same && line.endpoint_id && !str_equal(g->endpoint_id, line.endpoint_id);
    if (moved) {
        free(g->connection_uri); /* another endpoint has another one: asked for when it is needed, and by the watch */
        g->connection_uri = NULL;
    }
    g->uri_old |= !same; /* and a restore brings roles and passwords back */
    pthread_mutex_unlock(&g->lock);
    if (moved)
        index_set_text(g->c.index, MOUNT_CONNECTION_URI, "", 0);
    if (!same) {
        active_set(g, line.active_branch, line.endpoint_id);
        watch_soon(g);
        atomic_store(&g->uris_soon, true);
    }
    store_line_free(&line);
    return 0;
}

void engine_health(struct engine *g)
{
    struct buf b = {0};

    pthread_mutex_lock(&g->lock);
    buf_addf(&b, "neon: %s\n", g->c.local ? "LOCAL EMULATOR" : g->c.project_id);
    buf_addf(&b, "neon_api: %s\n", g->neon_trouble ? g->neon_trouble : "reachable");
    if (g->store_trouble)
        buf_addf(&b, "store: lost, %s; what is shown may be older than what is true\n", g->store_trouble);
    else
        buf_adds(&b, "store: ok\n");
    buf_addf(&b, "active_branch: %s\n", g->active_branch ? g->active_branch : "unknown");
    buf_addf(&b, "resume_command: %s\n", g->c.resume_command ? "configured" : "none, start the mount with --resume=COMMAND");
    if (!buf_error(&b))
        index_set_text(g->c.index, MOUNT_HEALTH, b.data, 0);
    pthread_mutex_unlock(&g->lock);
    buf_free(&b);
}

int engine_brief(struct engine *g, int64_t checkpoint, struct brief *ret)
{
    struct index_entry *e;
    int r = -ENOENT;

    index_read_lock(g->c.index);
    e = index_by_id(g->c.index, checkpoint);
    if (e) {
        *ret = (struct brief){
            .uid = str_dup(e->c.uid),
            .name = str_dup(e->c.name),
            .snapshot_id = str_dup(e->c.snapshot.id),
            .snapshot_branch = str_dup(e->c.snapshot.branch_id),
            .note = str_dup(e->c.note),
            .run_id = str_dup(e->c.run_id),
            .isolated = e->c.isolated,
            .phase = e->c.phase,
            .closed = e->c.closed,
            .take_code = e->take_code,
            .created_at = e->c.created_at,
        };
        r = 0;
    }
    index_unlock(g->c.index);
    return r;
}

void engine_take_code(struct engine *g, int64_t checkpoint, int code)
{
    struct index_entry *e;

    index_write_lock(g->c.index);
    e = index_by_id(g->c.index, checkpoint);
    if (e)
        e->take_code = code;
    index_unlock(g->c.index);
}

void brief_clear(struct brief *b)
{
    free(b->uid);
    free(b->name);
    free(b->snapshot_id);
    free(b->snapshot_branch);
    free(b->note);
    free(b->run_id);
    *b = (struct brief){0};
}
