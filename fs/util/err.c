/* Errors a person can act on: an errno and one line of text. */
#include "util/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int err_set(struct err *e, int code, const char *fmt, ...)
{
    char *text = NULL;
    va_list ap;

    if (!e)
        return -code;
    va_start(ap, fmt);
    if (vasprintf(&text, fmt, ap) < 0)
        text = NULL;
    va_end(ap);
    free(e->text); /* after formatting: the arguments may point into it */
    e->text = text;
    e->code = code;
    return -code;
}

int err_prefix(struct err *e, const char *fmt, ...)
{
    char *prefix = NULL;
    char *text = NULL;
    va_list ap;

    if (!e)
        return 0;
    va_start(ap, fmt);
    if (vasprintf(&prefix, fmt, ap) < 0)
        prefix = NULL;
    va_end(ap);
    if (prefix && asprintf(&text, "%s: %s", prefix, err_text(e)) >= 0) {
        free(e->text);
        e->text = text;
    }
    free(prefix);
    return -e->code;
}

const char *err_text(const struct err *e)
{
    if (!e)
        return "no reason was kept";
    if (e->text)
        return e->text;
    return strerrordesc_np(e->code) ? strerrordesc_np(e->code) : "unknown error";
}

int err_move(struct err *to, struct err *from)
{
    int code = from->code;

    if (to) {
        free(to->text);
        *to = *from;
        *from = (struct err){0};
    } else {
        err_clear(from);
    }
    return -code;
}

void err_clear(struct err *e)
{
    free(e->text);
    *e = (struct err){0};
}
