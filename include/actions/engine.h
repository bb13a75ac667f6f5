/* The engine: turns commands into journalled actions and carries them from step to step.
 *
 * Everything that changes something goes through here: takes, seals, restores, resumes, replays, deletes. Functions block on the
 * store (not on Neon, not on agents) and must not be called from a FUSE handler thread; what waits for Neon or an agent is a
 * run with a thread of its own. A function that fails leaves one line in `e`. Thread-safe.
 *
 * Locks: engine.lock (runs, the line's record) and engine.refresh (store → index) are never held together, and no callback is
 * called under either. The index's lock may be taken under both. */
#ifndef ACTIONS_ENGINE_H
#define ACTIONS_ENGINE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "actions/run.h"
#include "commands/command.h"
#include "neon/neon.h"
#include "store/store.h"
#include "tree/index.h"
#include "util/buf.h"
#include "util/err.h"

struct engine;

struct engine_config {
    struct store *store;
    struct neon *neon;
    struct index *index;
    const char *project_id;
    const char *branch_id;      /* NEON_BRANCH_ID; NULL = the project's default branch */
    const char *database;       /* NULL: the only one there is */
    const char *role;
    const char *mountpoint;     /* absolute */
    const char *cwd;            /* where the mount was started */
    const char *resume_command; /* NULL = none */
    const char *conninfo;       /* the store's, for its password, which is in nothing that is quoted; NULL = none */
    const char *pgpassword;     /* PGPASSWORD, for the same; NULL = none */
    const char *api_key;        /* Neon's, for the same; NULL = none */
    const char *retention;      /* rules (commands/rules.h) that make room for a take; NULL = none */
    const char *run_on;         /* where agents run: "any" (or NULL), "here", or a host's name */
    int64_t deadline_ms;        /* how long an action may wait for Neon */
    int64_t grace_ms;           /* an agent's time from TERM to KILL */
    int64_t unconfirmed_ms;     /* an older snapshot is restored in place only when that is confirmed; 0 = each is, INT64_MAX = none */
    bool local;                 /* the local emulator: health says so */
    bool read_only;             /* takes nothing over */
    int64_t kill_at;            /* for tests of crashes: at the so manieth point the process gets kill_signal; 0 = points are only logged,
                                 * -1 = off */
    int kill_signal;            /* SIGKILL, or SIGSTOP: then it's something else's turn to die */

    /* A checkpoint or a text changed in the index: the kernel's caches of it no longer hold. Called with no lock held, from any
     * thread; must not block. */
    void (*changed)(void *arg, const struct index_change *change);
    void *changed_arg;
};

/* -EXDEV when the store at `host`:`port` (NULL: a local socket) is an endpoint of the very project that would be rolled back. */
int engine_store_apart(struct engine *g, const char *host, const char *port, struct err *e);

/* Joins (or makes) the line, registers the mount, loads the index, takes over what dead mounts left. Everything `config` points to
 * must outlive the engine. With Neon down it comes up all the same if the store knows the line. -ESTALE, -EINVAL (a child branch,
 * several databases or roles and none named), -EXDEV (the store lies in the branch it would restore), and what store and Neon return: then
 * *ret is set only where the engine isn't idle. */
int engine_start(const struct engine_config *config, struct engine **ret, struct err *e);

/* Leaves in order: waiting writers are answered first (EINTR), agents get TERM, 10 s, KILL; what is under way in Neon stays in the
 * journal. From then on commands and takes are refused with ESHUTDOWN, which no program tries again as it does after EINTR. */
void engine_stop(struct engine *g);

/* Whether that has begun: what is under way may not be heard of any more. Any thread. */
bool engine_stopping(struct engine *g);

/* Of a stopped engine: whether no action's thread works any more. Where one hangs, in a file system that doesn't answer say, it still uses
 * the engine and all that this was given: none of it may be freed, and the program has to end with _exit, under which no thread goes on. */
bool engine_idle(struct engine *g);

/* Frees a stopped engine that is idle, when no other thread uses it any more. NULL is none. */
void engine_free(struct engine *g);

int64_t engine_deadline_ms(const struct engine *g);
/* The line that is mounted, by its row id. */
int64_t engine_line(const struct engine *g);

/* Appends .control/metrics as it is now: Prometheus's text format 0.0.4. With the store away it tells what memory knows, and
 * checkpointfs_store_up 0. Blocks for up to 2 s. 0, -ENOMEM. */
int engine_metrics(struct engine *g, struct buf *ret);

/* Who asks, as the kernel says. */
struct engine_who {
    pid_t pid; /* may be a thread's id */
    uid_t uid;
    gid_t gid;
};

/* The same and what /proc says, read once per request. */
struct who {
    struct store_who w;
    pid_t group; /* process group; -1 = not known */
    char *user, *command;
    char host[65];
};
void who_read(struct engine *g, const struct engine_who *from, struct who *ret);
void who_clear(struct who *w);

/* ---- taking ---- */

/* How the note of a failed take begins that was a copy: it is never tried again. */
#define TAKE_IS_COPY "a copy, use .import/"

/* mkdir: journals a take and starts it. */
int engine_take(struct engine *g, const char *name, const struct who *who, int64_t *ret_checkpoint, struct err *e);
/* mkdir in branches/X/checkpoints: the same of that isolated branch. */
int engine_take_on(struct engine *g, int64_t branch, const char *name, const struct who *who, int64_t *ret_checkpoint, struct err *e);
/* mkdir NAME/branches/X: journals that the checkpoint is restored into a new isolated branch, and starts it. */
int engine_branch(struct engine *g, int64_t checkpoint, const char *name, const struct who *who, int64_t *ret_branch, struct err *e);
/* rmdir of a branch that was never made. */
int engine_branch_remove(struct engine *g, int64_t branch, const struct who *who, struct err *e);
/* A new open of state.json after a failed take: tries again. */
int engine_take_again(struct engine *g, int64_t checkpoint, const struct who *who, struct err *e);
/* The take that is under way for the checkpoint, here or on another mount, referenced; NULL = none. */
struct run *engine_take_run(struct engine *g, int64_t checkpoint);
/* mkdir of `name`, or with a `checkpoint` a write of its file `name` (NULL: meta.json), that was refused: journalled, so that `result` says
 * why. */
void engine_take_refused(struct engine *g, int64_t checkpoint, const char *name, const struct who *who, int code, const char *message);
/* Whether bytes may be written now: 0 when the snapshot has settled and is of the branch that is active; -ESTALE, -EPERM (sealed, closed),
 * or what the take failed with; -EINTR while the mount leaves. */
int engine_take_ready(struct engine *g, int64_t checkpoint, struct err *e);
/* Someone copies a backup into the take (design.md §4), as its `file` gave away: failed take, whose note names that; an action that has
 * been started deletes its snapshot. -EBUSY while an action on the checkpoint is under way, -ENOMEM, or as the store failed. Any thread. */
int engine_take_is_copy(struct engine *g, int64_t checkpoint, const char *file, const struct who *who, struct err *e);
/* rmdir of a failed take. */
int engine_take_remove(struct engine *g, int64_t checkpoint, const struct who *who, struct err *e);
int engine_rename(struct engine *g, int64_t checkpoint, const char *new_name, const struct who *who, struct err *e);

/* ---- the state ---- */

int engine_state_write(struct engine *g, int64_t checkpoint, int64_t off, const void *bytes, size_t n, struct err *e);
int engine_state_truncate(struct engine *g, int64_t checkpoint, int64_t size, struct err *e);
/* How many bytes a state under way has, on whatever mount they were written; -1 = none. Bounded by 2 s. */
int engine_state_size(struct engine *g, int64_t checkpoint, int64_t *ret, struct err *e);
/* A close has come (`by`: whoever wrote; `last`: surely the last), or its seal is over (NULL): verbs and `wait` wait for it. Doesn't
 * block. */
void engine_sealing(struct engine *g, int64_t checkpoint, const struct who *by, bool last);
/* Whether a seal is under way, or a close came within a second that may have been the last. Doesn't block. Any thread. */
bool engine_seals(struct engine *g, int64_t checkpoint);
/* Waits up to 1 s for it to be over; -EBUSY. */
int engine_await_seal(struct engine *g, int64_t checkpoint, struct err *e);
/* The last close: seals, unless nothing was written. JSON cut short is -EINVAL; why there is no seal is noted in status. */
int engine_seal(struct engine *g, int64_t checkpoint, const struct who *who, struct err *e);
/* The same of bytes that a temporary held. */
int engine_seal_bytes(struct engine *g, int64_t checkpoint, const void *bytes, size_t n, const struct who *who, struct err *e);
/* Replaces meta.json. `no_operator`: why the writer isn't one (static), who may change everything but until when a snapshot is kept; NULL =
 * it is. -EINVAL names the field, -EPERM a field that the seal fixed or that is for operators. */
int engine_meta(struct engine *g, int64_t checkpoint, const char *bytes, size_t n, const struct who *who, const char *no_operator,
                struct err *e);

/* ---- .import/ ---- */

/* A file of a copy; `bytes` is owned by whoever filled it in. */
struct import_file {
    bool there;
    struct buf bytes;
    int64_t mtime; /* ns */
};

/* What is read of a checkpoint's copy; all else in it is derived anew. */
struct import_source {
    bool one_file;              /* the guide's {"snapshot_id", "agent_state"}, in `checkpoint` */
    struct import_file state, checkpoint, snapshot, meta;
    int64_t transcript_mtime;   /* 0 = not there */
    int64_t made_at;            /* mtime of an empty control file, which is created_at to the nanosecond; 0 = none */
    /* Reads pending/`name`; 0 also when it isn't there. `ret` is the engine's to free. */
    int (*read_pending)(void *arg, const char *name, struct import_file *ret, struct err *e);
    void *arg;
};
void import_source_clear(struct import_source *s);

/* mv .import/… NAME: checks the copy and registers it; Neon isn't asked. -EBADMSG naming the file and what is wrong with it, -ENODATA
 * when something is missing, -EEXIST naming what is here already; nothing has changed then. */
int engine_import(struct engine *g, const struct import_source *src, const char *command, const char *name, const struct who *who,
                  int64_t *ret_checkpoint, struct err *e);
/* That was refused: journalled. */
void engine_import_refused(struct engine *g, const char *command, const struct who *who, int code, const char *message);

/* ---- commands ---- */

/* A command written to a control file of `checkpoint` (0: of .control/), or of that isolated `branch` of it (0: none). 0 with a run that
 * has been journalled (*ret may be NULL when it is over already), or a refusal, journalled too. */
int engine_command(struct engine *g, int64_t checkpoint, int64_t branch, enum control control, const char *bytes, size_t n,
                   const struct who *who, bool *ret_nowait, struct run **ret, struct err *e);
/* A refusal that the mount itself decided (an agent's process, an incomplete command): journals it. */
void engine_refused(struct engine *g, int64_t checkpoint, int64_t branch, enum control control, const char *text, const struct who *who,
                    int code, const char *message);
/* What is under way on the checkpoint (or its branch), here or on another mount, for NAME/wait, referenced; NULL when nothing is: then the
 * status in the index is at least as new as that, unless the store can't be asked. */
struct run *engine_under_way(struct engine *g, int64_t checkpoint, int64_t branch);

#endif
