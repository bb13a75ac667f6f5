/* Prune: rules make a plan, which deletes nothing; `apply` deletes what that plan named, item by item, each checked again (design.md §2).
 *
 * How far an application came is in the store's plan_items: an item is announced with its snapshot's id before Neon is asked, and recorded
 * after it, so that whoever takes over goes on with the rest. The project's turn is held for one item at a time. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "actions_i.h"
#include "planning.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/log.h"
#include "util/text.h"

/* ---- a plan -------------------------------------------------------------------------------------------------------------- */

/* The action is journalled, and so is its first document: `.control/result` shows it from now on. */
static int begun(struct engine *g, struct store_action *a, struct run **ret, struct err *e)
{
    cleanup_free char *data = NULL;
    cleanup_free char *doc = NULL;

    *ret = run_new(g, a);
    store_action_free(a);
    if (!*ret)
        return err_set(e, ENOMEM, "out of memory; the action goes on in a moment");
    journal_at(*ret, "requested");
    data = json_dumps((*ret)->data, JSON_COMPACT);
    doc = journal_doc(*ret, "running", 0, NULL);
    store_prune_doc(g->c.store, (*ret)->action, "", data, doc, NULL);
    engine_refresh(g, 0, (*ret)->action);
    return 0;
}

int prune_plan(struct engine *g, const struct store_begin *b, const char *rules, struct run **ret, struct err *e)
{
    cleanup_planning struct planning p = {0};
    cleanup_free char *message = NULL;
    cleanup_err struct err failed = {0};
    struct store_action a = {0};
    int r = planning_make(g, rules, false, &p, e);

    if (r == 0)
        r = LEASED(g, store_prune_begin(g->c.store, b, NULL, NULL, false, &a, e));
    if (r == 0)
        r = begun(g, &a, ret, e);
    if (r < 0)
        return r;
    message = planning_message(&p);
    r = store_plan_put(g->c.store, (*ret)->action, p.uid, p.rules, false, p.goes, p.n_goes, &failed);
    if (r == 0)
        planning_describe(&p, (*ret)->data);
    journal_finish(*ret, r < 0 ? ACTION_FAILED : ACTION_DONE, failed.code, r < 0 ? err_text(&failed) : message, NULL, false, NULL);
    run_end(*ret, r < 0 ? -r : 0, NULL);
    return 0;
}

/* ---- applying it ------------------------------------------------------------------------------------------------------------ */

/* What was done, in numbers and names. */
struct tally {
    size_t checkpoints, snapshots, skipped;
};

static json_t *asked_for(const struct store_plan_item *x)
{
    return x->requests ? json_loads(x->requests, 0, NULL) : NULL;
}

static struct tally tally(struct run *r)
{
    struct store_plan_item *items = NULL;
    struct tally t = {0};
    json_t *deleted = json_array();
    json_t *skipped = json_array();
    size_t n = 0;

    if (store_plan_items(r->g->c.store, r->action, &items, &n, NULL) < 0)
        n = 0;
    for (size_t i = 0; i < n; i++) {
        const struct store_plan_item *x = &items[i];

        if (str_equal(x->outcome, "deleted")) {
            t.checkpoints += x->whole;
            t.snapshots += x->has_snapshot;
            json_array_append_new(deleted, json_pack("{s:s, s:s, s:s, s:o*}", "name", x->name, "id", x->uid, "what",
                                                     x->whole ? "checkpoint" : "snapshot", "requests", asked_for(x)));
        } else if (str_equal(x->outcome, "skipped")) {
            t.skipped++;
            json_array_append_new(skipped, json_pack("{s:s, s:s, s:s, s:o*}", "name", x->name, "id", x->uid, "why",
                                                     x->message ? x->message : "", "requests", asked_for(x)));
        }
    }
    json_object_set_new(r->data, "deleted", deleted);
    json_object_set_new(r->data, "skipped", skipped);
    store_plan_items_free(items, n);
    return t;
}

/* `.control/result` says where it is, before Neon is asked. */
static int progress(struct run *r, const struct store_plan_item *x, size_t total, struct err *e)
{
    cleanup_free char *message = str_format("deleting %d/%zu: %s", x->n, total, x->name);
    cleanup_free char *doc = NULL;
    cleanup_free char *data = NULL;
    int tries = 0;
    int rc;

    journal_at(r, "items");
    doc = journal_doc(r, "running", 0, message);
    data = json_dumps(r->data, JSON_COMPACT);
    if (!message || !doc || !data)
        return err_set(e, ENOMEM, "out of memory");
    do {
        rc = store_prune_doc(r->g->c.store, r->action, "item", data, doc, e);
    } while (rc < 0 && journal_again(r, rc, e, &tries));
    return rc;
}

/* The run is that checkpoint's business while its item is: NAME/wait waits for it. */
static void works_on(struct run *r, int64_t checkpoint)
{
    pthread_mutex_lock(&r->g->lock);
    r->checkpoint = checkpoint;
    pthread_mutex_unlock(&r->g->lock);
}

/* What a failure to reach Neon is: one that ends by itself, so that the rest is worth waiting for. */
static bool unreachable(int rc)
{
    return rc == -ECONNREFUSED || rc == -EHOSTUNREACH || rc == -ECONNRESET || rc == -ETIMEDOUT || rc == -EAGAIN;
}

/* The snapshot is gone from Neon. -EAGAIN: wait for Neon; -ECANCELED: the mount leaves. */
static int delete_snapshot(struct run *r, const struct store_plan_item *x, struct err *e)
{
    struct neon_call call = run_call(r);
    int rc;

    if (!x->snapshot_id)
        return 0;
    rc = snapshot_delete_unshared(r->g, &call, x->checkpoint, x->snapshot_id, e);
    if (rc < 0 && run_leaves(r))
        return -ECANCELED;
    return unreachable(rc) ? -EAGAIN : rc;
}

static int settle(struct run *r, const struct store_plan_item *x, const char *skipped, struct err *e)
{
    cleanup_json json_t *asked = journal_take_requests(r);
    cleanup_free char *requests = asked ? json_dumps(asked, JSON_COMPACT) : NULL;
    int tries = 0;
    int rc;

    do {
        rc = skipped ? store_prune_skip(r->g->c.store, r->action, x->n, skipped, requests, e)
                     : store_prune_done(r->g->c.store, r->action, x->n, requests, e);
    } while (rc < 0 && journal_again(r, rc, e, &tries));
    if (rc < 0)
        return rc;
    works_on(r, 0);
    return engine_refresh(r->g, x->checkpoint, r->action) == -ENOMEM ? -ENOMEM : 0;
}

/* One that was claimed. `first`: nothing was done for this plan, so that with Neon away the plan can be given back. */
static int one(struct run *r, const struct store_plan_item *x, size_t total, bool first, struct err *e)
{
    cleanup_err struct err why = {0};
    int rc = progress(r, x, total, e);

    if (rc < 0)
        return rc;
    works_on(r, x->checkpoint);
    engine_refresh(r->g, x->checkpoint, r->action);
    while ((rc = delete_snapshot(r, x, &why)) == -EAGAIN) {
        if (first && !r->recovered && !r->doubtful && (why.code == ECONNREFUSED || why.code == EHOSTUNREACH)) {
            store_prune_release(r->g->c.store, r->action, NULL);
            engine_refresh(r->g, x->checkpoint, r->action);
            works_on(r, 0);
            return err_move(e, &why);
        }
        if (!neon_wait_for(r, &why))
            return -ECANCELED;
    }
    if (rc == -ECANCELED)
        return rc;
    return settle(r, x, rc < 0 ? err_text(&why) : NULL, e);
}

/* All that is left, each under the project's turn; `turn` false: whoever runs this has it. */
static int apply(struct run *r, bool turn, struct err *e)
{
    bool first = true;
    int rc = 1;

    while (rc > 0) {
        struct store_plan_item x = {0};
        size_t total = 0;
        int tries = 0;

        rc = turn ? journal_turn(r, e) : 0;
        if (rc == 0) {
            do {
                rc = store_prune_next(r->g->c.store, r->action, &x, &total, e);
            } while (rc < 0 && journal_again(r, rc, e, &tries));
        }
        if (rc == 1) {
            int done = one(r, &x, total, first, e);

            rc = done < 0 ? done : 1;
            first = false;
        }
        store_plan_item_clear(&x);
        if (turn && !run_leaves(r))
            journal_turn_release(r);
    }
    return rc;
}

static void finish(struct run *r, int rc, const struct err *why)
{
    struct tally t = tally(r);
    cleanup_free char *message = NULL;

    if (rc < 0)
        message = str_format("%s%s", err_text(why), t.checkpoints + t.snapshots ? "; what was deleted before stays deleted" : "");
    else
        message = str_format("deleted: %zu checkpoint%s, %zu snapshot%s; skipped: %zu", t.checkpoints, t.checkpoints == 1 ? "" : "s",
                             t.snapshots, t.snapshots == 1 ? "" : "s", t.skipped);
    journal_settle(r, rc < 0 ? ACTION_FAILED : ACTION_DONE, rc < 0 ? -rc : 0, message, NULL, false);
}

int prune_apply(struct engine *g, const struct store_begin *b, const char *plan, struct run **ret, struct err *e)
{
    struct store_action a = {0};
    int r = LEASED(g, store_prune_begin(g->c.store, b, plan, NULL, true, &a, e));

    if (r == 0)
        r = begun(g, &a, ret, e);
    if (r < 0)
        return r;
    data_set(*ret, "plan", plan);
    run_start(*ret, prune_body);
    return 0;
}

/* ---- a replaced branch ------------------------------------------------------------------------------------------------------- */

int prune_branch(struct engine *g, const struct store_begin *b, const char *branch, struct run **ret, struct err *e)
{
    struct store_action a = {0};
    int r = LEASED(g, store_prune_begin(g->c.store, b, NULL, branch, true, &a, e));

    if (r == 0)
        r = begun(g, &a, ret, e);
    if (r == 0)
        run_start(*ret, prune_body);
    return r;
}

static int branch_gone(struct run *r, struct err *e)
{
    struct neon_call call = run_call(r);
    int tries = 0;
    int rc;

    if (run_at(r, STORE_STEP_GONE)) /* recorded before its mount was killed */
        return 0;
    rc = journal_turn(r, e);
    if (rc == 0 && data_set(r, "branch_before", data_get(r, "branch")) < 0)
        rc = err_set(e, ENOMEM, "out of memory");
    if (rc == 0)
        rc = journal_step(r, "delete", NULL, e);
    if (rc == 0)
        rc = branch_delete_surely(r->g, &call, data_get(r, "branch"), e);
    if (rc == -ECONNREFUSED || rc == -EHOSTUNREACH)
        rc = r->recovered || r->doubtful ? -EAGAIN : rc; /* it may have been asked for before */
    if (rc < 0)
        return rc;
    do {
        rc = store_branch_gone(r->g->c.store, r->action, data_get(r, "branch"), e);
    } while (rc < 0 && journal_again(r, rc, e, &tries));
    return rc;
}

static void branch_body(struct run *r)
{
    cleanup_err struct err e = {0};
    int rc;

    do {
        rc = branch_gone(r, &e);
    } while (rc == -EAGAIN && neon_wait_for(r, &e));
    if (rc < 0 && run_leaves(r))
        return;
    replaced_refresh(r->g);
    journal_settle(r, rc < 0 ? ACTION_FAILED : ACTION_DONE, rc < 0 ? e.code : 0, rc < 0 ? err_text(&e) : NULL, NULL, false);
}

/* ---- the body of each ---------------------------------------------------------------------------------------------------------- */

/* A mount died between a plan's beginning and its being stored: nothing is lost but a reading. */
static void unplanned(struct run *r)
{
    journal_settle(r, ACTION_FAILED, EINTR, "the mount died before the plan was made; write the rules again", NULL, false);
}

void prune_body(struct run *r)
{
    cleanup_err struct err e = {0};
    int rc;

    if (data_get(r, "branch")) {
        branch_body(r);
        return;
    }
    rc = apply(r, true, &e);
    if (rc < 0 && run_leaves(r))
        return;
    if (rc == -ENOENT)
        unplanned(r);
    else
        finish(r, rc, &e);
}

/* ---- the policy of [retention] --------------------------------------------------------------------------------------------------- */

/* Whoever the mount itself is. */
static struct store_who itself(const struct engine *g)
{
    return (struct store_who){.uid = getuid(), .gid = getgid(), .pid = getpid(), .command = "checkpointfs", .host = g->host};
}

static bool apply_policy(struct engine *g, const struct planning *p, struct err *e)
{
    cleanup_free char *command = str_format("retention: %s", p->rules);
    struct store_who me = itself(g);
    struct store_begin b = {.kind = ACTION_PRUNE, .line_id = g->line_id, .command = command,
                            .who = &me};
    struct store_action a = {0};
    struct run *r = NULL;
    bool made = false;
    int rc = LEASED(g, store_prune_begin(g->c.store, &b, NULL, NULL, false, &a, e));

    if (rc == 0)
        rc = begun(g, &a, &r, e);
    if (rc < 0)
        return false;
    rc = store_plan_put(g->c.store, r->action, p->uid, p->rules, true, p->goes, p->n_goes, e);
    if (rc == 0)
        rc = data_set(r, "plan", p->uid) < 0 || data_set(r, "rules", p->rules) < 0 ? -ENOMEM : apply(r, false, e);
    if (rc == 0 || !run_leaves(r)) {
        made = tally(r).snapshots > 0;
        finish(r, rc, e);
    } else {
        run_end(r, EINTR, "the mount is being unmounted; the action goes on with the next mount");
    }
    run_unref(r);
    return made;
}

bool retention_makes_room(struct run *take)
{
    struct engine *g = take->g;
    struct neon_call call = engine_call(g);
    cleanup_planning struct planning p = {0};
    cleanup_err struct err e = {0};
    bool made = false;

    upkeep_full(g, &call);
    if (!g->c.retention)
        return false;
    if (planning_make(g, g->c.retention, true, &p, &e) < 0)
        log_warn("the policy in [retention] can't be applied: %s", err_text(&e));
    else if (!p.snapshots)
        log_warn("the plan's limit of snapshots is reached, and the policy in [retention] (%s) keeps every one", p.rules);
    else
        made = apply_policy(g, &p, &e);
    return made;
}
