/* What was done to checkpoints, out of the journal: restores, resumes and the like, with their times, for the time line of a run. */
#include "store_i.h"

#include <errno.h>
#include <string.h>

#define ENDED(a) "CASE WHEN " a ".state IN ('queued', 'running') THEN 0 ELSE " a ".changed_at END"
#define DECIDED "(SELECT string_agg(DISTINCT d.decision, ', ' ORDER BY d.decision) FROM checkpointfs.decisions d WHERE d.action_id = a.id)"

/* Refusals never began; a take and an import are the checkpoint's own beginning; a cancel shows in how the cancelled one ended. An undo
 * is on no checkpoint: it belongs to the one whose restore it took back. */
#define MARKS(which)                                                                                                             \
    "SELECT k.id, a.id, a.kind, a.state, a.created_at, " ENDED("a") ", " DECIDED ", r.action_id IS NOT NULL, k.seq,"             \
    " CASE WHEN a.isolated_id <> 0 THEN coalesce(n.name, '(deleted)') END"                                                       \
    " FROM checkpointfs.checkpoints k JOIN checkpointfs.actions a ON a.checkpoint_id = k.id"                                     \
    " LEFT JOIN checkpointfs.isolated_branches n ON n.id = a.isolated_id"                                                        \
    " LEFT JOIN checkpointfs.restores r ON r.action_id = a.id WHERE a.state <> 'refused'"                                        \
    " AND a.kind NOT IN ('take', 'import', 'cancel', 'delete', 'prune', 'undo', 'adopt', 'dry-run') AND " which                  \
    " UNION ALL SELECT k.id, u.id, 'undo', u.state, u.created_at, " ENDED("u") ", NULL, true, k.seq, NULL"                       \
    " FROM checkpointfs.checkpoints k JOIN checkpointfs.actions a ON a.checkpoint_id = k.id"                                     \
    " JOIN checkpointfs.restores r ON r.action_id = a.id JOIN checkpointfs.actions u ON u.id = r.undone_by WHERE " which         \
    " ORDER BY 9, 2"

int marks_of(struct conn *c, int64_t checkpoint, PGresult **ret, struct err *e)
{
    return q(c, ret, e, MARKS("k.id = $1"), "i", checkpoint);
}

int marks_of_page(struct conn *c, int64_t line_id, int64_t after, int64_t last, PGresult **ret, struct err *e)
{
    return q(c, ret, e, MARKS("k.line_id = $1 AND k.seq > $2 AND k.seq <= $3"), "iii", line_id, after, last);
}

static void copy_text(char *to, size_t n, const char *from)
{
    size_t len = from ? strnlen(from, n - 1) : 0;

    if (len)
        memcpy(to, from, len);
    to[len] = '\0';
}

int marks_attach(const PGresult *res, int *row, struct store_checkpoint *k, struct err *e)
{
    int first = *row;
    int last = first;

    while (last < PQntuples(res) && col_int(res, last, 0) == k->id)
        last++;
    *row = last;
    if (last - first > STORE_MARKS_MAX)
        first = last - STORE_MARKS_MAX;
    if (first == last)
        return 0;
    k->marks = calloc((size_t)(last - first), sizeof(*k->marks));
    if (!k->marks)
        return err_set(e, ENOMEM, "out of memory");
    for (int i = first; i < last; i++) {
        struct store_mark *m = &k->marks[k->n_marks++];

        m->action = col_int(res, i, 1);
        copy_text(m->kind, sizeof(m->kind), col_text(res, i, 2));
        copy_text(m->state, sizeof(m->state), col_text(res, i, 3));
        m->began = col_int(res, i, 4);
        m->ended = col_int(res, i, 5);
        copy_text(m->decided, sizeof(m->decided), col_text(res, i, 6));
        m->restored = col_bool(res, i, 7);
        copy_text(m->branch, sizeof(m->branch), col_text(res, i, 9));
    }
    return 0;
}
