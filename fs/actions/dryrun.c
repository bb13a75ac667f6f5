/* What replacing the active branch would do, said before it is done: by dry-run, and by the second question about an old snapshot
 * (design.md §2, §5). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "actions_i.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/offer.h"
#include "util/text.h"

#define NS_PER_MS 1000000
#define NAMES_TOLD 5

/* ---- what is known without asking Neon ------------------------------------------------------------------------------------ */

/* What the index says of the checkpoint. */
struct subject {
    char *name, *path, *snapshot_id, *branch; /* path: where it is in the mount; branch: what the snapshot was taken of */
    int64_t captured_at, full_size;
    bool offline;
    bool imported; /* and not of an isolated branch, whose own are refused in place anyhow */
    bool foreign; /* no branch that was ever active here: it is asked about, whatever its age */
};

static void subject_clear(struct subject *s)
{
    free(s->name);
    free(s->path);
    free(s->snapshot_id);
    free(s->branch);
}

static int look(struct engine *g, const struct question *q, struct subject *ret, struct err *e)
{
    struct index_entry *x;
    int r;

    index_read_lock(g->c.index);
    x = index_by_id(g->c.index, q->checkpoint);
    if (x)
        *ret = (struct subject){.name = str_dup(x->c.name), .path = offer_path(x->c.name, x->c.uid),
                                .snapshot_id = str_dup(x->c.snapshot.id), .captured_at = x->c.snapshot.captured_at,
                                .branch = str_dup(x->c.snapshot.branch_id), .full_size = x->c.snapshot.full_size,
                                .offline = x->c.offline_by != 0, .imported = x->c.seq < 0 && !x->c.isolated};
    index_unlock(g->c.index);
    r = x ? 0 : err_set(e, ENOENT, "the checkpoint is gone");
    if (r == 0 && ret->imported && ret->snapshot_id && q->control != CONTROL_PROMOTE) /* who promotes a branch has seen it */
        r = store_snapshot_foreign(g->c.store, q->checkpoint, &ret->foreign, e);
    return r;
}

/* The names of the checkpoints that would go off line, in the order in which they were taken; owned by the caller. The store knows: what is
 * behind a checkpoint isn't all that was taken before it. */
static int look_later(struct engine *g, int64_t checkpoint, json_t **ret, struct err *e)
{
    cleanup_free char *names = NULL;
    int r = store_would_go_off_line(g->c.store, g->line_id, checkpoint, &names, e);

    if (r < 0)
        return r;
    *ret = json_loads(names, 0, NULL);
    return *ret ? 0 : err_set(e, ENOMEM, "out of memory");
}

static char *age_text(int64_t ns)
{
    static const struct { int64_t seconds; const char *word; } units[] = {{86400, "days"}, {3600, "h"}, {60, "min"}, {1, "s"}};
    int64_t s = ns > 0 ? ns / 1000000000 : 0;

    for (size_t i = 0; i < sizeof(units) / sizeof(*units); i++)
        if (s >= 2 * units[i].seconds)
            return str_format("%lld %s", (long long)(s / units[i].seconds), units[i].word);
    return str_format("%lld s", (long long)s);
}

/* Of when the snapshot is, and of what where that isn't plain; of a copy that came without its snapshot.json Neon hasn't been asked yet. */
static char *age_of(const struct question *q, const struct subject *s)
{
    cleanup_free char *age = s->captured_at ? age_text(q->asked_at - s->captured_at) : NULL;
    char when[CLOCK_TEXT_MAX];

    if (!s->captured_at)
        return str_dup("an age not known yet");
    if (!age || !s->foreign)
        return age ? str_format("%s, %s old", clock_format_seconds(s->captured_at, when), age) : NULL;
    return str_format("%s, %s old, and of the branch %s, never the active one here", clock_format_seconds(s->captured_at, when), age,
                      s->branch ? s->branch : "that nobody named");
}

static char *names_text(const json_t *list)
{
    struct buf b = {0};
    size_t n = json_array_size(list);

    for (size_t i = 0; i < n && i < NAMES_TOLD; i++)
        buf_addf(&b, "%s%s", i == 0 ? "" : i + 1 == n ? " and " : ", ", json_string_value(json_array_get(list, i)));
    if (n > NAMES_TOLD)
        buf_addf(&b, " and %zu more", n - NAMES_TOLD);
    return buf_steal(&b);
}

static bool must_ask(const struct engine *g, const struct subject *s, int64_t asked_at)
{
    return s->foreign || g->c.unconfirmed_ms == 0 || (asked_at - s->captured_at) / NS_PER_MS > g->c.unconfirmed_ms;
}

/* What would change: `would` in the document. */
static json_t *plan(const struct engine *g, const struct question *q, const struct subject *s, json_t *later, const char *line)
{
    char when[CLOCK_TEXT_MAX];

    return json_pack("{s:s*, s:{s:s*, s:o, s:o, s:o}, s:O, s:b, s:{s:b, s:s*}}", "branch_replaced", q->active, "snapshot", "id",
                     s->snapshot_id, "captured_at", s->captured_at ? json_string(clock_format(s->captured_at, when)) : json_null(),
                     "age_seconds", s->captured_at ? json_integer((q->asked_at - s->captured_at) / 1000000000) : json_null(), "full_size",
                     s->full_size >= 0 ? json_integer(s->full_size) : json_null(), "off_line", later, "comes_on_line", (int)s->offline,
                     "confirm", "needed", (int)must_ask(g, s, q->asked_at), "line", line);
}

/* The file that the command is written to; owned by the caller. */
static char *file_of(const struct question *q, const struct subject *s)
{
    return q->file ? str_dup(q->file) : s->path ? str_format("%s/%s", s->path, control_name(q->control)) : NULL;
}

/* ---- the second question --------------------------------------------------------------------------------------------------- */

static int ask(const struct question *q, const struct subject *s, const json_t *later, const char *line, struct err *e)
{
    cleanup_free char *age = age_of(q, s);
    cleanup_free char *names = names_text(later);
    cleanup_free char *file = file_of(q, s);
    cleanup_free char *how = NULL;

    if (file)
        how = line ? offer_write(file, line) : str_format("write the same with \"confirm\": \"%s\" to %s", q->active, file);
    if (!age || !how)
        return err_set(e, ENOMEM, "out of memory");
    return err_set(e, ECANCELED,
                   "%s%s%sthe snapshot of %s is of %s: what was written to the database since then would be replaced with branch "
                   "%s%s%s%s. Nothing was done. To do it all the same: %s",
                   q->confirm ? "the active branch is not the confirmed one, " : "", q->confirm ? q->confirm : "", q->confirm ? ": " : "",
                   s->name, age, q->active, names && *names ? ", and " : "", names && *names ? names : "",
                   names && *names ? " would go off line" : "", how);
}

int confirm(struct engine *g, const struct question *q, json_t **ret_would, struct err *e)
{
    cleanup_free char *line = NULL;
    cleanup_json json_t *later = NULL;
    struct subject s = {0};
    int r = look(g, q, &s, e);
    /* Without a snapshot it is refused anyway. */
    bool asks = r == 0 && s.snapshot_id && (q->confirm ? !str_equal(q->confirm, q->active) : must_ask(g, &s, q->asked_at));

    if (asks)
        r = look_later(g, q->checkpoint, &later, e);
    if (asks && r == 0) {
        /* Not with what was masked in it: whoever pastes it would have the agent work with that. */
        line = q->text && !strstr(q->text, "***") ? command_confirmed(q->control, q->text, q->active) : NULL;
        r = ask(q, &s, later, line, e);
        json_decref(*ret_would);
        *ret_would = plan(g, q, &s, later, line);
    }
    subject_clear(&s);
    return r;
}

/* ---- dry-run ------------------------------------------------------------------------------------------------------------------ */

/* Other isolated branches that Neon restored for the branch that would be replaced: to promote one will need a snapshot of it. */
static json_t *restored_for(const struct neon_branches *all, const char *active, const char *promoted)
{
    json_t *list = json_array();

    for (size_t i = 0; i < all->n; i++)
        if (str_equal(all->items[i].restored_as, active) && str_equal(all->items[i].restore_status, "restored") &&
            !(promoted && str_equal(all->items[i].id, promoted)))
            json_array_append_new(list, json_string(all->items[i].name ? all->items[i].name : all->items[i].id));
    return list;
}

static json_t *limit(int64_t used, int64_t allowed)
{
    return json_pack("{s:I, s:o}", "used", (json_int_t)used, "allowed", allowed >= 0 ? json_integer(allowed) : json_null());
}

/* What Neon has to say of it. */
static int ask_neon(struct run *r, const struct neon_call *call, const struct question *q, const char *snapshot, struct room *ret_room,
                    json_t *would, struct err *e)
{
    struct neon_snapshots snapshots = {0};
    struct neon_branches branches = {0};
    struct engine *g = r->g;
    bool listed = false;
    int rc = neon_said(g, neon_snapshots_list(g->c.neon, call, &snapshots, e), e);

    for (size_t i = 0; i < snapshots.n; i++)
        listed |= str_equal(snapshots.items[i].id, snapshot);
    neon_snapshots_free(&snapshots);
    if (rc == 0 && !listed && !q->promoted) /* what a branch was made of, it no longer needs */
        rc = err_set(e, ENODATA, "the snapshot %s is gone from Neon (expired or deleted): nothing can be restored from it", snapshot);
    if (rc == 0)
        rc = neon_said(g, neon_branches_list(g->c.neon, call, &branches, e), e);
    if (rc == 0) {
        json_object_set_new(would, "isolated_branches", restored_for(&branches, q->active, q->promoted));
        rc = room_look(g, call, ret_room, e);
    }
    neon_branches_free(&branches);
    if (rc == 0)
        json_object_set_new(would, "limits",
                            json_pack("{s:o, s:o, s:o}", "branches", limit(ret_room->branches, ret_room->max.branches), "root_branches",
                                      limit(ret_room->root_branches, ret_room->max.root_branches), "snapshots",
                                      limit(ret_room->snapshots, ret_room->max.snapshots)));
    return rc;
}

static bool fits(const struct room *room)
{
    return (room->max.branches < 0 || room->branches < room->max.branches) &&
           (room->max.root_branches < 0 || room->root_branches < room->max.root_branches);
}

static void tell_room(struct buf *b, const struct room *room)
{
    buf_adds(b, ". It needs one more root branch");
    if (room->max.root_branches >= 0)
        buf_addf(b, ": %lld of %lld are used%s", (long long)room->root_branches, (long long)room->max.root_branches,
                 fits(room) ? "" : ", so it would be refused (EDQUOT)");
}

/* The checkpoints that were taken on the isolated branch: they come on line with it. NULL when out of memory. */
static json_t *taken_there(struct engine *g, int64_t isolated)
{
    json_t *list = json_array();

    index_read_lock(g->c.index);
    for (struct index_entry *x = index_from(g->c.index, 0); list && x; x = index_from(g->c.index, x->c.id + 1))
        if (isolated && x->c.isolated == isolated && x->c.phase != PHASE_FAILED)
            json_array_append_new(list, json_string(x->c.name));
    index_unlock(g->c.index);
    return list;
}

static char *told(const struct engine *g, const struct question *q, const struct subject *s, const json_t *would, const struct room *room)
{
    cleanup_free char *age = age_of(q, s);
    cleanup_free char *off = names_text(json_object_get(would, "off_line"));
    cleanup_free char *on = names_text(json_object_get(would, "on_line"));
    cleanup_free char *isolated = names_text(json_object_get(would, "isolated_branches"));
    cleanup_free char *file = file_of(q, s);
    const char *line = json_string_value(json_object_get(json_object_get(would, "confirm"), "line"));
    const char *text = must_ask(g, s, q->asked_at) ? line : q->text;
    cleanup_free char *how = line ? offer_write(file, text) : NULL;
    struct buf b = {0};

    buf_addf(&b, "%s would replace branch %s by %s%sthe snapshot %s of %s (of %s", q->text, q->active, q->by ? q->by : "",
             q->by ? ", which began as " : "", s->snapshot_id, s->name, age);
    if (s->full_size >= 0)
        buf_addf(&b, ", %lld bytes", (long long)s->full_size);
    buf_adds(&b, "); the connection string stays");
    if (off && *off)
        buf_addf(&b, "; %s would go off line", off);
    if (s->offline)
        buf_addf(&b, "; %s would come back on line", s->name);
    if (on && *on)
        buf_addf(&b, "; %s would come on line with it", on);
    if (isolated && *isolated)
        buf_addf(&b, "; the isolated branches %s stay", isolated);
    if (q->makes_branch)
        tell_room(&b, room);
    if (how)
        buf_addf(&b, ". %s: %s", text == line ? "It has to be confirmed" : "To do it", how);
    return buf_steal(&b);
}

int dry_run(struct run *r, const struct neon_call *call, const struct question *asked, char **ret_message, struct err *e)
{
    cleanup_free char *active = NULL;
    cleanup_free char *line = NULL;
    cleanup_json json_t *later = NULL;
    struct question q = *asked;
    struct subject s = {0};
    struct room room = {0};
    int rc = active_check(r->g, call, &active, NULL, e);

    if (rc < 0)
        return rc;
    q.active = active;
    rc = look(r->g, &q, &s, e);
    if (rc == 0)
        rc = look_later(r->g, q.checkpoint, &later, e);
    if (rc == 0) {
        line = command_confirmed(q.control, q.text, active);
        r->would = plan(r->g, &q, &s, later, line);
        rc = r->would ? ask_neon(r, call, &q, s.snapshot_id, &room, r->would, e) : err_set(e, ENOMEM, "out of memory");
    }
    if (rc == 0) {
        json_object_set_new(r->would, "on_line", taken_there(r->g, q.isolated));
        json_object_set_new(r->would, "room", json_boolean(!q.makes_branch || fits(&room)));
        *ret_message = told(r->g, &q, &s, r->would, &room);
    }
    subject_clear(&s);
    return rc;
}

void dry_run_body(struct run *r)
{
    struct neon_call call = run_call(r);
    struct question q = {.checkpoint = r->checkpoint, .control = CONTROL_RESTORE, .text = "in-place", .asked_at = r->started_at,
                         .makes_branch = true};
    cleanup_err struct err e = {0};
    cleanup_free char *message = NULL;
    int rc;

    call.deadline_mono_ms = clock_mono_ms() + r->g->c.deadline_ms;
    rc = r->of_branch ? promote_dry_run(r, &call, &message, &e) : dry_run(r, &call, &q, &message, &e);
    if (rc < 0 && atomic_load(&r->g->stopping))
        return;
    journal_settle(r, rc < 0 ? ACTION_FAILED : ACTION_DONE, rc < 0 ? e.code : 0, rc < 0 ? err_text(&e) : message, NULL, false);
}
