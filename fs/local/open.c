/* A mount's side of its local servers: joins them, starts their keeper if there is none, leaves them. */
#include "local/local.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include "local_i.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/text.h"

#define JOIN_MS 180000 /* a first start makes clusters; a slow disk is given its time */
#define POLL_MS 10

struct local_servers {
    char *dir;
    int mounts_lock; /* held shared */
    pid_t keeper;    /* our child; 0 when another process started it */
    struct local_state state;
};

static const char *task_of(const struct local_config *cfg)
{
    if (cfg->want_store && cfg->want_neon)
        return KEEPER_TASK_BOTH;
    return cfg->want_store ? KEEPER_TASK_STORE : KEEPER_TASK_NEON;
}

/* Waits while servers that nobody used any more are being stopped. */
static int lock_shared(struct local_servers *s, int64_t end, struct err *e)
{
    while (flock(s->mounts_lock, LOCK_SH | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            return err_set(e, errno, "can't lock %s/mounts.lock: %s", s->dir, strerror(errno));
        if (clock_mono_ms() >= end)
            return err_set(e, ETIMEDOUT, "the local servers of %s are still being stopped: try again (see %s/keeper.log)", s->dir,
                           s->dir);
        clock_sleep_ms(POLL_MS);
    }
    return 0;
}

static int check_wants(const struct local_servers *s, const struct local_config *cfg, struct err *e)
{
    const struct local_env *env = &s->state.env;

    if ((cfg->want_store && !env->store) || (cfg->want_neon && !env->neon_api_host))
        return err_set(e, EINVAL, "%s is in use by a mount that keeps only %s there: unmount it, or choose another directory",
                       s->dir, env->store ? "the store (--store=DIR)" : "neon-emulator");
    if (cfg->want_neon && cfg->plan && s->state.plan && !str_equal(cfg->plan, s->state.plan))
        return err_set(e, EINVAL, "neon-emulator of %s runs with plan %s: unmount what uses it, or ask for that plan", s->dir,
                       s->state.plan);
    return 0;
}

/* Whether env.json is that of a living keeper, and not what a killed one left. */
static bool is_served(struct local_servers *s, struct err *e)
{
    int64_t start;

    if (local_state_read(s->dir, &s->state, e))
        return false;
    start = local_process_start(s->state.keeper);
    if (start && start == s->state.keeper_start)
        return true;
    local_state_clear(&s->state);
    return false;
}

static int start_keeper(struct local_servers *s, const struct local_config *cfg, int *lock, struct err *e)
{
    int r = local_keeper_start(cfg, s->dir, task_of(cfg), lock, &s->keeper, e);

    if (r)
        return r;
    if (!is_served(s, e))
        return err_set(e, EIO, "the keeper of the local servers of %s ended at once: see %s/keeper.log", s->dir, s->dir);
    return 0;
}

/* Whoever gets keeper.lock starts the keeper; the others wait until it serves, or has failed and let go of the lock. */
static int join(struct local_servers *s, const struct local_config *cfg, int64_t end, struct err *e)
{
    cleanup_fd int lock = -1;
    int r = local_open_lock(s->dir, "keeper.lock", &lock, e);

    while (r == 0) {
        if (flock(lock, LOCK_EX | LOCK_NB) == 0)
            return start_keeper(s, cfg, &lock, e);
        if (is_served(s, NULL))
            return check_wants(s, cfg, e);
        if (clock_mono_ms() >= end)
            return err_set(e, ETIMEDOUT, "the local servers of %s don't come up: see %s/keeper.log", s->dir, s->dir);
        clock_sleep_ms(POLL_MS);
    }
    return r;
}

int local_servers_open(const struct local_config *cfg, struct local_servers **ret, struct err *e)
{
    int64_t end = clock_mono_ms() + JOIN_MS;
    struct local_servers *s = calloc(1, sizeof *s);
    int r;

    if (!s)
        return err_set(e, ENOMEM, "out of memory");
    s->mounts_lock = -1;
    r = local_make_dir(cfg->dir, &s->dir, e);
    if (r == 0)
        r = local_open_lock(s->dir, "mounts.lock", &s->mounts_lock, e);
    if (r == 0)
        r = lock_shared(s, end, e);
    if (r == 0)
        r = join(s, cfg, end, e);
    if (r) {
        local_servers_close(s, 0);
        return r;
    }
    if (!cfg->want_store) { /* kept for another mount */
        free(s->state.env.store);
        free(s->state.env.store_owner);
        s->state.env.store = s->state.env.store_owner = NULL;
    }
    *ret = s;
    return 0;
}

const struct local_env *local_servers_env(const struct local_servers *s)
{
    return &s->state.env;
}

enum stage { STAGE_USED, STAGE_STOPPING, STAGE_STOPPED };

/* Where the servers stand after we let go. mounts.lock is taken for a moment only: the keeper, which waits for it, gets it
 * next. */
static enum stage look(struct local_servers *s, int mounts, int keeper)
{
    struct local_config cfg = {0};
    cleanup_free char *env = local_path(s->dir, "env.json");
    bool others;
    int lock;

    if (flock(mounts, LOCK_EX | LOCK_NB) < 0) {
        others = flock(mounts, LOCK_SH | LOCK_NB) == 0;
        flock(mounts, LOCK_UN);
        return others ? STAGE_USED : STAGE_STOPPING;
    }
    flock(mounts, LOCK_UN);
    if (flock(keeper, LOCK_EX | LOCK_NB) < 0)
        return STAGE_STOPPING;
    if (!env || access(env, F_OK) < 0) {
        flock(keeper, LOCK_UN);
        return STAGE_STOPPED;
    }
    lock = dup(keeper); /* the keeper was killed, or it would have removed env.json: let another one clean up */
    if (lock < 0 || local_keeper_start(&cfg, s->dir, KEEPER_TASK_SWEEP, &lock, &s->keeper, NULL)) {
        flock(keeper, LOCK_UN);
        return STAGE_STOPPED;
    }
    return STAGE_STOPPING;
}

static int wait_stopped(struct local_servers *s, int wait_ms)
{
    cleanup_fd int mounts = -1;
    int64_t end = clock_mono_ms() + wait_ms;
    enum stage stage;

    if (local_open_lock(s->dir, "mounts.lock", &mounts, NULL))
        return 0;
    for (;;) {
        cleanup_fd int keeper = -1; /* opened anew each time: the sweeping keeper shares the lock of the one it was given */

        if (local_open_lock(s->dir, "keeper.lock", &keeper, NULL))
            return 0;
        stage = look(s, mounts, keeper);
        if (stage != STAGE_STOPPING)
            return 0;
        if (clock_mono_ms() >= end)
            return wait_ms > 0 ? -ETIMEDOUT : 0;
        clock_sleep_ms(POLL_MS);
    }
}

int local_servers_close(struct local_servers *s, int wait_ms)
{
    bool joined;
    int r = 0;

    if (!s)
        return 0;
    joined = s->state.keeper != 0;
    cleanup_fd_p(&s->mounts_lock);
    if (joined)
        r = wait_stopped(s, wait_ms);
    if (s->keeper)
        waitpid(s->keeper, NULL, WNOHANG);
    local_state_clear(&s->state);
    free(s->dir);
    free(s);
    return r;
}
