/* Markdown that stays Markdown whatever a model wrote. See markdown_i.h. */
#include "markdown_i.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "util/cleanup.h"
#include "util/text.h"

#define MD_CODE_MAX 200

/* JSON nested deeper is shown as it is: indented, it would be far longer than the text it comes from. */
#define MD_PRETTY_DEPTH 24

/* The bytes at `s` that mustn't be shown as they are; 0 when its first character may be. */
static size_t hidden(const unsigned char *s, size_t n)
{
    size_t len = utf8_length(s, n);

    if (s[0] < 0x80)
        return (s[0] < 0x20 && s[0] != '\n' && s[0] != '\t') || s[0] == 0x7f;
    if (len == 0)
        return 1; /* not UTF-8 */
    return text_invisible(utf8_point(s, len)) ? len : 0;
}

void md_visible(struct buf *b, const char *s, size_t n)
{
    const unsigned char *u = (const unsigned char *)s;
    size_t plain = 0, i = 0;

    while (i < n) {
        size_t skip = u[i] >= 0x20 && u[i] < 0x7f ? 0 : hidden(u + i, n - i);

        if (skip == 0) {
            i += u[i] < 0x80 ? 1 : utf8_length(u + i, n - i);
            continue;
        }
        buf_add(b, s + plain, i - plain);
        if (u[i] == '\r' && i + 1 < n && u[i + 1] == '\n') {
            /* a line end of another system is nothing to show */
        } else if (u[i] < 0x80) {
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

size_t md_cut(const char *s, size_t n, size_t max)
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
    size_t n = s ? strlen(s) : 0, shown = md_cut(s, n, MD_CODE_MAX), fence;
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

/* Every line of `text` behind four spaces: what Markdown takes literally, whatever it holds. */
static void add_indented(struct buf *b, const char *text, size_t n)
{
    for (size_t i = 0; i < n;) {
        const char *newline = memchr(text + i, '\n', n - i);
        size_t len = newline ? (size_t)(newline - text) - i : n - i;

        if (len > 0) {
            buf_adds(b, "    ");
            buf_add(b, text + i, len);
        }
        buf_addc(b, '\n');
        i += len + 1;
    }
}

void md_block(struct buf *b, const char *s, size_t n)
{
    size_t shown = md_cut(s, n, MD_TEXT_MAX);
    cleanup_buf struct buf text = {0};

    md_visible(&text, s, shown);
    b->failed |= buf_error(&text) != 0;
    if (b->failed)
        return;
    if (n == 0)
        buf_adds(b, "Nothing: it is empty.\n");
    else
        add_indented(b, text.data, text.len);
    if (shown < n)
        buf_addf(b, "\nCut: %zu of %zu bytes are shown, the rest is in state.json.\n", shown, n);
    buf_addc(b, '\n');
}

/* How deep the brackets go; those in strings count too, which only makes an odd text less pretty. */
static size_t depth_of(const char *json, size_t n)
{
    size_t depth = 0, deepest = 0;

    for (size_t i = 0; i < n; i++) {
        if (json[i] == '{' || json[i] == '[')
            deepest = ++depth > deepest ? depth : deepest;
        else if ((json[i] == '}' || json[i] == ']') && depth > 0)
            depth--;
    }
    return deepest;
}

void md_json_block(struct buf *b, const char *json, size_t n)
{
    cleanup_jdoc struct jdoc d = {0};
    cleanup_buf struct buf pretty = {0}, visible = {0};

    if (n == 0 || n > MD_TEXT_MAX || depth_of(json, n) > MD_PRETTY_DEPTH || jdoc_parse(json, n, &d) < 0) {
        md_block(b, json, n);
        return;
    }
    j_add_pretty(&pretty, j_root(&d), 0);
    md_visible(&visible, pretty.data ? pretty.data : "", pretty.len);
    b->failed |= buf_error(&pretty) != 0 || buf_error(&visible) != 0;
    if (b->failed)
        return;
    add_indented(b, visible.data, visible.len);
    buf_addc(b, '\n');
}

static void string_block(struct buf *b, struct jval v)
{
    cleanup_buf struct buf text = {0};

    j_add_string(&text, v);
    b->failed |= buf_error(&text) != 0;
    md_block(b, text.len ? text.data : "", text.len);
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

static void part_values(struct buf *b, struct jval list)
{
    size_t begin = b->len, shown = 0, n = j_count(list);

    for (struct jval p = j_first(list); p.node && b->len - begin < MD_LIST_MAX; p = j_next(list, p), shown++)
        part_value(b, p);
    if (shown < n)
        buf_addf(b, "Cut: %zu of %zu parts are shown, the rest is in state.json.\n\n", shown, n);
}

void md_value(struct buf *b, struct jval v)
{
    struct jval first = j_is(v, J_ARRAY) ? j_first(v) : v;

    if (!j_has(v))
        return;
    if (j_is(v, J_STRING) || (j_is(v, J_OBJECT) && j_get(v, "type").node)) {
        part_value(b, v);
    } else if (j_is(v, J_ARRAY) && (j_is(first, J_STRING) || j_get(first, "type").node)) {
        part_values(b, v);
    } else {
        json_block(b, v);
    }
}
