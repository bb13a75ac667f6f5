/* The keeper: starts the servers of a DIR, keeps them running, and stops them when no mount holds DIR/mounts.lock any more. */
#include "local/local.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "local_i.h"
#include "util/cleanup.h"
#include "util/log.h"
#include "util/text.h"

#define RETRY_SECONDS 5 /* between attempts to bring back a server that ended by itself */

struct keeper {
    const char *dir;
    const char *emulator;
    const char *plan;
    bool keep_store;
    bool keep_neon;
    int mounts_lock;
    struct local_store store;
    pid_t neon; /* 0 while it doesn't run */
    struct local_state state;
};

static void report(int code, const char *text)
{
    if (code)
        dprintf(KEEPER_STATUS_FD, "%d %s\n", code, text);
    else
        dprintf(KEEPER_STATUS_FD, "0\n");
    close(KEEPER_STATUS_FD);
}

static void end_leftovers(const char *dir)
{
    cleanup_free char *env = local_path(dir, "env.json");

    if (env)
        unlink(env);
    local_emulator_end(dir);
    local_store_end(dir);
}

static int start_servers(struct keeper *k, struct err *e)
{
    int r = 0;

    if (k->keep_store)
        r = local_store_start(k->dir, &k->store, &k->state.env, e);
    if (r == 0 && k->keep_neon)
        r = local_emulator_start(k->dir, k->emulator, k->plan, &k->neon, &k->state.env, e);
    if (r)
        return r;
    k->state.plan = *k->plan ? strdup(k->plan) : NULL;
    k->state.keeper = getpid();
    k->state.keeper_start = local_process_start(getpid());
    return local_state_write(k->dir, &k->state, e);
}

/* neon-emulator first: the mounts are gone, and its computes take longest. */
static void stop_servers(struct keeper *k)
{
    cleanup_free char *env = local_path(k->dir, "env.json");

    if (env)
        unlink(env);
    if (k->neon)
        local_emulator_stop(k->dir, k->neon);
    local_store_stop(&k->store);
    local_store_clear(&k->store);
    local_state_clear(&k->state);
}

/* Brings back what ended by itself (killed for memory, or by hand). Their addresses stay the same. False = try again later. */
static bool revive(struct keeper *k)
{
    cleanup_err struct err e = {0};
    int r = 0;

    if (k->store.pid && !pgserver_alive(k->store.pid)) {
        log_warn("the store's PostgreSQL of %s ended by itself; starting it again", k->dir);
        k->store.pid = 0;
    }
    if (k->neon && !pgserver_alive(k->neon)) {
        log_warn("neon-emulator of %s ended by itself; starting it again", k->dir);
        k->neon = 0;
    }
    if (k->keep_store && !k->store.pid)
        r = local_store_start(k->dir, &k->store, &k->state.env, &e);
    if (r == 0 && k->keep_neon && !k->neon)
        r = local_emulator_start(k->dir, k->emulator, k->plan, &k->neon, &k->state.env, &e);
    if (r == 0)
        return true;
    log_error("%s; trying again in %d s", err_text(&e), RETRY_SECONDS);
    return false;
}

/* Waits, in a thread of its own, for the last mount to let go. */
static void *await_lock(void *arg)
{
    struct keeper *k = arg;

    while (flock(k->mounts_lock, LOCK_EX) < 0 && errno == EINTR)
        ;
    kill(getpid(), SIGUSR1);
    return NULL;
}

/* Returns when it is time to stop. All signals are blocked: they are taken here. */
static int keep(struct keeper *k)
{
    const struct timespec retry = {.tv_sec = RETRY_SECONDS};
    bool all_well = true;
    pthread_t waiter;
    sigset_t set;
    int sig;
    int r;

    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGUSR1);
    r = pthread_create(&waiter, NULL, await_lock, k);
    if (r)
        return -r;
    pthread_detach(waiter);
    for (;;) {
        sig = sigtimedwait(&set, NULL, all_well ? NULL : &retry);
        if (sig == SIGTERM || sig == SIGINT || sig == SIGUSR1)
            return 0;
        if (sig == SIGCHLD || (sig < 0 && errno == EAGAIN))
            all_well = revive(k);
    }
}

static int run(struct keeper *k)
{
    cleanup_err struct err e = {0};
    int r = local_open_lock(k->dir, "mounts.lock", &k->mounts_lock, &e);

    if (r == 0) {
        end_leftovers(k->dir);
        r = start_servers(k, &e);
    }
    if (r)
        log_error("%s", err_text(&e));
    report(-r, err_text(&e));
    if (r == 0)
        r = keep(k);
    stop_servers(k);
    return r ? 1 : 0;
}

/* Cleans up after a killed keeper, once no mount needs its servers. */
static int sweep(struct keeper *k)
{
    cleanup_err struct err e = {0};
    int r = local_open_lock(k->dir, "mounts.lock", &k->mounts_lock, &e);

    report(-r, err_text(&e));
    if (r)
        return 1;
    while (flock(k->mounts_lock, LOCK_EX) < 0 && errno == EINTR)
        ;
    end_leftovers(k->dir);
    return 0;
}

bool local_is_keeper_name(const char *argv0)
{
    const char *slash = argv0 ? strrchr(argv0, '/') : NULL;

    return argv0 && strcmp(slash ? slash + 1 : argv0, "checkpointfs-keeper") == 0;
}

int local_keeper_main(int argc, char **argv)
{
    struct keeper k = {.mounts_lock = -1};
    const char *task;

    if (argc != KEEPER_ARGC || fcntl(KEEPER_STATUS_FD, F_SETFD, FD_CLOEXEC) < 0 ||
        fcntl(KEEPER_LOCK_FD, F_SETFD, FD_CLOEXEC) < 0) {
        fprintf(stderr, "checkpointfs-keeper is started by a mount, not by hand\n");
        return 2;
    }
    prctl(PR_SET_NAME, "checkpointfs-ke");
    log_init("checkpointfs-keeper");
    task = argv[KEEPER_TASK];
    k.dir = argv[KEEPER_DIR];
    k.emulator = argv[KEEPER_EMULATOR];
    k.plan = argv[KEEPER_PLAN];
    k.keep_store = str_equal(task, KEEPER_TASK_STORE) || str_equal(task, KEEPER_TASK_BOTH);
    k.keep_neon = str_equal(task, KEEPER_TASK_NEON) || str_equal(task, KEEPER_TASK_BOTH);
    return str_equal(task, KEEPER_TASK_SWEEP) ? sweep(&k) : run(&k);
}
