/* Brings what LangGraph's savers store into the one form that the readers know: {config, checkpoint, metadata, parent_config,
 * pending_writes} with plain values. reference/frameworks.md §3.2, §3.3. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "formats_i.h"
#include "util/cleanup.h"

/* -- Stored values ------------------------------------------------------------------------------------------------------ */

static int hex_digit(unsigned char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static int base64_digit(unsigned char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' || c == '-' ? 62 : c == '/' || c == '_' ? 63 : -1;
}

/* `bits` a digit; line ends and padding are passed over. False when it is something else. */
static bool decode(const char *s, size_t n, int (*digit)(unsigned char), unsigned bits, struct buf *ret)
{
    unsigned have = 0, word = 0;

    for (size_t i = 0; i < n; i++) {
        int d = digit((unsigned char)s[i]);
        if (s[i] == '=' || s[i] == '\n' || s[i] == '\r')
            continue;
        if (d < 0)
            return false;
        word = (word << bits | (unsigned)d) & 0xffff;
        have += bits;
        if (have >= 8) {
            have -= 8;
            buf_addc(ret, (char)(word >> have & 0xff));
        }
    }
    return true;
}

/* A value as JSON, by the type that the saver noted. False when only the saver itself can read it. */
static bool add_stored(struct reading *r, struct buf *b, struct jval type, struct jval stored)
{
    cleanup_buf struct buf text = {0}, bytes = {0};
    cleanup_jdoc struct jdoc doc = {0};
    bool hex, decoded;

    if (j_equals(type, "null") || j_equals(type, "empty")) {
        buf_adds(b, "null");
        return true;
    }
    j_add_string(&text, stored);
    hex = text.len >= 2 && memcmp(text.data, "\\x", 2) == 0;
    decoded = text.len > 0 && (hex ? decode(text.data + 2, text.len - 2, hex_digit, 4, &bytes)
                                   : decode(text.data, text.len, base64_digit, 6, &bytes));
    r->oom |= buf_error(&text) == -ENOMEM || buf_error(&bytes) == -ENOMEM;
    if (r->oom || !decoded)
        return false;
    if (j_equals(type, "msgpack"))
        return msgpack_to_json(bytes.data, bytes.len, b) == 0;
    if (!j_equals(type, "json") || jdoc_parse(bytes.data, bytes.len, &doc) < 0)
        return false;
    j_add_compact(b, j_root(&doc));
    return true;
}

/* The text of `v` with every {"type", "b64"} in it replaced by its value. Goes over the nodes in their order: no recursion. */
static void add_replaced(struct reading *r, struct buf *b, struct jval v)
{
    const struct jdoc *d = v.doc;
    size_t end = v.node->after, copied = v.node->start;

    for (size_t i = (size_t)(v.node - d->nodes); i < end;) {
        struct jval at = {d, &d->nodes[i]}, packed = {d, NULL};
        size_t before = b->len;

        if (j_is(at, J_OBJECT) && j_count(at) == 2)
            packed = j_get(at, "b64");
        if (!j_is(packed, J_STRING) || !j_is(j_get(at, "type"), J_STRING)) {
            i++;
            continue;
        }
        buf_add(b, d->text + copied, at.node->start - copied);
        if (add_stored(r, b, j_get(at, "type"), packed)) {
            copied = at.node->end;
        } else {
            buf_truncate(b, before);
        }
        i = at.node->after;
    }
    buf_add(b, d->text + copied, v.node->end - copied);
}

/* -- Rows of the tables --------------------------------------------------------------------------------------------------- */

struct tables {
    struct jval checkpoints, blobs, writes;
};

static bool find_tables(struct jval root, struct tables *ret)
{
    *ret = (struct tables){j_get(root, "checkpoints"), j_get(root, "checkpoint_blobs"), j_get(root, "checkpoint_writes")};
    return j_is(ret->checkpoints, J_ARRAY) && j_has(j_get(j_first(ret->checkpoints), "checkpoint_id")) &&
           (j_is(ret->blobs, J_ARRAY) || j_is(ret->writes, J_ARRAY));
}

/* Whether two values are the same text; JavaScript's versions are numbers in one table and texts in the other. */
static bool same_text(struct reading *r, struct jval a, struct jval b)
{
    cleanup_free char *x = NULL, *y = NULL;

    take_text(r, &x, a);
    take_text(r, &y, b);
    return x && y && strcmp(x, y) == 0;
}

static bool same(struct reading *r, struct jval a, struct jval b, const char *column)
{
    return same_text(r, j_get(a, column), j_get(b, column));
}

/* The newest one of the graph itself: an id is a UUIDv6, whose order is that of time. */
static struct jval newest(struct reading *r, struct jval rows)
{
    struct jval found = {rows.doc, NULL};
    cleanup_free char *newest_id = NULL;

    for (struct jval row = j_first(rows); row.node; row = j_next(rows, row)) {
        cleanup_free char *id = NULL;
        take_text(r, &id, j_get(row, "checkpoint_id"));
        if (!id || !(j_equals(j_get(row, "checkpoint_ns"), "") || !j_has(j_get(row, "checkpoint_ns"))))
            continue;
        if (newest_id && strcmp(id, newest_id) <= 0)
            continue;
        free(newest_id);
        newest_id = steal_ptr(&id);
        found = row;
    }
    return found;
}

static void add_member(struct buf *b, struct jval v, struct jval key)
{
    cleanup_buf struct buf json = {0}, name = {0};

    j_add_string(&name, key);
    j_add_compact(&json, v);
    b->failed |= buf_error(&json) != 0 || buf_error(&name) != 0;
    if (!b->failed)
        jw_raw(b, name.data ? name.data : "", json.data, json.len);
}

static void add_channels(struct reading *r, struct buf *b, const struct tables *t, struct jval row)
{
    struct jval checkpoint = j_get(row, "checkpoint"), inline_values = j_get(checkpoint, "channel_values");
    struct jval versions = j_get(checkpoint, "channel_versions"), none = {row.doc, NULL};

    jw_open(b, "channel_values", '{');
    for (struct jval v = j_is(inline_values, J_OBJECT) ? j_first(inline_values) : none; v.node; v = j_next(inline_values, v))
        add_member(b, v, j_key(v));
    for (struct jval blob = j_is(t->blobs, J_ARRAY) ? j_first(t->blobs) : none; blob.node; blob = j_next(t->blobs, blob)) {
        cleanup_free char *channel = NULL;
        cleanup_buf struct buf value = {0};

        take_text(r, &channel, j_get(blob, "channel"));
        if (!channel || !spend(r, j_count(versions) + 1) || !same_text(r, j_get(versions, channel), j_get(blob, "version")) ||
            !same(r, row, blob, "thread_id") || !same(r, row, blob, "checkpoint_ns") || j_equals(j_get(blob, "type"), "empty"))
            continue;
        if (add_stored(r, &value, j_get(blob, "type"), j_get(blob, "blob")))
            jw_raw(b, channel, value.data, value.len);
    }
    jw_close(b, '}');
}

static void add_writes(struct reading *r, struct buf *b, const struct tables *t, struct jval row)
{
    struct jval none = {row.doc, NULL};

    for (struct jval w = j_is(t->writes, J_ARRAY) ? j_first(t->writes) : none; w.node; w = j_next(t->writes, w)) {
        cleanup_buf struct buf value = {0}, task = {0}, channel = {0};

        if (!same(r, row, w, "checkpoint_id") || !same(r, row, w, "thread_id") || !same(r, row, w, "checkpoint_ns"))
            continue;
        j_add_compact(&task, j_get(w, "task_id"));
        j_add_compact(&channel, j_get(w, "channel"));
        if (!add_stored(r, &value, j_get(w, "type"), j_get(w, "blob"))) {
            buf_truncate(&value, 0);
            buf_adds(&value, "{\"b64\":\"\"}"); /* what the readers say can't be read */
        }
        jw_open(b, NULL, '[');
        jw_raw(b, NULL, task.data ? task.data : "null", task.data ? task.len : 4);
        jw_raw(b, NULL, channel.data ? channel.data : "null", channel.data ? channel.len : 4);
        jw_raw(b, NULL, value.data ? value.data : "null", value.data ? value.len : 4);
        jw_close(b, ']');
    }
}

static void add_config(struct reading *r, struct buf *b, const char *key, struct jval row, const char *id_column)
{
    static const char *const columns[] = {"thread_id", "checkpoint_ns"};
    cleanup_free char *id = NULL;

    take_text(r, &id, j_get(row, id_column));
    if (!id) {
        jw_raw(b, key, "null", 4);
        return;
    }
    jw_open(b, key, '{');
    jw_open(b, "configurable", '{');
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) {
        cleanup_free char *text = NULL;
        take_text(r, &text, j_get(row, columns[i]));
        jw_text(b, columns[i], text);
    }
    jw_text(b, "checkpoint_id", id);
    jw_close(b, '}');
    jw_close(b, '}');
}

/* JavaScript's saver stores JSON, Python's MessagePack; the readers tell them by the spelling of the members. */
static void add_tuple(struct reading *r, struct buf *b, const struct tables *t, struct jval row)
{
    bool js = j_equals(j_get(j_first(t->blobs), "type"), "json") || j_equals(j_get(j_first(t->writes), "type"), "json");
    struct jval checkpoint = j_get(row, "checkpoint"), metadata = j_get(row, "metadata"), key = {0}, none = {row.doc, NULL};

    jw_open(b, NULL, '{');
    add_config(r, b, "config", row, "checkpoint_id");
    add_config(r, b, js ? "parentConfig" : "parent_config", row, "parent_checkpoint_id");
    jw_open(b, "checkpoint", '{');
    for (struct jval v = j_is(checkpoint, J_OBJECT) ? j_first(checkpoint) : none; v.node; v = j_next(checkpoint, v)) {
        key = j_key(v);
        if (!j_equals(key, "channel_values"))
            add_member(b, v, key);
    }
    add_channels(r, b, t, row);
    jw_close(b, '}');
    if (j_is(metadata, J_OBJECT)) {
        cleanup_buf struct buf json = {0};
        j_add_compact(&json, metadata);
        b->failed |= buf_error(&json) != 0;
        jw_raw(b, "metadata", json.data ? json.data : "{}", json.data ? json.len : 2);
    }
    jw_open(b, js ? "pendingWrites" : "pending_writes", '[');
    add_writes(r, b, t, row);
    jw_close(b, ']');
    jw_close(b, '}');
}

/* -- Together -------------------------------------------------------------------------------------------------------------- */

/* One stored value by itself: a list of interrupts, or of messages. */
static bool add_around(struct buf *b, struct jval root)
{
    struct jval first = j_first(root);
    bool interrupts = j_is(root, J_ARRAY) && j_get(first, "value").node && j_get(first, "id").node;
    bool messages = j_is(root, J_ARRAY) && j_get(first, "content").node && j_get(first, "type").node;

    if (!interrupts && !messages)
        return false;
    buf_adds(b, interrupts ? "{\"checkpoint\":{\"channel_versions\":{}},\"parent_config\":null,\"pending_writes\":[[\"\",\"__interrupt__\","
                           : "{\"channel_versions\":{},\"parent_config\":null,\"channel_values\":{\"messages\":");
    j_add_compact(b, root);
    buf_adds(b, interrupts ? "]]}" : "}}");
    return true;
}

static bool holds_stored(struct jval root)
{
    return memmem(root.doc->text + root.node->start, root.node->end - root.node->start, "\"b64\"", 5) &&
           (j_has(j_get(root, "checkpoint")) || j_has(j_get(root, "channel_values")));
}

int langgraph_export(struct jval root, bool packed, struct buf *b)
{
    struct state_info unused;
    struct reading r = {.info = &unused};
    struct tables t;
    bool changed = true;

    state_info_init(&unused);
    if (packed && add_around(b, root))
        ;
    else if (find_tables(root, &t) && newest(&r, t.checkpoints).node)
        add_tuple(&r, b, &t, newest(&r, t.checkpoints));
    else if (holds_stored(root))
        add_replaced(&r, b, root);
    else
        changed = false;
    state_info_free(&unused);
    if (r.oom || buf_error(b))
        return -ENOMEM;
    return changed;
}
