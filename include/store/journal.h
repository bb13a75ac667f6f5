/* The journal of actions (design.md §3, §5, §6). Errors, threads and bounds: store.h. */
#ifndef STORE_JOURNAL_H
#define STORE_JOURNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "store/checkpoint.h"
#include "util/buf.h"
#include "util/err.h"

struct store;
struct store_who;

enum action_kind {
    ACTION_TAKE,
    ACTION_RESTORE,
    ACTION_RESUME,
    ACTION_REPLAY,
    ACTION_CANCEL,
    ACTION_DELETE,
    ACTION_UNDO,
    ACTION_ADOPT,
    ACTION_BRANCH,
    ACTION_PROMOTE,
    ACTION_PRUNE,  /* a plan, its application, or the deletion of a replaced branch: on no checkpoint of its own */
    ACTION_IMPORT,
    ACTION_DRY_RUN, /* says what a restore would do; waits for nothing, and nothing waits for it */
};
enum action_state {
    ACTION_QUEUED,   /* waits for the project's turn, nothing was asked of Neon */
    ACTION_RUNNING,
    ACTION_DONE,
    ACTION_FAILED,
    ACTION_REFUSED,  /* never began */
    ACTION_UNKNOWN,  /* nobody can know how it ended */
};

struct store_action {
    int64_t id;
    char *uid;            /* `act-` and 16 hex digits */
    enum action_kind kind;
    enum action_state state;
    int64_t line_id;
    int64_t checkpoint;   /* 0 = none (left) */
    int64_t attempt;      /* the attempt whose decision it claimed; 0 = none */
    int64_t isolated;     /* the isolated branch whose database it works on; 0 = the line's */
    bool of_branch;       /* it was written to a file of that branch, which has its status, result, output and attempt */
    char *command;        /* as typed, without the newline */
    char *step;           /* the state machine's own word for where it is; "" at first */
    char *data;           /* JSON object: what the state machine journalled */
    char *doc;            /* actions/ID.json and `result` */
    char *by;             /* who asked: JSON object of uid, gid, user, pid, command, host */
    int64_t mount_id;     /* who works on it */
    char *decisions;      /* resume, replay: as store_begin had them */
    int code;             /* settled: positive errno, 0 = done */
    char *message;
    bool assigned;        /* given to this mount by another one, and not yet begun */
    bool cancel;          /* somebody asked to end its agent */
    int64_t created_at;
    int64_t changed_at;
};
void store_action_free(struct store_action *a);

struct store_begin {
    enum action_kind kind;
    int64_t line_id;
    int64_t mount_id;
    int64_t checkpoint;       /* 0 for UNDO and ADOPT */
    bool again;               /* resume: decide once more after `failed` or `unknown` */
    const char *command;
    const char *decisions;    /* resume, replay: resolved decisions as JSON; NULL for others */
    const char *data;         /* what the state machine begins with, a JSON object; NULL = {} */
    const char *worker;       /* resume, replay: not this mount runs it, but a living one with a resume command: "any", or one on that
                               * host. NULL = this one. -EOPNOTSUPP when there is none */
    const struct store_who *who;
    int64_t isolated;         /* the isolated branch that the command was written to; 0 = none */
    const char *branch;       /* branch, replay: the isolated branch to be made; NULL = in place */
    bool bounded;             /* within 2 s: the kernel holds a directory's lock */
};

/* Claims and journals an action in one transaction, under the line's row lock. Its first doc is made by the caller afterwards, with
 * store_action_step. What each kind refuses:
 *  RESTORE  -ENODATA without a settled snapshot (or missing); -EBUSY while a restore, resume or replay is queued or under way on the line;
 *           fails the line's queued takes (store_turn then answers -ESTALE to them)
 *  RESUME   -ENODATA when not sealed; -ESTALE off line; -EALREADY when the present attempt was decided (names `again` after failed or
 *           unknown); -EBUSY while a restore, resume or replay is under way on the line; claims the attempt and stores its decisions
 *  REPLAY   as RESTORE, and not sealed: -ENODATA. The decision is claimed by store_restore_done's new attempt
 *  DELETE   -EBUSY while any action on the checkpoint is unsettled; -EPERM while pinned (meta.json `pin`)
 *  CANCEL   never refused
 *  UNDO     -ENODATA when nothing is left to undo; -EBUSY while anything replaces, or works with, the line's active branch; fails the
 *           line's queued takes
 *  ADOPT    the same, without the -ENODATA
 *  DRY_RUN  -ENODATA and -EXDEV as RESTORE in place; that of a promote only -ESTALE and the like, when the branch isn't there to be
 *           promoted
 *  BRANCH   as RESTORE, but only its own branch is busy; -EEXIST when the checkpoint has one of that name. The row is made at once
 *  PROMOTE  -EBUSY as RESTORE, and while anything works on the branch; -ESTALE when it isn't there any more
 * RESTORE and REPLAY in place of a checkpoint that belongs to an isolated branch: -EXDEV. RESUME of one, or of a branch: only what works
 * on that branch is in its way; -ESTALE when it isn't there any more. DELETE of a branch: -EBUSY while anything works on it; that of a
 * checkpoint with branches: -EBUSY.
 * -ENOENT when the checkpoint is gone; -EBUSY also while it is being deleted. RESUME, CANCEL and DRY_RUN begin RUNNING, the others QUEUED
 * until store_turn lets them. RESUME: -EINVAL for a decision on a call that isn't there or twice on one, -ESTALE for a decision
 * whose `arguments_sha256` isn't the call's. */
int store_action_begin(struct store *s, const struct store_begin *b, struct store_action *ret, struct err *e);

/* Journals a refused command (state REFUSED, with doc), so that `result` and the audit log tell it. checkpoint may be 0, or that of a
 * checkpoint deleted meanwhile. The store puts `"action": "act-…"` before the other members of `doc_without_id`, which may be NULL.
 * Bounded by 2 s. */
int store_action_refuse(struct store *s, const struct store_begin *b, int code, const char *message, const char *doc_without_id,
                        int64_t *ret_action, struct err *e);

/* Journals where the state machine is, before the effect: `step`, `data`, and when not NULL doc, the checkpoint's activity
 * ("" clears it). */
int store_action_step(struct store *s, int64_t action, const char *step, const char *data, const char *doc, const char *activity,
                      struct err *e);

struct store_finish {
    enum action_state state;  /* DONE, FAILED or UNKNOWN */
    int code;                 /* positive errno; 0 when done */
    const char *message;
    const char *doc;
    const char *outcome;      /* the checkpoint's outcome: NULL leaves it, "" clears it */
    bool release_decision;    /* nothing was done (exit 75): the attempt, and its outcome, are what they were before the claim */
};
/* Settles an action, clears the checkpoint's activity, releases the turn if held. -EALREADY if it was settled before. */
int store_action_finish(struct store *s, int64_t action, const struct store_finish *f, struct err *e);

/* Restore in place is done in Neon and verified: the line's active branch becomes `new_branch` (the old one is kept in the line's
 * branches with `replaced_name`), checkpoints taken after this one go off line, this one comes on line, a new attempt opens, a
 * database-only checkpoint is closed for writing. For a REPLAY the new attempt is claimed at once for this action and `decisions`.
 * The action stays RUNNING; takes may pass again. */
int store_restore_done(struct store *s, int64_t action, const char *new_branch, const char *old_branch, const char *replaced_name,
                       const char *endpoint_id, const char *decisions, struct err *e);

/* What the next undo goes back behind: the last thing that replaced the active branch and isn't undone. */
struct store_undo {
    int64_t action;       /* of the restore (or promote, or adopt) */
    char *uid;
    int64_t checkpoint;   /* 0 = an adopted database that nobody knows */
    char *name;           /* of that checkpoint now; NULL = it was deleted, or none */
    char *old_branch;     /* what was replaced */
};
void store_undo_free(struct store_undo *u);
/* -ENODATA when there is nothing. */
int store_undo_next(struct store *s, int64_t line_id, struct store_undo *ret, struct err *e);
/* The branches that restores from here replaced on the line, oldest first, whether or not Neon still has them; NULL at the end. free() each
 * and the list. */
int store_replaced_ids(struct store *s, int64_t line_id, char ***ret, struct err *e);
/* Undo is done in Neon and verified: `new_branch` is active instead of `old_branch`; what the undone restore took off line comes back on
 * line, its checkpoint gets back its attempt, its outcome and what it was; checkpoints taken since then go off line. The action stays
 * RUNNING; takes may pass again. */
int store_undo_done(struct store *s, int64_t action, int64_t undone, const char *new_branch, const char *old_branch,
                    const char *replaced_name, const char *endpoint_id, struct err *e);
/* `branch` is the active one, put there by somebody else. `snapshot_id` is what Neon says it was restored from (may be NULL): when that is
 * the snapshot of a checkpoint of the line, this is its restore in place (*ret_checkpoint), else every checkpoint goes off line (0). When
 * it was active already only its endpoint is recorded (-1). An isolated branch of the line counts as promoted, if Neon has made it the
 * active one (`active_there`: it is the default, or has the endpoint), else -EXDEV. -EEXIST: it belongs to another line. *ret_before, owned
 * by the caller, is the branch that was active. Once more after it was recorded: the same. The action stays RUNNING. */
int store_adopt_done(struct store *s, int64_t action, const char *branch, const char *endpoint_id, const char *snapshot_id,
                     bool active_there, int64_t *ret_checkpoint, char **ret_before, struct err *e);
/* Asks that the agent of the checkpoint's (or its branch's) unsettled resume or replay be ended, wherever it runs. *ret_action: which.
 * -ESRCH: there is none. */
int store_cancel(struct store *s, int64_t checkpoint, int64_t branch, int64_t *ret_action, struct err *e);
/* The actions of that mount that were given to it and not begun, or are to be cancelled. */
int store_told(struct store *s, int64_t mount_id, struct store_action **ret, size_t *ret_n, struct err *e);
/* The mount begins an action that was given to it: 1; 0 when it is no longer there for it. */
int store_accept(struct store *s, int64_t action, struct err *e);
/* Gives an action of this mount's to a living mount of its line that has a resume command, `worker` "any" or a host, which begins it as it
 * stands in the journal. -EOPNOTSUPP: there is none; it stays this mount's. -ESTALE, -EALREADY. */
int store_hand_on(struct store *s, int64_t action, const char *worker, struct err *e);
/* The first unsettled action on the checkpoint (or its branch), cancels aside, or only its take: 0 = none. */
int store_under_way(struct store *s, int64_t checkpoint, int64_t branch, bool take, int64_t *ret_action, struct err *e);

/* The checkpoint and everything it had are gone (its history stays in the audit log). */
int store_delete_done(struct store *s, int64_t action, const char *doc, struct err *e);

/* Asks for the project's turn, which makes a QUEUED action RUNNING; actions of mounts whose lease is over don't count as asking.
 * 1 = this action has it, 0 = not yet (ask again), -ESTALE = the action was failed in the queue by a restore
 * (text says which). Order: whatever replaces the active branch before takes and the rest, then by id; a holder whose action is settled
 * counts as none. */
int store_turn(struct store *s, int64_t action, struct err *e);
int store_turn_release(struct store *s, int64_t action, struct err *e);

/* 1 when the snapshot or branch `neon_id` of that name was announced by the action `uid`, which is settled, and nothing in the record
 * needs it: it can be deleted. That a failed take still names it is no need, except while a delete of it is queued or under way: then it
 * is given back already. 0 when not, or not known. */
int store_leftover(struct store *s, const char *project_id, const char *uid, const char *name, const char *neon_id, struct err *e);
/* The log of the action's line tells that this `what` ("snapshot", "branch") of it was deleted, and by which requests: a JSON list as in
 * the journal's steps. -ENOENT. */
int store_leftover_deleted(struct store *s, const char *uid, const char *what, const char *neon_id, const char *requests, struct err *e);

int store_action(struct store *s, int64_t id, struct store_action *ret, struct err *e);

/* An index row of `.control/actions/`. `of_mount`: it was written to a file of .control/, or is a refusal that concerns no checkpoint:
 * .control/result shows it. */
struct store_action_entry { int64_t id; char uid[32]; int64_t doc_size; int64_t changed_at; bool of_mount; };
/* All actions of the line that have a doc, in order, until `each` returns something else than 0, which is returned then. */
int store_actions(struct store *s, int64_t line_id, int (*each)(void *arg, const struct store_action_entry *a), void *arg, struct err *e);
/* One of them: 1; 0 there is none, or it has no doc (yet). */
int store_action_entry(struct store *s, int64_t id, struct store_action_entry *ret, struct err *e);

/* A mount that left unsettled actions behind. */
struct store_left { int64_t mount_id; char *host; char *boot_id; pid_t pid; int64_t pid_start; bool lease_over; bool left; };
void store_left_free(struct store_left *l, size_t n);
int store_left_mounts(struct store *s, int64_t line_id, int64_t my_mount, struct store_left **ret, size_t *ret_n, struct err *e);
/* Hands every unsettled action of `from` to `to`, and returns them; `from` is no longer counted among the living. With from == to it only
 * returns them. -EBUSY: its lease holds after all, unless the caller is `sure` that its process is gone. */
int store_take_over(struct store *s, int64_t from, int64_t to, bool sure, struct store_action **ret, size_t *ret_n, struct err *e);

#endif
