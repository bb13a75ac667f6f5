/* Requests that wait for a run, or a seal, hold no thread: they are in a list, and one thread looks after interrupts and deadlines.
 *
 * Exactly one side replies: whoever detaches the waiter from its run (run_unwait, or the run itself when it ends). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "agents/caller.h"
#include "mount_i.h"
#include "util/clock.h"
#include "util/thread.h"

/* The kernel sends no second INTERRUPT, so a signal that ends nobody is looked at again this often (traps.md 1). */
#define LOOK_MS 10
#define TICK_MS 200

static void on_interrupt(fuse_req_t req, void *arg)
{
    struct call *c = arg;

    (void)req; /* libfuse holds the request's lock here: only a flag and a post */
    atomic_store(&c->interrupted, true);
    sem_post(&c->m->waits.wake);
}

void waits_interruptible(struct call *c)
{
    fuse_req_interrupt_func(c->req, on_interrupt, c);
}

static void link_locked(struct call *c)
{
    struct mount *m = c->m;

    c->wait_next = m->waits.first;
    c->wait_prev = NULL;
    if (c->wait_next)
        c->wait_next->wait_prev = c;
    m->waits.first = c;
    c->waiting = true;
}

static void unlink_locked(struct call *c)
{
    if (c->wait_prev)
        c->wait_prev->wait_next = c->wait_next;
    else
        c->m->waits.first = c->wait_next;
    if (c->wait_next)
        c->wait_next->wait_prev = c->wait_prev;
    c->waiting = false;
}

static void go_on(struct call *c, int code)
{
    struct run *r = c->run;

    c->run = NULL;
    c->then(c, code);
    run_unref(r);
}

static void on_ended(struct run_waiter *w, int code, const char *message)
{
    struct call *c = (struct call *)((char *)w - offsetof(struct call, waiter));
    struct mount *m = c->m;

    (void)message;
    pthread_mutex_lock(&m->waits.lock);
    unlink_locked(c);
    m->waits.going++;
    pthread_mutex_unlock(&m->waits.lock);
    go_on(c, code);
    pthread_mutex_lock(&m->waits.lock);
    m->waits.going--;
    pthread_mutex_unlock(&m->waits.lock);
}

void waits_for(struct call *c, struct run *r, void (*then)(struct call *c, int code))
{
    struct mount *m = c->m;
    int code = 0;

    c->run = r;
    c->then = then;
    c->waiter.ended = on_ended;
    if (!c->deadline_ms)
        c->deadline_ms = clock_mono_ms() + engine_deadline_ms(m->engine);
    pthread_mutex_lock(&m->waits.lock);
    link_locked(c);
    pthread_mutex_unlock(&m->waits.lock);
    if (!run_wait(r, &c->waiter, &code)) {
        pthread_mutex_lock(&m->waits.lock);
        unlink_locked(c);
        pthread_mutex_unlock(&m->waits.lock);
        go_on(c, code);
        return;
    }
    /* From here on `c` may be gone; an interrupt that came before is seen at the next look. */
    sem_post(&m->waits.wake);
}

void waits_for_seal(struct call *c, void (*then)(struct call *c, int code))
{
    struct mount *m = c->m;
    bool refused;

    c->then = then;
    pthread_mutex_lock(&m->waits.lock);
    refused = atomic_load(&m->waits.stop); /* under the lock: the thread ends when it has seen both this and an empty list */
    if (!refused)
        link_locked(c);
    pthread_mutex_unlock(&m->waits.lock);
    if (refused)
        then(c, EINTR);
    else
        sem_post(&m->waits.wake);
}

/* The errno that the call is to be answered with now; 0 = it goes on, -1 = it waits. Whether it is to be looked at again soon: nothing
 * wakes us at a seal's end. */
static int outcome(struct call *c, bool all, bool *ret_watch)
{
    bool interrupted = atomic_load(&c->interrupted);

    if (clock_mono_ms() > c->deadline_ms)
        return ETIMEDOUT;
    if (all || (interrupted && caller_signal_is_interruption(c->from.pid)) || (!c->run && engine_stopping(c->m->engine)))
        return EINTR;
    if (!c->run && !engine_seals(c->m->engine, c->h->checkpoint))
        return 0;
    *ret_watch |= interrupted || !c->run;
    return -1;
}

/* Takes the calls that are to be answered now out of the list; with `all`, whoever a run isn't answering already. */
static struct call *over(struct mount *m, bool all, bool *ret_watch)
{
    struct call *out = NULL;

    pthread_mutex_lock(&m->waits.lock);
    for (struct call *c = m->waits.first, *next; c; c = next) {
        int code = outcome(c, all, ret_watch);

        next = c->wait_next;
        if (code < 0)
            continue;
        if (c->run && !run_unwait(c->run, &c->waiter))
            continue; /* the run is answering it */
        unlink_locked(c);
        c->code = code;
        c->job_next = out;
        out = c;
    }
    pthread_mutex_unlock(&m->waits.lock);
    return out;
}

static bool anyone_left(struct mount *m)
{
    bool are;

    pthread_mutex_lock(&m->waits.lock);
    are = m->waits.first || m->waits.going;
    pthread_mutex_unlock(&m->waits.lock);
    return are;
}

static void *watch(void *arg)
{
    struct mount *m = arg;

    while (!atomic_load(&m->waits.stop) || anyone_left(m)) {
        struct timespec until;
        bool watching = atomic_load(&m->waits.stop);
        struct call *next;

        for (struct call *c = over(m, watching, &watching); c; c = next) {
            next = c->job_next;
            if (c->code == 0) {
                c->then(c, 0);
                continue;
            }
            run_unref(c->run);
            c->run = NULL;
            if (c->code == ETIMEDOUT && c->h->kind == HANDLE_CONTROL)
                handle_overdue(m, c->h);
            call_reply_err(c, c->code);
        }
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += (watching ? LOOK_MS : TICK_MS) * 1000000L;
        if (until.tv_nsec >= 1000000000L) {
            until.tv_sec++;
            until.tv_nsec -= 1000000000L;
        }
        sem_timedwait(&m->waits.wake, &until);
    }
    return NULL;
}

int waits_start(struct mount *m)
{
    int failed;

    pthread_mutex_init(&m->waits.lock, NULL);
    sem_init(&m->waits.wake, 0, 0);
    failed = thread_start(&m->waits.thread, NULL, watch, m);
    m->waits.runs = !failed;
    return -failed;
}

void waits_stop(struct mount *m)
{
    if (!m->waits.runs)
        return;
    atomic_store(&m->waits.stop, true);
    sem_post(&m->waits.wake);
    pthread_join(m->waits.thread, NULL);
}

void waits_free(struct mount *m)
{
    if (!m->waits.runs)
        return;
    sem_destroy(&m->waits.wake);
    pthread_mutex_destroy(&m->waits.lock);
    m->waits.runs = false;
}
