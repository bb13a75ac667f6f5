/* Starting, stopping and recognising a server. What a live postmaster writes into postmaster.pid is the source:
 * pid, data directory, start time, port, socket directory, address, shared memory, and in line 8 whether it is ready
 * (src/include/utils/pidfile.h). */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pgserver_i.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/log.h"
#include "util/text.h"

#define POLL_MS 3
#define SOCKET_PATH_MAX 107 /* sizeof(sockaddr_un.sun_path) - 1 */
#define PIDFILE_LINES 8

static bool is_zombie(pid_t pid)
{
    char path[32], text[512];
    snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    if (n <= 0)
        return false;
    text[n] = '\0';
    const char *p = strrchr(text, ')');
    return p && p[1] == ' ' && (p[2] == 'Z' || p[2] == 'X');
}

bool pgserver_alive(pid_t pid)
{
    if (pid <= 0)
        return false;
    if (waitpid(pid, NULL, WNOHANG) == pid)
        return false;
    if (kill(pid, 0) < 0 && errno == ESRCH)
        return false;
    return !is_zombie(pid);
}

static bool wait_gone(pid_t pid, int timeout_ms)
{
    for (int64_t end = clock_mono_ms() + timeout_ms; clock_mono_ms() < end; clock_sleep_ms(POLL_MS))
        if (!pgserver_alive(pid))
            return true;
    return !pgserver_alive(pid);
}

int pgserver_stop(pid_t pid, int timeout_ms)
{
    static const int signals[] = {SIGINT, SIGQUIT, SIGKILL};
    const int waits[] = {timeout_ms > 0 ? timeout_ms : 20000, 5000, 5000};
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
        if (!pgserver_alive(pid))
            return 0;
        if (kill(pid, signals[i]) < 0 && errno != ESRCH)
            return -errno;
        if (wait_gone(pid, waits[i]))
            return 0;
    }
    return -ETIMEDOUT;
}

/* Whether a process works in `datadir`: a postmaster and its children have it as their working directory. `unreadable` is the
 * answer where that can't be read. */
static bool works_in(pid_t pid, const char *datadir, bool unreadable)
{
    char path[32], link[PATH_MAX];
    snprintf(path, sizeof(path), "/proc/%d/cwd", pid);
    ssize_t n = readlink(path, link, sizeof(link) - 1);
    if (n <= 0)
        return n < 0 && (errno == EACCES || errno == EPERM) && unreadable;
    link[n] = '\0';
    return str_equal(link, datadir);
}

static int read_file(const char *path, size_t offset, struct buf *ret)
{
    cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    for (;;) {
        char *room = buf_room(ret, 4096);
        if (!room)
            return -ENOMEM;
        ssize_t n = pread(fd, room, 4096, (off_t)(offset + ret->len));
        if (n < 0)
            return -errno;
        if (n == 0)
            return 0;
        buf_grown(ret, (size_t)n);
    }
}

int pgserver_status(const char *datadir, struct pgserver_status *ret_status)
{
    cleanup_free char *real = realpath(datadir, NULL);
    if (!real)
        return -errno;
    cleanup_free char *path = str_format("%s/postmaster.pid", real);
    if (!path)
        return -ENOMEM;
    cleanup_buf struct buf text = {0};
    int r = read_file(path, 0, &text);
    if (r < 0 && r != -ENOENT)
        return r;
    struct pgserver_status status = {0};
    int line = 0;
    for (char *p = text.data ? text.data : NULL; p && line < PIDFILE_LINES; line++) {
        char *end = strchr(p, '\n');
        if (end)
            *end = '\0';
        if (line == 0)
            status.pid = atoi(p);
        else if (line == 3)
            status.port = atoi(p);
        else if (line == 7 && str_starts(p, "ready"))
            status.ready = true;
        else if (line == 7 && str_starts(p, "starting"))
            status.starting = true;
        p = end ? end + 1 : NULL;
    }
    if (status.pid <= 0 || !pgserver_alive(status.pid) || !works_in(status.pid, real, true))
        status = (struct pgserver_status){0};
    *ret_status = status;
    return 0;
}

/* Backends outlive a postmaster that was killed, and keep the next one from starting. */
static int kill_leftovers(const char *real)
{
    DIR *proc = opendir("/proc");
    if (!proc)
        return -errno;
    int r = 0;
    for (struct dirent *e; (e = readdir(proc));) {
        pid_t pid = isdigit((unsigned char)e->d_name[0]) ? atoi(e->d_name) : 0;
        if (pid <= 0 || pid == getpid() || !works_in(pid, real, false))
            continue;
        char path[32], name[32] = "";
        snprintf(path, sizeof(path), "/proc/%d/comm", pid);
        cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || read(fd, name, sizeof(name) - 1) <= 0 || !str_starts(name, "postgres"))
            continue;
        if (kill(pid, SIGKILL) == 0 && !wait_gone(pid, 5000))
            r = -ETIMEDOUT;
    }
    closedir(proc);
    return r;
}

int pgserver_end_all(const char *datadir)
{
    struct pgserver_status status;
    int r = pgserver_status(datadir, &status);
    if (r < 0)
        return r;
    if (status.pid)
        r = pgserver_stop(status.pid, 0);
    cleanup_free char *real = realpath(datadir, NULL);
    cleanup_free char *pidfile = real ? str_format("%s/postmaster.pid", real) : NULL;
    if (!pidfile)
        return -ENOMEM;
    if (access(pidfile, F_OK) == 0) {
        r = kill_leftovers(real);
        unlink(pidfile);
    }
    return r;
}

/* The socket's lock file names its postmaster and, in its second line, the data directory. PostgreSQL takes it for valid as long as there
 * is a process of that number: one that was killed and not yet reaped, or another one by now. */
static int clear_socket_lock(const struct pgserver_start *start)
{
    if (!start->socket_dir || !*start->socket_dir)
        return 0;
    cleanup_free char *real = realpath(start->datadir, NULL);
    cleanup_free char *path = str_format("%s/.s.PGSQL.%d.lock", start->socket_dir, start->port);
    cleanup_buf struct buf text = {0};
    if (!real || !path)
        return -errno;
    int r = read_file(path, 0, &text);
    char *dir = r == 0 && text.data ? strchr(text.data, '\n') : NULL;
    if (!dir)
        return r == -ENOENT ? 0 : r;
    dir[1 + strcspn(dir + 1, "\n")] = '\0';
    pid_t pid = atoi(text.data);
    bool ours = str_equal(dir + 1, start->datadir) || str_equal(dir + 1, real);
    if (ours && !(pgserver_alive(pid) && works_in(pid, real, true)) && unlink(path) < 0 && errno != ENOENT)
        return -errno;
    return 0;
}

static int clear_stale(const struct pgserver_start *start, struct err *err)
{
    const char *datadir = start->datadir;
    struct pgserver_status status;
    int r = pgserver_status(datadir, &status);
    if (r < 0)
        return err_set(err, -r, "%s: %s", datadir, strerror(-r));
    if (status.pid)
        return err_set(err, EBUSY, "%s: a PostgreSQL server (pid %d) is using it already", datadir, status.pid);
    r = pgserver_end_all(datadir);
    if (r == 0)
        r = clear_socket_lock(start);
    return r < 0 ? err_set(err, -r, "%s: can't clear what a killed server left: %s", datadir, strerror(-r)) : 0;
}

static int check_socket(const struct pgserver_start *start, struct err *err)
{
    if (start->socket_dir && strlen(start->socket_dir) + strlen("/.s.PGSQL.65535") > SOCKET_PATH_MAX)
        return err_set(err, ENAMETOOLONG, "%s: too long for a Unix socket (107 bytes with its name): choose a shorter directory",
                       start->socket_dir);
    return 0;
}

/* argv of the server; `room` keeps the strings that were made for it. */
static int build_argv(const struct pgserver_start *start, char *room[3], const char ***ret_argv)
{
    size_t n = 0;
    while (start->settings && start->settings[n])
        n++;
    const char **argv = calloc(n * 2 + 16, sizeof(*argv));
    if (!argv)
        return -ENOMEM;
    room[0] = str_format("listen_addresses=%s", start->listen ? start->listen : "");
    room[1] = str_format("unix_socket_directories=%s", start->socket_dir ? start->socket_dir : "");
    room[2] = str_format("%d", start->port);
    if (!room[0] || !room[1] || !room[2]) {
        free(argv);
        return -ENOMEM;
    }
    size_t i = 0;
    argv[i++] = "postgres";
    argv[i++] = "-D";
    argv[i++] = start->datadir;
    argv[i++] = "-p";
    argv[i++] = room[2];
    argv[i++] = "-c";
    argv[i++] = room[0];
    argv[i++] = "-c";
    argv[i++] = room[1];
    for (size_t k = 0; k < n; k++) {
        argv[i++] = "-c";
        argv[i++] = start->settings[k];
    }
    *ret_argv = argv;
    return 0;
}

/* Why it ended, from what it has written since `offset`. */
static int start_failed(const struct pgserver_start *start, size_t offset, struct err *err)
{
    cleanup_buf struct buf log = {0};
    if (read_file(start->log_file, offset, &log) < 0 || !log.data)
        return err_set(err, EIO, "%s: the PostgreSQL server ended at once, without a message", start->datadir);
    if (strstr(log.data, "Address already in use"))
        return err_set(err, EADDRINUSE, "%s: port %d is taken by another program", start->datadir, start->port);
    char *fatal = strstr(log.data, "FATAL:");
    if (fatal)
        fatal[strcspn(fatal, "\n")] = '\0';
    cleanup_free char *line = fatal ? strdup(fatal) : pgserver_last_line(log.data);
    return err_set(err, EIO, "%s: the PostgreSQL server didn't start: %s (see %s)", start->datadir, line ? line : "no message",
                   start->log_file);
}

/* Recovery takes as long as it takes: who ends it finds all of it to be done again. */
static int wait_ready(const struct pgserver_start *start, pid_t pid, size_t log_offset, struct err *err)
{
    int timeout = start->timeout_ms > 0 ? start->timeout_ms : 60000;
    int64_t begun = clock_mono_ms();
    for (int64_t end = begun + timeout;; clock_sleep_ms(POLL_MS)) {
        struct pgserver_status status = {0};
        if (!pgserver_alive(pid))
            return start_failed(start, log_offset, err);
        bool known = pgserver_status(start->datadir, &status) == 0 && status.pid == pid;
        if (known && status.ready)
            return 0;
        if (clock_mono_ms() < end)
            continue;
        if (!known || !status.starting || !start->patient)
            break;
        log_warn("%s: the PostgreSQL server (pid %d) is still starting after %lld s, as after a crash; waiting for it (see %s)",
                 start->datadir, (int)pid, (long long)(clock_mono_ms() - begun) / 1000, start->log_file);
        end = clock_mono_ms() + timeout;
    }
    pgserver_stop(pid, 1000);
    return err_set(err, ETIMEDOUT, "%s: the PostgreSQL server wasn't ready after %d ms (see %s)", start->datadir, timeout,
                   start->log_file);
}

int pgserver_start(const struct pgserver *pg, const struct pgserver_start *start, pid_t *ret_pid, struct err *err)
{
    int r = check_socket(start, err);
    if (r == 0)
        r = clear_stale(start, err);
    if (r < 0)
        return r;
    cleanup_fd int log = open(start->log_file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    struct stat st;
    if (log < 0 || fstat(log, &st) < 0)
        return err_set(err, errno, "%s: %s", start->log_file, strerror(errno));
    char *room[3] = {NULL, NULL, NULL};
    const char **argv = NULL;
    cleanup_free char *program = str_format("%s/postgres", pg->bindir);
    r = program ? build_argv(start, room, &argv) : -ENOMEM;
    pid_t pid = 0;
    if (r == 0) {
        struct pgserver_spawn spawn = {.program = program, .argv = argv, .output = log, .session = true};
        r = pgserver_spawn(pg, &spawn, &pid);
    }
    if (r < 0)
        r = err_set(err, -r, "can't run %s: %s", program ? program : "postgres", strerror(-r));
    else
        r = wait_ready(start, pid, (size_t)st.st_size, err);
    free(argv);
    for (size_t i = 0; i < sizeof(room) / sizeof(room[0]); i++)
        free(room[i]);
    if (r < 0)
        return r;
    *ret_pid = pid;
    return 0;
}
