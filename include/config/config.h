/* The configuration: command line, environment, --env-file and the INI file, in that order of precedence (design.md §8). */
#ifndef CONFIG_CONFIG_H
#define CONFIG_CONFIG_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "commands/role.h"
#include "util/err.h"

/* All strings owned. */
struct config {
    char *mountpoint;     /* absolute */
    char *local_dir;      /* --local=DIR, absolute */
    char *store_dir;      /* --store=DIR, absolute */
    char *store;          /* --store=CONNINFO: a secret */
    char *resume;
    char *run_on;         /* [resume] run-on: any, here or a host's name; NULL = any */
    char *api_host, *api_key, *project_id, *branch_id;
    char *database, *role; /* of DATABASE_URL */
    char *retention;      /* [retention], as rules of .control/prune (commands/rules.h); NULL = none */
    char *options;        /* -o, without those that are ours */
    char *cwd;
    char *mount_role;     /* migrate --mount-role; NULL: the default */
    int64_t deadline_ms;  /* [neon] deadline */
    int64_t grace_ms;     /* [resume] grace: an agent's time from TERM to KILL */
    int64_t unconfirmed_ms; /* [restore] unconfirmed: INT64_MAX = `always`, 0 = `never`; -1 until it is read */
    uid_t uid;            /* -o uid, gid: who owns what is shown; else the mounting user */
    gid_t gid;
    mode_t umask;         /* -o umask: permissions that are taken away; else 077 */
    enum role may;        /* -o role */
    char *operators;      /* -o operators: the group as it was given; NULL = none */
    gid_t operators_gid;
    bool foreground, debug, read_only;
    bool help, version, migrate;
};

/* Reads everything. Passwords in argv are overwritten, so that no process list shows them. -EINVAL, -ENOENT; the text says what is
 * wrong or missing, and how to give it. */
int config_read(int argc, char **argv, struct config *ret, struct err *e);
void config_free(struct config *c);

/* The usage text; static. */
const char *config_usage(void);

/* What .control/config shows: no secrets. Owned by the caller. */
char *config_text(const struct config *c);

/* `90s`, `10m`, `1h`, `7d` or bare seconds to milliseconds. -EINVAL. */
int config_duration(const char *text, int64_t *ret_ms);

#endif
