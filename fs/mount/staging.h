/* .import/: an ordinary little filesystem inside the mount (tree/staging.h), whose operations mirror those of mount_ops. */
#ifndef STAGING_H
#define STAGING_H

#include "mount_i.h"
#include "tree/staging.h"

/* What a request to `ino` is about: false when it isn't staged. What was staged and has been registered is replaced by what it became. */
bool staged(fuse_req_t req, fuse_ino_t *ino);

void staged_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
/* .import/ itself. */
void staged_root(fuse_req_t req);
void staged_getattr(fuse_req_t req, fuse_ino_t ino);
void staged_setattr(fuse_req_t req, fuse_ino_t ino, const struct stat *attr, int to_set);
void staged_readlink(fuse_req_t req, fuse_ino_t ino);
/* A file, directory or link; `target` of a link, else NULL. */
void staged_make(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, const char *target);
void staged_remove(fuse_req_t req, fuse_ino_t parent, const char *name, bool directory);
void staged_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent, const char *new_name, unsigned flags);
void staged_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, bool plus);
void staged_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void staged_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi);
void staged_read(fuse_req_t req, size_t size, off_t off, struct fuse_file_info *fi);
void staged_write(fuse_req_t req, const char *bytes, size_t n, off_t off, struct fuse_file_info *fi);
void staged_release(struct mount *m, struct handle *h);
void staged_statfs(fuse_req_t req);

int64_t staged_id(node_id node);
node_id staged_node(int64_t id);

/* import.c: a rename to the mount's root registers it. */
void import_rename(fuse_req_t req, fuse_ino_t parent, const char *name, const char *new_name, unsigned flags);

#endif
