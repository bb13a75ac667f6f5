/* Copying, removing and syncing directory trees, through directory descriptors only: nothing below can be swapped for a link. */
#include "emulator/copy.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util/cleanup.h"

#define CHUNK ((size_t)1 << 20)
#define PATH_ROOM 1024

/* Where a walk is: the path below the top, for the filter and for messages. */
struct place {
    char path[PATH_ROOM];
    size_t len;
};

static size_t enter(struct place *p, const char *name)
{
    size_t before = p->len;
    int n = snprintf(p->path + before, sizeof(p->path) - before, "%s%s", before ? "/" : "", name);
    p->len = n < 0 || before + (size_t)n >= sizeof(p->path) ? sizeof(p->path) - 1 : before + (size_t)n;
    return before;
}

static void leave(struct place *p, size_t before)
{
    p->len = before;
    p->path[before] = '\0';
}

static int copy_by_buffer(int in, int out, const bool *abandon)
{
    cleanup_free char *room = malloc(CHUNK);
    if (!room)
        return -ENOMEM;
    for (;;) {
        if (abandon && __atomic_load_n(abandon, __ATOMIC_RELAXED))
            return -ECANCELED;
        ssize_t n = read(in, room, CHUNK);
        if (n <= 0)
            return n < 0 ? -errno : 0;
        for (ssize_t done = 0; done < n;) {
            ssize_t w = write(out, room + done, (size_t)(n - done));
            if (w < 0)
                return -errno;
            done += w;
        }
    }
}

/* Both descriptors are at their start. */
static int copy_bytes(int in, int out, const bool *abandon)
{
    if (ioctl(out, FICLONE, in) == 0)
        return 0;
    bool first = true;
    for (;;) {
        if (abandon && __atomic_load_n(abandon, __ATOMIC_RELAXED))
            return -ECANCELED;
        ssize_t n = copy_file_range(in, NULL, out, NULL, CHUNK * 16, 0);
        if (n > 0) {
            first = false;
            continue;
        }
        if (n == 0 && !first)
            return 0;
        /* Nothing at all: an empty file, or a file system (or two) that can't. */
        if (n == 0 || (first && (errno == EXDEV || errno == ENOSYS || errno == EINVAL || errno == EOPNOTSUPP)))
            return copy_by_buffer(in, out, abandon);
        return -errno;
    }
}

int copy_file(struct copy *c, int from_dir, int to_dir, const char *name, struct err *err)
{
    cleanup_fd int in = openat(from_dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (in < 0)
        return errno == ENOENT ? -ENOENT : err_set(err, errno, "can't read %s: %s", name, strerror(errno));
    cleanup_fd int out = openat(to_dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (out < 0)
        return err_set(err, errno, "can't make %s: %s", name, strerror(errno));
    int r = copy_bytes(in, out, c->abandon);
    if (r == 0 && c->uid != (uid_t)-1 && fchown(out, c->uid, c->gid) < 0)
        r = -errno;
    return r < 0 ? err_set(err, -r, "can't copy %s: %s", name, strerror(-r)) : 0;
}

static int copy_dir(struct copy *c, int from, int to, struct place *at, struct err *err);

static int copy_subdir(struct copy *c, int from, int to, const char *name, struct place *at, struct err *err)
{
    cleanup_fd int in = openat(from, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (in < 0)
        return errno == ENOENT ? 0 : err_set(err, errno, "can't read %s: %s", at->path, strerror(errno));
    if (mkdirat(to, name, 0700) < 0)
        return err_set(err, errno, "can't make %s: %s", at->path, strerror(errno));
    cleanup_fd int out = openat(to, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (out < 0 || (c->uid != (uid_t)-1 && fchown(out, c->uid, c->gid) < 0))
        return err_set(err, errno, "can't make %s: %s", at->path, strerror(errno));
    return copy_dir(c, in, out, at, err);
}

static void count(struct copy *c, const struct place *at, const struct stat *st)
{
    if (strncmp(at->path, "base/", 5) == 0)
        c->base_bytes += st->st_size;
}

static int copy_dir(struct copy *c, int from, int to, struct place *at, struct err *err)
{
    int again = fcntl(from, F_DUPFD_CLOEXEC, 0);
    DIR *dir = again < 0 ? NULL : fdopendir(again);
    if (!dir) {
        int saved = errno;
        if (again >= 0)
            close(again);
        return err_set(err, saved, "can't read %s: %s", at->path, strerror(saved));
    }
    int r = 0;
    for (struct dirent *e; r == 0 && (e = readdir(dir));) {
        struct stat st;
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        if (fstatat(from, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
            r = errno == ENOENT ? 0 : err_set(err, errno, "%s: %s", e->d_name, strerror(errno));
            continue;
        }
        size_t before = enter(at, e->d_name);
        bool is_dir = S_ISDIR(st.st_mode);
        if (c->skip && c->skip(at->path, is_dir))
            ;
        else if (is_dir)
            r = copy_subdir(c, from, to, e->d_name, at, err);
        else if (S_ISREG(st.st_mode)) {
            r = copy_file(c, from, to, e->d_name, err);
            count(c, at, &st);
            if (r == -ENOENT)
                r = 0;
        }
        leave(at, before);
    }
    closedir(dir);
    return r;
}

int copy_tree(struct copy *c, const char *from, const char *to, struct err *err)
{
    cleanup_fd int in = open(from, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (in < 0)
        return err_set(err, errno, "%s: %s", from, strerror(errno));
    if (mkdir(to, 0700) < 0)
        return err_set(err, errno, "%s: %s", to, strerror(errno));
    cleanup_fd int out = open(to, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (out < 0 || (c->uid != (uid_t)-1 && fchown(out, c->uid, c->gid) < 0))
        return err_set(err, errno, "%s: %s", to, strerror(errno));
    struct place at = {.len = 0};
    return copy_dir(c, in, out, &at, err);
}

int copy_sync(const char *dir, struct err *err)
{
    cleanup_fd int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    /* One syncfs instead of a thousand fsyncs: PostgreSQL offers the same for recovery_init_sync_method. */
    if (fd < 0 || syncfs(fd) < 0)
        return err_set(err, errno, "%s: %s", dir, strerror(errno));
    return 0;
}

static int remove_content(int fd)
{
    DIR *dir = fdopendir(fd);
    if (!dir) {
        int saved = errno;
        close(fd);
        return -saved;
    }
    int r = 0;
    for (struct dirent *e; (e = readdir(dir));) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        if (unlinkat(dirfd(dir), e->d_name, 0) == 0 || errno == ENOENT)
            continue;
        int sub = openat(dirfd(dir), e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        int s = sub < 0 ? -errno : remove_content(sub);
        if (s == 0 && unlinkat(dirfd(dir), e->d_name, AT_REMOVEDIR) < 0)
            s = -errno;
        if (s < 0 && s != -ENOENT) /* somebody else removes it too */
            r = s;
    }
    closedir(dir);
    return r;
}

int copy_remove(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 0 : errno == ENOTDIR && unlink(path) == 0 ? 0 : -errno;
    int r = remove_content(fd);
    return r == 0 && rmdir(path) < 0 && errno != ENOENT ? -errno : r;
}
