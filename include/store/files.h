/* What is read of the store: files, the log, metrics; and an agent's output, which is written too. Errors, threads and bounds: store.h. */
#ifndef STORE_FILES_H
#define STORE_FILES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/checkpoint.h"
#include "util/buf.h"
#include "util/err.h"

struct store;

/* Up to `n` bytes at `off`; fewer at the end. */
int store_read_state(struct store *s, int64_t checkpoint, int64_t off, size_t n, struct buf *ret, struct err *e);
/* A whole small file: SNAPSHOT, CHECKPOINT, TRANSCRIPT, META, RESULT. -ENOENT if there is none. */
int store_read_file(struct store *s, int64_t checkpoint, enum store_file file, struct buf *ret, struct err *e);
int store_read_call(struct store *s, int64_t call, struct buf *ret, struct err *e);
int store_read_output(struct store *s, int64_t checkpoint, int64_t isolated, int64_t off, size_t n, struct buf *ret, struct err *e);
int store_read_history(struct store *s, int64_t checkpoint, int64_t off, size_t n, struct buf *ret, struct err *e);
int store_read_events(struct store *s, int64_t line_id, int64_t off, size_t n, struct buf *ret, struct err *e);
int store_events_size(struct store *s, int64_t line_id, int64_t *ret_bytes, int64_t *ret_mtime, struct err *e);
int store_read_action(struct store *s, int64_t action, struct buf *ret, struct err *e);

/* What .control/metrics tells of the line. */
struct store_action_count { char *kind, *state; int64_t n; int64_t ns; }; /* ns: from their requests to their last changes, summed up */
struct store_head {
    char *uid, *name; /* of the checkpoint; NULL: of the audit log as a whole */
    int64_t lines;
    char *hash;       /* of the last line, 64 hex digits; zeros when there is none */
};
struct store_metrics {
    struct store_action_count *actions; /* by kind and state */
    size_t n_actions;
    struct store_head *heads;           /* events.jsonl's first, then the checkpoints' in order */
    size_t n_heads;
};
/* Bounded by 2 s. */
int store_metrics(struct store *s, int64_t line_id, struct store_metrics *ret, struct err *e);
void store_metrics_free(struct store_metrics *m);

/* The envelope that the seal stored (formats/state.h state_to_json), as JSON text. -ENOENT when it isn't sealed. */
int store_read_envelope(struct store *s, int64_t checkpoint, struct buf *ret, struct err *e);
/* The newest checkpoint of that database (`isolated`, 0 = the line's) sealed after action `since` began whose parent is `parent_uid`: its
 * name, owned by the caller. -ENOENT. */
int store_child(struct store *s, int64_t line_id, int64_t isolated, const char *parent_uid, int64_t since, char **ret_name, struct err *e);

/* ---- an agent's output ------------------------------------------------------------------------------------------------ */

/* Empties the output: a new attempt begins. `isolated`: that of a branch of the checkpoint; 0 = its own. */
int store_output_reset(struct store *s, int64_t checkpoint, int64_t isolated, struct err *e);
/* Appends; beyond 16 MiB the middle is dropped, so that the first and last 8 MiB stay, and a line in its place says how much
 * is left out. synchronous_commit=off. */
int store_output_append(struct store *s, int64_t checkpoint, int64_t isolated, const void *bytes, size_t n, struct err *e);

#endif
