/* The index: every checkpoint of the line in memory, by id and by name. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "index_i.h"
#include "util/clock.h"
#include "util/text.h"

struct index *index_new(void)
{
    struct index *x = calloc(1, sizeof(*x));

    if (!x)
        return NULL;
    pthread_rwlock_init(&x->lock, NULL);
    x->next_temp = 1;
    x->max_snapshots = -1;
    x->events_mtime = INDEX_EPOCH;
    return x;
}

static void place_remove(struct place **places, int64_t row)
{
    struct place *p;

    HASH_FIND(hh, *places, &row, sizeof(row), p);
    if (p) {
        HASH_DEL(*places, p);
        free(p);
    }
}

static void place_add(struct place **places, int64_t row, int64_t checkpoint)
{
    struct place *p = calloc(1, sizeof(*p));

    if (!p)
        return;
    p->call = row;
    p->checkpoint = checkpoint;
    HASH_ADD(hh, *places, call, sizeof(p->call), p);
}

static void calls_remove(struct index *x, const struct store_checkpoint *c)
{
    for (size_t i = 0; i < c->n_calls; i++)
        place_remove(&x->calls, c->calls[i].id);
    for (size_t i = 0; i < c->n_branches; i++)
        place_remove(&x->branches, c->branches[i].id);
}

/* A call that memory is short for has no attributes until the next change: ESTALE. */
static void calls_add(struct index *x, const struct store_checkpoint *c)
{
    for (size_t i = 0; i < c->n_calls; i++)
        place_add(&x->calls, c->calls[i].id, c->id);
    for (size_t i = 0; i < c->n_branches; i++)
        place_add(&x->branches, c->branches[i].id, c->id);
}

static void places_free(struct place **places)
{
    struct place *p, *next;

    HASH_ITER(hh, *places, p, next) {
        HASH_DEL(*places, p);
        free(p);
    }
}

void index_free(struct index *x)
{
    if (!x)
        return;
    places_free(&x->calls);
    places_free(&x->branches);
    HASH_CLEAR(by_name, x->by_name);
    HASH_CLEAR(by_id, x->by_id);
    HASH_CLEAR(by_uid, x->by_uid);
    groups_free(x->groups);
    for (size_t i = 0; i < x->n; i++) {
        store_checkpoint_free(&x->sorted[i]->c);
        free(x->sorted[i]);
    }
    free(x->sorted);
    index_temps_free(x);
    index_texts_free(x);
    index_actions_free(x);
    pthread_rwlock_destroy(&x->lock);
    free(x);
}

void index_set_sealed_only(struct index *x, bool on) { x->sealed_only = on; }
void index_read_lock(struct index *x) { pthread_rwlock_rdlock(&x->lock); }
void index_write_lock(struct index *x) { pthread_rwlock_wrlock(&x->lock); }
void index_unlock(struct index *x) { pthread_rwlock_unlock(&x->lock); }

struct index_entry *index_by_id(struct index *x, int64_t id)
{
    struct index_entry *e;

    HASH_FIND(by_id, x->by_id, &id, sizeof(id), e);
    return e;
}

struct index_entry *index_by_call(struct index *x, int64_t call)
{
    struct place *p;

    HASH_FIND(hh, x->calls, &call, sizeof(call), p);
    return p ? index_by_id(x, p->checkpoint) : NULL;
}

struct index_entry *index_by_branch(struct index *x, int64_t branch, const struct store_branch **ret)
{
    struct index_entry *e;
    struct place *p;

    HASH_FIND(hh, x->branches, &branch, sizeof(branch), p);
    e = p ? index_by_id(x, p->checkpoint) : NULL;
    for (size_t i = 0; e && i < e->c.n_branches; i++) {
        if (e->c.branches[i].id == branch) {
            *ret = &e->c.branches[i];
            return e;
        }
    }
    return NULL;
}

const struct store_branch *entry_branch(const struct index_entry *e, const char *name)
{
    for (size_t i = 0; i < e->c.n_branches; i++)
        if (strcmp(e->c.branches[i].name, name) == 0)
            return &e->c.branches[i];
    return NULL;
}

static bool shown(const struct index *x, const struct index_entry *e)
{
    return !x->sealed_only || e->c.phase == PHASE_SEALED;
}

struct index_entry *index_by_name(struct index *x, const char *name)
{
    struct index_entry *e;

    HASH_FIND(by_name, x->by_name, name, strlen(name), e);
    return e && shown(x, e) ? e : NULL;
}

struct index_entry *index_by_uid(struct index *x, const char *uid)
{
    struct index_entry *e;

    HASH_FIND(by_uid, x->by_uid, uid, strlen(uid), e);
    return e && shown(x, e) ? e : NULL;
}

const struct group_table *index_groups(const struct index *x, enum group_kind kind) { return &x->groups[kind]; }

/* Where an entry of that id is, or would go, in the sorted array. */
static size_t position(const struct index *x, int64_t id)
{
    size_t lo = 0;
    size_t hi = x->n;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;

        if (x->sorted[mid]->c.id < id)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

struct index_entry *index_from(struct index *x, int64_t id)
{
    size_t at = position(x, id);

    while (at < x->n && !shown(x, x->sorted[at]))
        at++;
    return at < x->n ? x->sorted[at] : NULL;
}

struct index_entry *index_next(struct index *x, int64_t id)
{
    size_t at = position(x, id);

    return at < x->n ? x->sorted[at] : NULL;
}

size_t index_count(const struct index *x) { return x->n; }

struct index_entry *index_latest(struct index *x)
{
    struct index_entry *latest = NULL;

    if (atomic_load(&x->latest_known))
        return atomic_load(&x->latest);
    for (size_t i = 0; i < x->n; i++) { /* not by id: a failed take that was tried again is newer than its directory */
        struct index_entry *e = x->sorted[i];

        if (e->c.phase == PHASE_SEALED && !e->c.offline_by && !e->c.isolated && (!latest || e->c.seq > latest->c.seq))
            latest = e;
    }
    atomic_store(&x->latest, latest);
    atomic_store(&x->latest_known, true);
    return latest;
}

bool entry_takes_state(const struct store_checkpoint *c)
{
    return (c->phase == PHASE_TAKING || c->phase == PHASE_SAVED) && !c->closed;
}

bool entry_awaits(const struct store_checkpoint *c)
{
    return c->phase == PHASE_SEALED && !c->offline_by && c->attempt_open && (c->n_calls > 0 || c->waits_input);
}

void index_change_clear(struct index_change *c)
{
    free(c->old_name);
    free(c->new_name);
    free(c->calls);
    *c = (struct index_change){0};
}

static bool same_files(const struct store_checkpoint *a, const struct store_checkpoint *b)
{
    for (int i = 0; i < FILE_COUNT; i++)
        if ((a->sizes[i] < 0) != (b->sizes[i] < 0))
            return false;
    return a->phase == b->phase;
}

static void describe(struct index_change *ch, const struct store_checkpoint *old, const struct store_checkpoint *new)
{
    ch->checkpoint = new ? new->id : old->id;
    ch->old_name = old ? str_dup(old->name) : NULL;
    ch->new_name = new ? str_dup(new->name) : NULL;
    ch->listing = !old || !new || !same_files(old, new);
    ch->sealed = new && new->phase == PHASE_SEALED && (!old || old->phase != PHASE_SEALED);
    if (old && old->n_calls && (!new || !new->n_calls)) {
        ch->calls = calloc(old->n_calls, sizeof(*ch->calls));
        for (size_t i = 0; ch->calls && i < old->n_calls; i++)
            ch->calls[ch->n_calls++] = old->calls[i].id;
    }
}

/* What an entry counts for; `sign` -1: no more. */
static void count(struct index *x, const struct store_checkpoint *c, int sign)
{
    bool settled = c->phase == PHASE_SAVED || c->phase == PHASE_SEALED;

    if (settled && c->snapshot.id && !c->snapshot.missing)
        x->snapshots += sign;
    if (c->phase == PHASE_SEALED && c->sizes[FILE_STATE] > 0)
        x->state_bytes += sign * c->sizes[FILE_STATE];
}

static int insert(struct index *x, struct index_entry *e)
{
    size_t at;

    if (x->n == x->cap) {
        size_t cap = x->cap ? 2 * x->cap : 64;
        struct index_entry **grown = realloc(x->sorted, cap * sizeof(*grown));

        if (!grown)
            return -ENOMEM;
        x->sorted = grown;
        x->cap = cap;
    }
    at = position(x, e->c.id);
    memmove(x->sorted + at + 1, x->sorted + at, (x->n - at) * sizeof(*x->sorted));
    x->sorted[at] = e;
    x->n++;
    HASH_ADD(by_id, x->by_id, c.id, sizeof(e->c.id), e);
    HASH_ADD_KEYPTR(by_name, x->by_name, e->c.name, strlen(e->c.name), e);
    if (e->c.uid)
        HASH_ADD_KEYPTR(by_uid, x->by_uid, e->c.uid, strlen(e->c.uid), e);
    calls_add(x, &e->c);
    groups_update(x->groups, e, shown(x, e));
    count(x, &e->c, 1);
    return 0;
}

/* ---- states under way ------------------------------------------------------------------------------------------------------ */

void index_draft(struct index *x, int64_t checkpoint, int64_t size, int64_t part, bool exactly)
{
    struct index_entry *e;

    index_write_lock(x);
    e = index_by_id(x, checkpoint);
    if (e && e->c.phase != PHASE_SEALED) {
        if (exactly || e->draft_size < size)
            e->draft_size = size;
        e->draft_mtime = clock_now();
        if (e->draft_part < part)
            e->draft_part = part;
    }
    index_unlock(x);
}

/* An answer from before what is known here is old. To the store a state that was removed is one cut to nothing. */
static void draft_seen(struct index_entry *e, int64_t size, int64_t part)
{
    if (part < e->draft_part)
        return;
    e->draft_part = part;
    if (size == e->draft_size || (size <= 0 && e->draft_size < 0))
        return;
    e->draft_size = size;
    e->draft_mtime = clock_now();
}

int64_t index_draft_seen(struct index *x, int64_t checkpoint, int64_t size, int64_t part)
{
    struct index_entry *e;

    index_write_lock(x);
    e = index_by_id(x, checkpoint);
    if (e && (e->c.phase == PHASE_TAKING || e->c.phase == PHASE_SAVED) && !e->c.closed)
        draft_seen(e, size, part);
    size = e ? e->draft_size : -1;
    index_unlock(x);
    return size;
}

/* Whether it has no state under way, or another one than before: its parts are gone. */
static bool draft_over(const struct store_checkpoint *was, const struct store_checkpoint *now)
{
    return now->phase == PHASE_SEALED || now->phase == PHASE_FAILED || now->closed || now->seq != was->seq;
}

static void replace(struct index *x, struct index_entry *e, struct store_checkpoint *c)
{
    if (draft_over(&e->c, c)) {
        e->draft_size = -1;
        e->draft_part = 0;
    }
    HASH_DELETE(by_name, x->by_name, e);
    if (e->c.uid)
        HASH_DELETE(by_uid, x->by_uid, e);
    calls_remove(x, &e->c);
    count(x, &e->c, -1);
    count(x, c, 1);
    store_checkpoint_free(&e->c);
    e->c = *c;
    if (e->c.uid)
        HASH_ADD_KEYPTR(by_uid, x->by_uid, e->c.uid, strlen(e->c.uid), e);
    groups_update(x->groups, e, shown(x, e));
    calls_add(x, &e->c);
    HASH_ADD_KEYPTR(by_name, x->by_name, e->c.name, strlen(e->c.name), e);
    if (e->c.phase != PHASE_SEALED && e->c.phase != PHASE_FAILED)
        draft_seen(e, e->c.sizes[FILE_STATE], e->c.state_part);
}

/* What a running agent still prints isn't there (design.md §7.2). */
static void hide_growing(struct store_checkpoint *c)
{
    if (c->activity)
        c->sizes[FILE_OUTPUT] = -1;
    for (size_t i = 0; i < c->n_branches; i++)
        if (c->branches[i].activity)
            c->branches[i].output_size = -1;
}

int index_put(struct index *x, struct store_checkpoint *c, struct index_change *change)
{
    struct index_entry *e;
    int r = 0;

    index_write_lock(x);
    if (x->sealed_only)
        hide_growing(c);
    atomic_store(&x->latest_known, false);
    e = index_by_id(x, c->id);
    if (change)
        describe(change, e ? &e->c : NULL, c);
    if (e) {
        replace(x, e, c);
    } else {
        e = calloc(1, sizeof(*e));
        if (e) {
            e->c = *c;
            e->draft_size = c->phase == PHASE_SEALED ? -1 : c->sizes[FILE_STATE]; /* left by an earlier mount, or another one's */
            e->draft_part = c->state_part;
            e->draft_mtime = c->changed_at;
            r = insert(x, e);
        } else {
            r = -ENOMEM;
        }
        if (r < 0) {
            free(e);
            store_checkpoint_free(c);
        }
    }
    *c = (struct store_checkpoint){0};
    index_unlock(x);
    return r;
}

void index_remove(struct index *x, int64_t id, struct index_change *change)
{
    struct index_entry *e;
    size_t at;

    index_write_lock(x);
    atomic_store(&x->latest_known, false);
    e = index_by_id(x, id);
    if (e) {
        if (change)
            describe(change, &e->c, NULL);
        HASH_DELETE(by_name, x->by_name, e);
        HASH_DELETE(by_id, x->by_id, e);
        if (e->c.uid)
            HASH_DELETE(by_uid, x->by_uid, e);
        groups_update(x->groups, e, false);
        at = position(x, id);
        memmove(x->sorted + at, x->sorted + at + 1, (x->n - at - 1) * sizeof(*x->sorted));
        x->n--;
        calls_remove(x, &e->c);
        count(x, &e->c, -1);
        index_temps_drop(x, id);
        store_checkpoint_free(&e->c);
        free(e);
    }
    index_unlock(x);
}
