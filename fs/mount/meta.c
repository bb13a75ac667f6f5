/* meta.json: replaced whole by what is written through one handle, and checked in the write that completes it (design.md §4). */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "formats/scan.h"
#include "mount_i.h"

#define META_MAX ((1 << 20) - 4096) /* less than one request holds, so that the first of several is told */

int meta_load(struct call *c)
{
    int r = 0;

    c->h->loaded = true;
    if (!(c->fi.flags & O_TRUNC))
        r = store_read_file(c->m->c.store, c->h->checkpoint, FILE_META, &c->h->text, &c->e);
    return r == -ENOENT ? 0 : r;
}

/* The text of meta.json with this write in it. A write at its beginning begins anew: whoever has read it through the same handle cuts what
 * is left of the old text only afterwards. */
static int with_write(struct call *c, struct buf *ret)
{
    struct handle *h = c->h;
    size_t off = (size_t)c->off;
    int r = 0;

    pthread_mutex_lock(&h->lock);
    if (c->fi.flags & O_APPEND)
        off = h->text.len;
    if (off + c->size > META_MAX)
        r = -EFBIG;
    else if (off > 0)
        buf_add(ret, h->text.data ? h->text.data : "", h->text.len);
    pthread_mutex_unlock(&h->lock);
    if (r == 0 && off + c->size > ret->len)
        r = buf_resize(ret, off + c->size);
    if (r == 0 && c->size)
        memcpy(ret->data + off, c->data, c->size);
    return r < 0 ? r : buf_error(ret);
}

static int put(struct call *c, const struct buf *text)
{
    struct handle *h = c->h;
    struct who who;
    int r;

    who_read(c->m->engine, &c->from, &who);
    r = engine_meta(c->m->engine, h->checkpoint, text->data ? text->data : "", text->len, &who, c->why, &c->e);
    if (r < 0 && !h->refused) { /* programs write again after an error: it is in the journal once */
        engine_take_refused(c->m->engine, h->checkpoint, NULL, &who, -r, err_text(&c->e));
        h->refused = true;
    }
    who_clear(&who);
    return r;
}

void meta_write(struct call *c)
{
    struct handle *h = c->h;
    struct buf text = {0};
    bool whole = false;
    int r = with_write(c, &text);

    if (r == 0)
        whole = scan_text(text.data ? text.data : "", text.len) != SCAN_OPEN;
    if (r == 0 && whole)
        r = put(c, &text);
    if (r == 0) {
        pthread_mutex_lock(&h->lock);
        buf_free(&h->text);
        h->text = text;
        pthread_mutex_unlock(&h->lock);
        h->wrote = whole;
        call_reply_write(c, c->size);
        return;
    }
    if (whole)
        h->wrote = false;
    buf_free(&text);
    call_reply_err(c, -r);
}

void meta_resize(struct handle *h, off_t size)
{
    if (size > META_MAX)
        return;
    pthread_mutex_lock(&h->lock);
    buf_resize(&h->text, (size_t)size);
    pthread_mutex_unlock(&h->lock);
}

bool meta_cut_short(const struct handle *h)
{
    return !h->wrote && h->text.len && scan_text(h->text.data, h->text.len) == SCAN_OPEN;
}

/* Nobody hears an error of close. */
void meta_incomplete(struct call *c)
{
    struct who who;

    who_read(c->m->engine, &c->from, &who);
    engine_take_refused(c->m->engine, c->h->checkpoint, NULL, &who, EINVAL,
                        "meta.json was closed before its JSON was complete (cut short); it is as it was before");
    who_clear(&who);
    handle_free(c->m, c->h);
    call_free(c);
}
