/* Actions: what each verb refuses, how it is claimed and journalled, how it moves on and how it ends. */
#include "store_i.h"

#include <errno.h>
#include <string.h>

#include "util/offer.h"
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
    if (k->phase == PHASE_SEALED && !k->snapshot_id)
        return err_set(e, ENODATA, "%s came in without a snapshot: there is only its state", k->name);
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
    cleanup_free char *path = offer_path(k->name, k->uid);
    cleanup_free char *wait = offer_run("cat", path, "wait");
    int r = q(c, &res, e, sql, "i", k->id);

    if (r || PQntuples(res) == 0)
        return r;
    return wait ? err_set(e, EBUSY, "a %s of %s is under way (%s): wait for it (%s)", col_text(res, 0, 0), k->name, col_text(res, 0, 1),
                          wait)
                : err_set(e, ENOMEM, "out of memory");
}

#define UNSETTLED_OF "SELECT kind, uid FROM checkpointfs.actions a WHERE checkpoint_id = $1 AND state IN ('queued', 'running')"

int ck_idle(struct conn *c, const struct ck_row *k, bool takes, struct err *e)
{
    return checkpoint_busy(c, k,
                           takes ? UNSETTLED_OF " AND kind NOT IN ('cancel', 'dry-run') LIMIT 1"
                                 : UNSETTLED_OF " AND kind NOT IN ('take', 'cancel', 'dry-run') LIMIT 1",
                           e);
}

int ck_no_agent(struct conn *c, const struct ck_row *k, struct err *e)
{
    return checkpoint_busy(c, k, UNSETTLED_OF " AND kind IN ('resume', 'replay') LIMIT 1", e);
}

static int not_being_deleted(struct conn *c, const struct ck_row *k, struct err *e)
{
    return checkpoint_busy(c, k, UNSETTLED_OF " AND kind IN ('delete', 'prune') AND isolated_id = 0 LIMIT 1", e);
}

static int check_attempt(const struct ck_row *k, const char *state, bool again, struct err *e)
{

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

bool meta_pinned(const char *bytes, size_t n)
{
    cleanup_json json_t *meta = json_loadb(bytes, n, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    const json_t *pin = json_object_get(meta, "pin");

    return pin && !json_is_false(pin) && !json_is_null(pin) && !(json_is_number(pin) && json_number_value(pin) == 0.0) &&
           !(json_is_string(pin) && json_string_length(pin) == 0);
}

int ck_unpinned(struct conn *c, const struct ck_row *k, struct err *e)
{
    cleanup_result PGresult *res = NULL;
    int r = q(c, &res, e, "SELECT bytes FROM checkpointfs.files WHERE checkpoint_id = $1 AND kind = 'meta'", "i", k->id);

    if (r || PQntuples(res) == 0 || !meta_pinned(PQgetvalue(res, 0, 0), (size_t)PQgetlength(res, 0, 0)))
        return r;
    return err_set(e, EPERM, "%s is pinned: remove `pin` from its meta.json first", k->name);
}

/* Nobody replaces production by a replay by accident (design.md §5). */
static int of_the_line(struct conn *c, const struct ck_row *k, struct err *e)
{
    cleanup_iso struct iso_row i = {0};
    int r;

    if (!k->isolated)
        return 0;
    r = iso_read(c, k->isolated, &i, NULL);
    if (r == 0)
        return err_set(e, EXDEV, "%s was taken on the isolated branch %s of %s, not on the active one:"
                                 " promote that branch, or restore it into"
                       " one of its own (branch NAME)", k->name, i.name, i.checkpoint_name);
    return r == -ESTALE ? err_set(e, EXDEV, "%s was taken on an isolated branch: restore it into one of its own (branch NAME), and promote"
                                  " that", k->name) : r;
}

static int check_in_place(struct conn *c, const struct ck_row *k, struct err *e)
{
    int r = of_the_line(c, k, e);

    return r ? r : line_busy(c, k->line_id, e);
}

static int check_restore(struct conn *c, const struct store_begin *b, const struct ck_row *k, struct err *e)
{
    int r = need_snapshot(k, e);

    if (r == 0 && b->kind == ACTION_REPLAY && k->phase != PHASE_SEALED)
        r = err_set(e, ENODATA, "%s has no sealed state: it can be restored, not replayed", k->name);
    if (r == 0 && !b->branch)
        r = check_in_place(c, k, e);
    return r ? r : not_being_deleted(c, k, e);
}

static int check_resume(struct conn *c, const struct store_begin *b, const struct ck_row *k, const struct iso_row *i, struct err *e)
{
    int r = 0;

    if (k->phase != PHASE_SEALED)
        return err_set(e, ENODATA, "%s has no sealed state: there is nothing to resume", k->name);
    if (!b->isolated && k->offline_by)
        return err_set(e, ESTALE, "%s belongs to a database that %s: restore it first, or `replay`", k->name,
                       k->isolated ? "is gone" : "isn't the active one");
    r = i->id ? iso_ready(i, e) : line_busy(c, k->line_id, e);
    if (r == 0 && i->id)
        r = iso_busy(c, i, false, e);
    if (r == 0)
        r = not_being_deleted(c, k, e);
    return r ? r : check_attempt(k, b->isolated ? i->attempt_state : k->attempt_state, b->again, e);
}

static int check_promote(struct conn *c, const struct ck_row *k, const struct iso_row *i, struct err *e)
{
    int r = iso_ready(i, e);

    if (r == 0)
        r = line_busy(c, k->line_id, e);
    if (r == 0)
        r = iso_busy(c, i, true, e);
    return r ? r : not_being_deleted(c, k, e);
}

/* What the verb itself would refuse now, but that something is under way: a dry-run waits for nobody. A promote needs the branch, and not
 * the snapshot that it was made of. */
static int check_dry_run(struct conn *c, const struct store_begin *b, const struct ck_row *k, const struct iso_row *i, struct err *e)
{
    int r = b->isolated ? iso_ready(i, e) : need_snapshot(k, e);

    return r || b->isolated ? r : of_the_line(c, k, e);
}

static int check_delete(struct conn *c, const struct store_begin *b, const struct ck_row *k, const struct iso_row *i, struct err *e)
{
    int r;

    if (b->isolated)
        return iso_busy(c, i, true, e);
    r = checkpoint_busy(c, k, UNSETTLED_OF " ORDER BY id LIMIT 1", e);
    if (r == 0)
        r = ck_unpinned(c, k, e);
    return r ? r : iso_none_of(c, k, e);
}

/* `i`: the isolated branch that it works on; id 0 = none. */
static int check(struct conn *c, const struct store_begin *b, const struct ck_row *k, const struct iso_row *i, struct err *e)
{
    int r;

    switch (b->kind) {
    case ACTION_RESTORE:
    case ACTION_REPLAY:
    case ACTION_BRANCH:
        return check_restore(c, b, k, e);
    case ACTION_RESUME:
        return check_resume(c, b, k, i, e);
    case ACTION_DELETE:
        return check_delete(c, b, k, i, e);
    case ACTION_PROMOTE:
        return check_promote(c, k, i, e);
    case ACTION_TAKE:
        return err_set(e, EINVAL, "a take begins with store_take_begin");
    case ACTION_UNDO:
        r = line_busy(c, b->line_id, e);
        return r ? r : undo_left(c, b->line_id, e);
    case ACTION_ADOPT:
        return line_busy(c, b->line_id, e);
    case ACTION_DRY_RUN:
        return check_dry_run(c, b, k, i, e);
    case ACTION_CANCEL:
    case ACTION_PRUNE:
    case ACTION_IMPORT:
        break;
    }
    return 0;
}

/* ---- begin ----------------------------------------------------------------------------------------------------------- */

/* Takes that still wait for their turn would capture a database that isn't there any more. offline_by remembers it for whoever made
 * the directory before the restore and hasn't heard of it (store_take_again). */
static int fail_queued_takes(struct conn *c, const struct store_begin *b, const struct ck_row *k, int64_t action, const char *uid,
                             struct err *e)
{
    cleanup_result PGresult *res = NULL;
    cleanup_free char *why = k->id ? str_format("the restore %s of %s was asked for before the snapshot was", uid, k->name)
                                   : str_format("the %s %s was asked for before the snapshot was", kind_names[b->kind], uid);
    int r = why ? 0 : err_set(e, ENOMEM, "out of memory");

    if (r == 0)
        r = q(c, &res, e,
              "UPDATE checkpointfs.actions a SET state = 'failed', waiting = false, code = $2::int, message = $3,"
              " changed_at = checkpointfs.now_ns() FROM checkpointfs.checkpoints k WHERE a.line_id = $1 AND a.kind = 'take'"
              " AND a.isolated_id = 0 AND a.state = 'queued' AND k.id = a.checkpoint_id RETURNING a.uid, k.id, k.uid, k.name, a.by::text",
              "iis", b->line_id, (int64_t)ESTALE, why);
    for (int i = 0; r == 0 && i < PQntuples(res); i++) {
        struct event ev = {.what = "checkpoint.failed", .line_id = b->line_id, .checkpoint = col_int(res, i, 1),
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
                                    [ACTION_CANCEL] = "cancel.requested",   [ACTION_DELETE] = "delete.started",
                                    [ACTION_UNDO] = "undo.started",         [ACTION_ADOPT] = "adopt.started",
                                    [ACTION_BRANCH] = "branch.started",     [ACTION_PROMOTE] = "promote.started",
                                    [ACTION_PRUNE] = "prune.started",       [ACTION_IMPORT] = "import.started",
                                    [ACTION_DRY_RUN] = "dry-run.requested"};

/* What replaces the line's active branch: takes wait for it, and those that wait for their turn fail. */
static bool replaces(enum action_kind kind)
{
    return kind == ACTION_RESTORE || kind == ACTION_REPLAY || kind == ACTION_UNDO || kind == ACTION_ADOPT ||
           kind == ACTION_PROMOTE;
}

/* Which isolated branch it works on: that of the control file, or the one that a resumed checkpoint belongs to. */
static int read_isolated(struct conn *c, const struct store_begin *b, const struct ck_row *k, struct iso_row *ret, struct err *e)
{
    int64_t id = b->isolated ? b->isolated : b->kind == ACTION_RESUME ? k->isolated : 0;
    int r = id ? iso_read(c, id, ret, e) : 0;

    return r == 0 && b->isolated && ret->checkpoint != k->id ? err_set(e, ENOENT, "the branch isn't one of %s", k->name) : r;
}

static int begin_fn(struct conn *c, void *arg, struct err *e)
{
    struct begin_args *a = arg;
    const struct store_begin *b = a->b;
    bool restores = !b->branch && replaces(b->kind);
    bool queued = restores || b->branch || b->kind == ACTION_DELETE;
    cleanup_ck struct ck_row k = {0};
    cleanup_iso struct iso_row i = {0};
    cleanup_free char *by = who_json(b->who);
    cleanup_free char *uid = NULL;
    cleanup_free char *sql = str_format("%sWHERE id = $1", act_columns);
    cleanup_free char *told = NULL;
    cleanup_result PGresult *res = NULL;
    struct act_new n = {.kind = b->kind, .state = queued ? ACTION_QUEUED : ACTION_RUNNING, .line_id = b->line_id,
                        .checkpoint = b->checkpoint, .mount_id = b->mount_id, .command = b->command, .decisions = b->decisions,
                        .by = by, .waiting = queued, .blocks_takes = restores};
    struct event ev = {.what = began[b->kind], .line_id = b->line_id, .by = by};
    cleanup_free char *host = NULL;
    int64_t id = 0;
    int r = by && sql ? line_lock(c, b->line_id, e) : err_set(e, ENOMEM, "out of memory");

    if (r == 0 && b->checkpoint)
        r = ck_read(c, b->checkpoint, &k, e);
    if (r == 0 && b->checkpoint && k.line_id != b->line_id)
        r = err_set(e, ENOENT, "the checkpoint isn't on this line");
    if (r == 0)
        r = read_isolated(c, b, &k, &i, e);
    if (r == 0)
        r = check(c, b, &k, &i, e);
    if (r == 0 && b->worker)
        r = worker_pick(c, b->line_id, b->worker, &n.mount_id, &host, e);
    if (r == 0 && b->branch)
        r = iso_make(c, &k, b->branch, &n.id, &n.isolated, e);
    else if (r == 0)
        n.isolated = i.id;
    if (r == 0)
        r = act_insert(c, &n, &id, &uid, e);
    if (r == 0 && b->data)
        r = q(c, NULL, e, "UPDATE checkpointfs.actions SET data = $2::json WHERE id = $1", "is", id, b->data);
    if (r == 0 && b->worker)
        r = worker_give(c, id, k.id, b->branch ? n.isolated : b->isolated, host, e);
    if (r)
        return r;
    ev.checkpoint = k.id;
    ev.uid = k.uid;
    ev.name = k.name;
    ev.branch = b->branch ? b->branch : i.name;
    ev.action = uid;
    if (b->kind == ACTION_RESUME)
        r = attempt_claim(c, k.id, b->isolated, b->isolated ? i.attempt : k.attempt, id, b->decisions, &told, e);
    if (r == 0)
        r = q(c, &res, e, sql, "i", id);
    store_action_free(&a->act);
    if (r == 0)
        r = act_read(res, 0, &a->act, e);
    if (r == 0 && restores)
        r = fail_queued_takes(c, b, &k, id, uid, e);
    if (r == 0 && told)
        r = decided_event(c, &ev, b->isolated ? i.attempt : k.attempt, b->again, told, e);
    return r ? r : event_append(c, &ev, e);
}

int store_action_begin(struct store *s, const struct store_begin *b, struct store_action *ret, struct err *e)
{
    struct begin_args a = {.b = b};
    int r = store_tx(s, b->bounded ? TX_BOUNDED : TX_WRITE, begin_fn, &a, e);

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
char *doc_with_id(const char *doc, const char *uid)
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
    n.isolated = b->isolated;
    if (r == 0)
        r = act_insert(c, &n, &a->id, &uid, e);
    if (r)
        return r;
    if (a->doc) {
        doc = doc_with_id(a->doc, uid);
        if (!doc)
            return err_set(e, ENOMEM, "out of memory");
        r = act_doc(c, a->id, k.id, b->isolated, doc, true, e);
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
        r = act_doc(c, act.id, act.checkpoint, act.of_branch ? act.isolated : 0, a->doc, false, e);
    if (r == 0 && a->activity && act.of_branch)
        r = iso_activity(c, act.isolated, a->activity, e);
    else if (r == 0 && a->activity && act.checkpoint)
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

/* Whether it is the agent's part of the verb that ended: what was asked of Neon has been told before. */
static bool resumed(const struct act_row *act)
{
    return act->kind == ACTION_RESUME || (act->kind == ACTION_REPLAY && (act->restored || act->attempt));
}

/* The part of the verb that ended: a replay that failed before its database was there is a failed restore. */
static const char *ended(const struct act_row *act, const struct store_finish *f)
{
    if (act->kind == ACTION_TAKE)
        return f->state == ACTION_DONE ? "checkpoint.created" : "checkpoint.failed";
    if (act->kind == ACTION_CANCEL)
        return f->state == ACTION_DONE ? "cancel.finished" : "cancel.failed";
    if (act->kind == ACTION_BRANCH)
        return "branch.failed";
    if (act->kind == ACTION_PROMOTE)
        return f->state == ACTION_UNKNOWN ? "promote.unknown" : "promote.failed";
    if (act->kind == ACTION_DELETE)
        return f->state == ACTION_DONE ? "delete.finished" : f->state == ACTION_UNKNOWN ? "delete.unknown" : "delete.failed";
    if (act->kind == ACTION_PRUNE)
        return f->state == ACTION_DONE ? "prune.finished" : "prune.failed";
    if (act->kind == ACTION_UNDO)
        return f->state == ACTION_DONE ? "undo.finished" : "undo.failed";
    if (act->kind == ACTION_ADOPT)
        return f->state == ACTION_DONE ? "adopt.finished" : "adopt.failed";
    if (act->kind == ACTION_DRY_RUN)
        return f->state == ACTION_DONE ? "dry-run.finished" : "dry-run.failed";
    if (!resumed(act))
        return f->state == ACTION_DONE ? "restore.finished" : f->state == ACTION_UNKNOWN ? "restore.unknown" : "restore.failed";
    if (f->state == ACTION_DONE)
        return f->outcome && str_starts(f->outcome, "stopped again") ? "resume.stopped" : "resume.finished";
    return f->state == ACTION_UNKNOWN ? "resume.unknown" : "resume.failed";
}

static const char *attempt_ends(const struct store_finish *f)
{
    if (f->state == ACTION_UNKNOWN)
        return "unknown";
    if (f->state != ACTION_DONE)
        return "failed";
    return f->outcome && str_starts(f->outcome, "stopped again") ? "stopped" : "finished";
}

/* What is told of a released attempt is what was told before; it is `*ret`, NULL for one that wasn't released. */
static int finish_attempt(struct conn *c, const struct act_row *act, const struct store_finish *f, char **ret, struct err *e)
{
    if (!act->attempt || (act->kind != ACTION_RESUME && act->kind != ACTION_REPLAY))
        return 0;
    return f->release_decision ? attempt_release(c, act->attempt, ret, e) : attempt_set(c, act->attempt, attempt_ends(f), e);
}

static int finish_checkpoint(struct conn *c, const struct act_row *act, const char *outcome, struct err *e)
{
    int r = 0;

    if (act->of_branch)
        return iso_finish(c, act->isolated, act->kind != ACTION_CANCEL && act->kind != ACTION_DRY_RUN, outcome, e);
    if (!act->checkpoint)
        return 0;
    if (act->kind != ACTION_CANCEL && act->kind != ACTION_DRY_RUN) /* what these are about has an activity of its own */
        r = q(c, NULL, e,
              "UPDATE checkpointfs.checkpoints SET activity = NULL, changed_at = checkpointfs.now_ns() WHERE id = $1", "i",
              act->checkpoint);
    if (r == 0 && outcome)
        r = q(c, NULL, e,
              "UPDATE checkpointfs.checkpoints SET outcome = nullif($2, ''), changed_at = checkpointfs.now_ns()"
              " WHERE id = $1", "is", act->checkpoint, outcome);
    return r;
}

static int finish_fn(struct conn *c, void *arg, struct err *e)
{
    const struct finish_args *a = arg;
    const struct store_finish *f = a->f;
    cleanup_act struct act_row act = {0};
    cleanup_ck struct ck_row k = {0};
    cleanup_free char *before = NULL;
    struct event ev = {.outcome = f->outcome && *f->outcome ? f->outcome : NULL, .code = f->code, .message = f->message};
    int r = act_lock(c, a->action, &act, e);

    if (r == 0 && act_settled(&act))
        r = err_set(e, EALREADY, "the action %s was settled before", act.uid);
    if (r == 0 && act.checkpoint)
        r = ck_read(c, act.checkpoint, &k, e);
    if (r == 0 && f->doc)
        r = act_doc(c, act.id, act.checkpoint, act.of_branch ? act.isolated : 0, f->doc, true, e);
    if (r == 0)
        r = act_settle(c, act.id, f->state, f->code, f->message, e);
    if (r == 0)
        r = finish_attempt(c, &act, f, &before, e);
    if (r == 0)
        r = finish_checkpoint(c, &act, before ? before : f->outcome, e);
    if (r)
        return r;
    if (f->state == ACTION_DONE && act.kind == ACTION_BRANCH)
        return notify_change(c, act.checkpoint, e);
    if (replaces(act.kind) && act.kind != ACTION_REPLAY && act.restored && f->state == ACTION_DONE)
        return notify_change(c, act.checkpoint, e); /* it was told when it was recorded */
    ev.what = ended(&act, f);
    ev.line_id = act.line_id;
    ev.checkpoint = act.checkpoint;
    ev.uid = k.uid;
    ev.name = k.name;
    ev.action = act.uid;
    ev.by = act.by;
    ev.asked_by = resumed(&act) ? 0 : act.id;
    return event_append(c, &ev, e);
}

int store_action_finish(struct store *s, int64_t action, const struct store_finish *f, struct err *e)
{
    struct finish_args a = {action, f};

    return store_tx(s, TX_WRITE, finish_fn, &a, e);
}
