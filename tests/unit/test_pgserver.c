/* A private server from nothing to its end, and what a killed one leaves behind. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <libpq-fe.h>

#include "pgserver/pgserver.h"
#include "util/cleanup.h"
#include "util/text.h"

static char base[64];
static struct pgserver pg;

static int setup(void **state)
{
    (void)state;
    strcpy(base, "/tmp/pgt-XXXXXX");
    assert_non_null(mkdtemp(base));
    assert_int_equal(chmod(base, 0755), 0);
    cleanup_err struct err e = {0};
    int r = pgserver_find(0, &pg, &e);
    if (r < 0)
        fail_msg("%s", err_text(&e));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    pgserver_clear(&pg);
    cleanup_free char *command = str_format("rm -rf '%s'", base);
    return system(command);
}

static void finds_what_is_installed(void **state)
{
    (void)state;
    assert_in_range(pg.major, PGSERVER_OLDEST, PGSERVER_NEWEST);
    struct pgserver same = {0};
    assert_int_equal(pgserver_find(pg.major, &same, NULL), 0);
    assert_int_equal(same.major, pg.major);
    pgserver_clear(&same);
    cleanup_err struct err e = {0};
    assert_int_equal(pgserver_find(13, &same, &e), -ENOENT);
    assert_non_null(strstr(err_text(&e), "postgresql-13"));
}

static void names_the_parent_in_the_way(void **state)
{
    (void)state;
    if (!pg.drop)
        return;
    cleanup_free char *closed = str_format("%s/closed", base);
    cleanup_free char *inside = str_format("%s/closed/data", base);
    assert_int_equal(mkdir(closed, 0700), 0);
    cleanup_err struct err e = {0};
    struct pgserver_cluster c = {.datadir = inside, .superuser = "boss", .password = "pw"};
    assert_int_equal(pgserver_initdb(&pg, &c, &e), -EACCES);
    cleanup_free char *words = str_format("can't enter %s:", closed);
    assert_non_null(strstr(err_text(&e), words));
}

static void connects(int port, const char *password, ConnStatusType wanted)
{
    cleanup_free char *conninfo = str_format("host=127.0.0.1 port=%d dbname=postgres user=boss password=%s", port, password);
    PGconn *conn = PQconnectdb(conninfo);
    assert_int_equal(PQstatus(conn), wanted);
    PQfinish(conn);
}

static void starts_stops_and_recovers(void **state)
{
    (void)state;
    cleanup_free char *data = str_format("%s/data", base);
    cleanup_free char *log = str_format("%s/log", base);
    cleanup_err struct err e = {0};
    struct pgserver_cluster c = {.datadir = data, .superuser = "boss", .password = "right", .wal_segment_mb = 1};
    if (pgserver_initdb(&pg, &c, &e) < 0)
        fail_msg("%s", err_text(&e));
    int port = 0;
    assert_int_equal(pgserver_free_port("127.0.0.1", NULL, 0, &port, NULL), 0);
    const char *settings[] = {"shared_buffers=16MB", NULL};
    struct pgserver_start s = {.datadir = data, .listen = "127.0.0.1", .port = port, .log_file = log, .settings = settings};
    pid_t pid = 0;
    if (pgserver_start(&pg, &s, &pid, &e) < 0)
        fail_msg("%s", err_text(&e));
    assert_int_equal(getsid(pid), pid);
    connects(port, "right", CONNECTION_OK);
    connects(port, "wrong", CONNECTION_BAD);
    pid_t second;
    assert_int_equal(pgserver_start(&pg, &s, &second, &e), -EBUSY);

    struct pgserver_status status;
    assert_int_equal(pgserver_status(data, &status), 0);
    assert_int_equal(status.pid, pid);
    assert_int_equal(status.port, port);
    assert_true(status.ready);

    assert_int_equal(kill(pid, SIGKILL), 0);
    for (int i = 0; i < 60000 && pgserver_alive(pid); i++)
        usleep(1000);
    assert_int_equal(pgserver_status(data, &status), 0);
    assert_int_equal(status.pid, 0);
    if (pgserver_start(&pg, &s, &pid, &e) < 0)
        fail_msg("%s", err_text(&e));
    connects(port, "right", CONNECTION_OK);
    assert_int_equal(pgserver_stop(pid, 0), 0);
    assert_false(pgserver_alive(pid));
    assert_int_equal(pgserver_stop(pid, 0), 0);
}

static void write_file(const char *name, const char *mode, const char *content)
{
    cleanup_free char *path = str_format("%s/%s", base, name);
    FILE *f = fopen(path, mode);
    assert_non_null(f);
    assert_int_not_equal(fputs(content, f), EOF);
    assert_int_equal(fclose(f), 0);
}

/* Longer than the time for a start. The recovery from an archive that brings nothing stands for one after a crash: it takes as long as
 * the command for it. */
static void a_recovery_is_waited_for(void **state)
{
    (void)state;
    cleanup_free char *data = str_format("%s/data-slow", base);
    cleanup_free char *log = str_format("%s/log-slow", base);
    cleanup_err struct err e = {0};
    struct pgserver_cluster c = {.datadir = data, .superuser = "boss", .password = "right", .wal_segment_mb = 1};
    int port = 0;
    pid_t pid = 0;
    if (pgserver_initdb(&pg, &c, &e) < 0)
        fail_msg("%s", err_text(&e));
    write_file("data-slow/postgresql.conf", "a",
               "hot_standby = off\nrestore_command = 'test -e slept || { touch slept; sleep 8; }; false'\n");
    write_file("data-slow/recovery.signal", "w", "");
    assert_int_equal(pgserver_free_port("127.0.0.1", NULL, 0, &port, NULL), 0);
    struct pgserver_start s = {.datadir = data, .listen = "127.0.0.1", .port = port, .log_file = log, .timeout_ms = 3000, .patient = true};
    if (pgserver_start(&pg, &s, &pid, &e) < 0)
        fail_msg("%s", err_text(&e));
    connects(port, "right", CONNECTION_OK);
    assert_int_equal(pgserver_stop(pid, 0), 0);
}

/* A child that starts the server, says its pid, and never reaps it, as PID 1 of a container may be. */
static pid_t start_unreaped(const struct pgserver_start *s, pid_t *ret_server)
{
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    pid_t child = fork();
    if (child == 0) {
        pid_t pid;
        cleanup_err struct err e = {0};
        if (pgserver_start(&pg, s, &pid, &e) < 0 || write(fds[1], &pid, sizeof(pid)) != sizeof(pid))
            _exit(1);
        for (;;)
            pause();
    }
    assert_true(child > 0);
    close(fds[1]);
    assert_int_equal(read(fds[0], ret_server, sizeof(*ret_server)), sizeof(*ret_server));
    close(fds[0]);
    return child;
}

/* The lock of its socket names a process that is there still, by its number at least. */
static void a_killed_one_that_nobody_reaps_is_in_nobodys_way(void **state)
{
    (void)state;
    cleanup_free char *data = str_format("%s/data", base);
    cleanup_free char *log = str_format("%s/log3", base);
    cleanup_free char *sockets = str_format("%s/sockets", base);
    cleanup_err struct err e = {0};
    if (pgserver_mkdir(&pg, sockets, &e) < 0)
        fail_msg("%s", err_text(&e));
    cleanup_free char *other = str_format("%s-copy", data); /* of another server, that wants the same socket */
    cleanup_free char *copy = str_format("cp -a '%s' '%s'", data, other);
    assert_int_equal(system(copy), 0);
    struct pgserver_start s = {.datadir = data, .listen = "", .port = 5432, .socket_dir = sockets, .log_file = log};
    pid_t killed = 0, pid = 0;
    pid_t child = start_unreaped(&s, &killed);
    assert_int_equal(kill(killed, SIGKILL), 0);
    for (int i = 0; i < 60000 && pgserver_alive(killed); i++)
        usleep(1000);
    assert_int_equal(kill(killed, 0), 0);
    int r = pgserver_start(&pg, &s, &pid, &e);
    kill(child, SIGKILL);
    assert_int_equal(waitpid(child, NULL, 0), child);
    if (r < 0)
        fail_msg("%s", err_text(&e));
    s.datadir = other;
    assert_int_equal(pgserver_start(&pg, &s, &killed, &e), -EIO);
    assert_non_null(strstr(err_text(&e), ".lock"));
    assert_int_equal(pgserver_stop(pid, 0), 0);
}

static void a_taken_port_is_said(void **state)
{
    (void)state;
    cleanup_free char *log = str_format("%s/log2", base);
    cleanup_free char *data = str_format("%s/data", base);
    cleanup_free char *copy = str_format("cp -a '%s' '%s-2'", data, data);
    assert_int_equal(system(copy), 0);
    cleanup_free char *data2 = str_format("%s-2", data);
    cleanup_err struct err e = {0};
    int port = 0;
    pid_t a = 0, b = 0;
    assert_int_equal(pgserver_free_port("127.0.0.1", NULL, 0, &port, NULL), 0);
    struct pgserver_start s = {.datadir = data, .listen = "127.0.0.1", .port = port, .log_file = log};
    assert_int_equal(pgserver_start(&pg, &s, &a, &e), 0);
    s.datadir = data2;
    assert_int_equal(pgserver_start(&pg, &s, &b, &e), -EADDRINUSE);
    assert_int_equal(pgserver_end_all(data), 0);
    assert_false(pgserver_alive(a));
    char longdir[128];
    memset(longdir, 'x', sizeof(longdir));
    longdir[0] = '/';
    longdir[sizeof(longdir) - 1] = '\0';
    s.socket_dir = longdir;
    assert_int_equal(pgserver_start(&pg, &s, &b, &e), -ENAMETOOLONG);
}

static void ports_lie_outside_the_outgoing_range(void **state)
{
    (void)state;
    int low = 0, high = 0;
    FILE *f = fopen("/proc/sys/net/ipv4/ip_local_port_range", "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%d %d", &low, &high), 2);
    fclose(f);
    for (int i = 0; i < 50; i++) {
        int port = 0;
        assert_int_equal(pgserver_free_port("127.0.0.1", NULL, 0, &port, NULL), 0);
        assert_true(port < low || port > high);
        int other = port;
        assert_int_equal(pgserver_free_port("127.0.0.1", &port, 1, &other, NULL), 0);
        assert_int_not_equal(port, other);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_what_is_installed),     cmocka_unit_test(names_the_parent_in_the_way),
        cmocka_unit_test(starts_stops_and_recovers),   cmocka_unit_test(a_recovery_is_waited_for),
        cmocka_unit_test(a_killed_one_that_nobody_reaps_is_in_nobodys_way),
        cmocka_unit_test(a_taken_port_is_said),        cmocka_unit_test(ports_lie_outside_the_outgoing_range),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
