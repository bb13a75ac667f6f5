/* The emulator itself: its options, its state, its lock.
 *
 * The state is one JSON document, kept in DIR/state.json. Members whose name begins with '_' are the emulator's own, everything
 * else is what the API shows. Rule of the lock: whatever reads or changes `root` holds it; whatever runs PostgreSQL or copies
 * data doesn't. */
#ifndef EMULATOR_EMULATOR_H
#define EMULATOR_EMULATOR_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "emulator/faults.h"
#include "emulator/options.h"
#include "pgserver/pgserver.h"
#include "util/err.h"

struct emulator {
    struct options opt;
    struct pgserver pg;
    char *dir;    /* absolute */
    int dir_lock; /* flock: one emulator per DIR */
    char *api_key;
    char *password; /* of the bootstrap superuser, set once at start */
    int http_port;

    pthread_mutex_t lock;
    pthread_cond_t changed; /* monotonic clock; an operation moved on, or `stopping` was set */
    json_t *root;
    struct faults *faults;
    int jobs_running; /* threads */
    bool stopping;    /* waits are cut short, no new work begins */
    bool abandon;     /* copies give up: what they did is repeated or failed at the next start */
    double rate_tokens;
    int64_t rate_at;
};

/* The name of the superuser that the emulator itself uses, as Neon's is called. */
#define EMULATOR_SUPERUSER "cloud_admin"

/* Opens DIR, or makes it: lock, key, state, PostgreSQL of the remembered major. */
int emulator_open(struct emulator *e, const struct options *opt, struct err *err);
void emulator_close(struct emulator *e);

/* Writes the state durably. Lock held. A failure ends the process: what can't be kept must not be answered. */
void emulator_save(struct emulator *e);

/* Waits up to `ms` for `changed`, with the lock held; shorter when stopping. */
void emulator_wait(struct emulator *e, int64_t ms);

/* Tables of the state: "projects", "branches", "endpoints", "snapshots" are objects by id; "operations", "jobs" arrays. */
json_t *emulator_table(struct emulator *e, const char *name);

/* Seconds or microseconds of now as the API writes them. free() it. */
char *emulator_now(void);

/* The next number of a sequence that only grows. Lock held. */
int64_t emulator_next(struct emulator *e);

#endif
