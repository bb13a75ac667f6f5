/* Private PostgreSQL servers: find the programs, make a cluster, start and stop a server, all as a user PostgreSQL accepts.
 *
 * PostgreSQL refuses to run as root; a caller that is root drops to `postgres`, else to `nobody`. Every function may be called
 * from a process with threads: between fork and exec only async-signal-safe calls are made. None touches global state, so all
 * are thread-safe as long as two threads don't work on one data directory. Servers get a session of their own, so that a
 * Ctrl-C at the terminal doesn't end them (reference/traps.md 20 to 24). */
#ifndef PGSERVER_PGSERVER_H
#define PGSERVER_PGSERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "util/buf.h"
#include "util/err.h"

#define PGSERVER_OLDEST 14
#define PGSERVER_NEWEST 18

/* Where PostgreSQL is and who runs it. Zero-initialise; free with pgserver_clear. */
struct pgserver {
    int major;    /* 14 to 18 */
    char *bindir; /* holds postgres, initdb, … */
    char *user;   /* name of the user that runs the servers */
    uid_t uid;
    gid_t gid;
    bool drop; /* the caller is root: change to uid and gid before every exec */
};

/* Looks for PostgreSQL in PATH, /usr/lib/postgresql/N/bin, /usr/pgsql-N/bin and where pg_config says; `major` 0 takes the
 * newest of 14 to 18. -ENOENT (the text names the package to install), -EPERM when root has no user to drop to, -ENOMEM. */
int pgserver_find(int major, struct pgserver *ret_pg, struct err *err);
void pgserver_clear(struct pgserver *pg);

/* Makes `dir` (its parent must exist; existing is fine) with mode 0700 and gives it to the servers' user.
 * -EACCES with a text naming the parent that the servers' user can't enter; else the errno of mkdir or chown. */
int pgserver_mkdir(const struct pgserver *pg, const char *dir, struct err *err);

/* Whether the servers' user can read, write and enter `dir`, and enter all of its parents. 0, or -EACCES with a text that
 * names the first directory in the way. */
int pgserver_can_reach(const struct pgserver *pg, const char *dir, struct err *err);

struct pgserver_cluster {
    const char *datadir;   /* absolute; is created */
    const char *superuser; /* name of the bootstrap superuser */
    const char *password;  /* of the superuser; reaches initdb through a file that only the servers' user can read */
    int wal_segment_mb;    /* 0 = PostgreSQL's default of 16 */
};

/* initdb: UTF-8, scram-sha-256 for every connection, without waiting for the disk (call sync yourself, or let the first
 * checkpoints do it). On failure nothing is left in datadir. -EACCES as pgserver_can_reach, -EIO with initdb's own words. */
int pgserver_initdb(const struct pgserver *pg, const struct pgserver_cluster *cluster, struct err *err);

struct pgserver_start {
    const char *datadir;
    const char *listen;          /* listen_addresses, e.g. "127.0.0.1"; "" = no TCP */
    int port;                    /* also names the socket */
    const char *socket_dir;      /* short (its path ends up in a 107 byte socket address), existing; "" = none */
    const char *log_file;        /* the server's stderr, appended; created with mode 0600 */
    const char *const *settings; /* "name=value", NULL-terminated; NULL = none */
    int timeout_ms;              /* how long to wait until it accepts connections; 0 = 60 s */
    bool patient;                /* one that recovers from a crash is waited for as long as it lives */
};

/* Starts a server and returns once it accepts connections. The caller stays its parent: pgserver_alive and pgserver_stop reap
 * it. A stale postmaster.pid, the socket's lock and backends left over from a killed postmaster are cleared first. One that isn't
 * ready in time is ended, unless `patient` is set and it says that it is starting: ended in its recovery it would begin again at the
 * same point; the log tells of it every `timeout_ms`. -EBUSY when a live postmaster serves datadir, -EADDRINUSE when the port is
 * taken, -ETIMEDOUT, -EIO with the last line of the server's log. */
int pgserver_start(const struct pgserver *pg, const struct pgserver_start *start, pid_t *ret_pid, struct err *err);

/* Ends a server: fast shutdown, after `timeout_ms` (0 = 20 s) immediate, after 5 s more SIGKILL. Children and adopted servers
 * alike. 0 also when it has gone already. */
int pgserver_stop(pid_t pid, int timeout_ms);

/* Whether `pid` is a live process; reaps it when it is a child that ended. */
bool pgserver_alive(pid_t pid);

/* What postmaster.pid in a data directory says, and whether it is true. */
struct pgserver_status {
    pid_t pid; /* 0 = no live postmaster serves this directory */
    int port;
    bool ready;    /* it accepts connections */
    bool starting; /* it doesn't yet: it comes up, or recovers from a crash */
};

/* Looks for a live postmaster of `datadir`; a stale or foreign postmaster.pid counts as none. 0 or -errno of reading it. */
int pgserver_status(const char *datadir, struct pgserver_status *ret_status);

/* Ends every postgres process that works in `datadir`: the postmaster in an orderly way, left-over backends by SIGKILL.
 * Removes a stale postmaster.pid. 0 or -errno. */
int pgserver_end_all(const char *datadir);

/* Runs a program as the servers' user and waits. `argv[0]` without a slash is looked for in bindir. Its stdout and stderr are
 * appended to `ret_output` (may be NULL). Returns 0 when it exited 0, -EIO when it didn't (the text holds its last line),
 * or the errno of starting it. Never pass a secret in argv. */
int pgserver_run(const struct pgserver *pg, const char *const argv[], struct buf *ret_output, struct err *err);

/* A TCP port on `address` (IPv4 text) that is free now and lies outside ip_local_port_range, so that no outgoing connection
 * takes it while the server is down. `taken` (n numbers) is left out. -EADDRINUSE when there is none. */
int pgserver_free_port(const char *address, const int *taken, size_t n, int *ret_port, struct err *err);

#endif
