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
#include <ini.h>

#include "util/cleanup.h"
#include "util/text.h"

#define DEFAULT_DEADLINE_MS 600000

static const char usage_text[] =
    "usage: checkpointfs [OPTIONS] MOUNTPOINT\n"
    "       checkpointfs migrate --store=OWNER_CONNINFO\n"
    "\n"
    "Shows every checkpoint of an AI agent as a directory: its state, and the Neon snapshot of the database it works on.\n"
    "\n"
    "  --local=DIR           everything here: neon-emulator and a private PostgreSQL, data under DIR\n"
    "  --store=CONNINFO      the metadata store, any PostgreSQL                 (CHECKPOINTFS_STORE)\n"
    "  --store=DIR           a private PostgreSQL under DIR, with Neon itself\n"
    "  --resume=COMMAND      what wakes an agent, run by /bin/sh -c\n"
    "  --config=FILE         INI file: [neon] [store] [resume]                  (CHECKPOINTFS_CONFIG)\n"
    "  --env-file=FILE       reads variables from FILE, as .env\n"
    "  -o OPTIONS            as every FUSE filesystem: allow_other, ro, ...\n"
    "  -f                    stay in the foreground\n"
    "  -d                    foreground, with libfuse's debug output\n"
    "  -h, --help            this text\n"
    "  -V, --version         the version\n"
    "\n"
    "With Neon itself: NEON_API_KEY, NEON_PROJECT_ID, and where needed NEON_BRANCH_ID, NEON_API_HOST, DATABASE_URL.\n"
    "Unmount with `fusermount3 -u MOUNTPOINT`.\n";

const char *config_usage(void)
{
    return usage_text;
}

void config_free(struct config *c)
{
    char **all[] = {&c->mountpoint, &c->local_dir, &c->store_dir, &c->store, &c->resume, &c->api_host, &c->api_key, &c->project_id,
                    &c->branch_id, &c->database, &c->role, &c->options, &c->cwd};

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

/* Sets `*field` unless it is set: what comes first wins. */
static int take(char **field, const char *value, struct err *e)
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

static int take_store(struct config *c, const char *value, struct err *e)
{
    if (c->store || c->store_dir || !value || !*value)
        return 0;
    if (is_dir_form(value))
        return absolute(c->cwd, value, &c->store_dir, e);
    return take(&c->store, value, e);
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
        r = take(&c->role, user, e);
    if (r == 0 && curl_url_get(u, CURLUPART_PATH, &path, CURLU_URLDECODE) == CURLUE_OK && path[0] == '/')
        r = take(&c->database, path + 1, e);
    curl_free(user);
    curl_free(path);
    curl_url_cleanup(u);
    return r;
}

static int take_variable(struct config *c, const char *name, const char *value, struct err *e)
{
    if (strcmp(name, "NEON_API_KEY") == 0)
        return take(&c->api_key, value, e);
    if (strcmp(name, "NEON_API_HOST") == 0)
        return take(&c->api_host, value, e);
    if (strcmp(name, "NEON_PROJECT_ID") == 0)
        return take(&c->project_id, value, e);
    if (strcmp(name, "NEON_BRANCH_ID") == 0)
        return take(&c->branch_id, value, e);
    if (strcmp(name, "CHECKPOINTFS_STORE") == 0)
        return take_store(c, value, e);
    if (strcmp(name, "DATABASE_URL") == 0)
        return take_database_url(c, value, e);
    return 0; /* an .env file holds other things too */
}

static int take_environment(struct config *c, struct err *e)
{
    static const char *const names[] = {"NEON_API_KEY", "NEON_API_HOST", "NEON_PROJECT_ID", "NEON_BRANCH_ID", "CHECKPOINTFS_STORE", "DATABASE_URL"};
    int r = 0;

    for (size_t i = 0; i < sizeof(names) / sizeof(*names) && r == 0; i++)
        r = take_variable(c, names[i], getenv(names[i]), e);
    return r;
}

/* KEY=VALUE lines as dotenv writes them: `export`, quotes and comments allowed. */
static int take_env_line(struct config *c, char *line, struct err *e)
{
    char *value, *end;

    line[strcspn(line, "\r\n")] = '\0';
    line += strspn(line, " \t");
    if (str_starts(line, "export "))
        line += strlen("export ");
    value = strchr(line, '=');
    if (*line == '#' || !value)
        return 0;
    *value++ = '\0';
    line[strcspn(line, " \t")] = '\0';
    value += strspn(value, " \t");
    end = value + strlen(value);
    if ((*value == '"' || *value == '\'') && end > value + 1 && end[-1] == *value) {
        end[-1] = '\0';
        value++;
    }
    return take_variable(c, line, value, e);
}

static int take_env_file(struct config *c, const char *path, struct err *e)
{
    FILE *f = fopen(path, "re");
    char *line = NULL;
    size_t cap = 0;
    int r = 0;

    if (!f)
        return err_set(e, errno, "the file %s (--env-file) can't be read: %s", path, strerror(errno));
    while (r == 0 && getline(&line, &cap, f) >= 0)
        r = take_env_line(c, line, e);
    free(line);
    fclose(f);
    return r;
}

struct ini {
    struct config *c;
    const char *path;
    struct err *e;
    int r;
};

static int set_ini(struct ini *i, const char *section, const char *name, const char *value)
{
    struct config *c = i->c;
    char key[64];

    snprintf(key, sizeof(key), "%s.%s", section, name);
    if (strcmp(key, "neon.api_host") == 0)
        return take(&c->api_host, value, i->e);
    if (strcmp(key, "neon.project_id") == 0)
        return take(&c->project_id, value, i->e);
    if (strcmp(key, "neon.branch_id") == 0)
        return take(&c->branch_id, value, i->e);
    if (strcmp(key, "neon.deadline") == 0) {
        if (config_duration(value, &c->deadline_ms) < 0)
            return err_set(i->e, EINVAL, "%s: [neon] deadline = %s is no duration; write 90s, 10m or 1h", i->path, value);
        return 0;
    }
    if (strcmp(key, "store.conninfo") == 0)
        return take_store(c, value, i->e);
    if (strcmp(key, "resume.command") == 0)
        return take(&c->resume, value, i->e);
    return err_set(i->e, EINVAL, "%s: there is no setting `%s` in [%s]; see `checkpointfs --help`", i->path, name, section);
}

static int on_ini(void *arg, const char *section, const char *name, const char *value)
{
    struct ini *i = arg;

    if (i->r == 0)
        i->r = set_ini(i, section, name, value);
    return i->r == 0;
}

static int take_ini(struct config *c, const char *path, struct err *e)
{
    struct ini i = {.c = c, .path = path, .e = e};
    int line = ini_parse(path, on_ini, &i);

    if (line == -1)
        return err_set(e, ENOENT, "the configuration file %s can't be read", path);
    if (i.r < 0)
        return i.r;
    return line ? err_set(e, EINVAL, "%s:%d is neither [section] nor name = value", path, line) : 0;
}

/* ---- the command line ----------------------------------------------------------------------------------------------------- */

struct args {
    char *config, *env_file, *local;
};

/* A password in argv would be in every process list. */
static void hide(char *arg)
{
    if (strstr(arg, "password") || strstr(arg, "://"))
        memset(arg, '*', strlen(arg));
}

static int take_options(struct config *c, const char *list, struct err *e)
{
    cleanup_free char *copy = strdup(list);
    char *save = NULL;

    for (char *o = copy ? strtok_r(copy, ",", &save) : NULL; o; o = strtok_r(NULL, ",", &save)) {
        char *all;

        if (strcmp(o, "ro") == 0) {
            c->read_only = true;
            continue;
        }
        if (strcmp(o, "rw") == 0 || strcmp(o, "role=operator") == 0)
            continue;
        if (str_starts(o, "role="))
            return err_set(e, EINVAL, "-o %s: only role=operator is there yet", o);
        all = c->options ? str_format("%s,%s", c->options, o) : strdup(o);
        if (!all)
            return err_set(e, ENOMEM, "out of memory");
        free(c->options);
        c->options = all;
    }
    return 0;
}

enum { OPT_LOCAL = 256, OPT_STORE, OPT_CONFIG, OPT_ENV_FILE, OPT_RESUME };

static const struct option long_options[] = {
    {"local", required_argument, NULL, OPT_LOCAL},       {"store", required_argument, NULL, OPT_STORE},
    {"config", required_argument, NULL, OPT_CONFIG},     {"env-file", required_argument, NULL, OPT_ENV_FILE},
    {"resume", required_argument, NULL, OPT_RESUME},     {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, 'V'},                 {NULL, 0, NULL, 0},
};

static int take_option(struct config *c, struct args *a, int opt, struct err *e)
{
    switch (opt) {
    case OPT_LOCAL:
        return take(&a->local, optarg, e);
    case OPT_STORE: {
        int r = take_store(c, optarg, e);

        hide(optarg);
        return r;
    }
    case OPT_CONFIG:
        return take(&a->config, optarg, e);
    case OPT_ENV_FILE:
        return take(&a->env_file, optarg, e);
    case OPT_RESUME:
        return take(&c->resume, optarg, e);
    case 'o':
        return take_options(c, optarg, e);
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
        return err_set(e, EINVAL, "the option `%s` is not known or lacks its value; see `checkpointfs --help`",
                       optopt >= 256 || !optopt ? "--…" : (char[]){'-', (char)optopt, '\0'});
    }
}

static int take_arguments(struct config *c, struct args *a, int argc, char **argv, struct err *e)
{
    int opt;
    int r = 0;

    opterr = 0;
    optind = 1;
    while (r == 0 && (opt = getopt_long(argc, argv, ":o:fdhV", long_options, NULL)) != -1)
        r = take_option(c, a, opt, e);
    if (r < 0 || c->help || c->version)
        return r;
    if (optind < argc && strcmp(argv[optind], "migrate") == 0) {
        c->migrate = true;
        optind++;
    }
    /* mount -t fuse.checkpointfs gives a source before the mountpoint (fuse.md §1.9). */
    if (argc - optind > (c->migrate ? 0 : 2) || (!c->migrate && optind >= argc))
        return err_set(e, EINVAL, "%s; see `checkpointfs --help`", optind >= argc ? "the mountpoint is missing" : "too many arguments");
    return c->migrate ? 0 : absolute(c->cwd, argv[argc - 1], &c->mountpoint, e);
}

/* ---- is it enough? --------------------------------------------------------------------------------------------------------- */

static int complete(const struct config *c, struct err *e)
{
    struct buf missing = {0};
    int r;

    if (c->local_dir)
        return c->store || c->store_dir ? err_set(e, EINVAL, "--local has a store of its own; leave --store out") : 0;
    if (!c->api_key && !c->project_id && !c->store && !c->store_dir)
        return err_set(e, EINVAL,
                       "nothing is configured. To try it here: checkpointfs --local=DIR MOUNTPOINT. With Neon: set NEON_API_KEY and "
                       "NEON_PROJECT_ID, and --store=CONNINFO or --store=DIR for the metadata");
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

int config_read(int argc, char **argv, struct config *ret, struct err *e)
{
    struct config c = {0};
    struct args a = {0};
    int r = 0;

    c.cwd = getcwd(NULL, 0);
    if (!c.cwd)
        return err_set(e, errno, "the current directory can't be read: %s", strerror(errno));
    r = take_arguments(&c, &a, argc, argv, e);
    if (r == 0 && !c.help && !c.version) {
        if (!a.config)
            r = take(&a.config, getenv("CHECKPOINTFS_CONFIG"), e);
        if (r == 0 && a.local)
            r = absolute(c.cwd, a.local, &c.local_dir, e);
        if (r == 0 && !c.local_dir)
            r = take_environment(&c, e);
        if (r == 0 && a.env_file && !c.local_dir)
            r = take_env_file(&c, a.env_file, e);
        if (r == 0 && a.config)
            r = take_ini(&c, a.config, e);
        if (!c.deadline_ms)
            c.deadline_ms = DEFAULT_DEADLINE_MS;
        if (r == 0 && c.migrate && !c.store)
            r = err_set(e, EINVAL, "migrate needs --store=OWNER_CONNINFO");
        if (r == 0 && !c.migrate)
            r = complete(&c, e);
    }
    free(a.config);
    free(a.env_file);
    free(a.local);
    if (r < 0)
        config_free(&c);
    else
        *ret = c;
    return r;
}

char *config_text(const struct config *c)
{
    struct buf b = {0};

    buf_addf(&b, "store: %s\n", c->local_dir ? "private, with --local" : c->store_dir ? "private, with --store=DIR" : "a PostgreSQL of yours");
    if (c->local_dir || c->store_dir)
        buf_addf(&b, "dir: %s\n", c->local_dir ? c->local_dir : c->store_dir);
    if (c->project_id)
        buf_addf(&b, "project_id: %s\n", c->project_id);
    if (c->branch_id)
        buf_addf(&b, "branch_id: %s\n", c->branch_id);
    buf_addf(&b, "neon_deadline_ms: %lld\n", (long long)c->deadline_ms);
    buf_addf(&b, "resume_command: %s\n", c->resume ? c->resume : "");
    buf_addf(&b, "cwd: %s\n", c->cwd);
    buf_addf(&b, "read_only: %s\n", c->read_only ? "yes" : "no");
    return buf_steal(&b);
}
