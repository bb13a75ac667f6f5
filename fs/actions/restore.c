/* In place is two Neon calls (design.md §5): restore under a unique name without finalizing, verify, finalize, verify, record.
 *
 * A state machine of four steps, each announced in the journal before its effect:
 *   restore    a new root branch is asked for under `restored_name`
 *   restored   it is there (`new_branch`); its operations settle
 *   finalize   it is asked to take the target's place, which is named `replaced_name`
 *   finalized  its operations settle; then verified and recorded
 * Taken over at any of them, it goes on by looking what Neon has. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "actions_i.h"
#include "database/probe.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/log.h"
#include "util/text.h"

#define LABEL_MAX 60
#define LOOK_TIMES 5
#define LOOK_MS 400
#define STEPS 5

static int step(struct run *r, const char *name, int nth, struct err *e)
{
    char activity[32];

    snprintf(activity, sizeof(activity), "restoring %d/%d", nth, STEPS);
    return journal_step(r, name, activity, e);
}

static bool at(const struct run *r, const char *name)
{
    return strcmp(r->step, name) == 0;
}

/* ---- 1: what is restored over what, by which names ------------------------------------------------------------------- */

static int announce(struct run *r, const struct neon_call *call, struct err *e)
{
    cleanup_free char *branch = NULL;
    cleanup_free char *endpoint = NULL;
    cleanup_free char *label = NULL;
    cleanup_free char *restored = NULL;
    cleanup_free char *replaced = NULL;
    struct brief b = {0};
    int rc = active_check(r->g, call, &branch, &endpoint, e);

    if (rc < 0)
        return rc;
    if (engine_brief(r->g, r->checkpoint, &b) < 0)
        return err_set(e, ENOENT, "the checkpoint is gone");
    label = ascii_label(b.name, LABEL_MAX);
    restored = str_format("%s-%s", label ? label : "", r->uid);
    replaced = str_format("replaced-%s-%s", label ? label : "", r->uid);
    if (!label || !restored || !replaced || data_set(r, "snapshot_id", b.snapshot_id) < 0 || data_set(r, "target_branch", branch) < 0 ||
        data_set(r, "endpoint_id", endpoint) < 0 || data_set(r, "restored_name", restored) < 0 || data_set(r, "replaced_name", replaced) < 0)
        rc = err_set(e, ENOMEM, "out of memory");
    brief_clear(&b);
    return rc < 0 ? rc : step(r, "restore", 2, e);
}

/* ---- 2: the new branch ------------------------------------------------------------------------------------------------ */

/* Looks for the branch that was announced. 0 found, -ENOENT surely not made. */
static int look_restored(struct run *r, const struct neon_call *call, struct neon_branch *ret, struct err *e)
{
    int rc = neon_settle_project(r->g->c.neon, call, e);

    for (int i = 0; rc == 0 && i < LOOK_TIMES; i++) {
        rc = neon_branch_find(r->g->c.neon, call, data_get(r, "restored_name"), ret, e);
        if (rc != -ENOENT)
            return rc;
        rc = 0;
        clock_sleep_ms(LOOK_MS);
    }
    return rc < 0 ? rc : -ENOENT;
}

static int ask_restore(struct run *r, const struct neon_call *call, struct neon_restored *ret, struct err *e)
{
    bool unknown = false;
    int rc = -ENOENT;

    for (int attempt = 0; attempt < 3; attempt++) {
        if (attempt > 0 || r->recovered) {
            rc = look_restored(r, call, &ret->branch, e);
            if (rc != -ENOENT)
                return rc;
        }
        rc = neon_restore(r->g->c.neon, call, data_get(r, "snapshot_id"), data_get(r, "restored_name"), data_get(r, "target_branch"),
                          ret, &unknown, e);
        neon_said(r->g, rc, e);
        if (rc == 0 || (rc != -EEXIST && !unknown))
            return rc;
    }
    return rc;
}

static int restore(struct run *r, const struct neon_call *call, struct err *e)
{
    struct neon_restored made = {0};
    int rc = ask_restore(r, call, &made, e);

    if (rc == -ENOENT)
        err_prefix(e, "the snapshot is gone from Neon (expired or deleted)");
    if (rc == 0 && (data_set(r, "new_branch", made.branch.id) < 0 || data_set_operations(r, &made.operations) < 0))
        rc = err_set(e, ENOMEM, "out of memory");
    if (rc == 0)
        rc = step(r, "restored", 3, e);
    neon_restored_free(&made);
    return rc;
}

static int settle(struct run *r, const struct neon_call *call, struct err *e)
{
    json_t *list = json_object_get(r->data, "operations");
    size_t n = json_array_size(list);
    cleanup_free const char **ids = calloc(n + 1, sizeof(*ids));

    if (!ids)
        return err_set(e, ENOMEM, "out of memory");
    for (size_t i = 0; i < n; i++)
        ids[i] = json_string_value(json_array_get(list, i));
    return n ? neon_settle(r->g->c.neon, call, ids, n, NULL, NULL, e) : neon_settle_project(r->g->c.neon, call, e);
}

/* ---- 3: is it what was asked for, and is the target still the active branch? -------------------------------------------- */

static int verify_restored(struct run *r, const struct neon_call *call, struct err *e)
{
    cleanup_free char *branch = NULL;
    struct neon_branch b = {0};
    int rc = neon_branch_get(r->g->c.neon, call, data_get(r, "new_branch"), &b, e);

    if (rc == 0 && !str_equal(b.restored_from, data_get(r, "snapshot_id")))
        rc = err_set(e, EIO, "Neon restored branch %s from %s instead of %s; nothing was replaced", data_get(r, "new_branch"),
                     b.restored_from ? b.restored_from : "nothing", data_get(r, "snapshot_id"));
    if (rc == 0)
        rc = active_check(r->g, call, &branch, NULL, e);
    if (rc == 0 && !str_equal(branch, data_get(r, "target_branch")))
        rc = err_set(e, ESTALE, "the active branch became %s while %s was to be replaced; nothing was replaced", branch,
                     data_get(r, "target_branch"));
    neon_branch_free(&b);
    return rc < 0 ? rc : step(r, "finalize", 4, e);
}

/* ---- 4: the swap ------------------------------------------------------------------------------------------------------- */

/* Whether the swap has happened: the restored branch is finalized, or has the target's endpoint. */
static int swapped(struct run *r, const struct neon_call *call, bool *ret, struct err *e)
{
    struct neon_branch b = {0};
    struct neon_endpoints eps = {0};
    const struct neon_endpoint *rw;
    int rc = neon_branch_get(r->g->c.neon, call, data_get(r, "new_branch"), &b, e);

    if (rc == 0)
        rc = neon_endpoints_list(r->g->c.neon, call, data_get(r, "new_branch"), &eps, e);
    if (rc == 0) {
        rw = neon_endpoints_read_write(&eps);
        *ret = (b.restore_status && strcmp(b.restore_status, "restored") != 0) ||
               (rw && data_get(r, "endpoint_id") && str_equal(rw->id, data_get(r, "endpoint_id")));
    }
    neon_branch_free(&b);
    neon_endpoints_free(&eps);
    return rc;
}

static int finalize(struct run *r, const struct neon_call *call, struct err *e)
{
    struct neon_operations ops = {0};
    bool unknown = r->recovered;
    bool done = false;
    int rc = 0;

    for (int attempt = 0; attempt < 3; attempt++) {
        if (unknown) { /* an answer may have been lost: finalizing twice is refused, so look first */
            rc = neon_settle_project(r->g->c.neon, call, e);
            if (rc == 0)
                rc = swapped(r, call, &done, e);
            if (rc < 0 || done)
                break;
        }
        rc = neon_finalize(r->g->c.neon, call, data_get(r, "new_branch"), data_get(r, "replaced_name"), &ops, &unknown, e);
        neon_said(r->g, rc, e);
        if (rc == 0 || !unknown)
            break;
    }
    if (rc == 0 && data_set_operations(r, &ops) < 0)
        rc = err_set(e, ENOMEM, "out of memory");
    if (rc == 0)
        rc = step(r, "finalized", 5, e);
    neon_operations_free(&ops);
    return rc;
}

/* ---- 5: the same connection string, the new data ------------------------------------------------------------------------- */

static int verify_finalized(struct run *r, const struct neon_call *call, char **ret_endpoint, struct err *e)
{
    cleanup_free char *uri = NULL;
    struct neon_endpoints eps = {0};
    const struct neon_endpoint *rw;
    bool done = false;
    int rc = swapped(r, call, &done, e);

    if (rc == 0 && !done)
        rc = err_set(e, EIO, "Neon says the restore is over, but %s was not replaced by %s", data_get(r, "target_branch"), data_get(r, "new_branch"));
    if (rc == 0)
        rc = neon_endpoints_list(r->g->c.neon, call, data_get(r, "new_branch"), &eps, e);
    rw = rc == 0 ? neon_endpoints_read_write(&eps) : NULL;
    if (rc == 0 && (!rw || (data_get(r, "endpoint_id") && !str_equal(rw->id, data_get(r, "endpoint_id")))))
        rc = err_set(e, EIO, "branch %s is active but its endpoint is %s instead of %s: the connection string changed; see Neon's console",
                     data_get(r, "new_branch"), rw ? rw->id : "missing", data_get(r, "endpoint_id"));
    if (rc == 0)
        *ret_endpoint = str_dup(rw->id);
    neon_endpoints_free(&eps);
    if (rc == 0)
        rc = active_uri(r->g, call, data_get(r, "new_branch"), &uri, e);
    if (rc == 0)
        rc = database_probe(uri, call->cancelled, call->deadline_mono_ms, e);
    return rc;
}

static int record(struct run *r, const struct neon_call *call, struct err *e)
{
    cleanup_free char *endpoint = NULL;
    int rc = verify_finalized(r, call, &endpoint, e);

    while (rc == 0) {
        rc = store_restore_done(r->g->c.store, r->action, data_get(r, "new_branch"), data_get(r, "target_branch"),
                                data_get(r, "replaced_name"), endpoint, r->decisions, e);
        if (rc == 0)
            break;
        if (!store_away(-rc) || atomic_load(&r->g->stopping))
            return rc;
        clock_sleep_ms(LOOK_MS); /* done in Neon: the record must follow */
        rc = 0;
    }
    if (rc == 0) {
        active_set(r->g, data_get(r, "new_branch"), endpoint);
        engine_refresh_line(r->g);
    }
    return rc;
}

/* ---- the machine --------------------------------------------------------------------------------------------------------- */

/* Nothing was replaced: the branch that was made for it is of no use, and counts as a root branch. */
static void clean_up(struct run *r)
{
    struct neon_call call = engine_call(r->g);
    struct neon_operations ops = {0};
    struct neon_branch b = {0};
    cleanup_err struct err e = {0};
    int rc;

    if (!data_get(r, "restored_name"))
        return;
    rc = neon_branch_find(r->g->c.neon, &call, data_get(r, "restored_name"), &b, &e);
    if (rc == 0 && !b.is_default && str_equal(b.restore_status, "restored"))
        rc = neon_branch_delete(r->g->c.neon, &call, b.id, &ops, NULL, &e);
    if (rc == 0)
        rc = neon_settle_operations(r->g->c.neon, &call, &ops, NULL, NULL, &e);
    if (rc < 0 && rc != -ENOENT)
        log_warn("branch %s, made for a restore that failed, stays in Neon: %s", data_get(r, "restored_name"), err_text(&e));
    neon_branch_free(&b);
    neon_operations_free(&ops);
}

static bool known_step(const struct run *r)
{
    return at(r, "restore") || at(r, "restored") || at(r, "finalize") || at(r, "finalized");
}

static int machine(struct run *r, struct err *e)
{
    struct neon_call call = engine_call(r->g);
    int rc = 0;

    if (!known_step(r)) {
        rc = step(r, "check", 1, e);
        if (rc == 0)
            rc = announce(r, &call, e);
    }
    if (rc == 0 && at(r, "restore"))
        rc = restore(r, &call, e);
    if (rc == 0 && at(r, "restored")) {
        rc = settle(r, &call, e);
        if (rc == 0)
            rc = verify_restored(r, &call, e);
    }
    if (rc == 0 && at(r, "finalize"))
        rc = finalize(r, &call, e);
    if (rc == 0 && at(r, "finalized")) {
        rc = settle(r, &call, e);
        if (rc == 0)
            rc = record(r, &call, e);
    }
    return rc;
}

int restore_steps(struct run *r, struct err *e)
{
    int rc = journal_turn(r, e);

    if (rc < 0)
        return rc;
    rc = machine(r, e);
    if (rc < 0 && !atomic_load(&r->g->stopping))
        clean_up(r);
    if (rc == 0 || !atomic_load(&r->g->stopping))
        journal_turn_release(r);
    return rc;
}

void restore_body(struct run *r)
{
    cleanup_err struct err e = {0};
    cleanup_err struct err ignored = {0};
    cleanup_free char *outcome = NULL;
    int rc = restore_steps(r, &e);

    if (rc < 0 && atomic_load(&r->g->stopping))
        return;
    if (rc == 0) {
        journal_finish(r, ACTION_DONE, 0, NULL, NULL, false, &ignored);
        run_end(r, 0, NULL);
        return;
    }
    outcome = str_format("failed restore: %s", err_text(&e));
    journal_finish(r, ACTION_FAILED, e.code, err_text(&e), outcome, false, &ignored);
    run_end(r, e.code, err_text(&e));
}
