/* One open of a control file, one command: puts the writes on a handle together (design.md §3.2, reference/traps.md 2-4).
 *
 * The caller keeps the answer it gave to the command and gives it again on FEED_SAME. Offsets don't count: with O_APPEND and
 * direct I/O they say nothing. Pure; not thread-safe on one feed. */
#ifndef COMMANDS_FEED_H
#define COMMANDS_FEED_H

#include <stddef.h>

#include "util/err.h"

enum feed_result {
    FEED_COMMAND, /* complete: feed_command has its bytes; parse them, act, remember the answer */
    FEED_MORE,    /* JSON that isn't complete yet: answer success */
    FEED_SAME,    /* the bytes of the command again: give the same answer, do nothing */
    FEED_IGNORE,  /* nothing to do, answer success: empty, white space around JSON, the newline of a line that came without */
    FEED_BAD,     /* `e` has EINVAL, E2BIG or ENOMEM and why */
};

struct feed;

/* NULL when out of memory. */
struct feed *feed_new(void);
void feed_free(struct feed *f);

/* Takes the next write on the handle. */
enum feed_result feed_write(struct feed *f, const char *bytes, size_t n, struct err *e);

/* The command's bytes after FEED_COMMAND; owned by `f`, valid until feed_free. */
const char *feed_command(const struct feed *f, size_t *ret_n);

/* What is wrong when the handle is closed now: "incomplete command" (static), or NULL. */
const char *feed_close(const struct feed *f);

#endif
