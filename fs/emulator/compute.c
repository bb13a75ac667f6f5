/* Computes: the PostgreSQL server of a branch, started and stopped as its endpoint asks. */
#include "emulator/compute.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "emulator/copy.h"
#include "emulator/js.h"
#include "util/cleanup.h"
#include "util/text.h"

/* Sized for a laptop with ten branches. Replication settings let a copy hold its WAL by a slot. */
static const char *const settings[] = {
    "shared_buffers=16MB",
    "max_connections=60",
    "superuser_reserved_connections=3",
    "wal_level=replica",
    "max_wal_senders=4",
    "max_replication_slots=4",
    "min_wal_size=16MB",
    "max_wal_size=256MB",
    "wal_recycle=on",
    "max_worker_processes=4",
    "max_parallel_workers=2",
    "max_logical_replication_workers=0",
    "autovacuum_max_workers=1",
    "huge_pages=off",
    "jit=off",
    "recovery_init_sync_method=syncfs",
    "password_encryption=scram-sha-256",
    "log_min_error_statement=panic",
    "log_checkpoints=off",
    "restart_after_crash=on",
    NULL,
};

char *compute_branch_dir(const struct emulator *e, const char *branch)
{
    return js_format("%s/branches/%s", e->dir, branch);
}

char *compute_snapshot_dir(const struct emulator *e, const char *snapshot)
{
    return js_format("%s/snapshots/%s", e->dir, snapshot);
}

static int start_in(struct emulator *e, const char *datadir, const char *name, int port, struct err *err)
{
    cleanup_free char *log = js_format("%s/log/%s.log", e->dir, name);
    struct pgserver_start start = {
        .datadir = datadir, .listen = "127.0.0.1", .port = port, .log_file = log, .settings = settings};
    pid_t pid;
    return pgserver_start(&e->pg, &start, &pid, err);
}

bool compute_running(struct emulator *e, const char *branch, int *ret_port)
{
    cleanup_free char *dir = compute_branch_dir(e, branch);
    struct pgserver_status status;
    if (pgserver_status(dir, &status) < 0 || !status.pid || !status.ready)
        return false;
    if (ret_port)
        *ret_port = status.port;
    return true;
}

int compute_start(struct emulator *e, const char *branch, int port, struct err *err)
{
    int have = 0;
    if (compute_running(e, branch, &have) && have == port)
        return 0;
    cleanup_free char *dir = compute_branch_dir(e, branch);
    int r = pgserver_end_all(dir);
    if (r < 0)
        return err_set(err, -r, "branch %s: can't end its old server: %s", branch, strerror(-r));
    return start_in(e, dir, branch, port, err);
}

int compute_stop(struct emulator *e, const char *branch)
{
    cleanup_free char *dir = compute_branch_dir(e, branch);
    int r = pgserver_end_all(dir);
    return r == -ENOENT ? 0 : r;
}

static int connect_port(struct emulator *e, int port, const char *database, PGconn **ret_conn, struct err *err)
{
    cleanup_free char *text = js_format("%d", port);
    const char *keys[] = {"host", "port", "user", "password", "dbname", "connect_timeout", "application_name", "sslmode", NULL};
    const char *values[] = {"127.0.0.1", text, EMULATOR_SUPERUSER, e->password, database, "10", "neon-emulator", "disable", NULL};
    PGconn *conn = PQconnectdbParams(keys, values, 0);
    if (PQstatus(conn) == CONNECTION_OK) {
        *ret_conn = conn;
        return 0;
    }
    cleanup_free char *words = js_strdup(PQerrorMessage(conn));
    words[strcspn(words, "\n")] = '\0';
    PQfinish(conn);
    return err_set(err, EIO, "can't connect to the compute: %s", words);
}

int compute_session_attach(struct emulator *e, const char *branch, const char *database, struct compute_session *ret_session,
                           struct err *err)
{
    int port;
    if (!compute_running(e, branch, &port))
        return err_set(err, ENOTCONN, "branch %s: no compute runs", branch);
    struct compute_session s = {.e = e};
    int r = connect_port(e, port, database, &s.conn, err);
    if (r < 0)
        return r;
    s.branch = js_strdup(branch);
    *ret_session = s;
    return 0;
}

int compute_session_open(struct emulator *e, const char *branch, const char *database, struct compute_session *ret_session,
                         struct err *err)
{
    struct compute_session s = {.e = e};
    int port = 0;
    if (!compute_running(e, branch, &port)) {
        int r = pgserver_free_port("127.0.0.1", NULL, 0, &port, err);
        if (r == 0)
            r = compute_start(e, branch, port, err);
        if (r < 0)
            return r;
        s.temporary = true;
    }
    s.branch = js_strdup(branch);
    int r = connect_port(e, port, database, &s.conn, err);
    if (r < 0)
        compute_session_close(&s);
    else
        *ret_session = s;
    return r;
}

void compute_session_close(struct compute_session *session)
{
    if (session->conn)
        PQfinish(session->conn);
    if (session->temporary)
        compute_stop(session->e, session->branch);
    free(session->branch);
    *session = (struct compute_session){0};
}

static int failed(PGconn *conn, struct err *err)
{
    cleanup_free char *words = js_strdup(PQerrorMessage(conn));
    words[strcspn(words, "\n")] = '\0';
    return err_set(err, EIO, "%s", words);
}

int compute_exec(PGconn *conn, const char *sql, struct err *err)
{
    PGresult *result = PQexec(conn, sql);
    ExecStatusType status = PQresultStatus(result);
    int r = status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK ? 0 : failed(conn, err);
    PQclear(result);
    return r;
}

/* The server gets the verifier and never the password, so its log can't hold it. */
static int verifier(PGconn *conn, const char *name, const char *password, char **ret_literal, struct err *err)
{
    char *secret = PQencryptPasswordConn(conn, password, name, "scram-sha-256");
    char *literal = secret ? PQescapeLiteral(conn, secret, strlen(secret)) : NULL;
    PQfreemem(secret);
    if (!literal)
        return failed(conn, err);
    *ret_literal = literal;
    return 0;
}

int compute_set_password(PGconn *conn, const char *name, const char *password, struct err *err)
{
    char *literal = NULL, *quoted = PQescapeIdentifier(conn, name, strlen(name));
    int r = quoted ? verifier(conn, name, password, &literal, err) : failed(conn, err);
    if (r == 0) {
        cleanup_free char *sql = js_format("ALTER ROLE %s PASSWORD %s", quoted, literal);
        r = compute_exec(conn, sql, err);
    }
    PQfreemem(literal);
    PQfreemem(quoted);
    return r;
}

int compute_create_role(PGconn *conn, const char *name, const char *password, bool login, struct err *err)
{
    char *quoted = PQescapeIdentifier(conn, name, strlen(name));
    if (!quoted)
        return failed(conn, err);
    cleanup_free char *sql = js_format(
        "CREATE ROLE %s %s INHERIT CREATEROLE CREATEDB BYPASSRLS REPLICATION IN ROLE neon_superuser", quoted,
        login ? "LOGIN" : "NOLOGIN");
    PQfreemem(quoted);
    int r = compute_exec(conn, sql, err);
    return r == 0 && login ? compute_set_password(conn, name, password, err) : r;
}

int compute_create_database(PGconn *conn, const char *name, const char *owner, struct err *err)
{
    char *quoted = PQescapeIdentifier(conn, name, strlen(name));
    char *quoted_owner = PQescapeIdentifier(conn, owner, strlen(owner));
    int r = 0;
    if (!quoted || !quoted_owner) {
        r = failed(conn, err);
    } else {
        cleanup_free char *sql = js_format("CREATE DATABASE %s OWNER %s", quoted, quoted_owner);
        r = compute_exec(conn, sql, err);
    }
    PQfreemem(quoted);
    PQfreemem(quoted_owner);
    return r;
}

int compute_init(struct emulator *e, const char *branch, const char *role, const char *role_password, const char *database,
                 struct err *err)
{
    cleanup_free char *dir = compute_branch_dir(e, branch);
    int r = compute_stop(e, branch);
    if (r == 0)
        r = copy_remove(dir);
    if (r < 0)
        return err_set(err, -r, "%s: %s", dir, strerror(-r));
    /* Segments of 1 MB: each copy of a running branch holds at least one. */
    struct pgserver_cluster cluster = {
        .datadir = dir, .superuser = EMULATOR_SUPERUSER, .password = e->password, .wal_segment_mb = 1};
    r = pgserver_initdb(&e->pg, &cluster, err);
    struct compute_session s;
    if (r == 0)
        r = compute_session_open(e, branch, "postgres", &s, err);
    if (r < 0)
        return r;
    r = compute_exec(s.conn,
                     "CREATE ROLE neon_superuser NOLOGIN CREATEDB CREATEROLE BYPASSRLS REPLICATION "
                     "IN ROLE pg_read_all_data, pg_write_all_data, pg_monitor",
                     err);
    if (r == 0)
        r = compute_create_role(s.conn, role, role_password, true, err);
    if (r == 0)
        r = compute_create_database(s.conn, database, role, err);
    compute_session_close(&s);
    return r == 0 ? copy_sync(dir, err) : r;
}
