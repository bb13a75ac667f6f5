/* What the parts of fs/commands share. */
#ifndef COMMANDS_COMMANDS_I_H
#define COMMANDS_COMMANDS_I_H

#include <stdbool.h>
#include <stddef.h>

#include "commands/command.h"

/* -- JSON as it arrives: strict, byte by byte ------------------------------------------------------------------------- */

enum jcheck { JCHECK_MORE, JCHECK_DONE, JCHECK_BAD };

/* Zero-initialise; free `stack` when done. */
struct jcheck_state {
    char *stack;       /* '{' or '[' for each open bracket */
    size_t depth, cap;
    size_t bytes;      /* taken */
    int expect;        /* what may come next */
    const char *word;  /* the rest of a literal */
    unsigned hex;      /* hex digits of a \u escape still to come */
    unsigned tail;     /* bytes of a UTF-8 sequence still to come */
    unsigned char low, high; /* range of the next of them */
    bool key;          /* the string under way is a member's name */
    const char *why;   /* after JCHECK_BAD, static */
    bool oom;
};

/* Takes bytes until the value is complete, or can never become one; *ret_used are those that belong to it. */
enum jcheck jcheck_feed(struct jcheck_state *s, const char *bytes, size_t n, size_t *ret_used);
void jcheck_free(struct jcheck_state *s);

/* -- Commands as JSON, called by command_parse -------------------------------------------------------------------------- */

/* Whether there is nothing but white space. */
bool bytes_blank(const char *bytes, size_t n);
/* Whether the first byte that isn't white space is a brace. */
bool looks_like_json(const char *bytes, size_t n);
int command_parse_json(enum control control, const char *bytes, size_t n, struct command *ret, struct err *e);

/* The error of an argument: `what`, then the verbs of that control file. Returns -EINVAL. */
int usage_error(enum control control, struct err *e, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* 0, or the error of rules that are none. */
int check_rules(enum control control, const char *text, struct err *e);
/* Whether it can be the id of a branch (^[a-z0-9-]{1,60}$). */
bool is_branch_id(const char *s);

/* Appends a decision and returns it zeroed; NULL when out of memory. */
/* Sets what `delete` takes: a checkpoint's name, or NAME/branches/X. */
int command_set_name(struct command *c, const char *name, struct err *e);
struct decision *command_add_decision(struct command *c);

/* Whether that control file has a verb of that name, and which. */
bool control_has_verb(enum control control, const char *name, enum verb *ret);

#endif
