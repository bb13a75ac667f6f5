/* Checkpoints as the store has them: one, or all of a line page by page, each page three queries. */
#include "store_i.h"

#include <errno.h>
#include <string.h>

#include "util/offer.h"
#include "util/text.h"

#define PAGE 20000

static const char columns[] =
    "SELECT k.id, k.uid, k.name, k.taken_name, k.line_id, k.seq, k.phase, k.note, k.closed, k.offline_by, k.snapshot_id,"
    " k.snapshot_name, k.snapshot_project, k.snapshot_branch, k.requested_at, k.captured_at, k.lsn, k.expires_at, k.full_size,"
    " k.diff_size, k.missing, k.created_at, k.changed_at, k.sealed_at, k.sealed_by, k.activity, k.outcome, k.run_id,"
    " k.attempt_id, coalesce(a.state = 'open', false), k.partial_ok, k.waits_input, b.id, k.state_size, k.snapshot_bytes,"
    " k.snapshot_at, k.checkpoint_bytes, k.checkpoint_at, k.transcript_bytes, k.transcript_at, k.meta_bytes, k.meta_at, k.result_bytes,"
    " k.result_at, o.total, o.changed_at, h.size, h.changed_at, " PARTS_SIZE
    ", t.step_id, t.parent, t.trace_id, t.agent, k.isolated_id, k.taken_on,"
    " CASE WHEN k.taken_on <> 0 THEN coalesce(n.name, '(deleted)') END, t.state_trace_id, " PARTS_LAST
    " FROM checkpointfs.checkpoints k LEFT JOIN checkpointfs.attempts a ON a.id = k.attempt_id"
    " LEFT JOIN checkpointfs.outputs o ON o.checkpoint_id = k.id AND o.isolated_id = 0 LEFT JOIN checkpointfs.history_heads h"
    " ON h.checkpoint_id = k.id LEFT JOIN checkpointfs.states t ON t.checkpoint_id = k.id"
    " LEFT JOIN checkpointfs.isolated_branches n ON n.id = k.taken_on";

/* The first unsettled action of each checkpoint. A cancel doesn't occupy a checkpoint, a take is its own beginning. */
static const char busy_join[] =
    " LEFT JOIN (SELECT checkpoint_id, min(id) AS id FROM checkpointfs.actions WHERE line_id = $1"
    " AND state IN ('queued', 'running') AND kind NOT IN ('take', 'cancel', 'dry-run') GROUP BY checkpoint_id) b ON b.checkpoint_id = k.id";

void store_checkpoint_free(struct store_checkpoint *k)
{
    char *texts[] = {k->uid, k->name, k->taken_name, k->note, k->snapshot.id, k->snapshot.name, k->snapshot.project_id,
                     k->snapshot.branch_id, k->snapshot.lsn, k->activity, k->outcome, k->run_id, k->step_id, k->parent, k->trace_id,
                     k->state_trace_id, k->agent, k->taken_on_name};

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        free(texts[i]);
    for (size_t i = 0; k->calls && i < k->n_calls; i++) {
        struct store_call *call = &k->calls[i];
        char *parts[] = {call->call_id, call->filename, call->tool, call->arguments, call->agent, call->arguments_sha256,
                         call->decided};

        for (size_t j = 0; j < sizeof(parts) / sizeof(parts[0]); j++)
            free(parts[j]);
    }
    free(k->calls);
    free(k->marks);
    for (size_t i = 0; k->branches && i < k->n_branches; i++)
        store_branch_free(&k->branches[i]);
    free(k->branches);
    *k = (struct store_checkpoint){0};
}

static void read_snapshot(const PGresult *res, int row, struct store_snapshot *s, bool *failed)
{
    s->id = col_dup(res, row, 10, failed);
    s->name = col_dup(res, row, 11, failed);
    s->project_id = col_dup(res, row, 12, failed);
    s->branch_id = col_dup(res, row, 13, failed);
    s->requested_at = col_int(res, row, 14);
    s->captured_at = col_int(res, row, 15);
    s->lsn = col_dup(res, row, 16, failed);
    s->expires_at = col_int(res, row, 17);
    s->full_size = col_int(res, row, 18);
    s->diff_size = col_int(res, row, 19);
    s->missing = col_bool(res, row, 20);
}

static void read_sizes(const PGresult *res, int row, struct store_checkpoint *k)
{
    static const struct { enum store_file file; int size, mtime; } table[] = {
        {FILE_SNAPSHOT, 34, 35}, {FILE_CHECKPOINT, 36, 37}, {FILE_TRANSCRIPT, 38, 39}, {FILE_META, 40, 41},
        {FILE_RESULT, 42, 43},   {FILE_OUTPUT, 44, 45},     {FILE_HISTORY, 46, 47},
    };

    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        k->sizes[table[i].file] = col_null(res, row, table[i].size) ? -1 : col_int(res, row, table[i].size);
        k->mtimes[table[i].file] = col_int(res, row, table[i].mtime);
    }
    k->sizes[FILE_OUTPUT] = output_shown(k->sizes[FILE_OUTPUT]);
    k->sizes[FILE_STATE] = col_int(res, row, 33);
    k->mtimes[FILE_STATE] = k->sealed_at;
    if (k->phase == PHASE_TAKING || k->phase == PHASE_SAVED) {
        k->sizes[FILE_STATE] = col_null(res, row, 48) ? -1 : col_int(res, row, 48);
        k->mtimes[FILE_STATE] = k->changed_at;
    }
}

static int read_row(const PGresult *res, int row, struct store_checkpoint *ret, struct err *e)
{
    struct store_checkpoint k = {0};
    bool failed = false;

    k.id = col_int(res, row, 0);
    k.uid = col_dup(res, row, 1, &failed);
    k.name = col_dup(res, row, 2, &failed);
    k.taken_name = col_dup(res, row, 3, &failed);
    k.line_id = col_int(res, row, 4);
    k.seq = col_int(res, row, 5);
    k.phase = (enum checkpoint_phase)name_index(phase_names, col_text(res, row, 6));
    k.note = col_dup(res, row, 7, &failed);
    k.closed = col_bool(res, row, 8);
    k.offline_by = col_int(res, row, 9);
    read_snapshot(res, row, &k.snapshot, &failed);
    k.created_at = col_int(res, row, 21);
    k.changed_at = col_int(res, row, 22);
    k.sealed_at = col_int(res, row, 23);
    k.sealed_by = (pid_t)col_int(res, row, 24);
    k.activity = col_dup(res, row, 25, &failed);
    k.outcome = col_dup(res, row, 26, &failed);
    k.run_id = col_dup(res, row, 27, &failed);
    k.attempt_id = col_int(res, row, 28);
    k.attempt_open = col_bool(res, row, 29);
    k.partial_ok = col_bool(res, row, 30);
    k.waits_input = col_bool(res, row, 31);
    k.busy_action = col_int(res, row, 32);
    read_sizes(res, row, &k);
    k.step_id = col_dup(res, row, 49, &failed);
    k.parent = col_dup(res, row, 50, &failed);
    k.trace_id = col_dup(res, row, 51, &failed);
    k.agent = col_dup(res, row, 52, &failed);
    k.isolated = col_int(res, row, 53);
    k.taken_on = col_int(res, row, 54);
    k.taken_on_name = col_dup(res, row, 55, &failed);
    k.state_trace_id = col_dup(res, row, 56, &failed);
    k.state_part = col_int(res, row, 57);
    if (failed) {
        store_checkpoint_free(&k);
        return err_set(e, ENOMEM, "out of memory");
    }
    *ret = k;
    return 0;
}

/* Column 0 is the checkpoint's id. */
static int read_call(const PGresult *res, int row, struct store_call *ret)
{
    struct buf arguments = {0};
    bool failed = false;

    ret->id = col_int(res, row, 1);
    ret->call_id = col_dup(res, row, 2, &failed);
    ret->filename = col_dup(res, row, 3, &failed);
    ret->tool = col_dup(res, row, 4, &failed);
    if (!col_null(res, row, 5)) {
        col_bytes(res, row, 5, &arguments);
        ret->arguments = buf_steal(&arguments);
        failed = failed || !ret->arguments;
    }
    ret->agent = col_dup(res, row, 6, &failed);
    ret->arguments_sha256 = col_dup(res, row, 7, &failed);
    ret->decided = col_dup(res, row, 8, &failed);
    ret->is_input = col_bool(res, row, 9);
    ret->file_size = col_int(res, row, 10);
    return failed ? -ENOMEM : 0;
}

#define CALL_COLUMNS                                                                                                             \
    "SELECT c.checkpoint_id, c.id, c.call_id, c.filename, c.tool, c.arguments, c.agent, c.arguments_sha256, c.decided,"          \
    " c.is_input, c.file_size FROM checkpointfs.calls c "

/* Moves the rows of `k`, which begin at *row, into it. */
static int attach_calls(const PGresult *res, int *row, struct store_checkpoint *k, struct err *e)
{
    int first = *row;
    int last = first;

    while (last < PQntuples(res) && col_int(res, last, 0) == k->id)
        last++;
    *row = last;
    if (first == last)
        return 0;
    k->calls = calloc((size_t)(last - first), sizeof(*k->calls));
    if (!k->calls)
        return err_set(e, ENOMEM, "out of memory");
    k->n_calls = (size_t)(last - first);
    for (int i = first; i < last; i++) {
        if (read_call(res, i, &k->calls[i - first]))
            return err_set(e, ENOMEM, "out of memory");
    }
    return 0;
}

/* The same of the isolated branches that were made from it. */
static int attach_branches(const PGresult *res, int *row, struct store_checkpoint *k, struct err *e)
{
    int first = *row;
    int last = first;

    while (last < PQntuples(res) && col_int(res, last, 0) == k->id)
        last++;
    *row = last;
    if (first == last)
        return 0;
    k->branches = calloc((size_t)(last - first), sizeof(*k->branches));
    if (!k->branches)
        return err_set(e, ENOMEM, "out of memory");
    k->n_branches = (size_t)(last - first);
    for (int i = first; i < last; i++)
        if (iso_branch_read(res, i, &k->branches[i - first]) < 0)
            return err_set(e, ENOMEM, "out of memory");
    return 0;
}

/* ---- one ------------------------------------------------------------------------------------------------------------- */

struct one_args {
    int64_t id;
    struct store_checkpoint k;
};

static int one_fn(struct conn *c, void *arg, struct err *e)
{
    struct one_args *a = arg;
    cleanup_result PGresult *res = NULL;
    cleanup_result PGresult *calls = NULL;
    cleanup_result PGresult *marks = NULL;
    cleanup_result PGresult *branches = NULL;
    cleanup_free char *of_branches = str_format("%s WHERE i.checkpoint_id = $1 ORDER BY i.id", iso_columns);
    cleanup_free char *sql = str_format("%s LEFT JOIN LATERAL (SELECT min(id) AS id FROM checkpointfs.actions"
                                        " WHERE checkpoint_id = k.id AND isolated_id = 0 AND state IN ('queued', 'running')"
                                        " AND kind NOT IN ('take', 'cancel', 'dry-run')) b ON true WHERE k.id = $1", columns);
    int row = 0;
    int mark_row = 0;
    int branch = 0;
    int r = sql && of_branches ? q(c, &res, e, sql, "i", a->id) : err_set(e, ENOMEM, "out of memory");

    if (r)
        return r;
    if (PQntuples(res) == 0)
        return err_set(e, ENOENT, "the checkpoint is no longer in the store");
    r = q(c, &calls, e, CALL_COLUMNS "WHERE c.checkpoint_id = $1 ORDER BY c.ord", "i", a->id);
    if (r == 0)
        r = marks_of(c, a->id, &marks, e);
    if (r == 0)
        r = q(c, &branches, e, of_branches, "i", a->id);
    if (r)
        return r;
    store_checkpoint_free(&a->k);
    r = read_row(res, 0, &a->k, e);
    if (r == 0)
        r = marks_attach(marks, &mark_row, &a->k, e);
    if (r == 0)
        r = attach_branches(branches, &branch, &a->k, e);
    /* calls come with the seal; the statements may see the store before and after it */
    return r || a->k.phase != PHASE_SEALED ? r : attach_calls(calls, &row, &a->k, e);
}

int store_checkpoint(struct store *s, int64_t id, struct store_checkpoint *ret, struct err *e)
{
    struct one_args a = {.id = id};
    int r = store_tx(s, TX_ONE_READ, one_fn, &a, e);

    if (r)
        store_checkpoint_free(&a.k);
    else
        *ret = a.k;
    return r;
}

/* ---- all ------------------------------------------------------------------------------------------------------------- */

struct all_args {
    int64_t line_id;
    int64_t after; /* seq of the last one handed over; a repeated run goes on there */
    int (*each)(void *arg, struct store_checkpoint *c);
    void *arg;
    int stopped;
    char *sql, *of_branches;
};

static int hand_over(const PGresult *res, const PGresult *calls, const PGresult *marks, const PGresult *branches, struct all_args *a,
                     struct err *e)
{
    int call_row = 0;
    int mark_row = 0;
    int branch_row = 0;

    for (int i = 0; i < PQntuples(res); i++) {
        struct store_checkpoint k = {0};
        int64_t seq;
        int r = read_row(res, i, &k, e);

        if (r == 0)
            r = attach_calls(calls, &call_row, &k, e);
        if (r == 0)
            r = marks_attach(marks, &mark_row, &k, e);
        if (r == 0)
            r = attach_branches(branches, &branch_row, &k, e);
        if (r) {
            store_checkpoint_free(&k);
            return r;
        }
        seq = k.seq;
        a->stopped = a->each(a->arg, &k);
        if (a->stopped)
            return 0;
        a->after = seq;
    }
    return 0;
}

static int all_fn(struct conn *c, void *arg, struct err *e)
{
    struct all_args *a = arg;
    int rows = PAGE;

    while (rows == PAGE && !a->stopped) {
        cleanup_result PGresult *res = NULL;
        cleanup_result PGresult *calls = NULL;
        cleanup_result PGresult *marks = NULL;
        cleanup_result PGresult *branches = NULL;
        int r = q(c, &res, e, a->sql, "iii", a->line_id, a->after, (int64_t)PAGE);

        if (r)
            return r;
        rows = PQntuples(res);
        if (rows == 0)
            break;
        r = q(c, &calls, e,
              CALL_COLUMNS "JOIN checkpointfs.checkpoints k ON k.id = c.checkpoint_id WHERE k.line_id = $1 AND k.seq > $2"
                           " AND k.seq <= $3 ORDER BY k.seq, c.ord",
              "iii", a->line_id, a->after, col_int(res, rows - 1, 5));
        if (r == 0)
            r = marks_of_page(c, a->line_id, a->after, col_int(res, rows - 1, 5), &marks, e);
        if (r == 0)
            r = q(c, &branches, e, a->of_branches, "iii", a->line_id, a->after, col_int(res, rows - 1, 5));
        if (r == 0)
            r = hand_over(res, calls, marks, branches, a, e);
        if (r)
            return r;
    }
    return 0;
}

int store_checkpoints(struct store *s, int64_t line_id, int (*each)(void *arg, struct store_checkpoint *c), void *arg,
                      struct err *e)
{
    cleanup_free char *sql = str_format("%s%s WHERE k.line_id = $1 AND k.seq > $2 ORDER BY k.seq LIMIT $3", columns, busy_join);
    cleanup_free char *of_branches = str_format("%s JOIN checkpointfs.checkpoints k ON k.id = i.checkpoint_id WHERE i.line_id = $1"
                                                " AND k.seq > $2 AND k.seq <= $3 ORDER BY k.seq, i.id", iso_columns);
    struct all_args a = {.line_id = line_id, .after = INT64_MIN, .each = each, .arg = arg, .sql = sql, .of_branches = of_branches};
    int r;

    if (!sql || !of_branches)
        return err_set(e, ENOMEM, "out of memory");
    r = store_tx(s, TX_READ_LONG, all_fn, &a, e);
    return r ? r : a.stopped;
}

/* ---- changes that need no action ------------------------------------------------------------------------------------- */

struct change_args {
    int64_t checkpoint;
    const char *new_name;
    const struct store_who *who;
    const struct buf *before;
    const void *bytes;
    size_t n;
    bool sealed;
    const struct buf *snapshot_json;
    const struct store_snapshot *snap;
};

static int append(struct conn *c, const struct ck_row *k, const char *what, const struct store_who *who, json_t *more,
                  struct err *e)
{
    cleanup_free char *by = who_json(who);
    struct event ev = {.what = what, .line_id = k->line_id, .checkpoint = k->id, .uid = k->uid, .name = k->name, .by = by,
                       .more = more};

    return by ? event_append(c, &ev, e) : err_set(e, ENOMEM, "out of memory");
}

static int rename_fn(struct conn *c, void *arg, struct err *e)
{
    const struct change_args *a = arg;
    cleanup_ck struct ck_row k = {0};
    cleanup_result PGresult *taken = NULL;
    cleanup_json json_t *more = json_pack("{s:o}", "new_name", json_text(a->new_name));
    int r = ck_lock(c, a->checkpoint, &k, e);

    if (r || strcmp(k.name, a->new_name) == 0)
        return r;
    r = ck_no_agent(c, &k, e);
    if (r == 0)
        r = q(c, &taken, e, "SELECT 1 FROM checkpointfs.checkpoints WHERE line_id = $1 AND name = $2", "is", k.line_id, a->new_name);
    if (r == 0 && PQntuples(taken) > 0)
        r = err_set(e, EEXIST, "there is a checkpoint called %s already", a->new_name);
    if (r == 0)
        r = q(c, NULL, e, "UPDATE checkpointfs.checkpoints SET name = $2, changed_at = checkpointfs.now_ns() WHERE id = $1",
              "is", k.id, a->new_name);
    return r ? r : append(c, &k, "checkpoint.renamed", a->who, more, e);
}

int store_rename(struct store *s, int64_t checkpoint, const char *new_name, const struct store_who *who, struct err *e)
{
    struct change_args a = {.checkpoint = checkpoint, .new_name = new_name, .who = who};

    return store_tx(s, TX_BOUNDED, rename_fn, &a, e);
}

static int meta_fn(struct conn *c, void *arg, struct err *e)
{
    const struct change_args *a = arg;
    cleanup_ck struct ck_row k = {0};
    int r = ck_lock(c, a->checkpoint, &k, e);

    if (r == 0 && (k.phase == PHASE_SEALED) != a->sealed)
        r = err_set(e, EAGAIN, "%s was sealed meanwhile", k.name);
    if (r == 0)
        r = meta_is(c, k.id, a->before, e);
    if (r == 0)
        r = file_put(c, k.id, FILE_META, a->bytes, a->n, e);
    return r ? r : append(c, &k, "meta.changed", a->who, NULL, e);
}

int store_meta_put(struct store *s, int64_t checkpoint, const struct buf *before, const void *bytes, size_t n, bool sealed,
                   const struct store_who *who, struct err *e)
{
    struct change_args a = {.checkpoint = checkpoint, .before = before, .bytes = bytes, .n = n, .sealed = sealed, .who = who};

    return store_tx(s, TX_BOUNDED, meta_fn, &a, e);
}

static int snapshot_fn(struct conn *c, void *arg, struct err *e)
{
    const struct change_args *a = arg;
    cleanup_ck struct ck_row k = {0};
    int r = ck_lock(c, a->checkpoint, &k, e);

    if (r == 0)
        r = snapshot_put(c, k.id, a->snap, e);
    if (r == 0)
        r = file_put(c, k.id, FILE_SNAPSHOT, a->snapshot_json->data, a->snapshot_json->len, e);
    if (r)
        return r;
    if (a->snap->missing && !k.missing)
        return append(c, &k, "snapshot.missing", NULL, NULL, e);
    return notify_change(c, k.id, e);
}

int store_snapshot_put(struct store *s, int64_t checkpoint, const struct store_snapshot *snap, const struct buf *snapshot_json,
                       struct err *e)
{
    struct change_args a = {.checkpoint = checkpoint, .snap = snap, .snapshot_json = snapshot_json};

    return store_tx(s, TX_WRITE, snapshot_fn, &a, e);
}

static int not_by_rmdir(const struct ck_row *k, struct err *e)
{
    cleanup_free char *path = offer_path(k->name, k->uid);
    cleanup_free char *how = offer_delete(path);

    return how ? err_set(e, EPERM, "%s is no failed take: only `%s` deletes a checkpoint", k->name, how)
               : err_set(e, ENOMEM, "out of memory");
}

static int remove_fn(struct conn *c, void *arg, struct err *e)
{
    const struct change_args *a = arg;
    cleanup_ck struct ck_row k = {0};
    cleanup_json json_t *more = json_pack("{s:s}", "phase", "failed");
    int r = ck_lock(c, a->checkpoint, &k, e);

    if (r)
        return r;
    if (k.phase != PHASE_FAILED)
        return not_by_rmdir(&k, e);
    r = ck_idle(c, &k, true, e); /* its snapshot is still being given back */
    if (r == 0)
        r = checkpoint_remove(c, k.id, e);
    return r ? r : append(c, &k, "checkpoint.deleted", a->who, more, e);
}

int store_take_remove(struct store *s, int64_t checkpoint, const struct store_who *who, struct err *e)
{
    struct change_args a = {.checkpoint = checkpoint, .who = who};

    return store_tx(s, TX_BOUNDED, remove_fn, &a, e);
}

/* ---- looking for one ------------------------------------------------------------------------------------------------- */

struct child_args {
    int64_t line_id;
    int64_t isolated;
    int64_t since;
    const char *parent;
    char *name;
};

static int child_fn(struct conn *c, void *arg, struct err *e)
{
    struct child_args *a = arg;
    cleanup_result PGresult *res = NULL;
    int r = q(c, &res, e,
              "SELECT k.name FROM checkpointfs.checkpoints k JOIN checkpointfs.states s ON s.checkpoint_id = k.id"
              " WHERE k.line_id = $1 AND s.parent = $2 AND k.phase = 'sealed' AND k.sealed_at >= (SELECT created_at"
              " FROM checkpointfs.actions WHERE id = $3) AND k.isolated_id = $4 ORDER BY k.sealed_at DESC, k.id DESC LIMIT 1",
              "isii", a->line_id, a->parent, a->since, a->isolated);

    if (r)
        return r;
    if (PQntuples(res) == 0)
        return err_set(e, ENOENT, "no checkpoint was sealed with the parent %s", a->parent);
    a->name = strdup(col_text(res, 0, 0));
    return a->name ? 0 : err_set(e, ENOMEM, "out of memory");
}

int store_child(struct store *s, int64_t line_id, int64_t isolated, const char *parent_uid, int64_t since, char **ret_name, struct err *e)
{
    struct child_args a = {.line_id = line_id, .isolated = isolated, .since = since, .parent = parent_uid};
    int r = store_tx(s, TX_ONE_READ, child_fn, &a, e);

    if (r == 0)
        *ret_name = a.name;
    return r;
}
