/* What an agent writes: state.json, temporaries that become it, and meta.json by meta.c (design.md §4). */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "mount_i.h"
#include "util/clock.h"
#include "util/log.h"
#include "util/text.h"

/* ---- open and create ------------------------------------------------------------------------------------------------- */

static void open_failed(struct call *c, int code)
{
    handle_free(c->m, c->h);
    c->h = NULL;
    call_reply_err(c, code);
}

static void reply_opened(struct call *c)
{
    struct node_attr a;

    c->fi.direct_io = 1;
    c->fi.fh = (uintptr_t)c->h;
    if (!c->name) {
        call_reply_open(c);
        return;
    }
    if (tree_attr(c->m->c.index, c->h->node, &a) == 0) {
        if (c->h->kind == HANDLE_META && a.size < 0)
            a.size = 0;
        call_reply_create(c, &a);
        return;
    }
    open_failed(c, ESTALE);
}

/* A temporary beside a failed take means to become its state: the take is tried again. */
static void open_temp(struct call *c)
{
    struct who who;
    int r;

    who_read(c->m->engine, &c->from, &who);
    r = engine_take_again(c->m->engine, c->h->checkpoint, &who, &c->e);
    who_clear(&who);
    c->h->failed = -r; /* told by the first write */
    reply_opened(c);
}

static int begin_anew(struct call *c, bool failed, bool truncate)
{
    int r = failed ? engine_take_again(c->m->engine, c->h->checkpoint, &c->h->who, &c->e) : 0;

    if (r == 0 && truncate)
        r = engine_state_truncate(c->m->engine, c->h->checkpoint, 0, &c->e);
    if (r == -EINVAL && !failed) /* the take failed just now, and the index doesn't know yet */
        r = engine_take_again(c->m->engine, c->h->checkpoint, &c->h->who, &c->e);
    return r;
}

/* state.json: a failed take is tried again; O_TRUNC drops what was written before. Else it goes on from there, on whatever mount that
 * was: the store is asked, since the index may not have heard of it yet. */
static void open_state(struct call *c)
{
    struct brief_phase { enum checkpoint_phase phase; bool closed; } now = {PHASE_FAILED, false};
    struct index_entry *e;
    int64_t size = -1;
    int r = 0;

    index_read_lock(c->m->c.index);
    e = index_by_id(c->m->c.index, c->h->checkpoint);
    if (e)
        now = (struct brief_phase){e->c.phase, e->c.closed};
    index_unlock(c->m->c.index);
    if (!e || now.phase == PHASE_SEALED || now.closed) {
        open_failed(c, e ? EPERM : ESTALE);
        return;
    }
    if (copies_may_write(c->m, c->h->checkpoint, c->from.pid) < 0) {
        c->node = node_make(CLASS_CHECKPOINT, c->h->checkpoint, CKPT_DIR);
        handle_free(c->m, c->h);
        c->h = NULL;
        copies_refuse(c, "state.json");
        return;
    }
    who_read(c->m->engine, &c->from, &c->h->who); /* now: it may be gone when the last close comes */
    if (now.phase != PHASE_FAILED && !(c->fi.flags & O_TRUNC))
        r = engine_state_size(c->m->engine, c->h->checkpoint, &size, &c->e);
    if (r == 0)
        r = begin_anew(c, now.phase == PHASE_FAILED, size < 0);
    if (r == -ESTALE) { /* told by the first write: an open that says so is tried again by the kernel */
        c->h->failed = ESTALE;
        reply_opened(c);
        return;
    }
    if (r < 0)
        open_failed(c, -r);
    else
        reply_opened(c);
}

static void open_meta(struct call *c)
{
    int r = meta_load(c);

    if (r < 0)
        open_failed(c, -r);
    else
        reply_opened(c);
}

/* A second writer of one state is refused: whose would it be? */
static struct call *opening(struct mount *m, fuse_req_t req, const struct node_attr *a, enum handle_kind kind, struct fuse_file_info *fi)
{
    struct call *c = call_new(req, NULL);
    int r = 0;

    if (!c)
        return NULL;
    c->fi = *fi;
    if (kind == HANDLE_DRAFT)
        r = handle_new_alone(m, kind, a, fuse_req_ctx(req), &c->h);
    else
        c->h = handle_new(m, kind, a, fuse_req_ctx(req));
    if (!c->h) {
        call_reply_err(c, r < 0 ? -r : ENOMEM);
        return NULL;
    }
    return c;
}

static bool failed_take(struct mount *m, int64_t checkpoint)
{
    struct index_entry *e;
    bool failed;

    index_read_lock(m->c.index);
    e = index_by_id(m->c.index, checkpoint);
    failed = e && e->c.phase == PHASE_FAILED;
    index_unlock(m->c.index);
    return failed;
}

/* The kernel holds the directory's lock while a file is created (c->name), not while one is opened. */
static void open_by_kind(struct mount *m, struct call *c)
{
    struct jobs *jobs = c->name ? m->dirs : m->jobs;

    if (c->h->kind == HANDLE_TEMP)
        c->h->checkpoint = temps_of(m, c->h->node, &c->h->ready);
    if (c->h->kind == HANDLE_META)
        jobs_add(jobs, c, open_meta);
    else if (c->h->kind == HANDLE_DRAFT)
        jobs_add(jobs, c, open_state);
    else if (!c->h->ready && failed_take(m, c->h->checkpoint))
        jobs_add(jobs, c, open_temp);
    else
        reply_opened(c);
}

static enum handle_kind kind_of(const struct node_attr *a)
{
    if (node_class(a->id) == CLASS_TEMP)
        return HANDLE_TEMP;
    return node_kind(a->id) == CKPT_META ? HANDLE_META : HANDLE_DRAFT;
}

/* Whoever reads in `status` that there is no seal may open the state before the job that said so has freed its handle. */
static void open_after_seal(struct call *c)
{
    struct node_attr a = {.id = c->node, .source = SOURCE_DRAFT};
    int r = engine_await_seal(c->m->engine, node_row(c->node), &c->e);

    if (r == 0)
        r = handle_new_alone(c->m, HANDLE_DRAFT, &a, fuse_req_ctx(c->req), &c->h);
    if (r < 0)
        call_reply_err(c, -r);
    else
        open_state(c);
}

static bool being_sealed(struct mount *m, node_id node)
{
    struct index_entry *e;
    bool is;

    index_read_lock(m->c.index);
    e = index_by_id(m->c.index, node_row(node));
    is = e && e->sealing;
    index_unlock(m->c.index);
    return is && handle_busy(m, node);
}

void draft_open(struct mount *m, fuse_req_t req, const struct node_attr *a, struct fuse_file_info *fi)
{
    struct call *c;

    if (kind_of(a) == HANDLE_TEMP && (fi->flags & O_TRUNC))
        temps_resize(m, a->id, 0);
    if (kind_of(a) == HANDLE_DRAFT && being_sealed(m, a->id)) {
        c = call_new(req, NULL);
        if (c) {
            c->fi = *fi;
            c->node = a->id;
            jobs_add(m->jobs, c, open_after_seal);
        }
        return;
    }
    c = opening(m, req, a, kind_of(a), fi);
    if (c)
        open_by_kind(m, c);
}

/* The attributes that a file which isn't listed yet will have. */
static int create_attr(struct mount *m, node_id dir, const char *name, struct node_attr *a)
{
    struct index_temp *t;

    *a = (struct node_attr){.mode = S_IFREG | 0666, .mtime = clock_now(), .source = SOURCE_TEMP};
    if (strcmp(name, "state.json") == 0) {
        a->id = node_make(CLASS_CHECKPOINT, node_row(dir), CKPT_STATE);
        a->source = SOURCE_DRAFT;
        return 0;
    }
    if (strcmp(name, "meta.json") == 0) {
        a->id = node_make(CLASS_CHECKPOINT, node_row(dir), CKPT_META);
        a->source = SOURCE_FILE;
        a->file = FILE_META;
        return 0;
    }
    index_write_lock(m->c.index);
    t = index_temp_add(m->c.index, node_row(dir), name);
    if (t)
        a->id = node_make(CLASS_TEMP, t->id, ONLY_KIND);
    index_unlock(m->c.index);
    return t ? 0 : -ENOMEM;
}

static bool may_create(struct mount *m, node_id dir, const char *name, pid_t pid)
{
    struct index_entry *e;
    bool sealed;

    if (copies_may_write(m, node_row(dir), pid) < 0)
        return false;
    index_read_lock(m->c.index);
    e = index_by_id(m->c.index, node_row(dir));
    sealed = e && e->c.phase == PHASE_SEALED;
    index_unlock(m->c.index);
    if (!e)
        return false;
    if (strcmp(name, "state.json") == 0)
        return !sealed;
    return strcmp(name, "meta.json") == 0 || copies_temporary_name(name);
}

void draft_create(struct mount *m, fuse_req_t req, node_id dir, const char *name, struct fuse_file_info *fi)
{
    struct node_attr a;
    struct call *c;

    if (node_class(dir) != CLASS_CHECKPOINT || node_kind(dir) != CKPT_DIR || !may_create(m, dir, name, fuse_req_ctx(req)->pid)) {
        dirs_refuse(m, req, dir, name);
        return;
    }
    if (create_attr(m, dir, name, &a) < 0) {
        fuse_reply_err(req, ENOMEM);
        return;
    }
    c = opening(m, req, &a, kind_of(&a), fi);
    if (!c)
        return;
    call_holds(c, dir);
    c->name = str_dup(name);
    open_by_kind(m, c);
}

/* ---- write ------------------------------------------------------------------------------------------------------------ */

static void write_failed(struct call *c, int code)
{
    /* And so for every later write: Python sends a failed one again (traps.md 2), and without end after EINTR. */
    c->h->failed = code == EINTR ? ESHUTDOWN : code;
    call_reply_err(c, code);
}

/* Where a write goes that appends: the kernel may know an older end than what another mount wrote. */
static int64_t draft_end(struct mount *m, int64_t checkpoint, int64_t off)
{
    struct index_entry *e;

    index_read_lock(m->c.index);
    e = index_by_id(m->c.index, checkpoint);
    if (e && e->draft_size >= 0)
        off = e->draft_size;
    index_unlock(m->c.index);
    return off;
}

/* What was read through the handle is no longer what is there. */
static void written(struct handle *h)
{
    pthread_mutex_lock(&h->lock);
    buf_truncate(&h->text, 0);
    h->loaded = false;
    pthread_mutex_unlock(&h->lock);
}

static void write_state(struct call *c)
{
    int64_t off = c->fi.flags & O_APPEND ? draft_end(c->m, c->h->checkpoint, c->off) : c->off;
    int r = engine_state_write(c->m->engine, c->h->checkpoint, off, c->data, c->size, &c->e);

    if (r == -EINVAL) /* it takes no bytes any more: what has happened since the first write says why */
        r = engine_take_ready(c->m->engine, c->h->checkpoint, &c->e) < 0 ? -c->e.code : r;
    if (r < 0) {
        write_failed(c, -r);
        return;
    }
    if (!c->h->wrote)
        poll_changed(c->m, c->h->checkpoint); /* its status says so */
    c->h->wrote = true;
    written(c->h);
    call_reply_write(c, c->size);
}

static void write_temp(struct call *c)
{
    int r = temps_write(c->m, c->h->node, c->off, c->data, c->size);

    if (r < 0) {
        write_failed(c, -r);
        return;
    }
    written(c->h);
    call_reply_write(c, c->size);
}

static void write_ready(struct call *c)
{
    int r = 0;

    if (!c->h->ready) {
        r = engine_take_ready(c->m->engine, c->h->checkpoint, &c->e);
        if (c->h->kind == HANDLE_TEMP && r == -EPERM)
            r = 0; /* beside a sealed state a temporary can only become meta.json */
    }
    if (r < 0) {
        write_failed(c, -r);
        return;
    }
    c->h->ready = true;
    if (c->h->kind == HANDLE_TEMP)
        write_temp(c);
    else
        write_state(c);
}

static void take_ended(struct call *c, int code)
{
    if (code)
        write_failed(c, code);
    else
        jobs_add(c->m->jobs, c, write_ready);
}

/* The first write waits until the snapshot has settled. */
static void write_waiting(struct call *c)
{
    struct run *r = c->h->ready || c->h->failed ? NULL : engine_take_run(c->m->engine, c->h->checkpoint);

    if (c->h->failed)
        call_reply_err(c, c->h->failed);
    else if (r)
        waits_for(c, r, take_ended);
    else
        write_ready(c);
}

void draft_write(struct mount *m, fuse_req_t req, const char *bytes, size_t n, off_t off, struct fuse_file_info *fi)
{
    struct call *c = call_write(req, fi, bytes, n, off);

    if (!c)
        return;
    if (c->h->kind == HANDLE_META)
        access_check(m, req, ROLE_OPERATOR, &c->why);
    jobs_add(m->jobs, c, c->h->kind == HANDLE_META ? meta_write : write_waiting);
}

/* ---- truncate ----------------------------------------------------------------------------------------------------------- */

static void resize_state(struct call *c)
{
    struct node_attr a;
    int r = engine_state_truncate(c->m->engine, node_row(c->node), c->set.size, &c->e);

    if (c->h)
        written(c->h);
    if (r == 0)
        r = tree_attr(c->m->c.index, c->node, &a);
    if (r < 0)
        call_reply_err(c, -r);
    else
        call_reply_attr(c, &a);
}

void draft_resize(struct call *c, const struct node_attr *a)
{
    struct node_attr now;
    int r;

    switch (kind_of(a)) {
    case HANDLE_DRAFT:
        if (a->source == SOURCE_DRAFT)
            jobs_add(c->m->jobs, c, resize_state);
        else
            call_reply_err(c, EPERM);
        return;
    case HANDLE_TEMP:
        r = temps_resize(c->m, c->node, c->set.size);
        if (c->h)
            written(c->h);
        if (r == 0)
            r = tree_attr(c->m->c.index, c->node, &now);
        if (r < 0)
            call_reply_err(c, -r);
        else
            call_reply_attr(c, &now);
        return;
    case HANDLE_META:
        if (c->h && c->h->kind == HANDLE_META)
            meta_resize(c->h, c->set.size);
        call_reply_attr(c, a);
        return;
    case HANDLE_READ:
    case HANDLE_CONTROL:
    case HANDLE_STAGED:
        break;
    }
    call_reply_attr(c, a);
}

/* ---- close ---------------------------------------------------------------------------------------------------------------- */

static void seal(struct call *c)
{
    int64_t checkpoint = c->h->checkpoint;

    if (engine_seal(c->m->engine, checkpoint, &c->h->who, &c->e) < 0)
        log_info("not sealed: %s", err_text(&c->e));
    handle_free(c->m, c->h); /* first: whoever waits for the seal's end opens */
    engine_sealing(c->m->engine, checkpoint, NULL, false);
    call_free(c);
}

int draft_sync(struct mount *m, const struct handle *h)
{
    bool gone = false;

    if (h->kind == HANDLE_DRAFT && h->wrote) {
        index_read_lock(m->c.index);
        gone = !index_by_id(m->c.index, h->checkpoint);
        index_unlock(m->c.index);
    }
    return gone ? -ENOENT : 0;
}

int draft_flush(struct mount *m, struct handle *h)
{
    int r = draft_sync(m, h);

    if (r == 0 && h->kind == HANDLE_DRAFT && h->wrote && !h->failed)
        engine_sealing(m->engine, h->checkpoint, &h->who, false); /* of a child's descriptor perhaps */
    return r;
}

void draft_release(struct mount *m, struct handle *h)
{
    if (h->kind == HANDLE_META && meta_cut_short(h)) {
        call_after_close(m, h, meta_incomplete);
    } else if (h->kind == HANDLE_DRAFT && h->wrote && !h->failed) {
        engine_sealing(m->engine, h->checkpoint, &h->who, true);
        call_after_close(m, h, seal);
    } else {
        if (h->kind == HANDLE_DRAFT && h->wrote)
            engine_sealing(m->engine, h->checkpoint, NULL, false);
        handle_free(m, h);
    }
}

/* ---- unlink -------------------------------------------------------------------------------------------------------------- */

static void unlink_state(struct call *c)
{
    int r = engine_state_truncate(c->m->engine, node_row(c->node), 0, &c->e);

    index_draft(c->m->c.index, node_row(c->node), -1, 0, true);
    call_reply_err(c, -r);
}

/* No tool's way of removing a tree destroys a checkpoint. */
void draft_unlink(struct call *c)
{
    struct node_attr a;
    int r = tree_lookup(c->m->c.index, c->node, c->name, &a);

    if (r < 0)
        call_reply_err(c, -r);
    else if (node_class(a.id) == CLASS_TEMP)
        temps_unlink(c, a.id);
    else if (a.source == SOURCE_DRAFT)
        jobs_add(c->m->dirs, c, unlink_state);
    else if (node_kind(a.id) == CKPT_STATE || node_kind(a.id) == CKPT_META)
        call_reply_err(c, EPERM);
    else
        copies_refuse_unlink(c, c->name);
}
