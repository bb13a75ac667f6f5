/* Control files: one open, one command; the write is answered when the action is done and checked (design.md §3). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agents/ancestry.h"
#include "mount_i.h"
#include "util/clock.h"
#include "util/log.h"
#include "util/text.h"

bool control_of(node_id node, enum control *ret)
{
    static const struct {
        enum node_class class;
        unsigned kind;
        enum control control;
    } rows[] = {
        {CLASS_CHECKPOINT, CKPT_RESTORE, CONTROL_RESTORE},
        {CLASS_CHECKPOINT, CKPT_RESUME, CONTROL_RESUME},
        {CLASS_CHECKPOINT, CKPT_REPLAY, CONTROL_REPLAY},
        {CLASS_CHECKPOINT, CKPT_CANCEL, CONTROL_CANCEL},
        {CLASS_MOUNT, MOUNT_PRUNE, CONTROL_PRUNE},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        if (rows[i].class == node_class(node) && rows[i].kind == node_kind(node)) {
            *ret = rows[i].control;
            return true;
        }
    }
    return false;
}

/* ---- open ----------------------------------------------------------------------------------------------------------- */


/* An agent's process can't decide: journalled, so that the audit log shows the attempt. */
static void open_refused(struct call *c)
{
    struct who who;
    enum control control = CONTROL_CANCEL;

    control_of(c->node, &control);
    who_read(c->from.pid, c->from.uid, &who);
    engine_refused(c->m->engine, node_class(c->node) == CLASS_CHECKPOINT ? node_row(c->node) : 0, control, "(open)", &who, EPERM,
                   "a process of a resumed agent may take checkpoints, but it can't decide");
    who_clear(&who);
    call_reply_err(c, EPERM);
}

void control_open(struct mount *m, fuse_req_t req, const struct node_attr *a, struct fuse_file_info *fi)
{
    enum control control = CONTROL_CANCEL;
    struct handle *h;
    struct call *c;

    control_of(a->id, &control);
    if (agent_is_below(fuse_req_ctx(req)->pid)) {
        c = call_new(req, NULL);
        if (c) {
            c->node = a->id;
            jobs_add(m->jobs, c, open_refused);
        }
        return;
    }
    if (control != CONTROL_CANCEL && handle_busy(m, a->id, NULL)) {
        fuse_reply_err(req, EBUSY); /* a second writer would hang where not even kill reaches it (fuse.md §0.7) */
        return;
    }
    h = handle_new(m, HANDLE_CONTROL, a, fuse_req_ctx(req));
    if (h)
        h->feed = feed_new();
    if (!h || !h->feed) {
        handle_free(m, h);
        fuse_reply_err(req, ENOMEM);
        return;
    }
    h->control = control;
    fi->fh = (uintptr_t)h;
    fi->direct_io = 1;
    if (fuse_reply_open(req, fi) == -ENOENT)
        handle_free(m, h);
}

/* ---- write ---------------------------------------------------------------------------------------------------------- */

static void mark(struct call *c, bool commanded, bool answered)
{
    pthread_mutex_lock(&c->m->handles_lock);
    c->h->touched_ms = clock_mono_ms();
    c->h->commanded |= commanded;
    c->h->answered = answered;
    pthread_mutex_unlock(&c->m->handles_lock);
}

/* The command's final answer, which the same bytes on this handle will get again. */
static void answer(struct call *c, int code)
{
    c->h->answer = code;
    mark(c, true, true);
    if (code)
        call_reply_err(c, code);
    else
        call_reply_write(c, c->size);
}

static void command(struct call *c)
{
    struct handle *h = c->h;
    struct run *r = NULL;
    struct who who;
    bool nowait = false;
    size_t n;
    const char *bytes = feed_command(h->feed, &n);
    int rc;

    mark(c, true, false);
    who_read(c->from.pid, c->from.uid, &who);
    rc = engine_command(c->m->engine, h->checkpoint, h->control, bytes, n, &who, &nowait, &r, &c->e);
    who_clear(&who);
    if (rc < 0 || !r || nowait) {
        run_unref(r);
        answer(c, rc < 0 ? -rc : 0);
        return;
    }
    h->run = run_ref(r);
    waits_for(c, r, answer);
}

/* The same bytes again: the same answer, or the same wait, if the first was interrupted. */
static void same(struct call *c)
{
    if (c->h->answered || !c->h->run)
        answer(c, c->h->answer);
    else
        waits_for(c, run_ref(c->h->run), answer);
}

static void bad(struct call *c)
{
    struct who who;
    size_t n = c->size < 200 ? c->size : 200;
    char *text = strndup(c->data, n);
    int code = c->e.code ? c->e.code : EINVAL;

    who_read(c->from.pid, c->from.uid, &who);
    engine_refused(c->m->engine, c->h->checkpoint, c->h->control, text, &who, code, err_text(&c->e));
    who_clear(&who);
    free(text);
    call_reply_err(c, code);
}

static void written(struct call *c)
{
    switch (feed_write(c->h->feed, c->data, c->size, &c->e)) {
    case FEED_COMMAND:
        command(c);
        return;
    case FEED_SAME:
        same(c);
        return;
    case FEED_MORE:
        mark(c, true, false);
        call_reply_write(c, c->size);
        return;
    case FEED_IGNORE:
        call_reply_write(c, c->size);
        return;
    case FEED_BAD:
        bad(c);
        return;
    }
    call_reply_err(c, EIO);
}

void control_write(struct mount *m, fuse_req_t req, const char *bytes, size_t n, struct fuse_file_info *fi)
{
    struct call *c = call_new(req, fi);

    if (!c)
        return;
    c->data = malloc(n + 1);
    if (!c->data) {
        call_reply_err(c, ENOMEM);
        return;
    }
    memcpy(c->data, bytes, n);
    c->data[n] = '\0';
    c->size = n;
    waits_interruptible(c);
    jobs_add(m->jobs, c, written);
}

/* ---- close ---------------------------------------------------------------------------------------------------------- */

static void incomplete(struct call *c)
{
    struct who who = {.w = {.pid = c->from.pid, .uid = c->from.uid}};

    engine_refused(c->m->engine, c->h->checkpoint, c->h->control, "(JSON)", &who, EINVAL, "incomplete command: the JSON was cut before its end; nothing was done");
    handle_free(c->m, c->h);
    call_free(c);
}

void control_release(struct mount *m, struct handle *h)
{
    struct call *c;

    if (!feed_close(h->feed)) {
        handle_free(m, h);
        return;
    }
    c = calloc(1, sizeof(*c));
    if (!c) {
        handle_free(m, h);
        return;
    }
    c->m = m;
    c->h = h;
    c->from.pid = h->pid;
    c->from.uid = h->uid;
    jobs_add(m->jobs, c, incomplete);
}
