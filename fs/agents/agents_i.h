/* Shared by the files of the part: what goes over the supervisor's socket, and how /proc is read. */
#ifndef AGENTS_AGENTS_I_H
#define AGENTS_AGENTS_I_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* The supervisor's end of the socket. */
#define AGENT_SOCKET_FD 3

/* The exit code by which a command says that it did nothing, so that the decision is released (design.md §6). */
#define AGENT_NOTHING_DONE 75

/* From the mount, one byte each. */
#define AGENT_ORDER_CANCEL 'c'
#define AGENT_ORDER_LEASE 'l'

/* From the supervisor: first that it started, last how it ended. */
struct agent_report {
    bool finished;
    bool cancelled;
    bool lease_lost;
    pid_t shell; /* leader of the command's process group */
    int status;  /* as waitpid gives it, once finished */
};

/* What /proc/PID/stat says. */
struct proc_stat {
    pid_t pid;
    pid_t ppid;
    pid_t pgrp;
    pid_t session;
    char state;
    char comm[65];      /* kernel threads have up to 64 bytes */
    uint64_t starttime; /* clock ticks since boot */
};

/* 0, -ESRCH when the process is gone, or -errno. No allocation. */
int proc_stat_read(pid_t pid, struct proc_stat *ret);

/* Whether the environment that `pid` was started with has AGENT_ID_VARIABLE, with the value `id` if that isn't NULL. False also
 * when it can't be read. No allocation. */
bool proc_has_agent_id(pid_t pid, const char *id);

/* Whether `pid` runs the same binary as we do. */
bool proc_is_our_binary(pid_t pid);

/* How to recognise what a killed supervisor left. */
struct agent_marks {
    const char *id;
    pid_t session;        /* the supervisor's; 0 = unknown */
    pid_t pgrp;           /* the command's; 0 = unknown */
    pid_t adopter;        /* this process, when it adopts orphans; 0 = it doesn't */
    uint64_t started;     /* adopted ones started no earlier */
};

/* Kills every process with one of the marks, reaps those that are our children, and returns when none is left or after 5 s. How
 * many were found. */
size_t agent_end_marked(const struct agent_marks *marks);

/* Every process of the machine, sorted by pid; the caller frees. 0 or -errno. */
int proc_list(struct proc_stat **ret, size_t *ret_n);

#endif
