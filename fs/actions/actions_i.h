/* What the files of fs/actions share: the engine, runs, the journal's helpers. */
#ifndef ACTIONS_I_H
#define ACTIONS_I_H

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include <jansson.h>
#include <uthash.h>

#include "actions/engine.h"
#include "agents/runner.h"
#include "util/secrets.h"

struct run {
    atomic_int refs;
    struct engine *g;
    int64_t action;
    int64_t checkpoint; /* 0 = none */
    int64_t isolated;   /* the isolated branch whose database it works on; 0 = the line's */
    bool of_branch;     /* that branch of the checkpoint has its status, result and output */
    enum action_kind kind;
    char *uid;
    char *command;
    json_t *by;             /* whoever asked, as the store has it; NULL = nobody knows */
    int64_t started_at;
    int64_t asked_at;       /* when the last request that changes something was sent to Neon, ns; the run's own thread only */
    char *step;             /* the journal's step; set by the run's own thread */
    json_t *data;           /* the journal's data; the run's own thread only */
    json_t *would;          /* what it would do, for its document; NULL = it says nothing of that */
    char *decisions;        /* resume, replay: CHECKPOINT_DECISIONS */
    atomic_bool lost;       /* another mount took it over: nothing more is done for it here */
    enum { RUN_WORKS, RUN_WATCHES, RUN_ASIDE } place; /* in engine.runs, in engine.watched, in neither: it has ended, or another
                             * watches it. Under engine.lock */
    bool recovered;         /* taken over from a dead mount: look before asking */
    bool doubtful;          /* something may have been asked for twice: look before asking, and for a second copy afterwards */
    bool waits_for_neon;    /* it has been said in the log that it does */
    atomic_bool cancelled;  /* somebody asked to cancel the agent */

    pthread_mutex_t lock;   /* protects the rest; a leaf */
    struct run_waiter *waiters;
    struct agent *agent;    /* while it runs */
    bool ended;
    int code;
    char *message;

    struct run *turn_prev, *turn_next; /* in engine.queue, under engine.queueing */
    UT_hash_handle hh;      /* in engine.runs, or engine.watched */
};

struct engine {
    struct engine_config c;
    char host[256];
    char *boot_id;          /* recover_boot_id */
    int64_t line_id;
    atomic_int_least64_t mount_id; /* the lease's fencing number: another one after it was lost */
    atomic_int_least64_t points;   /* that were passed: point.c */
    bool follows_default;   /* the active branch must be the project's default */
    int64_t started_ms;     /* mono */
    atomic_bool stopping;
    atomic_int_least64_t last_beat; /* boot ms at which the last lease renewed was asked for */

    pthread_mutex_t lock;   /* protects what follows */
    pthread_cond_t idle;    /* one of the threads is through */
    struct run *runs;       /* by action id */
    struct run *watched;    /* the same: what another mount works on, and somebody waits for here */
    int threads;            /* engine_works */
    char *active_branch;
    char *endpoint_id;
    char *connection_uri;
    bool uri_old; /* another mount has made another branch active: to be asked for again */
    char *neon_trouble;     /* NULL = Neon answered last time */
    char *store_trouble;    /* NULL = the store lives; else why it was lost */

    pthread_mutex_t queueing; /* protects queue; a leaf */
    struct run *queue;       /* runs of this mount that wait for the project's turn, the next one first: turn.c */

    pthread_mutex_t knowing; /* protects known; a leaf */
    struct secrets known;    /* masking.c */

    pthread_mutex_t renewing; /* one beat at a time; engine.lock may be taken under it */
    pthread_mutex_t refresh; /* store → index, so that an older answer never replaces a newer one */
    bool loaded;            /* the index has been loaded once: under refresh */
    pthread_t keeper;
    bool keeper_runs;
    pthread_t follower;
    bool follower_runs;
    struct store_feed *feed; /* the follower's from its start on */
    int64_t feed_at;
    atomic_int_least64_t changes_read; /* number of the last change that the index shows */
    atomic_int_least64_t heard; /* boot ms of the last answer of the store to the follower */
    pthread_t watch;
    bool watch_runs;
    atomic_int_least64_t sweep_until; /* mono ms: how long leftovers are looked for */
    atomic_bool look_soon;
    atomic_bool uris_soon; /* another mount made a branch, or another one active: where to connect to is asked for */
    atomic_bool drafts_soon; /* some state was written to, and the other mounts weren't told */
    atomic_bool expiries_soon; /* some meta.json says when its snapshot is to expire, and Neon may not know */
};

/* ---- masking.c: the secrets that this mount knows. -ENOMEM: then it quotes nothing ---- */
/* Before anything is quoted: the store's password and Neon's key. */
int mask_start(struct engine *g);
/* The password of a connection string that Neon has given. */
int mask_uri(struct engine *g, const char *uri);
/* secrets_mask with all of them. */
void mask_text(struct engine *g, const char *text, size_t n, bool cut, struct buf *b);
/* The first `most` bytes of `text` without them, and if `named` without what it calls a secret (secrets_mask_named); clean UTF-8, owned by
 * the caller. NULL when out of memory. */
char *mask_words(struct engine *g, const char *text, bool named, size_t most);
/* All of `text` without them: store_set_mask's. */
char *mask_told(void *engine, const char *text);

/* ---- point.c ---- */
/* A point at which a crash is worth trying: before and after everything that changes the store or Neon, or starts an agent. */
void engine_point(struct engine *g, const char *what);
/* The store's probe. */
void engine_store_point(void *engine, const char *what);

/* ---- lease.c: what this mount may still do ---- */
/* A call to Neon on behalf of an action: what changes something is sent only while this mount holds the action. */
struct neon_call run_call(struct run *r);
/* A call of the run's that changes something as long as `may` says so (0), which is asked each time before it is sent: also after the
 * project was locked for a while. Not for good: somebody in Neon's console is always faster by a moment. */
struct guard {
    struct run *r;
    const struct neon_call *call; /* run_call */
    int (*may)(struct run *r, const struct neon_call *call, struct err *e);
    struct err why;               /* it wasn't sent because of this; no code: it was, or for another reason */
};
/* `g` must live as long as the call is used. */
struct neon_call guard_call(struct guard *g);
/* What came of the guarded call: `rc`, or what `may` said. Clears g->why. */
int guard_end(struct guard *g, int rc, struct err *e);
/* Whether the run's body ends now without settling anything: the mount is leaving, or lost the action. */
bool run_leaves(const struct run *r);
/* Whether the action is this mount's. Waits while the store can't be asked. False from then on when it was lost. */
bool run_holds(struct run *r);
/* The same as the store says now, however fresh the lease; r->cancelled is then what the store says, too. */
bool run_holds_for_sure(struct run *r);
/* The store said -ESTALE: sets r->lost if it is because another mount has the action now. */
void run_check_lost(struct run *r);
/* A call to the store that begins something for this mount; once more under a new number where the old one was declared dead. */
#define LEASED(g, call)                                                                                                          \
    __extension__({                                                                                                              \
        int leased_ = (call);                                                                                                    \
                                                                                                                                 \
        if (leased_ == -EOWNERDEAD) {                                                                                            \
            lease_renew(g);                                                                                                      \
            leased_ = (call);                                                                                                    \
        }                                                                                                                        \
        leased_;                                                                                                                 \
    })
/* Another mount took over everything: agents are ended, and the mount registers anew. */
void lease_lost(struct engine *g);

/* A thread begins (1) or has done (-1) what engine_stop waits for. */
void engine_works(struct engine *g, int change);

/* ---- run.c ---- */
struct run *run_new(struct engine *g, const struct store_action *a);
/* The run that waits here for an action which another mount works on, referenced; made when there is none. NULL: out of memory. */
struct run *run_watch(struct engine *g, const struct store_action *a);
/* Starts the run's thread. On failure the run ends with the error at once. */
void run_start(struct run *r, void (*body)(struct run *r));
/* Ends it for its waiters. */
void run_end(struct run *r, int code, const char *message);

/* Whether the journal has it at that step. */
static inline bool run_at(const struct run *r, const char *step)
{
    return strcmp(r->step, step) == 0;
}

/* ---- journal.c: what is announced and settled, again and again while the store is away ---- */
/* Announces: step and data (r->data) are in the journal before the effect. `activity` NULL leaves it. */
int journal_step(struct run *r, const char *step, const char *activity, struct err *e);
/* Settles the action with its document, refreshes the index. Tries for as long as the mount stays and has the action, whatever the store
 * says that can be put right meanwhile: what has happened can't be told again. -EALREADY: it was settled before. */
int journal_finish(struct run *r, enum action_state state, int code, const char *message, const char *outcome, bool release,
                   struct err *e);
/* The same from the run's own thread, and ends the run for its waiters, who hear `code` only if the store has it. Where the mount
 * leaves or has lost the action, the thread answers them. */
void journal_settle(struct run *r, enum action_state state, int code, const char *message, const char *outcome, bool release);
/* journal_again of a call that settles. */
bool journal_settles_again(struct run *r, int code, const struct err *e, int *tries);
/* The document of an action: actions/ID.json and `result`. Owned by the caller; NULL when out of memory. */
char *journal_doc(const struct run *r, const char *state, int code, const char *message);
/* `by` of such a document. NULL when out of memory. */
json_t *journal_by(const struct store_who *who);
/* Notes in r->data that the run is at that step now, for whoever journals it. */
void journal_at(struct run *r, const char *step);
/* The same of a request that Neon has said yes to, in the present step: the next thing that is journalled tells it. */
void journal_asked(struct run *r, const char *what, const struct neon_change *done);
/* `steps` of an action that is to go on from its claim on, whether or not this mount gets to note that it was requested: an action without
 * them isn't begun by whoever finds it (recover.c). NULL when out of memory. */
json_t *journal_requested(void);
/* The same of what is asked of Neon beside actions: `requests`, the caller's JSON list, collects what Neon said yes to, for the log's
 * line. */
struct asking {
    int64_t at;
    json_t *requests;
};
void asking_of(struct asking *a, struct neon_call *call);
/* Takes the present step's requests out of r->data again, for what keeps them elsewhere; NULL = none. */
json_t *journal_take_requests(struct run *r);
#define CANCELLED_UNDONE "cancelled before anything was done"
/* Nothing was done: the attempt is what it was before, open or in need of `again`. */
#define NOT_USED "the decision wasn't used: write it again"
const char *data_get(const struct run *r, const char *key);
int data_set(struct run *r, const char *key, const char *value);
int data_set_int(struct run *r, const char *key, int64_t value);
int data_set_operations(struct run *r, const struct neon_operations *ops);
/* Whether an error says that the store can't be reached for now. */
bool store_away(int code);
/* After a call to the store failed with `code`: waits a moment and says whether to try again, which is as long as the store is away and
 * the mount stays. What is begun in Neon may not be lost for a restart of the store. *tries is 0 at first. */
bool journal_again(struct run *r, int code, const struct err *e, int *tries);
/* What a call says that settles the action as done, `code`, after so many tries: -EALREADY is 0 when the answer to an earlier one was lost
 * and the action is done. */
int journal_was_done(struct run *r, int code, int tries, struct err *e);
/* Whether the action is still unsettled and this mount's: asked before something is taken away for its sake. */
bool journal_owns(struct run *r);

/* ---- turn.c ---- */
/* Waits for the project's turn. -ESTALE, -ECANCELED (stopping, or somebody cancelled it). */
int journal_turn(struct run *r, struct err *e);
void journal_turn_release(struct run *r);

/* ---- seal.c ---- */
/* Tells the other mounts of what was written to states under way since they were told last. */
void drafts_tell(struct engine *g);

/* ---- follow.c: what other mounts change ---- */
/* Listens from now on; before anything is loaded. */
int follow_open(struct engine *g, struct err *e);
int follow_start(struct engine *g, struct err *e);
void follow_stop(struct engine *g);
/* Says that the store is lost, if nothing was heard of it for too long. */
void follow_check(struct engine *g);
/* The store has answered the follower: it isn't lost, though much may still have to be read. */
void follow_heard(struct engine *g);

/* ---- refresh.c ---- */
/* From the store into the index: a checkpoint (0 = none), an action's document (0 = none), and the log's size. */
int engine_refresh(struct engine *g, int64_t checkpoint, int64_t action);
/* Everything of the line; what is gone from the store goes from the index. What the store returns when it can't be read. */
int engine_reload(struct engine *g, struct err *e);
/* The line's record has changed: which branch is active. */
int engine_follow_line(struct engine *g, struct err *e);
void engine_health(struct engine *g);
void engine_changed(struct engine *g, struct index_change *change);
/* A copy of a checkpoint's plain fields from the index. -ENOENT. */
struct brief {
    char *uid, *name, *snapshot_id, *snapshot_branch, *note, *run_id;
    int64_t isolated;
    enum checkpoint_phase phase;
    bool closed;
    int take_code;
    int64_t created_at;
};
int engine_brief(struct engine *g, int64_t checkpoint, struct brief *ret);
void brief_clear(struct brief *b);
/* Remembers the errno that the take failed with, for who writes later. */
void engine_take_code(struct engine *g, int64_t checkpoint, int code);

/* ---- active.c: which branch is active ---- */
/* Looks in Neon whether the record still holds. -ESTALE naming both. *ret_branch owned by the caller. */
int active_check(struct engine *g, const struct neon_call *call, char **ret_branch, char **ret_endpoint, struct err *e);
/* Which branch has that endpoint: after a restore in the console, another one. *ret owned by the caller; NULL = none. */
int branch_of_endpoint(struct engine *g, const struct neon_call *call, const char *endpoint, char **ret, struct err *e);
int active_join(struct engine *g, struct err *e);
/* Asks Neon for the connection string of `branch` and keeps it; *ret_uri (may be NULL) owned by the caller. */
int active_uri(struct engine *g, const struct neon_call *call, const char *branch, char **ret_uri, struct err *e);
/* The same of any branch, which isn't kept. */
int uri_of(struct engine *g, const struct neon_call *call, const char *branch, char **ret_uri, struct err *e);
void active_set(struct engine *g, const char *branch, const char *endpoint);
/* A call to Neon that is on behalf of no action: one that only looks. */
struct neon_call engine_call(struct engine *g);
/* Remembers for health whether Neon answered, and returns `r`. */
int neon_said(struct engine *g, int r, const struct err *e);

/* ---- the state machines: each the body of a run ---- */
void take_body(struct run *r);
void restore_body(struct run *r);
void resume_body(struct run *r);
void replay_body(struct run *r);
void delete_body(struct run *r);
void undo_body(struct run *r);
void adopt_body(struct run *r);
void dry_run_body(struct run *r);
void isolate_body(struct run *r);
void promote_body(struct run *r);
/* dry_run of a promote. */
int promote_dry_run(struct run *r, const struct neon_call *call, char **ret_message, struct err *e);
/* The restore half of a replay on a branch; 0 when the branch is ready. */
int isolate_steps(struct run *r, struct err *e);
/* Its end when it failed: what it left in Neon is taken away, and the branch's row says so. `e` may get a hint. */
void isolate_failed(struct run *r, struct err *e);

/* ---- branch.c ---- */
/* What the index knows of an isolated branch. -ENOENT. */
struct branch_brief {
    int64_t checkpoint;
    char *name, *checkpoint_name, *branch_id, *restored_for;
    char *path; /* where it is in the mount, as it is offered for copying */
    enum isolated_state state;
};
int engine_branch_brief(struct engine *g, int64_t branch, struct branch_brief *ret);
void branch_brief_clear(struct branch_brief *b);
/* The isolated branch's id in Neon and its connection string, both owned by the caller; either may be NULL. -ESTALE: it isn't there. */
int branch_connection(struct engine *g, const struct neon_call *call, int64_t branch, char **ret_id, char **ret_uri, struct err *e);
/* What Neon says of every isolated branch now; and the connection strings that aren't known yet. */
void branches_look(struct engine *g, const struct neon_call *call);
/* Whether a branch of the checkpoint is ready, and its connection string not known here: another mount made it. */
bool branches_lack_uri(struct engine *g, int64_t checkpoint);
/* Asks Neon for the strings that aren't known here. */
void branches_uris(struct engine *g, const struct neon_call *call);
bool branches_any(struct engine *g);
/* It is no longer there: nor is its connection string, and what was taken on it went off line. */
void engine_branch_gone(struct engine *g, int64_t checkpoint, int64_t branch);
/* The restore half of restore and replay; 0 when it is recorded. */
int restore_steps(struct run *r, struct err *e);

/* ---- restore.c: a snapshot takes the place of the active branch. What restore, undo and promote have in common. ---- */
/* Puts into the record what is true in Neon by then; again after a store that was away. Reads new_branch, target_branch and replaced_name
 * from the journal. */
typedef int swap_record_fn(struct run *r, const char *endpoint, struct err *e);
/* Announces that `snapshot` will replace the active `branch` with that endpoint, under unique names made of `label`. */
int swap_announce(struct run *r, const char *label, const char *snapshot, const char *branch, const char *endpoint, struct err *e);
/* Whether that is in the journal, or a later step of it. */
bool swap_announced(const struct run *r);
/* From there to the record, from whatever step the journal has. -EAGAIN: Neon can't be asked now, go on later. */
int swap_steps(struct run *r, const struct neon_call *call, swap_record_fn *record, struct err *e);
/* Its first half, of a restore into an isolated branch too: the announced branch is asked for, and has come of the right snapshot. */
int swap_restore(struct run *r, const struct neon_call *call, struct err *e);
int swap_right_snapshot(struct run *r, const struct neon_call *call, struct err *e);
/* After it failed: takes back what was made for it and is of no use; adds to `e` what can't be. */
void swap_clean_up(struct run *r, struct err *e);
/* Ends the run: done, or failed with the outcome `failed WHAT: why`; not at all where the mount leaves or has lost it. */
void swap_end(struct run *r, int rc, const struct err *why, const char *what);

/* ---- snapshot.c: a snapshot under a name that the journal has. What take, undo and promote have in common. ---- */
/* Asks for a snapshot of `branch` called `snapshot_name` (of the journal); a lost answer is looked for, and asked for again under the
 * same name only when nothing was made. `look_first`: it may have been asked for before. */
int snapshot_ask(struct run *r, const struct neon_call *call, const char *branch, bool look_first, struct neon_snapshot *ret,
                 struct neon_operations *ret_ops, struct err *e);
/* Looks for it. 0 found, -ENOENT surely not made, -EAGAIN later. */
int snapshot_look(struct run *r, const struct neon_call *call, struct neon_snapshot *ret, struct err *e);
/* Waits for its operations and reads it again; a second copy is deleted. -EIO: what Neon says why it failed. -EAGAIN later. */
int snapshot_settle(struct run *r, const struct neon_call *call, struct neon_snapshot *ret, struct err *e);

/* ---- take.c ---- */
/* snapshot.json of a snapshot as the store knows it. 0 or -ENOMEM. */
int snapshot_render(const struct store_snapshot *s, struct buf *b);

/* ---- dryrun.c: what replacing the active branch would do, and the second question ---- */
struct question {
    int64_t checkpoint;   /* whose snapshot it is */
    enum control control; /* what was written to: restore, replay, promote */
    const char *file;     /* its path in the mount; NULL = NAME/restore and the like */
    const char *text;     /* the command as it was typed, without confirm */
    const char *confirm;  /* what came with it; NULL = nothing */
    int64_t asked_at;     /* when the command was given, ns: the snapshot's age counts to there */
    const char *active;   /* the active branch; dry_run looks itself */
    bool makes_branch;    /* Neon needs another root branch for it */
    const char *by;       /* dry_run: what would replace it, if it isn't the snapshot itself; may be NULL */
    const char *promoted; /* dry_run: that isolated branch's id in Neon, and of its row; may be NULL and 0 */
    int64_t isolated;
};
/* 0 when it may be done: the snapshot is young enough, or the active branch was confirmed. Else -ECANCELED, `e` has the line to write and
 * *ret_would (replaced) what would be lost. Asks nobody. */
int confirm(struct engine *g, const struct question *q, json_t **ret_would, struct err *e);
/* Says what the command would do: in r->would and in words, owned by the caller. Changes nothing. -ESTALE, -ENODATA (the snapshot is
 * gone), and what Neon says. */
int dry_run(struct run *r, const struct neon_call *call, const struct question *asked, char **ret_message, struct err *e);

/* ---- room.c: what the plan's limits leave ---- */
struct room {
    struct neon_limits max; /* -1 = not known */
    int64_t branches, root_branches, snapshots; /* there are; snapshots: those that count, which a schedule's don't */
};
int room_look(struct engine *g, const struct neon_call *call, struct room *ret, struct err *e);
/* -EDQUOT, naming what to delete (but never branch `keep`, may be NULL), when there is surely no room for so many more root branches and
 * snapshots. */
int room_for(struct engine *g, const struct neon_call *call, int64_t branches, int64_t snapshots, const char *keep, struct err *e);
/* Add to an -EDQUOT of Neon's what could be deleted. */
void room_name_branch(struct engine *g, const struct neon_call *call, const char *keep, struct err *e);
void room_name_snapshot(struct engine *g, struct err *e);

/* ---- announced.c: what was announced under a unique name, looked for in Neon ---- */
/* What is made in Neon is called after the checkpoint (first 60 ASCII characters) and the action. Owned by the caller; NULL when out of
 * memory. */
char *announced_name(const struct run *r, const char *prefix, const char *checkpoint_name);
/* -EAGAIN for what says that Neon can't be asked at present: whoever has begun something there goes on later. Else `r`. */
int neon_later(int r);
/* Waits a moment before that. False when the mount is being unmounted. */
bool neon_wait_for(struct run *r, const struct err *e);
/* Waits for the operations in the journal, or, when it has none, until the project is quiet. */
int operations_settle(struct run *r, const struct neon_call *call, struct err *e);
/* By its name. `made`: Neon has said so, it only may not show it yet; else -ENOENT means that it surely wasn't made. */
int announced_snapshot(struct engine *g, const struct neon_call *call, const char *name, bool made, struct neon_snapshot *ret,
                       struct err *e);
int announced_branch(struct engine *g, const struct neon_call *call, const char *name, struct neon_branch *ret, struct err *e);
/* A branch that was made, or its endpoints, with patience: Neon may not show it yet. */
int made_branch(struct engine *g, const struct neon_call *call, const char *id, struct neon_branch *ret, struct err *e);
int made_endpoints(struct engine *g, const struct neon_call *call, const char *branch, struct neon_endpoints *ret, struct err *e);
/* 0 when it is gone, also when it was before. */
int snapshot_delete_surely(struct engine *g, const struct neon_call *call, const char *id, struct err *e);
/* The same, unless another checkpoint stands on it too, as a fork and its original do: then it stays, and that is success. */
int snapshot_delete_unshared(struct engine *g, const struct neon_call *call, int64_t checkpoint, const char *id, struct err *e);
int branch_delete_surely(struct engine *g, const struct neon_call *call, const char *id, struct err *e);
/* Deletes whatever has the announced name, but `keep` (may be NULL). Branches: only restored ones that were never finalized. */
int discard_snapshots(struct engine *g, const struct neon_call *call, const char *name, const char *keep, struct err *e);
int discard_branches(struct engine *g, const struct neon_call *call, const char *name, const char *keep, struct err *e);

/* ---- command.c ---- */
/* Where agents run whose waking is written to this mount ([resume] run-on; design.md §6): NULL = here, else "any" or a host; "here" =
 * nowhere, for want of a command. */
const char *engine_worker(const struct engine *g);

/* ---- recover.c ---- */
/* This boot of this machine, and the pid namespace in it, "BOOT-ID INODE": only there does a pid mean the same process. Owned by the
 * caller; NULL when out of memory. */
char *recover_boot_id(void);
int recover_register(struct engine *g, struct err *e);
/* Takes over what mounts that are surely dead left unsettled. */
int recover_left(struct engine *g, struct err *e);
/* Begins an action that another mount gave to this one. */
void recover_assigned(struct engine *g, const struct store_action *a);
/* Somebody asked to end the agent of that action: its run is told, if it is here. */
void engine_cancel_run(struct engine *g, int64_t action);
/* Goes on with unsettled actions of this mount that have no run: the answer to the COMMIT that began one was lost with a frozen store, or
 * it couldn't be settled while the store was away. *seen (0 at first) is from one look to the next: only what was there at the last
 * one counts, so that an action which is just being begun isn't taken for one. Called by one thread. */
void recover_own(struct engine *g, int64_t *seen);

/* ---- keeper.c: the lease ---- */
int keeper_start(struct engine *g, struct err *e);
void keeper_stop(struct engine *g);
/* A beat now; the mount registers anew when it was declared dead. */
void lease_renew(struct engine *g);
/* A thread of the engine's that gets no signal. */
int engine_thread(pthread_t *ret, void *(*body)(void *), struct engine *g, struct err *e);

/* ---- watch.c: what changes in Neon by itself ---- */
int watch_start(struct engine *g, struct err *e);
void watch_stop(struct engine *g);
/* Neon no longer has the checkpoint's snapshot: so says its status from now on. */
void watch_missing(struct engine *g, int64_t checkpoint);
/* An action has ended: what it changed in Neon is looked at in a few seconds. */
void watch_soon(struct engine *g);
/* Something that nobody needs may turn up in Neon within the next minutes: look for it. */
void watch_leftovers(struct engine *g);

/* What Neon says of the checkpoint's snapshot, compared with what is known. */
void watch_snapshot(struct engine *g, int64_t checkpoint, const struct neon_snapshot *now);

/* ---- upkeep.c: limits, replaced branches, expiries ---- */
/* How often branches are looked at beside their being replaced. */
#define UPKEEP_BRANCHES_MS 300000
/* The watching thread's own: when what is looked at next, mono ms. */
struct upkeep {
    int64_t next_branches, next_limits;
};
/* From the store into the index. */
int replaced_refresh(struct engine *g);
void upkeep_load(struct engine *g);
/* Looks, beside `list`; true when it should be soon again. */
bool upkeep_look(struct engine *g, const struct neon_call *call, const struct neon_snapshots *list, struct upkeep *w);
/* Neon refused one more snapshot: so many are the limit, if it doesn't tell. */
void upkeep_full(struct engine *g, const struct neon_call *call);
/* Tells Neon of every expiry that a meta.json announced; true when some is to be tried again. */
bool expiries_tell(struct engine *g);
void expiries_soon(struct engine *g);

/* ---- prune.c: plans, and what they let go ---- */
int prune_plan(struct engine *g, const struct store_begin *b, const char *rules, struct run **ret, struct err *e);
int prune_apply(struct engine *g, const struct store_begin *b, const char *plan, struct run **ret, struct err *e);
int prune_branch(struct engine *g, const struct store_begin *b, const char *branch, struct run **ret, struct err *e);
void prune_body(struct run *r);
/* The policy of [retention], before a take that Neon refused for its limit asks again: true when it made room. The take has the project's
 * turn. */
bool retention_makes_room(struct run *take);

/* ---- decide.c ---- */
/* Resolves a resume or replay command against the checkpoint's pending calls; *ret_json is CHECKPOINT_DECISIONS. */
int decide(struct engine *g, int64_t checkpoint, const struct command *cmd, char **ret_json, struct err *e);

#endif
