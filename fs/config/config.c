/* The configuration: command line first, then the environment, then --env-file, then the INI file. */
#include "config/config.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <curl/curl.h>

#include "config_i.h"
#include "util/cleanup.h"
#include "util/secrets.h"
#include "util/text.h"

#define DEFAULT_DEADLINE_MS 600000
#define DEFAULT_GRACE_MS 10000
#define DEFAULT_UNCONFIRMED_MS 3600000

static const char usage_text[] =
    "usage: checkpointfs [OPTIONS] MOUNTPOINT\n"
    "       checkpointfs migrate --store=OWNER_CONNINFO [--mount-role=ROLE]\n"
    "\n"
    "Shows every checkpoint of an AI agent as a directory: its state, and the Neon snapshot of the database it works on.\n"
    "\n"
    "  --local=DIR           everything here: neon-emulator and a private PostgreSQL, data under DIR\n"
    "  --store=CONNINFO      the metadata store, any PostgreSQL                 (CHECKPOINTFS_STORE)\n"
    "  --store=DIR           a private PostgreSQL under DIR, with Neon itself\n"
    "  --resume=COMMAND      what wakes an agent, run by /bin/sh -c\n"
    "  --config=FILE         INI file                                           (CHECKPOINTFS_CONFIG)\n"
    "                        [neon] api_host, project_id, branch_id, deadline (10m); [store] conninfo;\n"
    "                        [resume] command, grace (10s), run-on (any; also `here` or a host);\n"
    "                        [restore] unconfirmed: a snapshot of up to this age (1h) is restored in place without a question;\n"
    "                        also `always` and `never`\n"
    "                        [retention] keep-last, keep-pending, keep-pinned, older-than, snapshots, states\n"
    "  --env-file=FILE       reads variables from FILE, as .env\n"
    "  -o OPTIONS            as every FUSE filesystem: allow_other, ro, ...; and local=, store=, config=, env-file=, resume=\n"
    "                        uid=, gid=, umask=077: owner and permissions of what is shown\n"
    "                        role=operator|agent|viewer: an agent takes checkpoints and decides nothing, a viewer reads\n"
    "                        operators=GROUP: only its members, and who mounted, may write control files\n"
    "  -f                    stay in the foreground\n"
    "  -d                    foreground, with libfuse's debug output\n"
    "  -h, --help            this text\n"
    "  -V, --version         the version\n"
    "\n"
    "With Neon itself: NEON_API_KEY, NEON_PROJECT_ID, and where needed NEON_BRANCH_ID, NEON_API_HOST, DATABASE_URL.\n"
    "The command line comes before the environment, that before --env-file, that before the INI file.\n"
    "`migrate` makes or upgrades the store's schema, and the role that mounts (default: checkpointfs).\n"
    "Unmount with `fusermount3 -u MOUNTPOINT`.\n";

const char *config_usage(void)
{
    return usage_text;
}

void config_free(struct config *c)
{
    char **all[] = {&c->mountpoint, &c->local_dir, &c->store_dir, &c->store, &c->resume, &c->run_on, &c->api_host, &c->api_key,
                    &c->project_id, &c->branch_id, &c->database, &c->role, &c->options, &c->cwd, &c->mount_role, &c->retention,
                    &c->operators};

    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++) {
        free(*all[i]);
        *all[i] = NULL;
    }
}

int config_duration(const char *text, int64_t *ret_ms)
{
    static const struct { char unit; int64_t ms; } units[] = {{'\0', 1000}, {'s', 1000}, {'m', 60000}, {'h', 3600000}, {'d', 86400000}};
    char *end;
    long long n;

    errno = 0;
    n = strtoll(text, &end, 10);
    if (errno || end == text || n <= 0 || n > 3650LL * 86400 || (*end && end[1]))
        return -EINVAL;
    for (size_t i = 0; i < sizeof(units) / sizeof(*units); i++) {
        if (units[i].unit == *end) {
            *ret_ms = n * units[i].ms;
            return 0;
        }
    }
    return -EINVAL;
}

/* ---- where values come from ---------------------------------------------------------------------------------------------- */

int config_take(char **field, const char *value, struct err *e)
{
    if (*field || !value || !*value)
        return 0;
    *field = strdup(value);
    return *field ? 0 : err_set(e, ENOMEM, "out of memory");
}

static bool is_dir_form(const char *store)
{
    return !strchr(store, '=') && !strstr(store, "://");
}

static int absolute(const char *cwd, const char *path, char **ret, struct err *e)
{
    *ret = *path == '/' ? strdup(path) : str_format("%s/%s", cwd, path);
    return *ret ? 0 : err_set(e, ENOMEM, "out of memory");
}

int config_take_store(struct config *c, const char *value, struct err *e)
{
    if (c->store || c->store_dir || !value || !*value)
        return 0;
    if (is_dir_form(value))
        return absolute(c->cwd, value, &c->store_dir, e);
    return config_take(&c->store, value, e);
}

/* DATABASE_URL gives role and database; host and password come from Neon. */
static int take_database_url(struct config *c, const char *url, struct err *e)
{
    CURLU *u;
    char *user = NULL;
    char *path = NULL;
    int r = 0;

    if (!url || !*url || (c->role && c->database))
        return 0;
    u = curl_url();
    if (!u || curl_url_set(u, CURLUPART_URL, url, CURLU_NON_SUPPORT_SCHEME))
        r = err_set(e, EINVAL, "DATABASE_URL is not of the form postgresql://ROLE:PASSWORD@HOST/DATABASE");
    if (r == 0 && curl_url_get(u, CURLUPART_USER, &user, CURLU_URLDECODE) == CURLUE_OK)
        r = config_take(&c->role, user, e);
    if (r == 0 && curl_url_get(u, CURLUPART_PATH, &path, CURLU_URLDECODE) == CURLUE_OK && path[0] == '/')
        r = config_take(&c->database, path + 1, e);
    curl_free(user);
    curl_free(path);
    curl_url_cleanup(u);
    return r;
}

int config_take_variable(struct config *c, const char *name, const char *value, struct err *e)
{
    if (strcmp(name, "NEON_API_KEY") == 0)
        return config_take(&c->api_key, value, e);
    if (strcmp(name, "NEON_API_HOST") == 0)
        return config_take(&c->api_host, value, e);
    if (strcmp(name, "NEON_PROJECT_ID") == 0)
        return config_take(&c->project_id, value, e);
    if (strcmp(name, "NEON_BRANCH_ID") == 0)
        return config_take(&c->branch_id, value, e);
    if (strcmp(name, "CHECKPOINTFS_STORE") == 0)
        return config_take_store(c, value, e);
    if (strcmp(name, "DATABASE_URL") == 0)
        return take_database_url(c, value, e);
    return 0;
}

static int take_environment(struct config *c, struct err *e)
{
    static const char *const names[] = {
        "NEON_API_KEY", "NEON_API_HOST", "NEON_PROJECT_ID", "NEON_BRANCH_ID", "CHECKPOINTFS_STORE", "DATABASE_URL",
    };
    int r = 0;

    for (size_t i = 0; i < sizeof(names) / sizeof(*names) && r == 0; i++)
        r = config_take_variable(c, names[i], getenv(names[i]), e);
    return r;
}

/* ---- the command line ----------------------------------------------------------------------------------------------------- */

/* What is not yet in `struct config`. */
struct args {
    char *config, *env_file, *local, *store;
};

enum { OPT_LOCAL = 256, OPT_STORE, OPT_CONFIG, OPT_ENV_FILE, OPT_RESUME, OPT_MOUNT_ROLE };

static const struct option long_options[] = {
    {"local", required_argument, NULL, OPT_LOCAL},   {"store", required_argument, NULL, OPT_STORE},
    {"config", required_argument, NULL, OPT_CONFIG}, {"env-file", required_argument, NULL, OPT_ENV_FILE},
    {"resume", required_argument, NULL, OPT_RESUME}, {"mount-role", required_argument, NULL, OPT_MOUNT_ROLE},
    {"help", no_argument, NULL, 'h'},                {"version", no_argument, NULL, 'V'},
    {NULL, 0, NULL, 0},
};

/* A secret in argv would be in every process list. */
static void hide(char *arg)
{
    if (strstr(arg, "password") || strstr(arg, "://") || secrets_named(arg))
        memset(arg, '*', strlen(arg));
}

static char **field_of(struct config *c, struct args *a, int opt)
{
    switch (opt) {
    case OPT_LOCAL: return &a->local;
    case OPT_STORE: return &a->store;
    case OPT_CONFIG: return &a->config;
    case OPT_ENV_FILE: return &a->env_file;
    case OPT_RESUME: return &c->resume;
    default: return &c->mount_role;
    }
}

static const char *name_of(int opt)
{
    const struct option *l = long_options;

    while (l->name && l->val != opt)
        l++;
    return l->name;
}

/* An option with a value, given as --NAME=VALUE or in -o; the last one counts. An empty one is a variable that isn't set: the current
 * directory as DIR, or a resume command that can't be run, is nothing that anybody asks for. */
static int take_value(struct config *c, struct args *a, int opt, const char *value, struct err *e)
{
    char **field = field_of(c, a, opt);

    if (!*value)
        return err_set(e, EINVAL, "the option `--%s` lacks its value; see `checkpointfs --help`", name_of(opt));
    free(*field);
    *field = strdup(value);
    return *field ? 0 : err_set(e, ENOMEM, "out of memory");
}

/* libfuse's own mount options. */
static int add_option(struct config *c, const char *o, struct err *e)
{
    char *all = c->options ? str_format("%s,%s", c->options, o) : strdup(o);

    if (!all)
        return err_set(e, ENOMEM, "out of memory");
    free(c->options);
    c->options = all;
    return 0;
}

static int take_mount_option(struct config *c, struct args *a, const char *o, struct err *e)
{
    size_t n = strcspn(o, "=");
    int r = 0;

    if (strcmp(o, "ro") == 0 || strcmp(o, "rw") == 0) {
        c->read_only = *o == 'r' && o[1] == 'o';
        return 0;
    }
    if (config_take_access(c, o, e, &r))
        return r;
    for (const struct option *l = long_options; o[n] && l->name; l++)
        if (l->has_arg == required_argument && strncmp(o, l->name, n) == 0 && !l->name[n])
            return take_value(c, a, l->val, o + n + 1, e);
    return add_option(c, o, e);
}

static int take_mount_options(struct config *c, struct args *a, char *list, struct err *e)
{
    cleanup_free char *copy = strdup(list);
    char *save = NULL;
    int r = copy ? 0 : err_set(e, ENOMEM, "out of memory");

    for (char *o = copy ? strtok_r(copy, ",", &save) : NULL; r == 0 && o; o = strtok_r(NULL, ",", &save))
        r = take_mount_option(c, a, o, e);
    hide(list);
    return r;
}

/* `word` is what stands there; a value may be a secret. */
static int unknown_option(int opt, const char *word, struct err *e)
{
    bool flag = optopt == 'h' || optopt == 'V'; /* only as --help=… can these be wrong */

    if (optopt && optopt < 256 && !flag)
        return err_set(e, EINVAL, "the option `-%c` %s; see `checkpointfs --help`", optopt,
                       opt == ':' ? "lacks its value" : "is not known");
    return err_set(e, EINVAL, "the option `%.*s` %s; see `checkpointfs --help`", (int)strcspn(word, "="), word,
                   opt == ':' ? "lacks its value" : optopt ? "takes no value" : "is not known");
}

static int take_option(struct config *c, struct args *a, int opt, struct err *e)
{
    int r;

    switch (opt) {
    case 'o':
        return take_mount_options(c, a, optarg, e);
    case 'f':
        c->foreground = true;
        return 0;
    case 'd':
        c->foreground = c->debug = true;
        return 0;
    case 'h':
        c->help = true;
        return 0;
    case 'V':
        c->version = true;
        return 0;
    default:
        r = take_value(c, a, opt, optarg, e);
        hide(optarg);
        return r;
    }
}

static int take_words(struct config *c, int argc, char **argv, bool from_mount, struct err *e)
{
    int n = argc - optind;

    if (n > 0 && strcmp(argv[optind], "migrate") == 0) {
        c->migrate = true;
        return n == 1 ? 0 : err_set(e, EINVAL, "migrate takes no mountpoint; see `checkpointfs --help`");
    }
    if (n == 0)
        return 0; /* complete() says so */
    /* mount -t fuse.checkpointfs gives a source before the mountpoint, and always options (fuse.md §1.9). */
    if (n > (from_mount ? 2 : 1))
        return err_set(e, EINVAL, "one mountpoint is enough, `%s` is one too many; see `checkpointfs --help`", argv[optind + 1]);
    return absolute(c->cwd, argv[argc - 1], &c->mountpoint, e);
}

static int take_arguments(struct config *c, struct args *a, int argc, char **argv, struct err *e)
{
    bool from_mount = false;
    int opt;
    int r = 0;

    opterr = 0;
    optind = 1;
    while (r == 0 && (opt = getopt_long(argc, argv, ":o:fdhV", long_options, NULL)) != -1) {
        if (opt == '?' || opt == ':')
            return unknown_option(opt, argv[optind - 1], e);
        from_mount |= opt == 'o';
        r = take_option(c, a, opt, e);
    }
    return r < 0 || c->help || c->version ? r : take_words(c, argc, argv, from_mount, e);
}

/* ---- is it enough? --------------------------------------------------------------------------------------------------------- */

static int complete(const struct config *c, struct err *e)
{
    struct buf missing = {0};
    int r;

    if (c->migrate)
        return c->store ? 0 : err_set(e, EINVAL, "migrate needs --store=OWNER_CONNINFO, the connection string of the database's owner");
    if (!c->local_dir && !c->api_key && !c->project_id && !c->store && !c->store_dir)
        return err_set(e, EINVAL,
                       "nothing is configured. To try it here: checkpointfs --local=DIR MOUNTPOINT. With Neon: set NEON_API_KEY and "
                       "NEON_PROJECT_ID, and --store=CONNINFO or --store=DIR for the metadata");
    if (!c->mountpoint)
        return err_set(e, EINVAL, "the mountpoint is missing; see `checkpointfs --help`");
    if (c->local_dir)
        return 0;
    if (!c->api_key)
        buf_adds(&missing, " NEON_API_KEY");
    if (!c->project_id)
        buf_adds(&missing, " NEON_PROJECT_ID");
    if (!c->store && !c->store_dir)
        buf_adds(&missing, " --store (or CHECKPOINTFS_STORE)");
    r = missing.len ? err_set(e, EINVAL, "missing:%s. With --local=DIR nothing else is needed", missing.data) : 0;
    buf_free(&missing);
    return r;
}

/* What an INI file, shared with other mounts, says of another Neon and another store means nothing with --local. */
static void forget_neon(struct config *c)
{
    char **all[] = {&c->api_host, &c->project_id, &c->branch_id, &c->store, &c->store_dir};

    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++) {
        free(*all[i]);
        *all[i] = NULL;
    }
}

/* What follows the command line, in order of precedence. */
static int read_sources(struct config *c, struct args *a, struct err *e)
{
    const char *ini = a->config ? a->config : getenv("CHECKPOINTFS_CONFIG");
    int r = 0;

    if (a->local && a->store)
        return err_set(e, EINVAL, "--local has a store of its own; leave --store out");
    if (a->local)
        r = absolute(c->cwd, a->local, &c->local_dir, e);
    else
        r = config_take_store(c, a->store, e);
    if (r == 0 && !c->local_dir)
        r = take_environment(c, e);
    if (r == 0 && a->env_file && !c->local_dir)
        r = config_take_env_file(c, a->env_file, e);
    if (r == 0 && ini && *ini)
        r = config_take_ini(c, ini, e);
    if (c->local_dir)
        forget_neon(c);
    if (!c->deadline_ms)
        c->deadline_ms = DEFAULT_DEADLINE_MS;
    if (!c->grace_ms)
        c->grace_ms = DEFAULT_GRACE_MS;
    if (c->unconfirmed_ms < 0)
        c->unconfirmed_ms = DEFAULT_UNCONFIRMED_MS;
    return r;
}

int config_read(int argc, char **argv, struct config *ret, struct err *e)
{
    struct config c = {.unconfirmed_ms = -1, .uid = getuid(), .gid = getgid(), .umask = 077};
    struct args a = {0};
    int r = 0;

    c.cwd = getcwd(NULL, 0);
    if (!c.cwd)
        return err_set(e, errno, "the current directory can't be read: %s", strerror(errno));
    r = take_arguments(&c, &a, argc, argv, e);
    if (r == 0 && !c.help && !c.version) {
        r = read_sources(&c, &a, e);
        if (r == 0)
            r = complete(&c, e);
    }
    free(a.config);
    free(a.env_file);
    free(a.local);
    free(a.store);
    if (r < 0)
        config_free(&c);
    else
        *ret = c;
    return r;
}

char *config_text(const struct config *c)
{
    struct buf b = {0};

    buf_addf(&b, "store: %s\n",
             c->local_dir ? "private, with --local" : c->store_dir ? "private, with --store=DIR" : "a PostgreSQL of yours");
    if (c->local_dir || c->store_dir)
        buf_addf(&b, "dir: %s\n", c->local_dir ? c->local_dir : c->store_dir);
    if (c->project_id)
        buf_addf(&b, "project_id: %s\n", c->project_id);
    if (c->branch_id)
        buf_addf(&b, "branch_id: %s\n", c->branch_id);
    buf_addf(&b, "neon_deadline_ms: %lld\n", (long long)c->deadline_ms);
    buf_addf(&b, "resume_grace_ms: %lld\n", (long long)c->grace_ms);
    if (c->unconfirmed_ms == INT64_MAX || c->unconfirmed_ms == 0)
        buf_addf(&b, "restore_unconfirmed: %s\n", c->unconfirmed_ms ? "always" : "never");
    else
        buf_addf(&b, "restore_unconfirmed_ms: %lld\n", (long long)c->unconfirmed_ms);
    buf_adds(&b, "resume_command: ");
    secrets_mask_named(c->resume ? c->resume : "", &b);
    buf_addc(&b, '\n');
    buf_addf(&b, "retention: %s\n", c->retention ? c->retention : "none");
    buf_addf(&b, "resume_run_on: %s\n", c->run_on ? c->run_on : "any");
    buf_addf(&b, "cwd: %s\n", c->cwd);
    buf_addf(&b, "read_only: %s\n", c->read_only ? "yes" : "no");
    buf_addf(&b, "role: %s\n", role_name(c->may));
    buf_addf(&b, "operators: %s\n", c->operators ? c->operators : "whoever the modes let in");
    buf_addf(&b, "uid: %u\ngid: %u\numask: %03o\n", (unsigned)c->uid, (unsigned)c->gid, (unsigned)c->umask);
    return buf_steal(&b);
}
