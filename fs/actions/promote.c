/* Promote: an isolated branch becomes the active one (design.md §5). If Neon would put it in the place of the branch that is still active,
 * it only has to finalize its restore; else a snapshot of it is taken and restored in place. */
#include <errno.h>
#include <stdlib.h>

#include "actions_i.h"
#include "util/cleanup.h"
#include "util/log.h"
#include "util/text.h"

static int record(struct run *r, const char *endpoint, struct err *e)
{
    return store_promote_done(r->g->c.store, r->action, data_get(r, "new_branch"), data_get(r, "target_branch"),
                              data_get(r, "replaced_name"), endpoint, e);
}

/* ---- finalizing its own restore -------------------------------------------------------------------------------------- */

/* Whether Neon can still finalize it over `active`. */
static int can_finalize(struct run *r, const struct neon_call *call, const struct branch_brief *b, const char *active, bool *ret,
                        char **ret_snapshot, struct err *e)
{
    struct neon_branch now = {0};
    int rc = neon_said(r->g, neon_branch_get(r->g->c.neon, call, b->branch_id, &now, e), e);

    if (rc == -ENOENT)
        return err_set(e, ESTALE, "branch %s is gone from Neon: nothing was done", b->branch_id);
    if (rc < 0)
        return rc;
    *ret = str_equal(now.restored_as, active) && str_equal(now.restore_status, "restored");
    *ret_snapshot = str_dup(now.restored_from);
    neon_branch_free(&now);
    return 0;
}

static int announce_finalize(struct run *r, const struct branch_brief *b, const char *snapshot, const char *active, const char *endpoint,
                             struct err *e)
{
    cleanup_free char *replaced = announced_name(r, "replaced-", b->checkpoint_name);

    if (!replaced || data_set(r, "snapshot_id", snapshot) < 0 || data_set(r, "target_branch", active) < 0 ||
        data_set(r, "branch_before", active) < 0 || data_set(r, "endpoint_id", endpoint) < 0 ||
        data_set(r, "new_branch", b->branch_id) < 0 ||
        data_set(r, "replaced_name", replaced) < 0)
        return err_set(e, ENOMEM, "out of memory");
    return journal_step(r, "finalize", "promoting 4/5", e);
}

/* ---- or a snapshot of it ---------------------------------------------------------------------------------------------- */

static int announce_snapshot(struct run *r, const struct branch_brief *b, struct err *e)
{
    cleanup_free char *name = announced_name(r, "promote-", b->checkpoint_name);

    if (!name || data_set(r, "snapshot_name", name) < 0 || data_set(r, "source_branch", b->branch_id) < 0)
        return err_set(e, ENOMEM, "out of memory");
    return journal_step(r, "snapshot", "promoting 2/5", e);
}

static int take_snapshot(struct run *r, const struct neon_call *call, struct err *e)
{
    struct neon_snapshot snap = {0};
    struct neon_operations ops = {0};
    int rc = snapshot_ask(r, call, data_get(r, "source_branch"), r->recovered, &snap, &ops, e);

    if (rc == 0 && data_set_operations(r, &ops) < 0)
        rc = err_set(e, ENOMEM, "out of memory");
    if (rc == 0)
        rc = journal_step(r, "snapshot taken", "promoting 2/5", e);
    neon_snapshot_free(&snap);
    neon_operations_free(&ops);
    return rc;
}

static int restore_snapshot(struct run *r, const struct neon_call *call, struct err *e)
{
    struct neon_snapshot snap = {0};
    cleanup_free char *active = NULL;
    cleanup_free char *endpoint = NULL;
    struct branch_brief b = {0};
    int rc = snapshot_settle(r, call, &snap, e);

    if (rc == 0)
        rc = active_check(r->g, call, &active, &endpoint, e);
    if (rc == 0 && engine_branch_brief(r->g, r->isolated, &b) < 0)
        rc = err_set(e, ESTALE, "the branch was deleted");
    if (rc == 0)
        rc = swap_announce(r, b.checkpoint_name, snap.id, active, endpoint, e);
    neon_snapshot_free(&snap);
    branch_brief_clear(&b);
    return rc;
}

/* The snapshot was only the way from one branch to the other. */
static void discard_snapshot(struct run *r)
{
    struct neon_call call = run_call(r);
    cleanup_err struct err e = {0};

    if (!data_get(r, "snapshot_name"))
        return;
    if (discard_snapshots(r->g, &call, data_get(r, "snapshot_name"), NULL, &e) < 0) {
        log_warn("snapshot %s of a promote may be left in Neon: %s", data_get(r, "snapshot_name"), err_text(&e));
        watch_leftovers(r->g);
    }
}

/* ---- the machine ----------------------------------------------------------------------------------------------------- */

/* Its path in the mount, owned by the caller. */
static char *file_of(const struct branch_brief *b)
{
    return b->path ? str_format("%s/promote", b->path) : NULL;
}

/* The second question was answered before the action began, but for the branch that was active then. */
static int confirmed(struct run *r, const struct branch_brief *b, const char *active, struct err *e)
{
    cleanup_free char *file = file_of(b);
    struct question q = {.checkpoint = r->checkpoint, .control = CONTROL_PROMOTE, .file = file, .text = r->command,
                         .confirm = data_get(r, "confirm"), .asked_at = r->started_at, .active = active};

    return file ? confirm(r->g, &q, &r->would, e) : err_set(e, ENOMEM, "out of memory");
}

static int announce(struct run *r, const struct neon_call *call, struct err *e)
{
    cleanup_free char *active = NULL;
    cleanup_free char *endpoint = NULL;
    cleanup_free char *snapshot = NULL;
    struct branch_brief b = {0};
    bool own = false;
    int rc = active_check(r->g, call, &active, &endpoint, e);

    if (rc == 0 && engine_branch_brief(r->g, r->isolated, &b) < 0)
        rc = err_set(e, ESTALE, "the branch was deleted");
    if (rc == 0)
        rc = confirmed(r, &b, active, e);
    if (rc == 0)
        rc = can_finalize(r, call, &b, active, &own, &snapshot, e);
    if (rc == 0 && !own)
        rc = room_for(r->g, call, 1, 1, b.branch_id, e);
    if (rc == 0)
        rc = own ? announce_finalize(r, &b, snapshot, active, endpoint, e) : announce_snapshot(r, &b, e);
    branch_brief_clear(&b);
    return rc;
}

int promote_dry_run(struct run *r, const struct neon_call *call, char **ret_message, struct err *e)
{
    struct question q = {.checkpoint = r->checkpoint, .control = CONTROL_PROMOTE, .text = "promote", .asked_at = r->started_at};
    cleanup_free char *active = NULL;
    cleanup_free char *snapshot = NULL;
    cleanup_free char *file = NULL;
    cleanup_free char *by = NULL;
    struct branch_brief b = {0};
    bool own = false;
    int rc = active_check(r->g, call, &active, NULL, e);

    if (rc == 0 && (engine_branch_brief(r->g, r->isolated, &b) < 0 || b.state != ISOLATED_READY))
        rc = err_set(e, ESTALE, "the branch isn't there: see its status");
    if (rc == 0)
        rc = can_finalize(r, call, &b, active, &own, &snapshot, e);
    if (rc == 0) {
        file = file_of(&b);
        by = str_format("the isolated branch %s (%s)", b.name, b.branch_id);
        q.file = file;
        q.by = by;
        q.promoted = b.branch_id;
        q.isolated = r->isolated;
        q.makes_branch = !own;
        rc = file && by ? dry_run(r, call, &q, ret_message, e) : err_set(e, ENOMEM, "out of memory");
    }
    branch_brief_clear(&b);
    return rc;
}

static int machine(struct run *r, struct err *e)
{
    struct neon_call call = run_call(r);
    int rc = 0;

    if (!swap_announced(r) && !run_at(r, "snapshot") && !run_at(r, "snapshot taken"))
        rc = announce(r, &call, e);
    if (rc == 0 && run_at(r, "snapshot"))
        rc = take_snapshot(r, &call, e);
    if (rc == 0 && run_at(r, "snapshot taken"))
        rc = restore_snapshot(r, &call, e);
    return rc == 0 ? swap_steps(r, &call, record, e) : rc;
}

static int steps(struct run *r, struct err *e)
{
    int rc = journal_turn(r, e);

    if (rc < 0)
        return rc;
    do {
        rc = machine(r, e);
    } while (rc == -EAGAIN && neon_wait_for(r, e));
    if (rc < 0 && !run_leaves(r) && data_get(r, "restored_name")) /* else the branch that is promoted is nobody's to delete */
        swap_clean_up(r, e);
    if (rc == 0 || !run_leaves(r))
        discard_snapshot(r);
    if (r->doubtful || r->recovered)
        watch_leftovers(r->g);
    if (rc == 0 || !run_leaves(r))
        journal_turn_release(r);
    return rc;
}

void promote_body(struct run *r)
{
    cleanup_err struct err e = {0};
    int rc = steps(r, &e);

    if (rc == 0)
        index_set_branch_uri(r->g->c.index, r->isolated, NULL);
    swap_end(r, rc, &e, "promote");
}
