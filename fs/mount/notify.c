/* The kernel's caches, invalidated by one thread that holds no lock: inval_entry waits for a lookup in that directory, so a handler
 * must never call it (fuse.md §0.9, §1.4).
 *
 * Nor while a create or mkdir there waits for its answer: in that wait, which nothing ends but the answer (fuse_reverse_inval_entry of
 * fs/fuse/dir.c takes the directory's lock), a mount that is killed couldn't die, and both would hang until the connection is aborted. */
#include <stdlib.h>
#include <string.h>

#include "mount_i.h"
#include "util/text.h"
#include "util/thread.h"

struct note {
    node_id node;
    char *name; /* NULL: the inode itself */
    struct fuse_pollhandle *poll; /* set: whoever waits in poll(2), and nothing else */
    bool deferred;
    struct note *next;
};

/* A directory whose lock the kernel holds until a call is answered, and what waits for that. */
struct held {
    node_id dir;
    struct note *first, **last;
    struct held *next;
};

struct notifier {
    struct fuse_session *se;
    pthread_mutex_t lock;
    pthread_cond_t some;
    struct note *first, **last;
    struct held *held;
    bool ending;
    pthread_t thread;
};

static void tell(struct notifier *n, const struct note *note)
{
    /* -ENOENT means that nothing was cached; any other failure that the mount is going. */
    if (note->poll)
        fuse_lowlevel_notify_poll(note->poll);
    else if (note->name)
        fuse_lowlevel_notify_inval_entry(n->se, note->node, note->name, strlen(note->name));
    else
        fuse_lowlevel_notify_inval_inode(n->se, note->node, 0, 0);
}

static struct held **find_held(struct notifier *n, node_id dir)
{
    struct held **h = &n->held;

    while (*h && (*h)->dir != dir)
        h = &(*h)->next;
    return h;
}

/* Once: a directory in which one call follows the other isn't stale for ever. n->lock is held. */
static bool defer(struct notifier *n, struct note *note)
{
    struct held *h = note->name && !note->deferred ? *find_held(n, note->node) : NULL;

    if (!h)
        return false;
    note->deferred = true;
    note->next = NULL;
    *h->last = note;
    h->last = &note->next;
    return true;
}

static void *notify(void *arg)
{
    struct notifier *n = arg;

    for (;;) {
        struct note *note;

        pthread_mutex_lock(&n->lock);
        while (!n->first && !n->ending)
            pthread_cond_wait(&n->some, &n->lock);
        note = n->first;
        if (note) {
            n->first = note->next;
            if (!n->first)
                n->last = &n->first;
        }
        if (note && !n->ending && defer(n, note)) {
            pthread_mutex_unlock(&n->lock);
            continue;
        }
        if (n->ending) { /* nobody needs them any more, and the session may be gone */
            pthread_mutex_unlock(&n->lock);
            if (!note)
                return NULL;
        } else {
            pthread_mutex_unlock(&n->lock);
            tell(n, note);
        }
        if (note->poll)
            fuse_pollhandle_destroy(note->poll);
        free(note->name);
        free(note);
    }
}

struct notifier *notifier_new(struct fuse_session *se)
{
    struct notifier *n = calloc(1, sizeof(*n));

    if (!n)
        return NULL;
    n->se = se;
    n->last = &n->first;
    pthread_mutex_init(&n->lock, NULL);
    pthread_cond_init(&n->some, NULL);
    if (thread_start(&n->thread, NULL, notify, n)) {
        free(n);
        return NULL;
    }
    return n;
}

void notifier_free(struct notifier *n)
{
    if (!n)
        return;
    pthread_mutex_lock(&n->lock);
    n->ending = true;
    pthread_cond_signal(&n->some);
    pthread_mutex_unlock(&n->lock);
    pthread_join(n->thread, NULL);
    pthread_cond_destroy(&n->some);
    pthread_mutex_destroy(&n->lock);
    free(n);
}

static void queue(struct notifier *n, struct note *note)
{
    pthread_mutex_lock(&n->lock);
    *n->last = note;
    n->last = &note->next;
    pthread_cond_signal(&n->some);
    pthread_mutex_unlock(&n->lock);
}

static void add(struct notifier *n, node_id node, const char *name)
{
    struct note *note = calloc(1, sizeof(*note));

    if (!note)
        return; /* the caches expire by themselves */
    note->node = node;
    note->name = str_dup(name);
    queue(n, note);
}

void notify_poll(struct notifier *n, struct fuse_pollhandle *ph)
{
    struct note *note = calloc(1, sizeof(*note));

    if (!note) {
        fuse_pollhandle_destroy(ph); /* the waiter's own time-out is left */
        return;
    }
    note->poll = ph;
    queue(n, note);
}

void notify_hold(struct notifier *n, node_id dir)
{
    struct held *h;

    pthread_mutex_lock(&n->lock);
    h = *find_held(n, dir) ? NULL : calloc(1, sizeof(*h)); /* the kernel lets one call at a time into a directory */
    if (h) {
        h->dir = dir;
        h->last = &h->first;
        h->next = n->held;
        n->held = h;
    }
    pthread_mutex_unlock(&n->lock);
}

void notify_release(struct notifier *n, node_id dir)
{
    struct held **at;
    struct held *h;

    pthread_mutex_lock(&n->lock);
    at = find_held(n, dir);
    h = *at;
    if (h) {
        *at = h->next;
        if (h->first) {
            *n->last = h->first;
            n->last = h->last;
            pthread_cond_signal(&n->some);
        }
    }
    pthread_mutex_unlock(&n->lock);
    free(h);
}

void notify_inode(struct notifier *n, node_id node) { add(n, node, NULL); }
void notify_entry(struct notifier *n, node_id parent, const char *name) { add(n, parent, name); }

struct absent {
    struct notifier *n;
    node_id dir;
};

static void drop_absent(void *arg, const char *name)
{
    const struct absent *a = arg;

    notify_entry(a->n, a->dir, name);
}

void mount_changed(void *mount, const struct index_change *ch)
{
    struct mount *m = mount;
    struct notifier *n = m->notifier;
    struct absent absent = {n, node_make(CLASS_CHECKPOINT, ch->checkpoint, CKPT_DIR)};

    if (!n)
        return;
    if (ch->every_status)
        poll_all_changed(m);
    else
        poll_changed(m, ch->checkpoint);
    if (!ch->checkpoint)
        return;
    if (!ch->old_name || !ch->new_name || strcmp(ch->old_name, ch->new_name) != 0) {
        notify_inode(n, NODE_ROOT);
        if (ch->old_name)
            notify_entry(n, NODE_ROOT, ch->old_name);
    }
    if (ch->listing && ch->old_name && ch->new_name) /* not the directory itself: it is somebody's cwd, who would have none any more */
        tree_absent(m->c.index, ch->checkpoint, drop_absent, &absent);
    notify_inode(n, absent.dir);
    if (ch->sealed)
        notify_inode(n, node_make(CLASS_CHECKPOINT, ch->checkpoint, CKPT_STATE)); /* pages of direct_io writes: traps.md 18 */
    for (size_t i = 0; i < ch->n_calls; i++)
        notify_inode(n, node_make(CLASS_CALL, ch->calls[i], ONLY_KIND));
}
