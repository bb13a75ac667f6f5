/* What changes directories: mkdir takes a checkpoint, mv renames one, and everything that would destroy one is refused.
 *
 * The kernel holds the directory's lock until the answer, so these are jobs that wait for nothing but the store (design.md §7.4). */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "agents/caller.h"
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
    call_holds(c, node);
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
        copies_refuse(c, c->name);
    else
        call_reply_err(c, EPERM);
}

/* ---- mkdir ------------------------------------------------------------------------------------------------------------ */

/* What mkdir made, or why it didn't. */
static void reply_made(struct call *c, int r, node_id made)
{
    struct node_attr a;

    if (r == 0)
        r = tree_attr(c->m->c.index, made, &a);
    if (r < 0)
        call_reply_err(c, code_of(c, r));
    else
        call_reply_entry(c, &a);
}

static void mark_by_agent(struct mount *m, int64_t checkpoint)
{
    struct index_entry *e;

    index_write_lock(m->c.index);
    e = index_by_id(m->c.index, checkpoint);
    if (e)
        e->by_agent = true;
    index_unlock(m->c.index);
}

/* At the root; or in branches/X/checkpoints, where the next lookup finds the link to what was made at the root (traps.md 16). */
static void take(struct call *c)
{
    int64_t branch = node_class(c->node) == CLASS_BRANCH ? node_row(c->node) : 0;
    struct who who;
    int64_t id = 0;
    int r;

    who_read(c->m->engine, &c->from, &who);
    r = engine_take_on(c->m->engine, branch, c->name, &who, &id, &c->e);
    who_clear(&who);
    if (r == 0 && c->why)
        mark_by_agent(c->m, id);
    reply_made(c, r, node_make(CLASS_CHECKPOINT, id, CKPT_DIR));
}

/* In NAME/branches: `echo branch NAME > restore`, answered at once as a take is. */
static void make_branch(struct call *c)
{
    struct who who;
    int64_t id = 0;
    int r;

    who_read(c->m->engine, &c->from, &who);
    r = engine_branch(c->m->engine, node_row(c->node), c->name, &who, &id, &c->e);
    who_clear(&who);
    reply_made(c, r, node_make(CLASS_BRANCH, id, BRANCH_DIR));
}

/* A copy of a backup makes the directories of its branches: whoever is about to write the checkpoint itself makes none of it so. */
static bool copies_branches(struct call *c)
{
    struct index_entry *e;
    pid_t process, parent;
    bool same;

    caller_ids(c->from.pid, &process, &parent);
    index_read_lock(c->m->c.index);
    e = index_by_id(c->m->c.index, node_row(c->node));
    same = e && (same_process(process, e->copier) || (e->c.phase == PHASE_SAVED && same_process(process, e->taken_by)));
    index_unlock(c->m->c.index);
    return same;
}

static void branch_unless_copy(struct call *c)
{
    struct who who;

    if (!copies_branches(c)) {
        make_branch(c);
        return;
    }
    who_read(c->m->engine, &c->from, &who);
    engine_refused(c->m->engine, node_row(c->node), 0, CONTROL_RESTORE, c->name, &who, EPERM,
                   "mkdir in branches/ by the process that took this checkpoint may be the copy of a backup: write `branch NAME` to"
                   " restore");
    who_clear(&who);
    call_reply_err(c, EPERM);
}

/* A name that no checkpoint can have: `result` says why. */
static void bad_name(struct call *c)
{
    const char *problem = name_problem(c->name);
    int code = strlen(c->name) > NAME_MAX ? ENAMETOOLONG : EINVAL;
    struct who who;

    who_read(c->m->engine, &c->from, &who);
    engine_take_refused(c->m->engine, 0, c->name, &who, code, problem);
    who_clear(&who);
    call_reply_err(c, code);
}

void dirs_mkdir(struct mount *m, fuse_req_t req, node_id parent, const char *name)
{
    bool branches = node_class(parent) == CLASS_CHECKPOINT && node_kind(parent) == CKPT_BRANCHES;
    bool on_branch = node_class(parent) == CLASS_BRANCH && node_kind(parent) == BRANCH_CHECKPOINTS;
    int code = branches ? access_check(m, req, ROLE_OPERATOR, NULL) : 0;
    struct call *c;

    if (code) {
        fuse_reply_err(req, code);
        return;
    }
    if (parent != NODE_ROOT && !branches && !on_branch) {
        dirs_refuse(m, req, parent, name);
        return;
    }
    c = named(m, req, parent, name);
    if (c && !branches)
        access_check(m, req, ROLE_OPERATOR, &c->why);
    if (c)
        jobs_add(m->dirs, c, name_problem(name) ? bad_name : branches ? branch_unless_copy : take);
}

/* ---- rmdir, unlink ------------------------------------------------------------------------------------------------------ */

/* A failed take, or a failed branch. */
static void remove_failed(struct call *c)
{
    int64_t row = node_row(c->node2);
    struct who who;
    int r;

    who_read(c->m->engine, &c->from, &who);
    r = node_class(c->node2) == CLASS_BRANCH ? engine_branch_remove(c->m->engine, row, &who, &c->e)
                                             : engine_take_remove(c->m->engine, row, &who, &c->e);
    who_clear(&who);
    call_reply_err(c, r == -EPERM ? ENOTEMPTY : code_of(c, r));
}

/* Its directories can't be removed either: ENOTEMPTY, whatever is in them (design.md §2). The mount's own are EPERM. */
static bool part_of_checkpoint(node_id dir)
{
    return node_class(dir) == CLASS_CHECKPOINT || node_class(dir) == CLASS_BRANCH;
}

void dirs_rmdir(struct mount *m, fuse_req_t req, node_id parent, const char *name)
{
    struct node_attr a;
    struct call *c;
    int r = tree_lookup(m->c.index, parent, name, &a);
    bool branch = r == 0 && a.id == node_make(CLASS_BRANCH, node_row(a.id), BRANCH_DIR);

    if (r < 0 || (!branch && (parent != NODE_ROOT || node_class(a.id) != CLASS_CHECKPOINT))) {
        fuse_reply_err(req, r < 0 ? -r : part_of_checkpoint(a.id) ? ENOTEMPTY : EPERM);
        return;
    }
    r = branch ? access_check(m, req, ROLE_OPERATOR, NULL) : 0;
    if (r) {
        fuse_reply_err(req, r);
        return;
    }
    c = named(m, req, parent, name);
    if (!c)
        return;
    c->node2 = a.id;
    call_holds(c, a.id); /* its own lock, too */
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

    who_read(c->m->engine, &c->from, &who);
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
    if (!code && node_class(a.id) == CLASS_CHECKPOINT && node_kind(a.id) == CKPT_DIR)
        code = access_check(m, req, ROLE_OPERATOR, NULL);
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
