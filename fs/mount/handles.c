/* Open files. */
#include <stdlib.h>

#include "mount_i.h"
#include "util/clock.h"

/* A control file that is open but not written to is no longer busy after this (design.md §3.5, traps.md 7). */
#define IDLE_MS 5000

struct handle *handle_new(struct mount *m, enum handle_kind kind, const struct node_attr *a, const struct fuse_ctx *ctx)
{
    struct handle *h = calloc(1, sizeof(*h));

    if (!h)
        return NULL;
    h->kind = kind;
    h->node = a->id;
    h->checkpoint = node_class(a->id) == CLASS_CHECKPOINT ? node_row(a->id) : 0;
    h->source = a->source;
    h->file = a->file;
    h->pid = ctx->pid;
    h->uid = ctx->uid;
    h->touched_ms = clock_mono_ms();
    pthread_mutex_init(&h->lock, NULL);
    if (kind != HANDLE_READ) {
        pthread_mutex_lock(&m->handles_lock);
        h->next = m->handles;
        if (h->next)
            h->next->prev = h;
        m->handles = h;
        pthread_mutex_unlock(&m->handles_lock);
    }
    return h;
}

void handle_free(struct mount *m, struct handle *h)
{
    if (!h)
        return;
    if (h->kind != HANDLE_READ) {
        pthread_mutex_lock(&m->handles_lock);
        if (h->prev)
            h->prev->next = h->next;
        else
            m->handles = h->next;
        if (h->next)
            h->next->prev = h->prev;
        pthread_mutex_unlock(&m->handles_lock);
    }
    buf_free(&h->text);
    feed_free(h->feed);
    run_unref(h->run);
    pthread_mutex_destroy(&h->lock);
    free(h);
}

static bool counts(const struct handle *h, int64_t now)
{
    if (h->kind != HANDLE_CONTROL)
        return true;
    return !h->answered && (h->commanded || now - h->touched_ms < IDLE_MS);
}

bool handle_busy(struct mount *m, node_id node, const struct handle *except)
{
    int64_t now = clock_mono_ms();
    bool busy = false;

    pthread_mutex_lock(&m->handles_lock);
    for (struct handle *h = m->handles; h && !busy; h = h->next)
        busy = h != except && h->node == node && counts(h, now);
    pthread_mutex_unlock(&m->handles_lock);
    return busy;
}
