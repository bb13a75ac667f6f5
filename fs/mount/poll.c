/* poll(2): an open file is readable when it shows something that hasn't been read through it.
 *
 * The kernel gives a handle with each poll that somebody waits in. The latest is kept, one for each open file, and used up by the first
 * change of its checkpoint (or of the mount): the kernel then asks again, and gives the next (fuse.md §1.7). */
#include <poll.h>
#include <string.h>

#include "mount_i.h"

#define ALWAYS (POLLIN | POLLRDNORM | POLLOUT | POLLWRNORM) /* what the kernel says of files that know no poll */
#define NEWS (POLLIN | POLLRDNORM | POLLPRI)

/* Files that grow: whether there is more, or less, than what was read last. */
static bool is_stream(const struct handle *h)
{
    return h->kind == HANDLE_READ && (h->source == SOURCE_OUTPUT || h->source == SOURCE_HISTORY || h->source == SOURCE_EVENTS);
}

/* Texts in memory are compared. */
static bool is_text(const struct handle *h) { return h->kind == HANDLE_READ && h->source == SOURCE_TEXT; }

static bool grown(struct mount *m, struct handle *h)
{
    struct node_attr a;
    bool is;

    if (tree_attr(m->c.index, h->node, &a) < 0)
        return true; /* it is gone: the read says so */
    pthread_mutex_lock(&h->lock);
    is = a.size != h->seen;
    pthread_mutex_unlock(&h->lock);
    return is;
}

static bool differs(struct mount *m, struct handle *h)
{
    struct buf now = {0};
    bool is = tree_text(m->c.index, h->node, &now) < 0;

    pthread_mutex_lock(&h->lock);
    is |= !h->loaded || now.len != h->text.len || (now.len && memcmp(now.data, h->text.data, now.len) != 0);
    pthread_mutex_unlock(&h->lock);
    buf_free(&now);
    return is;
}

static struct fuse_pollhandle *swap(struct mount *m, struct handle *h, struct fuse_pollhandle *ph)
{
    struct fuse_pollhandle *old;

    pthread_mutex_lock(&m->handles_lock);
    old = h->poll;
    h->poll = ph;
    m->polled += ph && !old;
    m->polled -= old && !ph;
    pthread_mutex_unlock(&m->handles_lock);
    return old;
}

void poll_poll(struct mount *m, fuse_req_t req, struct fuse_file_info *fi, struct fuse_pollhandle *ph)
{
    struct handle *h = handle_of(fi);
    struct fuse_pollhandle *old = ph;

    if (ph && (is_stream(h) || is_text(h))) /* first: what changes from here on wakes, what has changed is seen below */
        old = swap(m, h, ph);
    if (old)
        fuse_pollhandle_destroy(old);
    if (is_stream(h))
        fuse_reply_poll(req, grown(m, h) ? NEWS : 0);
    else if (is_text(h))
        fuse_reply_poll(req, differs(m, h) ? NEWS : 0);
    else
        fuse_reply_poll(req, ALWAYS);
}

void poll_seen(struct mount *m, struct handle *h, int64_t off, size_t n)
{
    struct node_attr a;

    if (!n && tree_attr(m->c.index, h->node, &a) == 0)
        off = a.size; /* whoever gets nothing has seen how long it is */
    pthread_mutex_lock(&h->lock);
    h->seen = off + (int64_t)n;
    pthread_mutex_unlock(&h->lock);
}

static void wake(struct mount *m, bool all, int64_t checkpoint)
{
    pthread_mutex_lock(&m->handles_lock);
    for (struct handle *h = m->polled ? m->readers : NULL; h; h = h->next) {
        if (h->poll && (all || h->checkpoint == checkpoint || !h->checkpoint)) {
            notify_poll(m->notifier, h->poll);
            h->poll = NULL;
            m->polled--;
        }
    }
    pthread_mutex_unlock(&m->handles_lock);
}

void poll_changed(struct mount *m, int64_t checkpoint) { wake(m, false, checkpoint); }

void poll_all_changed(struct mount *m) { wake(m, true, 0); }

void poll_forget(struct mount *m, struct handle *h)
{
    struct fuse_pollhandle *old = swap(m, h, NULL);

    if (old)
        fuse_pollhandle_destroy(old);
}
