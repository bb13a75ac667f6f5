/* The metadata store: checkpoints, states, the journal of actions, attempts and decisions, the audit log. PostgreSQL.
 *
 * The store is the one authority. A function that changes something is one transaction, decides on what it reads in it (never on
 * the index), appends its event to the audit log in it, and is durable when it returns, unless its comment says otherwise.
 * Whoever changed a checkpoint then calls store_checkpoint() to see it as the store now has it.
 *
 * Common errors of every function, not repeated below: -EIO or the errno of the cause (ECONNREFUSED, ETIMEDOUT, …) when the store
 * can't be reached, -ENOMEM. A refusal for a reason leaves one line in `e` for the person who typed the command. All functions
 * are thread-safe: each takes a connection from the pool, which heals after a restart of the server. */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "util/buf.h"
#include "util/err.h"

struct store;

/* A state is at most this long: -EFBIG from what would make it longer. */
#define STORE_STATE_MAX (1LL << 30)
/* An agent's output shows at most this much, its first and its last half, with a line between them that says what is missing. */
#define STORE_OUTPUT_MAX (16LL << 20)

/* ---- opening --------------------------------------------------------------------------------------------------------- */

/* Makes or upgrades the schema as its owner, and the role `mount_role` with what a mount needs (it can't rewrite the audit log);
 * `mount_role` may be NULL: then the owner mounts. Safe to run twice and from two places at once. */
int store_migrate(const char *owner_conninfo, const char *mount_role, struct err *e);

/* Opens a pool of up to `connections`. Checks that the schema is there and of this program's version (-ENODATA: nothing there;
 * -EPROTO: older or newer; the text names `checkpointfs migrate`). */
int store_open(const char *conninfo, int connections, struct store **ret, struct err *e);
void store_close(struct store *s);
/* From now on no call waits for the server: the program leaves, and the store doesn't answer. Doesn't block; thread-safe. */
void store_abandon(struct store *s);

/* ---- lines and mounts ------------------------------------------------------------------------------------------------ */

struct store_line {
    int64_t id;
    char *active_branch;   /* Neon branch id that is active now by the record */
    char *endpoint_id;     /* endpoint of the active branch when last verified; NULL = not yet known */
    char *connection_uri;  /* never stored: filled by the mount; NULL */
};
void store_line_free(struct store_line *l);

/* Finds the line of `project_id` that ever contained `branch_id` (NULL: the only line of the project); -ENOENT when there is none. */
int store_line_find(struct store *s, const char *project_id, const char *branch_id, struct store_line *ret, struct err *e);
/* The same by the endpoint that its active branch had when it was last verified. */
int store_line_by_endpoint(struct store *s, const char *project_id, const char *endpoint_id, struct store_line *ret, struct err *e);

/* Makes a line whose first and active branch is `branch_id`. -EEXIST if another line of the project contains it. */
int store_line_create(struct store *s, const char *project_id, const char *branch_id, const char *endpoint_id,
                      struct store_line *ret, struct err *e);

/* Reads a line's present record. */
int store_line_get(struct store *s, int64_t line_id, struct store_line *ret, struct err *e);

struct store_mount {
    int64_t id;          /* 0 until registered */
    const char *host;
    const char *boot_id; /* /proc/sys/kernel/random/boot_id: a pid means something only within one boot */
    pid_t pid;
    int64_t pid_start;   /* field 22 of /proc/PID/stat, so that a reused pid isn't taken for the mount */
    const char *mountpoint;
    bool can_resume;
};

/* Registers this mount and sets m->id. Every later function that starts an action names it. */
int store_mount_register(struct store *s, int64_t line_id, struct store_mount *m, struct err *e);
/* A mount whose last beat is older than this may be taken over. */
#define STORE_LEASE_MS 15000
/* Renews the mount's lease. Bounded by 2 s. -ESTALE after store_mount_leave. */
int store_mount_beat(struct store *s, int64_t mount_id, struct err *e);
/* Says that the mount is gone; what it left unsettled may be taken over at once. Bounded by 2 s. */
int store_mount_leave(struct store *s, int64_t mount_id, struct err *e);

/* ---- who ------------------------------------------------------------------------------------------------------------- */

/* Who asked, for the audit log. */
struct store_who {
    uid_t uid;
    pid_t pid;
    const char *user;    /* may be NULL */
    const char *command; /* cleaned UTF-8; may be NULL */
    const char *host;
};

/* ---- checkpoints ----------------------------------------------------------------------------------------------------- */

enum checkpoint_phase {
    PHASE_TAKING,  /* the snapshot is asked for */
    PHASE_SAVED,   /* the snapshot settled, no state (yet): database only */
    PHASE_SEALED,  /* state and snapshot, immutable */
    PHASE_FAILED,  /* failed take */
};

/* The rendered files of a checkpoint: bytes fixed in the store, sizes in the index. */
enum store_file {
    FILE_STATE,      /* stored in chunks: read with store_read_state */
    FILE_SNAPSHOT,
    FILE_CHECKPOINT,
    FILE_TRANSCRIPT,
    FILE_META,
    FILE_RESULT,     /* the document of the checkpoint's last action */
    FILE_OUTPUT,
    FILE_HISTORY,
    FILE_COUNT
};

struct store_call {
    int64_t id;        /* row id: its inode */
    char *call_id;
    char *filename;    /* percent-encoded call id + ".json" (text.h id_to_filename) */
    char *tool;
    char *arguments;   /* as the model wrote them; may hold any bytes but NUL */
    char *agent;
    char *arguments_sha256;
    char *decided;     /* a decision already in the state: "approve", "reject", or NULL */
    bool is_input;     /* waits for an input, not for an approval */
    int64_t file_size; /* bytes of pending/CALL_ID.json */
};

struct store_snapshot {
    char *id;
    char *name;
    char *project_id;
    char *branch_id;         /* at capture */
    int64_t requested_at;    /* ns; 0 = not yet */
    int64_t captured_at;
    char *lsn;
    int64_t expires_at;      /* 0 = never */
    int64_t full_size;       /* bytes; -1 = not known yet */
    int64_t diff_size;
    bool missing;            /* Neon no longer has it */
};

struct store_checkpoint {
    int64_t id;              /* row id */
    char *uid;               /* public id, `ck-` and 20 hex digits */
    char *name;              /* now */
    char *taken_name;        /* when it was taken */
    int64_t line_id;
    int64_t seq;             /* order of captures: id of the take's latest action (a failed take that is tried again moves on) */
    enum checkpoint_phase phase;
    char *note;              /* failed take: why; saved/taking: why the state isn't sealed (cut short …); else NULL */
    bool closed;             /* database only, and restored once: takes no state any more */
    int64_t offline_by;      /* id of the restore that took it off the line; 0 = on line */
    struct store_snapshot snapshot;
    int64_t created_at;      /* ns */
    int64_t changed_at;      /* ns: last change of anything that is listed */
    int64_t sealed_at;       /* ns; 0 = not */
    pid_t sealed_by;         /* process that wrote the state (of this boot), for "a copy gives itself away" */
    char *activity;          /* what is under way: `restoring 2/5`; NULL = nothing */
    char *outcome;           /* how the present attempt ended: `finished`, `stopped again -> NAME`, `unknown`, `failed …`; NULL */
    char *run_id;
    int64_t attempt_id;      /* the present attempt of NAME/resume; 0 = none */
    bool attempt_open;       /* nothing is claimed for it yet */
    bool partial_ok;         /* the framework can resume with calls left undecided */
    bool waits_input;        /* the run waits for an input, not for an approval */
    int64_t busy_action;     /* first unsettled action on this checkpoint other than its take and cancels; 0 = none */
    int64_t sizes[FILE_COUNT];  /* bytes; -1 = the file doesn't exist */
    int64_t mtimes[FILE_COUNT]; /* ns */
    struct store_call *calls;
    size_t n_calls;
};
void store_checkpoint_free(struct store_checkpoint *c);

/* One checkpoint as the store has it. -ENOENT when it was deleted. */
int store_checkpoint(struct store *s, int64_t id, struct store_checkpoint *ret, struct err *e);

/* Every checkpoint of a line in order of seq, each handed to `each` (which takes ownership of what `c` points to), in a few queries
 * however many there are. Stops when `each` returns non-zero, and returns that. */
int store_checkpoints(struct store *s, int64_t line_id, int (*each)(void *arg, struct store_checkpoint *c), void *arg,
                      struct err *e);

/* ---- taking (design.md §4) ------------------------------------------------------------------------------------------- */

/* Journals a take: a checkpoint in PHASE_TAKING and its action, queued. `name_hint` names the snapshot to be asked for
 * (unique, see snapshot_name of the action). -EEXIST: the name is in use. -EBUSY: a restore, undo or promote is queued or
 * under way on the line. Bounded by 2 s, then -EIO with nothing changed. */
int store_take_begin(struct store *s, int64_t line_id, int64_t mount_id, const char *name, const struct store_who *who,
                     int64_t *ret_checkpoint, int64_t *ret_action, struct err *e);

/* Journals another try of a failed take. -EBUSY as above, -EINVAL if it isn't PHASE_FAILED. -ESTALE, once, if it was a restore that
 * failed it: whoever made the directory before that must hear of it, the next try is taken for a new beginning. Bounded by 2 s. */
int store_take_again(struct store *s, int64_t checkpoint, int64_t mount_id, const struct store_who *who, int64_t *ret_action,
                     struct err *e);

/* The take's snapshot has settled: PHASE_SAVED, snapshot.json = `snapshot_json`, checkpoint.json = `checkpoint_json`; the action is done.
 * -EPERM with the note when it was found to be a copy meanwhile. */
int store_take_settled(struct store *s, int64_t action, const struct store_snapshot *snap, const struct buf *snapshot_json,
                       const struct buf *checkpoint_json, const char *doc, struct err *e);

/* The take failed: PHASE_FAILED with `note`, the action failed with `code`. Also for a copy found out later (`action` 0): then the
 * checkpoint leaves its phase for PHASE_FAILED, whatever was written is dropped; -EBUSY while an action on it is under way. */
int store_take_failed(struct store *s, int64_t checkpoint, int64_t action, int code, const char *note, const char *doc,
                      struct err *e);

/* Part of a state under way: written with synchronous_commit=off (the seal compares and is durable). `off` may be anywhere. */
int store_state_write(struct store *s, int64_t checkpoint, int64_t off, const void *bytes, size_t n, struct err *e);
/* Cuts or extends (with NUL bytes) what was written to `size`. Bounded by 2 s: creating state.json holds a directory's lock. */
int store_state_truncate(struct store *s, int64_t checkpoint, int64_t size, struct err *e);
/* What was written so far, assembled. */
int store_state_assemble(struct store *s, int64_t checkpoint, struct buf *ret, struct err *e);
/* Notes why a state isn't sealed (`cut short: …`); NULL clears it. */
int store_state_note(struct store *s, int64_t checkpoint, const char *note, struct err *e);

struct store_seal {
    const void *bytes;        /* the state, exactly */
    size_t n;
    const char *sha256;
    const char *envelope;     /* JSON text fit for jsonb (no \u0000, no lone surrogates): what the view shows to SQL users */
    const char *run_id;
    const char *step_id;
    const char *parent;       /* a checkpoint's uid, as supplied or derived; may be NULL or unknown here */
    const char *framework;
    const char *agent;
    const char *trace_id;
    bool partial_ok;
    bool waits_input;
    const struct buf *meta;               /* meta.json as it was read for this seal; NULL = there was none, and an empty one is made */
    const struct buf *checkpoint_json;
    const struct buf *transcript;
    const struct store_call *calls;       /* id is ignored */
    const struct buf *call_files;         /* pending/CALL_ID.json of each, n_calls of them */
    size_t n_calls;
    pid_t by;
};

/* Seals: exact bytes (in chunks of 256 KiB), calls, files, PHASE_SEALED, and the first attempt opened. Only from PHASE_SAVED and not
 * closed (-EINVAL); -ESTALE if the line's active branch is no longer the one the snapshot was taken of; -EAGAIN if meta.json isn't
 * `meta` any more. */
int store_seal(struct store *s, int64_t checkpoint, const struct store_seal *seal, const struct store_who *who, struct err *e);

/* Replaces meta.json. `sealed`: whether the caller checked it as that of a sealed checkpoint; -EAGAIN if that has changed. Bounded by 2 s:
 * a rename onto it holds a directory's lock. */
int store_meta_put(struct store *s, int64_t checkpoint, const void *bytes, size_t n, bool sealed, const struct store_who *who,
                   struct err *e);

/* snapshot.json changed: sizes came, or the snapshot is missing. */
int store_snapshot_put(struct store *s, int64_t checkpoint, const struct store_snapshot *snap, const struct buf *snapshot_json,
                       struct err *e);

/* -EEXIST, -ENOENT; -EBUSY while an agent works with the path. Bounded by 2 s. */
int store_rename(struct store *s, int64_t checkpoint, const char *new_name, const struct store_who *who, struct err *e);

/* Removes a failed take. -EPERM in any other phase, -EBUSY while an action on it is unsettled. Bounded by 2 s. */
int store_take_remove(struct store *s, int64_t checkpoint, const struct store_who *who, struct err *e);

/* ---- actions: the journal (design.md §3, §5, §6) ---------------------------------------------------------------------- */

enum action_kind { ACTION_TAKE, ACTION_RESTORE, ACTION_RESUME, ACTION_REPLAY, ACTION_CANCEL, ACTION_DELETE };
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
    char *command;        /* as typed, without the newline */
    char *step;           /* the state machine's own word for where it is; "" at first */
    char *data;           /* JSON object: what the state machine journalled */
    char *doc;            /* actions/ID.json and `result` */
    int64_t mount_id;     /* who works on it */
    int64_t created_at;
    int64_t changed_at;
};
void store_action_free(struct store_action *a);

struct store_begin {
    enum action_kind kind;
    int64_t line_id;
    int64_t mount_id;
    int64_t checkpoint;
    bool again;               /* resume: decide once more after `failed` or `unknown` */
    const char *command;
    const char *decisions;    /* resume, replay: resolved decisions as JSON; NULL for others */
    const struct store_who *who;
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
 * -ENOENT when the checkpoint is gone; -EBUSY also while it is being deleted. RESUME and CANCEL begin RUNNING, the others QUEUED
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
    bool release_decision;    /* nothing was done (exit 75): the attempt is open again */
};
/* Settles an action, clears the checkpoint's activity, releases the turn if held. -EALREADY if it was settled before. */
int store_action_finish(struct store *s, int64_t action, const struct store_finish *f, struct err *e);

/* Restore in place is done in Neon and verified: the line's active branch becomes `new_branch` (the old one is kept in the line's
 * branches with `replaced_name`), checkpoints taken after this one go off line, this one comes on line, a new attempt opens, a
 * database-only checkpoint is closed for writing. For a REPLAY the new attempt is claimed at once for this action and `decisions`.
 * The action stays RUNNING; takes may pass again. */
int store_restore_done(struct store *s, int64_t action, const char *new_branch, const char *old_branch, const char *replaced_name,
                       const char *endpoint_id, const char *decisions, struct err *e);

/* The checkpoint and everything it had are gone (its history stays in the audit log). */
int store_delete_done(struct store *s, int64_t action, const char *doc, struct err *e);

/* Asks for the project's turn, which makes a QUEUED action RUNNING; actions of mounts whose lease is over don't count as asking.
 * 1 = this action has it, 0 = not yet (ask again), -ESTALE = the action was failed in the queue by a restore
 * (text says which). Order: restores and replays before takes and deletes, then by id; a holder whose action is settled counts as none. */
int store_turn(struct store *s, int64_t action, struct err *e);
int store_turn_release(struct store *s, int64_t action, struct err *e);

/* 1 when the snapshot or branch `neon_id` of that name was announced by the action `uid`, which is settled, and nothing in the record
 * needs it: it can be deleted. 0 when not, or not known. */
int store_leftover(struct store *s, const char *project_id, const char *uid, const char *name, const char *neon_id, struct err *e);

int store_action(struct store *s, int64_t id, struct store_action *ret, struct err *e);

/* An index row of `.control/actions/`. */
struct store_action_entry { int64_t id; char uid[32]; int64_t doc_size; int64_t changed_at; int64_t checkpoint; };
/* All actions of the line with id > after and a doc, in order. */
int store_actions(struct store *s, int64_t line_id, int64_t after, int (*each)(void *arg, const struct store_action_entry *a),
                  void *arg, struct err *e);

/* A mount that left unsettled actions behind. */
struct store_left { int64_t mount_id; char *host; char *boot_id; pid_t pid; int64_t pid_start; bool lease_over; bool left; };
void store_left_free(struct store_left *l, size_t n);
int store_left_mounts(struct store *s, int64_t line_id, int64_t my_mount, struct store_left **ret, size_t *ret_n, struct err *e);
/* Hands every unsettled action of `from` to `to`, and returns them. With from == to only returns them. */
int store_take_over(struct store *s, int64_t from, int64_t to, struct store_action **ret, size_t *ret_n, struct err *e);

/* ---- reading files --------------------------------------------------------------------------------------------------- */

/* Up to `n` bytes at `off`; fewer at the end. */
int store_read_state(struct store *s, int64_t checkpoint, int64_t off, size_t n, struct buf *ret, struct err *e);
/* A whole small file: SNAPSHOT, CHECKPOINT, TRANSCRIPT, META, RESULT. -ENOENT if there is none. */
int store_read_file(struct store *s, int64_t checkpoint, enum store_file file, struct buf *ret, struct err *e);
int store_read_call(struct store *s, int64_t call, struct buf *ret, struct err *e);
int store_read_output(struct store *s, int64_t checkpoint, int64_t off, size_t n, struct buf *ret, struct err *e);
int store_read_history(struct store *s, int64_t checkpoint, int64_t off, size_t n, struct buf *ret, struct err *e);
int store_read_events(struct store *s, int64_t line_id, int64_t off, size_t n, struct buf *ret, struct err *e);
int store_events_size(struct store *s, int64_t line_id, int64_t *ret_bytes, int64_t *ret_mtime, struct err *e);
int store_read_action(struct store *s, int64_t action, struct buf *ret, struct err *e);

/* The envelope that the seal stored (formats/state.h state_to_json), as JSON text. -ENOENT when it isn't sealed. */
int store_read_envelope(struct store *s, int64_t checkpoint, struct buf *ret, struct err *e);
/* The newest checkpoint sealed after action `since` began whose parent is `parent_uid`: its name, owned by the caller. -ENOENT. */
int store_child(struct store *s, int64_t line_id, const char *parent_uid, int64_t since, char **ret_name, struct err *e);

/* ---- an agent's output ------------------------------------------------------------------------------------------------ */

/* Empties the output: a new attempt begins. */
int store_output_reset(struct store *s, int64_t checkpoint, struct err *e);
/* Appends; beyond 16 MiB the middle is dropped, so that the first and last 8 MiB stay, and a line in its place says how much
 * is left out. synchronous_commit=off. */
int store_output_append(struct store *s, int64_t checkpoint, const void *bytes, size_t n, struct err *e);

#endif
