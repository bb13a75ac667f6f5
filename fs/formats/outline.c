/* Any JSON value as lines that a person can skim and diff can compare. See markdown_i.h. */
#include "markdown_i.h"

#include <stdlib.h>
#include <string.h>

#include "util/cleanup.h"

#define OUTLINE_DEPTH 12
#define OUTLINE_LINES 2000
#define OUTLINE_STRING 200

struct outline {
    struct buf *b;
    struct jval but;
    size_t lines;   /* written so far; nothing is written beyond OUTLINE_LINES */
    size_t left_at; /* where in the source the first line that had no place is; 0 while all had one */
};

static void indent(struct outline *o, unsigned depth, bool dash)
{
    for (unsigned i = 0; i < depth + 2; i++) /* the outline as a whole is a literal block */
        buf_adds(o->b, "  ");
    if (dash)
        buf_addc(o->b, '-');
}

static void add_visible(struct outline *o, const struct buf *text)
{
    o->b->failed |= buf_error(text) != 0;
    if (!o->b->failed)
        md_visible(o->b, text->data ? text->data : "", text->len);
}

/* A name or a string: bare where it can't be anything else, in quotes with escapes where it could. */
static void add_text(struct outline *o, struct jval v, bool bare)
{
    cleanup_buf struct buf text = {0}, quoted = {0};
    size_t plain, shown;

    j_add_string(&text, v);
    o->b->failed |= buf_error(&text) != 0;
    if (o->b->failed)
        return;
    shown = md_cut(text.data, text.len, OUTLINE_STRING);
    plain = text.len ? strspn(text.data, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_$") : 0;
    if (bare && text.len > 0 && plain == text.len && shown == text.len) {
        buf_add(o->b, text.data, text.len);
        return;
    }
    json_add_quoted(&quoted, text.len ? text.data : "", shown);
    add_visible(o, &quoted);
    if (shown < text.len)
        buf_addf(o->b, "… %zu bytes", text.len);
}

static void add_scalar(struct outline *o, struct jval v)
{
    cleanup_buf struct buf text = {0};

    if (j_is(v, J_STRING)) {
        add_text(o, v, false);
        return;
    }
    j_add_compact(&text, v);
    text.len = md_cut(text.data ? text.data : "", text.len, OUTLINE_STRING);
    add_visible(o, &text);
}

/* What a value is, on the line that names it; members follow on lines of their own. True when they are to be written. */
static bool add_value(struct outline *o, struct jval v, unsigned depth, bool named)
{
    bool container = j_is(v, J_OBJECT) || j_is(v, J_ARRAY), inside = container && j_count(v) > 0;

    if (named && (!inside || v.node == o->but.node || depth >= OUTLINE_DEPTH))
        buf_addc(o->b, ' ');
    if (v.node == o->but.node) {
        buf_adds(o->b, "above");
        inside = false;
    } else if (inside && depth >= OUTLINE_DEPTH) {
        buf_addf(o->b, "… %u bytes", v.node->end - v.node->start);
        inside = false;
    } else if (container && !inside) {
        buf_adds(o->b, j_is(v, J_OBJECT) ? "{}" : "[]");
    } else if (!container) {
        add_scalar(o, v);
    }
    buf_addc(o->b, '\n');
    return inside;
}

static void add_members(struct outline *o, struct jval v, unsigned depth)
{
    bool object = j_is(v, J_OBJECT);

    for (struct jval c = j_first(v); c.node; c = j_next(v, c)) {
        if (o->left_at || o->lines++ == OUTLINE_LINES) {
            o->left_at = o->left_at ? o->left_at : c.node->start;
            return;
        }
        indent(o, depth, !object);
        if (object) {
            add_text(o, j_key(c), true);
            buf_addc(o->b, ':');
        }
        if (add_value(o, c, depth, true))
            add_members(o, c, depth + 1);
    }
}

void md_outline(struct buf *b, struct jval v, struct jval but)
{
    struct outline o = {.b = b, .but = but};

    if (!v.node)
        return;
    if (!(j_is(v, J_OBJECT) || j_is(v, J_ARRAY)) || j_count(v) == 0) {
        indent(&o, 0, false);
        add_value(&o, v, 0, false);
    } else {
        add_members(&o, v, 0);
    }
    if (o.left_at)
        buf_addf(b, "\nCut: %zu more bytes are in state.json.\n", v.node->end - o.left_at);
    buf_addc(b, '\n');
}
