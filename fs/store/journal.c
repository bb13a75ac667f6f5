/* Rows of the journal: made, documented, settled, read, handed to another mount. */
#include "store_i.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "util/hash.h"
#include "util/text.h"

#define UID_DIGITS 16

const char act_columns[] =
    "SELECT id, uid, kind, state, line_id, coalesce(checkpoint_id, 0), attempt_id, command, step, data::text, doc, mount_id,"
    " created_at, changed_at, decisions::text, code, message, assigned, cancel, isolated_id, " ACT_OF_BRANCH
    ", by::text"
    " FROM checkpointfs.actions a ";

void store_action_free(struct store_action *a)
{
    free(a->uid);
    free(a->command);
    free(a->step);
    free(a->data);
    free(a->doc);
    free(a->by);
    free(a->decisions);
    free(a->message);
    *a = (struct store_action){0};
}

int act_read(const PGresult *res, int row, struct store_action *ret, struct err *e)
{
    struct store_action a = {0};
    bool failed = false;

    a.id = col_int(res, row, 0);
    a.uid = col_dup(res, row, 1, &failed);
    a.kind = (enum action_kind)name_index(kind_names, col_text(res, row, 2));
    a.state = (enum action_state)name_index(state_names, col_text(res, row, 3));
    a.line_id = col_int(res, row, 4);
    a.checkpoint = col_int(res, row, 5);
    a.attempt = col_int(res, row, 6);
    a.command = col_dup(res, row, 7, &failed);
    a.step = col_dup(res, row, 8, &failed);
    a.data = col_dup(res, row, 9, &failed);
    a.doc = col_dup(res, row, 10, &failed);
    a.mount_id = col_int(res, row, 11);
    a.created_at = col_int(res, row, 12);
    a.changed_at = col_int(res, row, 13);
    a.decisions = col_dup(res, row, 14, &failed);
    a.code = (int)col_int(res, row, 15);
    a.message = col_dup(res, row, 16, &failed);
    a.assigned = col_bool(res, row, 17);
    a.cancel = col_bool(res, row, 18);
    a.isolated = col_int(res, row, 19);
    a.of_branch = col_bool(res, row, 20);
    a.by = col_dup(res, row, 21, &failed);
    if (failed) {
        store_action_free(&a);
        return err_set(e, ENOMEM, "out of memory");
    }
    *ret = a;
    return 0;
}

int act_insert(struct conn *c, const struct act_new *n, int64_t *ret_id, char **ret_uid, struct err *e)
{
    char uid[5 + UID_DIGITS] = "act-";
    int64_t owner = n->mount_id ? n->mount_id : atomic_load(&c->store->mount_id);
    cleanup_result PGresult *res = NULL;
    int r = random_hex(uid + 4, UID_DIGITS);

    if (r)
        return err_set(e, -r, "no random numbers");
    r = q(c, &res, e,
          "INSERT INTO checkpointfs.actions (id, uid, kind, state, line_id, project_id, checkpoint_id, attempt_id, mount_id,"
          " command, decisions, by, waiting, blocks_takes, code, message, isolated_id) SELECT"
          " CASE WHEN $1 = 0 THEN nextval('checkpointfs.actions_id_seq')"
          " ELSE $1 END, $2, $3, $4, l.id, l.project_id, nullif($6, 0), $7, $8, $9, $10::json, $11::json, $12, $13, $14::int, $15, $16"
          " FROM checkpointfs.lines l WHERE l.id = $5 AND ($4 = 'refused' OR EXISTS (SELECT 1 FROM"
          " checkpointfs.mounts m WHERE m.id = $8 AND m.left_at IS NULL)) RETURNING id",
          "isssiiiisssbbisi", n->id, uid, kind_names[n->kind], state_names[n->state], n->line_id, n->checkpoint, n->attempt,
          owner, n->command, n->decisions, n->by, (int)n->waiting, (int)n->blocks_takes, (int64_t)n->code, n->message,
          n->isolated);
    if (r == 0 && PQntuples(res) == 0)
        r = err_set(e, EOWNERDEAD, "the store no longer counts this mount (%lld) among the living: its actions went to another one",
                    (long long)owner);
    if (r)
        return r;
    if (ret_uid) {
        free(*ret_uid);
        *ret_uid = strdup(uid);
        if (!*ret_uid)
            return err_set(e, ENOMEM, "out of memory");
    }
    if (ret_id)
        *ret_id = col_int(res, 0, 0);
    return 0;
}

int act_doc(struct conn *c, int64_t action, int64_t checkpoint, int64_t isolated, const char *doc, bool ended, struct err *e)
{
    int r = q(c, NULL, e,
              "UPDATE checkpointfs.actions SET doc = $2, doc_size = octet_length($2), changed_at = checkpointfs.now_ns() WHERE"
              " id = $1", "is", action, doc);

    if (r == 0 && isolated)
        r = q(c, NULL, e,
              "UPDATE checkpointfs.isolated_branches SET result_action = $2, result_bytes = octet_length($3::text),"
              " result_at = checkpointfs.now_ns() WHERE id = $1 AND ($4::int = 1 OR result_action <= $2)",
              "iisi", isolated, action, doc, (int64_t)ended);
    if (r == 0 && isolated)
        r = iso_touch(c, isolated, e);
    if (r || !checkpoint)
        return r;
    return q(c, NULL, e,
             "UPDATE checkpointfs.checkpoints SET result_action = $2, result_bytes = octet_length($3::text),"
             " result_at = checkpointfs.now_ns(), changed_at = checkpointfs.now_ns()"
             " WHERE id = $1 AND ($4::int = 1 OR result_action <= $2) AND ($5 = 0 OR EXISTS"
             " (SELECT 1 FROM checkpointfs.isolated_branches i WHERE i.id = $5 AND i.made_by = $2))",
             "iisii", checkpoint, action, doc, (int64_t)ended, isolated);
}

int act_settle(struct conn *c, int64_t action, enum action_state state, int code, const char *message, struct err *e)
{
    int r = q(c, NULL, e,
              "UPDATE checkpointfs.actions SET state = $2, code = $3::int, message = $4, waiting = false, blocks_takes = false,"
              " changed_at = checkpointfs.now_ns() WHERE id = $1",
              "isis", action, state_names[state], (int64_t)code, message);

    return r ? r : q(c, NULL, e, "UPDATE checkpointfs.turns SET action_id = 0 WHERE action_id = $1", "i", action);
}

/* ---- reading --------------------------------------------------------------------------------------------------------- */

struct get_args {
    int64_t id;
    struct store_action a;
};

static int get_fn(struct conn *c, void *arg, struct err *e)
{
    struct get_args *a = arg;
    cleanup_result PGresult *res = NULL;
    cleanup_free char *sql = str_format("%sWHERE id = $1", act_columns);
    int r = sql ? q(c, &res, e, sql, "i", a->id) : err_set(e, ENOMEM, "out of memory");

    if (r)
        return r;
    return PQntuples(res) ? act_read(res, 0, &a->a, e) : err_set(e, ENOENT, "the store has no action %lld", (long long)a->id);
}

int store_action(struct store *s, int64_t id, struct store_action *ret, struct err *e)
{
    struct get_args a = {.id = id};
    int r = store_tx(s, TX_ONE_READ, get_fn, &a, e);

    if (r == 0)
        *ret = a.a;
    return r;
}

struct left_args {
    const char *project_id, *uid, *name, *neon_id;
    int found;
};

static int leftover_fn(struct conn *c, void *arg, struct err *e)
{
    struct left_args *a = arg;
    cleanup_result PGresult *res = NULL;
    int r = q(c, &res, e,
              "SELECT 1 FROM checkpointfs.actions WHERE project_id = $1 AND uid = $2 AND state NOT IN ('queued', 'running')"
              " AND (data->>'restored_name' = $3 OR (data->>'snapshot_name' = $3 AND (state <> 'done' OR data->>'snapshot_id' <> $4"
              " OR kind <> 'take' OR step = 'given back')))"
              " AND NOT EXISTS (SELECT 1 FROM checkpointfs.checkpoints k WHERE k.snapshot_id = $4 AND (k.phase <> 'failed'"
              " OR EXISTS (SELECT 1 FROM checkpointfs.actions d WHERE d.checkpoint_id = k.id AND d.kind = 'delete'"
              " AND d.state IN ('queued', 'running'))))"
              " AND NOT EXISTS (SELECT 1 FROM checkpointfs.isolated_branches WHERE branch_id = $4)",
              "ssss", a->project_id, a->uid, a->name, a->neon_id);

    if (r == 0)
        a->found = PQntuples(res) > 0;
    return r;
}

int store_leftover(struct store *s, const char *project_id, const char *uid, const char *name, const char *neon_id, struct err *e)
{
    struct left_args a = {.project_id = project_id, .uid = uid, .name = name, .neon_id = neon_id};
    int r = store_tx(s, TX_ONE_READ, leftover_fn, &a, e);

    return r < 0 ? r : a.found;
}

struct deleted_args {
    const char *uid, *what, *neon_id, *requests;
};

static int deleted_fn(struct conn *c, void *arg, struct err *e)
{
    const struct deleted_args *a = arg;
    cleanup_result PGresult *res = NULL;
    cleanup_json json_t *more = json_pack("{s:o*, s:o*}", a->what, json_text(a->neon_id), "requests", json_loads(a->requests, 0, NULL));
    struct event ev = {.what = "leftover.deleted", .action = a->uid, .more = more};
    int r = q(c, &res, e, "SELECT line_id FROM checkpointfs.actions WHERE uid = $1", "s", a->uid);

    if (r == 0 && PQntuples(res) == 0)
        r = err_set(e, ENOENT, "the store has no action %s", a->uid);
    if (r)
        return r;
    ev.line_id = col_int(res, 0, 0);
    r = line_lock(c, ev.line_id, e);
    return r ? r : event_append(c, &ev, e);
}

int store_leftover_deleted(struct store *s, const char *uid, const char *what, const char *neon_id, const char *requests, struct err *e)
{
    struct deleted_args a = {uid, what, neon_id, requests};

    return store_tx(s, TX_WRITE, deleted_fn, &a, e);
}

/* What concerns a checkpoint that is gone keeps its row, without its number: it is none of the mount's. */
#define OF_MOUNT                                                                                                                 \
    "(kind IN ('prune', 'undo', 'adopt') OR (kind = 'delete' AND command IS DISTINCT FROM '" DISCARD_COMMAND "')"                 \
    " OR (checkpoint_id IS NULL AND state = 'refused'))"

#define ENTRIES "SELECT id, uid, doc_size, changed_at, " OF_MOUNT " FROM checkpointfs.actions WHERE doc IS NOT NULL AND "

static struct store_action_entry entry_of(const PGresult *res, int row)
{
    struct store_action_entry x = {.id = col_int(res, row, 0), .doc_size = col_int(res, row, 2), .changed_at = col_int(res, row, 3),
                                   .of_mount = col_bool(res, row, 4)};

    snprintf(x.uid, sizeof(x.uid), "%s", col_text(res, row, 1));
    return x;
}

struct list_args {
    int64_t line_id;
    int64_t after;
    int (*each)(void *arg, const struct store_action_entry *a);
    void *arg;
    int stopped;
};

static int list_fn(struct conn *c, void *arg, struct err *e)
{
    struct list_args *a = arg;
    int rows;

    do {
        cleanup_result PGresult *res = NULL;
        int r = q(c, &res, e, ENTRIES "line_id = $1 AND id > $2 ORDER BY id LIMIT 10000", "ii", a->line_id, a->after);

        if (r)
            return r;
        rows = PQntuples(res);
        for (int i = 0; i < rows; i++) {
            struct store_action_entry x = entry_of(res, i);

            a->stopped = a->each(a->arg, &x);
            if (a->stopped)
                return 0;
            a->after = x.id;
        }
    } while (rows > 0);
    return 0;
}

int store_actions(struct store *s, int64_t line_id, int (*each)(void *arg, const struct store_action_entry *a), void *arg,
                  struct err *e)
{
    struct list_args a = {.line_id = line_id, .each = each, .arg = arg};
    int r = store_tx(s, TX_READ_LONG, list_fn, &a, e);

    return r ? r : a.stopped;
}

struct entry_args {
    int64_t id;
    struct store_action_entry found;
    bool is;
};

static int entry_fn(struct conn *c, void *arg, struct err *e)
{
    struct entry_args *a = arg;
    cleanup_result PGresult *res = NULL;
    int r = q(c, &res, e, ENTRIES "id = $1", "i", a->id);

    a->is = r == 0 && PQntuples(res) > 0;
    if (a->is)
        a->found = entry_of(res, 0);
    return r;
}

int store_action_entry(struct store *s, int64_t id, struct store_action_entry *ret, struct err *e)
{
    struct entry_args a = {.id = id};
    int r = store_tx(s, TX_ONE_READ, entry_fn, &a, e);

    if (r)
        return r;
    *ret = a.found;
    return a.is;
}

/* ---- taking over ----------------------------------------------------------------------------------------------------- */

struct over_args {
    int64_t from, to;
    bool sure;
    struct store_action *list;
    size_t n;
};

static void over_free(struct over_args *a)
{
    for (size_t i = 0; a->list && i < a->n; i++)
        store_action_free(&a->list[i]);
    free(a->list);
    a->list = NULL;
    a->n = 0;
}

int over_event(struct conn *c, int64_t from, int64_t to, const struct act_row *act, struct err *e)
{
    cleanup_result PGresult *res = NULL;
    cleanup_json json_t *more = json_pack("{s:s, s:I, s:I}", "kind", kind_names[act->kind], "from_mount", (json_int_t)from,
                                          "to_mount", (json_int_t)to);
    struct event ev = {.what = "action.taken_over", .line_id = act->line_id, .checkpoint = act->checkpoint, .action = act->uid,
                       .more = more};
    int r = q(c, &res, e, "SELECT uid, name FROM checkpointfs.checkpoints WHERE id = $1", "i", act->checkpoint);

    if (r)
        return r;
    if (PQntuples(res)) {
        ev.uid = col_text(res, 0, 0);
        ev.name = col_text(res, 0, 1);
    }
    return event_append(c, &ev, e);
}

/* Declares the mount dead: its next beat tells it so, and nothing that it still tries is accepted. */
static int declare_dead(struct conn *c, const struct over_args *a, struct err *e)
{
    cleanup_result PGresult *res = NULL;
    int r = q(c, &res, e,
              "UPDATE checkpointfs.mounts SET left_at = coalesce(left_at, now()) WHERE id = $1 AND ($2 OR left_at IS NOT NULL"
              " OR beat_at < clock_timestamp() - $3 * interval '1 ms')",
              "ibi", a->from, (int)a->sure, (int64_t)STORE_LEASE_MS);

    if (r == 0 && affected(res) == 0)
        r = err_set(e, EBUSY, "mount %lld lives after all", (long long)a->from);
    return r;
}

static int over_fn(struct conn *c, void *arg, struct err *e)
{
    struct over_args *a = arg;
    cleanup_result PGresult *line = NULL;
    cleanup_result PGresult *res = NULL;
    cleanup_free char *sql = str_format("%sWHERE mount_id = $1 AND state IN ('queued', 'running') ORDER BY id", act_columns);
    int r = sql ? q(c, &line, e, "SELECT line_id FROM checkpointfs.mounts WHERE id = $1", "i", a->from)
                : err_set(e, ENOMEM, "out of memory");

    over_free(a);
    if (r == 0 && PQntuples(line) == 0)
        r = err_set(e, ENOENT, "the store has no mount %lld", (long long)a->from);
    if (r == 0)
        r = line_lock(c, col_int(line, 0, 0), e);
    if (r == 0 && a->from != a->to)
        r = declare_dead(c, a, e);
    if (r == 0)
        r = q(c, &res, e, sql, "i", a->from);
    if (r)
        return r;
    a->list = calloc((size_t)PQntuples(res) + 1, sizeof(*a->list));
    if (!a->list)
        return err_set(e, ENOMEM, "out of memory");
    for (int i = 0; i < PQntuples(res) && r == 0; i++) {
        r = act_read(res, i, &a->list[i], e);
        if (r)
            break;
        a->n++;
        a->list[i].mount_id = a->to;
        if (a->from != a->to)
            r = q(c, NULL, e, "UPDATE checkpointfs.actions SET mount_id = $2 WHERE id = $1", "ii", a->list[i].id, a->to);
    }
    for (size_t i = 0; i < a->n && r == 0 && a->from != a->to; i++) {
        const struct store_action *x = &a->list[i];
        struct act_row act = {.kind = x->kind, .line_id = x->line_id, .checkpoint = x->checkpoint, .uid = x->uid};

        r = over_event(c, a->from, a->to, &act, e);
    }
    return r;
}

int store_take_over(struct store *s, int64_t from, int64_t to, bool sure, struct store_action **ret, size_t *ret_n, struct err *e)
{
    struct over_args a = {.from = from, .to = to, .sure = sure};
    int r = store_tx(s, TX_WRITE, over_fn, &a, e);

    if (r) {
        over_free(&a);
        return r;
    }
    *ret = a.list;
    *ret_n = a.n;
    return 0;
}
