/* What every call has in common, and the calls that only read: project, endpoints, roles, databases, connection strings. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "neon_i.h"
#include "util/cleanup.h"
#include "util/text.h"

#define MAX_ID 60
#define MAX_NAME 256

bool neon_id_ok(const char *id)
{
    size_t n = id ? strlen(id) : 0;

    return n > 0 && n <= MAX_ID && strspn(id, "abcdefghijklmnopqrstuvwxyz0123456789-") == n;
}

int neon_check_id(const char *id, const char *what, struct err *err)
{
    if (neon_id_ok(id))
        return 0;
    if (!id || !*id)
        return err_set(err, EINVAL, "no %s id given", what); /* Neon would answer with a redirect (NA §1) */
    return err_set(err, EINVAL, "not a %s id: lower-case letters, digits and dashes, at most %d", what, MAX_ID);
}

int neon_check_name(const char *name, const char *what, struct err *err)
{
    size_t n = name ? strlen(name) : 0;

    if (n > 0 && n <= MAX_NAME && utf8_valid(name, n))
        return 0;
    return err_set(err, EINVAL, "a %s's name must be UTF-8 of 1 to %d bytes", what, MAX_NAME);
}

void neon_add_query(struct buf *b, const char *key, const char *value)
{
    char *escaped = curl_easy_escape(NULL, value, 0);

    if (!escaped) {
        b->failed = true;
        return;
    }
    buf_addf(b, "%c%s=%s", b->data && strchr(b->data, '?') ? '&' : '?', key, escaped);
    curl_free(escaped);
}

int neon_done_unread(int r, bool *ret_unknown, struct err *err)
{
    neon_set_unknown(ret_unknown, true);
    if (err)
        err_prefix(err, "Neon has done it, but its answer can't be read");
    return r;
}

int neon_ask(struct neon *neon, const struct neon_call *call, struct ask *a, json_t **ret_root, bool *ret_unknown,
             struct err *err)
{
    struct neon_call bounded = neon_bound(neon, call);
    char *path cleanup_free = a->path ? str_format("/projects/%s%s", neon->project_id, a->path) : NULL;
    bool unknown = false;
    int r;

    if (path && a->what && (a->body || !a->has_body)) {
        struct request q = {.method = a->method, .path = path, .body = a->body, .what = a->what};

        r = neon_send(neon, &bounded, &q, ret_root, &unknown, err);
    } else {
        r = err_set(err, ENOMEM, "out of memory");
    }
    neon_set_unknown(ret_unknown, unknown);
    free(a->path);
    free(a->what);
    json_decref(a->body);
    *a = (struct ask){0};
    return r;
}

int neon_ask_operations(struct neon *neon, const struct neon_call *call, struct ask *a, struct neon_operations *ret_operations,
                        bool *ret_unknown, struct err *err)
{
    json_t *root cleanup_json = NULL;
    int r;

    r = neon_ask(neon, call, a, &root, ret_unknown, err);
    if (r < 0)
        return r;
    r = neon_parse_operations(root, ret_operations, err);
    return r < 0 ? neon_done_unread(r, ret_unknown, err) : 0;
}

/* GET `path`, both texts taken. */
static int get(struct neon *neon, const struct neon_call *call, char *path, char *what, json_t **ret_root, struct err *err)
{
    struct ask a = {.method = "GET", .path = path, .what = what};

    return neon_ask(neon, call, &a, ret_root, NULL, err);
}

int neon_project_get(struct neon *neon, const struct neon_call *call, struct neon_project *ret_project, struct err *err)
{
    json_t *root cleanup_json = NULL;
    int r;

    r = get(neon, call, str_dup(""), str_format("read project %s", neon->project_id), &root, err);
    return r < 0 ? r : neon_parse_project(root, "project", ret_project, err);
}

static int64_t limit_of(const json_t *limits, const char *key)
{
    const json_t *v = json_object_get(limits, key);

    return json_is_integer(v) && json_integer_value(v) >= 0 ? json_integer_value(v) : -1;
}

int neon_limits_get(struct neon *neon, const struct neon_call *call, struct neon_limits *ret_limits, struct err *err)
{
    json_t *root cleanup_json = NULL;
    const json_t *l;
    int r;

    r = get(neon, call, str_dup("/limits"), str_format("read the limits of project %s", neon->project_id), &root, err);
    if (r < 0)
        return r;
    l = json_object_get(root, "limits");
    *ret_limits = (struct neon_limits){limit_of(l, "max_branches"), limit_of(l, "max_root_branches"), limit_of(l, "max_snapshots")};
    return 0;
}

int neon_endpoints_list(struct neon *neon, const struct neon_call *call, const char *branch_id,
                        struct neon_endpoints *ret_endpoints, struct err *err)
{
    json_t *root cleanup_json = NULL;
    int r;

    if (!branch_id)
        r = get(neon, call, str_dup("/endpoints"), str_format("list the endpoints of project %s", neon->project_id), &root, err);
    else if ((r = neon_check_id(branch_id, "branch", err)) == 0)
        r = get(neon, call, str_format("/branches/%s/endpoints", branch_id),
                str_format("list the endpoints of branch %s", branch_id), &root, err);
    return r < 0 ? r : neon_parse_endpoints(root, ret_endpoints, err);
}

const struct neon_endpoint *neon_endpoints_read_write(const struct neon_endpoints *l)
{
    for (size_t i = 0; i < l->n; i++)
        if (str_equal(l->items[i].type, "read_write"))
            return &l->items[i];
    return NULL;
}

int neon_endpoint_create(struct neon *neon, const struct neon_call *call, const char *branch_id,
                         struct neon_endpoint *ret_endpoint, struct neon_operations *ret_operations, bool *ret_unknown,
                         struct err *err)
{
    struct neon_endpoint endpoint = {0};
    json_t *root cleanup_json = NULL;
    struct ask a;
    int r;

    neon_set_unknown(ret_unknown, false);
    r = neon_check_id(branch_id, "branch", err);
    if (r < 0)
        return r;
    a = (struct ask){.method = "POST",
                     .path = str_dup("/endpoints"),
                     .what = str_format("make an endpoint for branch %s", branch_id),
                     .has_body = true,
                     .body = json_pack("{s:{s:s, s:s}}", "endpoint", "branch_id", branch_id, "type", "read_write")};
    r = neon_ask(neon, call, &a, &root, ret_unknown, err);
    if (r < 0)
        return r;
    r = neon_parse_endpoint(root, "endpoint", &endpoint, err);
    if (r == 0)
        r = neon_parse_operations(root, ret_operations, err);
    if (r < 0) {
        neon_endpoint_free(&endpoint);
        return neon_done_unread(r, ret_unknown, err);
    }
    *ret_endpoint = endpoint;
    return 0;
}

int neon_connection_uri(struct neon *neon, const struct neon_call *call, const char *branch_id, const char *database,
                        const char *role, char **ret_uri, struct err *err)
{
    struct buf path cleanup_buf = {0};
    json_t *root cleanup_json = NULL;
    const char *uri;
    char *copy;
    int r;

    r = neon_check_id(branch_id, "branch", err);
    if (r == 0)
        r = neon_check_name(database, "database", err);
    if (r == 0)
        r = neon_check_name(role, "role", err);
    if (r < 0)
        return r;
    buf_adds(&path, "/connection_uri");
    neon_add_query(&path, "branch_id", branch_id);
    neon_add_query(&path, "database_name", database);
    neon_add_query(&path, "role_name", role);
    r = get(neon, call, buf_steal(&path),
            str_format("get the connection string of branch %s, database %s, role %s", branch_id, database, role), &root, err);
    if (r < 0)
        return r;
    uri = neon_json_text(root, "uri");
    if (!uri || !*uri)
        return err_set(err, EPROTO, "Neon's answer holds no connection string for branch %s", branch_id);
    copy = str_dup(uri);
    if (!copy)
        return err_set(err, ENOMEM, "out of memory");
    *ret_uri = copy;
    return 0;
}

int neon_roles_list(struct neon *neon, const struct neon_call *call, const char *branch_id, struct neon_roles *ret_roles,
                    struct err *err)
{
    json_t *root cleanup_json = NULL;
    int r;

    r = neon_check_id(branch_id, "branch", err);
    if (r == 0)
        r = get(neon, call, str_format("/branches/%s/roles", branch_id), str_format("list the roles of branch %s", branch_id),
                &root, err);
    return r < 0 ? r : neon_parse_roles(root, ret_roles, err);
}

int neon_databases_list(struct neon *neon, const struct neon_call *call, const char *branch_id,
                        struct neon_databases *ret_databases, struct err *err)
{
    json_t *root cleanup_json = NULL;
    int r;

    r = neon_check_id(branch_id, "branch", err);
    if (r == 0)
        r = get(neon, call, str_format("/branches/%s/databases", branch_id),
                str_format("list the databases of branch %s", branch_id), &root, err);
    return r < 0 ? r : neon_parse_databases(root, ret_databases, err);
}
