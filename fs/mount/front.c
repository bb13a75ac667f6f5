/* Which of the two a request is for: the tree of checkpoints (ops.c), or the little filesystem in .import/ (staging.c). */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "staging.h"

static struct mount *mount_of(fuse_req_t req) { return fuse_req_userdata(req); }
static bool staged_file(const struct fuse_file_info *fi) { return handle_of(fi)->kind == HANDLE_STAGED; }

/* Who may change anything: what comes in through .import/ wasn't seen by anybody here, and is for operators. */
static enum role changes(bool in_import) { return in_import ? ROLE_OPERATOR : ROLE_AGENT; }

static void lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    if (staged(req, &parent))
        staged_lookup(req, parent, name);
    else if (parent == NODE_ROOT && strcmp(name, ".import") == 0)
        staged_root(req);
    else
        mount_ops.lookup(req, parent, name);
}

static void getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    if (staged(req, &ino))
        staged_getattr(req, ino);
    else
        mount_ops.getattr(req, ino, fi);
}

static void set_attr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *fi)
{
    bool in_import = staged(req, &ino);

    if (in_import && access_refused(req, changes(true)))
        return;
    if (in_import)
        staged_setattr(req, ino, attr, to_set);
    else if (fi && staged_file(fi)) /* opened before it was registered */
        fuse_reply_err(req, EPERM);
    else
        mount_ops.setattr(req, ino, attr, to_set, fi);
}

static void readlink_(fuse_req_t req, fuse_ino_t ino)
{
    if (staged(req, &ino))
        staged_readlink(req, ino);
    else
        mount_ops.readlink(req, ino);
}

static void make_node(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t dev)
{
    bool to_import = staged(req, &parent);

    if (access_refused(req, changes(to_import)))
        return;
    if (to_import)
        staged_make(req, parent, name, mode, NULL);
    else
        mount_ops.mknod(req, parent, name, mode, dev);
}

static void make_dir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
    bool to_import = staged(req, &parent);

    if (access_refused(req, changes(to_import)))
        return;
    if (to_import)
        staged_make(req, parent, name, S_IFDIR | (mode & 07777), NULL);
    else
        mount_ops.mkdir(req, parent, name, mode);
}

static void make_link(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
    bool to_import = staged(req, &parent);

    if (access_refused(req, changes(to_import)))
        return;
    if (to_import)
        staged_make(req, parent, name, S_IFLNK | 0777, target);
    else
        mount_ops.symlink(req, target, parent, name);
}

static void hard_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
    bool to_import = staged(req, &parent);

    if (access_refused(req, changes(to_import)))
        return;
    if (to_import)
        fuse_reply_err(req, EPERM);
    else
        mount_ops.link(req, ino, parent, name);
}

static void remove_file(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    bool to_import = staged(req, &parent);

    if (access_refused(req, changes(to_import)))
        return;
    if (to_import)
        staged_remove(req, parent, name, false);
    else
        mount_ops.unlink(req, parent, name);
}

static void remove_dir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    bool to_import = staged(req, &parent);

    if (access_refused(req, changes(to_import)))
        return;
    if (to_import)
        staged_remove(req, parent, name, true);
    else
        mount_ops.rmdir(req, parent, name);
}

/* Nothing goes back into .import/, and only to the root something comes out of it. */
static void move(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent, const char *new_name, unsigned flags)
{
    bool from = staged(req, &parent);
    bool to = staged(req, &new_parent);

    if (access_refused(req, changes(from || to)))
        return;
    if (from && to)
        staged_rename(req, parent, name, new_parent, new_name, flags);
    else if (from && new_parent == NODE_ROOT)
        import_rename(req, parent, name, new_name, flags);
    else if (from || to)
        fuse_reply_err(req, EPERM);
    else
        mount_ops.rename(req, parent, name, new_parent, new_name, flags);
}

static void open_file(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    bool in_import = staged(req, &ino);
    bool writes = (fi->flags & O_ACCMODE) != O_RDONLY || (fi->flags & O_TRUNC);

    if (in_import && writes && access_refused(req, changes(true)))
        return;
    if (in_import)
        staged_open(req, ino, fi);
    else
        mount_ops.open(req, ino, fi);
}

static void create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
    bool to_import = staged(req, &parent);

    if (access_refused(req, changes(to_import)))
        return;
    if (to_import)
        staged_create(req, parent, name, mode, fi);
    else
        mount_ops.create(req, parent, name, mode, fi);
}

static void read_file(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
    if (staged_file(fi))
        staged_read(req, size, off, fi);
    else
        mount_ops.read(req, ino, size, off, fi);
}

static void write_file(fuse_req_t req, fuse_ino_t ino, const char *bytes, size_t n, off_t off, struct fuse_file_info *fi)
{
    if (staged_file(fi))
        staged_write(req, bytes, n, off, fi);
    else
        mount_ops.write(req, ino, bytes, n, off, fi);
}

static void flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    if (staged_file(fi))
        fuse_reply_err(req, 0);
    else
        mount_ops.flush(req, ino, fi);
}

static void release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    if (staged_file(fi)) {
        staged_release(mount_of(req), handle_of(fi));
        fuse_reply_err(req, 0);
    } else {
        mount_ops.release(req, ino, fi);
    }
}

static void read_dir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
    if (staged(req, &ino))
        staged_readdir(req, ino, size, off, false);
    else
        mount_ops.readdir(req, ino, size, off, fi);
}

static void read_dir_plus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
    if (staged(req, &ino))
        staged_readdir(req, ino, size, off, true);
    else
        mount_ops.readdirplus(req, ino, size, off, fi);
}

static void stat_fs(fuse_req_t req, fuse_ino_t ino)
{
    if (staged(req, &ino))
        staged_statfs(req);
    else
        mount_ops.statfs(req, ino);
}

struct fuse_lowlevel_ops front_ops(void)
{
    struct fuse_lowlevel_ops o = mount_ops;

    o.lookup = lookup;
    o.getattr = getattr;
    o.setattr = set_attr;
    o.readlink = readlink_;
    o.mknod = make_node;
    o.mkdir = make_dir;
    o.symlink = make_link;
    o.link = hard_link;
    o.unlink = remove_file;
    o.rmdir = remove_dir;
    o.rename = move;
    o.open = open_file;
    o.create = create;
    o.read = read_file;
    o.write = write_file;
    o.flush = flush;
    o.release = release;
    o.readdir = read_dir;
    o.readdirplus = read_dir_plus;
    o.statfs = stat_fs;
    return o;
}
