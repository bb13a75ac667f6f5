/* The tree: names to nodes, nodes to attributes, directories to listings. All from the index, under its read lock. */
#include "tree/tree.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "files.h"
#include "tree/status.h"
#include "util/text.h"

/* Cookies: fixed rows are 1 + their place in the table; rows of the store come after them. */
#define COOKIE_ROWS 64

static const struct file_row *row_by_name(const struct file_row *rows, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(rows[i].name, name) == 0)
            return &rows[i];
    return NULL;
}

static const struct file_row *row_by_kind(const struct file_row *rows, size_t n, unsigned kind)
{
    for (size_t i = 0; i < n; i++)
        if (rows[i].kind == kind)
            return &rows[i];
    return NULL;
}

bool tree_own_name(const char *name)
{
    return row_by_name(checkpoint_files, n_checkpoint_files, name) != NULL;
}

/* ---- attributes ---------------------------------------------------------------------------------------------------- */

static void attr_directory(struct node_attr *a, node_id id, int64_t mtime)
{
    *a = (struct node_attr){.id = id, .mode = S_IFDIR | 0755, .size = 0, .mtime = mtime, .source = SOURCE_NONE};
}

static void attr_link(struct node_attr *a, node_id id, const char *prefix, const char *name, int64_t mtime)
{
    *a = (struct node_attr){.id = id, .mode = S_IFLNK | 0777, .size = (int64_t)(strlen(prefix) + strlen(name)), .mtime = mtime};
}

static int64_t status_size(const struct index_entry *e)
{
    struct buf b = {0};
    int64_t n;

    status_render(&e->c, e->draft_size > 0, &b);
    n = (int64_t)b.len;
    buf_free(&b);
    return n;
}

static void attr_checkpoint_file(const struct index_entry *e, const struct file_row *row, struct node_attr *a)
{
    const struct store_checkpoint *c = &e->c;
    bool is_sealed = c->phase == PHASE_SEALED;

    *a = (struct node_attr){
        .id = node_make(CLASS_CHECKPOINT, c->id, row->kind),
        .mode = row->mode,
        .mtime = c->changed_at,
        .source = row->source,
        .file = row->file,
        .immutable = row->immutable && is_sealed,
        .fixed_name = is_sealed && row->kind != CKPT_META,
    };
    if (row->source == SOURCE_STATE && !is_sealed) {
        a->source = SOURCE_DRAFT;
        a->mode = S_IFREG | 0600;
        a->size = e->draft_size;
        a->mtime = e->draft_mtime;
    } else if (row->source == SOURCE_FILE || row->source == SOURCE_STATE || row->source == SOURCE_OUTPUT || row->source == SOURCE_HISTORY) {
        a->size = c->sizes[row->file] < 0 ? 0 : c->sizes[row->file];
        a->mtime = c->mtimes[row->file] ? c->mtimes[row->file] : c->created_at;
    } else if (row->source == SOURCE_EMPTY) {
        a->mtime = c->created_at;
    } else if (row->kind == CKPT_STATUS) {
        a->size = status_size(e);
    } else if (row->kind == CKPT_PENDING) {
        a->mtime = c->sealed_at;
    }
}

static void attr_call(const struct store_checkpoint *c, const struct store_call *call, struct node_attr *a)
{
    *a = (struct node_attr){
        .id = node_make(CLASS_CALL, call->id, ONLY_KIND),
        .mode = S_IFREG | 0400,
        .size = call->file_size,
        .mtime = c->sealed_at,
        .immutable = true,
        .fixed_name = true,
        .source = SOURCE_CALL,
    };
}

static void attr_action(const struct store_action_entry *act, struct node_attr *a)
{
    *a = (struct node_attr){
        .id = node_make(CLASS_ACTION, act->id, ONLY_KIND),
        .mode = S_IFREG | 0444,
        .size = act->doc_size,
        .mtime = act->changed_at,
        .source = SOURCE_ACTION,
    };
}

static void attr_temp(const struct index_temp *t, struct node_attr *a)
{
    *a = (struct node_attr){
        .id = node_make(CLASS_TEMP, t->id, ONLY_KIND),
        .mode = S_IFREG | 0600,
        .size = (int64_t)t->data.len,
        .mtime = t->mtime,
        .source = SOURCE_TEMP,
    };
}

static int attr_mount_row(struct index *x, const struct file_row *row, struct node_attr *a)
{
    const struct store_action_entry *act;
    struct index_entry *latest;

    *a = (struct node_attr){
        .id = node_make(CLASS_MOUNT, 0, row->kind), .mode = row->mode, .mtime = index_root_mtime(x), .source = row->source,
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
    case MOUNT_CONTROL:
    case MOUNT_PENDING:
    case MOUNT_ACTIONS:
        a->fixed_name = true;
        return 0;
    case MOUNT_PRUNE:
        return 0;
    }
    return 0;
}

static void attr_entry_dir(const struct index_entry *e, struct node_attr *a)
{
    attr_directory(a, node_make(CLASS_CHECKPOINT, e->c.id, CKPT_DIR), e->c.changed_at);
    a->fixed_name = e->c.phase == PHASE_SEALED;
}

static void attr_pending_link(const struct index_entry *e, struct node_attr *a)
{
    attr_link(a, node_make(CLASS_CHECKPOINT, e->c.id, CKPT_PENDING_LINK), "../", e->c.name, e->c.sealed_at);
}

/* ---- lookup -------------------------------------------------------------------------------------------------------- */

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
    size_t n = strlen(name);

    if (n < 6 || strcmp(name + n - 5, ".json") != 0)
        return -ENOENT;
    for (const struct store_action_entry *a = index_action_from(x, 0); a; a = index_action_from(x, a->id + 1)) {
        if (strlen(a->uid) == n - 5 && strncmp(a->uid, name, n - 5) == 0) {
            attr_action(a, ret);
            return 0;
        }
    }
    return -ENOENT;
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

/* ---- attributes of a node ------------------------------------------------------------------------------------------ */

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
    if (node_kind(node) == CKPT_PENDING_LINK) {
        attr_pending_link(e, ret);
        return 0;
    }
    row = row_by_kind(checkpoint_files, n_checkpoint_files, node_kind(node));
    if (!row)
        return -ESTALE;
    attr_checkpoint_file(e, row, ret);
    if (ret->size < 0)
        ret->size = 0; /* unlinked while open */
    return 0;
}

static int attr_of_call(struct index *x, int64_t id, struct node_attr *ret)
{
    /* The row id alone doesn't name the checkpoint; calls are few and their attributes cached for ever, so a walk is fine. */
    for (struct index_entry *e = index_from(x, 0); e; e = index_from(x, e->c.id + 1)) {
        for (size_t i = 0; i < e->c.n_calls; i++) {
            if (e->c.calls[i].id == id) {
                attr_call(&e->c, &e->c.calls[i], ret);
                return 0;
            }
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

static int attr_of_mount(struct index *x, unsigned kind, struct node_attr *ret)
{
    const struct file_row *row;

    if (kind == MOUNT_ROOT) {
        attr_directory(ret, NODE_ROOT, index_root_mtime(x));
        return 0;
    }
    row = row_by_kind(root_files, n_root_files, kind);
    if (!row)
        row = row_by_kind(control_files, n_control_files, kind);
    return row ? attr_mount_row(x, row, ret) : -ESTALE;
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
    case CLASS_TEMP:
        return attr_of_temp(x, node_row(node), ret);
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

/* ---- listing ------------------------------------------------------------------------------------------------------- */

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

/* ---- contents ------------------------------------------------------------------------------------------------------ */

int tree_readlink(struct index *x, node_id node, struct buf *ret)
{
    struct index_entry *e = NULL;
    int r = -EINVAL;

    index_read_lock(x);
    if (node_class(node) == CLASS_MOUNT && node_kind(node) == MOUNT_LATEST) {
        e = index_latest(x);
        r = e ? 0 : -ENOENT;
    } else if (node_class(node) == CLASS_CHECKPOINT && node_kind(node) == CKPT_PENDING_LINK) {
        e = index_by_id(x, node_row(node));
        r = e ? 0 : -ENOENT;
        buf_adds(ret, "../");
    }
    if (e)
        buf_adds(ret, e->c.name);
    index_unlock(x);
    return r < 0 ? r : buf_error(ret);
}

static int text_locked(struct index *x, node_id node, struct buf *ret)
{
    const struct index_text *text;
    struct index_entry *e;
    struct index_temp *t;

    switch (node_class(node)) {
    case CLASS_MOUNT:
        text = index_text(x, (enum mount_kind)node_kind(node));
        buf_add(ret, text->bytes ? text->bytes : "", text->n);
        return 0;
    case CLASS_CHECKPOINT:
        e = index_by_id(x, node_row(node));
        if (!e)
            return -ESTALE;
        status_render(&e->c, e->draft_size > 0, ret);
        return 0;
    case CLASS_TEMP:
        t = index_temp_by_id(x, node_row(node));
        if (!t)
            return -ESTALE;
        buf_add(ret, t->data.data ? t->data.data : "", t->data.len);
        return 0;
    case CLASS_CALL:
    case CLASS_ACTION:
        break;
    }
    return -EINVAL;
}

int tree_text(struct index *x, node_id node, struct buf *ret)
{
    int r;

    index_read_lock(x);
    r = text_locked(x, node, ret);
    index_unlock(x);
    return r < 0 ? r : buf_error(ret);
}
