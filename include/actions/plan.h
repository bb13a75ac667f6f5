/* Which checkpoints a set of rules lets go, and why each goes or stays. A pure function of what is given to it. */
#ifndef ACTIONS_PLAN_H
#define ACTIONS_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "commands/rules.h"

/* What is known of a checkpoint. The texts are borrowed. */
struct plan_fact {
    int64_t id;
    const char *uid, *name;
    const char *parent;    /* uid of the checkpoint it follows; NULL = none. May name one that isn't there */
    int64_t seq;           /* order of captures */
    int64_t created_at;    /* ns */
    int64_t state_bytes;   /* 0 = it has no state */
    bool has_snapshot;     /* and Neon still has it */
    bool pinned;
    bool pending;          /* awaits a decision */
    bool busy;             /* something is under way on it */
    bool branched;         /* isolated branches were made of it */
    bool latest;           /* the newest sealed one on line */
};

enum plan_what {
    PLAN_KEEP,
    PLAN_SNAPSHOT, /* its snapshot goes, the state stays */
    PLAN_WHOLE,
};

struct plan_item {
    const struct plan_fact *fact;
    enum plan_what what;
    const char *why;       /* static */
    const char *parent_of; /* the name of the child that keeps it; NULL = none */
    bool snapshot_may_go;
};

/* Decides on each of `n` facts (takes under way and failed ones are none of them), `now` in ns. `incoming`: one more snapshot is
 * about to be taken, and is the newest of those that `snapshots=N` counts; only then may the latest checkpoint lose its snapshot,
 * and only by that rule. *ret: n items, the newest first, so that children come before their parents' turn; owned by the caller
 * (free). -ENOMEM.
 *
 * Kept, whatever the rules say: what is pinned, busy, branched, the latest, and the parent of whatever is kept. */
int plan_make(const struct plan_fact *facts, size_t n, const struct rules *rules, int64_t now, bool incoming, struct plan_item **ret);

#endif
