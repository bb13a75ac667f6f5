/* Checkpoints that come from a copy in .import/: registered whole in one transaction, off line until they are restored. */
#include "store_i.h"

#include <errno.h>
#include <string.h>

#include "util/hash.h"
#include "util/text.h"

/* Numbers of copies: milliseconds of their capture, below those of all that was taken here. */
#define SEQ_RANGE (1LL << 42)
#define SEQ_TRIES 10000

struct import_args {
    const struct store_import *i;
    const struct store_who *who;
    int64_t checkpoint;
    int64_t action;
    int64_t isolated; /* the isolated branch that it belongs to; 0 = none */
};

static int not_here(struct conn *c, const struct store_import *i, struct err *e)
{
    cleanup_result PGresult *res = NULL;
    cleanup_result PGresult *named = NULL;
    int r = q(c, &res, e, "SELECT name, line_id FROM checkpointfs.checkpoints WHERE uid = $1", "s", i->uid);

    if (r == 0 && PQntuples(res) > 0)
        return col_int(res, 0, 1) == i->line_id
                   ? err_set(e, EEXIST, "%s is already here as %s", i->uid, col_text(res, 0, 0))
                   : err_set(e, EEXIST, "%s is already in this store, as %s of another line", i->uid, col_text(res, 0, 0));
    if (r == 0)
        r = q(c, &named, e, "SELECT 1 FROM checkpointfs.checkpoints WHERE line_id = $1 AND name = $2", "is", i->line_id, i->name);
    if (r == 0 && PQntuples(named) > 0)
        r = err_set(e, EEXIST, "there is a checkpoint called %s already", i->name);
    return r;
}

/* The bytes first and without the line's lock: nobody else waits for them. */
static int put_bytes(struct conn *c, struct import_args *a, struct err *e)
{
    cleanup_result PGresult *res = NULL;
    int r = q(c, &res, e, "SELECT nextval('checkpointfs.checkpoints_id_seq'), nextval('checkpointfs.actions_id_seq')", "");

    if (r)
        return r;
    a->checkpoint = col_int(res, 0, 0);
    a->action = col_int(res, 0, 1);
    if (!a->i->seal)
        return 0;
    r = seal_chunks(c, a->checkpoint, a->i->seal, e);
    return r ? r : seal_verify(c, a->checkpoint, a->i->seal, e);
}

/* Nobody knows where it belongs among what was taken here: before all of it; among copies, by the time of their capture. */
static int sequence(struct conn *c, const struct import_args *a, int64_t *ret, struct err *e)
{
    const struct store_import *i = a->i;
    int64_t ms = (i->snapshot->captured_at ? i->snapshot->captured_at : i->created_at) / 1000000;
    int64_t wanted = (ms < 0 ? 0 : ms > SEQ_RANGE - SEQ_TRIES ? SEQ_RANGE - SEQ_TRIES : ms) - SEQ_RANGE;
    cleanup_result PGresult *res = NULL;
    int r = q(c, &res, e,
              "SELECT s FROM generate_series($2::bigint, $2::bigint + $3::bigint - 1) s WHERE NOT EXISTS (SELECT 1 FROM"
              " checkpointfs.checkpoints WHERE line_id = $1 AND seq = s) LIMIT 1",
              "iii", i->line_id, wanted, (int64_t)SEQ_TRIES);

    if (r == 0)
        *ret = PQntuples(res) ? col_int(res, 0, 0) : -a->action;
    return r;
}

/* The isolated branch whose database the snapshot holds, 0 = none that is known here: by the branch it was taken of, by another checkpoint
 * that stands on it, or else by the parent. A copy must not be a way round what holds for the original. */
static int isolated_of(struct conn *c, const struct store_import *i, int64_t *ret, struct err *e)
{
    const struct store_snapshot *s = i->snapshot;
    cleanup_result PGresult *res = NULL;
    int r = !s->id ? 0 : q(c, &res, e,
              "SELECT coalesce((SELECT id FROM checkpointfs.isolated_branches WHERE line_id = $1 AND branch_id = $2"
              "  AND state <> 'promoted' LIMIT 1),"
              " (SELECT isolated_id FROM checkpointfs.checkpoints WHERE line_id = $1 AND snapshot_id = $3 AND snapshot_project = $4"
              "  ORDER BY id LIMIT 1),"
              " (SELECT isolated_id FROM checkpointfs.checkpoints WHERE line_id = $1 AND uid = $5 AND $2::text IS NULL), 0)",
              "issss", i->line_id, s->branch_id, s->id, s->project_id, i->fork_of ? i->fork_of : i->seal ? i->seal->parent : NULL);

    *ret = r == 0 && res ? col_int(res, 0, 0) : 0;
    return r;
}

static int insert(struct conn *c, struct import_args *a, struct err *e)
{
    const struct store_import *i = a->i;
    int64_t seq = 0;
    int r = sequence(c, a, &seq, e);

    if (r == 0)
        r = isolated_of(c, i, &a->isolated, e);
    return r ? r : q(c, NULL, e,
             "INSERT INTO checkpointfs.checkpoints (id, uid, line_id, name, taken_name, seq, phase, closed, offline_by, created_at,"
             " isolated_id, taken_on) VALUES ($1, $2, $3, $4, $5, $6, 'saved', $7, $8, $9, $10, $10)",
             "isissibiii", a->checkpoint, i->uid, i->line_id, i->name, i->taken_name, seq, (int)!i->seal, a->action, i->created_at,
             a->isolated);
}

static int put_files(struct conn *c, const struct import_args *a, struct err *e)
{
    const struct store_import *i = a->i;
    int64_t attempt = 0;
    int r = 0;

    if (i->snapshot_json) {
        r = snapshot_put(c, a->checkpoint, i->snapshot, e);
        if (r == 0)
            r = file_put(c, a->checkpoint, FILE_SNAPSHOT, i->snapshot_json->data, i->snapshot_json->len, e);
    }
    if (r == 0 && i->meta)
        r = file_put(c, a->checkpoint, FILE_META, i->meta->data, i->meta->len, e);
    if (r)
        return r;
    if (!i->seal)
        return file_put(c, a->checkpoint, FILE_CHECKPOINT, i->checkpoint_json->data, i->checkpoint_json->len, e);
    r = seal_put(c, a->checkpoint, i->seal, e);
    return r ? r : attempt_open(c, a->checkpoint, 0, 0, &attempt, e);
}

/* The times of what was copied, so that a backup of the mount finds the same files as the one that this came from. */
static int put_times(struct conn *c, const struct import_args *a, struct err *e)
{
    const struct store_import *i = a->i;

    return q(c, NULL, e,
             "UPDATE checkpointfs.checkpoints SET sealed_at = CASE WHEN phase = 'sealed' THEN $2 ELSE 0 END,"
             " snapshot_at = coalesce(nullif($3, 0), snapshot_at), checkpoint_at = coalesce(nullif($4, 0), checkpoint_at),"
             " transcript_at = coalesce(nullif($5, 0), transcript_at), meta_at = coalesce(nullif($6, 0), meta_at) WHERE id = $1",
             "iiiiii", a->checkpoint, i->sealed_at, i->mtimes[FILE_SNAPSHOT], i->mtimes[FILE_CHECKPOINT], i->mtimes[FILE_TRANSCRIPT],
             i->mtimes[FILE_META]);
}

static int journal(struct conn *c, const struct import_args *a, const char *by, struct err *e)
{
    const struct store_import *i = a->i;
    cleanup_free char *uid = NULL;
    cleanup_free char *doc = NULL;
    struct act_new n = {.id = a->action, .kind = ACTION_IMPORT, .state = ACTION_DONE, .line_id = i->line_id, .checkpoint = a->checkpoint,
                        .mount_id = i->mount_id, .command = i->command, .by = by};
    struct event ev = {.what = "checkpoint.imported", .line_id = i->line_id, .checkpoint = a->checkpoint, .uid = i->uid, .name = i->name,
                       .by = by};
    cleanup_json json_t *more = json_pack("{s:s, s:o*, s:o*, s:b}", "taken_as", i->taken_name, "parent",
                                          json_text(i->fork_of ? i->fork_of : i->seal ? i->seal->parent : NULL), "snapshot",
                                          json_text(i->snapshot->id), "snapshot_missing", (int)i->snapshot->missing);
    int r = more ? act_insert(c, &n, NULL, &uid, e) : err_set(e, ENOMEM, "out of memory");

    if (r)
        return r;
    if (i->fork_of && json_object_set_new(more, "fork", json_true()) < 0)
        return err_set(e, ENOMEM, "out of memory");
    if (i->seal && json_object_set_new(more, "sha256", json_string(i->seal->sha256)) < 0)
        return err_set(e, ENOMEM, "out of memory");
    doc = doc_with_id(a->isolated ? i->isolated_doc_without_id : i->doc_without_id, uid);
    r = doc ? act_doc(c, a->action, a->checkpoint, 0, doc, true, e) : err_set(e, ENOMEM, "out of memory");
    ev.action = uid;
    ev.more = more;
    return r ? r : event_append(c, &ev, e);
}

static int import_fn(struct conn *c, void *arg, struct err *e)
{
    struct import_args *a = arg;
    cleanup_free char *by = who_json(a->who);
    int r = by ? not_here(c, a->i, e) : err_set(e, ENOMEM, "out of memory");

    if (r == 0)
        r = put_bytes(c, a, e);
    if (r == 0)
        r = line_lock(c, a->i->line_id, e);
    if (r == 0)
        r = not_here(c, a->i, e);
    if (r == 0)
        r = insert(c, a, e);
    if (r == 0)
        r = put_files(c, a, e);
    if (r == 0)
        r = put_times(c, a, e);
    return r ? r : journal(c, a, by, e);
}

int store_import(struct store *s, const struct store_import *i, const struct store_who *who, int64_t *ret_checkpoint,
                 int64_t *ret_action, struct err *e)
{
    struct import_args a = {.i = i, .who = who};
    int r;

    if (i->seal && (int64_t)i->seal->n > STORE_STATE_MAX)
        return err_set(e, EFBIG, "a state may have %lld MiB at most", STORE_STATE_MAX >> 20);
    r = store_tx(s, i->seal && (int64_t)i->seal->n > STORE_IMPORT_SMALL ? TX_WRITE_LONG : TX_BOUNDED, import_fn, &a, e);
    if (r == 0) {
        *ret_checkpoint = a.checkpoint;
        *ret_action = a.action;
    }
    return r;
}

/* ---- whose snapshot it is --------------------------------------------------------------------------------------------- */

struct snapshot_args {
    int64_t checkpoint;
    const char *sql; /* has a row when it is so */
    bool is;
};

static int is_fn(struct conn *c, void *arg, struct err *e)
{
    struct snapshot_args *a = arg;
    cleanup_result PGresult *res = NULL;
    int r = q(c, &res, e, a->sql, "i", a->checkpoint);

    if (r == 0)
        a->is = PQntuples(res) > 0;
    return r;
}

static int ask(struct store *s, int64_t checkpoint, const char *sql, bool *ret, struct err *e)
{
    struct snapshot_args a = {.checkpoint = checkpoint, .sql = sql};
    int r = store_tx(s, TX_ONE_READ, is_fn, &a, e);

    if (r == 0)
        *ret = a.is;
    return r;
}

int store_snapshot_shared(struct store *s, int64_t checkpoint, bool *ret, struct err *e)
{
    return ask(s, checkpoint,
               "SELECT 1 FROM checkpointfs.checkpoints k JOIN checkpointfs.checkpoints o ON o.snapshot_id = k.snapshot_id"
               " AND o.snapshot_project = k.snapshot_project AND o.id <> k.id AND NOT o.missing WHERE k.id = $1 LIMIT 1",
               ret, e);
}

int store_snapshot_foreign(struct store *s, int64_t checkpoint, bool *ret, struct err *e)
{
    return ask(s, checkpoint,
               "SELECT 1 FROM checkpointfs.checkpoints k WHERE k.id = $1 AND NOT EXISTS (SELECT 1 FROM checkpointfs.line_branches b"
               " WHERE b.line_id = k.line_id AND b.branch_id = k.snapshot_branch) AND NOT EXISTS (SELECT 1 FROM"
               " checkpointfs.isolated_branches i WHERE i.line_id = k.line_id AND i.branch_id = k.snapshot_branch"
               " AND i.state = 'promoted')",
               ret, e);
}
