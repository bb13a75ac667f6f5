/* Writes JSON members in one line; what a file needs indented goes through json_add_indented. See formats_i.h. */
#include <inttypes.h>
#include <string.h>

#include "formats_i.h"
#include "util/clock.h"

static void jw_key(struct buf *b, const char *key)
{
    if (b->len > 0 && b->data[b->len - 1] != '{' && b->data[b->len - 1] != '[')
        buf_addc(b, ',');
    if (key) {
        json_add_quoted(b, key, strlen(key));
        buf_addc(b, ':');
    }
}

void jw_open(struct buf *b, const char *key, char bracket)
{
    jw_key(b, key);
    buf_addc(b, bracket);
}

void jw_close(struct buf *b, char bracket)
{
    buf_addc(b, bracket);
}

void jw_text(struct buf *b, const char *key, const char *value)
{
    if (!value)
        return;
    jw_key(b, key);
    json_add_quoted(b, value, strlen(value));
}

void jw_int(struct buf *b, const char *key, int64_t value)
{
    if (value < 0)
        return;
    jw_key(b, key);
    buf_addf(b, "%" PRId64, value);
}

void jw_time(struct buf *b, const char *key, int64_t ns)
{
    char text[CLOCK_TEXT_MAX];

    if (ns != 0)
        jw_text(b, key, clock_format(ns, text));
}

void jw_raw(struct buf *b, const char *key, const char *json, size_t n)
{
    jw_key(b, key);
    buf_add(b, json, n);
}

void jw_allowed(struct buf *b, const char *key, unsigned allowed)
{
    jw_open(b, key, '[');
    if (allowed & ALLOW_APPROVE)
        jw_text(b, NULL, "approve");
    if (allowed & ALLOW_REJECT)
        jw_text(b, NULL, "reject");
    if (allowed & ALLOW_EDIT)
        jw_text(b, NULL, "edit");
    if (allowed & ALLOW_RESPOND)
        jw_text(b, NULL, "respond");
    jw_close(b, ']');
}

void jw_usage(struct buf *b, const char *key, const struct usage *u)
{
    if (u->requests < 0 && u->input < 0 && u->output < 0 && u->total < 0)
        return;
    jw_open(b, key, '{');
    jw_int(b, "requests", u->requests);
    jw_int(b, "input", u->input);
    jw_int(b, "output", u->output);
    jw_int(b, "total", u->total);
    jw_close(b, '}');
}
