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

static bool again(struct run *r, bool may_pass, const struct err *e, int *tries)
{
    if (!may_pass || run_leaves(r))
        return false;
    if ((*tries)++ == 0)
        log_warn("action %s waits for the store: %s", r->uid, err_text(e));
    clock_sleep_ms(STORE_RETRY_MS);
    return true;
}

bool journal_again(struct run *r, int code, const struct err *e, int *tries)
{
    if (code == -ESTALE)
        run_check_lost(r);
    return again(r, store_away(-code), e, tries);
}

/* What an operator can't put right: the action is settled, gone or another's, or the store can't hold what it was given. All else passes:
 * a full disk, a right that was taken away, a schema that is being migrated. */
static bool for_good(int code)
{
    return code == EALREADY || code == ENOENT || code == ESTALE || code == EINVAL || code == EFBIG;
}

bool journal_settles_again(struct run *r, int code, const struct err *e, int *tries)
{
    if (code == -ESTALE)
        run_check_lost(r);
    return again(r, !for_good(-code), e, tries);
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

static json_t *ids_of(const struct neon_operations *ops)
{
    json_t *list = json_array();

    for (size_t i = 0; list && i < ops->n; i++)
        json_array_append_new(list, json_string(ops->items[i].id));
    return list;
}

int data_set_operations(struct run *r, const struct neon_operations *ops)
{
    return json_object_set_new(r->data, "operations", ids_of(ops)) < 0 ? -ENOMEM : 0;
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
    case ACTION_UNDO: return "undo";
    case ACTION_ADOPT: return "adopt";
    case ACTION_BRANCH: return "restore";
    case ACTION_PROMOTE: return "promote";
    case ACTION_PRUNE: return "prune";
    case ACTION_IMPORT: return "import";
    case ACTION_DRY_RUN: return "restore";
    }
    return "unknown";
}

static void put(json_t *o, const char *key, const char *value)
{
    if (value)
        json_object_set_new(o, key, json_string(value));
}

json_t *journal_by(const struct store_who *who)
{
    json_t *by = json_object();

    json_object_set_new(by, "uid", json_integer((json_int_t)who->uid));
    json_object_set_new(by, "gid", json_integer((json_int_t)who->gid));
    put(by, "user", who->user);
    json_object_set_new(by, "pid", json_integer((json_int_t)who->pid));
    put(by, "command", who->command);
    put(by, "host", who->host);
    return by;
}

/* ---- how far it came, since when, and what was asked of Neon there ------------------------------------------------------- */

/* The last of `steps`; NULL = there is none. */
static json_t *present_step(const struct run *r)
{
    const json_t *steps = json_object_get(r->data, "steps");
    size_t n = json_array_size(steps);

    return n ? json_array_get(steps, n - 1) : NULL;
}

void journal_at(struct run *r, const char *step)
{
    json_t *last = present_step(r);
    char when[CLOCK_TEXT_MAX];

    if (last && str_equal(json_string_value(json_object_get(last, "step")), step))
        return; /* once more, after Neon couldn't be asked for a while */
    if (!last)
        json_object_set_new(r->data, "steps", json_array());
    json_array_append_new(json_object_get(r->data, "steps"),
                          json_pack("{s:s, s:s}", "step", step, "at", clock_format(clock_now(), when)));
}

json_t *journal_requested(void)
{
    char when[CLOCK_TEXT_MAX];

    return json_pack("[{s:s, s:s}]", "step", "requested", "at", clock_format(clock_now(), when));
}

static json_t *request_json(const char *what, int64_t asked_at, const struct neon_change *done)
{
    char when[CLOCK_TEXT_MAX];

    return json_pack("{s:s, s:s, s:I, s:s*, s:o}", "request", what, "at", clock_format(asked_at, when), "ms",
                     (json_int_t)(clock_now() - asked_at) / 1000000, "request_id", done->request_id, "operations",
                     ids_of(&done->operations));
}

static bool asks(void *arg, const char *what)
{
    struct asking *a = arg;

    (void)what;
    a->at = clock_now();
    return true;
}

static void was_asked(void *arg, const char *what, const struct neon_change *done)
{
    struct asking *a = arg;

    if (done)
        json_array_append_new(a->requests, request_json(what, a->at, done));
}

void asking_of(struct asking *a, struct neon_call *call)
{
    call->before_change = asks;
    call->after_change = was_asked;
    call->change_arg = a;
}

void journal_asked(struct run *r, const char *what, const struct neon_change *done)
{
    json_t *step;

    if (!present_step(r)) /* begun by an older program */
        journal_at(r, r->step);
    step = present_step(r);
    if (!json_object_get(step, "requests"))
        json_object_set_new(step, "requests", json_array());
    json_array_append_new(json_object_get(step, "requests"), request_json(what, r->asked_at, done));
}

json_t *journal_take_requests(struct run *r)
{
    json_t *step = present_step(r);
    json_t *requests = json_incref(json_object_get(step, "requests"));

    json_object_del(step, "requests");
    return requests;
}

/* ---- its document ---------------------------------------------------------------------------------------------------------- */

char *journal_doc(const struct run *r, const char *state, int code, const char *message)
{
    cleanup_json json_t *o = json_object();
    struct brief b = {0};
    struct branch_brief i = {0};
    char when[CLOCK_TEXT_MAX];
    char *text;
    char *line = NULL;

    put(o, "action", r->uid);
    put(o, "file", r->kind == ACTION_DRY_RUN && r->of_branch ? "promote" : verb_of(r->kind));
    put(o, "command", r->command);
    if (r->checkpoint && engine_brief(r->g, r->checkpoint, &b) == 0) {
        put(o, "checkpoint", b.uid);
        put(o, "name", b.name);
    }
    if (r->of_branch && engine_branch_brief(r->g, r->isolated, &i) == 0)
        put(o, "branch", i.name);
    branch_brief_clear(&i);
    put(o, "state", state);
    if (code)
        put(o, "errno", strerrorname_np(code));
    put(o, "message", message);
    put(o, "started_at", clock_format(r->started_at, when));
    if (strcmp(state, "running") != 0)
        put(o, "ended_at", clock_format(clock_now(), when));
    if (r->by)
        json_object_set(o, "by", r->by);
    if (r->would)
        json_object_set(o, "would", r->would);
    if (r->kind == ACTION_PRUNE)
        json_object_update_missing(o, r->data); /* a plan is read by people */
    else if (json_object_size(r->data))
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
    cleanup_free char *data = NULL;
    cleanup_free char *doc = NULL;
    cleanup_err struct err own = {0};
    char *copy = strdup(step);
    int tries = 0;
    int code;

    e = e ? e : &own; /* the log says what it waits for */
    journal_at(r, *step ? step : "requested");
    data = json_dumps(r->data, JSON_COMPACT);
    doc = journal_doc(r, "running", 0, NULL);
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
    int64_t undone = json_integer_value(json_object_get(r->data, "undoes_checkpoint"));
    cleanup_err struct err own = {0};
    int tries = 0;
    int rc;

    e = e ? e : &own;
    do {
        rc = store_action_finish(r->g->c.store, r->action, &f, e);
    } while (rc < 0 && journal_settles_again(r, rc, e, &tries));
    engine_refresh(r->g, r->checkpoint, r->action);
    if (undone) /* an undo is of no checkpoint, but the time line of the one it went back behind tells how it ended */
        engine_refresh(r->g, undone, r->action);
    return rc;
}

void journal_settle(struct run *r, enum action_state state, int code, const char *message, const char *outcome, bool release)
{
    cleanup_err struct err e = {0};
    int rc = journal_finish(r, state, code, message, outcome, release, &e);

    if (rc == 0 || rc == -EALREADY) {
        run_end(r, code, message);
        return;
    }
    log_error("action %s can't be settled now, it will be looked at again: %s", r->uid, err_text(&e));
    if (!run_leaves(r))
        run_end(r, EIO, "the store doesn't take how the action ended");
}

int journal_was_done(struct run *r, int code, int tries, struct err *e)
{
    struct store_action a = {0};
    cleanup_err struct err why = {0};
    bool done;
    int rc;

    if (code != -EALREADY || tries == 0)
        return code;
    do {
        rc = store_action(r->g->c.store, r->action, &a, &why);
    } while (rc < 0 && journal_again(r, rc, &why, &tries));
    done = rc == 0 && a.state == ACTION_DONE;
    store_action_free(&a);
    if (!done)
        return code;
    if (e)
        err_clear(e);
    return 0;
}

bool journal_owns(struct run *r)
{
    struct store_action a = {0};
    bool owns = store_action(r->g->c.store, r->action, &a, NULL) == 0 && (a.state == ACTION_QUEUED || a.state == ACTION_RUNNING) &&
                a.mount_id == atomic_load(&r->g->mount_id);

    store_action_free(&a);
    return owns;
}
