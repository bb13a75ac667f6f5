/* Where a store is, so that one that lies in the database it would restore is refused (design.md §5). */
#ifndef STORE_LOCATION_H
#define STORE_LOCATION_H

#include "util/err.h"

/* The host and port that `conninfo` names; NULL where it names none. Owned by the caller. -EINVAL when it isn't a connection string (the
 * text doesn't quote it). */
int store_location(const char *conninfo, char **ret_host, char **ret_port, struct err *e);

#endif
