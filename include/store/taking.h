/* Taking, sealing, importing, renaming (design.md §4). Errors, threads and bounds: store.h. */
#ifndef STORE_TAKING_H
#define STORE_TAKING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "store/checkpoint.h"
#include "util/buf.h"
#include "util/err.h"

struct store;
struct store_who;

/* Journals a take: a checkpoint in PHASE_TAKING and its action, queued. `name_hint` names the snapshot to be asked for
 * (unique, see snapshot_name of the action). -EEXIST: the name is in use. -EBUSY: a restore, undo or promote is queued or
 * under way on the line. Bounded by 2 s, then -EIO with nothing changed. */
int store_take_begin(struct store *s, int64_t line_id, int64_t mount_id, const char *name, const struct store_who *who,
                     int64_t *ret_checkpoint, int64_t *ret_action, struct err *e);
/* The same of an isolated branch. -EBUSY while that is made, promoted or deleted, -ESTALE when it is no longer there. */
int store_take_begin_on(struct store *s, int64_t line_id, int64_t mount_id, int64_t isolated, const char *name, const struct store_who *who,
                        int64_t *ret_checkpoint, int64_t *ret_action, struct err *e);

/* Journals another try of a failed take. -EBUSY as above, -EINVAL if it isn't PHASE_FAILED. -ESTALE, once, if it was a restore that
 * failed it: whoever made the directory before that must hear of it, the next try is taken for a new beginning. Bounded by 2 s. */
int store_take_again(struct store *s, int64_t checkpoint, int64_t mount_id, const struct store_who *who, int64_t *ret_action,
                     struct err *e);

/* The take's snapshot has settled: PHASE_SAVED, snapshot.json = `snapshot_json`, checkpoint.json = `checkpoint_json`; the action is done.
 * -EPERM with the note when it was found to be a copy meanwhile. */
int store_take_settled(struct store *s, int64_t action, const struct store_snapshot *snap, const struct buf *snapshot_json,
                       const struct buf *checkpoint_json, const char *doc, struct err *e);

/* The take failed: PHASE_FAILED with `note`, the action failed with `code`. */
int store_take_failed(struct store *s, int64_t checkpoint, int64_t action, int code, const char *note, const char *doc,
                      struct err *e);
/* A copy was found out: the checkpoint leaves its phase for PHASE_FAILED, whatever was written is dropped. While that phase was
 * PHASE_TAKING, its take gives the snapshot back; else a DELETE that does is journalled in the same transaction, with DISCARD_COMMAND:
 * `ret` is that action (for store_action_free), or all zero. -EBUSY while an action on it is under way. */
struct store_action;
int store_take_is_copy(struct store *s, int64_t checkpoint, int code, const char *note, const struct store_who *who,
                       struct store_action *ret, struct err *e);
/* The command of such a DELETE, which nobody wrote. */
#define DISCARD_COMMAND "discard the snapshot of a copy"

/* Part of a state under way, durable when this returns 0: the seal has nothing but the store's word for what was written. `off` may be
 * anywhere. `tell`: the other mounts hear of it. `ret_part`: the number of that part, greater than those of all before; 0 when `n` is 0. */
int store_state_write(struct store *s, int64_t checkpoint, int64_t off, const void *bytes, size_t n, bool tell, int64_t *ret_part,
                      struct err *e);
/* The other mounts hear that it was written to. */
int store_state_tell(struct store *s, int64_t checkpoint, struct err *e);
/* How many bytes a state under way has now, on whatever mount they were written; -1 = none, or it isn't under way; `ret_part`: as of
 * which part, 0 = there is none. Bounded by 2 s, as the next. */
int store_state_size(struct store *s, int64_t checkpoint, int64_t *ret, int64_t *ret_part, struct err *e);
/* Cuts or extends (with NUL bytes) what was written to `size`: a part, too. Bounded by 2 s: creating state.json holds a directory's
 * lock. */
int store_state_truncate(struct store *s, int64_t checkpoint, int64_t size, int64_t *ret_part, struct err *e);
/* Bytes [from, to) that lie before the end and were never written; both 0: none. */
struct store_gap {
    int64_t from, to;
};
/* What was written so far, assembled, NULs where nobody wrote; `ret_gap` (may be NULL) is the first place where that is so. */
int store_state_assemble(struct store *s, int64_t checkpoint, struct buf *ret, struct store_gap *ret_gap, struct err *e);
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
    const char *state_trace_id; /* when the state names another one; else NULL */
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

/* Replaces meta.json. The caller has checked it against `before`, what it was (NULL: there was none), and as that of a checkpoint that is
 * `sealed` or not: -EAGAIN if either has changed. Bounded by 2 s: a rename onto it holds a directory's lock. */
int store_meta_put(struct store *s, int64_t checkpoint, const struct buf *before, const void *bytes, size_t n, bool sealed,
                   const struct store_who *who, struct err *e);

/* A state of up to that many bytes is registered within the 2 s for which the kernel may hold a directory's lock. */
#define STORE_IMPORT_SMALL (4LL << 20)
/* A checkpoint that comes from a copy in .import/ (design.md §2, §5). */
struct store_import {
    int64_t line_id, mount_id;
    const char *uid;
    const char *name, *taken_name;
    const char *fork_of;             /* uid of the checkpoint whose changed state this is; NULL = none */
    int64_t created_at, sealed_at;   /* ns, as they were */
    int64_t mtimes[FILE_COUNT];      /* of the rendered files; 0 = now */
    const struct store_seal *seal;   /* NULL = database only: then checkpoint_json and meta are these */
    const struct buf *checkpoint_json, *meta;
    const struct store_snapshot *snapshot; /* id NULL = none */
    const struct buf *snapshot_json; /* NULL = none */
    const char *command;             /* as typed */
    const char *doc_without_id;      /* the action's document, as in store_action_refuse */
    const char *isolated_doc_without_id; /* the same, should it belong to an isolated branch */
};

/* Registers it in one transaction, off line until it is restored (offline_by: the action), and journals that as an action that is done.
 * Its seq is negative, among copies in order of capture: nobody knows whether it comes before or after what was taken here, so every
 * restore takes it off the line and its own takes everything else off. A snapshot of an isolated branch's database belongs to that branch.
 * -EEXIST: the name is in use, or a checkpoint of that uid is here,
 * which is named. Bounded by 2 s unless the state is large. */
int store_import(struct store *s, const struct store_import *i, const struct store_who *who, int64_t *ret_checkpoint,
                 int64_t *ret_action, struct err *e);

/* Whether another checkpoint stands on the same snapshot, as a fork and its original do: then it can't be deleted. */
int store_snapshot_shared(struct store *s, int64_t checkpoint, bool *ret, struct err *e);

/* Whether the snapshot is of a branch that never was the line's active one, as far as is known here: a copy may come from anywhere. */
int store_snapshot_foreign(struct store *s, int64_t checkpoint, bool *ret, struct err *e);

/* snapshot.json changed: sizes came, or the snapshot is missing. */
int store_snapshot_put(struct store *s, int64_t checkpoint, const struct store_snapshot *snap, const struct buf *snapshot_json,
                       struct err *e);

/* -EEXIST, -ENOENT; -EBUSY while an agent works with the path. Bounded by 2 s. */
int store_rename(struct store *s, int64_t checkpoint, const char *new_name, const struct store_who *who, struct err *e);

/* Removes a failed take. -EPERM in any other phase, -EBUSY while an action on it is unsettled. Bounded by 2 s. */
int store_take_remove(struct store *s, int64_t checkpoint, const struct store_who *who, struct err *e);

#endif
