/* The index: every checkpoint of the line in memory, by id and by name. */
#include "tree/index.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "util/clock.h"
#include "util/hash.h"
#include "util/text.h"

#define TEXTS (MOUNT_PRUNE + 1)


/* How many temporaries are remembered after they became their file: somebody may still have one of them open. */
#define TEMPS_KEPT 64

/* Where a call is, by its row id. */
struct place {
    int64_t call;
    int64_t checkpoint;
    UT_hash_handle hh;
};

/* An action by its public id, which is its file's name. */
struct named_action {
    char uid[32];
    int64_t id;
    UT_hash_handle hh;
};

struct index {
    pthread_rwlock_t lock;
    struct index_entry *by_id; /* uthash heads */
    struct index_entry *by_name;
    struct index_entry **sorted; /* by id */
    size_t n, cap;
    struct place *calls;
    struct named_action *action_names;
    struct index_temp *temps;
    int64_t next_temp;
    struct index_text texts[TEXTS];
    int64_t events_size, events_mtime;
    struct store_action_entry *actions; /* by id */
    size_t n_actions, cap_actions;
    int64_t control_action;
    bool sealed_only;
    /* What index_latest found, until a writer changes something. Readers set it under the read lock, all of them to the same. */
    _Atomic(struct index_entry *) latest;
    atomic_bool latest_known;
};

struct index *index_new(void)
{
    struct index *x = calloc(1, sizeof(*x));

    if (!x)
        return NULL;
    pthread_rwlock_init(&x->lock, NULL);
    x->next_temp = 1;
    x->events_mtime = INDEX_EPOCH;
    return x;
}

static void calls_remove(struct index *x, const struct store_checkpoint *c)
{
    for (size_t i = 0; i < c->n_calls; i++) {
        struct place *p;

        HASH_FIND(hh, x->calls, &c->calls[i].id, sizeof(int64_t), p);
        if (p) {
            HASH_DEL(x->calls, p);
            free(p);
        }
    }
}

/* A call that memory is short for has no attributes until the next change: ESTALE. */
static void calls_add(struct index *x, const struct store_checkpoint *c)
{
    for (size_t i = 0; i < c->n_calls; i++) {
        struct place *p = calloc(1, sizeof(*p));

        if (!p)
            return;
        p->call = c->calls[i].id;
        p->checkpoint = c->id;
        HASH_ADD(hh, x->calls, call, sizeof(p->call), p);
    }
}

static void temp_free(struct index_temp *t)
{
    free(t->name);
    buf_free(&t->data);
    free(t);
}

void index_free(struct index *x)
{
    struct index_temp *t, *next;
    struct named_action *a, *next_action;
    struct place *p, *next_place;

    if (!x)
        return;
    HASH_ITER(hh, x->calls, p, next_place) {
        HASH_DEL(x->calls, p);
        free(p);
    }
    HASH_ITER(hh, x->action_names, a, next_action) {
        HASH_DEL(x->action_names, a);
        free(a);
    }
    HASH_CLEAR(by_name, x->by_name);
    HASH_CLEAR(by_id, x->by_id);
    for (size_t i = 0; i < x->n; i++) {
        store_checkpoint_free(&x->sorted[i]->c);
        free(x->sorted[i]);
    }
    HASH_ITER(hh, x->temps, t, next) {
        HASH_DEL(x->temps, t);
        temp_free(t);
    }
    for (size_t i = 0; i < TEXTS; i++)
        free(x->texts[i].bytes);
    free(x->sorted);
    free(x->actions);
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

size_t index_count(const struct index *x) { return x->n; }

struct index_entry *index_latest(struct index *x)
{
    struct index_entry *latest = NULL;

    if (atomic_load(&x->latest_known))
        return atomic_load(&x->latest);
    for (size_t i = 0; i < x->n; i++) { /* not by id: a failed take that was tried again is newer than its directory */
        struct index_entry *e = x->sorted[i];

        if (e->c.phase == PHASE_SEALED && !e->c.offline_by && (!latest || e->c.seq > latest->c.seq))
            latest = e;
    }
    atomic_store(&x->latest, latest);
    atomic_store(&x->latest_known, true);
    return latest;
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
    calls_add(x, &e->c);
    return 0;
}

static void replace(struct index *x, struct index_entry *e, struct store_checkpoint *c)
{
    HASH_DELETE(by_name, x->by_name, e);
    calls_remove(x, &e->c);
    store_checkpoint_free(&e->c);
    e->c = *c;
    calls_add(x, &e->c);
    HASH_ADD_KEYPTR(by_name, x->by_name, e->c.name, strlen(e->c.name), e);
    if (e->c.phase == PHASE_SEALED || e->c.phase == PHASE_FAILED)
        e->draft_size = -1;
}

int index_put(struct index *x, struct store_checkpoint *c, struct index_change *change)
{
    struct index_entry *e;
    int r = 0;

    index_write_lock(x);
    if (x->sealed_only && c->activity)
        c->sizes[FILE_OUTPUT] = -1; /* it still grows */
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
            e->draft_size = c->phase == PHASE_SEALED ? -1 : c->sizes[FILE_STATE]; /* left by an earlier mount */
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

static void temps_drop(struct index *x, int64_t checkpoint)
{
    struct index_temp *t, *next;

    HASH_ITER(hh, x->temps, t, next)
        if (t->checkpoint == checkpoint)
            index_temp_remove(x, t);
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
        at = position(x, id);
        memmove(x->sorted + at, x->sorted + at + 1, (x->n - at - 1) * sizeof(*x->sorted));
        x->n--;
        calls_remove(x, &e->c);
        temps_drop(x, id);
        store_checkpoint_free(&e->c);
        free(e);
    }
    index_unlock(x);
}

/* The oldest of those that became their file goes when there are too many. */
static void temps_trim(struct index *x)
{
    struct index_temp *oldest = NULL;
    size_t n = 0;

    for (struct index_temp *t = x->temps; t; t = t->hh.next) {
        if (!t->became)
            continue;
        n++;
        if (!oldest || t->id < oldest->id)
            oldest = t;
    }
    if (n > TEMPS_KEPT)
        index_temp_remove(x, oldest);
}

struct index_temp *index_temp_add(struct index *x, int64_t checkpoint, const char *name)
{
    struct index_temp *t = calloc(1, sizeof(*t));

    if (!t || !(t->name = strdup(name))) {
        free(t);
        return NULL;
    }
    temps_trim(x);
    t->id = x->next_temp++;
    t->checkpoint = checkpoint;
    t->mtime = clock_now();
    HASH_ADD(hh, x->temps, id, sizeof(t->id), t);
    return t;
}

struct index_temp *index_temp_next(struct index *x, int64_t checkpoint, int64_t after)
{
    struct index_temp *best = NULL;

    for (struct index_temp *t = x->temps; t; t = t->hh.next)
        if (t->checkpoint == checkpoint && !t->became && t->id > after && (!best || t->id < best->id))
            best = t;
    return best;
}

struct index_temp *index_temp_by_name(struct index *x, int64_t checkpoint, const char *name)
{
    for (struct index_temp *t = x->temps; t; t = t->hh.next)
        if (t->checkpoint == checkpoint && !t->became && strcmp(t->name, name) == 0)
            return t;
    return NULL;
}

struct index_temp *index_temp_by_id(struct index *x, int64_t id)
{
    struct index_temp *t;

    HASH_FIND(hh, x->temps, &id, sizeof(id), t);
    return t;
}

void index_temp_remove(struct index *x, struct index_temp *t)
{
    HASH_DEL(x->temps, t);
    temp_free(t);
}

/* A time that is the same for the same bytes, on every mount and after every remount, and another for other bytes: what backup tools
 * need of a file whose change nobody dates (file-tools.md §4.2). */
static int64_t text_time(const char *bytes, size_t n)
{
    char hex[SHA256_HEX_SIZE];

    if (sha256_hex(bytes, n, hex) < 0)
        return INDEX_EPOCH;
    hex[12] = '\0';
    return INDEX_EPOCH + (int64_t)(strtoull(hex, NULL, 16) % 1000000000000000ULL);
}

int index_set_text(struct index *x, enum mount_kind kind, const char *text, int64_t mtime)
{
    char *copy = strdup(text);
    struct index_text *t = &x->texts[kind];

    if (!copy)
        return -ENOMEM;
    index_write_lock(x);
    free(t->bytes);
    *t = (struct index_text){.bytes = copy, .n = strlen(copy), .mtime = mtime ? mtime : text_time(copy, strlen(copy))};
    index_unlock(x);
    return 0;
}

const struct index_text *index_text(const struct index *x, enum mount_kind kind)
{
    return &x->texts[kind];
}

void index_set_events(struct index *x, int64_t size, int64_t mtime)
{
    index_write_lock(x);
    if (size >= x->events_size) { /* two refreshes may overtake each other; the log only grows */
        x->events_size = size;
        x->events_mtime = mtime;
    }
    index_unlock(x);
}

void index_events(const struct index *x, int64_t *ret_size, int64_t *ret_mtime)
{
    *ret_size = x->events_size;
    *ret_mtime = x->events_mtime;
}

static size_t action_position(const struct index *x, int64_t id)
{
    size_t lo = 0;
    size_t hi = x->n_actions;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;

        if (x->actions[mid].id < id)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static int action_name(struct index *x, const struct store_action_entry *a)
{
    struct named_action *n = calloc(1, sizeof(*n));

    if (!n)
        return -ENOMEM;
    memcpy(n->uid, a->uid, sizeof(n->uid));
    n->id = a->id;
    HASH_ADD_STR(x->action_names, uid, n);
    return 0;
}

static int action_put_locked(struct index *x, const struct store_action_entry *a)
{
    size_t at = action_position(x, a->id);

    if (at == x->n_actions || x->actions[at].id != a->id) {
        if (x->n_actions == x->cap_actions) {
            size_t cap = x->cap_actions ? 2 * x->cap_actions : 64;
            struct store_action_entry *grown = realloc(x->actions, cap * sizeof(*grown));

            if (!grown)
                return -ENOMEM;
            x->actions = grown;
            x->cap_actions = cap;
        }
        if (action_name(x, a) < 0)
            return -ENOMEM;
        memmove(x->actions + at + 1, x->actions + at, (x->n_actions - at) * sizeof(*x->actions));
        x->n_actions++;
    }
    x->actions[at] = *a;
    if (!a->checkpoint && a->id > x->control_action)
        x->control_action = a->id;
    return 0;
}

int index_action_put(struct index *x, const struct store_action_entry *a)
{
    int r;

    index_write_lock(x);
    r = action_put_locked(x, a);
    index_unlock(x);
    return r;
}

const struct store_action_entry *index_action_from(const struct index *x, int64_t id)
{
    size_t at = action_position(x, id);

    return at < x->n_actions ? &x->actions[at] : NULL;
}

const struct store_action_entry *index_action_by_uid(const struct index *x, const char *uid)
{
    struct named_action *n;

    HASH_FIND_STR(x->action_names, uid, n);
    return n ? index_action_from(x, n->id) : NULL;
}

const struct store_action_entry *index_control_action(const struct index *x)
{
    const struct store_action_entry *a = x->control_action ? index_action_from(x, x->control_action) : NULL;

    return a && a->id == x->control_action ? a : NULL;
}

int64_t index_last_action(struct index *x)
{
    int64_t id;

    index_read_lock(x);
    id = x->n_actions ? x->actions[x->n_actions - 1].id : 0;
    index_unlock(x);
    return id;
}
