/* Identifiers and secrets in the forms that Neon gives them: reference/neon-api.md §4.1, §5.1. */
#include "emulator/ids.h"

#include <ctype.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "emulator/js.h"

static const char *const adjectives[] = {
    "amber",     "ancient",   "autumn",   "billowing", "bold",    "broad",  "calm",     "cold",   "cool",   "crimson", "curly",
    "damp",      "dark",      "dawn",     "dry",       "falling", "frosty", "gentle",   "green",  "hidden", "holy",    "icy",
    "jolly",     "late",      "little",   "lively",    "long",    "misty",  "muddy",    "noisy",  "odd",    "old",     "orange",
    "patient",   "plain",     "polished", "proud",     "quiet",   "rapid",  "rough",    "round",  "shy",    "silent",  "small",
    "snowy",     "soft",      "spring",   "square",    "steep",   "still",  "summer",   "super",  "sweet",  "tight",   "tiny",
    "wandering", "weathered", "white",    "wild",      "winter",  "wispy",  "withered", "yellow", "young"};
static const char *const nouns[] = {
    "art",   "band",      "bar",     "base",   "bird",   "block",   "boat",    "bonus",    "bread",  "breeze", "brook",
    "bush",  "butterfly", "cake",    "cell",   "cherry", "cloud",   "credit",  "darkness", "dawn",   "dew",    "disk",
    "dream", "dust",      "feather", "field",  "fire",   "firefly", "flower",  "fog",      "forest", "frog",   "frost",
    "glade", "glitter",   "grass",   "hall",   "hat",    "haze",    "heart",   "hill",     "king",   "lab",    "lake",
    "leaf",  "limit",     "math",    "meadow", "mode",   "moon",    "morning", "mountain", "mouse",  "mud",    "night",
    "paper", "pine",      "poetry",  "pond",   "queen",  "rain",    "recipe",  "river",    "sea"};

static void random_bytes(void *out, size_t n)
{
    unsigned char *p = out;
    while (n > 0) {
        ssize_t got = getrandom(p, n, 0);
        if (got <= 0)
            abort();
        p += got;
        n -= (size_t)got;
    }
}

/* n letters of an alphabet; rejects bytes that would make some letters likelier. */
static void random_text(char *out, size_t n, const char *alphabet)
{
    size_t letters = strlen(alphabet);
    unsigned limit = 256U - 256U % (unsigned)letters;
    for (size_t i = 0; i < n;) {
        unsigned char byte;
        random_bytes(&byte, 1);
        if (byte < limit)
            out[i++] = alphabet[byte % letters];
    }
    out[n] = '\0';
}

char *ids_new(const char *prefix)
{
    unsigned char pick[2];
    char tail[9];
    random_bytes(pick, sizeof(pick));
    random_text(tail, 8, "abcdefghijklmnopqrstuvwxyz0123456789");
    const char *a = adjectives[pick[0] % (sizeof(adjectives) / sizeof(adjectives[0]))];
    const char *b = nouns[pick[1] % (sizeof(nouns) / sizeof(nouns[0]))];
    return js_format("%s%s%s-%s-%s", prefix, prefix[0] ? "-" : "", a, b, tail);
}

char *ids_uuid(void)
{
    unsigned char u[16];
    random_bytes(u, sizeof(u));
    u[6] = (unsigned char)((u[6] & 0x0f) | 0x40);
    u[8] = (unsigned char)((u[8] & 0x3f) | 0x80);
    return js_format("%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", u[0], u[1], u[2], u[3], u[4], u[5],
                     u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14], u[15]);
}

char *ids_secret(const char *prefix, int n)
{
    char *text = js_format("%s%*s", prefix, n, "");
    random_text(text + strlen(prefix), (size_t)n, "abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ0123456789");
    return text;
}

bool ids_valid(const char *id)
{
    size_t n = strlen(id);
    return n >= 1 && n <= 60 && strspn(id, "abcdefghijklmnopqrstuvwxyz0123456789-") == n;
}

bool ids_valid_uuid(const char *text)
{
    if (strlen(text) != 36)
        return false;
    for (size_t i = 0; i < 36; i++) {
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;
        if (dash ? text[i] != '-' : !isxdigit((unsigned char)text[i]))
            return false;
    }
    return true;
}
