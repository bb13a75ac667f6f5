/* An action that is under way on this mount: who waits for it, how it ended.
 *
 * The journal's row is the truth; a run is what this process holds of it while a thread works on it. Counted references. */
#ifndef ACTIONS_RUN_H
#define ACTIONS_RUN_H

#include <stdbool.h>
#include <stdint.h>

struct run;

/* Someone who waits for a run. Embedded in the waiter's own structure. */
struct run_waiter {
    /* Called once, from the run's thread with no lock held, when the action has ended. The waiter is detached by then. */
    void (*ended)(struct run_waiter *w, int code, const char *message);
    struct run_waiter *next; /* the run's own */
};

struct run *run_ref(struct run *r);
void run_unref(struct run *r);

int64_t run_action(const struct run *r);
const char *run_uid(const struct run *r);

/* Attaches a waiter. False when the action has ended already: then *ret_code (positive errno, 0 = done) says how, and `ended` is
 * not called. The same with EINTR once the engine stops: nobody would be there to be told. */
bool run_wait(struct run *r, struct run_waiter *w, int *ret_code);

/* Detaches it. False when `ended` was or is being called. */
bool run_unwait(struct run *r, struct run_waiter *w);

#endif
