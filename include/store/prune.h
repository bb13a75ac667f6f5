/* Prune: plans and their application (fs/store/plans.c). Errors, threads and bounds: store.h. */
#ifndef STORE_PRUNE_H
#define STORE_PRUNE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/journal.h"
#include "util/err.h"

struct store;

/* A checkpoint with a settled snapshot, as the planner (actions/plan.h) wants to know it. */
struct store_fact {
    int64_t id;
    char *uid, *name;
    char *parent;        /* NULL = none */
    int64_t seq;
    int64_t created_at;
    int64_t state_bytes; /* 0 = it has no state */
    bool has_snapshot;   /* of its own: one that a fork stands on too can't be freed by it alone */
    bool pinned, pending, busy, branched, latest;
};
/* All of a line, in one view. `*ret`: store_facts_free. */
int store_facts(struct store *s, int64_t line_id, struct store_fact **ret, size_t *ret_n, struct err *e);
void store_facts_free(struct store_fact *f, size_t n);

struct store_plan_item {
    int n;               /* its place in the plan, from 1 */
    int64_t checkpoint;
    char *uid, *name;    /* as they were when it was planned */
    bool whole;          /* else only its snapshot */
    char *why;
    bool pending;        /* it awaited a decision then */
    bool latest;         /* it was the latest, and the rules let its snapshot go all the same */
    bool has_snapshot;   /* what it frees: a snapshot, */
    int64_t state_bytes; /* and these bytes */
    char *snapshot_id;   /* announced; NULL while it isn't, or when there is none */
    char *outcome;       /* deleting, deleted, skipped; NULL = not yet */
    char *message;       /* why it was skipped */
    char *requests;      /* JSON array: what Neon was asked for it; NULL = nothing, or nobody knows */
};
/* `items` itself too; of one alone: store_plan_item_clear. */
void store_plan_item_clear(struct store_plan_item *i);
void store_plan_items_free(struct store_plan_item *items, size_t n);

/* A plan older than this is refused. */
#define STORE_PLAN_HOURS 24

/* Journals an action PRUNE, which works on no checkpoint of its own. With `plan` it applies it: -ENOENT, -EALREADY when it was
 * applied, -ESTALE when it is too old, -EBUSY while another one is being applied. With `branch` it deletes that replaced branch:
 * -ENOENT when it is gone, -EPERM for one that no restore of this store replaced. With neither it plans. `queued`: it needs the
 * project's turn. */
int store_prune_begin(struct store *s, const struct store_begin *b, const char *plan, const char *branch, bool queued,
                      struct store_action *ret, struct err *e);

/* Stores the plan that the action made. `apply`: the same action goes on to apply it. */
int store_plan_put(struct store *s, int64_t action, const char *uid, const char *rules, bool apply, const struct store_plan_item *items,
                   size_t n, struct err *e);
/* What the action applies, item by item. -ENOENT when it applies none. */
int store_plan_items(struct store *s, int64_t action, struct store_plan_item **ret, size_t *ret_n, struct err *e);

/* The next item of the plan that the action applies, checked again and claimed: announced with its snapshot's id, nothing else works on
 * that checkpoint from here on. 1: claimed; 2: skipped, with its message; 0: nothing is left. One that was claimed before comes again. */
int store_prune_next(struct store *s, int64_t action, struct store_plan_item *ret, size_t *ret_total, struct err *e);
/* What was claimed is gone from Neon: so it is from the store. `requests` as in the item. 0 also when it was recorded before. */
int store_prune_done(struct store *s, int64_t action, int item, const char *requests, struct err *e);
/* It couldn't be deleted: skipped. */
int store_prune_skip(struct store *s, int64_t action, int item, const char *message, const char *requests, struct err *e);
/* Nothing was deleted at all: the plan may be applied again. */
int store_prune_release(struct store *s, int64_t action, struct err *e);
/* The document of an action that works on checkpoints other than its own: their `result` stays. */
int store_prune_doc(struct store *s, int64_t action, const char *step, const char *data, const char *doc, struct err *e);
#define STORE_STEP_GONE "deleted"
/* A replaced branch is gone from Neon; the action is at STORE_STEP_GONE from here on. 0 also when it was recorded before. */
int store_branch_gone(struct store *s, int64_t action, const char *branch, struct err *e);

#endif
