/* The project's turn: one change in Neon at a time, restores before takes, across all mounts. Asked for every few
 * milliseconds by whoever waits: so the common answers are one read. */
#include "store_i.h"

#include <errno.h>
#include <string.h>

#include "util/text.h"

/* What an action sees of the queue. */
struct view {
    bool mine;    /* holds the turn */
    bool held;    /* another unsettled action holds it */
    bool waiting; /* is in the queue */
    bool first;   /* and nobody is before it */
    bool queued;  /* nothing was asked of Neon yet */
};

struct turn_args {
    int64_t action;
    int granted;
};

/* Those of mounts that no longer live don't ask: whoever takes them over asks for them. Such a holder is waited for on its own line only,
 * where a mount takes it over: on another line there may be none for ever. */
static int look(struct conn *c, int64_t action, struct view *ret, struct err *e)
{
    cleanup_result PGresult *res = NULL;
    int r = q(c, &res, e,
              "SELECT a.state, a.message, a.waiting, t.action_id = a.id, h.id IS NOT NULL,"
              " (SELECT w.id FROM checkpointfs.actions w JOIN checkpointfs.mounts m ON m.id = w.mount_id"
              "  WHERE w.project_id = a.project_id AND w.waiting AND (w.id = a.id OR"
              "   (m.left_at IS NULL AND m.beat_at > clock_timestamp() - $2 * interval '1 ms'))"
              "  ORDER BY NOT w.blocks_takes, w.id LIMIT 1) = a.id, a.mount_id"
              " FROM checkpointfs.actions a LEFT JOIN checkpointfs.turns t ON t.project_id = a.project_id"
              " LEFT JOIN checkpointfs.actions h ON h.id = t.action_id AND h.id <> a.id AND h.state IN ('queued', 'running')"
              "  AND (h.line_id = a.line_id OR EXISTS (SELECT 1 FROM checkpointfs.mounts m WHERE m.id = h.mount_id"
              "   AND m.left_at IS NULL AND m.beat_at > clock_timestamp() - $2 * interval '1 ms'))"
              " WHERE a.id = $1",
              "ii", action, (int64_t)STORE_LEASE_MS);
    const char *state;

    if (r)
        return r;
    if (PQntuples(res) == 0)
        return err_set(e, ENOENT, "the store has no action %lld", (long long)action);
    state = col_text(res, 0, 0);
    if (strcmp(state, "queued") != 0 && strcmp(state, "running") != 0)
        return err_set(e, ESTALE, "%s", col_text(res, 0, 1) ? col_text(res, 0, 1) : "the action was settled before");
    if (!act_mine(c, col_int(res, 0, 6)))
        return err_set(e, ESTALE, "another mount has taken over the action");
    ret->queued = strcmp(state, "queued") == 0;
    ret->waiting = col_bool(res, 0, 2);
    ret->mine = col_bool(res, 0, 3);
    ret->held = col_bool(res, 0, 4);
    ret->first = col_bool(res, 0, 5);
    return 0;
}

static int look_fn(struct conn *c, void *arg, struct err *e)
{
    struct turn_args *a = arg;
    struct view v = {0};
    int r = look(c, a->action, &v, e);

    if (r)
        return r;
    a->granted = v.mine ? 1 : !v.held && (v.first || !v.waiting) ? -1 : 0;
    return 0;
}

/* Looks again under the lock of the project's row, and takes the turn if it still may. */
static int grant_fn(struct conn *c, void *arg, struct err *e)
{
    struct turn_args *a = arg;
    struct view v = {0};
    int r = q(c, NULL, e,
              "UPDATE checkpointfs.actions SET waiting = true WHERE id = $1 AND NOT waiting AND state IN ('queued', 'running')",
              "i", a->action);

    a->granted = 0;
    if (r == 0)
        r = q(c, NULL, e,
              "SELECT 1 FROM checkpointfs.turns t JOIN checkpointfs.actions a ON a.project_id = t.project_id WHERE a.id = $1"
              " FOR NO KEY UPDATE OF t", "i", a->action);
    if (r == 0)
        r = look(c, a->action, &v, e);
    if (r || v.held || !v.first)
        return r;
    {
        cleanup_result PGresult *res = NULL;

        r = q(c, &res, e,
              "UPDATE checkpointfs.actions SET state = 'running', waiting = false, changed_at = checkpointfs.now_ns()"
              " WHERE id = $1 AND state IN ('queued', 'running')", "i", a->action);
        if (r == 0 && affected(res) == 0) /* a restore failed it this very moment: the next question says so */
            return 0;
    }
    if (r == 0)
        r = q(c, NULL, e,
              "UPDATE checkpointfs.turns t SET action_id = a.id, since = now() FROM checkpointfs.actions a WHERE a.id = $1"
              " AND t.project_id = a.project_id", "i", a->action);
    a->granted = r == 0;
    return r;
}

int store_turn(struct store *s, int64_t action, struct err *e)
{
    struct turn_args a = {.action = action};
    int r = store_tx(s, TX_ONE_READ, look_fn, &a, e);

    if (r == 0 && a.granted < 0)
        r = store_tx(s, TX_WRITE, grant_fn, &a, e);
    return r ? r : a.granted;
}

static int release_fn(struct conn *c, void *arg, struct err *e)
{
    int64_t action = *(const int64_t *)arg;
    int r = q(c, NULL, e, "UPDATE checkpointfs.actions SET waiting = false WHERE id = $1 AND waiting", "i", action);

    return r ? r : q(c, NULL, e, "UPDATE checkpointfs.turns SET action_id = 0 WHERE action_id = $1", "i", action);
}

int store_turn_release(struct store *s, int64_t action, struct err *e)
{
    return store_tx(s, TX_WRITE, release_fn, &action, e);
}
