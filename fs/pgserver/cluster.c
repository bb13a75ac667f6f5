/* Making a cluster: a directory that the servers' user reaches, and initdb. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pgserver_i.h"
#include "util/cleanup.h"
#include "util/text.h"

struct walk {
    char *path;
    size_t len;
};

/* Runs as the servers' user. 0, or the length of the first prefix of the path that it can't use. */
static int walk_down(void *arg)
{
    struct walk *w = arg;
    for (size_t i = 1; i < w->len; i++) {
        if (w->path[i] != '/')
            continue;
        w->path[i] = '\0';
        int r = access(w->path, X_OK);
        w->path[i] = '/';
        if (r < 0)
            return (int)i;
    }
    return access(w->path, R_OK | W_OK | X_OK) < 0 ? (int)w->len : 0;
}

int pgserver_can_reach(const struct pgserver *pg, const char *dir, struct err *err)
{
    cleanup_free char *path = realpath(dir, NULL);
    if (!path)
        return err_set(err, errno, "%s: %s", dir, strerror(errno));
    struct walk w = {.path = path, .len = strlen(path)};
    int r = pgserver_as_user(pg, walk_down, &w);
    if (r < 0)
        return err_set(err, -r, "%s: can't change to user %s: %s", dir, pg->user, strerror(-r));
    if (r == 0)
        return 0;
    path[r] = '\0';
    return err_set(err, EACCES,
                   "PostgreSQL runs as user %s, which can't %s %s: choose a directory elsewhere, or open this one "
                   "(chmod a+x %s)",
                   pg->user, (size_t)r == w.len ? "use" : "enter", path, path);
}

int pgserver_mkdir(const struct pgserver *pg, const char *dir, struct err *err)
{
    if (mkdir(dir, 0700) < 0 && errno != EEXIST)
        return err_set(err, errno, "can't make the directory %s: %s", dir, strerror(errno));
    cleanup_fd int fd = open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return err_set(err, errno, "%s: %s", dir, strerror(errno));
    if ((pg->drop && fchown(fd, pg->uid, pg->gid) < 0) || fchmod(fd, 0700) < 0)
        return err_set(err, errno, "%s: can't give it to user %s: %s", dir, pg->user, strerror(errno));
    return pgserver_can_reach(pg, dir, err);
}

/* The password goes through a file: argv can be read by everybody. */
static int write_password(const struct pgserver *pg, const char *password, char **ret_path, struct err *err)
{
    const char *tmp = getenv("TMPDIR");
    cleanup_free char *path = str_format("%s/pgserver-XXXXXX", tmp && tmp[0] == '/' && !pg->drop ? tmp : "/tmp");
    if (!path)
        return err_set(err, ENOMEM, "out of memory");
    cleanup_fd int fd = mkostemp(path, O_CLOEXEC);
    if (fd < 0)
        return err_set(err, errno, "%s: %s", path, strerror(errno));
    if (dprintf(fd, "%s\n", password) < 0 || (pg->drop && fchown(fd, pg->uid, pg->gid) < 0)) {
        int r = err_set(err, errno, "%s: %s", path, strerror(errno));
        unlink(path);
        return r;
    }
    *ret_path = steal_ptr(&path);
    return 0;
}

static const char *usable_locale(void)
{
    locale_t l = newlocale(LC_ALL_MASK, "C.UTF-8", (locale_t)0);
    if (l == (locale_t)0)
        return "--locale=C";
    freelocale(l);
    return "--locale=C.UTF-8";
}

int pgserver_initdb(const struct pgserver *pg, const struct pgserver_cluster *cluster, struct err *err)
{
    cleanup_free char *pwfile = NULL;
    int r = pgserver_mkdir(pg, cluster->datadir, err);
    if (r == 0)
        r = write_password(pg, cluster->password, &pwfile, err);
    if (r < 0)
        return r;
    cleanup_free char *pwfile_arg = str_format("--pwfile=%s", pwfile);
    cleanup_free char *segment_arg = str_format("--wal-segsize=%d", cluster->wal_segment_mb ? cluster->wal_segment_mb : 16);
    const char *argv[] = {"initdb", "-D",   cluster->datadir, "-U",        cluster->superuser,  "-A",       "scram-sha-256",
                          "-E",     "UTF8", usable_locale(),  "--no-sync", "--no-instructions", pwfile_arg, segment_arg,
                          NULL};
    r = pwfile_arg && segment_arg ? pgserver_run(pg, argv, NULL, err) : err_set(err, ENOMEM, "out of memory");
    unlink(pwfile);
    if (r < 0)
        rmdir(cluster->datadir);
    return r;
}
