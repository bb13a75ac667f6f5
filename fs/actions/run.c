/* Runs: an action under way, its thread and those who wait for it. */
#include "actions/run.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "actions_i.h"
#include "util/clock.h"
#include "util/text.h"
#include "util/thread.h"

#define WATCH_MS 50

static struct run *make(struct engine *g, const struct store_action *a)
{
    struct run *r = calloc(1, sizeof(*r));

    if (!r)
        return NULL;
    atomic_init(&r->refs, 1);
    pthread_mutex_init(&r->lock, NULL);
    r->g = g;
    r->action = a->id;
    r->checkpoint = a->checkpoint;
    r->isolated = a->isolated;
    r->of_branch = a->of_branch;
    r->kind = a->kind;
    r->uid = str_dup(a->uid);
    r->command = str_dup(a->command);
    r->step = strdup(a->step ? a->step : "");
    r->started_at = a->created_at ? a->created_at : clock_now();
    r->data = a->data ? json_loads(a->data, 0, NULL) : NULL;
    if (!r->data)
        r->data = json_object();
    r->by = a->by ? json_loads(a->by, 0, NULL) : NULL;
    if (!r->uid || !r->step || !r->data) {
        run_unref(r);
        return NULL;
    }
    return r;
}

struct run *run_new(struct engine *g, const struct store_action *a)
{
    struct run *r = make(g, a);

    if (!r)
        return NULL;
    pthread_mutex_lock(&g->lock);
    HASH_ADD(hh, g->runs, action, sizeof(r->action), r);
    pthread_mutex_unlock(&g->lock);
    return run_ref(r); /* one for the registry, one for the caller */
}

struct run *run_ref(struct run *r)
{
    atomic_fetch_add(&r->refs, 1);
    return r;
}

void run_unref(struct run *r)
{
    if (!r || atomic_fetch_sub(&r->refs, 1) != 1)
        return;
    pthread_mutex_destroy(&r->lock);
    json_decref(r->data);
    json_decref(r->by);
    json_decref(r->would);
    free(r->uid);
    free(r->command);
    free(r->step);
    free(r->decisions);
    free(r->message);
    free(r);
}

int64_t run_action(const struct run *r) { return r->action; }
const char *run_uid(const struct run *r) { return r->uid; }

bool run_wait(struct run *r, struct run_waiter *w, int *ret_code)
{
    bool attached = false;

    pthread_mutex_lock(&r->lock);
    if (r->ended) {
        *ret_code = r->code;
    } else if (atomic_load(&r->g->stopping)) { /* under the lock: engine_stop answers those who were attached before */
        *ret_code = EINTR;
    } else {
        w->next = r->waiters;
        r->waiters = w;
        attached = true;
    }
    pthread_mutex_unlock(&r->lock);
    return attached;
}

bool run_unwait(struct run *r, struct run_waiter *w)
{
    bool found = false;

    pthread_mutex_lock(&r->lock);
    for (struct run_waiter **p = &r->waiters; *p; p = &(*p)->next) {
        if (*p == w) {
            *p = w->next;
            found = true;
            break;
        }
    }
    pthread_mutex_unlock(&r->lock);
    return found;
}

void run_end(struct run *r, int code, const char *message)
{
    struct engine *g = r->g;
    struct run_waiter *w;
    bool first;

    if (atomic_load(&r->lost) && r->place == RUN_WORKS)
        return; /* another mount goes on with it: the run's thread waits for that */
    pthread_mutex_lock(&r->lock);
    first = !r->ended;
    r->ended = true;
    if (first) {
        r->code = code;
        r->message = str_dup(message);
    }
    w = r->waiters;
    r->waiters = NULL;
    pthread_mutex_unlock(&r->lock);

    while (w) {
        struct run_waiter *next = w->next;

        w->ended(w, r->code, r->message);
        w = next;
    }
    if (!first)
        return;
    watch_soon(g);
    pthread_mutex_lock(&g->lock);
    if (r->place == RUN_WORKS)
        HASH_DEL(g->runs, r);
    else if (r->place == RUN_WATCHES)
        HASH_DEL(g->watched, r);
    r->place = RUN_ASIDE;
    pthread_cond_broadcast(&g->idle);
    pthread_mutex_unlock(&g->lock);
    run_unref(r);
}

/* ---- actions that another mount works on ---------------------------------------------------------------------------- */

/* Until the store says how it ended. */
static void watch(struct run *r)
{
    while (!atomic_load(&r->g->stopping)) {
        struct store_action a = {0};
        int rc = store_action(r->g->c.store, r->action, &a, NULL);

        if (rc == -ENOENT || (rc == 0 && a.state != ACTION_QUEUED && a.state != ACTION_RUNNING)) {
            engine_refresh(r->g, r->checkpoint, r->action);
            run_end(r, a.code, a.message);
            store_action_free(&a);
            return;
        }
        store_action_free(&a);
        clock_sleep_ms(rc < 0 ? 10 * WATCH_MS : WATCH_MS);
    }
}

struct run *run_watch(struct engine *g, const struct store_action *a)
{
    struct run *r, *other;

    pthread_mutex_lock(&g->lock);
    HASH_FIND(hh, g->watched, &a->id, sizeof(a->id), r);
    r = r ? run_ref(r) : NULL;
    pthread_mutex_unlock(&g->lock);
    if (r || !(r = make(g, a)))
        return r;
    r->place = RUN_WATCHES;
    pthread_mutex_lock(&g->lock);
    HASH_FIND(hh, g->watched, &a->id, sizeof(a->id), other);
    if (other)
        run_ref(other);
    else
        HASH_ADD(hh, g->watched, action, sizeof(r->action), r);
    pthread_mutex_unlock(&g->lock);
    if (other) {
        run_unref(r);
        return other;
    }
    run_ref(r);
    run_start(r, watch);
    return r;
}

/* The action was taken away from this mount: whoever waits for it here hears how it ended all the same. */
static void go_on_watching(struct run *r)
{
    struct engine *g = r->g;
    struct run *other;

    pthread_mutex_lock(&g->lock);
    if (r->place != RUN_WORKS) { /* it had ended before it was lost */
        pthread_mutex_unlock(&g->lock);
        return;
    }
    HASH_DEL(g->runs, r);
    HASH_FIND(hh, g->watched, &r->action, sizeof(r->action), other);
    if (!other)
        HASH_ADD(hh, g->watched, action, sizeof(r->action), r);
    r->place = other ? RUN_ASIDE : RUN_WATCHES;
    pthread_mutex_unlock(&g->lock);
    watch(r);
}

struct start {
    struct run *r;
    void (*body)(struct run *r);
};

static void *run_thread(void *arg)
{
    struct start s = *(struct start *)arg;
    struct engine *g = s.r->g;

    free(arg);
    s.body(s.r);
    if (atomic_load(&s.r->lost))
        go_on_watching(s.r);
    run_end(s.r, EINTR, "the mount is being unmounted; the action goes on with the next mount"); /* unless the body ended it */
    run_unref(s.r);
    engine_works(g, -1);
    return NULL;
}

void run_start(struct run *r, void (*body)(struct run *r))
{
    struct engine *g = r->g;
    struct start *s = malloc(sizeof(*s));
    pthread_attr_t attr;
    pthread_t thread;
    int failed = ENOMEM;

    engine_works(g, 1);
    if (s) {
        *s = (struct start){.r = run_ref(r), .body = body};
        pthread_attr_init(&attr);
        pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
        pthread_attr_setstacksize(&attr, 512 * 1024); /* hundreds of takes may queue */
        failed = thread_start(&thread, &attr, run_thread, s);
        pthread_attr_destroy(&attr);
    }
    if (!failed)
        return;
    if (s)
        run_unref(r);
    free(s);
    engine_works(g, -1);
    run_end(r, failed, "no thread could be started for the action; it goes on in a moment");
}
