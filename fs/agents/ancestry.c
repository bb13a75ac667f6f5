/* Goes up from a process to see whether a supervisor is above it. */
#include "agents/ancestry.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agents_i.h"

#define LEVELS_MAX 4096 /* a pid namespace is not deeper in practice; ends a loop that racing exits could make */
#define RETRIES 16

/* Whether the binary of `pid` is a checkpointfs: ours, or one of that name (another build, another mount). What can't be read
 * counts as one, since only a supervisor has the comm that was seen before. */
static bool is_checkpointfs_binary(pid_t pid)
{
    char link[32];
    char target[PATH_MAX];
    char *name;
    char *deleted;
    ssize_t n;

    if (proc_is_our_binary(pid))
        return true;
    snprintf(link, sizeof link, "/proc/%d/exe", (int)pid);
    n = readlink(link, target, sizeof target - 1);
    if (n < 0)
        return true;
    target[n] = '\0';
    deleted = strstr(target, " (deleted)"); /* the binary was rebuilt meanwhile */
    if (deleted)
        *deleted = '\0';
    name = strrchr(target, '/');
    return name && strcmp(name + 1, "checkpointfs") == 0;
}

static bool is_supervisor(const struct proc_stat *st)
{
    return strcmp(st->comm, AGENT_SUPERVISOR_COMM) == 0 && is_checkpointfs_binary(st->pid);
}

/* Reads the parent of `child`. A parent that ended in between left its child to another one: look again. */
static int read_parent(pid_t child, struct proc_stat *ret)
{
    struct proc_stat st;
    int r = -ESRCH;

    for (int i = 0; i < RETRIES; i++) {
        r = proc_stat_read(child, &st);
        if (r)
            return r;
        if (st.ppid <= 0) { /* init, or a parent outside of our namespace */
            *ret = (struct proc_stat){0};
            return 0;
        }
        r = proc_stat_read(st.ppid, ret);
        if (r != -ESRCH)
            return r;
    }
    return r;
}

bool agent_is_below(pid_t pid)
{
    struct proc_stat st;
    pid_t self = getpid();

    if (pid <= 0)
        return false;
    if (proc_stat_read(pid, &st))
        return true;
    for (int level = 0; level < LEVELS_MAX; level++) {
        if (st.pid == self)
            return level > 0;
        if (is_supervisor(&st) || proc_has_agent_id(st.pid, NULL))
            return true;
        if (read_parent(st.pid, &st))
            return true;
        if (st.pid <= 1)
            return false;
    }
    return true;
}
