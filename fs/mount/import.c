/* mv .import/NAME . : what lies there becomes a checkpoint, in one transaction of the store. Neon isn't asked (design.md §2, §7.4).
 * What is large is left to importer.c.
 *
 * The kernel then still knows the directory, and what is in it, by the numbers of what was staged: these stand for the checkpoint and its
 * files from now on, and all names are asked for anew (traps.md 14, 16). */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "import.h"
#include "spool.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/log.h"
#include "util/text.h"

/* How long a rename waits for closes: far less than the two seconds that it may take (design.md §7.4). */
#define CLOSE_MS 500

/* ---- reading the copy ----------------------------------------------------------------------------------------------- */

static int read_bytes(struct mount *m, const struct staged_attr *a, struct buf *ret)
{
    cleanup_fd int fd = a->size ? spool_open(m->spool, a->id) : -1;
    size_t left = (size_t)a->size;

    if (a->size && fd < 0)
        return fd;
    while (left) {
        char *room = buf_room(ret, left);
        ssize_t n = room ? read(fd, room, left) : -1;

        if (n <= 0)
            return !room ? -ENOMEM : n < 0 ? -errno : -EIO;
        buf_grown(ret, (size_t)n);
        left -= (size_t)n;
    }
    return 0;
}

static int read_file(struct mount *m, const struct staged_attr *a, const char *name, struct import_file *f, struct err *e)
{
    int r;

    if (!S_ISREG(a->mode))
        return err_set(e, EBADMSG, "%s is no regular file", name);
    f->there = true;
    f->mtime = a->mtime;
    r = read_bytes(m, a, &f->bytes);
    return r < 0 ? err_set(e, -r, "%s can't be read: %s", name, strerror(-r)) : 0;
}

static int read_named(struct mount *m, int64_t dir, const char *name, struct import_file *f, struct err *e)
{
    struct staged_attr a;

    return staging_lookup(m->staging, dir, name, &a) < 0 ? 0 : read_file(m, &a, name, f, e);
}

static int64_t mtime_of(struct mount *m, int64_t dir, const char *name)
{
    struct staged_attr a;

    return staging_lookup(m->staging, dir, name, &a) == 0 && S_ISREG(a.mode) ? a.mtime : 0;
}

static int read_pending(void *arg, const char *name, struct import_file *ret, struct err *e)
{
    const struct import *i = arg;
    struct staged_attr dir;
    int r = 0;

    if (staging_lookup(i->m->staging, i->what.id, "pending", &dir) == 0 && S_ISDIR(dir.mode))
        r = read_named(i->m, dir.id, name, ret, e);
    return r < 0 ? err_prefix(e, "pending") : 0;
}

static int read_source(struct import *i, struct import_source *src, struct err *e)
{
    struct mount *m = i->m;
    const struct staged_attr *what = &i->what;
    int r;

    src->read_pending = read_pending;
    src->arg = i;
    if (!S_ISDIR(what->mode)) {
        src->one_file = true;
        return read_file(m, what, "the file", &src->checkpoint, e);
    }
    r = read_named(m, what->id, "checkpoint.json", &src->checkpoint, e);
    if (r == 0)
        r = read_named(m, what->id, "state.json", &src->state, e);
    if (r == 0)
        r = read_named(m, what->id, "snapshot.json", &src->snapshot, e);
    if (r == 0)
        r = read_named(m, what->id, "meta.json", &src->meta, e);
    src->transcript_mtime = mtime_of(m, what->id, "transcript.md");
    src->made_at = mtime_of(m, what->id, "restore");
    return r;
}

/* ---- what the kernel knows ------------------------------------------------------------------------------------------ */

/* What a staged file stands for once its directory is a checkpoint: the file of that name, if it is of the same type. */
static node_id resolve(void *arg, node_id dir, const char *name, mode_t mode)
{
    struct mount *m = arg;
    struct node_attr a;

    return tree_lookup(m->c.index, dir, name, &a) == 0 && (a.mode & S_IFMT) == (mode & S_IFMT) ? a.id : 0;
}

/* A file alone stands for the state: to the kernel it must stay a file. */
static void becomes(const struct import *i, int64_t checkpoint)
{
    struct mount *m = i->m;
    unsigned kind = S_ISDIR(i->what.mode) ? CKPT_DIR : CKPT_STATE;
    int64_t *gone = NULL;
    size_t n = 0;
    int r = staging_become(m->staging, i->what.id, node_make(CLASS_CHECKPOINT, checkpoint, kind), resolve, m, &gone, &n);

    if (r < 0) {
        log_warn("what was registered stays in .import/ too: %s", strerror(-r));
        return;
    }
    for (size_t k = 0; k < n; k++) {
        spool_remove(m->spool, gone[k]);
        if (gone[k])
            notify_inode(m->notifier, staged_node(gone[k])); /* pages of the copy: its other files are derived anew */
    }
    free(gone);
    notify_entry(m->notifier, NODE_ROOT, i->to);
    notify_entry(m->notifier, i->dir, i->name);
    notify_inode(m->notifier, i->dir);
    notify_inode(m->notifier, NODE_ROOT);
}

/* ---- one import ----------------------------------------------------------------------------------------------------- */

struct import *import_ref(struct import *i)
{
    atomic_fetch_add(&i->refs, 1);
    return i;
}

void import_unref(struct import *i)
{
    if (atomic_fetch_sub(&i->refs, 1) > 1)
        return;
    free(i->name);
    free(i->to);
    free(i->command);
    who_clear(&i->who);
    err_clear(&i->e);
    free(i);
}

static struct import *import_new(const struct call *c)
{
    struct import *i = calloc(1, sizeof(*i));

    if (!i)
        return NULL;
    atomic_init(&i->refs, 1);
    i->m = c->m;
    i->dir = c->node;
    i->name = str_dup(c->name);
    i->to = str_dup(c->name2);
    i->command = str_format("mv .import/%s %s", c->name, c->name2);
    who_read(c->m->engine, &c->from, &i->who);
    if (i->name && i->to && i->command)
        return i;
    import_unref(i);
    return NULL;
}

int import_run(struct import *i, struct err *e)
{
    struct import_source src = {0};
    int64_t checkpoint = 0;
    int r = read_source(i, &src, e);

    if (r == 0)
        r = engine_import(i->m->engine, &src, i->command, i->to, &i->who, &checkpoint, e);
    import_source_clear(&src);
    if (r == 0)
        becomes(i, checkpoint);
    staging_thaw(i->m->staging, i->what.id);
    return r;
}

void import_refused(const struct import *i, const struct err *e)
{
    if (e->code)
        engine_import_refused(i->m->engine, i->command, &i->who, e->code, err_text(e));
}

/* ---- the rename ----------------------------------------------------------------------------------------------------- */

static int may_import(struct call *c, struct err *e)
{
    const char *problem = name_problem(c->name2);

    if (c->code)
        return err_set(e, c->code, "%s", c->why);
    if (problem)
        return err_set(e, strlen(c->name2) > NAME_MAX ? ENAMETOOLONG : EINVAL, "`%s` can't be a checkpoint's name: %s", c->name2, problem);
    return 0;
}

static bool is_large(struct mount *m, const struct staged_attr *what)
{
    static const char *const holds_state[] = {"state.json", "checkpoint.json"};
    struct staged_attr a;
    bool large = what->size > STORE_IMPORT_SMALL;

    for (size_t k = 0; S_ISDIR(what->mode) && k < 2; k++)
        large |= staging_lookup(m->staging, what->id, holds_state[k], &a) == 0 && a.size > STORE_IMPORT_SMALL;
    return large;
}

/* What was written just before is closed, but the kernel tells that by itself, and this rename may have overtaken it. */
static void await_closes(const struct import *i)
{
    int64_t until = clock_mono_ms() + CLOSE_MS;

    while (staging_written(i->m->staging, i->what.id) && clock_mono_ms() < until)
        clock_sleep_ms(1);
}

static int import(struct import *i, struct err *e)
{
    int r;

    await_closes(i);
    if (is_large(i->m, &i->what))
        return importer_run(i->m->importer, i, e);
    r = staging_freeze(i->m->staging, i->what.id);
    return r < 0 ? err_set(e, -r, "something in %s is still being written", i->name) : import_run(i, e);
}

static void import_job(struct call *c)
{
    cleanup_err struct err e = {0};
    struct import *i = import_new(c);
    int r = i ? staging_lookup(c->m->staging, staged_id(c->node), c->name, &i->what) : -ENOMEM;

    if (r == 0)
        r = may_import(c, &e);
    if (r == 0)
        r = import(i, &e);
    if (r == -EINPROGRESS) { /* it has waited long enough */
        call_reply_err(c, -r);
        import_refused(i, &e);
    } else {
        if (r < 0 && i)
            import_refused(i, &e);
        call_reply_err(c, -r);
    }
    if (i)
        import_unref(i);
}

void import_rename(fuse_req_t req, fuse_ino_t parent, const char *name, const char *new_name, unsigned flags)
{
    struct call *c;

    if (flags & ~1u) { /* RENAME_NOREPLACE is what mv sends; nothing here is ever replaced */
        fuse_reply_err(req, EINVAL);
        return;
    }
    c = call_new(req, NULL);
    if (!c)
        return;
    c->node = parent;
    call_holds(c, parent);
    call_holds(c, NODE_ROOT);
    c->code = access_check(c->m, req, ROLE_OPERATOR, &c->why);
    c->name = str_dup(name);
    c->name2 = str_dup(new_name);
    if (c->name && c->name2)
        jobs_add(c->m->dirs, c, import_job);
    else
        call_reply_err(c, ENOMEM);
}
