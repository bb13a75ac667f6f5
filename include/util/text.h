/* Names and encodings (design.md §1 "Names"). Pure and thread-safe. */
#ifndef UTIL_TEXT_H
#define UTIL_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The bytes of the character that begins at `s` (RFC 3629), `n` > 0 bytes long at most; 0 when it isn't valid UTF-8. */
size_t utf8_length(const unsigned char *s, size_t n);

/* Whether `n` bytes are valid UTF-8 (no surrogates, no overlong forms, at most U+10FFFF; NUL counts as valid). */
bool utf8_valid(const char *s, size_t n);

/* The code point of the character at `s`, whose length utf8_length gave as `len`, not 0. */
uint32_t utf8_point(const unsigned char *s, size_t len);

/* Whether a code point can't be seen or changes how the rest reads: control characters (line ends and tabs too), what Unicode calls
 * default ignorable but for the selectors U+FE00-FE0F, which choose how an emoji looks, what turns the writing direction, separators of
 * lines and paragraphs, interlinear annotation, and what is no character. */
bool text_invisible(uint32_t c);

/* Copies `n` bytes, each invalid UTF-8 sequence and each NUL replaced by U+FFFD. The result is NUL-terminated and owned by
 * the caller; NULL when out of memory. */
char *utf8_clean(const char *s, size_t n);

/* Checks a checkpoint's name: UTF-8, 1 to 255 bytes, no leading dot, no control character, no slash, not `latest`.
 * Returns NULL when it is fine, else a static text that says what is wrong. */
const char *name_problem(const char *name);

/* The file name of an id (run, call, trace): percent-encoded outside [A-Za-z0-9._:@-] and for a leading dot; a result over
 * 200 bytes is its first 150, `~` and 16 hex digits of the id's SHA-256. Owned by the caller; NULL when out of memory. */
char *id_to_filename(const char *id, size_t n);

/* The first `max` ASCII letters, digits, `_`, `.` and `-` of `s`, others as `-`: for names made in Neon. Owned by the caller. */
char *ascii_label(const char *s, size_t max);

/* printf into a new string, owned by the caller; NULL when out of memory. */
char *str_format(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* strdup that lets NULL through. */
char *str_dup(const char *s);

/* Whether `s` starts with `prefix`. */
bool str_starts(const char *s, const char *prefix);

/* strcmp == 0, NULL-safe: two NULLs are equal. */
bool str_equal(const char *a, const char *b);

#endif
