/* Which checkpoints belong to the database of one: what a restore in place, a promote or an adopt leaves on line (design.md §5).
 *
 * The active line is made of stretches. Each begins with what replaced the active branch, a row of restores, and goes on behind an undo
 * of what replaced it. A checkpoint has behind it what was taken before it in its stretch, and then what the checkpoint has behind it
 * that the stretch began with. An isolated branch is a stretch too, which began with the checkpoint that it was made from. */
#include <errno.h>
#include <stdlib.h>

#include "store_i.h"

/* The stretch of what was taken on line `line` at `seq`, on the isolated branch `on`: a row of restores, 0 = the first one of the line, or
 * minus that branch; NULL when `on` isn't known, and of what came in through .import/ (a negative seq): nobody knows what it followed. */
#define STRETCH(line, seq, on)                                                                                                   \
    "CASE WHEN " seq " < 0 THEN NULL WHEN " on " <> 0 THEN -" on                                                                 \
    " WHEN " on " = 0 THEN coalesce((SELECT max(x.action_id) FROM checkpointfs.restores x"                                       \
    " WHERE x.line_id = " line " AND x.action_id < " seq " AND (x.undone_by = 0 OR x.undone_by > " seq ")), 0) END"

/* What $1 has behind it: stretches, and how far. Where a stretch began is kept, whatever was deleted since; only of what an older program
 * deleted it may be that nothing is known but the order (NULL): then all that was taken before stays. */
#define BEHIND                                                                                                                   \
    "WITH RECURSIVE behind (stretch, upto) AS (SELECT " STRETCH("k.line_id", "k.seq", "k.taken_on") ", k.seq"                    \
    " FROM checkpointfs.checkpoints k WHERE k.id = $1 UNION ALL SELECT " STRETCH("s.line_id", "s.from_seq", "s.from_on")         \
    ", s.from_seq FROM behind b JOIN checkpointfs.stretches s ON s.id = b.stretch) "

/* What of line $2 is on line and isn't behind $1. */
#define NOT_BEHIND                                                                                                               \
    "k.line_id = $2 AND k.offline_by = 0 AND k.isolated_id = 0 AND k.phase <> 'failed' AND (k.seq < 0 OR NOT EXISTS (SELECT 1"    \
    " FROM behind b WHERE k.seq <= b.upto AND (b.stretch IS NULL OR b.stretch = " STRETCH("k.line_id", "k.seq", "k.taken_on") ")))"

int others_off_line(struct conn *c, const struct ck_row *k, int64_t action, struct err *e)
{
    return q(c, NULL, e,
             BEHIND "UPDATE checkpointfs.checkpoints k SET offline_by = $3, changed_at = checkpointfs.now_ns() WHERE " NOT_BEHIND, "iii",
             k->id, k->line_id, action);
}

struct off_line_args {
    int64_t line_id, checkpoint;
    char *names;
};

static int would_fn(struct conn *c, void *arg, struct err *e)
{
    struct off_line_args *a = arg;
    cleanup_result PGresult *res = NULL;
    bool failed = false;
    int r = q(c, &res, e,
              BEHIND "SELECT coalesce(json_agg(k.name ORDER BY k.seq), '[]') FROM checkpointfs.checkpoints k"
              " WHERE k.id <> $1 AND " NOT_BEHIND,
              "ii", a->checkpoint, a->line_id);

    if (r)
        return r;
    free(a->names);
    a->names = col_dup(res, 0, 0, &failed);
    return failed ? err_set(e, ENOMEM, "out of memory") : 0;
}

int store_would_go_off_line(struct store *s, int64_t line_id, int64_t checkpoint, char **ret, struct err *e)
{
    struct off_line_args a = {.line_id = line_id, .checkpoint = checkpoint};
    int r = store_tx(s, TX_ONE_READ, would_fn, &a, e);

    if (r)
        free(a.names);
    else
        *ret = a.names;
    return r;
}
