/* Runs, traces and snapshots with their checkpoints in order. */
#include "tree/groups.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tree/index.h"
#include "util/hash.h"
#include "util/text.h"

/* A step's number comes first in a key, then the time when it was taken, ms; 42 bits of those last until 2109. */
#define TIME_BITS 42
#define TIME_LAST ((1LL << TIME_BITS) - (1 << 20)) /* leaves room for as many of one time */
#define STEP_DIGITS 6
#define NS_PER_MS 1000000

/* `12`, `step-12`: words that end in a number of a few digits. What isn't counted so, as a UUID, is 0: then the time orders. */
static int64_t step_number(const char *step)
{
    const char *p = step ? step : "";
    size_t digits;

    while (*p && !isdigit((unsigned char)*p))
        p++;
    digits = strspn(p, "0123456789");
    return digits > 0 && digits <= STEP_DIGITS && !p[digits] ? strtol(p, NULL, 10) : 0;
}

static const char *id_of(const struct index_entry *e, int place)
{
    const char *ids[GROUP_PLACES] = {
        [GROUP_RUN] = e->c.run_id,
        [GROUP_TRACE] = e->c.trace_id,
        [GROUP_SNAPSHOT] = e->c.phase == PHASE_FAILED ? NULL : e->c.snapshot.id,
        [PLACE_STATE_TRACE] = str_equal(e->c.state_trace_id, e->c.trace_id) ? NULL : e->c.state_trace_id,
    };

    return ids[place] && *ids[place] ? ids[place] : NULL;
}

static struct group_table *table_of(struct group_table tables[GROUP_KINDS], int place)
{
    return &tables[place == PLACE_STATE_TRACE ? GROUP_TRACE : place];
}

/* A snapshot leads to the checkpoint that was taken first; the others are its forks. */
static int64_t wanted_key(const struct index_entry *e, int place)
{
    int64_t ms = e->c.created_at / NS_PER_MS;
    int64_t step = place == GROUP_SNAPSHOT ? 0 : step_number(e->c.step_id);

    return step << TIME_BITS | (ms < 0 ? 0 : ms < TIME_LAST ? ms : TIME_LAST);
}

static int64_t time_of(const struct index_entry *e)
{
    int64_t t = e->c.changed_at;

    for (size_t i = 0; i < e->c.n_marks; i++) {
        const struct store_mark *m = &e->c.marks[i];
        int64_t last = m->ended > m->began ? m->ended : m->began;

        t = last > t ? last : t;
    }
    return t;
}

static void forget_pictures(struct index_group *g)
{
    for (size_t i = 0; i < 2; i++)
        atomic_store(&g->pictures[i].size, -1);
}

/* ---- groups -------------------------------------------------------------------------------------------------------------- */

struct index_group *group_by_name(const struct group_table *t, const char *filename)
{
    struct index_group *g;

    HASH_FIND(by_name, t->by_name, filename, strlen(filename), g);
    return g;
}

struct index_group *group_by_row(const struct group_table *t, int64_t row)
{
    struct index_group *g;

    HASH_FIND(by_row, t->by_row, &row, sizeof(row), g);
    return g;
}

static size_t group_position(const struct group_table *t, int64_t number)
{
    size_t lo = 0;
    size_t hi = t->n;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;

        if (t->sorted[mid]->number < number)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

struct index_group *group_from(const struct group_table *t, int64_t number)
{
    size_t at = group_position(t, number);

    return at < t->n ? t->sorted[at] : NULL;
}

static void group_free(struct index_group *g)
{
    free(g->id);
    free(g->filename);
    free(g->members);
    free(g);
}

/* Takes over `filename`. */
static struct index_group *group_new(struct group_table *t, const char *id, char *filename)
{
    struct index_group *g = calloc(1, sizeof(*g));
    char hex[SHA256_HEX_SIZE];

    if (!g) {
        free(filename);
        return NULL;
    }
    g->filename = filename;
    g->id = strdup(id);
    if (t->n == t->cap) {
        size_t cap = t->cap ? 2 * t->cap : 64;
        struct index_group **grown = realloc(t->sorted, cap * sizeof(*grown));

        if (grown) {
            t->sorted = grown;
            t->cap = cap;
        }
    }
    if (!g->id || t->n == t->cap || sha256_hex(id, strlen(id), hex) < 0) {
        group_free(g);
        return NULL;
    }
    hex[13] = '\0';
    g->row = strtoll(hex, NULL, 16);
    g->number = ++t->next;
    t->sorted[t->n++] = g;
    HASH_ADD_KEYPTR(by_name, t->by_name, g->filename, strlen(g->filename), g);
    HASH_ADD(by_row, t->by_row, row, sizeof(g->row), g);
    forget_pictures(g);
    return g;
}

static void group_remove(struct group_table *t, struct index_group *g)
{
    size_t at = group_position(t, g->number);

    memmove(t->sorted + at, t->sorted + at + 1, (t->n - at - 1) * sizeof(*t->sorted));
    t->n--;
    HASH_DELETE(by_name, t->by_name, g);
    HASH_DELETE(by_row, t->by_row, g);
    group_free(g);
}

void groups_free(struct group_table tables[GROUP_KINDS])
{
    for (int kind = 0; kind < GROUP_KINDS; kind++) {
        struct group_table *t = &tables[kind];

        HASH_CLEAR(by_name, t->by_name);
        HASH_CLEAR(by_row, t->by_row);
        for (size_t i = 0; i < t->n; i++)
            group_free(t->sorted[i]);
        free(t->sorted);
        *t = (struct group_table){0};
    }
}

/* ---- members ------------------------------------------------------------------------------------------------------------- */

size_t group_place(const struct index_group *g, int64_t key)
{
    size_t lo = 0;
    size_t hi = g->n;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;

        if (g->members[mid].key < key)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

/* The key in the group: what it wants, but behind what was taken before it here, whatever a clock says, and not one that is in use. Copies
 * have negative sequences: where they belong only their times can tell. */
static int64_t free_key(const struct index_group *g, const struct index_entry *e, int place)
{
    int64_t key = e->wanted[place];
    size_t at = g->n;

    while (at > 0 && g->members[at - 1].key > key && g->members[at - 1].key >> TIME_BITS == key >> TIME_BITS) {
        const struct group_member *m = &g->members[--at];

        if (e->c.seq > 0 && m->e->c.seq > 0 && m->e->c.seq < e->c.seq)
            key = m->key + 1;
    }
    for (at = group_place(g, key); at < g->n && g->members[at].key == key; at++)
        key++;
    return key;
}

static struct group_member *member_of(struct index_group *g, const struct index_entry *e, int place)
{
    return &g->members[group_place(g, e->keys[place])];
}

static void touch(struct index_group *g, struct group_member *m)
{
    m->changed = time_of(m->e);
    if (m->changed > g->changed)
        g->changed = m->changed;
    forget_pictures(g);
}

static void leave(struct group_table *t, struct index_entry *e, int place)
{
    struct index_group *g = e->groups[place];
    struct group_member *m = member_of(g, e, place);
    bool newest = m->changed == g->changed;

    memmove(m, m + 1, (size_t)(g->members + g->n - (m + 1)) * sizeof(*m));
    g->n--;
    e->groups[place] = NULL;
    if (g->n == 0) {
        group_remove(t, g);
        return;
    }
    if (newest) {
        g->changed = 0;
        for (size_t i = 0; i < g->n; i++)
            g->changed = g->members[i].changed > g->changed ? g->members[i].changed : g->changed;
    }
    forget_pictures(g);
}

static void join(struct group_table *t, struct index_entry *e, int place, const char *id)
{
    char *filename = id_to_filename(id, strlen(id));
    struct index_group *g = filename ? group_by_name(t, filename) : NULL;
    size_t at;

    if (g)
        free(filename);
    else if (filename)
        g = group_new(t, id, filename);
    if (!g)
        return;
    if (g->n == g->cap) {
        size_t cap = g->cap ? 2 * g->cap : 4;
        struct group_member *grown = realloc(g->members, cap * sizeof(*grown));

        if (!grown) {
            if (g->n == 0)
                group_remove(t, g);
            return;
        }
        g->members = grown;
        g->cap = cap;
    }
    e->wanted[place] = wanted_key(e, place);
    e->keys[place] = free_key(g, e, place);
    e->groups[place] = g;
    at = group_place(g, e->keys[place]);
    memmove(g->members + at + 1, g->members + at, (g->n - at) * sizeof(*g->members));
    g->members[at] = (struct group_member){.key = e->keys[place], .e = e};
    g->n++;
    touch(g, &g->members[at]);
}

void groups_update(struct group_table tables[GROUP_KINDS], struct index_entry *e, int shown)
{
    for (int place = 0; place < GROUP_PLACES; place++) {
        const char *id = shown ? id_of(e, place) : NULL;
        struct index_group *g = e->groups[place];

        if (g && id && strcmp(g->id, id) == 0 && e->wanted[place] == wanted_key(e, place)) {
            touch(g, member_of(g, e, place));
            continue;
        }
        if (g)
            leave(table_of(tables, place), e, place);
        if (id)
            join(table_of(tables, place), e, place, id);
    }
}
