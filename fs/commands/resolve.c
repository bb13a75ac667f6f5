/* One decision per pending call, and what is refused before anything runs. See include/commands/resolve.h. */
#include "commands/resolve.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "util/cleanup.h"
#include "formats/jdoc.h"
#include "util/text.h"

/* Names in an error line are enough to find the rest. */
#define NAMES_MAX 8

/* While the decisions are handed out: one slot per pending call. */
struct resolving {
    const struct state_info *info;
    const struct command *cmd;
    struct resolved *slots; /* `call` NULL = undecided */
    struct err *e;
};

static int no_memory(struct err *e)
{
    return err_set(e, ENOMEM, "out of memory while deciding");
}

/* Whether a call of the same group is decided: LangGraph answers an interrupt as a whole. */
static bool group_is_touched(const struct resolving *r, const char *group)
{
    for (size_t i = 0; group && i < r->info->pending_count; i++) {
        if (r->slots[i].call && str_equal(r->info->pending[i].group, group))
            return true;
    }
    return false;
}

/* Whether a call still needs a decision. One that the state holds doesn't do for a call whose interrupt is answered now: the new answer
 * replaces the old one as a whole, and what it leaves out moves the others to the wrong calls. */
static bool is_left(const struct resolving *r, size_t i)
{
    const struct call *c = &r->info->pending[i];

    return !r->slots[i].call && (c->decision == CALL_UNDECIDED || group_is_touched(r, c->group));
}

/* Appends "call_1 (drop_users_table), call_2 …" of the calls that are left undecided, or of all. */
static void add_names(struct buf *b, const struct resolving *r, bool undecided)
{
    size_t named = 0, more = 0;

    for (size_t i = 0; i < r->info->pending_count; i++) {
        const struct call *c = &r->info->pending[i];
        if (undecided && !is_left(r, i))
            continue;
        if (named == NAMES_MAX) {
            more++;
            continue;
        }
        buf_addf(b, "%s%s", named++ ? ", " : "", c->id);
        if (c->tool)
            buf_addf(b, " (%s)", c->tool);
    }
    if (more)
        buf_addf(b, " and %zu more", more);
}

static int refuse_naming(struct resolving *r, bool undecided, const char *what, const char *id, const char *before)
{
    cleanup_buf struct buf names = {0};

    add_names(&names, r, undecided);
    if (buf_error(&names))
        return no_memory(r->e);
    return err_set(r->e, EINVAL, "%s%s%s%s", what, id, before, names.len ? names.data : "none");
}

static unsigned bit_of(enum decision_kind k)
{
    switch (k) {
    case DECIDE_APPROVE: return ALLOW_APPROVE;
    case DECIDE_REJECT: return ALLOW_REJECT;
    case DECIDE_EDIT: return ALLOW_EDIT;
    case DECIDE_RESPOND: return ALLOW_RESPOND;
    }
    return 0;
}

static int refuse_kind(const struct call *c, enum decision_kind kind, struct err *e)
{
    cleanup_buf struct buf allowed = {0};

    for (enum decision_kind k = DECIDE_APPROVE; k <= DECIDE_RESPOND; k++) {
        if (c->allowed & bit_of(k))
            buf_addf(&allowed, "%s%s", allowed.len ? ", " : "", decision_kind_name(k));
    }
    if (buf_error(&allowed))
        return no_memory(e);
    return err_set(e, EINVAL, "%s can't be answered with %s; it takes: %s", c->id, decision_kind_name(kind),
                   allowed.len ? allowed.data : "nothing");
}

/* -- Handing out ------------------------------------------------------------------------------------------------------ */

static int decide_one(struct resolving *r, const struct decision *d)
{
    const struct call *c = state_find_call(r->info, d->id);
    struct resolved *slot = c ? &r->slots[c - r->info->pending] : NULL;

    if (!c)
        return refuse_naming(r, false, "no pending call has the id ", d->id, "; pending: ");
    if (slot->call)
        return err_set(r->e, EINVAL, "%s is decided twice in one command", c->id);
    if (!(c->allowed & bit_of(d->kind)))
        return refuse_kind(c, d->kind, r->e);
    *slot = (struct resolved){c, d};
    return 0;
}

/* A decision without an id: for every call of its sort that no other one names. A question can't be approved, so `approve` and
 * `reject` are for the calls that wait for approval. */
static int decide_rest(struct resolving *r, const struct decision *d)
{
    bool for_approvals = d->kind != DECIDE_RESPOND;

    for (size_t i = 0; i < r->info->pending_count; i++) {
        const struct call *c = &r->info->pending[i];
        if (r->slots[i].call || (for_approvals && c->kind == CALL_INPUT && !(c->allowed & bit_of(d->kind))))
            continue;
        if (!(c->allowed & bit_of(d->kind)))
            return refuse_kind(c, d->kind, r->e);
        r->slots[i] = (struct resolved){c, d};
    }
    return 0;
}

static int decide_all(struct resolving *r)
{
    const struct decision *rest = NULL;
    int result = 0;

    for (size_t i = 0; result == 0 && i < r->cmd->decision_count; i++) {
        const struct decision *d = &r->cmd->decisions[i];
        if (d->id)
            result = decide_one(r, d);
        else if (rest)
            result = err_set(r->e, EINVAL, "two decisions have no id; only one can be for all the other calls");
        else
            rest = d;
    }
    return result == 0 && rest ? decide_rest(r, rest) : result;
}

/* An input is the answer to every question that nothing else decides. */
static void answer_questions(struct resolving *r)
{
    for (size_t i = 0; i < r->info->pending_count; i++) {
        const struct call *c = &r->info->pending[i];
        if (!r->slots[i].call && c->kind == CALL_INPUT)
            r->slots[i] = (struct resolved){c, NULL};
    }
}

/* -- What is refused ---------------------------------------------------------------------------------------------------- */

/* Whether words and run fit: an answer for a question, a decision for a call. */
static int check_kind(struct resolving *r)
{
    const struct state_info *info = r->info;
    bool answer = r->cmd->input && r->cmd->decision_count == 0;

    if (answer && info->status == RUN_FINAL)
        return err_set(r->e, EINVAL, "the run has ended: it waits for nothing");
    if (answer && info->pending_count > 0 && !state_waits_for_input(info))
        return refuse_naming(r, false, "the run waits for approval, not for an input: write approve or reject TEXT", "",
                             "; pending: ");
    if (answer && info->status == RUN_INTERRUPTED && info->pending_count == 0)
        return err_set(r->e, EINVAL, "the run waits for approval, not for an input, but its calls can't be read from the state; "
                       "supply \"pending\" in meta.json when taking the checkpoint");
    if (answer)
        return 0;
    if (info->pending_count == 0 && info->status == RUN_WAITING_INPUT)
        return err_set(r->e, EINVAL, "the run waits for an input, not for approval: write answer TEXT");
    if (info->pending_count == 0 && info->status == RUN_FINAL)
        return err_set(r->e, EINVAL, "nothing is pending in this checkpoint: the run has ended");
    if (info->pending_count == 0)
        return err_set(r->e, EINVAL,
                       "nothing is pending in this checkpoint, as far as its state (%s) says: supply \"pending\" in meta.json when "
                       "taking it, or wake the agent with answer TEXT", run_status_name(info->status));
    return 0;
}

static bool any_responds(const struct command *cmd)
{
    for (size_t i = 0; i < cmd->decision_count; i++) {
        if (cmd->decisions[i].kind == DECIDE_RESPOND)
            return true;
    }
    return false;
}

static bool can_stay(const struct resolving *r, const struct call *c)
{
    return state_partial_ok(r->info) || (c->group && !group_is_touched(r, c->group));
}

static int count_left(struct resolving *r, size_t *ret)
{
    size_t left = 0, decided = 0;
    bool refused = false;

    for (size_t i = 0; i < r->info->pending_count; i++) {
        if (r->slots[i].call) {
            decided++;
        } else if (is_left(r, i)) {
            left++;
            refused |= !can_stay(r, &r->info->pending[i]);
        }
    }
    if (decided == 0 && left > 0 && !any_responds(r->cmd) && state_waits_for_input(r->info))
        return err_set(r->e, EINVAL, "the run waits for an input, not for approval: write answer TEXT");
    if (refused || (decided == 0 && left > 0))
        return refuse_naming(r, true, framework_name(r->info->framework), " can't resume with calls left undecided",
                             "; decide these too: ");
    *ret = left;
    return 0;
}

/* -- Together ------------------------------------------------------------------------------------------------------------ */

/* Moves the filled slots to the front. */
static size_t compact(struct resolved *slots, size_t n)
{
    size_t kept = 0;

    for (size_t i = 0; i < n; i++) {
        if (slots[i].call)
            slots[kept++] = slots[i];
    }
    return kept;
}

int resolve(const struct state_info *info, const struct command *cmd, struct resolution *ret, struct err *e)
{
    cleanup_free struct resolved *slots = calloc(info->pending_count + 1, sizeof *slots);
    struct resolving r = {.info = info, .cmd = cmd, .slots = slots, .e = e};
    size_t left = 0;
    int result;

    if (!slots)
        return no_memory(e);
    result = check_kind(&r);
    if (result == 0)
        result = decide_all(&r);
    if (result == 0 && cmd->input)
        answer_questions(&r);
    if (result == 0)
        result = count_left(&r, &left);
    if (result < 0)
        return result;
    *ret = (struct resolution){.count = compact(slots, info->pending_count), .left = left, .input = cmd->input};
    ret->items = steal_ptr(&slots);
    return 0;
}

void resolution_free(struct resolution *r)
{
    free(r->items);
    *r = (struct resolution){0};
}

/* -- CHECKPOINT_DECISIONS -------------------------------------------------------------------------------------------------- */

static void add_text(struct buf *b, const char *key, const char *value)
{
    buf_addf(b, "\"%s\":", key);
    if (value)
        json_add_quoted(b, value, strlen(value));
    else
        buf_adds(b, "null");
}

static void add_decision(struct buf *b, const struct resolved *x, const char *input)
{
    const struct decision *d = x->decision;

    buf_addc(b, '{');
    add_text(b, "id", x->call->id);
    buf_addc(b, ',');
    add_text(b, "tool", x->call->tool);
    buf_addc(b, ',');
    add_text(b, "decision", decision_kind_name(d ? d->kind : DECIDE_RESPOND));
    buf_addc(b, ',');
    add_text(b, "message", d ? d->message : input);
    if (d && d->arguments)
        buf_addf(b, ",\"arguments\":%s", d->arguments);
    if (d && d->value)
        buf_addf(b, ",\"value\":%s", d->value);
    buf_addc(b, '}');
}

int resolution_json(const struct resolution *r, struct buf *b)
{
    cleanup_buf struct buf line = {0};

    buf_adds(&line, "{\"decisions\":[");
    for (size_t i = 0; i < r->count; i++) {
        if (i > 0)
            buf_addc(&line, ',');
        add_decision(&line, &r->items[i], r->input);
    }
    buf_adds(&line, "],");
    add_text(&line, "input", r->input);
    buf_addc(&line, '}');
    return buf_error(&line) ? buf_error(&line) : json_add_indented(b, line.data, line.len);
}
