/* A command written to a control file: parsed, decided, claimed in the journal, started. One handler a verb, in the table at the end. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "actions_i.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/log.h"
#include "util/text.h"

/* How long a verb waits for a seal under way (design.md §4). */
#define SEAL_WAIT_MS 1000
#define TEXT_MAX 4095

struct request {
    struct engine *g;
    int64_t checkpoint;
    const struct command *cmd;
    const char *text;        /* as typed, for the journal */
    const struct who *who;
};

static int begin(const struct request *q, enum action_kind kind, int64_t checkpoint, const char *decisions, struct run **ret, struct err *e)
{
    struct store_begin b = {
        .kind = kind, .line_id = q->g->line_id, .mount_id = q->g->mount_id, .checkpoint = checkpoint, .again = q->cmd->again,
        .command = q->text, .decisions = decisions, .who = &q->who->w,
    };
    struct store_action a = {0};
    int r = store_action_begin(q->g->c.store, &b, &a, e);

    if (r < 0)
        return r;
    *ret = run_new(q->g, &a, &q->who->w);
    store_action_free(&a);
    if (!*ret)
        return err_set(e, ENOMEM, "out of memory; the action goes on in a moment");
    (*ret)->decisions = str_dup(decisions);
    if (decisions)
        data_set(*ret, "decisions", decisions); /* whoever takes over needs them */
    /* Once a write with `nowait` is answered, the status shows it, also while it waits for the project's turn. */
    journal_step(*ret, "", kind == ACTION_RESTORE || kind == ACTION_REPLAY ? "restoring 1/5" : NULL, NULL);
    return 0;
}

static int in_place(const struct request *q, struct run **ret, struct err *e)
{
    int r = begin(q, ACTION_RESTORE, q->checkpoint, NULL, ret, e);

    if (r == 0)
        run_start(*ret, restore_body);
    return r;
}

/* What both resume and replay need before anything is claimed. */
static int prepared(const struct request *q, char **ret_decisions, struct err *e)
{
    int r = decide(q->g, q->checkpoint, q->cmd, ret_decisions, e);

    if (r < 0)
        return r;
    if (!q->g->c.resume_command)
        return err_set(e, EOPNOTSUPP, "no resume command is configured: start the mount with --resume=COMMAND, "
                       "or set `command` under [resume] in the configuration file");
    r = agent_check(q->g->c.resume_command, q->g->c.cwd, e);
    return r < 0 ? err_prefix(e, "the resume command can't be run") : 0;
}

static int resume(const struct request *q, struct run **ret, struct err *e)
{
    cleanup_free char *decisions = NULL;
    int r = prepared(q, &decisions, e);

    if (r == 0)
        r = begin(q, ACTION_RESUME, q->checkpoint, decisions, ret, e);
    if (r == 0)
        run_start(*ret, resume_body);
    return r;
}

static int replay(const struct request *q, struct run **ret, struct err *e)
{
    cleanup_free char *decisions = NULL;
    int r = prepared(q, &decisions, e);

    if (r == 0)
        r = begin(q, ACTION_REPLAY, q->checkpoint, decisions, ret, e);
    if (r == 0)
        run_start(*ret, replay_body);
    return r;
}

/* The run whose agent a cancel ends; NULL = none. */
static struct run *agents_run(struct engine *g, int64_t checkpoint)
{
    struct run *found = NULL;

    pthread_mutex_lock(&g->lock);
    for (struct run *r = g->runs; r && !found; r = r->hh.next)
        if (r->checkpoint == checkpoint && (r->kind == ACTION_RESUME || r->kind == ACTION_REPLAY))
            found = run_ref(r);
    pthread_mutex_unlock(&g->lock);
    return found;
}

static int cancel(const struct request *q, struct run **ret, struct err *e)
{
    struct run *target = agents_run(q->g, q->checkpoint);
    struct run *own = NULL;
    bool runs;
    int r;

    (void)ret;
    if (!target)
        return err_set(e, ESRCH, "no agent is running here, and none is waited for; see status");
    r = begin(q, ACTION_CANCEL, q->checkpoint, NULL, &own, e);
    if (r == 0) {
        atomic_store(&target->cancelled, true);
        pthread_mutex_lock(&target->lock);
        runs = target->agent != NULL;
        if (runs)
            agent_cancel(target->agent);
        pthread_mutex_unlock(&target->lock);
        data_set(own, "cancelled", target->uid);
        journal_finish(own, ACTION_DONE, 0, runs ? "the agent was told to end" : "no agent will be started", NULL, false, NULL);
        run_end(own, 0, NULL);
        run_unref(own);
    }
    run_unref(target);
    return r;
}

static int delete(const struct request *q, struct run **ret, struct err *e)
{
    struct index_entry *entry;
    int64_t id = 0;
    int r;

    index_read_lock(q->g->c.index);
    entry = index_by_name(q->g->c.index, q->cmd->target);
    if (entry)
        id = entry->c.id;
    index_unlock(q->g->c.index);
    if (!id)
        return err_set(e, ENOENT, "there is no checkpoint `%s`", q->cmd->target);
    r = begin(q, ACTION_DELETE, id, NULL, ret, e);
    if (r == 0)
        run_start(*ret, delete_body);
    return r;
}

/* Which verb of which control file is handled where. */
static const struct {
    enum control control;
    enum verb verb;
    int (*handle)(const struct request *q, struct run **ret, struct err *e);
} handlers[] = {
    {CONTROL_RESTORE, VERB_IN_PLACE, in_place},
    {CONTROL_RESUME, VERB_DECIDE, resume},
    {CONTROL_REPLAY, VERB_IN_PLACE, replay},
    {CONTROL_CANCEL, VERB_CANCEL, cancel},
    {CONTROL_PRUNE, VERB_DELETE, delete},
};

static int dispatch(const struct request *q, struct run **ret, struct err *e)
{
    for (size_t i = 0; i < sizeof(handlers) / sizeof(*handlers); i++)
        if (handlers[i].control == q->cmd->control && handlers[i].verb == q->cmd->verb)
            return handlers[i].handle(q, ret, e);
    return err_set(e, EINVAL, "this verb is not there yet");
}

/* ---- refusals ---------------------------------------------------------------------------------------------------------- */

static enum action_kind kind_of(enum control c)
{
    switch (c) {
    case CONTROL_RESTORE: return ACTION_RESTORE;
    case CONTROL_RESUME: return ACTION_RESUME;
    case CONTROL_REPLAY: return ACTION_REPLAY;
    case CONTROL_CANCEL: return ACTION_CANCEL;
    case CONTROL_PRUNE: return ACTION_DELETE;
    }
    return ACTION_CANCEL;
}

static void refused(struct engine *g, int64_t checkpoint, enum action_kind kind, const char *text, const struct who *who, int code,
                    const char *message)
{
    cleanup_free char *command = utf8_clean(text ? text : "", text ? strlen(text) : 0);
    struct store_begin b = {
        .kind = kind, .line_id = g->line_id, .mount_id = g->mount_id, .checkpoint = checkpoint,
        .command = command, .who = &who->w,
    };
    struct run r = { /* only for its document */
        .g = g, .checkpoint = checkpoint, .kind = b.kind, .command = command, .who = who->w, .started_at = clock_now(),
    };
    cleanup_json json_t *data = json_object();
    cleanup_free char *doc = NULL;
    cleanup_err struct err e = {0};
    int64_t action = 0;

    if (store_away(code)) { /* it was the store that failed: no need to wait for it once more */
        log_warn("not done: %s", message);
        return;
    }
    r.data = data;
    doc = journal_doc(&r, "refused", code, message);
    if (store_action_refuse(g->c.store, &b, code, message, doc, &action, &e) < 0)
        log_warn("a refusal isn't in the journal: %s", err_text(&e));
    else
        engine_refresh(g, checkpoint, action);
}

void engine_refused(struct engine *g, int64_t checkpoint, enum control control, const char *text, const struct who *who, int code,
                    const char *message)
{
    refused(g, checkpoint, kind_of(control), text, who, code, message);
}

void engine_take_refused(struct engine *g, int64_t checkpoint, const char *name, const struct who *who, int code, const char *message)
{
    cleanup_free char *text = name ? str_format("mkdir %s", name) : str_dup("write meta.json");

    refused(g, checkpoint, ACTION_TAKE, text, who, code, message);
}

static bool sealing(struct engine *g, int64_t checkpoint)
{
    struct index_entry *entry;
    bool is;

    index_read_lock(g->c.index);
    entry = index_by_id(g->c.index, checkpoint);
    is = entry && entry->sealing;
    index_unlock(g->c.index);
    return is;
}

int engine_await_seal(struct engine *g, int64_t checkpoint, struct err *e)
{
    int64_t until = clock_mono_ms() + SEAL_WAIT_MS;

    while (checkpoint && sealing(g, checkpoint)) {
        if (clock_mono_ms() > until)
            return err_set(e, EBUSY, "the state is being sealed; try again");
        clock_sleep_ms(5);
    }
    return 0;
}

/* What the journal shows of a command: its line, or its JSON in one line, of which the first TEXT_MAX bytes are enough. */
static char *journal_text(const char *bytes, size_t n)
{
    cleanup_json json_t *json = json_loadb(bytes, n, JSON_REJECT_DUPLICATES, NULL);
    char *text = json ? json_dumps(json, JSON_COMPACT) : strndup(bytes, n);
    size_t cut = TEXT_MAX;

    if (!text)
        return NULL;
    if (!json)
        text[strcspn(text, "\n")] = '\0';
    if (strlen(text) > TEXT_MAX) {
        while (cut > 0 && ((unsigned char)text[cut] & 0xc0) == 0x80)
            cut--; /* not in the middle of a character */
        text[cut] = '\0';
    }
    return text;
}

int engine_command(struct engine *g, int64_t checkpoint, enum control control, const char *bytes, size_t n, const struct who *who,
                   bool *ret_nowait, struct run **ret, struct err *e)
{
    cleanup_command struct command cmd = {0};
    cleanup_free char *text = journal_text(bytes, n);
    struct request q = {.g = g, .checkpoint = checkpoint, .cmd = &cmd, .text = text, .who = who};
    int r;

    *ret = NULL;
    if (!text)
        return err_set(e, ENOMEM, "out of memory");
    if (atomic_load(&g->stopping))
        return err_set(e, ESHUTDOWN, "the mount is being unmounted");
    r = engine_await_seal(g, checkpoint, e);
    if (r == 0)
        r = command_parse(control, bytes, n, &cmd, e);
    if (r == 0) {
        *ret_nowait = cmd.nowait;
        r = dispatch(&q, ret, e);
    }
    if (r < 0)
        engine_refused(g, checkpoint, control, text, who, -r, err_text(e));
    return r;
}
