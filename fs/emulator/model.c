/* Projects, branches, endpoints, snapshots as records of the state: finding, adding, counting. */
#include "emulator/model.h"

#include <stdlib.h>
#include <string.h>

#include "emulator/ids.h"
#include "emulator/js.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/text.h"

#define REGION "local"

bool model_visible(const json_t *record)
{
    int64_t at = js_int(record, "_visible_at");
    return at == 0 || clock_now() / 1000000 >= at;
}

static json_t *find(struct emulator *e, const char *table, const char *project, const char *id)
{
    json_t *record = id ? json_object_get(emulator_table(e, table), id) : NULL;
    return record && (!project || js_is(record, "project_id", project)) && model_visible(record) ? record : NULL;
}

json_t *model_project(struct emulator *e, const char *id)
{
    return find(e, "projects", NULL, id);
}

json_t *model_branch(struct emulator *e, const char *project, const char *id)
{
    return find(e, "branches", project, id);
}

json_t *model_snapshot(struct emulator *e, const char *project, const char *id)
{
    json_t *record = id ? json_object_get(emulator_table(e, "snapshots"), id) : NULL;
    return record && js_is(record, "_project_id", project) && model_visible(record) ? record : NULL;
}

json_t *model_endpoint(struct emulator *e, const char *project, const char *id)
{
    json_t *endpoint = find(e, "endpoints", project, id);
    json_t *branch = endpoint ? json_object_get(emulator_table(e, "branches"), js_str(endpoint, "branch_id")) : NULL;
    return branch && model_visible(branch) ? endpoint : NULL;
}

json_t *model_endpoint_of(struct emulator *e, const char *branch)
{
    const char *id;
    json_t *endpoint;
    json_object_foreach(emulator_table(e, "endpoints"), id, endpoint)
        if (js_is(endpoint, "branch_id", branch))
            return endpoint;
    return NULL;
}

json_t *model_default_branch(struct emulator *e, const char *project)
{
    const char *id;
    json_t *branch;
    json_object_foreach(emulator_table(e, "branches"), id, branch)
        if (js_is(branch, "project_id", project) && js_bool(branch, "default"))
            return branch;
    return NULL;
}

bool model_has_children(struct emulator *e, const char *branch)
{
    const char *id;
    json_t *other;
    json_object_foreach(emulator_table(e, "branches"), id, other)
        if (js_is(other, "parent_id", branch))
            return true;
    return false;
}

static bool name_taken(struct emulator *e, const char *table, const char *member, const char *project, const char *name,
                       const json_t *except)
{
    const char *id;
    json_t *record;
    json_object_foreach(emulator_table(e, table), id, record)
        if (record != except && js_is(record, member, project) && js_is(record, "name", name))
            return true;
    return false;
}

bool model_branch_name_taken(struct emulator *e, const char *project, const char *name, const json_t *except)
{
    return name_taken(e, "branches", "project_id", project, name, except);
}

bool model_snapshot_name_taken(struct emulator *e, const char *project, const char *name, const json_t *except)
{
    return name_taken(e, "snapshots", "_project_id", project, name, except);
}

typedef bool (*taken_fn)(struct emulator *e, const char *project, const char *name, const json_t *except);

static char *free_name(struct emulator *e, const char *project, const char *wanted, taken_fn taken)
{
    char *name = js_strdup(wanted);
    for (int i = 2; taken(e, project, name, NULL); i++) {
        free(name);
        name = js_format("%s %d", wanted, i);
    }
    return name;
}

char *model_free_branch_name(struct emulator *e, const char *project, const char *wanted)
{
    return free_name(e, project, wanted, model_branch_name_taken);
}

char *model_free_snapshot_name(struct emulator *e, const char *project, const char *wanted)
{
    return free_name(e, project, wanted, model_snapshot_name_taken);
}

int model_count_branches(struct emulator *e, const char *project, bool roots_only)
{
    int n = 0;
    const char *id;
    json_t *branch;
    json_object_foreach(emulator_table(e, "branches"), id, branch)
        if (js_is(branch, "project_id", project) && !(roots_only && js_get(branch, "parent_id")))
            n++;
    return n;
}

int model_count_snapshots(struct emulator *e, const char *project)
{
    int n = 0;
    const char *id;
    json_t *snapshot;
    json_object_foreach(emulator_table(e, "snapshots"), id, snapshot)
        if (js_is(snapshot, "_project_id", project))
            n++;
    return n;
}

/* A new id that no record of the table has. */
static char *new_id(struct emulator *e, const char *table, const char *prefix)
{
    for (;;) {
        char *id = ids_new(prefix);
        if (!json_object_get(emulator_table(e, table), id))
            return id;
        free(id);
    }
}

json_t *model_add_branch(struct emulator *e, const char *project, const char *name)
{
    cleanup_free char *id = new_id(e, "branches", "br");
    cleanup_free char *now = emulator_now();
    json_t *branch = json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:b, s:b, s:b, s:i, s:i, s:i, s:i, s:i, s:s, s:s, s:s, s:I, s:[], s:[], s:[]}",
        "id", id, "project_id", project, "name", name ? name : id, "slug", id, "current_state", "init", "pending_state", "ready",
        "state_changed_at", now, "creation_source", "console", "primary", 0, "default", 0, "protected", 0, "cpu_used_sec", 0,
        "compute_time_seconds", 0, "active_time_seconds", 0, "written_data_bytes", 0, "data_transfer_bytes", 0, "created_at", now,
        "updated_at", now, "init_source", "parent-data", "_seq", (json_int_t)emulator_next(e), "_roles", "_databases",
        "_schedule");
    json_object_set_new(emulator_table(e, "branches"), id, branch);
    return branch;
}

json_t *model_add_snapshot(struct emulator *e, const json_t *branch, const char *name)
{
    cleanup_free char *id = new_id(e, "snapshots", "snap");
    cleanup_free char *now = emulator_now();
    json_t *snapshot = json_pack("{s:s, s:s, s:s, s:s, s:s, s:b, s:s, s:I, s:[], s:[]}", "id", id, "name", name, "slug", id,
                                 "source_branch_id", js_str(branch, "id"), "created_at", now, "manual", 1, "_project_id",
                                 js_str(branch, "project_id"), "_seq", (json_int_t)emulator_next(e), "_roles", "_databases");
    model_copy_content(branch, snapshot);
    json_object_set_new(emulator_table(e, "snapshots"), id, snapshot);
    return snapshot;
}

int *model_ports(struct emulator *e, size_t *ret_n)
{
    json_t *endpoints = emulator_table(e, "endpoints");
    int *ports = calloc(json_object_size(endpoints) + 1, sizeof(*ports));
    size_t n = 0;
    const char *id;
    json_t *endpoint;
    if (!ports)
        abort();
    json_object_foreach(endpoints, id, endpoint)
        ports[n++] = (int)js_int(endpoint, "_port");
    ports[n++] = e->http_port;
    *ret_n = n;
    return ports;
}

int model_add_endpoint(struct emulator *e, const char *project, const char *branch, json_t **ret_endpoint, struct err *err)
{
    size_t n;
    cleanup_free int *taken = model_ports(e, &n);
    int port;
    int r = pgserver_free_port("127.0.0.1", taken, n, &port, err);
    if (r < 0)
        return r;
    cleanup_free char *id = new_id(e, "endpoints", "ep");
    cleanup_free char *now = emulator_now();
    cleanup_free char *host = js_format("127.0.0.1:%d", port);
    json_t *endpoint = json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:f, s:f, s:s, s:s, s:s, s:{s:{}}, s:b, s:s, s:b, s:b, s:s, s:s, s:s, s:s, s:i, s:s, s:i, s:b, "
        "s:I}",
        "host", host, "id", id, "slug", id, "project_id", project, "branch_id", branch, "autoscaling_limit_min_cu", 0.25,
        "autoscaling_limit_max_cu", 0.25, "region_id", REGION, "type", "read_write", "current_state", "init", "settings",
        "pg_settings", "pooler_enabled", 0, "pooler_mode", "transaction", "disabled", 0, "passwordless_access", 0,
        "creation_source", "console", "created_at", now, "updated_at", now, "proxy_host", "127.0.0.1", "suspend_timeout_seconds",
        0, "provisioner", "k8s-neonvm", "_port", port, "_active", 1, "_seq", (json_int_t)emulator_next(e));
    js_set_str(endpoint, "pending_state", "active");
    json_object_set_new(emulator_table(e, "endpoints"), id, endpoint);
    *ret_endpoint = endpoint;
    return 0;
}

json_t *model_add_role(json_t *branch, const char *name, const char *password)
{
    cleanup_free char *now = emulator_now();
    json_t *role = json_pack("{s:s, s:s, s:b, s:s, s:s, s:s}", "name", name, "_password", password ? password : "", "protected",
                             0, "authentication_method", password ? "password" : "no_login", "created_at", now, "updated_at",
                             now);
    json_array_append_new(json_object_get(branch, "_roles"), role);
    return role;
}

json_t *model_add_database(struct emulator *e, json_t *branch, const char *name, const char *owner)
{
    cleanup_free char *now = emulator_now();
    json_t *database = json_pack("{s:I, s:s, s:s, s:s, s:s}", "id", (json_int_t)emulator_next(e), "name", name, "owner_name",
                                 owner, "created_at", now, "updated_at", now);
    json_array_append_new(json_object_get(branch, "_databases"), database);
    return database;
}

static json_t *by_name(const json_t *record, const char *list, const char *name)
{
    size_t i;
    json_t *item;
    json_array_foreach(json_object_get(record, list), i, item)
        if (js_is(item, "name", name))
            return item;
    return NULL;
}

json_t *model_role(const json_t *branch, const char *name)
{
    return by_name(branch, "_roles", name);
}

json_t *model_database(const json_t *branch, const char *name)
{
    return by_name(branch, "_databases", name);
}

void model_copy_content(const json_t *from, json_t *to)
{
    json_object_set_new(to, "_roles", json_deep_copy(json_object_get(from, "_roles")));
    json_object_set_new(to, "_databases", json_deep_copy(json_object_get(from, "_databases")));
}

void model_touch(json_t *record)
{
    cleanup_free char *now = emulator_now();
    js_set_str(record, "updated_at", now);
}

void model_branch_ready(json_t *branch)
{
    cleanup_free char *now = emulator_now();
    js_set_str(branch, "current_state", "ready");
    js_set_str(branch, "pending_state", NULL);
    js_set_str(branch, "state_changed_at", now);
    js_set_str(branch, "updated_at", now);
}

void model_endpoint_state(json_t *endpoint, const char *state)
{
    cleanup_free char *now = emulator_now();
    bool active = str_equal(state, "active");
    js_set_str(endpoint, "current_state", state);
    js_set_str(endpoint, "pending_state", NULL);
    js_set_bool(endpoint, "_active", active);
    js_set_str(endpoint, active ? "started_at" : "suspended_at", now);
    if (active)
        js_set_str(endpoint, "last_active", now);
    js_set_str(endpoint, "updated_at", now);
}

json_t *model_show(const json_t *record)
{
    return js_public(record);
}

json_t *model_show_snapshot(const json_t *snapshot)
{
    json_t *out = js_public(snapshot);
    int64_t at = js_int(snapshot, "_full_size_at");
    if (at > 0 && clock_now() / 1000000 >= at)
        js_set_int(out, "full_size", js_int(snapshot, "_full_size"));
    return out;
}

static char *percent_encode(const char *text)
{
    struct buf out = {0};
    for (const unsigned char *p = (const unsigned char *)text; *p; p++)
        if ((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9') || strchr("-._~", *p))
            buf_addc(&out, (char)*p);
        else
            buf_addf(&out, "%%%02X", *p);
    char *text_out = buf_steal(&out);
    if (!text_out)
        abort();
    return text_out;
}

char *model_uri(const json_t *endpoint, const json_t *role, const char *database)
{
    cleanup_free char *user = percent_encode(js_str(role, "name"));
    cleanup_free char *password = percent_encode(js_str(role, "_password"));
    cleanup_free char *name = percent_encode(database);
    /* The server speaks no TLS; for the rest it is the form that Neon gives. */
    return js_format("postgresql://%s%s%s@%s/%s?sslmode=disable", user, password[0] ? ":" : "", password,
                     js_str(endpoint, "host"), name);
}
