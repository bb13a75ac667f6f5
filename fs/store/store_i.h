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
    struct store *store; /* the connection is of */
    unsigned silences;   /* the store's, when it was connected */
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
    bool migrated;         /* the schema is there: set when it is opened, before anybody else has it */
    atomic_bool abandoned; /* store_abandon */
    atomic_uint silences;  /* store_unanswered: how often. When it grows waits end, and connections made before are no good */
    atomic_int_least64_t heard_ms; /* clock_mono_ms at which something came from the server, on whichever connection */
    atomic_int_least64_t mount_id; /* of store_mount_register */
    char *password;        /* that the last connection was made with, wherever libpq has it from; under lock */
    void (*probe)(void *arg, const char *what);
    void *probe_arg;
    char *(*mask)(void *arg, const char *text); /* store_set_mask; NULL = nothing is a secret */
    void *mask_arg;
};

/* Reads a connection string and makes an unconnected pool. -EINVAL (the text doesn't quote it), -ENOMEM. */
int pool_new(const char *conninfo, int connections, struct store **ret, struct err *e);
void pool_free(struct store *s);
/* Waits until `deadline_ms` for a free connection, and connects it where needed. Whoever is `patient` leaves a third of them to those who
 * hold a directory, or keep the lease, or only read. */
int pool_checkout(struct store *s, bool patient, int64_t deadline_ms, struct conn **ret, struct err *e);
void pool_checkin(struct store *s, struct conn *c);
/* Connects one that is not of the pool, with the same settings; PQfinish it. */
int pool_connect(struct store *s, struct conn *c, struct err *e);

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
int store_tx_of(struct store *s, const char *who, enum tx_mode mode, tx_fn fn, void *arg, struct err *e);
#define store_tx(s, mode, fn, arg, e) store_tx_of(s, __func__, mode, fn, arg, e)

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
extern const char schema_audit[];    /* 2: the hash chains of the audit log */
extern const char schema_shared[];   /* 3: several mounts on one store: changes, fencing, workers */
extern const char schema_undo[];     /* 4: going back: undo, adopt */
extern const char schema_branches[]; /* 5: isolated branches */
extern const char schema_plans[];    /* 6: prune plans, imports */
extern const char schema_requests[]; /* 7: what Neon was asked for each item of a plan */
extern const char schema_stretches[]; /* 8: where what replaced the active branch came from */
extern const char schema_traces[]; /* 9: the trace that a state names itself */
extern const char schema_texts[]; /* 10: texts of any length */
extern const char schema_commits[]; /* 11: what was committed, for whoever didn't hear of it */
extern const char schema_releases[]; /* 12: what an attempt was before it was claimed */
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
    const char *branch;    /* name of the isolated branch */
    const char *action;    /* uid of the action */
    const char *by;        /* JSON text of who_json */
    const char *outcome;
    int code;              /* positive errno */
    const char *message;
    json_t *more;          /* further fields; borrowed */
    const char *told;      /* more of them as JSON text, `"name":value,…`, put last: what jansson can't hold keeps its digits; or NULL */
    int64_t asked_by;      /* the action whose document says what it asked of Neon: that is told too; 0 = nothing */
};

/* Appends an event to the audit log and tells other mounts. The last statement of a transaction: it takes the log's lock. */
int event_append(struct conn *c, const struct event *ev, struct err *e);
/* {uid,gid,user,pid,command,host} as JSON text, owned by the caller; `who` may be NULL: "{}". NULL = out of memory. */
char *who_json(const struct store_who *who);
/* A JSON string of text that may hold invalid UTF-8. */
json_t *json_text(const char *s);
/* Tells other mounts that a checkpoint changed, where there is no event to do it. */
int notify_change(struct conn *c, int64_t checkpoint, struct err *e);

/* Size of a state under way, for a query of `checkpoints k`: its last cut or extension, and what was written beyond it since. */
#define PARTS_SIZE                                                                                                               \
    "CASE WHEN k.phase IN ('taking', 'saved') THEN (SELECT greatest(t.off, max(p.off + octet_length(p.bytes)))"                  \
    " FROM checkpointfs.state_parts p LEFT JOIN LATERAL (SELECT off, id FROM checkpointfs.state_parts"                           \
    " WHERE checkpoint_id = k.id AND bytes IS NULL ORDER BY id DESC LIMIT 1) t ON true"                                          \
    " WHERE p.checkpoint_id = k.id AND p.id >= coalesce(t.id, 0) GROUP BY t.off) END"
/* As of which part: of two answers the one with the greater number is the newer. 0 = there is none. */
#define PARTS_LAST "coalesce((SELECT max(p.id) FROM checkpointfs.state_parts p WHERE p.checkpoint_id = k.id), 0)"

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
    int64_t isolated;     /* the branch whose database it belongs to; 0 = the line's */
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
    int64_t mount_id;     /* whose it is */
    enum action_kind kind;
    enum action_state state;
    bool restored;        /* store_restore_done was recorded */
    bool blocks_takes;
    int64_t isolated;     /* the branch it works on; 0 = the line */
    bool of_branch;       /* that branch, not the checkpoint, has its status, result and attempt */
};
void act_row_free(struct act_row *a);
/* Fills in which line, checkpoint and action an event is about, who asked, and what was asked of Neon. It borrows from both rows. */
void event_about(struct event *ev, const struct act_row *act, const struct ck_row *k);
#define cleanup_act __attribute__((cleanup(act_row_free)))

/* Every change of a line happens under its row's lock, taken first: so changes don't deadlock, and what is read stays true. */
int line_lock(struct conn *c, int64_t line_id, struct err *e);
/* Locks the line of a checkpoint and reads the checkpoint. -ENOENT. */
int ck_lock(struct conn *c, int64_t checkpoint, struct ck_row *ret, struct err *e);
/* Reads a checkpoint whose line is locked. -ENOENT. */
int ck_read(struct conn *c, int64_t checkpoint, struct ck_row *ret, struct err *e);
/* Locks the line of an action of this mount's and reads the action. -ENOENT; -ESTALE when another mount has taken it over. */
int act_lock(struct conn *c, int64_t action, struct act_row *ret, struct err *e);
/* The same of anybody's action. */
int act_lock_any(struct conn *c, int64_t action, struct act_row *ret, struct err *e);
/* Whether an action of mount `owner` is this mount's: no registration, no owners. */
bool act_mine(const struct conn *c, int64_t owner);
bool act_settled(const struct act_row *a);
/* -EBUSY with a text naming it while an action on the checkpoint is unsettled; takes only count with `takes`, cancels never. */
int ck_idle(struct conn *c, const struct ck_row *k, bool takes, struct err *e);
/* -EBUSY while an agent was woken, or is about to be: it works with the checkpoint's path. */
int ck_no_agent(struct conn *c, const struct ck_row *k, struct err *e);

/* -EPERM while its meta.json pins it. */
int ck_unpinned(struct conn *c, const struct ck_row *k, struct err *e);
/* Whether that meta.json pins: `pin` is anything but false, null, 0 and "". */
bool meta_pinned(const char *bytes, size_t n);

/* The unsettled restore, resume or replay of a line, if any: -EBUSY with a text naming it. */
int line_busy(struct conn *c, int64_t line_id, struct err *e);
/* -EBUSY while a restore is queued or under way that takes mustn't overtake. */
int line_takes_blocked(struct conn *c, int64_t line_id, struct err *e);

/* ---- restores.c ------------------------------------------------------------------------------------------------------ */

/* -ENODATA when the line has nothing left to undo. */
int undo_left(struct conn *c, int64_t line_id, struct err *e);

struct iso_row;
/* What a restore in place, an undo, a promotion, an adopt or a delete has done in Neon. */
struct done_args {
    int64_t action;
    int64_t undone; /* the restore that an undo goes back behind */
    const char *new_branch, *old_branch, *replaced_name, *endpoint_id, *decisions;
    const char *doc;
};
/* The branch that is active now, and the one that it replaced. */
int record_branches(struct conn *c, const struct act_row *act, const struct done_args *a, struct err *e);
/* Which checkpoints belong to the database that is there now: `k` and what is behind it. */
int record_line(struct conn *c, const struct act_row *act, const struct ck_row *k, const struct done_args *a,
                struct err *e);
/* The same of a promoted isolated branch, made from `k`. */
int record_promoted(struct conn *c, const struct act_row *act, const struct ck_row *k, const struct iso_row *i,
                    const struct done_args *a, struct err *e);
/* A new attempt: open for whoever decides, or claimed at once by the replay that brings its decision along. */
int new_attempt(struct conn *c, const struct act_row *act, const struct ck_row *k, const struct done_args *a,
                const struct event *base, struct err *e);
/* The action blocks takes no more. */
int takes_may_pass(struct conn *c, const struct act_row *act, struct err *e);

/* ---- stretch.c ------------------------------------------------------------------------------------------------------- */

/* What is on line and isn't behind `k` goes off line, for `action`: the active database is that of `k` now. `k` itself is the caller's. */
int others_off_line(struct conn *c, const struct ck_row *k, int64_t action, struct err *e);

/* ---- isolated.c ------------------------------------------------------------------------------------------------------ */

/* An isolated branch, read under its line's lock. */
struct iso_row {
    int64_t id;
    int64_t checkpoint;
    char *checkpoint_name;
    char *name;
    char *path;          /* where it is in the mount, as it is offered for copying */
    enum isolated_state state;
    char *branch_id;
    int64_t attempt;
    char *attempt_state; /* NULL = none */
};
void iso_row_free(struct iso_row *i);
#define cleanup_iso __attribute__((cleanup(iso_row_free)))
/* -ESTALE when it was deleted. */
int iso_read(struct conn *c, int64_t id, struct iso_row *ret, struct err *e);
/* -EBUSY, -ESTALE when it can't be worked on. */
int iso_ready(const struct iso_row *i, struct err *e);
/* -EBUSY with a text while something works on the branch; takes count only with `takes`. */
int iso_busy(struct conn *c, const struct iso_row *i, bool takes, struct err *e);
/* -EBUSY while it is being promoted or deleted: takes mustn't overtake that. */
int iso_changing(struct conn *c, const struct iso_row *i, struct err *e);
/* -EEXIST, else makes the row of a branch, and takes the number of the action that is about to make it. */
int iso_make(struct conn *c, const struct ck_row *k, const char *name, int64_t *ret_action, int64_t *ret, struct err *e);
/* -EBUSY while the checkpoint has branches. */
int iso_none_of(struct conn *c, const struct ck_row *k, struct err *e);
int iso_activity(struct conn *c, int64_t id, const char *activity, struct err *e);
/* An action on it ended: its outcome (NULL leaves it, "" clears it), and with `idle` nothing is under way any more. */
int iso_finish(struct conn *c, int64_t id, bool idle, const char *outcome, struct err *e);
/* What a branch shows changed: its time, and that of its checkpoint, by which the other mounts hear of it. */
int iso_touch(struct conn *c, int64_t id, struct err *e);
/* The columns of a branch's row for iso_branch_read; append a WHERE. The first is its checkpoint. */
extern const char iso_columns[];
int iso_branch_read(const PGresult *r, int row, struct store_branch *ret);

/* ---- files.c --------------------------------------------------------------------------------------------------------- */

/* Stores a rendered file (SNAPSHOT, CHECKPOINT, TRANSCRIPT or META) and its size and time in the checkpoint's row. */
int file_put(struct conn *c, int64_t checkpoint, enum store_file file, const void *bytes, size_t n, struct err *e);
/* -EAGAIN when meta.json isn't that any more; NULL: when there is one. */
int meta_is(struct conn *c, int64_t checkpoint, const struct buf *meta, struct err *e);
/* Bytes in rows of STORE_CHUNK: a state's under its checkpoint's number, a long transcript's under the same, negative. They are written
 * before the line is locked: nobody waits for them. Nor for libpq, which with every piece that it sends moves all that it couldn't send
 * yet: 100 MB at once take seconds. -EEXIST when there are some. */
int chunks_put(struct conn *c, int64_t number, const void *bytes, size_t n, struct err *e);
static inline bool transcript_is_long(const struct buf *text) { return text->len > (size_t)STORE_CHUNK; }
/* Stores it; of a long one all but the chunks. */
int transcript_put(struct conn *c, int64_t checkpoint, const struct buf *text, struct err *e);
/* Stores what is known of a checkpoint's snapshot. */
int snapshot_put(struct conn *c, int64_t checkpoint, const struct store_snapshot *snap, struct err *e);
/* Removes everything that a checkpoint holds, but not its row. */
int checkpoint_empty(struct conn *c, int64_t checkpoint, struct err *e);
/* Removes a checkpoint. */
int checkpoint_remove(struct conn *c, int64_t checkpoint, struct err *e);

/* ---- marks.c --------------------------------------------------------------------------------------------------------- */

/* What was done to a checkpoint, or to those of a line with after < seq <= last: rows in order of seq, for marks_attach. */
int marks_of(struct conn *c, int64_t checkpoint, PGresult **ret, struct err *e);
int marks_of_page(struct conn *c, int64_t line_id, int64_t after, int64_t last, PGresult **ret, struct err *e);
/* Moves the rows of `k`, which begin at *row, into it. */
int marks_attach(const PGresult *res, int *row, struct store_checkpoint *k, struct err *e);
/* ---- seal.c ---------------------------------------------------------------------------------------------------------- */

/* The state's bytes, and those of a long transcript; whether the state's are there whole. Neither needs the line's lock. */
int seal_chunks(struct conn *c, int64_t checkpoint, const struct store_seal *seal, struct err *e);
int seal_verify(struct conn *c, int64_t checkpoint, const struct store_seal *seal, struct err *e);
/* All rows of a sealed state, and its rendered files. */
int seal_put(struct conn *c, int64_t checkpoint, const struct store_seal *seal, struct err *e);

/* ---- output.c -------------------------------------------------------------------------------------------------------- */

/* How long an output of `total` bytes is when it is read; what is no size (-1) stays so. */
int64_t output_shown(int64_t total);

/* ---- attempts.c ------------------------------------------------------------------------------------------------------ */

/* Opens a new attempt and makes it the present one of the checkpoint, or of its isolated branch. */
int attempt_open(struct conn *c, int64_t checkpoint, int64_t isolated, int64_t opened_by, int64_t *ret, struct err *e);
/* Claims an attempt for an action and stores what was decided, each decision with its call's arguments_sha256. `*ret_told`
 * is what the audit log tells of them, for `told` of an event (owned by the caller). Numbers of any size pass. -EINVAL: not the JSON it
 * should be. -ESTALE: other arguments were meant. */
int attempt_claim(struct conn *c, int64_t checkpoint, int64_t isolated, int64_t attempt, int64_t action, const char *decisions,
                  char **ret_told, struct err *e);
/* `approval.decided` with what attempt_claim returned; and `approval.requested` when undecided calls wait. */
int decided_event(struct conn *c, const struct event *base, int64_t attempt, bool again, const char *told, struct err *e);
int approval_requested(struct conn *c, const struct event *base, int64_t attempt, struct err *e);
int attempt_set(struct conn *c, int64_t attempt, const char *state, struct err *e);
/* As it was before it was claimed: `*ret`, which the caller frees, is what was told of it then, "" where it was open. */
int attempt_release(struct conn *c, int64_t attempt, char **ret, struct err *e);

/* ---- plans.c --------------------------------------------------------------------------------------------------------- */

#define PLAN_ITEM_COLUMNS                                                                                                        \
    "SELECT i.n, i.checkpoint_id, i.uid, i.name, i.what = 'checkpoint', i.why, i.pending, i.latest, i.snapshots > 0, i.state_bytes,"  \
    " i.snapshot_id, i.outcome, i.message, i.requests::text FROM checkpointfs.plan_items i JOIN checkpointfs.plans p ON p.id = i.plan_id "
/* Another checkpoint than `k` stands on its snapshot too: a fork and its original. */
#define SHARED_SNAPSHOT                                                                                                          \
    "EXISTS (SELECT 1 FROM checkpointfs.checkpoints o WHERE o.snapshot_id = k.snapshot_id AND o.id <> k.id AND NOT o.missing)"
/* Its state is being written, or was cut short: no rule may take what a write was told is kept. */
#define UNSEALED_STATE                                                                                                           \
    "k.phase = 'saved' AND NOT k.closed AND EXISTS (SELECT 1 FROM checkpointfs.state_parts w WHERE w.checkpoint_id = k.id)"
int plan_item_read(const PGresult *res, int row, struct store_plan_item *ret, struct err *e);

/* ---- handed.c -------------------------------------------------------------------------------------------------------- */

/* The living mount of the line with a resume command that has the least to do: of any host ("any"), or of that one. *ret_host is owned by
 * the caller. -EOPNOTSUPP: there is none. */
int worker_pick(struct conn *c, int64_t line_id, const char *worker, int64_t *ret, char **ret_host, struct err *e);
/* The action is that mount's now, on that host, and not yet begun. `branch`: the isolated branch whose status says so; 0 = the
 * checkpoint's. */
int worker_give(struct conn *c, int64_t action, int64_t checkpoint, int64_t branch, const char *host, struct err *e);

/* ---- journal.c ------------------------------------------------------------------------------------------------------- */

/* Appends an action's row; `id` 0 takes the next. */
struct act_new {
    int64_t id;
    enum action_kind kind;
    enum action_state state;
    int64_t line_id;
    int64_t checkpoint;
    int64_t attempt;
    int64_t isolated;
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
 * something since, that of one that `ended` always, since it is the last outcome. `isolated`: the `result` is that branch's; and the
 * checkpoint's too of the action that made the branch, which was written to the checkpoint's file. */
int act_doc(struct conn *c, int64_t action, int64_t checkpoint, int64_t isolated, const char *doc, bool ended, struct err *e);
/* Tells the log that the action is another mount's now. */
int over_event(struct conn *c, int64_t from, int64_t to, const struct act_row *act, struct err *e);
/* Settles the row and gives the turn back. */
int act_settle(struct conn *c, int64_t action, enum action_state state, int code, const char *message, struct err *e);
/* `doc` with the action's public id as its first member, set as the others are. Owned by the caller; NULL = out of memory. */
char *doc_with_id(const char *doc, const char *uid);
/* Whether the isolated branch that action `a` works on is one of its checkpoint's: else the checkpoint was taken on it. */
#define ACT_OF_BRANCH                                                                                                            \
    "(a.kind <> 'take' AND EXISTS (SELECT 1 FROM checkpointfs.isolated_branches i WHERE i.id = a.isolated_id"                    \
    " AND i.checkpoint_id = a.checkpoint_id))"
extern const char act_columns[];
int act_read(const PGresult *r, int row, struct store_action *ret, struct err *e);

#endif
