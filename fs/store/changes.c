/* The feed of changes: LISTEN wakes, the table `changes` tells what, in the order of commits (schema_shared.c). */
#include "store_i.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

#include "util/clock.h"

#define READ_MS 2000
#define OPEN_MS 5000
#define SELF_MS 3000
/* So long changes are kept; a mount that was away for longer loads everything again. And so long it can be asked whether a transaction was
 * committed: longer than ASKABLE_MS in query.c. */
#define KEEP "interval '10 minutes'"

struct store_feed {
    struct store *s;
    struct conn c;
    int64_t line_id;
};

void store_feed_close(struct store_feed *f)
{
    if (!f)
        return;
    PQfinish(f->c.pg);
    free(f);
}

static void eat_notifications(struct conn *c, bool *ret_any)
{
    PGnotify *n;

    while ((n = PQnotifies(c->pg))) {
        *ret_any = true;
        PQfreemem(n);
    }
}

int store_feed_wait(struct store_feed *f, int64_t ms)
{
    struct pollfd p = {.fd = PQsocket(f->c.pg), .events = POLLIN};
    bool any = false;

    eat_notifications(&f->c, &any);
    if (!any && poll(&p, 1, (int)ms) > 0) {
        if (!PQconsumeInput(f->c.pg))
            return 0;
        eat_notifications(&f->c, &any);
    }
    return any;
}

/* A pooler in transaction mode takes LISTEN and forgets it (traps.md 23). */
static int hears_itself(struct store_feed *f, struct err *e)
{
    int64_t until = clock_mono_ms() + SELF_MS;
    int r = q_simple(&f->c, "NOTIFY checkpointfs, 'self'", e);

    while (r == 0 && store_feed_wait(f, 100) == 0)
        if (clock_mono_ms() > until)
            r = err_set(e, EOPNOTSUPP,
                        "the store doesn't deliver notifications: it is behind a connection pooler in transaction mode; give the store's "
                        "direct connection string");
    return r;
}

static int head(struct store_feed *f, int64_t *ret, struct err *e)
{
    cleanup_result PGresult *res = NULL;
    int r = q(&f->c, &res, e, "SELECT n FROM checkpointfs.change_heads WHERE line_id = $1", "i", f->line_id);

    if (r == 0)
        *ret = PQntuples(res) ? col_int(res, 0, 0) : 0;
    return r;
}

int store_feed_open(struct store *s, int64_t line_id, struct store_feed **ret, int64_t *ret_n, struct err *e)
{
    struct store_feed *f = calloc(1, sizeof(*f));
    int r;

    if (!f)
        return err_set(e, ENOMEM, "out of memory");
    f->s = s;
    f->line_id = line_id;
    f->c.store = s;
    f->c.deadline_ms = clock_mono_ms() + OPEN_MS;
    r = pool_connect(s, &f->c, e);
    if (r == 0)
        r = q_simple(&f->c, "LISTEN checkpointfs", e);
    if (r == 0)
        r = hears_itself(f, e);
    if (r == 0)
        r = head(f, ret_n, e);
    if (r) {
        store_feed_close(f);
        return r;
    }
    *ret = f;
    return 0;
}

static enum store_change_kind kind_of(const char *what)
{
    static const char *const names[] = {"checkpoint", "action", "line", "log", "replaced", NULL};
    int i = name_index(names, what);

    return i < 0 ? CHANGE_OTHER : (enum store_change_kind)i;
}

int store_feed_read(struct store_feed *f, int64_t after, void (*each)(void *arg, enum store_change_kind what, int64_t row), void *arg,
                    int64_t *ret_n, struct err *e)
{
    cleanup_result PGresult *res = NULL;
    int64_t n = after;
    int r;

    f->c.deadline_ms = clock_mono_ms() + READ_MS;
    r = q(&f->c, &res, e,
          "SELECT c.n, c.what, c.row_id FROM checkpointfs.change_heads h LEFT JOIN checkpointfs.changes c ON c.line_id = h.line_id"
          " AND c.n > $2 WHERE h.line_id = $1 AND h.n > $2 ORDER BY c.n", "ii", f->line_id, after);
    if (r)
        return r;
    if (PQntuples(res) && col_int(res, 0, 0) != after + 1) /* null, 0, when none is left */
        return err_set(e, ESTALE, "changes after %lld are no longer kept", (long long)after);
    for (int i = 0; i < PQntuples(res); i++) {
        n = col_int(res, i, 0);
        each(arg, kind_of(col_text(res, i, 1)), col_int(res, i, 2));
    }
    *ret_n = n;
    return 0;
}

static int trim_fn(struct conn *c, void *arg, struct err *e)
{
    int r = q(c, NULL, e, "DELETE FROM checkpointfs.changes WHERE line_id = $1 AND at < clock_timestamp() - " KEEP, "i",
              *(const int64_t *)arg);

    return r ? r : q(c, NULL, e, "DELETE FROM checkpointfs.commits WHERE at < now() - " KEEP, "");
}

int store_changes_trim(struct store *s, int64_t line_id, struct err *e)
{
    return store_tx(s, TX_BOUNDED, trim_fn, &line_id, e);
}
