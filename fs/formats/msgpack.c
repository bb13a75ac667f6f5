/* MessagePack as LangGraph for Python writes it, turned into JSON. https://github.com/msgpack/msgpack/blob/master/spec.md and
 * reference/frameworks.md §3.2. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "formats_i.h"
#include "util/cleanup.h"
#include "util/text.h"

/* Deeper than this no real value is; LangGraph's extensions count too. */
#define DEPTH_MAX 100
/* Keys in keys that aren't texts are quoted once more at each level, which doubles them; no real value needs more. */
#define KEYS_MAX 2

struct unpacker {
    const unsigned char *at, *end;
    struct buf *b;
    unsigned keys; /* how many keys it is in */
};

static int value(struct unpacker *u, unsigned depth);

/* The next `n` bytes as a big-endian number. */
static int number(struct unpacker *u, size_t n, uint64_t *ret)
{
    uint64_t v = 0;

    if ((size_t)(u->end - u->at) < n)
        return -EINVAL;
    for (size_t i = 0; i < n; i++)
        v = v << 8 | *u->at++;
    *ret = v;
    return 0;
}

static int take(struct unpacker *u, uint64_t n, const unsigned char **ret)
{
    if ((uint64_t)(u->end - u->at) < n)
        return -EINVAL;
    *ret = u->at;
    u->at += n;
    return 0;
}

static int text(struct unpacker *u, uint64_t n)
{
    const unsigned char *s;

    if (take(u, n, &s) < 0)
        return -EINVAL;
    json_add_quoted(u->b, (const char *)s, n);
    return 0;
}

/* Bytes that are text are shown as text. */
static int bytes(struct unpacker *u, uint64_t n)
{
    const unsigned char *s;

    if (take(u, n, &s) < 0)
        return -EINVAL;
    if (utf8_valid((const char *)s, n))
        json_add_quoted(u->b, (const char *)s, n);
    else
        buf_addf(u->b, "{\"bytes\":%" PRIu64 "}", n);
    return 0;
}

static int array(struct unpacker *u, uint64_t n, unsigned depth)
{
    int r = 0;

    if (n > (uint64_t)(u->end - u->at)) /* each takes a byte at least */
        return -EINVAL;
    buf_addc(u->b, '[');
    for (uint64_t i = 0; r == 0 && i < n; i++) {
        if (i)
            buf_addc(u->b, ',');
        r = value(u, depth);
    }
    buf_addc(u->b, ']');
    return r;
}

/* A name: JSON has only strings, so other keys are their JSON in a string. */
static int name(struct unpacker *u, unsigned depth)
{
    cleanup_buf struct buf own = {0};
    struct buf *out = u->b;
    int r;

    u->b = &own;
    u->keys++;
    r = value(u, depth);
    u->keys--;
    u->b = out;
    if (r < 0 || buf_error(&own))
        return r < 0 ? r : buf_error(&own);
    if (own.len && own.data[0] == '"')
        buf_add(out, own.data, own.len);
    else if (u->keys >= KEYS_MAX)
        return -EINVAL;
    else
        json_add_quoted(out, own.data ? own.data : "", own.len);
    return 0;
}

static int map(struct unpacker *u, uint64_t n, unsigned depth)
{
    int r = 0;

    if (n > (uint64_t)(u->end - u->at) / 2)
        return -EINVAL;
    buf_addc(u->b, '{');
    for (uint64_t i = 0; r == 0 && i < n; i++) {
        if (i)
            buf_addc(u->b, ',');
        r = name(u, depth);
        buf_addc(u->b, ':');
        if (r == 0)
            r = value(u, depth);
    }
    buf_addc(u->b, '}');
    return r;
}

/* The array that an extension of LangGraph holds: [module, class, value, …]. Only the value says something to people. */
static int constructed(const struct unpacker *of, const unsigned char *s, uint64_t n, unsigned depth)
{
    struct buf unused = {0};
    struct unpacker u = {s, s + n, &unused, of->keys};
    int r = 0;

    if (n < 4 || (s[0] & 0xf0) != 0x90 || (s[0] & 0x0f) < 3)
        return -EINVAL;
    u.at++;
    for (int i = 0; r == 0 && i < 3; i++) {
        u.b = i == 2 ? of->b : &unused;
        r = value(&u, depth);
    }
    buf_free(&unused);
    return r;
}

/* Extensions 0 to 5 make an object of some class; 6 is an array of numbers, 7 what only its ancestors complete. */
static int extension(struct unpacker *u, uint64_t n, unsigned depth)
{
    size_t before = u->b->len;
    const unsigned char *s;
    uint64_t type;

    if (number(u, 1, &type) < 0 || take(u, n, &s) < 0)
        return -EINVAL;
    if (type <= 5 && constructed(u, s, n, depth) == 0)
        return 0;
    buf_truncate(u->b, before);
    buf_addf(u->b, "{\"extension\":%" PRIu64 ",\"bytes\":%" PRIu64 "}", type, n);
    return 0;
}

static void add_double(struct unpacker *u, double d)
{
    if (isnan(d) || isinf(d))
        buf_adds(u->b, isnan(d) ? "\"NaN\"" : d > 0 ? "\"Infinity\"" : "\"-Infinity\"");
    else
        buf_addf(u->b, "%.17g", d);
}

static int real(struct unpacker *u, size_t n)
{
    uint64_t bits;
    uint32_t half;
    double d;
    float f;

    if (number(u, n, &bits) < 0)
        return -EINVAL;
    if (n == 4) {
        half = (uint32_t)bits;
        memcpy(&f, &half, sizeof f);
        d = (double)f;
    } else {
        memcpy(&d, &bits, sizeof d);
    }
    add_double(u, d);
    return 0;
}

static int integer(struct unpacker *u, size_t n, bool is_signed)
{
    uint64_t v;

    if (number(u, n, &v) < 0)
        return -EINVAL;
    if (is_signed && n < 8 && v >> (8 * n - 1))
        v |= ~UINT64_C(0) << (8 * n); /* the sign, through all 64 bits */
    if (is_signed)
        buf_addf(u->b, "%" PRId64, (int64_t)v);
    else
        buf_addf(u->b, "%" PRIu64, v);
    return 0;
}

enum shape { SHAPE_TEXT, SHAPE_BYTES, SHAPE_ARRAY, SHAPE_MAP, SHAPE_EXT };

static int sized(struct unpacker *u, enum shape shape, uint64_t n, unsigned depth)
{
    switch (shape) {
    case SHAPE_TEXT: return text(u, n);
    case SHAPE_BYTES: return bytes(u, n);
    case SHAPE_ARRAY: return array(u, n, depth);
    case SHAPE_MAP: return map(u, n, depth);
    case SHAPE_EXT: return extension(u, n, depth);
    }
    return -EINVAL;
}

/* What has its length behind its first byte. */
static int with_length(struct unpacker *u, unsigned char c, unsigned depth)
{
    static const struct { unsigned char first; unsigned char width; enum shape shape; } forms[] = {
        {0xc4, 1, SHAPE_BYTES}, {0xc5, 2, SHAPE_BYTES}, {0xc6, 4, SHAPE_BYTES}, {0xc7, 1, SHAPE_EXT}, {0xc8, 2, SHAPE_EXT},
        {0xc9, 4, SHAPE_EXT},   {0xd9, 1, SHAPE_TEXT},  {0xda, 2, SHAPE_TEXT},  {0xdb, 4, SHAPE_TEXT}, {0xdc, 2, SHAPE_ARRAY},
        {0xdd, 4, SHAPE_ARRAY}, {0xde, 2, SHAPE_MAP},   {0xdf, 4, SHAPE_MAP},
    };
    uint64_t n;

    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        if (forms[i].first == c)
            return number(u, forms[i].width, &n) < 0 ? -EINVAL : sized(u, forms[i].shape, n, depth);
    }
    return -EINVAL;
}

static int value(struct unpacker *u, unsigned depth)
{
    unsigned char c;

    if (u->at == u->end || depth == 0)
        return -EINVAL;
    depth--;
    c = *u->at++;
    if (c < 0x80 || c >= 0xe0) {
        buf_addf(u->b, "%d", c < 0x80 ? c : c - 256);
        return 0;
    }
    if (c < 0x90)
        return map(u, c & 0x0f, depth);
    if (c < 0xa0)
        return array(u, c & 0x0f, depth);
    if (c < 0xc0)
        return text(u, c & 0x1f);
    if (c == 0xc0 || c == 0xc2 || c == 0xc3) {
        buf_adds(u->b, c == 0xc0 ? "null" : c == 0xc2 ? "false" : "true");
        return 0;
    }
    if (c == 0xca || c == 0xcb)
        return real(u, c == 0xca ? 4 : 8);
    if (c >= 0xcc && c <= 0xd3)
        return integer(u, (size_t)1 << (c & 3), c >= 0xd0);
    if (c >= 0xd4 && c <= 0xd8)
        return extension(u, UINT64_C(1) << (c - 0xd4), depth);
    return with_length(u, c, depth);
}

int msgpack_to_json(const void *packed, size_t n, struct buf *b)
{
    cleanup_buf struct buf own = {0};
    struct unpacker u = {packed, (const unsigned char *)packed + n, &own, 0};
    int r = value(&u, DEPTH_MAX);

    if (r < 0 || u.at != u.end)
        return buf_error(&own) ? buf_error(&own) : -EINVAL;
    buf_add(b, own.data ? own.data : "", own.len);
    return buf_error(&own) ? buf_error(&own) : buf_error(b);
}
