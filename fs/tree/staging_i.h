/* What the two files of .import/'s model share. All functions are called with the model's lock held. */
#ifndef STAGING_I_H
#define STAGING_I_H

#include <pthread.h>

#include <uthash.h>

#include "tree/staging.h"

/* How many registered directories are remembered: somebody may still be in one, or have a file of it open. */
#define KEPT 64

struct staged {
    struct staged_attr a;
    struct staged *parent; /* NULL: .import/ itself, or removed */
    char *key;             /* parent's id, then the name */
    char *target;          /* of a link */
    struct staged **children; /* of a directory, by id */
    size_t n, cap;
    size_t open, writers;
    bool frozen; /* is being registered, with all that is in it */
    node_id became;
    UT_hash_handle by_id, by_name;
};

struct staging {
    pthread_mutex_t lock;
    struct kept {
        int64_t *ids;
        size_t n;
    } kept[KEPT];
    size_t next_kept;
    struct staged *by_id, *by_name; /* uthash heads */
    struct staged root;
    int64_t next_id;
    size_t nodes, max_nodes;
    int64_t bytes, max_bytes, max_file;
};

struct staged *staged_find(struct staging *s, int64_t id);
const char *staged_name(const struct staged *n);
/* Where a child of that id is, or would go. */
size_t staged_position(const struct staged *dir, int64_t id);
/* Whether it was taken out of its directory; whether it is being registered. */
bool staged_removed(const struct staging *s, const struct staged *n);
bool staged_frozen(const struct staged *n);
/* Takes it out of its directory. */
void staged_leave(struct staged *n);
/* Nobody needs it any more. */
void staged_forget(struct staging *s, struct staged *n);

#endif
