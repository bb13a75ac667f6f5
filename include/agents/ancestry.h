/* Whether a process belongs to an agent: "the agent can't decide" (design.md §6). */
#ifndef AGENTS_ANCESTRY_H
#define AGENTS_ANCESTRY_H

#include <stdbool.h>
#include <sys/types.h>

/* The name (comm) a supervisor runs under: 15 bytes is what the kernel keeps of `checkpointfs-agent`. */
#define AGENT_SUPERVISOR_COMM "checkpointfs-ag"

/* Whether `pid` (a process or thread id as fuse_req_ctx gives it) is a supervisor, or is below one, of any checkpointfs on
 * this machine.
 *
 * Going up by /proc/PID/stat it is below when an ancestor is a supervisor (by comm and binary), is this process itself (which
 * adopts what a killed supervisor leaves), or when it or an ancestor has AGENT_ID_VARIABLE in the environment it was started
 * with. So double forks, setsid, nohup, a changed process name, and killing the supervisor don't get an agent out.
 * Not covered: a process started for the agent by something that was running before (docker, at, systemd-run, an ssh server),
 * and code that overwrites its own /proc/PID/environ after killing supervisor and mount. It is a rail, not a sandbox: what runs
 * under the mount's own uid can always ptrace the mount.
 *
 * pid <= 0 is a caller outside of our pid namespace, and so none of our descendants: false. A caller that is gone: true, since
 * nobody waits for its answer. Thread-safe, no allocation, about 20 us per ancestor. */
bool agent_is_below(pid_t pid);

#endif
