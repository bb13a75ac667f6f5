/* Large copies: storing them takes seconds, and for as long as a rename isn't answered the kernel holds the locks of both directories.
 * So the rename waits only for a while, and what it began goes on without it (design.md §7.4). Nothing is in the store before all is. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "import.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/log.h"
#include "util/thread.h"

#define WAIT_MS 2000

struct importer {
    pthread_mutex_t lock;    /* protects what follows */
    pthread_cond_t changed;
    struct import *first;    /* the one that is being registered, then those whose turn will come */
    bool ending;
    pthread_t thread;
};

/* ---- the thread ----------------------------------------------------------------------------------------------------- */

static struct import *next_one(struct importer *p)
{
    struct import *i;

    pthread_mutex_lock(&p->lock);
    while (!p->first && !p->ending)
        pthread_cond_wait(&p->changed, &p->lock);
    i = p->first;
    pthread_mutex_unlock(&p->lock);
    return i;
}

/* Whether nobody waits for it any more. */
static bool finish(struct importer *p, struct import *i, int r, struct err *e)
{
    bool alone;

    pthread_mutex_lock(&p->lock);
    p->first = i->next;
    i->done = true;
    i->code = -r;
    alone = !i->waiting;
    if (!alone)
        err_move(&i->e, e);
    pthread_cond_broadcast(&p->changed);
    pthread_mutex_unlock(&p->lock);
    return alone;
}

static void *work(void *arg)
{
    struct importer *p = arg;
    struct import *i;

    while ((i = next_one(p))) {
        cleanup_err struct err e = {0};
        int r = import_run(i, &e);

        if (finish(p, i, r, &e)) {
            log_info("%s: %s", i->command, r < 0 ? err_text(&e) : "registered");
            if (r < 0)
                import_refused(i, &e);
        }
        import_unref(i);
    }
    return NULL;
}

struct importer *importer_new(void)
{
    struct importer *p = calloc(1, sizeof(*p));
    pthread_condattr_t attr;

    if (!p)
        return NULL;
    pthread_mutex_init(&p->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&p->changed, &attr);
    pthread_condattr_destroy(&attr);
    if (thread_start(&p->thread, NULL, work, p) == 0)
        return p;
    pthread_cond_destroy(&p->changed);
    pthread_mutex_destroy(&p->lock);
    free(p);
    return NULL;
}

void importer_free(struct importer *p)
{
    if (!p)
        return;
    pthread_mutex_lock(&p->lock);
    p->ending = true;
    pthread_cond_broadcast(&p->changed);
    pthread_mutex_unlock(&p->lock);
    pthread_join(p->thread, NULL);
    pthread_cond_destroy(&p->changed);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

/* ---- those who wait ------------------------------------------------------------------------------------------------- */

static int add(struct importer *p, struct import *i, struct err *e)
{
    int r = staging_freeze(i->m->staging, i->what.id);
    struct import **last = &p->first;

    if (r < 0)
        return err_set(e, -r, "something in %s is still being written", i->name);
    while (*last)
        last = &(*last)->next;
    *last = import_ref(i);
    pthread_cond_broadcast(&p->changed);
    return 0;
}

static struct import *find(const struct importer *p, int64_t staged)
{
    struct import *i = p->first;

    while (i && i->what.id != staged)
        i = i->next;
    return i;
}

static int wait_for(struct importer *p, struct import *i, int64_t until_ms, struct err *e)
{
    struct timespec until = {.tv_sec = until_ms / 1000, .tv_nsec = until_ms % 1000 * 1000000L};
    int r = 0;

    i->waiting++;
    while (!i->done && r == 0)
        r = pthread_cond_timedwait(&p->changed, &p->lock, &until);
    i->waiting--;
    if (!i->done)
        return err_set(e, EINPROGRESS, "%s is large and is still being stored; that goes on by itself: %s is there once all of it is "
                       "stored, or .control/result says why not", i->name, i->to);
    return i->e.code ? err_set(e, i->e.code, "%s", err_text(&i->e)) : -i->code;
}

int importer_run(struct importer *p, struct import *i, struct err *e)
{
    int64_t until_ms = clock_mono_ms() + WAIT_MS;
    struct import *before;
    int r = 0;

    pthread_mutex_lock(&p->lock);
    before = find(p, i->what.id);
    if (before && strcmp(before->to, i->to) != 0)
        r = err_set(e, EBUSY, "%s is being registered as %s", i->name, before->to);
    else if (!before)
        r = add(p, i, e);
    i = import_ref(before ? before : i);
    if (r == 0)
        r = wait_for(p, i, until_ms, e);
    pthread_mutex_unlock(&p->lock);
    import_unref(i);
    return r;
}
