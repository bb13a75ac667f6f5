/* Deleting a checkpoint with its snapshot: `echo 'delete NAME' > .control/prune`. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "actions_i.h"
#include "util/cleanup.h"
#include "util/text.h"

static int announce(struct run *r, struct err *e)
{
    struct brief b = {0};
    int rc = journal_turn(r, e);

    if (rc < 0)
        return rc;
    if (engine_brief(r->g, r->checkpoint, &b) < 0)
        return err_set(e, ENOENT, "the checkpoint is gone");
    rc = data_set(r, "snapshot_id", b.snapshot_id) < 0 ? err_set(e, ENOMEM, "out of memory") : journal_step(r, "delete", NULL, e);
    brief_clear(&b);
    return rc;
}

static int record(struct run *r, struct err *e)
{
    cleanup_free char *doc = journal_doc(r, "done", 0, NULL);
    int tries = 0;
    int rc;

    if (str_equal(r->command, DISCARD_COMMAND))
        return journal_finish(r, ACTION_DONE, 0, NULL, NULL, false, e);
    do {
        rc = store_delete_done(r->g->c.store, r->action, doc, e);
    } while (rc < 0 && journal_again(r, rc, e, &tries));
    return rc;
}

static int delete_all(struct run *r, struct err *e)
{
    struct neon_call call = engine_call(r->g);
    int rc = run_at(r, "delete") ? 0 : announce(r, e);

    if (rc == 0 && data_get(r, "snapshot_id")) {
        rc = snapshot_delete_surely(r->g, &call, data_get(r, "snapshot_id"), e);
        if (rc == -ECONNREFUSED || rc == -EHOSTUNREACH)
            rc = r->recovered || r->doubtful ? -EAGAIN : rc; /* it may have been asked for before */
    }
    return rc == 0 ? record(r, e) : rc;
}

void delete_body(struct run *r)
{
    cleanup_err struct err e = {0};
    cleanup_err struct err ignored = {0};
    int rc;

    do {
        rc = delete_all(r, &e);
    } while (rc == -EAGAIN && neon_wait_for(r, &e));
    if (rc < 0 && atomic_load(&r->g->stopping))
        return;
    if (rc < 0)
        journal_finish(r, ACTION_FAILED, e.code, err_text(&e), NULL, false, &ignored);
    else
        engine_refresh(r->g, r->checkpoint, r->action);
    run_end(r, rc < 0 ? e.code : 0, rc < 0 ? err_text(&e) : NULL);
}
