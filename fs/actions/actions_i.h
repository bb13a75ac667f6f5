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

struct run {
    atomic_int refs;
    struct engine *g;
    int64_t action;
    int64_t checkpoint; /* 0 = none */
    enum action_kind kind;
    char *uid;
    char *command;
    struct store_who who;   /* whoever asked; its strings are owned here */
    char *who_user, *who_command;
    int64_t started_at;
    char *step;             /* the journal's step; set by the run's own thread */
    json_t *data;           /* the journal's data; the run's own thread only */
    char *decisions;        /* resume, replay: CHECKPOINT_DECISIONS */
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

    UT_hash_handle hh;      /* in engine.runs */
};

struct engine {
    struct engine_config c;
    char host[256];
    int64_t line_id;
    int64_t mount_id;
    bool follows_default;   /* the active branch must be the project's default */
    atomic_bool stopping;
    atomic_int_least64_t last_beat; /* mono ms of the last lease renewed */

    pthread_mutex_t lock;   /* protects what follows */
    pthread_cond_t idle;    /* a run ended */
    struct run *runs;       /* by action id */
    int threads;
    char *active_branch;
    char *endpoint_id;
    char *connection_uri;
    char *neon_trouble;     /* NULL = Neon answered last time */

    pthread_mutex_t refresh; /* store → index, so that an older answer never replaces a newer one */
    pthread_t keeper;
    bool keeper_runs;
    pthread_t watch;
    bool watch_runs;
    atomic_int_least64_t sweep_until; /* mono ms: how long leftovers are looked for */
    atomic_bool look_soon;
};

/* ---- run.c ---- */
struct run *run_new(struct engine *g, const struct store_action *a, const struct store_who *who);
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
/* Settles the action with its document, refreshes the index. */
int journal_finish(struct run *r, enum action_state state, int code, const char *message, const char *outcome, bool release,
                   struct err *e);
/* The document of an action: actions/ID.json and `result`. Owned by the caller; NULL when out of memory. */
char *journal_doc(const struct run *r, const char *state, int code, const char *message);
/* Waits for the project's turn. -ESTALE, -ECANCELED (stopping, or somebody cancelled it). */
int journal_turn(struct run *r, struct err *e);
#define CANCELLED_UNDONE "cancelled before anything was done"
void journal_turn_release(struct run *r);
const char *data_get(const struct run *r, const char *key);
int data_set(struct run *r, const char *key, const char *value);
int data_set_int(struct run *r, const char *key, int64_t value);
int data_set_operations(struct run *r, const struct neon_operations *ops);
/* Whether an error says that the store can't be reached for now. */
bool store_away(int code);
/* After a call to the store failed with `code`: waits a moment and says whether to try again, which is as long as the store is away and
 * the mount stays. What is begun in Neon may not be lost for a restart of the store. *tries is 0 at first. */
bool journal_again(struct run *r, int code, const struct err *e, int *tries);
/* Whether the action is still unsettled and this mount's: asked before something is taken away for its sake. */
bool journal_owns(struct run *r);

/* ---- refresh.c ---- */
int engine_refresh(struct engine *g, int64_t checkpoint, int64_t action);
void engine_refresh_line(struct engine *g);
void engine_health(struct engine *g);
void engine_changed(struct engine *g, struct index_change *change);
/* A copy of a checkpoint's plain fields from the index. -ENOENT. */
struct brief {
    char *uid, *name, *snapshot_id, *snapshot_branch, *note, *run_id;
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
int active_join(struct engine *g, struct err *e);
/* Asks Neon for the connection string of `branch` and keeps it; *ret_uri (may be NULL) owned by the caller. */
int active_uri(struct engine *g, const struct neon_call *call, const char *branch, char **ret_uri, struct err *e);
void active_set(struct engine *g, const char *branch, const char *endpoint);
struct neon_call engine_call(struct engine *g);
/* Remembers for health whether Neon answered, and returns `r`. */
int neon_said(struct engine *g, int r, const struct err *e);

/* ---- the state machines: each the body of a run ---- */
void take_body(struct run *r);
void restore_body(struct run *r);
void resume_body(struct run *r);
void replay_body(struct run *r);
void delete_body(struct run *r);
/* The command of a delete that gives a copy's snapshot back and keeps the failed take. */
#define DISCARD_COMMAND "discard the snapshot of a copy"
/* The restore half of restore and replay; 0 when it is recorded. */
int restore_steps(struct run *r, struct err *e);

/* ---- take.c ---- */
/* snapshot.json of a snapshot as the store knows it. 0 or -ENOMEM. */
int snapshot_render(const struct store_snapshot *s, struct buf *b);

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
/* Deletes whatever has the announced name, but `keep` (may be NULL). Branches: only restored ones that were never finalized. */
int discard_snapshots(struct engine *g, const struct neon_call *call, const char *name, const char *keep, struct err *e);
int discard_branches(struct engine *g, const struct neon_call *call, const char *name, const char *keep, struct err *e);

/* ---- recover.c ---- */
int recover_register(struct engine *g, bool can_resume, struct err *e);
int recover_left(struct engine *g, struct err *e);
/* Goes on with unsettled actions of this mount that have no run: the answer to the COMMIT that began one was lost with a frozen store, or
 * it couldn't be settled while the store was away. *seen (0 at first) is from one look to the next: only what was there at the last
 * one counts, so that an action which is just being begun isn't taken for one. Called by one thread. */
void recover_own(struct engine *g, int64_t *seen);

/* ---- keeper.c: the lease ---- */
int keeper_start(struct engine *g, struct err *e);
void keeper_stop(struct engine *g);
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

/* ---- decide.c ---- */
/* Resolves a resume or replay command against the checkpoint's pending calls; *ret_json is CHECKPOINT_DECISIONS. */
int decide(struct engine *g, int64_t checkpoint, const struct command *cmd, char **ret_json, struct err *e);

#endif
