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

static int put_action(void *arg, const struct store_action_entry *a)
{
    index_action_put(arg, a);
    return 1; /* the one that was asked for */
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
    if (action && r != -ENOMEM)
        store_actions(g->c.store, g->line_id, action - 1, put_action, g->c.index, NULL);
    if (store_events_size(g->c.store, g->line_id, &size, &mtime, NULL) == 0)
        index_set_events(g->c.index, size, mtime);
    return r == -ENOENT ? 0 : r;
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
    if (checkpoint)
        engine_changed(g, &change);
    else
        index_change_clear(&change);
    return r;
}

struct loading {
    struct engine *g;
    bool reloading;
};

static int load_checkpoint(void *arg, struct store_checkpoint *c)
{
    struct loading *l = arg;
    struct index_change change = {0};
    int r = index_put(l->g->c.index, c, l->reloading ? &change : NULL);

    if (l->reloading)
        engine_changed(l->g, &change);
    return r;
}

static int load_action(void *arg, const struct store_action_entry *a)
{
    return index_action_put(arg, a);
}

/* Everything of the line: at the start, and after a restore took many checkpoints off it. */
void engine_refresh_line(struct engine *g)
{
    struct loading l = {.g = g, .reloading = index_last_action(g->c.index) > 0};
    cleanup_err struct err e = {0};

    pthread_mutex_lock(&g->refresh);
    if (store_checkpoints(g->c.store, g->line_id, load_checkpoint, &l, &e) < 0)
        log_error("the index can't be loaded from the store: %s", err_text(&e));
    store_actions(g->c.store, g->line_id, index_last_action(g->c.index), load_action, g->c.index, NULL);
    refresh_locked(g, 0, 0, NULL, &e);
    pthread_mutex_unlock(&g->refresh);
}

void engine_health(struct engine *g)
{
    struct buf b = {0};

    pthread_mutex_lock(&g->lock);
    buf_addf(&b, "neon: %s\n", g->c.local ? "LOCAL EMULATOR" : g->c.project_id);
    buf_addf(&b, "neon_api: %s\n", g->neon_trouble ? g->neon_trouble : "reachable");
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
