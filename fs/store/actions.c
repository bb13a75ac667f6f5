/* Actions: what each verb refuses, how it is claimed and journalled, how it moves on and how it ends. */
#include "store_i.h"

#include <errno.h>
#include <string.h>

#include "util/text.h"

struct begin_args {
    const struct store_begin *b;
    struct store_action act;
};

/* ---- what is refused ------------------------------------------------------------------------------------------------- */

static int need_snapshot(const struct ck_row *k, struct err *e)
{
    if (k->phase == PHASE_TAKING)
        return err_set(e, ENODATA, "the snapshot of %s hasn't settled yet", k->name);
    if (k->phase == PHASE_FAILED || !k->snapshot_id)
        return err_set(e, ENODATA, "%s has no snapshot: its take failed", k->name);
    if (k->missing)
        return err_set(e, ENODATA, "Neon no longer has the snapshot %s of %s", k->snapshot_id, k->name);
    return 0;
}

/* An action on the checkpoint that isn't settled; `sql_kinds` says which count. */
static int checkpoint_busy(struct conn *c, const struct ck_row *k, const char *sql, struct err *e)
{
    cleanup_result PGresult *res = NULL;
    int r = q(c, &res, e, sql, "i", k->id);

    if (r || PQntuples(res) == 0)
        return r;
    return err_set(e, EBUSY, "a %s of %s is under way (%s): wait for it (cat %s/wait)", col_text(res, 0, 0), k->name,
                   col_text(res, 0, 1), k->name);
}

#define UNSETTLED_OF "SELECT kind, uid FROM checkpointfs.actions WHERE checkpoint_id = $1 AND state IN ('queued', 'running')"

int ck_idle(struct conn *c, const struct ck_row *k, bool takes, struct err *e)
{
    return checkpoint_busy(c, k,
                           takes ? UNSETTLED_OF " AND kind <> 'cancel' LIMIT 1"
                                 : UNSETTLED_OF " AND kind NOT IN ('take', 'cancel') LIMIT 1",
                           e);
}

int ck_no_agent(struct conn *c, const struct ck_row *k, struct err *e)
{
    return checkpoint_busy(c, k, UNSETTLED_OF " AND kind IN ('resume', 'replay') LIMIT 1", e);
}

static int not_being_deleted(struct conn *c, const struct ck_row *k, struct err *e)
{
    return checkpoint_busy(c, k, UNSETTLED_OF " AND kind = 'delete' LIMIT 1", e);
}

static int check_attempt(const struct ck_row *k, bool again, struct err *e)
{
    const char *state = k->attempt_state;

    if (str_equal(state, "open"))
        return 0;
    if (str_equal(state, "failed") || str_equal(state, "unknown")) {
        if (again)
            return 0;
        return err_set(e, EALREADY, "%s was decided already and %s: `again …` decides once more, a restore opens a new attempt",
                       k->name, strcmp(state, "failed") == 0 ? "the agent failed" : "nobody knows how the agent ended");
    }
    return err_set(e, EALREADY, "%s was decided already: restore it first to decide anew", k->name);
}

/* Whether meta.json says that the checkpoint is pinned: anything but false, null, 0 and "". */
static int check_pin(struct conn *c, const struct ck_row *k, struct err *e)
{
    cleanup_result PGresult *res = NULL;
    cleanup_json json_t *meta = NULL;
    json_t *pin;
    bool pinned;
    int r = q(c, &res, e, "SELECT bytes FROM checkpointfs.files WHERE checkpoint_id = $1 AND kind = 'meta'", "i", k->id);

    if (r || PQntuples(res) == 0)
        return r;
    meta = json_loadb(PQgetvalue(res, 0, 0), (size_t)PQgetlength(res, 0, 0), JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    pin = json_object_get(meta, "pin");
    pinned = pin && !json_is_false(pin) && !json_is_null(pin) && !(json_is_number(pin) && json_number_value(pin) == 0.0) &&
             !(json_is_string(pin) && json_string_length(pin) == 0);
    return pinned ? err_set(e, EPERM, "%s is pinned: remove `pin` from its meta.json first", k->name) : 0;
}

static int check(struct conn *c, const struct store_begin *b, const struct ck_row *k, struct err *e)
{
    int r = 0;

    switch (b->kind) {
    case ACTION_RESTORE:
    case ACTION_REPLAY:
        r = need_snapshot(k, e);
        if (r == 0 && b->kind == ACTION_REPLAY && k->phase != PHASE_SEALED)
            r = err_set(e, ENODATA, "%s has no sealed state: it can be restored, not replayed", k->name);
        if (r == 0)
            r = line_busy(c, k->line_id, e);
        return r ? r : not_being_deleted(c, k, e);
    case ACTION_RESUME:
        if (k->phase != PHASE_SEALED)
            return err_set(e, ENODATA, "%s has no sealed state: there is nothing to resume", k->name);
        if (k->offline_by)
            return err_set(e, ESTALE, "%s belongs to a database that a restore replaced: restore it first, or `replay`", k->name);
        r = line_busy(c, k->line_id, e);
        if (r == 0)
            r = not_being_deleted(c, k, e);
        return r ? r : check_attempt(k, b->again, e);
    case ACTION_DELETE:
        r = checkpoint_busy(c, k, UNSETTLED_OF " ORDER BY id LIMIT 1", e);
        return r ? r : check_pin(c, k, e);
    case ACTION_TAKE:
        return err_set(e, EINVAL, "a take begins with store_take_begin");
    case ACTION_CANCEL:
        break;
    }
    return 0;
}

/* ---- begin ----------------------------------------------------------------------------------------------------------- */

/* Takes that still wait for their turn would capture a database that isn't there any more. offline_by remembers it for whoever made
 * the directory before the restore and hasn't heard of it (store_take_again). */
static int fail_queued_takes(struct conn *c, const struct ck_row *k, int64_t action, const char *uid, struct err *e)
{
    cleanup_result PGresult *res = NULL;
    cleanup_free char *why = str_format("the restore %s of %s was asked for before the snapshot was", uid, k->name);
    int r = why ? 0 : err_set(e, ENOMEM, "out of memory");

    if (r == 0)
        r = q(c, &res, e,
              "UPDATE checkpointfs.actions a SET state = 'failed', waiting = false, code = $2::int, message = $3,"
              " changed_at = checkpointfs.now_ns() FROM checkpointfs.checkpoints k WHERE a.line_id = $1 AND a.kind = 'take'"
              " AND a.state = 'queued' AND k.id = a.checkpoint_id RETURNING a.uid, k.id, k.uid, k.name, a.by::text",
              "iis", k->line_id, (int64_t)ESTALE, why);
    for (int i = 0; r == 0 && i < PQntuples(res); i++) {
        struct event ev = {.what = "checkpoint.failed", .line_id = k->line_id, .checkpoint = col_int(res, i, 1),
                           .uid = col_text(res, i, 2), .name = col_text(res, i, 3), .action = col_text(res, i, 0),
                           .by = col_text(res, i, 4), .code = ESTALE, .message = why};

        r = q(c, NULL, e,
              "UPDATE checkpointfs.checkpoints SET phase = 'failed', note = $2, offline_by = $3, changed_at = checkpointfs.now_ns()"
              " WHERE id = $1", "isi", ev.checkpoint, why, action);
        if (r == 0)
            r = event_append(c, &ev, e);
    }
    return r;
}

static const char *const began[] = {[ACTION_TAKE] = "checkpoint.requested", [ACTION_RESTORE] = "restore.started",
                                    [ACTION_RESUME] = "resume.started",     [ACTION_REPLAY] = "restore.started",
                                    [ACTION_CANCEL] = "cancel.requested",   [ACTION_DELETE] = "delete.started"};

static int begin_fn(struct conn *c, void *arg, struct err *e)
{
    struct begin_args *a = arg;
    const struct store_begin *b = a->b;
    bool restores = b->kind == ACTION_RESTORE || b->kind == ACTION_REPLAY;
    bool queued = restores || b->kind == ACTION_DELETE;
    cleanup_ck struct ck_row k = {0};
    cleanup_free char *by = who_json(b->who);
    cleanup_free char *uid = NULL;
    cleanup_free char *sql = str_format("%sWHERE id = $1", act_columns);
    cleanup_json json_t *decided = NULL;
    cleanup_result PGresult *res = NULL;
    struct act_new n = {.kind = b->kind, .state = queued ? ACTION_QUEUED : ACTION_RUNNING, .line_id = b->line_id,
                        .checkpoint = b->checkpoint, .mount_id = b->mount_id, .command = b->command, .decisions = b->decisions,
                        .by = by, .waiting = queued, .blocks_takes = restores};
    struct event ev = {.what = began[b->kind], .line_id = b->line_id, .by = by};
    int64_t id = 0;
    int r = by && sql ? line_lock(c, b->line_id, e) : err_set(e, ENOMEM, "out of memory");

    if (r == 0)
        r = ck_read(c, b->checkpoint, &k, e);
    if (r == 0 && k.line_id != b->line_id)
        r = err_set(e, ENOENT, "the checkpoint isn't on this line");
    if (r == 0)
        r = check(c, b, &k, e);
    if (r == 0)
        r = act_insert(c, &n, &id, &uid, e);
    if (r)
        return r;
    ev.checkpoint = k.id;
    ev.uid = k.uid;
    ev.name = k.name;
    ev.action = uid;
    if (b->kind == ACTION_RESUME)
        r = attempt_claim(c, k.id, k.attempt, id, b->decisions, &decided, e);
    if (r == 0)
        r = q(c, &res, e, sql, "i", id);
    store_action_free(&a->act);
    if (r == 0)
        r = act_read(res, 0, &a->act, e);
    if (r == 0 && restores)
        r = fail_queued_takes(c, &k, id, uid, e);
    if (r == 0 && decided)
        r = decided_event(c, &ev, k.attempt, b->again, decided, b->decisions, e);
    return r ? r : event_append(c, &ev, e);
}

int store_action_begin(struct store *s, const struct store_begin *b, struct store_action *ret, struct err *e)
{
    struct begin_args a = {.b = b};
    int r = store_tx(s, TX_WRITE, begin_fn, &a, e);

    if (r)
        store_action_free(&a.act);
    else
        *ret = a.act;
    return r;
}

/* ---- refuse ---------------------------------------------------------------------------------------------------------- */

struct refuse_args {
    const struct store_begin *b;
    int code;
    const char *message;
    const char *doc;
    int64_t id;
};

/* `doc` with the action's public id as its first member, set as the others are. */
static char *doc_with_id(const char *doc, const char *uid)
{
    const char *rest = doc + strspn(doc, " \t\r\n");
    size_t pad;

    if (*rest != '{')
        return strdup(doc);
    rest++;
    pad = strspn(rest, " \t\r\n");
    return str_format("{%.*s\"action\": \"%s\"%s%s", (int)pad, rest, uid, rest[pad] == '}' ? "" : ",", rest);
}

static int refuse_fn(struct conn *c, void *arg, struct err *e)
{
    struct refuse_args *a = arg;
    const struct store_begin *b = a->b;
    cleanup_free char *by = who_json(b->who);
    cleanup_free char *uid = NULL;
    cleanup_free char *doc = NULL;
    cleanup_ck struct ck_row k = {0};
    cleanup_json json_t *more = json_pack("{s:s, s:o*}", "kind", kind_names[b->kind], "command", json_text(b->command));
    struct act_new n = {.kind = b->kind, .state = ACTION_REFUSED, .line_id = b->line_id, .mount_id = b->mount_id,
                        .command = b->command, .by = by, .code = a->code, .message = a->message};
    struct event ev = {.what = "command.refused", .line_id = b->line_id, .by = by, .code = a->code, .message = a->message,
                       .more = more};
    int r = by && more ? line_lock(c, b->line_id, e) : err_set(e, ENOMEM, "out of memory");

    if (r == 0 && b->checkpoint) {
        r = ck_read(c, b->checkpoint, &k, e);
        r = r == -ENOENT ? 0 : r; /* deleted meanwhile: the refusal is told all the same */
    }
    n.checkpoint = k.id;
    if (r == 0)
        r = act_insert(c, &n, &a->id, &uid, e);
    if (r)
        return r;
    if (a->doc) {
        doc = doc_with_id(a->doc, uid);
        if (!doc)
            return err_set(e, ENOMEM, "out of memory");
        r = act_doc(c, a->id, k.id, doc, true, e);
    }
    ev.checkpoint = k.id;
    ev.uid = k.uid;
    ev.name = k.name;
    ev.action = uid;
    return r ? r : event_append(c, &ev, e);
}

int store_action_refuse(struct store *s, const struct store_begin *b, int code, const char *message, const char *doc_without_id,
                        int64_t *ret_action, struct err *e)
{
    struct refuse_args a = {.b = b, .code = code, .message = message, .doc = doc_without_id};
    int r = store_tx(s, TX_BOUNDED, refuse_fn, &a, e);

    if (r == 0)
        *ret_action = a.id;
    return r;
}

/* ---- step ------------------------------------------------------------------------------------------------------------ */

struct step_args {
    int64_t action;
    const char *step, *data, *doc, *activity;
};

static int step_fn(struct conn *c, void *arg, struct err *e)
{
    const struct step_args *a = arg;
    cleanup_act struct act_row act = {0};
    int r = act_lock(c, a->action, &act, e);

    if (r == 0 && act_settled(&act))
        r = err_set(e, EALREADY, "the action %s was settled before", act.uid);
    if (r == 0)
        r = q(c, NULL, e,
              "UPDATE checkpointfs.actions SET step = coalesce($2, step), data = coalesce($3::json, data),"
              " changed_at = checkpointfs.now_ns() WHERE id = $1",
              "iss", act.id, a->step, a->data);
    if (r == 0 && a->doc)
        r = act_doc(c, act.id, act.checkpoint, a->doc, false, e);
    if (r == 0 && a->activity && act.checkpoint)
        r = q(c, NULL, e,
              "UPDATE checkpointfs.checkpoints SET activity = nullif($2, ''), changed_at = checkpointfs.now_ns() WHERE id = $1",
              "is", act.checkpoint, a->activity);
    return r || !act.checkpoint ? r : notify_change(c, act.checkpoint, e);
}

int store_action_step(struct store *s, int64_t action, const char *step, const char *data, const char *doc, const char *activity,
                      struct err *e)
{
    struct step_args a = {action, step, data, doc, activity};

    return store_tx(s, TX_WRITE, step_fn, &a, e);
}

/* ---- finish ---------------------------------------------------------------------------------------------------------- */

struct finish_args {
    int64_t action;
    const struct store_finish *f;
};

/* The part of the verb that ended: a replay that failed before its database was there is a failed restore. */
static const char *ended(const struct act_row *act, const struct store_finish *f)
{
    bool resumed = act->kind == ACTION_RESUME || (act->kind == ACTION_REPLAY && act->restored);

    if (act->kind == ACTION_TAKE)
        return f->state == ACTION_DONE ? "checkpoint.created" : "checkpoint.failed";
    if (act->kind == ACTION_CANCEL)
        return f->state == ACTION_DONE ? "cancel.finished" : "cancel.failed";
    if (act->kind == ACTION_DELETE)
        return f->state == ACTION_DONE ? "delete.finished" : f->state == ACTION_UNKNOWN ? "delete.unknown" : "delete.failed";
    if (!resumed)
        return f->state == ACTION_DONE ? "restore.finished" : f->state == ACTION_UNKNOWN ? "restore.unknown" : "restore.failed";
    if (f->state == ACTION_DONE)
        return f->outcome && str_starts(f->outcome, "stopped again") ? "resume.stopped" : "resume.finished";
    return f->state == ACTION_UNKNOWN ? "resume.unknown" : "resume.failed";
}

static const char *attempt_ends(const struct store_finish *f)
{
    if (f->release_decision)
        return "open";
    if (f->state == ACTION_UNKNOWN)
        return "unknown";
    if (f->state != ACTION_DONE)
        return "failed";
    return f->outcome && str_starts(f->outcome, "stopped again") ? "stopped" : "finished";
}

static int finish_checkpoint(struct conn *c, const struct act_row *act, const struct store_finish *f, struct err *e)
{
    int r = 0;

    if (!act->checkpoint)
        return 0;
    if (act->kind != ACTION_CANCEL) /* what a cancel ends has an activity of its own */
        r = q(c, NULL, e,
              "UPDATE checkpointfs.checkpoints SET activity = NULL, changed_at = checkpointfs.now_ns() WHERE id = $1", "i",
              act->checkpoint);
    if (r == 0 && f->outcome)
        r = q(c, NULL, e,
              "UPDATE checkpointfs.checkpoints SET outcome = nullif($2, ''), changed_at = checkpointfs.now_ns()"
              " WHERE id = $1", "is", act->checkpoint, f->outcome);
    return r;
}

static int finish_fn(struct conn *c, void *arg, struct err *e)
{
    const struct finish_args *a = arg;
    const struct store_finish *f = a->f;
    cleanup_act struct act_row act = {0};
    cleanup_ck struct ck_row k = {0};
    struct event ev = {.outcome = f->outcome && *f->outcome ? f->outcome : NULL, .code = f->code, .message = f->message};
    int r = act_lock(c, a->action, &act, e);

    if (r == 0 && act_settled(&act))
        r = err_set(e, EALREADY, "the action %s was settled before", act.uid);
    if (r == 0 && act.checkpoint)
        r = ck_read(c, act.checkpoint, &k, e);
    if (r == 0 && f->doc)
        r = act_doc(c, act.id, act.checkpoint, f->doc, true, e);
    if (r == 0)
        r = act_settle(c, act.id, f->state, f->code, f->message, e);
    if (r == 0 && act.attempt && (act.kind == ACTION_RESUME || act.kind == ACTION_REPLAY))
        r = attempt_set(c, act.attempt, attempt_ends(f), e);
    if (r == 0)
        r = finish_checkpoint(c, &act, f, e);
    if (r)
        return r;
    if (act.kind == ACTION_RESTORE && act.restored && f->state == ACTION_DONE)
        return notify_change(c, act.checkpoint, e); /* restore.finished was told when it was */
    ev.what = ended(&act, f);
    ev.line_id = act.line_id;
    ev.checkpoint = act.checkpoint;
    ev.uid = k.uid;
    ev.name = k.name;
    ev.action = act.uid;
    ev.by = act.by;
    return event_append(c, &ev, e);
}

int store_action_finish(struct store *s, int64_t action, const struct store_finish *f, struct err *e)
{
    struct finish_args a = {action, f};

    return store_tx(s, TX_WRITE, finish_fn, &a, e);
}
