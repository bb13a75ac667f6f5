/* The supervisor: runs the command in a process group of its own and ends all that came of it, when it is told to, when the
 * mount dies or its lease runs out, and after the command has exited. A single thread around one poll. */
#include "agents/runner.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agents/ancestry.h"
#include "agents_i.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/secrets.h"
#include "util/text.h"

#define LOOK_MS 500           /* poll's time stands still while the machine is suspended: so soon after it wakes the lease is looked at */
#define WAKE_MS 5000          /* what the mount gets then to renew it: it beats at once, and hears whether another has taken over */
#define LEFTOVER_MS 200       /* what background processes get to end by themselves after the command has exited */
#define LEFTOVER_GRACE_MS 2000 /* their TERM to KILL; the command's answer waits for it */
#define KILL_AGAIN_MS 20
#define KILL_AGAIN_MAX_MS 500 /* what can't be killed (another uid, a hung disk) is asked less and less often */

enum phase { RUNNING, LEFTOVERS, TERMINATING, KILLING };

struct supervisor {
    enum phase phase;
    int64_t deadline; /* of the phase, clock_mono_ms */
    int64_t lease_deadline; /* clock_boot_ms */
    int64_t suspended_ms; /* how long the machine was, at the last look */
    int64_t lease_ms; /* 0 = no lease */
    int64_t grace_ms;
    int64_t kill_again_ms;
    int socket; /* -1 once the mount is gone */
    int signals;
    bool shell_gone; /* reaped */
    bool empty;      /* no child is left, and since we are the subreaper no descendant */
    struct agent_report report;
};

static bool below_us(const struct proc_stat *list, size_t n, const bool *marked, pid_t ppid)
{
    size_t low = 0;
    size_t high = n;

    while (low < high) {
        size_t mid = low + (high - low) / 2;

        if (list[mid].pid == ppid)
            return marked[mid];
        if (list[mid].pid < ppid)
            low = mid + 1;
        else
            high = mid;
    }
    return false;
}

/* Marks every descendant of `self` in `list`. */
static void mark_descendants(const struct proc_stat *list, size_t n, bool *marked, pid_t self)
{
    bool changed = true;

    while (changed) {
        changed = false;
        for (size_t i = 0; i < n; i++) {
            if (!marked[i] && (list[i].ppid == self || below_us(list, n, marked, list[i].ppid))) {
                marked[i] = true;
                changed = true;
            }
        }
    }
}

static void send_signal(pid_t target, int sig)
{
    kill(target, sig);
    if (sig == SIGTERM)
        kill(target, SIGCONT); /* a stopped process would see it only when continued */
}

/* Signals every descendant once: the command's process group at a stroke, since that can't be outrun by a fork, then whoever
 * left it. */
static void signal_all(struct supervisor *s, int sig)
{
    cleanup_free struct proc_stat *list = NULL;
    cleanup_free bool *marked = NULL;
    pid_t shell = s->report.shell;
    bool group = !s->shell_gone;
    size_t n = 0;

    if (proc_list(&list, &n) == 0)
        marked = calloc(n ? n : 1, sizeof *marked);
    if (marked)
        mark_descendants(list, n, marked, getpid());
    else
        n = 0;
    for (size_t i = 0; i < n && !group; i++)
        group = marked[i] && list[i].pgrp == shell;
    if (group)
        send_signal(-shell, sig);
    for (size_t i = 0; i < n; i++) {
        if (marked[i] && list[i].pgrp != shell && list[i].state != 'Z')
            send_signal(list[i].pid, sig);
    }
}

static void enter_phase(struct supervisor *s, enum phase phase, int64_t ms)
{
    s->phase = phase;
    s->deadline = clock_mono_ms() + ms;
}

static void terminate(struct supervisor *s, int64_t grace_ms)
{
    if (s->phase >= TERMINATING)
        return;
    signal_all(s, SIGTERM);
    enter_phase(s, TERMINATING, grace_ms);
}

/* An order from outside, as opposed to the end that follows the command's own exit. */
static void cancel(struct supervisor *s)
{
    if (!s->shell_gone && s->phase < TERMINATING)
        s->report.cancelled = true;
    terminate(s, s->grace_ms);
}

static void on_deadline(struct supervisor *s)
{
    switch (s->phase) {
    case RUNNING:
        break;
    case LEFTOVERS:
        terminate(s, s->grace_ms < LEFTOVER_GRACE_MS ? s->grace_ms : LEFTOVER_GRACE_MS);
        break;
    case TERMINATING:
    case KILLING:
        signal_all(s, SIGKILL);
        enter_phase(s, KILLING, s->kill_again_ms);
        if (s->kill_again_ms < KILL_AGAIN_MAX_MS)
            s->kill_again_ms *= 2;
        break;
    }
}

static void reap(struct supervisor *s)
{
    int status;
    pid_t pid;

    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        if (pid != s->report.shell)
            continue;
        s->shell_gone = true;
        s->report.status = status;
        if (s->phase == RUNNING)
            enter_phase(s, LEFTOVERS, LEFTOVER_MS);
    }
    s->empty = pid < 0 && errno == ECHILD;
}

static void drain_signals(struct supervisor *s)
{
    struct signalfd_siginfo si;

    while (read(s->signals, &si, sizeof si) == (ssize_t)sizeof si) {
        if (si.ssi_signo == SIGTERM || si.ssi_signo == SIGINT || si.ssi_signo == SIGHUP || si.ssi_signo == SIGQUIT)
            cancel(s);
    }
}

static void read_orders(struct supervisor *s)
{
    char order;
    ssize_t n;

    for (;;) {
        n = recv(s->socket, &order, 1, MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0) { /* the mount died */
            close(s->socket);
            s->socket = -1;
            cancel(s);
            return;
        }
        if (order == AGENT_ORDER_CANCEL)
            cancel(s);
        else if (order == AGENT_ORDER_LEASE)
            s->lease_deadline = clock_boot_ms() + s->lease_ms;
    }
}

static int next_timeout(const struct supervisor *s)
{
    int64_t lease_ms = s->lease_deadline - clock_boot_ms();
    int64_t now = clock_mono_ms();
    int64_t at = INT64_MAX;

    if (s->phase != RUNNING)
        at = s->deadline;
    if (lease_ms > LOOK_MS)
        lease_ms = LOOK_MS;
    if (s->lease_ms && s->phase < TERMINATING && now + lease_ms < at)
        at = now + lease_ms;
    if (at == INT64_MAX)
        return -1;
    if (at <= now)
        return 0;
    return at - now > INT_MAX ? INT_MAX : (int)(at - now);
}

static void send_report(struct supervisor *s)
{
    if (s->socket >= 0)
        while (send(s->socket, &s->report, sizeof s->report, MSG_NOSIGNAL) < 0 && errno == EINTR)
            ;
}

/* It runs out while the machine is suspended, too. Where the mount can have it again the agent goes on: a laptop's lid is no end. */
static bool lease_is_over(struct supervisor *s)
{
    int64_t now = clock_boot_ms();
    int64_t suspended = now - clock_mono_ms();

    if (suspended > s->suspended_ms + LOOK_MS && s->lease_deadline < now + WAKE_MS)
        s->lease_deadline = now + WAKE_MS;
    s->suspended_ms = suspended;
    return s->lease_ms && s->phase < TERMINATING && now >= s->lease_deadline;
}

static void supervise(struct supervisor *s)
{
    struct pollfd fds[2];
    int64_t now;

    for (;;) {
        reap(s);
        if (s->empty)
            return;
        fds[0] = (struct pollfd){.fd = s->socket, .events = POLLIN};
        fds[1] = (struct pollfd){.fd = s->signals, .events = POLLIN};
        poll(fds, 2, next_timeout(s));
        if (s->socket >= 0)
            read_orders(s);
        drain_signals(s);
        if (lease_is_over(s)) {
            s->report.lease_lost = !s->shell_gone;
            cancel(s);
        }
        now = clock_mono_ms();
        if (s->phase != RUNNING && now >= s->deadline)
            on_deadline(s);
    }
}

/* A mount that the OOM killer is told to spare (systemd units of file systems are) must not make its agents immune. */
static void reset_oom_score(void)
{
    cleanup_fd int fd = open("/proc/self/oom_score_adj", O_RDWR | O_CLOEXEC);
    char text[16] = "";

    if (fd >= 0 && read(fd, text, sizeof text - 1) > 0 && text[0] == '-' && pwrite(fd, "0", 1, 0) != 1)
        fprintf(stderr, "checkpointfs-agent: can't reset oom_score_adj\n");
}

__attribute__((noreturn)) static void run_shell(const char *command, pid_t supervisor)
{
    sigset_t none;

    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != supervisor)
        _exit(AGENT_NOTHING_DONE);
    reset_oom_score();
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execl("/bin/sh", "sh", "-c", command, (char *)NULL);
    fprintf(stderr, "checkpointfs-agent: /bin/sh: %s\n", strerror(errno));
    _exit(AGENT_NOTHING_DONE);
}

/* Gives up the agent's output, so that its end shows when the agent's processes are gone. */
static void leave_output(void)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);

    if (null < 0)
        return;
    dup2(null, STDOUT_FILENO);
    dup2(null, STDERR_FILENO);
    close(null);
}

static int start_shell(struct supervisor *s, const char *command)
{
    pid_t self = getpid();
    sigset_t all;

    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    s->signals = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
    if (s->signals < 0)
        return -errno;
    s->report.shell = fork(); /* the only thread */
    if (s->report.shell < 0)
        return -errno;
    if (s->report.shell == 0)
        run_shell(command, self);
    setpgid(s->report.shell, s->report.shell);
    return 0;
}

bool agent_is_supervisor_name(const char *argv0)
{
    const char *slash = argv0 ? strrchr(argv0, '/') : NULL;

    return argv0 && strcmp(slash ? slash + 1 : argv0, "checkpointfs-agent") == 0;
}

/* A copy of the argument, which would be in every process list for as long as the agent runs. */
static char *hidden(char *arg)
{
    char *copy = strdup(arg);

    memset(arg, '*', strlen(arg));
    return copy;
}

/* Arguments: grace in ms, lease in ms, the command. */
int agent_supervisor_main(int argc, char **argv)
{
    struct supervisor s = {.socket = AGENT_SOCKET_FD, .kill_again_ms = KILL_AGAIN_MS};
    cleanup_free char *command = NULL;
    int r;

    if (argc != 4 || fcntl(AGENT_SOCKET_FD, F_SETFD, FD_CLOEXEC) < 0) {
        fprintf(stderr, "checkpointfs-agent is started by a mount, not by hand\n");
        return 2;
    }
    s.grace_ms = strtoll(argv[1], NULL, 10);
    s.lease_ms = strtoll(argv[2], NULL, 10);
    s.lease_deadline = clock_boot_ms() + s.lease_ms;
    s.suspended_ms = clock_boot_ms() - clock_mono_ms();
    prctl(PR_SET_NAME, AGENT_SUPERVISOR_COMM);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    command = secrets_named(argv[3]) ? hidden(argv[3]) : str_dup(argv[3]);
    r = command ? start_shell(&s, command) : -ENOMEM;
    if (r) {
        fprintf(stderr, "checkpointfs-agent: can't start the command: %s\n", strerror(-r));
        s.report.status = W_EXITCODE(AGENT_NOTHING_DONE, 0);
    } else {
        leave_output();
        send_report(&s);
        supervise(&s);
    }
    s.report.finished = true;
    send_report(&s);
    return 0;
}
