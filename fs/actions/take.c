/* Taking a checkpoint: mkdir journals it, this asks Neon for the snapshot and waits until it has settled (design.md §4). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "actions_i.h"
#include "formats/render.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/log.h"
#include "util/text.h"

static int request(struct run *r, const struct neon_call *call, struct err *e)
{
    struct neon_snapshot snap = {0};
    struct neon_operations ops = {0};
    int rc = snapshot_ask(r, call, data_get(r, "branch_id"), false, &snap, &ops, e);

    if (rc == -EDQUOT && retention_makes_room(r))
        rc = snapshot_ask(r, call, data_get(r, "branch_id"), false, &snap, &ops, e);
    if (rc == 0 && (data_set(r, "snapshot_id", snap.id) < 0 || data_set_operations(r, &ops) < 0))
        rc = err_set(e, ENOMEM, "out of memory");
    if (rc == 0)
        rc = journal_step(r, "settle", NULL, e);
    neon_snapshot_free(&snap);
    neon_operations_free(&ops);
    return rc;
}

int snapshot_render(const struct store_snapshot *s, struct buf *b)
{
    struct snapshot_facts f = {
        .project_id = s->project_id, .branch_id = s->branch_id, .id = s->id, .name = s->name, .lsn = s->lsn,
        .requested_at = s->requested_at, .captured_at = s->captured_at, .expires_at = s->expires_at,
        .full_size = s->full_size, .diff_size = s->diff_size,
    };

    return render_snapshot_json(b, &f);
}

static int render_files(struct run *r, const struct store_snapshot *s, struct buf *snapshot_json, struct buf *checkpoint_json)
{
    struct brief b = {0};
    struct checkpoint_facts cf;
    int rc = engine_brief(r->g, r->checkpoint, &b);

    if (rc < 0)
        return rc;
    cf = (struct checkpoint_facts){.id = b.uid, .name = b.name, .created_at = b.created_at};
    rc = snapshot_render(s, snapshot_json);
    if (rc == 0)
        rc = render_checkpoint_json(checkpoint_json, &cf, NULL);
    brief_clear(&b);
    return rc;
}

/* The snapshot is there: the pair's database half is recorded. */
static int settled(struct run *r, const struct neon_snapshot *snap, struct err *e)
{
    cleanup_buf struct buf snapshot_json = {0};
    cleanup_buf struct buf checkpoint_json = {0};
    cleanup_free char *doc = NULL;
    struct store_snapshot s = {
        .id = snap->id,
        .name = snap->name,
        .project_id = (char *)(uintptr_t)r->g->c.project_id,
        .branch_id = (char *)(uintptr_t)data_get(r, "branch_id"),
        .requested_at = json_integer_value(json_object_get(r->data, "requested_at")),
        .captured_at = snap->created_at_ns,
        .lsn = snap->lsn,
        .expires_at = snap->expires_at_ns,
        .full_size = snap->full_size,
        .diff_size = snap->diff_size,
    };
    int tries = 0;
    int rc;

    if (s.captured_at < s.requested_at)
        s.captured_at = s.requested_at; /* Neon's times are whole seconds; lag_ms isn't negative */
    rc = render_files(r, &s, &snapshot_json, &checkpoint_json);
    if (rc < 0)
        return err_set(e, -rc, "snapshot.json can't be made");
    doc = journal_doc(r, "done", 0, NULL);
    do {
        rc = store_take_settled(r->g->c.store, r->action, &s, &snapshot_json, &checkpoint_json, doc, e);
    } while (rc < 0 && journal_again(r, rc, e, &tries));
    return journal_was_done(r, rc, tries, e);
}

static int announce(struct run *r, const char *branch, struct err *e)
{
    struct brief b = {0};
    cleanup_free char *name = NULL;
    int rc = engine_brief(r->g, r->checkpoint, &b);

    if (rc < 0)
        return err_set(e, ENOENT, "the checkpoint is gone");
    name = announced_name(r, "", b.name);
    brief_clear(&b);
    if (!name || data_set(r, "snapshot_name", name) < 0 || data_set(r, "branch_id", branch) < 0 ||
        data_set(r, "branch_before", branch) < 0 || data_set(r, "branch_after", branch) < 0 ||
        data_set_int(r, "requested_at", clock_now()) < 0)
        return err_set(e, ENOMEM, "out of memory");
    return journal_step(r, "request", NULL, e);
}

/* The active branch, or the isolated one that it is a take of, unless that was promoted meanwhile. */
static int which_branch(struct run *r, const struct neon_call *call, char **ret, struct err *e)
{
    struct brief b = {0};
    int64_t isolated;
    int rc;

    engine_refresh(r->g, r->checkpoint, 0);
    rc = engine_brief(r->g, r->checkpoint, &b);
    if (rc < 0)
        return err_set(e, ENOENT, "the checkpoint is gone");
    isolated = b.isolated;
    brief_clear(&b);
    return isolated ? branch_connection(r->g, call, isolated, ret, NULL, e) : active_check(r->g, call, ret, NULL, e);
}

static int begin(struct run *r, const struct neon_call *call, struct err *e)
{
    cleanup_free char *branch = NULL;
    int rc = journal_turn(r, e);

    if (rc == 0)
        rc = which_branch(r, call, &branch, e);
    return rc < 0 ? rc : announce(r, branch, e);
}

/* The mount that began the take died. Whoever wrote has lost its handle, so nothing is asked for again: a snapshot that was made
 * is kept, else the take has failed. */
static int find_left(struct run *r, const struct neon_call *call, struct err *e)
{
    struct neon_snapshot snap = {0};
    int rc = snapshot_look(r, call, &snap, e);

    if (rc == -ENOENT)
        rc = err_set(e, EINTR, "the mount ended and no snapshot was made; write state.json again, or rmdir");
    else if (rc == 0)
        rc = data_set(r, "snapshot_id", snap.id) < 0 ? err_set(e, ENOMEM, "out of memory") : journal_step(r, "settle", NULL, e);
    neon_snapshot_free(&snap);
    return rc;
}

static int settle(struct run *r, const struct neon_call *call, struct err *e)
{
    struct neon_snapshot snap = {0};
    int rc = snapshot_settle(r, call, &snap, e);

    if (rc == 0)
        rc = settled(r, &snap, e);
    neon_snapshot_free(&snap);
    return rc;
}

static int steps(struct run *r, struct err *e)
{
    struct neon_call call = run_call(r);
    int rc = 0;

    if (!run_at(r, "request") && !run_at(r, "settle"))
        rc = r->recovered ? err_set(e, EINTR, "the mount ended before the snapshot was asked for; write state.json again, or rmdir")
                          : begin(r, &call, e);
    if (rc == 0 && run_at(r, "request"))
        rc = r->recovered ? find_left(r, &call, e) : request(r, &call, e);
    if (rc == 0 && run_at(r, "settle"))
        rc = settle(r, &call, e);
    return rc;
}

static void failed(struct run *r, struct err *why)
{
    struct neon_call call = run_call(r);
    cleanup_err struct err e = {0};
    cleanup_free char *doc = NULL;
    int tries = 0;
    int rc;

    if (why->code == EDQUOT)
        room_name_snapshot(r->g, why);
    /* While it has the turn, and only as long as the store says that the take is still open: a snapshot may be half of a pair. */
    if ((r->doubtful || run_at(r, "settle")) &&
        (!journal_owns(r) || discard_snapshots(r->g, &call, data_get(r, "snapshot_name"), NULL, &e) < 0)) {
        log_warn("the snapshot of a failed take, %s, may be left in Neon: %s", data_get(r, "snapshot_name"), err_text(&e));
        watch_leftovers(r->g);
    }
    doc = journal_doc(r, "failed", why->code, err_text(why)); /* with what was taken back */
    do {
        rc = store_take_failed(r->g->c.store, r->checkpoint, r->action, why->code, err_text(why), doc, &e);
    } while (rc < 0 && journal_settles_again(r, rc, &e, &tries));
    if (rc < 0 && rc != -EALREADY)
        log_error("take %s can't be settled as failed now, it will be looked at again: %s", r->uid, err_text(&e));
    engine_take_code(r->g, r->checkpoint, why->code);
    engine_refresh(r->g, r->checkpoint, r->action);
    run_end(r, why->code, err_text(why));
}

void take_body(struct run *r)
{
    cleanup_err struct err e = {0};
    int rc;

    do {
        rc = steps(r, &e);
    } while (rc == -EAGAIN && neon_wait_for(r, &e));
    if (r->doubtful || r->recovered)
        watch_leftovers(r->g);
    if (rc < 0 && run_leaves(r))
        return; /* handed over by the journal */
    if (rc < 0) {
        failed(r, &e);
        return;
    }
    engine_refresh(r->g, r->checkpoint, r->action);
    run_end(r, 0, NULL);
}
