/* Deleting a checkpoint with its snapshot: `echo 'delete NAME' > .control/prune`. */
#include <errno.h>
#include <stdlib.h>

#include "actions_i.h"
#include "util/cleanup.h"
#include "util/text.h"

static int delete_snapshot(struct run *r, const struct neon_call *call, const char *id, struct err *e)
{
    struct neon_operations ops = {0};
    bool unknown = false;
    int rc = neon_snapshot_delete(r->g->c.neon, call, id, &ops, &unknown, e);

    neon_said(r->g, rc, e);
    if (rc < 0 && unknown) { /* look whether it is still there */
        rc = neon_settle_project(r->g->c.neon, call, e);
        if (rc == 0)
            rc = neon_snapshot_delete(r->g->c.neon, call, id, &ops, &unknown, e);
    }
    if (rc == -ENOENT) {
        err_clear(e);
        rc = 0;
    } else if (rc == 0) {
        rc = neon_settle_operations(r->g->c.neon, call, &ops, NULL, NULL, e);
    }
    neon_operations_free(&ops);
    return rc;
}

static int delete_all(struct run *r, struct err *e)
{
    struct neon_call call = engine_call(r->g);
    struct brief b = {0};
    int rc = journal_turn(r, e);

    if (rc < 0)
        return rc;
    if (engine_brief(r->g, r->checkpoint, &b) < 0)
        rc = err_set(e, ENOENT, "the checkpoint is gone");
    if (rc == 0)
        rc = data_set(r, "snapshot_id", b.snapshot_id) < 0 ? err_set(e, ENOMEM, "out of memory") : journal_step(r, "delete", NULL, e);
    if (rc == 0 && b.snapshot_id)
        rc = delete_snapshot(r, &call, b.snapshot_id, e);
    if (rc == 0) {
        cleanup_free char *doc = journal_doc(r, "done", 0, NULL);

        rc = store_delete_done(r->g->c.store, r->action, doc, e);
    }
    brief_clear(&b);
    return rc;
}

void delete_body(struct run *r)
{
    cleanup_err struct err e = {0};
    cleanup_err struct err ignored = {0};
    int rc = delete_all(r, &e);

    if (rc < 0 && atomic_load(&r->g->stopping))
        return;
    if (rc < 0)
        journal_finish(r, ACTION_FAILED, e.code, err_text(&e), NULL, false, &ignored);
    else
        engine_refresh(r->g, r->checkpoint, r->action);
    run_end(r, e.code, rc < 0 ? err_text(&e) : NULL);
}
