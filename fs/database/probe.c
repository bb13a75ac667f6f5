/* Does a database answer? Connects and runs `select 1` until it works, the deadline passes or the caller gives up. */
#include "database/probe.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include <libpq-fe.h>

#include "database/connect.h"
#include "util/cleanup.h"
#include "util/clock.h"

#define TRY_MS 10000  /* one attempt: a compute that wakes up takes a few seconds */
#define PAUSE_MS 100
#define REFUSALS 3    /* a proxy can refuse a password for a moment after a restore; this often in a row is an answer */

/* The URI as keywords and values, with a name that the server's administrator recognises. */
static int parse(const char *uri, const char ***ret_keywords, const char ***ret_values, PQconninfoOption **ret_options,
                 struct err *e)
{
    char *message = NULL;
    PQconninfoOption *options = PQconninfoParse(uri, &message);
    const char **keywords = NULL;
    const char **values = NULL;
    size_t n = 0;
    size_t used = 0;

    PQfreemem(message); /* quotes the URI: never shown */
    if (!options)
        return err_set(e, EIO, "the connection string of the database can't be read");
    while (options[n].keyword)
        n++;
    keywords = calloc(n + 2, sizeof(*keywords));
    values = calloc(n + 2, sizeof(*values));
    if (!keywords || !values) {
        free(keywords);
        free(values);
        PQconninfoFree(options);
        return err_set(e, ENOMEM, "out of memory");
    }
    for (size_t i = 0; i < n; i++) {
        if (options[i].val && *options[i].val) {
            keywords[used] = options[i].keyword;
            values[used++] = options[i].val;
        }
    }
    keywords[used] = "fallback_application_name";
    values[used] = "checkpointfs";
    *ret_keywords = keywords;
    *ret_values = values;
    *ret_options = options;
    return 0;
}

static int select_one(PGconn *pg, const atomic_bool *cancelled, int64_t deadline_ms, struct err *e)
{
    PGresult *result;
    bool ok;

    if (!PQsendQuery(pg, "select 1"))
        return err_set(e, EIO, "the database closed the connection");
    while (PQisBusy(pg) || PQflush(pg) > 0) {
        struct pollfd p = {.fd = PQsocket(pg), .events = POLLIN};
        int64_t left = deadline_ms - clock_mono_ms();

        if (cancelled && atomic_load(cancelled))
            return err_set(e, ECANCELED, "cancelled while waiting for the database");
        if (left <= 0)
            return err_set(e, ETIMEDOUT, "the database accepts connections and doesn't answer");
        if (poll(&p, 1, (int)(left < 100 ? left : 100)) < 0 && errno != EINTR)
            return err_set(e, EIO, "poll: %m");
        if (!PQconsumeInput(pg))
            return err_set(e, EIO, "the database closed the connection");
    }
    result = PQgetResult(pg);
    ok = PQresultStatus(result) == PGRES_TUPLES_OK;
    PQclear(result);
    return ok ? 0 : err_set(e, EIO, "the database refused `select 1`");
}

static int try_once(const char *const *keywords, const char *const *values, const atomic_bool *cancelled, int64_t deadline_ms,
                    struct err *e)
{
    PGconn *pg = NULL;
    int r = database_connect(keywords, values, cancelled, deadline_ms, &pg, e);

    if (r == 0)
        r = select_one(pg, cancelled, deadline_ms, e);
    PQfinish(pg);
    return r;
}

int database_probe(const char *uri, const atomic_bool *cancelled, int64_t deadline_ms, struct err *e)
{
    PQconninfoOption *options = NULL;
    const char **keywords = NULL;
    const char **values = NULL;
    int refused = 0;
    int r = parse(uri, &keywords, &values, &options, e);

    while (r == 0) {
        cleanup_err struct err last = {0};
        int64_t now = clock_mono_ms();
        int64_t until = now + TRY_MS < deadline_ms ? now + TRY_MS : deadline_ms;

        r = try_once(keywords, values, cancelled, until, &last);
        refused = r == -EACCES ? refused + 1 : 0;
        if (r == 0)
            break;
        if (r == -ECANCELED || r == -ENOMEM || refused == REFUSALS) {
            err_move(e, &last);
            break;
        }
        if (clock_mono_ms() + PAUSE_MS >= deadline_ms) {
            if (r != -EACCES)
                r = -ETIMEDOUT;
            err_set(e, -r, "the database didn't answer in time: %s", err_text(&last));
            break;
        }
        r = 0;
        clock_sleep_ms(PAUSE_MS);
    }
    free(keywords);
    free(values);
    PQconninfoFree(options);
    return r;
}
