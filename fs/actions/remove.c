/* Deleting a checkpoint with its snapshot, or an isolated branch: `echo 'delete NAME' > .control/prune`. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "actions_i.h"
#include "util/cleanup.h"
#include "util/text.h"

/* What was made active since is the line's: only the row goes then. */
static int announce_branch(struct run *r, struct err *e)
{
    struct store_line line = {0};
    struct store_branch b = {0};
    int rc = store_branch(r->g->c.store, r->isolated, &b, e);

    if (rc == 0 && b.branch_id) {
        rc = store_line_find(r->g->c.store, r->g->c.project_id, b.branch_id, &line, e);
        if (rc == -ENOENT)
            rc = data_set(r, "branch_id", b.branch_id) < 0 || data_set(r, "branch_before", b.branch_id) < 0
                     ? err_set(e, ENOMEM, "out of memory") : 0;
    }
    store_line_free(&line);
    store_branch_free(&b);
    return rc < 0 ? rc : journal_step(r, "delete", "deleting", e);
}

/* Not what somebody has finalized in Neon's console: it is in use, perhaps as the active branch, though the record doesn't say so yet. */
static int check_unused(const struct neon_branch *b, const char *holder, struct err *e)
{
    if (b->is_default || str_equal(holder, b->id))
        return err_set(e, ESTALE,
                       "branch %s is the active one by now: somebody made it so in Neon. Nothing was deleted. To go on with it: "
                       "echo 'adopt %s' > .control/adopt", b->id, b->id);
    if (str_equal(b->restore_status, "finalized"))
        return err_set(e, ESTALE,
                       "branch %s was put in the place of %s in Neon, and what uses it nobody here knows. Nothing was deleted. If nothing "
                       "does, delete it in Neon's console first", b->id, b->restored_as ? b->restored_as : "another one");
    return 0;
}

static int may_delete_branch(struct run *r, const struct neon_call *call, struct err *e)
{
    struct store_line line = {0};
    struct neon_branch b = {0};
    cleanup_free char *holder = NULL;
    int rc = neon_said(r->g, neon_branch_get(r->g->c.neon, call, data_get(r, "branch_id"), &b, e), e);

    if (rc == -ENOENT) {
        err_clear(e);
        return 0;
    }
    if (rc == 0)
        rc = store_line_get(r->g->c.store, r->g->line_id, &line, e);
    if (rc == 0 && line.endpoint_id)
        rc = branch_of_endpoint(r->g, call, line.endpoint_id, &holder, e);
    if (rc == 0)
        rc = check_unused(&b, holder, e);
    neon_branch_free(&b);
    store_line_free(&line);
    return rc;
}

static int delete_branch(struct run *r, const struct neon_call *call, struct err *e)
{
    struct guard guard = {.r = r, .call = call, .may = may_delete_branch};
    struct neon_call guarded = guard_call(&guard);

    return guard_end(&guard, branch_delete_surely(r->g, &guarded, data_get(r, "branch_id"), e), e);
}

static int announce(struct run *r, struct err *e)
{
    struct brief b = {0};
    int rc = journal_turn(r, e);

    if (rc < 0)
        return rc;
    if (r->of_branch)
        return announce_branch(r, e);
    if (engine_brief(r->g, r->checkpoint, &b) < 0)
        return err_set(e, ENOENT, "the checkpoint is gone");
    rc = data_set(r, "snapshot_id", b.snapshot_id) < 0 ? err_set(e, ENOMEM, "out of memory") : journal_step(r, "delete", NULL, e);
    brief_clear(&b);
    return rc;
}

int snapshot_delete_unshared(struct engine *g, const struct neon_call *call, int64_t checkpoint, const char *id, struct err *e)
{
    bool shared = false;
    int r = store_snapshot_shared(g->c.store, checkpoint, &shared, e);

    return r < 0 || shared ? r : snapshot_delete_surely(g, call, id, e);
}

static int record(struct run *r, struct err *e)
{
    cleanup_free char *doc = journal_doc(r, "done", 0, NULL);
    int tries = 0;
    int rc;

    if (str_equal(r->command, DISCARD_COMMAND))
        return journal_was_done(r, journal_finish(r, ACTION_DONE, 0, NULL, NULL, false, e), 1, e);
    do {
        rc = r->of_branch ? store_branch_deleted(r->g->c.store, r->action, doc, e) : store_delete_done(r->g->c.store, r->action, doc, e);
    } while (rc < 0 && journal_settles_again(r, rc, e, &tries));
    return journal_was_done(r, rc, tries, e);
}

static int delete_all(struct run *r, struct err *e)
{
    struct neon_call call = run_call(r);
    int rc = run_at(r, "delete") ? 0 : announce(r, e);

    if (rc == 0 && (data_get(r, "snapshot_id") || data_get(r, "branch_id"))) {
        rc = r->of_branch ? delete_branch(r, &call, e)
                          : snapshot_delete_unshared(r->g, &call, r->checkpoint, data_get(r, "snapshot_id"), e);
        if (rc == -ECONNREFUSED || rc == -EHOSTUNREACH)
            rc = r->recovered || r->doubtful ? -EAGAIN : rc; /* it may have been asked for before */
    }
    return rc == 0 ? record(r, e) : rc;
}

void delete_body(struct run *r)
{
    cleanup_err struct err e = {0};
    int rc;

    do {
        rc = delete_all(r, &e);
    } while (rc == -EAGAIN && neon_wait_for(r, &e));
    if (rc < 0 && run_leaves(r))
        return;
    if (rc == 0 && r->of_branch)
        engine_branch_gone(r->g, r->checkpoint, r->isolated);
    if (rc < 0) {
        journal_settle(r, ACTION_FAILED, e.code, err_text(&e), NULL, false);
        if (str_equal(r->command, DISCARD_COMMAND)) /* nobody asked for it who would ask again */
            watch_leftovers(r->g);
        return;
    }
    engine_refresh(r->g, r->checkpoint, r->action);
    run_end(r, 0, NULL);
}
