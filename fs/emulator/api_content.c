/* Roles and databases of a branch. reference/neon-api.md §5.3. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "api_i.h"
#include "emulator/ids.h"
#include "emulator/js.h"
#include "util/cleanup.h"
#include "util/text.h"

#define IDENTIFIER_MAX 63 /* PostgreSQL's NAMEDATALEN - 1 */

static json_t *shown(const json_t *branch, const json_t *item)
{
    json_t *out = js_public(item);
    js_set_str(out, "branch_id", js_str(branch, "id"));
    return out;
}

static json_t *shown_with_password(const json_t *branch, const json_t *role, const char *password)
{
    json_t *out = shown(branch, role);
    js_set_str(out, "password", password);
    return out;
}

static int list(struct request *rq, const char *kept, const char *name)
{
    json_t *branch = need_branch(rq, 1), *out, *item;
    size_t i;
    if (!branch)
        return 404;
    out = json_array();
    json_array_foreach(json_object_get(branch, kept), i, item)
        json_array_append_new(out, shown(branch, item));
    return answer(rq, 200, json_pack("{s:o}", name, out));
}

static json_t *need_role(struct request *rq, const json_t *branch)
{
    json_t *role = model_role(branch, rq->params[2]);
    if (!role)
        answer_error(rq, 404, "", "role not found");
    return role;
}

static json_t *need_database(struct request *rq, const json_t *branch)
{
    json_t *database = model_database(branch, rq->params[2]);
    if (!database)
        answer_error(rq, 404, "", "database not found");
    return database;
}

/* Names that PostgreSQL or the emulator keep for themselves. */
static bool reserved(const char *name, bool role)
{
    static const char *const names[] = {"postgres", "template0", "template1",    EMULATOR_SUPERUSER, "neon_superuser",
                                        "public",   "none",      "current_user", "session_user",     "current_role"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcasecmp(names[i], name) == 0)
            return true;
    return role && str_starts(name, "pg_");
}

/* A new name: 0, or the status of the refusal. */
static int check_name(struct request *rq, const char *where, const char *name, bool role)
{
    if (!name)
        return answer_error(rq, 400, "", "%s.name: is required", where);
    for (const char *p = name; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            return answer_error(rq, 400, "", "%s.name: must not contain control characters", where);
    if (reserved(name, role))
        return answer_error(rq, 400, "", "%s.name: is reserved", where);
    return 0;
}

static json_t *job_for(struct request *rq, const char *kind, json_t *args)
{
    json_t *job = job_new(rq->e, rq, kind, rq->params[0], args);
    json_t *endpoint = model_endpoint_of(rq->e, rq->params[1]);
    job_operation(rq->e, job, "apply_config", rq->params[1], js_str(endpoint, "id"));
    return job;
}

HANDLER(api_roles)
{
    return list(rq, "_roles", "roles");
}

HANDLER(api_role)
{
    json_t *branch = need_branch(rq, 1);
    json_t *role = branch ? need_role(rq, branch) : NULL;
    return role ? answer(rq, 200, json_pack("{s:o}", "role", shown(branch, role))) : 404;
}

HANDLER(api_role_create)
{
    json_t *branch = need_branch(rq, 1), *fields;
    const char *name = NULL;
    bool no_login = false;
    if (!branch)
        return 404;
    if (!field_object(rq, rq->body, "role", &fields) || !field_string(rq, fields, "role", "name", 1, IDENTIFIER_MAX, &name) ||
        !field_bool(rq, fields, "role", "no_login", &no_login))
        return 400;
    int refused = check_name(rq, "role", name, true);
    if (refused)
        return refused;
    if (!need_ready(rq, branch))
        return 422;
    if (model_role(branch, name))
        return answer_error(rq, 409, "", "role already exists");
    cleanup_free char *password = no_login ? NULL : ids_secret("npg_", 12);
    json_t *args = json_pack("{s:s, s:s}", "branch", rq->params[1], "role", name);
    js_set_str(args, "password", password);
    cleanup_free char *now = emulator_now();
    cleanup_json json_t *role = json_pack("{s:s, s:b, s:s, s:s, s:s}", "name", name, "protected", 0, "authentication_method",
                                          no_login ? "no_login" : "password", "created_at", now, "updated_at", now);
    json_t *view = shown_with_password(branch, role, password);
    return answer_with_operations(rq, 201, "role", view, job_for(rq, "create_role", args));
}

static bool owns_database(const json_t *branch, const char *role)
{
    size_t i;
    json_t *database;
    json_array_foreach(json_object_get(branch, "_databases"), i, database)
        if (js_is(database, "owner_name", role))
            return true;
    return false;
}

HANDLER(api_role_delete)
{
    json_t *branch = need_branch(rq, 1);
    if (!branch)
        return 404;
    json_t *role = model_role(branch, rq->params[2]);
    if (!role)
        return 204;
    if (owns_database(branch, rq->params[2]))
        return answer_error(rq, 422, "", "cannot delete a role that owns a database");
    json_t *databases = json_array(), *database;
    size_t i;
    json_array_foreach(json_object_get(branch, "_databases"), i, database)
        json_array_append_new(databases, json_string(js_str(database, "name")));
    json_array_append_new(databases, json_string("postgres"));
    json_t *args = json_pack("{s:s, s:s, s:o}", "branch", rq->params[1], "role", rq->params[2], "databases", databases);
    return answer_with_operations(rq, 200, "role", shown(branch, role), job_for(rq, "delete_role", args));
}

/* False after the 412: what isn't stored can't be shown. */
static bool stores_passwords(struct request *rq)
{
    if (js_bool(model_project(rq->e, rq->params[0]), "store_passwords"))
        return true;
    answer_error(rq, 412, "", "the project does not store passwords");
    return false;
}

HANDLER(api_role_reveal)
{
    json_t *branch = need_branch(rq, 1);
    json_t *role = branch ? need_role(rq, branch) : NULL;
    if (!role)
        return 404;
    if (!stores_passwords(rq))
        return 412;
    if (!js_is(role, "authentication_method", "password") || !js_str(role, "_password")[0])
        return answer_error(rq, 404, "", "role has no stored password");
    return answer(rq, 200, json_pack("{s:s}", "password", js_str(role, "_password")));
}

HANDLER(api_role_reset)
{
    json_t *branch = need_branch(rq, 1);
    json_t *role = branch ? need_role(rq, branch) : NULL;
    if (!role)
        return 404;
    if (!need_ready(rq, branch))
        return 422;
    if (!js_is(role, "authentication_method", "password"))
        return answer_error(rq, 422, "", "a role that can't log in has no password");
    cleanup_free char *password = ids_secret("npg_", 12);
    json_t *args = json_pack("{s:s, s:s, s:s}", "branch", rq->params[1], "role", rq->params[2], "password", password);
    return answer_with_operations(rq, 200, "role", shown_with_password(branch, role, password),
                                  job_for(rq, "reset_password", args));
}

HANDLER(api_databases)
{
    return list(rq, "_databases", "databases");
}

HANDLER(api_database)
{
    json_t *branch = need_branch(rq, 1);
    json_t *database = branch ? need_database(rq, branch) : NULL;
    return database ? answer(rq, 200, json_pack("{s:o}", "database", shown(branch, database))) : 404;
}

HANDLER(api_database_create)
{
    json_t *branch = need_branch(rq, 1), *fields;
    const char *name = NULL, *owner = NULL;
    if (!branch)
        return 404;
    if (!field_object(rq, rq->body, "database", &fields) ||
        !field_string(rq, fields, "database", "name", 1, IDENTIFIER_MAX, &name) ||
        !field_string(rq, fields, "database", "owner_name", 1, IDENTIFIER_MAX, &owner))
        return 400;
    int refused = check_name(rq, "database", name, false);
    if (refused)
        return refused;
    if (!owner)
        return answer_error(rq, 400, "", "database.owner_name: is required");
    if (!need_ready(rq, branch))
        return 422;
    if (model_database(branch, name))
        return answer_error(rq, 409, "", "database already exists");
    if (!model_role(branch, owner))
        return answer_error(rq, 404, "", "role not found");
    json_t *args = json_pack("{s:s, s:s, s:s}", "branch", rq->params[1], "database", name, "owner", owner);
    cleanup_free char *now = emulator_now();
    json_t *view = json_pack("{s:I, s:s, s:s, s:s, s:s, s:s}", "id", (json_int_t)js_int(rq->e->root, "_seq") + 1, "branch_id",
                             rq->params[1], "name", name, "owner_name", owner, "created_at", now, "updated_at", now);
    return answer_with_operations(rq, 201, "database", view, job_for(rq, "create_database", args));
}

HANDLER(api_database_update)
{
    json_t *branch = need_branch(rq, 1), *fields;
    json_t *database = branch ? need_database(rq, branch) : NULL;
    const char *name = NULL, *owner = NULL;
    if (!database)
        return 404;
    if (!field_object(rq, rq->body, "database", &fields) ||
        !field_string(rq, fields, "database", "name", 1, IDENTIFIER_MAX, &name) ||
        !field_string(rq, fields, "database", "owner_name", 1, IDENTIFIER_MAX, &owner))
        return 400;
    int refused = name ? check_name(rq, "database", name, false) : 0;
    if (refused)
        return refused;
    if (name && !str_equal(name, rq->params[2]) && model_database(branch, name))
        return answer_error(rq, 409, "", "database already exists");
    if (owner && !model_role(branch, owner))
        return answer_error(rq, 404, "", "role not found");
    json_t *args = json_pack("{s:s, s:s}", "branch", rq->params[1], "database", rq->params[2]);
    js_set_str(args, "name", str_equal(name, rq->params[2]) ? NULL : name);
    js_set_str(args, "owner", owner);
    return answer_with_operations(rq, 200, "database", shown(branch, database), job_for(rq, "alter_database", args));
}

HANDLER(api_database_delete)
{
    json_t *branch = need_branch(rq, 1);
    if (!branch)
        return 404;
    json_t *database = model_database(branch, rq->params[2]);
    if (!database)
        return 204;
    json_t *args = json_pack("{s:s, s:s}", "branch", rq->params[1], "database", rq->params[2]);
    return answer_with_operations(rq, 200, "database", shown(branch, database), job_for(rq, "delete_database", args));
}
