/* Short forms for reading and writing JSON objects. */
#include "emulator/js.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *must(void *p)
{
    if (!p) {
        fputs("neon-emulator: out of memory\n", stderr);
        abort();
    }
    return p;
}

static void *must_malloc(size_t n)
{
    return must(malloc(n));
}

void js_init(void)
{
    json_set_alloc_funcs(must_malloc, free);
}

char *js_format(const char *fmt, ...)
{
    char *text = NULL;
    va_list ap;
    va_start(ap, fmt);
    if (vasprintf(&text, fmt, ap) < 0)
        text = NULL;
    va_end(ap);
    return must(text);
}

char *js_strdup(const char *s)
{
    return must(strdup(s));
}

const char *js_str(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

int64_t js_int(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

bool js_bool(const json_t *object, const char *key)
{
    return json_is_true(json_object_get(object, key));
}

json_t *js_get(const json_t *object, const char *key)
{
    json_t *value = json_object_get(object, key);
    return json_is_null(value) ? NULL : value;
}

bool js_is(const json_t *object, const char *key, const char *value)
{
    const char *have = js_str(object, key);
    return have && value && strcmp(have, value) == 0;
}

void js_set_str(json_t *object, const char *key, const char *value)
{
    if (value)
        json_object_set_new(object, key, json_string(value));
    else
        json_object_del(object, key);
}

void js_set_int(json_t *object, const char *key, int64_t value)
{
    json_object_set_new(object, key, json_integer(value));
}

void js_set_bool(json_t *object, const char *key, bool value)
{
    json_object_set_new(object, key, json_boolean(value));
}

json_t *js_public(const json_t *object)
{
    json_t *out = json_object();
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
        if (key[0] != '_')
            json_object_set_new(out, key, json_deep_copy(value));
    return out;
}
