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
        attr_view_link(e, CKPT_PENDING_LINK, &a);
        if (!l->each(l->arg, e->c.name, &a, e->c.id + COOKIE_ROWS))
            return;
    }
}

static void list_ids(struct listing *l)
{
    struct node_attr a;

    for (struct index_entry *e = index_from(l->x, next_row(l)); e; e = index_from(l->x, e->c.id + 1)) {
        attr_view_link(e, CKPT_ID_LINK, &a);
        if (!l->each(l->arg, e->c.uid, &a, e->c.id + COOKIE_ROWS))
            return;
    }
}

/* .runs/, .by-trace/ and .by-snapshot/: each group under its id, in order of appearance. */
static void list_groups(struct listing *l, enum group_kind kind)
{
    const struct group_table *t = index_groups(l->x, kind);
    struct node_attr a;

    for (struct index_group *g = group_from(t, next_row(l)); g; g = group_from(t, g->number + 1)) {
        if (kind == GROUP_SNAPSHOT)
            attr_view_link(g->members[0].e, CKPT_SNAPSHOT_LINK, &a);
        else
            attr_group_dir(g, kind == GROUP_RUN ? CLASS_RUN : CLASS_TRACE, &a);
        if (!l->each(l->arg, g->filename, &a, g->number + COOKIE_ROWS))
            return;
    }
}

/* .runs/RUN_ID/ and .by-trace/TRACE_ID/, in step order. */
static int list_group(struct listing *l, node_id dir)
{
    bool is_run = node_class(dir) == CLASS_RUN;
    struct index_group *g = group_of_node(l->x, dir);
    struct node_attr a;

    if (!g)
        return -ESTALE;
    for (size_t i = (size_t)(l->cookie < COOKIE_ROWS ? l->cookie : COOKIE_ROWS); is_run && i < n_run_files; i++) {
        attr_run_file(g, &run_files[i], &a);
        if (!l->each(l->arg, run_files[i].name, &a, (int64_t)i + 1))
            return 0;
    }
    for (size_t i = group_place(g, next_row(l)); i < g->n; i++) {
        const struct index_entry *e = g->members[i].e;

        if (is_run && row_by_name(run_files, n_run_files, e->c.name))
            continue; /* a name can't lead to two */
        attr_view_link(e, is_run ? CKPT_RUN_LINK : CKPT_TRACE_LINK, &a);
        if (!l->each(l->arg, e->c.name, &a, g->members[i].key + COOKIE_ROWS))
            return 0;
    }
    return 0;
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

static void list_replaced(struct listing *l)
{
    struct node_attr a;

    for (const struct index_replaced *b = index_replaced_from(l->x, next_row(l)); b; b = index_replaced_from(l->x, b->id + 1)) {
        attr_replaced(b, &a);
        if (!l->each(l->arg, b->name, &a, b->id + COOKIE_ROWS))
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
        attr_checkpoint_file(l->x, e, row, &a);
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

static int list_mount(struct listing *l, unsigned kind)
{
    if (kind == MOUNT_ROOT)
        list_root(l);
    else if (kind == MOUNT_CONTROL)
        list_mount_rows(l, control_files, n_control_files);
    else if (kind == MOUNT_PENDING)
        list_awaiting(l);
    else if (kind == MOUNT_ACTIONS)
        list_actions(l);
    else if (kind == MOUNT_REPLACED)
        list_replaced(l);
    else if (kind == MOUNT_BY_ID)
        list_ids(l);
    else if (kind == MOUNT_RUNS)
        list_groups(l, GROUP_RUN);
    else if (kind == MOUNT_BY_TRACE)
        list_groups(l, GROUP_TRACE);
    else if (kind == MOUNT_BY_SNAPSHOT)
        list_groups(l, GROUP_SNAPSHOT);
    else
        return -ENOTDIR;
    return 0;
}

static int list_branches(struct listing *l, int64_t id)
{
    struct index_entry *e = index_by_id(l->x, id);
    struct node_attr a;

    if (!e)
        return -ESTALE;
    for (size_t i = 0; i < e->c.n_branches; i++) {
        if (e->c.branches[i].id < next_row(l))
            continue;
        attr_branch_dir(&e->c.branches[i], &a);
        if (!l->each(l->arg, e->c.branches[i].name, &a, e->c.branches[i].id + COOKIE_ROWS))
            break;
    }
    return 0;
}

static int list_branch(struct listing *l, int64_t id)
{
    const struct store_branch *b = NULL;
    struct index_entry *e = index_by_branch(l->x, id, &b);
    struct node_attr a;

    if (!e)
        return -ESTALE;
    for (size_t i = (size_t)l->cookie; i < n_branch_files; i++) {
        const struct file_row *row = &branch_files[i];

        if (row->hidden || !branch_has(l->x, b, row))
            continue;
        attr_branch_file(l->x, e, b, row, &a);
        if (!l->each(l->arg, row->name, &a, (int64_t)i + 1))
            break;
    }
    return 0;
}

static void list_taken_on(struct listing *l, int64_t branch)
{
    struct node_attr a;

    for (struct index_entry *e = index_from(l->x, next_row(l)); e; e = index_from(l->x, e->c.id + 1)) {
        if (e->c.taken_on != branch)
            continue;
        attr_branch_link(e, &a);
        if (!l->each(l->arg, e->c.name, &a, e->c.id + COOKIE_ROWS))
            return;
    }
}

static int list_locked(struct listing *l, node_id dir)
{
    if (node_class(dir) == CLASS_CHECKPOINT && node_kind(dir) == CKPT_DIR)
        return list_checkpoint(l, node_row(dir));
    if (node_class(dir) == CLASS_CHECKPOINT && node_kind(dir) == CKPT_PENDING)
        return list_calls(l, node_row(dir));
    if (node_class(dir) == CLASS_CHECKPOINT && node_kind(dir) == CKPT_BRANCHES)
        return list_branches(l, node_row(dir));
    if (node_class(dir) == CLASS_BRANCH && node_kind(dir) == BRANCH_DIR)
        return list_branch(l, node_row(dir));
    if (node_class(dir) == CLASS_BRANCH && node_kind(dir) == BRANCH_CHECKPOINTS) {
        list_taken_on(l, node_row(dir));
        return 0;
    }
    if ((node_class(dir) == CLASS_RUN || node_class(dir) == CLASS_TRACE) && node_kind(dir) == RUN_DIR)
        return list_group(l, dir);
    return node_class(dir) == CLASS_MOUNT ? list_mount(l, node_kind(dir)) : -ENOTDIR;
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
    const struct store_branch *i;
    struct index_entry *e;
    node_id up = NODE_ROOT;

    if (node_class(dir) == CLASS_BRANCH && node_kind(dir) == BRANCH_CHECKPOINTS)
        return node_make(CLASS_BRANCH, node_row(dir), BRANCH_DIR);
    if (node_class(dir) == CLASS_BRANCH) {
        index_read_lock(x);
        e = index_by_branch(x, node_row(dir), &i);
        if (e)
            up = node_make(CLASS_CHECKPOINT, e->c.id, CKPT_BRANCHES);
        index_unlock(x);
        return up;
    }
    if (node_class(dir) == CLASS_CHECKPOINT && (node_kind(dir) == CKPT_PENDING || node_kind(dir) == CKPT_BRANCHES))
        return node_make(CLASS_CHECKPOINT, node_row(dir), CKPT_DIR);
    if (node_class(dir) == CLASS_MOUNT && (node_kind(dir) == MOUNT_ACTIONS || node_kind(dir) == MOUNT_REPLACED))
        return node_make(CLASS_MOUNT, 0, MOUNT_CONTROL);
    if (node_class(dir) == CLASS_RUN)
        return node_make(CLASS_MOUNT, 0, MOUNT_RUNS);
    if (node_class(dir) == CLASS_TRACE)
        return node_make(CLASS_MOUNT, 0, MOUNT_BY_TRACE);
    return NODE_ROOT;
}
