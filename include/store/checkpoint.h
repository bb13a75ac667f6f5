/* Checkpoints as the store has them. Errors, threads and bounds: store.h. */
#ifndef STORE_CHECKPOINT_H
#define STORE_CHECKPOINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "util/err.h"

struct store;

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

/* A branch beside the active one, made from a checkpoint to replay it. */
enum isolated_state {
    ISOLATED_MAKING,
    ISOLATED_READY,
    ISOLATED_FAILED,   /* it was never made */
    ISOLATED_GONE,     /* deleted in Neon's console, or expired */
    ISOLATED_PROMOTED, /* its database is the active one now, or was */
};

struct store_branch {
    int64_t id;              /* row id: its inode */
    int64_t checkpoint;
    char *name;
    enum isolated_state state;
    char *branch_id;         /* in Neon; NULL until it is made */
    char *branch_name;       /* there */
    char *endpoint_id;
    char *restored_for;      /* the branch it was restored for: whom it replaces when Neon finalizes it */
    int64_t created_at;      /* ns */
    int64_t changed_at;
    int64_t ready_at;        /* 0 = not */
    int64_t expires_at;      /* 0 = never */
    char *activity;          /* as of a checkpoint */
    char *outcome;
    int64_t attempt_id;
    bool attempt_open;
    int64_t result_size, result_at; /* -1 = none */
    int64_t output_size, output_at;
};
void store_branch_free(struct store_branch *b);

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

/* Something that was done to a checkpoint and began: for the time line of its run. */
struct store_mark {
    int64_t action;   /* row id */
    int64_t began;    /* ns */
    int64_t ended;    /* ns; 0 = under way */
    char kind[12];    /* `restore`, `resume`, `replay`, …: the journal's word */
    char state[12];   /* `queued`, `running`, `done`, `failed`, `unknown` */
    char branch[256]; /* the isolated branch that it made or was done on, `(deleted)` when that is gone; "" = none */
    char decided[40]; /* what was decided: `approve`, `approve, reject`; "" = nothing */
    bool restored;    /* it made this checkpoint's database the active one, whatever came of it afterwards; `undo`: it took that back */
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
    char *run_id, *step_id, *parent, *trace_id; /* NULL = not known; parent is a uid, perhaps of no checkpoint that is here */
    char *state_trace_id;    /* of another trace, which the state names; else NULL */
    char *agent;             /* in whose name the state was saved */
    int64_t attempt_id;      /* the present attempt of NAME/resume; 0 = none */
    bool attempt_open;       /* nothing is claimed for it yet */
    bool partial_ok;         /* the framework can resume with calls left undecided */
    bool waits_input;        /* the run waits for an input, not for an approval */
    int64_t busy_action;     /* first unsettled action on this checkpoint other than its take and cancels; 0 = none */
    int64_t sizes[FILE_COUNT];  /* bytes; -1 = the file doesn't exist */
    int64_t mtimes[FILE_COUNT]; /* ns */
    int64_t state_part;         /* the last part of a state under way, which sizes[FILE_STATE] is as of; 0 = none */
    struct store_call *calls;
    size_t n_calls;
    struct store_mark *marks; /* in order of action; at most the newest STORE_MARKS_MAX */
    size_t n_marks;
    int64_t isolated;        /* the isolated branch whose database it belongs to; 0 = the line's */
    char *taken_on_name;     /* of that branch, `(deleted)` when it is gone; NULL = the active one */
    int64_t taken_on;        /* the isolated branch it was taken on, also when that was promoted since; 0 = the active one */
    struct store_branch *branches; /* made from it, in order of id */
    size_t n_branches;
};
#define STORE_MARKS_MAX 32
void store_checkpoint_free(struct store_checkpoint *c);

/* One checkpoint as the store has it. -ENOENT when it was deleted. */
int store_checkpoint(struct store *s, int64_t id, struct store_checkpoint *ret, struct err *e);

/* Every checkpoint of a line in order of seq, each handed to `each` (which takes ownership of what `c` points to), in a few queries
 * however many there are. Stops when `each` returns non-zero, and returns that. */
int store_checkpoints(struct store *s, int64_t line_id, int (*each)(void *arg, struct store_checkpoint *c), void *arg,
                      struct err *e);

#endif
