/* Consistent copies of a branch's data: PostgreSQL's own low-level backup around a copy of the files. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "emulator/compute.h"
#include "emulator/copy.h"
#include "emulator/js.h"
#include "util/cleanup.h"
#include "util/text.h"

/* What a base backup leaves out: docs "Making a base backup using the low level API", §26.3.4.1 there. */
static bool skip_live(const char *path, bool directory)
{
    static const char *const emptied[] = {"pg_wal/",    "pg_replslot/",  "pg_dynshmem/", "pg_notify/",
                                          "pg_serial/", "pg_snapshots/", "pg_stat_tmp/", "pg_subtrans/"};
    static const char *const files[] = {"postmaster.pid",   "postmaster.opts", "backup_label",
                                        "backup_label.old", "tablespace_map",  "current_logfiles"};
    const char *name = strrchr(path, '/');
    name = name ? name + 1 : path;
    for (size_t i = 0; i < sizeof(emptied) / sizeof(emptied[0]); i++)
        if (str_starts(path, emptied[i]))
            return true;
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]) && !directory; i++)
        if (strcmp(path, files[i]) == 0)
            return true;
    /* pg_control is copied last, as pg_basebackup does. */
    return str_starts(name, "pgsql_tmp") || str_starts(name, "pg_internal.init") || strcmp(path, "global/pg_control") == 0;
}

static bool skip_stopped(const char *path, bool directory)
{
    return !directory && (strcmp(path, "postmaster.pid") == 0 || strcmp(path, "postmaster.opts") == 0);
}

static struct copy copy_for(const struct emulator *e)
{
    return (struct copy){.uid = e->pg.drop ? e->pg.uid : (uid_t)-1, .gid = e->pg.gid, .abandon = &e->abandon};
}

static int copy_named(struct copy *c, const char *from, const char *to, const char *dir, const char *name, struct err *err)
{
    cleanup_free char *a = js_format("%s/%s", from, dir);
    cleanup_free char *b = js_format("%s/%s", to, dir);
    cleanup_fd int in = open(a, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    cleanup_fd int out = open(b, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (in < 0 || out < 0)
        return err_set(err, errno, "%s: %s", in < 0 ? a : b, strerror(errno));
    int r = copy_file(c, in, out, name, err);
    return r == -ENOENT ? err_set(err, ENOENT, "%s/%s has gone", a, name) : r;
}

/* The WAL between the two ends of the backup: names of one timeline sort as their positions do. */
static int copy_wal(struct copy *c, const char *from, const char *to, const char *first, const char *last, struct err *err)
{
    cleanup_free char *path = js_format("%s/pg_wal", from);
    DIR *dir = opendir(path);
    if (!dir)
        return err_set(err, errno, "%s: %s", path, strerror(errno));
    int r = 0;
    for (struct dirent *d; r == 0 && (d = readdir(dir));)
        if (strlen(d->d_name) == strlen(first) && strspn(d->d_name, "0123456789ABCDEF") == strlen(first) &&
            strcmp(d->d_name, first) >= 0 && strcmp(d->d_name, last) <= 0)
            r = copy_named(c, from, to, "pg_wal", d->d_name, err);
    closedir(dir);
    return r;
}

static int write_label(const struct emulator *e, const char *to, const char *text, struct err *err)
{
    cleanup_free char *path = js_format("%s/backup_label", to);
    cleanup_fd int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    size_t n = strlen(text);
    if (fd < 0 || write(fd, text, n) != (ssize_t)n || (e->pg.drop && fchown(fd, e->pg.uid, e->pg.gid) < 0))
        return err_set(err, errno ? errno : EIO, "%s: %s", path, strerror(errno ? errno : EIO));
    return 0;
}

/* One row of texts; the caller PQclears it. */
static PGresult *ask(PGconn *conn, const char *sql, struct err *err)
{
    PGresult *result = PQexec(conn, sql);
    if (PQresultStatus(result) == PGRES_TUPLES_OK && PQntuples(result) == 1)
        return result;
    cleanup_free char *words = js_strdup(PQerrorMessage(conn));
    words[strcspn(words, "\n")] = '\0';
    err_set(err, EIO, "the backup failed: %s", words);
    PQclear(result);
    return NULL;
}

/* Between start and stop the slot keeps every WAL file that the copy needs; it goes with the session. */
static int backup(struct emulator *e, PGconn *conn, struct copy *c, const char *from, const char *to, char **ret_lsn,
                  struct err *err)
{
    bool old = e->pg.major < 15;
    PGresult *slot = ask(conn, "SELECT pg_create_physical_replication_slot('copy_' || pg_backend_pid(), true, true)", err);
    if (!slot)
        return -EIO;
    PQclear(slot);
    PGresult *start = ask(conn,
                          old ? "SELECT pg_walfile_name(pg_start_backup('neon-emulator', true, false))"
                              : "SELECT pg_walfile_name(pg_backup_start('neon-emulator', true))",
                          err);
    if (!start)
        return -EIO;
    PGresult *stop = NULL;
    int r = copy_tree(c, from, to, err);
    if (r == 0)
        r = copy_named(c, from, to, "global", "pg_control", err);
    if (r == 0) {
        stop = ask(conn,
                   old ? "SELECT lsn, labelfile, pg_walfile_name(lsn) FROM pg_stop_backup(false, false)"
                       : "SELECT lsn, labelfile, pg_walfile_name(lsn) FROM pg_backup_stop(false)",
                   err);
        r = stop ? write_label(e, to, PQgetvalue(stop, 0, 1), err) : -EIO;
    }
    if (r == 0)
        r = copy_wal(c, from, to, PQgetvalue(start, 0, 0), PQgetvalue(stop, 0, 2), err);
    if (r == 0)
        *ret_lsn = js_strdup(PQgetvalue(stop, 0, 0));
    PQclear(start);
    PQclear(stop);
    return r;
}

/* A cluster that was shut down is what its last checkpoint says: ControlFileData begins with the system identifier (8 bytes), two
 * versions (4 each), the state (4, padded to 8), a time (8) and the position of the checkpoint (8), in every major from 14 to 18
 * (src/include/catalog/pg_control.h). */
static int lsn_of_stopped(const char *dir, char **ret_lsn, struct err *err)
{
    struct {
        uint64_t system_identifier;
        uint32_t control_version, catalog_version;
        uint32_t state, padding;
        int64_t time;
        uint64_t checkpoint;
    } control;
    cleanup_free char *path = js_format("%s/global/pg_control", dir);
    cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_set(err, errno, "%s: %s", path, strerror(errno));
    if (read(fd, &control, sizeof(control)) != (ssize_t)sizeof(control) || control.control_version < 1300 ||
        control.control_version >= 1900)
        return err_set(err, EIO, "%s: not a control file of PostgreSQL 14 to 18", path);
    *ret_lsn = js_format("%X/%X", (unsigned)(control.checkpoint >> 32), (unsigned)control.checkpoint);
    return 0;
}

/* Copies go under another name first: what has the right name is whole. */
static int publish(const char *part, const char *to, struct err *err)
{
    int r = copy_sync(part, err);
    if (r == 0 && rename(part, to) < 0)
        r = err_set(err, errno, "%s: %s", to, strerror(errno));
    return r == 0 ? copy_sync(to, err) : r;
}

static int prepare(const char *part, const char *to, struct err *err)
{
    int r = copy_remove(part);
    if (r == 0)
        r = copy_remove(to);
    return r < 0 ? err_set(err, -r, "%s: can't remove what is there: %s", to, strerror(-r)) : 0;
}

int compute_copy_branch(struct emulator *e, const char *branch, const char *to, char **ret_lsn, int64_t *ret_bytes,
                        struct err *err)
{
    cleanup_free char *from = compute_branch_dir(e, branch);
    cleanup_free char *part = js_format("%s.part", to);
    cleanup_free char *lsn = NULL;
    struct copy c = copy_for(e);
    int r = prepare(part, to, err);
    if (r < 0)
        return r;
    if (compute_running(e, branch, NULL)) {
        struct compute_session s;
        c.skip = skip_live;
        r = compute_session_open(e, branch, "postgres", &s, err);
        if (r == 0) {
            r = backup(e, s.conn, &c, from, part, &lsn, err);
            compute_session_close(&s);
        }
    } else {
        c.skip = skip_stopped;
        r = pgserver_end_all(from);
        r = r < 0 ? err_set(err, -r, "%s: %s", from, strerror(-r)) : lsn_of_stopped(from, &lsn, err);
        if (r == 0)
            r = copy_tree(&c, from, part, err);
    }
    if (r == 0)
        r = publish(part, to, err);
    if (r < 0) {
        copy_remove(part);
        return r;
    }
    *ret_lsn = steal_ptr(&lsn);
    *ret_bytes = c.base_bytes;
    return 0;
}

int compute_copy_snapshot(struct emulator *e, const char *snapshot, const char *branch, struct err *err)
{
    cleanup_free char *from = compute_snapshot_dir(e, snapshot);
    cleanup_free char *to = compute_branch_dir(e, branch);
    cleanup_free char *part = js_format("%s.part", to);
    struct copy c = copy_for(e);
    int r = compute_stop(e, branch);
    if (r < 0)
        return err_set(err, -r, "%s: %s", to, strerror(-r));
    r = prepare(part, to, err);
    if (r == 0)
        r = copy_tree(&c, from, part, err);
    if (r == 0)
        r = publish(part, to, err);
    if (r < 0)
        copy_remove(part);
    return r;
}
