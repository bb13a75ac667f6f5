/* A state under way: every write and every cut is a row, in the order they came; read together they are the file. */
#include "store_i.h"

#include <errno.h>
#include <string.h>

#include "util/text.h"

#define BATCH 64

struct part_args {
    int64_t checkpoint;
    int64_t off;
    const void *bytes;
    size_t n;
    const char *note;
    struct buf *out;
};

static int too_long(struct err *e)
{
    return err_set(e, EFBIG, "a state may have %lld MiB at most", STORE_STATE_MAX >> 20);
}

/* Why a checkpoint takes no bytes. */
static int refused(struct conn *c, int64_t checkpoint, struct err *e)
{
    cleanup_ck struct ck_row k = {0};
    int r = ck_read(c, checkpoint, &k, e);

    if (r)
        return r;
    if (k.closed)
        return err_set(e, EINVAL, "%s was restored as database only: it takes no state any more", k.name);
    if (k.phase == PHASE_SEALED)
        return err_set(e, EINVAL, "%s is sealed", k.name);
    return err_set(e, EINVAL, "the take of %s failed", k.name);
}

#define OPEN_FOR_WRITING                                                                                                         \
    " FROM checkpointfs.checkpoints WHERE id = $1 AND phase IN ('taking', 'saved') AND NOT closed"                               \
    " AND set_config('synchronous_commit', 'off', true) = 'off'"

static int write_fn(struct conn *c, void *arg, struct err *e)
{
    const struct part_args *a = arg;
    cleanup_result PGresult *res = NULL;
    int r = q(c, &res, e, "INSERT INTO checkpointfs.state_parts (checkpoint_id, off, bytes) SELECT id, $2, $3" OPEN_FOR_WRITING,
              "iiy", a->checkpoint, a->off, a->bytes, a->n);

    return r || affected(res) ? r : refused(c, a->checkpoint, e);
}

int store_state_write(struct store *s, int64_t checkpoint, int64_t off, const void *bytes, size_t n, struct err *e)
{
    struct part_args a = {.checkpoint = checkpoint, .off = off, .bytes = bytes, .n = n};

    if (off < 0 || off > STORE_STATE_MAX || (int64_t)n > STORE_STATE_MAX - off)
        return too_long(e);
    return n ? store_tx(s, TX_ONE, write_fn, &a, e) : 0;
}

static int truncate_fn(struct conn *c, void *arg, struct err *e)
{
    const struct part_args *a = arg;
    cleanup_result PGresult *res = NULL;
    int r = 0;

    if (a->off == 0) /* nothing of what was written is left: so it needn't be kept */
        r = q(c, NULL, e, "DELETE FROM checkpointfs.state_parts WHERE checkpoint_id = $1", "i", a->checkpoint);
    if (r == 0)
        r = q(c, &res, e, "INSERT INTO checkpointfs.state_parts (checkpoint_id, off) SELECT id, $2" OPEN_FOR_WRITING, "ii",
              a->checkpoint, a->off);
    return r || affected(res) ? r : refused(c, a->checkpoint, e);
}

int store_state_truncate(struct store *s, int64_t checkpoint, int64_t size, struct err *e)
{
    struct part_args a = {.checkpoint = checkpoint, .off = size};

    if (size < 0 || size > STORE_STATE_MAX)
        return too_long(e);
    return store_tx(s, TX_BOUNDED, truncate_fn, &a, e);
}

static int extend(struct buf *b, size_t size)
{
    if (size > b->len) {
        size_t more = size - b->len;
        char *room = buf_room(b, more);

        if (!room)
            return -ENOMEM;
        memset(room, 0, more);
        buf_grown(b, more);
    }
    return 0;
}

/* Puts one write, or one cut, into the bytes so far. */
static int apply(struct buf *b, const PGresult *res, int row)
{
    size_t off = (size_t)col_int(res, row, 1);
    size_t n = (size_t)PQgetlength(res, row, 2);
    size_t over;

    if (col_null(res, row, 2) && off < b->len) {
        buf_truncate(b, off);
        return 0;
    }
    if (extend(b, off))
        return -ENOMEM;
    if (col_null(res, row, 2))
        return 0;
    over = off + n < b->len ? n : b->len - off;
    if (over)
        memcpy(b->data + off, PQgetvalue(res, row, 2), over);
    buf_add(b, PQgetvalue(res, row, 2) + over, n - over);
    return buf_error(b);
}

static int assemble_fn(struct conn *c, void *arg, struct err *e)
{
    const struct part_args *a = arg;
    cleanup_buf struct buf b = {0};
    int64_t after = 0;
    int rows = BATCH;

    while (rows == BATCH) {
        cleanup_result PGresult *res = NULL;
        int r = q(c, &res, e,
                  "SELECT id, off, bytes FROM checkpointfs.state_parts WHERE checkpoint_id = $1 AND id > $2 ORDER BY id"
                  " LIMIT $3", "iii", a->checkpoint, after, (int64_t)BATCH);

        if (r)
            return r;
        rows = PQntuples(res);
        for (int i = 0; i < rows; i++) {
            if (apply(&b, res, i))
                return err_set(e, ENOMEM, "out of memory");
            after = col_int(res, i, 0);
        }
    }
    buf_add(a->out, b.data, b.len);
    return buf_error(a->out) ? err_set(e, ENOMEM, "out of memory") : 0;
}

int store_state_assemble(struct store *s, int64_t checkpoint, struct buf *ret, struct err *e)
{
    struct part_args a = {.checkpoint = checkpoint, .out = ret};

    return store_tx(s, TX_READ_LONG, assemble_fn, &a, e);
}

static int note_fn(struct conn *c, void *arg, struct err *e)
{
    const struct part_args *a = arg;
    cleanup_result PGresult *res = NULL;
    int r = q(c, &res, e,
              "UPDATE checkpointfs.checkpoints SET note = $2, changed_at = checkpointfs.now_ns() WHERE id = $1"
              " AND phase IN ('taking', 'saved')",
              "is", a->checkpoint, a->note);

    if (r == 0 && affected(res) == 0)
        return refused(c, a->checkpoint, e);
    return r ? r : notify_change(c, a->checkpoint, e);
}

int store_state_note(struct store *s, int64_t checkpoint, const char *note, struct err *e)
{
    struct part_args a = {.checkpoint = checkpoint, .note = note};

    return store_tx(s, TX_WRITE, note_fn, &a, e);
}
