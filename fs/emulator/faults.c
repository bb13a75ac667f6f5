/* Failures on request: [METHOD:PATH[@NTH]>]METHOD:PATH=ACTION[*COUNT][@NTH]. */
#include "emulator/faults.h"

#include <errno.h>
#include <fnmatch.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "emulator/js.h"
#include "util/cleanup.h"
#include "util/text.h"

const char faults_grammar[] =
    "                          [METHOD:PATH[@NTH]>]METHOD:PATH=ACTION[*COUNT][@NTH],…\n"
    "                          METHOD may be *; PATH is without /api/v2; each * in it is one\n"
    "                          segment, and * alone for every path; COUNT is how often (default 1, inf for always), NTH from\n"
    "                          which matching request on (default 1). What stands before a > must have come first. ACTION:\n"
    "                            423 429 500 503 524     answer that and do nothing (524 with HTML, as a CDN does)\n"
    "                            delay:MS                wait first\n"
    "                            drop-before, drop-after close the connection before, or after the work was accepted\n"
    "                            op:failed[:TEXT]        its last operation ends so (also error, cancelled), and nothing has changed\n"
    "                            op:skipped              its operations are skipped, the work is done\n"
    "                            late:MS                 what it makes is not to be seen for so long\n"
    "                            truncate, malformed     the answer is cut short, or no JSON\n";

enum action { ACT_STATUS, ACT_DELAY, ACT_DROP_BEFORE, ACT_DROP_AFTER, ACT_OP, ACT_LATE, ACT_TRUNCATE, ACT_MALFORMED, ACTIONS };

struct target {
    char *method;
    char *path;
    int skip; /* requests that are let through first */
};

struct rule {
    struct rule *next;
    char *text;
    struct target after; /* what must have come before the rule counts; no method: nothing, or it has come */
    struct target to;
    enum action action;
    int number;
    char *status; /* of ACT_OP */
    char *error;
    int left; /* -1 = for ever */
};

#define MET_MOST 1000 /* requests that are remembered */

struct faults {
    pthread_mutex_t lock;
    struct rule *first;
    json_t *met; /* METHOD:PATH of those that a rule applied to, oldest first */
};

struct faults *faults_new(void)
{
    struct faults *f = calloc(1, sizeof(*f));
    if (!f)
        abort();
    pthread_mutex_init(&f->lock, NULL);
    f->met = json_array();
    return f;
}

static void free_target(struct target *t)
{
    free(t->method);
    free(t->path);
    *t = (struct target){0};
}

static void free_rule(struct rule *r)
{
    free(r->text);
    free_target(&r->after);
    free_target(&r->to);
    free(r->status);
    free(r->error);
    free(r);
}

static void free_rules(struct rule *r)
{
    while (r) {
        struct rule *next = r->next;
        free_rule(r);
        r = next;
    }
}

void faults_free(struct faults *f)
{
    if (!f)
        return;
    free_rules(f->first);
    json_decref(f->met);
    pthread_mutex_destroy(&f->lock);
    free(f);
}

static bool number(const char *text, int low, int high, int *ret)
{
    char *end;
    long n = strtol(text, &end, 10);
    if (end == text || *end || n < low || n > high)
        return false;
    *ret = (int)n;
    return true;
}

static bool parse_op(struct rule *r, const char *text)
{
    static const char *const known[] = {"failed", "error", "cancelled", "skipped"};
    size_t n = strcspn(text, ":");
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (n == strlen(known[i]) && strncmp(text, known[i], n) == 0) {
            r->action = ACT_OP;
            r->status = js_strdup(known[i]);
            r->error = text[n] ? js_strdup(text + n + 1) : NULL;
            return true;
        }
    return false;
}

static bool parse_action(struct rule *r, const char *text)
{
    static const struct {
        const char *word;
        enum action action;
    } words[] = {{"drop-before", ACT_DROP_BEFORE},
                 {"drop-after", ACT_DROP_AFTER},
                 {"truncate", ACT_TRUNCATE},
                 {"malformed", ACT_MALFORMED}};
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        if (strcmp(text, words[i].word) == 0) {
            r->action = words[i].action;
            return true;
        }
    if (str_starts(text, "op:"))
        return parse_op(r, text + 3);
    if (str_starts(text, "delay:") || str_starts(text, "late:")) {
        r->action = text[0] == 'd' ? ACT_DELAY : ACT_LATE;
        return number(strchr(text, ':') + 1, 0, 600000, &r->number);
    }
    r->action = ACT_STATUS;
    return number(text, 400, 599, &r->number);
}

/* {branch_id} as routes are written in documentation means the same as *. */
static void braces_to_stars(char *path)
{
    char *out = path;
    for (char *p = path; *p; p++) {
        char *end = *p == '{' ? strchr(p, '}') : NULL;
        *out++ = end ? '*' : *p;
        if (end)
            p = end;
    }
    *out = '\0';
}

/* Takes @NTH off the end of a text. */
static bool parse_nth(char *text, int *ret_skip)
{
    char *at = strrchr(text, '@');
    if (!at)
        return true;
    *at = '\0';
    if (!number(at + 1, 1, 1000000, ret_skip))
        return false;
    --*ret_skip;
    return true;
}

/* METHOD:PATH */
static bool parse_target(const char *text, struct target *ret)
{
    const char *colon = strchr(text, ':');
    if (!colon || colon == text || (colon[1] != '/' && colon[1] != '*'))
        return false;
    ret->method = strndup(text, (size_t)(colon - text));
    ret->path = js_strdup(colon + 1);
    braces_to_stars(ret->path);
    return ret->method;
}

static bool parse_parts(struct rule *r, char *text)
{
    char *action = strchr(text, '=');
    char *after = strchr(text, '>');
    if (!action)
        return false;
    if (after && after < action) { /* and not in an operation's error */
        *after++ = '\0';
        if (!parse_nth(text, &r->after.skip) || !parse_target(text, &r->after))
            return false;
        text = after;
    }
    *action++ = '\0';
    if (!parse_target(text, &r->to) || !parse_nth(action, &r->to.skip))
        return false;
    char *star = strrchr(action, '*');
    if (star) {
        *star = '\0';
        if (strcmp(star + 1, "inf") == 0)
            r->left = -1;
        else if (!number(star + 1, 1, 1000000, &r->left))
            return false;
    }
    return parse_action(r, action);
}

static struct rule *parse_rule(const char *text, struct err *err)
{
    struct rule *r = calloc(1, sizeof(*r));
    cleanup_free char *parts = js_strdup(text);
    if (!r)
        abort();
    r->text = js_strdup(text);
    r->left = 1;
    if (parse_parts(r, parts))
        return r;
    free_rule(r);
    err_set(err, EINVAL, "bad fault '%s': write METHOD:PATH=ACTION[*COUNT][@NTH], see --help", text);
    return NULL;
}

int faults_add(struct faults *f, const char *spec, struct err *err)
{
    cleanup_free char *copy = js_strdup(spec);
    struct rule *first = NULL, **end = &first;
    char *save = NULL;
    for (char *text = strtok_r(copy, ",", &save); text; text = strtok_r(NULL, ",", &save)) {
        *end = parse_rule(text, err);
        if (!*end) {
            free_rules(first);
            return -EINVAL;
        }
        end = &(*end)->next;
    }
    pthread_mutex_lock(&f->lock);
    struct rule **last = &f->first;
    while (*last)
        last = &(*last)->next;
    *last = first;
    pthread_mutex_unlock(&f->lock);
    return 0;
}

void faults_clear(struct faults *f)
{
    pthread_mutex_lock(&f->lock);
    free_rules(f->first);
    f->first = NULL;
    json_array_clear(f->met);
    pthread_mutex_unlock(&f->lock);
}

json_t *faults_met(const struct faults *f)
{
    pthread_mutex_t *lock = (pthread_mutex_t *)(uintptr_t)&f->lock;
    pthread_mutex_lock(lock);
    json_t *out = json_copy(f->met);
    pthread_mutex_unlock(lock);
    return out;
}

json_t *faults_list(const struct faults *f)
{
    json_t *out = json_array();
    pthread_mutex_t *lock = (pthread_mutex_t *)(uintptr_t)&f->lock;
    pthread_mutex_lock(lock);
    for (const struct rule *r = f->first; r; r = r->next)
        json_array_append_new(out, json_pack("{s:s, s:i}", "rule", r->text, "left", r->left));
    pthread_mutex_unlock(lock);
    return out;
}

static void apply(const struct rule *r, struct fault_plan *plan)
{
    switch (r->action) {
    case ACT_STATUS: plan->status = r->number; break;
    case ACT_DELAY: plan->delay_ms = r->number; break;
    case ACT_DROP_BEFORE: plan->drop_before = true; break;
    case ACT_DROP_AFTER: plan->drop_after = true; break;
    case ACT_LATE: plan->late_ms = r->number; break;
    case ACT_TRUNCATE: plan->truncate = true; break;
    case ACT_MALFORMED: plan->malformed = true; break;
    case ACT_OP:
        snprintf(plan->op_status, sizeof(plan->op_status), "%s", r->status);
        plan->op_error = r->error ? js_strdup(r->error) : NULL;
        break;
    case ACTIONS: break;
    }
}

static void remember(struct faults *f, const char *method, const char *path)
{
    cleanup_free char *text = str_format("%s:%s", method, path);
    if (json_array_size(f->met) == MET_MOST)
        json_array_remove(f->met, 0);
    json_array_append_new(f->met, text ? json_string(text) : NULL);
}

/* Whether it is that request, its NTH one or a later one. */
static bool comes(struct target *t, const char *method, const char *path)
{
    if ((strcmp(t->method, "*") != 0 && strcasecmp(t->method, method) != 0) ||
        (strcmp(t->path, "*") != 0 && fnmatch(t->path, path, FNM_PATHNAME) != 0))
        return false;
    if (t->skip == 0)
        return true;
    t->skip--;
    return false;
}

/* Whether the rule is about this request. */
static bool meets(struct rule *r, const char *method, const char *path)
{
    if (!r->after.method)
        return comes(&r->to, method, path);
    if (comes(&r->after, method, path))
        free_target(&r->after);
    return false;
}

struct fault_plan faults_take(struct faults *f, const char *method, const char *path)
{
    struct fault_plan plan = {0};
    bool done[ACTIONS] = {false};
    bool met = false;
    pthread_mutex_lock(&f->lock);
    for (struct rule **at = &f->first; *at;) {
        struct rule *r = *at;
        if (done[r->action] || !meets(r, method, path)) {
            at = &r->next;
            continue;
        }
        done[r->action] = met = true;
        apply(r, &plan);
        if (r->left > 0 && --r->left == 0) {
            *at = r->next;
            free_rule(r);
        } else {
            at = &r->next;
        }
    }
    if (met)
        remember(f, method, path);
    pthread_mutex_unlock(&f->lock);
    return plan;
}

void fault_plan_clear(struct fault_plan *plan)
{
    free(plan->op_error);
    plan->op_error = NULL;
}
