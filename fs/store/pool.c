/* The store's connections: handed out to one call at a time, made when needed, thrown away when broken. A server that was
 * restarted is met by a new connection at the next call; a frozen one costs a call its deadline and no more. */
#include "store_i.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <time.h>

#include "database/connect.h"
#include "util/clock.h"
#include "util/text.h"

#define CONNECT_MS 2000
#define STARTING_PAUSE_MS 50
#define KEPT_PART 3 /* a third of the connections */

/* The session's settings. Not in the `options` parameter, which connection poolers refuse. What a write was answered for has to outlive
 * the server: a server that commits without waiting for its log is told to wait, one that waits for more is left as it is. A mount that
 * stands still in a transaction (its machine sleeps) has the line's lock, for which every other one waits: it loses it before its lease,
 * and runs the transaction again when it wakes. Not much before: a statement that is still on its way to the server, a long one over a
 * slow line, counts as standing still, too. */
static const char session_sql[] =
    "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off';"
    "SET search_path = checkpointfs, pg_catalog; SET client_encoding = 'UTF8'; SET standard_conforming_strings = on;"
    "SET statement_timeout = '120s'; SET idle_in_transaction_session_timeout = '10s'; SET client_min_messages = warning;"
    "SET timezone = 'UTC'; SET bytea_output = 'hex'; SET default_transaction_isolation = 'read committed'";

static void add(struct store *s, size_t *used, const char *keyword, const char *value)
{
    s->keywords[*used] = keyword;
    s->values[*used] = value;
    (*used)++;
}

static bool given(const struct store *s, size_t used, const char *keyword)
{
    for (size_t i = 0; i < used; i++) {
        if (strcmp(s->keywords[i], keyword) == 0)
            return true;
    }
    return false;
}

/* Keywords and values of a connection string, with what makes a lost network show within a minute. */
static int parse(struct store *s, const char *conninfo, struct err *e)
{
    char *message = NULL;
    size_t n = 0;
    size_t used = 0;

    s->options = PQconninfoParse(conninfo, &message);
    PQfreemem(message); /* quotes the string, password included: never shown */
    if (!s->options)
        return err_set(e, EINVAL,
                       "the store's connection string can't be read: give it as postgresql://USER@HOST/DB or host=… dbname=…");
    while (s->options[n].keyword)
        n++;
    s->keywords = calloc(n + 8, sizeof(*s->keywords));
    s->values = calloc(n + 8, sizeof(*s->values));
    if (!s->keywords || !s->values)
        return err_set(e, ENOMEM, "out of memory");
    for (size_t i = 0; i < n; i++) {
        if (s->options[i].val && *s->options[i].val)
            add(s, &used, s->options[i].keyword, s->options[i].val);
    }
    add(s, &used, "fallback_application_name", "checkpointfs");
    if (!given(s, used, "connect_timeout"))
        add(s, &used, "connect_timeout", "2");
    if (!given(s, used, "keepalives_idle"))
        add(s, &used, "keepalives_idle", "10");
    if (!given(s, used, "keepalives_interval"))
        add(s, &used, "keepalives_interval", "5");
    if (!given(s, used, "tcp_user_timeout"))
        add(s, &used, "tcp_user_timeout", "30000");
    return 0;
}

int pool_new(const char *conninfo, int connections, struct store **ret, struct err *e)
{
    struct store *s = calloc(1, sizeof(*s));
    pthread_condattr_t attr;
    int r;

    if (!s)
        return err_set(e, ENOMEM, "out of memory");
    pthread_mutex_init(&s->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&s->freed, &attr);
    pthread_condattr_destroy(&attr);
    s->n = connections > 0 ? connections : 1;
    s->conns = calloc((size_t)s->n, sizeof(*s->conns));
    r = s->conns ? parse(s, conninfo, e) : err_set(e, ENOMEM, "out of memory");
    if (r) {
        pool_free(s);
        return r;
    }
    *ret = s;
    return 0;
}

void pool_free(struct store *s)
{
    if (!s)
        return;
    for (int i = 0; s->conns && i < s->n; i++)
        PQfinish(s->conns[i].pg);
    free(s->conns);
    free(s->password);
    free(s->keywords);
    free(s->values);
    PQconninfoFree(s->options);
    pthread_cond_destroy(&s->freed);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

static void drop(struct conn *c)
{
    PQfinish(c->pg);
    c->pg = NULL;
    c->dead = false;
}

/* An idle connection has nothing to say, unless the server closed it meanwhile. One from before a silence has lost its server. */
static bool fresh(struct conn *c)
{
    struct pollfd p = {.fd = PQsocket(c->pg), .events = POLLIN};

    if (PQstatus(c->pg) != CONNECTION_OK || c->silences != atomic_load(&c->store->silences))
        return false;
    if (poll(&p, 1, 0) == 0)
        return true;
    return PQconsumeInput(c->pg) && PQstatus(c->pg) == CONNECTION_OK && !(p.revents & (POLLHUP | POLLERR));
}

/* From the connection string, PGPASSWORD or a password file. */
static int keep_password(struct store *s, const struct conn *c, struct err *e)
{
    const char *given = PQpass(c->pg);
    char *password = str_dup(given ? given : "");

    if (!password)
        return err_set(e, ENOMEM, "out of memory");
    pthread_mutex_lock(&s->lock);
    free(s->password);
    s->password = password;
    pthread_mutex_unlock(&s->lock);
    return 0;
}

char *store_password(struct store *s)
{
    char *password;

    pthread_mutex_lock(&s->lock);
    password = str_dup(s->password);
    pthread_mutex_unlock(&s->lock);
    return password;
}

/* One try to connect and set up the session. -EAGAIN: the server said that this is a bad moment, or cut what it had accepted. */
static int try_connect(struct store *s, struct conn *c, int64_t deadline, struct err *e)
{
    int r;

    c->silences = atomic_load(&s->silences);
    r = database_connect(s->keywords, s->values, &s->abandoned, deadline, &c->pg, e);
    if (r)
        return r;
    r = q_simple(c, session_sql, e);
    if (r == 0)
        r = keep_password(s, c, e);
    if (r == 0)
        return 0;
    if (c->dead && clock_mono_ms() < c->deadline_ms)
        r = -EAGAIN;
    drop(c);
    return r;
}

/* Connects; while the server says that it is just starting it is asked again. */
static int connect_one(struct store *s, struct conn *c, struct err *e)
{
    int64_t until = clock_mono_ms() + CONNECT_MS;
    int64_t deadline = c->deadline_ms < until ? c->deadline_ms : until;

    for (;;) {
        cleanup_err struct err why = {0};
        int r = try_connect(s, c, deadline, &why);

        if (r == 0)
            return 0;
        if (r != -EAGAIN || clock_mono_ms() + STARTING_PAUSE_MS >= deadline) {
            why.code = r == -EAGAIN ? EIO : -r;
            err_prefix(&why, "the store can't be reached");
            return err_move(e, &why);
        }
        clock_sleep_ms(STARTING_PAUSE_MS);
    }
}

int pool_connect(struct store *s, struct conn *c, struct err *e)
{
    return connect_one(s, c, e);
}

static struct conn *find_free(struct store *s, bool patient)
{
    struct conn *connected = NULL, *unconnected = NULL;
    int n = 0;

    for (int i = s->n; i-- > 0;) {
        if (s->conns[i].in_use)
            continue;
        n++;
        *(s->conns[i].pg ? &connected : &unconnected) = &s->conns[i];
    }
    if (patient && n <= s->n / KEPT_PART)
        return NULL;
    return connected ? connected : unconnected;
}

int pool_checkout(struct store *s, bool patient, int64_t deadline_ms, struct conn **ret, struct err *e)
{
    struct timespec until = {.tv_sec = deadline_ms / 1000, .tv_nsec = (long)(deadline_ms % 1000) * 1000000L};
    struct conn *c;
    int r = 0;

    pthread_mutex_lock(&s->lock);
    while (!(c = find_free(s, patient)) && r == 0)
        r = pthread_cond_timedwait(&s->freed, &s->lock, &until);
    if (c) {
        c->in_use = true;
        c->deadline_ms = deadline_ms;
        c->store = s;
        c->sqlstate[0] = '\0';
    }
    pthread_mutex_unlock(&s->lock);
    if (!c)
        return err_set(e, ETIMEDOUT, "the mount's %d connections to the store stayed busy: what they wait for is in its pg_stat_activity",
                       s->n);
    if (c->pg && !fresh(c))
        drop(c);
    r = c->pg ? 0 : connect_one(s, c, e);
    if (r) {
        pool_checkin(s, c);
        return r;
    }
    *ret = c;
    return 0;
}

void pool_checkin(struct store *s, struct conn *c)
{
    if (c->pg && (c->dead || PQstatus(c->pg) != CONNECTION_OK || PQtransactionStatus(c->pg) != PQTRANS_IDLE))
        drop(c);
    pthread_mutex_lock(&s->lock);
    c->in_use = false;
    pthread_cond_broadcast(&s->freed); /* not each of those who wait may have it */
    pthread_mutex_unlock(&s->lock);
}
