/* The calls and the trace that were supplied at the seal, out of a copy whose meta.json was replaced since. See import_supplied.h. */
#include "import_supplied.h"

#include <errno.h>
#include <string.h>

#include "formats/jdoc.h"
#include "util/cleanup.h"
#include "util/text.h"

/* ---- a whole meta.json, digits of numbers kept ---------------------------------------------------------------------- */

static void add_key(struct buf *b, const char *key)
{
    buf_addf(b, "%s\"%s\": ", b->len > 1 ? ", " : "", key);
}

/* ---- the calls ------------------------------------------------------------------------------------------------------ */

static struct jval call_in(struct jval list, const char *id)
{
    for (struct jval v = j_first(list); v.node && j_is(list, J_ARRAY); v = j_next(list, v)) {
        if (j_equals(j_get(v, "id"), id))
            return v;
    }
    return (struct jval){0};
}

static int add_file(struct buf *b, const char *name, const struct import_file *f, struct err *e)
{
    cleanup_jdoc struct jdoc doc = {0};
    int r = jdoc_parse(f->bytes.data ? f->bytes.data : "", f->bytes.len, &doc);

    if (r == -ENOMEM)
        return err_set(e, ENOMEM, "out of memory");
    if (r < 0 || !j_is(j_root(&doc), J_OBJECT))
        return err_set(e, EINVAL, "pending/%s isn't a JSON object", name);
    j_add_compact(b, j_root(&doc));
    return 0;
}

/* From its file; a copy that was made without pending/ may still have it in meta.json. */
static int add_call(struct buf *b, const struct import_source *src, const char *id, struct jval in_meta, struct err *e)
{
    cleanup_free char *encoded = id_to_filename(id, strlen(id));
    cleanup_free char *name = encoded ? str_format("%s.json", encoded) : NULL;
    struct import_file f = {0};
    struct jval call = call_in(in_meta, id);
    int r = name ? src->read_pending(src->arg, name, &f, e) : err_set(e, ENOMEM, "out of memory");

    if (r == 0 && f.there)
        r = add_file(b, name, &f, e);
    else if (r == 0 && call.node)
        j_add_compact(b, call);
    else if (r == 0)
        r = err_set(e, ENODATA, "pending/%s is missing, and checkpoint.json names that call", name);
    buf_free(&f.bytes);
    return r;
}

static int add_calls(struct buf *b, const struct claim *c, const struct import_source *src, struct jval in_meta, struct err *e)
{
    const json_t *call;
    size_t i;
    int r = 0;

    buf_adds(b, "[");
    json_array_foreach(c->pending, i, call) {
        buf_adds(b, i ? ", " : "");
        r = add_call(b, src, json_string_value(json_object_get(call, "id")), in_meta, e);
        if (r < 0)
            return r;
    }
    buf_adds(b, "]");
    return 0;
}

/* ---- both ----------------------------------------------------------------------------------------------------------- */

static int compose(struct buf *b, const struct claim *c, const struct import_source *src, const struct meta *m, bool calls, bool trace,
                   struct err *e)
{
    const char *const anew[] = {calls ? "pending" : "traceparent", trace ? "traceparent" : NULL, NULL}; /* a key must not come twice */
    cleanup_jdoc struct jdoc doc = {0};
    struct jval root = {0};
    int r = json_object_size(m->root) ? jdoc_parse(m->text, strlen(m->text), &doc) : 0;

    if (r < 0)
        return err_set(e, ENOMEM, "out of memory");
    if (doc.count)
        root = j_root(&doc);
    buf_adds(b, "{");
    j_add_members(b, root, anew);
    if (trace) {
        add_key(b, "traceparent");
        json_add_quoted(b, c->traceparent, strlen(c->traceparent));
    }
    if (calls) {
        add_key(b, "pending");
        r = add_calls(b, c, src, j_get(root, "pending"), e);
    }
    buf_adds(b, "}");
    return r == 0 && buf_error(b) ? err_set(e, ENOMEM, "out of memory") : r;
}

int supplied_complete(const struct claim *c, const struct import_source *src, bool fork, struct meta *m, bool *ret_calls, struct err *e)
{
    bool calls = c->pending_supplied && !(fork && json_object_get(m->root, "pending"));
    bool trace = c->traceparent && !m->traceparent;
    cleanup_buf struct buf text = {0};
    cleanup_err struct err why = {0};
    struct meta whole = {0};
    int r = calls || trace ? compose(&text, c, src, m, calls, trace, e) : 0;

    *ret_calls = calls;
    if (r < 0 || (!calls && !trace))
        return r;
    r = meta_parse(text.data, text.len, &whole, &why);
    if (r < 0) /* meta.json itself was read before: it is one of the others that holds something wrong */
        return err_set(e, -r, "checkpoint.json and pending/ say what can't have been in meta.json: %s", err_text(&why));
    meta_free(m);
    *m = whole;
    return 0;
}

/* The first field in which they differ, or NULL. */
static const char *difference(const json_t *claimed, const struct call *call)
{
    const struct { const char *key, *value; } fields[] = {
        {"id", call->id}, {"tool", call->tool}, {"agent", call->agent}, {"kind", call_kind_name(call->kind)},
        {"arguments_sha256", call->arguments_sha256},
    };

    for (size_t i = 0; i < sizeof(fields) / sizeof(*fields); i++)
        if (!str_equal(json_string_value(json_object_get(claimed, fields[i].key)), fields[i].value))
            return fields[i].key;
    return NULL;
}

int supplied_check(const struct claim *c, const struct state_info *info, struct err *e)
{
    const json_t *call;
    size_t i;

    if (!info->pending_supplied)
        return 0; /* the state lists them itself */
    json_array_foreach(c->pending, i, call) {
        const char *key = i < info->pending_count ? difference(call, &info->pending[i]) : "id";

        if (key)
            return err_set(e, EINVAL, "pending/: the call %.100s isn't the one that checkpoint.json names, its \"%s\" differs; copy both "
                           "from the backup as they are", json_string_value(json_object_get(call, "id")), key);
    }
    return 0;
}
