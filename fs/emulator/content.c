/* Roles and databases that SQL has made or dropped, brought into the state. */
#include "emulator/content.h"

#include <stdlib.h>
#include <string.h>

#include "emulator/compute.h"
#include "emulator/js.h"
#include "emulator/model.h"
#include "emulator/ops.h"
#include "util/cleanup.h"
#include "util/text.h"

static const char databases_sql[] =
    "SELECT datname, pg_get_userbyid(datdba) FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres' ORDER BY oid";
static const char roles_sql[] = "SELECT rolname, CASE WHEN rolcanlogin THEN 'password' ELSE 'no_login' END FROM pg_roles "
                                "WHERE rolname !~ '^pg_' AND rolname NOT IN ('" EMULATOR_SUPERUSER
                                "', 'neon_superuser') ORDER BY oid";

/* Rows of two texts as an array of pairs; NULL when the query failed. New. */
static json_t *rows(PGconn *conn, const char *sql)
{
    PGresult *result = PQexec(conn, sql);
    json_t *out = PQresultStatus(result) == PGRES_TUPLES_OK ? json_array() : NULL;
    for (int i = 0; out && i < PQntuples(result); i++)
        json_array_append_new(out, json_pack("[s, s]", PQgetvalue(result, i, 0), PQgetvalue(result, i, 1)));
    PQclear(result);
    return out;
}

static const char *cell(const json_t *row, size_t i)
{
    return json_string_value(json_array_get(row, i));
}

static json_t *row_of(const json_t *found, const char *name)
{
    size_t i;
    json_t *row;
    json_array_foreach(found, i, row)
        if (str_equal(cell(row, 0), name))
            return row;
    return NULL;
}

/* Takes out of the list what the server doesn't have, and brings `member` up to date. Returns whether anything changed. */
static bool reconcile(json_t *list, const json_t *found, const char *member)
{
    bool changed = false;
    for (size_t i = json_array_size(list); i-- > 0;) {
        json_t *item = json_array_get(list, i);
        const json_t *row = row_of(found, js_str(item, "name"));
        if (!row) {
            json_array_remove(list, i);
            changed = true;
        } else if (!js_is(item, member, cell(row, 1))) {
            js_set_str(item, member, cell(row, 1));
            model_touch(item);
            changed = true;
        }
    }
    return changed;
}

static bool add_new(struct emulator *e, json_t *branch, const json_t *databases, const json_t *roles)
{
    bool changed = false;
    size_t i;
    json_t *row;
    json_array_foreach(databases, i, row)
        if (!model_database(branch, cell(row, 0))) {
            model_add_database(e, branch, cell(row, 0), cell(row, 1));
            changed = true;
        }
    json_array_foreach(roles, i, row)
        if (!model_role(branch, cell(row, 0))) {
            /* Its password is known to whoever made it only. */
            model_add_role(branch, cell(row, 0), str_equal(cell(row, 1), "password") ? "" : NULL);
            changed = true;
        }
    return changed;
}

/* The id of a branch whose compute can be asked now, as a new string; NULL = none. Lock held. */
static char *askable(struct emulator *e, const char *project, const char *wanted)
{
    json_t *branch = wanted ? model_branch(e, project, wanted) : model_default_branch(e, project);
    json_t *endpoint = branch ? model_endpoint_of(e, js_str(branch, "id")) : NULL;
    bool can = endpoint && js_is(branch, "current_state", "ready") && js_is(endpoint, "current_state", "active") &&
               !job_running(e, project);
    return can ? js_strdup(js_str(branch, "id")) : NULL;
}

void content_sync(struct emulator *e, const char *project, const char *branch)
{
    pthread_mutex_lock(&e->lock);
    cleanup_free char *id = askable(e, project, branch);
    int64_t last = js_int(e->root, "_last_operation_us");
    pthread_mutex_unlock(&e->lock);
    struct compute_session s;
    if (!id || compute_session_attach(e, id, "postgres", &s, NULL) < 0)
        return;
    cleanup_json json_t *databases = rows(s.conn, databases_sql);
    cleanup_json json_t *roles = rows(s.conn, roles_sql);
    compute_session_close(&s);
    pthread_mutex_lock(&e->lock);
    /* What was read is true only if nothing has changed meanwhile. */
    json_t *record = model_branch(e, project, id);
    if (record && databases && roles && js_int(e->root, "_last_operation_us") == last) {
        bool changed = reconcile(json_object_get(record, "_databases"), databases, "owner_name");
        changed |= reconcile(json_object_get(record, "_roles"), roles, "authentication_method");
        changed |= add_new(e, record, databases, roles);
        if (changed)
            emulator_save(e);
    }
    pthread_mutex_unlock(&e->lock);
}
