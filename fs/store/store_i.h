/* Private to the store: connections with deadlines, transactions that can be run again, statements, events, row readers. */
#ifndef STORE_STORE_I_H
#define STORE_STORE_I_H

#include <pthread.h>
#include <stdatomic.h>

#include <jansson.h>
#include <libpq-fe.h>

#include "store/store.h"
#include "util/cleanup.h"

/* Bytes of a state in one row. */
#define STORE_CHUNK (256LL * 1024)

/* ---- pool.c ---------------------------------------------------------------------------------------------------------- */

/* A connection while a call uses it. */
struct conn {
    PGconn *pg;          /* NULL = has to be connected */
    int64_t deadline_ms; /* of the call that uses it, in clock_mono_ms */
    bool in_use;
    bool dead;           /* broken or timed out: thrown away at checkin */
    bool bounded;        /* a call of 2 s: every timeout is EIO */
    const atomic_bool *abandoned; /* the store's: no more waiting */
    char sqlstate[6];    /* of the last failed statement; "" = none */
};

struct store {
    pthread_mutex_t lock;
    pthread_cond_t freed;
    PQconninfoOption *options; /* owns the values */
    const char **keywords;
    const char **values;
    struct conn *conns;
    int n;
    atomic_bool abandoned; /* store_abandon */
};

/* Reads a connection string and makes an unconnected pool. -EINVAL (the text doesn't quote it), -ENOMEM. */
int pool_new(const char *conninfo, int connections, struct store **ret, struct err *e);
void pool_free(struct store *s);
/* Waits until `deadline_ms` for a free connection, and connects it where needed. */
int pool_checkout(struct store *s, int64_t deadline_ms, struct conn **ret, struct err *e);
void pool_checkin(struct store *s, struct conn *c);

/* ---- query.c --------------------------------------------------------------------------------------------------------- */

enum tx_mode {
    TX_READ,      /* one consistent view, read only; run again when the connection breaks */
    TX_READ_LONG, /* the same with minutes instead of 30 s */
    TX_WRITE,     /* read committed; run again after a deadlock, and after a broken connection unless it was committed: whether it
                   * was is asked on another connection. Its body returns 0 */
    TX_WRITE_LONG,
    TX_BOUNDED,   /* TX_WRITE within 2 s */
    TX_ONE,       /* one writing statement that is its own transaction */
    TX_ONE_READ,  /* one reading statement */
};

/* The body of a transaction. May be run several times: it sets its outputs only when it succeeds. */
typedef int (*tx_fn)(struct conn *c, void *arg, struct err *e);
int store_tx(struct store *s, enum tx_mode mode, tx_fn fn, void *arg, struct err *e);

/* Runs one statement; results come in binary. `types` has a letter for each parameter: s const char * (NULL = null; invalid UTF-8
 * is replaced by U+FFFD), i int64_t, b int as boolean, y const void * and size_t (bytea; a NULL pointer = null). */
int q(struct conn *c, PGresult **ret, struct err *e, const char *sql, const char *types, ...);
/* A statement without parameters, possibly several. */
int q_simple(struct conn *c, const char *sql, struct err *e);

static inline void cleanup_result_p(PGresult **r) { PQclear(*r); }
#define cleanup_result __attribute__((cleanup(cleanup_result_p)))

/* Columns of a result. */
int64_t col_int(const PGresult *r, int row, int col); /* null = 0 */
bool col_bool(const PGresult *r, int row, int col);
bool col_null(const PGresult *r, int row, int col);
const char *col_text(const PGresult *r, int row, int col); /* null = NULL; lives as long as the result */
char *col_dup(const PGresult *r, int row, int col, bool *failed); /* null = NULL; *failed is set when memory is out */
void col_bytes(const PGresult *r, int row, int col, struct buf *out); /* appends */
int64_t affected(const PGresult *r);

/* The first column of the first row of a reading statement, appended to `ret`. -ENOENT (naming `what`) if there is none. */
int q_bytes(struct conn *c, struct buf *ret, struct err *e, const char *what, const char *sql, int64_t id);

/* ---- schema.c -------------------------------------------------------------------------------------------------------- */

/* The schema's migrations, in order: version 1 is the first. */
extern const char *const store_migrations[];
extern const int store_schema_version;
/* Rights of the mount's role; %1$s is the quoted role. */
extern const char store_grants[];

/* ---- events.c -------------------------------------------------------------------------------------------------------- */

/* What an event is about; NULL and 0 leave a field out. */
struct event {
    const char *what;      /* dotted name */
    int64_t line_id;
    int64_t checkpoint;
    const char *uid;       /* of the checkpoint */
    const char *name;
    const char *action;    /* uid of the action */
    const char *by;        /* JSON text of who_json */
    const char *outcome;
    int code;              /* positive errno */
    const char *message;
    json_t *more;          /* further fields; borrowed */
};

/* Appends an event to the audit log and tells other mounts. The last statement of a transaction: it takes the log's lock. */
int event_append(struct conn *c, const struct event *ev, struct err *e);
/* {uid,user,pid,command,host} as JSON text, owned by the caller; `who` may be NULL: "{}". NULL = out of memory. */
char *who_json(const struct store_who *who);
/* A JSON string of text that may hold invalid UTF-8. */
json_t *json_text(const char *s);
/* Tells other mounts that a checkpoint changed, where there is no event to do it. */
int notify_change(struct conn *c, int64_t checkpoint, struct err *e);

/* ---- rows.c ---------------------------------------------------------------------------------------------------------- */

extern const char *const phase_names[];
extern const char *const kind_names[];
extern const char *const state_names[];
/* The number of `name` in a NULL-terminated list; -1 when it isn't there. */
int name_index(const char *const *names, const char *name);

/* What the verbs decide on, read under the line's lock. */
struct ck_row {
    int64_t id;
    int64_t line_id;
    char *uid;
    char *name;
    enum checkpoint_phase phase;
    bool closed;
    bool missing;         /* its snapshot is missing */
    char *snapshot_id;
    char *snapshot_branch;
    int64_t offline_by;
    int64_t seq;
    int64_t attempt;
    char *attempt_state;  /* NULL = no attempt */
};
void ck_row_free(struct ck_row *k);
#define cleanup_ck __attribute__((cleanup(ck_row_free)))

struct act_row {
    int64_t id;
    int64_t line_id;
    int64_t checkpoint;
    int64_t attempt;
    char *uid;
    char *project_id;
    char *by;
    enum action_kind kind;
    enum action_state state;
    bool restored;        /* store_restore_done was recorded */
    bool blocks_takes;
};
void act_row_free(struct act_row *a);
/* Fills in which line, checkpoint and action an event is about, and who asked. It borrows from both rows. */
void event_about(struct event *ev, const struct act_row *act, const struct ck_row *k);
#define cleanup_act __attribute__((cleanup(act_row_free)))

/* Every change of a line happens under its row's lock, taken first: so changes don't deadlock, and what is read stays true. */
int line_lock(struct conn *c, int64_t line_id, struct err *e);
/* Locks the line of a checkpoint and reads the checkpoint. -ENOENT. */
int ck_lock(struct conn *c, int64_t checkpoint, struct ck_row *ret, struct err *e);
/* Reads a checkpoint whose line is locked. -ENOENT. */
int ck_read(struct conn *c, int64_t checkpoint, struct ck_row *ret, struct err *e);
/* Locks the line of an action and reads the action. -ENOENT. */
int act_lock(struct conn *c, int64_t action, struct act_row *ret, struct err *e);
bool act_settled(const struct act_row *a);
/* -EBUSY with a text naming it while an action on the checkpoint is unsettled; takes only count with `takes`, cancels never. */
int ck_idle(struct conn *c, const struct ck_row *k, bool takes, struct err *e);
/* -EBUSY while an agent was woken, or is about to be: it works with the checkpoint's path. */
int ck_no_agent(struct conn *c, const struct ck_row *k, struct err *e);

/* The unsettled restore, resume or replay of a line, if any: -EBUSY with a text naming it. */
int line_busy(struct conn *c, int64_t line_id, struct err *e);
/* -EBUSY while a restore is queued or under way that takes mustn't overtake. */
int line_takes_blocked(struct conn *c, int64_t line_id, struct err *e);

/* ---- files.c --------------------------------------------------------------------------------------------------------- */

/* Stores a rendered file (SNAPSHOT, CHECKPOINT, TRANSCRIPT or META) and its size and time in the checkpoint's row. */
int file_put(struct conn *c, int64_t checkpoint, enum store_file file, const void *bytes, size_t n, struct err *e);
/* Stores what is known of a checkpoint's snapshot. */
int snapshot_put(struct conn *c, int64_t checkpoint, const struct store_snapshot *snap, struct err *e);
/* Removes everything that a checkpoint holds, but not its row. */
int checkpoint_empty(struct conn *c, int64_t checkpoint, struct err *e);
/* Removes a checkpoint. */
int checkpoint_remove(struct conn *c, int64_t checkpoint, struct err *e);

/* ---- output.c -------------------------------------------------------------------------------------------------------- */

/* How long an output of `total` bytes is when it is read; what is no size (-1) stays so. */
int64_t output_shown(int64_t total);

/* ---- attempts.c ------------------------------------------------------------------------------------------------------ */

/* Opens a new attempt and makes it the checkpoint's present one. */
int attempt_open(struct conn *c, int64_t checkpoint, int64_t opened_by, int64_t *ret, struct err *e);
/* Claims an attempt for an action and stores what was decided, each decision with its call's arguments_sha256. `*ret_decided`
 * is the list for the audit log (owned by the caller). -EINVAL: not the JSON it should be. -ESTALE: other arguments
 * were meant. */
int attempt_claim(struct conn *c, int64_t checkpoint, int64_t attempt, int64_t action, const char *decisions,
                  json_t **ret_decided, struct err *e);
/* `approval.decided` with what attempt_claim returned; and `approval.requested` when undecided calls wait. */
int decided_event(struct conn *c, const struct event *base, int64_t attempt, bool again, json_t *decided, const char *decisions,
                  struct err *e);
int approval_requested(struct conn *c, const struct event *base, int64_t attempt, struct err *e);
int attempt_set(struct conn *c, int64_t attempt, const char *state, struct err *e);

/* ---- journal.c ------------------------------------------------------------------------------------------------------- */

/* Appends an action's row; `id` 0 takes the next. */
struct act_new {
    int64_t id;
    enum action_kind kind;
    enum action_state state;
    int64_t line_id;
    int64_t checkpoint;
    int64_t attempt;
    int64_t mount_id;
    const char *command;
    const char *decisions;
    const char *by;
    bool waiting;       /* asks for the project's turn */
    bool blocks_takes;
    int code;
    const char *message;
};
int act_insert(struct conn *c, const struct act_new *n, int64_t *ret_id, char **ret_uid, struct err *e);
/* Stores an action's document, and makes it the checkpoint's `result`: that of an action under way unless a newer one has said
 * something since, that of one that `ended` always, since it is the last outcome. */
int act_doc(struct conn *c, int64_t action, int64_t checkpoint, const char *doc, bool ended, struct err *e);
/* Settles the row and gives the turn back. */
int act_settle(struct conn *c, int64_t action, enum action_state state, int code, const char *message, struct err *e);
extern const char act_columns[];
int act_read(const PGresult *r, int row, struct store_action *ret, struct err *e);

#endif
