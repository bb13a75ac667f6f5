/* Open files. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "mount_i.h"
#include "util/clock.h"

/* A control file that is open but not written to is no longer busy after this (design.md §3.5, traps.md 7). */
#define IDLE_MS 5000

int64_t checkpoint_of(struct mount *m, node_id node)
{
    const struct store_branch *i;
    struct index_entry *e;
    int64_t id = 0;

    if (node_class(node) == CLASS_CHECKPOINT)
        return node_row(node);
    if (node_class(node) != CLASS_BRANCH)
        return 0;
    index_read_lock(m->c.index);
    e = index_by_branch(m->c.index, node_row(node), &i);
    if (e)
        id = e->c.id;
    index_unlock(m->c.index);
    return id;
}

static struct handle *make(struct mount *m, enum handle_kind kind, const struct node_attr *a, const struct fuse_ctx *ctx)
{
    struct handle *h = calloc(1, sizeof(*h));

    if (!h)
        return NULL;
    h->kind = kind;
    h->fd = -1;
    h->node = a->id;
    h->checkpoint = checkpoint_of(m, a->id);
    h->branch = node_class(a->id) == CLASS_BRANCH ? node_row(a->id) : 0;
    h->source = a->source;
    h->file = a->file;
    h->from = (struct engine_who){ctx->pid, ctx->uid, ctx->gid};
    h->touched_ms = clock_mono_ms();
    pthread_mutex_init(&h->lock, NULL);
    return h;
}

/* The kernel's lock of an inode is held only while a write waits; an open that may still be followed by one counts too. */
static bool counts(const struct handle *h, int64_t now)
{
    if (h->kind != HANDLE_CONTROL)
        return true;
    return h->writing || (!h->answered && !h->refused && now - h->touched_ms < IDLE_MS);
}

static bool busy_locked(struct mount *m, node_id node)
{
    int64_t now = clock_mono_ms();
    bool busy = false;

    for (struct handle *h = m->handles; h && !busy; h = h->next)
        busy = h->node == node && counts(h, now);
    return busy;
}

/* Readers are kept apart: they keep nothing busy, and are listed only for the end, when the kernel no longer closes them. */
static struct handle **list_of(struct mount *m, const struct handle *h)
{
    return h->kind == HANDLE_READ ? &m->readers : &m->handles;
}

static void link_locked(struct mount *m, struct handle *h)
{
    struct handle **head = list_of(m, h);

    h->next = *head;
    if (h->next)
        h->next->prev = h;
    *head = h;
}

struct handle *handle_new(struct mount *m, enum handle_kind kind, const struct node_attr *a, const struct fuse_ctx *ctx)
{
    struct handle *h = make(m, kind, a, ctx);

    if (!h)
        return NULL;
    pthread_mutex_lock(&m->handles_lock);
    link_locked(m, h);
    pthread_mutex_unlock(&m->handles_lock);
    return h;
}

int handle_new_alone(struct mount *m, enum handle_kind kind, const struct node_attr *a, const struct fuse_ctx *ctx, struct handle **ret)
{
    struct handle *h = make(m, kind, a, ctx);
    bool busy;

    if (!h)
        return -ENOMEM;
    pthread_mutex_lock(&m->handles_lock);
    busy = busy_locked(m, a->id);
    if (!busy)
        link_locked(m, h);
    pthread_mutex_unlock(&m->handles_lock);
    if (busy) {
        pthread_mutex_destroy(&h->lock);
        free(h);
        return -EBUSY;
    }
    *ret = h;
    return 0;
}

void handle_writes(struct mount *m, struct handle *h, bool writing)
{
    pthread_mutex_lock(&m->handles_lock);
    h->writing = writing;
    h->wrote |= writing;
    h->touched_ms = clock_mono_ms();
    pthread_mutex_unlock(&m->handles_lock);
}

void handle_free(struct mount *m, struct handle *h)
{
    if (!h)
        return;
    poll_forget(m, h);
    pthread_mutex_lock(&m->handles_lock);
    if (h->prev)
        h->prev->next = h->next;
    else
        *list_of(m, h) = h->next;
    if (h->next)
        h->next->prev = h->prev;
    pthread_mutex_unlock(&m->handles_lock);
    if (h->fd >= 0)
        close(h->fd);
    buf_free(&h->text);
    feed_free(h->feed);
    run_unref(h->run);
    who_clear(&h->who);
    pthread_mutex_destroy(&h->lock);
    free(h);
}

bool handle_written(struct mount *m, node_id node)
{
    bool written = false;

    pthread_mutex_lock(&m->handles_lock);
    for (struct handle *h = m->handles; h && !written; h = h->next)
        written = h->node == node && h->wrote;
    pthread_mutex_unlock(&m->handles_lock);
    return written;
}

void handle_overdue(struct mount *m, struct handle *h)
{
    pthread_mutex_lock(&m->handles_lock);
    h->overdue = true;
    pthread_mutex_unlock(&m->handles_lock);
}

bool handle_busy(struct mount *m, node_id node)
{
    bool busy;

    pthread_mutex_lock(&m->handles_lock);
    busy = busy_locked(m, node);
    pthread_mutex_unlock(&m->handles_lock);
    return busy;
}
