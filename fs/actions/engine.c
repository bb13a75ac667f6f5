/* The engine: start and stop, and the calls that the mount makes which aren't commands. */
#include "actions/engine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "actions_i.h"
#include "agents/caller.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/log.h"
#include "util/text.h"

/* How long leaving may take beside the agents' time from TERM to KILL. */
#define STOP_MS 10000
#define PROBE_MS 1000

void who_read(struct engine *g, const struct engine_who *from, struct who *ret)
{
    cleanup_buf struct buf command = {0};
    struct caller c;
    pid_t pid, parent;

    caller_ids(from->pid, &pid, &parent); /* Node and Python ask from threads */
    *ret = (struct who){.w = {.uid = from->uid, .gid = from->gid, .pid = pid}, .group = pid > 0 ? getpgid(pid) : -1};
    if (gethostname(ret->host, sizeof(ret->host) - 1) == 0)
        ret->w.host = ret->host;
    if (caller_read(pid, &c) < 0)
        return;
    ret->user = str_dup(c.user);
    mask_text(g, c.command, strlen(c.command), false, &command);
    ret->command = caller_short(&command);
    ret->w.user = ret->user;
    ret->w.command = ret->command;
    caller_clear(&c);
}

void who_clear(struct who *w)
{
    free(w->user);
    free(w->command);
    *w = (struct who){0};
}

int64_t engine_deadline_ms(const struct engine *g)
{
    return g->c.deadline_ms;
}

int64_t engine_line(const struct engine *g)
{
    return g->line_id;
}

/* ---- start and stop ------------------------------------------------------------------------------------------------------ */

static void destroy(struct engine *g)
{
    secrets_clear(&g->known);
    free(g->boot_id);
    free(g->active_branch);
    free(g->endpoint_id);
    free(g->connection_uri);
    free(g->neon_trouble);
    free(g->store_trouble);
    pthread_mutex_destroy(&g->lock);
    pthread_mutex_destroy(&g->queueing);
    pthread_mutex_destroy(&g->knowing);
    pthread_mutex_destroy(&g->renewing);
    pthread_mutex_destroy(&g->refresh);
    pthread_cond_destroy(&g->idle);
    free(g);
}

static struct engine *engine_new(const struct engine_config *config)
{
    struct engine *g = calloc(1, sizeof(*g));
    pthread_condattr_t attr;

    if (!g)
        return NULL;
    g->c = *config;
    g->boot_id = recover_boot_id();
    if (!g->boot_id) {
        free(g);
        return NULL;
    }
    if (gethostname(g->host, sizeof(g->host) - 1) < 0)
        strcpy(g->host, "localhost");
    pthread_mutex_init(&g->lock, NULL);
    pthread_mutex_init(&g->queueing, NULL);
    pthread_mutex_init(&g->knowing, NULL);
    pthread_mutex_init(&g->renewing, NULL);
    pthread_mutex_init(&g->refresh, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&g->idle, &attr);
    pthread_condattr_destroy(&attr);
    g->started_ms = clock_mono_ms();
    atomic_store(&g->last_beat, clock_boot_ms());
    return g;
}

int engine_start(const struct engine_config *config, struct engine **ret, struct err *e)
{
    struct engine *g = engine_new(config);
    int r;

    if (!g)
        return err_set(e, ENOMEM, "out of memory");
    if (mask_start(g) < 0) {
        destroy(g);
        return err_set(e, ENOMEM, "out of memory");
    }
    store_set_mask(g->c.store, mask_told, g);
    store_set_probe(g->c.store, config->kill_at >= 0 ? engine_store_point : NULL, g);
    if ((r = active_join(g, e)) < 0 || (r = recover_register(g, e)) < 0 || (r = follow_open(g, e)) < 0) {
        destroy(g);
        return r;
    }
    r = engine_reload(g, e); /* an empty mount would be taken for an empty store, by rsync --delete too */
    if (r == 0) {
        upkeep_load(g);
        r = keeper_start(g, e);
    }
    if (r == 0)
        r = follow_start(g, e);
    if (r == 0)
        r = watch_start(g, e);
    if (r == 0 && !config->read_only)
        r = recover_left(g, e);
    if (r < 0) {
        engine_stop(g);
        if (engine_idle(g))
            engine_free(g);
        else
            *ret = g;
        return r;
    }
    *ret = g;
    return 0;
}

static bool waited_for(struct run *r)
{
    bool is;

    pthread_mutex_lock(&r->lock);
    is = r->waiters != NULL;
    pthread_mutex_unlock(&r->lock);
    return is;
}

/* Answers everybody who waits; the actions themselves stay in the journal. */
static void answer_waiters(struct engine *g)
{
    struct run *held[64];
    size_t n = 0;

    pthread_mutex_lock(&g->lock);
    for (struct run *r = g->runs; r && n < sizeof(held) / sizeof(*held); r = r->hh.next)
        if (waited_for(r))
            held[n++] = run_ref(r);
    for (struct run *r = g->watched; r && n < sizeof(held) / sizeof(*held); r = r->hh.next)
        if (waited_for(r))
            held[n++] = run_ref(r);
    pthread_mutex_unlock(&g->lock);
    for (size_t i = 0; i < n; i++) {
        struct run_waiter *w;

        pthread_mutex_lock(&held[i]->lock);
        w = held[i]->waiters;
        held[i]->waiters = NULL;
        if (held[i]->agent)
            agent_cancel(held[i]->agent);
        pthread_mutex_unlock(&held[i]->lock);
        while (w) {
            struct run_waiter *next = w->next;

            w->ended(w, EINTR, "the mount is being unmounted; the action goes on with the next mount");
            w = next;
        }
        run_unref(held[i]);
    }
    if (n == sizeof(held) / sizeof(*held))
        answer_waiters(g);
}

static void end_agents(struct engine *g)
{
    pthread_mutex_lock(&g->lock);
    for (struct run *r = g->runs; r; r = r->hh.next) {
        pthread_mutex_lock(&r->lock);
        if (r->agent)
            agent_cancel(r->agent);
        pthread_mutex_unlock(&r->lock);
    }
    pthread_mutex_unlock(&g->lock);
}

void engine_works(struct engine *g, int change)
{
    pthread_mutex_lock(&g->lock);
    g->threads += change;
    pthread_cond_broadcast(&g->idle);
    pthread_mutex_unlock(&g->lock);
}

/* Whether nothing is under way any more within that time. */
static bool idle_within(struct engine *g, int64_t ms)
{
    int64_t until_ms = clock_mono_ms() + ms;
    struct timespec until = {.tv_sec = until_ms / 1000, .tv_nsec = until_ms % 1000 * 1000000L};
    int r = 0;
    bool idle;

    pthread_mutex_lock(&g->lock);
    while (g->threads > 0 && r == 0)
        r = pthread_cond_timedwait(&g->idle, &g->lock, &until);
    idle = g->threads == 0;
    pthread_mutex_unlock(&g->lock);
    return idle;
}

/* A store that doesn't answer isn't waited for: what is under way is in the journal, and the next mount settles it. */
static void wait_idle(struct engine *g)
{
    int64_t until = clock_mono_ms() + g->c.grace_ms + STOP_MS;
    bool idle;

    while (!(idle = idle_within(g, PROBE_MS)) && clock_mono_ms() < until)
        if (store_mount_beat(g->c.store, atomic_load(&g->mount_id), NULL) < 0)
            break;
    if (idle)
        return;
    log_warn("leaving without the store, which doesn't answer");
    store_abandon(g->c.store);
    idle_within(g, g->c.grace_ms + STOP_MS);
}

void engine_stop(struct engine *g)
{
    int r = 0;

    if (atomic_exchange(&g->stopping, true))
        return;
    answer_waiters(g);
    end_agents(g);
    wait_idle(g);
    watch_stop(g);
    follow_stop(g);
    keeper_stop(g);
    if (atomic_load(&g->mount_id))
        r = store_mount_leave(g->c.store, atomic_load(&g->mount_id), NULL);
    if (r < 0)
        store_abandon(g->c.store); /* neither do the mount's last requests wait for it */
}

bool engine_stopping(struct engine *g)
{
    return atomic_load(&g->stopping);
}

bool engine_idle(struct engine *g)
{
    bool idle;

    pthread_mutex_lock(&g->lock);
    idle = g->threads == 0;
    pthread_mutex_unlock(&g->lock);
    return idle;
}

void engine_free(struct engine *g)
{
    struct run *r, *next;

    if (!g)
        return;
    HASH_ITER(hh, g->runs, r, next) {
        HASH_DEL(g->runs, r);
        run_unref(r);
    }
    HASH_ITER(hh, g->watched, r, next) {
        HASH_DEL(g->watched, r);
        run_unref(r);
    }
    destroy(g);
}

/* ---- takes --------------------------------------------------------------------------------------------------------------- */

static int start_take(struct engine *g, int64_t action, const struct who *who, struct err *e)
{
    struct store_action a = {0};
    struct index_entry *entry;
    struct run *r;
    int rc = store_action(g->c.store, action, &a, e);

    if (rc < 0)
        return rc;
    r = run_new(g, &a);
    store_action_free(&a);
    if (!r)
        return err_set(e, ENOMEM, "out of memory");
    engine_refresh(g, r->checkpoint, action);
    index_write_lock(g->c.index);
    entry = index_by_id(g->c.index, r->checkpoint);
    if (entry) {
        entry->taken_by = who->w.pid;
        entry->taken_group = who->group;
        entry->listed = false;
    }
    index_unlock(g->c.index);
    run_start(r, take_body);
    run_unref(r);
    return 0;
}

static int leaving(struct engine *g, struct err *e)
{
    return atomic_load(&g->stopping) ? err_set(e, ESHUTDOWN, "the mount is being unmounted") : 0;
}

int engine_take(struct engine *g, const char *name, const struct who *who, int64_t *ret_checkpoint, struct err *e)
{
    return engine_take_on(g, 0, name, who, ret_checkpoint, e);
}

int engine_take_on(struct engine *g, int64_t branch, const char *name, const struct who *who, int64_t *ret_checkpoint, struct err *e)
{
    int64_t action = 0;
    int r = leaving(g, e);

    if (r == 0)
        r = LEASED(g, store_take_begin_on(g->c.store, g->line_id, 0, branch, name, &who->w, ret_checkpoint, &action, e));
    if (r == -EBUSY || (branch && (r == -ESTALE || r == -ENODATA)))
        engine_take_refused(g, 0, name, who, -r, err_text(e));
    return r < 0 ? r : start_take(g, action, who, e);
}

int engine_take_again(struct engine *g, int64_t checkpoint, const struct who *who, struct err *e)
{
    struct brief b = {0};
    int64_t action = 0;
    int r = engine_brief(g, checkpoint, &b);

    if (r < 0)
        return err_set(e, ENOENT, "the checkpoint is gone");
    if (b.note && str_starts(b.note, TAKE_IS_COPY))
        r = err_set(e, EPERM, "`%s` is " TAKE_IS_COPY "; rmdir it first", b.name);
    brief_clear(&b);
    if (r == 0)
        r = LEASED(g, store_take_again(g->c.store, checkpoint, 0, &who->w, &action, e));
    return r < 0 ? r : start_take(g, action, who, e);
}

static struct run *find_run(struct engine *g, int64_t checkpoint, int64_t branch, bool takes_only)
{
    struct run *found = NULL;

    pthread_mutex_lock(&g->lock);
    for (struct run *r = g->runs; r && !found; r = r->hh.next)
        if (r->checkpoint == checkpoint && (branch ? r->of_branch && r->isolated == branch : !r->of_branch) &&
            (!takes_only || r->kind == ACTION_TAKE))
            found = run_ref(r);
    pthread_mutex_unlock(&g->lock);
    return found;
}

/* The run on this mount, or one that waits for another mount's. -errno when the store doesn't tell of those. */
static int under_way(struct engine *g, int64_t checkpoint, int64_t branch, bool takes_only, struct run **ret)
{
    struct store_action a = {0};
    int64_t action = 0;
    int r;

    *ret = find_run(g, checkpoint, branch, takes_only);
    if (*ret)
        return 0;
    r = store_under_way(g->c.store, checkpoint, branch, takes_only, &action, NULL);
    if (r < 0 || !action)
        return r;
    r = store_action(g->c.store, action, &a, NULL);
    if (r == 0)
        *ret = find_run(g, checkpoint, branch, takes_only); /* begun here this moment */
    if (!*ret && a.id)
        *ret = run_watch(g, &a);
    store_action_free(&a);
    return r;
}

struct run *engine_take_run(struct engine *g, int64_t checkpoint)
{
    struct run *r;

    under_way(g, checkpoint, 0, true, &r);
    return r;
}

struct run *engine_under_way(struct engine *g, int64_t checkpoint, int64_t branch)
{
    struct run *r;
    int known = under_way(g, checkpoint, branch, false, &r);

    if (known == 0 && !r)
        engine_refresh(g, checkpoint, 0); /* the store may tell of another mount's end before the index has heard of it */
    return r;
}

/* A checkpoint's database half must still be there: the two are of one moment. */
static int same_database(struct engine *g, const struct brief *b, struct err *e)
{
    struct store_line line = {0};
    cleanup_free char *branch = NULL;
    int r = b->isolated ? branch_connection(g, NULL, b->isolated, &branch, NULL, e) : store_line_get(g->c.store, g->line_id, &line, e);

    if (r == 0 && !b->isolated)
        branch = steal_ptr(&line.active_branch);
    if (r == 0 && !str_equal(branch, b->snapshot_branch))
        r = err_set(e, ESTALE, "the active branch changed from %s to %s since the snapshot was taken: the two would be no pair",
                    b->snapshot_branch, branch);
    store_line_free(&line);
    return r;
}

int engine_take_ready(struct engine *g, int64_t checkpoint, struct err *e)
{
    struct brief b = {0};
    int r;

    if (engine_brief(g, checkpoint, &b) < 0)
        return err_set(e, ENOENT, "the checkpoint is gone");
    if (b.phase == PHASE_SEALED)
        r = err_set(e, EPERM, "`%s` is sealed; a checkpoint never changes", b.name);
    else if (b.phase == PHASE_TAKING && atomic_load(&g->stopping)) /* as for those who waited already */
        r = err_set(e, EINTR, "the mount is being unmounted");
    else if (b.phase != PHASE_SAVED)
        r = err_set(e, b.take_code ? b.take_code : EIO, "%s", b.note ? b.note : "the snapshot was not taken");
    else if (b.closed)
        r = err_set(e, EPERM, "`%s` was restored as a database-only checkpoint and takes no state any more", b.name);
    else
        r = same_database(g, &b, e);
    brief_clear(&b);
    return r;
}

int engine_take_remove(struct engine *g, int64_t checkpoint, const struct who *who, struct err *e)
{
    int r = store_take_remove(g->c.store, checkpoint, &who->w, e);

    if (r == 0)
        engine_refresh(g, checkpoint, 0);
    return r;
}

int engine_rename(struct engine *g, int64_t checkpoint, const char *new_name, const struct who *who, struct err *e)
{
    int r = store_rename(g->c.store, checkpoint, new_name, &who->w, e);

    if (r == 0)
        r = engine_refresh(g, checkpoint, 0);
    return r;
}
