/* The mount's lease: renewed every second by a thread that does nothing else, so that nothing else can hold it up. A mount that was
 * declared dead meanwhile has lost all it was at, and goes on under a new number. */
#include <errno.h>
#include <string.h>

#include "actions_i.h"
#include "util/clock.h"
#include "util/thread.h"

#define TICK_MS 100
#define BEAT_MS 1000

void lease_renew(struct engine *g)
{
    int64_t asked = clock_boot_ms();
    int r;

    pthread_mutex_lock(&g->renewing);
    r = store_mount_beat(g->c.store, atomic_load(&g->mount_id), NULL);
    if (r == -ESTALE && !atomic_load(&g->stopping)) {
        lease_lost(g);
        asked = clock_boot_ms();
        r = recover_register(g, NULL);
    }
    if (r == 0)
        atomic_store(&g->last_beat, asked);
    else if (r != -ESTALE)
        store_unanswered(g->c.store);
    pthread_mutex_unlock(&g->renewing);
}

static void *keep(void *arg)
{
    struct engine *g = arg;
    int64_t beat = 0;

    while (!atomic_load(&g->stopping)) {
        int64_t now = clock_boot_ms(); /* at once when the machine wakes */

        if (now >= beat) {
            lease_renew(g);
            beat = now + BEAT_MS;
        }
        follow_check(g);
        clock_sleep_ms(TICK_MS);
    }
    return NULL;
}

int engine_thread(pthread_t *ret, void *(*body)(void *), struct engine *g, struct err *e)
{
    int failed = thread_start(ret, NULL, body, g);

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
