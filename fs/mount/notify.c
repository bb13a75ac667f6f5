/* The kernel's caches, invalidated by one thread that holds no lock: inval_entry waits for a lookup in that directory, so a handler
 * must never call it (fuse.md §0.9, §1.4). */
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "mount_i.h"
#include "util/text.h"

struct note {
    node_id node;
    char *name; /* NULL: the inode itself */
    struct note *next;
};

struct notifier {
    struct fuse_session *se;
    pthread_mutex_t lock;
    pthread_cond_t some;
    struct note *first, **last;
    bool ending;
    pthread_t thread;
};

static void tell(struct notifier *n, const struct note *note)
{
    /* -ENOENT means that nothing was cached; any other failure that the mount is going. */
    if (note->name)
        fuse_lowlevel_notify_inval_entry(n->se, note->node, note->name, strlen(note->name));
    else
        fuse_lowlevel_notify_inval_inode(n->se, note->node, 0, 0);
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
        if (n->ending) { /* nobody needs them any more, and the session may be gone */
            pthread_mutex_unlock(&n->lock);
            if (!note)
                return NULL;
        } else {
            pthread_mutex_unlock(&n->lock);
            tell(n, note);
        }
        free(note->name);
        free(note);
    }
}

struct notifier *notifier_new(struct fuse_session *se)
{
    struct notifier *n = calloc(1, sizeof(*n));
    sigset_t all, old;
    int failed;

    if (!n)
        return NULL;
    n->se = se;
    n->last = &n->first;
    pthread_mutex_init(&n->lock, NULL);
    pthread_cond_init(&n->some, NULL);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    failed = pthread_create(&n->thread, NULL, notify, n);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (failed) {
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

static void add(struct notifier *n, node_id node, const char *name)
{
    struct note *note = calloc(1, sizeof(*note));

    if (!note)
        return; /* the caches expire by themselves */
    note->node = node;
    note->name = str_dup(name);
    pthread_mutex_lock(&n->lock);
    *n->last = note;
    n->last = &note->next;
    pthread_cond_signal(&n->some);
    pthread_mutex_unlock(&n->lock);
}

void notify_inode(struct notifier *n, node_id node) { add(n, node, NULL); }
void notify_entry(struct notifier *n, node_id parent, const char *name) { add(n, parent, name); }

void mount_changed(void *mount, const struct index_change *ch)
{
    struct mount *m = mount;
    struct notifier *n = m->notifier;

    if (!n || !ch->checkpoint)
        return;
    if (!ch->old_name || !ch->new_name || strcmp(ch->old_name, ch->new_name) != 0) {
        notify_inode(n, NODE_ROOT);
        if (ch->old_name)
            notify_entry(n, NODE_ROOT, ch->old_name);
    }
    if (ch->listing && ch->old_name && ch->new_name) /* drops what is known of the directory's entries, negative ones too */
        notify_entry(n, NODE_ROOT, ch->new_name);
    notify_inode(n, node_make(CLASS_CHECKPOINT, ch->checkpoint, CKPT_DIR));
    if (ch->sealed)
        notify_inode(n, node_make(CLASS_CHECKPOINT, ch->checkpoint, CKPT_STATE)); /* pages of direct_io writes: traps.md 18 */
    for (size_t i = 0; i < ch->n_calls; i++)
        notify_inode(n, node_make(CLASS_CALL, ch->calls[i], ONLY_KIND));
}
