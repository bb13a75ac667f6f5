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

#define ASK_TIMES 3

/* Looks for the snapshot that was announced. 0 found, -ENOENT surely not made. */
static int look(struct run *r, const struct neon_call *call, struct neon_snapshot *ret, struct err *e)
{
    return neon_later(announced_snapshot(r->g, call, data_get(r, "snapshot_name"), false, ret, e));
}

/* Asks for the snapshot; a lost answer is looked for, and asked for again under the same name only when nothing was made. */
static int ask(struct run *r, const struct neon_call *call, struct neon_snapshot *ret, struct neon_operations *ret_ops, struct err *e)
{
    bool unknown = r->doubtful;
    int rc = -EEXIST;

    for (int attempt = 0; attempt <= ASK_TIMES; attempt++) {
        if (unknown || attempt > 0) {
            cleanup_err struct err why = {0};
            int found = look(r, call, ret, &why);

            r->doubtful = true;
            if (found < 0 && found != -ENOENT)
                err_move(e, &why);
            if (found != -ENOENT)
                return found;
            if (attempt == ASK_TIMES)
                break;
        }
        rc = neon_snapshot_create(r->g->c.neon, call, data_get(r, "branch_id"), data_get(r, "snapshot_name"), 0, ret, ret_ops, &unknown, e);
        neon_said(r->g, rc, e);
        if (rc == 0 || (rc != -EEXIST && !unknown))
            break;
    }
    return rc;
}

static int request(struct run *r, const struct neon_call *call, struct err *e)
{
    struct neon_snapshot snap = {0};
    struct neon_operations ops = {0};
    int rc = ask(r, call, &snap, &ops, e);

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
    return rc;
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
        data_set_int(r, "requested_at", clock_now()) < 0)
        return err_set(e, ENOMEM, "out of memory");
    return journal_step(r, "request", NULL, e);
}

static int begin(struct run *r, const struct neon_call *call, struct err *e)
{
    cleanup_free char *branch = NULL;
    int rc = journal_turn(r, e);

    if (rc == 0)
        rc = active_check(r->g, call, &branch, NULL, e);
    return rc < 0 ? rc : announce(r, branch, e);
}

/* The mount that began the take died. Whoever wrote has lost its handle, so nothing is asked for again: a snapshot that was made
 * is kept, else the take has failed. */
static int find_left(struct run *r, const struct neon_call *call, struct err *e)
{
    struct neon_snapshot snap = {0};
    int rc = look(r, call, &snap, e);

    if (rc == -ENOENT)
        rc = err_set(e, EINTR, "the mount ended and no snapshot was made; write state.json again, or rmdir");
    else if (rc == 0)
        rc = data_set(r, "snapshot_id", snap.id) < 0 ? err_set(e, ENOMEM, "out of memory") : journal_step(r, "settle", NULL, e);
    neon_snapshot_free(&snap);
    return rc;
}

/* Its operations; then it is read again, since the LSN and the times come with settling. */
static int settle(struct run *r, const struct neon_call *call, struct err *e)
{
    const char *name = data_get(r, "snapshot_name");
    struct neon_snapshot snap = {0};
    int rc = operations_settle(r, call, e);

    if (rc == -EIO) /* what the operation failed with, in Neon's words */
        return rc;
    if (rc == 0)
        rc = announced_snapshot(r->g, call, name, true, &snap, e);
    if (rc == 0 && (r->doubtful || r->recovered))
        rc = discard_snapshots(r->g, call, name, snap.id, e);
    rc = neon_later(rc);
    if (rc == 0)
        rc = settled(r, &snap, e);
    neon_snapshot_free(&snap);
    return rc;
}

static int steps(struct run *r, struct err *e)
{
    struct neon_call call = engine_call(r->g);
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

/* A limit of the plan: which checkpoint could go, and how. */
static void name_oldest(struct run *r, struct err *why)
{
    struct index_entry *oldest = NULL;
    cleanup_free char *name = NULL;
    cleanup_free char *text = str_dup(err_text(why));

    index_read_lock(r->g->c.index);
    for (struct index_entry *e = index_from(r->g->c.index, 0); e; e = index_from(r->g->c.index, e->c.id + 1))
        if ((e->c.phase == PHASE_SAVED || e->c.phase == PHASE_SEALED) && !e->c.snapshot.missing && (!oldest || e->c.seq < oldest->c.seq))
            oldest = e;
    name = oldest ? str_dup(oldest->c.name) : NULL;
    index_unlock(r->g->c.index);
    if (name && text)
        err_set(why, EDQUOT, "%s; to free one: echo 'delete %s' > .control/prune", text, name);
}

static void failed(struct run *r, struct err *why)
{
    struct neon_call call = engine_call(r->g);
    cleanup_err struct err e = {0};
    cleanup_free char *doc = NULL;

    if (why->code == EDQUOT)
        name_oldest(r, why);
    doc = journal_doc(r, "failed", why->code, err_text(why));
    /* While it has the turn, and only as long as the store says that the take is still open: a snapshot may be half of a pair. */
    if ((r->doubtful || run_at(r, "settle")) &&
        (!journal_owns(r) || discard_snapshots(r->g, &call, data_get(r, "snapshot_name"), NULL, &e) < 0)) {
        log_warn("the snapshot of a failed take, %s, may be left in Neon: %s", data_get(r, "snapshot_name"), err_text(&e));
        watch_leftovers(r->g);
    }
    if (store_take_failed(r->g->c.store, r->checkpoint, r->action, why->code, err_text(why), doc, &e) < 0 && e.code != EALREADY)
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
    if (rc < 0 && atomic_load(&r->g->stopping))
        return; /* handed over by the journal */
    if (rc < 0) {
        failed(r, &e);
        return;
    }
    engine_refresh(r->g, r->checkpoint, r->action);
    run_end(r, 0, NULL);
}
