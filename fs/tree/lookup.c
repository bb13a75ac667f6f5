/* From a name in a directory to a node. */
#include <errno.h>
#include <string.h>

#include "tree_i.h"

static int lookup_root(struct index *x, const char *name, struct node_attr *ret)
{
    const struct file_row *row = row_by_name(root_files, n_root_files, name);
    struct index_entry *e;

    if (row)
        return attr_mount_row(x, row, ret);
    e = index_by_name(x, name);
    if (!e)
        return -ENOENT;
    attr_entry_dir(e, ret);
    return 0;
}

static int lookup_checkpoint(struct index *x, int64_t id, const char *name, struct node_attr *ret)
{
    struct index_entry *e = index_by_id(x, id);
    const struct file_row *row = row_by_name(checkpoint_files, n_checkpoint_files, name);
    struct index_temp *t;

    if (!e)
        return -ESTALE;
    if (row && (!row->listed || row->listed(e, row))) {
        attr_checkpoint_file(x, e, row, ret);
        return 0;
    }
    t = row ? NULL : index_temp_by_name(x, id, name);
    if (!t)
        return -ENOENT;
    attr_temp(t, ret);
    return 0;
}

static int lookup_pending(struct index *x, int64_t id, const char *name, struct node_attr *ret)
{
    struct index_entry *e = index_by_id(x, id);

    if (!e)
        return -ESTALE;
    for (size_t i = 0; i < e->c.n_calls; i++) {
        if (strcmp(e->c.calls[i].filename, name) == 0) {
            attr_call(&e->c, &e->c.calls[i], ret);
            return 0;
        }
    }
    return -ENOENT;
}

static int lookup_branches(struct index *x, int64_t id, const char *name, struct node_attr *ret)
{
    struct index_entry *e = index_by_id(x, id);
    const struct store_branch *i = e ? entry_branch(e, name) : NULL;

    if (!e)
        return -ESTALE;
    if (!i)
        return -ENOENT;
    attr_branch_dir(i, ret);
    return 0;
}

static int lookup_branch(struct index *x, int64_t id, const char *name, struct node_attr *ret)
{
    const struct store_branch *i = NULL;
    struct index_entry *e = index_by_branch(x, id, &i);
    const struct file_row *row = row_by_name(branch_files, n_branch_files, name);

    if (!e)
        return -ESTALE;
    if (!row || !branch_has(x, i, row))
        return -ENOENT;
    attr_branch_file(x, e, i, row, ret);
    return 0;
}

static int lookup_taken_on(struct index *x, int64_t branch, const char *name, struct node_attr *ret)
{
    struct index_entry *e = index_by_name(x, name);

    if (!e || e->c.taken_on != branch)
        return -ENOENT;
    attr_branch_link(e, ret);
    return 0;
}

static int lookup_action(struct index *x, const char *name, struct node_attr *ret)
{
    const struct store_action_entry *a;
    char uid[sizeof(a->uid)];
    size_t n = strlen(name);

    if (n < 6 || n - 5 >= sizeof(uid) || strcmp(name + n - 5, ".json") != 0)
        return -ENOENT;
    memcpy(uid, name, n - 5);
    uid[n - 5] = '\0';
    a = index_action_by_uid(x, uid);
    if (!a)
        return -ENOENT;
    attr_action(a, ret);
    return 0;
}

/* A run's, a trace's or a snapshot's id. */
static int lookup_group(const struct index *x, enum group_kind kind, const char *name, struct node_attr *ret)
{
    struct index_group *g = group_by_name(index_groups(x, kind), name);

    if (!g)
        return -ENOENT;
    if (kind == GROUP_SNAPSHOT)
        attr_view_link(g->members[0].e, CKPT_SNAPSHOT_LINK, ret);
    else
        attr_group_dir(g, kind == GROUP_RUN ? CLASS_RUN : CLASS_TRACE, ret);
    return 0;
}

static int lookup_member(struct index *x, node_id dir, const char *name, struct node_attr *ret)
{
    bool is_run = node_class(dir) == CLASS_RUN;
    const struct file_row *row = is_run ? row_by_name(run_files, n_run_files, name) : NULL;
    struct index_group *g = group_of_node(x, dir);
    struct index_entry *e = index_by_name(x, name);

    if (!g)
        return -ESTALE;
    if (row)
        attr_run_file(g, row, ret);
    else if (e && (e->groups[is_run ? GROUP_RUN : GROUP_TRACE] == g || e->groups[PLACE_STATE_TRACE] == g))
        attr_view_link(e, is_run ? CKPT_RUN_LINK : CKPT_TRACE_LINK, ret);
    else
        return -ENOENT;
    return 0;
}

static int lookup_mount(struct index *x, enum mount_kind kind, const char *name, struct node_attr *ret)
{
    const struct index_replaced *b;
    const struct file_row *row;
    struct index_entry *e;

    switch (kind) {
    case MOUNT_ROOT:
        return lookup_root(x, name, ret);
    case MOUNT_CONTROL:
        row = row_by_name(control_files, n_control_files, name);
        return row ? attr_mount_row(x, row, ret) : -ENOENT;
    case MOUNT_PENDING:
        e = index_by_name(x, name);
        if (!e || !entry_awaits(&e->c))
            return -ENOENT;
        attr_view_link(e, CKPT_PENDING_LINK, ret);
        return 0;
    case MOUNT_ACTIONS:
        return lookup_action(x, name, ret);
    case MOUNT_BY_ID:
        e = index_by_uid(x, name);
        if (!e)
            return -ENOENT;
        attr_view_link(e, CKPT_ID_LINK, ret);
        return 0;
    case MOUNT_RUNS:
        return lookup_group(x, GROUP_RUN, name, ret);
    case MOUNT_BY_TRACE:
        return lookup_group(x, GROUP_TRACE, name, ret);
    case MOUNT_BY_SNAPSHOT:
        return lookup_group(x, GROUP_SNAPSHOT, name, ret);
    case MOUNT_REPLACED:
        b = index_replaced_by_name(x, name);
        if (!b)
            return -ENOENT;
        attr_replaced(b, ret);
        return 0;
    case MOUNT_LATEST:
    case MOUNT_ACTIVE_BRANCH:
    case MOUNT_CONNECTION_URI:
    case MOUNT_HEALTH:
    case MOUNT_VERSION:
    case MOUNT_CONFIG:
    case MOUNT_EVENTS:
    case MOUNT_RESULT:
    case MOUNT_PRUNE:
    case MOUNT_UNDO:
    case MOUNT_ADOPT:
    case MOUNT_METRICS:
    case MOUNT_IMPORT:
        return -ENOTDIR;
    }
    return -ENOTDIR;
}

int tree_lookup(struct index *x, node_id dir, const char *name, struct node_attr *ret)
{
    int r = -ENOTDIR;

    index_read_lock(x);
    if (node_class(dir) == CLASS_MOUNT)
        r = lookup_mount(x, (enum mount_kind)node_kind(dir), name, ret);
    else if (node_class(dir) == CLASS_CHECKPOINT && node_kind(dir) == CKPT_DIR)
        r = lookup_checkpoint(x, node_row(dir), name, ret);
    else if (node_class(dir) == CLASS_CHECKPOINT && node_kind(dir) == CKPT_PENDING)
        r = lookup_pending(x, node_row(dir), name, ret);
    else if ((node_class(dir) == CLASS_RUN || node_class(dir) == CLASS_TRACE) && node_kind(dir) == RUN_DIR)
        r = lookup_member(x, dir, name, ret);
    else if (node_class(dir) == CLASS_CHECKPOINT && node_kind(dir) == CKPT_BRANCHES)
        r = lookup_branches(x, node_row(dir), name, ret);
    else if (node_class(dir) == CLASS_BRANCH && node_kind(dir) == BRANCH_DIR)
        r = lookup_branch(x, node_row(dir), name, ret);
    else if (node_class(dir) == CLASS_BRANCH && node_kind(dir) == BRANCH_CHECKPOINTS)
        r = lookup_taken_on(x, node_row(dir), name, ret);
    index_unlock(x);
    return r;
}

void tree_absent(struct index *x, int64_t checkpoint, void (*each)(void *arg, const char *name), void *arg)
{
    struct index_entry *e;

    index_read_lock(x);
    e = index_by_id(x, checkpoint);
    for (size_t i = 0; e && i < n_checkpoint_files; i++)
        if (checkpoint_files[i].listed && !checkpoint_files[i].listed(e, &checkpoint_files[i]))
            each(arg, checkpoint_files[i].name);
    index_unlock(x);
}
