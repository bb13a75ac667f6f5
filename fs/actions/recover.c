/* Taking over what a dead mount left unsettled: each action goes on from its step, looking first (design.md §7.5). */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "actions_i.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/log.h"
#include "util/text.h"

/* How long the supervisor of a dead mount may take to end its agent, beside the grace. */
#define AGENT_END_MS 2000

/* The time that the agent gets from TERM to KILL, which its own mount's configuration says. */
static int64_t grace_of(const struct run *r)
{
    const json_t *grace = json_object_get(r->data, "grace_ms");

    return grace ? json_integer_value(grace) : r->g->c.grace_ms;
}

/* An agent of a mount that died: its supervisor ends it; nobody knows how it had ended by itself. */
static void unknown_body(struct run *r)
{
    const char *agent = data_get(r, "agent_id");
    bool here = str_equal(data_get(r, "host"), r->g->host) && str_equal(data_get(r, "boot_id"), r->g->boot_id);
    int64_t until = clock_mono_ms() + grace_of(r) + AGENT_END_MS;

    /* What runs on another host, or in another container, can't be seen: its lease is over, so the grace is all that it has left. */
    while (agent && (!here || agent_alive(agent)) && clock_mono_ms() < until && !run_leaves(r))
        clock_sleep_ms(50);
    if (run_leaves(r))
        return;
    if (agent && here && agent_sweep(agent))
        log_warn("the agent of action %s outlived its supervisor and was killed", r->uid);
    if (here && data_get(r, "decisions_file"))
        unlink(data_get(r, "decisions_file"));
    journal_settle(r, ACTION_UNKNOWN, EIO,
                   "the mount died while the agent ran: nobody knows how the agent ended. Restore the checkpoint, or write `again …`",
                   "unknown", false);
}

/* Nothing had been started yet. */
static void not_begun_body(struct run *r)
{
    journal_settle(r, ACTION_FAILED, EINTR, "the mount died before the agent was started (" NOT_USED ")", "", true);
}

/* Its mark was set before it was claimed, and whoever has the agent is told of that: nothing is left to be done. */
static void cancel_body(struct run *r)
{
    journal_settle(r, ACTION_DONE, 0, "its mark was set before the answer was lost: the agent is told to end, see status", NULL, false);
}

static void died_body(struct run *r)
{
    journal_settle(r, ACTION_FAILED, EINTR, "the mount died", NULL, false);
}

#define NEVER_BEGUN                                                                                                              \
    "nobody was told that it was begun (the store's answer to its claim was lost, or the mount died), so nothing was done: write it again"

/* The journal has its claim, and nothing since: whoever wrote it has an error, or no answer at all, and may have gone another way. A
 * cancel has taken effect before its claim. */
static bool never_begun(const struct store_action *a)
{
    cleanup_json json_t *data = a->data ? json_loads(a->data, 0, NULL) : NULL;
    bool begins = a->kind != ACTION_TAKE && a->kind != ACTION_IMPORT && a->kind != ACTION_CANCEL;
    bool is_verb = begins && !str_equal(a->command, DISCARD_COMMAND);

    return is_verb && !a->assigned && (!a->step || !*a->step) && !json_object_get(data, "steps");
}

static void never_begun_body(struct run *r)
{
    bool makes = r->of_branch && (r->kind == ACTION_BRANCH || r->kind == ACTION_REPLAY);
    bool decides = r->kind == ACTION_RESUME;
    cleanup_err struct err e = {0};
    int tries = 0;
    int rc;

    do {
        rc = makes ? store_branch_failed(r->g->c.store, r->action, &e)
             : r->kind == ACTION_PRUNE ? store_prune_release(r->g->c.store, r->action, &e) : 0; /* -ENOENT: it applies no plan */
    } while (rc < 0 && journal_again(r, rc, &e, &tries));
    if (!run_leaves(r))
        journal_settle(r, ACTION_FAILED, EIO, NEVER_BEGUN, makes ? "failed restore: " NEVER_BEGUN : decides ? "" : NULL, decides);
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
    case ACTION_BRANCH:
        return isolate_body;
    case ACTION_PROMOTE:
        return promote_body;
    case ACTION_DELETE:
        return delete_body;
    case ACTION_PRUNE:
        return prune_body;
    case ACTION_UNDO:
        return undo_body;
    case ACTION_ADOPT:
        return adopt_body;
    case ACTION_DRY_RUN:
        return dry_run_body;
    case ACTION_CANCEL:
        return cancel_body;
    case ACTION_IMPORT:
        return died_body;
    }
    return died_body;
}

static bool has_run(struct engine *g, int64_t action)
{
    struct run *r;

    pthread_mutex_lock(&g->lock);
    HASH_FIND(hh, g->runs, &action, sizeof(action), r);
    pthread_mutex_unlock(&g->lock);
    return r != NULL;
}

/* An agent that is still to be started isn't this mount's to start: whether another one has the action now, or the store didn't say, which
 * recover_own asks again. Where no worker lives it goes on here, and a replay is restored at least. */
static bool hand_on(struct engine *g, const struct store_action *a)
{
    const char *worker = engine_worker(g);
    bool to_wake = a->assigned ? !g->c.resume_command : a->kind == ACTION_REPLAY && !str_equal(a->step, "agent");
    int r;

    if (!worker || !to_wake)
        return false;
    r = store_hand_on(g->c.store, a->id, strcmp(worker, "here") == 0 ? "any" : worker, NULL); /* it wasn't written here */
    if (r == 0)
        log_info("action %s (%s) was left by a dead mount, and is given to one that has a resume command", a->uid, a->command);
    return r != -EOPNOTSUPP;
}

static void go_on(struct engine *g, struct store_action *a)
{
    bool never = never_begun(a);
    struct run *r;

    if (has_run(g, a->id)) /* it was lost and came back: its thread ends first, recover_own comes again */
        return;
    if (!never && hand_on(g, a))
        return;
    if (a->assigned) {
        recover_assigned(g, a);
        return;
    }
    r = run_new(g, a);
    if (!r) {
        log_error("action %s can't be taken over: out of memory", a->uid);
        return;
    }
    r->recovered = true;
    r->decisions = str_dup(a->decisions);
    atomic_store(&r->cancelled, a->cancel);
    log_info("action %s (%s) is taken over at step `%s`", a->uid, a->command ? a->command : "take", a->step ? a->step : "");
    run_start(r, never ? never_begun_body : body_of(r));
    run_unref(r);
}

/* ---- actions that were given to this mount --------------------------------------------------------------------------------- */

/* Nothing was begun. A resume's decision is free again; a replay has claimed none, and leaves all as it was but the branch it was to
 * make. */
static void not_runnable(struct run *r, struct err *e)
{
    bool replay = r->kind == ACTION_REPLAY;
    cleanup_free char *why = str_format(replay ? "nothing was done, since the agent can't be started on %s: %s"
                                               : "the agent was not started on %s: %s (" NOT_USED ")",
                                         r->g->host, err_text(e));
    cleanup_free char *outcome = replay && r->of_branch ? str_format("failed restore: %s", why) : NULL;
    int code = e->code;

    if (replay && r->of_branch)
        isolate_failed(r, e);
    journal_settle(r, ACTION_FAILED, code, why, replay ? outcome : "", !replay);
}

static void assigned_body(struct run *r)
{
    cleanup_err struct err e = {0};
    const char *command = r->g->c.resume_command;
    int rc = 0;

    if (!r->recovered) /* else its restore is under way, and has to come to its end */
        rc = command ? agent_check(command, r->g->c.cwd, &e) : err_set(&e, EOPNOTSUPP, "this mount has no resume command any more");
    if (rc == 0 && r->kind == ACTION_REPLAY) {
        replay_body(r);
    } else if (rc == 0) {
        resume_body(r);
    } else if (!run_leaves(r)) {
        not_runnable(r, &e);
    }
}

void recover_assigned(struct engine *g, const struct store_action *a)
{
    struct run *r;

    if (has_run(g, a->id) || atomic_load(&g->stopping) || store_accept(g->c.store, a->id, NULL) <= 0)
        return;
    r = run_new(g, a);
    if (!r) {
        log_error("action %s can't be begun now: out of memory", a->uid);
        return;
    }
    r->decisions = str_dup(a->decisions);
    r->recovered = *r->step != '\0'; /* another mount was at it */
    atomic_store(&r->cancelled, a->cancel);
    log_info("action %s (%s) was given to this mount", a->uid, a->command ? a->command : "");
    run_start(r, assigned_body);
    run_unref(r);
}

void engine_cancel_run(struct engine *g, int64_t action)
{
    struct run *r;

    pthread_mutex_lock(&g->lock);
    HASH_FIND(hh, g->runs, &action, sizeof(action), r);
    r = r ? run_ref(r) : NULL;
    pthread_mutex_unlock(&g->lock);
    if (!r)
        return;
    atomic_store(&r->cancelled, true);
    pthread_mutex_lock(&r->lock);
    if (r->agent)
        agent_cancel(r->agent);
    pthread_mutex_unlock(&r->lock);
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

/* Whether the mount is gone: it said so, its lease is over, or its process is no longer there, which is sure. Only the same boot and the
 * same pid namespace see its process: two machines or containers may have one name. */
static bool dead(const struct engine *g, const struct store_left *l, bool *ret_sure)
{
    *ret_sure = str_equal(l->host, g->host) && str_equal(l->boot_id, g->boot_id) && start_of(l->pid) != l->pid_start;
    return *ret_sure || l->left || l->lease_over;
}

char *recover_boot_id(void)
{
    char line[64] = "";
    struct stat ns = {0};
    FILE *f = fopen("/proc/sys/kernel/random/boot_id", "re");

    if (f) {
        if (fgets(line, sizeof(line), f))
            line[strcspn(line, "\n")] = '\0';
        fclose(f);
    }
    stat("/proc/self/ns/pid", &ns);
    return str_format("%s %llu", line, (unsigned long long)ns.st_ino);
}

int recover_register(struct engine *g, struct err *e)
{
    struct store_mount m = {
        .host = g->host, .boot_id = g->boot_id, .pid = getpid(), .pid_start = start_of(getpid()), .mountpoint = g->c.mountpoint,
        .can_resume = g->c.resume_command && !g->c.read_only,
    };
    int r = store_mount_register(g->c.store, g->line_id, &m, e);

    if (r == 0)
        atomic_store(&g->mount_id, m.id);
    return r;
}

int recover_left(struct engine *g, struct err *e)
{
    struct store_left *left = NULL;
    size_t n = 0;
    int64_t me = atomic_load(&g->mount_id);
    int r = store_left_mounts(g->c.store, g->line_id, me, &left, &n, e);

    for (size_t i = 0; r == 0 && i < n; i++) {
        struct store_action *actions = NULL;
        size_t n_actions = 0;
        bool sure = false;

        if (!dead(g, &left[i], &sure))
            continue;
        r = store_take_over(g->c.store, left[i].mount_id, me, sure, &actions, &n_actions, e);
        if (r == -EBUSY) { /* its beat came this moment */
            err_clear(e);
            r = 0;
        }
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
    int64_t me = atomic_load(&g->mount_id);
    struct store_action *all = NULL;
    size_t n = 0;
    int64_t newest = 0;

    if (!before || store_take_over(g->c.store, me, me, false, &all, &n, NULL) < 0)
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
