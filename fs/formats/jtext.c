/* Text out of a JSON view: decoded strings, valid one-line JSON, indented JSON. See include/formats/jdoc.h. */
#include "formats/jdoc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "util/cleanup.h"
#include "util/text.h"

#define REPLACEMENT "\xef\xbf\xbd" /* U+FFFD */

/* jsonb's numbers end at 131,072 digits before the point and 16,383 after it; beyond this length or exponent we don't try. */
#define NUMBER_DIGITS_MAX 1000
#define EXPONENT_DIGITS_MAX 3

/* As utf8_length, but NUL counts as invalid: jsonb refuses it. */
static size_t utf8_sequence(const unsigned char *s, size_t n)
{
    return s[0] ? utf8_length(s, n) : 0;
}

static void add_code_point(struct buf *b, unsigned cp)
{
    if (cp == 0 || (cp >= 0xd800 && cp < 0xe000)) {
        buf_adds(b, REPLACEMENT);
    } else if (cp < 0x80) {
        buf_addc(b, (char)cp);
    } else if (cp < 0x800) {
        buf_addc(b, (char)(0xc0 | cp >> 6));
        buf_addc(b, (char)(0x80 | (cp & 0x3f)));
    } else if (cp < 0x10000) {
        buf_addc(b, (char)(0xe0 | cp >> 12));
        buf_addc(b, (char)(0x80 | (cp >> 6 & 0x3f)));
        buf_addc(b, (char)(0x80 | (cp & 0x3f)));
    } else {
        buf_addc(b, (char)(0xf0 | cp >> 18));
        buf_addc(b, (char)(0x80 | (cp >> 12 & 0x3f)));
        buf_addc(b, (char)(0x80 | (cp >> 6 & 0x3f)));
        buf_addc(b, (char)(0x80 | (cp & 0x3f)));
    }
}

/* The four hex digits of a \u escape at `s`. */
static bool hex4(const char *s, size_t n, unsigned *ret)
{
    unsigned value = 0;

    if (n < 4)
        return false;
    for (size_t i = 0; i < 4; i++) {
        char c = s[i];
        unsigned digit = c >= '0' && c <= '9' ? (unsigned)(c - '0') : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a' + 10)
                       : c >= 'A' && c <= 'F' ? (unsigned)(c - 'A' + 10) : 16;
        if (digit == 16)
            return false;
        value = value << 4 | digit;
    }
    *ret = value;
    return true;
}

/* Decodes the escape at s[0] == '\\'; returns the bytes it takes. What is no escape of JSON stands for itself. */
static size_t add_escape(struct buf *b, const char *s, size_t n)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char *hit = n > 1 && s[1] ? strchr(from, s[1]) : NULL;
    unsigned cp, low;

    if (hit) {
        buf_addc(b, to[hit - from]);
        return 2;
    }
    if (n < 2 || s[1] != 'u' || !hex4(s + 2, n - 2, &cp)) {
        buf_addc(b, '\\');
        return 1;
    }
    if (cp >= 0xd800 && cp < 0xdc00 && n >= 12 && s[6] == '\\' && s[7] == 'u' && hex4(s + 8, n - 8, &low) && low >= 0xdc00 &&
        low < 0xe000) {
        add_code_point(b, 0x10000 + ((cp - 0xd800) << 10) + (low - 0xdc00));
        return 12;
    }
    add_code_point(b, cp);
    return 6;
}

void j_add_string(struct buf *b, struct jval v)
{
    const char *s;
    size_t n, plain = 0;

    if (!j_is(v, J_STRING))
        return;
    s = v.doc->text + v.node->start + 1;
    n = v.node->end - v.node->start - 2;
    for (size_t i = 0; i < n;) {
        size_t len = s[i] == '\\' ? 0 : utf8_sequence((const unsigned char *)s + i, n - i);
        if (len > 0) {
            i += len;
            continue;
        }
        buf_add(b, s + plain, i - plain);
        if (s[i] == '\\') {
            i += add_escape(b, s + i, n - i);
        } else {
            buf_adds(b, REPLACEMENT);
            i++;
        }
        plain = i;
    }
    buf_add(b, s + plain, n - plain);
}

int j_string(struct jval v, char **ret)
{
    cleanup_buf struct buf b = {0};
    char *s;

    if (!j_is(v, J_STRING)) {
        *ret = NULL;
        return 0;
    }
    j_add_string(&b, v);
    s = buf_steal(&b);
    if (!s)
        return -ENOMEM;
    *ret = s;
    return 0;
}

void json_add_quoted(struct buf *b, const char *s, size_t n)
{
    static const char named[] = "\"\\\b\f\n\r\t", letters[] = "\"\\bfnrt";

    buf_addc(b, '"');
    for (size_t i = 0; i < n;) {
        unsigned char c = (unsigned char)s[i];
        const char *hit = c ? strchr(named, c) : NULL;
        size_t len = utf8_sequence((const unsigned char *)s + i, n - i);
        size_t run = i;

        if (hit) {
            buf_addc(b, '\\');
            buf_addc(b, letters[hit - named]);
            i++;
        } else if (len == 0) {
            buf_adds(b, REPLACEMENT);
            i++;
        } else if (c < 0x20 || c == 0x7f) {
            buf_addf(b, "\\u%04x", c);
            i++;
        } else {
            while (run < n && (unsigned char)s[run] >= 0x20 && s[run] != 0x7f && s[run] != '"' && s[run] != '\\' &&
                   (len = utf8_sequence((const unsigned char *)s + run, n - run)) > 0)
                run += len;
            buf_add(b, s + i, run - i);
            i = run;
        }
    }
    buf_addc(b, '"');
}

/* Whether a token is a number by JSON's grammar that any database takes. */
static bool number_is_plain(const char *s, size_t n)
{
    size_t i = n > 0 && s[0] == '-', start = i;

    if (n > NUMBER_DIGITS_MAX)
        return false;
    while (i < n && s[i] >= '0' && s[i] <= '9')
        i++;
    if (i == start || (s[start] == '0' && i > start + 1))
        return false;
    if (i < n && s[i] == '.') {
        start = ++i;
        while (i < n && s[i] >= '0' && s[i] <= '9')
            i++;
        if (i == start)
            return false;
    }
    if (i < n && (s[i] == 'e' || s[i] == 'E')) {
        i++;
        if (i < n && (s[i] == '+' || s[i] == '-'))
            i++;
        start = i;
        while (i < n && s[i] >= '0' && s[i] <= '9')
            i++;
        if (i == start || i - start > EXPONENT_DIGITS_MAX)
            return false;
    }
    return i == n;
}

static bool is_odd(const struct jdoc *d, const struct jnode *node)
{
    return node->type == J_NUMBER && !number_is_plain(d->text + node->start, node->end - node->start);
}

struct jval j_odd_number(struct jval v)
{
    const struct jnode *end = v.node ? v.doc->nodes + v.node->after : NULL;

    for (const struct jnode *node = v.node; node != end; node++) {
        if (is_odd(v.doc, node))
            return (struct jval){v.doc, node};
    }
    return (struct jval){v.doc, NULL};
}

static bool is_named(struct jval key, const char *const *names)
{
    for (; *names; names++) {
        if (j_equals(key, *names))
            return true;
    }
    return false;
}

void j_add_members(struct buf *b, struct jval object, const char *const *but)
{
    for (struct jval v = j_is(object, J_OBJECT) ? j_first(object) : (struct jval){0}; v.node; v = j_next(object, v)) {
        if (is_named(j_key(v), but))
            continue;
        if (b->len && b->data[b->len - 1] != '{')
            buf_addc(b, ',');
        j_add_compact(b, j_key(v));
        buf_addc(b, ':');
        j_add_compact(b, v);
    }
}

static void add_scalar(struct buf *b, struct jval v)
{
    const char *s = v.doc->text + v.node->start;
    size_t n = v.node->end - v.node->start;
    cleanup_buf struct buf text = {0};

    if (v.node->type == J_STRING) {
        j_add_string(&text, v);
        json_add_quoted(b, text.len ? text.data : "", text.len);
        if (buf_error(&text))
            b->failed = true;
    } else if (is_odd(v.doc, v.node)) {
        json_add_quoted(b, s, n);
    } else {
        buf_add(b, s, n);
    }
}

static void add_newline(struct buf *b, unsigned level)
{
    buf_addc(b, '\n');
    for (unsigned i = 0; i < level; i++)
        buf_adds(b, "  ");
}

/* Containers that are still open while the nodes are walked in order. */
struct open_container {
    size_t after;
    bool object, started;
};

struct writer {
    struct buf *b;
    struct open_container *open;
    size_t depth, cap;
    unsigned level; /* of the value itself */
    bool pretty;
};

static int writer_push(struct writer *w, const struct jnode *node)
{
    if (w->depth == w->cap) {
        size_t cap = w->cap ? w->cap * 2 : 16;
        struct open_container *grown = realloc(w->open, cap * sizeof *grown);
        if (!grown)
            return -ENOMEM;
        w->open = grown;
        w->cap = cap;
    }
    w->open[w->depth++] = (struct open_container){.after = node->after, .object = node->type == J_OBJECT};
    return 0;
}

static void writer_close(struct writer *w, size_t index)
{
    while (w->depth > 0 && w->open[w->depth - 1].after == index) {
        struct open_container *top = &w->open[--w->depth];
        if (w->pretty && top->started)
            add_newline(w->b, w->level + (unsigned)w->depth);
        buf_addc(w->b, top->object ? '}' : ']');
    }
}

/* Puts the comma and the line break before the value, or the member's name, that comes next. */
static void writer_separate(struct writer *w)
{
    struct open_container *top;

    if (w->depth == 0)
        return;
    top = &w->open[w->depth - 1];
    if (top->started)
        buf_addc(w->b, ',');
    top->started = true;
    if (w->pretty)
        add_newline(w->b, w->level + (unsigned)w->depth);
}

static void write_value(struct writer *w, struct jval v)
{
    const struct jnode *nodes = v.doc->nodes;
    size_t i = (size_t)(v.node - nodes), end = v.node->after;

    while (i < end) {
        writer_separate(w);
        if (w->depth > 0 && w->open[w->depth - 1].object) {
            add_scalar(w->b, (struct jval){v.doc, nodes + i});
            buf_adds(w->b, w->pretty ? ": " : ":");
            i++;
        }
        if (nodes[i].type == J_OBJECT || nodes[i].type == J_ARRAY) {
            buf_addc(w->b, nodes[i].type == J_OBJECT ? '{' : '[');
            if (writer_push(w, nodes + i) < 0) {
                w->b->failed = true;
                return;
            }
        } else {
            add_scalar(w->b, (struct jval){v.doc, nodes + i});
        }
        i++;
        writer_close(w, i);
    }
}

static void add_value(struct buf *b, struct jval v, bool pretty, unsigned level)
{
    struct writer w = {.b = b, .pretty = pretty, .level = level};

    if (v.node)
        write_value(&w, v);
    free(w.open);
}

void j_add_compact(struct buf *b, struct jval v)
{
    add_value(b, v, false, 0);
}

void j_add_pretty(struct buf *b, struct jval v, unsigned level)
{
    add_value(b, v, true, level);
}

int json_add_indented(struct buf *b, const char *compact, size_t n)
{
    cleanup_jdoc struct jdoc d = {0};
    int r = jdoc_parse(compact, n, &d);

    if (r < 0)
        return r;
    j_add_pretty(b, j_root(&d), 0);
    buf_addc(b, '\n');
    return buf_error(b);
}
