/* Is a JSON text cut short? A scanner for brackets and strings only (design.md §4, reference/traps.md 9).
 *
 * A text that starts, after a byte order mark and white space, with { or [ is open while its brackets don't close. No JSON
 * parser's "premature end" can tell: a text cut inside a character, a literal or an escape, or after a NaN, fails elsewhere.
 * Several values in a row (JSON lines) are complete whenever no bracket is open. Pure; not thread-safe on one scanner. */
#ifndef FORMATS_SCAN_H
#define FORMATS_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum scan {
    SCAN_EMPTY,    /* nothing but a byte order mark and white space */
    SCAN_OPEN,     /* { or [ whose brackets don't close yet */
    SCAN_COMPLETE, /* { or [ and every bracket closed */
    SCAN_OTHER,    /* starts with anything else: can't be seen to be cut */
};

/* Zero-initialise. */
struct scanner {
    uint64_t bytes;  /* looked at so far; stops counting at SCAN_OTHER */
    uint64_t depth;  /* brackets open */
    unsigned bom;    /* bytes of the byte order mark seen */
    enum scan kind;  /* SCAN_EMPTY until the first significant byte, then SCAN_OPEN (= brackets) or SCAN_OTHER */
    bool in_string;
    bool escaped;    /* the last byte was a backslash in a string */
};

/* Feeds the next `n` bytes, cut anywhere. */
void scan_feed(struct scanner *s, const void *bytes, size_t n);

/* What the bytes fed so far are. */
enum scan scan_result(const struct scanner *s);

/* Of one whole text. */
enum scan scan_text(const void *bytes, size_t n);

/* Why the text is open, one line for people: "cut short after 812 bytes: 3 brackets still open". Owned by the caller
 * (free()); NULL when out of memory. Meaningful while scan_result is SCAN_OPEN. */
char *scan_reason(const struct scanner *s);

#endif
