/* What changes directories: mkdir takes a checkpoint, mv renames one, and everything that would destroy one is refused.
 *
 * The kernel holds the directory's lock until the answer, so these are jobs that wait for nothing but the store (design.md §7.4). */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "mount_i.h"
#include "util/log.h"
#include "util/text.h"

static struct call *named(struct mount *m, fuse_req_t req, node_id node, const char *name)
{
    struct call *c = call_new(req, NULL);

    (void)m;
    if (!c)
        return NULL;
    c->node = node;
    c->name = str_dup(name);
    if (!c->name) {
        call_reply_err(c, ENOMEM);
        return NULL;
    }
    return c;
}

/* The store is away or too slow: EIO, whatever the cause, within 2 s (design.md §7.4). */
static int code_of(struct call *c, int r)
{
    if (r < 0)
        log_info("refused: %s", err_text(&c->e));
    return r == -ETIMEDOUT ? EIO : -r;
}

void dirs_refuse(struct mount *m, fuse_req_t req, node_id parent, const char *name)
{
    struct call *c = named(m, req, parent, name);

    if (!c)
        return;
    if (node_class(parent) == CLASS_CHECKPOINT && node_kind(parent) == CKPT_DIR)
        copies_refuse(c);
    else
        call_reply_err(c, EPERM);
}

/* ---- mkdir ------------------------------------------------------------------------------------------------------------ */

static void take(struct call *c)
{
    struct node_attr a;
    struct who who;
    int64_t id = 0;
    int r;

    who_read(c->from.pid, c->from.uid, &who);
    r = engine_take(c->m->engine, c->name, &who, &id, &c->e);
    who_clear(&who);
    if (r == 0)
        r = tree_attr(c->m->c.index, node_make(CLASS_CHECKPOINT, id, CKPT_DIR), &a);
    if (r < 0)
        call_reply_err(c, code_of(c, r));
    else
        call_reply_entry(c, &a);
}

/* A name that no checkpoint can have: `result` says why. */
static void bad_name(struct call *c)
{
    const char *problem = name_problem(c->name);
    int code = strlen(c->name) > NAME_MAX ? ENAMETOOLONG : EINVAL;
    struct who who;

    who_read(c->from.pid, c->from.uid, &who);
    engine_take_refused(c->m->engine, 0, c->name, &who, code, problem);
    who_clear(&who);
    call_reply_err(c, code);
}

void dirs_mkdir(struct mount *m, fuse_req_t req, node_id parent, const char *name)
{
    struct call *c;

    if (parent != NODE_ROOT) {
        dirs_refuse(m, req, parent, name);
        return;
    }
    c = named(m, req, parent, name);
    if (c)
        jobs_add(m->dirs, c, name_problem(name) ? bad_name : take);
}

/* ---- rmdir, unlink ------------------------------------------------------------------------------------------------------ */

static void remove_failed(struct call *c)
{
    struct who who;
    int r;

    who_read(c->from.pid, c->from.uid, &who);
    r = engine_take_remove(c->m->engine, node_row(c->node2), &who, &c->e);
    who_clear(&who);
    call_reply_err(c, r == -EPERM ? ENOTEMPTY : code_of(c, r));
}

void dirs_rmdir(struct mount *m, fuse_req_t req, node_id parent, const char *name)
{
    struct node_attr a;
    struct call *c;
    int r = tree_lookup(m->c.index, parent, name, &a);

    if (r < 0 || parent != NODE_ROOT || node_class(a.id) != CLASS_CHECKPOINT) {
        fuse_reply_err(req, r < 0 ? -r : EPERM);
        return;
    }
    c = named(m, req, parent, name);
    if (!c)
        return;
    c->node2 = a.id;
    jobs_add(m->dirs, c, remove_failed);
}

void dirs_unlink(struct mount *m, fuse_req_t req, node_id parent, const char *name)
{
    struct call *c;

    if (node_class(parent) != CLASS_CHECKPOINT || node_kind(parent) != CKPT_DIR) {
        fuse_reply_err(req, EPERM);
        return;
    }
    c = named(m, req, parent, name);
    if (c)
        draft_unlink(c);
}

/* ---- rename ------------------------------------------------------------------------------------------------------------- */

static void rename_checkpoint(struct call *c)
{
    struct who who;
    int r;

    who_read(c->from.pid, c->from.uid, &who);
    r = engine_rename(c->m->engine, node_row(c->node2), c->name2, &who, &c->e);
    who_clear(&who);
    call_reply_err(c, code_of(c, r));
}

/* Never EXDEV: mv would make the directory and copy, which takes a checkpoint, and delete the source (traps.md 15). */
static int may_rename(node_id parent, node_id what, node_id new_parent, const char *new_name, unsigned flags)
{
    if (flags & ~1u) /* RENAME_NOREPLACE is what mv sends; exchange and whiteout make no sense here */
        return EINVAL;
    if (node_class(what) == CLASS_TEMP || what == node_make(CLASS_CHECKPOINT, node_row(what), CKPT_META))
        return parent == new_parent ? 0 : EPERM;
    if (node_class(what) != CLASS_CHECKPOINT || node_kind(what) != CKPT_DIR || parent != NODE_ROOT || new_parent != NODE_ROOT)
        return EPERM;
    return !name_problem(new_name) ? 0 : strlen(new_name) > NAME_MAX ? ENAMETOOLONG : EINVAL;
}

void dirs_rename(struct mount *m, fuse_req_t req, node_id parent, const char *name, node_id new_parent, const char *new_name,
                 unsigned flags)
{
    struct node_attr a;
    struct call *c;
    int code = -tree_lookup(m->c.index, parent, name, &a);

    if (!code)
        code = may_rename(parent, a.id, new_parent, new_name, flags);
    if (code) {
        fuse_reply_err(req, code);
        return;
    }
    c = named(m, req, new_parent, name);
    if (!c)
        return;
    c->node2 = a.id;
    c->name2 = str_dup(new_name);
    if (!c->name2)
        call_reply_err(c, ENOMEM);
    else if (node_class(a.id) == CLASS_TEMP)
        temps_rename(c);
    else if (node_kind(a.id) == CKPT_DIR)
        jobs_add(m->dirs, c, rename_checkpoint);
    else if (copies_temporary_name(new_name))
        temps_keep_meta(c);
    else
        call_reply_err(c, EPERM);
}
