/* Paths and queries of request URIs. */
#include "emulator/url.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "emulator/js.h"
#include "util/cleanup.h"
#include "util/text.h"

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)tolower((unsigned char)c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

char *url_decode(const char *text, size_t n, int plus)
{
    cleanup_free char *out = js_format("%*s", (int)n, "");
    size_t len = 0;
    for (size_t i = 0; i < n; i++) {
        char c = text[i];
        if (c == '%') {
            int high = i + 2 < n ? hex(text[i + 1]) : -1, low = i + 2 < n ? hex(text[i + 2]) : -1;
            if (high < 0 || low < 0)
                return NULL;
            c = (char)(high * 16 + low);
            i += 2;
        } else if (c == '+' && plus) {
            c = ' ';
        }
        if (c == '\0')
            return NULL;
        out[len++] = c;
    }
    out[len] = '\0';
    return utf8_valid(out, len) ? steal_ptr(&out) : NULL;
}

json_t *url_query(const char *text)
{
    json_t *out = json_object();
    while (*text) {
        size_t n = strcspn(text, "&");
        const char *equals = memchr(text, '=', n);
        size_t name_len = equals ? (size_t)(equals - text) : n;
        cleanup_free char *name = url_decode(text, name_len, 1);
        cleanup_free char *value = equals ? url_decode(equals + 1, n - name_len - 1, 1) : js_strdup("");
        if (name && value && name[0])
            js_set_str(out, name, value);
        else if (n > 0)
            js_set_str(out, "", "bad");
        text += n + (text[n] == '&');
    }
    return out;
}

char *url_without_empty_segments(const char *path)
{
    char *out = js_strdup(path);
    size_t len = 0;
    for (const char *p = path; *p; p++)
        if (!(*p == '/' && len > 0 && out[len - 1] == '/'))
            out[len++] = *p;
    if (len > 1 && out[len - 1] == '/')
        len--;
    out[len] = '\0';
    return out;
}
