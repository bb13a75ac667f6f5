/* Control files: one open, one command; the write is answered when the action is done and checked (design.md §3). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "mount_i.h"
#include "util/clock.h"

/* How long an open waits for the close of a handle that nothing was written to. */
#define CLOSE_MS 100

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
        {CLASS_BRANCH, BRANCH_RESUME, CONTROL_RESUME},
        {CLASS_BRANCH, BRANCH_CANCEL, CONTROL_CANCEL},
        {CLASS_BRANCH, BRANCH_PROMOTE, CONTROL_PROMOTE},
        {CLASS_MOUNT, MOUNT_PRUNE, CONTROL_PRUNE},
        {CLASS_MOUNT, MOUNT_UNDO, CONTROL_UNDO},
        {CLASS_MOUNT, MOUNT_ADOPT, CONTROL_ADOPT},
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

/* A second writer would hang where not even kill reaches it (fuse.md §0.7). cancel, answered at once, is never busy. 0, or a positive
 * errno. */
static int handle_for(struct mount *m, const struct node_attr *a, enum control control, const struct fuse_ctx *ctx, struct handle **ret)
{
    struct handle *h = NULL;
    int r = 0;

    if (control == CONTROL_CANCEL)
        h = handle_new(m, HANDLE_CONTROL, a, ctx);
    else
        r = handle_new_alone(m, HANDLE_CONTROL, a, ctx, &h);
    if (h) {
        h->control = control;
        h->feed = feed_new();
    }
    if (h && h->feed) {
        *ret = h;
        return 0;
    }
    handle_free(m, h);
    return r < 0 ? -r : ENOMEM;
}

/* A close that nobody waited for (`: > restore`) comes as a request of its own, which this open may have overtaken. */
static void open_again(struct call *c)
{
    int64_t until = clock_mono_ms() + CLOSE_MS;
    struct node_attr a = {.id = c->node, .source = SOURCE_EMPTY};
    struct fuse_ctx ctx = {.pid = c->from.pid, .uid = c->from.uid, .gid = c->from.gid};
    enum control control = CONTROL_CANCEL;
    int code;

    control_of(c->node, &control);
    while ((code = handle_for(c->m, &a, control, &ctx, &c->h)) == EBUSY && clock_mono_ms() < until && !handle_written(c->m, c->node))
        clock_sleep_ms(1);
    if (code) {
        call_reply_err(c, code);
        return;
    }
    c->fi.fh = (uintptr_t)c->h;
    c->fi.direct_io = 1;
    call_reply_open(c);
}

/* Who may not decide: journalled, so that the audit log shows the attempt. c->why says why. */
static void open_refused(struct call *c)
{
    struct who who;
    enum control control = CONTROL_CANCEL;

    control_of(c->node, &control);
    who_read(c->m->engine, &c->from, &who);
    engine_refused(c->m->engine, checkpoint_of(c->m, c->node), node_class(c->node) == CLASS_BRANCH ? node_row(c->node) : 0, control,
                   "(open)", &who, c->code, c->why);
    who_clear(&who);
    call_reply_err(c, c->code);
}

void control_open(struct mount *m, fuse_req_t req, const struct node_attr *a, struct fuse_file_info *fi)
{
    enum control control = CONTROL_CANCEL;
    struct handle *h = NULL;
    const char *why = NULL;
    struct call *c;
    int code;

    control_of(a->id, &control);
    code = access_check(m, req, a->who, &why);
    if (code) {
        c = call_new(req, NULL);
        if (c) {
            c->node = a->id;
            c->code = code;
            c->why = why;
            jobs_add(m->jobs, c, open_refused);
        }
        return;
    }
    code = handle_for(m, a, control, fuse_req_ctx(req), &h);
    if (code == EBUSY && !handle_written(m, a->id)) {
        c = call_new(req, NULL);
        if (c) {
            c->fi = *fi;
            c->node = a->id;
            jobs_add(m->jobs, c, open_again);
        }
        return;
    }
    if (code) {
        fuse_reply_err(req, code);
        return;
    }
    fi->fh = (uintptr_t)h;
    fi->direct_io = 1;
    if (fuse_reply_open(req, fi) == -ENOENT)
        handle_free(m, h);
}

/* ---- write ---------------------------------------------------------------------------------------------------------- */

/* The command's final answer, which the same bytes on this handle will get again. EINTR comes of a mount that leaves: programs
 * write again after it, and must hear something else then, or they go on until the mount is gone. */
static void answer(struct call *c, int code)
{
    pthread_mutex_lock(&c->m->handles_lock);
    c->h->answer = code == EINTR ? ESHUTDOWN : code;
    c->h->answered = true;
    pthread_mutex_unlock(&c->m->handles_lock);
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

    who_read(c->m->engine, &c->from, &who);
    rc = engine_command(c->m->engine, h->checkpoint, h->branch, h->control, bytes, n, &who, &nowait, &r, &c->e);
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
    bool answered, overdue;
    int code;

    pthread_mutex_lock(&c->m->handles_lock);
    answered = c->h->answered;
    overdue = c->h->overdue;
    code = c->h->answer;
    pthread_mutex_unlock(&c->m->handles_lock);
    if (overdue)
        c->deadline_ms = clock_mono_ms() - 1; /* ETIMEDOUT again, unless the action has ended meanwhile */
    if (answered || !c->h->run)
        answer(c, code);
    else
        waits_for(c, run_ref(c->h->run), answer);
}

static void journal_bad(struct call *c, int code)
{
    struct who who;
    char *text = strndup(c->data, c->size); /* the engine cuts it, once secrets are out: none is cut in two and missed */

    who_read(c->m->engine, &c->from, &who);
    engine_refused(c->m->engine, c->h->checkpoint, c->h->branch, c->h->control, text, &who, code, err_text(&c->e));
    who_clear(&who);
    free(text);
}

/* What is no command, or one too many. Programs that got an error write the same again: it is in the journal once. */
static void bad(struct call *c)
{
    int code = c->e.code ? c->e.code : EINVAL;

    if (!c->h->refused)
        journal_bad(c, code);
    pthread_mutex_lock(&c->m->handles_lock);
    c->h->refused = true;
    pthread_mutex_unlock(&c->m->handles_lock);
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
    struct call *c = call_write(req, fi, bytes, n, 0);

    if (!c)
        return;
    handle_writes(m, c->h, true);
    jobs_add(m->jobs, c, written);
}

/* ---- close ---------------------------------------------------------------------------------------------------------- */

static void incomplete(struct call *c)
{
    struct who who;

    who_read(c->m->engine, &c->from, &who);
    engine_refused(c->m->engine, c->h->checkpoint, c->h->branch, c->h->control, "(JSON)", &who, EINVAL,
                   "incomplete command: the JSON was cut before its end; nothing was done");
    who_clear(&who);
    handle_free(c->m, c->h);
    call_free(c);
}

void control_release(struct mount *m, struct handle *h)
{
    if (feed_close(h->feed))
        call_after_close(m, h, incomplete);
    else
        handle_free(m, h);
}
