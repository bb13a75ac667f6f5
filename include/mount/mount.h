/* The mount: turns the kernel's requests into questions to the tree and commands to the engine, and their answers into replies.
 *
 * The only part that knows FUSE. Handlers never block (fuse.md §0.1, §0.4): lookup, readdir and stat are answered from the index; what
 * needs the store is a job of a pool; what waits for Neon or an agent holds no thread at all. */
#ifndef MOUNT_MOUNT_H
#define MOUNT_MOUNT_H

#include <stdbool.h>
#include <sys/types.h>

#include "actions/engine.h"
#include "commands/role.h"
#include "tree/index.h"
#include "util/err.h"

struct mount;

struct mount_config {
    struct index *index;
    struct store *store;
    const char *mountpoint;  /* absolute */
    const char *options;     /* of -o, ours removed; may be NULL */
    bool read_only;
    bool debug;
    uid_t uid;               /* who owns what is shown */
    gid_t gid;
    mode_t umask;            /* permissions that are taken away from what is shown */
    enum role role;          /* what may be done through this mount */
    bool has_operators;      /* only members of the group below, and the mounting user, may do what operators may */
    gid_t operators;
};

/* Checks what can be checked before anything is started: /dev/fuse is there, libfuse knows the options (may be NULL), the
 * mountpoint is an empty directory where nothing is mounted (a dead mount of ours is detached first). -ENODEV, -EINVAL, -ENOTDIR,
 * -ENOTEMPTY, -EBUSY, -ENOENT, each with what to do. From here on libfuse's messages go to the log. *ret_lock is a descriptor that keeps
 * others from starting a mount there: the caller closes it once mounted. */
int mount_check(const char *mountpoint, const char *options, int *ret_lock, struct err *e);

/* Mounts. The engine is set afterwards (mount_run), since it needs mount_changed. */
int mount_open(const struct mount_config *config, struct mount **ret, struct err *e);

/* engine_config.changed: drops what the kernel has cached. */
void mount_changed(void *mount, const struct index_change *change);

/* Serves until SIGTERM, SIGINT, SIGHUP or an unmount. `ready` is called once the mount answers. Stops the engine before the mount goes, so
 * that waiting writers get EINTR. All of these signals must be blocked in every thread. 0, or -errno. */
int mount_run(struct mount *m, struct engine *g, void (*ready)(void *arg), void *arg, struct err *e);

/* Unmounts and frees. */
void mount_close(struct mount *m);

/* Only unmounts, with an answer to whoever waits: for a program that ends while threads still use the mount, by mount_changed. */
void mount_leave(struct mount *m);

#endif
