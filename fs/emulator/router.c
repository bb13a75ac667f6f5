/* Which handler answers which route: one row per route of reference/neon-api.md §9.2. */
#include "emulator/router.h"

#include <stdlib.h>
#include <string.h>

#include "api_i.h"
#include "emulator/content.h"
#include "emulator/js.h"
#include "emulator/url.h"
#include "util/cleanup.h"
#include "util/text.h"

enum flags {
    READS = 0,
    CHANGES = 1,  /* 423 while an operation runs in the project */
    BODY = 2,     /* a JSON object must come */
    MAY_BODY = 4, /* one may come; without either flag a body is ignored, as Neon does */
    SYNC = 8,     /* roles and databases that SQL has made are looked for first */
};

struct route {
    const char *method;
    const char *path;
    unsigned flags;
    int (*handler)(struct request *rq);
};

#define P "/api/v2/projects/{}"
#define B P "/branches/{}"

static const struct route routes[] = {
    {"GET", "/api/v2/auth", READS, api_auth},
    {"GET", "/api/v2/users/me", READS, api_me},
    {"GET", "/api/v2/users/me/organizations", READS, api_my_organizations},
    {"GET", "/api/v2/organizations/{}", READS, api_organization},
    {"GET", "/api/v2/projects", READS, api_projects},
    {"POST", "/api/v2/projects", BODY, api_project_create},
    {"GET", P, READS, api_project},
    {"PATCH", P, CHANGES | BODY, api_project_update},
    {"DELETE", P, CHANGES, api_project_delete},
    {"GET", P "/limits", READS, api_project_limits},
    {"GET", P "/connection_uri", SYNC, api_connection_uri},
    {"GET", P "/operations", READS, api_operations},
    {"GET", P "/operations/{}", READS, api_operation},
    {"GET", P "/branches", READS, api_branches},
    {"POST", P "/branches", CHANGES | MAY_BODY, api_branch_create},
    {"GET", P "/branches/count", READS, api_branches_count},
    {"GET", B, READS, api_branch},
    {"PATCH", B, CHANGES | BODY, api_branch_update},
    {"DELETE", B, CHANGES, api_branch_delete},
    {"POST", B "/set_as_default", CHANGES, api_branch_default},
    {"POST", B "/restore", CHANGES | BODY, api_branch_restore},
    {"POST", B "/finalize_restore", CHANGES | MAY_BODY, api_branch_finalize},
    {"GET", B "/backup_schedule", READS, api_schedule},
    {"PUT", B "/backup_schedule", CHANGES | BODY, api_schedule_set},
    {"POST", B "/snapshot", CHANGES, api_snapshot_create},
    {"GET", P "/snapshots", READS, api_snapshots},
    {"PATCH", P "/snapshots/{}", CHANGES | BODY, api_snapshot_update},
    {"DELETE", P "/snapshots/{}", CHANGES, api_snapshot_delete},
    {"POST", P "/snapshots/{}/restore", CHANGES | MAY_BODY, api_snapshot_restore},
    {"GET", P "/endpoints", READS, api_endpoints},
    {"POST", P "/endpoints", CHANGES | BODY, api_endpoint_create},
    {"GET", P "/endpoints/{}", READS, api_endpoint},
    {"PATCH", P "/endpoints/{}", CHANGES | BODY, api_endpoint_update},
    {"DELETE", P "/endpoints/{}", CHANGES, api_endpoint_delete},
    {"POST", P "/endpoints/{}/start", CHANGES, api_endpoint_start},
    {"POST", P "/endpoints/{}/suspend", CHANGES, api_endpoint_suspend},
    {"POST", P "/endpoints/{}/restart", CHANGES, api_endpoint_restart},
    {"GET", B "/endpoints", READS, api_branch_endpoints},
    {"GET", B "/roles", SYNC, api_roles},
    {"POST", B "/roles", CHANGES | BODY, api_role_create},
    {"GET", B "/roles/{}", SYNC, api_role},
    {"DELETE", B "/roles/{}", CHANGES, api_role_delete},
    {"GET", B "/roles/{}/reveal_password", READS, api_role_reveal},
    {"POST", B "/roles/{}/reset_password", CHANGES, api_role_reset},
    {"GET", B "/databases", SYNC, api_databases},
    {"POST", B "/databases", CHANGES | BODY, api_database_create},
    {"GET", B "/databases/{}", SYNC, api_database},
    {"PATCH", B "/databases/{}", CHANGES | BODY, api_database_update},
    {"DELETE", B "/databases/{}", CHANGES, api_database_delete},
    {"GET", "/emulator/faults", READS, control_faults},
    {"POST", "/emulator/faults", BODY, control_faults_add},
    {"DELETE", "/emulator/faults", READS, control_faults_clear},
    {"POST", "/emulator/console", BODY, control_console},
};

static void clear_params(struct request *rq)
{
    for (size_t i = 0; i < REQUEST_PARAMS; i++) {
        free((char *)(uintptr_t)rq->params[i]);
        rq->params[i] = NULL;
    }
}

/* Whether the path has the route's form; fills the variables. */
static bool matches(const char *form, const char *path, struct request *rq)
{
    size_t found = 0;
    while (*form && *path) {
        if (*form != '/' || *path != '/')
            return false;
        form++;
        path++;
        size_t form_len = strcspn(form, "/"), len = strcspn(path, "/");
        if (form_len == 2 && strncmp(form, "{}", 2) == 0) {
            char *value = len ? url_decode(path, len, 0) : NULL;
            if (!value || found == REQUEST_PARAMS) {
                free(value);
                return false;
            }
            rq->params[found++] = value;
        } else if (form_len != len || strncmp(form, path, len) != 0) {
            return false;
        }
        form += form_len;
        path += len;
    }
    return !*form && !*path;
}

static const struct route *find(struct request *rq)
{
    for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++) {
        if (str_equal(routes[i].method, rq->method) && matches(routes[i].path, rq->path, rq))
            return &routes[i];
        clear_params(rq);
    }
    return NULL;
}

static int read_body(struct request *rq, const struct route *route, const char *body, size_t len)
{
    if (!(route->flags & (BODY | MAY_BODY)))
        return 0;
    size_t blank = 0;
    while (blank < len && strchr(" \t\r\n", body[blank]))
        blank++;
    if (blank == len)
        return route->flags & BODY ? answer_error(rq, 400, "", "request body is required") : 0;
    json_error_t error;
    rq->body = json_loadb(body, len, 0, &error);
    if (!rq->body)
        return answer_error(rq, 400, "", "request body is not valid JSON: %s", error.text);
    if (!json_is_object(rq->body))
        return answer_error(rq, 400, "", "request body must be a JSON object");
    return 0;
}

static int with_lock(struct request *rq, const struct route *route)
{
    struct emulator *e = rq->e;
    if (str_starts(route->path, P) && !model_project(e, rq->params[0]))
        return answer_error(rq, 404, "", "project not found");
    if ((route->flags & CHANGES) && job_running(e, rq->params[0]))
        return answer_error(rq, 423, "",
                            "project already has running conflicting operations, scheduling of new ones is prohibited");
    if (e->stopping && (route->flags & (CHANGES | BODY)))
        return answer_error(rq, 503, "", "the server is shutting down");
    return route->handler(rq);
}

int router_dispatch(struct request *rq, const char *body, size_t body_len)
{
    /* Neon redirects where an id is empty. */
    if (strstr(rq->path, "//"))
        return 301;
    const struct route *route = find(rq);
    if (!route)
        return answer_error(rq, 404, "", "this route does not exist");
    if (json_object_get(rq->query, ""))
        return answer_error(rq, 400, "", "query parameters are not valid");
    int status = read_body(rq, route, body, body_len);
    if (status)
        return status;
    if (route->flags & SYNC)
        content_sync(rq->e, rq->params[0], rq->params[1] ? rq->params[1] : js_str(rq->query, "branch_id"));
    pthread_mutex_lock(&rq->e->lock);
    status = with_lock(rq, route);
    pthread_mutex_unlock(&rq->e->lock);
    return status;
}
