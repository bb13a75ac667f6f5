/* A take that was found out to be a backup being copied in: a failed take, whose snapshot is given back to Neon (design.md §4). */
#include <errno.h>

#include "actions_i.h"
#include "util/cleanup.h"
#include "util/log.h"
#include "util/text.h"

/* Giving the snapshot back is an action like any other: it waits for the project's turn, and survives the mount. */
static void discard(struct engine *g, int64_t checkpoint, const struct who *who)
{
    struct store_begin b = {
        .kind = ACTION_DELETE, .line_id = g->line_id, .mount_id = g->mount_id, .checkpoint = checkpoint, .command = DISCARD_COMMAND,
        .who = &who->w,
    };
    struct store_action a = {0};
    cleanup_err struct err e = {0};
    struct run *r = NULL;

    if (store_action_begin(g->c.store, &b, &a, &e) == 0)
        r = run_new(g, &a, &who->w);
    store_action_free(&a);
    if (r) {
        journal_step(r, "", NULL, NULL);
        run_start(r, delete_body);
        run_unref(r);
    } else {
        log_warn("the snapshot of a copy stays in Neon: %s", err_text(&e));
    }
}

int engine_take_is_copy(struct engine *g, int64_t checkpoint, const struct who *who, struct err *e)
{
    struct brief b = {0};
    int r = engine_brief(g, checkpoint, &b);

    if (r < 0)
        return err_set(e, ENOENT, "the checkpoint is gone");
    r = store_take_failed(g->c.store, checkpoint, 0, EPERM, TAKE_IS_COPY, NULL, e);
    engine_take_code(g, checkpoint, EPERM);
    engine_refresh(g, checkpoint, 0);
    if (r == 0 && (b.phase == PHASE_SAVED || b.phase == PHASE_SEALED)) /* else its take does it */
        discard(g, checkpoint, who);
    brief_clear(&b);
    return r;
}
