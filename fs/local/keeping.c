/* Starts the keeper: our own binary again, in a session of its own, and hears from it whether the servers came up. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "local_i.h"
#include "util/cleanup.h"
#include "util/log.h"
#include "util/spawn.h"
#include "util/text.h"

#define SAY_MS 60000

/* Variables that speak of somebody else's servers, or hold secrets that the keeper has no use for. */
static bool is_foreign(const char *variable)
{
    static const char *const prefixes[] = {"PG", "NEON_", "DATABASE_URL=", "CHECKPOINTFS_", "NOTIFY_SOCKET=", NULL};

    for (size_t i = 0; prefixes[i]; i++)
        if (str_starts(variable, prefixes[i]))
            return true;
    return false;
}

/* Only the array is the caller's. */
static char **make_environment(void)
{
    char **env;
    size_t n = 0;
    size_t at = 0;

    while (environ && environ[n])
        n++;
    env = calloc(n + 1, sizeof *env);
    for (size_t i = 0; env && i < n; i++)
        if (!is_foreign(environ[i]))
            env[at++] = environ[i];
    return env;
}

/* neon-emulator beside our binary, else in PATH; free(). */
static int find_emulator(const struct local_config *cfg, char **ret, struct err *e)
{
    char self[PATH_MAX];
    ssize_t n = readlink(cfg->self_exe ? cfg->self_exe : "/proc/self/exe", self, sizeof self - 1);
    const char *path = getenv("PATH");
    char *slash;

    if (cfg->emulator) {
        if (access(cfg->emulator, X_OK) < 0)
            return err_set(e, errno, "can't run %s: %s", cfg->emulator, strerror(errno));
        *ret = strdup(cfg->emulator);
        return *ret ? 0 : err_set(e, ENOMEM, "out of memory");
    }
    self[n > 0 ? n : 0] = '\0';
    slash = strrchr(self, '/');
    if (slash) {
        cleanup_free char *beside = str_format("%.*s/neon-emulator", (int)(slash - self), self);

        if (beside && access(beside, X_OK) == 0) {
            *ret = steal_ptr(&beside);
            return 0;
        }
    }
    for (const char *p = path; p; p = strchr(p, ':') ? strchr(p, ':') + 1 : NULL) {
        cleanup_free char *file = str_format("%.*s/neon-emulator", (int)strcspn(p, ":"), p);

        if (file && file[0] == '/' && file[1] != '/' && access(file, X_OK) == 0) {
            *ret = steal_ptr(&file);
            return 0;
        }
    }
    return err_set(e, ENOENT, "neon-emulator is neither beside checkpointfs nor in PATH: run make, or install it");
}

static int fill_actions(posix_spawn_file_actions_t *act, const char *log, int status, int lock)
{
    int r = posix_spawn_file_actions_addchdir_np(act, "/");

    if (!r)
        r = posix_spawn_file_actions_addopen(act, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    if (!r)
        r = posix_spawn_file_actions_addopen(act, STDOUT_FILENO, log, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW, 0600);
    if (!r)
        r = posix_spawn_file_actions_adddup2(act, STDOUT_FILENO, STDERR_FILENO);
    if (!r)
        r = posix_spawn_file_actions_adddup2(act, status, KEEPER_STATUS_FD);
    if (!r)
        r = posix_spawn_file_actions_adddup2(act, lock, KEEPER_LOCK_FD);
    if (!r)
        r = posix_spawn_file_actions_addclosefrom_np(act, KEEPER_LOCK_FD + 1);
    return r;
}

/* 0 or a positive errno. */
static int spawn(const char *exe, char *const argv[], const char *log, int status, int lock, pid_t *ret)
{
    cleanup_free char **env = make_environment();
    posix_spawn_file_actions_t act;
    posix_spawnattr_t attr;
    int r;

    if (!env)
        return ENOMEM;
    r = posix_spawn_file_actions_init(&act);
    if (r)
        return r;
    r = posix_spawnattr_init(&attr);
    if (!r) {
        r = spawn_own_session(&attr);
        if (!r)
            r = fill_actions(&act, log, status, lock);
        if (!r)
            r = posix_spawn(ret, exe, &act, &attr, argv, env);
        posix_spawnattr_destroy(&attr);
    }
    posix_spawn_file_actions_destroy(&act);
    return r;
}

/* Says every minute that there is nothing to read yet: a store that recovers from a crash takes its time. */
static void await_status(int fd, const char *dir)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    int r;

    while ((r = poll(&p, 1, SAY_MS)) == 0 || (r < 0 && errno == EINTR))
        if (r == 0)
            log_warn("the local servers of %s aren't up yet; waiting for them, which Ctrl-C ends (see %s/keeper.log)", dir, dir);
}

/* Reads the keeper's one line: it closes the pipe once it has spoken, or has died. */
static int read_status(int fd, const char *dir, struct err *e)
{
    cleanup_buf struct buf line = {0};
    char *text;
    char *room;
    ssize_t n;
    int code;

    await_status(fd, dir);
    do {
        room = buf_room(&line, 512);
        if (!room)
            return err_set(e, ENOMEM, "out of memory");
        n = read(fd, room, 512);
        if (n > 0)
            buf_grown(&line, (size_t)n);
    } while (n > 0 || (n < 0 && errno == EINTR));
    if (!line.data || line.data[line.len - 1] != '\n')
        return err_set(e, EIO, "the keeper of the local servers of %s ended unexpectedly: see %s/keeper.log", dir, dir);
    line.data[line.len - 1] = '\0';
    code = (int)strtol(line.data, &text, 10);
    return code ? err_set(e, code, "%s", *text == ' ' ? text + 1 : strerror(code)) : 0;
}

int local_keeper_start(const struct local_config *cfg, const char *dir, const char *task, int *lock, pid_t *ret, struct err *e)
{
    const char *exe = cfg->self_exe ? cfg->self_exe : "/proc/self/exe";
    cleanup_free char *log = local_path(dir, "keeper.log");
    cleanup_free char *emulator = NULL;
    cleanup_fd int handed = steal_fd(lock);
    cleanup_fd int ours = -1;
    cleanup_fd int theirs = -1;
    int pipe_fds[2];
    pid_t pid;
    int r;

    if (cfg->want_neon) {
        r = find_emulator(cfg, &emulator, e);
        if (r)
            return r;
    }
    if (!log)
        return err_set(e, ENOMEM, "out of memory");
    if (pipe2(pipe_fds, O_CLOEXEC) < 0)
        return err_set(e, errno, "can't start the keeper of the local servers: %s", strerror(errno));
    ours = pipe_fds[0];
    theirs = pipe_fds[1];
    r = spawn_move_high(&theirs);
    if (r == 0)
        r = spawn_move_high(&handed);
    if (r == 0) {
        char *argv[] = {(char *)"checkpointfs-keeper", (char *)dir, (char *)task, emulator ? emulator : (char *)"",
                        (char *)(cfg->plan ? cfg->plan : ""), NULL}; /* execve changes none of them */

        r = -spawn(exe, argv, log, theirs, handed, &pid);
    }
    if (r)
        return err_set(e, -r, "can't start the keeper of the local servers (%s, log %s): %s", exe, log, strerror(-r));
    cleanup_fd_p(&theirs);
    theirs = -1;
    cleanup_fd_p(&handed);
    handed = -1;
    r = read_status(ours, dir, e);
    if (r) {
        waitpid(pid, NULL, 0);
        return r;
    }
    *ret = pid;
    return 0;
}
