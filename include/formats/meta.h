/* meta.json: what the writer of a checkpoint supplies (design.md §1). Pure; reading one meta is thread-safe. */
#ifndef FORMATS_META_H
#define FORMATS_META_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "util/err.h"

/* The fields the product knows; NULL, false, 0 = not given (null counts as not given). Everything else is a label and only kept
 * in `root`. Strings belong to `root`. */
struct meta {
    json_t *root; /* the whole object */
    char *text;   /* as it was written, NUL-terminated */
    const char *run_id, *step_id, *parent; /* fixed at the seal */
    const char *framework, *framework_version;
    const char *traceparent, *reason, *agent;
    char trace_id[33];    /* of traceparent; "" when not given */
    bool pin;
    int64_t expires_at;   /* ns since the epoch; 0 = never */
    const json_t *pending; /* array of {id, tool?, arguments?, agent?, kind?: "approval"|"input", allowed?: […]}, checked */
};

/* Reads and checks. An empty text counts as {}. 0; -EINVAL with a line that names the field and what is expected, or where the
 * text stops being JSON; -ENOMEM. On success the caller frees `ret` by meta_free. */
int meta_parse(const char *bytes, size_t n, struct meta *ret, struct err *e);
void meta_free(struct meta *m);
#define cleanup_meta __attribute__((cleanup(meta_free)))

/* 0 when none of the three fields that the seal fixes (run_id, step_id, parent) has another value in `now`: one that is left out is kept.
 * Else -EPERM with a line that names the field and both values. */
int meta_changed_fixed(const struct meta *sealed, const struct meta *now, struct err *e);

#endif
