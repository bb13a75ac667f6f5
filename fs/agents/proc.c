/* Reads /proc: a process's parent and name, the environment it was started with, and the list of all. */
#include "agents_i.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "agents/runner.h"
#include "util/cleanup.h"

#define PROC_PATH_MAX 40 /* /proc/, ten digits, and a short file name */

static int proc_open(pid_t pid, const char *file)
{
    char path[PROC_PATH_MAX];
    int fd;

    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, file);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

int proc_stat_read(pid_t pid, struct proc_stat *ret)
{
    cleanup_fd int fd = proc_open(pid, "stat");
    struct proc_stat st = {.pid = pid};
    char text[1024]; /* 52 numbers at most 20 digits long would not fit, but the ones we want come first */
    char *open_paren;
    char *close_paren;
    size_t len;
    ssize_t n;

    if (fd < 0)
        return fd == -ENOENT ? -ESRCH : fd;
    n = read(fd, text, sizeof text - 1);
    if (n <= 0)
        return n < 0 ? -errno : -ESRCH;
    text[n] = '\0';
    open_paren = strchr(text, '(');
    close_paren = strrchr(text, ')'); /* the name itself may hold parentheses */
    if (!open_paren || !close_paren || close_paren < open_paren)
        return -EIO;
    len = (size_t)(close_paren - open_paren - 1);
    if (len >= sizeof st.comm)
        len = sizeof st.comm - 1;
    memcpy(st.comm, open_paren + 1, len);
    st.comm[len] = '\0';
    if (sscanf(close_paren + 1, " %c %d %d %d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %" SCNu64, &st.state,
               &st.ppid, &st.pgrp, &st.session, &st.starttime) != 5)
        return -EIO;
    *ret = st;
    return 0;
}

/* Looks for `want` at the start of any NUL-terminated entry, streaming, so that a long environment needs no memory. */
bool proc_has_agent_id(pid_t pid, const char *id)
{
    cleanup_fd int fd = proc_open(pid, "environ");
    char want[sizeof AGENT_ID_VARIABLE "=" + AGENT_ID_SIZE];
    char chunk[4096];
    size_t want_len;
    size_t matched = 0; /* bytes of `want` that the entry began with */
    bool in_entry = true;
    ssize_t n;

    if (fd < 0 || (id && strlen(id) >= AGENT_ID_SIZE))
        return false;
    snprintf(want, sizeof want, "%s=%s", AGENT_ID_VARIABLE, id ? id : "");
    want_len = strlen(want) + (id ? 1 : 0); /* with an id the NUL has to match, too */
    while ((n = read(fd, chunk, sizeof chunk)) > 0) {
        for (ssize_t i = 0; i < n; i++) {
            if (in_entry && chunk[i] == want[matched]) {
                if (++matched == want_len)
                    return true;
            } else {
                in_entry = false;
            }
            if (!chunk[i]) {
                in_entry = true;
                matched = 0;
            }
        }
    }
    return false;
}

bool proc_is_our_binary(pid_t pid)
{
    char path[PROC_PATH_MAX];
    struct stat theirs;
    struct stat ours;

    snprintf(path, sizeof path, "/proc/%d/exe", (int)pid);
    return stat(path, &theirs) == 0 && stat("/proc/self/exe", &ours) == 0 && theirs.st_dev == ours.st_dev &&
           theirs.st_ino == ours.st_ino;
}

static int by_pid(const void *a, const void *b)
{
    const struct proc_stat *x = a;
    const struct proc_stat *y = b;

    return (x->pid > y->pid) - (x->pid < y->pid);
}

int proc_list(struct proc_stat **ret, size_t *ret_n)
{
    cleanup_free struct proc_stat *list = NULL;
    struct proc_stat *bigger;
    struct dirent *d;
    size_t n = 0;
    size_t cap = 0;
    DIR *dir = opendir("/proc");
    int r = 0;

    if (!dir)
        return -errno;
    while ((d = readdir(dir))) {
        if (!isdigit((unsigned char)d->d_name[0]))
            continue;
        if (n == cap) {
            cap = cap ? cap * 2 : 256;
            bigger = reallocarray(list, cap, sizeof *list);
            if (!bigger) {
                r = -ENOMEM;
                break;
            }
            list = bigger;
        }
        if (proc_stat_read((pid_t)strtol(d->d_name, NULL, 10), &list[n]) == 0)
            n++;
    }
    closedir(dir);
    if (r)
        return r;
    if (n)
        qsort(list, n, sizeof *list, by_pid);
    *ret = steal_ptr(&list);
    *ret_n = n;
    return 0;
}
