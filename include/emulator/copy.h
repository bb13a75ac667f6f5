/* Copying, removing and syncing directory trees. Thread-safe. */
#ifndef EMULATOR_COPY_H
#define EMULATOR_COPY_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "util/err.h"

struct copy {
    uid_t uid; /* owner of what is made; (uid_t)-1 = leave */
    gid_t gid;
    /* Which entries to leave out; `path` is relative to the top. NULL = none. A directory left out is not made. */
    bool (*skip)(const char *path, bool directory);
    const bool *abandon; /* set by another thread: give up with -ECANCELED */
    int64_t base_bytes;  /* out: size of what lies under base/ */
};

/* Copies a tree of directories and regular files into the new directory `to`: by reflink where the file system can, else
 * by copy_file_range, else by reading and writing. Files that vanish meanwhile are left out. On failure a part may be there.
 * The errno of the call that failed, with a text. */
int copy_tree(struct copy *c, const char *from, const char *to, struct err *err);

/* One file, as copy_tree does it, through directory descriptors. */
int copy_file(struct copy *c, int from_dir, int to_dir, const char *name, struct err *err);

/* Waits until everything below `dir` is on the disk. */
int copy_sync(const char *dir, struct err *err);

/* Removes a tree; missing is fine. 0 or -errno. */
int copy_remove(const char *path);

#endif
