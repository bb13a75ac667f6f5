/* A private PostgreSQL with the schema, for the tests of the store: one server per program, a fresh database per test. */
#ifndef STORE_FIXTURE_H
#define STORE_FIXTURE_H

#include <dirent.h>
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
#include <unistd.h>

#include <cmocka.h>
#include <libpq-fe.h>

#include "pgserver/pgserver.h"
#include "store/store.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/hash.h"
#include "util/text.h"

#define ROLE "ckpt_mount"

static char base[64];
static struct pgserver pg;
static pid_t server;
static int databases;
static struct store *store; /* opened as the mount's role */
static struct store_line line;
static struct store_mount mount_row;
static const struct store_who who = {.uid = 1000, .gid = 100, .pid = 4711, .user = "ada", .command = "bash", .host = "h1"};

#define OK(call) ok_at((call), &err, __LINE__)
#define REFUSED(code, call) refused_at((code), (call), &err, __LINE__)

static inline void ok_at(int r, struct err *e, int at)
{
    if (r < 0)
        fail_msg("line %d: %d: %s", at, r, err_text(e));
}

/* A refusal has the right errno and says something. */
static inline void refused_at(int code, int r, struct err *e, int at)
{
    if (r != -code)
        fail_msg("line %d: %d instead of -%d: %s", at, r, code, e->text ? e->text : "");
    if (!e->text || !*e->text)
        fail_msg("line %d: refused without a word", at);
    err_clear(e);
}

static inline void start_server(void)
{
    static const char *const settings[] = {"fsync=off", "deadlock_timeout=600ms", "shared_buffers=64MB", "max_connections=60",
                                           "log_statement=none",
                                           /* nothing but a commit writes the log out, so that a crash loses what wasn't committed */
                                           "wal_writer_delay=10s", "wal_level=minimal", "max_wal_senders=0", "bgwriter_lru_maxpages=0",
                                           "autovacuum=off", NULL};
    cleanup_free char *data = str_format("%s/data", base);
    cleanup_free char *log = str_format("%s/log", base);
    cleanup_err struct err err = {0};
    struct pgserver_start s = {.datadir = data, .listen = "", .port = 5432, .socket_dir = base, .log_file = log,
                               .settings = settings};

    OK(pgserver_start(&pg, &s, &server, &err));
}

static inline int fixture_up(void **state)
{
    cleanup_err struct err err = {0};
    cleanup_free char *data = NULL;

    (void)state;
    strcpy(base, "/tmp/st-XXXXXX");
    assert_non_null(mkdtemp(base));
    OK(pgserver_find(0, &pg, &err));
    if (pg.drop)
        assert_int_equal(chown(base, pg.uid, pg.gid), 0);
    assert_int_equal(chmod(base, 0755), 0);
    data = str_format("%s/data", base);
    struct pgserver_cluster c = {.datadir = data, .superuser = "boss", .password = "s3cret-word"};
    OK(pgserver_initdb(&pg, &c, &err));
    start_server();
    return 0;
}

static inline int fixture_down(void **state)
{
    cleanup_free char *command = str_format("rm -rf '%s'", base);

    (void)state;
    pgserver_stop(server, 0);
    pgserver_clear(&pg);
    return system(command);
}

static inline char *conninfo(const char *user, const char *database)
{
    return str_format("host=%s port=5432 user=%s dbname=%s password=s3cret-word", base, user, database);
}

/* The present test's database. */
static inline char *conninfo_of(const char *user)
{
    cleanup_free char *database = str_format("t%d", databases);

    return conninfo(user, database);
}

/* Runs SQL as a superuser in the present test's database (or `database`); the first column of the first row, owned by the
 * caller. */
static inline char *sql_in(const char *database, const char *user, const char *sql)
{
    cleanup_free char *info = database ? conninfo(user, database) : conninfo_of(user);
    PGconn *c = PQconnectdb(info);
    PGresult *r = PQexec(c, sql);
    char *out = NULL;

    if (PQresultStatus(r) != PGRES_TUPLES_OK && PQresultStatus(r) != PGRES_COMMAND_OK)
        out = str_format("ERROR %s", PQresultErrorField(r, PG_DIAG_SQLSTATE) ? PQresultErrorField(r, PG_DIAG_SQLSTATE) :
                         PQerrorMessage(c));
    else if (PQntuples(r) > 0 && !PQgetisnull(r, 0, 0))
        out = strdup(PQgetvalue(r, 0, 0));
    PQclear(r);
    PQfinish(c);
    return out;
}

static inline void sql_is(const char *sql, const char *wanted)
{
    cleanup_free char *got = sql_in(NULL, "boss", sql);

    if (!str_equal(got, wanted))
        fail_msg("%s: %s instead of %s", sql, got ? got : "null", wanted ? wanted : "null");
}

/* Every line of the log is chained to the one before, in the log and in its checkpoint's history, and the heads are the last
 * ones'; what was written before there were chains comes first and counts with the hash of the whole line. */
static inline void chain_holds(void)
{
    sql_is("WITH l AS (SELECT *, rtrim(convert_from(bytes, 'UTF8'), E'\\n') AS t FROM checkpointfs.events),"
           " m AS (SELECT *, regexp_match(t, '^(.*,\"seq\":(\\d+),\"prev\":\"([0-9a-f]{64})\"(?:,\"checkpoint_seq\":(\\d+),"
           "\"checkpoint_prev\":\"([0-9a-f]{64})\")?),\"hash\":\"([0-9a-f]{64})\"}$') AS a FROM l),"
           " h AS (SELECT *, coalesce(a[6], encode(sha256(convert_to(t, 'UTF8')), 'hex')) AS hash FROM m),"
           " c AS (SELECT *, lag(hash, 1, repeat('0', 64)) OVER log AS before, lag(a) OVER log IS NOT NULL AS chained,"
           "  lag(hash, 1, repeat('0', 64)) OVER history AS history_before, row_number() OVER history AS n FROM h"
           "  WINDOW log AS (PARTITION BY line_id ORDER BY seq), history AS (PARTITION BY checkpoint_id ORDER BY history_off)),"
           " ok AS (SELECT CASE WHEN a IS NULL THEN NOT chained AND position('\"hash\"' IN t) = 0"
           "  ELSE a[6] = encode(sha256(convert_to(a[1] || '}', 'UTF8')), 'hex') AND a[2] = seq::text AND a[3] = before"
           "  AND CASE WHEN checkpoint_id IS NULL THEN a[4] IS NULL ELSE a[4] = n::text AND a[5] = history_before END END AS it FROM c)"
           "SELECT (SELECT bool_and(it IS TRUE) FROM ok)"
           " AND (SELECT bool_and(e.hash = (SELECT hash FROM h WHERE h.line_id = e.line_id ORDER BY seq DESC LIMIT 1))"
           "  FROM checkpointfs.event_heads e)"
           " AND coalesce((SELECT bool_and(e.hash = (SELECT hash FROM h WHERE h.checkpoint_id = e.checkpoint_id"
           "  ORDER BY history_off DESC LIMIT 1)) FROM checkpointfs.history_heads e), true)", "t");
}

static inline void new_database(void)
{
    cleanup_free char *create = str_format("CREATE DATABASE t%d TEMPLATE template0 ENCODING 'UTF8'", ++databases);
    cleanup_free char *out = sql_in("postgres", "boss", create);

    assert_null(out);
}

static inline int open_store(void **state)
{
    cleanup_err struct err err = {0};
    cleanup_free char *owner = NULL;
    cleanup_free char *user = NULL;
    cleanup_free char *out = NULL;

    (void)state;
    new_database();
    owner = conninfo_of("boss");
    user = conninfo_of(ROLE);
    OK(store_migrate(owner, ROLE, &err));
    out = sql_in(NULL, "boss", "ALTER ROLE " ROLE " PASSWORD 's3cret-word'");
    assert_null(out);
    OK(store_open(user, 6, &store, &err));
    OK(store_line_create(store, "proj-1", "br-a", "ep-1", &line, &err));
    mount_row = (struct store_mount){.host = "h1", .boot_id = "boot-1", .pid = getpid(), .pid_start = 77, .mountpoint = "/mnt",
                                     .can_resume = true};
    OK(store_mount_register(store, line.id, &mount_row, &err));
    return 0;
}

/* The same database as another mount's process opens it. */
static inline struct store *open_again(void)
{
    cleanup_err struct err err = {0};
    cleanup_free char *user = conninfo_of(ROLE);
    struct store *s = NULL;

    OK(store_open(user, 2, &s, &err));
    return s;
}

static inline int close_store(void **state)
{
    (void)state;
    store_line_free(&line);
    store_close(store);
    store = NULL;
    return 0;
}

static inline struct buf text(const char *s)
{
    struct buf b = {0};

    buf_adds(&b, s);
    return b;
}

/* A checkpoint whose snapshot of `branch` has settled. */
static inline int64_t take(const char *name, const char *branch)
{
    cleanup_err struct err err = {0};
    cleanup_buf struct buf snapshot_json = text("{\"id\":\"snap\"}\n");
    cleanup_buf struct buf checkpoint_json = text("{\"id\":\"ck\"}\n");
    cleanup_free char *id = str_format("snap-%s", name);
    struct store_snapshot snap = {.id = id, .name = id, .project_id = (char *)(uintptr_t)"proj-1",
                                  .branch_id = (char *)(uintptr_t)branch,
                                  .requested_at = 1000, .captured_at = 2000, .full_size = -1, .diff_size = -1};
    int64_t checkpoint = 0;
    int64_t action = 0;

    OK(store_take_begin(store, line.id, mount_row.id, name, &who, &checkpoint, &action, &err));
    assert_int_equal(store_turn(store, action, &err), 1);
    OK(store_take_settled(store, action, &snap, &snapshot_json, &checkpoint_json, "{\"take\":1}\n", &err));
    return checkpoint;
}

/* Seals with two calls that wait, `c1` and `c2`. */
static inline int seal_as(int64_t checkpoint, const void *bytes, size_t n, const char *parent, struct err *e)
{
    cleanup_buf struct buf checkpoint_json = text("{\"sealed\":true}\n");
    cleanup_buf struct buf transcript = text("# run\n");
    struct buf files[2] = {text("{\"id\":\"c1\"}\n"), text("{\"id\":\"c2\"}\n")};
    struct store_call calls[2] = {{.call_id = (char *)(uintptr_t)"c1", .filename = (char *)(uintptr_t)"c1.json",
                                   .tool = (char *)(uintptr_t)"drop_users_table", .arguments = (char *)(uintptr_t)"{\"x\":1}",
                                   .agent = (char *)(uintptr_t)"db", .arguments_sha256 = (char *)(uintptr_t)"aa"},
                                  {.call_id = (char *)(uintptr_t)"c2", .filename = (char *)(uintptr_t)"c2.json",
                                   .tool = (char *)(uintptr_t)"send_mail", .arguments = (char *)(uintptr_t)"\xff\x01 not utf-8",
                                   .arguments_sha256 = (char *)(uintptr_t)"bb"}};
    char sha256[SHA256_HEX_SIZE];
    struct store_seal s = {.bytes = bytes, .n = n, .sha256 = sha256, .envelope = "{\"tools\":[\"drop_users_table\"]}",
                           .run_id = "run-1",
                           .step_id = "s1", .parent = parent, .framework = "openai-agents", .partial_ok = true,
                           .checkpoint_json = &checkpoint_json, .transcript = &transcript, .calls = calls, .call_files = files,
                           .n_calls = 2, .by = 4711};
    cleanup_buf struct buf meta = {0};
    int r;

    if (store_read_file(store, checkpoint, FILE_META, &meta, NULL) == 0)
        s.meta = &meta;
    assert_int_equal(sha256_hex(bytes, n, sha256), 0);
    r = store_seal(store, checkpoint, &s, &who, e);
    buf_free(&files[0]);
    buf_free(&files[1]);
    return r;
}

/* Replaces meta.json, whatever it is. */
static inline int put_meta(int64_t checkpoint, const char *bytes, size_t n, bool sealed, struct err *e)
{
    cleanup_buf struct buf before = {0};
    int r = store_read_file(store, checkpoint, FILE_META, &before, e);

    return r && r != -ENOENT ? r : store_meta_put(store, checkpoint, r ? NULL : &before, bytes, n, sealed, &who, e);
}

static inline void seal(int64_t checkpoint)
{
    cleanup_err struct err err = {0};

    OK(seal_as(checkpoint, "{\"a\":1}", 7, NULL, &err));
}

static inline int begin_with(enum action_kind kind, int64_t checkpoint, const char *decisions, bool again,
                             struct store_action *ret, struct err *e)
{
    struct store_begin b = {.kind = kind, .line_id = line.id, .mount_id = mount_row.id, .checkpoint = checkpoint, .again = again,
                            .command = "words", .decisions = decisions, .who = &who};

    return store_action_begin(store, &b, ret, e);
}

#define APPROVE                                                                                                                  \
    "{\"decisions\":[{\"id\":\"c1\",\"decision\":\"approve\"},{\"id\":\"c2\",\"decision\":\"reject\",\"message\":\"no\"}]}"

static inline int begin(enum action_kind kind, int64_t checkpoint, struct store_action *ret, struct err *e)
{
    bool decides = kind == ACTION_RESUME || kind == ACTION_REPLAY;

    store_action_free(ret);
    return begin_with(kind, checkpoint, decides ? APPROVE : NULL, false, ret, e);
}

static inline int finish(int64_t action, enum action_state state, int code, const char *outcome, bool release, struct err *e)
{
    struct store_finish f = {.state = state, .code = code, .message = code ? "why" : NULL, .doc = "{\"end\":1}\n",
                             .outcome = outcome,
                             .release_decision = release};

    return store_action_finish(store, action, &f, e);
}

/* Restores in place: from the claim to the end. */
static inline void restore(int64_t checkpoint, const char *old_branch, const char *new_branch)
{
    cleanup_err struct err err = {0};
    struct store_action a = {0};

    OK(begin(ACTION_RESTORE, checkpoint, &a, &err));
    assert_int_equal(store_turn(store, a.id, &err), 1);
    OK(store_restore_done(store, a.id, new_branch, old_branch, "old (replaced)", "ep-1", NULL, &err));
    OK(finish(a.id, ACTION_DONE, 0, NULL, false, &err));
    store_action_free(&a);
}

static inline struct store_checkpoint get(int64_t checkpoint)
{
    cleanup_err struct err err = {0};
    struct store_checkpoint k = {0};

    OK(store_checkpoint(store, checkpoint, &k, &err));
    return k;
}

/* How often an event of that name is in the log. */
static inline int events_named(const char *what)
{
    cleanup_err struct err err = {0};
    cleanup_buf struct buf log = {0};
    cleanup_free char *key = str_format("\"event\":\"%s\"", what);
    int n = 0;

    OK(store_read_events(store, line.id, 0, 64 << 20, &log, &err));
    for (const char *p = log.data; p && (p = strstr(p, key)); p += strlen(key))
        n++;
    return n;
}

#endif
