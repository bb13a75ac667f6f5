/* From what a person said to one decision per pending call (design.md §6). Pure and thread-safe. */
#ifndef COMMANDS_RESOLVE_H
#define COMMANDS_RESOLVE_H

#include <stddef.h>

#include "commands/command.h"
#include "formats/state.h"
#include "util/buf.h"
#include "util/err.h"

/* One decided call. Borrows from the state_info and the command it was made of. `decision` NULL: the input answers it. */
struct resolved {
    const struct call *call;
    const struct decision *decision;
};

/* `items` is owned, in the order of the pending calls. */
struct resolution {
    struct resolved *items;
    size_t count;
    size_t left;       /* calls that stay pending in the child */
    const char *input; /* borrowed from the command; NULL when not given */
};

/* Applies the decisions and the input of `cmd` to the pending calls of `info`; both must outlive `ret`. 0, or -EINVAL with a
 * line that says what to write instead: an unknown id (naming the pending ones), nothing pending, a decision that the call
 * doesn't allow, calls left undecided where the framework can't resume partly (naming them), an answer where approval is waited
 * for or the other way round; -ENOMEM. On success the caller frees `ret` by resolution_free. */
int resolve(const struct state_info *info, const struct command *cmd, struct resolution *ret, struct err *e);
void resolution_free(struct resolution *r);
#define cleanup_resolution __attribute__((cleanup(resolution_free)))

/* The text of the file that CHECKPOINT_DECISIONS names: {"decisions":[{"id","tool","decision","message","arguments"?,"value"?}],
 * "input":…}, indented, with a final newline. An answer is also a `respond` decision of each call that waits for an input.
 * 0 or -ENOMEM. */
int resolution_json(const struct resolution *r, struct buf *b);

#endif
