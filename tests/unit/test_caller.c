/* Who a caller is, and what interrupts it, asked of real processes. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "agents/caller.h"
#include "util/buf.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/text.h"

/* Starts a program whose /proc entries can be read; sleeps 1000 s unless it is ended. */
static pid_t start(const char *const argv[])
{
    int ready[2];
    char byte;
    pid_t pid;

    assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
    pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execvp("sleep", (char *const *)argv);
        _exit(127);
    }
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 0); /* closed by exec */
    close(ready[0]);
    return pid;
}

static void end(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

static void test_reads(void **state)
{
    const char *argv[] = {"sleep", "1000", NULL};
    pid_t pid = start(argv);
    struct caller c;

    (void)state;
    assert_int_equal(caller_read(pid, &c), 0);
    assert_int_equal(c.pid, pid);
    assert_int_equal(c.uid, geteuid());
    if (geteuid() == 0)
        assert_string_equal(c.user, "root");
    assert_string_equal(c.comm, "sleep");
    assert_string_equal(c.command, "sleep 1000");
    caller_clear(&c);
    end(pid);
    assert_int_equal(caller_read(pid, &c), -ESRCH);
}

/* `sleep` sums its arguments, so that 1000 and then anything it never gets to parse isn't possible: argv[0] carries the text. */
static void assert_command(const char *argv0, const char *want)
{
    const char *argv[] = {argv0, "1000", NULL};
    cleanup_buf struct buf command = {0};
    cleanup_free char *cut = NULL;
    pid_t pid = start(argv);
    struct caller c;

    assert_int_equal(caller_read(pid, &c), 0);
    buf_adds(&command, c.command);
    cut = caller_short(&command);
    assert_string_equal(cut, want);
    caller_clear(&c);
    end(pid);
}

static void test_no_passwords(void **state)
{
    (void)state;
    assert_command("psql postgresql://me:s3cret@host/db?x=1", "psql postgresql://me:***@host/db?x=1 1000");
    assert_command("x://a:b:c@d@e/f", "x://a:***@e/f 1000");
    assert_command("http://host:8080/a@b", "http://host:8080/a@b 1000");
    assert_command("psql host=x password=s3cret user=y", "psql host=x password=*** user=y 1000");
    assert_command("x --password s3cret --api-key s3cret -f y", "x --password *** --api-key *** -f y 1000");
    assert_command("env OPENAI_API_KEY=s3cret Token=s3cret x", "env OPENAI_API_KEY=*** Token=*** x 1000");
    assert_command("grep password file; my --tokens 3", "grep password file; my --tokens 3 1000");
    assert_command("u://h/?PASSWORD=s3cret&a=b", "u://h/?PASSWORD=***&a=b 1000");
}

static void test_clean_text(void **state)
{
    char longest[402];

    (void)state;
    assert_command("a\nb\x1b[1m\xff", "a b [1m\xef\xbf\xbd 1000");
    for (size_t i = 0; i < 400; i += 2)
        memcpy(longest + i, "\xc3\xa9", 2);
    longest[400] = '\0';
    {
        char want[201];

        memcpy(want, longest, 200);
        want[200] = '\0';
        assert_command(longest, want);
    }
    memmove(longest + 1, longest, 401);
    longest[0] = 'a'; /* now byte 200 is the middle of a character */
    {
        char want[201];

        memcpy(want, longest, 199);
        want[199] = '\0';
        assert_command(longest, want);
    }
}

/* A traced process has each signal reported to its tracer before it takes it, so it stays pending while stopped. */
static void assert_interruption(const int *signals, bool want)
{
    const char *argv[] = {"sleep", "1000", NULL};
    pid_t pid = start(argv);
    int status;

    assert_int_equal(ptrace(PTRACE_SEIZE, pid, NULL, NULL), 0);
    assert_int_equal(ptrace(PTRACE_INTERRUPT, pid, NULL, NULL), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    for (size_t i = 0; signals[i]; i++)
        kill(pid, signals[i]);
    assert_int_equal(caller_signal_is_interruption(pid), want);
    end(pid);
}

static void test_interruptions(void **state)
{
    (void)state;
    assert_interruption((const int[]){0}, false);
    assert_interruption((const int[]){SIGCHLD, 0}, false);
    assert_interruption((const int[]){SIGWINCH, SIGURG, SIGCHLD, 0}, false);
    assert_interruption((const int[]){SIGINT, 0}, true);
    assert_interruption((const int[]){SIGTERM, 0}, true);
    assert_interruption((const int[]){SIGUSR1, 0}, true);
    assert_interruption((const int[]){SIGALRM, SIGCHLD, 0}, true);
    assert_interruption((const int[]){SIGRTMIN, 0}, true);
}

static void test_blocked_signal_interrupts_nobody(void **state)
{
    sigset_t set;
    sigset_t old;
    struct timespec now = {0};

    (void)state;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, &old);
    kill(getpid(), SIGUSR1);
    assert_false(caller_signal_is_interruption(getpid()));
    assert_int_equal(sigtimedwait(&set, NULL, &now), SIGUSR1);
    sigprocmask(SIG_SETMASK, &old, NULL);
}

static void test_dead_caller_is_interrupted(void **state)
{
    const char *argv[] = {"sleep", "1000", NULL};
    pid_t pid = start(argv);
    siginfo_t si;

    (void)state;
    assert_false(caller_signal_is_interruption(pid));
    kill(pid, SIGKILL);
    assert_int_equal(waitid(P_PID, (id_t)pid, &si, WEXITED | WNOWAIT), 0);
    assert_true(caller_signal_is_interruption(pid)); /* a zombie */
    waitpid(pid, NULL, 0);
    assert_true(caller_signal_is_interruption(pid));
}

static void test_nobody_is_the_same_as_nobody(void **state)
{
    pid_t process, parent;

    (void)state;
    caller_ids(0, &process, &parent);
    assert_false(same_process(process, 0));
    assert_false(same_process(parent, 0));
    assert_false(same_process(-1, -1));
    assert_false(caller_same_command(process, parent));
    caller_ids(getpid(), &process, &parent);
    assert_true(same_process(process, getpid()));
    assert_true(same_process(parent, getppid()));
    assert_false(same_process(process, parent));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads),
        cmocka_unit_test(test_nobody_is_the_same_as_nobody),
        cmocka_unit_test(test_no_passwords),
        cmocka_unit_test(test_clean_text),
        cmocka_unit_test(test_interruptions),
        cmocka_unit_test(test_blocked_signal_interrupts_nobody),
        cmocka_unit_test(test_dead_caller_is_interrupted),
    };

    return cmocka_run_group_tests_name("caller", tests, NULL, NULL);
}
