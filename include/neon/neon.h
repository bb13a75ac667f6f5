/* The client of Neon's API v2: snapshots, restores, branches, operations, endpoints, connection strings.
 *
 * Facts about the API are from the reference's neon-api.md (named NA below); where Neon documents nothing, NA says what was
 * assumed. Nothing here knows what a checkpoint is.
 *
 * Every function may be called from any number of threads at once on one `struct neon`. The program must ignore SIGPIPE
 * (OpenSSL writes without MSG_NOSIGNAL). Every function blocks; `struct neon_call` bounds and aborts the wait.
 *
 * Failures are -errno, the same in err->code, with one line in err->text: what was asked, on which object, Neon's status,
 * message and request id, and what to do next. No text ever holds the API key or a connection string.
 *
 *   -EACCES        401, 403: the key is wrong or may not do this
 *   -ENOENT        404, or a find_ function that found nothing
 *   -EEXIST        409: the name is taken
 *   -EOPNOTSUPP    412: the project's plan or settings don't allow it
 *   -EDQUOT        a limit of the plan is reached (422 with a limit's code or text); the text names what could be deleted
 *   -EINVAL        any other 4xx, or an argument refused before anything was sent (an empty or malformed id)
 *   -EBUSY         423 or 429 with NEON_CALL_ONCE: another operation runs in the project, or too many requests
 *   -EIO           5xx; an operation that failed
 *   -ECONNREFUSED  nobody listens there; -EHOSTUNREACH: the host's name is not resolved, or no route; -ECONNRESET: the
 *                  connection broke off; -EPROTO: TLS, or an answer that is not what the API promises (malformed JSON, a
 *                  redirect); -EMSGSIZE: an answer over 64 MiB
 *   -ETIMEDOUT     the deadline came (the text says what Neon answered last), or Neon gave no answer in time
 *   -ECANCELED     call->cancelled became true
 *   -ESTALE        call->before_change said no: surely nothing was done
 *   -ENOMEM
 *
 * Retries (NA §1.1, §9.1), with full jitter, honouring Retry-After: 423, 429 and "branch not ready yet" for any method until
 * the deadline (these mean that nothing was done); 503 for any method, and network errors, 500, 502, 504, 524 for GET, up to
 * config.max_attempts. A mutation of which not one byte was sent is tried again too; any other mutation is sent once, since
 * Neon has no idempotency key.
 *
 * Mutations report `*ret_unknown` (may be NULL; set on every return): true when the call failed and Neon may or may not have
 * done it (the answer was lost, unreadable or a 5xx). The caller then finds out by looking (neon_snapshot_find,
 * neon_branch_find) and never just calls again. false with a failure means that surely nothing was done. */
#ifndef NEON_NEON_H
#define NEON_NEON_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/err.h"

#define NEON_DEFAULT_API_HOST "https://console.neon.tech/api/v2"

struct neon;
struct neon_change;

/* Copied by neon_open. Zero or NULL means the default. */
struct neon_config {
    const char *api_host;   /* base URL with its prefix, as NEON_API_HOST; without a scheme: http on loopback, else https */
    const char *api_key;    /* required */
    const char *project_id; /* required */
    const char *user_agent; /* "checkpointfs" */

    int64_t connect_timeout_ms; /* 10 000 */
    int64_t request_timeout_ms; /* 90 000: one attempt */
    int64_t call_timeout_ms;    /* 600 000: a whole call, retries and settling included, that brings no deadline of its own */
    int64_t failed_grace_ms;    /* 5 000: how long an operation may stay `failed`, which Neon may retry (NA §3.2) */
    int64_t backoff_ms;         /* 250: the first retry waits a random time up to this, each further one up to twice as long */
    int max_attempts;           /* 6: for failures that are retried a limited number of times */
};

/* How long this call may take. NULL, or zeroed, means: config.call_timeout_ms, not abortable. */
struct neon_call {
    const atomic_bool *cancelled; /* polled: within about 50 ms of becoming true the call returns -ECANCELED. May be NULL */
    int64_t deadline_mono_ms;     /* clock_mono_ms() at which to return -ETIMEDOUT; 0 = none */
    unsigned flags;
    /* Asked before each attempt of a request that changes something (`what` says which, in words): false sends nothing and is -ESTALE.
     * May be NULL; may block. */
    bool (*before_change)(void *arg, const char *what);
    /* Told after the last attempt, whatever came of it, unless before_change said no: `done` is NULL unless Neon said yes, and valid during
     * the call. May be NULL. */
    void (*after_change)(void *arg, const char *what, const struct neon_change *done);
    void *change_arg;
};

/* One attempt, no waiting for 423, 429 or 503: for probes. */
#define NEON_CALL_ONCE 1u

/* Strings in the structs below are owned by the struct and NULL when Neon sent none. Enums are text, since Neon adds values
 * without notice. Times are nanoseconds since the epoch, 0 = absent. Sizes are bytes, -1 = absent. */

struct neon_project {
    char *id;
    char *name;
    char *region_id;
    int64_t pg_version; /* 0 = absent */
    int64_t history_retention_seconds;
};

struct neon_branch {
    char *id;
    char *name;
    char *parent_id; /* NULL: a root branch, the only kind that snapshots can be taken of */
    char *current_state;
    char *pending_state;
    char *restore_status; /* restored, finalized, detaching */
    char *restored_from;  /* snapshot id */
    char *restored_as;    /* the branch it replaces when finalized */
    bool is_default;
    bool is_protected;
    int64_t created_at_ns;
    int64_t updated_at_ns;
    int64_t expires_at_ns;
    int64_t logical_size;
};

struct neon_branches {
    struct neon_branch *items;
    size_t n;
};

struct neon_snapshot {
    char *id;
    char *name;
    char *source_branch_id;
    char *lsn;
    char *timestamp;
    bool manual;
    int64_t created_at_ns;
    int64_t expires_at_ns;
    int64_t full_size; /* computed by Neon some time after the snapshot; never wait for it */
    int64_t diff_size;
};

struct neon_snapshots {
    struct neon_snapshot *items; /* newest first */
    size_t n;
};

struct neon_endpoint {
    char *id;
    char *host; /* the local emulator's holds a port: 127.0.0.1:5432 */
    char *branch_id;
    char *type; /* read_write, read_only */
    char *current_state;
    char *pending_state;
};

struct neon_endpoints {
    struct neon_endpoint *items;
    size_t n;
};

struct neon_operation {
    char *id;
    char *action;
    char *status;
    char *error;
    char *branch_id; /* of a hidden branch for snapshots: never key by it */
    char *endpoint_id;
    int64_t failures_count;
    int64_t retry_at_ns;
    int64_t created_at_ns;
};

struct neon_operations {
    struct neon_operation *items;
    size_t n;
};

/* What Neon's yes to a request that changes something says of the request itself. */
struct neon_change {
    const char *request_id; /* what Neon's support asks for; NULL: it sent none */
    struct neon_operations operations;
};

struct neon_role {
    char *name;
    bool is_protected; /* Neon's own roles */
    bool no_login;
};

struct neon_roles {
    struct neon_role *items;
    size_t n;
};

struct neon_database {
    char *name;
    char *owner_name;
};

struct neon_databases {
    struct neon_database *items;
    size_t n;
};

/* What a restore or the creation of a branch answers. `endpoints` may be empty: then make one (neon_endpoint_create). */
struct neon_restored {
    struct neon_branch branch;
    struct neon_endpoints endpoints;
    struct neon_operations operations;
};

/* Each frees what the struct holds, not the struct, and zeroes it; a zeroed one is fine. */
void neon_project_free(struct neon_project *p);
void neon_branch_free(struct neon_branch *b);
void neon_branches_free(struct neon_branches *l);
void neon_snapshot_free(struct neon_snapshot *s);
void neon_snapshots_free(struct neon_snapshots *l);
void neon_endpoint_free(struct neon_endpoint *e);
void neon_endpoints_free(struct neon_endpoints *l);
void neon_operation_free(struct neon_operation *o);
void neon_operations_free(struct neon_operations *l);
void neon_roles_free(struct neon_roles *l);
void neon_databases_free(struct neon_databases *l);
void neon_restored_free(struct neon_restored *r);

/* Checks the configuration; contacts nobody. `*ret_neon` is closed with neon_close. -EINVAL: no key, no project id, a malformed
 * host, key or id. */
int neon_open(const struct neon_config *config, struct neon **ret_neon, struct err *err);

/* Frees everything. No call may be under way. NULL is allowed. */
void neon_close(struct neon *neon);

/* The project's id and the base URL in use; owned by `neon`. */
const char *neon_project_id(const struct neon *neon);
const char *neon_api_host(const struct neon *neon);

/* ---- project, branches ---- */

/* `*ret_project`: free with neon_project_free. */
int neon_project_get(struct neon *neon, const struct neon_call *call, struct neon_project *ret_project, struct err *err);

/* How many of each the project's plan allows; -1 = Neon doesn't say. */
struct neon_limits {
    int64_t branches, root_branches, snapshots;
};

/* Undocumented, but used by Neon's own tests (NA §6): a project where it is refused (-ENOENT, -EACCES) has limits all the same. */
int neon_limits_get(struct neon *neon, const struct neon_call *call, struct neon_limits *ret_limits, struct err *err);

/* All branches of the project, oldest first. */
int neon_branches_list(struct neon *neon, const struct neon_call *call, struct neon_branches *ret_branches, struct err *err);

/* A branch made a moment ago may be -ENOENT for some seconds (NA §1.3). */
int neon_branch_get(struct neon *neon, const struct neon_call *call, const char *branch_id, struct neon_branch *ret_branch,
                    struct err *err);

/* The branch of exactly this name; -ENOENT when there is none. */
int neon_branch_find(struct neon *neon, const struct neon_call *call, const char *name, struct neon_branch *ret_branch,
                     struct err *err);

/* The default branch in a list; NULL when there is none or, against Neon's promise, several. */
const struct neon_branch *neon_branches_default(const struct neon_branches *l);

/* The branch of that id in a list, or NULL. */
const struct neon_branch *neon_branches_by_id(const struct neon_branches *l, const char *branch_id);

/* Makes a child branch of `parent_id` (NULL: of the default branch) with a read-write endpoint. */
int neon_branch_create(struct neon *neon, const struct neon_call *call, const char *name, const char *parent_id,
                       struct neon_restored *ret_created, bool *ret_unknown, struct err *err);

int neon_branch_rename(struct neon *neon, const struct neon_call *call, const char *branch_id, const char *name,
                       struct neon_operations *ret_operations, bool *ret_unknown, struct err *err);

/* Deletes a branch with its data and endpoints. 0 with no operations when it was gone already (204); -ENOENT when Neon never
 * heard of it. Neon refuses the default branch, protected ones and those with children. */
int neon_branch_delete(struct neon *neon, const struct neon_call *call, const char *branch_id,
                       struct neon_operations *ret_operations, bool *ret_unknown, struct err *err);

/* ---- snapshots ---- */

int neon_snapshots_list(struct neon *neon, const struct neon_call *call, struct neon_snapshots *ret_snapshots, struct err *err);

/* The snapshot of exactly this name; -ENOENT when there is none. */
int neon_snapshot_find(struct neon *neon, const struct neon_call *call, const char *name, struct neon_snapshot *ret_snapshot,
                       struct err *err);

/* Takes a snapshot of the head of a root branch. `name` must be unique in the project; `expires_at_ns` 0 = never. The snapshot
 * is there once the operations have settled, and holds what was committed before the call; what is committed between the call
 * and its settling may be in it or not. */
int neon_snapshot_create(struct neon *neon, const struct neon_call *call, const char *branch_id, const char *name,
                         int64_t expires_at_ns, struct neon_snapshot *ret_snapshot, struct neon_operations *ret_operations,
                         bool *ret_unknown, struct err *err);

#define NEON_EXPIRES_UNCHANGED (-1)
#define NEON_EXPIRES_NEVER 0

/* `name` NULL = unchanged; `expires_at_ns` a time, or one of the two above. Settles at once: there are no operations. */
int neon_snapshot_patch(struct neon *neon, const struct neon_call *call, const char *snapshot_id, const char *name,
                        int64_t expires_at_ns, struct neon_snapshot *ret_snapshot, bool *ret_unknown, struct err *err);

/* -ENOENT when it is gone already. Neon is seen to answer 400 (-EINVAL) now and then, cause unknown (NA §2.6). */
int neon_snapshot_delete(struct neon *neon, const struct neon_call *call, const char *snapshot_id,
                         struct neon_operations *ret_operations, bool *ret_unknown, struct err *err);

/* ---- restore ---- */

/* Restores a snapshot as a new root branch called `name`, not finalized: nothing that exists changes. `target_branch_id` is the
 * branch that neon_finalize will replace (NULL: the snapshot's source branch, which may be gone). Needs one root branch of the
 * quota. Connect to the new branch only after the operations have settled: before, one reads the old data without any error. */
int neon_restore(struct neon *neon, const struct neon_call *call, const char *snapshot_id, const char *name,
                 const char *target_branch_id, struct neon_restored *ret_restored, bool *ret_unknown, struct err *err);

/* Puts the restored branch in the place of its target: it takes over the target's endpoint, name and default flag; the target is
 * renamed `replaced_name` (NULL: Neon's own choice). Connections to the target are cut. */
int neon_finalize(struct neon *neon, const struct neon_call *call, const char *branch_id, const char *replaced_name,
                  struct neon_operations *ret_operations, bool *ret_unknown, struct err *err);

/* ---- operations ---- */

/* The newest operations of the project, newest first, at most `limit` (1 to 1000). Lags behind by a moment (NA §1.3). */
int neon_operations_list(struct neon *neon, const struct neon_call *call, int limit, struct neon_operations *ret_operations,
                         struct err *err);

int neon_operation_get(struct neon *neon, const struct neon_call *call, const char *operation_id,
                       struct neon_operation *ret_operation, struct err *err);

/* Called in the settling thread when an operation is first seen and whenever its status changes. `done` of `n` have succeeded,
 * this one included. `op` is valid during the call. */
typedef void (*neon_progress_fn)(void *arg, const struct neon_operation *op, size_t done, size_t n);

/* Waits until all operations have succeeded (finished or skipped; NA §3.2). Each is polled at once, then after 50 ms, growing to
 * 1 s. `progress` may be NULL. Returns at the first that fails: -EIO with Neon's own text; later operations may still run. Neon
 * being unreachable is borne for a minute, then the cause is returned. Unknown ids: -ENOENT after some seconds. */
int neon_settle(struct neon *neon, const struct neon_call *call, const char *const operation_ids[], size_t n,
                neon_progress_fn progress, void *arg, struct err *err);

/* The same for the operations that a mutation returned. */
int neon_settle_operations(struct neon *neon, const struct neon_call *call, const struct neon_operations *operations,
                           neon_progress_fn progress, void *arg, struct err *err);

/* Waits until none of the project's recent operations is under way, whoever started them and however they end. For recovery,
 * when the ids were lost. */
int neon_settle_project(struct neon *neon, const struct neon_call *call, struct err *err);

/* ---- endpoints, connection strings ---- */

/* The endpoints of a branch (NULL: of the whole project). */
int neon_endpoints_list(struct neon *neon, const struct neon_call *call, const char *branch_id,
                        struct neon_endpoints *ret_endpoints, struct err *err);

/* The read-write endpoint in a list, of which a branch has at most one; NULL when there is none. */
const struct neon_endpoint *neon_endpoints_read_write(const struct neon_endpoints *l);

/* Gives a branch a read-write endpoint. -EEXIST when it has one. */
int neon_endpoint_create(struct neon *neon, const struct neon_call *call, const char *branch_id,
                         struct neon_endpoint *ret_endpoint, struct neon_operations *ret_operations, bool *ret_unknown,
                         struct err *err);

/* The connection string of a branch's read-write endpoint. It holds the password: never log it. `*ret_uri`: free(). */
int neon_connection_uri(struct neon *neon, const struct neon_call *call, const char *branch_id, const char *database,
                        const char *role, char **ret_uri, struct err *err);

int neon_roles_list(struct neon *neon, const struct neon_call *call, const char *branch_id, struct neon_roles *ret_roles,
                    struct err *err);

int neon_databases_list(struct neon *neon, const struct neon_call *call, const char *branch_id,
                        struct neon_databases *ret_databases, struct err *err);

#endif
