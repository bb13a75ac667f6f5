/* What is to be kept and what may go: the rules of `.control/prune` and of [retention] in the configuration.
 *
 *     keep-last=N  keep-pending  keep-pinned  older-than=TIME  snapshots=N|TIME  states=N|TIME       TIME: 90s, 10m, 12h, 30d, 2w
 *
 * Pure and thread-safe. */
#ifndef COMMANDS_RULES_H
#define COMMANDS_RULES_H

#include <stdbool.h>
#include <stdint.h>

#include "util/buf.h"
#include "util/err.h"

#define RULES_USAGE "keep-last=N keep-pending keep-pinned older-than=TIME snapshots=N|TIME states=N|TIME"

/* How far back something is kept: the newest so many, or what is younger. */
struct reach {
    bool given;
    int64_t count;  /* -1: not by count */
    int64_t age_ns; /* -1: not by age */
};

struct rules {
    /* kept whole, whatever else is said */
    int64_t keep_last;     /* -1 = not given */
    int64_t older_than_ns; /* only what is older may go; -1 = not given */
    bool keep_pending;
    bool keep_pinned;      /* said; pinned ones are kept anyhow */
    /* how far back each half is kept. With neither, what isn't kept goes whole */
    struct reach snapshots;
    struct reach states;   /* beyond it the checkpoint goes whole */
};

/* Reads rules separated by blanks. -EINVAL with a line that names the rule and lists the grammar: an unknown one, one given twice, a
 * malformed number or time, or nothing that lets anything go (only keep-pending and keep-pinned). */
int rules_parse(const char *text, struct rules *ret, struct err *e);

/* Whether the text begins like a rule rather than a verb. */
bool rules_begin(const char *text);

/* Appends them as they would be typed, in one order. */
void rules_text(const struct rules *r, struct buf *b);

#endif
