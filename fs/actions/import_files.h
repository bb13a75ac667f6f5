/* What checkpoint.json and snapshot.json of a copy say. */
#ifndef IMPORT_FILES_H
#define IMPORT_FILES_H

#include <jansson.h>

#include "actions/engine.h"

#define CHECKPOINT_ID_SIZE 24 /* ck-, 20 hex digits and a NUL */

/* checkpoint.json; NULL and 0 = it doesn't say. Strings belong to `root`. */
struct claim {
    json_t *root;
    const char *id, *name, *parent, *run_id, *step_id;
    const char *framework, *framework_version, *agent;
    const char *state_sha256;
    const char *traceparent;
    const json_t *pending;      /* a list of calls, each with an id */
    bool pending_supplied;      /* they are there, and weren't read out of the state */
    int64_t created_at;
    const char *guide_snapshot; /* the guide's one-file form: the file is the state itself */
};

/* Each 0; -EINVAL naming file and field; -ENOMEM. `root` is the caller's to release, also on failure. */
int claim_read(const struct import_file *f, struct claim *ret, struct err *e);
/* `ret` borrows from *ret_root. */
int snapshot_read(const struct import_file *f, json_t **ret_root, struct store_snapshot *ret, struct err *e);

#endif
