/* Does a database answer? The check that ends a restore (design.md §5): the connection string works again. */
#ifndef DATABASE_PROBE_H
#define DATABASE_PROBE_H

#include <stdatomic.h>
#include <stdint.h>

#include "util/err.h"

/* Connects to `uri` and runs `select 1`, trying again until `deadline_ms` of clock_mono_ms (a compute that scales to zero takes a
 * moment, and a finalized restore cuts connections: neon-api.md §5.1, §8.8). `cancelled` may be NULL; when it becomes true
 * the call ends within 100 ms.
 *
 * 0; -ETIMEDOUT, -ECANCELED, -EACCES (authentication), -EIO. The text never holds the URI or its password. Thread-safe. */
int database_probe(const char *uri, const atomic_bool *cancelled, int64_t deadline_ms, struct err *e);

#endif
