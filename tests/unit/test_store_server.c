/* The store and its server: migrations, the mount's rights, a server that goes, comes and freezes, 20,000 checkpoints. */
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "database/probe.h"
#include "store_fixture.h"

#include "../../fs/store/store_i.h"

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
    cleanup_free char *out = sql_in(NULL, "boss", "UPDATE checkpointfs.schema_version SET version = 1000 WHERE version = 1");
    assert_null(out);
    REFUSED(EPROTO, store_open(user, 2, &s, &err));
    cleanup_free char *owner = conninfo_of("boss");
    REFUSED(EPROTO, store_migrate(owner, ROLE, &err));
    cleanup_free char *older = sql_in(NULL, "boss", "DELETE FROM checkpointfs.schema_version");
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
        "INSERT INTO checkpointfs.events VALUES (1, 999, 999, NULL, NULL, '', 0)",
        "COPY checkpointfs.events FROM PROGRAM 'echo'", "BEGIN; LOCK TABLE checkpointfs.events IN EXCLUSIVE MODE",
        "MERGE INTO checkpointfs.events e USING (SELECT 1) x ON true WHEN MATCHED THEN DELETE",
        "UPDATE checkpointfs.event_heads SET size = 0", "DELETE FROM checkpointfs.history_heads",
        "UPDATE checkpointfs.event_heads SET hash = repeat('0', 64)", "UPDATE checkpointfs.history_heads SET hash = ''",
        "INSERT INTO checkpointfs.event_heads VALUES (99, 0, 0, 0)",
        "TRUNCATE checkpointfs.event_heads, checkpointfs.history_heads",
        "INSERT INTO checkpointfs.history_heads VALUES (99, 0, 0, 0)", "DELETE FROM checkpointfs.event_heads",
        "SELECT 1 FROM checkpointfs.event_heads FOR UPDATE", /* nobody is kept from writing to the log */
        "DELETE FROM checkpointfs.actions",
        "UPDATE checkpointfs.decisions SET decision = 'approve'", "DELETE FROM checkpointfs.attempts",
        "DROP TABLE checkpointfs.events", "UPDATE checkpointfs.schema_version SET version = 2",
        "CREATE TABLE checkpointfs.mine (x int)",
        "ALTER TABLE checkpointfs.events DISABLE TRIGGER ALL",
        "ALTER TABLE checkpointfs.event_heads ALTER hash SET DEFAULT 'x'",
        "CREATE TRIGGER t BEFORE INSERT ON checkpointfs.events FOR EACH ROW"
        " EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "CREATE RULE r AS ON INSERT TO checkpointfs.events DO INSTEAD NOTHING",
        "CREATE POLICY p ON checkpointfs.events USING (false)", "ALTER TABLE checkpointfs.events ENABLE ROW LEVEL SECURITY",
        "ALTER FUNCTION checkpointfs.append_event(bigint, bigint, text) RESET search_path",
        "ALTER FUNCTION checkpointfs.append_event(bigint, bigint, text) SECURITY INVOKER",
        "DROP FUNCTION checkpointfs.append_event(bigint, bigint, text)",
        "CREATE FUNCTION checkpointfs.append_event(bigint, bigint, varchar) RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint'",
        "CREATE OR REPLACE FUNCTION checkpointfs.now_ns() RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint'",
        "SET ROLE boss", "SET session_replication_role = replica",
        "CREATE OR REPLACE FUNCTION checkpointfs.append_event(bigint, bigint, text) RETURNS bigint LANGUAGE sql"
        " AS 'SELECT 1::bigint'"};

    (void)state;
    take("one", "br-a");
    for (size_t i = 0; i < sizeof(forbidden) / sizeof(forbidden[0]); i++) {
        cleanup_free char *out = sql_in(NULL, ROLE, forbidden[i]);

        if (!str_equal(out, "ERROR 42501"))
            fail_msg("%s: %s", forbidden[i], out ? out : "done");
    }
    static const char *const malformed[] = {"{\"a\":1}\n{}", "{}", " { } ", "[]", "[{}]", "{\"a\":1} ", "{\"a\":1},{}", "",
                                            "{\"a\":1"};

    for (size_t i = 0; i < sizeof(malformed) / sizeof(malformed[0]); i++) {
        cleanup_free char *sql = str_format("SELECT checkpointfs.append_event(1, NULL, $$%s$$)", malformed[i]);
        cleanup_free char *bad = sql_in(NULL, ROLE, sql);

        assert_string_equal(bad, "ERROR 22P02");
    }
    sql_is("SELECT count(*) FROM unnest(ARRAY['events', 'event_heads', 'history_heads']) t, unnest(ARRAY['INSERT', 'UPDATE', 'DELETE',"
           " 'TRUNCATE', 'REFERENCES', 'TRIGGER']) p WHERE has_table_privilege('" ROLE "', 'checkpointfs.' || t, p)"
           " OR (p IN ('INSERT', 'UPDATE', 'REFERENCES') AND has_any_column_privilege('" ROLE "', 'checkpointfs.' || t, p))", "0");
    sql_is("CREATE ROLE passer_by LOGIN PASSWORD 's3cret-word'", NULL);
    cleanup_free char *others = sql_in(NULL, "passer_by", "SELECT checkpointfs.append_event(1, NULL, '{\"event\":\"x\"}')");
    assert_string_equal(others, "ERROR 42501");
    cleanup_free char *n = sql_in(NULL, ROLE, "SELECT count(*) > 1 FROM checkpointfs.events");
    assert_string_equal(n, "t");
}

/* What the role says can't stand for a place in the log, and what it says is chained up like everything. */
static void a_line_ends_with_its_place(void **state)
{
    static const char say[] =
        "SELECT checkpointfs.append_event(l.id, NULL, '{\"event\":\"x\",\"seq\":99,\"prev\":\"00\",\"checkpoint_seq\":1,"
        "\"checkpoint_prev\":\"00\",\"hash\":\"00\",\"zero\":\"\\u0000\"}') FROM checkpointfs.lines l";
    cleanup_free char *said = NULL;

    (void)state;
    take("one", "br-a");
    said = sql_in(NULL, ROLE, say);
    assert_true(said && strtoll(said, NULL, 10) > 1);
    take("two", "br-a");
    chain_holds();
}

/* Whoever calls the function that may write to the log can't make it call something else: objects of its own under the names
 * that the function uses, in its temporary schema and in one of its own, first in its search path. */
static void the_logs_function_uses_nothing_of_its_caller(void **state)
{
    static const char tricks[] =
        "CREATE SCHEMA mine AUTHORIZATION " ROLE "; SET ROLE " ROLE "; SET search_path = mine, pg_temp, checkpointfs, pg_catalog;"
        "CREATE FUNCTION mine.sha256(bytea) RETURNS bytea LANGUAGE sql AS $$SELECT 'x'::bytea$$;"
        "CREATE FUNCTION mine.encode(bytea, text) RETURNS text LANGUAGE sql AS $$SELECT 'x'$$;"
        "CREATE FUNCTION mine.convert_to(text, name) RETURNS bytea LANGUAGE sql AS $$SELECT 'x'::bytea$$;"
        "CREATE FUNCTION mine.octet_length(bytea) RETURNS int LANGUAGE sql AS $$SELECT 0$$;"
        "CREATE FUNCTION mine.now_ns() RETURNS bigint LANGUAGE sql AS $$SELECT 1::bigint$$;"
        "CREATE FUNCTION mine.pg_notify(text, text) RETURNS void LANGUAGE sql AS $$DELETE FROM checkpointfs.events$$;"
        "CREATE FUNCTION mine.joined(text, text) RETURNS text LANGUAGE sql AS $$SELECT 'x'$$;"
        "CREATE OPERATOR mine.|| (FUNCTION = mine.joined, LEFTARG = text, RIGHTARG = text);"
        "CREATE TEMP TABLE events AS SELECT * FROM checkpointfs.events; CREATE TEMP TABLE event_heads AS SELECT * FROM"
        " checkpointfs.event_heads; CREATE TEMP TABLE history_heads AS SELECT * FROM checkpointfs.history_heads;"
        "SET plpgsql.extra_errors = 'all'; SET transform_null_equals = on; SET bytea_output = 'escape';"
        "SET standard_conforming_strings = off; SET quote_all_identifiers = on;"
        "SELECT checkpointfs.append_event(id, NULL, '{\"event\":\"mine\"}') FROM checkpointfs.lines;"
        "SELECT checkpointfs.append_event(line_id, id, '{\"event\":\"mine\"}') FROM checkpointfs.checkpoints";
    cleanup_free char *seq = NULL;

    (void)state;
    take("one", "br-a");
    seq = sql_in(NULL, "boss", tricks);
    sql_is("SELECT max(seq) FROM checkpointfs.events", seq);
    sql_is("SELECT count(*) FROM checkpointfs.events WHERE convert_from(bytes, 'UTF8')::json->>'event' = 'mine'", "2");
    chain_holds();
}

/* Makes a database with the schema of an older version, and these rows in it. */
static void older_store(int version, const char *rows)
{
    cleanup_free char *made = str_format("CREATE SCHEMA checkpointfs;"
                                         " CREATE TABLE checkpointfs.schema_version (version integer PRIMARY KEY,"
                                         " applied_at timestamptz NOT NULL DEFAULT now()); INSERT INTO checkpointfs.schema_version"
                                         " SELECT generate_series(1, %d)", version);

    new_database();
    for (int i = -1; i <= version; i++) {
        cleanup_free char *all = str_format("SET search_path = checkpointfs, pg_catalog; %s",
                                            i < 0 ? made : i < version ? store_migrations[i] : rows);
        cleanup_free char *out = sql_in(NULL, "boss", all);

        if (out && str_starts(out, "ERROR"))
            fail_msg("%s", out);
    }
}

/* A store of version 1: its lines stay as they are, and the next ones name the last of them. */
static void older_lines_are_chained_up(void **state)
{
    static const char old[] =
        "INSERT INTO checkpointfs.lines (project_id, active_branch) VALUES ('p', 'b'), ('q', 'c');"
        "SELECT checkpointfs.append_event(l, c, format('{\"event\":\"old %s\"}', i)) FROM (VALUES (1, 1, 7), (2, 1, NULL),"
        " (3, 1, 8), (4, 1, 7), (5, 1, NULL)) AS v (i, l, c) ORDER BY i";
    static const char new[] =
        "SELECT checkpointfs.append_event(l, c, format('{\"event\":\"new %s\"}', i)) FROM (VALUES (1, 1, 7), (2, 1, NULL),"
        " (3, 1, 8), (4, 1, 7), (5, 1, 9), (6, 2, 10), (7, 2, NULL)) AS v (i, l, c) ORDER BY i";
    cleanup_err struct err err = {0};
    cleanup_free char *owner = NULL;

    (void)state;
    older_store(1, old);
    owner = conninfo_of("boss");
    cleanup_free char *before = sql_in(NULL, "boss", "SELECT string_agg(bytes, '' ORDER BY seq) FROM checkpointfs.events");
    OK(store_migrate(owner, ROLE, &err));
    OK(store_migrate(owner, ROLE, &err));
    sql_is("SELECT string_agg(bytes, '' ORDER BY seq) FROM checkpointfs.events", before);
    cleanup_free char *out = sql_in(NULL, ROLE, new);
    assert_false(out && str_starts(out, "ERROR"));
    sql_is("SELECT string_agg(seq::text, ',' ORDER BY line_id) FROM checkpointfs.event_heads", "10,2");
    sql_is("SELECT string_agg(n::text, ',' ORDER BY checkpoint_id) FROM checkpointfs.history_heads", "4,2,1,1");
    sql_is("SELECT min(seq) FROM checkpointfs.events WHERE position('\"hash\"'::bytea IN bytes) > 0 AND line_id = 1", "6");
    chain_holds();
}

/* A store of version 7: where its restores came from is kept from now on; of what was deleted before, the journal may tell it. */
static void places_of_older_restores_are_found(void **state)
{
    static const char old[] =
        "INSERT INTO lines (project_id, active_branch) VALUES ('p', 'b');"
        "INSERT INTO checkpoints (id, uid, line_id, name, taken_name, seq, phase, taken_on) VALUES (1, 'a', 1, 'a', 'a', 1, 'saved', 0),"
        " (4, 'd', 1, 'd', 'd', 4, 'saved', 5);" /* 2 was taken again as 3, on branch 5, and deleted; 9 was imported and deleted */
        "INSERT INTO actions (id, uid, kind, state, line_id, project_id, checkpoint_id, mount_id, by, isolated_id) SELECT id, 'act-' || id,"
        " kind, state, 1, 'p', k, 1, '{}', i FROM (VALUES (2, 'take', 'failed', NULL, 5), (3, 'take', 'done', NULL, 5),"
        "  (10, 'restore', 'done', 1, 0), (11, 'restore', 'done', NULL, 0), (12, 'restore', 'done', NULL, 0),"
        "  (13, 'branch', 'refused', 4, 5),"
        "  (14, 'branch', 'done', 1, 5), (15, 'promote', 'done', 1, 5), (16, 'adopt', 'done', NULL, 0), (17, 'branch', 'done', 4, 6),"
        "  (18, 'branch', 'done', NULL, 7), (19, 'restore', 'done', 4, 0)) AS v (id, kind, state, k, i);"
        "INSERT INTO isolated_branches (id, line_id, checkpoint_id, name, made_by) VALUES (6, 1, 4, 'x', 17);" /* 5 and 7 were deleted */
        "INSERT INTO restores (action_id, line_id, checkpoint_id, old_branch, new_branch, old_attempt, old_offline_by, old_closed,"
        " isolated_id) SELECT id, 1, k, 'o', 'n', 0, 0, false, i FROM (VALUES (10, 1, 0), (11, 2, 0), (12, 9, 0), (15, 1, 5), (16, 0, 0))"
        " AS v (id, k, i);"
        "SELECT append_event(1, 2, format('{\"event\":\"checkpoint.requested\",\"action\":\"act-%s\"}', i))"
        " FROM (VALUES (2), (3), (11)) v (i);"
        "SELECT append_event(1, 9, '{\"event\":\"checkpoint.imported\"}')";
    cleanup_err struct err err = {0};
    cleanup_free char *owner = NULL;

    (void)state;
    older_store(7, old);
    owner = conninfo_of("boss");
    OK(store_migrate(owner, ROLE, &err));
    sql_is("SELECT string_agg(concat_ws(' ', id, from_seq, from_on), ', ' ORDER BY id) FROM checkpointfs.stretches",
           "-7 18, -6 4 5, -5 1 0, 10 1 0, 11 3 5, 12 4, 15 15 5");
    cleanup_free char *out = sql_in(NULL, ROLE, "INSERT INTO checkpointfs.restores (action_id, line_id, checkpoint_id, old_branch,"
                                    " new_branch, old_attempt, old_offline_by, old_closed) VALUES (19, 1, 4, 'o', 'n', 0, 0, false)");
    assert_null(out);
    sql_is("SELECT concat_ws(' ', from_seq, from_on) FROM checkpointfs.stretches WHERE id = 19", "4 5");
    cleanup_free char *refused = sql_in(NULL, ROLE, "UPDATE checkpointfs.stretches SET from_seq = 1");
    assert_true(refused && str_starts(refused, "ERROR"));
}

/* A store of version 8: a state that names another trace than meta.json did is found under its own, too. */
static void second_traces_of_older_states_are_found(void **state)
{
    static const char old[] =
        "INSERT INTO lines (project_id, active_branch) VALUES ('p', 'b');"
        "INSERT INTO checkpoints (id, uid, line_id, name, taken_name, seq, phase) SELECT i, i, 1, i, i, i, 'sealed'"
        " FROM generate_series(1, 4) i;"
        "INSERT INTO states (checkpoint_id, size, sha256, envelope, trace_id) VALUES (1, 0, '', '{\"trace\":{\"id\":\"own\"}}', 'meta'),"
        " (2, 0, '', '{\"trace\":{\"id\":\"same\"}}', 'same'), (3, 0, '', '{}', 'meta'), (4, 0, '', '{\"trace\":null}', NULL)";
    cleanup_err struct err err = {0};
    cleanup_free char *owner = NULL;

    (void)state;
    older_store(8, old);
    owner = conninfo_of("boss");
    OK(store_migrate(owner, ROLE, &err));
    sql_is("SELECT string_agg(concat_ws(' ', checkpoint_id, trace_id, state_trace_id), ', ' ORDER BY checkpoint_id)"
           " FROM checkpointfs.states", "1 meta own, 2 same, 3 meta, 4");
}

/* A store of version 9, whose indexes took no long text. */
static void long_texts_of_older_stores_are_taken(void **state)
{
    static const char old[] =
        "INSERT INTO lines (project_id, active_branch) VALUES ('p', 'b');"
        "INSERT INTO checkpoints (id, uid, line_id, name, taken_name, seq, phase) VALUES (1, 1, 1, 1, 1, 1, 'sealed');"
        "INSERT INTO states (checkpoint_id, size, sha256, envelope, parent) VALUES (1, 0, '', '{}', 'p');"
        "INSERT INTO calls (checkpoint_id, ord, call_id, filename, tool, file, file_size) VALUES (1, 0, 'c', 'c', 't', '', 0)";
    static const char long_ones[] =
        "CREATE TEMP TABLE long AS SELECT string_agg(sha256(i::text::bytea)::text, '') AS x FROM generate_series(1, 100) i;"
        "UPDATE checkpointfs.states SET parent = parent || (SELECT x FROM long);"
        "UPDATE checkpointfs.calls SET tool = tool || (SELECT x FROM long), call_id = call_id || (SELECT x FROM long);"
        "INSERT INTO checkpointfs.actions (uid, kind, state, line_id, project_id, mount_id, by)"
        " VALUES ('a', 'resume', 'done', 1, 'p', 0, '{}');"
        "INSERT INTO checkpointfs.attempts (checkpoint_id, opened_by) VALUES (1, 0);"
        "INSERT INTO checkpointfs.decisions (attempt_id, action_id, call_id, decision, detail)"
        " SELECT a.id, k.id, c.call_id, 'approve', '{}' FROM checkpointfs.attempts a, checkpointfs.actions k, checkpointfs.calls c";
    cleanup_err struct err err = {0};
    cleanup_free char *owner = NULL;
    cleanup_free char *out = NULL;

    (void)state;
    older_store(9, old);
    owner = conninfo_of("boss");
    OK(store_migrate(owner, ROLE, &err));
    out = sql_in(NULL, "boss", long_ones);
    if (out)
        fail_msg("%s", out);
    sql_is("SELECT count(*) FROM checkpointfs.calls c JOIN checkpointfs.decisions USING (call_id) WHERE length(c.tool) > 6000", "1");
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
            __atomic_add_fetch(&w->failed, 1, __ATOMIC_RELAXED);
        else
            __atomic_add_fetch(&w->done, 1, __ATOMIC_RELAXED);
        store_checkpoint_free(&k);
    }
    return NULL;
}

/* Until a reader has read again: a call outlives three cut connections, and a slow machine isn't one that cuts a fourth. */
static void goes_on(struct worker *w)
{
    int before = __atomic_load_n(&w->done, __ATOMIC_RELAXED);

    while (__atomic_load_n(&w->done, __ATOMIC_RELAXED) < before + 2 && __atomic_load_n(&w->failed, __ATOMIC_RELAXED) == 0)
        clock_sleep_ms(1);
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
        for (int j = 0; j < 3; j++)
            goes_on(&w[j]);
        free(out);
        out = sql_in(NULL, "boss", "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = '" ROLE "'");
        assert_non_null(out);
    }
    __atomic_store_n(&stop, true, __ATOMIC_RELEASE);
    for (int i = 0; i < 3; i++)
        pthread_join(w[i].thread, NULL);
    for (int i = 0; i < 3; i++) {
        if (w[i].failed)
            fail_msg("%d calls failed, the last by: %s", w[i].failed, err_text(&w[i].err));
        assert_true(w[i].done > 10);
    }
}

/* ---- an answer that is lost ------------------------------------------------------------------------------------------ */

/* Between store and server: passes everything on, but cuts the connection instead of the answers to the next `cut` commits;
 * with `before` the commit doesn't even reach the server. With `leaves` it is `away` from then on. */
struct proxy {
    pthread_t thread;
    char dir[80];
    int listening;
    int cut;
    bool before;
    bool leaves, away;
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
        __atomic_store_n(&p->away, p->leaves, __ATOMIC_RELEASE);
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
    while (__atomic_load_n(&x->p->away, __ATOMIC_ACQUIRE)) /* the server isn't to hear of it: it would write out that it gave up */
        clock_sleep_ms(1);
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
        if (__atomic_load_n(&p->away, __ATOMIC_ACQUIRE)) {
            close(accept(p->listening, NULL, NULL));
            continue;
        }
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
    if (signal_ != SIGSTOP)
        kill(server, signal_);
}

/* How long each kind of call takes together with a frozen server. */
static int64_t frozen_ms(int64_t one)
{
    cleanup_err struct err err = {0};
    struct store *fresh = NULL;
    cleanup_free char *user = conninfo_of(ROLE);
    int64_t checkpoint, action, start;
    int r;

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
    return start;
}

static void a_frozen_server_costs_two_seconds(void **state)
{
    cleanup_err struct err err = {0};
    int64_t checkpoint, action, took = 0, one = take("one", "br-a");
    const int64_t most = 3 * 2000 + 300 + 1500;

    (void)state;
    for (int i = 0; i < 5 && (took == 0 || took > most); i++)
        took = frozen_ms(one); /* a busy machine may add to it, but not each time */
    if (took > most)
        fail_msg("a frozen server held the caller for %lld ms", (long long)took);
    OK(store_take_begin(store, line.id, mount_row.id, "new", &who, &checkpoint, &action, &err));
    /* and nothing was begun before */
    OK(store_rename(store, one, "renamed", &who, &err));
    OK(finish(action, ACTION_FAILED, EIO, NULL, false, &err));
}

/* ---- a server that is silent ----------------------------------------------------------------------------------------- */

struct ender { pthread_t thread; int64_t action; int result; };

static void *end_it(void *arg)
{
    struct ender *w = arg;

    w->result = finish(w->action, ACTION_FAILED, EIO, NULL, false, NULL);
    return NULL;
}

static bool ends_within(struct ender *w, int seconds)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += seconds;
    return pthread_timedjoin_np(w->thread, NULL, &until) == 0;
}

/* A call that may take half a minute waits for a lock as long as the server answers others, and no longer. */
static void a_silent_server_is_not_waited_for(void **state)
{
    cleanup_err struct err err = {0};
    cleanup_free char *info = conninfo_of("boss");
    PGconn *c = PQconnectdb(info);
    struct ender w = {0};
    int64_t checkpoint, until;

    (void)state;
    OK(store_take_begin(store, line.id, mount_row.id, "new", &who, &checkpoint, &w.action, &err));
    PQclear(PQexec(c, "BEGIN; SELECT 1 FROM checkpointfs.lines FOR UPDATE"));
    assert_int_equal(pthread_create(&w.thread, NULL, end_it, &w), 0);
    for (until = clock_mono_ms() + 3000; clock_mono_ms() < until; clock_sleep_ms(100)) {
        OK(store_mount_beat(store, mount_row.id, &err));
        store_unanswered(store);
        assert_int_equal(pthread_tryjoin_np(w.thread, NULL), EBUSY);
    }
    signal_all(SIGSTOP);
    while (store_mount_beat(store, mount_row.id, NULL) == 0) {
    }
    store_unanswered(store);
    bool ended = ends_within(&w, 22);
    signal_all(SIGCONT);
    PQclear(PQexec(c, "COMMIT"));
    PQfinish(c);
    if (!ended)
        pthread_join(w.thread, NULL);
    assert_true(ended);
    assert_int_equal(w.result, -ETIMEDOUT);
    OK(finish(w.action, ACTION_FAILED, EIO, NULL, false, &err));
}

/* ---- a server that crashes ------------------------------------------------------------------------------------------- */

/* All of it at once, as when the power fails, and starts it again. */
static void crash(void)
{
    signal_all(SIGSTOP); /* children of a dead server are nobody's */
    signal_all(SIGKILL);
    waitpid(server, NULL, 0);
    start_server();
}

static int64_t next_number(void)
{
    cleanup_free char *n = sql_in(NULL, "boss", "SELECT pg_current_xact_id()");

    return n ? strtoll(n, NULL, 10) : 0;
}

/* A call whose COMMIT is lost with the server, while others write before it can ask. Whether they got the number that its transaction had:
 * not where that was written already. */
static bool number_is_given_again(struct proxy *p, struct ender *w)
{
    int64_t number = next_number() + 1;
    cleanup_free char *sql = str_format("SELECT pg_xact_status('%lld'::xid8)", (long long)number);
    cleanup_free char *became = NULL;

    __atomic_store_n(&p->cut, 1, __ATOMIC_RELEASE);
    assert_int_equal(pthread_create(&w->thread, NULL, end_it, w), 0);
    while (!__atomic_load_n(&p->away, __ATOMIC_ACQUIRE))
        clock_sleep_ms(1);
    crash();
    for (int i = 0; next_number() < number + 5; i++)
        assert_true(i < 1000);
    became = sql_in(NULL, "boss", sql);
    __atomic_store_n(&p->away, false, __ATOMIC_RELEASE);
    pthread_join(w->thread, NULL);
    return str_equal(became, "committed");
}

static void a_number_that_another_got_proves_nothing(void **state)
{
    cleanup_err struct err err = {0};
    struct proxy p = {.before = true, .leaves = true};
    struct store *own = store;
    bool again = false;
    int n;

    (void)state;
    proxy_start(&p);
    cleanup_free char *info = str_format("host=%s port=5432 user=" ROLE " dbname=t%d password=s3cret-word", p.dir, databases);
    OK(store_open(info, 2, &store, &err));
    for (n = 0; n < 5 && !again; n++) {
        cleanup_free char *name = str_format("n%d", n);
        struct ender w = {0};
        int64_t checkpoint;

        OK(store_take_begin(store, line.id, mount_row.id, name, &who, &checkpoint, &w.action, &err));
        again = number_is_given_again(&p, &w);
        assert_int_equal(w.result, 0);
        sql_is("SELECT count(*) FROM checkpointfs.actions WHERE state <> 'failed'", "0");
    }
    assert_true(again);
    assert_int_equal(events_named("checkpoint.failed"), n);
    store_close(store);
    store = own;
    __atomic_store_n(&p.stop, true, __ATOMIC_RELEASE);
    pthread_join(p.thread, NULL);
    close(p.listening);
}

/* Someone else holds the line's lock: a name answers within 2 s, and nothing changed. A busy machine may add to that, but not each time. */
static void a_locked_line_costs_two_seconds(void **state)
{
    cleanup_err struct err err = {0};
    cleanup_free char *info = conninfo_of("boss");
    PGconn *c = PQconnectdb(info);
    int64_t start, least = INT64_MAX, one = take("one", "br-a");

    (void)state;
    PQclear(PQexec(c, "BEGIN; SELECT 1 FROM checkpointfs.lines FOR UPDATE"));
    for (int i = 0; i < 10 && least >= 2500; i++) {
        start = clock_mono_ms();
        REFUSED(EIO, store_rename(store, one, "renamed", &who, &err));
        if (clock_mono_ms() - start < least)
            least = clock_mono_ms() - start;
    }
    assert_true(least < 2500);
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
    assert_true(PQsendQuery(c, "DO $$BEGIN WHILE NOT EXISTS (SELECT 1 FROM pg_locks WHERE NOT granted) LOOP PERFORM pg_sleep(0.005);"
                               " END LOOP; END$$; SELECT 1 FROM checkpointfs.lines FOR UPDATE; COMMIT"));
    OK(put_meta(one, "{}", 2, false, &err));
    for (PGresult *r; (r = PQgetResult(c)); PQclear(r))
        ;
    PQfinish(c);
    assert_int_equal(events_named("meta.changed"), 1);
    for (int i = 0; i < 150; i++) { /* a server tells its statistics late */
        cleanup_free char *out = sql_in(NULL, "boss", "SELECT deadlocks > 0 FROM pg_stat_database WHERE datname = current_database()");

        if (str_equal(out, "t"))
            return;
        clock_sleep_ms(100);
    }
    fail_msg("there was no deadlock");
}

static void probing(void **state)
{
    cleanup_err struct err err = {0};
    cleanup_free char *good = conninfo("boss", "postgres");
    cleanup_free char *wrong = str_format("host=%s port=5432 user=boss dbname=postgres password=wr0ng", base);
    atomic_bool cancelled = false;
    int64_t start;

    (void)state;
    OK(database_probe(good, NULL, clock_mono_ms() + 60000, &err));
    OK(database_probe(good, &cancelled, clock_mono_ms() + 60000, &err));
    REFUSED(EACCES, database_probe(wrong, NULL, clock_mono_ms() + 20000, &err));
    atomic_store(&cancelled, true);
    start = clock_mono_ms();
    REFUSED(ECANCELED, database_probe("host=127.0.0.1 port=1", &cancelled, clock_mono_ms() + 60000, &err));
    assert_true(clock_mono_ms() - start < 60000);
    stop_server(0);
    REFUSED(ETIMEDOUT, database_probe(good, NULL, clock_mono_ms() + 300, &err));
    start_server();
    OK(database_probe(good, NULL, clock_mono_ms() + 60000, &err));
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
    for (int i = 0; i < 20; i++)
        goes_on(&w[i]);
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
        T(a_line_ends_with_its_place),
        T(the_logs_function_uses_nothing_of_its_caller),
        cmocka_unit_test(older_lines_are_chained_up),
        cmocka_unit_test(places_of_older_restores_are_found),
        cmocka_unit_test(second_traces_of_older_states_are_found),
        cmocka_unit_test(long_texts_of_older_stores_are_taken),
        cmocka_unit_test(errors_name_no_secret),
        T(reads_survive_cut_connections),
        T(a_lost_answer_is_found_out),
        T(a_locked_line_costs_two_seconds),
        T(deadlocks_are_tried_again),
        T(callers_wait_for_a_connection),
        T(a_frozen_server_costs_two_seconds), T(a_silent_server_is_not_waited_for),
        T(a_number_that_another_got_proves_nothing),
        T(the_pool_heals_after_a_restart),
        T(probing),
    };

    return cmocka_run_group_tests(tests, fixture_up, fixture_down);
}
