/* The seal: a state becomes immutable with everything that was read out of it, in one durable transaction. */
#include "store_i.h"

#include <errno.h>
#include <string.h>

#include "util/hash.h"
#include "util/text.h"

/* Above this the server isn't asked for the hash of the whole: count and size still have to agree. */
#define HASH_MAX (256LL << 20)

#define EMPTY_META "{}\n"

struct seal_args {
    int64_t checkpoint;
    const struct store_seal *seal;
    const struct store_who *who;
};

static int may_seal(const struct ck_row *k, struct err *e)
{
    if (k->phase == PHASE_SEALED)
        return err_set(e, EINVAL, "%s is sealed already", k->name);
    if (k->phase == PHASE_TAKING)
        return err_set(e, EINVAL, "the snapshot of %s hasn't settled yet", k->name);
    if (k->phase == PHASE_FAILED)
        return err_set(e, EINVAL, "the take of %s failed", k->name);
    if (k->closed)
        return err_set(e, EINVAL, "%s was restored as database only: it takes no state any more", k->name);
    return 0;
}

int seal_chunks(struct conn *c, int64_t checkpoint, const struct store_seal *seal, struct err *e)
{
    const struct buf *t = seal->transcript;
    int r = chunks_put(c, checkpoint, seal->bytes, seal->n, e);

    if (r == 0 && transcript_is_long(t))
        r = chunks_put(c, -checkpoint, t->data, t->len, e);
    return r == -EEXIST ? err_set(e, EINVAL, "the checkpoint is sealed already") : r;
}

/* Compares what the store holds with what was given. */
int seal_verify(struct conn *c, int64_t checkpoint, const struct store_seal *seal, struct err *e)
{
    cleanup_result PGresult *res = NULL;
    int64_t chunks = ((int64_t)seal->n + STORE_CHUNK - 1) / STORE_CHUNK;
    bool whole = (int64_t)seal->n <= HASH_MAX;
    int r = q(c, &res, e,
              "SELECT count(*), coalesce(sum(octet_length(bytes)), 0)::bigint,"
              " CASE WHEN $2 THEN encode(sha256(coalesce(string_agg(bytes, '' ORDER BY n), '')), 'hex') END"
              " FROM checkpointfs.state_chunks WHERE checkpoint_id = $1",
              "ib", checkpoint, (int)whole);

    if (r)
        return r;
    if (col_int(res, 0, 0) != chunks || col_int(res, 0, 1) != (int64_t)seal->n ||
        (whole && !str_equal(col_text(res, 0, 2), seal->sha256)))
        return err_set(e, EIO, "the store doesn't hold the state that was written: nothing was sealed");
    return 0;
}

/* The branch that the snapshot was taken of must still be the active one: state and database are of one moment. */
static int same_branch(struct conn *c, const struct ck_row *k, struct err *e)
{
    cleanup_result PGresult *res = NULL;
    int r = k->isolated ? q(c, &res, e,
                            "SELECT branch_id FROM checkpointfs.isolated_branches WHERE id = $1 AND state = 'ready'", "i", k->isolated)
                        : q(c, &res, e, "SELECT active_branch FROM checkpointfs.lines WHERE id = $1", "i", k->line_id);

    if (r)
        return r;
    if (PQntuples(res) == 0)
        return err_set(e, ESTALE, "the isolated branch that the snapshot of %s was taken of is gone", k->name);
    if (k->offline_by || !str_equal(col_text(res, 0, 0), k->snapshot_branch))
        return err_set(e, ESTALE, "the active branch is %s since a restore, the snapshot of %s is of %s: take a new checkpoint",
                       col_text(res, 0, 0), k->name, k->snapshot_branch ? k->snapshot_branch : "another");
    return 0;
}

static int put_calls(struct conn *c, int64_t checkpoint, const struct store_seal *seal, struct err *e)
{
    int r = 0;

    for (size_t i = 0; i < seal->n_calls && r == 0; i++) {
        const struct store_call *x = &seal->calls[i];
        const struct buf *file = &seal->call_files[i];

        r = q(c, NULL, e,
              "INSERT INTO checkpointfs.calls (checkpoint_id, ord, call_id, filename, tool, arguments, agent, arguments_sha256,"
              " decided, is_input, file, file_size) VALUES ($1, $2::int, $3, $4, $5, $6, $7, $8, $9, $10, $11,"
              " octet_length($11))",
              "iisssysssby", checkpoint, (int64_t)i, x->call_id, x->filename, x->tool, (const void *)x->arguments,
              x->arguments ? strlen(x->arguments) : (size_t)0, x->agent, x->arguments_sha256, x->decided, (int)x->is_input,
              (const void *)(file->data ? file->data : ""), file->len);
    }
    return r;
}

static int put_state(struct conn *c, int64_t checkpoint, const struct store_seal *seal, struct err *e)
{
    int r = q(c, NULL, e,
              "INSERT INTO checkpointfs.states (checkpoint_id, size, sha256, envelope, step_id, parent, framework, agent,"
              " trace_id, state_trace_id) VALUES ($1, $2, $3, $4::jsonb, $5, $6, $7, $8, $9, $10)",
              "iissssssss", checkpoint, (int64_t)seal->n, seal->sha256, seal->envelope ? seal->envelope : "{}", seal->step_id,
              seal->parent, seal->framework, seal->agent, seal->trace_id, seal->state_trace_id);

    if (r == 0)
        r = q(c, NULL, e, "DELETE FROM checkpointfs.state_parts WHERE checkpoint_id = $1", "i", checkpoint);
    if (r == 0)
        r = q(c, NULL, e,
              "UPDATE checkpointfs.checkpoints SET phase = 'sealed', note = NULL, state_size = $2, sealed_at ="
              " checkpointfs.now_ns(), sealed_by = $3, run_id = $4, partial_ok = $5, waits_input = $6,"
              " changed_at = checkpointfs.now_ns() WHERE id = $1",
              "iiisbb", checkpoint, (int64_t)seal->n, (int64_t)seal->by, seal->run_id, (int)seal->partial_ok,
              (int)seal->waits_input);
    return r;
}

int seal_put(struct conn *c, int64_t checkpoint, const struct store_seal *seal, struct err *e)
{
    int r = put_state(c, checkpoint, seal, e);

    if (r == 0)
        r = put_calls(c, checkpoint, seal, e);
    if (r == 0)
        r = file_put(c, checkpoint, FILE_CHECKPOINT, seal->checkpoint_json->data, seal->checkpoint_json->len, e);
    return r ? r : transcript_put(c, checkpoint, seal->transcript, e);
}

static int log_seal(struct conn *c, const struct ck_row *k, const struct seal_args *a, int64_t attempt, struct err *e)
{
    cleanup_free char *by = who_json(a->who);
    cleanup_json json_t *more = json_pack("{s:I, s:s, s:o*, s:o*, s:o*, s:o*}", "bytes", (json_int_t)a->seal->n, "sha256",
                                          a->seal->sha256,
                                          "run_id", json_text(a->seal->run_id), "step_id", json_text(a->seal->step_id), "parent",
                                          json_text(a->seal->parent), "framework", json_text(a->seal->framework));
    struct event ev = {.what = "checkpoint.sealed", .line_id = k->line_id, .checkpoint = k->id, .uid = k->uid, .name = k->name,
                       .by = by, .more = more};
    int r = by && more ? event_append(c, &ev, e) : err_set(e, ENOMEM, "out of memory");

    ev.more = NULL;
    return r ? r : approval_requested(c, &ev, attempt, e);
}

static int seal_fn(struct conn *c, void *arg, struct err *e)
{
    const struct seal_args *a = arg;
    const struct store_seal *seal = a->seal;
    cleanup_ck struct ck_row before = {0};
    cleanup_ck struct ck_row k = {0};
    int64_t attempt = 0;
    int r = ck_read(c, a->checkpoint, &before, e);

    /* the bytes first and without the lock: nobody else waits for them */
    if (r == 0)
        r = may_seal(&before, e);
    if (r == 0)
        r = seal_chunks(c, a->checkpoint, seal, e);
    if (r == 0)
        r = seal_verify(c, a->checkpoint, seal, e);
    if (r == 0)
        r = ck_lock(c, a->checkpoint, &k, e);
    if (r == 0)
        r = may_seal(&k, e);
    if (r == 0)
        r = same_branch(c, &k, e);
    if (r == 0)
        r = meta_is(c, k.id, seal->meta, e);
    if (r == 0 && !seal->meta) /* it stays writable after the seal, so it has to be there */
        r = file_put(c, k.id, FILE_META, EMPTY_META, strlen(EMPTY_META), e);
    if (r == 0)
        r = seal_put(c, k.id, seal, e);
    if (r == 0)
        r = attempt_open(c, k.id, 0, 0, &attempt, e);
    return r ? r : log_seal(c, &k, a, attempt, e);
}

int store_seal(struct store *s, int64_t checkpoint, const struct store_seal *seal, const struct store_who *who, struct err *e)
{
    struct seal_args a = {checkpoint, seal, who};
    char sha256[SHA256_HEX_SIZE];
    int r = sha256_hex(seal->bytes ? seal->bytes : "", seal->n, sha256);

    if (r)
        return err_set(e, -r, "the state's SHA-256 can't be computed");
    if ((int64_t)seal->n > STORE_STATE_MAX)
        return err_set(e, EFBIG, "a state may have %lld MiB at most", STORE_STATE_MAX >> 20);
    if (!str_equal(sha256, seal->sha256))
        return err_set(e, EIO, "the state changed between its hash and its seal: nothing was sealed");
    return store_tx(s, TX_WRITE_LONG, seal_fn, &a, e);
}
