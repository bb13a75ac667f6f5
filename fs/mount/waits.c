/* Requests that wait for a run hold no thread: they are in a list, and one thread looks after interrupts and deadlines.
 *
 * Exactly one side replies: whoever detaches the waiter from its run (run_unwait, or the run itself when it ends). */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "agents/caller.h"
#include "mount_i.h"
#include "util/clock.h"

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

static void link_call(struct call *c)
{
    struct mount *m = c->m;

    pthread_mutex_lock(&m->waits.lock);
    c->wait_next = m->waits.first;
    c->wait_prev = NULL;
    if (c->wait_next)
        c->wait_next->wait_prev = c;
    m->waits.first = c;
    c->waiting = true;
    pthread_mutex_unlock(&m->waits.lock);
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

    (void)message;
    pthread_mutex_lock(&c->m->waits.lock);
    unlink_locked(c);
    pthread_mutex_unlock(&c->m->waits.lock);
    go_on(c, code);
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
    link_call(c);
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

/* Takes the calls that are to be answered now out of the list. */
static struct call *over(struct mount *m, bool *ret_watch)
{
    struct call *out = NULL;
    int64_t now = clock_mono_ms();

    pthread_mutex_lock(&m->waits.lock);
    for (struct call *c = m->waits.first, *next; c; c = next) {
        bool interrupted = atomic_load(&c->interrupted);

        next = c->wait_next;
        if (!(now > c->deadline_ms) && !(interrupted && caller_signal_is_interruption(c->from.pid))) {
            *ret_watch |= interrupted;
            continue;
        }
        if (!run_unwait(c->run, &c->waiter))
            continue; /* the run is answering it */
        unlink_locked(c);
        c->code = now > c->deadline_ms ? ETIMEDOUT : EINTR;
        c->job_next = out;
        out = c;
    }
    pthread_mutex_unlock(&m->waits.lock);
    return out;
}

static void *watch(void *arg)
{
    struct mount *m = arg;

    while (!atomic_load(&m->waits.stop)) {
        struct timespec until;
        bool watching = false;
        struct call *next;

        for (struct call *c = over(m, &watching); c; c = next) {
            next = c->job_next;
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
    sigset_t all, old;
    int failed;

    pthread_mutex_init(&m->waits.lock, NULL);
    sem_init(&m->waits.wake, 0, 0);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    failed = pthread_create(&m->waits.thread, NULL, watch, m);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
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
    sem_destroy(&m->waits.wake);
    pthread_mutex_destroy(&m->waits.lock);
    m->waits.runs = false;
}
