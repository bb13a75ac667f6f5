/* Where each thing of a run stands: rows in order of time, lanes for lines that went on beside each other.
 *
 * A row follows its parent, or where none is named what was the newest then: the checkpoint taken last, or the one restored last.
 * Rows that follow each other form a chain, and a chain has a lane to itself while it lasts. The chain that leads to the newest
 * checkpoint on line is lane 0, so that what was abandoned branches off to the side. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "timeline_i.h"
#include "util/cleanup.h"

struct chain {
    int id;
    int start, end; /* rows, the one before it included: where it branches off, or so that it doesn't seem to follow what ends there */
    int lane;
};

struct known {
    const char *uid;
    size_t place;
};

/* The last row on an isolated branch of a checkpoint. */
struct branch_tail {
    size_t place;
    const char *branch;
    int row;
};

struct laying {
    const struct timeline *t;
    struct tl_layout *l;
    struct known *known; /* by uid, sorted */
    int *tails;          /* the last row about each checkpoint so far; -1 = none yet */
    size_t head;         /* place of the checkpoint that the run is at; t->n = none */
    size_t *heads;       /* where the run was before each restore that wasn't undone, the last one last */
    size_t n_heads;
    struct branch_tail *branches; /* in order of appearance */
    size_t n_branches;
    int gap;             /* row of those that are left out; -1 = none yet */
};

void tl_layout_free(struct tl_layout *l)
{
    free(l->rows);
    *l = (struct tl_layout){0};
}

static int by_uid(const void *a, const void *b)
{
    const struct known *x = a;
    const struct known *y = b;

    return strcmp(x->uid, y->uid);
}

static int by_time(const void *a, const void *b)
{
    const struct tl_row *x = a;
    const struct tl_row *y = b;

    if (x->at != y->at)
        return x->at < y->at ? -1 : 1;
    return x->order < y->order ? -1 : 1;
}

/* ---- rows ---------------------------------------------------------------------------------------------------------------- */

static int make_rows(const struct timeline *t, struct tl_layout *l)
{
    size_t n = t->n + (t->left_out > 0);
    size_t order = 0;

    for (size_t i = 0; i < t->n; i++)
        n += t->checkpoints[i].n_marks;
    l->rows = calloc(n + 1, sizeof(*l->rows));
    if (!l->rows)
        return -ENOMEM;
    for (size_t i = 0; i < t->n; i++) {
        const struct timeline_checkpoint *c = &t->checkpoints[i];

        l->rows[l->n++] = (struct tl_row){.c = c, .at = c->created_at, .order = order++};
        for (size_t k = 0; k < c->n_marks; k++)
            l->rows[l->n++] = (struct tl_row){.c = c, .m = &c->marks[k], .at = c->marks[k].began, .order = order++};
        if (t->left_out && i + 1 == t->left_out_after) {
            int64_t next = i + 1 < t->n ? t->checkpoints[i + 1].created_at : c->created_at;

            l->rows[l->n++] = (struct tl_row){.at = next > c->created_at ? next - 1 : c->created_at, .order = order++};
        }
    }
    qsort(l->rows, (size_t)l->n, sizeof(*l->rows), by_time);
    return 0;
}

static size_t place_of(const struct laying *y, const char *uid)
{
    struct known key = {.uid = uid};
    const struct known *k = uid ? bsearch(&key, y->known, y->t->n, sizeof(*y->known), by_uid) : NULL;

    return k ? k->place : y->t->n;
}

static int tail_of(const struct laying *y, size_t place)
{
    return place < y->t->n ? y->tails[place] : -1;
}

static const char *given(const char *s) { return s && *s ? s : NULL; }

/* NULL = none yet. `place` t->n: of whichever checkpoint, the newest. */
static struct branch_tail *branch_tail(const struct laying *y, size_t place, const char *branch)
{
    for (size_t i = branch ? y->n_branches : 0; i-- > 0;)
        if ((place == y->t->n || y->branches[i].place == place) && strcmp(y->branches[i].branch, branch) == 0)
            return &y->branches[i];
    return NULL;
}

/* What is done on an isolated branch goes on beside the line. */
static void connect_beside(struct laying *y, int at, size_t place)
{
    const char *branch = y->l->rows[at].m->branch;
    struct branch_tail *tail = branch_tail(y, place, branch);

    y->l->rows[at].from = tail ? tail->row : y->tails[place];
    if (!tail) {
        tail = &y->branches[y->n_branches++];
        *tail = (struct branch_tail){.place = place, .branch = branch};
    }
    tail->row = at;
}

/* What was beside the line is the line now. */
static void connect_promote(struct laying *y, int at, size_t place)
{
    struct branch_tail *tail = branch_tail(y, place, y->l->rows[at].m->branch);
    const struct tl_row *last = tail ? &y->l->rows[tail->row] : NULL;
    size_t owner = last && last->c ? (size_t)(last->c - y->t->checkpoints) : place;

    y->l->rows[at].from = tail ? tail->row : y->tails[place];
    if (tail)
        tail->row = at;
    y->tails[owner] = y->tails[place] = at;
    y->heads[y->n_heads++] = y->head;
    y->head = owner;
}

/* A checkpoint follows its parent, on the branch it was taken on; else what was there last. */
static void connect_checkpoint(struct laying *y, int at, size_t place)
{
    struct tl_row *r = &y->l->rows[at];
    const char *branch = given(r->c->branch);
    bool named = given(r->c->parent);
    size_t parent = named ? place_of(y, r->c->parent) : y->t->n;
    struct branch_tail *beside = named && parent == y->t->n ? NULL : branch_tail(y, parent, branch);

    r->from = beside ? beside->row : named ? tail_of(y, parent) : tail_of(y, y->head);
    if (named && r->from < 0)
        r->from = y->gap;
    r->elsewhere = named && r->from < 0;
    y->tails[place] = at;
    if (beside)
        beside->row = at;
    if (!r->c->isolated && (!named || !r->c->offline))
        y->head = place; /* a fork that came in by the side isn't where the run is */
}

/* Back to where the run was before the last restore. */
static void connect_undo(struct laying *y, int at, size_t place)
{
    if (y->n_heads > 0)
        y->head = y->heads[--y->n_heads];
    if (y->head >= y->t->n)
        y->head = place;
    y->l->rows[at].from = y->tails[y->head];
    y->tails[y->head] = at;
}

/* Which row it follows. */
static void connect(struct laying *y, int at)
{
    struct tl_row *r = &y->l->rows[at];
    size_t place = r->c ? (size_t)(r->c - y->t->checkpoints) : y->t->n;

    if (!r->c) {
        r->from = tail_of(y, y->head);
        y->gap = at;
        if (y->head < y->t->n)
            y->tails[y->head] = at;
    } else if (r->m && r->m->restored && strcmp(r->m->kind, "undo") == 0) {
        connect_undo(y, at, place);
    } else if (r->m && given(r->m->branch) && !r->m->restored) {
        connect_beside(y, at, place);
    } else if (r->m && given(r->m->branch)) {
        connect_promote(y, at, place);
    } else if (r->m) {
        r->from = y->tails[place]; /* a mark with a time before its checkpoint's stands alone */
        y->tails[place] = at;
        if (r->m->restored) {
            y->heads[y->n_heads++] = y->head;
            y->head = place;
        }
    } else {
        connect_checkpoint(y, at, place);
    }
}

static int connect_rows(const struct timeline *t, struct tl_layout *l)
{
    cleanup_free struct known *known = calloc(t->n + 1, sizeof(*known));
    cleanup_free int *tails = calloc(t->n + 1, sizeof(*tails));
    cleanup_free size_t *heads = calloc((size_t)l->n + 1, sizeof(*heads));
    cleanup_free struct branch_tail *branches = calloc((size_t)l->n + 1, sizeof(*branches));
    struct laying y = {.t = t, .l = l, .known = known, .tails = tails, .heads = heads, .branches = branches, .head = t->n, .gap = -1};

    if (!known || !tails || !heads || !branches)
        return -ENOMEM;
    for (size_t i = 0; i < t->n; i++) {
        known[i] = (struct known){.uid = t->checkpoints[i].uid, .place = i};
        tails[i] = -1;
    }
    qsort(known, t->n, sizeof(*known), by_uid);
    for (int i = 0; i < l->n; i++)
        connect(&y, i);
    return 0;
}

/* ---- lanes --------------------------------------------------------------------------------------------------------------- */

/* The row that the run is at: what was done last with the newest checkpoint on line. */
static int main_end(const struct tl_layout *l)
{
    int end = l->n - 1;

    for (int i = l->n - 1; i >= 0; i--) {
        const struct tl_row *r = &l->rows[i];

        if (r->c && !r->c->offline && !r->c->isolated && !(r->m && given(r->m->branch) && !r->m->restored))
            return i;
    }
    return end;
}

static int by_start(const void *a, const void *b)
{
    const struct chain *x = a;
    const struct chain *y = b;

    if ((x->lane == 0) != (y->lane == 0))
        return x->lane == 0 ? -1 : 1;
    return x->start != y->start ? (x->start < y->start ? -1 : 1) : x->id < y->id ? -1 : 1;
}

/* Rows into chains: of several that follow one row the main one goes on straight, else the first. Returns how many chains. */
static int make_chains(struct tl_layout *l, struct chain *chains, int *follower)
{
    int n = 0;

    for (int i = 0; i < l->n; i++)
        follower[i] = -1;
    for (int i = main_end(l); i >= 0 && l->rows[i].from >= 0; i = l->rows[i].from)
        follower[l->rows[i].from] = i;
    for (int i = 0; i < l->n; i++)
        if (l->rows[i].from >= 0 && follower[l->rows[i].from] < 0)
            follower[l->rows[i].from] = i;
    for (int i = 0; i < l->n; i++) {
        struct tl_row *r = &l->rows[i];

        if (r->from >= 0 && follower[r->from] == i) {
            r->chain = l->rows[r->from].chain;
        } else {
            r->chain = n;
            chains[n] = (struct chain){.id = n, .start = r->from >= 0 ? r->from : i - 1, .lane = -1};
            n++;
        }
        chains[r->chain].end = i;
    }
    return n;
}

static int make_lanes(struct tl_layout *l, int max_lanes)
{
    cleanup_free struct chain *chains = calloc((size_t)l->n + 1, sizeof(*chains));
    cleanup_free int *follower = calloc((size_t)l->n + 1, sizeof(*follower));
    cleanup_free int *busy = calloc((size_t)max_lanes, sizeof(*busy)); /* each lane's last row */
    cleanup_free int *lanes = calloc((size_t)l->n + 1, sizeof(*lanes)); /* by chain */
    int n;

    if (!chains || !follower || !busy || !lanes)
        return -ENOMEM;
    l->lanes = 1;
    if (l->n == 0)
        return 0;
    n = make_chains(l, chains, follower);
    chains[l->rows[main_end(l)].chain].lane = 0;
    qsort(chains, (size_t)n, sizeof(*chains), by_start);
    for (int lane = 0; lane < max_lanes; lane++)
        busy[lane] = -2;
    for (int i = 0; i < n; i++) {
        int lane = i > 0; /* the first is the main one, and has its lane to itself */

        while (lane < max_lanes - 1 && busy[lane] >= chains[i].start)
            lane++;
        busy[lane] = busy[lane] > chains[i].end ? busy[lane] : chains[i].end;
        lanes[chains[i].id] = lane;
        l->lanes = l->lanes > lane + 1 ? l->lanes : lane + 1;
    }
    for (int i = 0; i < l->n; i++)
        l->rows[i].lane = lanes[l->rows[i].chain];
    return 0;
}

static void count(struct tl_layout *l)
{
    for (int i = 0; i < l->n; i++) {
        const struct timeline_mark *m = l->rows[i].m;

        if (m && strcmp(m->kind, "restore") == 0)
            l->n_restores++;
        else if (m && strcmp(m->kind, "resume") == 0)
            l->n_resumes++;
        else if (m)
            l->n_others++;
    }
}

int tl_layout(const struct timeline *t, int max_lanes, struct tl_layout *ret)
{
    struct tl_layout l = {0};
    int r = make_rows(t, &l);

    if (r == 0)
        r = connect_rows(t, &l);
    if (r == 0)
        r = make_lanes(&l, max_lanes);
    if (r < 0) {
        tl_layout_free(&l);
        return r;
    }
    count(&l);
    *ret = l;
    return 0;
}
