/* Operations: a change is accepted at once, worked off by a thread, and visible when its last operation has finished.
 *
 * A job is the change with its operations. It is part of the state before anything is done, so after a kill -9 the next start
 * finishes it or fails it. One job at a time in a project; anything else is answered 423 meanwhile. */
#ifndef EMULATOR_OPS_H
#define EMULATOR_OPS_H

#include <jansson.h>

#include "emulator/http.h"

struct job_kind {
    const char *name;
    bool restartable; /* its source doesn't change: a start after a kill does it again. Else it fails */
    /* The long work. Without the lock. `args` is the thread's own copy of the job's arguments; what it adds is kept. */
    int (*work)(struct emulator *e, json_t *args, struct err *err);
    /* The moment of change: computes stop and start. Without the lock, after the last operation's time; can be repeated. */
    int (*flip)(struct emulator *e, json_t *args, struct err *err);
    /* The state as it is from now on. Lock held. */
    void (*commit)(struct emulator *e, const json_t *args);
    /* The state as if the job had never been. Lock held; files are removed by the caller's sweep. */
    void (*revert)(struct emulator *e, const json_t *args);
};

/* The kinds, in ops_kinds.c order; NULL for an unknown name. */
const struct job_kind *job_kind(const char *name);

/* Whether a job runs in the project. Lock held, as for all below. */
bool job_running(struct emulator *e, const char *project);

/* A new job with `args` (taken over); `rq` may ask for a fault; NULL = nobody waits for it, so its operations
 * take no longer than their work. Add operations, then submit. Borrowed. */
json_t *job_new(struct emulator *e, const struct request *rq, const char *kind, const char *project, json_t *args);
void job_operation(struct emulator *e, json_t *job, const char *action, const char *branch, const char *endpoint);

/* Saves the state and starts the thread. Returns the operations as the API shows them now; new. */
json_t *job_submit(struct emulator *e, json_t *job);

/* After a start: goes on with, or fails, the jobs that a kill interrupted. */
void jobs_resume(struct emulator *e);

/* Waits until no job thread runs; gives up on copies after `ms`. */
void jobs_finish(struct emulator *e, int ms);

#endif
