/* The store's private PostgreSQL: a cluster below DIR/store, reached only by a Unix socket, with two roles and one database. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <libpq-fe.h>

#include "local_i.h"
#include "util/cleanup.h"
#include "util/hash.h"
#include "util/log.h"
#include "util/text.h"

#define DATABASE "checkpointfs"
#define OWNER_ROLE "checkpointfs_owner"
#define MOUNT_ROLE "checkpointfs"
#define SUPERUSER "postgres"
#define PORT 5432 /* of no TCP port: it names the socket */
#define PASSWORD_DIGITS 32

/* ---- store.json ---- */

static const char *secret(const json_t *doc, const char *name)
{
    const char *value = json_string_value(json_object_get(doc, name));

    return value ? value : "";
}

static int make_secrets(const char *dir, json_t **ret, struct err *e)
{
    static const char *const names[] = {"superuser_password", "owner_password", "mount_password"};
    cleanup_json json_t *doc = json_object();
    char hex[PASSWORD_DIGITS + 1];
    int r;

    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (random_hex(hex, PASSWORD_DIGITS))
            return err_set(e, EIO, "no random numbers for the store's passwords");
        if (json_object_set_new(doc, names[i], json_string(hex)))
            return err_set(e, ENOMEM, "out of memory");
    }
    r = local_write_json(dir, "store.json", doc, e);
    if (r == 0)
        *ret = json_incref(doc);
    return r;
}

/* Passwords are written down before the cluster gets them, so that a kill between the two locks nobody out. */
static int load_secrets(const char *dir, const char *datadir, json_t **ret, struct err *e)
{
    int r = local_read_json(dir, "store.json", ret, e);

    if (r != -ENOENT)
        return r;
    if (access(datadir, F_OK) == 0)
        return err_set(e, ENOENT, "%s/store.json is missing: without it nobody can log in to the store in %s", dir, datadir);
    return make_secrets(dir, ret, e);
}

/* ---- the cluster ---- */

/* The major that made the cluster; 0 when there is none yet. */
static int major_of(const char *datadir)
{
    cleanup_free char *path = local_path(datadir, "PG_VERSION");
    cleanup_fd int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    char text[8] = "";

    if (fd < 0 || read(fd, text, sizeof text - 1) <= 0)
        return 0;
    return (int)strtol(text, NULL, 10);
}

/* initdb works beside the final place, so that a kill leaves no half cluster that looks like one. */
static int make_cluster(const struct pgserver *pg, const char *datadir, const char *password, struct err *e)
{
    cleanup_free char *fresh = str_format("%s.new", datadir);
    const char *remove[] = {"/bin/rm", "-rf", fresh, NULL};
    struct pgserver_cluster cluster = {.datadir = fresh, .superuser = SUPERUSER, .password = password};
    int r;

    if (!fresh)
        return err_set(e, ENOMEM, "out of memory");
    r = pgserver_run(pg, remove, NULL, e);
    if (r == 0)
        r = pgserver_initdb(pg, &cluster, e);
    if (r == 0 && rename(fresh, datadir) < 0)
        r = err_set(e, errno, "can't rename %s: %s", fresh, strerror(errno));
    if (r == 0)
        sync();
    return r;
}

/* ---- the socket's directory ---- */

static bool is_usable(const char *path, uid_t owner)
{
    struct stat st;

    return lstat(path, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == owner && !(st.st_mode & (S_IWGRP | S_IWOTH));
}

/* Others may pass through, since the mount's user isn't PostgreSQL's; only who knows a password gets in. */
static int give_away(const char *path, const struct pgserver *pg)
{
    if (pg->drop && chown(path, pg->uid, pg->gid) < 0)
        return -errno;
    return chmod(path, 0711) < 0 ? -errno : 0;
}

/* A short directory (a socket's path has 107 bytes), the same one over restarts, so that mounts find a restarted server. If that
 * is gone and someone else has taken its name, another one. */
static int make_socket_dir(const char *dir, const struct pgserver *pg, json_t *secrets, char **ret, struct err *e)
{
    cleanup_free char *path = str_dup(json_string_value(json_object_get(secrets, "socket_dir")));
    int r = 0;

    if (path && is_usable(path, pg->uid)) {
        *ret = steal_ptr(&path);
        return 0;
    }
    if (!path || mkdir(path, 0700) < 0) {
        free(path);
        path = strdup("/tmp/ckptfs-XXXXXX");
        if (!path)
            return err_set(e, ENOMEM, "out of memory");
        if (!mkdtemp(path))
            return err_set(e, errno, "can't make a directory in /tmp for the store's socket: %s", strerror(errno));
        if (json_object_set_new(secrets, "socket_dir", json_string(path)))
            return err_set(e, ENOMEM, "out of memory");
        r = local_write_json(dir, "store.json", secrets, e);
    }
    if (r == 0 && (r = give_away(path, pg)) != 0)
        err_set(e, -r, "can't give %s to %s: %s", path, pg->user, strerror(-r));
    if (r) {
        rmdir(path);
        return r;
    }
    *ret = steal_ptr(&path);
    return 0;
}

/* ---- roles and database ---- */

static int pq_error(PGconn *c, const char *what, struct err *e)
{
    cleanup_free char *message = str_dup(PQerrorMessage(c));

    if (message)
        message[strcspn(message, "\n")] = '\0';
    return err_set(e, EIO, "the private store: %s: %s", what, message ? message : "out of memory");
}

static int run_sql(PGconn *c, const char *what, const char *sql, struct err *e)
{
    PGresult *res = sql ? PQexec(c, sql) : NULL;
    bool ok = PQresultStatus(res) == PGRES_COMMAND_OK;

    PQclear(res);
    return ok ? 0 : pq_error(c, what, e);
}

static int exists(PGconn *c, const char *sql, const char *name, bool *ret, struct err *e)
{
    PGresult *res = PQexecParams(c, sql, 1, NULL, &name, NULL, NULL, 0);
    bool ok = PQresultStatus(res) == PGRES_TUPLES_OK;

    if (ok)
        *ret = PQntuples(res) > 0;
    PQclear(res);
    return ok ? 0 : pq_error(c, name, e);
}

/* The password goes over as its SCRAM verifier, so that the server's log never sees it. */
static int ensure_role(PGconn *c, const char *role, const char *password, struct err *e)
{
    cleanup_free char *sql = NULL;
    char *verifier;
    bool there;
    int r = exists(c, "SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = $1", role, &there, e);

    if (r || there)
        return r;
    verifier = PQencryptPasswordConn(c, password, role, "scram-sha-256");
    if (!verifier)
        return pq_error(c, role, e);
    sql = str_format("CREATE ROLE %s LOGIN PASSWORD '%s'", role, verifier);
    PQfreemem(verifier);
    return run_sql(c, role, sql, e);
}

static int ensure_database(PGconn *c, struct err *e)
{
    bool there;
    int r = exists(c, "SELECT 1 FROM pg_catalog.pg_database WHERE datname = $1", DATABASE, &there, e);

    if (r || there)
        return r;
    r = run_sql(c, DATABASE, "CREATE DATABASE " DATABASE " OWNER " OWNER_ROLE, e);
    if (r == 0)
        r = run_sql(c, DATABASE, "REVOKE ALL ON DATABASE " DATABASE " FROM PUBLIC", e);
    if (r == 0)
        r = run_sql(c, DATABASE, "GRANT CONNECT, TEMPORARY ON DATABASE " DATABASE " TO " MOUNT_ROLE, e);
    return r;
}

static int ensure_objects(const struct local_store *s, const json_t *secrets, struct err *e)
{
    const char *const keywords[] = {"host", "port", "user", "password", "dbname", "application_name", "connect_timeout", NULL};
    const char *const values[] = {s->socket_dir, "5432", SUPERUSER, secret(secrets, "superuser_password"), "postgres",
                                  "checkpointfs-keeper", "30", NULL};
    PGconn *c = PQconnectdbParams(keywords, values, 0);
    int r = PQstatus(c) == CONNECTION_OK ? 0 : pq_error(c, "can't connect", e);

    if (r == 0)
        r = ensure_role(c, OWNER_ROLE, secret(secrets, "owner_password"), e);
    if (r == 0)
        r = ensure_role(c, MOUNT_ROLE, secret(secrets, "mount_password"), e);
    if (r == 0)
        r = ensure_database(c, e);
    PQfinish(c);
    return r;
}

/* ---- starting and stopping ---- */

static int start_server(const char *dir, const struct local_store *s, pid_t *ret, struct err *e)
{
    static const char *const settings[] = {"shared_buffers=64MB", "max_connections=200", "cluster_name=checkpointfs-store", NULL};
    cleanup_free char *log = local_path(dir, "store.log");
    struct pgserver_start start = {
        .datadir = s->datadir, .listen = "", .port = PORT, .socket_dir = s->socket_dir, .log_file = log, .settings = settings,
        .patient = true,
    };
    int r;

    if (!log)
        return err_set(e, ENOMEM, "out of memory");
    r = pgserver_end_all(s->datadir); /* we hold keeper.lock: whoever serves it belongs to a keeper that was killed */
    if (r)
        return err_set(e, -r, "can't end the server that a killed keeper left in %s: %s", s->datadir, strerror(-r));
    return pgserver_start(&s->pg, &start, ret, e);
}

static int conninfos(const struct local_store *s, const json_t *secrets, struct local_env *env, struct err *e)
{
    static const char form[] = "host=%s port=%d dbname=%s user=%s password=%s";

    free(env->store);
    free(env->store_owner);
    env->store = str_format(form, s->socket_dir, PORT, DATABASE, MOUNT_ROLE, secret(secrets, "mount_password"));
    env->store_owner = str_format(form, s->socket_dir, PORT, DATABASE, OWNER_ROLE, secret(secrets, "owner_password"));
    return env->store && env->store_owner ? 0 : err_set(e, ENOMEM, "out of memory");
}

/* Finds PostgreSQL of the cluster's major, or the newest for a new one. */
static int prepare(const char *dir, struct local_store *s, struct err *e)
{
    cleanup_free char *parent = local_path(dir, "store");
    int major;
    int r;

    s->datadir = parent ? local_path(parent, "data") : NULL;
    if (!s->datadir)
        return err_set(e, ENOMEM, "out of memory");
    major = major_of(s->datadir);
    r = pgserver_find(major, &s->pg, e);
    if (r)
        return major ? err_prefix(e, "the store in %s was made by PostgreSQL %d and is never upgraded silently", dir, major) : r;
    return pgserver_mkdir(&s->pg, parent, e);
}

int local_store_start(const char *dir, struct local_store *s, struct local_env *env, struct err *e)
{
    cleanup_json json_t *secrets = NULL;
    int r = s->datadir ? 0 : prepare(dir, s, e);

    if (r == 0)
        r = load_secrets(dir, s->datadir, &secrets, e);
    if (r == 0 && !s->socket_dir)
        r = make_socket_dir(dir, &s->pg, secrets, &s->socket_dir, e);
    if (r == 0 && access(s->datadir, F_OK) < 0)
        r = make_cluster(&s->pg, s->datadir, secret(secrets, "superuser_password"), e);
    if (r == 0)
        r = start_server(dir, s, &s->pid, e);
    if (r == 0)
        r = ensure_objects(s, secrets, e);
    if (r == 0)
        r = conninfos(s, secrets, env, e);
    return r;
}

void local_store_stop(struct local_store *s)
{
    int r;

    if (s->pid && (r = pgserver_stop(s->pid, 0)) != 0)
        log_error("the store's PostgreSQL (pid %d) can't be stopped: %s", (int)s->pid, strerror(-r));
    s->pid = 0;
    if (s->socket_dir)
        rmdir(s->socket_dir);
}

void local_store_clear(struct local_store *s)
{
    pgserver_clear(&s->pg);
    free(s->datadir);
    free(s->socket_dir);
    *s = (struct local_store){0};
}

void local_store_end(const char *dir)
{
    cleanup_free char *datadir = str_format("%s/store/data", dir);
    cleanup_json json_t *secrets = NULL;
    const char *socket_dir;
    int r;

    if (!datadir || access(datadir, F_OK) < 0)
        return;
    r = pgserver_end_all(datadir);
    if (r)
        log_error("what serves %s can't be stopped: %s", datadir, strerror(-r));
    if (local_read_json(dir, "store.json", &secrets, NULL) == 0) {
        socket_dir = json_string_value(json_object_get(secrets, "socket_dir"));
        if (socket_dir)
            rmdir(socket_dir);
    }
}
