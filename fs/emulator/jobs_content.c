/* What happens behind roles and databases: SQL in the branch's server. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "emulator/compute.h"
#include "emulator/js.h"
#include "emulator/model.h"
#include "jobs_i.h"
#include "util/cleanup.h"
#include "util/text.h"

static json_t *branch_of(struct emulator *e, const json_t *args)
{
    return json_object_get(emulator_table(e, "branches"), js_str(args, "branch"));
}

/* Runs a statement in which %I stands for the first and %J for the second name, quoted. */
static int execute(PGconn *conn, const char *form, const char *first, const char *second, struct err *err)
{
    char *a = PQescapeIdentifier(conn, first, strlen(first));
    char *b = PQescapeIdentifier(conn, second ? second : "", second ? strlen(second) : 0);
    cleanup_buf struct buf sql = {0};
    for (const char *p = form; a && b && *p; p++)
        if (p[0] == '%' && (p[1] == 'I' || p[1] == 'J'))
            buf_adds(&sql, *++p == 'I' ? a : b);
        else
            buf_addc(&sql, *p);
    int r = a && b && buf_error(&sql) == 0 ? compute_exec(conn, sql.data, err) : err_set(err, EIO, "%s", PQerrorMessage(conn));
    PQfreemem(a);
    PQfreemem(b);
    return r;
}

typedef int (*content_fn)(PGconn *conn, const json_t *args, struct err *err);

static int in_session(struct emulator *e, const json_t *args, content_fn fn, struct err *err)
{
    struct compute_session s;
    int r = compute_session_open(e, js_str(args, "branch"), "postgres", &s, err);
    if (r < 0)
        return r;
    r = fn(s.conn, args, err);
    compute_session_close(&s);
    return r;
}

static int sql_create_role(PGconn *conn, const json_t *args, struct err *err)
{
    const char *password = js_str(args, "password");
    return compute_create_role(conn, js_str(args, "role"), password, password != NULL, err);
}

static int create_role(struct emulator *e, json_t *args, struct err *err)
{
    return in_session(e, args, sql_create_role, err);
}

static void role_created(struct emulator *e, const json_t *args)
{
    json_t *branch = branch_of(e, args);
    if (branch)
        model_add_role(branch, js_str(args, "role"), js_str(args, "password"));
}

/* A new password ends the connections that the old one made. */
static int sql_reset(PGconn *conn, const json_t *args, struct err *err)
{
    const char *role = js_str(args, "role");
    int r = compute_set_password(conn, role, js_str(args, "password"), err);
    char *literal = r == 0 ? PQescapeLiteral(conn, role, strlen(role)) : NULL;
    if (literal) {
        cleanup_free char *sql = js_format("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", literal);
        r = compute_exec(conn, sql, err);
    }
    PQfreemem(literal);
    return r;
}

static int reset_password(struct emulator *e, json_t *args, struct err *err)
{
    return in_session(e, args, sql_reset, err);
}

static void password_reset(struct emulator *e, const json_t *args)
{
    json_t *branch = branch_of(e, args);
    json_t *role = branch ? model_role(branch, js_str(args, "role")) : NULL;
    if (!role)
        return;
    js_set_str(role, "_password", js_str(args, "password"));
    js_set_str(role, "authentication_method", "password");
    model_touch(role);
}

/* What the role owns in the named databases goes to the role that every project has. */
static int delete_role(struct emulator *e, json_t *args, struct err *err)
{
    size_t i;
    json_t *database;
    json_array_foreach(json_object_get(args, "databases"), i, database) {
        struct compute_session s;
        int r = compute_session_open(e, js_str(args, "branch"), json_string_value(database), &s, err);
        if (r < 0)
            return r;
        r = execute(s.conn, "REASSIGN OWNED BY %I TO %J", js_str(args, "role"), EMULATOR_SUPERUSER, err);
        if (r == 0)
            r = execute(s.conn, "DROP OWNED BY %I", js_str(args, "role"), NULL, err);
        if (r == 0 && i + 1 == json_array_size(json_object_get(args, "databases")))
            r = execute(s.conn, "DROP ROLE IF EXISTS %I", js_str(args, "role"), NULL, err);
        compute_session_close(&s);
        if (r < 0)
            return r;
    }
    return 0;
}

static void remove_named(struct emulator *e, const json_t *args, const char *list, const char *name)
{
    json_t *branch = branch_of(e, args);
    json_t *items = branch ? json_object_get(branch, list) : NULL;
    for (size_t i = json_array_size(items); i-- > 0;)
        if (js_is(json_array_get(items, i), "name", name))
            json_array_remove(items, i);
}

static void role_deleted(struct emulator *e, const json_t *args)
{
    remove_named(e, args, "_roles", js_str(args, "role"));
}

static int sql_create_database(PGconn *conn, const json_t *args, struct err *err)
{
    return compute_create_database(conn, js_str(args, "database"), js_str(args, "owner"), err);
}

static int create_database(struct emulator *e, json_t *args, struct err *err)
{
    return in_session(e, args, sql_create_database, err);
}

static void database_created(struct emulator *e, const json_t *args)
{
    json_t *branch = branch_of(e, args);
    if (branch)
        model_add_database(e, branch, js_str(args, "database"), js_str(args, "owner"));
}

static int sql_drop_database(PGconn *conn, const json_t *args, struct err *err)
{
    return execute(conn, "DROP DATABASE IF EXISTS %I WITH (FORCE)", js_str(args, "database"), NULL, err);
}

static int drop_database(struct emulator *e, json_t *args, struct err *err)
{
    return in_session(e, args, sql_drop_database, err);
}

static void database_dropped(struct emulator *e, const json_t *args)
{
    remove_named(e, args, "_databases", js_str(args, "database"));
}

static int sql_alter_database(PGconn *conn, const json_t *args, struct err *err)
{
    const char *name = js_str(args, "database"), *new_name = js_str(args, "name"), *owner = js_str(args, "owner");
    int r = owner ? execute(conn, "ALTER DATABASE %I OWNER TO %J", name, owner, err) : 0;
    return r == 0 && new_name ? execute(conn, "ALTER DATABASE %I RENAME TO %J", name, new_name, err) : r;
}

static int alter_database(struct emulator *e, json_t *args, struct err *err)
{
    return in_session(e, args, sql_alter_database, err);
}

static void database_altered(struct emulator *e, const json_t *args)
{
    json_t *branch = branch_of(e, args);
    json_t *database = branch ? model_database(branch, js_str(args, "database")) : NULL;
    if (!database)
        return;
    if (js_str(args, "owner"))
        js_set_str(database, "owner_name", js_str(args, "owner"));
    if (js_str(args, "name"))
        js_set_str(database, "name", js_str(args, "name"));
    model_touch(database);
}

const struct job_kind jobs_content_kinds[] = {
    {.name = "create_role", .work = create_role, .commit = role_created},
    {.name = "reset_password", .restartable = true, .work = reset_password, .commit = password_reset},
    {.name = "delete_role", .restartable = true, .work = delete_role, .commit = role_deleted},
    {.name = "create_database", .work = create_database, .commit = database_created},
    {.name = "delete_database", .restartable = true, .work = drop_database, .commit = database_dropped},
    {.name = "alter_database", .work = alter_database, .commit = database_altered},
    {0},
};
