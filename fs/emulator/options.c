/* The command line of neon-emulator. */
#include "emulator/options.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "emulator/faults.h"
#include "emulator/js.h"
#include "version.h"

enum {
    OPT_DATA = 1,
    OPT_LISTEN,
    OPT_PORT_FILE,
    OPT_KEY,
    OPT_KEY_FILE,
    OPT_PLAN,
    OPT_OPERATION_MS,
    OPT_FAULT,
    OPT_SNAPSHOTS,
    OPT_ROOTS,
    OPT_BRANCHES,
    OPT_RATE,
    OPT_LENIENT,
    OPT_HELP,
    OPT_VERSION
};

static const struct option longs[] = {
    {"data", required_argument, NULL, OPT_DATA},
    {"listen", required_argument, NULL, OPT_LISTEN},
    {"port-file", required_argument, NULL, OPT_PORT_FILE},
    {"api-key", required_argument, NULL, OPT_KEY},
    {"api-key-file", required_argument, NULL, OPT_KEY_FILE},
    {"plan", required_argument, NULL, OPT_PLAN},
    {"operation-ms", required_argument, NULL, OPT_OPERATION_MS},
    {"fault", required_argument, NULL, OPT_FAULT},
    {"snapshots", required_argument, NULL, OPT_SNAPSHOTS},
    {"root-branches", required_argument, NULL, OPT_ROOTS},
    {"branches", required_argument, NULL, OPT_BRANCHES},
    {"rate-limit", required_argument, NULL, OPT_RATE},
    {"lenient-names", no_argument, NULL, OPT_LENIENT},
    {"help", no_argument, NULL, OPT_HELP},
    {"version", no_argument, NULL, OPT_VERSION},
    {NULL, 0, NULL, 0},
};

static void help(void)
{
    printf(
        "usage: neon-emulator --data DIR [OPTIONS]\n"
        "\n"
        "Serves Neon's API v2 over real PostgreSQL servers whose data is under DIR, and prints the environment to use it with\n"
        "(NEON_API_HOST, NEON_API_KEY, NEON_PROJECT_ID, NEON_BRANCH_ID, DATABASE_URL). Runs until SIGTERM or SIGINT.\n"
        "\n"
        "  --data=DIR              where everything is kept; made if missing. As root, user postgres must be able to enter it\n"
        "  --listen=ADDRESS:PORT   default 127.0.0.1 and a port that DIR remembers\n"
        "  --port-file=FILE        the port is written there once it serves\n"
        "  --api-key=KEY           visible in process lists: better NEON_API_KEY in the environment, or\n"
        "  --api-key-file=FILE     its first line; else a random key is kept in DIR/api_key\n"
        "  --plan=free|paid        limits: free has 1 snapshot, 3 root branches, 10 branches; paid (default) 100, 25, 25\n"
        "  --snapshots=N  --root-branches=N  --branches=N     explicit limits\n"
        "  --operation-ms=N        the least time an operation takes (default 150)\n"
        "  --rate-limit=N          answer 429 beyond N requests per second\n"
        "  --lenient-names         allow a second snapshot or branch of the same name\n"
        "  --fault=SPEC            let requests fail, for tests:\n"
        "%s",
        faults_grammar);
}

static bool number(const char *text, int low, int high, int *ret)
{
    char *end;
    errno = 0;
    long n = strtol(text, &end, 10);
    if (errno || end == text || *end || n < low || n > high)
        return false;
    *ret = (int)n;
    return true;
}

static bool set_listen(struct options *o, const char *text)
{
    const char *colon = strrchr(text, ':');
    struct in_addr address;
    free(o->host_room);
    o->host_room = colon ? strndup(text, (size_t)(colon - text)) : NULL;
    o->listen_host = o->host_room;
    return o->host_room && inet_pton(AF_INET, o->host_room, &address) == 1 && number(colon + 1, 0, 65535, &o->listen_port);
}

static bool set_plan(struct options *o, const char *text)
{
    o->plan = text;
    return strcmp(text, "free") == 0 || strcmp(text, "paid") == 0;
}

static bool set(struct options *o, int option, const char *value)
{
    switch (option) {
    case OPT_DATA: o->data = value; return value[0] != '\0';
    case OPT_LISTEN: return set_listen(o, value);
    case OPT_PORT_FILE: o->port_file = value; return true;
    case OPT_KEY: o->api_key = value; return value[0] != '\0';
    case OPT_KEY_FILE: o->api_key_file = value; return true;
    case OPT_PLAN: return set_plan(o, value);
    case OPT_OPERATION_MS: return number(value, 0, 600000, &o->operation_ms);
    case OPT_FAULT: o->fault = value; return true;
    case OPT_SNAPSHOTS: return number(value, 0, 100000, &o->snapshots);
    case OPT_ROOTS: return number(value, 1, 100000, &o->root_branches);
    case OPT_BRANCHES: return number(value, 1, 100000, &o->branches);
    case OPT_RATE: return number(value, 1, 1000000, &o->rate_limit);
    case OPT_LENIENT: o->lenient_names = true; return true;
    default: return false;
    }
}

static enum options_outcome bad(const char *name, const char *value)
{
    fprintf(stderr, "neon-emulator: --%s: bad value '%s'; see --help\n", name, value);
    return OPTIONS_BAD;
}

static void defaults(struct options *o)
{
    bool is_free = strcmp(o->plan, "free") == 0;
    if (o->snapshots < 0)
        o->snapshots = is_free ? 1 : 100;
    if (o->root_branches < 0)
        o->root_branches = is_free ? 3 : 25;
    if (o->branches < 0)
        o->branches = is_free ? 10 : 25;
    const char *key = getenv("NEON_API_KEY");
    if (!o->api_key && !o->api_key_file && key && key[0])
        o->api_key = key;
}

enum options_outcome options_parse(int argc, char **argv, struct options *ret_options)
{
    struct options o = {.listen_host = "127.0.0.1",
                        .listen_port = -1,
                        .plan = "paid",
                        .operation_ms = 150,
                        .snapshots = -1,
                        .root_branches = -1,
                        .branches = -1};
    enum options_outcome outcome = OPTIONS_RUN;
    int index = 0, c;
    while (outcome == OPTIONS_RUN && (c = getopt_long(argc, argv, "", longs, &index)) != -1) {
        if (c == OPT_HELP || c == OPT_VERSION) {
            if (c == OPT_HELP)
                help();
            else
                printf("neon-emulator %s\n", CHECKPOINTFS_VERSION);
            outcome = OPTIONS_DONE;
        } else if (c == '?') {
            outcome = OPTIONS_BAD;
        } else if (!set(&o, c, optarg)) {
            outcome = bad(longs[index].name, c == OPT_KEY ? "" : optarg);
        }
    }
    if (outcome == OPTIONS_RUN && optind < argc) {
        fprintf(stderr, "neon-emulator: unexpected argument '%s'; see --help\n", argv[optind]);
        outcome = OPTIONS_BAD;
    } else if (outcome == OPTIONS_RUN && !o.data) {
        fputs("neon-emulator: say where the data is to be kept: --data DIR; see --help\n", stderr);
        outcome = OPTIONS_BAD;
    }
    if (outcome != OPTIONS_RUN) {
        free(o.host_room);
        return outcome;
    }
    defaults(&o);
    *ret_options = o;
    return OPTIONS_RUN;
}

void options_clear(struct options *options)
{
    free(options->host_room);
    options->host_room = NULL;
}
