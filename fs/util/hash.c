/* SHA-256, random identifiers and constant-time comparison, by libcrypto. */
#include "util/hash.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

static void to_hex(const unsigned char *bytes, size_t digits, char *out)
{
    static const char hex[] = "0123456789abcdef";

    for (size_t i = 0; i < digits; i++)
        out[i] = hex[i % 2 ? bytes[i / 2] & 15 : bytes[i / 2] >> 4];
    out[digits] = '\0';
}

int sha256_hex(const void *bytes, size_t n, char out[SHA256_HEX_SIZE])
{
    unsigned char md[EVP_MAX_MD_SIZE];

    if (!EVP_Digest(bytes, n, md, NULL, EVP_sha256(), NULL))
        return -EIO;
    to_hex(md, SHA256_HEX_SIZE - 1, out);
    return 0;
}

int random_hex(char *out, size_t digits)
{
    unsigned char bytes[64];

    if (digits > 2 * sizeof(bytes) || RAND_bytes(bytes, sizeof(bytes)) != 1)
        return -EIO;
    to_hex(bytes, digits, out);
    return 0;
}

int equal_constant_time(const char *a, const char *b)
{
    char ha[SHA256_HEX_SIZE];
    char hb[SHA256_HEX_SIZE];

    /* Hashes have one length, so the comparison tells nothing about the secret's. */
    if (sha256_hex(a, strlen(a), ha) < 0 || sha256_hex(b, strlen(b), hb) < 0)
        return 0;
    return CRYPTO_memcmp(ha, hb, sizeof(ha)) == 0;
}
