/* The table of low-level operations. Each decodes its request and hands it to the file that knows the matter. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "mount_i.h"
#include "util/text.h"

static struct mount *mount_of(fuse_req_t req) { return fuse_req_userdata(req); }

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
    struct mount *m = userdata;

    /* READDIRPLUS always: `auto` costs a LOOKUP for every entry after the first block (fuse.md §1.3). */
    conn->want &= ~(unsigned)FUSE_CAP_READDIRPLUS_AUTO;
    conn->want |= conn->capable & (FUSE_CAP_READDIRPLUS | FUSE_CAP_ATOMIC_O_TRUNC);
    conn->max_write = 1 << 20;
    if (m->ready)
        m->ready(m->ready_arg);
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct mount *m = mount_of(req);
    struct fuse_entry_param e;
    struct node_attr a;
    int r = tree_lookup(m->c.index, parent, name, &a);

    if (r < 0) {
        fuse_reply_err(req, -r);
        return;
    }
    fill_entry(m, &a, &e);
    fuse_reply_entry(req, &e);
}

static void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t n)
{
    (void)ino;
    (void)n; /* numbers are the store's own, nothing is counted */
    fuse_reply_none(req);
}

static void op_forget_multi(fuse_req_t req, size_t n, struct fuse_forget_data *all)
{
    (void)n;
    (void)all;
    fuse_reply_none(req);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct mount *m = mount_of(req);
    struct node_attr a;
    struct stat st;
    int r = tree_attr(m->c.index, ino, &a);

    (void)fi;
    if (r < 0) {
        fuse_reply_err(req, -r);
        return;
    }
    fill_stat(m, &a, &st);
    fuse_reply_attr(req, &st, attr_timeout(&a));
}

/* Whether anything may be written there: else a size can't be set. */
static bool resizable(const struct node_attr *a)
{
    enum control control;

    return control_of(a->id, &control) || node_class(a->id) == CLASS_TEMP || a->source == SOURCE_DRAFT ||
           (node_class(a->id) == CLASS_CHECKPOINT && node_kind(a->id) == CKPT_META);
}

/* Times, modes and owners are accepted and ignored: cp -a and rsync set them on what they write (design.md §3.4, §4). */
static void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *fi)
{
    struct mount *m = mount_of(req);
    enum control control;
    struct node_attr a;
    struct call *c;
    int r = tree_attr(m->c.index, ino, &a);

    if (r == 0 && access_refused(req, to_set & FUSE_SET_ATTR_SIZE && resizable(&a) ? a.who : ROLE_AGENT))
        return;
    if (r < 0 || ((to_set & FUSE_SET_ATTR_SIZE) && !resizable(&a))) {
        fuse_reply_err(req, r < 0 ? -r : EPERM);
        return;
    }
    if (!(to_set & FUSE_SET_ATTR_SIZE) || control_of(ino, &control)) {
        op_getattr(req, ino, fi);
        return;
    }
    c = call_new(req, fi);
    if (!c)
        return;
    c->node = ino;
    c->set.size = attr->st_size;
    draft_resize(c, &a);
}

static void op_readlink(fuse_req_t req, fuse_ino_t ino)
{
    struct buf target = {0};
    int r = tree_readlink(mount_of(req)->c.index, ino, &target);

    if (r < 0)
        fuse_reply_err(req, -r);
    else
        fuse_reply_readlink(req, target.data);
    buf_free(&target);
}

/* ---- directories --------------------------------------------------------------------------------------------------------- */

static void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
    (void)mode;
    dirs_mkdir(mount_of(req), req, parent, name);
}

static void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name) { dirs_rmdir(mount_of(req), req, parent, name); }
static void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name) { dirs_unlink(mount_of(req), req, parent, name); }

static void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent, const char *new_name, unsigned flags)
{
    dirs_rename(mount_of(req), req, parent, name, new_parent, new_name, flags);
}

static void op_symlink(fuse_req_t req, const char *link, fuse_ino_t parent, const char *name)
{
    (void)link;
    dirs_refuse(mount_of(req), req, parent, name);
}

static void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t dev)
{
    (void)mode;
    (void)dev;
    dirs_refuse(mount_of(req), req, parent, name);
}

static void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
    (void)ino;
    dirs_refuse(mount_of(req), req, parent, name);
}

struct filling {
    struct mount *m;
    fuse_req_t req;
    char *buf;
    size_t size, used;
    bool plus;
};

static size_t add_entry(struct filling *f, const char *name, const struct node_attr *a, int64_t cookie)
{
    struct fuse_entry_param e;

    fill_entry(f->m, a, &e);
    if (f->plus)
        return fuse_add_direntry_plus(f->req, f->buf + f->used, f->size - f->used, name, &e, (off_t)cookie);
    return fuse_add_direntry(f->req, f->buf + f->used, f->size - f->used, name, &e.attr, (off_t)cookie);
}

/* The tree's cookies begin after those of `.` and `..`. */
#define COOKIE_DOTS 2

static bool fill_one(void *arg, const char *name, const struct node_attr *a, int64_t cookie)
{
    struct filling *f = arg;
    size_t n = add_entry(f, name, a, cookie + COOKIE_DOTS);

    if (n > f->size - f->used)
        return false;
    f->used += n;
    return true;
}

/* `.` and `..` with inode 0 in the plus form, so that nothing is looked up by them. */
static bool fill_dots(struct filling *f, node_id dir, off_t off)
{
    struct node_attr a = {.id = dir, .mode = S_IFDIR | 0755};
    static const char *const names[] = {".", ".."};

    for (off_t i = off; i < COOKIE_DOTS; i++) {
        size_t n;

        a.id = i == 0 ? dir : tree_parent(f->m->c.index, dir);
        if (f->plus) {
            struct fuse_entry_param e = {.attr = {.st_ino = a.id, .st_mode = a.mode}};

            n = fuse_add_direntry_plus(f->req, f->buf + f->used, f->size - f->used, names[i], &e, i + 1);
        } else {
            n = add_entry(f, names[i], &a, i + 1);
        }
        if (n > f->size - f->used)
            return false;
        f->used += n;
    }
    return true;
}

static void list(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, bool plus)
{
    struct filling f = {.m = mount_of(req), .req = req, .buf = malloc(size), .size = size, .plus = plus};
    int r = 0;

    if (!f.buf) {
        fuse_reply_err(req, ENOMEM);
        return;
    }
    if (fill_dots(&f, ino, off))
        r = tree_list(f.m->c.index, ino, off > COOKIE_DOTS ? off - COOKIE_DOTS : 0, fill_one, &f);
    if (r < 0)
        fuse_reply_err(req, -r);
    else
        fuse_reply_buf(req, f.buf, f.used);
    free(f.buf);
}

static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
    (void)fi;
    copies_listed(mount_of(req), ino, fuse_req_ctx(req)->pid);
    list(req, ino, size, off, false);
}

static void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
    (void)fi;
    copies_listed(mount_of(req), ino, fuse_req_ctx(req)->pid);
    list(req, ino, size, off, true);
}

/* ---- files ------------------------------------------------------------------------------------------------------------------ */

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct mount *m = mount_of(req);
    enum control control;
    struct node_attr a;
    struct call *c;
    int r = tree_attr(m->c.index, ino, &a);

    if (r < 0)
        fuse_reply_err(req, -r);
    else if ((fi->flags & O_ACCMODE) == O_RDONLY && !(fi->flags & O_TRUNC))
        read_open(m, req, &a, fi);
    else if (control_of(ino, &control)) /* asks for itself, and journals a refusal */
        control_open(m, req, &a, fi);
    else if (access_refused(req, ROLE_AGENT))
        return;
    else if (a.source == SOURCE_DRAFT || resizable(&a))
        draft_open(m, req, &a, fi);
    else if (node_class(ino) != CLASS_CHECKPOINT || node_kind(ino) == CKPT_STATE)
        fuse_reply_err(req, EPERM);
    else if ((c = call_new(req, NULL))) {
        c->node = node_make(CLASS_CHECKPOINT, node_row(ino), CKPT_DIR);
        copies_refuse(c, tree_file_name(ino));
    }
}

static void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
    (void)mode;
    draft_create(mount_of(req), req, parent, name, fi);
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
    (void)ino;
    read_read(mount_of(req), req, size, off, fi);
}

static void op_write(fuse_req_t req, fuse_ino_t ino, const char *bytes, size_t n, off_t off, struct fuse_file_info *fi)
{
    (void)ino;
    if (handle_of(fi)->kind == HANDLE_CONTROL)
        control_write(mount_of(req), req, bytes, n, fi);
    else
        draft_write(mount_of(req), req, bytes, n, off, fi);
}

/* The shell sends a FLUSH before the first WRITE, and nobody can be killed in one: nothing is done here (fuse.md §0.3, §0.5). But close
 * waits for it, and not for the RELEASE that follows: so it is from here on that verbs wait for the seal. */
static void op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino;
    fuse_reply_err(req, -draft_flush(mount_of(req), handle_of(fi)));
}

static void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
    (void)ino;
    (void)datasync; /* a write that was answered is in the store */
    fuse_reply_err(req, -draft_sync(mount_of(req), handle_of(fi)));
}

static void op_poll(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct fuse_pollhandle *ph)
{
    (void)ino;
    poll_poll(mount_of(req), req, fi, ph);
}

static void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct mount *m = mount_of(req);
    struct handle *h = handle_of(fi);

    (void)ino;
    if (h->kind == HANDLE_CONTROL)
        control_release(m, h);
    else if (h->kind == HANDLE_READ)
        handle_free(m, h);
    else
        draft_release(m, h);
    fuse_reply_err(req, 0);
}

/* What df says has room when nobody knows: the store's, and the paid plans' limit of snapshots (neon-api.md §2.10). */
#define FREE_BYTES (1LL << 40)
#define USUAL_SNAPSHOTS 100
#define BLOCK 512

/* df: the bytes of states. df -i: snapshots, for each checkpoint needs one and the plan has only so many. From memory alone. */
static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
    struct mount *m = mount_of(req);
    struct statvfs st = {.f_bsize = 4096, .f_frsize = BLOCK, .f_namemax = NAME_MAX};
    struct index_usage u;
    int64_t most;

    (void)ino;
    index_usage(m->c.index, &u);
    most = u.max_snapshots >= 0 ? u.max_snapshots : USUAL_SNAPSHOTS;
    st.f_bfree = st.f_bavail = FREE_BYTES / BLOCK;
    st.f_blocks = st.f_bfree + (fsblkcnt_t)((u.state_bytes + BLOCK - 1) / BLOCK);
    st.f_files = (fsfilcnt_t)(u.snapshots > most ? u.snapshots : most);
    st.f_ffree = st.f_favail = st.f_files - (fsfilcnt_t)u.snapshots;
    fuse_reply_statfs(req, &st);
}

/* No extended attributes: refusing them once costs nothing, answering them a request for every file of every `ls -l` (design.md §2). */
const struct fuse_lowlevel_ops mount_ops = {
    .init = op_init,
    .lookup = op_lookup,
    .forget = op_forget,
    .forget_multi = op_forget_multi,
    .getattr = op_getattr,
    .setattr = op_setattr,
    .readlink = op_readlink,
    .mkdir = op_mkdir,
    .rmdir = op_rmdir,
    .unlink = op_unlink,
    .rename = op_rename,
    .symlink = op_symlink,
    .mknod = op_mknod,
    .link = op_link,
    .readdir = op_readdir,
    .readdirplus = op_readdirplus,
    .open = op_open,
    .create = op_create,
    .read = op_read,
    .write = op_write,
    .flush = op_flush,
    .fsync = op_fsync,
    .release = op_release,
    .poll = op_poll,
    .statfs = op_statfs,
};
