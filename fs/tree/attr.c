/* What each node is like: mode, size, times, where its bytes come from. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "tree/status.h"
#include "tree_i.h"

static void attr_directory(struct node_attr *a, node_id id, int64_t mtime)
{
    *a = (struct node_attr){.id = id, .mode = S_IFDIR | 0777, .size = 0, .mtime = mtime, .source = SOURCE_NONE};
}

void attr_link(struct node_attr *a, node_id id, const char *prefix, const char *name, int64_t mtime)
{
    *a = (struct node_attr){.id = id, .mode = S_IFLNK | 0777, .size = (int64_t)(strlen(prefix) + strlen(name)), .mtime = mtime};
}

static int64_t status_size(const struct index_entry *e, int64_t lost)
{
    struct buf b = {0};
    int64_t n;

    status_render(&e->c, e->draft_size > 0, lost, &b);
    n = (int64_t)b.len;
    buf_free(&b);
    return n;
}

void attr_checkpoint_file(const struct index *x, const struct index_entry *e, const struct file_row *row, struct node_attr *a)
{
    const struct store_checkpoint *c = &e->c;
    bool is_sealed = c->phase == PHASE_SEALED;

    *a = (struct node_attr){
        .id = node_make(CLASS_CHECKPOINT, c->id, row->kind),
        .mode = row->mode,
        .who = row->who,
        .mtime = c->changed_at,
        .source = row->source,
        .file = row->file,
        .immutable = row->immutable && is_sealed,
        .fixed_name = is_sealed && row->kind != CKPT_META && row->kind != CKPT_BRANCHES,
    };
    if (row->source == SOURCE_STATE && !is_sealed) {
        a->source = SOURCE_DRAFT;
        a->mode = S_IFREG | 0666;
        a->size = e->draft_size;
        a->mtime = e->draft_mtime;
    } else if (row->source == SOURCE_FILE || row->source == SOURCE_STATE || row->source == SOURCE_OUTPUT || row->source == SOURCE_HISTORY) {
        a->size = c->sizes[row->file] < 0 ? 0 : c->sizes[row->file];
        a->mtime = c->mtimes[row->file] ? c->mtimes[row->file] : c->created_at;
    } else if (row->source == SOURCE_EMPTY) {
        a->mtime = c->created_at;
    } else if (row->kind == CKPT_STATUS) {
        a->size = status_size(e, index_lost(x));
    } else if (row->kind == CKPT_PENDING) {
        a->mtime = c->sealed_at;
    }
}

void attr_call(const struct store_checkpoint *c, const struct store_call *call, struct node_attr *a)
{
    *a = (struct node_attr){
        .id = node_make(CLASS_CALL, call->id, ONLY_KIND),
        .mode = S_IFREG | 0444,
        .size = call->file_size,
        .mtime = c->sealed_at,
        .immutable = true,
        .fixed_name = true,
        .source = SOURCE_CALL,
    };
}

void attr_action(const struct store_action_entry *act, struct node_attr *a)
{
    *a = (struct node_attr){
        .id = node_make(CLASS_ACTION, act->id, ONLY_KIND),
        .mode = S_IFREG | 0444,
        .size = act->doc_size,
        .mtime = act->changed_at,
        .source = SOURCE_ACTION,
    };
}

void attr_replaced(const struct index_replaced *b, struct node_attr *a)
{
    *a = (struct node_attr){
        .id = node_make(CLASS_REPLACED, b->id, ONLY_KIND),
        .mode = S_IFREG | 0444,
        .size = (int64_t)b->n,
        .mtime = b->mtime,
        .source = SOURCE_TEXT,
    };
}

void attr_temp(const struct index_temp *t, struct node_attr *a)
{
    *a = (struct node_attr){
        .id = node_make(CLASS_TEMP, t->id, ONLY_KIND),
        .mode = S_IFREG | 0666,
        .who = ROLE_AGENT,
        .size = (int64_t)t->data.len,
        .mtime = t->mtime,
        .source = SOURCE_TEMP,
    };
}

/* Directories of the mount change with what is in the log, and keep its time over a remount. */
static int64_t listing_time(const struct index *x)
{
    int64_t size, mtime;

    index_events(x, &size, &mtime);
    return mtime;
}

int attr_mount_row(struct index *x, const struct file_row *row, struct node_attr *a)
{
    const struct store_action_entry *act;
    struct index_entry *latest;

    *a = (struct node_attr){
        .id = node_make(CLASS_MOUNT, 0, row->kind), .mode = row->mode, .who = row->who, .mtime = INDEX_EPOCH, .source = row->source,
    };
    switch ((enum mount_kind)row->kind) {
    case MOUNT_LATEST:
        latest = index_latest(x);
        if (!latest)
            return -ENOENT;
        attr_link(a, a->id, "", latest->c.name, latest->c.sealed_at);
        return 0;
    case MOUNT_EVENTS:
        index_events(x, &a->size, &a->mtime);
        return 0;
    case MOUNT_RESULT:
        act = index_control_action(x);
        a->size = act ? act->doc_size : 0;
        if (act)
            a->mtime = act->changed_at;
        else
            a->source = SOURCE_EMPTY;
        return 0;
    case MOUNT_ACTIVE_BRANCH:
    case MOUNT_CONNECTION_URI:
    case MOUNT_HEALTH:
    case MOUNT_VERSION:
    case MOUNT_CONFIG:
        a->size = (int64_t)index_text(x, (enum mount_kind)row->kind)->n;
        a->mtime = index_text(x, (enum mount_kind)row->kind)->mtime;
        return 0;
    case MOUNT_ROOT:
    case MOUNT_PENDING:
    case MOUNT_RUNS:
    case MOUNT_BY_ID:
    case MOUNT_BY_SNAPSHOT:
    case MOUNT_BY_TRACE:
    case MOUNT_ACTIONS:
    case MOUNT_REPLACED:
        a->mtime = listing_time(x);
        a->fixed_name = true;
        return 0;
    case MOUNT_CONTROL:
    case MOUNT_IMPORT: /* what is in it is the mount's own: tree/staging.h */
        a->fixed_name = true;
        return 0;
    case MOUNT_PRUNE:
    case MOUNT_UNDO:
    case MOUNT_ADOPT:
    case MOUNT_METRICS: /* no size before it is opened, as in /proc */
        return 0;
    }
    return 0;
}

void attr_entry_dir(const struct index_entry *e, struct node_attr *a)
{
    attr_directory(a, node_make(CLASS_CHECKPOINT, e->c.id, CKPT_DIR), e->c.changed_at);
    a->fixed_name = e->c.phase == PHASE_SEALED;
}

/* ---- of a node that is only known by its number ---------------------------------------------------------------------- */

static int attr_of_checkpoint(struct index *x, node_id node, struct node_attr *ret)
{
    struct index_entry *e = index_by_id(x, node_row(node));
    const struct file_row *row;

    if (!e)
        return -ESTALE;
    if (node_kind(node) == CKPT_DIR) {
        attr_entry_dir(e, ret);
        return 0;
    }
    if (view_link_prefix(node_kind(node))) {
        attr_view_link(e, node_kind(node), ret);
        return 0;
    }
    if (node_kind(node) == CKPT_BRANCH_LINK) {
        attr_branch_link(e, ret);
        return 0;
    }
    row = row_by_kind(checkpoint_files, n_checkpoint_files, node_kind(node));
    if (!row)
        return -ESTALE;
    attr_checkpoint_file(x, e, row, ret);
    if (ret->size < 0)
        ret->size = 0; /* unlinked while open */
    return 0;
}

static int attr_of_call(struct index *x, int64_t id, struct node_attr *ret)
{
    const struct index_entry *e = index_by_call(x, id);

    for (size_t i = 0; e && i < e->c.n_calls; i++) {
        if (e->c.calls[i].id == id) {
            attr_call(&e->c, &e->c.calls[i], ret);
            return 0;
        }
    }
    return -ESTALE;
}

static int attr_of_temp(struct index *x, int64_t id, struct node_attr *ret)
{
    struct index_temp *t = index_temp_by_id(x, id);

    if (!t)
        return -ESTALE;
    if (t->became) {
        int r = attr_of_checkpoint(x, node_make(CLASS_CHECKPOINT, t->checkpoint, t->became), ret);

        ret->id = node_make(CLASS_TEMP, id, ONLY_KIND);
        ret->immutable = false;
        return r;
    }
    attr_temp(t, ret);
    return 0;
}

static int attr_of_branch(struct index *x, node_id node, struct node_attr *ret)
{
    const struct store_branch *i = NULL;
    struct index_entry *e = index_by_branch(x, node_row(node), &i);
    const struct file_row *row = row_by_kind(branch_files, n_branch_files, node_kind(node));

    if (!e || (!row && node_kind(node) != BRANCH_DIR))
        return -ESTALE;
    if (row)
        attr_branch_file(x, e, i, row, ret);
    else
        attr_branch_dir(i, ret);
    return 0;
}

static int attr_of_mount(struct index *x, unsigned kind, struct node_attr *ret)
{
    const struct file_row *row;

    if (kind == MOUNT_ROOT) {
        attr_directory(ret, NODE_ROOT, listing_time(x));
        return 0;
    }
    row = row_by_kind(root_files, n_root_files, kind);
    if (!row)
        row = row_by_kind(control_files, n_control_files, kind);
    return row ? attr_mount_row(x, row, ret) : -ESTALE;
}

static int attr_of_replaced(struct index *x, int64_t id, struct node_attr *ret)
{
    const struct index_replaced *b = index_replaced_from(x, id);

    if (!b || b->id != id)
        return -ESTALE;
    attr_replaced(b, ret);
    return 0;
}

static int attr_locked(struct index *x, node_id node, struct node_attr *ret)
{
    const struct store_action_entry *act;

    switch (node_class(node)) {
    case CLASS_MOUNT:
        return attr_of_mount(x, node_kind(node), ret);
    case CLASS_CHECKPOINT:
        return attr_of_checkpoint(x, node, ret);
    case CLASS_CALL:
        return attr_of_call(x, node_row(node), ret);
    case CLASS_ACTION:
        act = index_action_from(x, node_row(node));
        if (!act || act->id != node_row(node))
            return -ESTALE;
        attr_action(act, ret);
        return 0;
    case CLASS_REPLACED:
        return attr_of_replaced(x, node_row(node), ret);
    case CLASS_TEMP:
        return attr_of_temp(x, node_row(node), ret);
    case CLASS_RUN:
    case CLASS_TRACE:
        return attr_of_group(x, node, ret);
    case CLASS_BRANCH:
        return attr_of_branch(x, node, ret);
    case CLASS_STAGED:
        break;
    }
    return -ESTALE;
}

int tree_attr(struct index *x, node_id node, struct node_attr *ret)
{
    int r;

    index_read_lock(x);
    r = attr_locked(x, node, ret);
    index_unlock(x);
    return r;
}
