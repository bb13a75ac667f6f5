/* Text that a model or a tool wrote, put into Markdown so that it can neither end its block nor paint a terminal. */
#ifndef FORMATS_MARKDOWN_I_H
#define FORMATS_MARKDOWN_I_H

#include <stddef.h>

#include "formats/jdoc.h"
#include "util/buf.h"

/* Bytes of one text that a transcript shows. */
#define MD_TEXT_MAX 4096

/* Appends `s` with control characters as their pictures (U+2400…), and those that turn the writing direction as U+FFFD. Newline
 * and tab stay. */
void md_visible(struct buf *b, const char *s, size_t n);

/* `s` as an inline code span on one line, cut at 200 bytes; nothing when NULL. */
void md_code(struct buf *b, const char *s);

/* A fenced block; its fence is longer than any run of backticks inside. Cut at MD_TEXT_MAX bytes, saying how many more. */
void md_block(struct buf *b, const char *s, size_t n, const char *language);

/* A JSON text as an indented block when it is short enough, else as md_block. */
void md_json_block(struct buf *b, const char *json, size_t n);

/* A value for people: the text of a string or of content parts, else its JSON. Nothing when `v` is none or null. */
void md_value(struct buf *b, struct jval v);

#endif
