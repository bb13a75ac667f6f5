/* Connecting to PostgreSQL within a deadline, and what a failure to connect means. Shared by the store and the probe. */
#ifndef DATABASE_CONNECT_H
#define DATABASE_CONNECT_H

#include <stdatomic.h>
#include <stdint.h>

#include "util/err.h"

struct pg_conn; /* libpq's PGconn */

/* Connects with libpq's keywords and values (NULL-terminated, `expand_dbname` semantics off) and ends at `deadline_ms` of
 * clock_mono_ms, or within 100 ms after `cancelled` (may be NULL) became true. The connection is non-blocking; PQfinish it.
 *
 * -ETIMEDOUT, -ECANCELED, -EACCES (authentication, or no right to log in), -EAGAIN (the server is starting up or shutting down),
 * -ECONNREFUSED, -EHOSTUNREACH, -ENOMEM, -EIO. The text is one line, without the password. Thread-safe. */
int database_connect(const char *const *keywords, const char *const *values, const atomic_bool *cancelled, int64_t deadline_ms,
                     struct pg_conn **ret, struct err *e);

/* libpq's message as one line: no newline, no control character, at most 400 bytes. Owned by the caller; NULL = out of memory. */
char *database_one_line(const char *message);

/* The password in a connection string of libpq's, URI or keywords, decoded; NULL when it has none. Owned by the caller. Thread-safe. */
char *database_password(const char *conninfo);

#endif
