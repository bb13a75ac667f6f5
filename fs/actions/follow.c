/* What other mounts change comes into the index within a moment: a thread that listens to the store, reads what changed in the order of
 * commits, and refreshes that. It is also the mount's ear for what is asked of it: actions given to it, agents to be ended.
 *
 * A read every second proves that the store lives, as does each step of what follows from it, which takes its time where the store is far
 * away. After 3 s without one nothing here is known to be true any more: health and every status say so, and once the store is back
 * everything is loaded anew (design.md §7.6). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "actions_i.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/log.h"
#include "util/text.h"

#define BEAT_MS 1000
#define LOST_MS 3000
#define SLICE_MS 100
#define RETRY_MS 250
#define TRIM_MS 60000
/* How often mounts are looked for that died and left something unsettled, and actions of this mount that nobody works on. */
#define LEFT_MS 2000
#define ORPHANS_MS 5000
#define RELOAD_FROM 500 /* so many checkpoints at once are cheaper to load with all the others */

/* ids, in the order in which they were first told. */
struct ids {
    int64_t *items;
    size_t n, cap;
};

struct batch {
    struct ids checkpoints, actions;
    bool line, replaced, failed;
};

static void ids_add(struct ids *l, int64_t id, bool *failed)
{
    for (size_t i = l->n; i > 0 && i + 64 > l->n; i--) /* the same one again mostly comes at once; twice harms nobody */
        if (l->items[i - 1] == id)
            return;
    if (l->n == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 64;
        int64_t *grown = realloc(l->items, cap * sizeof(*grown));

        if (!grown) {
            *failed = true;
            return;
        }
        l->items = grown;
        l->cap = cap;
    }
    l->items[l->n++] = id;
}

static void gather(void *arg, enum store_change_kind what, int64_t row)
{
    struct batch *b = arg;

    switch (what) {
    case CHANGE_CHECKPOINT:
        ids_add(&b->checkpoints, row, &b->failed);
        break;
    case CHANGE_ACTION:
        ids_add(&b->actions, row, &b->failed);
        break;
    case CHANGE_LINE:
        b->line = true;
        break;
    case CHANGE_REPLACED:
        b->replaced = true;
        break;
    case CHANGE_LOG:
    case CHANGE_OTHER:
        break;
    }
}

void follow_heard(struct engine *g)
{
    atomic_store(&g->heard, clock_boot_ms());
}

/* ---- what is asked of this mount ------------------------------------------------------------------------------------- */

static void told(struct engine *g)
{
    struct store_action *all = NULL;
    size_t n = 0;

    if (store_told(g->c.store, atomic_load(&g->mount_id), &all, &n, NULL) < 0)
        return;
    for (size_t i = 0; i < n; i++) {
        if (all[i].cancel)
            engine_cancel_run(g, all[i].id);
        if (all[i].assigned)
            recover_assigned(g, &all[i]);
        store_action_free(&all[i]);
    }
    free(all);
}

/* ---- applying -------------------------------------------------------------------------------------------------------- */

/* Many of them take longer than a store may be silent, and it answers all the while. */
static int refresh(struct engine *g, int64_t checkpoint, int64_t action)
{
    int r = engine_refresh(g, checkpoint, action);

    if (r >= 0)
        follow_heard(g);
    return r;
}

/* What can't be read now would be missing for good: the feed is opened again then, which loads everything. */
static int apply(struct engine *g, const struct batch *b)
{
    bool all = b->checkpoints.n > RELOAD_FROM;
    int r = all ? engine_reload(g, NULL) : 0;

    for (size_t i = 0; i < b->checkpoints.n && !all && r == 0; i++)
        r = refresh(g, b->checkpoints.items[i], 0);
    for (size_t i = 0; i < b->actions.n && r == 0; i++)
        r = refresh(g, 0, b->actions.items[i]);
    for (size_t i = 0; i < b->checkpoints.n && r == 0; i++)
        if (branches_lack_uri(g, b->checkpoints.items[i]))
            atomic_store(&g->uris_soon, true);
    if (r == 0 && !b->checkpoints.n && !b->actions.n)
        r = refresh(g, 0, 0); /* the log's size */
    if (r == 0 && b->line)
        r = engine_follow_line(g, NULL);
    if (r == 0 && b->replaced)
        r = replaced_refresh(g);
    if (r == 0 && b->actions.n)
        told(g);
    return r;
}

static int read_changes(struct engine *g, struct store_feed *feed, int64_t *n, struct err *e)
{
    struct batch b = {0};
    int64_t before = *n;
    int r = store_feed_read(feed, *n, gather, &b, n, e);

    if (r == 0 && b.failed)
        r = err_set(e, ESTALE, "out of memory: everything is loaded anew");
    if (r == 0 && *n != before && apply(g, &b) < 0)
        r = err_set(e, EIO, "what changed can't be read");
    if (r == 0)
        atomic_store(&g->changes_read, *n);
    free(b.checkpoints.items);
    free(b.actions.items);
    return r;
}

/* ---- the store's health ---------------------------------------------------------------------------------------------- */

/* What the status of each checkpoint says; 0: the store is there. */
static void tell(struct engine *g, int64_t lost_since)
{
    struct index_change all = {.every_status = true};

    index_set_lost(g->c.index, lost_since);
    engine_health(g);
    engine_changed(g, &all);
}

static void heard(struct engine *g)
{
    bool was_lost;

    follow_heard(g);
    pthread_mutex_lock(&g->lock);
    was_lost = g->store_trouble != NULL;
    free(g->store_trouble);
    g->store_trouble = NULL;
    pthread_mutex_unlock(&g->lock);
    if (!was_lost)
        return;
    tell(g, 0);
    log_info("the store is back");
}

static void silent(struct engine *g, const char *why)
{
    bool first;

    if (clock_boot_ms() - atomic_load(&g->heard) < LOST_MS)
        return;
    pthread_mutex_lock(&g->lock);
    first = !g->store_trouble;
    if (first)
        g->store_trouble = str_dup(why);
    pthread_mutex_unlock(&g->lock);
    if (!first)
        return;
    log_warn("the store is lost: %s", why);
    tell(g, clock_now());
}

void follow_check(struct engine *g)
{
    silent(g, "it doesn't answer");
}

/* ---- the thread ------------------------------------------------------------------------------------------------------ */

static void pause_for(struct engine *g, int64_t ms)
{
    int64_t until = clock_mono_ms() + ms;

    while (!atomic_load(&g->stopping) && clock_mono_ms() < until)
        clock_sleep_ms(SLICE_MS);
}

/* Wakes on a notification, at the latest after a second. */
static void wait_for_change(struct engine *g, struct store_feed *feed)
{
    int64_t until = clock_mono_ms() + BEAT_MS;

    while (!atomic_load(&g->stopping) && clock_mono_ms() < until)
        if (store_feed_wait(feed, SLICE_MS))
            return;
}

static struct store_feed *reopen(struct engine *g, int64_t *n)
{
    struct store_feed *feed = NULL;
    cleanup_err struct err e = {0};

    if (store_feed_open(g->c.store, g->line_id, &feed, n, &e) < 0) {
        silent(g, err_text(&e));
        pause_for(g, RETRY_MS);
        return NULL;
    }
    if (engine_reload(g, &e) < 0) {
        silent(g, err_text(&e));
        store_feed_close(feed);
        pause_for(g, RETRY_MS);
        return NULL;
    }
    atomic_store(&g->changes_read, *n);
    heard(g);
    told(g);
    atomic_store(&g->uris_soon, true);
    return feed;
}

/* What is done from time to time while the store answers. */
struct rounds {
    int64_t trim, left, orphans;
    int64_t unsettled; /* recover_own's */
};

static void go_round(struct engine *g, struct rounds *r)
{
    int64_t now = clock_mono_ms();

    drafts_tell(g);
    if (now >= r->left && !g->c.read_only) {
        recover_left(g, NULL);
        r->left = now + LEFT_MS;
    }
    if (now >= r->orphans) {
        recover_own(g, &r->unsettled);
        r->orphans = now + ORPHANS_MS;
    }
    if (now >= r->trim) {
        store_changes_trim(g->c.store, g->line_id, NULL);
        r->trim = now + TRIM_MS;
    }
}

static void *follow(void *arg)
{
    struct engine *g = arg;
    struct store_feed *feed = g->feed;
    int64_t n = g->feed_at;
    int64_t start = clock_mono_ms();
    struct rounds rounds = {.trim = start + TRIM_MS, .left = start + LEFT_MS, .orphans = start + ORPHANS_MS};

    while (!atomic_load(&g->stopping)) {
        cleanup_err struct err e = {0};

        if (!feed && !(feed = reopen(g, &n)))
            continue;
        wait_for_change(g, feed);
        if (read_changes(g, feed, &n, &e) == 0) {
            heard(g);
        } else {
            silent(g, err_text(&e));
            store_feed_close(feed);
            feed = NULL;
        }
        if (feed)
            go_round(g, &rounds);
    }
    store_feed_close(feed);
    return NULL;
}

int follow_open(struct engine *g, struct err *e)
{
    atomic_store(&g->heard, clock_boot_ms());
    return store_feed_open(g->c.store, g->line_id, &g->feed, &g->feed_at, e);
}

int follow_start(struct engine *g, struct err *e)
{
    int r = engine_thread(&g->follower, follow, g, e);

    g->follower_runs = r == 0;
    return r;
}

void follow_stop(struct engine *g)
{
    if (g->follower_runs)
        pthread_join(g->follower, NULL);
    else
        store_feed_close(g->feed);
    g->follower_runs = false;
    g->feed = NULL;
}
