/* Isolated branches (design.md §5). Errors, threads and bounds: store.h. */
#ifndef STORE_BRANCHES_H
#define STORE_BRANCHES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/checkpoint.h"
#include "util/buf.h"
#include "util/err.h"

struct store;
struct store_who;

/* -ENOENT. */
int store_branch(struct store *s, int64_t id, struct store_branch *ret, struct err *e);
/* Its `result`. -ENOENT when there is none. */
int store_read_branch_result(struct store *s, int64_t id, struct buf *ret, struct err *e);

struct store_branch_made {
    const char *branch_id, *branch_name, *endpoint_id, *restored_for;
    int64_t expires_at;
    const char *decisions; /* of a replay */
};
/* The branch that the action made is there and verified: READY, with an attempt of its own; a REPLAY's is claimed at once. The action stays
 * RUNNING. */
int store_branch_made(struct store *s, int64_t action, const struct store_branch_made *m, struct err *e);
/* The branch was never made, or what was made is taken away again: FAILED; its status is the action's outcome. */
int store_branch_failed(struct store *s, int64_t action, struct err *e);
/* What Neon says of it now: gone (what belongs to its database goes off line), or when it expires. */
int store_branch_look(struct store *s, int64_t id, bool gone, int64_t expires_at, struct err *e);
/* Removes one that was never made. -EPERM for any other, -EBUSY while its action is unsettled. Bounded by 2 s. */
int store_branch_remove(struct store *s, int64_t id, const struct store_who *who, struct err *e);
/* The branch is deleted in Neon: so is its row; checkpoints taken on it stay, off line. Settles the action. */
int store_branch_deleted(struct store *s, int64_t action, const char *doc, struct err *e);

/* The branch's database is the active one: as store_restore_done of its checkpoint, whose present attempt is now the branch's; what was
 * taken on the branch comes onto the line. */
int store_promote_done(struct store *s, int64_t action, const char *new_branch, const char *old_branch, const char *replaced_name,
                       const char *endpoint_id, struct err *e);

#endif
