/* What every verb reads before it decides: the line's lock, the checkpoint's and the action's row, who is in the way. */
#include "store_i.h"

#include <errno.h>
#include <string.h>

#include "util/offer.h"
#include "util/text.h"

const char *const phase_names[] = {"taking", "saved", "sealed", "failed", NULL};
const char *const kind_names[] = {"take", "restore", "resume", "replay", "cancel", "delete", "undo", "adopt", "branch", "promote", "prune",
                                  "import", "dry-run", NULL};
const char *const state_names[] = {"queued", "running", "done", "failed", "refused", "unknown", NULL};

int name_index(const char *const *names, const char *name)
{
    for (int i = 0; name && names[i]; i++) {
        if (strcmp(names[i], name) == 0)
            return i;
    }
    return -1;
}

void ck_row_free(struct ck_row *k)
{
    free(k->uid);
    free(k->name);
    free(k->snapshot_id);
    free(k->snapshot_branch);
    free(k->attempt_state);
    *k = (struct ck_row){0};
}

void act_row_free(struct act_row *a)
{
    free(a->uid);
    free(a->project_id);
    free(a->by);
    *a = (struct act_row){0};
}

bool act_settled(const struct act_row *a)
{
    return a->state != ACTION_QUEUED && a->state != ACTION_RUNNING;
}

int line_lock(struct conn *c, int64_t line_id, struct err *e)
{
    cleanup_result PGresult *res = NULL;
    int r = q(c, &res, e, "SELECT id FROM checkpointfs.lines WHERE id = $1 FOR NO KEY UPDATE", "i", line_id);

    if (r)
        return r;
    return PQntuples(res) ? 0 : err_set(e, ENOENT, "the store has no line %lld", (long long)line_id);
}

/* Locks the line that a query finds. Two statements, so that what is read afterwards is newer than the lock. */
static int lock_line_of(struct conn *c, const char *sql, int64_t id, const char *what, struct err *e)
{
    cleanup_result PGresult *res = NULL;
    int r = q(c, &res, e, sql, "i", id);

    if (r)
        return r;
    if (PQntuples(res) == 0)
        return err_set(e, ENOENT, "%s is no longer in the store", what);
    return line_lock(c, col_int(res, 0, 0), e);
}

int ck_read(struct conn *c, int64_t checkpoint, struct ck_row *ret, struct err *e)
{
    cleanup_result PGresult *res = NULL;
    struct ck_row k = {.id = checkpoint};
    bool failed = false;
    int r = q(c, &res, e,
              "SELECT k.line_id, k.uid, k.name, k.phase, k.closed, k.missing, k.snapshot_id, k.snapshot_branch, k.offline_by,"
              " k.seq,"
              " k.attempt_id, a.state, k.isolated_id FROM checkpointfs.checkpoints k LEFT JOIN checkpointfs.attempts a"
              " ON a.id = k.attempt_id"
              " WHERE k.id = $1",
              "i", checkpoint);

    if (r)
        return r;
    if (PQntuples(res) == 0)
        return err_set(e, ENOENT, "the checkpoint is no longer in the store");
    k.line_id = col_int(res, 0, 0);
    k.uid = col_dup(res, 0, 1, &failed);
    k.name = col_dup(res, 0, 2, &failed);
    k.phase = (enum checkpoint_phase)name_index(phase_names, col_text(res, 0, 3));
    k.closed = col_bool(res, 0, 4);
    k.missing = col_bool(res, 0, 5);
    k.snapshot_id = col_dup(res, 0, 6, &failed);
    k.snapshot_branch = col_dup(res, 0, 7, &failed);
    k.offline_by = col_int(res, 0, 8);
    k.seq = col_int(res, 0, 9);
    k.attempt = col_int(res, 0, 10);
    k.attempt_state = col_dup(res, 0, 11, &failed);
    k.isolated = col_int(res, 0, 12);
    if (failed) {
        ck_row_free(&k);
        return err_set(e, ENOMEM, "out of memory");
    }
    *ret = k;
    return 0;
}

int ck_lock(struct conn *c, int64_t checkpoint, struct ck_row *ret, struct err *e)
{
    int r = lock_line_of(c, "SELECT line_id FROM checkpointfs.checkpoints WHERE id = $1", checkpoint, "the checkpoint", e);

    return r ? r : ck_read(c, checkpoint, ret, e);
}

bool act_mine(const struct conn *c, int64_t owner)
{
    int64_t me = atomic_load(&c->store->mount_id);

    return me == 0 || owner == me;
}

int act_lock(struct conn *c, int64_t action, struct act_row *ret, struct err *e)
{
    struct act_row a = {0};
    int r = act_lock_any(c, action, &a, e);

    if (r)
        return r;
    if (!act_mine(c, a.mount_id)) {
        r = err_set(e, ESTALE, "the action %s was taken over by another mount (%lld)", a.uid, (long long)a.mount_id);
        act_row_free(&a);
        return r;
    }
    *ret = a;
    return 0;
}

int act_lock_any(struct conn *c, int64_t action, struct act_row *ret, struct err *e)
{
    cleanup_result PGresult *res = NULL;
    struct act_row a = {.id = action};
    bool failed = false;
    int r = lock_line_of(c, "SELECT line_id FROM checkpointfs.actions WHERE id = $1", action, "the action", e);

    if (r == 0)
        r = q(c, &res, e,
              "SELECT a.line_id, coalesce(a.checkpoint_id, 0), a.attempt_id, a.uid, a.project_id, a.by::text, a.kind, a.state,"
              " EXISTS (SELECT 1 FROM checkpointfs.restores r WHERE r.action_id = a.id OR r.undone_by = a.id), a.blocks_takes, a.mount_id,"
              " a.isolated_id, " ACT_OF_BRANCH
              " FROM checkpointfs.actions a WHERE a.id = $1",
              "i", action);
    if (r)
        return r;
    a.line_id = col_int(res, 0, 0);
    a.checkpoint = col_int(res, 0, 1);
    a.attempt = col_int(res, 0, 2);
    a.uid = col_dup(res, 0, 3, &failed);
    a.project_id = col_dup(res, 0, 4, &failed);
    a.by = col_dup(res, 0, 5, &failed);
    a.kind = (enum action_kind)name_index(kind_names, col_text(res, 0, 6));
    a.state = (enum action_state)name_index(state_names, col_text(res, 0, 7));
    a.restored = col_bool(res, 0, 8);
    a.blocks_takes = col_bool(res, 0, 9);
    a.mount_id = col_int(res, 0, 10);
    a.isolated = col_int(res, 0, 11);
    a.of_branch = col_bool(res, 0, 12);
    if (failed) {
        act_row_free(&a);
        return err_set(e, ENOMEM, "out of memory");
    }
    *ret = a;
    return 0;
}

static int busy(struct conn *c, const char *sql, int64_t line_id, struct err *e)
{
    cleanup_result PGresult *res = NULL;
    cleanup_free char *path = NULL;
    cleanup_free char *wait = NULL;
    int r = q(c, &res, e, sql, "i", line_id);

    if (r || PQntuples(res) == 0)
        return r;
    if (!col_text(res, 0, 1))
        return err_set(e, EBUSY, "%s %s is %s: see .control/actions/%s.json, and try again later", col_text(res, 0, 0),
                       col_text(res, 0, 3), strcmp(col_text(res, 0, 2), "queued") == 0 ? "queued" : "under way", col_text(res, 0, 3));
    path = offer_path(col_text(res, 0, 1), col_text(res, 0, 4));
    wait = offer_run("cat", path, "wait");
    if (!wait)
        return err_set(e, ENOMEM, "out of memory");
    return err_set(e, EBUSY, "a %s of %s is %s (%s): wait for it (%s) or try again later", col_text(res, 0, 0), col_text(res, 0, 1),
                   strcmp(col_text(res, 0, 2), "queued") == 0 ? "queued" : "under way", col_text(res, 0, 3), wait);
}

#define BUSY_SQL                                                                                                                 \
    "SELECT a.kind, k.name, a.state, a.uid, k.uid FROM checkpointfs.actions a"                                                  \
    " LEFT JOIN checkpointfs.checkpoints k ON k.id = a.checkpoint_id WHERE a.line_id = $1 AND a.state IN ('queued', 'running')"

int line_busy(struct conn *c, int64_t line_id, struct err *e)
{
    return busy(c, BUSY_SQL " AND ((a.isolated_id = 0 AND a.kind IN ('restore', 'resume', 'replay', 'undo', 'adopt'))"
                            " OR a.kind = 'promote')"
                " ORDER BY a.id LIMIT 1", line_id, e);
}

int line_takes_blocked(struct conn *c, int64_t line_id, struct err *e)
{
    return busy(c, BUSY_SQL " AND a.blocks_takes ORDER BY a.id LIMIT 1", line_id, e);
}
