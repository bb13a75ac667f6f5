/* Names and encodings: UTF-8, checkpoint names, file names of ids. */
#include "util/text.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/buf.h"
#include "util/hash.h"

#define NAME_MAX_BYTES 255
#define ID_FILENAME_MAX 200
#define ID_FILENAME_HEAD 150

size_t utf8_length(const unsigned char *s, size_t n)
{
    uint32_t c;
    size_t len;

    if (s[0] < 0x80)
        return 1;
    len = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
    if (s[0] < 0xc2 || s[0] > 0xf4 || len > n)
        return 0;
    c = s[0] & (0xffu >> (len + 1));
    for (size_t i = 1; i < len; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (s[i] & 0x3f);
    }
    if ((len == 3 && (c < 0x800 || (c >= 0xd800 && c <= 0xdfff))) || (len == 4 && (c < 0x10000 || c > 0x10ffff)))
        return 0;
    return len;
}

uint32_t utf8_point(const unsigned char *s, size_t len)
{
    uint32_t c = len == 1 ? s[0] : s[0] & (0xffu >> (len + 1));

    for (size_t i = 1; i < len; i++)
        c = c << 6 | (s[i] & 0x3f);
    return c;
}

bool text_invisible(uint32_t c)
{
    static const struct { uint32_t first, last; } ranges[] = {
        {0, 0x1f},         {0x7f, 0x9f},      {0xad, 0xad},           /* controls, soft hyphen */
        {0x34f, 0x34f},    {0x61c, 0x61c},    {0x115f, 0x1160},       /* grapheme joiner, Arabic letter mark, Hangul fillers */
        {0x17b4, 0x17b5},  {0x180b, 0x180f},                          /* Khmer's inherent vowels, Mongolian selectors */
        {0x200b, 0x200f},  {0x2028, 0x202e},  {0x2060, 0x206f},       /* zero width, separators and directions */
        {0x3164, 0x3164},  {0xfeff, 0xfeff},  {0xffa0, 0xffa0},       /* Hangul filler, byte order mark, halfwidth filler */
        {0xfff0, 0xfffb},  {0xfffe, 0xffff},                          /* annotation, no characters */
        {0x1bca0, 0x1bca3}, {0x1d173, 0x1d17a}, {0xe0000, 0xe0fff},   /* of shorthand and of music, tags and selectors */
    };

    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
        if (c <= ranges[i].last)
            return c >= ranges[i].first;
    }
    return false;
}

bool utf8_valid(const char *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        size_t len = utf8_length((const unsigned char *)s + i, n - i);

        if (!len)
            return false;
        i += len;
    }
    return true;
}

char *utf8_clean(const char *s, size_t n)
{
    struct buf b = {0};

    for (size_t i = 0; i < n;) {
        size_t len = s[i] ? utf8_length((const unsigned char *)s + i, n - i) : 0;

        if (len)
            buf_add(&b, s + i, len);
        else
            buf_adds(&b, "\xef\xbf\xbd");
        i += len ? len : 1;
    }
    return buf_steal(&b);
}

const char *name_problem(const char *name)
{
    size_t n = strlen(name);

    if (n == 0)
        return "a checkpoint's name is empty";
    if (n > NAME_MAX_BYTES)
        return "a checkpoint's name is over 255 bytes";
    if (name[0] == '.')
        return "a checkpoint's name starts with a dot";
    if (strcmp(name, "latest") == 0)
        return "`latest` is the link to the newest checkpoint; take another name";
    if (!utf8_valid(name, n))
        return "a checkpoint's name is not valid UTF-8";
    for (const unsigned char *p = (const unsigned char *)name; *p; p++)
        if (*p < 0x20 || *p == 0x7f || *p == '/' || (*p == 0xc2 && p[1] < 0xa0))
            return "a checkpoint's name holds a control character or a slash";
    return NULL;
}

static bool plain_in_filename(char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || (c && strchr("._:@-", c));
}

char *id_to_filename(const char *id, size_t n)
{
    char hash[SHA256_HEX_SIZE];
    struct buf b = {0};

    for (size_t i = 0; i < n; i++) {
        if (plain_in_filename(id[i]) && !(i == 0 && id[i] == '.'))
            buf_addc(&b, id[i]);
        else
            buf_addf(&b, "%%%02X", (unsigned)(unsigned char)id[i]);
    }
    if (b.len > ID_FILENAME_MAX && sha256_hex(id, n, hash) == 0) {
        buf_truncate(&b, ID_FILENAME_HEAD);
        buf_addf(&b, "~%.16s", hash);
    }
    return buf_steal(&b);
}

char *ascii_label(const char *s, size_t max)
{
    struct buf b = {0};

    for (size_t i = 0; s[i] && i < max; i++) {
        char c = s[i];
        bool plain = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '.';

        buf_addc(&b, plain ? c : '-');
    }
    return buf_steal(&b);
}

char *str_format(const char *fmt, ...)
{
    char *text = NULL;
    va_list ap;

    va_start(ap, fmt);
    if (vasprintf(&text, fmt, ap) < 0)
        text = NULL;
    va_end(ap);
    return text;
}

char *str_dup(const char *s)
{
    return s ? strdup(s) : NULL;
}

bool str_starts(const char *s, const char *prefix)
{
    return strncmp(s, prefix, strlen(prefix)) == 0;
}

bool str_equal(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}
