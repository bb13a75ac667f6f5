/* What Neon holds beside snapshots: limits, replaced branches, expiries (fs/store/room.c). Errors, threads and bounds: store.h. */
#ifndef STORE_ROOM_H
#define STORE_ROOM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/err.h"

struct store;

/* A plan's limits, -1 = not known, and what counts towards them, as Neon said last. */
struct store_room {
    int64_t max_snapshots, max_root_branches, max_branches;
    int64_t snapshots;     /* manual ones, whoever took them */
    int64_t root_branches, branches;
};
/* Nothing is known of a project that was never looked at: every limit -1, every count 0. */
int store_room(struct store *s, const char *project_id, struct store_room *ret, struct err *e);
int store_room_put(struct store *s, const char *project_id, const struct store_room *room, struct err *e);

/* A branch that is no longer the active one of its line and still in Neon. */
struct store_replaced {
    int64_t id;           /* row id: its inode */
    char *branch_id;
    char *name;           /* in Neon */
    int64_t size;         /* logical, bytes; -1 = not known yet */
    int64_t created_at;   /* ns, 0 = not known yet */
    int64_t replaced_at;  /* ns */
    int64_t changed_at;   /* ns: last change of any of this */
    bool made_here;       /* an action of this store replaced it, else somebody from outside */
    char *by_action, *by_checkpoint, *by_name; /* which action, of which checkpoint (id, and name then); NULL = not known */
};
int store_replaced(struct store *s, int64_t line_id, struct store_replaced **ret, size_t *ret_n, struct err *e);
void store_replaced_free(struct store_replaced *l, size_t n);
/* What Neon says of it now. */
int store_replaced_put(struct store *s, int64_t id, const char *name, int64_t size, int64_t created_at, bool gone, struct err *e);

/* A snapshot whose expiry isn't yet what its checkpoint's meta.json says: announced by the change of meta.json. */
struct store_expiry {
    int64_t checkpoint;
    char *snapshot_id;
    int64_t at; /* ns; 0 = never */
};
int store_expiries(struct store *s, int64_t line_id, struct store_expiry **ret, size_t *ret_n, struct err *e);
void store_expiries_free(struct store_expiry *l, size_t n);
/* Neon was told (`refused` NULL) or said no: it isn't asked again for that time. `requests`: by which it was, a JSON list as in the
 * journal's steps, for the log; NULL = none. */
int store_expiry_done(struct store *s, int64_t checkpoint, int64_t at, const char *refused, const char *requests, struct err *e);

#endif
