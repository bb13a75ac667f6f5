/* Undo: back to what the last restore in place replaced (design.md §5). It is a restore like any other, of a snapshot that is taken of
 * the replaced branch for the purpose and deleted afterwards.
 *
 * Its steps, each announced in the journal before its effect:
 *   snapshot   a snapshot of the replaced branch is asked for under `snapshot_name`
 *   settle     it is there (`snapshot_id`); its operations settle
 *   restore, restored, finalize, finalized     as in restore.c; then recorded
 *   tidy       the snapshot is deleted; if that fails it is swept later (watch.c) */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "actions_i.h"
#include "util/cleanup.h"
#include "util/log.h"
#include "util/text.h"

/* ---- 1: what is undone, and is there room for it? ----------------------------------------------------------------------- */

static int gone(struct err *e, const char *branch, const char *uid)
{
    return err_set(e, ENODATA,
                   "branch %s, which %s replaced, is gone from Neon: there is nothing to go back to, nothing was changed. See "
                   ".control/actions/%s.json", branch, uid, uid);
}

/* Whether Neon still has the replaced branch. */
static int still_there(struct run *r, const struct neon_call *call, const char *branch, const char *uid, struct err *e)
{
    struct neon_branches all = {0};
    const struct neon_branch *b;
    int rc = neon_said(r->g, neon_branches_list(r->g->c.neon, call, &all, e), e);

    if (rc < 0)
        return rc;
    b = neon_branches_by_id(&all, branch);
    if (!b)
        rc = gone(e, branch, uid);
    else if (b->parent_id)
        rc = err_set(e, ESTALE, "branch %s, which %s replaced, is a child of %s now: Neon takes no snapshot of it", branch, uid,
                     b->parent_id);
    neon_branches_free(&all);
    return rc;
}

static int begin(struct run *r, const struct neon_call *call, struct err *e)
{
    cleanup_free char *active = NULL;
    cleanup_free char *name = NULL;
    struct store_undo u = {0};
    int rc = active_check(r->g, call, &active, NULL, e);

    if (rc == 0)
        rc = store_undo_next(r->g->c.store, r->g->line_id, &u, e);
    if (rc == 0)
        rc = still_there(r, call, u.old_branch, u.uid, e);
    if (rc == 0)
        rc = room_for(r->g, call, 1, 1, u.old_branch, e);
    name = announced_name(r, "undo-", u.name ? u.name : "");
    if (rc == 0 && (!name || data_set_int(r, "undoes", u.action) < 0 || data_set_int(r, "undoes_checkpoint", u.checkpoint) < 0 ||
                    data_set(r, "undoes_action", u.uid) < 0 || data_set(r, "undoes_name", u.name) < 0 ||
                    data_set(r, "source_branch", u.old_branch) < 0 || data_set(r, "snapshot_name", name) < 0))
        rc = err_set(e, ENOMEM, "out of memory");
    if (rc == 0)
        rc = journal_step(r, "snapshot", NULL, e);
    store_undo_free(&u);
    return rc;
}

/* ---- 2: its snapshot ---------------------------------------------------------------------------------------------------- */

static int take(struct run *r, const struct neon_call *call, struct err *e)
{
    struct neon_snapshot snap = {0};
    struct neon_operations ops = {0};
    int rc = snapshot_ask(r, call, data_get(r, "source_branch"), r->recovered, &snap, &ops, e);

    if (rc == -ENOENT)
        rc = gone(e, data_get(r, "source_branch"), data_get(r, "undoes_action"));
    if (rc == 0 && (data_set(r, "snapshot_id", snap.id) < 0 || data_set_operations(r, &ops) < 0))
        rc = err_set(e, ENOMEM, "out of memory");
    if (rc == 0)
        rc = journal_step(r, "settle", NULL, e);
    neon_snapshot_free(&snap);
    neon_operations_free(&ops);
    return rc;
}

/* Then it takes the place of the active branch. */
static int announce(struct run *r, const struct neon_call *call, struct err *e)
{
    cleanup_free char *branch = NULL;
    cleanup_free char *endpoint = NULL;
    cleanup_free char *label = str_format("undo-%s", data_get(r, "undoes_name") ? data_get(r, "undoes_name") : "");
    struct neon_snapshot snap = {0};
    int rc = snapshot_settle(r, call, &snap, e);

    if (rc == -EIO)
        return err_prefix(e, "nothing was replaced");
    if (rc == 0)
        rc = neon_later(active_check(r->g, call, &branch, &endpoint, e));
    if (rc == 0 && !label)
        rc = err_set(e, ENOMEM, "out of memory");
    if (rc == 0)
        rc = swap_announce(r, label, snap.id, branch, endpoint, e);
    neon_snapshot_free(&snap);
    return rc;
}

/* ---- 3: the record, and the end ------------------------------------------------------------------------------------------ */

static int record(struct run *r, const char *endpoint, struct err *e)
{
    return store_undo_done(r->g->c.store, r->action, json_integer_value(json_object_get(r->data, "undoes")), data_get(r, "new_branch"),
                           data_get(r, "target_branch"), data_get(r, "replaced_name"), endpoint, e);
}

/* The snapshot has done its service, or never will. */
static void discard(struct run *r, const struct neon_call *call)
{
    cleanup_err struct err e = {0};

    if (!data_get(r, "snapshot_name") || discard_snapshots(r->g, call, data_get(r, "snapshot_name"), NULL, &e) == 0)
        return;
    log_warn("the snapshot %s, taken for an undo, is left in Neon for now: %s", data_get(r, "snapshot_name"), err_text(&e));
    watch_leftovers(r->g);
}

static int machine(struct run *r, const struct neon_call *call, struct err *e)
{
    int rc = 0;

    if (!run_at(r, "snapshot") && !run_at(r, "settle") && !run_at(r, "tidy") && !swap_announced(r))
        rc = begin(r, call, e);
    if (rc == 0 && run_at(r, "snapshot"))
        rc = take(r, call, e);
    if (rc == 0 && run_at(r, "settle"))
        rc = announce(r, call, e);
    if (rc == 0 && swap_announced(r)) {
        rc = swap_steps(r, call, record, e);
        if (rc == 0)
            rc = journal_step(r, "tidy", NULL, e);
    }
    return rc;
}

static int steps(struct run *r, struct err *e)
{
    struct neon_call call = run_call(r);
    int rc = journal_turn(r, e);

    if (rc < 0)
        return rc;
    do {
        call = run_call(r);
        rc = machine(r, &call, e);
    } while (rc == -EAGAIN && neon_wait_for(r, e));
    if (rc < 0 && run_leaves(r))
        return rc;
    call = run_call(r);
    if (rc < 0 && data_get(r, "restored_name"))
        swap_clean_up(r, e);
    if (rc == -EDQUOT && swap_announced(r))
        room_name_branch(r->g, &call, data_get(r, "source_branch"), e);
    else if (rc == -EDQUOT && run_at(r, "snapshot"))
        room_name_snapshot(r->g, e);
    discard(r, &call);
    if (r->doubtful || r->recovered)
        watch_leftovers(r->g);
    return rc;
}

static char *told(const struct run *r)
{
    const char *name = data_get(r, "undoes_name");

    return str_format("the restore of %s (%s) is undone: the active branch is %s, and %s, which it replaced, stays in Neon as %s",
                      name ? name : "another database", data_get(r, "undoes_action"), data_get(r, "new_branch"),
                      data_get(r, "target_branch"), data_get(r, "replaced_name"));
}

void undo_body(struct run *r)
{
    cleanup_err struct err e = {0};
    cleanup_free char *message = NULL;
    int rc = steps(r, &e);

    if (rc < 0 && run_leaves(r))
        return;
    if (rc == 0)
        message = told(r);
    journal_settle(r, rc < 0 ? ACTION_FAILED : ACTION_DONE, rc < 0 ? e.code : 0, rc < 0 ? err_text(&e) : message, NULL, false);
}
