/* Bytes: rendered files, chunks of a sealed state, calls' files, documents; and taking them all away. */
#include "store_i.h"

#include <errno.h>
#include <string.h>

#include "util/clock.h"
#include "util/text.h"

static const char *const file_kinds[FILE_COUNT] = {
    [FILE_SNAPSHOT] = "snapshot", [FILE_CHECKPOINT] = "checkpoint", [FILE_TRANSCRIPT] = "transcript", [FILE_META] = "meta"};

/* When meta.json says that the snapshot is to expire, in whole seconds as Neon has them; 0 = never. */
static int64_t meta_expiry(const void *bytes, size_t n)
{
    cleanup_json json_t *meta = n ? json_loadb(bytes, n, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL) : NULL;
    const char *text = json_string_value(json_object_get(meta, "expires_at"));
    int64_t ns = 0;

    return text && clock_parse(text, &ns) == 0 ? ns - ns % 1000000000 : 0;
}

int chunks_put(struct conn *c, int64_t number, const void *bytes, size_t n, struct err *e)
{
    int64_t chunk = 0;
    int r = 0;

    for (size_t off = 0; off < n && r == 0; off += (size_t)STORE_CHUNK, chunk++) {
        size_t len = n - off < (size_t)STORE_CHUNK ? n - off : (size_t)STORE_CHUNK;

        r = q(c, NULL, e, "INSERT INTO checkpointfs.state_chunks (checkpoint_id, n, bytes) VALUES ($1, $2::int, $3)", "iiy", number, chunk,
              (const void *)((const char *)bytes + off), len);
    }
    return r;
}

/* Its size and time, by which it is shown. */
static int show(struct conn *c, int64_t checkpoint, const char *kind, size_t n, struct err *e)
{
    cleanup_free char *sql = str_format("UPDATE checkpointfs.checkpoints SET %s_bytes = $2, %s_at = checkpointfs.now_ns(),"
                                        " changed_at = checkpointfs.now_ns() WHERE id = $1", kind, kind);

    return sql ? q(c, NULL, e, sql, "ii", checkpoint, (int64_t)n) : err_set(e, ENOMEM, "out of memory");
}

int file_put(struct conn *c, int64_t checkpoint, enum store_file file, const void *bytes, size_t n, struct err *e)
{
    const char *kind = file_kinds[file];
    int r = q(c, NULL, e,
              "INSERT INTO checkpointfs.files (checkpoint_id, kind, bytes) VALUES ($1, $2, $3)"
              " ON CONFLICT (checkpoint_id, kind) DO UPDATE SET bytes = excluded.bytes",
              "isy", checkpoint, kind, bytes ? bytes : "", n);

    if (r == 0)
        r = show(c, checkpoint, kind, n, e);
    if (r == 0 && file == FILE_META)
        r = q(c, NULL, e, "UPDATE checkpointfs.checkpoints SET wanted_expiry = $2 WHERE id = $1 AND wanted_expiry <> $2", "ii", checkpoint,
              meta_expiry(bytes, n));
    return r;
}

int meta_is(struct conn *c, int64_t checkpoint, const struct buf *meta, struct err *e)
{
    cleanup_result PGresult *res = NULL;
    bool same;
    int r = q(c, &res, e, "SELECT bytes FROM checkpointfs.files WHERE checkpoint_id = $1 AND kind = 'meta'", "i", checkpoint);

    if (r)
        return r;
    if (PQntuples(res) == 0)
        same = !meta;
    else
        same = meta && (size_t)PQgetlength(res, 0, 0) == meta->len &&
               (meta->len == 0 || memcmp(PQgetvalue(res, 0, 0), meta->data, meta->len) == 0);
    return same ? 0 : err_set(e, EAGAIN, "meta.json changed meanwhile");
}

int transcript_put(struct conn *c, int64_t checkpoint, const struct buf *text, struct err *e)
{
    bool chunked = transcript_is_long(text);
    int r = file_put(c, checkpoint, FILE_TRANSCRIPT, chunked ? "" : text->data, chunked ? 0 : text->len, e);

    return r == 0 && chunked ? show(c, checkpoint, file_kinds[FILE_TRANSCRIPT], text->len, e) : r;
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
        "DELETE FROM checkpointfs.state_chunks WHERE checkpoint_id IN ($1, -$1)",
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
                             "SELECT CASE WHEN bytes <> '' THEN bytes ELSE coalesce((SELECT string_agg(bytes, '' ORDER BY n) FROM"
                             " checkpointfs.state_chunks WHERE checkpoint_id = -$1), '') END FROM checkpointfs.files"
                             " WHERE checkpoint_id = $1 AND kind = 'transcript'"},
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
