/* Reads from /proc who a caller is, and which signals are pending for it. */
#include "agents/caller.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pwd.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/buf.h"
#include "util/cleanup.h"
#include "util/secrets.h"
#include "util/text.h"

#define COMMAND_MAX 200
#define RAW_MAX 4096 /* read before passwords are taken out, so that none is cut in two and missed */
#define STATUS_MAX 16384 /* its Groups line comes first and has no limit worth a name; 16 KiB hold 1,500 groups */

/* Reads the start of /proc/PID/`file`, NUL-terminated. The number of bytes, or -errno. */
static ssize_t read_proc(pid_t pid, const char *file, char *out, size_t size)
{
    char path[48];
    cleanup_fd int fd = -1;
    size_t len = 0;
    ssize_t n;

    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, file);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? -ESRCH : -errno;
    while (len < size - 1) {
        n = read(fd, out + len, size - 1 - len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        len += (size_t)n;
    }
    out[len] = '\0';
    return (ssize_t)len;
}

/* What follows `name` on its line of /proc/PID/status, or NULL. */
static const char *status_field(const char *status, const char *name)
{
    size_t n = strlen(name);

    for (const char *line = status; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
        if (strncmp(line, name, n) == 0)
            return line + n;
    return NULL;
}

/* The command line as one line of clean UTF-8, or comm in brackets when there is none. */
static char *read_command(pid_t pid, const char *comm)
{
    cleanup_buf struct buf b = {0};
    char raw[RAW_MAX];
    ssize_t n = read_proc(pid, "cmdline", raw, sizeof raw);

    for (ssize_t i = 0; i < n; i++)
        if ((unsigned char)raw[i] < ' ' || raw[i] == 0x7f)
            raw[i] = ' ';
    while (n > 0 && raw[n - 1] == ' ')
        raw[--n] = '\0';
    if (n <= 0)
        return str_format("[%s]", comm);
    secrets_mask_named(raw, &b);
    return buf_error(&b) ? NULL : utf8_clean(b.data, b.len);
}

char *caller_short(const struct buf *command)
{
    size_t cut = command->len < COMMAND_MAX ? command->len : COMMAND_MAX;

    while (cut < command->len && cut > 0 && ((unsigned char)command->data[cut] & 0xc0) == 0x80)
        cut--; /* not in the middle of a character */
    return buf_error(command) || !command->data ? NULL : utf8_clean(command->data, cut);
}

static char *user_name(uid_t uid)
{
    cleanup_free char *room = NULL;
    struct passwd pw;
    struct passwd *found = NULL;
    char *bigger;
    size_t size = 1024;
    int r;

    do {
        size *= 2;
        bigger = realloc(room, size);
        if (!bigger)
            return NULL;
        room = bigger;
        r = getpwuid_r(uid, &pw, room, size, &found);
    } while (r == ERANGE && size < 1024 * 1024);
    return found ? utf8_clean(pw.pw_name, strlen(pw.pw_name)) : str_format("%u", (unsigned)uid);
}

int caller_read(pid_t pid, struct caller *ret)
{
    struct caller c = {.pid = pid};
    char status[STATUS_MAX];
    char comm[64];
    const char *uids;
    ssize_t n;
    unsigned effective;

    n = read_proc(pid, "status", status, sizeof status);
    if (n < 0)
        return (int)n;
    uids = status_field(status, "Uid:");
    if (!uids || sscanf(uids, "%*u %u", &effective) != 1)
        return -EIO;
    n = read_proc(pid, "comm", comm, sizeof comm);
    if (n < 0)
        return (int)n;
    if (n > 0 && comm[n - 1] == '\n')
        n--;
    c.uid = (uid_t)effective;
    c.comm = utf8_clean(comm, (size_t)n);
    c.user = user_name(c.uid);
    c.command = c.comm ? read_command(pid, c.comm) : NULL;
    if (!c.comm || !c.user || !c.command) {
        caller_clear(&c);
        return -ENOMEM;
    }
    *ret = c;
    return 0;
}

void caller_clear(struct caller *c)
{
    free(c->user);
    free(c->comm);
    free(c->command);
    *c = (struct caller){0};
}

void caller_ids(pid_t tid, pid_t *ret_process, pid_t *ret_parent)
{
    char status[STATUS_MAX];
    const char *process;
    const char *parent;
    int id;

    *ret_process = tid;
    *ret_parent = 0;
    if (read_proc(tid, "status", status, sizeof status) < 0)
        return;
    process = status_field(status, "Tgid:");
    parent = status_field(status, "PPid:");
    if (process && sscanf(process, "%d", &id) == 1)
        *ret_process = id;
    if (parent && sscanf(parent, "%d", &id) == 1)
        *ret_parent = id;
}

bool caller_same_command(pid_t a, pid_t b)
{
    char of_a[RAW_MAX];
    char of_b[RAW_MAX];
    ssize_t n = read_proc(a, "cmdline", of_a, sizeof of_a);
    ssize_t m = read_proc(b, "cmdline", of_b, sizeof of_b);

    return n > 0 && n == m && memcmp(of_a, of_b, (size_t)n) == 0;
}

static uint64_t signal_bit(int sig)
{
    return UINT64_C(1) << (sig - 1);
}

static bool read_mask(const char *status, const char *name, uint64_t *ret)
{
    const char *text = status_field(status, name);

    return text && sscanf(text, "%" SCNx64, ret) == 1;
}

bool caller_signal_is_interruption(pid_t pid)
{
    uint64_t harmless = signal_bit(SIGCHLD) | signal_bit(SIGWINCH) | signal_bit(SIGCONT) | signal_bit(SIGURG) | signal_bit(SIGSTOP) |
                        signal_bit(SIGTSTP) | signal_bit(SIGTTIN) | signal_bit(SIGTTOU);
    char status[STATUS_MAX];
    const char *state;
    uint64_t thread;
    uint64_t process;
    uint64_t blocked;

    if (read_proc(pid, "status", status, sizeof status) < 0)
        return true;
    state = status_field(status, "State:");
    if (!state || strchr("ZXx", state[strspn(state, "\t ")]))
        return true;
    if (!read_mask(status, "SigPnd:", &thread) || !read_mask(status, "ShdPnd:", &process) ||
        !read_mask(status, "SigBlk:", &blocked))
        return true;
    return ((thread | process) & ~blocked & ~harmless) != 0;
}
