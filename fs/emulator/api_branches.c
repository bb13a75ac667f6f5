/* Branches: list, create, change, delete, default, backup schedule. reference/neon-api.md §4, §2.9. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "api_i.h"
#include "emulator/js.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/text.h"

#define NAME_MAX_CHARS 256
#define ANNOTATIONS_MAX 50
#define PAGE_DEFAULT 100
#define PAGE_MAX 10000

static json_t *show_annotation(const json_t *branch)
{
    json_t *value = json_object_get(branch, "_annotation");
    return json_pack("{s:{s:s, s:s}, s:o, s:s, s:s}", "object", "type", "console/branch", "id", js_str(branch, "id"), "value",
                     value ? json_deep_copy(value) : json_object(), "created_at", js_str(branch, "created_at"), "updated_at",
                     js_str(branch, "created_at"));
}

/* The text by which a list is sorted: the member, and the sequence number for equal ones. New string. */
static char *sort_key(const json_t *branch, const char *member)
{
    return js_format("%s\x1f%020lld", js_str(branch, member), (long long)js_int(branch, "_seq"));
}

static char *to_hex(const char *text)
{
    struct buf out = {0};
    for (const unsigned char *p = (const unsigned char *)text; *p; p++)
        buf_addf(&out, "%02x", *p);
    char *hex = buf_steal(&out);
    return hex ? hex : js_strdup("");
}

static char *from_hex(const char *hex)
{
    size_t n = strlen(hex);
    if (n % 2 || strspn(hex, "0123456789abcdef") != n)
        return NULL;
    char *out = js_format("%*s", (int)(n / 2), "");
    for (size_t i = 0; i < n / 2; i++) {
        unsigned value = 0;
        sscanf(hex + i * 2, "%2x", &value);
        out[i] = (char)value;
    }
    return out;
}

struct page {
    const char *member;
    bool ascending;
    int64_t limit;
    char *after; /* sort key of the last row of the page before; NULL = the first page */
    const char *search;
};

static bool read_page(struct request *rq, struct page *page)
{
    *page = (struct page){.member = "updated_at", .limit = PAGE_DEFAULT, .search = js_str(rq->query, "search")};
    const char *by = js_str(rq->query, "sort_by"), *order = js_str(rq->query, "sort_order"),
               *cursor = js_str(rq->query, "cursor");
    if (!query_int(rq, "limit", 1, PAGE_MAX, &page->limit))
        return false;
    if (by && !str_equal(by, "name") && !str_equal(by, "created_at") && !str_equal(by, "updated_at")) {
        answer_error(rq, 400, "", "sort_by: must be name, created_at or updated_at");
        return false;
    }
    if (order && strcasecmp(order, "asc") != 0 && strcasecmp(order, "desc") != 0) {
        answer_error(rq, 400, "", "sort_order: must be asc or desc");
        return false;
    }
    page->member = by ? by : "updated_at";
    page->ascending = order && strcasecmp(order, "asc") == 0;
    if (cursor && !(page->after = from_hex(cursor))) {
        answer_error(rq, 400, "", "cursor: is not one that this server gave");
        return false;
    }
    return true;
}

static bool is_found(const json_t *branch, const char *search)
{
    return !search || strcasestr(js_str(branch, "name"), search) || strcasestr(js_str(branch, "id"), search);
}

struct row {
    char *key;
    json_t *branch;
};

static int by_key(const void *a, const void *b)
{
    return strcmp(((const struct row *)a)->key, ((const struct row *)b)->key);
}

/* All branches of a project in ascending order; the rows' keys are new strings. */
static size_t collect(struct request *rq, const struct page *page, struct row **ret_rows)
{
    json_t *all = emulator_table(rq->e, "branches");
    struct row *rows = calloc(json_object_size(all) + 1, sizeof(*rows));
    size_t n = 0;
    const char *id;
    json_t *branch;
    if (!rows)
        abort();
    json_object_foreach(all, id, branch)
        if (js_is(branch, "project_id", rq->params[0]) && model_visible(branch) && is_found(branch, page->search)) {
            rows[n].key = sort_key(branch, page->member);
            rows[n++].branch = branch;
        }
    qsort(rows, n, sizeof(*rows), by_key);
    *ret_rows = rows;
    return n;
}

HANDLER(api_branches)
{
    struct page page;
    if (!read_page(rq, &page)) {
        free(page.after);
        return 400;
    }
    struct row *rows;
    size_t n = collect(rq, &page, &rows);
    json_t *list = json_array(), *annotations = json_object();
    cleanup_free char *next = NULL;
    const char *last = NULL;
    for (size_t k = 0; k < n && !next; k++) {
        const struct row *row = &rows[page.ascending ? k : n - 1 - k];
        int order = page.after ? strcmp(row->key, page.after) : 0;
        if (page.after && (page.ascending ? order <= 0 : order >= 0))
            continue;
        if ((int64_t)json_array_size(list) == page.limit) {
            next = to_hex(last);
            break;
        }
        json_array_append_new(list, model_show(row->branch));
        if (json_object_get(row->branch, "_annotation"))
            json_object_set_new(annotations, js_str(row->branch, "id"), show_annotation(row->branch));
        last = row->key;
    }
    json_t *pagination = json_pack("{s:s, s:s}", "sort_by", page.member, "sort_order", page.ascending ? "ASC" : "DESC");
    js_set_str(pagination, "next", next);
    for (size_t k = 0; k < n; k++)
        free(rows[k].key);
    free(rows);
    free(page.after);
    return answer(rq, 200, json_pack("{s:o, s:o, s:o}", "branches", list, "annotations", annotations, "pagination", pagination));
}

HANDLER(api_branches_count)
{
    struct page page = {.member = "name", .search = js_str(rq->query, "search")};
    struct row *rows;
    size_t n = collect(rq, &page, &rows);
    for (size_t k = 0; k < n; k++)
        free(rows[k].key);
    free(rows);
    return answer(rq, 200, json_pack("{s:I}", "count", (json_int_t)n));
}

HANDLER(api_branch)
{
    json_t *branch = need_branch(rq, 1);
    if (!branch)
        return 404;
    return answer(rq, 200, json_pack("{s:o, s:o}", "branch", model_show(branch), "annotation", show_annotation(branch)));
}

/* What a request to create a branch asks for. */
struct wish {
    json_t *fields;
    const char *name;
    const char *parent_id;
    bool is_protected;
    char *expires;
    bool endpoint;
};

static int read_endpoints(struct request *rq, struct wish *wish)
{
    const json_t *endpoints = js_get(rq->body, "endpoints");
    if (!endpoints)
        return 0;
    if (!json_is_array(endpoints))
        return answer_error(rq, 400, "", "endpoints: must be an array");
    size_t i;
    json_t *item;
    json_array_foreach(endpoints, i, item) {
        const char *type = js_str(item, "type");
        if (!json_is_object(item) || !type)
            return answer_error(rq, 400, "", "endpoints[%zu].type: is required", i);
        if (!str_equal(type, "read_write") && !str_equal(type, "read_only"))
            return answer_error(rq, 400, "", "endpoints[%zu].type: must be read_write or read_only", i);
        if (str_equal(type, "read_only"))
            return answer_error(rq, 422, "", "read-only endpoints are not available on this server");
        if (wish->endpoint)
            return answer_error(rq, 422, "", "a branch can have one read-write endpoint only");
        wish->endpoint = true;
    }
    return 0;
}

static int check_annotation(struct request *rq, json_t *annotation)
{
    const char *key;
    json_t *value;
    if (annotation && !json_is_object(annotation))
        return answer_error(rq, 400, "", "annotation_value: must be an object");
    if (json_object_size(annotation) > ANNOTATIONS_MAX)
        return answer_error(rq, 400, "", "annotation_value: must not have more than %d members", ANNOTATIONS_MAX);
    json_object_foreach(annotation, key, value)
        if (!json_is_string(value))
            return answer_error(rq, 400, "", "annotation_value.%s: must be a string", key);
    return 0;
}

static int read_wish(struct request *rq, struct wish *wish)
{
    json_t *fields = js_get(rq->body, "branch");
    const char *init = NULL, *lsn = NULL, *timestamp = NULL;
    bool archived = false;
    if (fields && !json_is_object(fields))
        return answer_error(rq, 400, "", "branch: must be an object");
    wish->fields = fields;
    if (!field_string(rq, fields, "branch", "name", 1, NAME_MAX_CHARS, &wish->name) ||
        !field_string(rq, fields, "branch", "parent_id", 1, 60, &wish->parent_id) ||
        !field_string(rq, fields, "branch", "parent_lsn", 1, 40, &lsn) ||
        !field_string(rq, fields, "branch", "parent_timestamp", 1, 60, &timestamp) ||
        !field_string(rq, fields, "branch", "init_source", 1, 40, &init) ||
        !field_bool(rq, fields, "branch", "protected", &wish->is_protected) ||
        !field_bool(rq, fields, "branch", "archived", &archived) ||
        !field_future(rq, fields, "branch", "expires_at", &wish->expires, NULL))
        return 400;
    int64_t at;
    if (timestamp && clock_parse(timestamp, &at) < 0)
        return answer_error(rq, 400, "", "branch.parent_timestamp: must be a time as RFC 3339 writes it");
    if (lsn || timestamp)
        return answer_error(rq, 422, "", "branch.%s: lies outside of the project's history window",
                            lsn ? "parent_lsn" : "parent_timestamp");
    if (init && !str_equal(init, "parent-data"))
        return answer_error(rq, 422, "", "branch.init_source: only parent-data is available on this server");
    if (archived)
        return answer_error(rq, 422, "", "branch.archived: archiving is not available on this server");
    int refused = check_annotation(rq, js_get(rq->body, "annotation_value"));
    return refused ? refused : read_endpoints(rq, wish);
}

static json_t *show_list(const json_t *branch, const char *list)
{
    json_t *out = json_array();
    size_t i;
    json_t *item;
    json_array_foreach(json_object_get(branch, list), i, item) {
        json_t *shown = js_public(item);
        js_set_str(shown, "branch_id", js_str(branch, "id"));
        json_array_append_new(out, shown);
    }
    return out;
}

/* Only where there is no choice: one role, one database. */
static void add_uris(json_t *body, const json_t *branch, const json_t *endpoint)
{
    const json_t *roles = json_object_get(branch, "_roles"), *databases = json_object_get(branch, "_databases");
    if (!endpoint || json_array_size(roles) != 1 || json_array_size(databases) != 1)
        return;
    const json_t *role = json_array_get(roles, 0);
    const char *database = js_str(json_array_get(databases, 0), "name"), *host = js_str(endpoint, "host");
    cleanup_free char *uri = model_uri(endpoint, role, database);
    json_object_set_new(body, "connection_uris",
                        json_pack("[{s:s, s:{s:s, s:s, s:s, s:s, s:s}}]", "connection_uri", uri, "connection_parameters",
                                  "database", database, "password", js_str(role, "_password"), "role", js_str(role, "name"),
                                  "host", host, "pooler_host", host));
}

static int create(struct request *rq, const struct wish *wish)
{
    struct emulator *e = rq->e;
    json_t *parent = wish->parent_id ? model_branch(e, rq->params[0], wish->parent_id) : model_default_branch(e, rq->params[0]);
    if (!parent)
        return answer_error(rq, 404, "", "branch not found");
    if (!need_ready(rq, parent))
        return 422;
    if (wish->name && !e->opt.lenient_names && model_branch_name_taken(e, rq->params[0], wish->name, NULL))
        return answer_error(rq, 409, "", "branch already exists");
    if (!room_for_branch(rq, false))
        return 422;
    json_t *branch = model_add_branch(e, rq->params[0], wish->name), *endpoint = NULL;
    cleanup_err struct err err = {0};
    if (wish->endpoint && model_add_endpoint(e, rq->params[0], js_str(branch, "id"), &endpoint, &err) < 0) {
        json_object_del(emulator_table(e, "branches"), js_str(branch, "id"));
        return answer_error(rq, 503, "", "%s", err_text(&err));
    }
    js_set_str(branch, "parent_id", js_str(parent, "id"));
    js_set_bool(branch, "protected", wish->is_protected);
    js_set_str(branch, "expires_at", wish->expires);
    if (js_get(rq->body, "annotation_value"))
        json_object_set(branch, "_annotation", js_get(rq->body, "annotation_value"));
    model_copy_content(parent, branch);
    make_late(rq, branch);
    json_t *args = json_pack("{s:s, s:s}", "branch", js_str(branch, "id"), "parent", js_str(parent, "id"));
    js_set_str(args, "endpoint", js_str(endpoint, "id"));
    json_t *job = job_new(e, rq, "create_branch", rq->params[0], args);
    job_operation(e, job, "create_branch", js_str(branch, "id"), NULL);
    job_operation(e, job, "timeline_update_protected_config", js_str(branch, "id"), NULL);
    if (endpoint)
        job_operation(e, job, "start_compute", js_str(branch, "id"), js_str(endpoint, "id"));
    int status = answer_with_operations(rq, 201, "branch", model_show(branch), job);
    json_object_set_new(rq->answer, "endpoints", endpoint ? json_pack("[o]", model_show(endpoint)) : json_array());
    json_object_set_new(rq->answer, "roles", show_list(branch, "_roles"));
    json_object_set_new(rq->answer, "databases", show_list(branch, "_databases"));
    add_uris(rq->answer, branch, endpoint);
    return status;
}

HANDLER(api_branch_create)
{
    struct wish wish = {0};
    int status = read_wish(rq, &wish);
    if (!status)
        status = create(rq, &wish);
    free(wish.expires);
    return status;
}

HANDLER(api_branch_update)
{
    json_t *branch = need_branch(rq, 1), *fields;
    const char *name = NULL;
    bool is_protected = js_bool(branch, "protected"), never = false;
    cleanup_free char *expires = NULL;
    if (!branch)
        return 404;
    if (!field_object(rq, rq->body, "branch", &fields) || !field_string(rq, fields, "branch", "name", 1, NAME_MAX_CHARS, &name) ||
        !field_bool(rq, fields, "branch", "protected", &is_protected) ||
        !field_future(rq, fields, "branch", "expires_at", &expires, &never))
        return 400;
    if (name && !rq->e->opt.lenient_names && model_branch_name_taken(rq->e, rq->params[0], name, branch))
        return answer_error(rq, 409, "", "branch already exists");
    if (expires && (js_bool(branch, "default") || is_protected || model_has_children(rq->e, js_str(branch, "id"))))
        return answer_error(rq, 422, "",
                            "branch.expires_at: can't be set on a branch that is default, protected or has children");
    if (name)
        js_set_str(branch, "name", name);
    js_set_bool(branch, "protected", is_protected);
    if (expires || never)
        js_set_str(branch, "expires_at", expires);
    model_touch(branch);
    return answer_with_operations(rq, 200, "branch", model_show(branch), NULL);
}

HANDLER(api_branch_delete)
{
    struct emulator *e = rq->e;
    json_t *branch = model_branch(e, rq->params[0], rq->params[1]);
    if (!branch)
        return 204;
    if (js_bool(branch, "default"))
        return answer_error(rq, 422, "", "cannot delete the default branch");
    if (js_bool(branch, "protected"))
        return answer_error(rq, 422, "", "cannot delete a protected branch");
    if (model_has_children(e, rq->params[1]))
        return answer_error(rq, 422, "", "cannot delete a branch that has children");
    json_t *job = job_new(e, rq, "delete_branch", rq->params[0], json_pack("{s:s}", "branch", rq->params[1]));
    json_t *endpoint = model_endpoint_of(e, rq->params[1]);
    if (endpoint)
        job_operation(e, job, "suspend_compute", rq->params[1], js_str(endpoint, "id"));
    job_operation(e, job, "delete_timeline", rq->params[1], NULL);
    return answer_with_operations(rq, 200, "branch", model_show(branch), job);
}

HANDLER(api_branch_default)
{
    json_t *branch = need_branch(rq, 1);
    if (!branch)
        return 404;
    json_t *old = model_default_branch(rq->e, rq->params[0]);
    if (old && old != branch) {
        js_set_bool(old, "default", false);
        js_set_bool(old, "primary", false);
        model_touch(old);
        model_touch(branch);
    }
    js_set_bool(branch, "default", true);
    js_set_bool(branch, "primary", true);
    return answer_with_operations(rq, 200, "branch", model_show(branch), NULL);
}

/* Restoring a branch to a point in its history: there is none here, and Neon refuses it on what a snapshot was restored into.
 * The head of another branch could be had, but nobody needs it here: README. */
HANDLER(api_branch_restore)
{
    const char *source = NULL, *lsn = NULL, *timestamp = NULL, *preserve = NULL;
    json_t *branch = need_branch(rq, 1);
    if (!branch)
        return 404;
    if (!field_string(rq, rq->body, "", "source_branch_id", 1, 60, &source) ||
        !field_string(rq, rq->body, "", "source_lsn", 1, 40, &lsn) ||
        !field_string(rq, rq->body, "", "source_timestamp", 1, 60, &timestamp) ||
        !field_string(rq, rq->body, "", "preserve_under_name", 1, NAME_MAX_CHARS, &preserve))
        return 400;
    if (!source)
        return answer_error(rq, 400, "", "source_branch_id: is required");
    if (!model_branch(rq->e, rq->params[0], source))
        return answer_error(rq, 404, "", "branch not found");
    if (js_str(branch, "restored_from"))
        return answer_error(rq, 422, "", "restore from snapshot on target branch is still ongoing");
    if (!lsn && !timestamp)
        return str_equal(source, rq->params[1])
                   ? answer_error(rq, 400, "", "source_lsn: or source_timestamp is required where a branch is restored to itself")
                   : answer_error(rq, 422, "", "restoring to the head of another branch is not available on this server");
    if (!preserve && (str_equal(source, rq->params[1]) || model_has_children(rq->e, rq->params[1])))
        return answer_error(rq, 400, "", "preserve_under_name: is required");
    return answer_error(rq, 422, "", "the requested point in time lies outside of the project's history window");
}

HANDLER(api_schedule)
{
    json_t *branch = need_branch(rq, 1);
    if (!branch)
        return 404;
    return answer(rq, 200, json_pack("{s:o}", "schedule", json_deep_copy(json_object_get(branch, "_schedule"))));
}

/* One entry as reference/neon-api.md §2.9 has its rules. 0, or the status. */
static int check_entry(struct request *rq, json_t *item)
{
    const char *frequency = NULL;
    int64_t hour = -1, day = -1, month = 0, retention = 35 * 86400;
    if (!json_is_object(item))
        return answer_error(rq, 400, "", "schedule: must be an array of objects");
    if (!field_string(rq, item, "schedule", "frequency", 1, 20, &frequency) ||
        !field_int(rq, item, "schedule", "hour", 0, 23, &hour) || !field_int(rq, item, "schedule", "month", 1, 12, &month) ||
        !field_int(rq, item, "schedule", "retention_seconds", 3600, 35 * 86400, &retention))
        return 400;
    if (!frequency)
        return answer_error(rq, 400, "", "schedule.frequency: is required");
    bool weekly = str_equal(frequency, "weekly"), monthly = str_equal(frequency, "monthly");
    if (!weekly && !monthly && !str_equal(frequency, "daily"))
        return answer_error(rq, 400, "", "schedule.frequency: must be daily, weekly or monthly");
    if (hour < 0)
        return answer_error(rq, 400, "", "%s schedules must specify the hour of the day", frequency);
    if (!field_int(rq, item, "schedule", "day", 1, weekly ? 7 : 31, &day))
        return 400;
    if (day < 0 && (weekly || monthly))
        return answer_error(rq, 400, "", "%s schedules must specify the day", frequency);
    js_set_int(item, "retention_seconds", retention);
    return 0;
}

HANDLER(api_schedule_set)
{
    json_t *branch = need_branch(rq, 1), *schedule = js_get(rq->body, "schedule");
    if (!branch)
        return 404;
    if (!json_is_array(schedule))
        return answer_error(rq, 400, "", "schedule: must be an array");
    if (str_equal(rq->e->opt.plan, "free"))
        return answer_error(rq, 412, "", "backup schedule creation is not enabled for this project");
    size_t i;
    json_t *item;
    json_array_foreach(schedule, i, item) {
        int status = check_entry(rq, item);
        if (status)
            return status;
    }
    json_object_set(branch, "_schedule", schedule);
    emulator_save(rq->e);
    return answer(rq, 200, json_object());
}
