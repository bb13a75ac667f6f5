/* The mount's lease: renewed every second by a thread that does nothing else, so that nothing else can hold it up. */
#include <errno.h>
#include <signal.h>
#include <string.h>

#include "actions_i.h"
#include "util/clock.h"

#define TICK_MS 100
#define BEAT_MS 1000

static void *keep(void *arg)
{
    struct engine *g = arg;
    int64_t beat = 0;

    while (!atomic_load(&g->stopping)) {
        int64_t now = clock_mono_ms();

        if (now >= beat) {
            if (store_mount_beat(g->c.store, g->mount_id, NULL) == 0)
                atomic_store(&g->last_beat, clock_mono_ms());
            beat = now + BEAT_MS;
        }
        clock_sleep_ms(TICK_MS);
    }
    return NULL;
}

int engine_thread(pthread_t *ret, void *(*body)(void *), struct engine *g, struct err *e)
{
    sigset_t all, old;
    int failed;

    sigfillset(&all); /* the main thread alone gets TERM and INT: fuse.md §1.9 */
    pthread_sigmask(SIG_SETMASK, &all, &old);
    failed = pthread_create(ret, NULL, body, g);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return failed ? err_set(e, failed, "no thread can be started: %s", strerror(failed)) : 0;
}

int keeper_start(struct engine *g, struct err *e)
{
    int r = engine_thread(&g->keeper, keep, g, e);

    g->keeper_runs = r == 0;
    return r;
}

void keeper_stop(struct engine *g)
{
    if (g->keeper_runs)
        pthread_join(g->keeper, NULL);
    g->keeper_runs = false;
}
