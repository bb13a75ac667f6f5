/* A growable byte buffer, always NUL-terminated once something was added.
 *
 * Failure is sticky: after an allocation failed every further add does nothing, and buf_error() tells; so a renderer checks
 * once at its end. Zero-initialise (`struct buf b = {0}`), free with buf_free or cleanup_buf. Not thread-safe. */
#ifndef UTIL_BUF_H
#define UTIL_BUF_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

struct buf {
    char *data; /* NUL-terminated; NULL while nothing was added */
    size_t len; /* bytes, without the NUL */
    size_t cap;
    bool failed;
};

void buf_add(struct buf *b, const void *bytes, size_t n);
void buf_adds(struct buf *b, const char *s);
void buf_addc(struct buf *b, char c);
void buf_addf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void buf_vaddf(struct buf *b, const char *fmt, va_list ap) __attribute__((format(printf, 2, 0)));

/* Makes room for `n` more bytes and returns where they go; NULL when out of memory. Follow with buf_grown(b, written). */
char *buf_room(struct buf *b, size_t n);
void buf_grown(struct buf *b, size_t n);

void buf_truncate(struct buf *b, size_t len);

/* Cuts, or extends with NUL bytes. 0, -ENOMEM. */
int buf_resize(struct buf *b, size_t len);

/* 0, or -ENOMEM after any add failed. */
int buf_error(const struct buf *b);

/* Hands the NUL-terminated bytes to the caller (free()); "" when empty; NULL after a failure. Resets `b`. */
char *buf_steal(struct buf *b);

void buf_free(struct buf *b);

#endif
