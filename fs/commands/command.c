/* The verbs of the control files as rows of a table, and their one-line form. See include/commands/command.h. */
#include "commands/command.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "commands/rules.h"
#include "commands_i.h"
#include "util/cleanup.h"
#include "util/text.h"

/* Parses what follows the verb: `args` is the rest of the line, or NULL when nothing follows. */
typedef int arguments_fn(struct command *c, const char *args, struct err *e);

static arguments_fn take_nothing, take_approve, take_reject, take_answer, take_decision, take_name, take_plan, take_rules,
                    take_branch_id, take_branch, take_branch_decision;

struct verb_row {
    enum control control;
    const char *name;
    enum verb verb;
    bool again, confirm; /* which of the two it takes */
    arguments_fn *arguments;
    const char *usage, *help;
};

static const struct verb_row verbs[] = {
    {CONTROL_RESTORE, "in-place", VERB_IN_PLACE, false, true, take_nothing, "in-place",
     "replace the active branch by the snapshot, connection string kept"},
    {CONTROL_RESTORE, "dry-run", VERB_DRY_RUN, false, false, take_nothing, "dry-run",
     "write into `result` what in-place would do, and change nothing"},
    {CONTROL_RESTORE, "branch", VERB_BRANCH, false, false, take_branch, "branch NAME",
     "restore into a new isolated branch of that name; the active branch is untouched"},
    {CONTROL_RESUME, "approve", VERB_DECIDE, true, false, take_approve, "approve [ID…]",
     "approve all pending calls, or those, and wake the agent"},
    {CONTROL_RESUME, "reject", VERB_DECIDE, true, false, take_reject, "reject [id=ID] TEXT",
     "reject all pending calls, or that one, with the message TEXT, and wake the agent"},
    {CONTROL_RESUME, "answer", VERB_DECIDE, true, false, take_answer, "answer TEXT",
     "give the input that the run waits for, and wake the agent"},
    {CONTROL_REPLAY, "in-place", VERB_IN_PLACE, false, true, take_decision, "in-place DECISION",
     "restore in place, decide (as with resume: approve, reject TEXT, answer TEXT), and wake the agent"},
    {CONTROL_REPLAY, "branch", VERB_BRANCH, false, false, take_branch_decision, "branch NAME DECISION",
     "restore into a new isolated branch, decide, and wake the agent there"},
    {CONTROL_PROMOTE, "promote", VERB_PROMOTE, false, true, take_nothing, "promote",
     "make this branch the active one, connection string kept"},
    {CONTROL_PROMOTE, "dry-run", VERB_DRY_RUN, false, false, take_nothing, "dry-run",
     "write into `result` what promote would do, and change nothing"},
    {CONTROL_CANCEL, "cancel", VERB_CANCEL, false, false, take_nothing, "cancel",
     "end the running agent, or the wait for one"},
    {CONTROL_PRUNE, "delete", VERB_DELETE, false, false, take_name, "delete NAME[/branches/X]",
     "delete that checkpoint and its snapshot, or that isolated branch of it"},
    {CONTROL_PRUNE, "plan", VERB_PLAN, false, false, take_rules, "[plan] " RULES_USAGE,
     "say what these rules would delete, and delete nothing; TIME is like 12h, 30d or 2w"},
    {CONTROL_PRUNE, "apply", VERB_APPLY, false, false, take_plan, "apply PLAN_ID", "delete what that plan named"},
    {CONTROL_UNDO, "undo", VERB_UNDO, false, false, take_nothing, "undo",
     "go back to what the last restore in place replaced, and once more to what the one before it did"},
    {CONTROL_ADOPT, "adopt", VERB_ADOPT, false, false, take_branch_id, "adopt BRANCH_ID",
     "from now on that branch is the active one, as Neon says already"},
};

#define VERB_COUNT (sizeof verbs / sizeof *verbs)

static const char *const control_names[] = {
    [CONTROL_RESTORE] = "restore", [CONTROL_RESUME] = "resume", [CONTROL_REPLAY] = "replay",
    [CONTROL_CANCEL] = "cancel",   [CONTROL_PRUNE] = "prune",   [CONTROL_UNDO] = "undo",     [CONTROL_ADOPT] = "adopt",
    [CONTROL_PROMOTE] = "promote",
};

#define JSON_DECISIONS                                                                                                       \
    "{\"decisions\":[{\"id\",\"decision\":\"approve|reject|edit|respond\",\"message\",\"arguments\",\"value\"}],\"input\":TEXT}"

/* What JSON may say, for the usage text. */
static const char *const json_usage[] = {
    [CONTROL_RESTORE] = "{\"verb\":\"in-place|dry-run|branch\",\"branch\":NAME,\"confirm\":BRANCH_ID}",
    [CONTROL_RESUME] = JSON_DECISIONS,
    [CONTROL_REPLAY] = "{\"verb\":\"in-place|branch\",\"branch\":NAME,\"confirm\":BRANCH_ID,\"decisions\":[…],\"input\":TEXT}",
    [CONTROL_CANCEL] = "{\"verb\":\"cancel\"}",
    [CONTROL_PRUNE] = "{\"verb\":\"delete|plan|apply\",\"name\":NAME,\"rules\":TEXT,\"plan\":PLAN_ID}",
    [CONTROL_UNDO] = "{\"verb\":\"undo\"}",
    [CONTROL_ADOPT] = "{\"verb\":\"adopt\",\"branch\":BRANCH_ID}",
    [CONTROL_PROMOTE] = "{\"verb\":\"promote|dry-run\",\"confirm\":BRANCH_ID}",
};

const char *control_name(enum control c)
{
    return control_names[c];
}

const char *decision_kind_name(enum decision_kind k)
{
    static const char *const names[] = {
        [DECIDE_APPROVE] = "approve", [DECIDE_REJECT] = "reject", [DECIDE_EDIT] = "edit", [DECIDE_RESPOND] = "respond",
    };

    return names[k];
}

void command_usage(enum control control, struct buf *b)
{
    for (size_t i = 0; i < VERB_COUNT; i++) {
        if (verbs[i].control == control)
            buf_addf(b, "%s  %s\n", verbs[i].usage, verbs[i].help);
    }
    buf_addf(b, "%s  the same as JSON, which may have several lines\n", json_usage[control]);
}

int usage_error(enum control control, struct err *e, const char *fmt, ...)
{
    cleanup_buf struct buf text = {0};
    va_list ap;

    va_start(ap, fmt);
    buf_vaddf(&text, fmt, ap);
    va_end(ap);
    buf_addf(&text, "; %s takes: ", control_name(control));
    for (size_t i = 0; i < VERB_COUNT; i++) {
        if (verbs[i].control == control)
            buf_addf(&text, "%s | ", verbs[i].usage);
    }
    buf_adds(&text, json_usage[control]);
    return err_set(e, EINVAL, "%s", buf_error(&text) ? fmt : text.data);
}

bool control_has_verb(enum control control, const char *name, enum verb *ret)
{
    for (size_t i = 0; i < VERB_COUNT; i++) {
        if (verbs[i].control == control && strcmp(verbs[i].name, name) == 0) {
            *ret = verbs[i].verb;
            return true;
        }
    }
    return false;
}

static void decision_clear(struct decision *d)
{
    free(d->id);
    free(d->message);
    free(d->arguments);
    free(d->value);
}

void command_free(struct command *c)
{
    for (size_t i = 0; i < c->decision_count; i++)
        decision_clear(&c->decisions[i]);
    free(c->decisions);
    free(c->confirm);
    free(c->target);
    free(c->branch);
    free(c->input);
    *c = (struct command){0};
}

struct decision *command_add_decision(struct command *c)
{
    struct decision *grown;

    /* Doubles whenever the count is a power of two. */
    if ((c->decision_count & (c->decision_count - 1)) == 0) {
        grown = realloc(c->decisions, (c->decision_count ? c->decision_count * 2 : 1) * sizeof *grown);
        if (!grown)
            return NULL;
        c->decisions = grown;
    }
    c->decisions[c->decision_count] = (struct decision){0};
    return &c->decisions[c->decision_count++];
}

static int no_memory(struct err *e)
{
    return err_set(e, ENOMEM, "out of memory while reading a command");
}

/* -- Words ------------------------------------------------------------------------------------------------------------ */

/* The next word of *p, owned by the caller; *p goes behind it and one blank. Empty at the end; NULL when out of memory. */
static char *next_word(const char **p)
{
    size_t n;
    char *word;

    *p += strspn(*p, " \t");
    n = strcspn(*p, " \t");
    word = strndup(*p, n);
    *p += n;
    if (**p)
        (*p)++;
    return word;
}

/* Whether the line's next word is `word`; if so *p goes behind it. */
static bool skip_word(const char **p, const char *word)
{
    const char *s = *p + strspn(*p, " \t");
    size_t n = strlen(word);

    if (strncmp(s, word, n) != 0 || (s[n] && s[n] != ' ' && s[n] != '\t'))
        return false;
    *p = s + n + (s[n] != 0);
    return true;
}

static bool is_blank(const char *s)
{
    return !s || s[strspn(s, " \t")] == 0;
}

/* -- What follows the verb ----------------------------------------------------------------------------------------------- */

static int take_nothing(struct command *c, const char *args, struct err *e)
{
    return is_blank(args) ? 0 : usage_error(c->control, e, "unexpected \"%s\"", args);
}

static int add_decision(struct command *c, enum decision_kind kind, const char *id, const char *message, struct err *e)
{
    struct decision *d = command_add_decision(c);

    if (!d)
        return no_memory(e);
    d->kind = kind;
    d->id = str_dup(id);
    d->message = str_dup(message);
    return (id && !d->id) || (message && !d->message) ? no_memory(e) : 0;
}

static int take_approve(struct command *c, const char *args, struct err *e)
{
    int r = 0;

    if (is_blank(args))
        return add_decision(c, DECIDE_APPROVE, NULL, NULL, e);
    while (r == 0 && !is_blank(args)) {
        cleanup_free char *id = next_word(&args);
        r = id ? add_decision(c, DECIDE_APPROVE, id, NULL, e) : no_memory(e);
    }
    return r;
}

/* The text is everything behind one blank, as it is. No text: the framework's own message. An id is found behind any blanks, as those of
 * approve are: taken for text it would reject every call. */
static int take_reject(struct command *c, const char *args, struct err *e)
{
    const char *word = args ? args + strspn(args, " \t") : "";
    cleanup_free char *id = NULL;
    bool blank_follows = false;

    if (str_starts(word, "id=")) {
        args = word + strlen("id=");
        blank_follows = *args == ' ' || *args == '\t';
        id = next_word(&args);
        if (!id)
            return no_memory(e);
        if (!*id || blank_follows)
            return usage_error(c->control, e, "no id after \"id=\"");
    }
    return add_decision(c, DECIDE_REJECT, id, args && *args ? args : NULL, e);
}

static int take_answer(struct command *c, const char *args, struct err *e)
{
    if (is_blank(args))
        return usage_error(c->control, e, "answer needs a text");
    c->input = str_dup(args);
    return c->input ? 0 : no_memory(e);
}

/* One of resume's verbs, inside replay. */
static int take_decision(struct command *c, const char *args, struct err *e)
{
    for (size_t i = 0; args && i < VERB_COUNT; i++) {
        const char *rest = args;
        if (verbs[i].control == CONTROL_RESUME && skip_word(&rest, verbs[i].name))
            return verbs[i].arguments(c, *rest ? rest : NULL, e);
    }
    return usage_error(c->control, e, "a replay needs a decision: approve [ID…], reject [id=ID] TEXT, or answer TEXT");
}

static int set_branch(struct command *c, const char *name, struct err *e)
{
    const char *problem = name && *name ? name_problem(name) : "it is missing";

    if (problem)
        return usage_error(c->control, e, "branch needs a name for the new branch: %s", problem);
    c->branch = str_dup(name);
    return c->branch ? 0 : no_memory(e);
}

static int take_branch(struct command *c, const char *args, struct err *e)
{
    return set_branch(c, args, e);
}

/* The branch's name is one word here; JSON takes any. */
static int take_branch_decision(struct command *c, const char *args, struct err *e)
{
    cleanup_free char *name = args ? next_word(&args) : NULL;
    int r = args && !name ? no_memory(e) : set_branch(c, name, e);

    return r < 0 ? r : take_decision(c, args, e);
}

int command_set_name(struct command *c, const char *name, struct err *e)
{
    const char *slash = name ? strstr(name, "/branches/") : NULL;
    const char *branch = slash ? slash + strlen("/branches/") : NULL;
    cleanup_free char *checkpoint = slash ? strndup(name, (size_t)(slash - name)) : str_dup(name);
    const char *own = checkpoint && str_starts(checkpoint, BY_ID) ? checkpoint + strlen(BY_ID) : checkpoint;
    const char *problem = own ? name_problem(own) : "it is missing";

    if (!problem && branch)
        problem = name_problem(branch);
    if (problem)
        return usage_error(c->control, e, "delete needs a checkpoint's name, or NAME/branches/X, or " BY_ID "ID for NAME: %s", problem);
    free(c->target);
    free(c->branch);
    c->target = steal_ptr(&checkpoint);
    c->branch = str_dup(branch);
    return branch && !c->branch ? no_memory(e) : 0;
}

static int take_name(struct command *c, const char *args, struct err *e)
{
    return command_set_name(c, args, e);
}

int check_rules(enum control control, const char *text, struct err *e)
{
    cleanup_err struct err why = {0};
    struct rules ignored;
    int r = rules_parse(text, &ignored, &why);

    return r == -EINVAL ? usage_error(control, e, "%s", err_text(&why)) : r < 0 ? err_move(e, &why) : 0;
}

static int take_rules(struct command *c, const char *args, struct err *e)
{
    int r = check_rules(c->control, args ? args : "", e);

    if (r < 0)
        return r;
    c->target = str_dup(args);
    return c->target ? 0 : no_memory(e);
}

static int take_plan(struct command *c, const char *args, struct err *e)
{
    if (is_blank(args))
        return usage_error(c->control, e, "apply needs the id of a plan");
    c->target = next_word(&args);
    if (!c->target)
        return no_memory(e);
    return is_blank(args) ? 0 : usage_error(c->control, e, "unexpected \"%s\"", args);
}

bool is_branch_id(const char *s)
{
    size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789-");

    return n >= 1 && n <= 60 && !s[n];
}

static int take_branch_id(struct command *c, const char *args, struct err *e)
{
    cleanup_free char *id = args ? next_word(&args) : NULL;

    if (!id || !is_branch_id(id) || !is_blank(args))
        return usage_error(c->control, e, "adopt needs a branch's id, as br-some-name-12345678");
    c->target = steal_ptr(&id);
    return 0;
}

/* -- The line ---------------------------------------------------------------------------------------------------------------- */

static int take_confirm(struct command *c, const char **p, struct err *e)
{
    const char *s = *p + strspn(*p, " \t");
    bool blank_follows;

    if (!str_starts(s, "confirm="))
        return 0;
    *p = s + strlen("confirm=");
    blank_follows = **p == ' ' || **p == '\t';
    c->confirm = next_word(p);
    if (!c->confirm)
        return no_memory(e);
    return *c->confirm && !blank_follows ? 0 : usage_error(c->control, e, "no branch id after \"confirm=\"");
}

static int parse_row(const struct verb_row *row, const char *p, struct command *c, struct err *e)
{
    int r = row->confirm ? take_confirm(c, &p, e) : 0;

    if (r < 0)
        return r;
    c->verb = row->verb;
    if (c->again && !row->again)
        return usage_error(c->control, e, "\"again\" belongs to resume only");
    return row->arguments(c, *p ? p : NULL, e);
}

static int parse_line(const char *line, struct command *c, struct err *e)
{
    cleanup_free char *word = NULL;

    for (bool more = true; more;) {
        bool nowait = !c->nowait && skip_word(&line, "nowait"), again = !c->again && skip_word(&line, "again");
        c->nowait |= nowait;
        c->again |= again;
        more = nowait || again;
    }
    for (size_t i = 0; i < VERB_COUNT; i++) {
        if (verbs[i].control == c->control && skip_word(&line, verbs[i].name))
            return parse_row(&verbs[i], line, c, e);
    }
    if (c->control == CONTROL_PRUNE && rules_begin(line)) {
        c->verb = VERB_PLAN; /* the one verb that needn't be said */
        return c->again ? usage_error(c->control, e, "\"again\" belongs to resume only") : take_rules(c, line, e);
    }
    word = next_word(&line);
    if (!word)
        return no_memory(e);
    return *word ? usage_error(c->control, e, "unknown verb \"%s\"", word) : usage_error(c->control, e, "no verb");
}

static int check_line(enum control control, const char *bytes, size_t n, struct err *e)
{
    if (memchr(bytes, '\n', n))
        return usage_error(control, e, "one write is one line; send JSON for a text of several lines");
    if (memchr(bytes, 0, n))
        return usage_error(control, e, "the command holds a NUL byte");
    if (!utf8_valid(bytes, n))
        return usage_error(control, e, "the command isn't valid UTF-8");
    return 0;
}

static int parse_text(const char *bytes, size_t n, struct command *c, struct err *e)
{
    cleanup_free char *line = NULL;
    int r;

    if (n > COMMAND_LINE_MAX)
        return usage_error(c->control, e, "a one-line command may have at most %d bytes; send JSON for a longer text",
                           COMMAND_LINE_MAX);
    if (n > 0 && bytes[n - 1] == '\n')
        n--;
    r = check_line(c->control, bytes, n, e);
    if (r < 0)
        return r;
    line = strndup(bytes, n);
    return line ? parse_line(line, c, e) : no_memory(e);
}

int command_parse(enum control control, const char *bytes, size_t n, struct command *ret, struct err *e)
{
    struct command c = {.control = control};
    int r = looks_like_json(bytes, n) ? command_parse_json(control, bytes, n, &c, e) : parse_text(bytes, n, &c, e);

    if (r < 0) {
        command_free(&c);
        return r;
    }
    *ret = c;
    return 0;
}
