/* Taking: a checkpoint and the action that asks for its snapshot, begun, begun again, settled, failed. */
#include "store_i.h"

#include <errno.h>
#include <string.h>

#include "util/hash.h"
#include "util/text.h"

#define UID_DIGITS 20

struct take_args {
    int64_t line_id;
    int64_t mount_id;
    int64_t isolated;
    int64_t checkpoint;
    int64_t action;
    const char *name;
    const struct store_who *who;
    int64_t ret_checkpoint;
    int64_t ret_action;
    const struct store_snapshot *snap;
    const struct buf *snapshot_json;
    const struct buf *checkpoint_json;
    const char *doc;
    int code;
    const char *note;
    bool stale;
    bool copy;
    struct store_action discard; /* that gives the snapshot of a copy back */
};

/* Journals the action of a take and its request in the log. */
static int journal(struct conn *c, const struct take_args *a, const struct ck_row *k, int64_t action, struct err *e)
{
    cleanup_free char *by = who_json(a->who);
    cleanup_free char *command = str_format("mkdir %s", k->name);
    cleanup_free char *uid = NULL;
    struct act_new n = {.id = action, .kind = ACTION_TAKE, .state = ACTION_QUEUED, .line_id = k->line_id, .checkpoint = k->id,
                        .isolated = k->isolated, .mount_id = a->mount_id, .command = command, .by = by, .waiting = true};
    struct event ev = {.what = "checkpoint.requested", .line_id = k->line_id, .checkpoint = k->id, .uid = k->uid, .name = k->name,
                       .by = by};
    int r = by && command ? act_insert(c, &n, NULL, &uid, e) : err_set(e, ENOMEM, "out of memory");

    ev.action = uid;
    return r ? r : event_append(c, &ev, e);
}

static int next_ids(struct conn *c, int64_t *ret_checkpoint, int64_t *ret_action, struct err *e)
{
    cleanup_result PGresult *res = NULL;
    int r = q(c, &res, e, "SELECT nextval('checkpointfs.checkpoints_id_seq'), nextval('checkpointfs.actions_id_seq')", "");

    if (r == 0) {
        *ret_checkpoint = col_int(res, 0, 0);
        *ret_action = col_int(res, 0, 1);
    }
    return r;
}

static int name_free(struct conn *c, int64_t line_id, const char *name, struct err *e)
{
    cleanup_result PGresult *res = NULL;
    int r = q(c, &res, e, "SELECT 1 FROM checkpointfs.checkpoints WHERE line_id = $1 AND name = $2", "is", line_id, name);

    if (r == 0 && PQntuples(res) > 0)
        r = err_set(e, EEXIST, "there is a checkpoint called %s already", name);
    return r;
}

/* What is restored, or made, promoted or deleted, isn't captured. */
static int database_free(struct conn *c, int64_t line_id, int64_t isolated, struct err *e)
{
    cleanup_iso struct iso_row i = {0};
    int r;

    if (!isolated)
        return line_takes_blocked(c, line_id, e);
    r = iso_read(c, isolated, &i, e);
    if (r == 0)
        r = iso_ready(&i, e);
    return r ? r : iso_changing(c, &i, e);
}

static int begin_fn(struct conn *c, void *arg, struct err *e)
{
    struct take_args *a = arg;
    char uid[4 + UID_DIGITS] = "ck-";
    struct ck_row k = {.line_id = a->line_id, .uid = uid, .name = (char *)(uintptr_t)a->name, .isolated = a->isolated};
    int64_t action = 0;
    int r = random_hex(uid + 3, UID_DIGITS);

    if (r)
        return err_set(e, -r, "no random numbers");
    r = line_lock(c, a->line_id, e);
    if (r == 0)
        r = name_free(c, a->line_id, a->name, e);
    if (r == 0)
        r = database_free(c, a->line_id, a->isolated, e);
    if (r == 0)
        r = next_ids(c, &k.id, &action, e);
    if (r == 0)
        r = q(c, NULL, e,
              "INSERT INTO checkpointfs.checkpoints (id, uid, line_id, name, taken_name, seq, phase, isolated_id, taken_on)"
              " VALUES ($1, $2, $3, $4, $4, $5, 'taking', $6, $6)",
              "isisii", k.id, uid, a->line_id, a->name, action, a->isolated);
    if (r == 0)
        r = journal(c, a, &k, action, e);
    a->ret_checkpoint = k.id;
    a->ret_action = action;
    return r;
}

int store_take_begin(struct store *s, int64_t line_id, int64_t mount_id, const char *name, const struct store_who *who,
                     int64_t *ret_checkpoint, int64_t *ret_action, struct err *e)
{
    return store_take_begin_on(s, line_id, mount_id, 0, name, who, ret_checkpoint, ret_action, e);
}

int store_take_begin_on(struct store *s, int64_t line_id, int64_t mount_id, int64_t isolated, const char *name, const struct store_who *who,
                        int64_t *ret_checkpoint, int64_t *ret_action, struct err *e)
{
    struct take_args a = {.line_id = line_id, .mount_id = mount_id, .isolated = isolated, .name = name, .who = who};
    int r = store_tx(s, TX_BOUNDED, begin_fn, &a, e);

    if (r == 0) {
        *ret_checkpoint = a.ret_checkpoint;
        *ret_action = a.ret_action;
    }
    return r;
}

static int again_fn(struct conn *c, void *arg, struct err *e)
{
    struct take_args *a = arg;
    cleanup_ck struct ck_row k = {0};
    int64_t unused = 0;
    int64_t action = 0;
    int r = ck_lock(c, a->checkpoint, &k, e);

    a->stale = false;

    if (r == 0 && k.phase != PHASE_FAILED)
        r = err_set(e, EINVAL, "%s is no failed take", k.name);
    if (r == 0 && k.offline_by) {
        a->stale = true;
        return q(c, NULL, e, "UPDATE checkpointfs.checkpoints SET offline_by = 0 WHERE id = $1", "i", k.id);
    }
    if (r == 0)
        r = database_free(c, k.line_id, k.isolated, e);
    if (r == 0)
        r = next_ids(c, &unused, &action, e);
    /* the database is captured now, not when the first try was: it comes after every restore since */
    if (r == 0)
        r = q(c, NULL, e,
              "UPDATE checkpointfs.checkpoints SET phase = 'taking', note = NULL, seq = $2, offline_by = 0, closed = false,"
              " snapshot_id = NULL, snapshot_name = NULL, snapshot_branch = NULL, missing = false, "
              " changed_at = checkpointfs.now_ns() WHERE id = $1",
              "ii", k.id, action);
    a->ret_action = action;
    return r ? r : journal(c, a, &k, action, e);
}

int store_take_again(struct store *s, int64_t checkpoint, int64_t mount_id, const struct store_who *who, int64_t *ret_action,
                     struct err *e)
{
    struct take_args a = {.checkpoint = checkpoint, .mount_id = mount_id, .who = who};
    int r = store_tx(s, TX_BOUNDED, again_fn, &a, e);

    if (r == 0 && a.stale)
        return err_set(e, ESTALE, "a restore replaced the database since this directory was made: the two would be no pair; open it "
                       "again to begin anew");
    if (r == 0)
        *ret_action = a.ret_action;
    return r;
}

/* It was found to be a copy while the snapshot was being taken: the same reason again. */
static int failed_meanwhile(struct conn *c, int64_t checkpoint, struct err *e)
{
    cleanup_result PGresult *res = NULL;
    int r = q(c, &res, e, "SELECT note FROM checkpointfs.checkpoints WHERE id = $1", "i", checkpoint);

    return r ? r : err_set(e, EPERM, "%s", PQntuples(res) && col_text(res, 0, 0) ? col_text(res, 0, 0) : "the take failed meanwhile");
}

static int settled_fn(struct conn *c, void *arg, struct err *e)
{
    const struct take_args *a = arg;
    cleanup_act struct act_row act = {0};
    cleanup_ck struct ck_row k = {0};
    struct event ev = {.what = "checkpoint.created"};
    cleanup_json json_t *more = json_pack("{s:o*, s:o*}", "snapshot", json_text(a->snap->id), "branch",
                                          json_text(a->snap->branch_id));
    int r = act_lock(c, a->action, &act, e);

    if (r == 0 && act_settled(&act))
        r = err_set(e, EALREADY, "the take was settled before");
    if (r == 0)
        r = ck_read(c, act.checkpoint, &k, e);
    if (r == 0 && k.phase != PHASE_TAKING)
        r = failed_meanwhile(c, k.id, e);
    if (r == 0)
        r = snapshot_put(c, k.id, a->snap, e);
    if (r == 0)
        r = q(c, NULL, e, "UPDATE checkpointfs.checkpoints SET phase = 'saved', note = NULL WHERE id = $1", "i", k.id);
    if (r == 0)
        r = file_put(c, k.id, FILE_SNAPSHOT, a->snapshot_json->data, a->snapshot_json->len, e);
    if (r == 0)
        r = file_put(c, k.id, FILE_CHECKPOINT, a->checkpoint_json->data, a->checkpoint_json->len, e);
    if (r == 0 && a->doc)
        r = act_doc(c, act.id, k.id, 0, a->doc, true, e);
    if (r == 0)
        r = act_settle(c, act.id, ACTION_DONE, 0, NULL, e);
    if (r)
        return r;
    event_about(&ev, &act, &k);
    ev.more = more;
    return event_append(c, &ev, e);
}

int store_take_settled(struct store *s, int64_t action, const struct store_snapshot *snap, const struct buf *snapshot_json,
                       const struct buf *checkpoint_json, const char *doc, struct err *e)
{
    struct take_args a = {.action = action, .snap = snap, .snapshot_json = snapshot_json, .checkpoint_json = checkpoint_json,
                          .doc = doc};

    return store_tx(s, TX_WRITE, settled_fn, &a, e);
}

/* Settles the take's action; one that a restore failed in the queue has been told to the log already. */
static int fail_action(struct conn *c, const struct take_args *a, struct act_row *act, bool *ret_told, struct err *e)
{
    int r = act_lock(c, a->action, act, e);

    if (r)
        return r;
    if (act_settled(act) && act->state != ACTION_FAILED)
        return err_set(e, EALREADY, "the take was settled before");
    *ret_told = act->state == ACTION_FAILED;
    if (a->doc)
        r = act_doc(c, act->id, a->checkpoint, 0, a->doc, true, e);
    return r || *ret_told ? r : act_settle(c, act->id, ACTION_FAILED, a->code, a->note, e);
}

/* The snapshot of a take that was over is given back by an action of its own, journalled together with the failure: whoever is killed
 * behind this leaves it to the next mount. Its take's row says that the snapshot belongs to nothing any more (store_leftover), also when
 * Neon refuses to delete it and the checkpoint is removed. */
static int give_back(struct conn *c, struct take_args *a, const struct ck_row *k, struct err *e)
{
    cleanup_free char *by = who_json(a->who);
    cleanup_free char *uid = NULL;
    cleanup_free char *sql = str_format("%sWHERE id = $1", act_columns);
    cleanup_result PGresult *res = NULL;
    struct act_new n = {.kind = ACTION_DELETE, .state = ACTION_QUEUED, .line_id = k->line_id, .checkpoint = k->id,
                        .command = DISCARD_COMMAND, .by = by, .waiting = true};
    struct event ev = {.what = "delete.started", .line_id = k->line_id, .checkpoint = k->id, .uid = k->uid, .name = k->name, .by = by};
    int64_t id = 0;
    int r = by && sql ? act_insert(c, &n, &id, &uid, e) : err_set(e, ENOMEM, "out of memory");

    if (r == 0) /* the checkpoint's place is the number of its take */
        r = q(c, NULL, e, "UPDATE checkpointfs.actions SET step = 'given back', changed_at = checkpointfs.now_ns() WHERE id = $1"
              " AND kind = 'take'", "i", k->seq);
    if (r == 0)
        r = q(c, &res, e, sql, "i", id);
    store_action_free(&a->discard);
    if (r == 0)
        r = act_read(res, 0, &a->discard, e);
    ev.action = uid;
    return r ? r : event_append(c, &ev, e);
}

static int failed_fn(struct conn *c, void *arg, struct err *e)
{
    struct take_args *a = arg;
    cleanup_act struct act_row act = {0};
    cleanup_ck struct ck_row k = {0};
    bool told = false;
    cleanup_free char *by = a->who ? who_json(a->who) : NULL;
    struct event ev = {.what = "checkpoint.failed"};
    int r = a->who && !by ? err_set(e, ENOMEM, "out of memory") : ck_lock(c, a->checkpoint, &k, e);

    if (r == 0 && a->action)
        r = fail_action(c, a, &act, &told, e);
    if (r == 0 && !a->action)
        r = ck_idle(c, &k, false, e);
    if (r == 0 && a->action && k.phase != PHASE_TAKING && k.phase != PHASE_FAILED)
        r = err_set(e, EALREADY, "the take of %s was settled before", k.name);
    if (r == 0)
        r = checkpoint_empty(c, k.id, e);
    if (r == 0)
        r = q(c, NULL, e, "UPDATE checkpointfs.checkpoints SET phase = 'failed', note = $2 WHERE id = $1", "is", k.id, a->note);
    if (r)
        return r;
    if (told)
        return notify_change(c, k.id, e);
    event_about(&ev, &act, &k);
    if (by)
        ev.by = by;
    ev.code = a->code;
    ev.message = a->note;
    r = event_append(c, &ev, e);
    return r == 0 && a->copy && (k.phase == PHASE_SAVED || k.phase == PHASE_SEALED) ? give_back(c, a, &k, e) : r;
}

int store_take_failed(struct store *s, int64_t checkpoint, int64_t action, int code, const char *note, const char *doc,
                      struct err *e)
{
    struct take_args a = {.checkpoint = checkpoint, .action = action, .code = code, .note = note, .doc = doc};

    return store_tx(s, TX_WRITE, failed_fn, &a, e);
}

int store_take_is_copy(struct store *s, int64_t checkpoint, int code, const char *note, const struct store_who *who,
                       struct store_action *ret, struct err *e)
{
    struct take_args a = {.checkpoint = checkpoint, .code = code, .note = note, .who = who, .copy = true};
    int r = store_tx(s, TX_WRITE, failed_fn, &a, e);

    if (r)
        store_action_free(&a.discard);
    else
        *ret = a.discard;
    return r;
}
