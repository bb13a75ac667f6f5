/* fork and exec as the user that runs the servers.
 * The process may have threads, so everything between fork and exec is a plain system call. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pgserver_i.h"
#include "util/cleanup.h"
#include "util/text.h"

#ifndef CLOSE_RANGE_CLOEXEC
#define CLOSE_RANGE_CLOEXEC (1U << 2)
#endif

/* glibc's set*id functions signal every thread of the process, which the child no longer has; the bare calls don't. */
static int drop_privileges(const struct pgserver *pg)
{
    if (!pg->drop)
        return 0;
    if (syscall(SYS_setgroups, 1, &pg->gid) < 0 || syscall(SYS_setresgid, pg->gid, pg->gid, pg->gid) < 0 ||
        syscall(SYS_setresuid, pg->uid, pg->uid, pg->uid) < 0)
        return -errno;
    return 0;
}

static void default_signals(void)
{
    struct sigaction sa = {.sa_handler = SIG_DFL};
    for (int sig = 1; sig < NSIG; sig++)
        sigaction(sig, &sa, NULL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static void close_on_exec_from(int first)
{
    if (syscall(SYS_close_range, (unsigned)first, ~0U, CLOSE_RANGE_CLOEXEC) == 0)
        return;
    for (int fd = first; fd < 4096; fd++)
        fcntl(fd, F_SETFD, FD_CLOEXEC);
}

static void report(int fd, int error)
{
    ssize_t n = write(fd, &error, sizeof(error));
    (void)n;
}

struct child {
    const struct pgserver *pg;
    const struct pgserver_spawn *spawn;
    char *const *argv;
    char *const *envp;
    int null_fd;
    int error_fd;
    pid_t parent;
};

static _Noreturn void run_child(const struct child *c)
{
    default_signals();
    if (c->spawn->session)
        setsid();
    umask(077);
    if (dup2(c->null_fd, 0) < 0 || dup2(c->spawn->output, 1) < 0 || dup2(c->spawn->output, 2) < 0)
        goto fail;
    close_on_exec_from(3);
    int r = drop_privileges(c->pg);
    if (r < 0) {
        report(c->error_fd, -r);
        _exit(127);
    }
    if (chdir("/") < 0)
        goto fail;
    /* After the change of user, which clears it. The parent may have ended already. */
    if (c->spawn->dies_with_parent && (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != c->parent))
        _exit(127);
    execve(c->spawn->program, c->argv, c->envp);
fail:
    report(c->error_fd, errno);
    _exit(127);
}

/* A pipe whose ends aren't among 0, 1 and 2, which the child replaces. */
static int open_pipe(int fds[2])
{
    if (pipe2(fds, O_CLOEXEC) < 0)
        return -errno;
    return 0;
}

static int read_error(int fd)
{
    int error = 0;
    ssize_t n;
    do
        n = read(fd, &error, sizeof(error));
    while (n < 0 && errno == EINTR);
    return n == (ssize_t)sizeof(error) ? -error : 0;
}

static pid_t fork_quietly(const struct child *c)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    pid_t pid = fork();
    if (pid == 0)
        run_child(c);
    int saved = errno;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    errno = saved;
    return pid;
}

int pgserver_spawn(const struct pgserver *pg, const struct pgserver_spawn *spawn, pid_t *ret_pid)
{
    cleanup_fd int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null_fd < 0)
        return -errno;
    cleanup_free char *path = str_format("PATH=%s:/usr/local/bin:/usr/bin:/bin", pg->bindir ? pg->bindir : "/usr/bin");
    if (!path)
        return -ENOMEM;
    char lang[] = "LC_ALL=C", home[] = "HOME=/";
    char *envp[] = {path, lang, home, NULL};
    int fds[2];
    int r = open_pipe(fds);
    if (r < 0)
        return r;
    cleanup_fd int from_child = fds[0];
    struct child c = {.pg = pg,
                      .spawn = spawn,
                      .argv = (char *const *)(uintptr_t)spawn->argv,
                      .envp = envp,
                      .null_fd = null_fd,
                      .error_fd = fds[1], .parent = getpid()};
    pid_t pid = fork_quietly(&c);
    int saved = errno;
    close(fds[1]);
    if (pid < 0)
        return -saved;
    r = read_error(from_child);
    if (r < 0) {
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
            ;
        return r;
    }
    *ret_pid = pid;
    return 0;
}

int pgserver_as_user(const struct pgserver *pg, int (*check)(void *arg), void *arg)
{
    if (!pg->drop)
        return check(arg);
    int fds[2];
    int r = open_pipe(fds);
    if (r < 0)
        return r;
    cleanup_fd int from_child = fds[0];
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    pid_t pid = fork();
    if (pid == 0) {
        int result = drop_privileges(pg);
        if (result == 0)
            result = check(arg);
        report(fds[1], result);
        _exit(0);
    }
    int saved = errno;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    close(fds[1]);
    if (pid < 0)
        return -saved;
    int result = -EIO;
    ssize_t n;
    do
        n = read(from_child, &result, sizeof(result));
    while (n < 0 && errno == EINTR);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
    return n == (ssize_t)sizeof(result) ? result : -EIO;
}

char *pgserver_last_line(const char *text)
{
    size_t end = strlen(text);
    while (end > 0 && (text[end - 1] == '\n' || text[end - 1] == '\r' || text[end - 1] == ' '))
        end--;
    size_t start = end;
    while (start > 0 && text[start - 1] != '\n')
        start--;
    return end > start ? strndup(text + start, end - start) : NULL;
}

/* The line that says why: the first with an error in it, since what follows is the tidying up; else the last. */
static char *cause(char *text)
{
    static const char *const words[] = {"FATAL:", "PANIC:", "error:"};
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        char *found = strstr(text, words[i]);
        if (found) {
            found[strcspn(found, "\n")] = '\0';
            return strdup(found);
        }
    }
    return pgserver_last_line(text);
}

static int collect(int fd, struct buf *out)
{
    for (;;) {
        char *room = buf_room(out, 4096);
        if (!room)
            return -ENOMEM;
        ssize_t n = read(fd, room, 4096);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            return 0;
        buf_grown(out, (size_t)n);
    }
}

int pgserver_run(const struct pgserver *pg, const char *const argv[], struct buf *ret_output, struct err *err)
{
    cleanup_free char *program = strchr(argv[0], '/') ? strdup(argv[0]) : str_format("%s/%s", pg->bindir, argv[0]);
    int fds[2];
    int r = program ? open_pipe(fds) : -ENOMEM;
    if (r < 0)
        return err_set(err, -r, "%s: %s", argv[0], strerror(-r));
    cleanup_fd int from_child = fds[0];
    struct pgserver_spawn spawn = {.program = program, .argv = argv, .output = fds[1], .session = true, .dies_with_parent = true};
    pid_t pid;
    r = pgserver_spawn(pg, &spawn, &pid);
    close(fds[1]);
    if (r < 0)
        return err_set(err, -r, "can't run %s: %s", program, strerror(-r));
    cleanup_buf struct buf out = {0};
    r = collect(from_child, &out);
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (ret_output && out.len)
        buf_add(ret_output, out.data, out.len);
    if (r < 0)
        return err_set(err, -r, "%s: can't read its output: %s", program, strerror(-r));
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return 0;
    cleanup_free char *line = out.data ? cause(out.data) : NULL;
    return err_set(err, EIO, "%s failed: %s", program, line ? line : "no message");
}
