/* Runs: an action under way, its thread and those who wait for it. */
#include "actions/run.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "actions_i.h"
#include "util/clock.h"
#include "util/text.h"

struct run *run_new(struct engine *g, const struct store_action *a, const struct store_who *who)
{
    struct run *r = calloc(1, sizeof(*r));

    if (!r)
        return NULL;
    atomic_init(&r->refs, 1);
    pthread_mutex_init(&r->lock, NULL);
    r->g = g;
    r->action = a->id;
    r->checkpoint = a->checkpoint;
    r->kind = a->kind;
    r->uid = str_dup(a->uid);
    r->command = str_dup(a->command);
    r->step = strdup(a->step ? a->step : "");
    r->started_at = a->created_at ? a->created_at : clock_now();
    r->data = a->data ? json_loads(a->data, 0, NULL) : NULL;
    if (!r->data)
        r->data = json_object();
    if (who) {
        r->who = *who;
        r->who.user = r->who_user = str_dup(who->user);
        r->who.command = r->who_command = str_dup(who->command);
    }
    r->who.host = g->host;
    if (!r->uid || !r->step || !r->data) {
        run_unref(r);
        return NULL;
    }
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
    free(r->uid);
    free(r->command);
    free(r->step);
    free(r->decisions);
    free(r->message);
    free(r->who_user);
    free(r->who_command);
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
    HASH_DEL(g->runs, r);
    pthread_cond_broadcast(&g->idle);
    pthread_mutex_unlock(&g->lock);
    run_unref(r);
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
    run_end(s.r, EINTR, "the mount is being unmounted; the action goes on with the next mount"); /* unless the body ended it */
    run_unref(s.r);
    pthread_mutex_lock(&g->lock);
    g->threads--;
    pthread_cond_broadcast(&g->idle);
    pthread_mutex_unlock(&g->lock);
    return NULL;
}

void run_start(struct run *r, void (*body)(struct run *r))
{
    struct engine *g = r->g;
    struct start *s = malloc(sizeof(*s));
    pthread_attr_t attr;
    sigset_t all, old;
    pthread_t thread;
    int failed = ENOMEM;

    pthread_mutex_lock(&g->lock);
    g->threads++;
    pthread_mutex_unlock(&g->lock);
    if (s) {
        *s = (struct start){.r = run_ref(r), .body = body};
        pthread_attr_init(&attr);
        pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
        pthread_attr_setstacksize(&attr, 512 * 1024); /* hundreds of takes may queue */
        sigfillset(&all); /* the main thread alone gets TERM and INT: fuse.md §1.9 */
        pthread_sigmask(SIG_SETMASK, &all, &old);
        failed = pthread_create(&thread, &attr, run_thread, s);
        pthread_sigmask(SIG_SETMASK, &old, NULL);
        pthread_attr_destroy(&attr);
    }
    if (!failed)
        return;
    if (s)
        run_unref(r);
    free(s);
    pthread_mutex_lock(&g->lock);
    g->threads--;
    pthread_mutex_unlock(&g->lock);
    run_end(r, failed, "no thread could be started for the action; it goes on in a moment");
}
