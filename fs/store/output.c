/* What an agent printed: appended by its offset in the whole; once that is too long the middle is neither shown nor kept, and a
 * line says so in its place. */
#include "store_i.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define HALF (STORE_OUTPUT_MAX / 2)
#define TRIM_STEP (1LL << 20)
#define GAP_LINE_MAX 80

struct output_args {
    int64_t checkpoint, isolated;
    const void *bytes;
    int64_t off;
    size_t n;
    struct buf *out;
};

/* The line in place of the middle; its length. */
static int gap_line(int64_t total, char line[GAP_LINE_MAX])
{
    return snprintf(line, GAP_LINE_MAX, "\n[checkpointfs: %lld bytes are left out here]\n", (long long)(total - STORE_OUTPUT_MAX));
}

int64_t output_shown(int64_t total)
{
    char line[GAP_LINE_MAX];

    return total > STORE_OUTPUT_MAX ? STORE_OUTPUT_MAX + gap_line(total, line) : total;
}

static int reset_fn(struct conn *c, void *arg, struct err *e)
{
    const struct output_args *a = arg;
    cleanup_result PGresult *res = NULL;
    int r = q(c, &res, e,
              "INSERT INTO checkpointfs.outputs (checkpoint_id, isolated_id, total, changed_at) SELECT id, $2, 0, checkpointfs.now_ns()"
              " FROM checkpointfs.checkpoints WHERE id = $1 ON CONFLICT (checkpoint_id, isolated_id) DO UPDATE SET total = 0,"
              " changed_at = checkpointfs.now_ns()",
              "ii", a->checkpoint, a->isolated);

    if (r == 0 && affected(res) == 0)
        return err_set(e, ENOENT, "the checkpoint is no longer in the store");
    if (r == 0)
        r = q(c, NULL, e, "DELETE FROM checkpointfs.output_parts WHERE checkpoint_id = $1 AND isolated_id = $2", "ii", a->checkpoint,
              a->isolated);
    return r ? r : notify_change(c, a->checkpoint, e);
}

int store_output_reset(struct store *s, int64_t checkpoint, int64_t isolated, struct err *e)
{
    struct output_args a = {.checkpoint = checkpoint, .isolated = isolated};

    return store_tx(s, TX_WRITE, reset_fn, &a, e);
}

static int append_fn(struct conn *c, void *arg, struct err *e)
{
    const struct output_args *a = arg;
    cleanup_result PGresult *res = NULL;
    int64_t total;
    int r = q(c, &res, e,
              "WITH o AS (INSERT INTO checkpointfs.outputs AS x (checkpoint_id, isolated_id, total, changed_at) SELECT id, $4, $2,"
              " checkpointfs.now_ns() FROM checkpointfs.checkpoints WHERE id = $1"
              " AND set_config('synchronous_commit', 'off', true) = 'off'"
              " ON CONFLICT (checkpoint_id, isolated_id) DO UPDATE SET total = x.total + $2, changed_at = checkpointfs.now_ns()"
              " RETURNING total), p AS (INSERT INTO checkpointfs.output_parts (checkpoint_id, isolated_id, off, bytes)"
              " SELECT $1, $4, total - $2, $3 FROM o) SELECT total FROM o",
              "iiyi", a->checkpoint, (int64_t)a->n, a->bytes, a->n, a->isolated);

    if (r)
        return r;
    if (PQntuples(res) == 0)
        return err_set(e, ENOENT, "the checkpoint is no longer in the store");
    r = notify_change(c, a->checkpoint, e);
    if (r)
        return r;
    total = col_int(res, 0, 0);
    if (total <= STORE_OUTPUT_MAX || total / TRIM_STEP == (total - (int64_t)a->n) / TRIM_STEP)
        return 0;
    return q(c, NULL, e,
             "DELETE FROM checkpointfs.output_parts WHERE checkpoint_id = $1 AND isolated_id = $4 AND off >= $2 AND off < $3 - $2"
             " AND off + octet_length(bytes) <= $3 - $2",
             "iiii", a->checkpoint, HALF, total, a->isolated);
}

int store_output_append(struct store *s, int64_t checkpoint, int64_t isolated, const void *bytes, size_t n, struct err *e)
{
    struct output_args a = {.checkpoint = checkpoint, .isolated = isolated, .bytes = bytes, .n = n};

    return n ? store_tx(s, TX_WRITE, append_fn, &a, e) : 0;
}

/* Appends the bytes [from, to) of the whole. */
static int read_range(struct conn *c, const struct output_args *of, int64_t from, int64_t to, struct buf *out, struct err *e)
{
    cleanup_result PGresult *res = NULL;
    int r;

    if (from >= to)
        return 0;
    r = q(c, &res, e,
          "SELECT off, bytes FROM checkpointfs.output_parts WHERE checkpoint_id = $1 AND isolated_id = $4 AND off < $3 AND off >="
          " coalesce((SELECT max(off) FROM checkpointfs.output_parts WHERE checkpoint_id = $1 AND isolated_id = $4 AND off <= $2), 0)"
          " ORDER BY off",
          "iiii", of->checkpoint, from, to, of->isolated);
    if (r)
        return r;
    for (int i = 0; i < PQntuples(res); i++) {
        int64_t start = col_int(res, i, 0);
        int64_t stop = start + PQgetlength(res, i, 1);
        int64_t a = start > from ? start : from;
        int64_t b = stop < to ? stop : to;

        if (a < b)
            buf_add(out, PQgetvalue(res, i, 1) + (a - start), (size_t)(b - a));
    }
    return buf_error(out) ? err_set(e, ENOMEM, "out of memory") : 0;
}

/* The bytes [from, to) of what is shown of an output whose middle is gone: a half, the line, a half. */
static int read_around_gap(struct conn *c, const struct output_args *of, int64_t total, int64_t from, int64_t to, struct buf *out,
                           struct err *e)
{
    char line[GAP_LINE_MAX];
    int64_t second = HALF + gap_line(total, line); /* where the last half begins */
    int64_t moved = total - HALF - second;
    int64_t a = from > HALF ? from : HALF;
    int64_t b = to < second ? to : second;
    int r = read_range(c, of, from, to < HALF ? to : HALF, out, e);

    if (r == 0 && a < b)
        buf_add(out, line + (a - HALF), (size_t)(b - a));
    if (r == 0)
        r = read_range(c, of, (from > second ? from : second) + moved, (to < second + HALF ? to : second + HALF) + moved, out, e);
    return r;
}

static int read_fn(struct conn *c, void *arg, struct err *e)
{
    const struct output_args *a = arg;
    cleanup_result PGresult *res = NULL;
    size_t before = a->out->len;
    int64_t end = a->off + (int64_t)a->n;
    int64_t total;
    int r = q(c, &res, e, "SELECT total FROM checkpointfs.outputs WHERE checkpoint_id = $1 AND isolated_id = $2", "ii", a->checkpoint,
              a->isolated);

    if (r || PQntuples(res) == 0)
        return r;
    total = col_int(res, 0, 0);
    r = total > STORE_OUTPUT_MAX ? read_around_gap(c, a, total, a->off, end, a->out, e)
                                 : read_range(c, a, a->off, end < total ? end : total, a->out, e);
    if (r)
        buf_truncate(a->out, before); /* the call may be run again */
    return r;
}

int store_read_output(struct store *s, int64_t checkpoint, int64_t isolated, int64_t off, size_t n, struct buf *ret, struct err *e)
{
    struct output_args a = {.checkpoint = checkpoint, .isolated = isolated, .off = off, .n = n, .out = ret};

    return n ? store_tx(s, TX_READ, read_fn, &a, e) : 0;
}
