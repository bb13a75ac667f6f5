/* What others change on the same store (fs/store/changes.c). Errors, threads and bounds: store.h. */
#ifndef STORE_CHANGES_H
#define STORE_CHANGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/err.h"

struct store;

/* A connection of its own that is woken when something of a line changes, and reads what. One thread at a time. */
struct store_feed;

enum store_change_kind {
    CHANGE_CHECKPOINT, /* row: the checkpoint, which may be gone */
    CHANGE_ACTION,     /* row: the action */
    CHANGE_LINE,       /* the line's record: which branch is active */
    CHANGE_LOG,        /* the audit log grew */
    CHANGE_REPLACED,   /* row: a branch of the line that was replaced, or that Neon tells something about */
    CHANGE_OTHER,      /* something that this version doesn't know */
};

/* Connects, listens, and only then reads where the log of changes stands: *ret_n. Whoever loads everything afterwards misses nothing.
 * -EOPNOTSUPP: a notification sent to itself doesn't arrive, so there is a connection pooler in transaction mode between. */
int store_feed_open(struct store *s, int64_t line_id, struct store_feed **ret, int64_t *ret_n, struct err *e);
void store_feed_close(struct store_feed *f);
/* Waits up to `ms` for a notification. 1 = there was one, 0 = not; what is wrong with the connection shows at the next read. */
int store_feed_wait(struct store_feed *f, int64_t ms);
/* Hands out, in the order of commits, every change after `after`; *ret_n is where it stands then. Also proves that the store lives.
 * Within 2 s. -ESTALE: so old changes aren't kept, everything has to be loaded again. */
int store_feed_read(struct store_feed *f, int64_t after, void (*each)(void *arg, enum store_change_kind what, int64_t row), void *arg,
                    int64_t *ret_n, struct err *e);
/* Forgets changes that everybody has read: those of more than some minutes ago. */
int store_changes_trim(struct store *s, int64_t line_id, struct err *e);

#endif
