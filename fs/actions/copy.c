/* A take that was found out to be a backup being copied in: a failed take, whose snapshot is given back to Neon (design.md §4). */
#include <errno.h>

#include "actions_i.h"
#include "util/cleanup.h"
#include "util/log.h"
#include "util/text.h"

/* It is to be seen while it waits for its turn. In its own thread: the reply of a create or mkdir can't wait until the store is back. */
static void discard_body(struct run *r)
{
    journal_step(r, "", NULL, NULL);
    delete_body(r);
}

/* Giving the snapshot back is an action like any other: it waits for the project's turn, and survives the mount. */
static void discard(struct engine *g, struct store_action *a)
{
    struct run *r = run_new(g, a);

    if (!r) {
        log_warn("the snapshot of a copy is given back in a moment: out of memory");
        return;
    }
    run_start(r, discard_body);
    run_unref(r);
}

int engine_take_is_copy(struct engine *g, int64_t checkpoint, const char *file, const struct who *who, struct err *e)
{
    cleanup_free char *note = str_format(TAKE_IS_COPY " (%s is no file of a take, state.json and meta.json are; rmdir this and take"
                                          " again)", file);
    struct store_action a = {0};
    int r = note ? LEASED(g, store_take_is_copy(g->c.store, checkpoint, EPERM, note, &who->w, &a, e)) : err_set(e, ENOMEM, "out of memory");

    engine_take_code(g, checkpoint, EPERM);
    engine_refresh(g, checkpoint, 0);
    if (r == 0 && a.id) /* else its take does it */
        discard(g, &a);
    store_action_free(&a);
    return r;
}
