/* The scanner that tells a JSON text cut short from a whole one. See include/formats/scan.h. */
#include "formats/scan.h"

#include <inttypes.h>

#include "util/text.h"

static const unsigned char byte_order_mark[3] = {0xef, 0xbb, 0xbf};

static bool is_space(unsigned char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* The first byte that counts decides what kind of text this is. */
static void scan_start(struct scanner *s, unsigned char c)
{
    if (s->bom < sizeof byte_order_mark && s->bytes == s->bom && c == byte_order_mark[s->bom]) {
        s->bom++;
    } else if (s->bom > 0 && s->bom < sizeof byte_order_mark) {
        s->kind = SCAN_OTHER;
    } else if (c == '{' || c == '[') {
        s->kind = SCAN_OPEN;
        s->depth = 1;
    } else if (!is_space(c)) {
        s->kind = SCAN_OTHER;
    }
}

static void scan_byte(struct scanner *s, unsigned char c)
{
    if (s->in_string) {
        if (s->escaped)
            s->escaped = false;
        else if (c == '\\')
            s->escaped = true;
        else if (c == '"')
            s->in_string = false;
    } else if (c == '"') {
        s->in_string = true;
    } else if (c == '{' || c == '[') {
        s->depth++;
    } else if ((c == '}' || c == ']') && s->depth > 0) {
        s->depth--;
    }
}

void scan_feed(struct scanner *s, const void *bytes, size_t n)
{
    const unsigned char *p = bytes;

    for (size_t i = 0; i < n && s->kind != SCAN_OTHER; i++) {
        if (s->kind == SCAN_EMPTY)
            scan_start(s, p[i]);
        else
            scan_byte(s, p[i]);
        s->bytes++;
    }
}

enum scan scan_result(const struct scanner *s)
{
    if (s->kind == SCAN_OPEN && s->depth == 0)
        return SCAN_COMPLETE;
    if (s->kind == SCAN_EMPTY && s->bom > 0 && s->bom < sizeof byte_order_mark)
        return SCAN_OTHER;
    return s->kind;
}

enum scan scan_text(const void *bytes, size_t n)
{
    struct scanner s = {0};

    scan_feed(&s, bytes, n);
    return scan_result(&s);
}

char *scan_reason(const struct scanner *s)
{
    return str_format("cut short after %" PRIu64 " bytes: %" PRIu64 " bracket%s still open%s", s->bytes, s->depth,
                      s->depth == 1 ? "" : "s", s->in_string ? ", inside a string" : "");
}
