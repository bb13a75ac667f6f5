/* The bytes of staged files, on disk: states may be large. A lock on the directory tells the living from the dead. */
#include "spool.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util/cleanup.h"
#include "util/log.h"
#include "util/text.h"

#define PREFIX "checkpointfs-import."
#define TRIES 3
#define ID_MAX 24

struct spool {
    pthread_mutex_t lock; /* protects what follows, until the directory is there */
    char *path;
    int dir;
};

static const char *where(void)
{
    const char *tmp = getenv("TMPDIR");

    return tmp && tmp[0] == '/' ? tmp : "/tmp";
}

static void remove_files(int dir)
{
    int copy = dup(dir);
    DIR *d = copy < 0 ? NULL : fdopendir(copy);
    struct dirent *e;

    if (!d) {
        if (copy >= 0)
            close(copy);
        return;
    }
    rewinddir(d);
    while ((e = readdir(d)))
        if (e->d_name[0] != '.')
            unlinkat(dir, e->d_name, 0);
    closedir(d);
}

/* Of a mount of this user that is no more: its lock is free. */
static void remove_dead(int tmp, const char *name)
{
    cleanup_fd int dir = openat(tmp, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct stat st;

    if (dir < 0 || fstat(dir, &st) < 0 || st.st_uid != geteuid() || flock(dir, LOCK_EX | LOCK_NB) < 0)
        return;
    remove_files(dir);
    if (unlinkat(tmp, name, AT_REMOVEDIR) == 0)
        log_info("removed %s/%s, which a mount that is gone had left", where(), name);
}

static void remove_all_dead(void)
{
    DIR *d = opendir(where());
    struct dirent *e;

    if (!d)
        return;
    while ((e = readdir(d)))
        if (str_starts(e->d_name, PREFIX))
            remove_dead(dirfd(d), e->d_name);
    closedir(d);
}

struct spool *spool_new(void)
{
    struct spool *s = calloc(1, sizeof(*s));

    if (!s)
        return NULL;
    remove_all_dead();
    pthread_mutex_init(&s->lock, NULL);
    s->dir = -1;
    return s;
}

void spool_free(struct spool *s)
{
    if (!s)
        return;
    if (s->dir >= 0) {
        remove_files(s->dir);
        rmdir(s->path);
        close(s->dir);
    }
    free(s->path);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

/* Another mount that starts may take it for a dead one's before it is locked: then it is gone, and made anew. */
static int make_locked(struct spool *s)
{
    for (int i = 0; i < TRIES; i++) {
        cleanup_free char *path = str_format("%s/" PREFIX "%ld.XXXXXX", where(), (long)getpid());
        cleanup_fd int dir = -1;
        struct stat st;

        if (!path)
            return -ENOMEM;
        if (!mkdtemp(path))
            return -errno;
        dir = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (dir >= 0 && flock(dir, LOCK_EX | LOCK_NB) == 0 && fstat(dir, &st) == 0 && st.st_nlink > 0) {
            s->path = steal_ptr(&path);
            s->dir = steal_fd(&dir);
            return 0;
        }
    }
    return -EAGAIN;
}

static int make(struct spool *s)
{
    int r;

    pthread_mutex_lock(&s->lock);
    r = s->dir >= 0 ? 0 : make_locked(s);
    pthread_mutex_unlock(&s->lock);
    if (r < 0)
        log_warn("%s can't hold what is copied into .import/: %s; TMPDIR names another place", where(), strerror(-r));
    return r;
}

int spool_open(struct spool *s, int64_t id)
{
    char name[ID_MAX];
    int r = make(s);
    int fd;

    if (r < 0)
        return r;
    snprintf(name, sizeof(name), "%" PRId64, id);
    fd = openat(s->dir, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    return fd < 0 ? -errno : fd;
}

void spool_remove(struct spool *s, int64_t id)
{
    char name[ID_MAX];

    snprintf(name, sizeof(name), "%" PRId64, id);
    pthread_mutex_lock(&s->lock);
    if (id && s->dir >= 0)
        unlinkat(s->dir, name, 0);
    pthread_mutex_unlock(&s->lock);
}
