/* Which branch is active: by the store's record, checked against Neon before anything relies on it (design.md §5). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "actions_i.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/log.h"
#include "util/text.h"

/* Whoever waits for an action gets ETIMEDOUT after the deadline; the action itself goes on for so many times as long. */
#define PATIENCE 6

struct neon_call engine_call(struct engine *g)
{
    return (struct neon_call){.cancelled = &g->stopping, .deadline_mono_ms = clock_mono_ms() + PATIENCE * g->c.deadline_ms};
}

/* What a failure says about Neon's health: an answer, even an unwelcome one, is none. */
static bool unreachable(int code)
{
    return store_away(code) || code == EPROTO || code == EACCES;
}

int neon_said(struct engine *g, int r, const struct err *e)
{
    bool changed = false;

    pthread_mutex_lock(&g->lock);
    if (r < 0 && unreachable(-r)) {
        const char *text = e ? err_text(e) : strerrordesc_np(-r);

        changed = !str_equal(g->neon_trouble, text);
        free(g->neon_trouble);
        g->neon_trouble = str_dup(text);
    } else if (g->neon_trouble) {
        free(g->neon_trouble);
        g->neon_trouble = NULL;
        changed = true;
    }
    pthread_mutex_unlock(&g->lock);
    if (changed)
        engine_health(g);
    return r;
}

void active_set(struct engine *g, const char *branch, const char *endpoint)
{
    cleanup_free char *line = str_format("%s\n", branch);

    pthread_mutex_lock(&g->lock);
    free(g->active_branch);
    g->active_branch = str_dup(branch);
    if (endpoint) {
        free(g->endpoint_id);
        g->endpoint_id = str_dup(endpoint);
    }
    pthread_mutex_unlock(&g->lock);
    if (line)
        index_set_text(g->c.index, MOUNT_ACTIVE_BRANCH, line, 0);
    engine_health(g);
}

/* The only role or database there is, Neon's own left out. */
static int only_role(struct engine *g, const struct neon_call *call, const char *branch, char **ret, struct err *e)
{
    struct neon_roles roles = {0};
    const char *found = NULL;
    size_t n = 0;
    int r;

    if (g->c.role) {
        *ret = str_dup(g->c.role);
        return *ret ? 0 : -ENOMEM;
    }
    r = neon_said(g, neon_roles_list(g->c.neon, call, branch, &roles, e), e);
    if (r < 0)
        return r;
    for (size_t i = 0; i < roles.n; i++) {
        if (roles.items[i].is_protected || roles.items[i].no_login)
            continue;
        found = roles.items[i].name;
        n++;
    }
    if (n == 1)
        *ret = str_dup(found);
    else
        r = err_set(e, EINVAL, "branch %s has %zu roles to connect with; name one, and its database, in DATABASE_URL", branch, n);
    neon_roles_free(&roles);
    return r;
}

static int only_database(struct engine *g, const struct neon_call *call, const char *branch, char **ret, struct err *e)
{
    struct neon_databases dbs = {0};
    int r;

    if (g->c.database) {
        *ret = str_dup(g->c.database);
        return *ret ? 0 : -ENOMEM;
    }
    r = neon_said(g, neon_databases_list(g->c.neon, call, branch, &dbs, e), e);
    if (r < 0)
        return r;
    if (dbs.n == 1)
        *ret = str_dup(dbs.items[0].name);
    else
        r = err_set(e, EINVAL, "branch %s has %zu databases; name one, and its role, in DATABASE_URL", branch, dbs.n);
    neon_databases_free(&dbs);
    return r;
}

int uri_of(struct engine *g, const struct neon_call *call, const char *branch, char **ret_uri, struct err *e)
{
    cleanup_free char *role = NULL;
    cleanup_free char *database = NULL;
    int r;

    if ((r = only_role(g, call, branch, &role, e)) < 0 || (r = only_database(g, call, branch, &database, e)) < 0)
        return r;
    r = neon_said(g, neon_connection_uri(g->c.neon, call, branch, database, role, ret_uri, e), e);
    if (r == 0 && mask_uri(g, *ret_uri) < 0) {
        free(*ret_uri);
        *ret_uri = NULL;
        r = err_set(e, ENOMEM, "out of memory");
    }
    return r;
}

int active_uri(struct engine *g, const struct neon_call *call, const char *branch, char **ret_uri, struct err *e)
{
    cleanup_free char *uri = NULL;
    cleanup_free char *line = NULL;
    int r = uri_of(g, call, branch, &uri, e);

    if (r < 0)
        return r;
    line = str_format("%s\n", uri);
    if (!line)
        return err_set(e, ENOMEM, "out of memory");
    index_set_text(g->c.index, MOUNT_CONNECTION_URI, line, 0);
    pthread_mutex_lock(&g->lock);
    free(g->connection_uri);
    g->connection_uri = str_dup(uri);
    g->uri_old = false;
    pthread_mutex_unlock(&g->lock);
    if (ret_uri)
        *ret_uri = steal_ptr(&uri);
    return 0;
}

/* ---- does Neon agree with the record? ------------------------------------------------------------------------------- */

/* `id`: the branch that Neon says is active; NULL when it says none, and then `what` is so. */
static int disagrees(struct err *e, const char *recorded, const char *id, const char *what)
{
    if (!id)
        return err_set(e, ESTALE,
                       "the active branch is %s by the record of this mount, but Neon says %s; somebody changed it from outside. "
                       "Nothing was done. Put the branch back in Neon's console, or go on with another one:"
                       " echo 'adopt BRANCH_ID' > .control/adopt",
                       recorded, what);
    return err_set(e, ESTALE,
                   "the active branch is %s by the record of this mount, but Neon says %s; somebody changed it from outside. Nothing was "
                   "done. Put the branch back in Neon's console, or go on with that one: echo 'adopt %s' > .control/adopt",
                   recorded, id, id);
}

/* The read-write endpoint of `branch`; NULL when it has none. */
static int endpoint_of(struct engine *g, const struct neon_call *call, const char *branch, char **ret, struct err *e)
{
    struct neon_endpoints eps = {0};
    const struct neon_endpoint *rw;
    int r = neon_said(g, neon_endpoints_list(g->c.neon, call, branch, &eps, e), e);

    if (r < 0)
        return r;
    rw = neon_endpoints_read_write(&eps);
    *ret = rw ? str_dup(rw->id) : NULL;
    neon_endpoints_free(&eps);
    return 0;
}

int branch_of_endpoint(struct engine *g, const struct neon_call *call, const char *endpoint, char **ret, struct err *e)
{
    struct neon_endpoints eps = {0};
    int r = neon_said(g, neon_endpoints_list(g->c.neon, call, NULL, &eps, e), e);

    *ret = NULL;
    for (size_t i = 0; r == 0 && i < eps.n; i++)
        if (str_equal(eps.items[i].id, endpoint))
            *ret = str_dup(eps.items[i].branch_id);
    neon_endpoints_free(&eps);
    return r;
}

static int check_branches(struct engine *g, const struct neon_call *call, const char *recorded, struct err *e)
{
    struct neon_branches l = {0};
    const struct neon_branch *b, *def;
    int r = neon_said(g, neon_branches_list(g->c.neon, call, &l, e), e);

    if (r < 0)
        return r;
    b = neon_branches_by_id(&l, recorded);
    def = neon_branches_default(&l);
    if (!b)
        r = disagrees(e, recorded, def && g->follows_default ? def->id : NULL, "it is gone");
    else if (b->parent_id)
        r = err_set(e, EINVAL, "branch %s is a child of %s; snapshots can only be taken of root branches", recorded, b->parent_id);
    else if (g->follows_default && (!def || strcmp(def->id, recorded) != 0))
        r = disagrees(e, recorded, def ? def->id : NULL, "there is no default branch");
    neon_branches_free(&l);
    return r;
}

int active_check(struct engine *g, const struct neon_call *call, char **ret_branch, char **ret_endpoint, struct err *e)
{
    struct store_line line = {0};
    cleanup_free char *endpoint = NULL;
    cleanup_free char *holder = NULL;
    int r = store_line_get(g->c.store, g->line_id, &line, e);

    if (r < 0)
        return r;
    r = check_branches(g, call, line.active_branch, e);
    if (r == -ESTALE && !g->follows_default && line.endpoint_id && branch_of_endpoint(g, call, line.endpoint_id, &holder, e) == 0 && holder)
        r = disagrees(e, line.active_branch, holder, NULL);
    if (r == 0)
        r = endpoint_of(g, call, line.active_branch, &endpoint, e);
    if (r == 0 && line.endpoint_id && !str_equal(line.endpoint_id, endpoint)) {
        r = branch_of_endpoint(g, call, line.endpoint_id, &holder, e);
        if (r == 0 && holder)
            r = disagrees(e, line.active_branch, holder, NULL);
        else if (r == 0 && !endpoint)
            r = err_set(e, ESTALE, "branch %s has no read-write endpoint any more; make one in Neon", line.active_branch);
    }
    if (r == 0) {
        *ret_branch = steal_ptr(&line.active_branch);
        if (ret_endpoint)
            *ret_endpoint = steal_ptr(&endpoint);
    }
    store_line_free(&line);
    return r;
}

/* ---- joining a line at the start ------------------------------------------------------------------------------------ */

/* The branch to start from, as Neon has it now: NEON_BRANCH_ID, or the default branch. */
static int start_branch(struct engine *g, const struct neon_call *call, char **ret, struct err *e)
{
    struct neon_branches l = {0};
    const struct neon_branch *b;
    int r = neon_said(g, neon_branches_list(g->c.neon, call, &l, e), e);

    if (r < 0)
        return r;
    b = g->c.branch_id ? neon_branches_by_id(&l, g->c.branch_id) : neon_branches_default(&l);
    if (!b && !g->c.branch_id)
        r = err_set(e, ENOENT, "project %s has no default branch; name one in NEON_BRANCH_ID", g->c.project_id);
    else if (!b)
        r = err_set(e, ENOENT, "branch %s (NEON_BRANCH_ID) is not in project %s", g->c.branch_id, g->c.project_id);
    else if (b->parent_id)
        r = err_set(e, EINVAL, "branch %s is a child of %s: snapshots can only be taken of root branches; name one in NEON_BRANCH_ID",
                    b->id, b->parent_id);
    else
        *ret = str_dup(b->id);
    neon_branches_free(&l);
    return r;
}

/* The line that the store knows: by the branch Neon named, by NEON_BRANCH_ID, or, with Neon down, the project's only one. Last by the
 * endpoint: after a restore in the console another branch has it, and that is for the verbs to refuse, not a new line. */
static int known_line(struct engine *g, const char *branch, const char *endpoint, struct store_line *ret, struct err *e)
{
    int r = store_line_find(g->c.store, g->c.project_id, branch ? branch : g->c.branch_id, ret, e);

    if (r == -ENOENT && branch && g->c.branch_id)
        r = store_line_find(g->c.store, g->c.project_id, g->c.branch_id, ret, e);
    if (r == -ENOENT && endpoint)
        r = store_line_by_endpoint(g->c.store, g->c.project_id, endpoint, ret, e);
    return r;
}

static bool has_endpoint(struct engine *g, const struct neon_call *call, const char *branch)
{
    cleanup_err struct err ignored = {0};
    cleanup_free char *endpoint = NULL;

    return endpoint_of(g, call, branch, &endpoint, &ignored) == 0 && endpoint;
}

int active_join(struct engine *g, struct err *e)
{
    struct neon_call call = {.deadline_mono_ms = clock_mono_ms() + 15000};
    cleanup_free char *branch = NULL;
    cleanup_free char *endpoint = NULL;
    cleanup_err struct err trouble = {0};
    struct store_line line = {0};
    int asked = start_branch(g, &call, &branch, &trouble);
    int r;

    g->follows_default = !g->c.branch_id;
    /* NEON_BRANCH_ID may name a branch that a restore has replaced since, and that may be deleted: the record still knows its line. */
    r = known_line(g, branch, NULL, &line, e);
    if (r == -ENOENT) {
        if (asked < 0)
            return err_move(e, &trouble);
        r = endpoint_of(g, &call, branch, &endpoint, e);
        if (r == 0 && !endpoint)
            r = err_set(e, EINVAL, "branch %s has no read-write endpoint; make one in Neon", branch);
        if (r == 0)
            r = known_line(g, branch, endpoint, &line, e);
        if (r == -ENOENT)
            r = store_line_create(g->c.store, g->c.project_id, branch, endpoint, &line, e);
        if (r == -EEXIST) /* another mount was a moment faster */
            r = known_line(g, branch, NULL, &line, e);
    }
    if (r == 0 && asked == -EACCES) { /* no outage: somebody has to give the right key */
        store_line_free(&line);
        r = err_move(e, &trouble);
    }
    if (r < 0)
        return r;
    g->line_id = line.id;
    active_set(g, line.active_branch, line.endpoint_id ? line.endpoint_id : endpoint);
    if (asked < 0 && asked != -ENOENT && asked != -EINVAL)
        log_warn("Neon can't be asked now, verbs will wait for it: %s", err_text(&trouble));
    else
        r = active_uri(g, &call, line.active_branch, NULL, e);
    if (r == -ENOENT && asked == 0 && str_equal(branch, line.active_branch) && has_endpoint(g, &call, branch)) {
        /* the branch is there and can be connected to, so the role or the database isn't */
        r = err_prefix(e, "what DATABASE_URL names is not there");
    } else if (r < 0 && r != -EINVAL) { /* the verbs say what is wrong, everything can be read */
        log_warn("no connection string yet: %s", err_text(e));
        err_clear(e);
        r = 0;
    }
    store_line_free(&line);
    return r;
}

/* Whether `host`:`port` is where the endpoint lives; a pooled name is the same place (neon-api.md §5.1). */
static bool same_place(const char *endpoint_host, const char *host, const char *port)
{
    cleanup_free char *bare = str_dup(host);
    cleanup_free char *with_port = str_format("%s:%s", host, port ? port : "5432");
    char *pooler = bare ? strstr(bare, "-pooler.") : NULL;

    if (pooler)
        memmove(pooler, pooler + strlen("-pooler"), strlen(pooler + strlen("-pooler")) + 1);
    return str_equal(endpoint_host, bare) || str_equal(endpoint_host, with_port);
}

int engine_store_apart(struct engine *g, const char *host, const char *port, struct err *e)
{
    struct neon_call call = {.deadline_mono_ms = clock_mono_ms() + 15000};
    struct neon_endpoints eps = {0};
    cleanup_err struct err ignored = {0};
    int r = 0;

    if (!host || *host == '/' || neon_said(g, neon_endpoints_list(g->c.neon, &call, NULL, &eps, &ignored), &ignored) < 0)
        return 0;
    for (size_t i = 0; i < eps.n && r == 0; i++)
        if (eps.items[i].host && same_place(eps.items[i].host, host, port))
            r = err_set(e, EXDEV, "the store is in project %s itself (endpoint %s): a restore would roll it back; keep it elsewhere",
                        g->c.project_id, eps.items[i].id);
    neon_endpoints_free(&eps);
    return r;
}
