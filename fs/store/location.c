/* Where a store is: host and port of a connection string. */
#include "store/location.h"

#include <errno.h>
#include <string.h>

#include <libpq-fe.h>

#include "util/text.h"

int store_location(const char *conninfo, char **ret_host, char **ret_port, struct err *e)
{
    PQconninfoOption *all = PQconninfoParse(conninfo, NULL);
    char *host = NULL;
    char *port = NULL;

    if (!all)
        return err_set(e, EINVAL, "--store is not a connection string; see PostgreSQL's documentation of libpq");
    for (PQconninfoOption *o = all; o->keyword; o++) {
        if (strcmp(o->keyword, "host") == 0)
            host = str_dup(o->val);
        else if (strcmp(o->keyword, "port") == 0)
            port = str_dup(o->val);
    }
    PQconninfoFree(all);
    *ret_host = host;
    *ret_port = port;
    return 0;
}
