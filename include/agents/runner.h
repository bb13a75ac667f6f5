/* Runs a resume command under a supervisor, which ends the agent's whole tree when the mount dies (design.md §6).
 *
 * The supervisor is our own binary, started again under the name `checkpointfs-agent`: main() calls agent_supervisor_main
 * when agent_is_supervisor_name(argv[0]). It is the agent's subreaper, so nothing the agent starts gets away by a double
 * fork or setsid while it lives. When the supervisor is killed itself, the kernel kills the shell and the mount the rest. */
#ifndef AGENTS_RUNNER_H
#define AGENTS_RUNNER_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "util/err.h"

/* Every process of an agent has this variable; its value is the agent's id. */
#define AGENT_ID_VARIABLE "CHECKPOINTFS_AGENT"
#define AGENT_ID_SIZE 65 /* at most 64 characters and a NUL */

struct agent;

struct agent_spec {
    const char *id;               /* unique on this machine, so that it can be journalled before the start; NULL = a random one */
    const char *command;          /* run by /bin/sh -c */
    const char *cwd;              /* the directory the mount was started from, absolute */
    const char *const *set_env;   /* KEY=VALUE to add or replace; ends with NULL; may be NULL */
    const char *const *unset_env; /* names to leave out; `PG*` is every name that starts with PG; ends with NULL; may be NULL */
    const char *self_exe;         /* the binary to start as supervisor; NULL = /proc/self/exe */
    unsigned lease_seconds;       /* end the agent when agent_lease wasn't called for so long; 0 = never */
    unsigned grace_ms;            /* from TERM to KILL; 0 = 10 s (design.md §7.9) */
};

enum agent_exit_kind {
    AGENT_EXITED,   /* the command's exit code is in `code` */
    AGENT_SIGNALED, /* the command was ended by signal `code` */
    AGENT_LOST,     /* the supervisor vanished without a report: nobody knows how it ended; nothing of it is left running */
};

struct agent_exit {
    enum agent_exit_kind kind;
    int code;
    bool cancelled;  /* agent_cancel, a lost lease or a signal to the supervisor made it end */
    bool lease_lost; /* no agent_lease came in time */
};

/* Gets output as it comes; called only inside agent_wait. */
typedef void agent_output_fn(void *ctx, const char *bytes, size_t n);

/* Checks before a decision is claimed that `command` can be run from `cwd`: its first word, past VAR=value assignments, is an
 * executable path, is found in PATH, or is a shell builtin or keyword. What only a shell can judge (quotes, expansions,
 * subshells) passes. 0; -EINVAL when it is empty; -ENOENT when there is no such command; -EACCES when it is no executable
 * file. `e` says which word and where it was looked for. Thread-safe as long as nobody calls setenv. */
int agent_check(const char *command, const char *cwd, struct err *e);

/* Starts the agent and returns at once. The environment is this process's own, changed by the spec, plus AGENT_ID_VARIABLE.
 * The caller frees *ret with agent_free. Makes this process a subreaper, so that orphans of a killed supervisor stay below it.
 * 0; -EINVAL for an id that is empty or too long; -ENOENT or -EACCES when cwd or the supervisor's binary can't be used; -EMFILE,
 * -EAGAIN, -ENOMEM as spawn gives them.
 * Thread-safe; never forks, since other threads hold locks. */
int agent_start(const struct agent_spec *spec, struct agent **ret, struct err *e);

/* Pumps output and waits until the agent and everything it started has ended, at most timeout_ms (-1 = as long as it takes).
 * All output has been delivered when it returns 0. 0 with *ret set (again and again, with the same answer); -ETIMEDOUT.
 * One thread at a time per agent. `on_output` may be NULL. */
int agent_wait(struct agent *a, int timeout_ms, agent_output_fn *on_output, void *ctx, struct agent_exit *ret);

/* Tells the supervisor to end the agent: TERM, grace, KILL. Answers at once; agent_wait returns when it has happened.
 * From any thread, any number of times. */
void agent_cancel(struct agent *a);

/* The heartbeat that keeps the agent alive when lease_seconds is set; from any thread. */
void agent_lease(struct agent *a);

/* For the journal; owned by `a`. */
const char *agent_id(const struct agent *a);
pid_t agent_supervisor_pid(const struct agent *a);

/* Ends the agent if it still runs (as agent_cancel does, and waits for that), reaps the supervisor, frees. NULL is fine.
 * No other thread may use `a` any more. */
void agent_free(struct agent *a);

/* For whoever takes over after a mount died on this machine: whether a process of that agent (its supervisor included) still
 * lives, by AGENT_ID_VARIABLE in /proc. Thread-safe. */
bool agent_alive(const char *id);

/* Kills (SIGKILL) every process of that agent, the supervisor too, and returns when none is left or after 5 s. Returns how
 * many were seen at once; 0 = none lived. For the taker whose agent_alive stays true after the grace period. */
size_t agent_sweep(const char *id);

/* Whether main() was started as a supervisor: argv[0]'s last component is checkpointfs-agent. */
bool agent_is_supervisor_name(const char *argv0);

/* The supervisor itself; main() returns what it returns. */
int agent_supervisor_main(int argc, char **argv);

#endif
