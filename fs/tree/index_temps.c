/* Temporaries in checkpoints' directories: files that are there only to be renamed onto state.json or meta.json. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "index_i.h"
#include "util/clock.h"

/* How many are remembered after they became their file: somebody may still have one of them open. */
#define TEMPS_KEPT 64

static void temp_free(struct index_temp *t)
{
    free(t->name);
    buf_free(&t->data);
    free(t);
}

void index_temps_free(struct index *x)
{
    struct index_temp *t, *next;

    HASH_ITER(hh, x->temps, t, next)
        index_temp_remove(x, t);
}

void index_temps_drop(struct index *x, int64_t checkpoint)
{
    struct index_temp *t, *next;

    HASH_ITER(hh, x->temps, t, next)
        if (t->checkpoint == checkpoint)
            index_temp_remove(x, t);
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

int index_temp_resize(struct index *x, struct index_temp *t, size_t size)
{
    size_t others = 0;

    for (struct index_temp *o = x->temps; o; o = o->hh.next)
        others += o == t ? 0 : o->data.len;
    if (size > t->data.len && others + size > (size_t)INDEX_TEMPS_MAX)
        return -ENOSPC;
    return buf_resize(&t->data, size);
}

void index_temp_remove(struct index *x, struct index_temp *t)
{
    HASH_DEL(x->temps, t);
    temp_free(t);
}
