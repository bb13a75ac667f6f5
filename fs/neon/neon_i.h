/* Private to fs/neon: the client's state, one request, the shapes of Neon's objects. */
#ifndef NEON_NEON_I_H
#define NEON_NEON_I_H

#include <pthread.h>

#include <curl/curl.h>
#include <jansson.h>

#include "neon/neon.h"
#include "util/buf.h"
#include "util/err.h"

struct worker;

struct neon {
    char *base;        /* no slash at its end */
    char *auth_header; /* the only place of the key */
    char *project_id;
    char *user_agent;
    bool loopback;
    struct neon_config limits; /* numbers only; the strings in it are NULL */

    pthread_mutex_t lock; /* guards idle and n_idle */
    struct worker *idle;
    size_t n_idle;
};

/* Whether `id` is one of Neon's ids, ^[a-z0-9-]{1,60}$ (NA §1): what may go into a URL. NULL is none. */
bool neon_id_ok(const char *id);

/* ---- transfer.c: one attempt ---- */

struct request {
    const char *method;
    const char *path;  /* below the base URL, escaped */
    const json_t *body; /* NULL: none */
    const char *what;  /* "create snapshot x of branch y", for errors */
};

struct answer {
    CURLcode code;
    int os_error;
    long status;            /* 0: no answer */
    bool sent;              /* false: surely not one byte of the request left */
    bool too_large;
    int64_t retry_after_ms; /* 0: not asked for */
    char *request_id;       /* from a header, or NULL */
    struct buf body;
    char detail[CURL_ERROR_SIZE];
};

/* Sends `r` once; `call` must be bounded. 0 when the transfer ended in whatever way (see a->code), -ECANCELED or -ETIMEDOUT when
 * `call` ended it, -ENOMEM. `a` is to be freed in each case. */
int neon_transfer(struct neon *neon, const struct neon_call *call, const struct request *r, struct answer *a);
void answer_free(struct answer *a);
#define cleanup_answer __attribute__((cleanup(answer_free)))

void neon_workers_free(struct neon *neon);

/* ---- http.c: a request with its retries ---- */

/* `call` with its deadline filled in. */
struct neon_call neon_bound(const struct neon *neon, const struct neon_call *call);

/* Sleeps, in slices. 0, -ECANCELED, or -ETIMEDOUT when the deadline came first. */
int neon_wait(const struct neon_call *call, int64_t ms);

/* Sends `r`, retrying as neon.h says. `*ret_root` is the answer's object (an empty one for 204), to be released. */
int neon_send(struct neon *neon, const struct neon_call *call, const struct request *r, json_t **ret_root, bool *ret_unknown,
              struct err *err);

/* ---- calls.c: what every call of the API has in common ---- */

/* A request being made. Owns what it holds; neon_ask frees it. */
struct ask {
    const char *method;
    char *path; /* below /projects/{p}; NULL: out of memory */
    char *what; /* as in struct request; NULL: out of memory */
    json_t *body;
    bool has_body; /* then a NULL body means out of memory: a restore must never go out without its name */
};

/* Sends `a` and consumes it. `ret_unknown` may be NULL. */
int neon_ask(struct neon *neon, const struct neon_call *call, struct ask *a, json_t **ret_root, bool *ret_unknown,
             struct err *err);

/* The same for a mutation of whose answer only the operations matter. */
int neon_ask_operations(struct neon *neon, const struct neon_call *call, struct ask *a, struct neon_operations *ret_operations,
                        bool *ret_unknown, struct err *err);

/* 0, or -EINVAL: `id` is none of Neon's; `what` says whose it should be. */
int neon_check_id(const char *id, const char *what, struct err *err);

/* 0, or -EINVAL: `name` is empty, longer than 256 bytes or no UTF-8. */
int neon_check_name(const char *name, const char *what, struct err *err);

/* Appends `?key=value` or `&key=value`, escaped. `b` holds the path. */
void neon_add_query(struct buf *b, const char *key, const char *value);

/* For an answer to a mutation that can't be used although Neon said yes: sets *ret_unknown and returns `r`. */
int neon_done_unread(int r, bool *ret_unknown, struct err *err);

static inline void neon_set_unknown(bool *ret_unknown, bool unknown)
{
    if (ret_unknown)
        *ret_unknown = unknown;
}

/* ---- errors.c ---- */

/* What a failed attempt means for the next one. */
enum retry {
    RETRY_NEVER,
    RETRY_LIMITED, /* up to max_attempts */
    RETRY_LOCKED   /* nothing was done, something else has to end first: until the deadline */
};

/* One failure, understood. */
struct failure {
    int code; /* errno */
    enum retry retry;
    bool unknown; /* the request may have been carried out */
    struct err text;
};

/* Understands an answer that isn't a usable 2xx. `f->text` is to be cleared. */
void neon_understand(const struct neon *neon, const struct request *r, const struct answer *a, struct failure *f);

/* Whether Neon's error text or code speaks of a plan's limit. */
bool neon_is_limit(const char *code, const char *message);

/* Replaces control characters and the API key in a text that came from outside. */
void neon_clean(const struct neon *neon, char *text);

/* ---- objects.c: JSON into structs. Each 0, -EPROTO or -ENOMEM, with err set; `*ret` untouched on failure. ---- */

int neon_parse_project(const json_t *root, const char *key, struct neon_project *ret, struct err *err);
int neon_parse_branch(const json_t *root, const char *key, struct neon_branch *ret, struct err *err);
int neon_parse_branches(const json_t *root, struct neon_branches *ret, struct err *err);
int neon_parse_snapshot(const json_t *root, const char *key, struct neon_snapshot *ret, struct err *err);
int neon_parse_snapshots(const json_t *root, struct neon_snapshots *ret, struct err *err);
int neon_parse_endpoint(const json_t *root, const char *key, struct neon_endpoint *ret, struct err *err);
int neon_parse_operation(const json_t *root, const char *key, struct neon_operation *ret, struct err *err);
int neon_parse_roles(const json_t *root, struct neon_roles *ret, struct err *err);
int neon_parse_databases(const json_t *root, struct neon_databases *ret, struct err *err);

/* Endpoints and operations come beside other objects and may be absent: an empty list then. */
int neon_parse_endpoints(const json_t *root, struct neon_endpoints *ret, struct err *err);
int neon_parse_operations(const json_t *root, struct neon_operations *ret, struct err *err);

/* {branch, endpoints?, operations?}, as restores and new branches are answered. */
int neon_parse_restored(const json_t *root, struct neon_restored *ret, struct err *err);

/* Appends the branches of `more` to `l`, taking them. 0 or -ENOMEM. */
int neon_branches_append(struct neon_branches *l, struct neon_branches *more);

/* The string `key` of `obj`, borrowed; NULL when absent or no string. */
const char *neon_json_text(const json_t *obj, const char *key);

#endif
