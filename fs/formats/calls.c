/* The pending calls of a state: adding them, telling them apart, finding them. See formats_i.h. */
#include <stdlib.h>
#include <string.h>

#include "formats_i.h"
#include "util/cleanup.h"
#include "util/text.h"

/* Steps of work whose number isn't bounded by the state's length; every real state needs far fewer. */
#define WORK_MAX 5000000

bool spend(struct reading *r, uint64_t steps)
{
    bool had_work = r->work < WORK_MAX;

    r->work += steps < WORK_MAX ? steps : WORK_MAX;
    if (r->work < WORK_MAX)
        return true;
    if (had_work)
        add_problem(r, "this state is too tangled to be read to its end: decisions that it holds may be missing here");
    return false;
}

void call_clear(struct call *c)
{
    free(c->id);
    free(c->tool);
    free(c->arguments);
    free(c->agent);
    free(c->server);
    free(c->via);
    free(c->group);
    free(c->message);
}

struct call *add_call(struct reading *r)
{
    struct state_info *info = r->info;

    /* Doubles whenever the count is a power of two. */
    if ((info->pending_count & (info->pending_count - 1)) == 0) {
        size_t cap = info->pending_count ? info->pending_count * 2 : 1;
        struct call *grown = realloc(info->pending, cap * sizeof *grown);
        if (!grown) {
            r->oom = true;
            return NULL;
        }
        info->pending = grown;
    }
    info->pending[info->pending_count] = (struct call){0};
    return &info->pending[info->pending_count++];
}

void take_arguments(struct reading *r, struct call *c, struct jval v)
{
    cleanup_buf struct buf b = {0};

    if (!v.node)
        return;
    c->is_json = !j_is(v, J_STRING);
    if (c->is_json)
        j_add_compact(&b, v);
    else
        j_add_string(&b, v);
    free(c->arguments);
    c->arguments = buf_steal(&b);
    r->oom |= !c->arguments;
}

void call_finish(struct reading *r, struct call *c)
{
    const char *arguments = c->arguments ? c->arguments : "";

    if (!c->id || !*c->id) {
        free(c->id);
        c->id = str_format("call-%zu", r->info->pending_count);
        r->oom |= !c->id;
    }
    r->oom |= sha256_hex(arguments, strlen(arguments), c->arguments_sha256) < 0;
}

static int compare_ids(const void *a, const void *b)
{
    const struct call *const *x = a, *const *y = b;
    int order = strcmp((*x)->id, (*y)->id);

    return order ? order : (*x > *y) - (*x < *y);
}

struct call **calls_by_id(struct reading *r)
{
    size_t n = r->info->pending_count;
    struct call **sorted = r->oom ? NULL : calloc(n + 1, sizeof *sorted);

    if (!sorted) {
        r->oom = true;
        return NULL;
    }
    for (size_t i = 0; i < n; i++)
        sorted[i] = &r->info->pending[i];
    qsort(sorted, n, sizeof *sorted, compare_ids);
    return sorted;
}

size_t calls_first(struct call *const *sorted, size_t n, const char *id)
{
    size_t low = 0, high = n;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (strcmp(sorted[middle]->id, id) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low < n && strcmp(sorted[low]->id, id) == 0 ? low : n;
}

/* `id~N` for the first N, from *number on, that isn't an id by itself. NULL when out of memory. */
static char *free_id(struct call *const *sorted, size_t n, const char *id, size_t *number)
{
    for (;; ++*number) {
        char *candidate = str_format("%s~%zu", id, *number);
        if (!candidate || calls_first(sorted, n, candidate) == n)
            return candidate;
        free(candidate);
    }
}

/* One run of calls with the same id: the first keeps it. The names are put into `renamed`, beside `sorted`, which must stay as it
 * is while it is searched. */
static void name_the_others(struct reading *r, struct call *const *sorted, size_t n, size_t first, size_t end, char **renamed)
{
    size_t number = 2;

    for (size_t i = first + 1; i < end; i++, number++) {
        renamed[i] = free_id(sorted, n, sorted[first]->id, &number);
        r->oom |= !renamed[i];
    }
    add_problem(r, "%zu pending calls have the id %s: the later ones are shown as %s~2, …", end - first, sorted[first]->id,
                sorted[first]->id);
}

void make_ids_unique(struct reading *r)
{
    size_t n = r->info->pending_count;
    cleanup_free struct call **sorted = calls_by_id(r);
    cleanup_free char **renamed = calloc(n + 1, sizeof *renamed);

    r->oom |= !renamed;
    for (size_t first = 0, end; sorted && renamed && first < n; first = end) {
        for (end = first + 1; end < n && strcmp(sorted[end]->id, sorted[first]->id) == 0;)
            end++;
        if (end > first + 1)
            name_the_others(r, sorted, n, first, end, renamed);
    }
    for (size_t i = 0; sorted && renamed && i < n; i++) {
        if (!renamed[i])
            continue;
        free(sorted[i]->id);
        sorted[i]->id = renamed[i];
    }
}

const struct call *state_find_call(const struct state_info *info, const char *id)
{
    const struct call *by_id = NULL, *by_name = NULL;

    for (size_t i = 0; i < info->pending_count; i++) {
        const struct call *c = &info->pending[i];
        cleanup_free char *name = strpbrk(id, "%~") ? id_to_filename(c->id, strlen(c->id)) : NULL;
        if (strcmp(c->id, id) == 0)
            by_id = c;
        else if (name && strcmp(name, id) == 0)
            by_name = c;
    }
    return by_id && by_name ? NULL : by_id ? by_id : by_name;
}
