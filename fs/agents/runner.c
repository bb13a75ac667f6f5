/* The mount's side of a supervisor: starts it, pumps the agent's output, passes orders on, and knows how it ended. */
#include "agents/runner.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agents_i.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/hash.h"
#include "util/spawn.h"
#include "util/text.h"

#define RANDOM_ID_DIGITS 32
#define DEFAULT_GRACE_MS 10000
#define STUCK_MS 5000 /* past the grace: a supervisor that is stopped or starved is killed, too */
#define OUTPUT_CHUNK 65536
#define DRAIN_READS 64 /* more than the largest pipe holds; ends even if someone else got hold of the pipe */

struct agent {
    char id[AGENT_ID_SIZE];
    pid_t pid; /* the supervisor; stays a zombie, and so ours, until `reaped` */
    pid_t shell;
    uint64_t started; /* of the supervisor, clock ticks since boot */
    int socket;
    int output; /* -1 once it ended */
    bool finished;
    struct agent_exit exit;
    unsigned grace_ms;

    pthread_mutex_t lock; /* over what follows: orders come from any thread */
    bool reaped;
    int64_t stuck_at; /* clock_mono_ms; 0 = not cancelled */
};

/* ---- environment ---- */

static bool name_matches(const char *variable, const char *pattern)
{
    size_t n = strlen(pattern);

    if (n && pattern[n - 1] == '*')
        return strncmp(variable, pattern, n - 1) == 0;
    return strncmp(variable, pattern, n) == 0 && variable[n] == '=';
}

static bool is_left_out(const char *variable, const struct agent_spec *spec)
{
    if (name_matches(variable, AGENT_ID_VARIABLE))
        return true;
    for (const char *const *p = spec->unset_env; p && *p; p++)
        if (name_matches(variable, *p))
            return true;
    for (const char *const *p = spec->set_env; p && *p; p++)
        if (strncmp(variable, *p, strcspn(*p, "=") + 1) == 0)
            return true;
    return false;
}

/* Only the array is the caller's (free()); the strings belong to our environment, the spec and `marker`. */
static char **make_environment(const struct agent_spec *spec, char *marker)
{
    size_t n = 2;
    size_t at = 0;
    char **env;

    for (char **p = environ; p && *p; p++)
        n++;
    for (const char *const *p = spec->set_env; p && *p; p++)
        n++;
    env = calloc(n, sizeof *env);
    if (!env)
        return NULL;
    for (char **p = environ; p && *p; p++)
        if (!is_left_out(*p, spec))
            env[at++] = *p;
    for (const char *const *p = spec->set_env; p && *p; p++)
        env[at++] = (char *)*p; /* execve takes char *const[], and changes nothing */
    env[at] = marker;
    return env;
}

/* ---- start ---- */

struct channels {
    int socket[2]; /* ours, the supervisor's */
    int output[2]; /* ours, the agent's */
};

static void channels_close(struct channels *c)
{
    cleanup_fd_p(&c->socket[0]);
    cleanup_fd_p(&c->socket[1]);
    cleanup_fd_p(&c->output[0]);
    cleanup_fd_p(&c->output[1]);
}

static int channels_open(struct channels *c)
{
    int r;

    *c = (struct channels){{-1, -1}, {-1, -1}};
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, c->socket) < 0)
        return -errno;
    if (pipe2(c->output, O_CLOEXEC) < 0 || fcntl(c->output[0], F_SETFL, O_NONBLOCK) < 0)
        r = -errno;
    else if ((r = spawn_move_high(&c->socket[1])) == 0)
        r = spawn_move_high(&c->output[1]);
    if (r)
        channels_close(c);
    return r;
}

static int fill_actions(posix_spawn_file_actions_t *act, const struct channels *c, const char *cwd)
{
    int r = posix_spawn_file_actions_addchdir_np(act, cwd);

    if (!r)
        r = posix_spawn_file_actions_addopen(act, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    if (!r)
        r = posix_spawn_file_actions_adddup2(act, c->output[1], STDOUT_FILENO);
    if (!r)
        r = posix_spawn_file_actions_adddup2(act, c->output[1], STDERR_FILENO);
    if (!r)
        r = posix_spawn_file_actions_adddup2(act, c->socket[1], AGENT_SOCKET_FD);
    if (!r)
        r = posix_spawn_file_actions_addclosefrom_np(act, AGENT_SOCKET_FD + 1);
    return r;
}

/* 0 or a positive errno. */
static int spawn_supervisor(const struct agent_spec *spec, unsigned grace_ms, const struct channels *c, char **env, pid_t *ret)
{
    posix_spawn_file_actions_t act;
    posix_spawnattr_t attr;
    char grace[16];
    char lease[24];
    char *argv[] = {(char *)"checkpointfs-agent", grace, lease, (char *)spec->command, NULL};
    int r;

    snprintf(grace, sizeof grace, "%u", grace_ms);
    snprintf(lease, sizeof lease, "%llu", (unsigned long long)spec->lease_seconds * 1000);
    r = posix_spawn_file_actions_init(&act);
    if (r)
        return r;
    r = posix_spawnattr_init(&attr);
    if (!r) {
        r = spawn_own_session(&attr);
        if (!r)
            r = fill_actions(&act, c, spec->cwd);
        if (!r)
            r = posix_spawn(ret, spec->self_exe ? spec->self_exe : "/proc/self/exe", &act, &attr, argv, env);
        posix_spawnattr_destroy(&attr);
    }
    posix_spawn_file_actions_destroy(&act);
    return r;
}

static int start_error(const struct agent_spec *spec, int code, struct err *e)
{
    if (code == E2BIG)
        return err_set(e, code, "can't start the agent: its environment is too large (argument list too long)");
    if ((code == ENOENT || code == EACCES || code == ENOTDIR) && access(spec->cwd, X_OK) < 0)
        return err_set(e, code, "can't start the agent in %s, where the mount was started from: %s", spec->cwd, strerror(code));
    return err_set(e, code, "can't start the agent's supervisor %s: %s", spec->self_exe ? spec->self_exe : "/proc/self/exe",
                   strerror(code));
}

static int start(struct agent *a, const struct agent_spec *spec, struct err *e)
{
    cleanup_free char *marker = str_format("%s=%s", AGENT_ID_VARIABLE, a->id);
    cleanup_free char **env = marker ? make_environment(spec, marker) : NULL;
    struct proc_stat st = {0};
    struct channels c;
    int r;

    if (!env)
        return err_set(e, ENOMEM, "can't start the agent: out of memory");
    r = channels_open(&c);
    if (r)
        return err_set(e, -r, "can't start the agent: %s", strerror(-r));
    r = spawn_supervisor(spec, a->grace_ms, &c, env, &a->pid);
    if (r) {
        channels_close(&c);
        return start_error(spec, r, e);
    }
    a->socket = steal_fd(&c.socket[0]);
    a->output = steal_fd(&c.output[0]);
    channels_close(&c);
    if (proc_stat_read(a->pid, &st) == 0)
        a->started = st.starttime;
    return 0;
}

static int choose_id(struct agent *a, const struct agent_spec *spec, struct err *e)
{
    size_t n = spec->id ? strlen(spec->id) : 0;

    if (!spec->id)
        return random_hex(a->id, RANDOM_ID_DIGITS) ? err_set(e, EIO, "can't start the agent: no random numbers") : 0;
    if (n == 0 || n >= AGENT_ID_SIZE)
        return err_set(e, EINVAL, "can't start the agent: its id has %zu characters", n);
    memcpy(a->id, spec->id, n + 1);
    return 0;
}

int agent_start(const struct agent_spec *spec, struct agent **ret, struct err *e)
{
    struct agent *a = calloc(1, sizeof *a);
    int r;

    if (!a)
        return err_set(e, ENOMEM, "can't start the agent: out of memory");
    a->socket = a->output = -1;
    a->grace_ms = spec->grace_ms ? spec->grace_ms : DEFAULT_GRACE_MS;
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    r = choose_id(a, spec, e);
    if (r == 0)
        r = start(a, spec, e);
    if (r) {
        free(a);
        return r;
    }
    pthread_mutex_init(&a->lock, NULL);
    *ret = a;
    return 0;
}

/* ---- orders ---- */

static void send_order(struct agent *a, char order)
{
    send(a->socket, &order, 1, MSG_NOSIGNAL | MSG_DONTWAIT);
}

void agent_cancel(struct agent *a)
{
    pthread_mutex_lock(&a->lock);
    if (!a->reaped) {
        send_order(a, AGENT_ORDER_CANCEL);
        kill(a->pid, SIGTERM); /* means the same, and gets through when the socket's queue is full */
        if (!a->stuck_at)
            a->stuck_at = clock_mono_ms() + a->grace_ms + STUCK_MS;
    }
    pthread_mutex_unlock(&a->lock);
}

void agent_lease(struct agent *a)
{
    pthread_mutex_lock(&a->lock);
    if (!a->reaped)
        send_order(a, AGENT_ORDER_LEASE);
    pthread_mutex_unlock(&a->lock);
}

const char *agent_id(const struct agent *a)
{
    return a->id;
}

pid_t agent_supervisor_pid(const struct agent *a)
{
    return a->pid;
}

/* ---- waiting ---- */

static void read_output(struct agent *a, agent_output_fn *on_output, void *ctx)
{
    char chunk[OUTPUT_CHUNK];
    ssize_t n;

    if (a->output < 0)
        return;
    n = read(a->output, chunk, sizeof chunk);
    if (n > 0 && on_output)
        on_output(ctx, chunk, (size_t)n);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
        close(steal_fd(&a->output));
}

/* Every process that could write is gone: what the pipe holds is all there will be. */
static void drain_output(struct agent *a, agent_output_fn *on_output, void *ctx)
{
    struct pollfd p = {.fd = a->output, .events = POLLIN};

    for (int i = 0; i < DRAIN_READS && a->output >= 0 && poll(&p, 1, 0) > 0; i++)
        read_output(a, on_output, ctx);
}

static void reap_supervisor(struct agent *a)
{
    while (waitpid(a->pid, NULL, 0) < 0 && errno == EINTR)
        ;
    pthread_mutex_lock(&a->lock);
    a->reaped = true;
    pthread_mutex_unlock(&a->lock);
}

static void on_finished(struct agent *a, const struct agent_report *report)
{
    a->exit.kind = WIFSIGNALED(report->status) ? AGENT_SIGNALED : AGENT_EXITED;
    a->exit.code = WIFSIGNALED(report->status) ? WTERMSIG(report->status) : WEXITSTATUS(report->status);
    a->exit.cancelled = report->cancelled;
    a->exit.lease_lost = report->lease_lost;
    reap_supervisor(a);
    a->finished = true;
}

static void on_lost(struct agent *a)
{
    struct agent_marks marks = {
        .id = a->id, .session = a->pid, .pgrp = a->shell, .adopter = getpid(), .started = a->started,
    };

    kill(a->pid, SIGKILL); /* not reaped yet, so the pid is still its own */
    agent_end_marked(&marks);
    reap_supervisor(a);
    pthread_mutex_lock(&a->lock);
    a->exit = (struct agent_exit){.kind = AGENT_LOST, .cancelled = a->stuck_at != 0};
    pthread_mutex_unlock(&a->lock);
    a->finished = true;
}

static void read_reports(struct agent *a)
{
    struct agent_report report;
    ssize_t n;

    while (!a->finished) {
        n = recv(a->socket, &report, sizeof report, MSG_DONTWAIT);
        /* A supervisor that exits with an order unread (a lease) resets the socket, and the kernel tells that before it hands out the
         * report that is queued: the error is gone with the telling, so ask again (net/core/datagram.c, unix_release_sock). */
        if (n < 0 && (errno == EINTR || errno == ECONNRESET))
            continue;
        if (n < 0 && errno == EAGAIN)
            return;
        if (n != (ssize_t)sizeof report)
            on_lost(a);
        else if (report.finished)
            on_finished(a, &report);
        else
            a->shell = report.shell;
    }
}

/* How long poll may sleep: until the caller's time is up, or a cancelled supervisor counts as stuck. */
static int poll_time(struct agent *a, int64_t end, bool *ret_stuck)
{
    int64_t now = clock_mono_ms();
    int64_t at = end;

    pthread_mutex_lock(&a->lock);
    if (a->stuck_at && a->stuck_at < at)
        at = a->stuck_at;
    *ret_stuck = a->stuck_at && a->stuck_at <= now;
    pthread_mutex_unlock(&a->lock);
    if (at <= now)
        return 0;
    return at - now > 1000 ? 1000 : (int)(at - now); /* agent_cancel may come meanwhile */
}

int agent_wait(struct agent *a, int timeout_ms, agent_output_fn *on_output, void *ctx, struct agent_exit *ret)
{
    int64_t end = timeout_ms < 0 ? INT64_MAX : clock_mono_ms() + timeout_ms;
    struct pollfd fds[2];
    bool stuck;
    int ms;

    while (!a->finished) {
        ms = poll_time(a, end, &stuck);
        fds[0] = (struct pollfd){.fd = a->socket, .events = POLLIN};
        fds[1] = (struct pollfd){.fd = a->output, .events = POLLIN};
        poll(fds, 2, ms);
        if (fds[1].revents)
            read_output(a, on_output, ctx);
        if (fds[0].revents)
            read_reports(a);
        else if (stuck)
            on_lost(a);
        else if (clock_mono_ms() >= end)
            return -ETIMEDOUT;
    }
    drain_output(a, on_output, ctx);
    *ret = a->exit;
    return 0;
}

void agent_free(struct agent *a)
{
    struct agent_exit ignored;

    if (!a)
        return;
    if (!a->finished) {
        agent_cancel(a);
        agent_wait(a, -1, NULL, NULL, &ignored);
    }
    close(a->socket);
    cleanup_fd_p(&a->output);
    pthread_mutex_destroy(&a->lock);
    free(a);
}
