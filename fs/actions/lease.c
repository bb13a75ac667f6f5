/* What this mount may still do: an action is a mount's only while its lease holds. A mount that was away for too long (stopped, swapped
 * out, cut off from the store) is no longer told from a dead one; whoever took over goes on, and nothing may be done twice (design.md
 * §7.5). */
#include <errno.h>

#include "actions_i.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/log.h"

/* Something is changed in Neon only so soon after a beat, or when the store has just said that the action is still this mount's. Neon takes
 * a request that is on its way for at most a minute, and looks at what it made: names are unique, so a late one is found and taken away. */
#define FRESH_MS (STORE_LEASE_MS / 3)
#define WAIT_MS 200

bool run_leaves(const struct run *r)
{
    return atomic_load(&r->g->stopping) || atomic_load(&r->lost);
}

/* 1 it is this mount's, 0 it isn't, -errno nobody knows. Whether it was cancelled, here or elsewhere, is seen along with it. */
static int mine(struct run *r, struct err *e)
{
    struct store_action a = {0};
    int rc = store_action(r->g->c.store, r->action, &a, e);

    if (rc == 0)
        rc = a.mount_id == atomic_load(&r->g->mount_id) && (a.state == ACTION_QUEUED || a.state == ACTION_RUNNING);
    if (a.cancel)
        atomic_store(&r->cancelled, true);
    store_action_free(&a);
    return rc;
}

static void lose(struct run *r)
{
    if (atomic_exchange(&r->lost, true))
        return;
    log_warn("action %s is another mount's now: nothing more is done for it here", r->uid);
    pthread_mutex_lock(&r->lock);
    if (r->agent)
        agent_cancel(r->agent);
    pthread_mutex_unlock(&r->lock);
}

void run_check_lost(struct run *r)
{
    struct store_action a = {0};

    if (store_action(r->g->c.store, r->action, &a, NULL) == 0 && a.mount_id != atomic_load(&r->g->mount_id))
        lose(r);
    store_action_free(&a);
}

static bool holds(struct run *r, bool fresh_will_do)
{
    bool told = false;

    while (!run_leaves(r)) {
        cleanup_err struct err e = {0};
        int is;

        if (fresh_will_do && clock_boot_ms() - atomic_load(&r->g->last_beat) < FRESH_MS)
            return true;
        is = mine(r, &e);
        if (is > 0)
            return true;
        if (is == 0) {
            lose(r);
            return false;
        }
        if (!told)
            log_warn("action %s does nothing until the store says whose it is: %s", r->uid, err_text(&e));
        told = true;
        clock_sleep_ms(WAIT_MS);
    }
    return false;
}

bool run_holds(struct run *r) { return holds(r, true); }
bool run_holds_for_sure(struct run *r) { return holds(r, false); }

/* ---- calls to Neon ----------------------------------------------------------------------------------------------------- */

static bool before_change(void *arg, const char *what)
{
    struct run *r = arg;
    bool holds;

    engine_point(r->g, what);
    holds = run_holds(r);
    r->asked_at = clock_now();
    return holds;
}

static void after_change(void *arg, const char *what, const struct neon_change *done)
{
    struct run *r = arg;

    engine_point(r->g, what);
    if (done)
        journal_asked(r, what, done);
}

struct neon_call run_call(struct run *r)
{
    struct neon_call call = engine_call(r->g);

    call.before_change = before_change;
    call.after_change = after_change;
    call.change_arg = r;
    return call;
}

/* ---- what must still be so when it is sent ---------------------------------------------------------------------------- */

static bool may_change(void *arg, const char *what)
{
    struct guard *g = arg;

    err_clear(&g->why);
    return g->may(g->r, g->call, &g->why) == 0 && g->call->before_change(g->call->change_arg, what);
}

static void changed(void *arg, const char *what, const struct neon_change *done)
{
    struct guard *g = arg;

    g->call->after_change(g->call->change_arg, what, done);
}

struct neon_call guard_call(struct guard *g)
{
    struct neon_call call = *g->call;

    call.before_change = may_change;
    call.after_change = changed;
    call.change_arg = g;
    return call;
}

int guard_end(struct guard *g, int rc, struct err *e)
{
    return rc == -ESTALE && g->why.code ? err_move(e, &g->why) : rc;
}

/* ---- the mount's lease ------------------------------------------------------------------------------------------------- */

void lease_lost(struct engine *g)
{
    struct run **held;
    size_t n = 0;

    log_warn("this mount was away for too long: another one has taken over what was under way here");
    pthread_mutex_lock(&g->lock);
    held = calloc(HASH_COUNT(g->runs) + 1, sizeof(*held));
    for (struct run *r = g->runs; held && r; r = r->hh.next)
        held[n++] = run_ref(r);
    pthread_mutex_unlock(&g->lock);
    for (size_t i = 0; i < n; i++) {
        lose(held[i]);
        run_unref(held[i]);
    }
    free(held);
}
