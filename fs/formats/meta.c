/* Reads and checks meta.json. See include/formats/meta.h. */
#include "formats/meta.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "util/cleanup.h"
#include "util/clock.h"
#include "util/text.h"

static const char *type_name(const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "an array";
    case JSON_STRING: return "a string";
    case JSON_INTEGER:
    case JSON_REAL: return "a number";
    case JSON_TRUE:
    case JSON_FALSE: return "a boolean";
    case JSON_NULL: return "null";
    }
    return "something else";
}

/* The member, or NULL when it is absent or null. */
static const json_t *member(const json_t *object, const char *key)
{
    const json_t *v = json_object_get(object, key);

    return json_is_null(v) ? NULL : v;
}

static int take_string(const json_t *root, const char *key, const char *expected, const char **ret, struct err *e)
{
    const json_t *v = member(root, key);

    if (!v)
        return 0;
    if (!json_is_string(v))
        return err_set(e, EINVAL, "meta.json: \"%s\" must be a string (%s), not %s", key, expected, type_name(v));
    if (json_string_length(v) == 0)
        return err_set(e, EINVAL, "meta.json: \"%s\" is empty; expected %s, or leave it out", key, expected);
    *ret = json_string_value(v);
    return 0;
}

static bool is_hex(const char *s, size_t n)
{
    bool nonzero = false;

    for (size_t i = 0; i < n; i++) {
        if (!s[i] || !strchr("0123456789abcdef", s[i]))
            return false;
        nonzero |= s[i] != '0';
    }
    return nonzero;
}

/* https://www.w3.org/TR/trace-context/#traceparent-header: 00-<32 hex>-<16 hex>-<2 hex>; later versions may go on after that. */
static int take_traceparent(struct meta *m, struct err *e)
{
    const char *s = m->traceparent;
    size_t len = s ? strlen(s) : 0;

    if (!s)
        return 0;
    if (len < 55 || s[2] != '-' || s[35] != '-' || s[52] != '-' || (!is_hex(s, 2) && !str_starts(s, "00")) ||
        str_starts(s, "ff") || !is_hex(s + 3, 32) || !is_hex(s + 36, 16) || (!is_hex(s + 53, 2) && !str_starts(s + 53, "00")) ||
        (len > 55 && (str_starts(s, "00") || s[55] != '-')))
        return err_set(e, EINVAL, "meta.json: \"traceparent\" must be a W3C trace context, "
                       "00-<32 hex digits>-<16 hex digits>-<2 hex digits> in lower case, not \"%.80s\"", s);
    memcpy(m->trace_id, s + 3, 32);
    m->trace_id[32] = 0;
    return 0;
}

static int take_pin(struct meta *m, struct err *e)
{
    const json_t *v = member(m->root, "pin");

    if (v && !json_is_boolean(v))
        return err_set(e, EINVAL, "meta.json: \"pin\" must be true or false, not %s", type_name(v));
    m->pin = json_is_true(v);
    return 0;
}

/* The next two digits of *p as a number, in range, with `after` behind them (0 = anything). */
static bool two_digits(const char **p, int low, int high, char after, int *ret)
{
    const char *s = *p;

    if (s[0] < '0' || s[0] > '9' || s[1] < '0' || s[1] > '9' || (after && s[2] != after))
        return false;
    *ret = (s[0] - '0') * 10 + s[1] - '0';
    *p += after ? 3 : 2;
    return *ret >= low && *ret <= high;
}

static int days_in(int year, int month)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

    return days[month - 1] + (month == 2 && leap);
}

/* The whole of https://www.rfc-editor.org/rfc/rfc3339#section-5.6 date-time; clock_parse takes more. */
static bool is_rfc3339(const char *s)
{
    int century, year, month, day, n;

    if (!two_digits(&s, 0, 99, 0, &century) || !two_digits(&s, 0, 99, '-', &year) || !two_digits(&s, 1, 12, '-', &month) ||
        !two_digits(&s, 1, days_in(century * 100 + year, month), 0, &day) || (*s != 'T' && *s != 't' && *s != ' '))
        return false;
    s++;
    if (!two_digits(&s, 0, 23, ':', &n) || !two_digits(&s, 0, 59, ':', &n) || !two_digits(&s, 0, 60, 0, &n))
        return false;
    if (*s == '.') {
        size_t digits = strspn(s + 1, "0123456789");
        if (digits == 0)
            return false;
        s += 1 + digits;
    }
    if (*s == 'Z' || *s == 'z')
        return s[1] == 0;
    if (*s != '+' && *s != '-')
        return false;
    s++;
    return two_digits(&s, 0, 23, ':', &n) && two_digits(&s, 0, 59, 0, &n) && *s == 0;
}

static int take_expires_at(struct meta *m, struct err *e)
{
    const json_t *v = member(m->root, "expires_at");

    if (!v)
        return 0;
    if (!json_is_string(v) || !is_rfc3339(json_string_value(v)) || clock_parse(json_string_value(v), &m->expires_at) < 0)
        return err_set(e, EINVAL, "meta.json: \"expires_at\" must be an RFC 3339 time like \"2026-12-01T00:00:00Z\", not %s%.40s",
                       json_is_string(v) ? "" : type_name(v), json_is_string(v) ? json_string_value(v) : "");
    return 0;
}

static int check_allowed(const json_t *allowed, size_t index, struct err *e)
{
    static const char *const words[] = {"approve", "reject", "edit", "respond"};
    const json_t *v;
    size_t i, w;

    if (!json_is_array(allowed) || json_array_size(allowed) == 0)
        return err_set(e, EINVAL, "meta.json: pending[%zu].allowed must be a list of approve, reject, edit, respond", index);
    json_array_foreach(allowed, i, v) {
        for (w = 0; w < sizeof words / sizeof *words && !str_equal(json_string_value(v), words[w]);)
            w++;
        if (w == sizeof words / sizeof *words)
            return err_set(e, EINVAL, "meta.json: pending[%zu].allowed may hold approve, reject, edit and respond only", index);
    }
    return 0;
}

static int check_call(const json_t *call, size_t index, struct err *e)
{
    static const char *const texts[] = {"id", "tool", "agent", "kind"};
    const json_t *kind, *allowed;

    if (!json_is_object(call))
        return err_set(e, EINVAL, "meta.json: pending[%zu] must be an object {id, tool, arguments}, not %s", index,
                       type_name(call));
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        const json_t *v = member(call, texts[i]);
        if (v && (!json_is_string(v) || json_string_length(v) == 0))
            return err_set(e, EINVAL, "meta.json: pending[%zu].%s must be a text that isn't empty", index, texts[i]);
    }
    if (!member(call, "id"))
        return err_set(e, EINVAL, "meta.json: pending[%zu] has no \"id\": decisions name the call by it", index);
    kind = member(call, "kind");
    if (kind && !str_equal(json_string_value(kind), "approval") && !str_equal(json_string_value(kind), "input"))
        return err_set(e, EINVAL, "meta.json: pending[%zu].kind must be \"approval\" or \"input\"", index);
    allowed = member(call, "allowed");
    return allowed ? check_allowed(allowed, index, e) : 0;
}

static int take_pending(struct meta *m, struct err *e)
{
    cleanup_json json_t *seen = json_object(); /* the place of each id: comparing all with all takes minutes */
    const json_t *list = member(m->root, "pending"), *call;
    size_t i;

    if (!list)
        return 0;
    if (!json_is_array(list))
        return err_set(e, EINVAL, "meta.json: \"pending\" must be an array of {id, tool, arguments}, not %s", type_name(list));
    json_array_foreach(list, i, call) {
        const char *id = json_string_value(json_object_get(call, "id"));
        const json_t *earlier;
        int r = check_call(call, i, e);

        if (r < 0)
            return r;
        earlier = json_object_get(seen, id);
        if (earlier)
            return err_set(e, EINVAL, "meta.json: pending[%lld] and pending[%zu] have the same id",
                           (long long)json_integer_value(earlier), i);
        if (json_object_set_new(seen, id, json_integer((json_int_t)i)) < 0)
            return err_set(e, ENOMEM, "out of memory while reading meta.json");
    }
    m->pending = list;
    return 0;
}

static int take_fields(struct meta *m, struct err *e)
{
    const struct { const char *key, *expected; const char **field; } texts[] = {
        {"run_id", "the run's id", &m->run_id},
        {"step_id", "the step's id", &m->step_id},
        {"parent", "the id of the checkpoint this one follows", &m->parent},
        {"framework", "the framework's name", &m->framework},
        {"framework_version", "the framework's version, like \"0.22.0\"", &m->framework_version},
        {"traceparent", "a W3C trace context", &m->traceparent},
        {"reason", "why the checkpoint was taken", &m->reason},
        {"agent", "the agent's name", &m->agent},
    };
    int r = 0;

    for (size_t i = 0; r == 0 && i < sizeof texts / sizeof *texts; i++)
        r = take_string(m->root, texts[i].key, texts[i].expected, texts[i].field, e);
    if (r == 0)
        r = take_traceparent(m, e);
    if (r == 0)
        r = take_pin(m, e);
    if (r == 0)
        r = take_expires_at(m, e);
    return r == 0 ? take_pending(m, e) : r;
}

static char *str_dup_n(const char *bytes, size_t n)
{
    char *copy = malloc(n + 1);

    if (copy) {
        memcpy(copy, bytes, n);
        copy[n] = 0;
    }
    return copy;
}

static bool is_blank(const char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (bytes[i] != ' ' && bytes[i] != '\t' && bytes[i] != '\n' && bytes[i] != '\r')
            return false;
    }
    return true;
}

int meta_parse(const char *bytes, size_t n, struct meta *ret, struct err *e)
{
    struct meta m = {0};
    json_error_t why;
    int r;

    m.root = is_blank(bytes, n) ? json_object() : json_loadb(bytes, n, JSON_REJECT_DUPLICATES, &why);
    if (!m.root && (is_blank(bytes, n) || json_error_code(&why) == json_error_out_of_memory))
        return err_set(e, ENOMEM, "out of memory while reading meta.json");
    if (!m.root)
        return err_set(e, EINVAL, "meta.json isn't valid JSON: line %d, column %d: %s", why.line, why.column, why.text);
    if (json_is_object(m.root))
        r = take_fields(&m, e);
    else
        r = err_set(e, EINVAL, "meta.json must be an object, {\"run_id\": \"…\", …}, not %s", type_name(m.root));
    if (r < 0) {
        json_decref(m.root);
        return r;
    }
    m.text = str_dup_n(bytes, n);
    if (!m.text) {
        json_decref(m.root);
        return err_set(e, ENOMEM, "out of memory while reading meta.json");
    }
    *ret = m;
    return 0;
}

void meta_free(struct meta *m)
{
    json_decref(m->root);
    free(m->text);
    *m = (struct meta){0};
}

int meta_changed_fixed(const struct meta *sealed, const struct meta *now, struct err *e)
{
    const struct { const char *key, *before, *after; } fields[] = {
        {"run_id", sealed->run_id, now->run_id},
        {"step_id", sealed->step_id, now->step_id},
        {"parent", sealed->parent, now->parent},
    };

    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        if (fields[i].after && !str_equal(fields[i].before, fields[i].after))
            return err_set(e, EPERM, "meta.json: \"%s\" is fixed since the seal: it is %.100s and can't become %.100s",
                           fields[i].key, fields[i].before ? fields[i].before : "absent", fields[i].after);
    }
    return 0;
}
