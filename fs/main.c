/* checkpointfs: reads its configuration, starts what it needs, mounts, and serves until it is told to leave. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <curl/curl.h>

#include "actions/engine.h"
#include "agents/runner.h"
#include "config/config.h"
#include "local/local.h"
#include "mount/mount.h"
#include "store/location.h"
#include "util/cleanup.h"
#include "util/log.h"
#include "util/text.h"
#include "version.h"

#define STORE_CONNECTIONS 12
/* The role that mounts, of a private store and where migrate isn't told another. */
#define MOUNT_ROLE "checkpointfs"
/* How long to wait at the end for the private servers, if this was their last mount. */
#define SERVERS_STOP_MS 15000

/* Everything a mount is made of, in the order it is made. */
struct program {
    struct config c;
    struct local_servers *servers;
    struct store *store;
    struct neon *neon;
    struct index *index;
    struct mount *mount;
    struct engine *engine;
    int status_fd;       /* where the parent that daemonizes waits; -1 in the foreground */
    int mountpoint_lock; /* until the mount answers; -1 then */
};

/* ---- daemonizing: the parent waits until the mount answers, and exits with its result (fuse.md §1.9) ------------------------- */

/* In the parent: prints what the child has to say and returns its exit status. */
static int await_child(int fd, pid_t child)
{
    char text[4096];
    size_t n = 0;
    ssize_t got;

    while (n < sizeof(text) - 1 && (got = read(fd, text + n, sizeof(text) - 1 - n)) > 0)
        n += (size_t)got;
    text[n] = '\0';
    if (n > 0 && text[0] == '+')
        return 0;
    if (n > 0)
        fputs(text, stderr);
    else
        fprintf(stderr, "checkpointfs: the daemon ended without a word\n");
    waitpid(child, NULL, 0);
    return 1;
}

static int say(struct program *p, const char *text)
{
    int fd = p->status_fd >= 0 ? p->status_fd : STDERR_FILENO;

    return write(fd, text, strlen(text)) < 0 ? -errno : 0;
}

static void redirect(struct program *p)
{
    const char *dir = p->c.local_dir ? p->c.local_dir : p->c.store_dir;
    cleanup_free char *path = dir ? str_format("%s/checkpointfs.log", dir) : NULL;
    cleanup_fd int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    cleanup_fd int log = path ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;

    dup2(null, STDIN_FILENO);
    dup2(null, STDOUT_FILENO);
    dup2(log >= 0 ? log : null, STDERR_FILENO);
    if (log < 0)
        log_to_syslog();
}

/* The mount answers. */
static void on_ready(void *arg)
{
    struct program *p = arg;

    close(p->mountpoint_lock);
    p->mountpoint_lock = -1;
    if (p->status_fd < 0)
        return;
    redirect(p);
    say(p, "+");
    close(p->status_fd);
    p->status_fd = -1;
}

/* ---- starting --------------------------------------------------------------------------------------------------------------- */

static int start_servers(struct program *p, const char **ret_store, struct err *e)
{
    struct local_config lc = {
        .dir = p->c.local_dir ? p->c.local_dir : p->c.store_dir,
        .want_store = true,
        .want_neon = p->c.local_dir != NULL,
        .plan = getenv("CHECKPOINTFS_LOCAL_PLAN"),
    };
    const struct local_env *env;
    int r = local_servers_open(&lc, &p->servers, e);

    if (r < 0)
        return r;
    env = local_servers_env(p->servers);
    if (p->c.local_dir) {
        p->c.api_host = str_dup(env->neon_api_host);
        p->c.api_key = str_dup(env->neon_api_key);
        p->c.project_id = str_dup(env->neon_project_id);
    } else {
        fprintf(stderr, "checkpointfs: the store is private to this machine (%s): no other machine sees these checkpoints\n", lc.dir);
    }
    *ret_store = env->store;
    return store_migrate(env->store_owner, MOUNT_ROLE, e);
}

static int start_store(struct program *p, struct err *e)
{
    const char *conninfo = p->c.store;
    int r = 0;

    if (p->c.local_dir || p->c.store_dir)
        r = start_servers(p, &conninfo, e);
    if (r == 0)
        r = store_open(conninfo, STORE_CONNECTIONS, &p->store, e);
    return r;
}

/* For tests of Neon's failures (tests/e2e/test_fault_matrix.py): with CHECKPOINTFS_HURRY set, what is tried again is tried again soon. */
#define HURRY_BACKOFF_MS 20
#define HURRY_GRACE_MS 500

static int start_neon(struct program *p, struct err *e)
{
    bool hurry = getenv("CHECKPOINTFS_HURRY");
    struct neon_config nc = {
        .api_host = p->c.api_host,
        .api_key = p->c.api_key,
        .project_id = p->c.project_id,
        .user_agent = "checkpointfs/" CHECKPOINTFS_VERSION,
        .call_timeout_ms = p->c.deadline_ms,
        .backoff_ms = hurry ? HURRY_BACKOFF_MS : 0, .failed_grace_ms = hurry ? HURRY_GRACE_MS : 0, /* 0: as usual */
    };

    return neon_open(&nc, &p->neon, e);
}

static int start_mount(struct program *p, struct err *e)
{
    cleanup_free char *text = config_text(&p->c);
    struct mount_config mc = {
        .index = p->index, .store = p->store, .mountpoint = p->c.mountpoint, .options = p->c.options,
        .read_only = p->c.read_only, .debug = p->c.debug, .uid = p->c.uid, .gid = p->c.gid, .umask = p->c.umask, .role = p->c.may,
        .has_operators = p->c.operators != NULL, .operators = p->c.operators_gid,
    };

    if (!text || index_set_text(p->index, MOUNT_CONFIG, text, 0) < 0 ||
        index_set_text(p->index, MOUNT_VERSION, CHECKPOINTFS_VERSION "\n", 0) < 0)
        return err_set(e, ENOMEM, "out of memory");
    index_set_sealed_only(p->index, p->c.read_only);
    return mount_open(&mc, &p->mount, e);
}

/* For tests of crashes (tests/e2e/killing.py): CHECKPOINTFS_KILL_AT=N is killed at point N, stop:N stops at the Nth of those that
 * differ for whoever else is killed (actions/point.c); 0 only logs the points. */
static int64_t kill_at(int *ret_signal)
{
    const char *n = getenv("CHECKPOINTFS_KILL_AT");
    bool stop = n && strncmp(n, "stop:", 5) == 0;

    *ret_signal = stop ? SIGSTOP : SIGKILL;
    return n && *n ? strtoll(stop ? n + 5 : n, NULL, 10) : -1;
}

static int start_engine(struct program *p, struct err *e)
{
    struct engine_config ec = {
        .store = p->store, .neon = p->neon, .index = p->index, .project_id = p->c.project_id, .branch_id = p->c.branch_id,
        .database = p->c.database, .role = p->c.role, .mountpoint = p->c.mountpoint, .cwd = p->c.cwd,
        .resume_command = role_may(p->c.may, ROLE_AGENT) ? p->c.resume : NULL, /* where no agent could take a checkpoint none is woken */
        .conninfo = p->c.store, .pgpassword = getenv("PGPASSWORD"), .api_key = p->c.api_key,
        .deadline_ms = p->c.deadline_ms,
        .grace_ms = p->c.grace_ms, .unconfirmed_ms = p->c.unconfirmed_ms, .retention = p->c.retention, .local = p->c.local_dir != NULL,
        .run_on = p->c.run_on, .read_only = p->c.read_only,
        .changed = mount_changed, .changed_arg = p->mount,
    };
    cleanup_free char *host = NULL;
    cleanup_free char *port = NULL;
    int r;

    ec.kill_at = kill_at(&ec.kill_signal);
    r = engine_start(&ec, &p->engine, e);

    if (r == 0 && p->c.store)
        r = store_location(p->c.store, &host, &port, e);
    if (r == 0 && host)
        r = engine_store_apart(p->engine, host, port, e);
    return r;
}

static int start(struct program *p, struct err *e)
{
    const char *dir = p->c.local_dir ? p->c.local_dir : p->c.store_dir;
    int r = mount_check(p->c.mountpoint, p->c.options, &p->mountpoint_lock, e);

    if (r == 0 && dir)
        r = local_apart(dir, p->c.mountpoint, e);
    if (r == 0)
        r = start_store(p, e);
    if (r == 0)
        r = start_neon(p, e);
    if (r == 0 && !(p->index = index_new()))
        r = err_set(e, ENOMEM, "out of memory");
    if (r == 0)
        r = start_mount(p, e);
    if (r == 0)
        r = start_engine(p, e);
    return r;
}

static void stop_servers(struct program *p)
{
    if (p->servers && local_servers_close(p->servers, SERVERS_STOP_MS) < 0)
        log_warn("the private servers are still stopping");
}

/* With threads that hang: they use what would be freed, and what exit(3) has libraries tidy up. They end with the process. */
__attribute__((noreturn)) static void leave(struct program *p, int status)
{
    log_warn("leaving with actions under way; the next mount goes on with them");
    mount_leave(p->mount);
    stop_servers(p);
    fflush(stdout);
    fflush(stderr);
    _exit(status);
}

static void stop(struct program *p, int status)
{
    if (p->engine)
        engine_stop(p->engine);
    if (p->engine && !engine_idle(p->engine))
        leave(p, status);
    mount_close(p->mount);
    engine_free(p->engine);
    index_free(p->index);
    neon_close(p->neon);
    store_close(p->store);
    stop_servers(p);
    config_free(&p->c);
}

/* Every thread inherits this: only the mount's own signal thread takes them. */
static void block_signals(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGUSR2);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
}

static int run(struct program *p)
{
    cleanup_err struct err e = {0};
    cleanup_free char *line = NULL;
    int r;

    block_signals();
    curl_global_init(CURL_GLOBAL_DEFAULT);
    r = start(p, &e);
    if (r == 0)
        r = mount_run(p->mount, p->engine, on_ready, p, &e);
    if (r < 0) {
        line = str_format("checkpointfs: %s\n", err_text(&e));
        if (p->status_fd >= 0 || p->c.foreground)
            say(p, line ? line : "checkpointfs: out of memory\n");
        else
            log_error("%s", err_text(&e));
    }
    stop(p, r < 0 ? 1 : 0);
    curl_global_cleanup();
    return r < 0 ? 1 : 0;
}

/* Forks first: no thread and no connection survives a fork. */
static int daemonize(struct program *p)
{
    int fds[2];
    pid_t child;

    if (pipe2(fds, O_CLOEXEC) < 0 || (child = fork()) < 0) {
        fprintf(stderr, "checkpointfs: %s\n", strerror(errno));
        return 1;
    }
    if (child > 0) {
        int status;

        close(fds[1]);
        status = await_child(fds[0], child);
        close(fds[0]);
        config_free(&p->c);
        return status;
    }
    close(fds[0]);
    p->status_fd = fds[1];
    setsid();
    if (chdir("/") < 0)
        log_warn("the daemon stays in %s", p->c.cwd);
    return run(p);
}

static int migrate(struct program *p)
{
    cleanup_err struct err e = {0};
    const char *role = p->c.mount_role ? p->c.mount_role : MOUNT_ROLE;
    int r = store_migrate(p->c.store, role, &e);

    if (r < 0)
        fprintf(stderr, "checkpointfs: %s\n", err_text(&e));
    else
        printf("the store is ready; mount with role %s\n", role);
    config_free(&p->c);
    return r < 0;
}

int main(int argc, char **argv)
{
    struct program p = {.status_fd = -1, .mountpoint_lock = -1};
    cleanup_err struct err e = {0};

    if (agent_is_supervisor_name(argv[0]))
        return agent_supervisor_main(argc, argv);
    if (local_is_keeper_name(argv[0]))
        return local_keeper_main(argc, argv);
    log_init("checkpointfs");
    if (config_read(argc, argv, &p.c, &e) < 0) {
        fprintf(stderr, "checkpointfs: %s\n", err_text(&e));
        return 1;
    }
    if (p.c.help || p.c.version) {
        printf("%s", p.c.help ? config_usage() : "checkpointfs " CHECKPOINTFS_VERSION "\n");
        config_free(&p.c);
        return 0;
    }
    if (p.c.migrate)
        return migrate(&p);
    return p.c.foreground ? run(&p) : daemonize(&p);
}
