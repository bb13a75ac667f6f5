/* What the index holds beside checkpoints: texts of .control/, connection strings, what df shows, replaced branches, the audit log's
 * size. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "index_i.h"
#include "util/hash.h"
#include "util/text.h"

void index_texts_free(struct index *x)
{
    struct branch_uri *u, *next;

    HASH_ITER(hh, x->uris, u, next) {
        HASH_DEL(x->uris, u);
        free(u->line);
        free(u);
    }
    for (size_t i = 0; i < TEXTS; i++)
        free(x->texts[i].bytes);
    index_replaced_free(x->replaced, x->n_replaced);
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

/* ---- connection strings of isolated branches --------------------------------------------------------------------------- */

const char *index_branch_uri(struct index *x, int64_t branch)
{
    struct branch_uri *u;

    HASH_FIND(hh, x->uris, &branch, sizeof(branch), u);
    return u ? u->line : NULL;
}

int index_set_branch_uri(struct index *x, int64_t branch, const char *uri)
{
    struct branch_uri *u = uri ? calloc(1, sizeof(*u)) : NULL;
    struct branch_uri *old;

    if (u)
        u->line = str_format("%s\n", uri);
    if (uri && (!u || !u->line)) {
        free(u);
        return -ENOMEM;
    }
    index_write_lock(x);
    HASH_FIND(hh, x->uris, &branch, sizeof(branch), old);
    if (old) {
        HASH_DEL(x->uris, old);
        free(old->line);
        free(old);
    }
    if (u) {
        u->branch = branch;
        HASH_ADD(hh, x->uris, branch, sizeof(u->branch), u);
    }
    index_unlock(x);
    return 0;
}

/* ---- what df shows, and replaced branches ------------------------------------------------------------------------------ */

void index_set_room(struct index *x, int64_t snapshots, int64_t max_snapshots)
{
    index_write_lock(x);
    x->foreign = snapshots - x->snapshots; /* negative where a fork and its original stand on one */
    x->max_snapshots = max_snapshots;
    index_unlock(x);
}

void index_usage(struct index *x, struct index_usage *ret)
{
    index_read_lock(x);
    *ret = (struct index_usage){.max_snapshots = x->max_snapshots, .state_bytes = x->state_bytes};
    if (x->snapshots + x->foreign > 0)
        ret->snapshots = x->snapshots + x->foreign;
    index_unlock(x);
}

void index_replaced_free(struct index_replaced *list, size_t n)
{
    for (size_t i = 0; list && i < n; i++) {
        free(list[i].name);
        free(list[i].text);
    }
    free(list);
}

void index_set_replaced(struct index *x, struct index_replaced *list, size_t n)
{
    struct index_replaced *old;
    size_t n_old;

    index_write_lock(x);
    old = x->replaced;
    n_old = x->n_replaced;
    x->replaced = list;
    x->n_replaced = n;
    index_unlock(x);
    index_replaced_free(old, n_old);
}

const struct index_replaced *index_replaced_from(const struct index *x, int64_t id)
{
    for (size_t i = 0; i < x->n_replaced; i++)
        if (x->replaced[i].id >= id)
            return &x->replaced[i];
    return NULL;
}

const struct index_replaced *index_replaced_by_name(const struct index *x, const char *name)
{
    for (size_t i = 0; i < x->n_replaced; i++)
        if (strcmp(x->replaced[i].name, name) == 0)
            return &x->replaced[i];
    return NULL;
}

/* ---- the store --------------------------------------------------------------------------------------------------------- */

void index_set_lost(struct index *x, int64_t since)
{
    index_write_lock(x);
    x->lost = since;
    index_unlock(x);
}

int64_t index_lost(const struct index *x) { return x->lost; }

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
