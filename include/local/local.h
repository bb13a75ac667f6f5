/* The private servers of --local=DIR and --store=DIR: a PostgreSQL for the store, neon-emulator, or both.
 *
 * They belong to DIR and not to a mount: the first mount starts a keeper (our own binary again, under the name
 * `checkpointfs-keeper`, in a session of its own), every mount holds a shared lock on DIR/mounts.lock, and the keeper stops
 * the servers once it gets that lock exclusively, so also when mounts are killed. */
#ifndef LOCAL_LOCAL_H
#define LOCAL_LOCAL_H

#include <stdbool.h>

#include "util/err.h"

struct local_servers;

struct local_config {
    const char *dir;      /* made if missing; below it: store/, neon/, mounts.lock, keeper.lock, env.json (0600), keeper.log */
    bool want_store;      /* the private PostgreSQL of the store */
    bool want_neon;       /* neon-emulator */
    const char *emulator; /* path of neon-emulator; NULL = next to our binary, else in PATH */
    const char *plan;     /* `free` or `paid`, passed on to neon-emulator; NULL = its default; used when the keeper starts */
    const char *self_exe; /* the binary to start as keeper; NULL = /proc/self/exe */
};

/* What the servers are reached with. NULL where that server wasn't asked for. Never log it: it is full of secrets. */
struct local_env {
    char *store;         /* conninfo of the mount's role, `checkpointfs` */
    char *store_owner;   /* conninfo of the role that owns the database and migrates, `checkpointfs_owner` */
    char *neon_api_host; /* http://127.0.0.1:PORT/api/v2, as the variable NEON_API_HOST of design.md §8 */
    char *neon_api_key;
    char *neon_project_id;
    char *neon_branch_id; /* NULL also when the project's branches were deleted */
    char *database_url;   /* NULL also when its databases or endpoints were */
};

/* Refuses a `mountpoint`, an existing directory, that is `dir` or that has `dir` below it, by whatever names: the servers would keep their
 * files in the mount that waits for them, and hang. A mountpoint in `dir` is fine. 0, -EINVAL with a line for a person, -ENOMEM, or why the
 * mountpoint can't be looked at. Makes nothing. Any thread. */
int local_apart(const char *dir, const char *mountpoint, struct err *e);

/* Joins DIR's servers, starting them if nobody has, and waits until they answer. Call it before daemonizing (its errors are
 * for a person); the lock descriptor survives fork, and counts until the last copy is closed, so the parent must exit or close.
 * 0, the caller ends it with local_servers_close; -EINVAL (DIR belongs to a server of another kind or wants something the
 * running keeper doesn't keep), -EACCES (DIR can't be reached by the account that PostgreSQL runs under), -ENOENT (a program is
 * missing: names the package), -EBUSY, -EIO, -ETIMEDOUT. `e` is one line, never with a secret. */
int local_servers_open(const struct local_config *cfg, struct local_servers **ret, struct err *e);

/* Owned by `s`. */
const struct local_env *local_servers_env(const struct local_servers *s);

/* Releases the lock and frees. With wait_ms > 0 waits so long for the keeper to have stopped the servers, if this was the last
 * mount of DIR (returns at once if others go on using them). 0, or -ETIMEDOUT when they are still stopping. NULL is fine. */
int local_servers_close(struct local_servers *s, int wait_ms);

/* Whether main() was started as a keeper: argv[0]'s last component is checkpointfs-keeper. */
bool local_is_keeper_name(const char *argv0);

/* The keeper itself; main() returns what it returns. */
int local_keeper_main(int argc, char **argv);

#endif
