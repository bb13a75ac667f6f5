/* Markdown that stays Markdown whatever a model wrote. See markdown_i.h. */
#include "markdown_i.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "util/cleanup.h"

#define MD_CODE_MAX 200

/* Writing-direction controls, U+202A-202E and U+2066-2069, let a text read differently from what it says. */
static bool turns_direction(const unsigned char *s, size_t n)
{
    if (n < 3 || s[0] != 0xe2)
        return false;
    return (s[1] == 0x80 && s[2] >= 0xaa && s[2] <= 0xae) || (s[1] == 0x81 && s[2] >= 0xa6 && s[2] <= 0xa9);
}

void md_visible(struct buf *b, const char *s, size_t n)
{
    const unsigned char *u = (const unsigned char *)s;
    size_t plain = 0, i = 0;

    while (i < n) {
        bool control = (u[i] < 0x20 && u[i] != '\n' && u[i] != '\t') || u[i] == 0x7f;
        bool c1 = u[i] == 0xc2 && i + 1 < n && u[i + 1] < 0xa0;
        size_t skip = control ? 1 : c1 ? 2 : turns_direction(u + i, n - i) ? 3 : 0;

        if (skip == 0) {
            i++;
            continue;
        }
        buf_add(b, s + plain, i - plain);
        if (u[i] == '\r' && i + 1 < n && u[i + 1] == '\n') {
            /* a line end of another system is nothing to show */
        } else if (control) {
            char picture[] = {(char)0xe2, (char)0x90, (char)(0x80 + (u[i] == 0x7f ? 0x21 : u[i]))};
            buf_add(b, picture, sizeof picture);
        } else {
            buf_adds(b, "\xef\xbf\xbd");
        }
        i += skip;
        plain = i;
    }
    buf_add(b, s + plain, n - plain);
}

/* The longest run of backticks in `s`. */
static size_t backticks(const char *s, size_t n)
{
    size_t longest = 0, run = 0;

    for (size_t i = 0; i < n; i++) {
        run = s[i] == '`' ? run + 1 : 0;
        longest = run > longest ? run : longest;
    }
    return longest;
}

/* At most `max`, and no character cut in two. */
static size_t cut_at_character(const char *s, size_t n, size_t max)
{
    if (n <= max)
        return n;
    while (max > 0 && ((unsigned char)s[max] & 0xc0) == 0x80)
        max--;
    return max;
}

static void add_backticks(struct buf *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        buf_addc(b, '`');
}

void md_code(struct buf *b, const char *s)
{
    cleanup_buf struct buf text = {0};
    size_t n = s ? strlen(s) : 0, shown = cut_at_character(s, n, MD_CODE_MAX), fence;
    bool pad;

    if (!s)
        return;
    md_visible(&text, s, shown);
    for (size_t i = 0; i < text.len; i++) {
        if (text.data[i] == '\n' || text.data[i] == '\t')
            text.data[i] = ' ';
    }
    if (shown < n)
        buf_adds(&text, "…");
    if (text.len == 0)
        buf_addc(&text, ' ');
    b->failed |= buf_error(&text) != 0;
    if (b->failed)
        return;
    fence = backticks(text.data, text.len) + 1;
    pad = text.data[0] == '`' || text.data[text.len - 1] == '`';
    add_backticks(b, fence);
    buf_addf(b, pad ? " %s " : "%s", text.data);
    add_backticks(b, fence);
}

void md_block(struct buf *b, const char *s, size_t n, const char *language)
{
    size_t shown = cut_at_character(s, n, MD_TEXT_MAX);
    size_t fence = backticks(s, shown) + 1;

    fence = fence < 3 ? 3 : fence;
    add_backticks(b, fence);
    buf_adds(b, language);
    buf_addc(b, '\n');
    md_visible(b, s, shown);
    if (shown == 0 || s[shown - 1] != '\n')
        buf_addc(b, '\n');
    add_backticks(b, fence);
    buf_addc(b, '\n');
    if (shown < n)
        buf_addf(b, "\n… %zu bytes more in state.json\n", n - shown);
    buf_addc(b, '\n');
}

void md_json_block(struct buf *b, const char *json, size_t n)
{
    cleanup_jdoc struct jdoc d = {0};
    cleanup_buf struct buf pretty = {0};

    if (n > MD_TEXT_MAX || jdoc_parse(json, n, &d) < 0) {
        md_block(b, json, n, "json");
        return;
    }
    j_add_pretty(&pretty, j_root(&d), 0);
    b->failed |= buf_error(&pretty) != 0;
    if (!b->failed)
        md_block(b, pretty.data, pretty.len, "json");
}

static void string_block(struct buf *b, struct jval v)
{
    cleanup_buf struct buf text = {0};

    j_add_string(&text, v);
    b->failed |= buf_error(&text) != 0;
    md_block(b, text.len ? text.data : "", text.len, "text");
}

/* The text of a content part in any framework's words; none if it has no text. */
static struct jval part_text(struct jval part)
{
    static const char *const keys[] = {"text", "content", "refusal"};

    if (j_is(part, J_STRING))
        return part;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        struct jval text = j_get(part, keys[i]);
        if (j_is(text, J_STRING))
            return text;
    }
    return (struct jval){part.doc, NULL};
}

static void json_block(struct buf *b, struct jval v)
{
    cleanup_buf struct buf json = {0};

    j_add_compact(&json, v);
    b->failed |= buf_error(&json) != 0;
    if (!b->failed)
        md_json_block(b, json.data, json.len);
}

/* An image or a file in a part is kilobytes of base64: what is shown is its JSON, cut. */
static void part_value(struct buf *b, struct jval part)
{
    struct jval text = part_text(part);

    if (text.node)
        string_block(b, text);
    else
        json_block(b, part);
}

void md_value(struct buf *b, struct jval v)
{
    struct jval first = j_is(v, J_ARRAY) ? j_first(v) : v;

    if (!j_has(v))
        return;
    if (j_is(v, J_STRING) || (j_is(v, J_OBJECT) && j_get(v, "type").node)) {
        part_value(b, v);
    } else if (j_is(v, J_ARRAY) && (j_is(first, J_STRING) || j_get(first, "type").node)) {
        for (struct jval p = first; p.node; p = j_next(v, p))
            part_value(b, p);
    } else {
        json_block(b, v);
    }
}
