/* Requests that are answered later, and the one reply that each of them gets. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "mount_i.h"

struct call *call_new(fuse_req_t req, const struct fuse_file_info *fi)
{
    struct call *c = calloc(1, sizeof(*c));
    const struct fuse_ctx *ctx;

    if (!c) {
        fuse_reply_err(req, ENOMEM);
        return NULL;
    }
    c->m = fuse_req_userdata(req);
    c->req = req;
    if (fi) {
        c->fi = *fi;
        c->h = handle_of(fi);
    }
    ctx = fuse_req_ctx(req);
    c->from = (struct engine_who){ctx->pid, ctx->uid, ctx->gid};
    return c;
}

struct call *call_write(fuse_req_t req, const struct fuse_file_info *fi, const char *bytes, size_t n, off_t off)
{
    struct call *c = call_new(req, fi);

    if (!c)
        return NULL;
    c->data = malloc(n + 1);
    if (!c->data) {
        call_reply_err(c, ENOMEM);
        return NULL;
    }
    memcpy(c->data, bytes, n);
    c->data[n] = '\0';
    c->size = n;
    c->off = off;
    waits_interruptible(c);
    return c;
}

void call_after_close(struct mount *m, struct handle *h, void (*job)(struct call *c))
{
    struct call *c = calloc(1, sizeof(*c));

    if (!c) {
        handle_free(m, h);
        return;
    }
    c->m = m;
    c->h = h;
    c->from = h->from;
    jobs_add(m->jobs, c, job);
}

void call_holds(struct call *c, node_id dir)
{
    if (c->n_held == sizeof(c->held) / sizeof(*c->held))
        return;
    c->held[c->n_held++] = dir;
    notify_hold(c->m->notifier, dir);
}

void call_free(struct call *c)
{
    while (c->n_held)
        notify_release(c->m->notifier, c->held[--c->n_held]);
    free(c->name);
    free(c->name2);
    free(c->data);
    err_clear(&c->e);
    free(c);
}

/* After this no interrupt touches `c` any more. No lock may be held. */
static fuse_req_t leave(struct call *c)
{
    if (c->h && c->h->kind == HANDLE_CONTROL) /* before the reply: a RELEASE may follow it at once */
        handle_writes(c->m, c->h, false);
    fuse_req_interrupt_func(c->req, NULL, NULL);
    return c->req;
}

void call_reply_err(struct call *c, int code)
{
    fuse_reply_err(leave(c), code);
    call_free(c);
}

void call_reply_write(struct call *c, size_t n)
{
    fuse_reply_write(leave(c), n);
    call_free(c);
}

void call_reply_bytes(struct call *c, const struct buf *b, int64_t off, size_t size)
{
    size_t from = off > 0 && (size_t)off < b->len ? (size_t)off : off > 0 ? b->len : 0;
    size_t n = b->len - from < size ? b->len - from : size;

    fuse_reply_buf(leave(c), n ? b->data + from : NULL, n);
    call_free(c);
}

void call_reply_entry(struct call *c, const struct node_attr *a)
{
    struct fuse_entry_param e;

    fill_entry(c->m, a, &e);
    fuse_reply_entry(leave(c), &e);
    call_free(c);
}

void call_reply_attr(struct call *c, const struct node_attr *a)
{
    struct stat st;

    fill_stat(c->m, a, &st);
    fuse_reply_attr(leave(c), &st, attr_timeout(a));
    call_free(c);
}

void call_reply_open(struct call *c)
{
    struct mount *m = c->m;
    struct handle *h = c->h;

    if (fuse_reply_open(leave(c), &c->fi) == -ENOENT) /* the caller is gone: no RELEASE will come */
        handle_free(m, h);
    call_free(c);
}

void call_reply_create(struct call *c, const struct node_attr *a)
{
    struct mount *m = c->m;
    struct handle *h = c->h;
    struct fuse_entry_param e;

    fill_entry(m, a, &e);
    if (fuse_reply_create(leave(c), &e, &c->fi) == -ENOENT)
        handle_free(m, h);
    call_free(c);
}
