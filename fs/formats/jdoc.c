/* The tolerant JSON view: one pass over the text, one flat array of nodes. See include/formats/jdoc.h. */
#include "formats/jdoc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "util/cleanup.h"

#define NO_PARENT UINT32_MAX

/* While a container is open its node's `after` holds its parent: the stack costs nothing and nesting has no limit. */
struct parser {
    struct jdoc *doc;
    const char *text;
    size_t at, n;
    uint32_t parent;
};

static void skip_space(struct parser *p)
{
    while (p->at < p->n && strchr(" \t\r\n", p->text[p->at]) && p->text[p->at])
        p->at++;
}

static int push_node(struct parser *p, enum jtype type, size_t start, size_t end)
{
    struct jdoc *d = p->doc;

    if (d->count == d->cap) {
        size_t cap = d->cap ? d->cap * 2 : 64;
        struct jnode *grown = cap <= SIZE_MAX / sizeof *grown / 2 ? realloc(d->nodes, cap * sizeof *grown) : NULL;
        if (!grown)
            return -ENOMEM;
        d->nodes = grown;
        d->cap = cap;
    }
    d->nodes[d->count] = (struct jnode){
        .type = type, .start = (uint32_t)start, .end = (uint32_t)end, .after = (uint32_t)d->count + 1};
    d->count++;
    return 0;
}

/* Moves past the string whose opening quote is at p->at; escapes are only stepped over. */
static int skip_string(struct parser *p)
{
    for (p->at++; p->at < p->n; p->at++) {
        if (p->text[p->at] == '\\')
            p->at++;
        else if (p->text[p->at] == '"') {
            p->at++;
            return 0;
        }
    }
    p->at = p->n;
    return -EINVAL;
}

static bool word_follows(const struct parser *p, const char *word)
{
    size_t len = strlen(word);

    return p->n - p->at >= len && memcmp(p->text + p->at, word, len) == 0;
}

static int parse_scalar(struct parser *p)
{
    static const struct { const char *word; enum jtype type; } words[] = {
        {"null", J_NULL}, {"true", J_TRUE}, {"false", J_FALSE},
        {"NaN", J_NUMBER}, {"Infinity", J_NUMBER}, {"-Infinity", J_NUMBER},
    };
    size_t start = p->at;

    if (p->text[start] == '"') {
        int r = skip_string(p);
        return r < 0 ? r : push_node(p, J_STRING, start, p->at);
    }
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (word_follows(p, words[i].word)) {
            p->at += strlen(words[i].word);
            return push_node(p, words[i].type, start, p->at);
        }
    }
    if (p->text[p->at] == '-')
        p->at++;
    if (p->at == p->n || p->text[p->at] < '0' || p->text[p->at] > '9')
        return -EINVAL;
    while (p->at < p->n && p->text[p->at] && strchr("0123456789+-.eE", p->text[p->at]))
        p->at++;
    return push_node(p, J_NUMBER, start, p->at);
}

/* The name of the next member, with its colon. */
static int parse_name(struct parser *p)
{
    size_t start = p->at;
    int r;

    if (p->at == p->n || p->text[p->at] != '"')
        return -EINVAL;
    r = skip_string(p);
    if (r == 0)
        r = push_node(p, J_STRING, start, p->at);
    if (r < 0)
        return r;
    skip_space(p);
    if (p->at == p->n || p->text[p->at] != ':')
        return -EINVAL;
    p->at++;
    skip_space(p);
    return 0;
}

static char closing(const struct parser *p)
{
    return p->doc->nodes[p->parent].type == J_OBJECT ? '}' : ']';
}

/* After a value: closes whatever ends here, and stops where the next value begins. */
static int parse_after_value(struct parser *p)
{
    while (p->parent != NO_PARENT) {
        struct jnode *container = &p->doc->nodes[p->parent];
        skip_space(p);
        if (p->at == p->n)
            return -EINVAL;
        if (p->text[p->at] == ',') {
            p->at++;
            skip_space(p);
            return container->type == J_OBJECT ? parse_name(p) : 0;
        }
        if (p->text[p->at] != closing(p))
            return -EINVAL;
        p->at++;
        p->parent = container->after;
        container->end = (uint32_t)p->at;
        container->after = (uint32_t)p->doc->count;
    }
    return 0;
}

/* Opens a container; an empty one is closed at once by the caller's parse_after_value. */
static int parse_open(struct parser *p, bool *ret_value_follows)
{
    enum jtype type = p->text[p->at] == '{' ? J_OBJECT : J_ARRAY;
    int r = push_node(p, type, p->at, p->at);

    if (r < 0)
        return r;
    p->doc->nodes[p->doc->count - 1].after = p->parent;
    p->parent = (uint32_t)p->doc->count - 1;
    p->at++;
    skip_space(p);
    *ret_value_follows = p->at == p->n || p->text[p->at] != closing(p);
    return type == J_OBJECT && *ret_value_follows ? parse_name(p) : 0;
}

static int parse_all(struct parser *p)
{
    int r;

    if (p->n >= 3 && memcmp(p->text, "\xef\xbb\xbf", 3) == 0)
        p->at = 3;
    skip_space(p);
    do {
        bool value_follows = false;
        if (p->at == p->n)
            return -EINVAL;
        if (p->parent != NO_PARENT)
            p->doc->nodes[p->parent].count++;
        if (p->text[p->at] == '{' || p->text[p->at] == '[')
            r = parse_open(p, &value_follows);
        else
            r = parse_scalar(p);
        if (r == 0 && !value_follows)
            r = parse_after_value(p);
        if (r < 0)
            return r;
    } while (p->parent != NO_PARENT);
    skip_space(p);
    return p->at == p->n ? 0 : -EINVAL;
}

int jdoc_parse(const char *text, size_t n, struct jdoc *ret)
{
    struct jdoc d = {.text = text};
    struct parser p = {.doc = &d, .text = text, .n = n, .parent = NO_PARENT};
    int r = n < UINT32_MAX ? parse_all(&p) : -EFBIG;

    if (r < 0) {
        jdoc_free(&d);
        ret->error_at = p.at;
        return r;
    }
    *ret = d;
    return 0;
}

void jdoc_free(struct jdoc *d)
{
    free(d->nodes);
    *d = (struct jdoc){0};
}

struct jval j_root(const struct jdoc *d)
{
    return (struct jval){d, d->count ? d->nodes : NULL};
}

bool j_is(struct jval v, enum jtype type)
{
    return v.node && v.node->type == type;
}

bool j_has(struct jval v)
{
    return v.node && v.node->type != J_NULL;
}

size_t j_count(struct jval v)
{
    return v.node ? v.node->count : 0;
}

static struct jval none(struct jval v)
{
    return (struct jval){v.doc, NULL};
}

static struct jval at_index(struct jval v, size_t index)
{
    return (struct jval){v.doc, v.doc->nodes + index};
}

struct jval j_first(struct jval v)
{
    size_t index;

    if (j_count(v) == 0)
        return none(v);
    index = (size_t)(v.node - v.doc->nodes) + 1;
    return at_index(v, v.node->type == J_OBJECT ? index + 1 : index);
}

struct jval j_next(struct jval v, struct jval child)
{
    size_t index = child.node->after;

    if (index >= v.node->after)
        return none(v);
    return at_index(v, v.node->type == J_OBJECT ? index + 1 : index);
}

struct jval j_key(struct jval member)
{
    return member.node ? (struct jval){member.doc, member.node - 1} : member;
}

bool j_equals(struct jval v, const char *s)
{
    size_t len = strlen(s);
    const char *inside;
    cleanup_free char *decoded = NULL;

    if (!j_is(v, J_STRING))
        return false;
    inside = v.doc->text + v.node->start + 1;
    if (!memchr(inside, '\\', v.node->end - v.node->start - 2))
        return v.node->end - v.node->start - 2 == len && memcmp(inside, s, len) == 0;
    return j_string(v, &decoded) == 0 && strcmp(decoded, s) == 0;
}

struct jval j_get(struct jval object, const char *key)
{
    struct jval found = none(object);

    if (!j_is(object, J_OBJECT))
        return found;
    for (struct jval c = j_first(object); c.node; c = j_next(object, c)) {
        if (j_equals(j_key(c), key))
            found = c;
    }
    return found;
}

struct jval j_path(struct jval v, const char *keys)
{
    while (v.node && *keys) {
        size_t len = strcspn(keys, ".");
        char key[64];

        if (len >= sizeof key)
            return none(v);
        memcpy(key, keys, len);
        key[len] = 0;
        v = j_get(v, key);
        keys += len + (keys[len] == '.');
    }
    return v;
}

struct jval j_either(struct jval object, const char *a, const char *b)
{
    struct jval v = j_get(object, a);

    return j_has(v) ? v : j_get(object, b);
}

struct jval j_at(struct jval array, size_t i)
{
    struct jval c = j_is(array, J_ARRAY) ? j_first(array) : none(array);

    while (c.node && i-- > 0)
        c = j_next(array, c);
    return c;
}

struct jval j_last(struct jval array)
{
    return j_count(array) ? j_at(array, j_count(array) - 1) : none(array);
}

int64_t j_int(struct jval v, int64_t fallback)
{
    char digits[24];
    size_t len;
    char *end;
    long long value;

    if (!j_is(v, J_NUMBER))
        return fallback;
    len = v.node->end - v.node->start;
    if (len >= sizeof digits)
        return fallback;
    memcpy(digits, v.doc->text + v.node->start, len);
    digits[len] = 0;
    errno = 0;
    value = strtoll(digits, &end, 10);
    return errno || *end ? fallback : value;
}
