/* A tolerant, read-only view of a JSON text: nodes that point into it.
 *
 * Saved states hold what jansson refuses or changes: NaN, lone surrogates, \u0000, integers of any size, duplicate keys,
 * numbers whose digits matter (reference/frameworks.md §6). Here every value keeps its place in the source, so that a tool's
 * arguments can be shown as they were written. The text must outlive the view. Pure; reading one view is thread-safe. */
#ifndef FORMATS_JDOC_H
#define FORMATS_JDOC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/buf.h"

enum jtype { J_NULL, J_FALSE, J_TRUE, J_NUMBER, J_STRING, J_ARRAY, J_OBJECT };

struct jnode {
    enum jtype type;
    uint32_t start, end; /* bytes of the source, quotes and brackets included */
    uint32_t after;      /* index of the node after this one's subtree */
    uint32_t count;      /* members of an array or object */
};

struct jdoc {
    const char *text;
    struct jnode *nodes; /* in source order; each object member is a string node followed by its value */
    size_t count, cap;
    size_t error_at;     /* after -EINVAL: the byte that isn't JSON */
};

/* A value of a view, or none (`node` NULL). Every reader below takes none and answers none, NULL, 0 or the fallback. */
struct jval {
    const struct jdoc *doc;
    const struct jnode *node;
};

/* Reads one JSON value with nothing but white space around it. 0; -EINVAL when it isn't JSON even so; -EFBIG from 4 GiB on;
 * -ENOMEM. On failure `ret` holds nothing to free. Takes 20 bytes a value. */
int jdoc_parse(const char *text, size_t n, struct jdoc *ret);
void jdoc_free(struct jdoc *d);
#define cleanup_jdoc __attribute__((cleanup(jdoc_free)))

struct jval j_root(const struct jdoc *d);
bool j_is(struct jval v, enum jtype type);
bool j_has(struct jval v);                          /* there and not null */
struct jval j_get(struct jval object, const char *key); /* the last member of that name */
struct jval j_path(struct jval v, const char *keys);    /* "a.b.c", each a member; no key may hold a dot */
struct jval j_either(struct jval object, const char *a, const char *b); /* member `a`, else `b`; null counts as absent */
struct jval j_at(struct jval array, size_t i);      /* linear */
struct jval j_last(struct jval array);              /* linear */
struct jval j_first(struct jval v);                 /* first element, or first member's value */
struct jval j_next(struct jval v, struct jval child);
struct jval j_key(struct jval member);              /* the name of a value that j_first or j_next of an object gave */
size_t j_count(struct jval v);

bool j_equals(struct jval v, const char *s);        /* a string with exactly that content */
int64_t j_int(struct jval v, int64_t fallback);     /* a number that is an integer in range */

/* The content of a string: valid UTF-8, U+FFFD for NUL, lone surrogates and bytes that aren't UTF-8. 0 with NULL when `v`
 * isn't a string, or -ENOMEM. The caller owns it. */
int j_string(struct jval v, char **ret);
/* The same appended to `b`; nothing when `v` isn't a string. */
void j_add_string(struct buf *b, struct jval v);

/* Appends `v` as valid JSON in one line, or indented by two spaces a level starting at `level`; key order and the digits of
 * numbers kept; NaN, Infinity and numbers beyond every database as strings; U+FFFD as above. Linear, without recursion. */
void j_add_compact(struct buf *b, struct jval v);
void j_add_pretty(struct buf *b, struct jval v, unsigned level);

/* Appends the members of `object`, but for those that `but` names (NULL ends it), to an object under way: `b` ends with its brace or with
 * another member. Nothing when `object` is none. */
void j_add_members(struct buf *b, struct jval object, const char *const *but);

/* The first number in `v`, which may be that itself, that j_add_compact and j_add_pretty write as a string; none when all stay numbers. */
struct jval j_odd_number(struct jval v);

/* Appends `s` (any bytes) as a JSON string with its quotes; control characters escaped, U+FFFD as above. */
void json_add_quoted(struct buf *b, const char *s, size_t n);

/* Re-indents the JSON text `compact` into `b`, with a final newline. -EINVAL when it isn't JSON, -ENOMEM. */
int json_add_indented(struct buf *b, const char *compact, size_t n);

#endif
