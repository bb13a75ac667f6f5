/* The private servers of a DIR, with a real PostgreSQL and a stand-in for neon-emulator: this binary is keeper and mounts. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>
#include <libpq-fe.h>

#include "local/local.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/text.h"

#define LONG_MS 60000 /* nothing takes so long unless it hangs */

static char root[] = "/tmp/test-local-XXXXXX";

/* What neon-emulator does for the keeper: prints its environment, ends on TERM. */
static const char emulator_script[] = "#!/bin/sh\n"
                                      "[ -z \"$NEON_API_KEY$PGHOST\" ] || exit 9\n"
                                      "[ \"$3 $4\" = '--plan free' ] || { echo 'neon-emulator: bad plan' >&2; exit 1; }\n"
                                      "trap 'rm -f $2.runs; exit 0' TERM\n"
                                      "echo $$ >$2.runs\n"
                                      "echo \"NEON_API_HOST=http://127.0.0.1:1/api/v2\n"
                                      "export NEON_API_KEY='napi_k'\n"
                                      "NEON_PROJECT_ID=p-1\n"
                                      "NEON_BRANCH_ID='br-1'\n"
                                      "DATABASE_URL=postgresql://u:p@h/d\"\n"
                                      "while :; do sleep 0.02; done\n";

static char *in_root(const char *name)
{
    char *path = str_format("%s/%s", root, name);

    assert_non_null(path);
    return path;
}

static struct local_servers *join(const struct local_config *cfg)
{
    struct local_servers *s = NULL;
    struct err e = {0};

    if (local_servers_open(cfg, &s, &e))
        fail_msg("%s", err_text(&e));
    return s;
}

static json_t *read_env(const char *dir)
{
    cleanup_free char *path = str_format("%s/env.json", dir);

    return json_load_file(path, 0, NULL);
}

static pid_t keeper_of(const char *dir)
{
    cleanup_json json_t *doc = read_env(dir);

    assert_non_null(doc);
    return (pid_t)json_integer_value(json_object_get(doc, "keeper_pid"));
}

/* The first number in a file; 0 when there is none. */
static pid_t number_in(const char *dir, const char *name)
{
    cleanup_free char *path = str_format("%s/%s", dir, name);
    FILE *f = fopen(path, "r");
    int n = 0;

    if (!f)
        return 0;
    if (fscanf(f, "%d", &n) != 1)
        n = 0;
    fclose(f);
    return n;
}

static pid_t postmaster_of(const char *dir)
{
    return number_in(dir, "store/data/postmaster.pid");
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

static char *ask(const char *conninfo, const char *sql)
{
    PGconn *c = PQconnectdb(conninfo);
    PGresult *res = PQexec(c, sql);
    char *value = NULL;

    if (PQresultStatus(res) == PGRES_TUPLES_OK && PQntuples(res) == 1)
        value = strdup(PQgetvalue(res, 0, 0));
    PQclear(res);
    PQfinish(c);
    return value;
}

static void assert_answer(const char *conninfo, const char *sql, const char *want)
{
    cleanup_free char *got = ask(conninfo, sql);

    assert_non_null(got);
    assert_string_equal(got, want);
}

static bool works_soon(const char *conninfo)
{
    for (int64_t end = clock_mono_ms() + LONG_MS; clock_mono_ms() < end; clock_sleep_ms(20)) {
        cleanup_free char *one = ask(conninfo, "select 1");

        if (one)
            return true;
    }
    return false;
}

/* A mount in a process of its own, joined when this returns. */
static pid_t mount_elsewhere(const struct local_config *cfg)
{
    int ready[2];
    char byte = 0;
    pid_t pid;

    assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
    pid = fork();
    if (pid == 0) {
        struct local_servers *s;

        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(ready[0]);
        if (local_servers_open(cfg, &s, NULL) || write(ready[1], "x", 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    return pid;
}

static void end(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

static void test_store(void **state)
{
    cleanup_free char *dir = in_root("a/deep/er");
    struct local_config cfg = {.dir = dir, .want_store = true};
    struct local_servers *s = join(&cfg);
    const struct local_env *env = local_servers_env(s);
    cleanup_free char *env_file = str_format("%s/env.json", dir);
    struct stat st;
    pid_t server = postmaster_of(dir);

    (void)state;
    assert_null(env->neon_api_host);
    assert_null(env->database_url);
    assert_answer(env->store_owner, "select current_user || ' ' || current_database()", "checkpointfs_owner checkpointfs");
    assert_answer(env->store, "select current_user || ' ' || current_database()", "checkpointfs checkpointfs");
    assert_answer(env->store_owner, "select pg_get_userbyid(datdba) from pg_database where datname = current_database()",
                  "checkpointfs_owner");
    assert_null(ask("host=/tmp dbname=checkpointfs user=checkpointfs connect_timeout=2", "select 1"));
    assert_int_equal(stat(env_file, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_false(gone(server));
    assert_int_equal(local_servers_close(s, LONG_MS), 0);
    assert_true(gone(server));
    assert_int_equal(access(env_file, F_OK), -1);
}

static void test_data_and_addresses_stay(void **state)
{
    cleanup_free char *dir = in_root("b");
    struct local_config cfg = {.dir = dir, .want_store = true};
    struct local_servers *s = join(&cfg);
    cleanup_free char *conninfo = strdup(local_servers_env(s)->store_owner);
    cleanup_free char *made = ask(conninfo, "create table t as select 42 as n; select n::text from t");

    (void)state;
    assert_string_equal(made, "42");
    assert_int_equal(local_servers_close(s, LONG_MS), 0);
    assert_null(ask(conninfo, "select 1"));
    s = join(&cfg);
    assert_string_equal(local_servers_env(s)->store_owner, conninfo);
    assert_answer(conninfo, "select n::text from t", "42");
    assert_int_equal(local_servers_close(s, LONG_MS), 0);
}

static void test_several_mounts(void **state)
{
    cleanup_free char *dir = in_root("b");
    struct local_config cfg = {.dir = dir, .want_store = true};
    struct local_servers *s = join(&cfg);
    pid_t keeper = keeper_of(dir);
    pid_t other = mount_elsewhere(&cfg);

    (void)state;
    assert_int_equal(keeper_of(dir), keeper);
    assert_int_equal(local_servers_close(s, LONG_MS), 0); /* at once: the other one goes on */
    assert_false(gone(keeper));
    assert_false(gone(postmaster_of(dir)));
    s = join(&cfg);
    end(other);
    assert_answer(local_servers_env(s)->store, "select 1", "1");
    assert_int_equal(keeper_of(dir), keeper);
    assert_int_equal(local_servers_close(s, LONG_MS), 0);
    assert_true(gone_soon(keeper));
}

static void test_killed_mount_stops_the_servers(void **state)
{
    cleanup_free char *dir = in_root("b");
    struct local_config cfg = {.dir = dir, .want_store = true};
    pid_t mount = mount_elsewhere(&cfg);
    pid_t server = postmaster_of(dir);
    struct local_servers *s;

    (void)state;
    end(mount);
    s = join(&cfg); /* while the keeper is stopping, or after */
    assert_answer(local_servers_env(s)->store, "select 1", "1");
    assert_true(gone(server) == (postmaster_of(dir) != server));
    assert_int_equal(local_servers_close(s, LONG_MS), 0);
    assert_true(gone(server));
}

static void test_two_at_once(void **state)
{
    cleanup_free char *dir = in_root("c");
    struct local_config cfg = {.dir = dir, .want_store = true};
    pid_t pids[4];
    struct local_servers *s;

    (void)state;
    for (size_t i = 0; i < 4; i++) {
        pids[i] = fork();
        if (pids[i] == 0) {
            cleanup_free char *one = NULL;

            if (local_servers_open(&cfg, &s, NULL))
                _exit(1);
            one = ask(local_servers_env(s)->store, "select 1");
            local_servers_close(s, 0);
            _exit(one ? 0 : 2);
        }
    }
    for (size_t i = 0; i < 4; i++) {
        int status;

        waitpid(pids[i], &status, 0);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
    }
    s = join(&cfg);
    assert_int_equal(local_servers_close(s, LONG_MS), 0);
}

static void test_killed_keeper(void **state)
{
    cleanup_free char *dir = in_root("b");
    struct local_config cfg = {.dir = dir, .want_store = true};
    struct local_servers *first = join(&cfg);
    struct local_servers *second;
    pid_t keeper = keeper_of(dir);
    pid_t server = postmaster_of(dir);

    (void)state;
    kill(keeper, SIGKILL);
    assert_true(gone_soon(keeper));
    assert_answer(local_servers_env(first)->store, "select 1", "1"); /* the mount goes on */
    second = join(&cfg);                                            /* a new keeper takes over, at the same address */
    assert_int_not_equal(keeper_of(dir), keeper);
    assert_true(gone(server));
    assert_true(works_soon(local_servers_env(first)->store));
    keeper = keeper_of(dir);
    server = postmaster_of(dir);
    assert_int_equal(local_servers_close(second, LONG_MS), 0);
    kill(keeper, SIGKILL);
    assert_true(gone_soon(keeper));
    assert_int_equal(local_servers_close(first, LONG_MS), 0); /* the last mount has it swept */
    assert_true(gone(server));
}

static void test_dead_server_comes_back(void **state)
{
    cleanup_free char *dir = in_root("b");
    struct local_config cfg = {.dir = dir, .want_store = true};
    struct local_servers *s = join(&cfg);
    pid_t server = postmaster_of(dir);

    (void)state;
    kill(server, SIGKILL);
    assert_true(gone_soon(server));
    assert_true(works_soon(local_servers_env(s)->store));
    assert_int_not_equal(postmaster_of(dir), server);
    assert_int_equal(local_servers_close(s, LONG_MS), 0);
}

static void test_emulator(void **state)
{
    cleanup_free char *dir = in_root("n");
    cleanup_free char *program = in_root("emulator.sh");
    struct local_config cfg = {.dir = dir, .want_neon = true, .emulator = program, .plan = "free"};
    struct local_servers *s;
    pid_t keeper;
    pid_t child;

    (void)state;
    setenv("NEON_API_KEY", "of another project", 1);
    setenv("PGHOST", "elsewhere", 1);
    s = join(&cfg);
    unsetenv("PGHOST");
    unsetenv("NEON_API_KEY");
    assert_null(local_servers_env(s)->store);
    assert_string_equal(local_servers_env(s)->neon_api_host, "http://127.0.0.1:1/api/v2");
    assert_string_equal(local_servers_env(s)->neon_api_key, "napi_k");
    assert_string_equal(local_servers_env(s)->neon_project_id, "p-1");
    assert_string_equal(local_servers_env(s)->neon_branch_id, "br-1");
    assert_string_equal(local_servers_env(s)->database_url, "postgresql://u:p@h/d");
    child = number_in(dir, "neon.runs");
    keeper = keeper_of(dir);
    kill(keeper, SIGKILL);
    assert_true(gone_soon(keeper));
    assert_false(gone(child));
    assert_int_equal(local_servers_close(s, LONG_MS), 0);
    assert_true(gone(child));
    assert_int_equal(number_in(dir, "neon.runs"), 0); /* it was asked to end, not killed */
}

static void assert_refused(const struct local_config *cfg, int code, const char *word)
{
    struct local_servers *s = NULL;
    cleanup_err struct err e = {0};

    assert_int_equal(local_servers_open(cfg, &s, &e), code);
    assert_null(s);
    if (!strstr(err_text(&e), word) || strchr(err_text(&e), '\n'))
        fail_msg("\"%s\" doesn't say \"%s\" in one line", err_text(&e), word);
}

static void write_text(const char *path, const char *text, mode_t mode)
{
    cleanup_fd int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, mode);

    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    fchmod(fd, mode);
}

static void test_refusals(void **state)
{
    cleanup_free char *dir = in_root("n");
    cleanup_free char *program = in_root("emulator.sh");
    cleanup_free char *missing = in_root("missing");
    cleanup_free char *used = in_root("b");
    cleanup_free char *version = in_root("b/store/data/PG_VERSION");
    cleanup_free char *file = in_root("file");
    struct local_config neon = {.dir = dir, .want_neon = true, .emulator = missing, .plan = "free"};
    struct local_config store = {.dir = used, .want_store = true};
    struct local_servers *s;

    (void)state;
    assert_refused(&neon, -ENOENT, "missing");
    neon.emulator = program;
    neon.plan = "paid";
    assert_refused(&neon, -EIO, "bad plan");
    neon.plan = "free";
    s = join(&neon);
    neon.plan = "paid";
    assert_refused(&neon, -EINVAL, "plan free");
    neon.plan = NULL;
    neon.want_store = true;
    assert_refused(&neon, -EINVAL, "only neon-emulator");
    assert_int_equal(local_servers_close(s, LONG_MS), 0);

    write_text(version, "9\n", 0600);
    assert_refused(&store, -ENOENT, "PostgreSQL 9");
    assert_refused(&store, -ENOENT, "postgresql-9");
    write_text(file, "", 0644);
    store.dir = file;
    assert_refused(&store, -ENOTDIR, file);
}

/* As root, PostgreSQL's account can't enter a private directory. */
static void test_unreachable_dir(void **state)
{
    cleanup_free char *dir = in_root("private/x");
    cleanup_free char *parent = in_root("private");
    struct local_config cfg = {.dir = dir, .want_store = true};

    (void)state;
    if (geteuid() != 0)
        skip();
    assert_int_equal(mkdir(parent, 0700), 0);
    assert_refused(&cfg, -EACCES, parent);
}

static int make_root(void **state)
{
    cleanup_free char *program = NULL;

    (void)state;
    if (!mkdtemp(root) || chmod(root, 0755) < 0)
        return -1;
    program = in_root("emulator.sh");
    write_text(program, emulator_script, 0755);
    return 0;
}

static int remove_root(void **state)
{
    cleanup_free char *command = str_format("rm -rf %s", root);

    (void)state;
    while (waitpid(-1, NULL, WNOHANG) > 0)
        ;
    return system(command);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_store),
        cmocka_unit_test(test_data_and_addresses_stay),
        cmocka_unit_test(test_several_mounts),
        cmocka_unit_test(test_killed_mount_stops_the_servers),
        cmocka_unit_test(test_two_at_once),
        cmocka_unit_test(test_killed_keeper),
        cmocka_unit_test(test_dead_server_comes_back),
        cmocka_unit_test(test_emulator),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_unreachable_dir),
    };

    if (local_is_keeper_name(argv[0]))
        return local_keeper_main(argc, argv);
    return cmocka_run_group_tests_name("local", tests, make_root, remove_root);
}
