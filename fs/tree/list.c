/* What a directory holds, in an order that stays over changes. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tree_i.h"

/* Cookies: fixed rows are 1 + their place in the table; rows of the store come after them. */
#define COOKIE_ROWS 64

struct listing {
    struct index *x;
    int64_t cookie;
    bool (*each)(void *arg, const char *name, const struct node_attr *attr, int64_t cookie);
    void *arg;
};

static bool list_mount_rows(struct listing *l, const struct file_row *rows, size_t n)
{
    struct node_attr a;

    for (size_t i = (size_t)(l->cookie < COOKIE_ROWS ? l->cookie : COOKIE_ROWS); i < n; i++)
        if (!rows[i].hidden && attr_mount_row(l->x, &rows[i], &a) == 0 && !l->each(l->arg, rows[i].name, &a, (int64_t)i + 1))
            return false;
    return true;
}

/* Where rows of the store go on: the first id not yet handed out. */
static int64_t next_row(const struct listing *l)
{
    return l->cookie < COOKIE_ROWS ? 0 : l->cookie - COOKIE_ROWS + 1;
}

static void list_root(struct listing *l)
{
    struct node_attr a;

    if (!list_mount_rows(l, root_files, n_root_files))
        return;
    for (struct index_entry *e = index_from(l->x, next_row(l)); e; e = index_from(l->x, e->c.id + 1)) {
        attr_entry_dir(e, &a);
        if (!l->each(l->arg, e->c.name, &a, e->c.id + COOKIE_ROWS))
            return;
    }
}

static void list_awaiting(struct listing *l)
{
    struct node_attr a;

    for (struct index_entry *e = index_from(l->x, next_row(l)); e; e = index_from(l->x, e->c.id + 1)) {
        if (!entry_awaits(&e->c))
            continue;
        attr_pending_link(e, &a);
        if (!l->each(l->arg, e->c.name, &a, e->c.id + COOKIE_ROWS))
            return;
    }
}

static void list_actions(struct listing *l)
{
    const struct store_action_entry *act;
    struct node_attr a;
    char name[sizeof(act->uid) + 8];

    for (act = index_action_from(l->x, next_row(l)); act; act = index_action_from(l->x, act->id + 1)) {
        attr_action(act, &a);
        stpcpy(stpcpy(name, act->uid), ".json");
        if (!l->each(l->arg, name, &a, act->id + COOKIE_ROWS))
            return;
    }
}

static int list_checkpoint(struct listing *l, int64_t id)
{
    struct index_entry *e = index_by_id(l->x, id);
    struct index_temp *t;
    struct node_attr a;

    if (!e)
        return -ESTALE;
    for (size_t i = (size_t)(l->cookie < COOKIE_ROWS ? l->cookie : COOKIE_ROWS); i < n_checkpoint_files; i++) {
        const struct file_row *row = &checkpoint_files[i];

        if (row->hidden || (row->listed && !row->listed(e, row)))
            continue;
        attr_checkpoint_file(e, row, &a);
        if (!l->each(l->arg, row->name, &a, (int64_t)i + 1))
            return 0;
    }
    for (t = index_temp_next(l->x, id, next_row(l) - 1); t; t = index_temp_next(l->x, id, t->id)) {
        attr_temp(t, &a);
        if (!l->each(l->arg, t->name, &a, t->id + COOKIE_ROWS))
            return 0;
    }
    return 0;
}

static int list_calls(struct listing *l, int64_t id)
{
    struct index_entry *e = index_by_id(l->x, id);
    struct node_attr a;

    if (!e)
        return -ESTALE;
    for (size_t i = (size_t)l->cookie; i < e->c.n_calls; i++) {
        attr_call(&e->c, &e->c.calls[i], &a);
        if (!l->each(l->arg, e->c.calls[i].filename, &a, (int64_t)i + 1))
            break;
    }
    return 0;
}

static int list_locked(struct listing *l, node_id dir)
{
    if (node_class(dir) == CLASS_CHECKPOINT && node_kind(dir) == CKPT_DIR)
        return list_checkpoint(l, node_row(dir));
    if (node_class(dir) == CLASS_CHECKPOINT && node_kind(dir) == CKPT_PENDING)
        return list_calls(l, node_row(dir));
    if (node_class(dir) != CLASS_MOUNT)
        return -ENOTDIR;
    if (node_kind(dir) == MOUNT_ROOT)
        list_root(l);
    else if (node_kind(dir) == MOUNT_CONTROL)
        list_mount_rows(l, control_files, n_control_files);
    else if (node_kind(dir) == MOUNT_PENDING)
        list_awaiting(l);
    else if (node_kind(dir) == MOUNT_ACTIONS)
        list_actions(l);
    else
        return -ENOTDIR;
    return 0;
}

int tree_list(struct index *x, node_id dir, int64_t cookie,
              bool (*each)(void *arg, const char *name, const struct node_attr *attr, int64_t cookie), void *arg)
{
    struct listing l = {.x = x, .cookie = cookie, .each = each, .arg = arg};
    int r;

    index_read_lock(x);
    r = list_locked(&l, dir);
    index_unlock(x);
    return r;
}

node_id tree_parent(struct index *x, node_id dir)
{
    (void)x;
    if (node_class(dir) == CLASS_CHECKPOINT && node_kind(dir) == CKPT_PENDING)
        return node_make(CLASS_CHECKPOINT, node_row(dir), CKPT_DIR);
    if (node_class(dir) == CLASS_MOUNT && node_kind(dir) == MOUNT_ACTIONS)
        return node_make(CLASS_MOUNT, 0, MOUNT_CONTROL);
    return NODE_ROOT;
}
