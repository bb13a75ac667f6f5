/* Who may do what on a mount (design.md §7.10). */
#ifndef COMMANDS_ROLE_H
#define COMMANDS_ROLE_H

#include <stdbool.h>

/* Each may do what those after it may. 0 is the strictest demand: a file or verb whose row says nothing is for operators. */
enum role {
    ROLE_OPERATOR = 0, /* everything */
    ROLE_AGENT = 1,    /* takes checkpoints, decides nothing */
    ROLE_VIEWER = 2,   /* reads */
};

static inline bool role_may(enum role is, enum role needed) { return is <= needed; }

/* `operator`, `agent`, `viewer`; static. */
const char *role_name(enum role role);
/* -EINVAL: none of them. */
int role_of_name(const char *name, enum role *ret);

#endif
