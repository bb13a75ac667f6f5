/* What a write to a control file says: one line of text, or JSON (design.md §2, §3).
 *
 *     [nowait] [again] VERB [confirm=X] [ARGUMENTS]
 *
 * Each verb of each control file is a row of the table in fs/commands/command.c. Pure and thread-safe. */
#ifndef COMMANDS_COMMAND_H
#define COMMANDS_COMMAND_H

#include <stdbool.h>
#include <stddef.h>

#include "util/buf.h"
#include "util/err.h"

/* The longest one-line command, final newline included. */
#define COMMAND_LINE_MAX 4095
/* What stands before an id where `delete` takes a name, as the path in the mount: a name may hold what a shell or JSON would change. */
#define BY_ID ".by-id/"
/* The longest JSON command. */
#define COMMAND_JSON_MAX (16u << 20)

enum control {
    CONTROL_RESTORE, CONTROL_RESUME, CONTROL_REPLAY, CONTROL_CANCEL, CONTROL_PRUNE, CONTROL_UNDO, CONTROL_ADOPT, CONTROL_PROMOTE
};

enum verb {
    VERB_IN_PLACE, /* restore; replay with `decisions` or `input` */
    VERB_DECIDE,   /* resume: approve, reject, answer or JSON; all of it in `decisions` and `input` */
    VERB_CANCEL,
    VERB_DELETE,   /* prune: `target` */
    VERB_PLAN,     /* prune: rules, as rules_parse reads them, in `target` */
    VERB_APPLY,    /* prune: the plan's id in `target` */
    VERB_DRY_RUN,  /* restore */
    VERB_UNDO,
    VERB_ADOPT,    /* `target`: the branch's id */
    VERB_BRANCH,   /* restore, replay: into a new isolated branch, `branch` */
    VERB_PROMOTE,  /* promote */
};

enum decision_kind { DECIDE_APPROVE, DECIDE_REJECT, DECIDE_EDIT, DECIDE_RESPOND };

/* Owned strings. */
struct decision {
    char *id;        /* the call, as it is or in its file name's form; NULL: every pending call that no other one names */
    enum decision_kind kind;
    char *message;   /* reject, respond; NULL: none given (the framework's default) */
    char *arguments; /* edit: the new arguments as JSON text */
    char *value;     /* respond: a JSON value as text */
};

struct command {
    enum control control;
    enum verb verb;
    bool nowait, again;
    char *confirm;   /* NULL when not given */
    char *target;    /* what prune's verbs take: a name (or BY_ID and an id) or a branch, rules, a plan; the branch of `adopt`; else NULL */
    char *branch;    /* the isolated branch that `branch` makes, or that `delete NAME/branches/X` takes; else NULL */
    struct decision *decisions;
    size_t decision_count;
    char *input;     /* the answer, or an extra message; NULL when not given */
};

/* Parses the `n` bytes of a complete command for that control file. 0; -EINVAL with a line that says what is wrong and lists
 * the verbs with their usage; -E2BIG for JSON beyond COMMAND_JSON_MAX; -ENOMEM. On success the caller frees `ret` by
 * command_free. */
int command_parse(enum control control, const char *bytes, size_t n, struct command *ret, struct err *e);
void command_free(struct command *c);
#define cleanup_command __attribute__((cleanup(command_free)))

/* The same command with `confirm=BRANCH` in its place, as a line or as JSON in one line; owned by the caller. NULL when it can't be
 * parsed, takes no confirmation, or memory is out. */
char *command_confirmed(enum control control, const char *text, const char *branch);

/* "restore", "resume", … as in the tree; static. */
const char *control_name(enum control c);

/* "approve", "reject", "edit", "respond"; static. */
const char *decision_kind_name(enum decision_kind k);

/* Appends the verbs of that control file, one line each: usage, two spaces, what it does. */
void command_usage(enum control control, struct buf *b);

#endif
