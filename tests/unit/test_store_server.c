/* The store and its server: migrations, the mount's rights, a server that goes, comes and freezes, 20,000 checkpoints. */
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "database/probe.h"
#include "store_fixture.h"

/* ---- schema ---------------------------------------------------------------------------------------------------------- */

struct migrator { pthread_t thread; char *info; int result; char *said; };

static void *migrate(void *arg)
{
    struct migrator *m = arg;
    cleanup_err struct err err = {0};

    m->result = store_migrate(m->info, ROLE, &err);
    m->said = str_dup(err.text);
    return NULL;
}

static void migrating_twice_and_at_once(void **state)
{
    cleanup_err struct err err = {0};
    struct migrator m[4] = {0};
    struct store *s = NULL;
    cleanup_free char *user = NULL;

    (void)state;
    new_database();
    user = conninfo_of(ROLE);
    REFUSED(ENODATA, store_open(user, 2, &s, &err));
    for (int i = 0; i < 4; i++) {
        m[i].info = conninfo_of("boss");
        assert_int_equal(pthread_create(&m[i].thread, NULL, migrate, &m[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(m[i].thread, NULL);
        if (m[i].result)
            fail_msg("%d: %s", m[i].result, m[i].said);
        free(m[i].info);
        free(m[i].said);
    }
    OK(store_open(user, 2, &s, &err));
    store_close(s);
    sql_is("SELECT count(*) = max(version) FROM checkpointfs.schema_version", "t");
    REFUSED(EACCES, store_migrate(user, NULL, &err)); /* the mount's role isn't the owner */
    cleanup_free char *out = sql_in(NULL, "boss", "UPDATE checkpointfs.schema_version SET version = 1000");
    assert_null(out);
    REFUSED(EPROTO, store_open(user, 2, &s, &err));
    cleanup_free char *owner = conninfo_of("boss");
    REFUSED(EPROTO, store_migrate(owner, ROLE, &err));
    cleanup_free char *older = sql_in(NULL, "boss", "UPDATE checkpointfs.schema_version SET version = 0");
    assert_null(older);
    REFUSED(ENODATA, store_open(user, 2, &s, &err));
}

static void the_owner_may_mount_too(void **state)
{
    cleanup_err struct err err = {0};
    struct store *s = NULL;
    struct store_line l = {0};
    cleanup_free char *owner = NULL;

    (void)state;
    new_database();
    owner = conninfo_of("boss");
    OK(store_migrate(owner, NULL, &err));
    OK(store_migrate(owner, "boss", &err));
    OK(store_open(owner, 1, &s, &err));
    OK(store_line_create(s, "p", "b", NULL, &l, &err));
    store_line_free(&l);
    store_close(s);
}

static void the_mounts_role_cannot_rewrite_the_log(void **state)
{
    static const char *const forbidden[] = {
        "UPDATE checkpointfs.events SET bytes = ''", "DELETE FROM checkpointfs.events", "TRUNCATE checkpointfs.events",
        "INSERT INTO checkpointfs.events SELECT line_id, 999, 999, NULL, NULL, '', 0 FROM checkpointfs.events LIMIT 1",
        "UPDATE checkpointfs.event_heads SET size = 0", "DELETE FROM checkpointfs.history_heads",
        "DELETE FROM checkpointfs.actions",
        "UPDATE checkpointfs.decisions SET decision = 'approve'", "DELETE FROM checkpointfs.attempts",
        "DROP TABLE checkpointfs.events", "UPDATE checkpointfs.schema_version SET version = 2",
        "CREATE TABLE checkpointfs.mine (x int)",
        "ALTER TABLE checkpointfs.events DISABLE TRIGGER ALL",
        "CREATE OR REPLACE FUNCTION checkpointfs.append_event(bigint, bigint, text) RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint'"};

    (void)state;
    take("one", "br-a");
    for (size_t i = 0; i < sizeof(forbidden) / sizeof(forbidden[0]); i++) {
        cleanup_free char *out = sql_in(NULL, ROLE, forbidden[i]);

        if (!str_equal(out, "ERROR 42501"))
            fail_msg("%s: %s", forbidden[i], out ? out : "done");
    }
    cleanup_free char *bad = sql_in(NULL, ROLE, "SELECT checkpointfs.append_event(1, NULL, E'{}\\n{}')");
    assert_string_equal(bad, "ERROR 22P02");
    cleanup_free char *n = sql_in(NULL, ROLE, "SELECT count(*) > 1 FROM checkpointfs.events");
    assert_string_equal(n, "t");
}

static void errors_name_no_secret(void **state)
{
    static const struct { const char *info; int code; } table[] = {
        {"postgresql://u:s3cret-word@/x?hosst=1", EINVAL}, {"host=/nowhere password=s3cret-word", ECONNREFUSED},
        {"host=127.0.0.1 port=1 password=s3cret-word", ECONNREFUSED}, {"'s3cret-word", EINVAL},
        {"host=a b password=s3cret-word", EINVAL},
    };
    cleanup_err struct err err = {0};
    struct store *s = NULL;

    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        int r = store_open(table[i].info, 1, &s, &err);

        if (r != -table[i].code || !err.text || strstr(err.text, "s3cret"))
            fail_msg("%s: %d %s", table[i].info, r, err_text(&err));
        r = database_probe(table[i].info, NULL, clock_mono_ms() + 200, &err);
        if (r == 0 || !err.text || strstr(err.text, "s3cret"))
            fail_msg("probe %s: %d %s", table[i].info, r, err_text(&err));
    }
    cleanup_free char *wrong = str_format("host=%s port=5432 user=boss dbname=postgres password=wr0ng", base);
    REFUSED(EACCES, store_open(wrong, 1, &s, &err));
    cleanup_free char *nobody = str_format("host=%s port=5432 user=boss dbname=nothere password=s3cret-word", base);
    assert_int_equal(store_open(nobody, 1, &s, &err), -EIO);
}

/* ---- a server that goes and comes ------------------------------------------------------------------------------------ */

static void stop_server(int signal_)
{
    if (signal_) {
        cleanup_free char *data = str_format("%s/data", base);

        kill(server, signal_);
        while (pgserver_alive(server))
            clock_sleep_ms(5);
        assert_int_equal(pgserver_end_all(data), 0);
    } else {
        assert_int_equal(pgserver_stop(server, 0), 0);
    }
}

static void the_pool_heals_after_a_restart(void **state)
{
    static const int how[] = {0, SIGKILL, SIGQUIT};
    cleanup_err struct err err = {0};

    (void)state;
    for (int i = 0; i < 3; i++) {
        cleanup_free char *name = str_format("n%d", i);
        cleanup_free char *after = str_format("m%d", i);
        struct store_checkpoint k = {0};
        int64_t checkpoint, action, one = take(name, "br-a");

        stop_server(how[i]);
        REFUSED(ECONNREFUSED, store_checkpoint(store, one, &k, &err));
        REFUSED(ECONNREFUSED, store_take_begin(store, line.id, mount_row.id, after, &who, &checkpoint, &action, &err));
        start_server();
        OK(store_take_begin(store, line.id, mount_row.id, after, &who, &checkpoint, &action, &err));
        k = get(one); /* what was answered is there */
        assert_int_equal(k.phase, PHASE_SAVED);
        store_checkpoint_free(&k);
        OK(finish(action, ACTION_FAILED, EIO, NULL, false, &err));
    }
}

struct worker { pthread_t thread; int64_t checkpoint; bool *stop; int done; int failed; struct err err; };

static void *work(void *arg)
{
    struct worker *w = arg;

    while (!__atomic_load_n(w->stop, __ATOMIC_ACQUIRE)) {
        struct store_checkpoint k = {0};

        if (store_checkpoint(store, w->checkpoint, &k, &w->err))
            w->failed++;
        else
            w->done++;
        store_checkpoint_free(&k);
    }
    return NULL;
}

/* A reader never notices that an idle or even a busy connection was cut. */
static void reads_survive_cut_connections(void **state)
{
    struct worker w[3] = {0};
    bool stop = false;
    int64_t one = take("one", "br-a");
    cleanup_free char *out = NULL;

    (void)state;
    for (int i = 0; i < 3; i++) {
        w[i].checkpoint = one;
        w[i].stop = &stop;
        assert_int_equal(pthread_create(&w[i].thread, NULL, work, &w[i]), 0);
    }
    for (int i = 0; i < 10; i++) {
        clock_sleep_ms(20);
        free(out);
        out = sql_in(NULL, "boss", "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = '" ROLE "'");
        assert_non_null(out);
    }
    __atomic_store_n(&stop, true, __ATOMIC_RELEASE);
    for (int i = 0; i < 3; i++) {
        pthread_join(w[i].thread, NULL);
        if (w[i].failed)
            fail_msg("%d calls failed, the last by: %s", w[i].failed, err_text(&w[i].err));
        assert_true(w[i].done > 10);
    }
}

/* ---- an answer that is lost ------------------------------------------------------------------------------------------ */

/* Between store and server: passes everything on, but cuts the connection instead of the answers to the next `cut` commits;
 * with `before` the commit doesn't even reach the server. */
struct proxy {
    pthread_t thread;
    char dir[80];
    int listening;
    int cut;
    bool before;
    bool stop;
};

static int connect_to(const char *dir)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(a.sun_path, sizeof(a.sun_path), "%s/.s.PGSQL.5432", dir);
    return connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0 ? fd : -1;
}

/* Passes on what one side has to say. False when the connection is over. */
static bool pass_on(struct proxy *p, int from, int to, bool from_client)
{
    char bytes[65536];
    ssize_t n = read(from, bytes, sizeof(bytes));

    if (n <= 0)
        return false;
    if (from_client && memmem(bytes, (size_t)n, "COMMIT", 7) && __atomic_load_n(&p->cut, __ATOMIC_ACQUIRE) > 0) {
        __atomic_sub_fetch(&p->cut, 1, __ATOMIC_ACQ_REL);
        if (!__atomic_load_n(&p->before, __ATOMIC_ACQUIRE) && write(to, bytes, (size_t)n) == n)
            while (read(to, bytes, sizeof(bytes)) < 1)
                ;
        return false;
    }
    return write(to, bytes, (size_t)n) == n;
}

struct pair { struct proxy *p; int client, server; };

static void *pump(void *arg)
{
    struct pair *x = arg;
    struct pollfd f[2] = {{.fd = x->client, .events = POLLIN}, {.fd = x->server, .events = POLLIN}};
    bool going = true;

    while (going && !__atomic_load_n(&x->p->stop, __ATOMIC_ACQUIRE)) {
        if (poll(f, 2, 50) <= 0)
            continue;
        if (f[0].revents)
            going = pass_on(x->p, x->client, x->server, true);
        if (going && f[1].revents)
            going = pass_on(x->p, x->server, x->client, false);
    }
    close(x->client);
    close(x->server);
    free(x);
    return NULL;
}

static void *proxy_run(void *arg)
{
    struct proxy *p = arg;
    pthread_t threads[32];
    int n = 0;

    while (!__atomic_load_n(&p->stop, __ATOMIC_ACQUIRE) && n < 32) {
        struct pollfd f = {.fd = p->listening, .events = POLLIN};
        struct pair *x;

        if (poll(&f, 1, 50) <= 0)
            continue;
        x = calloc(1, sizeof(*x));
        *x = (struct pair){p, accept(p->listening, NULL, NULL), connect_to(base)};
        pthread_create(&threads[n++], NULL, pump, x);
    }
    for (int i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
    return NULL;
}

static void proxy_start(struct proxy *p)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};

    snprintf(p->dir, sizeof(p->dir), "%s/proxy%d", base, databases);
    assert_int_equal(mkdir(p->dir, 0755), 0);
    snprintf(a.sun_path, sizeof(a.sun_path), "%s/.s.PGSQL.5432", p->dir);
    p->listening = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(p->listening, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(listen(p->listening, 8), 0);
    assert_int_equal(pthread_create(&p->thread, NULL, proxy_run, p), 0);
}

/* Whether the commit came through or not, the call says what is true, and nothing is done twice. */
static void a_lost_answer_is_found_out(void **state)
{
    cleanup_err struct err err = {0};
    struct proxy p = {0};
    struct store *s = NULL;
    int64_t checkpoint, action;

    (void)state;
    proxy_start(&p);
    cleanup_free char *info = str_format("host=%s port=5432 user=" ROLE " dbname=t%d password=s3cret-word", p.dir, databases);
    OK(store_open(info, 2, &s, &err));
    for (int before = 0; before < 2; before++) {
        cleanup_free char *name = str_format("n%d", before);

        __atomic_store_n(&p.before, before, __ATOMIC_RELEASE);
        __atomic_store_n(&p.cut, 1, __ATOMIC_RELEASE);
        OK(store_take_begin(s, line.id, mount_row.id, name, &who, &checkpoint, &action, &err));
        assert_int_equal(__atomic_load_n(&p.cut, __ATOMIC_ACQUIRE), 0);
        OK(finish(action, ACTION_FAILED, EIO, NULL, false, &err));
    }
    sql_is("SELECT string_agg(name, ',' ORDER BY id) FROM checkpointfs.checkpoints", "n0,n1");
    assert_int_equal(events_named("checkpoint.requested"), 2);
    /* never answered at all: it says so, within its time */
    __atomic_store_n(&p.cut, 100, __ATOMIC_RELEASE);
    REFUSED(EIO, store_take_begin(s, line.id, mount_row.id, "n3", &who, &checkpoint, &action, &err));
    store_close(s);
    __atomic_store_n(&p.stop, true, __ATOMIC_RELEASE);
    pthread_join(p.thread, NULL);
    close(p.listening);
    sql_is("SELECT count(*) FROM checkpointfs.checkpoints", "2");
}

/* ---- a server that freezes ------------------------------------------------------------------------------------------- */

/* Sends a signal to the postmaster and its children, which have sessions of their own. */
static void signal_all(int signal_)
{
    DIR *proc = opendir("/proc");
    struct dirent *d;

    if (signal_ == SIGSTOP)
        kill(server, signal_);
    while ((d = readdir(proc))) {
        char path[300];
        char line_[512] = "";
        FILE *f;
        int parent = 0;

        snprintf(path, sizeof(path), "/proc/%s/stat", d->d_name);
        f = strtol(d->d_name, NULL, 10) > 0 ? fopen(path, "r") : NULL;
        if (!f)
            continue;
        if (fgets(line_, sizeof(line_), f) && strrchr(line_, ')'))
            sscanf(strrchr(line_, ')') + 1, " %*c %d", &parent);
        fclose(f);
        if (parent == server)
            kill((pid_t)strtol(d->d_name, NULL, 10), signal_);
    }
    closedir(proc);
    if (signal_ == SIGCONT)
        kill(server, signal_);
}

static void a_frozen_server_costs_two_seconds(void **state)
{
    cleanup_err struct err err = {0};
    struct store *fresh = NULL;
    cleanup_free char *user = conninfo_of(ROLE);
    int64_t checkpoint, action, start, one = take("one", "br-a");
    int r;

    (void)state;
    signal_all(SIGSTOP);
    start = clock_mono_ms();
    r = store_take_begin(store, line.id, mount_row.id, "new", &who, &checkpoint, &action, &err);
    assert_int_equal(r, -EIO);
    err_clear(&err);
    r = store_rename(store, one, "renamed", &who, &err);
    assert_int_equal(r, -EIO);
    err_clear(&err);
    r = store_open(user, 1, &fresh, &err);
    assert_int_equal(r, -ETIMEDOUT);
    err_clear(&err);
    r = database_probe(user, NULL, clock_mono_ms() + 300, &err);
    assert_int_equal(r, -ETIMEDOUT);
    start = clock_mono_ms() - start;
    signal_all(SIGCONT);
    if (start > 3 * 2000 + 300 + 1500)
        fail_msg("a frozen server held the caller for %lld ms", (long long)start);
    OK(store_take_begin(store, line.id, mount_row.id, "new", &who, &checkpoint, &action, &err));
    /* and nothing was begun before */
    OK(store_rename(store, one, "renamed", &who, &err));
    OK(finish(action, ACTION_FAILED, EIO, NULL, false, &err));
}

/* Someone else holds the line's lock: a name answers within 2 s, and nothing changed. */
static void a_locked_line_costs_two_seconds(void **state)
{
    cleanup_err struct err err = {0};
    cleanup_free char *info = conninfo_of("boss");
    PGconn *c = PQconnectdb(info);
    int64_t start, one = take("one", "br-a");

    (void)state;
    PQclear(PQexec(c, "BEGIN; SELECT 1 FROM checkpointfs.lines FOR UPDATE"));
    start = clock_mono_ms();
    REFUSED(EIO, store_rename(store, one, "renamed", &who, &err));
    assert_true(clock_mono_ms() - start < 2500);
    PQclear(PQexec(c, "COMMIT"));
    PQfinish(c);
    struct store_checkpoint k = get(one);
    assert_string_equal(k.name, "one");
    store_checkpoint_free(&k);
    OK(store_rename(store, one, "renamed", &who, &err));
}

/* A deadlock that the server ends is met by doing the transaction again. */
static void deadlocks_are_tried_again(void **state)
{
    cleanup_err struct err err = {0};
    cleanup_free char *info = conninfo_of("boss");
    PGconn *c = PQconnectdb(info);
    int64_t one = take("one", "br-a");

    (void)state;
    /* this session locks the checkpoint and then wants the line, the store does it the other way round */
    PQclear(PQexec(c, "SET deadlock_timeout = '60s'; BEGIN; SELECT 1 FROM checkpointfs.checkpoints FOR UPDATE"));
    assert_true(PQsendQuery(c, "SELECT pg_sleep(0.2); SELECT 1 FROM checkpointfs.lines FOR UPDATE; COMMIT"));
    OK(store_meta_put(store, one, "{}", 2, false, &who, &err));
    for (PGresult *r; (r = PQgetResult(c)); PQclear(r))
        ;
    PQfinish(c);
    assert_int_equal(events_named("meta.changed"), 1);
    sql_is("SELECT deadlocks > 0 FROM pg_stat_database WHERE datname = current_database()", "t");
}

static void probing(void **state)
{
    cleanup_err struct err err = {0};
    cleanup_free char *good = conninfo("boss", "postgres");
    cleanup_free char *wrong = str_format("host=%s port=5432 user=boss dbname=postgres password=wr0ng", base);
    atomic_bool cancelled = false;
    int64_t start;

    (void)state;
    OK(database_probe(good, NULL, clock_mono_ms() + 5000, &err));
    OK(database_probe(good, &cancelled, clock_mono_ms() + 5000, &err));
    REFUSED(EACCES, database_probe(wrong, NULL, clock_mono_ms() + 20000, &err));
    atomic_store(&cancelled, true);
    start = clock_mono_ms();
    REFUSED(ECANCELED, database_probe("host=127.0.0.1 port=1", &cancelled, clock_mono_ms() + 20000, &err));
    assert_true(clock_mono_ms() - start < 1000);
    stop_server(0);
    REFUSED(ETIMEDOUT, database_probe(good, NULL, clock_mono_ms() + 300, &err));
    start_server();
    OK(database_probe(good, NULL, clock_mono_ms() + 5000, &err));
}

/* ---- many ------------------------------------------------------------------------------------------------------------ */

struct count { int n; int64_t seq; int64_t calls; int64_t sizes; int stop_at; };

static int counting(void *arg, struct store_checkpoint *k)
{
    struct count *c = arg;

    assert_true(k->seq > c->seq);
    c->seq = k->seq;
    c->calls += (int64_t)k->n_calls;
    c->sizes += k->sizes[FILE_SNAPSHOT] + k->sizes[FILE_HISTORY];
    c->n++;
    for (size_t i = 0; i < k->n_calls; i++)
        assert_string_equal(k->calls[i].filename, i ? "b.json" : "a.json");
    store_checkpoint_free(k);
    return c->n == c->stop_at ? 7 : 0;
}

static void twenty_thousand_load_quickly(void **state)
{
    cleanup_err struct err err = {0};
    struct count c = {0}, cut = {.stop_at = 5001};
    int64_t start, one = take("one", "br-a");
    static const char fill[] =
        "INSERT INTO checkpointfs.checkpoints (uid, line_id, name, taken_name, seq, phase, snapshot_id, snapshot_branch, run_id,"
        " snapshot_bytes, checkpoint_bytes) SELECT 'ck-' || i, l.id, 'n' || i, 'n' || i, 1000 + i, 'sealed', 's' || i, 'br-a',"
        " 'run', 100, 200 FROM generate_series(1, 20000) i, checkpointfs.lines l;"
        "INSERT INTO checkpointfs.history_heads SELECT id, 3, 10, 1 FROM checkpointfs.checkpoints WHERE uid LIKE 'ck-_' OR"
        " seq > 1000;"
        "INSERT INTO checkpointfs.attempts (checkpoint_id, opened_by) SELECT id, 0 FROM checkpointfs.checkpoints WHERE"
        " seq > 1000;"
        "UPDATE checkpointfs.checkpoints k SET attempt_id = a.id FROM checkpointfs.attempts a WHERE a.checkpoint_id = k.id;"
        "INSERT INTO checkpointfs.calls (checkpoint_id, ord, call_id, filename, file, file_size) SELECT id, o, 'c', chr(97 + o)"
        " || '.json', '', 0 FROM checkpointfs.checkpoints, generate_series(0, 1) o WHERE seq > 1000 AND id % 2 = 0; ANALYZE";
    cleanup_free char *out = sql_in(NULL, "boss", fill);

    (void)state;
    assert_null(out);
    start = clock_mono_ms();
    OK(store_checkpoints(store, line.id, counting, &c, &err));
    start = clock_mono_ms() - start;
    print_message("20,001 checkpoints in %lld ms\n", (long long)start);
    assert_int_equal(c.n, 20001);
    assert_int_equal(c.calls, 20000);
    struct store_checkpoint k = get(one);
    assert_int_equal(c.sizes, 20000 * 110 + k.sizes[FILE_SNAPSHOT] + k.sizes[FILE_HISTORY]);
    store_checkpoint_free(&k);
    assert_int_equal(store_checkpoints(store, line.id, counting, &cut, &err), 7);
    assert_int_equal(cut.n, 5001);
}

/* More callers than connections: each gets its turn. */
static void callers_wait_for_a_connection(void **state)
{
    struct worker w[20] = {0};
    bool stop = false;
    int64_t one = take("one", "br-a");

    (void)state;
    for (int i = 0; i < 20; i++) {
        w[i].checkpoint = one;
        w[i].stop = &stop;
        assert_int_equal(pthread_create(&w[i].thread, NULL, work, &w[i]), 0);
    }
    clock_sleep_ms(200);
    sql_is("SELECT count(*) <= 6 FROM pg_stat_activity WHERE usename = '" ROLE "'", "t");
    __atomic_store_n(&stop, true, __ATOMIC_RELEASE);
    for (int i = 0; i < 20; i++) {
        pthread_join(w[i].thread, NULL);
        if (w[i].failed)
            fail_msg("%d calls failed, the last by: %s", w[i].failed, err_text(&w[i].err));
        assert_true(w[i].done > 0);
    }
}

#define T(f) cmocka_unit_test_setup_teardown(f, open_store, close_store)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(twenty_thousand_load_quickly),
        cmocka_unit_test(migrating_twice_and_at_once),
        cmocka_unit_test(the_owner_may_mount_too),
        T(the_mounts_role_cannot_rewrite_the_log),
        cmocka_unit_test(errors_name_no_secret),
        T(reads_survive_cut_connections),
        T(a_lost_answer_is_found_out),
        T(a_locked_line_costs_two_seconds),
        T(deadlocks_are_tried_again),
        T(callers_wait_for_a_connection),
        T(a_frozen_server_costs_two_seconds),
        T(the_pool_heals_after_a_restart),
        T(probing),
    };

    return cmocka_run_group_tests(tests, fixture_up, fixture_down);
}
