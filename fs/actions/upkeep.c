/* What is looked at in Neon beside snapshots: how much of the plan's limits is used, what became of replaced branches; and the one thing
 * that it is told by itself: when a snapshot is to expire, after meta.json said so. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "actions_i.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/log.h"
#include "util/text.h"

/* Limits change with the plan: asked for at the start, then now and then. */
#define LIMITS_MS 3600000

/* ---- .control/replaced/ -------------------------------------------------------------------------------------------------- */

static void put_text(json_t *o, const char *key, const char *text)
{
    if (text)
        json_object_set_new(o, key, json_string(text));
}

static void put_time(json_t *o, const char *key, int64_t ns)
{
    char when[CLOCK_TEXT_MAX];

    if (ns)
        json_object_set_new(o, key, json_string(clock_format_seconds(ns, when)));
}

static bool render(const struct store_replaced *b, struct index_replaced *ret)
{
    cleanup_json json_t *o = json_object();
    cleanup_free char *text = NULL;

    put_text(o, "branch_id", b->branch_id);
    put_text(o, "name", b->name);
    if (b->size >= 0)
        json_object_set_new(o, "size", json_integer(b->size));
    put_time(o, "created_at", b->created_at);
    put_time(o, "replaced_at", b->replaced_at);
    json_object_set_new(o, "made_here", json_boolean(b->made_here));
    put_text(o, "action", b->by_action);
    put_text(o, "checkpoint", b->by_checkpoint);
    put_text(o, "checkpoint_name", b->by_name);
    text = json_dumps(o, JSON_INDENT(2));
    *ret = (struct index_replaced){.id = b->id, .mtime = b->changed_at, .name = str_format("%s.json", b->branch_id)};
    ret->text = text ? str_format("%s\n", text) : NULL;
    ret->n = ret->text ? strlen(ret->text) : 0;
    return ret->name && ret->text;
}

int replaced_refresh(struct engine *g)
{
    struct store_replaced *rows = NULL;
    struct index_replaced *list;
    cleanup_err struct err e = {0};
    size_t n = 0;
    int r;

    pthread_mutex_lock(&g->refresh);
    r = store_replaced(g->c.store, g->line_id, &rows, &n, &e);
    if (r < 0) {
        pthread_mutex_unlock(&g->refresh);
        log_warn("the replaced branches can't be read from the store: %s", err_text(&e));
        return r;
    }
    list = calloc(n + 1, sizeof(*list));
    for (size_t i = 0; list && i < n; i++) {
        if (!render(&rows[i], &list[i])) {
            index_replaced_free(list, i + 1);
            list = NULL;
        }
    }
    store_replaced_free(rows, n);
    if (list)
        index_set_replaced(g->c.index, list, n);
    pthread_mutex_unlock(&g->refresh);
    return list ? 0 : -ENOMEM;
}

/* Whether Neon must be asked about a replaced branch that it hasn't told about yet. */
static bool some_unknown(struct engine *g)
{
    struct store_replaced *rows = NULL;
    size_t n = 0;
    bool unknown = false;

    if (store_replaced(g->c.store, g->line_id, &rows, &n, NULL) < 0)
        return false;
    for (size_t i = 0; i < n; i++)
        unknown |= !rows[i].created_at;
    store_replaced_free(rows, n);
    return unknown;
}

static void compare_replaced(struct engine *g, const struct neon_branches *all)
{
    struct store_replaced *rows = NULL;
    cleanup_err struct err e = {0};
    size_t n = 0;

    if (store_replaced(g->c.store, g->line_id, &rows, &n, &e) < 0)
        return;
    for (size_t i = 0; i < n; i++) {
        const struct neon_branch *b = neon_branches_by_id(all, rows[i].branch_id);

        if (b && str_equal(b->name, rows[i].name) && b->logical_size == rows[i].size && b->created_at_ns == rows[i].created_at)
            continue;
        if (store_replaced_put(g->c.store, rows[i].id, b ? b->name : NULL, b ? b->logical_size : rows[i].size,
                               b ? b->created_at_ns : rows[i].created_at, !b, &e) < 0)
            log_warn("branch %s can't be updated in the store: %s", rows[i].branch_id, err_text(&e));
    }
    store_replaced_free(rows, n);
    replaced_refresh(g);
}

/* ---- limits ----------------------------------------------------------------------------------------------------------------- */

static int64_t manual(const struct neon_snapshots *l)
{
    int64_t n = 0;

    for (size_t i = 0; i < l->n; i++)
        n += l->items[i].manual;
    return n;
}

void upkeep_load(struct engine *g)
{
    struct store_room m;

    if (store_room(g->c.store, g->c.project_id, &m, NULL) == 0)
        index_set_room(g->c.index, m.snapshots, m.max_snapshots);
}

static void put(struct engine *g, const struct store_room *m)
{
    cleanup_err struct err e = {0};

    if (store_room_put(g->c.store, g->c.project_id, m, &e) < 0)
        log_warn("the project's limits can't be kept: %s", err_text(&e));
    index_set_room(g->c.index, m->snapshots, m->max_snapshots);
}

void upkeep_full(struct engine *g, const struct neon_call *call)
{
    struct neon_snapshots all = {0};
    struct store_room m;

    if (store_room(g->c.store, g->c.project_id, &m, NULL) < 0 || neon_snapshots_list(g->c.neon, call, &all, NULL) < 0)
        return;
    m.snapshots = m.max_snapshots = manual(&all);
    neon_snapshots_free(&all);
    put(g, &m);
}

static void ask_limits(struct engine *g, const struct neon_call *call, struct upkeep *w, struct store_room *m)
{
    struct neon_limits l;

    if (clock_mono_ms() < w->next_limits)
        return;
    w->next_limits = clock_mono_ms() + LIMITS_MS;
    if (neon_limits_get(g->c.neon, call, &l, NULL) < 0)
        return; /* Neon needn't have such a page */
    if (l.snapshots >= 0)
        m->max_snapshots = l.snapshots;
    m->max_root_branches = l.root_branches;
    m->max_branches = l.branches;
}

/* Verbs ask Neon about branches themselves: it is left to them while one is at work. An agent isn't. */
static bool verbs_at_work(struct engine *g)
{
    bool any = false;

    pthread_mutex_lock(&g->lock);
    for (struct run *r = g->runs; r && !any; r = r->hh.next) {
        pthread_mutex_lock(&r->lock);
        any = !r->agent;
        pthread_mutex_unlock(&r->lock);
    }
    pthread_mutex_unlock(&g->lock);
    return any;
}

bool upkeep_look(struct engine *g, const struct neon_call *call, const struct neon_snapshots *list, struct upkeep *w)
{
    struct neon_branches all = {0};
    struct store_room m;
    cleanup_err struct err e = {0};
    bool branches = clock_mono_ms() >= w->next_branches || some_unknown(g);

    if (store_room(g->c.store, g->c.project_id, &m, &e) < 0)
        return true;
    m.snapshots = manual(list);
    if (m.max_snapshots >= 0 && m.snapshots > m.max_snapshots)
        m.max_snapshots = -1; /* another plan */
    ask_limits(g, call, w, &m);
    if (branches && !verbs_at_work(g) && neon_said(g, neon_branches_list(g->c.neon, call, &all, &e), &e) == 0) {
        m.branches = (int64_t)all.n;
        m.root_branches = 0;
        for (size_t i = 0; i < all.n; i++)
            m.root_branches += !all.items[i].parent_id;
        compare_replaced(g, &all);
        w->next_branches = clock_mono_ms() + UPKEEP_BRANCHES_MS;
        branches = false;
    }
    neon_branches_free(&all);
    put(g, &m);
    return branches;
}

/* ---- when snapshots expire ---------------------------------------------------------------------------------------------------- */

/* Tells Neon. True when it has to be tried again. */
static bool tell(struct engine *g, const struct store_expiry *x)
{
    struct neon_call call = engine_call(g);
    struct neon_snapshot now = {0};
    cleanup_json json_t *requests = json_array();
    struct asking asking = {.requests = requests};
    cleanup_free char *told = NULL;
    cleanup_err struct err e = {0};
    cleanup_err struct err kept = {0};
    bool again;
    int r;

    call.flags = NEON_CALL_ONCE;
    asking_of(&asking, &call);
    r = neon_said(g, neon_snapshot_patch(g->c.neon, &call, x->snapshot_id, NULL, x->at ? x->at : NEON_EXPIRES_NEVER, &now, NULL, &e), &e);
    again = r == -EBUSY || r == -ECANCELED || neon_later(r) == -EAGAIN;
    told = json_array_size(requests) ? json_dumps(requests, JSON_COMPACT) : NULL;
    if (!again && store_expiry_done(g->c.store, x->checkpoint, x->at, r < 0 ? err_text(&e) : NULL, told, &kept) < 0)
        again = true;
    if (r == 0)
        watch_snapshot(g, x->checkpoint, &now);
    else if (!again)
        log_warn("snapshot %s keeps its expiry: %s", x->snapshot_id, err_text(&e));
    neon_snapshot_free(&now);
    if (!again)
        engine_refresh(g, x->checkpoint, 0);
    return again;
}

bool expiries_tell(struct engine *g)
{
    struct store_expiry *l = NULL;
    size_t n = 0;
    bool again = false;

    if (store_expiries(g->c.store, g->line_id, &l, &n, NULL) < 0)
        return true;
    for (size_t i = 0; i < n && !atomic_load(&g->stopping); i++)
        again |= tell(g, &l[i]);
    store_expiries_free(l, n);
    return again;
}

void expiries_soon(struct engine *g)
{
    atomic_store(&g->expiries_soon, true);
}
