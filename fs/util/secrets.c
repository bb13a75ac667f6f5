/* Secrets are taken out of what is quoted: those that are known, and what is called one. */
#include "util/secrets.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "util/cleanup.h"
#include "util/text.h"

static int keep(struct secrets *s, char *secret)
{
    char **grown;

    for (size_t i = 0; secret && i < s->n; i++)
        if (strcmp(s->items[i], secret) == 0) {
            free(secret);
            return 0;
        }
    grown = secret ? realloc(s->items, (s->n + 1) * sizeof(*grown)) : NULL;
    if (!grown) {
        free(secret);
        return -ENOMEM;
    }
    s->items = grown;
    s->items[s->n++] = secret;
    return 0;
}

int secrets_add(struct secrets *s, const char *secret)
{
    cleanup_buf struct buf encoded = {0};
    int r;

    if (!secret || !*secret)
        return 0;
    for (const char *p = secret; *p; p++) {
        if (isalnum((unsigned char)*p) || strchr("-._~", *p))
            buf_addc(&encoded, *p);
        else
            buf_addf(&encoded, "%%%02X", (unsigned)(unsigned char)*p);
    }
    r = keep(s, str_dup(secret));
    if (r == 0 && (buf_error(&encoded) || strcmp(encoded.data, secret) != 0))
        r = keep(s, buf_steal(&encoded));
    return r;
}

int secrets_add_uri(struct secrets *s, const char *uri)
{
    const char *user = uri ? strstr(uri, "://") : NULL;
    size_t authority = user ? strcspn(user + 3, "/?#") : 0;
    const char *at = user ? memrchr(user + 3, '@', authority) : NULL;
    const char *colon = at ? memchr(user + 3, ':', (size_t)(at - user - 3)) : NULL;

    return colon && colon + 1 < at ? keep(s, strndup(colon + 1, (size_t)(at - colon - 1))) : 0;
}

void secrets_clear(struct secrets *s)
{
    for (size_t i = 0; i < s->n; i++)
        free(s->items[i]);
    free(s->items);
    *s = (struct secrets){0};
}

/* The length of the longest secret that `text` begins with; 0 = none. */
static size_t secret_at(const struct secrets *s, const char *text, size_t n)
{
    size_t longest = 0;

    for (size_t i = 0; i < s->n; i++) {
        size_t len = strlen(s->items[i]);

        if (len <= n && len > longest && memcmp(text, s->items[i], len) == 0)
            longest = len;
    }
    return longest;
}

/* The same of a secret whose beginning was cut off. */
static size_t rest_of_secret(const struct secrets *s, const char *text, size_t n)
{
    size_t longest = 0;

    for (size_t i = 0; i < s->n; i++) {
        size_t len = strlen(s->items[i]);

        for (size_t rest = len - 1; rest > longest; rest--)
            if (rest <= n && memcmp(text, s->items[i] + len - rest, rest) == 0)
                longest = rest;
    }
    return longest;
}

void secrets_mask(const struct secrets *s, const char *text, size_t n, bool cut, struct buf *b)
{
    size_t i = cut ? rest_of_secret(s, text, n) : 0;

    while (i < n) {
        size_t len = secret_at(s, text + i, n - i);

        if (len)
            buf_adds(b, "***");
        else
            buf_addc(b, text[i]);
        i += len ? len : 1;
    }
}

/* ---- what is called a secret --------------------------------------------------------------------------------------------- */

/* Whether the word that `text` is in is an option. Asked only where a word ends: each is gone back over once. */
static bool in_option(const char *text, const char *start)
{
    while (text > start && text[-1] != ' ')
        text--;
    return str_starts(text, "--");
}

/* Where a secret begins after what names one at `text`: `password=`, `OPENAI_API_KEY=` (seen from API_KEY on), and as an option
 * `--token X`. 0 = none is named here. */
static size_t secret_after(const char *text, const char *start)
{
    static const char *const names[] = {"password", "passwd", "secret", "token", "api_key", "api-key", "apikey", "access_key"};

    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        size_t n = strlen(names[i]);

        if (strncasecmp(text, names[i], n) == 0 && (text[n] == '=' || (text[n] == ' ' && in_option(text, start))))
            return n + 1;
    }
    return 0;
}

/* How long the value at `text` is; a shell's quotes may hold blanks. */
static size_t value_length(const char *text)
{
    size_t n = 0;

    while (text[n] && !strchr(" \t\n&", text[n])) {
        const char *end = text[n] == '\'' || text[n] == '"' ? strchr(text + n + 1, text[n]) : NULL;

        n = end ? (size_t)(end - text) + 1 : n + 1;
    }
    return n;
}

/* Where the password of a URI at `text` (just past its ://) begins and ends, or false. */
static bool uri_password(const char *text, size_t *from, size_t *to)
{
    size_t authority = strcspn(text, "/ ?#");
    const char *at = memrchr(text, '@', authority);
    const char *colon = at ? memchr(text, ':', (size_t)(at - text)) : NULL;

    if (!colon)
        return false;
    *from = (size_t)(colon - text) + 1;
    *to = (size_t)(at - text);
    return true;
}

bool secrets_mask_named(const char *text, struct buf *b)
{
    const char *start = text;
    bool any = false;
    size_t from;
    size_t to;

    while (*text) {
        size_t n = secret_after(text, start);

        if (n) {
            buf_add(b, text, n);
            buf_adds(b, "***");
            text += n + value_length(text + n);
        } else if (str_starts(text, "://") && uri_password(text + 3, &from, &to)) {
            buf_add(b, text, 3 + from);
            buf_adds(b, "***");
            text += 3 + to;
        } else {
            buf_addc(b, *text++);
            continue;
        }
        any = true;
    }
    return any;
}

bool secrets_named(const char *text)
{
    cleanup_buf struct buf masked = {0};

    return secrets_mask_named(text, &masked) || buf_error(&masked);
}
