/* The metadata store: checkpoints, states, the journal of actions, attempts and decisions, the audit log. PostgreSQL.
 *
 * The store is the one authority. A function that changes something is one transaction, decides on what it reads in it (never on
 * the index), appends its event to the audit log in it, and is durable when it returns, unless its comment says otherwise.
 * Whoever changed a checkpoint then calls store_checkpoint() to see it as the store now has it.
 *
 * Common errors of every function, not repeated below: -EIO or the errno of the cause (ECONNREFUSED, ETIMEDOUT, …) when the store
 * can't be reached, -ENOMEM. A refusal for a reason leaves one line in `e` for the person who typed the command. All functions
 * are thread-safe: each takes a connection from the pool, which heals after a restart of the server.
 *
 * Here: opening it, lines, mounts. checkpoint.h: what a checkpoint is; taking.h: how one comes to be; journal.h: actions, decisions, turns,
 * workers; branches.h: isolated branches; changes.h: what other mounts do; prune.h, room.h: making room; files.h: what is read. */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "store/branches.h"
#include "store/changes.h"
#include "store/checkpoint.h"
#include "store/files.h"
#include "store/journal.h"
#include "store/prune.h"
#include "store/room.h"
#include "store/taking.h"
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
/* What the last connection was made with: from the connection string, PGPASSWORD or a password file. Owned by the caller; "" = none, NULL
 * when none was made, or out of memory. */
char *store_password(struct store *s);
/* From now on no call waits for the server: the program leaves, and the store doesn't answer. Doesn't block; thread-safe. */
void store_abandon(struct store *s);
/* A call that the server answers at once, such as a beat, got no answer. When nothing else came from the server for 2 s either, the
 * calls that wait for it now don't wait out their time (30 s and more) but try a new connection, and fail: whoever was killed meanwhile
 * can't leave before his write is answered. Doesn't block; thread-safe. */
void store_unanswered(struct store *s);
/* Has `probe` told before and after each transaction that changes the store, with the name of the function that asked for it: tests
 * stop a mount there. Set before other threads use the store. */
void store_set_probe(struct store *s, void (*probe)(void *arg, const char *what), void *arg);
/* Has `mask` take the secrets that it knows out of what people wrote, before that goes into the audit log, where nothing is ever taken
 * back. It returns a new string, which the store frees, or NULL when out of memory, and may be called by any thread. Set as the probe
 * is. */
void store_set_mask(struct store *s, char *(*mask)(void *arg, const char *text), void *arg);

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
/* What a restore of the checkpoint in place would take off line: *ret is a JSON array of names in the order of their takes, owned by the
 * caller. */
int store_would_go_off_line(struct store *s, int64_t line_id, int64_t checkpoint, char **ret, struct err *e);

struct store_mount {
    int64_t id;          /* 0 until registered */
    const char *host;
    const char *boot_id; /* of the machine, and the pid namespace: a pid means something only within these */
    pid_t pid;
    int64_t pid_start;   /* field 22 of /proc/PID/stat, so that a reused pid isn't taken for the mount */
    const char *mountpoint;
    bool can_resume;
};

/* What begins an action for mount 0 begins it for the present registration, and answers -EOWNERDEAD when that was declared dead by
 * store_take_over: register anew, and try again. Bounded by 2 s: a directory's lock may wait for it.
 *
 * Registers this mount and sets m->id, which is also the fencing number of its lease: ids only grow, and a mount that was taken over
 * has to register anew. From then on every function that moves an action on, or settles it, answers -ESTALE when the action is no
 * longer this registration's: another mount has taken it over. */
int store_mount_register(struct store *s, int64_t line_id, struct store_mount *m, struct err *e);
/* A mount whose last beat is older than this may be taken over. */
#define STORE_LEASE_MS 15000
/* Renews the mount's lease. Bounded by 2 s. -ESTALE after store_mount_leave, and when another mount took over what was its. */
int store_mount_beat(struct store *s, int64_t mount_id, struct err *e);
/* Says that the mount is gone; what it left unsettled may be taken over at once. Bounded by 2 s. */
int store_mount_leave(struct store *s, int64_t mount_id, struct err *e);

/* ---- who ------------------------------------------------------------------------------------------------------------- */

/* Who asked, for the audit log. */
struct store_who {
    uid_t uid;
    gid_t gid;
    pid_t pid;
    const char *user;    /* may be NULL */
    const char *command; /* cleaned UTF-8; may be NULL */
    const char *host;
};

#endif
