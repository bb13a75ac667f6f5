/* The configuration's files: --env-file as dotenv writes it, and the INI file, whose settings are rows of a table. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands/rules.h"
#include "config_i.h"
#include "util/buf.h"
#include "util/cleanup.h"
#include "util/text.h"

static const char blanks[] = " \t\r\n\v\f";

/* ---- --env-file ------------------------------------------------------------------------------------------------------------ */

/* Cuts the value out of what follows `=`: quoted up to the closing quote, else up to a comment, without the blanks at its end. */
static char *env_value(char *text)
{
    char *end;

    text += strspn(text, blanks);
    if (*text == '"' || *text == '\'') {
        end = strchr(text + 1, *text);
        if (end) {
            *end = '\0';
            return text + 1;
        }
    }
    for (end = text; *end && !(*end == '#' && (end == text || strchr(blanks, end[-1]))); end++)
        ;
    while (end > text && strchr(blanks, end[-1]))
        end--;
    *end = '\0';
    return text;
}

/* A KEY=VALUE line; `export`, quotes and comments allowed. */
static int take_env_line(struct config *c, char *line, struct err *e)
{
    char *value;

    line += strspn(line, blanks);
    if (str_starts(line, "export "))
        line += strlen("export ");
    line += strspn(line, blanks);
    value = strchr(line, '=');
    if (*line == '#' || !value)
        return 0;
    *value++ = '\0';
    line[strcspn(line, blanks)] = '\0';
    return config_take_variable(c, line, env_value(value), e);
}

int config_take_env_file(struct config *c, const char *path, struct err *e)
{
    FILE *f = fopen(path, "re");
    char *line = NULL;
    size_t cap = 0;
    int r = 0;

    if (!f)
        return err_set(e, errno, "the file %s (--env-file) can't be read: %s", path, strerror(errno));
    while (r == 0 && getline(&line, &cap, f) >= 0)
        r = take_env_line(c, line, e);
    if (r == 0 && ferror(f))
        r = err_set(e, EIO, "the file %s (--env-file) can't be read: %s", path, strerror(errno));
    free(line);
    fclose(f);
    return r;
}

/* ---- the INI file ---------------------------------------------------------------------------------------------------------- */

struct ini {
    struct config *c;
    const char *path;
    struct err *e;
};

typedef int setting_fn(struct ini *i, const char *value);

static int set_api_host(struct ini *i, const char *value)
{
    return config_take(&i->c->api_host, value, i->e);
}

static int set_project_id(struct ini *i, const char *value)
{
    return config_take(&i->c->project_id, value, i->e);
}

static int set_branch_id(struct ini *i, const char *value)
{
    return config_take(&i->c->branch_id, value, i->e);
}

static int set_deadline(struct ini *i, const char *value)
{
    if (config_duration(value, &i->c->deadline_ms) < 0)
        return err_set(i->e, EINVAL, "%s: [neon] deadline = %s is no duration; write 90s, 10m or 1h", i->path, value);
    return 0;
}

static int set_conninfo(struct ini *i, const char *value)
{
    return config_take_store(i->c, value, i->e);
}

static int set_command(struct ini *i, const char *value)
{
    return config_take(&i->c->resume, value, i->e);
}

static int set_grace(struct ini *i, const char *value)
{
    if (config_duration(value, &i->c->grace_ms) < 0)
        return err_set(i->e, EINVAL, "%s: [resume] grace = %s is no duration; write 10s", i->path, value);
    return 0;
}

/* Up to which age a snapshot may replace the active branch without a confirmation: `always` is any age, `never` none. */
static int set_unconfirmed(struct ini *i, const char *value)
{
    if (strcmp(value, "always") == 0)
        i->c->unconfirmed_ms = INT64_MAX;
    else if (strcmp(value, "never") == 0 || strcmp(value, "0") == 0 || strcmp(value, "0s") == 0)
        i->c->unconfirmed_ms = 0;
    else if (config_duration(value, &i->c->unconfirmed_ms) < 0)
        return err_set(i->e, EINVAL, "%s: [restore] unconfirmed = %s is no duration; write 1h, 30m or 2d, or `always` or `never`", i->path,
                       value);
    return 0;
}

/* A rule of .control/prune as a setting; together they are read at the end (config.c). */
static int add_rule(struct ini *i, const char *rule, const char *value)
{
    char *all = str_format("%s%s%s%s%s", i->c->retention ? i->c->retention : "", i->c->retention ? " " : "", rule, value ? "=" : "",
                           value ? value : "");

    if (!all)
        return err_set(i->e, ENOMEM, "out of memory");
    free(i->c->retention);
    i->c->retention = all;
    return 0;
}

static int set_keep_last(struct ini *i, const char *value) { return add_rule(i, "keep-last", value); }
static int set_older_than(struct ini *i, const char *value) { return add_rule(i, "older-than", value); }
static int set_snapshots(struct ini *i, const char *value) { return add_rule(i, "snapshots", value); }
static int set_states(struct ini *i, const char *value) { return add_rule(i, "states", value); }

static int add_keeping(struct ini *i, const char *rule, const char *value)
{
    if (strcmp(value, "no") == 0)
        return 0;
    if (strcmp(value, "yes") != 0)
        return err_set(i->e, EINVAL, "%s: [retention] %s = %s: write yes or no", i->path, rule, value);
    return add_rule(i, rule, NULL);
}

static int set_keep_pending(struct ini *i, const char *value) { return add_keeping(i, "keep-pending", value); }
static int set_keep_pinned(struct ini *i, const char *value) { return add_keeping(i, "keep-pinned", value); }

static int set_run_on(struct ini *i, const char *value)
{
    return config_take(&i->c->run_on, value, i->e);
}

static int refuse_key(struct ini *i, const char *value)
{
    (void)value;
    return err_set(i->e, EINVAL, "%s: the API key has no place here; give it in NEON_API_KEY, or in a file with --env-file", i->path);
}

static const struct setting {
    const char *section, *name;
    setting_fn *set;
    bool hidden;
} settings[] = {
    {"neon", "api_host", set_api_host, false},   {"neon", "project_id", set_project_id, false},
    {"neon", "branch_id", set_branch_id, false}, {"neon", "deadline", set_deadline, false},
    {"neon", "api_key", refuse_key, true},       {"store", "conninfo", set_conninfo, false},
    {"restore", "unconfirmed", set_unconfirmed, false},
    {"resume", "command", set_command, false},   {"resume", "grace", set_grace, false},
    {"retention", "keep-last", set_keep_last, false},       {"retention", "keep-pending", set_keep_pending, false},
    {"retention", "keep-pinned", set_keep_pinned, false},   {"retention", "older-than", set_older_than, false},
    {"retention", "snapshots", set_snapshots, false},       {"retention", "states", set_states, false},
    {"resume", "run-on", set_run_on, false},
};

#define SETTING_COUNT (sizeof(settings) / sizeof(*settings))

static int unknown(struct ini *i, const char *section, const char *name)
{
    cleanup_buf struct buf known = {0};

    for (const struct setting *s = settings; s < settings + SETTING_COUNT; s++)
        if (!s->hidden)
            buf_addf(&known, "%s[%s] %s", known.len ? ", " : "", s->section, s->name);
    if (buf_error(&known))
        return err_set(i->e, ENOMEM, "out of memory");
    return err_set(i->e, EINVAL, "%s: there is no setting [%s] %s; there are: %s", i->path, section, name, known.data);
}

static int set(struct ini *i, const char *section, const char *name, const char *value)
{
    for (const struct setting *s = settings; s < settings + SETTING_COUNT; s++)
        if (strcmp(s->section, section) == 0 && strcmp(s->name, name) == 0)
            return s->set(i, value);
    return unknown(i, section, name);
}

/* A line: [section], name = value, or nothing but a comment. A comment stands on a line of its own, since a command may hold any
 * character; a value may be as long as it likes. */
static int take_ini_line(struct ini *i, char *line, char **section, int number)
{
    char *value, *end;

    line += strspn(line, blanks);
    for (end = line + strlen(line); end > line && strchr(blanks, end[-1]); end--)
        ;
    *end = '\0';
    if (!*line || *line == '#' || *line == ';')
        return 0;
    if (*line == '[' && end[-1] == ']') {
        end[-1] = '\0';
        free(*section);
        *section = strdup(line + 1);
        return *section ? 0 : err_set(i->e, ENOMEM, "out of memory");
    }
    value = strchr(line, '=');
    if (!value || value == line)
        return err_set(i->e, EINVAL, "%s:%d is neither [section] nor name = value", i->path, number);
    for (end = value; end > line && strchr(blanks, end[-1]); end--)
        ;
    *end = '\0';
    value++;
    return set(i, *section ? *section : "", line, value + strspn(value, blanks));
}

static int check_retention(const char *text, const char *path, struct err *e)
{
    struct rules ignored;
    int r = rules_parse(text, &ignored, e);

    return r < 0 ? err_prefix(e, "%s: [retention]", path) : 0;
}

int config_take_ini(struct config *c, const char *path, struct err *e)
{
    struct ini i = {.c = c, .path = path, .e = e};
    cleanup_free char *section = NULL;
    FILE *f = fopen(path, "re");
    char *line = NULL;
    size_t cap = 0;
    int number = 0;
    int r = 0;

    if (!f)
        return err_set(e, errno, "the configuration file %s can't be read: %s", path, strerror(errno));
    while (r == 0 && getline(&line, &cap, f) >= 0)
        r = take_ini_line(&i, line, &section, ++number);
    if (r == 0 && ferror(f))
        r = err_set(e, EIO, "the configuration file %s can't be read: %s", path, strerror(errno));
    if (r == 0 && c->retention)
        r = check_retention(c->retention, path, e);
    free(line);
    fclose(f);
    return r;
}
