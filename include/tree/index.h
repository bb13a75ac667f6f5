/* The index: every checkpoint of the line, in memory, so that lookup, readdir and stat never ask the store (design.md §7.4).
 *
 * Loaded at mount, then each entry is replaced whole by what the store says after a change (index_put). One read-write lock;
 * whoever holds it calls nothing that blocks. Lock order: the index's lock is a leaf, nothing else is taken under it. */
#ifndef TREE_INDEX_H
#define TREE_INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <uthash.h>

#include "store/store.h"
#include "tree/groups.h"
#include "tree/node.h"
#include "util/buf.h"

/* 2026-01-01T00:00:00Z, ns: the time of what nothing dates and nothing changes. */
#define INDEX_EPOCH 1767225600000000000LL

struct index_entry {
    struct store_checkpoint c;
    int64_t draft_size;  /* bytes of a state that is being written; -1 = none */
    int64_t draft_mtime; /* ns */
    int64_t draft_part;  /* the last part of it that is known here (store_checkpoint.state_part); 0 = none */
    int64_t told_ms;     /* when the other mounts were told last that it was written to, monotonic */
    bool untold;         /* it was written to since */
    pid_t taken_by;      /* process that made the directory on this mount; 0 = another mount or an earlier one */
    pid_t taken_group;   /* and its group */
    bool by_agent;       /* and whoever did may decide nothing */
    pid_t sealed_by;     /* process that wrote the state on this mount */
    int64_t sealed_ms;   /* and when, monotonic */
    pid_t copier;        /* process that was refused a file of a backup here: it writes no state here */
    const char *copied;  /* and which file that was (tree_backup_file) */
    pid_t refused_to[2]; /* process that was told last, in `result`, why a name is refused here; [1]: why state.json is, to a copier */
    int64_t refused_ms;  /* when one that isn't known was, monotonic; 0 = never */
    bool listed;         /* whoever takes or took it has read its directory since */
    int take_code;       /* positive errno that the take failed with; 0 = not known */
    bool sealing;        /* a close has come on this mount: the seal is under way, or about to be if that was the last */
    bool last_close;     /* it was */
    struct index_group *groups[GROUP_PLACES]; /* by group_kind and group_place; NULL = in none */
    int64_t keys[GROUP_PLACES];               /* its order in each, */
    int64_t wanted[GROUP_PLACES];             /* and what that comes from */
    UT_hash_handle by_id;
    UT_hash_handle by_name;
    UT_hash_handle by_uid;
};

/* A temporary file in a checkpoint's directory, there only to be renamed onto state.json or meta.json. In memory: nothing is accepted
 * before that rename. */
struct index_temp {
    int64_t id;
    int64_t checkpoint;
    char *name;
    struct buf data;
    int64_t mtime;
    unsigned became; /* CKPT_STATE or CKPT_META after the rename: the kernel still knows it by this inode (traps.md 14) */
    UT_hash_handle hh;
};

/* A file of the mount itself whose text is kept here. */
struct index_text {
    char *bytes;
    size_t n;
    int64_t mtime;
};

struct index;

/* NULL when out of memory. */
struct index *index_new(void);
void index_free(struct index *x);

/* -o ro: only sealed checkpoints and finished outputs are there (design.md §7.2). Before the index is used. */
void index_set_sealed_only(struct index *x, bool on);

void index_read_lock(struct index *x);
void index_write_lock(struct index *x);
void index_unlock(struct index *x);

/* What changed between an entry and its replacement: which of the kernel's caches no longer hold. */
struct index_change {
    int64_t checkpoint;   /* 0 = none: the mount's own files */
    bool every_status;    /* the store was lost, or is back: what the status of each checkpoint and branch says is another */
    char *old_name;       /* NULL = it is new */
    char *new_name;       /* NULL = it is gone */
    bool listing;         /* files appeared or vanished in its directory */
    bool sealed;          /* it became immutable */
    int64_t *calls;       /* call row ids that are gone; owned */
    size_t n_calls;
};
void index_change_clear(struct index_change *c);

/* Takes over what `c` owns; replaces the entry of the same id. A state under way of which a later part is known here keeps its size. Locks
 * for itself. -ENOMEM: the entry stays as it was. `change` may be NULL. */
int index_put(struct index *x, struct store_checkpoint *c, struct index_change *change);
/* Bytes of a state under way changed on this mount by `part` (0: by none that is new): it has `size` of them, -1 = it was removed; unless
 * `exactly`, at least so many. Locks for itself. */
void index_draft(struct index *x, int64_t checkpoint, int64_t size, int64_t part, bool exactly);
/* The same of what the store says it has, as of `part`: older than what is known here, it changes nothing. Returns what it has now,
 * -1 = none. */
int64_t index_draft_seen(struct index *x, int64_t checkpoint, int64_t size, int64_t part);
/* The checkpoint is gone. Locks for itself. */
void index_remove(struct index *x, int64_t id, struct index_change *change);

/* The rest is for callers that hold the lock; what they return is valid until it is released. */
struct index_entry *index_by_id(struct index *x, int64_t id);
struct index_entry *index_by_name(struct index *x, const char *name);
struct index_entry *index_by_uid(struct index *x, const char *uid);
/* Those that are shown, by run, trace or snapshot. */
const struct group_table *index_groups(const struct index *x, enum group_kind kind);
/* The checkpoint that has the pending call of that row id. */
struct index_entry *index_by_call(struct index *x, int64_t call);
/* The checkpoint that has the isolated branch of that row id, and the branch; NULL = none. */
struct index_entry *index_by_branch(struct index *x, int64_t branch, const struct store_branch **ret);
const struct store_branch *entry_branch(const struct index_entry *e, const char *name);
/* The connection string of an isolated branch with its newline; NULL = not known (yet). index_set_branch_uri locks for itself; `uri` NULL
 * forgets it. */
const char *index_branch_uri(struct index *x, int64_t branch);
int index_set_branch_uri(struct index *x, int64_t branch, const char *uri);
/* The first entry with an id of at least `id`, in order of id; NULL at the end. */
struct index_entry *index_from(struct index *x, int64_t id);
/* The same, of those too that a read-only mount doesn't show. */
struct index_entry *index_next(struct index *x, int64_t id);
size_t index_count(const struct index *x);
/* The newest sealed checkpoint that is on line; NULL = none. */
struct index_entry *index_latest(struct index *x);
/* Whether the checkpoint awaits a decision: it is listed in .pending/. */
bool entry_awaits(const struct store_checkpoint *c);
/* Whether a state may be written to it, now or once its snapshot has settled. */
bool entry_takes_state(const struct store_checkpoint *c);

/* Temporaries. index_temp_add: write lock; NULL when out of memory. */
struct index_temp *index_temp_add(struct index *x, int64_t checkpoint, const char *name);
struct index_temp *index_temp_by_name(struct index *x, int64_t checkpoint, const char *name);
struct index_temp *index_temp_by_id(struct index *x, int64_t id);
/* The first temporary of that checkpoint with an id over `after`. */
struct index_temp *index_temp_next(struct index *x, int64_t checkpoint, int64_t after);
void index_temp_remove(struct index *x, struct index_temp *t);
/* Sets its length in bytes, what is added is zero: write lock. -ENOSPC: all of them together would hold more than INDEX_TEMPS_MAX, which
 * are in memory until they are renamed or removed; -ENOMEM. */
#define INDEX_TEMPS_MAX (1LL << 30)
int index_temp_resize(struct index *x, struct index_temp *t, size_t size);

/* Texts of .control/. Locks for itself; `mtime` 0: one that is the same for the same bytes on every mount. */
int index_set_text(struct index *x, enum mount_kind kind, const char *text, int64_t mtime);
const struct index_text *index_text(const struct index *x, enum mount_kind kind);

/* What df shows. Both lock for themselves. */
struct index_usage {
    int64_t snapshots;     /* in Neon, as far as is known here: others' too */
    int64_t max_snapshots; /* the plan's limit; -1 = not known */
    int64_t state_bytes;   /* of all sealed states */
};
void index_usage(struct index *x, struct index_usage *ret);
/* What Neon said last: its snapshots that count, and the limit. */
void index_set_room(struct index *x, int64_t snapshots, int64_t max_snapshots);

/* .control/replaced/, in order of id. */
struct index_replaced {
    int64_t id;
    char *name; /* BRANCH_ID.json */
    char *text;
    size_t n;
    int64_t mtime;
};
/* Takes over the list and what it holds; each malloc'd. Locks for itself. */
void index_set_replaced(struct index *x, struct index_replaced *list, size_t n);
void index_replaced_free(struct index_replaced *list, size_t n);
/* The first one with an id of at least `id`; NULL at the end. Both for callers that hold the lock. */
const struct index_replaced *index_replaced_from(const struct index *x, int64_t id);
const struct index_replaced *index_replaced_by_name(const struct index *x, const char *name);
/* Since when nothing is heard of the store, ns; 0 = it lives. Every status says so meanwhile. Locks for itself. */
void index_set_lost(struct index *x, int64_t since);
int64_t index_lost(const struct index *x);

/* The audit log's size and time; locks for itself. */
void index_set_events(struct index *x, int64_t size, int64_t mtime);
void index_events(const struct index *x, int64_t *ret_size, int64_t *ret_mtime);

/* .control/actions/, in order of id. index_action_put locks for itself. */
int index_action_put(struct index *x, const struct store_action_entry *a);
const struct store_action_entry *index_action_from(const struct index *x, int64_t id);
const struct store_action_entry *index_action_by_uid(const struct index *x, const char *uid);
/* The last action of the mount itself, for .control/result; NULL = none. */
const struct store_action_entry *index_control_action(const struct index *x);
/* The newest action's id, 0 = none. Takes the lock itself. */
int64_t index_last_action(struct index *x);

#endif
