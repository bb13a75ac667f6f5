/* Makes and upgrades the schema, as its owner, and gives the mount's role its rights; checks both at every opening. */
#include "store_i.h"

#include <errno.h>
#include <string.h>

#include "util/clock.h"
#include "util/text.h"

/* One migration at a time on a server, wherever it was started: "checkpoi" as a number. */
#define MIGRATION_LOCK "SELECT pg_advisory_xact_lock(7163384644223823721)"

struct migration {
    const char *role;
    int version;      /* to reach */
    int found;        /* version found */
};

static int check_encoding(struct conn *c, struct err *e)
{
    cleanup_result PGresult *res = NULL;
    int r = q(c, &res, e, "SELECT pg_catalog.current_setting('server_encoding')", "");

    if (r)
        return r;
    if (!str_equal(col_text(res, 0, 0), "UTF8"))
        return err_set(e, EPROTO, "the store's database has the encoding %s: make one with ENCODING 'UTF8'", col_text(res, 0, 0));
    return 0;
}

static int read_version(struct conn *c, int *ret, struct err *e)
{
    cleanup_result PGresult *res = NULL;
    int r = q(c, &res, e, "SELECT coalesce(max(version), 0) FROM checkpointfs.schema_version", "");

    if (r == 0)
        *ret = (int)col_int(res, 0, 0);
    return r;
}

static int first_step(struct conn *c, struct err *e)
{
    int r = q_simple(c, MIGRATION_LOCK, e);

    if (r == 0)
        r = q_simple(c,
                     "CREATE SCHEMA IF NOT EXISTS checkpointfs;"
                     "CREATE TABLE IF NOT EXISTS checkpointfs.schema_version"
                     " (version integer PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())",
                     e);
    return r;
}

/* One migration, or none when this version was reached meanwhile: so it can be run again whenever its outcome is unknown, as role_fn
 * can. */
static int migrate_fn(struct conn *c, void *arg, struct err *e)
{
    struct migration *m = arg;
    int found = 0;
    int r = first_step(c, e);

    if (r == 0)
        r = read_version(c, &found, e);
    if (r)
        return r;
    if (found > store_schema_version)
        return err_set(e, EPROTO, "the store's schema has version %d and this program knows %d: use a newer checkpointfs", found,
                       store_schema_version);
    if (found < m->version) {
        r = q_simple(c, "SET LOCAL search_path = checkpointfs, pg_catalog", e);
        if (r == 0)
            r = q_simple(c, store_migrations[m->version - 1], e);
        if (r == 0)
            r = q(c, NULL, e, "INSERT INTO checkpointfs.schema_version (version) VALUES ($1)", "i", (int64_t)m->version);
    }
    return r;
}

static int make_role(struct conn *c, const char *role, const char *quoted, struct err *e)
{
    cleanup_result PGresult *res = NULL;
    cleanup_free char *sql = NULL;
    int r = q(c, &res, e, "SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = $1", "s", role);

    if (r || PQntuples(res) > 0)
        return r;
    sql = str_format("CREATE ROLE %s LOGIN", quoted);
    if (!sql)
        return err_set(e, ENOMEM, "out of memory");
    r = q_simple(c, sql, e);
    return r ? err_prefix(e, "the role %s doesn't exist and can't be made here (an administrator can: %s)", role, sql) : 0;
}

/* store_grants with the role's quoted name in place of each %1$s. */
static char *grants_for(const char *quoted)
{
    static const char mark[] = "%1$s";
    struct buf b = {0};

    for (const char *p = store_grants; *p;) {
        if (strncmp(p, mark, sizeof(mark) - 1) == 0) {
            buf_adds(&b, quoted);
            p += sizeof(mark) - 1;
        } else {
            buf_addc(&b, *p++);
        }
    }
    if (buf_error(&b)) {
        buf_free(&b);
        return NULL;
    }
    return buf_steal(&b);
}

static int role_fn(struct conn *c, void *arg, struct err *e)
{
    const struct migration *m = arg;
    cleanup_result PGresult *res = NULL;
    cleanup_free char *sql = NULL;
    int r = q_simple(c, MIGRATION_LOCK, e);

    if (r == 0)
        r = q(c, &res, e, "SELECT pg_catalog.quote_ident($1), $1 = current_user", "s", m->role);
    if (r || col_bool(res, 0, 1))
        return r;
    r = make_role(c, m->role, col_text(res, 0, 0), e);
    if (r)
        return r;
    sql = grants_for(col_text(res, 0, 0));
    if (!sql)
        return err_set(e, ENOMEM, "out of memory");
    r = q_simple(c, sql, e);
    if (r == 0) {
        free(sql);
        sql = str_format("GRANT SELECT ON checkpointfs.schema_version TO %s", col_text(res, 0, 0));
        r = sql ? q_simple(c, sql, e) : err_set(e, ENOMEM, "out of memory");
    }
    return r;
}

static int encoding_fn(struct conn *c, void *arg, struct err *e)
{
    (void)arg;
    return check_encoding(c, e);
}

int store_migrate(const char *owner_conninfo, const char *mount_role, struct err *e)
{
    struct store *s = NULL;
    struct migration m = {.role = mount_role};
    int r = pool_new(owner_conninfo, 1, &s, e);

    if (r)
        return r;
    r = store_tx(s, TX_READ, encoding_fn, NULL, e);
    for (m.version = 1; m.version <= store_schema_version && r == 0; m.version++)
        r = store_tx(s, TX_WRITE_LONG, migrate_fn, &m, e);
    if (r == 0 && mount_role)
        r = store_tx(s, TX_WRITE, role_fn, &m, e);
    if (r == -EACCES)
        err_prefix(e, "migrate needs the owner of the database");
    pool_free(s);
    return r;
}

static int check_fn(struct conn *c, void *arg, struct err *e)
{
    struct migration *m = arg;
    int r = check_encoding(c, e);

    return r ? r : read_version(c, &m->found, e);
}

int store_open(const char *conninfo, int connections, struct store **ret, struct err *e)
{
    struct store *s = NULL;
    struct migration m = {0};
    int r = pool_new(conninfo, connections, &s, e);

    if (r)
        return r;
    r = store_tx(s, TX_READ, check_fn, &m, e);
    if (r == -ENODATA || (r == 0 && m.found == 0))
        r = err_set(e, ENODATA,
                    "the store holds no checkpointfs schema: run `checkpointfs migrate --store=OWNER_CONNINFO` first");
    else if (r == 0 && m.found < store_schema_version)
        r = err_set(e, EPROTO,
                    "the store's schema has version %d, this program needs %d: run `checkpointfs migrate --store=OWNER_CONNINFO`",
                    m.found, store_schema_version);
    else if (r == 0 && m.found > store_schema_version)
        r = err_set(e, EPROTO, "the store's schema has version %d and this program knows %d: use a newer checkpointfs "
                    "(`checkpointfs migrate` only goes forward)", m.found, store_schema_version);
    if (r) {
        pool_free(s);
        return r;
    }
    s->migrated = true;
    *ret = s;
    return 0;
}

void store_close(struct store *s)
{
    pool_free(s);
}
