/* Reading: each open file's bytes from where the tree says they come (tree.h SOURCE_…). */
#include <errno.h>
#include <stdlib.h>

#include "mount_i.h"
#include "store/store.h"
#include "util/log.h"

/* .control/result shows the last action of the mount itself. */
static node_id control_result(struct mount *m)
{
    const struct store_action_entry *a;
    node_id node = 0;

    index_read_lock(m->c.index);
    a = index_control_action(m->c.index);
    if (a)
        node = node_make(CLASS_ACTION, a->id, ONLY_KIND);
    index_unlock(m->c.index);
    return node;
}

void read_open(struct mount *m, fuse_req_t req, const struct node_attr *a, struct fuse_file_info *fi)
{
    struct handle *h = handle_new(m, HANDLE_READ, a, fuse_req_ctx(req));

    if (!h) {
        fuse_reply_err(req, ENOMEM);
        return;
    }
    if (a->id == node_make(CLASS_MOUNT, 0, MOUNT_RESULT))
        h->node = control_result(m);
    fi->fh = (uintptr_t)h;
    fi->keep_cache = a->immutable;
    fi->noflush = a->immutable;
    fi->direct_io = !a->immutable; /* bytes as they are now, whatever size was known */
    if (fuse_reply_open(req, fi) == -ENOENT)
        handle_free(m, h);
}

static int load(struct mount *m, struct handle *h, struct err *e)
{
    switch (h->source) {
    case SOURCE_FILE:
        return h->branch ? store_read_branch_result(m->c.store, h->branch, &h->text, e)
                         : store_read_file(m->c.store, h->checkpoint, h->file, &h->text, e);
    case SOURCE_CALL:
        return store_read_call(m->c.store, node_row(h->node), &h->text, e);
    case SOURCE_ACTION:
        return store_read_action(m->c.store, node_row(h->node), &h->text, e);
    case SOURCE_DRAFT:
        return store_state_assemble(m->c.store, h->checkpoint, &h->text, NULL, e);
    case SOURCE_METRICS:
        return engine_metrics(m->engine, &h->text);
    case SOURCE_NONE:
    case SOURCE_EMPTY:
    case SOURCE_TEXT:
    case SOURCE_WAIT:
        return tree_text(m->c.index, h->node, &h->text);
    case SOURCE_TEMP:
        return temps_read(m, h->node, &h->text, e);
    case SOURCE_STATE:
    case SOURCE_OUTPUT:
    case SOURCE_HISTORY:
    case SOURCE_EVENTS:
        break;
    }
    return -EINVAL;
}

/* Takes over `bytes`. */
static void reply(struct call *c, int r, struct buf *bytes)
{
    if (r < 0) {
        log_warn("a file can't be read: %s", err_text(&c->e));
        call_reply_err(c, -r);
    } else {
        call_reply_bytes(c, bytes, 0, c->size);
    }
    buf_free(bytes);
}

/* Small files are read whole once, and served from the handle: one open shows one version. But a text that is read from its start again, as
 * after a poll, is as it is now, and so is what isn't sealed yet. */
static void read_whole(struct call *c)
{
    struct handle *h = c->h;
    struct buf bytes = {0};
    int r = 0;

    pthread_mutex_lock(&h->lock);
    if ((h->source == SOURCE_TEXT || h->kind == HANDLE_DRAFT || h->kind == HANDLE_TEMP) && c->off == 0 && h->loaded) {
        buf_truncate(&h->text, 0);
        h->loaded = false;
    }
    if (!h->loaded) {
        r = load(c->m, h, &c->e);
        h->loaded = r == 0;
    }
    if (r == 0 && c->off < (int64_t)h->text.len)
        buf_add(&bytes, h->text.data + c->off, h->text.len - (size_t)c->off < c->size ? h->text.len - (size_t)c->off : c->size);
    pthread_mutex_unlock(&h->lock);
    reply(c, r, &bytes);
}

static void read_part(struct call *c)
{
    struct store *s = c->m->c.store;
    struct handle *h = c->h;
    struct buf bytes = {0};
    int r = -EINVAL;

    switch (h->source) {
    case SOURCE_STATE:
        r = store_read_state(s, h->checkpoint, c->off, c->size, &bytes, &c->e);
        break;
    case SOURCE_OUTPUT:
        r = store_read_output(s, h->checkpoint, h->branch, c->off, c->size, &bytes, &c->e);
        break;
    case SOURCE_HISTORY:
        r = store_read_history(s, h->checkpoint, c->off, c->size, &bytes, &c->e);
        break;
    case SOURCE_EVENTS:
        r = store_read_events(s, engine_line(c->m->engine), c->off, c->size, &bytes, &c->e);
        break;
    case SOURCE_NONE:
    case SOURCE_EMPTY:
    case SOURCE_TEXT:
    case SOURCE_FILE:
    case SOURCE_DRAFT:
    case SOURCE_CALL:
    case SOURCE_ACTION:
    case SOURCE_TEMP:
    case SOURCE_WAIT:
    case SOURCE_METRICS:
        break;
    }
    if (r == 0 && h->source != SOURCE_STATE)
        poll_seen(c->m, h, c->off, bytes.len);
    reply(c, r, &bytes);
}

/* NAME/wait: until nothing is under way there, then the status. */
static void read_wait(struct call *c);

/* The mount leaves: EINTR for whoever waits or was about to. Programs read again after it, and must hear something else then. */
static void wait_over(struct call *c)
{
    int code;

    pthread_mutex_lock(&c->h->lock);
    code = c->h->failed ? c->h->failed : EINTR;
    c->h->failed = ESHUTDOWN;
    pthread_mutex_unlock(&c->h->lock);
    call_reply_err(c, code);
}

static void wait_ended(struct call *c, int code)
{
    (void)code;
    if (engine_stopping(c->m->engine))
        wait_over(c);
    else
        jobs_add(c->m->jobs, c, read_wait); /* another action may have begun */
}

static void read_wait(struct call *c)
{
    struct engine *g = c->m->engine;
    bool first = c->off == 0 && !c->h->loaded;
    struct run *r = first && !engine_stopping(g) ? engine_under_way(g, c->h->checkpoint, c->h->branch) : NULL;

    if (r) {
        waits_for(c, r, wait_ended);
    } else if (first && engine_stopping(g)) { /* looked at last: a store that is being left says nothing of what is under way */
        wait_over(c);
    } else if (first && engine_seals(g, c->h->checkpoint)) { /* a writer that doesn't close is no action under way */
        waits_for_seal(c, wait_ended);
    } else {
        read_whole(c);
    }
}

void read_read(struct mount *m, fuse_req_t req, size_t size, off_t off, struct fuse_file_info *fi)
{
    struct handle *h = handle_of(fi);
    struct call *c;

    if (h->kind == HANDLE_CONTROL || h->source == SOURCE_EMPTY) {
        fuse_reply_buf(req, NULL, 0);
        return;
    }
    c = call_new(req, fi);
    if (!c)
        return;
    c->size = size;
    c->off = off;
    switch (h->source) {
    case SOURCE_NONE:
    case SOURCE_EMPTY:
    case SOURCE_TEXT:
        read_whole(c);
        return;
    case SOURCE_STATE:
    case SOURCE_OUTPUT:
    case SOURCE_HISTORY:
    case SOURCE_EVENTS:
        jobs_add(m->jobs, c, read_part);
        return;
    case SOURCE_WAIT:
        c->deadline_ms = INT64_MAX; /* any number may wait, each can be killed */
        waits_interruptible(c);
        jobs_add(m->jobs, c, read_wait);
        return;
    case SOURCE_FILE:
    case SOURCE_DRAFT:
    case SOURCE_TEMP:
    case SOURCE_CALL:
    case SOURCE_ACTION:
    case SOURCE_METRICS:
        jobs_add(m->jobs, c, read_whole);
        return;
    }
    call_reply_err(c, EIO);
}
