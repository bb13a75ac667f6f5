/* What an engine watches in Neon beside commands: sizes that are computed late, snapshots that are gone, and what was made for an
 * action and is of no use any more, since a request can arrive after whoever sent it was killed. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "actions_i.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/log.h"
#include "util/text.h"

#define TICK_MS 100
/* A snapshot's size arrives some seconds to minutes late (neon-api.md §2.1): asked for often at first, then rarely. */
#define LOOK_FIRST_MS 3000
#define LOOK_LAST_MS 300000
/* How long Neon is left alone after it was told of expiries. */
#define EXPIRIES_MS 500
/* How long after an action with an unsure answer something of it may still turn up, while Neon can be asked. */
#define SWEEP_MS 600000
#define UID_LENGTH 20 /* act- and 16 hex digits */

/* A checkpoint whose snapshot is to be compared with Neon's list. */
struct known {
    int64_t checkpoint;
    struct store_snapshot s; /* its strings are owned */
};

static void known_free(struct known *k, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free(k[i].s.id);
        free(k[i].s.name);
        free(k[i].s.project_id);
        free(k[i].s.branch_id);
        free(k[i].s.lsn);
    }
    free(k);
}

static struct known known_of(const struct store_checkpoint *c)
{
    struct known k = {.checkpoint = c->id, .s = c->snapshot};

    k.s.id = str_dup(c->snapshot.id);
    k.s.name = str_dup(c->snapshot.name);
    k.s.project_id = str_dup(c->snapshot.project_id);
    k.s.branch_id = str_dup(c->snapshot.branch_id);
    k.s.lsn = str_dup(c->snapshot.lsn);
    return k;
}

/* Every snapshot that isn't known to be missing; *ret_late: some size has not arrived. */
static struct known *known_snapshots(struct engine *g, size_t *ret_n, bool *ret_late)
{
    struct known *k;
    size_t n = 0;

    index_read_lock(g->c.index);
    k = calloc(index_count(g->c.index) + 1, sizeof(*k));
    for (struct index_entry *e = index_from(g->c.index, 0); k && e; e = index_from(g->c.index, e->c.id + 1)) {
        const struct store_snapshot *s = &e->c.snapshot;

        if (!s->id || s->missing || e->c.phase == PHASE_FAILED || e->c.phase == PHASE_TAKING)
            continue;
        k[n++] = known_of(&e->c);
        *ret_late |= s->full_size < 0;
    }
    index_unlock(g->c.index);
    *ret_n = n;
    return k;
}

static const struct neon_snapshot *listed(const struct neon_snapshots *l, const char *id)
{
    for (size_t i = 0; i < l->n; i++)
        if (str_equal(l->items[i].id, id))
            return &l->items[i];
    return NULL;
}

/* A checkpoint that came in with no more than its snapshot's id: the rest is Neon's to tell. */
static void complete(struct store_snapshot *s, const struct neon_snapshot *now)
{
    if (s->captured_at)
        return;
    s->captured_at = now->created_at_ns;
    s->name = s->name ? s->name : str_dup(now->name);
    s->lsn = s->lsn ? s->lsn : str_dup(now->lsn);
    s->branch_id = s->branch_id ? s->branch_id : str_dup(now->source_branch_id);
}

static void update(struct engine *g, struct known *k, const struct neon_snapshot *now)
{
    cleanup_buf struct buf json = {0};
    cleanup_err struct err e = {0};
    struct store_snapshot *s = &k->s;

    if (now && now->full_size == s->full_size && now->expires_at_ns == s->expires_at)
        return;
    s->missing = !now;
    if (now) {
        complete(s, now);
        s->full_size = now->full_size;
        s->diff_size = now->diff_size;
        s->expires_at = now->expires_at_ns;
    }
    if (snapshot_render(s, &json) < 0 || store_snapshot_put(g->c.store, k->checkpoint, s, &json, &e) < 0)
        log_warn("snapshot %s can't be updated: %s", s->id, err_text(&e));
    else
        engine_refresh(g, k->checkpoint, 0);
}

static void compare_one(struct engine *g, int64_t checkpoint, const struct neon_snapshot *now)
{
    struct known *k = calloc(1, sizeof(*k));
    struct index_entry *e;

    index_read_lock(g->c.index);
    e = k ? index_by_id(g->c.index, checkpoint) : NULL;
    if (e)
        *k = known_of(&e->c);
    index_unlock(g->c.index);
    if (e)
        update(g, k, now);
    if (k)
        known_free(k, 1);
}

void watch_snapshot(struct engine *g, int64_t checkpoint, const struct neon_snapshot *now) { compare_one(g, checkpoint, now); }
void watch_missing(struct engine *g, int64_t checkpoint) { compare_one(g, checkpoint, NULL); }

/* Compares with Neon. Returns whether some size is still awaited. A snapshot that isn't listed the first time may only be late. */
static bool compare(struct engine *g, const struct neon_snapshots *list, bool *suspicious)
{
    bool late = false;
    bool missing = false;
    size_t n = 0;
    struct known *k = known_snapshots(g, &n, &late);

    for (size_t i = 0; k && i < n; i++) {
        const struct neon_snapshot *now = listed(list, k[i].s.id);

        missing |= !now;
        if (now || *suspicious)
            update(g, &k[i], now);
    }
    *suspicious = missing;
    if (k)
        known_free(k, n);
    return late || missing;
}

/* ---- leftovers ------------------------------------------------------------------------------------------------------------ */

/* The id of the action that ends an announced name; NULL when it isn't one. Only a hint: what decides is the journal. */
static const char *action_of(const char *name)
{
    size_t n = name ? strlen(name) : 0;

    return n > UID_LENGTH && str_starts(name + n - UID_LENGTH, "act-") ? name + n - UID_LENGTH : NULL;
}

/* The log tells it, of whichever mount Neon said yes to. */
static void swept(struct engine *g, const char *uid, const char *what, const char *id, const json_t *requests)
{
    cleanup_free char *told = json_array_size(requests) ? json_dumps(requests, JSON_COMPACT) : NULL;
    cleanup_err struct err e = {0};

    if (told && store_leftover_deleted(g->c.store, uid, what, id, told, &e) < 0)
        log_warn("that %s %s was deleted isn't in the log: %s", what, id, err_text(&e));
    else if (told)
        engine_refresh(g, 0, 0);
}

static void sweep_snapshots(struct engine *g, const struct neon_call *call, const struct neon_snapshots *list)
{
    for (size_t i = 0; i < list->n; i++) {
        const struct neon_snapshot *s = &list->items[i];
        cleanup_json json_t *requests = json_array();
        struct asking asking = {.requests = requests};
        struct neon_call deleting = *call;
        cleanup_err struct err e = {0};

        if (!action_of(s->name) || store_leftover(g->c.store, g->c.project_id, action_of(s->name), s->name, s->id, &e) <= 0)
            continue;
        log_warn("snapshot %s (%s) belongs to no checkpoint and is deleted", s->id, s->name);
        asking_of(&asking, &deleting);
        if (snapshot_delete_surely(g, &deleting, s->id, &e) < 0)
            log_warn("snapshot %s can't be deleted now: %s", s->id, err_text(&e));
        swept(g, action_of(s->name), "snapshot", s->id, requests);
    }
}

static void sweep_branches(struct engine *g, const struct neon_call *call)
{
    struct neon_branches all = {0};
    cleanup_err struct err e = {0};

    if (neon_said(g, neon_branches_list(g->c.neon, call, &all, &e), &e) < 0)
        return;
    for (size_t i = 0; i < all.n; i++) {
        const char *name = all.items[i].name;
        cleanup_json json_t *requests = json_array();
        struct asking asking = {.requests = requests};
        struct neon_call deleting = *call;

        if (!action_of(name) || !str_equal(all.items[i].restore_status, "restored") || all.items[i].is_default ||
            store_leftover(g->c.store, g->c.project_id, action_of(name), name, all.items[i].id, &e) <= 0)
            continue;
        log_warn("branch %s (%s), made for a restore that is over, is deleted", all.items[i].id, name);
        asking_of(&asking, &deleting);
        if (discard_branches(g, &deleting, name, NULL, &e) < 0)
            log_warn("branch %s can't be deleted now: %s", all.items[i].id, err_text(&e));
        swept(g, action_of(name), "branch", all.items[i].id, requests);
    }
    neon_branches_free(&all);
}

void watch_leftovers(struct engine *g)
{
    atomic_store(&g->sweep_until, clock_mono_ms() + SWEEP_MS);
    watch_soon(g);
}

void watch_soon(struct engine *g)
{
    atomic_store(&g->look_soon, true);
}

/* ---- the thread ----------------------------------------------------------------------------------------------------------- */

static bool any(struct engine *g)
{
    size_t n;

    index_read_lock(g->c.index);
    n = index_count(g->c.index);
    index_unlock(g->c.index);
    return n > 0;
}

/* Another mount made another branch active: where to connect to is asked for. */
static void uri_again(struct engine *g, const struct neon_call *call)
{
    cleanup_free char *branch = NULL;

    pthread_mutex_lock(&g->lock);
    if (!g->connection_uri || g->uri_old)
        branch = str_dup(g->active_branch);
    pthread_mutex_unlock(&g->lock);
    if (branch)
        active_uri(g, call, branch, NULL, NULL);
}

/* Returns whether to look again soon. */
static bool look(struct engine *g, bool *suspicious, struct upkeep *up)
{
    struct neon_call call = engine_call(g);
    struct neon_snapshots list = {0};
    cleanup_err struct err e = {0};
    bool sweep = clock_mono_ms() < atomic_load(&g->sweep_until);
    bool soon = sweep;

    call.flags = NEON_CALL_ONCE;
    uri_again(g, &call);
    if (branches_any(g))
        branches_look(g, &call);
    if (!sweep && up->next_branches && !any(g))
        return false;
    if (neon_said(g, neon_snapshots_list(g->c.neon, &call, &list, &e), &e) == 0) {
        soon |= compare(g, &list, suspicious);
        soon |= upkeep_look(g, &call, &list, up);
        if (sweep) {
            sweep_snapshots(g, &call, &list);
            sweep_branches(g, &call);
        }
    } else if (sweep) {
        atomic_store(&g->sweep_until, clock_mono_ms() + SWEEP_MS);
    }
    neon_snapshots_free(&list);
    return soon;
}

static void *watch(void *arg)
{
    struct engine *g = arg;
    int64_t interval = LOOK_FIRST_MS;
    int64_t next_look = clock_mono_ms() + interval;
    bool suspicious = false;
    struct upkeep up = {0};
    int64_t next_expiries = 0;

    expiries_soon(g); /* what an earlier mount left */
    if (!g->c.read_only)
        atomic_store(&g->sweep_until, next_look + LOOK_FIRST_MS); /* and what it could not delete: the first look sweeps */
    while (!atomic_load(&g->stopping)) {
        int64_t now = clock_mono_ms();

        if (atomic_exchange(&g->look_soon, false)) {
            interval = LOOK_FIRST_MS;
            next_look = now + interval;
            expiries_soon(g); /* what was taken may have one */
        }
        if (atomic_exchange(&g->uris_soon, false)) {
            struct neon_call call = engine_call(g);

            call.flags = NEON_CALL_ONCE;
            uri_again(g, &call);
            branches_uris(g, &call);
        }
        if (now >= next_look) {
            if (!look(g, &suspicious, &up))
                interval = LOOK_LAST_MS;
            else if (interval < LOOK_LAST_MS / 2)
                interval *= 2;
            next_look = clock_mono_ms() + interval;
        }
        if (now >= next_expiries && atomic_exchange(&g->expiries_soon, false)) {
            if (expiries_tell(g))
                expiries_soon(g); /* never cleared here: another one may have been written meanwhile */
            next_expiries = clock_mono_ms() + EXPIRIES_MS;
        }
        clock_sleep_ms(TICK_MS);
    }
    return NULL;
}

int watch_start(struct engine *g, struct err *e)
{
    int r = engine_thread(&g->watch, watch, g, e);

    g->watch_runs = r == 0;
    return r;
}

void watch_stop(struct engine *g)
{
    if (g->watch_runs)
        pthread_join(g->watch, NULL);
    g->watch_runs = false;
}
