/* The audit log: each line is made here, numbered and chained up by the database, and stored as the bytes that are read. */
#include "store_i.h"

#include <errno.h>
#include <string.h>

#include "util/clock.h"
#include "util/text.h"

json_t *json_text(const char *s)
{
    cleanup_free char *clean = s ? utf8_clean(s, strlen(s)) : NULL;

    return clean ? json_string(clean) : NULL;
}

static int put(json_t *o, const char *key, json_t *v)
{
    return v ? json_object_set_new(o, key, v) : -1;
}

/* A field that is left out when there is nothing to say. */
static int put_text(json_t *o, const char *key, const char *s)
{
    return s ? put(o, key, json_text(s)) : 0;
}

char *who_json(const struct store_who *who)
{
    cleanup_json json_t *o = json_object();
    int bad = 0;

    if (!o)
        return NULL;
    if (who) {
        bad |= put(o, "uid", json_integer((json_int_t)who->uid));
        bad |= put(o, "gid", json_integer((json_int_t)who->gid));
        bad |= put_text(o, "user", who->user);
        bad |= put(o, "pid", json_integer((json_int_t)who->pid));
        bad |= put_text(o, "command", who->command);
        bad |= put_text(o, "host", who->host);
    }
    return bad ? NULL : json_dumps(o, JSON_COMPACT);
}

/* The object's text, and behind its members those that are JSON text already. */
static char *with_told(const json_t *o, const char *told)
{
    cleanup_free char *text = json_dumps(o, JSON_COMPACT);

    if (!text || !told)
        return steal_ptr(&text);
    return str_format("%.*s,%s}", (int)strlen(text) - 1, text, told);
}

static char *event_text(const struct event *ev, const char *requests)
{
    char at[CLOCK_TEXT_MAX];
    cleanup_json json_t *o = json_object();
    int bad = 0;

    if (!o)
        return NULL;
    bad |= put(o, "at", json_string(clock_format(clock_now(), at)));
    bad |= put(o, "event", json_string(ev->what));
    bad |= put_text(o, "checkpoint", ev->uid);
    bad |= put_text(o, "name", ev->name);
    bad |= put_text(o, "branch_name", ev->branch);
    bad |= put_text(o, "action", ev->action);
    if (ev->by && strcmp(ev->by, "{}") != 0)
        bad |= put(o, "by", json_loads(ev->by, 0, NULL));
    if (ev->more)
        bad |= json_object_update(o, ev->more);
    if (requests)
        bad |= put(o, "requests", json_loads(requests, 0, NULL));
    bad |= put_text(o, "outcome", ev->outcome);
    if (ev->code)
        bad |= put(o, "errno", json_string(strerrorname_np(ev->code) ? strerrorname_np(ev->code) : "?"));
    bad |= put_text(o, "message", ev->message);
    return bad ? NULL : with_told(o, ev->told);
}

void event_about(struct event *ev, const struct act_row *act, const struct ck_row *k)
{
    ev->line_id = k->line_id;
    ev->checkpoint = k->id;
    ev->uid = k->uid;
    ev->name = k->name;
    ev->action = act->uid;
    ev->by = act->by;
    ev->asked_by = act->id;
}

/* The requests to Neon that the action's document names, of all steps; a null when there are none. */
static int requests_of(struct conn *c, int64_t action, PGresult **ret, struct err *e)
{
    return q(c, ret, e,
             "SELECT json_agg(r)::text FROM checkpointfs.actions, json_array_elements(coalesce(doc::json->'journal'->'steps',"
             " doc::json->'steps')) s, json_array_elements(s->'requests') r WHERE id = $1", "i", action);
}

int event_append(struct conn *c, const struct event *ev, struct err *e)
{
    cleanup_result PGresult *requests = NULL;
    cleanup_free char *text = NULL;
    int r = ev->asked_by ? requests_of(c, ev->asked_by, &requests, e) : 0;

    if (r)
        return r;
    text = event_text(ev, requests && !col_null(requests, 0, 0) ? col_text(requests, 0, 0) : NULL);
    if (!text)
        return err_set(e, ENOMEM, "out of memory");
    return q(c, NULL, e, "SELECT checkpointfs.append_event($1, nullif($2, 0), $3)", "iis", ev->line_id, ev->checkpoint, text);
}

int notify_change(struct conn *c, int64_t checkpoint, struct err *e)
{
    return q(c, NULL, e, "SELECT checkpointfs.note_changes(line_id, 'checkpoint', ARRAY[id]) FROM checkpointfs.checkpoints WHERE id = $1",
             "i", checkpoint);
}

/* ---- reading by offset ----------------------------------------------------------------------------------------------- */

struct window {
    int64_t id;
    int64_t off;
    size_t n;
    struct buf *out;
};

/* Appends those bytes of the rows (start offset, bytes; in order) that fall into the window. */
static int cut_window(const PGresult *res, const struct window *w, struct err *e)
{
    int64_t end = w->off + (int64_t)w->n;

    for (int i = 0; i < PQntuples(res); i++) {
        int64_t start = col_int(res, i, 0);
        int64_t stop = start + PQgetlength(res, i, 1);
        int64_t from = start > w->off ? start : w->off;
        int64_t to = stop < end ? stop : end;

        if (from < to)
            buf_add(w->out, PQgetvalue(res, i, 1) + (from - start), (size_t)(to - from));
    }
    return buf_error(w->out) ? err_set(e, ENOMEM, "out of memory") : 0;
}

static int events_fn(struct conn *c, void *arg, struct err *e)
{
    struct window *w = arg;
    cleanup_result PGresult *res = NULL;
    int r = q(c, &res, e,
              "SELECT start_off, bytes FROM checkpointfs.events WHERE line_id = $1 AND start_off < $2 + $3 AND start_off >="
              " coalesce((SELECT max(start_off) FROM checkpointfs.events WHERE line_id = $1 AND start_off <= $2), 0)"
              " ORDER BY start_off",
              "iii", w->id, w->off, (int64_t)w->n);

    return r ? r : cut_window(res, w, e);
}

static int history_fn(struct conn *c, void *arg, struct err *e)
{
    struct window *w = arg;
    cleanup_result PGresult *res = NULL;
    int r = q(c, &res, e,
              "SELECT history_off, bytes FROM checkpointfs.events WHERE checkpoint_id = $1 AND history_off < $2 + $3 AND"
              " history_off >="
              " coalesce((SELECT max(history_off) FROM checkpointfs.events WHERE checkpoint_id = $1 AND history_off <= $2), 0)"
              " ORDER BY history_off",
              "iii", w->id, w->off, (int64_t)w->n);

    return r ? r : cut_window(res, w, e);
}

int store_read_events(struct store *s, int64_t line_id, int64_t off, size_t n, struct buf *ret, struct err *e)
{
    struct window w = {line_id, off, n, ret};

    return n ? store_tx(s, TX_ONE_READ, events_fn, &w, e) : 0;
}

int store_read_history(struct store *s, int64_t checkpoint, int64_t off, size_t n, struct buf *ret, struct err *e)
{
    struct window w = {checkpoint, off, n, ret};

    return n ? store_tx(s, TX_ONE_READ, history_fn, &w, e) : 0;
}

struct head { int64_t line_id, size, mtime; };

static int head_fn(struct conn *c, void *arg, struct err *e)
{
    struct head *h = arg;
    cleanup_result PGresult *res = NULL;
    int r = q(c, &res, e, "SELECT size, changed_at FROM checkpointfs.event_heads WHERE line_id = $1", "i", h->line_id);

    if (r == 0 && PQntuples(res) > 0) {
        h->size = col_int(res, 0, 0);
        h->mtime = col_int(res, 0, 1);
    }
    return r;
}

int store_events_size(struct store *s, int64_t line_id, int64_t *ret_bytes, int64_t *ret_mtime, struct err *e)
{
    struct head h = {.line_id = line_id};
    int r = store_tx(s, TX_ONE_READ, head_fn, &h, e);

    if (r == 0) {
        *ret_bytes = h.size;
        *ret_mtime = h.mtime;
    }
    return r;
}
