/* Shared by the files of the part: DIR's files, what the keeper is told, and its two servers.
 *
 * DIR/mounts.lock   shared by every mount; exclusive while the keeper stops the servers
 * DIR/keeper.lock   exclusive while a keeper lives; taken by the mount that starts it and handed over open
 * DIR/env.json      what the servers are reached with, there while they serve
 * DIR/store.json    passwords and socket directory of the store's PostgreSQL, made once
 * DIR/neon.pid      pid and start time of neon-emulator */
#ifndef LOCAL_LOCAL_I_H
#define LOCAL_LOCAL_I_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <jansson.h>

#include "local/local.h"
#include "pgserver/pgserver.h"

/* The keeper's descriptors. */
#define KEEPER_STATUS_FD 3 /* gets one line, "0" or "ERRNO TEXT", when the servers serve or can't */
#define KEEPER_LOCK_FD 4

/* The keeper's arguments after argv[0]. */
enum keeper_argument { KEEPER_DIR = 1, KEEPER_TASK, KEEPER_EMULATOR, KEEPER_PLAN, KEEPER_ARGC };

/* Tasks: which servers to keep; or only to end, once no mount is left, what a killed keeper has left. */
#define KEEPER_TASK_STORE "store"
#define KEEPER_TASK_NEON "neon"
#define KEEPER_TASK_BOTH "store+neon"
#define KEEPER_TASK_SWEEP "sweep"

/* What env.json holds beside the environment itself. */
struct local_state {
    struct local_env env;
    char *plan; /* NULL = neon-emulator's default */
    pid_t keeper;
    int64_t keeper_start; /* field 22 of /proc/PID/stat */
};

/* ---- files.c ---- */

char *local_path(const char *dir, const char *name);

/* Makes `dir` and its parents if missing, so that the servers' account can enter it, and returns its real path (free()). */
int local_make_dir(const char *dir, char **ret, struct err *e);

/* Opens DIR/`name` for locking, made if missing; -EACCES if it belongs to another user. The descriptor closes on exec. */
int local_open_lock(const char *dir, const char *name, int *ret_fd, struct err *e);

/* Writes `doc` to DIR/`name` with mode 0600: whole or not at all, and durable. */
int local_write_json(const char *dir, const char *name, const json_t *doc, struct err *e);
/* -ENOENT without a text when there is none. */
int local_read_json(const char *dir, const char *name, json_t **ret, struct err *e);

int local_state_write(const char *dir, const struct local_state *s, struct err *e);
int local_state_read(const char *dir, struct local_state *ret, struct err *e);
void local_state_clear(struct local_state *s);
void local_env_clear(struct local_env *env);

/* When a process started, in clock ticks since boot: with its pid it names it for ever. 0 when it is gone or a zombie. */
int64_t local_process_start(pid_t pid);

/* ---- keeping.c ---- */

/* Starts a keeper, which takes over `*lock` (closed here), and waits until its servers serve. Its pid, or -errno. */
int local_keeper_start(const struct local_config *cfg, const char *dir, const char *task, int *lock, pid_t *ret, struct err *e);

/* ---- store_server.c ---- */

struct local_store {
    struct pgserver pg;
    char *datadir;
    char *socket_dir;
    pid_t pid; /* 0 while it doesn't run */
};

/* Makes the cluster if there is none, starts it, makes roles and database if they are missing, fills env->store and
 * env->store_owner. `s` is zero or was stopped; end it with local_store_stop and local_store_clear also after a failure. */
int local_store_start(const char *dir, struct local_store *s, struct local_env *env, struct err *e);
void local_store_stop(struct local_store *s);
void local_store_clear(struct local_store *s);

/* Ends what a killed keeper has left of it. */
void local_store_end(const char *dir);

/* ---- emulator_server.c ---- */

/* Starts neon-emulator on DIR/neon and fills the rest of `env`. */
int local_emulator_start(const char *dir, const char *program, const char *plan, pid_t *ret_pid, struct local_env *env,
                         struct err *e);
void local_emulator_stop(const char *dir, pid_t pid);
void local_emulator_end(const char *dir);

#endif
