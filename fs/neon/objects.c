/* Neon's JSON objects into structs. Unknown fields are ignored, absent ones allowed wherever Neon has been seen to leave one
 * out, and every enum stays text: Neon adds to its answers without notice (NA §0.2). */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "neon_i.h"
#include "util/clock.h"
#include "util/cleanup.h"
#include "util/text.h"

/* ---- fields ---- */

const char *neon_json_text(const json_t *obj, const char *key)
{
    return json_string_value(json_object_get(obj, key));
}

static int out_of_memory(struct err *err)
{
    return err_set(err, ENOMEM, "out of memory");
}

static int get_text(const json_t *obj, const char *key, char **ret, struct err *err)
{
    const char *s = neon_json_text(obj, key);

    if (s && !(*ret = str_dup(s)))
        return out_of_memory(err);
    return 0;
}

static int get_required(const json_t *obj, const char *key, char **ret, struct err *err)
{
    const char *s = neon_json_text(obj, key);

    if (!s || !*s)
        return err_set(err, EPROTO, "Neon's answer has no \"%s\" where there must be one", key);
    return get_text(obj, key, ret, err);
}

/* Neon writes some numbers as integers or as reals, as it pleases. */
static int64_t get_int(const json_t *obj, const char *key, int64_t absent)
{
    const json_t *j = json_object_get(obj, key);
    double real;

    if (json_is_integer(j))
        return json_integer_value(j);
    if (!json_is_real(j))
        return absent;
    real = json_real_value(j);
    return fabs(real) < 9e18 ? (int64_t)real : absent;
}

static bool get_bool(const json_t *obj, const char *key)
{
    return json_is_true(json_object_get(obj, key));
}

static int64_t get_time(const json_t *obj, const char *key)
{
    const char *s = neon_json_text(obj, key);
    int64_t ns;

    return s && clock_parse(s, &ns) == 0 ? ns : 0;
}

/* ---- one object: parse into a zeroed struct; what was parsed before a failure is freed by the caller ---- */

struct field {
    const char *key;
    size_t offset;
    bool required;
};

static int get_texts(const json_t *obj, const struct field *fields, size_t n, void *item, struct err *err)
{
    for (size_t i = 0; i < n; i++) {
        char **ret = (char **)(void *)((char *)item + fields[i].offset);
        int r = fields[i].required ? get_required(obj, fields[i].key, ret, err) : get_text(obj, fields[i].key, ret, err);

        if (r < 0)
            return r;
    }
    return 0;
}

static void free_texts(const struct field *fields, size_t n, void *item)
{
    for (size_t i = 0; i < n; i++)
        free(*(char **)(void *)((char *)item + fields[i].offset));
}

/* A kind of object: its texts by a table, the rest by a function. */
struct kind {
    size_t size;
    const struct field *fields;
    size_t n_fields;
    void (*rest)(const json_t *obj, void *item);
};

#define REQUIRED(type, name) {#name, offsetof(struct type, name), true}
#define OPTIONAL(type, name) {#name, offsetof(struct type, name), false}
#define KIND(type, table, rest_fn) {sizeof(struct type), table, sizeof(table) / sizeof((table)[0]), rest_fn}

static const struct field project_fields[] = {
    REQUIRED(neon_project, id),
    OPTIONAL(neon_project, name),
    OPTIONAL(neon_project, region_id),
};

static void project_rest(const json_t *obj, void *item)
{
    struct neon_project *p = item;

    p->pg_version = get_int(obj, "pg_version", 0);
    p->history_retention_seconds = get_int(obj, "history_retention_seconds", 0);
}

static const struct field branch_fields[] = {
    REQUIRED(neon_branch, id),
    REQUIRED(neon_branch, name),
    OPTIONAL(neon_branch, parent_id),
    OPTIONAL(neon_branch, current_state),
    OPTIONAL(neon_branch, pending_state),
    OPTIONAL(neon_branch, restore_status),
    OPTIONAL(neon_branch, restored_from),
    OPTIONAL(neon_branch, restored_as),
};

static void branch_rest(const json_t *obj, void *item)
{
    struct neon_branch *b = item;

    /* `primary` is the older name of `default`. */
    b->is_default = json_object_get(obj, "default") ? get_bool(obj, "default") : get_bool(obj, "primary");
    b->is_protected = get_bool(obj, "protected");
    b->created_at_ns = get_time(obj, "created_at");
    b->updated_at_ns = get_time(obj, "updated_at");
    b->expires_at_ns = get_time(obj, "expires_at");
    b->logical_size = get_int(obj, "logical_size", -1);
}

static const struct field snapshot_fields[] = {
    REQUIRED(neon_snapshot, id),
    OPTIONAL(neon_snapshot, name),
    OPTIONAL(neon_snapshot, source_branch_id),
    OPTIONAL(neon_snapshot, lsn),
    OPTIONAL(neon_snapshot, timestamp),
};

static void snapshot_rest(const json_t *obj, void *item)
{
    struct neon_snapshot *s = item;

    s->manual = get_bool(obj, "manual");
    s->created_at_ns = get_time(obj, "created_at");
    s->expires_at_ns = get_time(obj, "expires_at");
    s->full_size = get_int(obj, "full_size", -1);
    s->diff_size = get_int(obj, "diff_size", -1);
}

static const struct field endpoint_fields[] = {
    REQUIRED(neon_endpoint, id),
    OPTIONAL(neon_endpoint, host),
    OPTIONAL(neon_endpoint, branch_id),
    OPTIONAL(neon_endpoint, type),
    OPTIONAL(neon_endpoint, current_state),
    OPTIONAL(neon_endpoint, pending_state),
};

static const struct field operation_fields[] = {
    REQUIRED(neon_operation, id),
    OPTIONAL(neon_operation, action),
    REQUIRED(neon_operation, status),
    OPTIONAL(neon_operation, error),
    OPTIONAL(neon_operation, branch_id),
    OPTIONAL(neon_operation, endpoint_id),
};

static void operation_rest(const json_t *obj, void *item)
{
    struct neon_operation *o = item;

    o->failures_count = get_int(obj, "failures_count", 0);
    o->retry_at_ns = get_time(obj, "retry_at");
    o->created_at_ns = get_time(obj, "created_at");
}

static const struct field role_fields[] = {
    REQUIRED(neon_role, name),
};

static void role_rest(const json_t *obj, void *item)
{
    struct neon_role *role = item;

    role->is_protected = get_bool(obj, "protected");
    role->no_login = str_equal(neon_json_text(obj, "authentication_method"), "no_login");
}

static const struct field database_fields[] = {
    REQUIRED(neon_database, name),
    OPTIONAL(neon_database, owner_name),
};

static const struct kind project_kind = KIND(neon_project, project_fields, project_rest);
static const struct kind branch_kind = KIND(neon_branch, branch_fields, branch_rest);
static const struct kind snapshot_kind = KIND(neon_snapshot, snapshot_fields, snapshot_rest);
static const struct kind endpoint_kind = KIND(neon_endpoint, endpoint_fields, NULL);
static const struct kind operation_kind = KIND(neon_operation, operation_fields, operation_rest);
static const struct kind role_kind = KIND(neon_role, role_fields, role_rest);
static const struct kind database_kind = KIND(neon_database, database_fields, NULL);

/* ---- generic: one, several, free ---- */

static void free_item(const struct kind *k, void *item)
{
    free_texts(k->fields, k->n_fields, item);
    memset(item, 0, k->size);
}

static void free_items(const struct kind *k, void *items, size_t n)
{
    for (size_t i = 0; i < n; i++)
        free_texts(k->fields, k->n_fields, (char *)items + i * k->size);
    free(items);
}

/* Fills a zeroed `item`, or leaves it zeroed. */
static int parse_item(const struct kind *k, const json_t *obj, void *item, struct err *err)
{
    int r;

    if (!json_is_object(obj))
        return err_set(err, EPROTO, "Neon's answer lacks an object it must have");
    r = get_texts(obj, k->fields, k->n_fields, item, err);
    if (r < 0)
        free_item(k, item);
    else if (k->rest)
        k->rest(obj, item);
    return r;
}

static int parse_list(const struct kind *k, const json_t *list, void **ret_items, size_t *ret_n, struct err *err)
{
    size_t n = json_array_size(list);
    char *items = n ? calloc(n, k->size) : NULL;

    if (n && !items)
        return out_of_memory(err);
    for (size_t i = 0; i < n; i++) {
        int r = parse_item(k, json_array_get(list, i), items + i * k->size, err);

        if (r < 0) {
            free_items(k, items, i);
            return r;
        }
    }
    *ret_items = items;
    *ret_n = n;
    return 0;
}

/* The list `key` of `root`. Where it is not `required` it may be absent, or null. */
static int parse_named_list(const struct kind *k, const json_t *root, const char *key, bool required, void **ret_items,
                            size_t *ret_n, struct err *err)
{
    const json_t *list = json_object_get(root, key);

    if (!json_is_array(list) && (required || (list && !json_is_null(list))))
        return err_set(err, EPROTO, "Neon's answer has no list \"%s\" where there must be one", key);
    return parse_list(k, list, ret_items, ret_n, err);
}

/* ---- the interface: typed fronts of the above ---- */

#define DEFINE_ITEM(type, fn)                                                                                  \
    int neon_parse_##fn(const json_t *root, const char *key, struct type *ret, struct err *err)                \
    {                                                                                                          \
        struct type item = {0};                                                                                \
        int r = parse_item(&fn##_kind, json_object_get(root, key), &item, err);                                \
        if (r == 0)                                                                                            \
            *ret = item;                                                                                       \
        return r;                                                                                              \
    }                                                                                                          \
    void type##_free(struct type *item) { free_item(&fn##_kind, item); }

#define DEFINE_LIST(type, fn, key, kind, required)                                                             \
    int neon_parse_##fn(const json_t *root, struct type *ret, struct err *err)                                 \
    {                                                                                                          \
        void *items = NULL;                                                                                    \
        size_t n = 0;                                                                                          \
        int r = parse_named_list(&kind, root, key, required, &items, &n, err);                                 \
        if (r == 0) {                                                                                          \
            ret->items = items;                                                                                \
            ret->n = n;                                                                                        \
        }                                                                                                      \
        return r;                                                                                              \
    }                                                                                                          \
    void type##_free(struct type *l)                                                                           \
    {                                                                                                          \
        free_items(&kind, l->items, l->n);                                                                     \
        *l = (struct type){0};                                                                                 \
    }

DEFINE_ITEM(neon_project, project)
DEFINE_ITEM(neon_branch, branch)
DEFINE_ITEM(neon_snapshot, snapshot)
DEFINE_ITEM(neon_endpoint, endpoint)
DEFINE_ITEM(neon_operation, operation)

DEFINE_LIST(neon_branches, branches, "branches", branch_kind, true)
DEFINE_LIST(neon_snapshots, snapshots, "snapshots", snapshot_kind, true)
DEFINE_LIST(neon_roles, roles, "roles", role_kind, true)
DEFINE_LIST(neon_databases, databases, "databases", database_kind, true)
DEFINE_LIST(neon_endpoints, endpoints, "endpoints", endpoint_kind, false)
DEFINE_LIST(neon_operations, operations, "operations", operation_kind, false)

int neon_parse_restored(const json_t *root, struct neon_restored *ret, struct err *err)
{
    struct neon_restored made = {0};
    int r;

    r = neon_parse_branch(root, "branch", &made.branch, err);
    if (r == 0)
        r = neon_parse_endpoints(root, &made.endpoints, err);
    if (r == 0)
        r = neon_parse_operations(root, &made.operations, err);
    if (r < 0)
        neon_restored_free(&made);
    else
        *ret = made;
    return r;
}

void neon_restored_free(struct neon_restored *r)
{
    neon_branch_free(&r->branch);
    neon_endpoints_free(&r->endpoints);
    neon_operations_free(&r->operations);
}

int neon_branches_append(struct neon_branches *l, struct neon_branches *more)
{
    struct neon_branch *items;

    if (more->n == 0) {
        neon_branches_free(more);
        return 0;
    }
    items = reallocarray(l->items, l->n + more->n, sizeof(*items));
    if (!items)
        return -ENOMEM;
    memcpy(items + l->n, more->items, more->n * sizeof(*items));
    l->items = items;
    l->n += more->n;
    free(more->items);
    *more = (struct neon_branches){0};
    return 0;
}
