/* In place is two Neon calls (design.md §5): restore under a unique name without finalizing, verify, finalize, verify, record.
 *
 * A state machine of four steps, each announced in the journal before its effect:
 *   restore    a new root branch is asked for under `restored_name`
 *   restored   it is there (`new_branch`); its operations settle
 *   finalize   it is asked to take the target's place, which is named `replaced_name`, as long as the target is the active branch
 *   finalized  its operations settle; then verified and recorded
 * Taken over at any of them, or when Neon couldn't be asked for a while, it goes on by looking what Neon has. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "actions_i.h"
#include "database/probe.h"
#include "util/cleanup.h"
#include "util/log.h"
#include "util/text.h"

#define ASK_TIMES 3
#define STEPS 5

static int step(struct run *r, const char *name, int nth, struct err *e)
{
    char activity[32];

    snprintf(activity, sizeof(activity), "restoring %d/%d", nth, STEPS);
    return journal_step(r, name, activity, e);
}

/* ---- 1: what is restored over what, by which names ------------------------------------------------------------------- */

int swap_announce(struct run *r, const char *label, const char *snapshot, const char *branch, const char *endpoint, struct err *e)
{
    cleanup_free char *restored = announced_name(r, "", label);
    cleanup_free char *replaced = announced_name(r, "replaced-", label);

    if (!restored || !replaced || data_set(r, "snapshot_id", snapshot) < 0 || data_set(r, "target_branch", branch) < 0 ||
        data_set(r, "branch_before", branch) < 0 || data_set(r, "endpoint_id", endpoint) < 0 ||
        data_set(r, "restored_name", restored) < 0 ||
        data_set(r, "replaced_name", replaced) < 0)
        return err_set(e, ENOMEM, "out of memory");
    return step(r, "restore", 2, e);
}

/* The second question was answered before the action began, but for the branch that was active then. */
static int confirmed(struct run *r, const char *active, struct err *e)
{
    struct question q = {.checkpoint = r->checkpoint, .control = r->kind == ACTION_REPLAY ? CONTROL_REPLAY : CONTROL_RESTORE,
                         .text = r->command, .confirm = data_get(r, "confirm"), .asked_at = r->started_at, .active = active};

    return confirm(r->g, &q, &r->would, e);
}

static int announce(struct run *r, const struct neon_call *call, struct err *e)
{
    cleanup_free char *branch = NULL;
    cleanup_free char *endpoint = NULL;
    struct brief b = {0};
    int rc = active_check(r->g, call, &branch, &endpoint, e);

    if (rc < 0)
        return rc;
    if (engine_brief(r->g, r->checkpoint, &b) < 0)
        return err_set(e, ENOENT, "the checkpoint is gone");
    rc = confirmed(r, branch, e);
    if (rc == 0)
        rc = swap_announce(r, b.name, b.snapshot_id, branch, endpoint, e);
    brief_clear(&b);
    return rc;
}

/* ---- 2: the new branch ------------------------------------------------------------------------------------------------ */

/* Neon knows no such snapshot, or no such target: which, is looked up, since its word for both is 404. */
static int not_found(struct run *r, const struct neon_call *call, struct err *e)
{
    cleanup_err struct err ignored = {0};
    cleanup_free char *branch = NULL;
    struct neon_snapshots all = {0};
    bool listed = false;
    int rc = neon_snapshots_list(r->g->c.neon, call, &all, &ignored);

    for (size_t i = 0; i < all.n; i++)
        listed |= str_equal(all.items[i].id, data_get(r, "snapshot_id"));
    neon_snapshots_free(&all);
    if (rc < 0 || listed) {
        rc = active_check(r->g, call, &branch, NULL, &ignored);
        return rc == -ESTALE ? err_move(e, &ignored) : -e->code;
    }
    watch_missing(r->g, r->checkpoint);
    return err_set(e, ENODATA,
                   "the snapshot %s is gone from Neon (expired or deleted): nothing can be restored from it, nothing was changed",
                   data_get(r, "snapshot_id"));
}

static int ask(struct run *r, const struct neon_call *call, struct neon_restored *ret, struct err *e)
{
    bool unknown = r->doubtful || r->recovered;
    int rc = -EEXIST;

    for (int attempt = 0; attempt <= ASK_TIMES; attempt++) {
        if (unknown || attempt > 0) {
            cleanup_err struct err why = {0};
            int found = neon_later(announced_branch(r->g, call, data_get(r, "restored_name"), &ret->branch, &why));

            r->doubtful = true;
            if (found < 0 && found != -ENOENT)
                err_move(e, &why);
            if (found != -ENOENT)
                return found;
            if (attempt == ASK_TIMES)
                break;
        }
        rc = neon_restore(r->g->c.neon, call, data_get(r, "snapshot_id"), data_get(r, "restored_name"), data_get(r, "target_branch"),
                          ret, &unknown, e);
        neon_said(r->g, rc, e);
        if (rc == 0 || (rc != -EEXIST && !unknown))
            break;
    }
    return rc == -ENOENT ? not_found(r, call, e) : rc;
}

int swap_restore(struct run *r, const struct neon_call *call, struct err *e)
{
    struct neon_restored made = {0};
    int rc = ask(r, call, &made, e);

    if (rc == 0 && (data_set(r, "new_branch", made.branch.id) < 0 || data_set_operations(r, &made.operations) < 0))
        rc = err_set(e, ENOMEM, "out of memory");
    if (rc == 0)
        rc = step(r, "restored", 3, e);
    neon_restored_free(&made);
    return rc;
}

/* ---- 3: is it what was asked for? ---------------------------------------------------------------------------------------- */

int swap_right_snapshot(struct run *r, const struct neon_call *call, struct err *e)
{
    const char *id = data_get(r, "new_branch");
    const char *snapshot = data_get(r, "snapshot_id");
    struct neon_branch b = {0};
    int rc = made_branch(r->g, call, id, &b, e);

    if (rc == -ENOENT)
        rc = err_set(e, EIO, "branch %s, which Neon made for the restore, is gone; nothing was replaced", id);
    else if (rc < 0)
        rc = neon_later(rc);
    else if (!str_equal(b.restored_from, snapshot))
        rc = err_set(e, EIO, "Neon restored branch %s from %s instead of %s; nothing was replaced", id,
                     b.restored_from ? b.restored_from : "nothing", snapshot);
    neon_branch_free(&b);
    return rc;
}

static int verify_restored(struct run *r, const struct neon_call *call, struct err *e)
{
    int rc = operations_settle(r, call, e);

    if (rc == -EIO)
        return err_prefix(e, "nothing was replaced");
    if (rc < 0)
        return neon_later(rc);
    rc = swap_right_snapshot(r, call, e);
    return rc < 0 ? rc : step(r, "finalize", 4, e);
}

/* ---- 4: the swap ------------------------------------------------------------------------------------------------------- */

/* Whether the swap has happened: the restored branch is finalized, or has the target's endpoint. *ret_endpoint, its read-write
 * endpoint or NULL, is owned by the caller; may be NULL. */
static int swapped(struct run *r, const struct neon_call *call, bool *ret, char **ret_endpoint, struct err *e)
{
    struct neon_branch b = {0};
    struct neon_endpoints eps = {0};
    const struct neon_endpoint *rw;
    int rc = made_branch(r->g, call, data_get(r, "new_branch"), &b, e);

    if (rc == 0)
        rc = made_endpoints(r->g, call, data_get(r, "new_branch"), &eps, e);
    if (rc == 0) {
        rw = neon_endpoints_read_write(&eps);
        *ret = (b.restore_status && strcmp(b.restore_status, "restored") != 0) ||
               (rw && data_get(r, "endpoint_id") && str_equal(rw->id, data_get(r, "endpoint_id")));
        if (ret_endpoint)
            *ret_endpoint = rw ? str_dup(rw->id) : NULL;
    }
    neon_branch_free(&b);
    neon_endpoints_free(&eps);
    if (rc == -ENOENT)
        return err_set(e, EIO, "branch %s, which Neon made for the restore, is gone", data_get(r, "new_branch"));
    return neon_later(rc);
}

/* Only the active branch is replaced: while the project was locked, or nobody went on with the action, somebody may have restored something
 * in Neon's console. */
static int target_is_active(struct run *r, const struct neon_call *call, struct err *e)
{
    const char *target = data_get(r, "target_branch");
    cleanup_free char *branch = NULL;
    int rc = active_check(r->g, call, &branch, NULL, e);

    if (rc == 0 && !str_equal(branch, target))
        rc = err_set(e, ESTALE, "the active branch became %s while %s was to be replaced; nothing was replaced", branch, target);
    return rc;
}

static int send_finalize(struct run *r, const struct neon_call *call, struct neon_operations *ret, bool *ret_unknown, struct err *e)
{
    struct guard guard = {.r = r, .call = call, .may = target_is_active};
    struct neon_call guarded = guard_call(&guard);
    int rc = neon_finalize(r->g->c.neon, &guarded, data_get(r, "new_branch"), data_get(r, "replaced_name"), ret, ret_unknown, e);

    if (guard.why.code)
        return neon_later(guard_end(&guard, rc, e));
    return neon_said(r->g, rc, e);
}

/* An answer may have been lost, and finalizing twice is refused: so each time but the first it is looked. */
static int ask_finalize(struct run *r, const struct neon_call *call, struct neon_operations *ret, struct err *e)
{
    bool unknown = r->doubtful || r->recovered;
    int rc = -EIO;

    for (int attempt = 0; attempt <= ASK_TIMES; attempt++) {
        if (unknown) {
            cleanup_err struct err why = {0};
            bool done = false;
            int looked = neon_later(neon_settle_project(r->g->c.neon, call, &why));

            if (looked == 0)
                looked = swapped(r, call, &done, NULL, &why);
            if (looked < 0)
                err_move(e, &why);
            if (looked < 0 || done)
                return looked;
            if (attempt == ASK_TIMES)
                break;
        }
        rc = send_finalize(r, call, ret, &unknown, e);
        if (rc == 0 || !unknown)
            break;
    }
    return rc == -ECONNREFUSED || rc == -EHOSTUNREACH ? -EAGAIN : rc;
}

static int finalize(struct run *r, const struct neon_call *call, struct err *e)
{
    struct neon_operations ops = {0};
    int rc = ask_finalize(r, call, &ops, e);

    if (rc == 0 && data_set_operations(r, &ops) < 0)
        rc = err_set(e, ENOMEM, "out of memory");
    if (rc == 0)
        rc = step(r, "finalized", 5, e);
    neon_operations_free(&ops);
    return rc;
}

/* ---- 5: the same connection string, the new data ------------------------------------------------------------------------- */

/* Whether the database that is there now can be used as the one before. */
static int usable(struct run *r, const struct neon_call *call, const char *endpoint, struct err *e)
{
    const char *before = data_get(r, "endpoint_id");
    cleanup_free char *uri = NULL;
    int rc;

    if (!endpoint || (before && !str_equal(endpoint, before)))
        return err_set(e, EIO,
                       "branch %s is active but its endpoint is %s instead of %s: the connection string changed; see Neon's console",
                       data_get(r, "new_branch"), endpoint ? endpoint : "missing", before);
    rc = neon_later(active_uri(r->g, call, data_get(r, "new_branch"), &uri, e));
    if (rc == 0)
        rc = database_probe(uri, call->cancelled, call->deadline_mono_ms, e);
    return rc;
}

/* Whether another branch has the endpoint by now: somebody restored it in Neon's console when this one was on its way, or right after it.
 * Then this isn't the active branch, and the record doesn't say so. */
static int overtaken(struct run *r, const struct neon_call *call, const char *endpoint, struct err *e)
{
    const char *before = data_get(r, "endpoint_id");
    const char *branch = data_get(r, "new_branch");
    const char *target = data_get(r, "target_branch");
    cleanup_free char *holder = NULL;
    int rc = 0;

    if (before && !str_equal(endpoint, before))
        rc = neon_later(branch_of_endpoint(r->g, call, before, &holder, e));
    if (rc < 0 || !holder || str_equal(holder, branch) || str_equal(holder, target))
        return rc;
    return err_set(e, ESTALE,
                   "Neon put branch %s in the place of %s, but the active one is %s now: somebody changed it from outside meanwhile. The "
                   "record of this mount stays as it was; %s is left in Neon. To go on with the active one: echo 'adopt %s' > "
                   ".control/adopt", branch, target, holder, branch, holder);
}

static int record_restore(struct run *r, const char *endpoint, struct err *e)
{
    return store_restore_done(r->g->c.store, r->action, data_get(r, "new_branch"), data_get(r, "target_branch"),
                              data_get(r, "replaced_name"), endpoint, r->decisions, e);
}

/* What is true in Neon goes into the record, whatever is to be said about it besides: else nothing would work any more. */
static int put_on_record(struct run *r, swap_record_fn *record, const char *endpoint, struct err *e)
{
    int tries = 0;
    int rc;

    do {
        rc = record(r, endpoint, e);
    } while (rc < 0 && journal_again(r, rc, e, &tries));
    if (rc == 0) {
        data_set(r, "branch_after", data_get(r, "new_branch"));
        active_set(r->g, data_get(r, "new_branch"), endpoint);
        engine_reload(r->g, NULL);
    }
    return rc;
}

static int verify_finalized(struct run *r, const struct neon_call *call, swap_record_fn *record, struct err *e)
{
    cleanup_err struct err failed = {0};
    cleanup_err struct err trouble = {0};
    cleanup_free char *endpoint = NULL;
    bool done = false;
    int settled = operations_settle(r, call, &failed);
    int rc = settled == -EIO ? 0 : neon_later(settled);
    int works;

    if (rc < 0) {
        err_move(e, &failed);
        return rc;
    }
    if ((rc = swapped(r, call, &done, &endpoint, e)) < 0)
        return rc;
    if (!done && settled < 0)
        return err_move(e, &failed);
    if (!done)
        return err_set(e, EIO, "Neon says the restore is over, but %s was not replaced by %s", data_get(r, "target_branch"),
                       data_get(r, "new_branch"));
    if ((rc = overtaken(r, call, endpoint, e)) < 0)
        return rc;
    works = usable(r, call, endpoint, &trouble);
    if (works == -EAGAIN || (works < 0 && run_leaves(r))) {
        err_move(e, &trouble);
        return works;
    }
    if (r->doubtful || r->recovered)
        rc = neon_later(discard_branches(r->g, call, data_get(r, "restored_name"), data_get(r, "new_branch"), e));
    if (rc == 0)
        rc = put_on_record(r, record, endpoint, e);
    if (rc == 0 && works < 0) {
        err_move(e, &trouble);
        rc = err_prefix(e, "the database was replaced, but it can't be used yet");
    }
    return rc;
}

/* ---- the machine --------------------------------------------------------------------------------------------------------- */

/* Nothing was replaced: the branch that was made for it is of no use, and counts as a root branch. */
void swap_clean_up(struct run *r, struct err *e)
{
    struct neon_call call = run_call(r);
    cleanup_err struct err why = {0};

    if (!r->doubtful && !data_get(r, "new_branch"))
        return;
    if (discard_branches(r->g, &call, data_get(r, "restored_name"), NULL, &why) == 0)
        return;
    log_warn("branch %s, made for a restore that failed, may be left in Neon: %s", data_get(r, "restored_name"), err_text(&why));
    err_set(e, e->code, "%s; branch %s, made for it, may be left in Neon: delete it there", err_text(e), data_get(r, "restored_name"));
    watch_leftovers(r->g);
}

bool swap_announced(const struct run *r)
{
    return run_at(r, "restore") || run_at(r, "restored") || run_at(r, "finalize") || run_at(r, "finalized");
}

int swap_steps(struct run *r, const struct neon_call *call, swap_record_fn *record, struct err *e)
{
    int rc = 0;

    if (run_at(r, "restore"))
        rc = swap_restore(r, call, e);
    if (rc == 0 && run_at(r, "restored"))
        rc = verify_restored(r, call, e);
    if (rc == 0 && run_at(r, "finalize"))
        rc = finalize(r, call, e);
    if (rc == 0 && run_at(r, "finalized"))
        rc = verify_finalized(r, call, record, e);
    return rc;
}

static int machine(struct run *r, struct err *e)
{
    struct neon_call call = run_call(r);
    int rc = 0;

    if (!swap_announced(r)) {
        if (atomic_load(&r->cancelled)) /* a replay; later its restore has to be finished */
            return err_set(e, ECANCELED, CANCELLED_UNDONE);
        rc = step(r, "check", 1, e);
        if (rc == 0)
            rc = announce(r, &call, e);
    }
    return rc == 0 ? swap_steps(r, &call, record_restore, e) : rc;
}

int restore_steps(struct run *r, struct err *e)
{
    int rc = journal_turn(r, e);

    if (rc < 0)
        return rc;
    do {
        rc = machine(r, e);
    } while (rc == -EAGAIN && neon_wait_for(r, e));
    if (rc < 0 && !run_leaves(r))
        swap_clean_up(r, e);
    if (r->doubtful || r->recovered)
        watch_leftovers(r->g);
    if (rc == 0 || !run_leaves(r))
        journal_turn_release(r);
    return rc;
}

void swap_end(struct run *r, int rc, const struct err *why, const char *what)
{
    cleanup_free char *outcome = NULL;

    if (rc < 0 && run_leaves(r))
        return;
    if (rc == 0) {
        journal_settle(r, ACTION_DONE, 0, NULL, NULL, false);
        return;
    }
    if (why->code != ECANCELED) /* else nothing was done, and the status is as it was */
        outcome = str_format("failed %s: %s", what, err_text(why));
    journal_settle(r, ACTION_FAILED, why->code, err_text(why), outcome, false);
}

void restore_body(struct run *r)
{
    cleanup_err struct err e = {0};

    swap_end(r, restore_steps(r, &e), &e, "restore");
}
