/* The runner and its supervisor, with real processes: this binary acts as the supervisor, and as a mount that dies. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../fs/agents/agents_i.h"
#include "agents/ancestry.h"
#include "agents/runner.h"
#include "util/buf.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/text.h"

#define LONG_MS 60000 /* nothing takes so long unless it hangs */

static char work_dir[] = "/tmp/test-agents-XXXXXX";

static void collect(void *ctx, const char *bytes, size_t n)
{
    buf_add(ctx, bytes, n);
}

static struct agent *start(const char *command, unsigned grace_ms, unsigned lease_seconds)
{
    struct agent_spec spec = {.command = command, .cwd = work_dir, .grace_ms = grace_ms, .lease_seconds = lease_seconds};
    struct agent *a = NULL;
    struct err e = {0};

    if (agent_start(&spec, &a, &e))
        fail_msg("%s", err_text(&e));
    return a;
}

static struct agent_exit finish(struct agent *a, struct buf *out)
{
    struct agent_exit ex;

    assert_int_equal(agent_wait(a, LONG_MS, out ? collect : NULL, out, &ex), 0);
    assert_false(agent_alive(agent_id(a)));
    agent_free(a);
    return ex;
}

static struct agent_exit run(const char *command, struct buf *out)
{
    return finish(start(command, 500, 0), out);
}

/* Waits until the file in the work directory has a whole line and returns the number in it. */
static pid_t number_in(const char *name)
{
    cleanup_free char *path = str_format("%s/%s", work_dir, name);
    char text[32];

    for (int64_t end = clock_mono_ms() + LONG_MS; clock_mono_ms() < end; clock_sleep_ms(5)) {
        cleanup_fd int fd = open(path, O_RDONLY);
        ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof text - 1);

        if (n > 0 && text[n - 1] == '\n') {
            text[n] = '\0';
            unlink(path);
            return (pid_t)strtol(text, NULL, 10);
        }
    }
    fail_msg("%s never came", name);
    return 0;
}

static bool gone(pid_t pid)
{
    cleanup_free char *path = str_format("/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "r");
    char state = 'X';

    if (!f)
        return true;
    if (fscanf(f, "%*d (%*[^)]) %c", &state) != 1)
        state = 'X';
    fclose(f);
    return state == 'Z' || state == 'X';
}

static bool gone_soon(pid_t pid)
{
    for (int64_t end = clock_mono_ms() + LONG_MS; clock_mono_ms() < end; clock_sleep_ms(5))
        if (gone(pid))
            return true;
    return false;
}

/* ---- how it ends ---- */

static void test_exit_codes(void **state)
{
    static const struct {
        const char *command;
        int code;
    } cases[] = {{"true", 0}, {"exit 10", 10}, {"exit 75", 75}, {"no-such-command-at-all 2>/dev/null", 127}, {"exit 255", 255}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct agent_exit ex = run(cases[i].command, NULL);

        assert_int_equal(ex.kind, AGENT_EXITED);
        assert_int_equal(ex.code, cases[i].code);
        assert_false(ex.cancelled);
    }
}

static void test_signal(void **state)
{
    struct agent_exit ex = run("kill -SEGV $$", NULL);

    (void)state;
    assert_int_equal(ex.kind, AGENT_SIGNALED);
    assert_int_equal(ex.code, SIGSEGV);
    assert_false(ex.cancelled);
}

static void test_output_in_order(void **state)
{
    cleanup_buf struct buf out = {0};
    struct agent_exit ex = run("echo one; echo two >&2; echo three; cat; pwd", &out);
    cleanup_free char *want = str_format("one\ntwo\nthree\n%s\n", work_dir);

    (void)state;
    assert_int_equal(ex.code, 0);
    assert_string_equal(out.data, want);
}

static void test_big_output(void **state)
{
    cleanup_buf struct buf out = {0};
    struct agent_exit ex = run("head -c 3000000 /dev/zero | tr '\\0' x; printf END", &out);

    (void)state;
    assert_int_equal(ex.code, 0);
    assert_int_equal(out.len, 3000003);
    assert_string_equal(out.data + 3000000, "END");
}

static void test_wait_is_patient_and_repeatable(void **state)
{
    struct agent *a = start("read x <fifo; exit 3", 500, 0);
    cleanup_free char *fifo = str_format("%s/fifo", work_dir);
    struct agent_exit ex;

    (void)state;
    assert_int_equal(mkfifo(fifo, 0600) == 0 || errno == EEXIST, 1);
    agent_free(a);
    a = start("read x <fifo; exit 3", 500, 0);
    assert_int_equal(agent_wait(a, 50, NULL, NULL, &ex), -ETIMEDOUT);
    {
        cleanup_fd int fd = open(fifo, O_WRONLY);

        assert_int_equal(write(fd, "go\n", 3), 3);
    }
    assert_int_equal(agent_wait(a, LONG_MS, NULL, NULL, &ex), 0);
    assert_int_equal(ex.code, 3);
    ex.code = 99;
    assert_int_equal(agent_wait(a, 0, NULL, NULL, &ex), 0);
    assert_int_equal(ex.code, 3);
    agent_cancel(a); /* too late, and harmless */
    agent_lease(a);
    agent_free(a);
}

/* ---- what it is started with ---- */

static void test_environment(void **state)
{
    static const char *const set[] = {"DATABASE_URL=postgresql://x", "PGAPPNAME=kept", NULL};
    static const char *const unset[] = {"NEON_API_KEY", "PG*", NULL};
    struct agent_spec spec = {
        .command = "echo \"$DATABASE_URL,${NEON_API_KEY-none},${PGPASSWORD-none},$PGAPPNAME,$NEON_API_KEY_ID,\""
                   "${#CHECKPOINTFS_AGENT}",
        .cwd = "/", .set_env = set, .unset_env = unset,
    };
    cleanup_buf struct buf out = {0};
    struct agent *a;

    (void)state;
    setenv("NEON_API_KEY", "secret", 1);
    setenv("NEON_API_KEY_ID", "other", 1);
    setenv("PGPASSWORD", "secret", 1);
    setenv("DATABASE_URL", "postgresql://mount", 1);
    assert_int_equal(agent_start(&spec, &a, NULL), 0);
    assert_int_equal(finish(a, &out).code, 0);
    assert_string_equal(out.data, "postgresql://x,none,none,kept,other,32\n");
    unsetenv("NEON_API_KEY");
    unsetenv("PGPASSWORD");
}

static void test_clean_process_state(void **state)
{
    cleanup_buf struct buf out = {0};
    cleanup_fd int leak = open("/dev/null", O_RDONLY); /* without O_CLOEXEC */
    unsigned long long blocked;
    unsigned long long ignored;
    int descriptors;
    char input[32];
    sigset_t block;
    sigset_t old;
    struct agent *a;

    (void)state;
    assert_true(leak >= 0);
    sigfillset(&block);
    pthread_sigmask(SIG_SETMASK, &block, &old);
    signal(SIGPIPE, SIG_IGN);
    a = start("sed -n 's/^Sig\\(Blk\\|Ign\\)://p' /proc/self/status; ls /proc/self/fd | wc -l; readlink /proc/self/fd/0", 500, 0);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    signal(SIGPIPE, SIG_DFL);
    assert_int_equal(finish(a, &out).code, 0);
    assert_int_equal(sscanf(out.data, "%llx %llx %d %31s", &blocked, &ignored, &descriptors, input), 4);
    assert_int_equal(blocked, 0);
    assert_int_equal(ignored & 0x7fffffff, 0); /* 1 to 31; glibc's spawn keeps its two internal signals ignored */
    assert_int_equal(descriptors, 4);          /* 0, 1, 2 and the one ls reads the directory with */
    assert_string_equal(input, "/dev/null");
}

static void test_given_id(void **state)
{
    static const char command[] = "echo $CHECKPOINTFS_AGENT; echo $$ >pid; exec sleep 1000";
    struct agent_spec spec = {.id = "act-1", .command = command, .cwd = work_dir};
    cleanup_buf struct buf out = {0};
    struct agent *a;

    (void)state;
    assert_int_equal(agent_start(&spec, &a, NULL), 0);
    assert_string_equal(agent_id(a), "act-1");
    number_in("pid");
    assert_true(agent_alive("act-1"));
    assert_false(agent_alive("act-"));
    assert_false(agent_alive("act-11"));
    agent_cancel(a);
    finish(a, &out);
    assert_string_equal(out.data, "act-1\n");
}

static void test_start_errors(void **state)
{
    struct agent_spec spec = {.id = "", .command = "true", .cwd = "/no/such/dir"};
    cleanup_err struct err e = {0};
    struct agent *a = NULL;

    assert_int_equal(agent_start(&spec, &a, &e), -EINVAL);
    spec.id = NULL;

    (void)state;
    assert_int_equal(agent_start(&spec, &a, &e), -ENOENT);
    assert_non_null(strstr(err_text(&e), "/no/such/dir"));
    spec.cwd = "/";
    spec.self_exe = "/no/such/binary";
    assert_int_equal(agent_start(&spec, &a, &e), -ENOENT);
    assert_non_null(strstr(err_text(&e), "/no/such/binary"));
    assert_null(a);
}

/* ---- cancel, leftovers, lease ---- */

static void test_cancel_by_term(void **state)
{
    cleanup_buf struct buf out = {0};
    struct agent *a = start("trap 'echo bye; exit 7' TERM; echo $$ >pid; while :; do sleep 0.05; done", 10000, 0);
    struct agent_exit ex;

    (void)state;
    number_in("pid");
    agent_cancel(a);
    ex = finish(a, &out);
    assert_int_equal(ex.kind, AGENT_EXITED);
    assert_int_equal(ex.code, 7);
    assert_true(ex.cancelled);
    assert_non_null(strstr(out.data, "bye\n"));
}

static void *cancel_later(void *a)
{
    number_in("pid");
    agent_lease(a);
    agent_cancel(a);
    return NULL;
}

static void test_cancel_from_another_thread(void **state)
{
    struct agent *a = start("echo $$ >pid; exec sleep 1000", 10000, 0);
    struct agent_exit ex;
    pthread_t thread;

    (void)state;
    assert_int_equal(pthread_create(&thread, NULL, cancel_later, a), 0);
    assert_int_equal(agent_wait(a, -1, NULL, NULL, &ex), 0);
    pthread_join(thread, NULL);
    assert_int_equal(ex.code, SIGTERM);
    assert_true(ex.cancelled);
    agent_free(a);
}

static void test_cancel_by_kill(void **state)
{
    struct agent *a = start("trap '' TERM; (setsid sh -c 'echo $$ >deep; exec sleep 1000') & echo $$ >pid; sleep 1000", 200, 0);
    pid_t shell = number_in("pid");
    pid_t deep = number_in("deep");
    struct agent_exit ex;

    (void)state;
    agent_cancel(a);
    agent_cancel(a);
    ex = finish(a, NULL);
    assert_int_equal(ex.kind, AGENT_SIGNALED);
    assert_int_equal(ex.code, SIGKILL);
    assert_true(ex.cancelled);
    assert_true(gone(shell));
    assert_true(gone(deep));
}

static void test_cancel_wakes_the_stopped(void **state)
{
    struct agent *a = start("echo $$ >pid; kill -STOP $$", 10000, 0);
    struct agent_exit ex;

    (void)state;
    number_in("pid");
    agent_cancel(a);
    ex = finish(a, NULL);
    assert_int_equal(ex.kind, AGENT_SIGNALED);
    assert_int_equal(ex.code, SIGTERM);
}

static void test_leftovers_end(void **state)
{
    cleanup_buf struct buf out = {0};
    struct agent_exit ex;
    pid_t daemon_pid;

    (void)state;
    ex = run("sleep 1000 & (setsid sh -c 'trap \"\" TERM; echo $$ >pid; while :; do sleep 1; done' >/dev/null 2>&1 &) ;"
             " while [ ! -s pid ]; do sleep 0.01; done; echo done; exit 5", &out);
    daemon_pid = number_in("pid");
    assert_int_equal(ex.kind, AGENT_EXITED);
    assert_int_equal(ex.code, 5);
    assert_false(ex.cancelled);
    assert_string_equal(out.data, "done\n");
    assert_true(gone(daemon_pid));
}

static void test_short_leftover_may_finish(void **state)
{
    (void)state;
    for (int i = 0;; i++) { /* it has 200 ms, of which a busy machine may take some, but not each time */
        cleanup_buf struct buf out = {0};
        struct agent_exit ex = run("(sleep 0.05; echo late) & echo early", &out);

        assert_int_equal(ex.code, 0);
        if (str_equal(out.data, "early\nlate\n"))
            return;
        assert_string_equal(out.data, "early\n");
        assert_true(i < 50);
    }
}

/* Keeps it alive for longer than its lease. False where that was over meanwhile, as the machine was busy. */
static bool kept_alive(struct agent *a, unsigned lease_seconds)
{
    int64_t lease_ms = 1000 * (int64_t)lease_seconds;
    int64_t began = clock_mono_ms();
    int64_t told = began;

    for (int64_t now = began; now < began + lease_ms + 500;) {
        struct agent_exit ex;

        agent_lease(a);
        now = clock_mono_ms();
        if (now - told >= lease_ms)
            return false;
        told = now;
        assert_int_equal(agent_wait(a, 250, NULL, NULL, &ex), -ETIMEDOUT);
    }
    return true;
}

static void test_lease(void **state)
{
    struct agent *a = NULL;
    struct agent_exit ex;
    unsigned seconds = 1;

    (void)state;
    for (a = start("sleep 1000", 500, seconds); !kept_alive(a, seconds); a = start("sleep 1000", 500, seconds)) {
        agent_free(a);
        seconds *= 4;
        assert_true(seconds < 100);
    }
    ex = finish(a, NULL);
    assert_true(ex.lease_lost);
    assert_true(ex.cancelled);
    assert_int_equal(ex.kind, AGENT_SIGNALED);
}

#define HASTY "TEST_HASTY_SUPERVISOR=1"

/* A supervisor that reports and exits while an order is there that it hasn't read. */
static int hasty_supervisor(void)
{
    struct agent_report report = {.shell = getpid()};
    struct pollfd p = {.fd = AGENT_SOCKET_FD, .events = POLLIN};

    send(AGENT_SOCKET_FD, &report, sizeof(report), 0);
    poll(&p, 1, LONG_MS);
    report.finished = true;
    report.status = 7 << 8;
    return send(AGENT_SOCKET_FD, &report, sizeof(report), 0) < 0;
}

/* The kernel tells the mount of the order that was lost before it hands out the report: the report must count all the same. */
static void test_report_behind_a_lost_lease(void **state)
{
    static const char *const hasty[] = {HASTY, NULL};
    struct agent_spec spec = {.command = "true", .cwd = work_dir, .set_env = hasty};
    struct agent *a = NULL;
    struct agent_exit ex;
    siginfo_t info;

    (void)state;
    assert_int_equal(agent_start(&spec, &a, NULL), 0);
    agent_lease(a);
    assert_int_equal(waitid(P_PID, (id_t)agent_supervisor_pid(a), &info, WEXITED | WNOWAIT), 0);
    ex = finish(a, NULL);
    assert_int_equal(ex.kind, AGENT_EXITED);
    assert_int_equal(ex.code, 7);
}

static void test_free_ends_a_running_agent(void **state)
{
    struct agent *a = start("echo $$ >pid; exec sleep 1000", 500, 0);
    pid_t pid = number_in("pid");

    (void)state;
    agent_free(a);
    assert_true(gone(pid));
}

/* ---- deaths ---- */

/* A mount in a process of its own, killed with SIGKILL. */
static void test_mount_death(void **state)
{
    pid_t daemon_pid;
    pid_t shell;
    pid_t mount;

    (void)state;
    mount = fork();
    if (mount == 0) {
        start("(setsid sh -c 'echo $$ >daemon; exec sleep 1000' &); echo $$ >pid; sleep 1000", 500, 0);
        for (;;)
            pause();
    }
    shell = number_in("pid");
    daemon_pid = number_in("daemon");
    assert_false(gone(shell));
    kill(mount, SIGKILL);
    waitpid(mount, NULL, 0);
    assert_true(gone_soon(shell));
    assert_true(gone_soon(daemon_pid));
}

static void test_supervisor_death(void **state)
{
    struct agent *a = start("(setsid env -i sh -c 'echo $$ >daemon; exec sleep 1000' &);"
                            " sleep 1000 & echo $! >child; echo $$ >pid; wait", 500, 0);
    pid_t shell = number_in("pid");
    pid_t child = number_in("child");
    pid_t daemon_pid = number_in("daemon");
    struct agent_exit ex;

    (void)state;
    kill(agent_supervisor_pid(a), SIGKILL);
    ex = finish(a, NULL);
    assert_int_equal(ex.kind, AGENT_LOST);
    assert_false(ex.cancelled);
    assert_true(gone(shell));
    assert_true(gone(child));
    assert_true(gone(daemon_pid));
}

static void test_stopped_supervisor_is_given_up(void **state)
{
    struct agent *a = start("echo $$ >pid; exec sleep 1000", 100, 0);
    pid_t shell = number_in("pid");
    struct agent_exit ex;

    (void)state;
    kill(agent_supervisor_pid(a), SIGSTOP);
    agent_cancel(a);
    ex = finish(a, NULL);
    assert_int_equal(ex.kind, AGENT_LOST);
    assert_true(ex.cancelled);
    assert_true(gone(shell));
}

static void test_alive_and_sweep(void **state)
{
    struct agent *a = start("echo $$ >pid; exec sleep 1000", 500, 0);
    pid_t shell = number_in("pid");
    struct agent_exit ex;

    (void)state;
    assert_true(agent_alive(agent_id(a)));
    assert_false(agent_alive("00000000000000000000000000000000"));
    assert_int_equal(agent_sweep("00000000000000000000000000000000"), 0);
    assert_true(agent_sweep(agent_id(a)) >= 1);
    assert_true(gone(shell));
    ex = finish(a, NULL);
    assert_int_equal(ex.kind, AGENT_LOST);
}

/* ---- ancestry ---- */

static void test_ancestry(void **state)
{
    struct agent *a = start("sh -c 'echo $$ >child; exec sleep 1000' &"
                            " (setsid env -i sh -c 'echo $$ >daemon; exec sleep 1000' &); wait", 500, 0);
    pid_t child = number_in("child");
    pid_t daemon_pid = number_in("daemon");

    (void)state;
    assert_true(agent_is_below(child));
    assert_true(agent_is_below(daemon_pid));
    assert_true(agent_is_below(agent_supervisor_pid(a)));
    assert_false(agent_is_below(getpid()));
    assert_false(agent_is_below(getppid()));
    assert_false(agent_is_below(1));
    assert_false(agent_is_below(0));
    agent_free(a);
    assert_true(agent_is_below(child)); /* gone: nobody waits for the answer */
}

/* What a mount that is no ancestor of `pid` says. */
static bool below_for_another_mount(pid_t pid)
{
    pid_t asker = fork();
    int status;

    if (asker == 0)
        _exit(agent_is_below(pid));
    assert_int_equal(waitpid(asker, &status, 0), asker);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) <= 1);
    return WEXITSTATUS(status) == 1;
}

static pid_t only_child_of(pid_t parent)
{
    cleanup_free char *path = str_format("/proc/%d/task/%d/children", (int)parent, (int)parent);
    FILE *f = fopen(path, "r");
    pid_t child = 0;

    assert_non_null(f);
    assert_int_equal(fscanf(f, "%d", &child), 1);
    fclose(f);
    return child;
}

/* By the supervisor, and by the environment once that is dead. */
static void test_ancestry_for_another_mount(void **state)
{
    pid_t mount = fork();
    pid_t supervisor;
    pid_t daemon_pid;
    pid_t child;

    (void)state;
    if (mount == 0) {
        start("(setsid sh -c 'echo $$ >daemon; exec sleep 1000' &); env -i sh -c 'echo $$ >child; exec sleep 1000'", 60000, 0);
        for (;;)
            pause();
    }
    child = number_in("child");
    daemon_pid = number_in("daemon");
    supervisor = only_child_of(mount);
    assert_true(below_for_another_mount(child));
    assert_true(below_for_another_mount(daemon_pid));
    assert_true(below_for_another_mount(supervisor));
    assert_false(below_for_another_mount(mount));
    kill(supervisor, SIGKILL);
    assert_true(gone_soon(supervisor));
    assert_true(below_for_another_mount(daemon_pid));
    kill(daemon_pid, SIGKILL);
    kill(child, SIGKILL);
    kill(mount, SIGKILL);
    waitpid(mount, NULL, 0);
    assert_true(gone_soon(daemon_pid));
    assert_true(gone_soon(child));
}

static void test_unrelated_processes_are_not_below(void **state)
{
    char *argv[] = {(char *)"sleep", (char *)"1000", NULL};
    pid_t sleeper;

    (void)state;
    assert_int_equal(posix_spawnp(&sleeper, "sleep", NULL, NULL, argv, environ), 0);
    assert_false(below_for_another_mount(sleeper));
    assert_false(below_for_another_mount(getpid()));
    kill(sleeper, SIGKILL);
    waitpid(sleeper, NULL, 0);
}

/* ---- the check before the claim ---- */

static void test_check(void **state)
{
    cleanup_free char *script = str_format("%s/agent.sh", work_dir);
    cleanup_free char *plain = str_format("%s/notes.txt", work_dir);
    cleanup_err struct err e = {0};

    (void)state;
    close(open(script, O_CREAT | O_WRONLY, 0755));
    close(open(plain, O_CREAT | O_WRONLY, 0644));
    assert_int_equal(agent_check("ls -l", work_dir, &e), 0);
    assert_int_equal(agent_check("  A=1 B=two ls", work_dir, &e), 0);
    assert_int_equal(agent_check("./agent.sh --x", work_dir, &e), 0);
    assert_int_equal(agent_check(script, "/", &e), 0);
    assert_int_equal(agent_check("cd sub && ./later", work_dir, &e), 0);
    assert_int_equal(agent_check("exec nothing-here", work_dir, &e), 0);
    assert_int_equal(agent_check("\"$HOME/x\" y", work_dir, &e), 0);
    assert_int_equal(agent_check("(no-such; true)", work_dir, &e), 0);
    assert_int_equal(agent_check("PATH=/opt/x no-such", work_dir, &e), 0);
    assert_int_equal(agent_check("ls;no-such", work_dir, &e), 0);
    assert_int_equal(agent_check("no-such-agent --x", work_dir, &e), -ENOENT);
    assert_non_null(strstr(err_text(&e), "no-such-agent"));
    assert_int_equal(agent_check("A=1 no-such-agent|cat", work_dir, &e), -ENOENT);
    assert_int_equal(agent_check("./missing.sh", work_dir, &e), -ENOENT);
    assert_non_null(strstr(err_text(&e), work_dir));
    assert_int_equal(agent_check("./notes.txt", work_dir, &e), -EACCES);
    assert_int_equal(agent_check("/tmp", work_dir, &e), -EACCES);
    assert_int_equal(agent_check(" \t", work_dir, &e), -EINVAL);
    assert_int_equal(agent_check("./agent.sh", "/no/such/dir", &e), -ENOENT);
    unlink(script);
    unlink(plain);
}

static void test_supervisor_by_hand(void **state)
{
    char *argv[] = {(char *)"checkpointfs-agent", NULL};

    (void)state;
    assert_true(agent_is_supervisor_name("checkpointfs-agent"));
    assert_true(agent_is_supervisor_name("/usr/bin/checkpointfs-agent"));
    assert_false(agent_is_supervisor_name("checkpointfs"));
    assert_false(agent_is_supervisor_name(NULL));
    assert_int_equal(agent_supervisor_main(1, argv), 2);
}

static int make_dir(void **state)
{
    (void)state;
    return mkdtemp(work_dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    cleanup_free char *fifo = str_format("%s/fifo", work_dir);

    (void)state;
    unlink(fifo);
    return rmdir(work_dir); /* fails when a test left something */
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exit_codes),
        cmocka_unit_test(test_signal),
        cmocka_unit_test(test_output_in_order),
        cmocka_unit_test(test_big_output),
        cmocka_unit_test(test_wait_is_patient_and_repeatable),
        cmocka_unit_test(test_environment),
        cmocka_unit_test(test_clean_process_state),
        cmocka_unit_test(test_given_id),
        cmocka_unit_test(test_start_errors),
        cmocka_unit_test(test_cancel_by_term),
        cmocka_unit_test(test_cancel_from_another_thread),
        cmocka_unit_test(test_cancel_by_kill),
        cmocka_unit_test(test_cancel_wakes_the_stopped),
        cmocka_unit_test(test_leftovers_end),
        cmocka_unit_test(test_short_leftover_may_finish),
        cmocka_unit_test(test_lease),
        cmocka_unit_test(test_report_behind_a_lost_lease),
        cmocka_unit_test(test_free_ends_a_running_agent),
        cmocka_unit_test(test_mount_death),
        cmocka_unit_test(test_supervisor_death),
        cmocka_unit_test(test_stopped_supervisor_is_given_up),
        cmocka_unit_test(test_alive_and_sweep),
        cmocka_unit_test(test_ancestry),
        cmocka_unit_test(test_ancestry_for_another_mount),
        cmocka_unit_test(test_unrelated_processes_are_not_below),
        cmocka_unit_test(test_check),
        cmocka_unit_test(test_supervisor_by_hand),
    };

    if (agent_is_supervisor_name(argv[0]) && getenv("TEST_HASTY_SUPERVISOR"))
        return hasty_supervisor();
    if (agent_is_supervisor_name(argv[0]))
        return agent_supervisor_main(argc, argv);
    return cmocka_run_group_tests_name("agents", tests, make_dir, remove_dir);
}
