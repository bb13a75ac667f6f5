/* Connecting to PostgreSQL within a deadline. libpq's own connect_timeout holds only for its blocking calls, and a frozen
 * server accepts connections without ever answering: so every wait here is a poll. */
#include "database/connect.h"

#include <ctype.h>
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>

#include <libpq-fe.h>

#include "util/clock.h"
#include "util/cleanup.h"
#include "util/text.h"

#define SLICE_MS 100
#define LINE_MAX_BYTES 400

char *database_one_line(const char *message)
{
    cleanup_free char *clean = utf8_clean(message ? message : "", message ? strlen(message) : 0);
    size_t len;

    if (!clean)
        return NULL;
    for (char *p = clean; *p; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = ' ';
    }
    len = strlen(clean);
    if (len > LINE_MAX_BYTES) {
        for (len = LINE_MAX_BYTES; len > 0 && ((unsigned char)clean[len] & 0xc0) == 0x80; len--)
            ;
    }
    while (len > 0 && isspace((unsigned char)clean[len - 1]))
        len--;
    clean[len] = '\0';
    return steal_ptr(&clean);
}

/* libpq gives no code for a failed connection, so its words decide; words it doesn't know are EIO. */
static int failure_code(const char *message)
{
    static const struct { const char *words; int code; } table[] = {
        {"authentication failed", EACCES},       {"no pg_hba.conf entry", EACCES},
        {"is not permitted to log in", EACCES},  {"no password supplied", EACCES},
        {"permission denied for database", EACCES},
        {"starting up", EAGAIN},                 {"shutting down", EAGAIN},
        {"in recovery mode", EAGAIN},            {"not yet accepting connections", EAGAIN},
        {"too many clients", EAGAIN},            {"remaining connection slots", EAGAIN},
        {"terminating connection", EAGAIN},
        {"timeout expired", ETIMEDOUT},          {"timed out", ETIMEDOUT},
        {"Connection refused", ECONNREFUSED},    {"No such file or directory", ECONNREFUSED},
        {"server closed the connection", ECONNREFUSED},
        {"could not translate host name", EHOSTUNREACH},
        {"No route to host", EHOSTUNREACH},      {"Network is unreachable", EHOSTUNREACH},
        {"out of memory", ENOMEM},
    };

    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        if (strstr(message, table[i].words))
            return table[i].code;
    }
    if (strstr(message, "role \"") && strstr(message, "does not exist"))
        return EACCES;
    return EIO;
}

static int explain(PGconn *pg, struct err *e)
{
    const char *message = PQerrorMessage(pg);
    cleanup_free char *line = database_one_line(message);

    return err_set(e, failure_code(message), "%s", line && *line ? line : "the connection failed without a word");
}

/* Notices of the server (also its last words on a cut connection) are answered with errors where they matter, not printed. */
static void ignore_notice(void *arg, const char *message)
{
    (void)arg;
    (void)message;
}

/* Waits until the connection's socket is ready, in slices so that `cancelled` is seen. */
static int wait_ready(PGconn *pg, short events, const atomic_bool *cancelled, int64_t deadline_ms, struct err *e)
{
    for (;;) {
        struct pollfd p = {.fd = PQsocket(pg), .events = events};
        int64_t left = deadline_ms - clock_mono_ms();
        int n;

        if (cancelled && atomic_load(cancelled))
            return err_set(e, ECANCELED, "cancelled while connecting to the database");
        if (left <= 0)
            return err_set(e, ETIMEDOUT, "the database server doesn't answer");
        n = poll(&p, 1, (int)(left < SLICE_MS ? left : SLICE_MS));
        if (n > 0)
            return 0;
        if (n < 0 && errno != EINTR)
            return err_set(e, errno, "poll: %m");
    }
}

int database_connect(const char *const *keywords, const char *const *values, const atomic_bool *cancelled, int64_t deadline_ms,
                     struct pg_conn **ret, struct err *e)
{
    PGconn *pg = PQconnectStartParams(keywords, values, 0);
    PostgresPollingStatusType want = PGRES_POLLING_WRITING;
    int r = 0;

    if (!pg)
        return err_set(e, ENOMEM, "out of memory");
    PQsetNoticeProcessor(pg, ignore_notice, NULL);
    if (PQstatus(pg) == CONNECTION_BAD) {
        r = explain(pg, e);
        goto out;
    }
    while (want != PGRES_POLLING_OK) {
        r = wait_ready(pg, want == PGRES_POLLING_READING ? POLLIN : POLLOUT, cancelled, deadline_ms, e);
        if (r)
            goto out;
        want = PQconnectPoll(pg);
        if (want == PGRES_POLLING_FAILED) {
            r = explain(pg, e);
            goto out;
        }
    }
    if (PQsetnonblocking(pg, 1) != 0) {
        r = explain(pg, e);
        goto out;
    }
    *ret = pg;
    pg = NULL;
out:
    PQfinish(pg);
    return r;
}

char *database_password(const char *conninfo)
{
    PQconninfoOption *options = conninfo ? PQconninfoParse(conninfo, NULL) : NULL;
    char *password = NULL;

    for (PQconninfoOption *o = options; o && o->keyword; o++)
        if (strcmp(o->keyword, "password") == 0)
            password = str_dup(o->val);
    PQconninfoFree(options);
    return password;
}
