/* What lies in .import/: an ordinary little filesystem of one mount, where copies wait to be registered (design.md §1, §2).
 *
 * Names, modes, owners and times are here, in memory; bytes are elsewhere, in a spool that knows each file by its id (fs/mount/spool.c).
 * Nothing here blocks or knows FUSE. Ids are numbers of this mount, never used again; STAGING_ROOT is .import/ itself. Each function
 * takes the model's lock, a leaf, for itself. Thread-safe. */
#ifndef TREE_STAGING_H
#define TREE_STAGING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "tree/node.h"
#include "util/buf.h"

#define STAGING_ROOT 0

struct staging;

struct staged_attr {
    int64_t id;
    mode_t mode; /* type and permissions */
    uid_t uid;
    gid_t gid;
    nlink_t nlink; /* 0: removed while open */
    int64_t size;
    int64_t atime, mtime, ctime; /* ns */
};

/* Room for that many files and directories, and for that many bytes in all; one file at most `max_file`; owner and permissions are of the
 * root. NULL when out of memory. */
struct staging *staging_new(size_t max_nodes, int64_t max_bytes, int64_t max_file, uid_t uid, gid_t gid, mode_t mode);
void staging_free(struct staging *s);

/* 0, -ENOENT, -ENOTDIR; -ESTALE when the directory is gone. */
int staging_lookup(struct staging *s, int64_t dir, const char *name, struct staged_attr *ret);
/* 0, -ESTALE. */
int staging_attr(struct staging *s, int64_t id, struct staged_attr *ret);
/* The directory that it is in; STAGING_ROOT for .import/ itself and for what is gone. */
int64_t staging_parent(struct staging *s, int64_t id);
/* Appends a link's target. 0, -EINVAL when it is no link, -ESTALE, -ENOMEM. */
int staging_readlink(struct staging *s, int64_t id, struct buf *ret);
/* As tree_list. A cookie is the id of the last entry: it stays valid over every change. */
int staging_list(struct staging *s, int64_t dir, int64_t cookie,
                 bool (*each)(void *arg, const char *name, const struct staged_attr *a, int64_t cookie), void *arg);

/* Makes a file, a directory or (with `target`) a link. -EEXIST, -ENOSPC, -ENAMETOOLONG, -ENOENT (the directory was removed), -ENOTDIR,
 * -ESTALE, -EBUSY (it is being registered: so from all that change something), -ENOMEM. */
int staging_make(struct staging *s, int64_t dir, const char *name, mode_t mode, uid_t uid, gid_t gid, const char *target,
                 struct staged_attr *ret);
/* Removes a file or link, or an empty directory. *ret_gone: the file whose bytes nobody needs now, 0 = none. -ENOENT, -EISDIR, -ENOTDIR,
 * -ENOTEMPTY, -EBUSY (.import/ itself). */
int staging_remove(struct staging *s, int64_t dir, const char *name, bool directory, int64_t *ret_gone);
/* rename(2) within .import/; -EEXIST with `noreplace`. */
int staging_rename(struct staging *s, int64_t dir, const char *name, int64_t new_dir, const char *new_name, bool noreplace,
                   int64_t *ret_gone);

struct staged_set {
    bool has_mode, has_uid, has_gid, has_atime, has_mtime;
    mode_t mode;
    uid_t uid;
    gid_t gid;
    int64_t atime, mtime;
};
int staging_set(struct staging *s, int64_t id, const struct staged_set *set, struct staged_attr *ret);
/* The file is to be `size` long, or at least so long: bytes are put into the spool only after this. *ret_old (may be NULL): its size
 * before. -ENOSPC, -EFBIG, -EISDIR, -ESTALE; -EPERM once it is registered. */
int staging_resize(struct staging *s, int64_t id, int64_t size, bool at_least, int64_t *ret_old);

/* Open files: a removed one lives until the last of them is closed. */
int staging_open(struct staging *s, int64_t id, bool writer);
void staging_close(struct staging *s, int64_t id, bool writer);
/* Whether something in it is open for writing. */
bool staging_written(struct staging *s, int64_t id);
/* It is about to be registered: until staging_thaw nothing in it can be changed or opened for writing. -EBUSY: something in it is open for
 * writing, or it is being registered already, as are what it is in or something in it. -ENOENT. */
int staging_freeze(struct staging *s, int64_t id);
/* Does nothing once it has become something else. */
void staging_thaw(struct staging *s, int64_t id);

/* It is registered, and leaves .import/: the kernel still knows it by this number (traps.md 14), which from now on stands for `node`. What
 * is in it stands for what `resolve` answers by its name, 0 = nothing. *ret_gone, *ret_n: ids of all files whose bytes nobody needs now;
 * owned by the caller. */
int staging_become(struct staging *s, int64_t id, node_id node,
                   node_id (*resolve)(void *arg, node_id dir, const char *name, mode_t mode), void *arg, int64_t **ret_gone,
                   size_t *ret_n);
/* What it stands for; 0 = itself. */
node_id staging_became(struct staging *s, int64_t id);

void staging_used(struct staging *s, size_t *ret_nodes, int64_t *ret_bytes, size_t *ret_max_nodes, int64_t *ret_max_bytes);

#endif
