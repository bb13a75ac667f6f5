/* Text that a model or a tool wrote, put into Markdown so that it can neither end its block nor paint a terminal. */
#ifndef FORMATS_MARKDOWN_I_H
#define FORMATS_MARKDOWN_I_H

#include <stddef.h>

#include "formats/jdoc.h"
#include "util/buf.h"

/* Bytes of one text that a transcript shows. */
#define MD_TEXT_MAX 4096

/* Bytes of a list of texts after which no further one is begun. */
#define MD_LIST_MAX (64 * MD_TEXT_MAX)

/* Appends `s` with control characters as their pictures (U+2400…), and what isn't UTF-8, can't be seen or turns the writing
 * direction as U+FFFD. Newline and tab stay. */
void md_visible(struct buf *b, const char *s, size_t n);

/* How many of the `n` bytes make at most `max` without cutting a character in two. */
size_t md_cut(const char *s, size_t n, size_t max);

/* `s` as an inline code span on one line, cut at 200 bytes; nothing when NULL. */
void md_code(struct buf *b, const char *s);

/* A literal block: each line behind four spaces, so that no line of a model's begins where ours do. Cut at MD_TEXT_MAX bytes,
 * saying so. */
void md_block(struct buf *b, const char *s, size_t n);

/* A JSON text as an indented block when it is short and flat enough, else as md_block. */
void md_json_block(struct buf *b, const char *json, size_t n);

/* Any JSON value as an outline in the manner of YAML: every member on a line, long strings cut, its end too, saying so. `but` is
 * a value of the tree that is shown elsewhere, or none. */
void md_outline(struct buf *b, struct jval v, struct jval but);

/* A value for people: the text of a string or of content parts, else its JSON. Nothing when `v` is none or null. */
void md_value(struct buf *b, struct jval v);

#endif
