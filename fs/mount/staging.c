/* .import/: names and attributes are the model's, bytes are the spool's; what may wait for a disk is a job. */
#include "staging.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "spool.h"
#include "util/clock.h"
#include "util/log.h"
#include "util/text.h"

static struct mount *mount_of(fuse_req_t req) { return fuse_req_userdata(req); }

int64_t staged_id(node_id node) { return node_class(node) == CLASS_STAGED ? node_row(node) : STAGING_ROOT; }

node_id staged_node(int64_t id)
{
    return id == STAGING_ROOT ? node_make(CLASS_MOUNT, 0, MOUNT_IMPORT) : node_make(CLASS_STAGED, id, ONLY_KIND);
}

bool staged(fuse_req_t req, fuse_ino_t *ino)
{
    node_id became;

    if (*ino == node_make(CLASS_MOUNT, 0, MOUNT_IMPORT))
        return true;
    if (node_class(*ino) != CLASS_STAGED)
        return false;
    became = staging_became(mount_of(req)->staging, node_row(*ino));
    if (became)
        *ino = became;
    return !became;
}

/* ---- attributes ----------------------------------------------------------------------------------------------------- */

static void set_time(struct timespec *t, int64_t ns)
{
    t->tv_sec = ns / 1000000000;
    t->tv_nsec = ns % 1000000000;
}

static void fill(const struct staged_attr *a, struct stat *st)
{
    *st = (struct stat){
        .st_ino = staged_node(a->id), .st_mode = a->mode, .st_nlink = a->nlink, .st_uid = a->uid, .st_gid = a->gid, .st_size = a->size,
        .st_blksize = 4096, .st_blocks = (a->size + 511) / 512,
    };
    if (!a->mtime) { /* .import/ that nothing was put into: the same after every remount */
        set_time(&st->st_mtim, INDEX_EPOCH);
        st->st_ctim = st->st_atim = st->st_mtim;
        return;
    }
    set_time(&st->st_mtim, a->mtime);
    set_time(&st->st_ctim, a->ctime);
    set_time(&st->st_atim, a->atime ? a->atime : a->mtime);
}

/* Time-outs of 0: whatever may be renamed to the root is asked for anew afterwards (traps.md 14). */
static struct fuse_entry_param entry_of(const struct staged_attr *a)
{
    struct fuse_entry_param e = {.ino = staged_node(a->id)};

    fill(a, &e.attr);
    return e;
}

static void reply_entry(fuse_req_t req, int r, const struct staged_attr *a)
{
    struct fuse_entry_param e;

    if (r < 0) {
        fuse_reply_err(req, -r);
        return;
    }
    e = entry_of(a);
    fuse_reply_entry(req, &e);
}

static void reply_attr(fuse_req_t req, int r, const struct staged_attr *a)
{
    struct stat st;

    if (r < 0) {
        fuse_reply_err(req, -r);
        return;
    }
    fill(a, &st);
    fuse_reply_attr(req, &st, 0);
}

void staged_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct staged_attr a;
    int r = staging_lookup(mount_of(req)->staging, staged_id(parent), name, &a);

    reply_entry(req, r, &a);
}

void staged_root(fuse_req_t req)
{
    struct staged_attr a;
    int r = staging_attr(mount_of(req)->staging, STAGING_ROOT, &a);

    reply_entry(req, r, &a);
}

void staged_getattr(fuse_req_t req, fuse_ino_t ino)
{
    struct staged_attr a;
    int r = staging_attr(mount_of(req)->staging, staged_id(ino), &a);

    reply_attr(req, r, &a);
}

static int64_t time_of(const struct timespec *t, bool now)
{
    return now ? clock_now() : (int64_t)t->tv_sec * 1000000000 + t->tv_nsec;
}

static int resize(struct mount *m, int64_t id, int64_t size)
{
    int64_t old = 0;
    int r = staging_resize(m->staging, id, size, false, &old);
    int fd;

    if (r < 0 || size == old)
        return r;
    fd = spool_open(m->spool, id);
    r = fd < 0 ? fd : ftruncate(fd, size) < 0 ? -errno : 0;
    if (fd >= 0)
        close(fd);
    if (r < 0)
        staging_resize(m->staging, id, old, false, NULL);
    return r;
}

/* Kept as they are set, so that cp -a and rsync find them again; whether the caller may is checked by the kernel. */
void staged_setattr(fuse_req_t req, fuse_ino_t ino, const struct stat *attr, int to_set)
{
    struct mount *m = mount_of(req);
    struct staged_set set = {
        .has_mode = to_set & FUSE_SET_ATTR_MODE, .has_uid = to_set & FUSE_SET_ATTR_UID, .has_gid = to_set & FUSE_SET_ATTR_GID,
        .has_atime = to_set & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_ATIME_NOW),
        .has_mtime = to_set & (FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW),
        .mode = attr->st_mode, .uid = attr->st_uid, .gid = attr->st_gid,
        .atime = time_of(&attr->st_atim, to_set & FUSE_SET_ATTR_ATIME_NOW),
        .mtime = time_of(&attr->st_mtim, to_set & FUSE_SET_ATTR_MTIME_NOW),
    };
    struct staged_attr a;
    int r = 0;

    if (to_set & FUSE_SET_ATTR_SIZE)
        r = resize(m, staged_id(ino), attr->st_size);
    if (r == 0)
        r = staging_set(m->staging, staged_id(ino), &set, &a);
    reply_attr(req, r, &a);
}

void staged_readlink(fuse_req_t req, fuse_ino_t ino)
{
    struct buf target = {0};
    int r = staging_readlink(mount_of(req)->staging, staged_id(ino), &target);

    if (r < 0)
        fuse_reply_err(req, -r);
    else
        fuse_reply_readlink(req, target.data ? target.data : "");
    buf_free(&target);
}

/* Roomy enough that df shows it, and so that a copy that doesn't fit hears of it before. */
void staged_statfs(fuse_req_t req)
{
    size_t nodes, max_nodes;
    int64_t bytes, max_bytes;
    struct statvfs st = {.f_bsize = 4096, .f_frsize = 4096, .f_namemax = NAME_MAX};

    staging_used(mount_of(req)->staging, &nodes, &bytes, &max_nodes, &max_bytes);
    st.f_blocks = (fsblkcnt_t)(max_bytes / 4096);
    st.f_bfree = st.f_bavail = (fsblkcnt_t)((max_bytes - bytes) / 4096);
    st.f_files = max_nodes;
    st.f_ffree = st.f_favail = max_nodes - nodes;
    fuse_reply_statfs(req, &st);
}

/* ---- directories ---------------------------------------------------------------------------------------------------- */

void staged_make(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, const char *target)
{
    const struct fuse_ctx *ctx = fuse_req_ctx(req);
    struct staged_attr a;
    int r = S_ISREG(mode) || S_ISDIR(mode) || S_ISLNK(mode) ? 0 : -EPERM;

    if (r == 0)
        r = staging_make(mount_of(req)->staging, staged_id(parent), name, mode, ctx->uid, ctx->gid, target, &a);
    reply_entry(req, r, &a);
}

void staged_remove(fuse_req_t req, fuse_ino_t parent, const char *name, bool directory)
{
    struct mount *m = mount_of(req);
    int64_t gone = 0;
    int r = staging_remove(m->staging, staged_id(parent), name, directory, &gone);

    spool_remove(m->spool, gone); /* whoever has it open keeps it */
    fuse_reply_err(req, -r);
}

/* Never EXDEV, which would make mv copy, and with that take a checkpoint (traps.md 15). */
void staged_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent, const char *new_name, unsigned flags)
{
    struct mount *m = mount_of(req);
    int64_t gone = 0;
    int r = flags & ~1u ? -EINVAL : 0; /* RENAME_NOREPLACE is what mv sends */

    if (r == 0)
        r = staging_rename(m->staging, staged_id(parent), name, staged_id(new_parent), new_name, flags & 1u, &gone);
    spool_remove(m->spool, gone);
    fuse_reply_err(req, -r);
}

struct listing {
    fuse_req_t req;
    char *buf;
    size_t size, used;
    bool plus;
};

/* Cookies of the model begin at 1: `.` and `..` come before. */
#define COOKIE_DOTS 2

static bool add(struct listing *l, const char *name, const struct fuse_entry_param *e, off_t cookie)
{
    size_t left = l->size - l->used;
    size_t n = l->plus ? fuse_add_direntry_plus(l->req, l->buf + l->used, left, name, e, cookie)
                       : fuse_add_direntry(l->req, l->buf + l->used, left, name, &e->attr, cookie);

    if (n > left)
        return false;
    l->used += n;
    return true;
}

static bool add_child(void *arg, const char *name, const struct staged_attr *a, int64_t cookie)
{
    struct fuse_entry_param e = entry_of(a);

    return add(arg, name, &e, cookie + COOKIE_DOTS);
}

static bool add_dots(struct listing *l, struct mount *m, int64_t dir, off_t off)
{
    node_id parent = dir == STAGING_ROOT ? NODE_ROOT : staged_node(staging_parent(m->staging, dir));
    struct fuse_entry_param e = {.attr = {.st_ino = staged_node(dir), .st_mode = S_IFDIR}};

    if (off < 1 && !add(l, ".", &e, 1))
        return false;
    e.attr.st_ino = parent;
    return off >= COOKIE_DOTS || add(l, "..", &e, COOKIE_DOTS);
}

void staged_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, bool plus)
{
    struct mount *m = mount_of(req);
    struct listing l = {.req = req, .buf = malloc(size), .size = size, .plus = plus};
    int r = l.buf ? 0 : -ENOMEM;

    if (r == 0 && add_dots(&l, m, staged_id(ino), off))
        r = staging_list(m->staging, staged_id(ino), off > COOKIE_DOTS ? off - COOKIE_DOTS : 0, add_child, &l);
    if (r < 0)
        fuse_reply_err(req, -r);
    else
        fuse_reply_buf(req, l.buf, l.used);
    free(l.buf);
}

/* ---- files ---------------------------------------------------------------------------------------------------------- */

static bool writes(const struct fuse_file_info *fi) { return (fi->flags & O_ACCMODE) != O_RDONLY; }

/* An open file of the node, counted in the model. */
static int open_node(struct mount *m, int64_t id, const struct fuse_ctx *ctx, const struct fuse_file_info *fi, struct handle **ret)
{
    struct node_attr a = {.id = staged_node(id), .source = SOURCE_NONE};
    int r = staging_open(m->staging, id, writes(fi));
    struct handle *h;

    if (r < 0)
        return r;
    h = handle_new(m, HANDLE_STAGED, &a, ctx);
    if (h) {
        h->wrote = writes(fi);
        h->fd = spool_open(m->spool, id);
        if (h->fd >= 0) {
            *ret = h;
            return 0;
        }
        r = h->fd;
        h->fd = -1;
    }
    handle_free(m, h);
    staging_close(m->staging, id, writes(fi));
    return h ? r : -ENOMEM;
}

void staged_release(struct mount *m, struct handle *h)
{
    staging_close(m->staging, staged_id(h->node), h->wrote);
    handle_free(m, h);
}

void staged_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct mount *m = mount_of(req);
    struct handle *h = NULL;
    int r = open_node(m, staged_id(ino), fuse_req_ctx(req), fi, &h);

    if (r == 0 && (fi->flags & O_TRUNC)) {
        r = resize(m, staged_id(ino), 0);
        if (r < 0)
            staged_release(m, h);
    }
    if (r < 0) {
        fuse_reply_err(req, -r);
        return;
    }
    fi->fh = (uintptr_t)h;
    if (fuse_reply_open(req, fi) == -ENOENT)
        staged_release(m, h);
}

void staged_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
    struct mount *m = mount_of(req);
    const struct fuse_ctx *ctx = fuse_req_ctx(req);
    struct fuse_entry_param e;
    struct handle *h = NULL;
    struct staged_attr a;
    int64_t gone = 0;
    int r = staging_make(m->staging, staged_id(parent), name, S_IFREG | (mode & 07777), ctx->uid, ctx->gid, NULL, &a);

    if (r == 0) {
        r = open_node(m, a.id, ctx, fi, &h);
        if (r < 0)
            staging_remove(m->staging, staged_id(parent), name, false, &gone);
    }
    if (r < 0) {
        fuse_reply_err(req, -r);
        return;
    }
    fi->fh = (uintptr_t)h;
    e = entry_of(&a);
    if (fuse_reply_create(req, &e, fi) == -ENOENT)
        staged_release(m, h);
}

static void read_job(struct call *c)
{
    struct buf b = {0};
    char *room = buf_room(&b, c->size);
    ssize_t n = 0;
    size_t got = 0;

    while (room && got < c->size && (n = pread(c->h->fd, room + got, c->size - got, c->off + (off_t)got)) > 0)
        got += (size_t)n;
    if (!room || n < 0) {
        call_reply_err(c, room ? errno : ENOMEM);
    } else {
        buf_grown(&b, got);
        call_reply_bytes(c, &b, 0, got);
    }
    buf_free(&b);
}

void staged_read(fuse_req_t req, size_t size, off_t off, struct fuse_file_info *fi)
{
    struct call *c = call_new(req, fi);

    if (!c)
        return;
    c->size = size;
    c->off = off;
    jobs_add(c->m->jobs, c, read_job);
}

static int put(int fd, const char *bytes, size_t n, off_t off)
{
    while (n) {
        ssize_t k = pwrite(fd, bytes, n, off);

        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0)
            return k < 0 ? -errno : -EIO;
        bytes += k;
        n -= (size_t)k;
        off += k;
    }
    return 0;
}

static void write_job(struct call *c)
{
    struct staging *s = c->m->staging;
    int64_t id = staged_id(c->h->node);
    int64_t old = 0;
    int r = staging_resize(s, id, c->off + (int64_t)c->size, true, &old);

    if (r == 0) {
        r = put(c->h->fd, c->data, c->size, c->off);
        if (r < 0 && old < c->off + (int64_t)c->size) /* the disk is full */
            staging_resize(s, id, old, false, NULL);
    }
    if (r < 0)
        call_reply_err(c, -r);
    else
        call_reply_write(c, c->size);
}

void staged_write(fuse_req_t req, const char *bytes, size_t n, off_t off, struct fuse_file_info *fi)
{
    struct call *c = call_write(req, fi, bytes, n, off);

    if (c)
        jobs_add(c->m->jobs, c, write_job);
}
