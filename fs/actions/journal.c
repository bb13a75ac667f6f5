/* The journal as the state machines use it: announce before the effect, settle after it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "actions_i.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/log.h"
#include "util/text.h"

#define STORE_RETRY_MS 500
#define TURN_POLL_MS 40

bool store_away(int code)
{
    switch (code) {
    case ECONNREFUSED:
    case ECONNRESET:
    case ECONNABORTED:
    case EHOSTUNREACH:
    case ENETUNREACH:
    case ETIMEDOUT:
    case EPIPE:
    case EIO:
        return true;
    default:
        return false;
    }
}

bool journal_again(struct run *r, int code, const struct err *e, int *tries)
{
    if (!store_away(-code) || atomic_load(&r->g->stopping))
        return false;
    if ((*tries)++ == 0)
        log_warn("action %s waits for the store: %s", r->uid, err_text(e));
    clock_sleep_ms(STORE_RETRY_MS);
    return true;
}

const char *data_get(const struct run *r, const char *key)
{
    return json_string_value(json_object_get(r->data, key));
}

int data_set(struct run *r, const char *key, const char *value)
{
    return json_object_set_new(r->data, key, value ? json_string(value) : json_null()) < 0 ? -ENOMEM : 0;
}

int data_set_int(struct run *r, const char *key, int64_t value)
{
    return json_object_set_new(r->data, key, json_integer(value)) < 0 ? -ENOMEM : 0;
}

int data_set_operations(struct run *r, const struct neon_operations *ops)
{
    json_t *list = json_array();

    for (size_t i = 0; list && i < ops->n; i++)
        json_array_append_new(list, json_string(ops->items[i].id));
    return json_object_set_new(r->data, "operations", list) < 0 ? -ENOMEM : 0;
}

static const char *verb_of(enum action_kind kind)
{
    switch (kind) {
    case ACTION_TAKE: return "take";
    case ACTION_RESTORE: return "restore";
    case ACTION_RESUME: return "resume";
    case ACTION_REPLAY: return "replay";
    case ACTION_CANCEL: return "cancel";
    case ACTION_DELETE: return "prune";
    }
    return "unknown";
}

static void put(json_t *o, const char *key, const char *value)
{
    if (value)
        json_object_set_new(o, key, json_string(value));
}

static json_t *doc_by(const struct run *r)
{
    json_t *by = json_object();

    json_object_set_new(by, "uid", json_integer((json_int_t)r->who.uid));
    put(by, "user", r->who.user);
    json_object_set_new(by, "pid", json_integer((json_int_t)r->who.pid));
    put(by, "command", r->who.command);
    put(by, "host", r->who.host);
    return by;
}

char *journal_doc(const struct run *r, const char *state, int code, const char *message)
{
    cleanup_json json_t *o = json_object();
    struct brief b = {0};
    char when[CLOCK_TEXT_MAX];
    char *text;
    char *line = NULL;

    put(o, "action", r->uid);
    put(o, "file", verb_of(r->kind));
    put(o, "command", r->command);
    if (r->checkpoint && engine_brief(r->g, r->checkpoint, &b) == 0) {
        put(o, "checkpoint", b.uid);
        put(o, "name", b.name);
    }
    put(o, "state", state);
    if (code)
        put(o, "errno", strerrorname_np(code));
    put(o, "message", message);
    put(o, "started_at", clock_format(r->started_at, when));
    if (strcmp(state, "running") != 0)
        put(o, "ended_at", clock_format(clock_now(), when));
    json_object_set_new(o, "by", doc_by(r));
    if (json_object_size(r->data))
        json_object_set(o, "journal", r->data);
    brief_clear(&b);
    text = json_dumps(o, JSON_INDENT(2));
    if (text)
        line = str_format("%s\n", text);
    free(text);
    return line;
}

int journal_step(struct run *r, const char *step, const char *activity, struct err *e)
{
    cleanup_free char *data = json_dumps(r->data, JSON_COMPACT);
    cleanup_free char *doc = journal_doc(r, "running", 0, NULL);
    char *copy = strdup(step);
    int tries = 0;
    int code;

    if (!data || !doc || !copy) {
        free(copy);
        return err_set(e, ENOMEM, "out of memory");
    }
    do {
        code = store_action_step(r->g->c.store, r->action, step, data, doc, activity, e);
    } while (code < 0 && journal_again(r, code, e, &tries));
    if (code < 0) {
        free(copy);
        return code;
    }
    free(r->step);
    r->step = copy;
    engine_refresh(r->g, r->checkpoint, r->action);
    return 0;
}

static const char *state_word(enum action_state s)
{
    switch (s) {
    case ACTION_DONE: return "done";
    case ACTION_FAILED: return "failed";
    case ACTION_UNKNOWN: return "unknown";
    case ACTION_QUEUED: return "queued";
    case ACTION_RUNNING: return "running";
    case ACTION_REFUSED: return "refused";
    }
    return "unknown";
}

int journal_finish(struct run *r, enum action_state state, int code, const char *message, const char *outcome, bool release,
                   struct err *e)
{
    cleanup_free char *doc = journal_doc(r, state_word(state), code, message);
    struct store_finish f = {.state = state, .code = code, .message = message, .doc = doc, .outcome = outcome, .release_decision = release};
    int tries = 0;
    int rc;

    do {
        rc = store_action_finish(r->g->c.store, r->action, &f, e);
    } while (rc < 0 && journal_again(r, rc, e, &tries));
    engine_refresh(r->g, r->checkpoint, r->action);
    return rc;
}

bool journal_owns(struct run *r)
{
    struct store_action a = {0};
    bool owns = store_action(r->g->c.store, r->action, &a, NULL) == 0 && (a.state == ACTION_QUEUED || a.state == ACTION_RUNNING) &&
                a.mount_id == r->g->mount_id;

    store_action_free(&a);
    return owns;
}

int journal_turn(struct run *r, struct err *e)
{
    int tries = 0;

    for (;;) {
        int got = store_turn(r->g->c.store, r->action, e);

        if (got == 1)
            return 0;
        if (atomic_load(&r->g->stopping))
            return err_set(e, ECANCELED, "the mount is being unmounted");
        if (atomic_load(&r->cancelled))
            return err_set(e, ECANCELED, CANCELLED_UNDONE);
        if (got == 0)
            clock_sleep_ms(TURN_POLL_MS);
        else if (!journal_again(r, got, e, &tries))
            return got;
    }
}

void journal_turn_release(struct run *r)
{
    cleanup_err struct err e = {0};

    /* A turn that can't be given back is void once its action is settled. */
    if (store_turn_release(r->g->c.store, r->action, &e) < 0)
        log_warn("action %s keeps the project's turn until it is settled: %s", r->uid, err_text(&e));
}
