/* Waiting for Neon's operations: which statuses mean what, how often to ask, how long trouble is borne. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "neon_i.h"
#include "util/clock.h"
#include "util/cleanup.h"
#include "util/text.h"

#define POLL_FIRST_MS 50
#define POLL_MAX_MS 1000
#define UNREACHABLE_MS 60000 /* an operation goes on while Neon's API can't be reached */
#define UNSEEN_MS 5000       /* Neon may not know a fresh operation at once (NA §8.10) */
#define RECENT 100           /* operations looked at by neon_settle_project */

enum verdict {
    PENDING, /* also every status that isn't known: Neon adds some */
    SUCCEEDED,
    FAILED,
    MAY_RETRY
};

static enum verdict judge(const char *status)
{
    static const struct {
        const char *status;
        enum verdict verdict;
    } known[] = {
        {"finished", SUCCEEDED}, {"skipped", SUCCEEDED}, {"error", FAILED}, {"cancelled", FAILED}, {"failed", MAY_RETRY},
    };

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (strcmp(status, known[i].status) == 0)
            return known[i].verdict;
    return PENDING;
}

int neon_operation_get(struct neon *neon, const struct neon_call *call, const char *operation_id,
                       struct neon_operation *ret_operation, struct err *err)
{
    json_t *root cleanup_json = NULL;
    struct ask a;
    int r;

    r = neon_check_id(operation_id, "operation", err);
    if (r < 0)
        return r;
    a = (struct ask){.method = "GET",
                     .path = str_format("/operations/%s", operation_id),
                     .what = str_format("read operation %s", operation_id)};
    r = neon_ask(neon, call, &a, &root, NULL, err);
    return r < 0 ? r : neon_parse_operation(root, "operation", ret_operation, err);
}

int neon_operations_list(struct neon *neon, const struct neon_call *call, int limit, struct neon_operations *ret_operations,
                         struct err *err)
{
    struct ask a = {.method = "GET",
                    .path = str_format("/operations?limit=%d", limit < 1 ? 1 : limit > 1000 ? 1000 : limit),
                    .what = str_format("list the operations of project %s", neon->project_id)};
    json_t *root cleanup_json = NULL;
    int r;

    r = neon_ask(neon, call, &a, &root, NULL, err);
    return r < 0 ? r : neon_parse_operations(root, ret_operations, err);
}

/* ---- one operation ---- */

/* What is known about the operation being waited for. */
struct watch {
    char *status;
    int64_t failures;
    int64_t interval_ms;   /* until the next look */
    int64_t trouble_since; /* monotonic ms of the first of several failed looks; 0 = none */
    int64_t failed_since;  /* monotonic ms since when it is `failed` without a change; 0 = it isn't */
};

static int operation_error(const struct neon *neon, const struct neon_operation *op, struct err *err)
{
    int r = err_set(err, EIO, "Neon's operation %s (%s%s%s) ended as %s: %s; look at the project's operations in Neon's console",
                    op->action ? op->action : "unknown", op->id, op->branch_id ? ", branch " : "",
                    op->branch_id ? op->branch_id : "", op->status, op->error && *op->error ? op->error : "no reason given");

    if (err && err->text)
        neon_clean(neon, err->text);
    return r;
}

/* Whether trouble while looking is borne a little longer. */
static bool bear(struct watch *w, int r)
{
    int64_t now = clock_mono_ms();

    if (r == -ECANCELED || r == -EACCES || r == -EINVAL || r == -ENOMEM)
        return false;
    if (!w->trouble_since)
        w->trouble_since = now;
    return now - w->trouble_since < (r == -ENOENT ? UNSEEN_MS : UNREACHABLE_MS);
}

/* Whether a `failed` operation has been so for long enough. Neon may try it again, at retry_at if it says so. */
static bool grace_is_over(const struct neon *neon, struct watch *w, const struct neon_operation *op)
{
    int64_t now = clock_mono_ms();

    if (!w->failed_since || op->failures_count != w->failures)
        w->failed_since = now;
    w->failures = op->failures_count;
    if (op->retry_at_ns > clock_now())
        w->failed_since = now;
    return now - w->failed_since >= neon->limits.failed_grace_ms;
}

/* Whether the status is another than at the last look; remembers it. */
static bool status_changed(struct watch *w, const struct neon_operation *op)
{
    char *copy;

    if (str_equal(w->status, op->status))
        return false;
    copy = str_dup(op->status);
    free(w->status);
    w->status = copy;
    return true;
}

struct progress {
    neon_progress_fn fn;
    void *arg;
    size_t done;
    size_t n;
};

/* One look. 1: succeeded, 0: look again, -errno. */
static int look(struct neon *neon, const struct neon_call *call, const char *id, struct watch *w, struct progress *p,
                struct err *err)
{
    struct neon_operation op __attribute__((cleanup(neon_operation_free))) = {0};
    enum verdict verdict;
    int r;

    r = neon_operation_get(neon, call, id, &op, err);
    if (r < 0)
        return bear(w, r) ? 0 : r;
    w->trouble_since = 0;
    verdict = judge(op.status);
    if (verdict != MAY_RETRY)
        w->failed_since = 0;
    if (verdict == SUCCEEDED)
        p->done++;
    if (status_changed(w, &op) && p->fn)
        p->fn(p->arg, &op, p->done, p->n);
    if (verdict == SUCCEEDED)
        return 1;
    if (verdict == FAILED || (verdict == MAY_RETRY && grace_is_over(neon, w, &op)))
        return operation_error(neon, &op, err);
    return 0;
}

static void next_interval(struct watch *w)
{
    w->interval_ms += w->interval_ms / 2;
    if (w->interval_ms > POLL_MAX_MS)
        w->interval_ms = POLL_MAX_MS;
}

/* Whether `r` says that the call itself is over, rather than that a look went wrong. */
static bool is_over(const struct neon_call *call, int r)
{
    return r == -ECANCELED || (r == -ETIMEDOUT && clock_mono_ms() >= call->deadline_mono_ms);
}

/* The error of a wait that ended before the operation did. */
static int wait_error(int r, const char *id, const struct watch *w, const struct err *last, struct err *err)
{
    return err_set(err, -r, "stopped waiting for Neon's operation %s: %s; it was %s and may still go on%s%s", id,
                   r == -ECANCELED ? "cancelled" : "the time allowed for it is over", w->status ? w->status : "not seen yet",
                   w->trouble_since && last->code ? "; last: " : "", w->trouble_since && last->code ? err_text(last) : "");
}

static int settle_one(struct neon *neon, const struct neon_call *call, const char *id, struct watch *w, struct progress *p,
                      struct err *err)
{
    struct err last cleanup_err = {0};
    int r;

    for (;;) {
        r = look(neon, call, id, w, p, &last);
        if (r > 0)
            return 0;
        if (r < 0 && !is_over(call, r))
            return err_move(err, &last);
        if (r == 0)
            r = neon_wait(call, w->interval_ms);
        if (r < 0)
            return wait_error(r, id, w, &last, err);
        next_interval(w);
    }
}

int neon_settle(struct neon *neon, const struct neon_call *call, const char *const operation_ids[], size_t n,
                neon_progress_fn progress, void *arg, struct err *err)
{
    struct neon_call bounded = neon_bound(neon, call);
    struct progress p = {.fn = progress, .arg = arg, .n = n};
    int r = 0;

    /* They run one after the other, so that waiting for each in turn loses nothing (NA §3.3). */
    for (size_t i = 0; r == 0 && i < n; i++) {
        struct watch w = {.interval_ms = POLL_FIRST_MS};

        r = settle_one(neon, &bounded, operation_ids[i], &w, &p, err);
        free(w.status);
    }
    return r;
}

int neon_settle_operations(struct neon *neon, const struct neon_call *call, const struct neon_operations *operations,
                           neon_progress_fn progress, void *arg, struct err *err)
{
    const char **ids cleanup_free = calloc(operations->n + 1, sizeof(*ids));

    if (!ids)
        return err_set(err, ENOMEM, "out of memory");
    for (size_t i = 0; i < operations->n; i++)
        ids[i] = operations->items[i].id;
    return neon_settle(neon, call, ids, operations->n, progress, arg, err);
}

/* ---- a whole project ---- */

/* The first operation that is under way, or that Neon has announced to try again; NULL when all is quiet. */
static const struct neon_operation *first_busy(const struct neon_operations *l)
{
    for (size_t i = 0; i < l->n; i++) {
        enum verdict v = judge(l->items[i].status);

        if (v == PENDING || (v == MAY_RETRY && l->items[i].retry_at_ns > clock_now()))
            return &l->items[i];
    }
    return NULL;
}

/* 1: quiet, 0: busy or not known for the moment, -errno. */
static int look_at_project(struct neon *neon, const struct neon_call *call, struct watch *w, struct err *err)
{
    struct neon_operations recent __attribute__((cleanup(neon_operations_free))) = {0};
    const struct neon_operation *busy;
    int r;

    r = neon_operations_list(neon, call, RECENT, &recent, err);
    if (r < 0)
        return r != -ENOENT && bear(w, r) ? 0 : r;
    w->trouble_since = 0;
    busy = first_busy(&recent);
    if (!busy)
        return 1;
    err_set(err, EBUSY, "operation %s (%s) is %s", busy->action ? busy->action : "unknown", busy->id, busy->status);
    return 0;
}

int neon_settle_project(struct neon *neon, const struct neon_call *call, struct err *err)
{
    struct neon_call bounded = neon_bound(neon, call);
    struct watch w = {.interval_ms = POLL_FIRST_MS};
    struct err last cleanup_err = {0};
    int r;

    for (;;) {
        r = look_at_project(neon, &bounded, &w, &last);
        if (r > 0)
            return 0;
        if (r < 0 && !is_over(&bounded, r))
            return err_move(err, &last);
        if (r == 0)
            r = neon_wait(&bounded, w.interval_ms);
        if (r < 0)
            return err_set(err, -r, "stopped waiting for project %s to be quiet: %s; last: %s", neon->project_id,
                           r == -ECANCELED ? "cancelled" : "the time allowed for it is over", err_text(&last));
        next_interval(&w);
    }
}
