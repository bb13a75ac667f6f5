/* A growable byte buffer with sticky failure. */
#include "util/buf.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

char *buf_room(struct buf *b, size_t n)
{
    size_t need;
    size_t cap;
    char *data;

    if (b->failed)
        return NULL;
    if (n > SIZE_MAX / 2 - b->len - 1) {
        b->failed = true;
        return NULL;
    }
    need = b->len + n + 1;
    if (need > b->cap) {
        cap = b->cap < 64 ? 64 : b->cap;
        while (cap < need)
            cap *= 2;
        data = realloc(b->data, cap);
        if (!data) {
            b->failed = true;
            return NULL;
        }
        b->data = data;
        b->cap = cap;
    }
    return b->data + b->len;
}

void buf_grown(struct buf *b, size_t n)
{
    b->len += n;
    b->data[b->len] = '\0';
}

void buf_add(struct buf *b, const void *bytes, size_t n)
{
    char *to = buf_room(b, n);

    if (!to)
        return;
    if (n)
        memcpy(to, bytes, n);
    buf_grown(b, n);
}

void buf_adds(struct buf *b, const char *s)
{
    buf_add(b, s, strlen(s));
}

void buf_addc(struct buf *b, char c)
{
    buf_add(b, &c, 1);
}

void buf_vaddf(struct buf *b, const char *fmt, va_list ap)
{
    va_list again;
    char *to;
    int n;

    va_copy(again, ap);
    n = vsnprintf(NULL, 0, fmt, again);
    va_end(again);
    if (n < 0) {
        b->failed = true;
        return;
    }
    to = buf_room(b, (size_t)n);
    if (!to)
        return;
    vsnprintf(to, (size_t)n + 1, fmt, ap);
    buf_grown(b, (size_t)n);
}

void buf_addf(struct buf *b, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    buf_vaddf(b, fmt, ap);
    va_end(ap);
}

void buf_truncate(struct buf *b, size_t len)
{
    if (len < b->len) {
        b->len = len;
        b->data[len] = '\0';
    }
}

int buf_resize(struct buf *b, size_t len)
{
    size_t more = len > b->len ? len - b->len : 0;
    char *room = more ? buf_room(b, more) : NULL;

    if (room) {
        memset(room, 0, more);
        buf_grown(b, more);
    } else if (!more) {
        buf_truncate(b, len);
    }
    return buf_error(b);
}

int buf_error(const struct buf *b)
{
    return b->failed ? -ENOMEM : 0;
}

char *buf_steal(struct buf *b)
{
    char *data;

    buf_add(b, "", 0); /* so that an empty buffer gives "" */
    data = b->failed ? NULL : b->data;
    if (b->failed)
        free(b->data);
    *b = (struct buf){0};
    return data;
}

void buf_free(struct buf *b)
{
    free(b->data);
    *b = (struct buf){0};
}
