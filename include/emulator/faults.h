/* Failures on request, for tests: rules that say what goes wrong with which request, and how often. */
#ifndef EMULATOR_FAULTS_H
#define EMULATOR_FAULTS_H

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "util/err.h"

struct faults;

/* What goes wrong with one request. At most one rule of each kind applies to it. */
struct fault_plan {
    int status;         /* answer this and do nothing; 0 = no */
    int delay_ms;       /* before anything else */
    bool drop_before;   /* close the connection, nothing done */
    bool drop_after;    /* close the connection after the work was accepted */
    bool truncate;      /* Content-Length is right, the bytes stop half way */
    bool malformed;     /* the JSON is broken */
    int late_ms;        /* what this request makes is invisible for so long */
    char op_status[16]; /* how its last operation ends; "" = finished */
    char *op_error;     /* owned; NULL */
};

struct faults *faults_new(void);
void faults_free(struct faults *f);

/* Adds the rules of a specification: METHOD:PATH=ACTION[*COUNT][@NTH], separated by commas. All or none. -EINVAL with a text. */
int faults_add(struct faults *f, const char *spec, struct err *err);
void faults_clear(struct faults *f);

/* The rules that are left, as an array of objects {"rule", "left"}. */
json_t *faults_list(const struct faults *f);

/* The latest requests that a rule applied to since the last faults_clear(), oldest first: an array of "METHOD:PATH". Owned by the
 * caller. */
json_t *faults_met(const struct faults *f);

/* Takes what applies to this request off the rules. `path` is without the prefix /api/v2. */
struct fault_plan faults_take(struct faults *f, const char *method, const char *path);
void fault_plan_clear(struct fault_plan *plan);

/* The grammar, for --help. */
extern const char faults_grammar[];

#endif
