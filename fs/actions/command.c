/* A command written to a control file: parsed, decided, claimed in the journal, started. One handler a verb, in the table at the end. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "actions_i.h"
#include "formats/jdoc.h"
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
    int64_t branch;          /* the isolated branch that has the control file; 0 = none */
    const struct command *cmd;
    const char *text;        /* as typed but for secrets, for the journal */
    const struct who *who;
    json_t **would;          /* of a refusal: what would have been done */
    const char *worker;      /* another mount runs the agent: "any", or a host; NULL = this one */
};

/* What the state machine begins with: a confirmation, which is asked for again once it has the turn. Another mount begins it at once. */
static int initial(const struct request *q, char **ret, struct err *e)
{
    cleanup_json json_t *o = json_pack("{s:s*, s:o*}", "confirm", q->cmd->confirm, "steps", q->worker ? journal_requested() : NULL);

    *ret = json_object_size(o) ? json_dumps(o, JSON_COMPACT) : NULL;
    return (q->cmd->confirm || q->worker) && !*ret ? err_set(e, ENOMEM, "out of memory") : 0;
}

/* Nobody knows whether the store has the claim: what is this mount's isn't begun then (recover.c), what is another's may be. */
static int unanswered(const struct request *q, int r, struct err *e)
{
    cleanup_free char *why = str_dup(err_text(e));

    if (!store_away(-r) || !q->worker)
        return r;
    return err_set(e, -r, "%s; the command may have been given to another mount all the same: see status", why ? why : "the store is away");
}

static bool restores(enum action_kind kind)
{
    return kind == ACTION_RESTORE || kind == ACTION_REPLAY || kind == ACTION_BRANCH || kind == ACTION_PROMOTE;
}

static int begin(const struct request *q, enum action_kind kind, int64_t checkpoint, const char *decisions, struct run **ret, struct err *e)
{
    cleanup_free char *data = NULL;
    cleanup_free char *waking = NULL;
    cleanup_free char *shown = NULL;
    struct store_begin b = {
        .kind = kind, .line_id = q->g->line_id, .checkpoint = checkpoint,
        .again = q->cmd->again, .command = q->text, .decisions = decisions, .worker = q->worker, .who = &q->who->w,
        .isolated = q->branch, .branch = q->cmd->verb == VERB_BRANCH ? q->cmd->branch : NULL,
    };
    struct store_action a = {0};
    int r = initial(q, &data, e);

    b.data = data;
    if (r == 0)
        r = LEASED(q->g, store_action_begin(q->g->c.store, &b, &a, e));
    if (r < 0)
        return unanswered(q, r, e);
    *ret = q->worker ? run_watch(q->g, &a) : run_new(q->g, &a);
    store_action_free(&a);
    if (*ret && q->worker) {
        engine_refresh(q->g, checkpoint, 0);
        return 0;
    }
    if (!*ret)
        return err_set(e, ENOMEM, "out of memory; the action goes on in a moment");
    (*ret)->decisions = str_dup(decisions);
    shown = decisions ? mask_words(q->g, decisions, false, SIZE_MAX) : NULL;
    if (shown)
        data_set(*ret, "decisions", shown); /* for `result` */
    if (kind == ACTION_RESUME)
        waking = str_format("agent is to run on %s", q->g->host);
    /* Once a write with `nowait` is answered, the status shows it, also while it waits for the project's turn, or for the agent's start.
     * And only from here on another mount would go on with it. */
    r = journal_step(*ret, "", restores(kind) ? "restoring 1/5" : waking, NULL);
    if (r == 0 || !atomic_load(&q->g->stopping))
        return 0;
    run_end(*ret, ESHUTDOWN, NULL);
    run_unref(*ret);
    *ret = NULL;
    return err_set(e, ESHUTDOWN, "the mount is being unmounted, and nothing was begun");
}

/* In place of what belongs to an isolated branch: the store refuses that, however it is confirmed. Should the branch have been promoted
 * just now, the question comes once the action has its turn. */
static bool refused_anyway(const struct request *q)
{
    struct index_entry *entry;
    bool is;

    index_read_lock(q->g->c.index);
    entry = index_by_id(q->g->c.index, q->checkpoint);
    is = entry && entry->c.isolated && q->cmd->control != CONTROL_PROMOTE;
    index_unlock(q->g->c.index);
    return is;
}

/* The second question, about an old snapshot: before anything is claimed. */
static int question(const struct request *q, struct err *e)
{
    struct store_line line = {0};
    struct branch_brief on = {0};
    cleanup_free char *file = NULL;
    struct question asked = {.checkpoint = q->checkpoint, .control = q->cmd->control, .text = q->text, .confirm = q->cmd->confirm,
                             .asked_at = clock_now()};
    int r;

    if (refused_anyway(q))
        return 0;
    r = store_line_get(q->g->c.store, q->g->line_id, &line, e);
    if (q->branch && engine_branch_brief(q->g, q->branch, &on) == 0)
        file = on.path ? str_format("%s/%s", on.path, control_name(q->cmd->control)) : NULL;
    branch_brief_clear(&on);
    asked.file = file;
    asked.active = line.active_branch;
    if (r == 0)
        r = confirm(q->g, &asked, q->would, e);
    store_line_free(&line);
    return r;
}

static int dry(struct request *q, struct run **ret, struct err *e)
{
    int r = begin(q, ACTION_DRY_RUN, q->checkpoint, NULL, ret, e);

    if (r == 0)
        run_start(*ret, dry_run_body);
    return r;
}

static int in_place(struct request *q, struct run **ret, struct err *e)
{
    int r = question(q, e);

    if (r == 0)
        r = begin(q, ACTION_RESTORE, q->checkpoint, NULL, ret, e);

    if (r == 0)
        run_start(*ret, restore_body);
    return r;
}

static int branch(struct request *q, struct run **ret, struct err *e)
{
    int r = begin(q, ACTION_BRANCH, q->checkpoint, NULL, ret, e);

    if (r == 0)
        run_start(*ret, isolate_body);
    return r;
}

static int promote(struct request *q, struct run **ret, struct err *e)
{
    int r = question(q, e);

    if (r == 0)
        r = begin(q, ACTION_PROMOTE, q->checkpoint, NULL, ret, e);
    if (r == 0)
        run_start(*ret, promote_body);
    return r;
}

const char *engine_worker(const struct engine *g)
{
    const char *where = g->c.run_on ? g->c.run_on : "any";
    bool may_be_here = strcmp(where, "any") == 0 || strcmp(where, "here") == 0 || str_equal(where, g->host);

    return g->c.resume_command && may_be_here ? NULL : where;
}

/* Where the agent runs: sets q->worker, unless it is here. */
static int choose_worker(struct request *q, struct err *e)
{
    q->worker = engine_worker(q->g);
    if (q->worker && strcmp(q->worker, "here") == 0)
        return err_set(e, EOPNOTSUPP, "no resume command is configured here, and agents run nowhere else ([resume] run-on=here): start the "
                       "mount with --resume=COMMAND, or set `command` under [resume] in the configuration file");
    return 0;
}

/* What both resume and replay need before anything is claimed. */
static int prepared(struct request *q, char **ret_decisions, struct err *e)
{
    int r = decide(q->g, q->checkpoint, q->cmd, ret_decisions, e);

    if (r == 0)
        r = choose_worker(q, e);
    if (r < 0 || q->worker)
        return r;
    r = agent_check(q->g->c.resume_command, q->g->c.cwd, e);
    return r < 0 ? err_prefix(e, "the resume command can't be run") : 0;
}

static int wake(struct request *q, enum action_kind kind, void (*body)(struct run *r), struct run **ret, struct err *e)
{
    cleanup_free char *decisions = NULL;
    int r = prepared(q, &decisions, e);

    if (r == 0 && kind == ACTION_REPLAY && q->cmd->verb != VERB_BRANCH)
        r = question(q, e);
    if (r == 0)
        r = begin(q, kind, q->checkpoint, decisions, ret, e);
    if (r == 0 && !q->worker)
        run_start(*ret, body);
    return r;
}

static int resume(struct request *q, struct run **ret, struct err *e) { return wake(q, ACTION_RESUME, resume_body, ret, e); }
static int replay(struct request *q, struct run **ret, struct err *e) { return wake(q, ACTION_REPLAY, replay_body, ret, e); }

/* Ends the agent of the checkpoint's resume or replay, on whichever mount it runs. */
static int cancel(struct request *q, struct run **ret, struct err *e)
{
    struct store_action target = {0};
    struct run *own = NULL;
    int64_t action = 0;
    int r = store_cancel(q->g->c.store, q->checkpoint, q->branch, &action, e);

    (void)ret;
    if (r < 0)
        return r;
    r = begin(q, ACTION_CANCEL, q->checkpoint, NULL, &own, e);
    engine_cancel_run(q->g, action); /* its mark is set: it ends, whether or not this claim was answered */
    if (r < 0)
        return r;
    if (store_action(q->g->c.store, action, &target, NULL) == 0)
        data_set(own, "cancelled", target.uid);
    journal_finish(own, ACTION_DONE, 0, str_equal(target.step, "agent") ? "the agent was told to end" : "no agent will be started", NULL,
                   false, NULL);
    run_end(own, 0, NULL);
    run_unref(own);
    store_action_free(&target);
    return 0;
}

static struct store_begin prune_begin(const struct request *q)
{
    return (struct store_begin){.kind = ACTION_PRUNE, .line_id = q->g->line_id, .command = q->text,
                                .who = &q->who->w};
}

static int plan(struct request *q, struct run **ret, struct err *e)
{
    struct store_begin b = prune_begin(q);

    return prune_plan(q->g, &b, q->cmd->target, ret, e);
}

static int apply(struct request *q, struct run **ret, struct err *e)
{
    struct store_begin b = prune_begin(q);

    return prune_apply(q->g, &b, q->cmd->target, ret, e);
}

/* NAME, or .by-id/ID. With the index locked. */
static struct index_entry *target_entry(const struct request *q)
{
    const char *target = q->cmd->target;

    return str_starts(target, BY_ID) ? index_by_uid(q->g->c.index, target + strlen(BY_ID)) : index_by_name(q->g->c.index, target);
}

static int delete(struct request *q, struct run **ret, struct err *e)
{
    const struct store_branch *i;
    struct index_entry *entry;
    struct request on = *q;
    int64_t id = 0;
    int r;

    index_read_lock(q->g->c.index);
    entry = target_entry(q);
    i = entry && q->cmd->branch ? entry_branch(entry, q->cmd->branch) : NULL;
    if (entry)
        id = entry->c.id;
    if (i)
        on.branch = i->id;
    index_unlock(q->g->c.index);
    if (!id && str_starts(q->cmd->target, "br-")) { /* a branch's id, as Neon makes them */
        struct store_begin b = prune_begin(q);

        return prune_branch(q->g, &b, q->cmd->target, ret, e);
    }
    if (!id)
        return err_set(e, ENOENT, "there is no checkpoint `%s`", q->cmd->target);
    if (q->cmd->branch && !on.branch)
        return err_set(e, ENOENT, "`%s` has no branch `%s`", q->cmd->target, q->cmd->branch);
    r = begin(&on, ACTION_DELETE, id, NULL, ret, e);
    if (r == 0)
        run_start(*ret, delete_body);
    return r;
}

static int undo(struct request *q, struct run **ret, struct err *e)
{
    int r = begin(q, ACTION_UNDO, 0, NULL, ret, e);

    if (r == 0)
        run_start(*ret, undo_body);
    return r;
}

/* Its line in the journal is what adopt_body reads, so no part of it is masked. */
static int adopt(struct request *q, struct run **ret, struct err *e)
{
    cleanup_free char *line = str_format("adopt %s", q->cmd->target);
    int r = line ? 0 : err_set(e, ENOMEM, "out of memory");

    q->text = line;
    if (r == 0)
        r = begin(q, ACTION_ADOPT, 0, NULL, ret, e);
    if (r == 0)
        run_start(*ret, adopt_body);
    return r;
}

/* Which verb of which control file is handled where. */
static const struct {
    enum control control;
    enum verb verb;
    int (*handle)(struct request *q, struct run **ret, struct err *e);
} handlers[] = {
    {CONTROL_RESTORE, VERB_IN_PLACE, in_place},
    {CONTROL_RESTORE, VERB_DRY_RUN, dry},
    {CONTROL_RESTORE, VERB_BRANCH, branch},
    {CONTROL_RESUME, VERB_DECIDE, resume},
    {CONTROL_REPLAY, VERB_IN_PLACE, replay},
    {CONTROL_REPLAY, VERB_BRANCH, replay},
    {CONTROL_PROMOTE, VERB_PROMOTE, promote},
    {CONTROL_PROMOTE, VERB_DRY_RUN, dry},
    {CONTROL_CANCEL, VERB_CANCEL, cancel},
    {CONTROL_PRUNE, VERB_DELETE, delete},
    {CONTROL_UNDO, VERB_UNDO, undo},
    {CONTROL_ADOPT, VERB_ADOPT, adopt},
    {CONTROL_PRUNE, VERB_PLAN, plan},
    {CONTROL_PRUNE, VERB_APPLY, apply},
};

static int dispatch(struct request *q, struct run **ret, struct err *e)
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
    case CONTROL_PROMOTE: return ACTION_PROMOTE;
    case CONTROL_PRUNE: return ACTION_DELETE;
    case CONTROL_UNDO: return ACTION_UNDO;
    case CONTROL_ADOPT: return ACTION_ADOPT;
    }
    return ACTION_CANCEL;
}

/* What isn't a command may be anything, a .env that was copied onto the file included: neither its text nor an error that quotes it shows a
 * secret. A question (`would`) is about a command, which its answer repeats word for word: there only known ones are left out. */
static void refused(struct engine *g, int64_t checkpoint, int64_t branch_id, enum action_kind kind, const char *text, const struct who *who,
                    int code, const char *why, json_t *would)
{
    cleanup_free char *command = mask_words(g, text ? text : "", !would, TEXT_MAX);
    cleanup_free char *message = mask_words(g, why ? why : "", !would, SIZE_MAX);
    struct store_begin b = {
        .kind = kind, .line_id = g->line_id, .checkpoint = checkpoint,
        .isolated = branch_id, .command = command, .who = &who->w,
    };
    struct run r = { /* only for its document */
        .g = g, .checkpoint = checkpoint, .isolated = branch_id, .of_branch = branch_id != 0, .kind = b.kind, .command = command,
        .started_at = clock_now(), .would = would,
    };
    cleanup_json json_t *data = json_object();
    cleanup_json json_t *by = journal_by(&who->w);
    cleanup_free char *doc = NULL;
    cleanup_err struct err e = {0};
    int64_t action = 0;

    if (!command || !message) {
        log_warn("out of memory: a refusal isn't in the journal");
        return;
    }
    if (store_away(code)) { /* it was the store that failed: no need to wait for it once more */
        log_warn("not done here: %s", message);
        return;
    }
    r.data = data;
    r.by = by;
    doc = journal_doc(&r, "refused", code, message);
    if (store_action_refuse(g->c.store, &b, code, message, doc, &action, &e) < 0)
        log_warn("a refusal isn't in the journal: %s", err_text(&e));
    else
        engine_refresh(g, checkpoint, action);
}

void engine_refused(struct engine *g, int64_t checkpoint, int64_t branch_id, enum control control, const char *text, const struct who *who,
                    int code, const char *message)
{
    refused(g, checkpoint, branch_id, kind_of(control), text, who, code, message, NULL);
}

void engine_take_refused(struct engine *g, int64_t checkpoint, const char *name, const struct who *who, int code, const char *message)
{
    cleanup_free char *text = str_format(checkpoint ? "write %s" : "mkdir %s", name ? name : "meta.json");

    refused(g, checkpoint, 0, ACTION_TAKE, text, who, code, message, NULL);
}

void engine_import_refused(struct engine *g, const char *command, const struct who *who, int code, const char *message)
{
    refused(g, 0, 0, ACTION_IMPORT, command, who, code, message, NULL);
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

bool engine_seals(struct engine *g, int64_t checkpoint)
{
    struct index_entry *e;
    bool is;

    index_read_lock(g->c.index);
    e = index_by_id(g->c.index, checkpoint);
    is = e && e->sealing && (e->last_close || clock_mono_ms() - e->sealed_ms < SEAL_WAIT_MS);
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

/* A JSON command in one line, owned by the caller; NULL when it is none. */
static char *json_line(const char *bytes, size_t n)
{
    cleanup_jdoc struct jdoc doc = {0};
    cleanup_buf struct buf b = {0};

    if (jdoc_parse(bytes, n, &doc) < 0 || !j_is(j_root(&doc), J_OBJECT))
        return NULL;
    j_add_compact(&b, j_root(&doc));
    return buf_steal(&b);
}

/* A command as one line: its line, or its JSON in one. Of it the journal shows TEXT_MAX bytes, once secrets are out. */
static char *one_line(const char *bytes, size_t n)
{
    char *text = json_line(bytes, n);

    if (text)
        return text;
    text = strndup(bytes, n);
    if (text)
        text[strcspn(text, "\n")] = '\0';
    return text;
}

int engine_command(struct engine *g, int64_t checkpoint, int64_t branch_id, enum control control, const char *bytes, size_t n,
                   const struct who *who, bool *ret_nowait, struct run **ret, struct err *e)
{
    cleanup_command struct command cmd = {0};
    cleanup_free char *line = one_line(bytes, n);
    cleanup_free char *text = line ? mask_words(g, line, false, TEXT_MAX) : NULL;
    cleanup_json json_t *would = NULL;
    struct request q = {.g = g, .checkpoint = checkpoint, .branch = branch_id, .cmd = &cmd, .text = text, .who = who, .would = &would};
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
        if (r == -ETIMEDOUT) /* of the store: to whoever wrote, ETIMEDOUT says that the action goes on */
            r = -EIO;
    }
    if (r < 0)
        refused(g, checkpoint, branch_id, kind_of(control), line, who, -r, err_text(e), would);
    return r;
}
