/* Actions in the index: .control/actions/. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "index_i.h"

void index_actions_free(struct index *x)
{
    struct named_action *a, *next;

    HASH_ITER(hh, x->action_names, a, next) {
        HASH_DEL(x->action_names, a);
        free(a);
    }
    free(x->actions);
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
    if (a->of_mount && a->id > x->control_action)
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
