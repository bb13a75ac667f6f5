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
    int64_t deadline_ms;        /* how long an action may wait for Neon */
    int64_t grace_ms;           /* an agent's time from TERM to KILL */
    bool local;                 /* the local emulator: health says so */

    /* A checkpoint or a text changed in the index: the kernel's caches of it no longer hold. Called with no lock held, from any
     * thread; must not block. */
    void (*changed)(void *arg, const struct index_change *change);
    void *changed_arg;
};

/* -EXDEV when the store at `host`:`port` (NULL: a local socket) is an endpoint of the very project that would be rolled back. */
int engine_store_apart(struct engine *g, const char *host, const char *port, struct err *e);

/* Joins (or makes) the line, registers the mount, loads the index, takes over what dead mounts left. Everything `config` points to
 * must outlive the engine. With Neon down it comes up all the same if the store knows the line. -ESTALE, -EINVAL (a child branch,
 * several databases or roles and none named), -EXDEV (the store lies in the branch it would restore), and what store and Neon return. */
int engine_start(const struct engine_config *config, struct engine **ret, struct err *e);

/* Leaves in order: waiting writers are answered first (EINTR), agents get TERM, 10 s, KILL; what is under way in Neon stays in the
 * journal. From then on commands and takes are refused with ESHUTDOWN, which no program tries again as it does after EINTR. */
void engine_stop(struct engine *g);

/* Frees a stopped engine, when no other thread uses it any more. */
void engine_free(struct engine *g);

int64_t engine_deadline_ms(const struct engine *g);
/* The line that is mounted, by its row id. */
int64_t engine_line(const struct engine *g);

/* Who asks: read from /proc once per request. */
struct who {
    struct store_who w;
    pid_t group; /* process group; -1 = not known */
    char *user, *command;
    char host[65];
};
void who_read(pid_t pid, uid_t uid, struct who *ret);
void who_clear(struct who *w);

/* ---- taking ---- */

/* The note of a failed take that was a copy: it is never tried again. */
#define TAKE_IS_COPY "a copy, use .import/"

/* mkdir: journals a take and starts it. */
int engine_take(struct engine *g, const char *name, const struct who *who, int64_t *ret_checkpoint, struct err *e);
/* A new open of state.json after a failed take: tries again. */
int engine_take_again(struct engine *g, int64_t checkpoint, const struct who *who, struct err *e);
/* The take that is under way for the checkpoint, referenced; NULL = none. */
struct run *engine_take_run(struct engine *g, int64_t checkpoint);
/* mkdir, or a write of meta.json to `checkpoint`, that was refused: journalled, so that `result` says why. `name`: NULL for meta.json. */
void engine_take_refused(struct engine *g, int64_t checkpoint, const char *name, const struct who *who, int code, const char *message);
/* Whether bytes may be written now: 0 when the snapshot has settled and is of the branch that is active; -ESTALE, -EPERM (sealed, closed),
 * or what the take failed with. */
int engine_take_ready(struct engine *g, int64_t checkpoint, struct err *e);
/* Someone copies a backup into the take (design.md §4): failed take; an action that has been started deletes its snapshot. -EBUSY while
 * an action on the checkpoint is under way. */
int engine_take_is_copy(struct engine *g, int64_t checkpoint, const struct who *who, struct err *e);
/* rmdir of a failed take. */
int engine_take_remove(struct engine *g, int64_t checkpoint, const struct who *who, struct err *e);
int engine_rename(struct engine *g, int64_t checkpoint, const char *new_name, const struct who *who, struct err *e);

/* ---- the state ---- */

int engine_state_write(struct engine *g, int64_t checkpoint, int64_t off, const void *bytes, size_t n, struct err *e);
int engine_state_truncate(struct engine *g, int64_t checkpoint, int64_t size, struct err *e);
/* A close has come (`by`: whoever wrote), or its seal is over (NULL): verbs and `wait` wait for it. Doesn't block. */
void engine_sealing(struct engine *g, int64_t checkpoint, const struct who *by);
/* Waits up to 1 s for it to be over; -EBUSY. */
int engine_await_seal(struct engine *g, int64_t checkpoint, struct err *e);
/* The last close: seals, unless nothing was written. JSON cut short is -EINVAL; why there is no seal is noted in status. */
int engine_seal(struct engine *g, int64_t checkpoint, const struct who *who, struct err *e);
/* The same of bytes that a temporary held. */
int engine_seal_bytes(struct engine *g, int64_t checkpoint, const void *bytes, size_t n, const struct who *who, struct err *e);
/* Replaces meta.json; -EINVAL names the field, -EPERM a field that the seal fixed. */
int engine_meta(struct engine *g, int64_t checkpoint, const char *bytes, size_t n, const struct who *who, struct err *e);

/* ---- commands ---- */

/* A command written to a control file of `checkpoint` (0: of .control/). 0 with a run that has been journalled (*ret may be NULL when
 * it is over already), or a refusal, journalled too. */
int engine_command(struct engine *g, int64_t checkpoint, enum control control, const char *bytes, size_t n, const struct who *who,
                   bool *ret_nowait, struct run **ret, struct err *e);
/* A refusal that the mount itself decided (an agent's process, an incomplete command): journals it. */
void engine_refused(struct engine *g, int64_t checkpoint, enum control control, const char *text, const struct who *who, int code,
                    const char *message);
/* A run under way on the checkpoint, for NAME/wait; NULL when nothing is. */
struct run *engine_under_way(struct engine *g, int64_t checkpoint);

#endif
