/* Short forms for reading and writing JSON objects, and strings that never come back NULL.
 *
 * The emulator ends itself when memory is out (js_init): its state on disk survives an end at any moment, so there is nothing
 * that carrying on would save, and every caller is free of that case. */
#ifndef EMULATOR_JS_H
#define EMULATOR_JS_H

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

/* Makes jansson and the functions below abort when memory is out. Call once, before anything else. */
void js_init(void);

/* printf into a new string; free() it. Never NULL. */
char *js_format(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
char *js_strdup(const char *s);

/* A member's value; the fallback where it is missing, null or of another type. Strings are borrowed. */
const char *js_str(const json_t *object, const char *key); /* NULL */
int64_t js_int(const json_t *object, const char *key);     /* 0 */
bool js_bool(const json_t *object, const char *key);       /* false */
json_t *js_get(const json_t *object, const char *key);     /* NULL, also for a JSON null */

/* Whether the member is a string equal to `value`. */
bool js_is(const json_t *object, const char *key, const char *value);

void js_set_str(json_t *object, const char *key, const char *value); /* NULL removes the member */
void js_set_int(json_t *object, const char *key, int64_t value);
void js_set_bool(json_t *object, const char *key, bool value);

/* A deep copy without the members whose name begins with '_', which are the emulator's own. */
json_t *js_public(const json_t *object);

#endif
