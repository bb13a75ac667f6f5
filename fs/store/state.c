/* A state under way: every write and every cut is a row, in the order they came; read together they are the file. */
#include "store_i.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "util/text.h"

#define BATCH 64

struct part_args {
    int64_t checkpoint;
    int64_t off;
    const void *bytes;
    size_t n;
    const char *note;
    bool tell;
    int64_t *size, *part;
    struct buf *out;
    struct store_gap *gap;
};

/* What lies within a state's extent and nobody has written, in no order. */
struct gaps {
    struct store_gap *list;
    size_t n, cap;
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

#define OPEN_FOR_WRITING " FROM checkpointfs.checkpoints WHERE id = $1 AND phase IN ('taking', 'saved') AND NOT closed"

#define WRITE "INSERT INTO checkpointfs.state_parts (checkpoint_id, off, bytes) SELECT id, $2, $3" OPEN_FOR_WRITING " RETURNING id"

static int write_fn(struct conn *c, void *arg, struct err *e)
{
    const struct part_args *a = arg;
    cleanup_result PGresult *res = NULL;
    int r = q(c, &res, e,
              a->tell ? "WITH w AS (" WRITE ", checkpoint_id)"
                        " SELECT w.id, checkpointfs.note_changes(k.line_id, 'checkpoint', ARRAY[k.id])"
                        " FROM w JOIN checkpointfs.checkpoints k ON k.id = w.checkpoint_id" : WRITE,
              "iiy", a->checkpoint, a->off, a->bytes, a->n);

    if (r || affected(res) == 0)
        return r ? r : refused(c, a->checkpoint, e);
    *a->part = col_int(res, 0, 0);
    return 0;
}

int store_state_write(struct store *s, int64_t checkpoint, int64_t off, const void *bytes, size_t n, bool tell, int64_t *ret_part,
                      struct err *e)
{
    struct part_args a = {.checkpoint = checkpoint, .off = off, .bytes = bytes, .n = n, .tell = tell, .part = ret_part};

    *ret_part = 0;
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
        r = q(c, &res, e, "INSERT INTO checkpointfs.state_parts (checkpoint_id, off) SELECT id, $2" OPEN_FOR_WRITING " RETURNING id",
              "ii", a->checkpoint, a->off);
    if (r == 0 && affected(res) == 0)
        return refused(c, a->checkpoint, e);
    if (r == 0)
        *a->part = col_int(res, 0, 0);
    return r ? r : notify_change(c, a->checkpoint, e);
}

int store_state_truncate(struct store *s, int64_t checkpoint, int64_t size, int64_t *ret_part, struct err *e)
{
    struct part_args a = {.checkpoint = checkpoint, .off = size, .part = ret_part};

    if (size < 0 || size > STORE_STATE_MAX)
        return too_long(e);
    return store_tx(s, TX_BOUNDED, truncate_fn, &a, e);
}

static int tell_fn(struct conn *c, void *arg, struct err *e)
{
    const struct part_args *a = arg;

    return notify_change(c, a->checkpoint, e);
}

int store_state_tell(struct store *s, int64_t checkpoint, struct err *e)
{
    struct part_args a = {.checkpoint = checkpoint};

    return store_tx(s, TX_WRITE, tell_fn, &a, e);
}

static int size_fn(struct conn *c, void *arg, struct err *e)
{
    const struct part_args *a = arg;
    cleanup_result PGresult *res = NULL;
    int r = q(c, &res, e, "SELECT " PARTS_SIZE ", " PARTS_LAST " FROM checkpointfs.checkpoints k WHERE k.id = $1", "i", a->checkpoint);

    if (r == 0)
        *a->size = PQntuples(res) == 0 || col_null(res, 0, 0) ? -1 : col_int(res, 0, 0);
    if (r == 0)
        *a->part = PQntuples(res) == 0 ? 0 : col_int(res, 0, 1);
    return r;
}

int store_state_size(struct store *s, int64_t checkpoint, int64_t *ret, int64_t *ret_part, struct err *e)
{
    struct part_args a = {.checkpoint = checkpoint, .size = ret, .part = ret_part};

    return store_tx(s, TX_BOUNDED, size_fn, &a, e);
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

static int gap_add(struct gaps *g, int64_t from, int64_t to)
{
    if (from >= to)
        return 0;
    if (g->n == g->cap) {
        size_t cap = g->cap ? g->cap * 2 : 16;
        struct store_gap *grown = realloc(g->list, cap * sizeof(*grown));

        if (!grown)
            return -ENOMEM;
        g->list = grown;
        g->cap = cap;
    }
    g->list[g->n++] = (struct store_gap){from, to};
    return 0;
}

/* [from, to) is written, or cut off. */
static int gaps_fill(struct gaps *g, int64_t from, int64_t to)
{
    for (size_t i = g->n; i-- > 0;) {
        struct store_gap old = g->list[i];

        if (old.to <= from || old.from >= to)
            continue;
        g->list[i] = g->list[--g->n];
        if (gap_add(g, old.from, from) || gap_add(g, to, old.to))
            return -ENOMEM;
    }
    return 0;
}

/* Puts one write, or one cut, into the bytes so far. A cut beyond the end asks for NULs, a write beyond it doesn't. */
static int apply(struct buf *b, struct gaps *g, const PGresult *res, int row)
{
    int64_t at = col_int(res, row, 1), end = (int64_t)b->len;
    size_t off = (size_t)at, n = (size_t)PQgetlength(res, row, 2), over;

    if (col_null(res, row, 2) && off < b->len) {
        buf_truncate(b, off);
        return gaps_fill(g, at, end);
    }
    if (extend(b, off))
        return -ENOMEM;
    if (col_null(res, row, 2))
        return 0;
    if (gaps_fill(g, at, at + (int64_t)n) || gap_add(g, end, at))
        return -ENOMEM;
    over = off + n < b->len ? n : b->len - off;
    if (over)
        memcpy(b->data + off, PQgetvalue(res, row, 2), over);
    buf_add(b, PQgetvalue(res, row, 2) + over, n - over);
    return buf_error(b);
}

static int read_parts(struct conn *c, const struct part_args *a, struct buf *b, struct gaps *g, struct err *e)
{
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
            if (apply(b, g, res, i))
                return err_set(e, ENOMEM, "out of memory");
            after = col_int(res, i, 0);
        }
    }
    return 0;
}

static struct store_gap first_gap(const struct gaps *g)
{
    struct store_gap first = g->n ? g->list[0] : (struct store_gap){0, 0};

    for (size_t i = 1; i < g->n; i++) {
        if (g->list[i].from < first.from)
            first = g->list[i];
    }
    return first;
}

static int assemble_fn(struct conn *c, void *arg, struct err *e)
{
    const struct part_args *a = arg;
    cleanup_buf struct buf b = {0};
    struct gaps g = {0};
    int r = read_parts(c, a, &b, &g, e);

    if (a->gap)
        *a->gap = first_gap(&g);
    free(g.list);
    if (r)
        return r;
    buf_add(a->out, b.data, b.len);
    return buf_error(a->out) ? err_set(e, ENOMEM, "out of memory") : 0;
}

int store_state_assemble(struct store *s, int64_t checkpoint, struct buf *ret, struct store_gap *ret_gap, struct err *e)
{
    struct part_args a = {.checkpoint = checkpoint, .out = ret, .gap = ret_gap};

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
