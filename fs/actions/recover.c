/* Taking over what a dead mount left unsettled: each action goes on from its step, looking first (design.md §7.5). */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "actions_i.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/log.h"
#include "util/text.h"

/* How long the supervisor of a dead mount may take to end its agent, beside the grace. */
#define AGENT_END_MS 2000

/* An agent of a mount that died: its supervisor ends it; nobody knows how it had ended by itself. */
static void unknown_body(struct run *r)
{
    const char *agent = data_get(r, "agent_id");
    bool here = str_equal(data_get(r, "host"), r->g->host);
    int64_t until = clock_mono_ms() + r->g->c.grace_ms + AGENT_END_MS;
    cleanup_err struct err e = {0};

    /* What runs on another host can't be seen: its lease is over, so the grace is all that it has left. */
    while (agent && (!here || agent_alive(agent)) && clock_mono_ms() < until && !atomic_load(&r->g->stopping))
        clock_sleep_ms(50);
    if (atomic_load(&r->g->stopping))
        return;
    if (agent && here && agent_sweep(agent))
        log_warn("the agent of action %s outlived its supervisor and was killed", r->uid);
    if (here && data_get(r, "decisions_file"))
        unlink(data_get(r, "decisions_file"));
    journal_finish(r, ACTION_UNKNOWN, EIO,
                   "the mount died while the agent ran: nobody knows how the agent ended. Restore the checkpoint, or write `again …`",
                   "unknown", false, &e);
    run_end(r, EIO, "unknown");
}

/* Nothing had been started yet: free again. */
static void not_begun_body(struct run *r)
{
    cleanup_err struct err e = {0};

    journal_finish(r, ACTION_FAILED, EINTR, "the mount died before the agent was started; the decision is free again", "", true, &e);
    run_end(r, EINTR, "not begun");
}

static void cancel_body(struct run *r)
{
    cleanup_err struct err e = {0};

    journal_finish(r, ACTION_FAILED, EINTR, "the mount died", NULL, false, &e);
    run_end(r, EINTR, "the mount died");
}

static void (*body_of(const struct run *r))(struct run *r)
{
    bool agent = run_at(r, "agent");

    switch (r->kind) {
    case ACTION_TAKE:
        return take_body;
    case ACTION_RESTORE:
        return restore_body;
    case ACTION_RESUME:
        return agent ? unknown_body : not_begun_body;
    case ACTION_REPLAY:
        return agent ? unknown_body : replay_body;
    case ACTION_DELETE:
        return delete_body;
    case ACTION_CANCEL:
        return cancel_body;
    }
    return cancel_body;
}

static void go_on(struct engine *g, struct store_action *a)
{
    struct run *r = run_new(g, a, NULL);
    const char *decisions;

    if (!r) {
        log_error("action %s can't be taken over: out of memory", a->uid);
        return;
    }
    r->recovered = true;
    decisions = data_get(r, "decisions");
    r->decisions = str_dup(decisions);
    log_info("action %s (%s) is taken over at step `%s`", a->uid, a->command ? a->command : "take", a->step ? a->step : "");
    run_start(r, body_of(r));
    run_unref(r);
}

static int64_t start_of(pid_t pid)
{
    char path[64];
    char line[1024];
    long long start = -1;
    char *p;
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    f = fopen(path, "re");
    if (!f)
        return -1;
    p = fgets(line, sizeof(line), f) ? strrchr(line, ')') : NULL; /* the name may hold anything */
    if (p)
        sscanf(p + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %lld", &start);
    fclose(f);
    return start;
}

/* Whether the mount is surely gone: it said so, its process is gone, the machine was restarted, or its lease is over. */
static bool dead(const struct engine *g, const struct store_left *l, const char *boot_id)
{
    if (l->left || l->lease_over)
        return true;
    if (!str_equal(l->host, g->host))
        return false;
    return !str_equal(l->boot_id, boot_id) || start_of(l->pid) != l->pid_start;
}

static char *read_boot_id(void)
{
    char line[64] = "";
    FILE *f = fopen("/proc/sys/kernel/random/boot_id", "re");

    if (f) {
        if (fgets(line, sizeof(line), f))
            line[strcspn(line, "\n")] = '\0';
        fclose(f);
    }
    return strdup(line);
}

int recover_register(struct engine *g, bool can_resume, struct err *e)
{
    cleanup_free char *boot = read_boot_id();
    struct store_mount m = {
        .host = g->host, .boot_id = boot, .pid = getpid(), .pid_start = start_of(getpid()), .mountpoint = g->c.mountpoint,
        .can_resume = can_resume,
    };
    int r = store_mount_register(g->c.store, g->line_id, &m, e);

    if (r == 0)
        g->mount_id = m.id;
    return r;
}

int recover_left(struct engine *g, struct err *e)
{
    cleanup_free char *boot = read_boot_id();
    struct store_left *left = NULL;
    size_t n = 0;
    int r = store_left_mounts(g->c.store, g->line_id, g->mount_id, &left, &n, e);

    for (size_t i = 0; r == 0 && i < n; i++) {
        struct store_action *actions = NULL;
        size_t n_actions = 0;

        if (!dead(g, &left[i], boot))
            continue;
        r = store_take_over(g->c.store, left[i].mount_id, g->mount_id, &actions, &n_actions, e);
        for (size_t k = 0; r == 0 && k < n_actions; k++)
            go_on(g, &actions[k]);
        for (size_t k = 0; k < n_actions; k++)
            store_action_free(&actions[k]);
        free(actions);
    }
    store_left_free(left, n);
    return r;
}

/* ---- actions of this mount that nobody works on ------------------------------------------------------------------------ */

static bool has_run(struct engine *g, int64_t action)
{
    struct run *r;

    pthread_mutex_lock(&g->lock);
    HASH_FIND(hh, g->runs, &action, sizeof(action), r);
    pthread_mutex_unlock(&g->lock);
    return r != NULL;
}

/* The ids of the runs there are, 0 at the end; owned by the caller. */
static int64_t *running(struct engine *g)
{
    int64_t *ids;
    size_t n = 0;

    pthread_mutex_lock(&g->lock);
    ids = calloc(HASH_COUNT(g->runs) + 1, sizeof(*ids));
    for (struct run *r = g->runs; ids && r; r = r->hh.next)
        ids[n++] = r->action;
    pthread_mutex_unlock(&g->lock);
    return ids;
}

static bool among(const int64_t *ids, int64_t id)
{
    while (*ids && *ids != id)
        ids++;
    return *ids != 0;
}

void recover_own(struct engine *g, int64_t *seen)
{
    cleanup_free int64_t *before = running(g); /* first: one that ends now is in it, and no orphan */
    struct store_action *all = NULL;
    size_t n = 0;
    int64_t newest = 0;

    if (!before || store_take_over(g->c.store, g->mount_id, g->mount_id, &all, &n, NULL) < 0)
        return;
    for (size_t i = 0; i < n; i++) {
        if (all[i].id <= *seen && !among(before, all[i].id) && !has_run(g, all[i].id) && !atomic_load(&g->stopping))
            go_on(g, &all[i]);
        if (all[i].id > newest)
            newest = all[i].id;
    }
    *seen = newest;
    for (size_t i = 0; i < n; i++)
        store_action_free(&all[i]);
    free(all);
}
