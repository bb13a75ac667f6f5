/* Statements and transactions with a deadline; what PostgreSQL's errors mean as errno; when a transaction is run again. */
#include "store_i.h"

#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "database/connect.h"
#include "util/clock.h"
#include "util/text.h"

#define BOUNDED_MS 2000
#define NORMAL_MS 30000
#define LONG_MS 120000
#define LOOK_MS 100 /* how soon a call notices that the store was abandoned, or is silent */
#define SILENT_MS 2000
#define RETRIES 8
#define RECONNECTS 3
#define ASK_PAUSE_MS 100
#define ASK_MS 10000
#define ASKABLE_MS 300000 /* less than KEEP in changes.c */
#define PARAMS_MAX 48
#define OID_BOOL 16
#define OID_BYTEA 17
#define OID_INT8 20

/* ---- one statement --------------------------------------------------------------------------------------------------- */

static int timed_out(struct conn *c, struct err *e)
{
    c->dead = true; /* its answer may still come: nobody else may read it */
    return err_set(e, c->bounded ? EIO : ETIMEDOUT, "the store didn't answer in time");
}

static int lost(struct conn *c, struct err *e)
{
    cleanup_free char *line = database_one_line(PQerrorMessage(c->pg));

    c->dead = true;
    return err_set(e, EIO, "the connection to the store broke: %s", line && *line ? line : "no reason given");
}

static int await(struct conn *c, short events, struct err *e)
{
    unsigned silences = atomic_load(&c->store->silences);

    for (;;) {
        struct pollfd p = {.fd = PQsocket(c->pg), .events = events};
        int64_t left = c->deadline_ms - clock_mono_ms();
        int n;

        if (left <= 0 || atomic_load(&c->store->abandoned) || atomic_load(&c->store->silences) != silences)
            return timed_out(c, e);
        n = poll(&p, 1, left > LOOK_MS ? LOOK_MS : (int)left);
        if (n > 0)
            return 0;
        if (n < 0 && errno != EINTR)
            return lost(c, e);
    }
}

/* Whether the server ended the connection: shut down, broken, or left idle in a transaction for too long (25P03). */
static bool cut_off(const struct conn *c)
{
    return strncmp(c->sqlstate, "57P", 3) == 0 || strncmp(c->sqlstate, "08", 2) == 0 || strcmp(c->sqlstate, "25P03") == 0;
}

/* errno of a failed statement. */
static int sqlstate_code(const struct conn *c)
{
    static const struct { const char *state; int code; } table[] = {
        {"57014", ETIMEDOUT}, {"55P03", ETIMEDOUT}, {"23505", EEXIST},  {"25006", EROFS},  {"53100", ENOSPC},
        {"53200", ENOMEM},    {"42501", EACCES},    {"42P01", ENODATA}, {"3F000", ENODATA}, {"42883", ENODATA},
        {"22021", EINVAL},    {"22P02", EINVAL},    {"22P05", EINVAL},
    };

    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        if (strcmp(c->sqlstate, table[i].state) == 0)
            return c->bounded && table[i].code == ETIMEDOUT ? EIO : table[i].code;
    }
    if (strncmp(c->sqlstate, "28", 2) == 0)
        return EACCES;
    if (strncmp(c->sqlstate, "54", 2) == 0)
        return EFBIG;
    if (strncmp(c->sqlstate, "22", 2) == 0 || strncmp(c->sqlstate, "23", 2) == 0)
        return EINVAL;
    if (strncmp(c->sqlstate, "42", 2) == 0 || strncmp(c->sqlstate, "0A", 2) == 0)
        return EPROTO; /* the schema isn't what this program knows: asking again doesn't help */
    return EIO;
}

static int failed(struct conn *c, const PGresult *r, struct err *e)
{
    const char *state = PQresultErrorField(r, PG_DIAG_SQLSTATE);
    cleanup_free char *line = database_one_line(PQresultErrorField(r, PG_DIAG_MESSAGE_PRIMARY));

    snprintf(c->sqlstate, sizeof(c->sqlstate), "%s", state ? state : "");
    if (!state || cut_off(c) || PQstatus(c->pg) != CONNECTION_OK)
        return lost(c, e);
    return err_set(e, sqlstate_code(c), "the store: %s", line && *line ? line : "a statement failed");
}

static int flush(struct conn *c, struct err *e)
{
    for (;;) {
        int left = PQflush(c->pg);
        int r;

        if (left < 0)
            return lost(c, e);
        if (left == 0)
            return 0;
        r = await(c, POLLIN | POLLOUT, e);
        if (r)
            return r;
        if (!PQconsumeInput(c->pg))
            return lost(c, e);
    }
}

/* Reads all results of what was sent; keeps the last good one, or the first error. */
static int collect(struct conn *c, PGresult **ret, struct err *e)
{
    cleanup_result PGresult *keep = NULL;
    int r = flush(c, e);

    while (r == 0) {
        PGresult *one;
        ExecStatusType st;

        while (PQisBusy(c->pg)) {
            r = await(c, POLLIN, e);
            if (r)
                return r;
            if (!PQconsumeInput(c->pg))
                return lost(c, e);
            atomic_store(&c->store->heard_ms, clock_mono_ms());
        }
        one = PQgetResult(c->pg);
        if (!one)
            break;
        st = PQresultStatus(one);
        if (st != PGRES_TUPLES_OK && st != PGRES_COMMAND_OK && st != PGRES_EMPTY_QUERY) {
            r = failed(c, one, e);
            PQclear(one);
            while (!c->dead && (one = PQgetResult(c->pg))) /* the rest of a failed batch is here already */
                PQclear(one);
            return r;
        }
        PQclear(keep);
        keep = one;
    }
    if (r == 0 && ret)
        *ret = steal_ptr(&keep);
    return r;
}

int q_simple(struct conn *c, const char *sql, struct err *e)
{
    if (!PQsendQuery(c->pg, sql))
        return lost(c, e);
    return collect(c, NULL, e);
}

struct params {
    const char *values[PARAMS_MAX];
    int lengths[PARAMS_MAX];
    int formats[PARAMS_MAX];
    Oid types[PARAMS_MAX];
    int64_t ints[PARAMS_MAX]; /* big-endian */
    char bools[PARAMS_MAX];
    char *cleaned[PARAMS_MAX];
    int n;
};

static void params_free(struct params *p)
{
    for (int i = 0; i < p->n; i++)
        free(p->cleaned[i]);
}

static int param_text(struct params *p, int i, const char *s)
{
    p->values[i] = s;
    if (!s || utf8_valid(s, strlen(s)))
        return 0;
    p->cleaned[i] = utf8_clean(s, strlen(s));
    p->values[i] = p->cleaned[i];
    return p->cleaned[i] ? 0 : -ENOMEM;
}

static int param_int(struct params *p, int i, int64_t v)
{
    p->ints[i] = (int64_t)htobe64((uint64_t)v);
    p->values[i] = (const char *)&p->ints[i];
    p->lengths[i] = 8;
    p->formats[i] = 1;
    p->types[i] = OID_INT8;
    return 0;
}

static int param_bool(struct params *p, int i, int v)
{
    p->bools[i] = v ? 1 : 0;
    p->values[i] = &p->bools[i];
    p->lengths[i] = 1;
    p->formats[i] = 1;
    p->types[i] = OID_BOOL;
    return 0;
}

static int param_bytes(struct params *p, int i, const void *bytes, size_t n)
{
    if (n > INT32_MAX / 2)
        return -EFBIG;
    p->values[i] = bytes ? bytes : NULL;
    p->lengths[i] = (int)n;
    p->formats[i] = 1;
    p->types[i] = OID_BYTEA;
    return 0;
}

int q(struct conn *c, PGresult **ret, struct err *e, const char *sql, const char *types, ...)
{
    __attribute__((cleanup(params_free))) struct params p = {.n = 0};
    va_list ap;
    int r = 0;

    va_start(ap, types);
    for (const char *t = types; *t && r == 0 && p.n < PARAMS_MAX; t++) {
        int i = p.n++;

        if (*t == 's') {
            r = param_text(&p, i, va_arg(ap, const char *));
        } else if (*t == 'i') {
            r = param_int(&p, i, va_arg(ap, int64_t));
        } else if (*t == 'b') {
            r = param_bool(&p, i, va_arg(ap, int));
        } else {
            const void *bytes = va_arg(ap, const void *);

            r = param_bytes(&p, i, bytes, va_arg(ap, size_t));
        }
    }
    va_end(ap);
    if (r)
        return err_set(e, -r, r == -ENOMEM ? "out of memory" : "too large for the store");
    if (!PQsendQueryParams(c->pg, sql, p.n, p.types, p.values, p.lengths, p.formats, 1))
        return lost(c, e);
    return collect(c, ret, e);
}

/* ---- columns --------------------------------------------------------------------------------------------------------- */

bool col_null(const PGresult *r, int row, int col)
{
    return PQgetisnull(r, row, col);
}

int64_t col_int(const PGresult *r, int row, int col)
{
    const char *v = PQgetvalue(r, row, col);
    uint64_t v8;
    uint32_t v4;

    if (PQgetisnull(r, row, col))
        return 0;
    if (PQgetlength(r, row, col) == 8) {
        memcpy(&v8, v, 8);
        return (int64_t)be64toh(v8);
    }
    if (PQgetlength(r, row, col) == 4) {
        memcpy(&v4, v, 4);
        return (int32_t)be32toh(v4);
    }
    return v[0];
}

bool col_bool(const PGresult *r, int row, int col)
{
    return !PQgetisnull(r, row, col) && PQgetvalue(r, row, col)[0] != 0;
}

const char *col_text(const PGresult *r, int row, int col)
{
    return PQgetisnull(r, row, col) ? NULL : PQgetvalue(r, row, col);
}

char *col_dup(const PGresult *r, int row, int col, bool *failed_)
{
    char *s;

    if (PQgetisnull(r, row, col))
        return NULL;
    s = strdup(PQgetvalue(r, row, col));
    if (!s)
        *failed_ = true;
    return s;
}

void col_bytes(const PGresult *r, int row, int col, struct buf *out)
{
    if (!PQgetisnull(r, row, col))
        buf_add(out, PQgetvalue(r, row, col), (size_t)PQgetlength(r, row, col));
}

int64_t affected(const PGresult *r)
{
    return strtoll(PQcmdTuples((PGresult *)(uintptr_t)r), NULL, 10); /* libpq's signature lacks the const */
}

int q_bytes(struct conn *c, struct buf *ret, struct err *e, const char *what, const char *sql, int64_t id)
{
    cleanup_result PGresult *res = NULL;
    int r = q(c, &res, e, sql, "i", id);

    if (r)
        return r;
    if (PQntuples(res) == 0 || col_null(res, 0, 0))
        return err_set(e, ENOENT, "%s isn't in the store", what);
    col_bytes(res, 0, 0, ret);
    return buf_error(ret) ? err_set(e, ENOMEM, "out of memory") : 0;
}

/* ---- transactions ---------------------------------------------------------------------------------------------------- */

static const char *begin_sql(enum tx_mode mode)
{
    switch (mode) {
    case TX_READ:
    case TX_READ_LONG:
        return "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    case TX_WRITE:
    case TX_WRITE_LONG:
        return "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";
    case TX_BOUNDED:
        return "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL lock_timeout = '1500ms';"
               "SET LOCAL statement_timeout = '1800ms'";
    case TX_ONE:
    case TX_ONE_READ:
        break;
    }
    return NULL;
}

/* How the call may go on after a failure. */
enum again { AGAIN_NO, AGAIN_SAME, AGAIN_NEW, AGAIN_ASK };

static bool writes(enum tx_mode mode)
{
    return mode == TX_WRITE || mode == TX_WRITE_LONG || mode == TX_BOUNDED;
}

/* What may be at it for long, or wait for what others have locked, and nobody waits for in a hurry. */
static bool patient(enum tx_mode mode)
{
    return mode == TX_WRITE || mode == TX_WRITE_LONG || mode == TX_READ_LONG;
}

/* What a transaction can be asked about by when the answer to its COMMIT is lost. */
struct mark {
    char *token;    /* of its row in `commits`; NULL = it wrote nothing, or may be run again in any case. Owned */
    int64_t number; /* the server's; it tells only whether it is still under way, since after a crash others get it */
    int64_t at;     /* clock_boot_ms: the row isn't kept for ever */
};

static void mark_free(struct mark *m)
{
    free(m->token);
    *m = (struct mark){0};
}

/* The last statement before COMMIT; what has written nothing writes nothing here. */
static int leave_mark(struct conn *c, struct mark *ret, struct err *e)
{
    cleanup_result PGresult *res = NULL;
    bool no_memory = false;
    int r;

    if (!c->store->migrated)
        return 0;
    ret->at = clock_boot_ms();
    r = q(c, &res, e,
          "INSERT INTO checkpointfs.commits (token) SELECT gen_random_uuid() WHERE pg_current_xact_id_if_assigned() IS NOT NULL"
          " RETURNING token::text, pg_current_xact_id()::text::bigint", "");
    if (r || PQntuples(res) == 0)
        return r;
    ret->token = col_dup(res, 0, 0, &no_memory);
    ret->number = col_int(res, 0, 1);
    return no_memory ? err_set(e, ENOMEM, "out of memory") : 0;
}

static void roll_back(struct conn *c)
{
    cleanup_err struct err ignored = {0};
    char kept[sizeof(c->sqlstate)];

    memcpy(kept, c->sqlstate, sizeof(kept));
    if (q_simple(c, "ROLLBACK", &ignored))
        c->dead = true;
    memcpy(c->sqlstate, kept, sizeof(kept));
}

static int run_once(struct conn *c, enum tx_mode mode, tx_fn fn, void *arg, enum again *ret_again, struct mark *ret_mark,
                    struct err *e)
{
    const char *begin = begin_sql(mode);
    bool commit_sent = false;
    int end = 0;
    int r = begin ? q_simple(c, begin, e) : 0;

    if (r == 0)
        r = fn(c, arg, e);
    if (r >= 0 && writes(mode))
        end = leave_mark(c, ret_mark, e);
    if (r >= 0 && end == 0 && begin) {
        commit_sent = ret_mark->token != NULL;
        end = q_simple(c, "COMMIT", e);
    } else if (begin && !c->dead) {
        roll_back(c);
    }
    r = end ? end : r;
    *ret_again = AGAIN_NO;
    if (r < 0 && c->dead && mode != TX_ONE && clock_mono_ms() < c->deadline_ms)
        *ret_again = commit_sent ? AGAIN_ASK : AGAIN_NEW;
    else if (r < 0 && (strcmp(c->sqlstate, "40P01") == 0 || strcmp(c->sqlstate, "40001") == 0))
        *ret_again = AGAIN_SAME;
    return r;
}

/* The same of one whose number was committed, by it or by the one that got the number after a crash. */
static int ask_token(struct conn *c, const struct mark *m, struct err *e)
{
    cleanup_result PGresult *res = NULL;
    int r = q(c, &res, e, "SELECT 1 FROM checkpointfs.commits WHERE token = $1::uuid", "s", m->token);

    if (r)
        return r;
    if (PQntuples(res) > 0)
        return 1;
    return clock_boot_ms() - m->at < ASKABLE_MS ? 0 : err_set(e, EIO, "whether it was committed is no longer known");
}

/* What became of a transaction: 1 it is done, 0 it is not, -EAGAIN it is under way. Its number comes first: so whoever looks for its row
 * afterwards sees what it did. */
static int ask_once(struct conn *c, const struct mark *m, struct err *e)
{
    cleanup_result PGresult *res = NULL;
    int r = q(c, &res, e, "SELECT pg_xact_status($1::text::xid8)", "i", m->number);

    /* EINVAL: a number that the server never gave, so it was lost in a crash */
    if (r == -EINVAL || (r == 0 && str_equal(col_text(res, 0, 0), "aborted")))
        return 0;
    if (r == 0 && str_equal(col_text(res, 0, 0), "in progress"))
        return -EAGAIN;
    return r ? r : ask_token(c, m, e);
}

/* What became of a transaction whose COMMIT wasn't answered: 1 it is done, 0 it is not, -errno nobody knows. */
static int ask_outcome(struct store *s, const struct mark *m, int64_t deadline_ms)
{
    unsigned silences = atomic_load(&s->silences);

    if (deadline_ms > clock_mono_ms() + ASK_MS)
        deadline_ms = clock_mono_ms() + ASK_MS;
    for (;;) {
        cleanup_err struct err why = {0};
        struct conn *c = NULL;
        int r = pool_checkout(s, false, deadline_ms, &c, &why);

        if (r == 0) {
            r = ask_once(c, m, &why);
            pool_checkin(s, c);
        }
        if (r >= 0)
            return r;
        if (clock_mono_ms() + ASK_PAUSE_MS >= deadline_ms || atomic_load(&s->abandoned) || atomic_load(&s->silences) != silences)
            return r; /* the server is away, or still at it */
        clock_sleep_ms(ASK_PAUSE_MS);
    }
}

void store_abandon(struct store *s)
{
    atomic_store(&s->abandoned, true);
}

void store_unanswered(struct store *s)
{
    if (clock_mono_ms() - atomic_load(&s->heard_ms) >= SILENT_MS)
        atomic_fetch_add(&s->silences, 1);
}

void store_set_probe(struct store *s, void (*probe)(void *arg, const char *what), void *arg)
{
    s->probe = probe;
    s->probe_arg = arg;
}

void store_set_mask(struct store *s, char *(*mask)(void *arg, const char *text), void *arg)
{
    s->mask = mask;
    s->mask_arg = arg;
}

static void probe(const struct store *s, const char *when, const char *who)
{
    char what[128];

    snprintf(what, sizeof(what), "%s %s", when, who);
    s->probe(s->probe_arg, what);
}

static int tx(struct store *s, enum tx_mode mode, tx_fn fn, void *arg, struct err *e)
{
    bool is_long = mode == TX_READ_LONG || mode == TX_WRITE_LONG;
    int64_t deadline = clock_mono_ms() + (mode == TX_BOUNDED ? BOUNDED_MS : is_long ? LONG_MS : NORMAL_MS);
    int reconnected = 0;

    for (int attempt = 0;; attempt++) {
        cleanup_err struct err why = {0};
        struct conn *c = NULL;
        enum again again = AGAIN_NO;
        __attribute__((cleanup(mark_free))) struct mark mark = {0};
        int r = pool_checkout(s, patient(mode), deadline, &c, &why);

        if (r == 0) {
            c->bounded = mode == TX_BOUNDED;
            r = run_once(c, mode, fn, arg, &again, &mark, &why);
            pool_checkin(s, c);
        } else if (mode == TX_BOUNDED && r == -ETIMEDOUT) {
            r = -EIO;
            why.code = EIO;
        }
        if (r >= 0)
            return r;
        if (again == AGAIN_ASK) {
            int done = ask_outcome(s, &mark, deadline);

            if (done > 0)
                return 0;
            again = done == 0 ? AGAIN_NEW : AGAIN_NO;
        }
        if (attempt >= RETRIES || again == AGAIN_NO || atomic_load(&s->abandoned) || (again == AGAIN_NEW && reconnected == RECONNECTS)) {
            err_move(e, &why);
            return r;
        }
        reconnected += again == AGAIN_NEW;
        if (again == AGAIN_SAME)
            clock_sleep_ms(attempt + 1);
    }
}

int store_tx_of(struct store *s, const char *who, enum tx_mode mode, tx_fn fn, void *arg, struct err *e)
{
    bool probed = s->probe && writes(mode);
    int r;

    if (probed)
        probe(s, "before", who);
    r = tx(s, mode, fn, arg, e);
    if (probed)
        probe(s, "after", who);
    return r;
}
