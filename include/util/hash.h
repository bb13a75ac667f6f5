/* SHA-256 and random identifiers, by OpenSSL's libcrypto. Thread-safe. */
#ifndef UTIL_HASH_H
#define UTIL_HASH_H

#include <stddef.h>

#define SHA256_HEX_SIZE 65 /* 64 digits and a NUL */

/* SHA-256 of `n` bytes as lower-case hex. 0, or -EIO when libcrypto fails. */
int sha256_hex(const void *bytes, size_t n, char out[SHA256_HEX_SIZE]);

/* `digits` random lower-case hex digits and a NUL into `out`, which must hold digits + 1. 0, or -EIO. */
int random_hex(char *out, size_t digits);

/* Compares two strings in a time that tells nothing about where they differ. 1 = equal. */
int equal_constant_time(const char *a, const char *b);

#endif
