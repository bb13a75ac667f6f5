/* Checkpoints that have something in common: those of a run, of a trace, of a snapshot. Kept by the index, under its lock. */
#ifndef TREE_GROUPS_H
#define TREE_GROUPS_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include <uthash.h>

struct index_entry;

enum group_kind { GROUP_RUN, GROUP_TRACE, GROUP_SNAPSHOT, GROUP_KINDS };

/* A checkpoint has a place in a group of each kind, and one more in a trace's: its state may name another trace than its meta.json does. */
enum group_place { PLACE_STATE_TRACE = GROUP_KINDS, GROUP_PLACES };

struct group_member {
    int64_t key;     /* order in the group, no two the same; stays as long as the member does */
    int64_t changed; /* ns */
    struct index_entry *e;
};

/* What is computed of a run's picture, until something in the run changes. Readers set it under the read lock, all to the same. */
struct group_picture {
    _Atomic int64_t size; /* -1 = not computed */
    _Atomic int64_t mtime;
};

struct index_group {
    char *id;
    char *filename;  /* text.h id_to_filename */
    int64_t row;     /* first 52 bits of the id's SHA-256: the same on every mount */
    int64_t number;  /* order of appearance on this mount, for listing */
    int64_t changed; /* ns: last change of a member */
    struct group_member *members; /* by key */
    size_t n, cap;
    struct group_picture pictures[2]; /* timeline.svg, timeline.txt */
    UT_hash_handle by_name;
    UT_hash_handle by_row;
};

struct group_table {
    struct index_group *by_name, *by_row; /* uthash heads */
    struct index_group **sorted;          /* by number */
    size_t n, cap;
    int64_t next;
};

/* Puts an entry into the groups that it belongs to as it is now, and out of others. `shown` false: out of all. When memory is short it
 * is in no group until its next change. */
void groups_update(struct group_table tables[GROUP_KINDS], struct index_entry *e, int shown);
void groups_free(struct group_table tables[GROUP_KINDS]);

struct index_group *group_by_name(const struct group_table *t, const char *filename);
struct index_group *group_by_row(const struct group_table *t, int64_t row);
/* The first group with a number of at least `number`; NULL at the end. */
struct index_group *group_from(const struct group_table *t, int64_t number);
/* The place of the first member with a key of at least `key`; g->n at the end. */
size_t group_place(const struct index_group *g, int64_t key);

#endif
