/* Ends what is left of an agent whose supervisor can't do it any more. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agents/ancestry.h"
#include "agents/runner.h"
#include "agents_i.h"
#include "util/cleanup.h"
#include "util/clock.h"

#define GIVE_UP_MS 5000
#define AGAIN_MS 10

/* An orphan that went to a session of its own and cleared its environment is known only by whom it was left to. Our other
 * children are supervisors, run our binary, or live in our session. */
static bool is_adopted(const struct agent_marks *m, const struct proc_stat *st)
{
    return m->adopter && st->ppid == m->adopter && st->starttime >= m->started && st->session != getsid(0) &&
           strcmp(st->comm, AGENT_SUPERVISOR_COMM) != 0 && !proc_is_our_binary(st->pid);
}

static bool is_marked(const struct agent_marks *m, const struct proc_stat *st)
{
    if (st->pid == getpid())
        return false;
    return (m->session && st->session == m->session) || (m->pgrp && st->pgrp == m->pgrp) ||
           proc_has_agent_id(st->pid, m->id) || is_adopted(m, st);
}

static size_t kill_pass(const struct agent_marks *m)
{
    cleanup_free struct proc_stat *list = NULL;
    size_t found = 0;
    size_t n = 0;

    if (proc_list(&list, &n))
        return 0;
    for (size_t i = 0; i < n; i++) {
        if (!is_marked(m, &list[i]))
            continue;
        if (list[i].state != 'Z' && list[i].state != 'X') {
            kill(list[i].pid, SIGKILL);
            found++;
        } else if (m->adopter && list[i].ppid == m->adopter && strcmp(list[i].comm, AGENT_SUPERVISOR_COMM) != 0) {
            waitpid(list[i].pid, NULL, WNOHANG);
        }
    }
    return found;
}

size_t agent_end_marked(const struct agent_marks *marks)
{
    int64_t end = clock_mono_ms() + GIVE_UP_MS;
    size_t total = 0;
    size_t found;
    int quiet = 0;

    /* One empty pass can have missed a process that was being forked while its parent was killed; the last one also reaps. */
    while (quiet < 2 && clock_mono_ms() < end) {
        found = kill_pass(marks);
        total = found > total ? found : total;
        quiet = found ? 0 : quiet + 1;
        clock_sleep_ms(AGAIN_MS);
    }
    return total;
}

size_t agent_sweep(const char *id)
{
    struct agent_marks marks = {.id = id};

    return agent_end_marked(&marks);
}

bool agent_alive(const char *id)
{
    cleanup_free struct proc_stat *list = NULL;
    size_t n = 0;

    if (proc_list(&list, &n))
        return true; /* nobody can tell: the taker goes on waiting */
    for (size_t i = 0; i < n; i++) {
        if (list[i].state != 'Z' && list[i].state != 'X' && proc_has_agent_id(list[i].pid, id))
            return true;
    }
    return false;
}
