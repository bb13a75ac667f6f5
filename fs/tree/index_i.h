/* Private to the index: what it is made of. */
#ifndef TREE_INDEX_I_H
#define TREE_INDEX_I_H

#include <pthread.h>
#include <stdatomic.h>

#include "tree/index.h"

#define TEXTS (MOUNT_ADOPT + 1)

/* Where a call is, by its row id. */
struct place {
    int64_t call;
    int64_t checkpoint;
    UT_hash_handle hh;
};

/* The connection string of an isolated branch. */
struct branch_uri {
    int64_t branch;
    char *line;
    UT_hash_handle hh;
};

/* An action by its public id, which is its file's name. */
struct named_action {
    char uid[32];
    int64_t id;
    UT_hash_handle hh;
};

struct index {
    pthread_rwlock_t lock;
    struct index_entry *by_id; /* uthash heads */
    struct index_entry *by_name;
    struct index_entry *by_uid;
    struct group_table groups[GROUP_KINDS];
    struct index_entry **sorted; /* by id */
    size_t n, cap;
    struct place *calls;
    struct place *branches; /* `call` is the branch */
    struct branch_uri *uris;
    struct named_action *action_names;
    struct index_temp *temps;
    int64_t next_temp;
    struct index_text texts[TEXTS];
    int64_t events_size, events_mtime;
    struct store_action_entry *actions; /* by id */
    size_t n_actions, cap_actions;
    int64_t control_action;
    bool sealed_only;
    int64_t snapshots, state_bytes; /* of the entries */
    int64_t foreign;                /* further snapshots that Neon has, when it was looked at last */
    int64_t max_snapshots;
    struct index_replaced *replaced;
    size_t n_replaced;
    int64_t lost;
    /* What index_latest found, until a writer changes something. Readers set it under the read lock, all of them to the same. */
    _Atomic(struct index_entry *) latest;
    atomic_bool latest_known;
};

/* ---- index_temps.c ---------------------------------------------------------------------------------------------------- */

/* Both under the write lock: those of one checkpoint, and all of them. */
void index_temps_drop(struct index *x, int64_t checkpoint);
void index_temps_free(struct index *x);

/* ---- index_texts.c ---------------------------------------------------------------------------------------------------- */

void index_texts_free(struct index *x);

/* ---- index_actions.c -------------------------------------------------------------------------------------------------- */

void index_actions_free(struct index *x);

#endif
