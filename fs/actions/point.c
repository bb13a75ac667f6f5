/* Points at which tests kill a mount: every change of the store and of Neon, and every start of an agent, has one before and one after.
 * They are numbered as they are passed. */
#include <signal.h>
#include <string.h>

#include "actions_i.h"
#include "util/log.h"
#include "util/text.h"

void engine_point(struct engine *g, const char *what)
{
    int64_t n;

    if (g->c.kill_at < 0)
        return;
    n = atomic_fetch_add(&g->points, 1) + 1;
    log_info("point %lld: %s", (long long)n, what);
    if (n == g->c.kill_at)
        raise(g->c.kill_signal); /* taken by this thread on its way out of the call: kill(2) might stop another one first */
}

/* What goes on beside actions has no points: their numbers would be others in each run. */
static bool beside(const char *what)
{
    static const char *const names[] = {"store_mount_beat", "store_mount_leave", "store_mount_register", "store_output_append",
                                        "store_state_tell", "store_snapshot_put", "store_changes_trim", "store_leftover_deleted", NULL};

    for (size_t i = 0; names[i]; i++)
        if (strstr(what, names[i]))
            return true;
    return false;
}

/* Who stops, for something else to be killed, doesn't stop before a change of the store: Neon is not asked in it, so whoever kills the
 * emulator finds the same after it, and whoever kills the store found the same after the change before. */
void engine_store_point(void *engine, const char *what)
{
    const struct engine *g = engine;
    bool same = g->c.kill_signal == SIGSTOP && str_starts(what, "before ");

    if (!same && !beside(what))
        engine_point(engine, what);
}
