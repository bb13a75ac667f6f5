/* A request with its retries: what is sent again, when, and until when (neon.h says which; errors.c understands a failure). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "neon_i.h"
#include "util/clock.h"
#include "util/cleanup.h"

#define WAIT_SLICE_MS 40
#define BACKOFF_MIN_MS 20
#define BACKOFF_CAP_MS 10000
#define LOCKED_CAP_MS 2000 /* an operation takes seconds; waiting much longer than it does helps nobody */

struct neon_call neon_bound(const struct neon *neon, const struct neon_call *call)
{
    struct neon_call c = call ? *call : (struct neon_call){0};

    if (!c.deadline_mono_ms)
        c.deadline_mono_ms = clock_mono_ms() + neon->limits.call_timeout_ms;
    return c;
}

/* Why the call can't go on, or 0. */
static int call_ended(const struct neon_call *call)
{
    if (call->cancelled && atomic_load(call->cancelled))
        return -ECANCELED;
    return clock_mono_ms() >= call->deadline_mono_ms ? -ETIMEDOUT : 0;
}

int neon_wait(const struct neon_call *call, int64_t ms)
{
    int64_t until = clock_mono_ms() + ms;
    int64_t left;
    int r;

    while ((r = call_ended(call)) == 0 && (left = until - clock_mono_ms()) > 0)
        clock_sleep_ms(left < WAIT_SLICE_MS ? left : WAIT_SLICE_MS);
    return r;
}

/* Full jitter: anything up to a bound that doubles with each attempt. */
static int64_t backoff(const struct neon *neon, int attempt, int64_t cap)
{
    int64_t bound = neon->limits.backoff_ms;

    for (int i = 1; i < attempt && bound < cap; i++)
        bound *= 2;
    if (bound > cap)
        bound = cap;
    return BACKOFF_MIN_MS + (int64_t)arc4random_uniform((uint32_t)bound + 1);
}

/* The answer's object, an empty one where none is to be expected; NULL when it isn't one. */
static json_t *read_body(const struct request *r, const struct answer *a)
{
    json_t *root;

    if (a->status == 204 || (a->body.len == 0 && strcmp(r->method, "DELETE") == 0))
        return json_object();
    root = json_loadb(a->body.data ? a->body.data : "", a->body.len, 0, NULL);
    if (json_is_object(root))
        return root;
    json_decref(root);
    return NULL;
}

/* One attempt. 0, the object and the request id; 1 and `f` when Neon or the network said no; -errno when `call` ended it. */
static int attempt(struct neon *neon, const struct neon_call *call, const struct request *r, json_t **ret_root, char **ret_request_id,
                   bool *ret_sent, int64_t *ret_retry_after_ms, struct failure *f)
{
    struct answer a cleanup_answer = {0};
    int rc;

    rc = neon_transfer(neon, call, r, &a);
    *ret_sent = a.sent;
    *ret_retry_after_ms = a.retry_after_ms;
    if (rc < 0)
        return rc;
    if (a.code == CURLE_OK && a.status >= 200 && a.status < 300 && (*ret_root = read_body(r, &a))) {
        *ret_request_id = steal_ptr(&a.request_id);
        return 0;
    }
    neon_understand(neon, r, &a, f);
    return 1;
}

/* The text for a call that its deadline, or a cancellation, ended. `last` is what went wrong before, if anything did. */
static int ended_error(int code, const struct request *r, bool unknown, const struct err *last, struct err *err)
{
    const char *why = code == -ECANCELED ? "cancelled" : code == -ETIMEDOUT ? "the time allowed for it is over" : "out of memory";

    return err_set(err, -code, "can't %s: %s%s%s%s", r->what, why, unknown ? "; whether Neon did it is not known" : "",
                   last->code ? "; before that: " : "", last->code ? err_text(last) : "");
}

static bool may_retry(const struct neon *neon, const struct neon_call *call, const struct failure *f, int attempts)
{
    if (call->flags & NEON_CALL_ONCE)
        return false;
    return f->retry == RETRY_LOCKED || (f->retry == RETRY_LIMITED && attempts < neon->limits.max_attempts);
}

/* Waits before the next attempt. -ETIMEDOUT at once when the deadline would come first. */
static int wait_retry(const struct neon *neon, const struct neon_call *call, const struct failure *f, int attempts,
                      int64_t retry_after_ms)
{
    int64_t ms = backoff(neon, attempts, f->retry == RETRY_LOCKED ? LOCKED_CAP_MS : BACKOFF_CAP_MS);

    if (ms < retry_after_ms)
        ms = retry_after_ms;
    if (clock_mono_ms() + ms < call->deadline_mono_ms)
        return neon_wait(call, ms);
    return retry_after_ms ? -ETIMEDOUT : neon_wait(call, call->deadline_mono_ms - clock_mono_ms());
}

static void clear_failure(struct failure *f)
{
    err_clear(&f->text);
}

static bool changes(const struct request *r)
{
    return strcmp(r->method, "GET") != 0;
}

/* Before each attempt: while the project was locked, or this process stopped, another mount may have taken over. */
static bool allowed(const struct neon_call *call, const struct request *r)
{
    return !changes(r) || !call->before_change || call->before_change(call->change_arg, r->what);
}

/* Attempts until one is answered, or none may follow. */
static int send_until_answered(struct neon *neon, const struct neon_call *call, const struct request *r, json_t **ret_root,
                               char **ret_request_id, bool *ret_unknown, struct err *err)
{
    struct failure f __attribute__((cleanup(clear_failure))) = {0};
    bool mutation = changes(r);
    int64_t retry_after_ms = 0;
    bool sent = false;
    int rc;

    *ret_unknown = false;
    for (int attempts = 1;; attempts++) {
        rc = call_ended(call);
        if (rc < 0)
            return ended_error(rc, r, false, &f.text, err);
        if (!allowed(call, r))
            return err_set(err, ESTALE, "%s: not sent, since this mount no longer holds the action's lease", r->what);
        rc = attempt(neon, call, r, ret_root, ret_request_id, &sent, &retry_after_ms, &f);
        if (rc <= 0)
            *ret_unknown = rc < 0 && mutation && sent;
        if (rc < 0)
            return ended_error(rc, r, *ret_unknown, &f.text, err);
        if (rc == 0)
            return 0;
        if (!may_retry(neon, call, &f, attempts)) {
            *ret_unknown = f.unknown;
            return err_move(err, &f.text);
        }
        rc = wait_retry(neon, call, &f, attempts, retry_after_ms);
        if (rc < 0)
            return ended_error(rc, r, false, &f.text, err);
    }
}

/* An answer that can't be read is the caller's error; here it has no operations then. */
static void tell_change(const struct neon_call *call, const char *what, const json_t *answer, const char *request_id)
{
    struct neon_change done = {.request_id = request_id};

    if (answer)
        neon_parse_operations(answer, &done.operations, NULL);
    call->after_change(call->change_arg, what, answer ? &done : NULL);
    neon_operations_free(&done.operations);
}

int neon_send(struct neon *neon, const struct neon_call *call, const struct request *r, json_t **ret_root, bool *ret_unknown,
              struct err *err)
{
    cleanup_free char *request_id = NULL;
    int rc = send_until_answered(neon, call, r, ret_root, &request_id, ret_unknown, err);

    if (rc != -ESTALE && changes(r) && call->after_change)
        tell_change(call, r->what, rc == 0 ? *ret_root : NULL, request_id);
    return rc;
}
