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

#define LABEL_MAX 60
/* Neon shows new things late (neon-api.md §1.3): so often, so far apart, something announced is looked for before it counts as not made. */
#define LOOK_TIMES 5
#define LOOK_MS 400

/* Looks for the snapshot that was announced. 0 found, -ENOENT surely not made, else the trouble. */
static int look(struct run *r, const struct neon_call *call, struct neon_snapshot *ret, struct err *e)
{
    int rc = neon_settle_project(r->g->c.neon, call, e);

    for (int i = 0; rc == 0 && i < LOOK_TIMES; i++) {
        rc = neon_snapshot_find(r->g->c.neon, call, data_get(r, "snapshot_name"), ret, e);
        if (rc != -ENOENT)
            return rc;
        rc = 0;
        clock_sleep_ms(LOOK_MS);
    }
    return rc < 0 ? rc : -ENOENT;
}

static int note_snapshot(struct run *r, const struct neon_snapshot *s)
{
    return data_set(r, "snapshot_id", s->id);
}

/* Asks for the snapshot; a lost answer is looked for, and asked for again under the same name only when nothing was made. */
static int request(struct run *r, const struct neon_call *call, struct err *e)
{
    struct neon_snapshot snap = {0};
    struct neon_operations ops = {0};
    bool unknown = false;
    int rc = 0;

    for (int attempt = 0; attempt < 3; attempt++) {
        rc = neon_snapshot_create(r->g->c.neon, call, data_get(r, "branch_id"), data_get(r, "snapshot_name"), 0, &snap, &ops, &unknown, e);
        neon_said(r->g, rc, e);
        if (rc < 0 && rc != -EEXIST && !unknown)
            return rc;
        if (rc < 0) {
            int found = look(r, call, &snap, e);

            if (found == -ENOENT)
                continue;
            rc = found;
        }
        break;
    }
    if (rc == 0)
        rc = note_snapshot(r, &snap) < 0 || data_set_operations(r, &ops) < 0 ? err_set(e, ENOMEM, "out of memory") : 0;
    if (rc == 0)
        rc = journal_step(r, "settle", NULL, e);
    if (rc == 0)
        rc = neon_settle_operations(r->g->c.neon, call, &ops, NULL, NULL, e);
    neon_snapshot_free(&snap);
    neon_operations_free(&ops);
    return rc;
}

static int render_files(struct run *r, const struct store_snapshot *s, struct buf *snapshot_json, struct buf *checkpoint_json)
{
    struct snapshot_facts sf = {
        .project_id = s->project_id, .branch_id = s->branch_id, .id = s->id, .name = s->name, .lsn = s->lsn,
        .requested_at = s->requested_at, .captured_at = s->captured_at, .expires_at = s->expires_at,
        .full_size = s->full_size, .diff_size = s->diff_size,
    };
    struct brief b = {0};
    struct checkpoint_facts cf;
    int rc = engine_brief(r->g, r->checkpoint, &b);

    if (rc < 0)
        return rc;
    cf = (struct checkpoint_facts){.id = b.uid, .name = b.name, .created_at = b.created_at};
    rc = render_snapshot_json(snapshot_json, &sf);
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
        if (rc < 0 && store_away(-rc))
            clock_sleep_ms(LOOK_MS);
    } while (rc < 0 && store_away(-rc) && !atomic_load(&r->g->stopping) && tries++ < 1000);
    return rc;
}

static int announce(struct run *r, const char *branch, struct err *e)
{
    struct brief b = {0};
    cleanup_free char *label = NULL;
    cleanup_free char *name = NULL;
    int rc = engine_brief(r->g, r->checkpoint, &b);

    if (rc < 0)
        return err_set(e, ENOENT, "the checkpoint is gone");
    label = ascii_label(b.name, LABEL_MAX);
    brief_clear(&b);
    name = label ? str_format("%s-%s", label, r->uid) : NULL;
    if (!name || data_set(r, "snapshot_name", name) < 0 || data_set(r, "branch_id", branch) < 0 ||
        data_set_int(r, "requested_at", clock_now()) < 0)
        return err_set(e, ENOMEM, "out of memory");
    return journal_step(r, "request", NULL, e);
}

static int take_new(struct run *r, const struct neon_call *call, struct err *e)
{
    cleanup_free char *branch = NULL;
    int rc = journal_turn(r, e);

    if (rc == 0)
        rc = active_check(r->g, call, &branch, NULL, e);
    if (rc == 0)
        rc = announce(r, branch, e);
    if (rc == 0)
        rc = request(r, call, e);
    return rc;
}

/* The mount that began the take died. Whoever wrote has lost its handle, so nothing is asked for again: a snapshot that was made
 * is kept, else the take has failed. */
static int take_recover(struct run *r, const struct neon_call *call, struct err *e)
{
    struct neon_snapshot snap = {0};
    int rc;

    if (!data_get(r, "snapshot_name"))
        return err_set(e, EINTR, "the mount ended before the snapshot was asked for; write state.json again, or rmdir");
    rc = look(r, call, &snap, e);
    if (rc == -ENOENT)
        rc = err_set(e, EINTR, "the mount ended and no snapshot was made; write state.json again, or rmdir");
    else if (rc == 0)
        rc = note_snapshot(r, &snap);
    neon_snapshot_free(&snap);
    return rc;
}

void snapshot_discard(struct engine *g, const char *id, const char *name)
{
    struct neon_call call = engine_call(g);
    struct neon_snapshot snap = {0};
    struct neon_operations ops = {0};
    cleanup_err struct err e = {0};
    int rc = 0;

    if (!id && name)
        rc = neon_snapshot_find(g->c.neon, &call, name, &snap, &e);
    if (rc == 0 && (id || snap.id))
        rc = neon_snapshot_delete(g->c.neon, &call, id ? id : snap.id, &ops, NULL, &e);
    if (rc == 0)
        rc = neon_settle_operations(g->c.neon, &call, &ops, NULL, NULL, &e);
    if (rc < 0 && rc != -ENOENT)
        log_warn("the snapshot of a failed take stays in Neon: %s", err_text(&e));
    neon_snapshot_free(&snap);
    neon_operations_free(&ops);
}

static void failed(struct run *r, const struct err *why)
{
    cleanup_err struct err e = {0};
    cleanup_free char *doc = journal_doc(r, "failed", why->code, err_text(why));

    if (data_get(r, "snapshot_id"))
        snapshot_discard(r->g, data_get(r, "snapshot_id"), NULL);
    if (store_take_failed(r->g->c.store, r->checkpoint, r->action, why->code, err_text(why), doc, &e) < 0 && e.code != EALREADY)
        log_error("take %s can't be settled as failed, the next mount does: %s", r->uid, err_text(&e));
    engine_refresh(r->g, r->checkpoint, r->action);
    run_end(r, why->code, err_text(why));
}

void take_body(struct run *r)
{
    struct neon_call call = engine_call(r->g);
    struct neon_snapshot snap = {0};
    cleanup_err struct err e = {0};
    int rc = r->recovered ? take_recover(r, &call, &e) : take_new(r, &call, &e);

    if (rc == 0) /* read again: the LSN and the times come with settling */
        rc = neon_snapshot_find(r->g->c.neon, &call, data_get(r, "snapshot_name"), &snap, &e);
    if (rc == 0)
        rc = settled(r, &snap, &e);
    neon_snapshot_free(&snap);
    if (rc < 0 && atomic_load(&r->g->stopping))
        return; /* handed over by the journal */
    if (rc < 0) {
        failed(r, &e);
        return;
    }
    engine_refresh(r->g, r->checkpoint, r->action);
    run_end(r, 0, NULL);
}
