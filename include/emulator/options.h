/* The command line. */
#ifndef EMULATOR_OPTIONS_H
#define EMULATOR_OPTIONS_H

#include <stdbool.h>

#include "util/err.h"

struct options {
    const char *data;
    const char *listen_host; /* IPv4 text */
    int listen_port;         /* -1 = the one that DIR remembers */
    const char *port_file;
    const char *api_key; /* NULL = the one kept in DIR */
    const char *api_key_file;
    const char *plan;                       /* "free" or "paid" */
    int operation_ms;                       /* the least time of each operation beside its work */
    int snapshots, root_branches, branches; /* limits */
    int rate_limit;                         /* requests per second; 0 = none */
    bool lenient_names;
    const char *fault; /* a fault specification, or NULL */
    char *host_room;   /* owned */
};

enum options_outcome { OPTIONS_RUN, OPTIONS_DONE, OPTIONS_BAD };

/* Reads argv. OPTIONS_DONE: --help or --version was printed; OPTIONS_BAD: one line is on stderr. Strings are borrowed from
 * argv and the environment, and from host_room. */
enum options_outcome options_parse(int argc, char **argv, struct options *ret_options);
void options_clear(struct options *options);

#endif
