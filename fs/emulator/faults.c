/* Failures on request: METHOD:PATH=ACTION[*COUNT]. */
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
    "                          METHOD:PATH=ACTION[*COUNT],…  METHOD may be *; PATH is without /api/v2; each * in it is one\n"
    "                          segment, and * alone for every path; COUNT is how often (default 1, inf for always). ACTION:\n"
    "                            423 429 500 503 524     answer that and do nothing (524 with HTML, as a CDN does)\n"
    "                            delay:MS                wait first\n"
    "                            drop-before, drop-after close the connection before, or after the work was accepted\n"
    "                            op:failed[:TEXT]        its last operation ends so (also error, cancelled), and nothing has changed\n"
    "                            op:skipped              its operations are skipped, the work is done\n"
    "                            late:MS                 what it makes is not to be seen for so long\n"
    "                            truncate, malformed     the answer is cut short, or no JSON\n";

enum action { ACT_STATUS, ACT_DELAY, ACT_DROP_BEFORE, ACT_DROP_AFTER, ACT_OP, ACT_LATE, ACT_TRUNCATE, ACT_MALFORMED, ACTIONS };

struct rule {
    struct rule *next;
    char *text;
    char *method;
    char *path;
    enum action action;
    int number;
    char *status; /* of ACT_OP */
    char *error;
    int left; /* -1 = for ever */
};

struct faults {
    pthread_mutex_t lock;
    struct rule *first;
};

struct faults *faults_new(void)
{
    struct faults *f = calloc(1, sizeof(*f));
    if (!f)
        abort();
    pthread_mutex_init(&f->lock, NULL);
    return f;
}

static void free_rule(struct rule *r)
{
    free(r->text);
    free(r->method);
    free(r->path);
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

static struct rule *parse_rule(const char *text, struct err *err)
{
    struct rule *r = calloc(1, sizeof(*r));
    if (!r)
        abort();
    r->text = js_strdup(text);
    r->left = 1;
    const char *colon = strchr(text, ':');
    const char *equals = colon ? strchr(colon, '=') : NULL;
    cleanup_free char *action = equals ? js_strdup(equals + 1) : NULL;
    bool good = equals && colon > text && (colon[1] == '/' || colon[1] == '*');
    if (good) {
        r->method = strndup(text, (size_t)(colon - text));
        r->path = strndup(colon + 1, (size_t)(equals - colon - 1));
        good = r->method && r->path;
        if (good)
            braces_to_stars(r->path);
        char *star = strrchr(action, '*');
        if (star) {
            *star = '\0';
            good = strcmp(star + 1, "inf") == 0 ? (r->left = -1, true) : number(star + 1, 1, 1000000, &r->left);
        }
        good = good && parse_action(r, action);
    }
    if (good)
        return r;
    free_rule(r);
    err_set(err, EINVAL, "bad fault '%s': write METHOD:PATH=ACTION[*COUNT], see --help", text);
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
    pthread_mutex_unlock(&f->lock);
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

static bool matches(const struct rule *r, const char *method, const char *path)
{
    return (strcmp(r->method, "*") == 0 || strcasecmp(r->method, method) == 0) &&
           (strcmp(r->path, "*") == 0 || fnmatch(r->path, path, FNM_PATHNAME) == 0);
}

struct fault_plan faults_take(struct faults *f, const char *method, const char *path)
{
    struct fault_plan plan = {0};
    bool done[ACTIONS] = {false};
    pthread_mutex_lock(&f->lock);
    for (struct rule **at = &f->first; *at;) {
        struct rule *r = *at;
        if (done[r->action] || !matches(r, method, path)) {
            at = &r->next;
            continue;
        }
        done[r->action] = true;
        apply(r, &plan);
        if (r->left > 0 && --r->left == 0) {
            *at = r->next;
            free_rule(r);
        } else {
            at = &r->next;
        }
    }
    pthread_mutex_unlock(&f->lock);
    return plan;
}

void fault_plan_clear(struct fault_plan *plan)
{
    free(plan->op_error);
    plan->op_error = NULL;
}
