/* Projects, limits, connection strings, and who one is. reference/neon-api.md §6, §5.2. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "api_i.h"
#include "emulator/ids.h"
#include "emulator/js.h"
#include "emulator/projects.h"
#include "util/cleanup.h"
#include "util/text.h"

#define NAME_MAX_CHARS 256
#define PAGE_DEFAULT 10
#define PAGE_MAX 400
#define PROJECTS_MAX 100

HANDLER(api_auth)
{
    return answer(rq, 200, json_pack("{s:s, s:s}", "account_id", js_str(rq->e->root, "_user"), "auth_method", "api_key_user"));
}

HANDLER(api_me)
{
    struct emulator *e = rq->e;
    return answer(rq, 200,
                  json_pack("{s:i, s:[], s:s, s:s, s:s, s:s, s:s, s:s, s:i, s:i, s:f, s:s}", "active_seconds_limit", 0,
                            "auth_accounts", "email", "local@example.com", "id", js_str(e->root, "_user"), "image", "", "login",
                            "local", "name", "Local", "last_name", "User", "projects_limit", PROJECTS_MAX, "branches_limit",
                            e->opt.branches, "max_autoscaling_limit", 0.25, "plan",
                            str_equal(e->opt.plan, "free") ? "free_v3" : "launch_v3"));
}

static json_t *organization(struct emulator *e)
{
    const char *at = js_str(e->root, "_created_at");
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "id", js_str(e->root, "_org"), "name", "Local", "handle", "local",
                     "plan", str_equal(e->opt.plan, "free") ? "free_v3" : "launch_v3", "created_at", at, "updated_at", at,
                     "managed_by", "console");
}

HANDLER(api_my_organizations)
{
    return answer(rq, 200, json_pack("{s:[o]}", "organizations", organization(rq->e)));
}

HANDLER(api_organization)
{
    if (!js_is(rq->e->root, "_org", rq->params[0]))
        return answer_error(rq, 404, "", "organization not found");
    return answer(rq, 200, organization(rq->e));
}

int project_add(struct emulator *e, const struct request *rq, const struct project_wish *wish, json_t **ret_project,
                json_t **ret_job, struct err *err)
{
    cleanup_free char *id = ids_new("");
    cleanup_free char *now = emulator_now();
    const char *org = js_str(e->root, "_org");
    json_t *project = json_pack(
        "{s:i, s:i, s:i, s:i, s:i, s:i, s:s, s:s, s:s, s:s, s:s, s:{}, s:{}, s:i, s:s, s:i, s:i, s:b, s:s, s:i, s:s, s:s, s:s, s:s, "
        "s:s, s:s}",
        "data_storage_bytes_hour", 0, "data_transfer_bytes", 0, "written_data_bytes", 0, "compute_time_seconds", 0,
        "active_time_seconds", 0, "cpu_used_sec", 0, "id", id, "platform_id", "local", "region_id", "local", "name",
        wish->name ? wish->name : id, "provisioner", "k8s-neonvm", "default_endpoint_settings", "settings", "pg_version",
        e->pg.major, "proxy_host", "127.0.0.1", "branch_logical_size_limit", 0, "branch_logical_size_limit_bytes", 0,
        "store_passwords", wish->store_passwords, "creation_source", "console", "history_retention_seconds", 0, "created_at", now,
        "updated_at", now, "consumption_period_start", now, "consumption_period_end", now, "owner_id", org, "org_id", org);
    const char *role = wish->role ? wish->role : "neondb_owner", *database = wish->database ? wish->database : "neondb";
    cleanup_free char *password = ids_secret("npg_", 12);
    json_t *branch = model_add_branch(e, id, wish->branch ? wish->branch : "main"), *endpoint;
    int r = model_add_endpoint(e, id, js_str(branch, "id"), &endpoint, err);
    if (r < 0) {
        json_object_del(emulator_table(e, "branches"), js_str(branch, "id"));
        json_decref(project);
        return r;
    }
    js_set_bool(branch, "default", true);
    js_set_bool(branch, "primary", true);
    model_add_role(branch, role, password);
    model_add_database(e, branch, database, role);
    json_object_set_new(emulator_table(e, "projects"), id, project);
    json_t *args = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s}", "project", id, "branch", js_str(branch, "id"), "endpoint",
                             js_str(endpoint, "id"), "role", role, "password", password, "database", database);
    json_t *job = job_new(e, rq, "create_project", id, args);
    job_operation(e, job, "create_timeline", js_str(branch, "id"), NULL);
    job_operation(e, job, "start_compute", js_str(branch, "id"), js_str(endpoint, "id"));
    *ret_project = project;
    *ret_job = job;
    return 0;
}

/* A list shows a project a little differently. */
static json_t *list_item(const json_t *project)
{
    json_t *item = model_show(project);
    js_set_int(item, "active_time", 0);
    return item;
}

HANDLER(api_projects)
{
    struct emulator *e = rq->e;
    const char *org = js_str(rq->query, "org_id"), *cursor = js_str(rq->query, "cursor"), *search = js_str(rq->query, "search");
    int64_t limit = PAGE_DEFAULT;
    if (!query_int(rq, "limit", 1, PAGE_MAX, &limit))
        return 400;
    if (!org)
        return answer_error(rq, 400, "", "org_id is required, you can find it on your organization settings page");
    if (!js_is(e->root, "_org", org))
        return answer_error(rq, 404, "", "organization not found");
    if (cursor && !json_object_get(emulator_table(e, "projects"), cursor))
        return answer_error(rq, 400, "", "cursor: is not one that this server gave");
    json_t *list = json_array(), *project;
    const char *id, *last = cursor;
    bool begun = !cursor;
    json_object_foreach(emulator_table(e, "projects"), id, project) {
        bool found = !search || strcasestr(js_str(project, "name"), search) || strcasestr(id, search);
        if (begun && found && (int64_t)json_array_size(list) < limit) {
            json_array_append_new(list, list_item(project));
            last = id;
        }
        begun = begun || str_equal(id, cursor);
    }
    json_t *body = json_pack("{s:o, s:{}, s:{}}", "projects", list, "applications", "integrations");
    if (last)
        json_object_set_new(body, "pagination", json_pack("{s:s}", "cursor", last));
    return answer(rq, 200, body);
}

/* 0, or the status of the refusal. */
static int read_project(struct request *rq, json_t *fields, struct project_wish *wish)
{
    const char *org = NULL;
    int64_t major = rq->e->pg.major;
    json_t *branch = js_get(fields, "branch");
    if (branch && !json_is_object(branch))
        return answer_error(rq, 400, "", "project.branch: must be an object");
    if (!field_string(rq, fields, "project", "name", 1, NAME_MAX_CHARS, &wish->name) ||
        !field_string(rq, fields, "project", "org_id", 1, 60, &org) ||
        !field_int(rq, fields, "project", "pg_version", PGSERVER_OLDEST, PGSERVER_NEWEST, &major) ||
        !field_bool(rq, fields, "project", "store_passwords", &wish->store_passwords) ||
        !field_string(rq, branch, "project.branch", "name", 1, NAME_MAX_CHARS, &wish->branch) ||
        !field_string(rq, branch, "project.branch", "role_name", 1, 63, &wish->role) ||
        !field_string(rq, branch, "project.branch", "database_name", 1, 63, &wish->database))
        return 400;
    if (org && !js_is(rq->e->root, "_org", org))
        return answer_error(rq, 404, "", "organization not found");
    if (major != rq->e->pg.major)
        return answer_error(rq, 422, "", "project.pg_version: this server has PostgreSQL %d only", rq->e->pg.major);
    if (json_object_size(emulator_table(rq->e, "projects")) >= PROJECTS_MAX)
        return answer_error(rq, 422, "PROJECTS_LIMIT_EXCEEDED", "projects limit exceeded");
    const char *names[] = {wish->role, wish->database};
    for (size_t i = 0; i < 2; i++)
        if (names[i] && (str_starts(names[i], "pg_") || str_equal(names[i], "postgres") || str_starts(names[i], "template") ||
                         str_equal(names[i], EMULATOR_SUPERUSER) || str_equal(names[i], "neon_superuser") ||
                         str_equal(names[i], "public") || str_equal(names[i], "none") || strpbrk(names[i], "\r\n\t")))
            return answer_error(rq, 400, "", "project.branch.%s: is reserved", i == 0 ? "role_name" : "database_name");
    return 0;
}

static json_t *with_branch_id(const json_t *branch, const char *list)
{
    json_t *out = js_public(json_array_get(json_object_get(branch, list), 0));
    js_set_str(out, "branch_id", js_str(branch, "id"));
    return out;
}

static int created(struct request *rq, json_t *project, json_t *job)
{
    const json_t *args = json_object_get(job, "args");
    json_t *branch = json_object_get(emulator_table(rq->e, "branches"), js_str(args, "branch"));
    json_t *endpoint = json_object_get(emulator_table(rq->e, "endpoints"), js_str(args, "endpoint"));
    const char *role_name = js_str(args, "role"), *password = js_str(args, "password"), *database = js_str(args, "database");
    cleanup_free char *uri = model_uri(endpoint, model_role(branch, role_name), database);
    json_t *role = with_branch_id(branch, "_roles");
    js_set_str(role, "password", password);
    json_t *connection = json_pack("{s:s, s:{s:s, s:s, s:s, s:s, s:s}}", "connection_uri", uri, "connection_parameters",
                                   "database", database, "password", password, "role", role_name, "host",
                                   js_str(endpoint, "host"), "pooler_host", js_str(endpoint, "host"));
    json_t *branch_view = model_show(branch), *endpoint_view = model_show(endpoint),
           *database_view = with_branch_id(branch, "_databases");
    int status = answer_with_operations(rq, 201, "project", model_show(project), job);
    json_object_set_new(rq->answer, "branch", branch_view);
    json_object_set_new(rq->answer, "endpoints", json_pack("[o]", endpoint_view));
    json_object_set_new(rq->answer, "roles", json_pack("[o]", role));
    json_object_set_new(rq->answer, "databases", json_pack("[o]", database_view));
    json_object_set_new(rq->answer, "connection_uris", json_pack("[o]", connection));
    return status;
}

HANDLER(api_project_create)
{
    json_t *fields, *project, *job;
    struct project_wish wish = {.store_passwords = true};
    if (!field_object(rq, rq->body, "project", &fields))
        return 400;
    int refused = read_project(rq, fields, &wish);
    if (refused)
        return refused;
    cleanup_err struct err err = {0};
    if (project_add(rq->e, rq, &wish, &project, &job, &err) < 0)
        return answer_error(rq, 503, "", "%s", err_text(&err));
    return created(rq, project, job);
}

HANDLER(api_project)
{
    return answer(rq, 200, json_pack("{s:o}", "project", model_show(model_project(rq->e, rq->params[0]))));
}

HANDLER(api_project_update)
{
    json_t *project = model_project(rq->e, rq->params[0]), *fields;
    const char *name = NULL;
    if (!field_object(rq, rq->body, "project", &fields) || !field_string(rq, fields, "project", "name", 1, NAME_MAX_CHARS, &name))
        return 400;
    if (name)
        js_set_str(project, "name", name);
    model_touch(project);
    return answer_with_operations(rq, 200, "project", model_show(project), NULL);
}

HANDLER(api_project_delete)
{
    struct emulator *e = rq->e;
    json_t *project = model_project(e, rq->params[0]);
    json_t *job = job_new(e, rq, "delete_project", rq->params[0], json_pack("{s:s}", "project", rq->params[0]));
    job_operation(e, job, "delete_timeline", NULL, NULL);
    json_t *view = model_show(project);
    json_decref(job_submit(e, job));
    return answer(rq, 200, json_pack("{s:o}", "project", view));
}

/* Undocumented; Neon's own tests use it. */
HANDLER(api_project_limits)
{
    const struct options *o = &rq->e->opt;
    return answer(rq, 200,
                  json_pack("{s:{s:i, s:i, s:i, s:i, s:i}}", "limits", "max_branches", o->branches, "max_root_branches",
                            o->root_branches, "max_snapshots", o->snapshots, "max_read_only_endpoints", 0, "max_projects",
                            PROJECTS_MAX));
}

HANDLER(api_connection_uri)
{
    struct emulator *e = rq->e;
    const char *database = js_str(rq->query, "database_name"), *role_name = js_str(rq->query, "role_name");
    const char *branch_id = js_str(rq->query, "branch_id"), *endpoint_id = js_str(rq->query, "endpoint_id");
    bool pooled = false;
    if (!database || !database[0])
        return answer_error(rq, 400, "", "database_name: is required");
    if (!role_name || !role_name[0])
        return answer_error(rq, 400, "", "role_name: is required");
    if (!query_bool(rq, "pooled", &pooled))
        return 400;
    json_t *branch = branch_id ? model_branch(e, rq->params[0], branch_id) : model_default_branch(e, rq->params[0]);
    if (!branch)
        return answer_error(rq, 404, "", "branch not found");
    json_t *endpoint = endpoint_id ? model_endpoint(e, rq->params[0], endpoint_id) : model_endpoint_of(e, js_str(branch, "id"));
    if (!endpoint || !js_is(endpoint, "branch_id", js_str(branch, "id")))
        return answer_error(rq, 404, "", "endpoint not found");
    json_t *role = model_role(branch, role_name);
    if (!role)
        return answer_error(rq, 404, "", "role not found");
    if (!model_database(branch, database))
        return answer_error(rq, 404, "", "database not found");
    if (!js_bool(model_project(e, rq->params[0]), "store_passwords"))
        return answer_error(rq, 412, "", "the project does not store passwords");
    cleanup_free char *uri = model_uri(endpoint, role, database);
    return answer(rq, 200, json_pack("{s:s}", "uri", uri));
}
