/* The project's turn: one change in Neon at a time. The store keeps the queue (store/journal.h); here is waited. Of all who wait on this
 * mount only the foremost can be next: it asks every few milliseconds, the others now and then. Else many takes that wait would leave the
 * store no time for anything else (design.md §7.4). */
#include <errno.h>

#include <utlist.h>

#include "actions_i.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/log.h"

#define FOREMOST_MS 40
#define OTHERS_MS 1000 /* where the store sees another order than `by_turn` */

/* Whether it goes before takes; the store's `blocks_takes`. */
static bool replaces(const struct run *r)
{
    return r->kind == ACTION_RESTORE || r->kind == ACTION_UNDO || r->kind == ACTION_ADOPT || r->kind == ACTION_PROMOTE ||
           (r->kind == ACTION_REPLAY && !r->of_branch);
}

static int by_turn(const struct run *a, const struct run *b)
{
    int later = replaces(b) - replaces(a);

    return later ? later : (a->action > b->action) - (a->action < b->action);
}

static void enter(struct run *r)
{
    pthread_mutex_lock(&r->g->queueing);
    DL_INSERT_INORDER2(r->g->queue, r, by_turn, turn_prev, turn_next);
    pthread_mutex_unlock(&r->g->queueing);
}

static void leave(struct run *r)
{
    pthread_mutex_lock(&r->g->queueing);
    DL_DELETE2(r->g->queue, r, turn_prev, turn_next);
    pthread_mutex_unlock(&r->g->queueing);
}

static bool foremost(struct run *r)
{
    bool is;

    pthread_mutex_lock(&r->g->queueing);
    is = r->g->queue == r;
    pthread_mutex_unlock(&r->g->queueing);
    return is;
}

/* Until it is time to ask again. */
static void pause_run(struct run *r)
{
    int64_t until = clock_mono_ms() + OTHERS_MS;

    do
        clock_sleep_ms(FOREMOST_MS);
    while (!foremost(r) && !run_leaves(r) && !atomic_load(&r->cancelled) && clock_mono_ms() < until);
}

static int await(struct run *r, struct err *e)
{
    int tries = 0;

    for (;;) {
        int got = store_turn(r->g->c.store, r->action, e);

        if (got == 1)
            return 0;
        if (run_leaves(r))
            return err_set(e, ECANCELED, "the mount is being unmounted, or has lost the action");
        if (atomic_load(&r->cancelled))
            return err_set(e, ECANCELED, CANCELLED_UNDONE);
        if (got == 0)
            pause_run(r);
        else if (!journal_again(r, got, e, &tries))
            return got;
    }
}

int journal_turn(struct run *r, struct err *e)
{
    cleanup_err struct err own = {0};
    int rc;

    enter(r);
    rc = await(r, e ? e : &own);
    leave(r);
    return rc;
}

void journal_turn_release(struct run *r)
{
    cleanup_err struct err e = {0};

    /* A turn that can't be given back is void once its action is settled. */
    if (store_turn_release(r->g->c.store, r->action, &e) < 0)
        log_warn("action %s keeps the project's turn until it is settled: %s", r->uid, err_text(&e));
}
