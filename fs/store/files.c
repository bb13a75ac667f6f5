/* Bytes: rendered files, chunks of a sealed state, calls' files, documents; and taking them all away. */
#include "store_i.h"

#include <errno.h>
#include <string.h>

#include "util/text.h"

static const char *const file_kinds[FILE_COUNT] = {
    [FILE_SNAPSHOT] = "snapshot", [FILE_CHECKPOINT] = "checkpoint", [FILE_TRANSCRIPT] = "transcript", [FILE_META] = "meta"};

int file_put(struct conn *c, int64_t checkpoint, enum store_file file, const void *bytes, size_t n, struct err *e)
{
    const char *kind = file_kinds[file];
    cleanup_free char *sql = str_format("UPDATE checkpointfs.checkpoints SET %s_bytes = $2, %s_at = checkpointfs.now_ns(),"
                                        " changed_at = checkpointfs.now_ns() WHERE id = $1", kind, kind);
    int r = sql ? 0 : err_set(e, ENOMEM, "out of memory");

    if (r == 0)
        r = q(c, NULL, e,
              "INSERT INTO checkpointfs.files (checkpoint_id, kind, bytes) VALUES ($1, $2, $3)"
              " ON CONFLICT (checkpoint_id, kind) DO UPDATE SET bytes = excluded.bytes",
              "isy", checkpoint, kind, bytes ? bytes : "", n);
    return r ? r : q(c, NULL, e, sql, "ii", checkpoint, (int64_t)n);
}

int snapshot_put(struct conn *c, int64_t checkpoint, const struct store_snapshot *snap, struct err *e)
{
    return q(c, NULL, e,
             "UPDATE checkpointfs.checkpoints SET snapshot_id = coalesce($2, snapshot_id), snapshot_name = coalesce($3,"
             " snapshot_name), snapshot_project = coalesce($4, snapshot_project),"
             " snapshot_branch = coalesce($5, snapshot_branch), requested_at = $6, captured_at = $7,"
             " lsn = $8, expires_at = $9, full_size = $10, diff_size = $11, missing = $12,"
             " changed_at = checkpointfs.now_ns() WHERE id = $1",
             "issssiisiiib", checkpoint, snap->id, snap->name, snap->project_id, snap->branch_id, snap->requested_at,
             snap->captured_at, snap->lsn, snap->expires_at, snap->full_size, snap->diff_size, (int)snap->missing);
}

int checkpoint_empty(struct conn *c, int64_t checkpoint, struct err *e)
{
    static const char *const statements[] = {
        "DELETE FROM checkpointfs.state_chunks WHERE checkpoint_id = $1",
        "DELETE FROM checkpointfs.state_parts WHERE checkpoint_id = $1",
        "DELETE FROM checkpointfs.output_parts WHERE checkpoint_id = $1",
        "DELETE FROM checkpointfs.outputs WHERE checkpoint_id = $1",
        "DELETE FROM checkpointfs.files WHERE checkpoint_id = $1",
        "DELETE FROM checkpointfs.calls WHERE checkpoint_id = $1",
        "DELETE FROM checkpointfs.states WHERE checkpoint_id = $1",
        "UPDATE checkpointfs.checkpoints SET attempt_id = 0, outcome = NULL, activity = NULL, run_id = NULL, partial_ok = false,"
        " waits_input = false, sealed_at = 0, state_size = -1, snapshot_bytes = -1, snapshot_at = 0, checkpoint_bytes = -1,"
        " checkpoint_at = 0, transcript_bytes = -1, transcript_at = 0, meta_bytes = -1, meta_at = 0,"
        " changed_at = checkpointfs.now_ns() WHERE id = $1",
    };
    int r = 0;

    for (size_t i = 0; i < sizeof(statements) / sizeof(statements[0]) && r == 0; i++)
        r = q(c, NULL, e, statements[i], "i", checkpoint);
    return r;
}

int checkpoint_remove(struct conn *c, int64_t checkpoint, struct err *e)
{
    int r = checkpoint_empty(c, checkpoint, e);

    return r ? r : q(c, NULL, e, "DELETE FROM checkpointfs.checkpoints WHERE id = $1", "i", checkpoint);
}

/* ---- reading --------------------------------------------------------------------------------------------------------- */

struct read_args {
    int64_t id;
    int64_t off;
    size_t n;
    const char *what;
    const char *sql;
    struct buf *out;
};

static int state_fn(struct conn *c, void *arg, struct err *e)
{
    const struct read_args *a = arg;
    int64_t first = a->off / STORE_CHUNK;
    int64_t last = (a->off + (int64_t)a->n - 1) / STORE_CHUNK;
    cleanup_result PGresult *res = NULL;
    int r = q(c, &res, e,
              "SELECT substring(bytes FROM (greatest($4 - n::bigint * $6, 0) + 1)::int FOR"
              " (least($4 + $5 - n::bigint * $6, $6) - greatest($4 - n::bigint * $6, 0))::int)"
              " FROM checkpointfs.state_chunks WHERE checkpoint_id = $1 AND n BETWEEN $2 AND $3 ORDER BY n",
              "iiiiii", a->id, first, last, a->off, (int64_t)a->n, (int64_t)STORE_CHUNK);

    if (r)
        return r;
    for (int i = 0; i < PQntuples(res); i++)
        col_bytes(res, i, 0, a->out);
    return buf_error(a->out) ? err_set(e, ENOMEM, "out of memory") : 0;
}

int store_read_state(struct store *s, int64_t checkpoint, int64_t off, size_t n, struct buf *ret, struct err *e)
{
    struct read_args a = {.id = checkpoint, .off = off, .n = n, .out = ret};

    return n ? store_tx(s, TX_ONE_READ, state_fn, &a, e) : 0;
}

static int whole_fn(struct conn *c, void *arg, struct err *e)
{
    const struct read_args *a = arg;

    return q_bytes(c, a->out, e, a->what, a->sql, a->id);
}

static int read_whole(struct store *s, enum tx_mode mode, const char *what, const char *sql, int64_t id, struct buf *ret, struct err *e)
{
    struct read_args a = {.id = id, .what = what, .sql = sql, .out = ret};

    return store_tx(s, mode, whole_fn, &a, e);
}

int store_read_file(struct store *s, int64_t checkpoint, enum store_file file, struct buf *ret, struct err *e)
{
    static const struct { const char *what; const char *sql; } table[FILE_COUNT] = {
        [FILE_SNAPSHOT] = {"snapshot.json",
                           "SELECT bytes FROM checkpointfs.files WHERE checkpoint_id = $1 AND kind = 'snapshot'"},
        [FILE_CHECKPOINT] = {"checkpoint.json",
                             "SELECT bytes FROM checkpointfs.files WHERE checkpoint_id = $1 AND kind = 'checkpoint'"},
        [FILE_TRANSCRIPT] = {"transcript.md",
                             "SELECT bytes FROM checkpointfs.files WHERE checkpoint_id = $1 AND kind = 'transcript'"},
        [FILE_META] = {"meta.json", "SELECT bytes FROM checkpointfs.files WHERE checkpoint_id = $1 AND kind = 'meta'"},
        [FILE_RESULT] = {"result",
                         "SELECT a.doc FROM checkpointfs.checkpoints k JOIN checkpointfs.actions a ON a.id = k.result_action"
                                   " WHERE k.id = $1"},
    };

    if (!table[file].sql)
        return err_set(e, EINVAL, "not a file that is read whole");
    /* meta.json is also read while the kernel holds its directory's lock: when something is renamed onto it, or it away. */
    return read_whole(s, file == FILE_META ? TX_BOUNDED : TX_ONE_READ, table[file].what, table[file].sql, checkpoint, ret, e);
}

int store_read_call(struct store *s, int64_t call, struct buf *ret, struct err *e)
{
    return read_whole(s, TX_ONE_READ, "the call", "SELECT file FROM checkpointfs.calls WHERE id = $1", call, ret, e);
}

int store_read_action(struct store *s, int64_t action, struct buf *ret, struct err *e)
{
    return read_whole(s, TX_ONE_READ, "the action", "SELECT doc FROM checkpointfs.actions WHERE id = $1", action, ret, e);
}

int store_read_envelope(struct store *s, int64_t checkpoint, struct buf *ret, struct err *e)
{
    return read_whole(s, TX_ONE_READ, "the envelope", "SELECT envelope::text FROM checkpointfs.states WHERE checkpoint_id = $1", checkpoint,
                      ret, e);
}
