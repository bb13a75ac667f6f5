/* Commands as JSON. Strict: an unknown or doubled name is refused, so that a misspelt one can't change what is done, and no file
 * of a backup is a command. See include/commands/command.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "commands_i.h"
#include "formats/jdoc.h"
#include "util/cleanup.h"
#include "util/text.h"

/* The first digits of a number are enough to find it. */
#define NUMBER_SHOWN 40

bool looks_like_json(const char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (!memchr(" \t\r\n", bytes[i], 4))
            return bytes[i] == '{';
    }
    return false;
}

bool bytes_blank(const char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (!memchr(" \t\r\n", bytes[i], 4))
            return false;
    }
    return true;
}

static int no_memory(struct err *e)
{
    return err_set(e, ENOMEM, "out of memory while reading a command");
}

/* -- Members ----------------------------------------------------------------------------------------------------------- */

/* A member by name: how it is taken into the command or the decision. */
typedef int member_fn(enum control control, void *into, struct jval v, struct err *e);

struct member {
    const char *name;
    member_fn *take;
    unsigned controls; /* bit per control file that knows it */
};

#define BIT(control) (1u << (control))
#define ALL_CONTROLS (~0u)

static int take_string(enum control control, const char *name, struct jval v, char **field, struct err *e)
{
    if (!j_is(v, J_STRING))
        return usage_error(control, e, "\"%s\" must be a string", name);
    return j_string(v, field) < 0 ? no_memory(e) : 0;
}

static int take_bool(enum control control, const char *name, struct jval v, bool *field, struct err *e)
{
    if (!j_is(v, J_TRUE) && !j_is(v, J_FALSE))
        return usage_error(control, e, "\"%s\" must be true or false", name);
    *field = j_is(v, J_TRUE);
    return 0;
}

/* Any value, as JSON in one line. A number that would become a string there is refused: that isn't what was decided. */
static int take_json(enum control control, const char *name, struct jval v, char **field, struct err *e)
{
    cleanup_buf struct buf b = {0};
    struct jval odd = j_odd_number(v);

    if (odd.node)
        return usage_error(control, e, "the number %.*s in \"%s\" is too long, or its exponent is: write it as a string",
                           (int)(odd.node->end - odd.node->start < NUMBER_SHOWN ? odd.node->end - odd.node->start : NUMBER_SHOWN),
                           odd.doc->text + odd.node->start, name);
    j_add_compact(&b, v);
    *field = buf_steal(&b);
    return *field ? 0 : no_memory(e);
}

static int member_names(enum control control, const struct member *members, size_t count, const char *unknown, struct err *e)
{
    cleanup_buf struct buf known = {0};

    for (size_t i = 0; i < count; i++) {
        if (members[i].controls & BIT(control))
            buf_addf(&known, "%s%s", known.len ? ", " : "", members[i].name);
    }
    if (buf_error(&known))
        return no_memory(e);
    return usage_error(control, e, "\"%s\" isn't known here (known are %s)", unknown, known.len ? known.data : "none");
}

/* Takes every member of `object` by its row; null counts as not given. */
static int take_members(enum control control, const struct member *members, size_t count, struct jval object, void *into,
                        struct err *e)
{
    unsigned seen = 0;

    for (struct jval v = j_first(object); v.node; v = j_next(object, v)) {
        cleanup_free char *name = NULL;
        size_t i = 0;
        int r;

        if (j_string(j_key(v), &name) < 0)
            return no_memory(e);
        while (i < count && !(strcmp(members[i].name, name) == 0 && (members[i].controls & BIT(control))))
            i++;
        if (i == count)
            return member_names(control, members, count, name, e);
        if (seen & 1u << i)
            return usage_error(control, e, "\"%s\" is given twice", name);
        seen |= 1u << i;
        r = j_has(v) ? members[i].take(control, into, v, e) : 0;
        if (r < 0)
            return r;
    }
    return 0;
}

/* -- Decisions ---------------------------------------------------------------------------------------------------------- */

struct decision_reading {
    struct decision *decision;
    bool has_kind;
};

static int take_id(enum control control, void *into, struct jval v, struct err *e)
{
    struct decision_reading *d = into;

    return take_string(control, "id", v, &d->decision->id, e);
}

static int take_kind(enum control control, void *into, struct jval v, struct err *e)
{
    struct decision_reading *d = into;

    for (enum decision_kind k = DECIDE_APPROVE; k <= DECIDE_RESPOND; k++) {
        if (j_equals(v, decision_kind_name(k))) {
            d->decision->kind = k;
            d->has_kind = true;
            return 0;
        }
    }
    return usage_error(control, e, "\"decision\" must be approve, reject, edit or respond");
}

static int take_message(enum control control, void *into, struct jval v, struct err *e)
{
    struct decision_reading *d = into;

    return take_string(control, "message", v, &d->decision->message, e);
}

static int take_arguments(enum control control, void *into, struct jval v, struct err *e)
{
    struct decision_reading *d = into;

    return take_json(control, "arguments", v, &d->decision->arguments, e);
}

static int take_value(enum control control, void *into, struct jval v, struct err *e)
{
    struct decision_reading *d = into;

    return take_json(control, "value", v, &d->decision->value, e);
}

static const struct member decision_members[] = {
    {"id", take_id, ALL_CONTROLS},           {"decision", take_kind, ALL_CONTROLS}, {"message", take_message, ALL_CONTROLS},
    {"arguments", take_arguments, ALL_CONTROLS}, {"value", take_value, ALL_CONTROLS},
};

/* What each kind needs, and what would be ignored without a word. */
static int check_decision(enum control control, const struct decision_reading *d, struct err *e)
{
    const struct decision *x = d->decision;

    if (!d->has_kind)
        return usage_error(control, e, "a decision has no \"decision\"");
    if (x->id && !*x->id)
        return usage_error(control, e, "\"id\" is empty; leave it out for all pending calls");
    if (x->kind == DECIDE_EDIT && (!x->arguments || !x->id))
        return usage_error(control, e, "edit needs the call's \"id\" and the new \"arguments\"");
    if (x->kind == DECIDE_RESPOND && !x->message && !x->value)
        return usage_error(control, e, "respond needs a \"message\" or a \"value\"");
    if (x->arguments && x->kind != DECIDE_EDIT)
        return usage_error(control, e, "\"arguments\" belongs to edit, not to %s", decision_kind_name(x->kind));
    if (x->value && x->kind != DECIDE_RESPOND)
        return usage_error(control, e, "\"value\" belongs to respond, not to %s", decision_kind_name(x->kind));
    if (x->message && (x->kind == DECIDE_APPROVE || x->kind == DECIDE_EDIT))
        return usage_error(control, e, "\"message\" belongs to reject and respond, not to %s", decision_kind_name(x->kind));
    return 0;
}

static int take_decisions(enum control control, void *into, struct jval list, struct err *e)
{
    struct command *c = into;

    if (!j_is(list, J_ARRAY))
        return usage_error(control, e, "\"decisions\" must be an array");
    for (struct jval v = j_first(list); v.node; v = j_next(list, v)) {
        struct decision_reading d = {.decision = command_add_decision(c)};
        int r;

        if (!d.decision)
            return no_memory(e);
        if (!j_is(v, J_OBJECT))
            return usage_error(control, e, "each of \"decisions\" must be an object");
        r = take_members(control, decision_members, sizeof decision_members / sizeof *decision_members, v, &d, e);
        if (r == 0)
            r = check_decision(control, &d, e);
        if (r < 0)
            return r;
    }
    return 0;
}

/* -- The command ----------------------------------------------------------------------------------------------------------- */

static int take_verb(enum control control, void *into, struct jval v, struct err *e)
{
    struct command *c = into;
    cleanup_free char *name = NULL;
    int r = take_string(control, "verb", v, &name, e);

    if (r < 0)
        return r;
    return control_has_verb(control, name, &c->verb) ? 0 : usage_error(control, e, "unknown verb \"%s\"", name);
}

static int take_nowait(enum control control, void *into, struct jval v, struct err *e)
{
    return take_bool(control, "nowait", v, &((struct command *)into)->nowait, e);
}

static int take_again(enum control control, void *into, struct jval v, struct err *e)
{
    return take_bool(control, "again", v, &((struct command *)into)->again, e);
}

static int take_confirm(enum control control, void *into, struct jval v, struct err *e)
{
    return take_string(control, "confirm", v, &((struct command *)into)->confirm, e);
}

static int take_input(enum control control, void *into, struct jval v, struct err *e)
{
    return take_string(control, "input", v, &((struct command *)into)->input, e);
}

static int take_text(enum control control, const char *name, struct command *c, struct jval v, struct err *e)
{
    if (c->target)
        return usage_error(control, e, "\"%s\" is one too many: name, rules and plan exclude each other", name);
    return take_string(control, name, v, &c->target, e);
}

static int take_name(enum control control, void *into, struct jval v, struct err *e)
{
    struct command *c = into;
    cleanup_free char *name = NULL;
    int r = take_string(control, "name", v, &name, e);

    return r < 0 ? r : command_set_name(c, name, e);
}

static int take_branch(enum control control, void *into, struct jval v, struct err *e)
{
    struct command *c = into;
    int r = take_string(control, "branch", v, control == CONTROL_ADOPT ? &c->target : &c->branch, e);
    const char *problem;

    if (control == CONTROL_ADOPT)
        return r == 0 && !is_branch_id(c->target) ? usage_error(control, e, "\"branch\" isn't a branch's id") : r;
    problem = r == 0 ? name_problem(c->branch) : NULL;

    return problem ? usage_error(control, e, "\"branch\" isn't a name for a branch: %s", problem) : r;
}

static int take_rules(enum control control, void *into, struct jval v, struct err *e)
{
    struct command *c = into;
    int r = take_text(control, "rules", c, v, e);

    return r < 0 ? r : check_rules(control, c->target, e);
}

static int take_plan(enum control control, void *into, struct jval v, struct err *e)
{
    return take_text(control, "plan", into, v, e);
}

static const struct member command_members[] = {
    {"verb", take_verb, ALL_CONTROLS & ~BIT(CONTROL_RESUME)},
    {"nowait", take_nowait, ALL_CONTROLS},
    {"again", take_again, BIT(CONTROL_RESUME)},
    {"confirm", take_confirm, BIT(CONTROL_RESTORE) | BIT(CONTROL_REPLAY) | BIT(CONTROL_PROMOTE)},
    {"branch", take_branch, BIT(CONTROL_RESTORE) | BIT(CONTROL_REPLAY) | BIT(CONTROL_ADOPT)},
    {"decisions", take_decisions, BIT(CONTROL_RESUME) | BIT(CONTROL_REPLAY)},
    {"input", take_input, BIT(CONTROL_RESUME) | BIT(CONTROL_REPLAY)},
    {"name", take_name, BIT(CONTROL_PRUNE)},
    {"rules", take_rules, BIT(CONTROL_PRUNE)},
    {"plan", take_plan, BIT(CONTROL_PRUNE)},
};

/* Whether the whole text is one JSON value by the standard; the tolerant view then only reads it. */
static int check_json(enum control control, const char *bytes, size_t n, struct err *e)
{
    struct jcheck_state s = {0};
    size_t used = 0;
    enum jcheck r = jcheck_feed(&s, bytes, n, &used);
    int result = 0;

    if (s.oom)
        result = no_memory(e);
    else if (r == JCHECK_BAD)
        result = usage_error(control, e, "the JSON is wrong at byte %zu: %s", s.bytes, s.why);
    else if (r == JCHECK_MORE)
        result = usage_error(control, e, "the JSON is cut short");
    else if (!bytes_blank(bytes + used, n - used))
        result = usage_error(control, e, "there is more after the JSON");
    jcheck_free(&s);
    return result;
}

/* Each verb of prune has a member of its own. */
static int check_prune(const struct command *c, struct jval root, struct err *e)
{
    const char *needed = c->verb == VERB_DELETE ? "name" : c->verb == VERB_PLAN ? "rules" : "plan";

    return j_has(j_get(root, needed)) ? 0 : usage_error(c->control, e, "\"%s\" is missing", needed);
}

static int check_command(const struct command *c, struct jval root, struct err *e)
{
    bool decides = c->control == CONTROL_RESUME || c->control == CONTROL_REPLAY;

    if (c->control != CONTROL_RESUME && !j_has(j_get(root, "verb")))
        return usage_error(c->control, e, "\"verb\" is missing");
    if (c->control == CONTROL_PRUNE)
        return check_prune(c, root, e);
    if (c->control == CONTROL_ADOPT && !c->target)
        return usage_error(c->control, e, "\"branch\" is missing");
    if (c->verb == VERB_DRY_RUN && c->confirm)
        return usage_error(c->control, e, "\"confirm\" belongs to in-place");
    if (c->verb == VERB_BRANCH && !c->branch)
        return usage_error(c->control, e, "\"branch\" is missing: the name of the branch to be made");
    if (c->verb != VERB_BRANCH && c->branch)
        return usage_error(c->control, e, "\"branch\" belongs to the verb branch");
    if (decides && c->decision_count == 0 && !c->input)
        return usage_error(c->control, e, "neither \"decisions\" nor \"input\" says anything");
    return 0;
}

int command_parse_json(enum control control, const char *bytes, size_t n, struct command *ret, struct err *e)
{
    cleanup_jdoc struct jdoc doc = {0};
    int r;

    if (n > COMMAND_JSON_MAX)
        return err_set(e, E2BIG, "a command may have at most %u bytes", COMMAND_JSON_MAX);
    r = check_json(control, bytes, n, e);
    if (r < 0)
        return r;
    r = jdoc_parse(bytes, n, &doc);
    if (r < 0)
        return r == -ENOMEM ? no_memory(e) : usage_error(control, e, "the JSON can't be read");
    ret->verb = VERB_DECIDE;
    r = take_members(control, command_members, sizeof command_members / sizeof *command_members, j_root(&doc), ret, e);
    return r < 0 ? r : check_command(ret, j_root(&doc), e);
}
