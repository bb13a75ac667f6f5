/* Identifiers and secrets in the forms that Neon gives them. */
#ifndef EMULATOR_IDS_H
#define EMULATOR_IDS_H

#include <stdbool.h>

/* `prefix-adjective-noun-xxxxxxxx` (four parts; without a prefix three, as project ids). free() it. */
char *ids_new(const char *prefix);

/* A version 4 UUID in text form. free() it. */
char *ids_uuid(void);

/* `prefix` and n random letters and digits. free() it. */
char *ids_secret(const char *prefix, int n);

/* Whether `id` has the form of Neon's path ids: ^[a-z0-9-]{1,60}$. */
bool ids_valid(const char *id);

/* Whether `text` is a UUID. */
bool ids_valid_uuid(const char *text);

#endif
