/* An error a person can act on: an errno and one line of text.
 *
 * Every fallible function of an adapter takes a `struct err *` (NULL is allowed), returns 0 or -errno, and on failure leaves
 * one line in it that says what happened, on what, and what to do next. Secrets never go into it. */
#ifndef UTIL_ERR_H
#define UTIL_ERR_H

struct err {
    int code;   /* positive errno; 0 = no error */
    char *text; /* one line, owned; NULL when there is none */
};

/* Sets `e` to `code` and the formatted line, replacing what it held. Returns -code, so that `return err_set(e, EIO, "…")`
 * reads well. `e` may be NULL. When memory is out the text stays NULL. Not thread-safe on one `e`. */
int err_set(struct err *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Puts "prefix: " before the text that `e` holds. Returns -e->code. */
int err_prefix(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The text of `e`, or strerror of its code; never NULL, also when `e` is; owned by `e` or static. */
const char *err_text(const struct err *e);

/* Moves `from` into `to` (freeing what `to` held) and clears `from`. Returns -to->code. */
int err_move(struct err *to, struct err *from);

void err_clear(struct err *e);

#endif
