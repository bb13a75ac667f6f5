/* Files of .import/ that are open, and what it means that a directory of it is registered: its numbers stand for the checkpoint's. */
#include "staging_i.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "util/cleanup.h"

/* ---- open files ----------------------------------------------------------------------------------------------------- */

int staging_open(struct staging *s, int64_t id, bool writer)
{
    struct staged *n;
    int r = 0;

    pthread_mutex_lock(&s->lock);
    n = staged_find(s, id);
    if (!n || (n->became && writer))
        r = n ? -EPERM : -ESTALE;
    else if (writer && staged_frozen(n))
        r = -EBUSY;
    else
        n->open++;
    if (r == 0 && writer)
        n->writers++;
    pthread_mutex_unlock(&s->lock);
    return r;
}

void staging_close(struct staging *s, int64_t id, bool writer)
{
    struct staged *n;

    pthread_mutex_lock(&s->lock);
    n = staged_find(s, id);
    if (n) {
        n->open--;
        if (writer)
            n->writers--;
        if (n->open == 0 && staged_removed(s, n) && !n->became)
            staged_forget(s, n);
    }
    pthread_mutex_unlock(&s->lock);
}

/* Goes down by number, so that no depth is too deep for a stack. */
static struct staged *next_below(const struct staged *top, struct staged *n)
{
    if (n->n)
        return n->children[0];
    while (n != top) {
        size_t at = staged_position(n->parent, n->a.id) + 1;

        if (at < n->parent->n)
            return n->parent->children[at];
        n = n->parent;
    }
    return NULL;
}

bool staging_written(struct staging *s, int64_t id)
{
    struct staged *top;
    bool written = false;

    pthread_mutex_lock(&s->lock);
    top = staged_find(s, id);
    for (struct staged *n = top; n && !written; n = next_below(top, n))
        written = n->writers > 0;
    pthread_mutex_unlock(&s->lock);
    return written;
}

int staging_freeze(struct staging *s, int64_t id)
{
    struct staged *top;
    bool busy;
    int r = 0;

    pthread_mutex_lock(&s->lock);
    top = staged_find(s, id);
    busy = top && staged_frozen(top);
    for (struct staged *n = top; n && !busy; n = next_below(top, n))
        busy = n->writers > 0 || n->frozen;
    if (!top || staged_removed(s, top))
        r = -ENOENT;
    else if (busy)
        r = -EBUSY;
    else
        top->frozen = true;
    pthread_mutex_unlock(&s->lock);
    return r;
}

void staging_thaw(struct staging *s, int64_t id)
{
    struct staged *n;

    pthread_mutex_lock(&s->lock);
    n = staged_find(s, id);
    if (n)
        n->frozen = false;
    pthread_mutex_unlock(&s->lock);
}

/* ---- registered ----------------------------------------------------------------------------------------------------- */

/* Everything below, in an order in which each comes after what it is in. */
static struct staged **all_below(struct staged *top, size_t *ret_n)
{
    struct staged **all;
    size_t count = 0, i = 0;

    for (struct staged *n = top; n; n = next_below(top, n))
        count++;
    all = calloc(count, sizeof(*all));
    for (struct staged *n = top; all && n; n = next_below(top, n))
        all[i++] = n;
    *ret_n = count;
    return all;
}

/* Its number stays, and stands for something else; its name and its bytes are gone. */
static void detach(struct staging *s, struct staged *n)
{
    HASH_DELETE(by_name, s->by_name, n);
    if (n->parent)
        staged_leave(n);
    if (S_ISREG(n->a.mode))
        s->bytes -= n->a.size;
    n->a.size = 0;
}

/* Remembers the newest, forgets the oldest. */
static void keep(struct staging *s, int64_t *ids, size_t count)
{
    struct kept *k = &s->kept[s->next_kept++ % KEPT];

    for (size_t i = 0; i < k->n; i++) {
        struct staged *n = staged_find(s, k->ids[i]);

        if (!n)
            continue;
        n->became = 0;
        if (n->open == 0)
            staged_forget(s, n);
    }
    free(k->ids);
    *k = (struct kept){.ids = ids, .n = count};
}

static void become_all(struct staging *s, struct staged **all, size_t count, int64_t *ids, int64_t *gone)
{
    for (size_t i = count; i-- > 0;) {
        ids[i] = all[i]->a.id;
        gone[i] = S_ISREG(all[i]->a.mode) ? all[i]->a.id : 0;
        detach(s, all[i]);
        if (!all[i]->became && all[i]->open == 0)
            staged_forget(s, all[i]);
    }
    keep(s, ids, count);
}

int staging_become(struct staging *s, int64_t id, node_id node,
                   node_id (*resolve)(void *arg, node_id dir, const char *name, mode_t mode), void *arg, int64_t **ret_gone,
                   size_t *ret_n)
{
    struct staged **all = NULL;
    struct staged *top;
    int64_t *gone = NULL, *ids = NULL;
    size_t count = 0;
    int r = 0;

    pthread_mutex_lock(&s->lock);
    top = staged_find(s, id);
    if (!top || top == &s->root)
        r = -ESTALE;
    if (r == 0) {
        all = all_below(top, &count);
        gone = calloc(count, sizeof(*gone));
        ids = calloc(count, sizeof(*ids));
        r = all && gone && ids ? 0 : -ENOMEM;
    }
    for (size_t i = 0; r == 0 && i < count; i++) {
        struct staged *n = all[i];

        n->became = i == 0 ? node : n->parent->became ? resolve(arg, n->parent->became, staged_name(n), n->a.mode) : 0;
    }
    if (r == 0)
        become_all(s, all, count, steal_ptr(&ids), gone);
    pthread_mutex_unlock(&s->lock);
    free(all);
    free(ids);
    if (r < 0) {
        free(gone);
        return r;
    }
    *ret_gone = gone;
    *ret_n = count;
    return 0;
}

node_id staging_became(struct staging *s, int64_t id)
{
    struct staged *n;
    node_id node;

    pthread_mutex_lock(&s->lock);
    n = staged_find(s, id);
    node = n ? n->became : 0;
    pthread_mutex_unlock(&s->lock);
    return node;
}

void staging_used(struct staging *s, size_t *ret_nodes, int64_t *ret_bytes, size_t *ret_max_nodes, int64_t *ret_max_bytes)
{
    pthread_mutex_lock(&s->lock);
    *ret_nodes = s->nodes;
    *ret_bytes = s->bytes;
    *ret_max_nodes = s->max_nodes;
    *ret_max_bytes = s->max_bytes;
    pthread_mutex_unlock(&s->lock);
}
