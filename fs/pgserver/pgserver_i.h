/* Inside the part pgserver: starting programs as another user. */
#ifndef PGSERVER_I_H
#define PGSERVER_I_H

#include "pgserver/pgserver.h"

struct pgserver_spawn {
    const char *program;     /* path */
    const char *const *argv; /* NULL-terminated, argv[0] included */
    int output;              /* becomes stdout and stderr */
    bool session;            /* setsid */
    bool dies_with_parent;   /* SIGKILL when the thread that started it ends: nothing is left over from a killed caller */
};

/* fork and exec as the servers' user, with an environment of our own (no PG* variable of the caller's reaches the program).
 * 0, or the errno of the step that failed, exec included. */
int pgserver_spawn(const struct pgserver *pg, const struct pgserver_spawn *spawn, pid_t *ret_pid);

/* Runs `check(arg)` as the servers' user, in a child when the caller is root. The function may only make system calls.
 * Returns its result, or -errno. */
int pgserver_as_user(const struct pgserver *pg, int (*check)(void *arg), void *arg);

/* The last line of `text` that isn't empty, without its newline; owned by the caller, NULL when there is none or no memory. */
char *pgserver_last_line(const char *text);

#endif
