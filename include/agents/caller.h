/* Who writes to a control file, for the audit log, and whether a signal really interrupts it. */
#ifndef AGENTS_CALLER_H
#define AGENTS_CALLER_H

#include <stdbool.h>
#include <sys/types.h>

#include "util/buf.h"

struct caller {
    pid_t pid;     /* as given: may be a thread's id */
    uid_t uid;     /* effective */
    char *user;    /* the account's name, or the uid in digits; owned */
    char *comm;    /* the thread's name, clean UTF-8; owned */
    char *command; /* the first 4 KiB of the command line, words joined by spaces, clean UTF-8, what it calls a secret
                      replaced by *** (util/secrets.h); comm in brackets when there is none; owned */
};

/* Reads /proc about `pid`. 0 with *ret to be cleared by caller_clear; -ESRCH when there is no such process; -ENOMEM. The
 * user's name may come from a network service: don't call it where others wait. Thread-safe. */
int caller_read(pid_t pid, struct caller *ret);
void caller_clear(struct caller *c);

/* The first 200 bytes of a command, for the log, once all secrets in it are replaced. Owned by the caller; NULL when out of memory. */
char *caller_short(const struct buf *command);

/* The process that the thread `tid` belongs to, and that process's parent (0 = none, or not known). A thread that is gone counts as
 * its own process. Thread-safe, no allocation. */
void caller_ids(pid_t tid, pid_t *ret_process, pid_t *ret_parent);

/* Whether both are known and the same. FUSE gives 0 for callers outside the mount's pid namespace: any two of them may be two. */
static inline bool same_process(pid_t a, pid_t b)
{
    return a > 0 && a == b;
}

/* Whether both processes have the same command line: as parent and child, whether the child was forked and has executed nothing since.
 * False when one is gone. Thread-safe, no allocation. */
bool caller_same_command(pid_t a, pid_t b);

/* After a FUSE INTERRUPT: false when nothing is pending for `pid` (a thread's id, as fuse_req_ctx gives it) but CHLD, WINCH,
 * CONT, URG, STOP, TSTP, TTIN and TTOU, which end nobody, and blocked signals: then keep waiting, and ask again every 10 ms,
 * since the kernel sends no second INTERRUPT (reference/traps.md 1). True otherwise, and when the process is gone. Thread-safe,
 * no allocation. */
bool caller_signal_is_interruption(pid_t pid);

#endif
