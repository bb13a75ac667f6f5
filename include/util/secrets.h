/* Secrets that this program knows, or that are called so, and what others say quoted without them. */
#ifndef UTIL_SECRETS_H
#define UTIL_SECRETS_H

#include <stdbool.h>
#include <stddef.h>

#include "util/buf.h"

/* Zero-initialise, secrets_clear at the end. Not thread-safe. */
struct secrets {
    char **items;
    size_t n;
};

/* Adds one as it is, and as it is written in a URI (RFC 3986, percent-encoded). NULL and "" are none, and one that is there already
 * is not added again. Each is copied. When out of memory -ENOMEM: then quote nothing. */
int secrets_add(struct secrets *s, const char *secret);

/* Adds the password between `://USER:` and `@` just as it stands there. A text without one adds nothing. */
int secrets_add_uri(struct secrets *s, const char *uri);

void secrets_clear(struct secrets *s);

/* Appends `n` bytes of `text`, each secret in them replaced by ***. `cut`: it is the end of something longer, so the rest of a secret that
 * it begins with is left out too. */
void secrets_mask(const struct secrets *s, const char *text, size_t n, bool cut, struct buf *b);

/* Appends `text` with *** in place of what it calls a secret: the password of a URI, the value of `password=`, `OPENAI_API_KEY=`, `--token
 * X` and the like, a shell's quotes respected. A guess by the name: what is called otherwise stays. True if there was one. Thread-safe. */
bool secrets_mask_named(const char *text, struct buf *b);

/* Whether it would mask anything; true when out of memory. Thread-safe. */
bool secrets_named(const char *text);

#endif
