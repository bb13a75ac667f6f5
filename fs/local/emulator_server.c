/* neon-emulator as the keeper's child: started, asked for its environment, stopped, and found again after a killed keeper. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "local_i.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/log.h"
#include "util/text.h"

#define START_MS 120000 /* its first start makes a cluster */
#define STOP_MS 60000   /* it stops its computes one after the other */
#define KILL_MS 5000
#define POLL_MS 10

/* ---- neon.pid ---- */

static void write_pid(const char *dir, pid_t pid)
{
    cleanup_json json_t *doc = json_pack("{s:i, s:I}", "pid", (int)pid, "start", (json_int_t)local_process_start(pid));

    if (doc)
        local_write_json(dir, "neon.pid", doc, NULL);
}

static void remove_pid(const char *dir)
{
    cleanup_free char *path = local_path(dir, "neon.pid");

    if (path)
        unlink(path);
}

/* ---- its environment ---- */

/* The value of NAME=VALUE on a line of `text`, with or without `export` and quotes; free(). */
static char *value_of(const char *text, const char *name)
{
    size_t n = strlen(name);
    const char *end;

    for (const char *line = text; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
        const char *p = str_starts(line, "export ") ? line + 7 : line;

        end = strchr(line, '\n');
        if (!end || strncmp(p, name, n) != 0 || p[n] != '=')
            continue;
        p += n + 1;
        if (end - p >= 2 && (*p == '\'' || *p == '"') && end[-1] == *p) {
            p++;
            end--;
        }
        return strndup(p, (size_t)(end - p));
    }
    return NULL;
}

static char *read_text(const char *path, size_t from)
{
    cleanup_buf struct buf b = {0};
    cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
    char *room;
    ssize_t n = 0;

    do {
        room = fd < 0 ? NULL : buf_room(&b, 4096);
        n = room ? pread(fd, room, 4096, (off_t)(from + b.len)) : 0;
        if (n > 0)
            buf_grown(&b, (size_t)n);
    } while (n > 0);
    return buf_steal(&b);
}

/* Whether it has been printed, which happens at one stroke. Branch and connection string are missing when somebody deleted them
 * from the project. */
static bool read_environment(const char *output, struct local_env *env)
{
    cleanup_free char *text = read_text(output, 0);
    struct local_env got = {0};

    if (!text)
        return false;
    got.neon_api_host = value_of(text, "NEON_API_HOST");
    got.neon_api_key = value_of(text, "NEON_API_KEY");
    got.neon_project_id = value_of(text, "NEON_PROJECT_ID");
    got.neon_branch_id = value_of(text, "NEON_BRANCH_ID");
    got.database_url = value_of(text, "DATABASE_URL");
    if (!got.neon_api_host || !got.neon_api_key || !got.neon_project_id) {
        local_env_clear(&got);
        return false;
    }
    got.store = steal_ptr(&env->store);
    got.store_owner = steal_ptr(&env->store_owner);
    local_env_clear(env);
    *env = got;
    return true;
}

/* ---- starting ---- */

static int spawn(const char *program, char *const argv[], const char *output, const char *log, pid_t *ret)
{
    posix_spawn_file_actions_t act;
    posix_spawnattr_t attr;
    sigset_t set;
    int r = posix_spawn_file_actions_init(&act);

    if (r)
        return -r;
    r = posix_spawnattr_init(&attr);
    if (r) {
        posix_spawn_file_actions_destroy(&act);
        return -r;
    }
    sigemptyset(&set);
    posix_spawnattr_setsigmask(&attr, &set);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
    r = posix_spawn_file_actions_addopen(&act, STDOUT_FILENO, output, O_WRONLY | O_CREAT | O_EXCL, 0600);
    if (!r)
        r = posix_spawn_file_actions_addopen(&act, STDERR_FILENO, log, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW, 0600);
    if (!r)
        r = posix_spawn_file_actions_addclosefrom_np(&act, STDERR_FILENO + 1);
    if (!r)
        r = posix_spawn(ret, program, &act, &attr, argv, environ);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&act);
    return -r;
}

/* Its last words, without its name in front. */
static int start_failed(const char *log, size_t from, struct err *e)
{
    cleanup_free char *text = read_text(log, from);
    char *line = text;
    size_t n = text ? strlen(text) : 0;

    while (n > 0 && text[n - 1] == '\n')
        text[--n] = '\0';
    if (n == 0)
        return err_set(e, EIO, "neon-emulator ended at once, without a message (log %s)", log);
    if (strrchr(text, '\n'))
        line = strrchr(text, '\n') + 1;
    if (str_starts(line, "neon-emulator: "))
        line += strlen("neon-emulator: ");
    return err_set(e, EIO, "neon-emulator doesn't start: %s", line);
}

static int wait_ready(pid_t pid, const char *output, const char *log, size_t from, struct local_env *env, struct err *e)
{
    int64_t end = clock_mono_ms() + START_MS;

    while (!read_environment(output, env)) {
        if (!pgserver_alive(pid))
            return start_failed(log, from, e);
        if (clock_mono_ms() >= end)
            return err_set(e, ETIMEDOUT, "neon-emulator wasn't ready after %d s (log %s)", START_MS / 1000, log);
        clock_sleep_ms(POLL_MS);
    }
    return 0;
}

int local_emulator_start(const char *dir, const char *program, const char *plan, pid_t *ret_pid, struct local_env *env,
                         struct err *e)
{
    cleanup_free char *data = local_path(dir, "neon");
    cleanup_free char *output = local_path(dir, "neon.out");
    cleanup_free char *log = local_path(dir, "neon.log");
    char *argv[] = {(char *)"neon-emulator", (char *)"--data", data, (char *)(*plan ? "--plan" : NULL), (char *)plan, NULL};
    struct stat st;
    size_t from;
    pid_t pid;
    int r;

    if (!data || !output || !log)
        return err_set(e, ENOMEM, "out of memory");
    unlink(output);
    from = stat(log, &st) == 0 ? (size_t)st.st_size : 0;
    r = spawn(program, argv, output, log, &pid);
    if (r)
        return err_set(e, -r, "can't run %s: %s", program, strerror(-r));
    write_pid(dir, pid);
    r = wait_ready(pid, output, log, from, env, e);
    unlink(output); /* it holds the key */
    if (r) {
        local_emulator_stop(dir, pid);
        return r;
    }
    *ret_pid = pid;
    return 0;
}

/* ---- stopping ---- */

static bool wait_gone(pid_t pid, int64_t ms)
{
    for (int64_t end = clock_mono_ms() + ms; clock_mono_ms() < end; clock_sleep_ms(POLL_MS))
        if (!pgserver_alive(pid))
            return true;
    return !pgserver_alive(pid);
}

void local_emulator_stop(const char *dir, pid_t pid)
{
    if (pgserver_alive(pid)) {
        kill(pid, SIGTERM);
        if (!wait_gone(pid, STOP_MS)) {
            log_error("neon-emulator (pid %d) didn't stop in %d s: killed", (int)pid, STOP_MS / 1000);
            kill(pid, SIGKILL);
            wait_gone(pid, KILL_MS);
        }
    }
    remove_pid(dir);
}

void local_emulator_end(const char *dir)
{
    cleanup_json json_t *doc = NULL;
    int64_t start;
    pid_t pid;

    if (local_read_json(dir, "neon.pid", &doc, NULL))
        return;
    pid = (pid_t)json_integer_value(json_object_get(doc, "pid"));
    start = local_process_start(pid);
    if (start && start == json_integer_value(json_object_get(doc, "start")))
        local_emulator_stop(dir, pid);
    else
        remove_pid(dir);
}
