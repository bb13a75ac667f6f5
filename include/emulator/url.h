/* Paths and queries of request URIs. Pure, thread-safe. */
#ifndef EMULATOR_URL_H
#define EMULATOR_URL_H

#include <stddef.h>

#include <jansson.h>

/* Decodes %XX, and + as a space where `plus` is set. New string; NULL when it is broken, holds a NUL or isn't UTF-8. */
char *url_decode(const char *text, size_t n, int plus);

/* The query as an object of strings; the last of a repeated name counts. A member named "" says that
 * something couldn't be decoded. New. */
json_t *url_query(const char *text);

/* A path without empty segments; new string. */
char *url_without_empty_segments(const char *path);

#endif
