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
        attr_checkpoint_file(e, row, ret);
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

static int lookup_mount(struct index *x, enum mount_kind kind, const char *name, struct node_attr *ret)
{
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
        attr_pending_link(e, ret);
        return 0;
    case MOUNT_ACTIONS:
        return lookup_action(x, name, ret);
    case MOUNT_LATEST:
    case MOUNT_ACTIVE_BRANCH:
    case MOUNT_CONNECTION_URI:
    case MOUNT_HEALTH:
    case MOUNT_VERSION:
    case MOUNT_CONFIG:
    case MOUNT_EVENTS:
    case MOUNT_RESULT:
    case MOUNT_PRUNE:
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
    index_unlock(x);
    return r;
}
