/* An isolated branch (design.md §5): a snapshot restored beside the active branch, with a compute and a connection string of its own.
 *
 * A state machine of four steps, each announced in the journal before its effect:
 *   restore    a new root branch is asked for under `restored_name`, which Neon may later put in the place of `target_branch`
 *   restored   it is there (`new_branch`); its operations settle, and it is of the right snapshot
 *   compute    it gets a read-write endpoint where Neon gave it none
 *   connect    it can be connected to; then recorded
 * Nothing that exists changes. Taken over at any of them, it goes on by looking what Neon has. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "actions_i.h"
#include "database/probe.h"
#include "util/cleanup.h"
#include "util/log.h"
#include "util/offer.h"
#include "util/text.h"

#define ASK_TIMES 3
#define STEPS 5

static int step(struct run *r, const char *name, int nth, struct err *e)
{
    char activity[32];

    snprintf(activity, sizeof(activity), "restoring %d/%d", nth, STEPS);
    return journal_step(r, name, activity, e);
}

/* ---- what the index knows -------------------------------------------------------------------------------------------- */

int engine_branch_brief(struct engine *g, int64_t branch, struct branch_brief *ret)
{
    const struct store_branch *i = NULL;
    struct index_entry *e;

    index_read_lock(g->c.index);
    e = index_by_branch(g->c.index, branch, &i);
    if (e)
        *ret = (struct branch_brief){
            .checkpoint = e->c.id,
            .name = str_dup(i->name),
            .checkpoint_name = str_dup(e->c.name),
            .path = offer_branch_path(e->c.name, e->c.uid, i->name),
            .branch_id = str_dup(i->branch_id),
            .restored_for = str_dup(i->restored_for),
            .state = i->state,
        };
    index_unlock(g->c.index);
    return e ? 0 : -ENOENT;
}

void branch_brief_clear(struct branch_brief *b)
{
    free(b->name);
    free(b->checkpoint_name);
    free(b->path);
    free(b->branch_id);
    free(b->restored_for);
    *b = (struct branch_brief){0};
}

static char *known_uri(struct engine *g, int64_t branch)
{
    const char *line;
    char *uri;

    index_read_lock(g->c.index);
    line = index_branch_uri(g->c.index, branch);
    uri = line ? strndup(line, strcspn(line, "\n")) : NULL;
    index_unlock(g->c.index);
    return uri;
}

static int not_there(const struct store_branch *b, struct err *e)
{
    return err_set(e, ESTALE, "the isolated branch %s is %s", b->name,
                   b->state == ISOLATED_GONE ? "gone from Neon" : b->state == ISOLATED_PROMOTED ? "promoted" : "not there");
}

int branch_connection(struct engine *g, const struct neon_call *call, int64_t branch, char **ret_id, char **ret_uri, struct err *e)
{
    struct store_branch b = {0};
    cleanup_free char *uri = NULL;
    int r = store_branch(g->c.store, branch, &b, e);

    if (r == -ENOENT)
        r = err_set(e, ESTALE, "the isolated branch was deleted");
    if (r == 0 && b.state != ISOLATED_READY)
        r = not_there(&b, e);
    if (r == 0 && ret_uri && !(uri = known_uri(g, branch))) {
        r = uri_of(g, call, b.branch_id, &uri, e);
        if (r == 0)
            index_set_branch_uri(g->c.index, branch, uri);
    }
    if (r == 0 && ret_id)
        *ret_id = steal_ptr(&b.branch_id);
    if (r == 0 && ret_uri)
        *ret_uri = steal_ptr(&uri);
    store_branch_free(&b);
    return r;
}

/* ---- 1: what is restored, by which name ------------------------------------------------------------------------------ */

static int announce(struct run *r, const struct neon_call *call, struct err *e)
{
    cleanup_free char *target = NULL;
    cleanup_free char *restored = NULL;
    struct brief b = {0};
    int rc = active_check(r->g, call, &target, NULL, e);

    if (rc == 0)
        rc = room_for(r->g, call, 1, 0, NULL, e);
    if (rc < 0)
        return rc;
    if (engine_brief(r->g, r->checkpoint, &b) < 0)
        return err_set(e, ENOENT, "the checkpoint is gone");
    restored = announced_name(r, "", b.name);
    if (!restored || data_set(r, "snapshot_id", b.snapshot_id) < 0 || data_set(r, "target_branch", target) < 0 ||
        data_set(r, "restored_name", restored) < 0)
        rc = err_set(e, ENOMEM, "out of memory");
    brief_clear(&b);
    return rc < 0 ? rc : step(r, "restore", 2, e);
}

/* ---- 2: the branch is there ------------------------------------------------------------------------------------------ */

static int settle(struct run *r, const struct neon_call *call, struct err *e)
{
    int rc = operations_settle(r, call, e);

    if (rc == -EIO)
        return rc;
    if (rc < 0)
        return neon_later(rc);
    rc = swap_right_snapshot(r, call, e);
    return rc < 0 ? rc : step(r, "compute", 4, e);
}

/* ---- 3: its compute -------------------------------------------------------------------------------------------------- */

/* Its read-write endpoint, NULL when it has none; owned by the caller. */
static int endpoint_there(struct run *r, const struct neon_call *call, char **ret, struct err *e)
{
    struct neon_endpoints eps = {0};
    const struct neon_endpoint *rw;
    int rc = made_endpoints(r->g, call, data_get(r, "new_branch"), &eps, e);

    if (rc == 0) {
        rw = neon_endpoints_read_write(&eps);
        *ret = rw ? str_dup(rw->id) : NULL;
    }
    neon_endpoints_free(&eps);
    if (rc == -ENOENT)
        return err_set(e, EIO, "branch %s, which Neon made, is gone", data_get(r, "new_branch"));
    return neon_later(rc);
}

/* A branch has one at most: a lost answer is looked for, and asking twice makes no second. */
static int compute(struct run *r, const struct neon_call *call, struct err *e)
{
    cleanup_free char *endpoint = NULL;
    int rc = endpoint_there(r, call, &endpoint, e);

    for (int attempt = 0; rc == 0 && !endpoint && attempt < ASK_TIMES; attempt++) {
        struct neon_endpoint made = {0};
        struct neon_operations ops = {0};
        bool unknown = false;

        rc = neon_endpoint_create(r->g->c.neon, call, data_get(r, "new_branch"), &made, &ops, &unknown, e);
        neon_said(r->g, rc, e);
        if (rc == 0) {
            endpoint = str_dup(made.id);
            rc = neon_later(neon_settle_operations(r->g->c.neon, call, &ops, NULL, NULL, e));
        } else if (unknown || rc == -EEXIST) {
            rc = neon_later(neon_settle_project(r->g->c.neon, call, e));
            if (rc == 0)
                rc = endpoint_there(r, call, &endpoint, e);
        }
        neon_endpoint_free(&made);
        neon_operations_free(&ops);
    }
    if (rc == 0 && !endpoint)
        rc = err_set(e, EIO, "branch %s got no endpoint", data_get(r, "new_branch"));
    if (rc == 0 && data_set(r, "endpoint_id", endpoint) < 0)
        rc = err_set(e, ENOMEM, "out of memory");
    return rc < 0 ? rc : step(r, "connect", 5, e);
}

/* ---- 4: its connection string ---------------------------------------------------------------------------------------- */

static int record(struct run *r, int64_t expires_at, const char *uri, struct err *e)
{
    struct store_branch_made m = {
        .branch_id = data_get(r, "new_branch"), .branch_name = data_get(r, "restored_name"), .endpoint_id = data_get(r, "endpoint_id"),
        .restored_for = data_get(r, "target_branch"), .expires_at = expires_at, .decisions = r->decisions,
    };
    int tries = 0;
    int rc;

    do {
        rc = store_branch_made(r->g->c.store, r->action, &m, e);
    } while (rc < 0 && journal_again(r, rc, e, &tries));
    if (rc == 0) {
        data_set(r, "branch_after", data_get(r, "new_branch"));
        index_set_branch_uri(r->g->c.index, r->isolated, uri);
        engine_refresh(r->g, r->checkpoint, 0);
    }
    return rc;
}

static int connect_to(struct run *r, const struct neon_call *call, struct err *e)
{
    struct neon_branch b = {0};
    cleanup_free char *uri = NULL;
    int rc = neon_later(uri_of(r->g, call, data_get(r, "new_branch"), &uri, e));

    if (rc == 0)
        rc = database_probe(uri, call->cancelled, call->deadline_mono_ms, e);
    if (rc == 0)
        rc = neon_later(made_branch(r->g, call, data_get(r, "new_branch"), &b, e));
    if (rc == 0 && (r->doubtful || r->recovered))
        rc = neon_later(discard_branches(r->g, call, data_get(r, "restored_name"), data_get(r, "new_branch"), e));
    if (rc == 0)
        rc = record(r, b.expires_at_ns, uri, e);
    neon_branch_free(&b);
    return rc;
}

/* ---- the machine ----------------------------------------------------------------------------------------------------- */

static int machine(struct run *r, struct err *e)
{
    struct neon_call call = run_call(r);
    int rc = 0;

    if (!run_at(r, "restore") && !run_at(r, "restored") && !run_at(r, "compute") && !run_at(r, "connect")) {
        if (atomic_load(&r->cancelled)) /* a replay; later its branch is finished */
            return err_set(e, ECANCELED, CANCELLED_UNDONE);
        rc = step(r, "check", 1, e);
        if (rc == 0)
            rc = announce(r, &call, e);
    }
    if (rc == 0 && run_at(r, "restore"))
        rc = swap_restore(r, &call, e);
    if (rc == 0 && run_at(r, "restored"))
        rc = settle(r, &call, e);
    if (rc == 0 && run_at(r, "compute"))
        rc = compute(r, &call, e);
    if (rc == 0 && run_at(r, "connect"))
        rc = connect_to(r, &call, e);
    return rc;
}

static char *offer_branch_delete(const struct store_checkpoint *c, const struct store_branch *i)
{
    cleanup_free char *path = offer_branch_path(c->name, c->uid, i->name);

    return offer_delete(path);
}

/* How to delete the isolated branch that was made first after the row `*id`, which is set to its; *ret_branch: Neon's id. NULL: there is
 * none. Both strings are owned by the caller. */
static char *next_branch(struct engine *g, int64_t *id, char **ret_branch)
{
    char *how = NULL;
    int64_t first = 0;

    index_read_lock(g->c.index);
    for (struct index_entry *e = index_from(g->c.index, 0); e; e = index_from(g->c.index, e->c.id + 1)) {
        for (size_t k = 0; k < e->c.n_branches; k++) {
            const struct store_branch *i = &e->c.branches[k];

            if (i->activity || (i->state != ISOLATED_READY && i->state != ISOLATED_PROMOTED) || i->id <= *id || (first && i->id > first))
                continue;
            first = i->id;
            free(how);
            free(*ret_branch);
            how = offer_branch_delete(&e->c, i);
            *ret_branch = str_dup(i->branch_id);
        }
    }
    index_unlock(g->c.index);
    *id = first;
    return how;
}

/* A limit of the plan: which isolated branch could go, and how. Of one that became the line's own, only the row would. */
static void name_oldest(struct run *r, struct err *why)
{
    cleanup_free char *text = str_dup(err_text(why));
    int64_t id = 0;

    if (!text || strstr(text, "to free one"))
        return;
    for (;;) {
        cleanup_free char *branch = NULL;
        cleanup_free char *how = next_branch(r->g, &id, &branch);
        cleanup_err struct err ignored = {0};
        struct store_line line = {0};

        if (!how)
            return;
        if (branch && store_line_find(r->g->c.store, r->g->c.project_id, branch, &line, &ignored) == -ENOENT) {
            err_set(why, EDQUOT, "%s; to free one: %s", text, how);
            return;
        }
        store_line_free(&line);
    }
}

void isolate_failed(struct run *r, struct err *e)
{
    cleanup_err struct err ignored = {0};
    int tries = 0;
    int rc;

    if (e->code == EDQUOT)
        name_oldest(r, e);
    swap_clean_up(r, e);
    do {
        rc = store_branch_failed(r->g->c.store, r->action, &ignored);
    } while (rc < 0 && journal_again(r, rc, &ignored, &tries));
}

int isolate_steps(struct run *r, struct err *e)
{
    int rc = journal_turn(r, e);

    if (rc == 0) {
        do {
            rc = machine(r, e);
        } while (rc == -EAGAIN && neon_wait_for(r, e));
    }
    if (rc < 0 && !run_leaves(r))
        isolate_failed(r, e);
    if (r->doubtful || r->recovered)
        watch_leftovers(r->g);
    if (rc == 0 || !run_leaves(r))
        journal_turn_release(r);
    return rc;
}

void isolate_body(struct run *r)
{
    cleanup_err struct err e = {0};

    swap_end(r, isolate_steps(r, &e), &e, "restore");
}

/* ---- mkdir and rmdir ------------------------------------------------------------------------------------------------- */

int engine_branch(struct engine *g, int64_t checkpoint, const char *name, const struct who *who, int64_t *ret_branch, struct err *e)
{
    cleanup_free char *command = str_format("branch %s", name);
    struct store_begin b = {
        .kind = ACTION_BRANCH, .line_id = g->line_id, .checkpoint = checkpoint,
        .command = command, .branch = name, .bounded = true, .who = &who->w,
    };
    cleanup_json json_t *begun = json_pack("{s:o*}", "steps", journal_requested()); /* mkdir is answered as soon as it is claimed */
    cleanup_free char *data = begun ? json_dumps(begun, JSON_COMPACT) : NULL;
    struct store_action a = {0};
    struct run *run;
    int r = atomic_load(&g->stopping) ? err_set(e, ESHUTDOWN, "the mount is being unmounted") : 0;

    b.data = data;
    if (r == 0 && !data)
        r = err_set(e, ENOMEM, "out of memory");
    if (r == 0)
        r = LEASED(g, store_action_begin(g->c.store, &b, &a, e));
    if (r < 0) {
        if (r != -EEXIST)
            engine_refused(g, checkpoint, 0, CONTROL_RESTORE, command, who, -r, err_text(e));
        return r;
    }
    *ret_branch = a.isolated;
    run = run_new(g, &a);
    store_action_free(&a);
    engine_refresh(g, checkpoint, 0);
    if (!run)
        return err_set(e, ENOMEM, "out of memory; the branch is made in a moment");
    run_start(run, isolate_body);
    run_unref(run);
    return 0;
}

int engine_branch_remove(struct engine *g, int64_t branch, const struct who *who, struct err *e)
{
    struct branch_brief b = {0};
    int r = store_branch_remove(g->c.store, branch, &who->w, e);

    if (engine_branch_brief(g, branch, &b) == 0)
        engine_refresh(g, b.checkpoint, 0);
    branch_brief_clear(&b);
    return r;
}

/* ---- what changes in Neon by itself ---------------------------------------------------------------------------------- */

struct looked {
    int64_t id, checkpoint, expires_at;
    char *branch_id;
    bool has_uri;
};

static void looked_free(struct looked *l, size_t n)
{
    for (size_t i = 0; l && i < n; i++)
        free(l[i].branch_id);
    free(l);
}

/* Whether it is there by the record. */
static bool is_ready(const struct store_branch *i)
{
    return i->state == ISOLATED_READY && i->branch_id;
}

/* Every isolated branch that is there by the record. */
static struct looked *ready_branches(struct engine *g, size_t *ret_n)
{
    struct looked *l = NULL;
    size_t n = 0;
    size_t all = 0;

    index_read_lock(g->c.index);
    for (struct index_entry *e = index_from(g->c.index, 0); e; e = index_from(g->c.index, e->c.id + 1))
        all += e->c.n_branches;
    l = calloc(all + 1, sizeof(*l));
    for (struct index_entry *e = index_from(g->c.index, 0); l && e; e = index_from(g->c.index, e->c.id + 1)) {
        for (size_t k = 0; k < e->c.n_branches; k++) {
            const struct store_branch *i = &e->c.branches[k];

            if (is_ready(i))
                l[n++] = (struct looked){i->id, e->c.id, i->expires_at, str_dup(i->branch_id), index_branch_uri(g->c.index, i->id) != NULL};
        }
    }
    index_unlock(g->c.index);
    *ret_n = n;
    return l;
}

bool branches_any(struct engine *g)
{
    bool any = false;

    index_read_lock(g->c.index);
    for (struct index_entry *e = index_from(g->c.index, 0); e && !any; e = index_from(g->c.index, e->c.id + 1))
        for (size_t k = 0; k < e->c.n_branches && !any; k++)
            any = is_ready(&e->c.branches[k]);
    index_unlock(g->c.index);
    return any;
}

void engine_branch_gone(struct engine *g, int64_t checkpoint, int64_t branch)
{
    int64_t id = 0;

    engine_refresh(g, checkpoint, 0);
    index_set_branch_uri(g->c.index, branch, NULL);
    for (;;) { /* what was taken on it went off line */
        struct index_entry *e;

        index_read_lock(g->c.index);
        for (e = index_from(g->c.index, id); e && e->c.isolated != branch; e = index_from(g->c.index, e->c.id + 1))
            ;
        id = e ? e->c.id : 0;
        index_unlock(g->c.index);
        if (!id)
            return;
        engine_refresh(g, id, 0);
        id++;
    }
}

static void ask_uri(struct engine *g, const struct neon_call *call, const struct looked *l)
{
    cleanup_err struct err e = {0};
    cleanup_free char *uri = NULL;

    if (!l->has_uri && uri_of(g, call, l->branch_id, &uri, &e) == 0)
        index_set_branch_uri(g->c.index, l->id, uri);
}

static void look_at(struct engine *g, const struct neon_call *call, const struct neon_branches *all, const struct looked *l)
{
    const struct neon_branch *b = neon_branches_by_id(all, l->branch_id);
    cleanup_err struct err e = {0};
    struct neon_branch still = {0};

    if (!b) { /* a list may be late; what is gone is gone by its id too */
        int r = neon_said(g, neon_branch_get(g->c.neon, call, l->branch_id, &still, &e), &e);

        neon_branch_free(&still);
        if (r != -ENOENT)
            return;
        err_clear(&e);
    }
    if (!b || b->expires_at_ns != l->expires_at) {
        if (store_branch_look(g->c.store, l->id, !b, b ? b->expires_at_ns : 0, &e) < 0)
            log_warn("branch %s can't be updated: %s", l->branch_id, err_text(&e));
        if (b)
            engine_refresh(g, l->checkpoint, 0);
        else
            engine_branch_gone(g, l->checkpoint, l->id);
    }
    if (b)
        ask_uri(g, call, l);
}

bool branches_lack_uri(struct engine *g, int64_t checkpoint)
{
    struct index_entry *e;
    bool lacks = false;

    index_read_lock(g->c.index);
    e = index_by_id(g->c.index, checkpoint);
    for (size_t i = 0; e && i < e->c.n_branches && !lacks; i++)
        lacks = e->c.branches[i].state == ISOLATED_READY && !index_branch_uri(g->c.index, e->c.branches[i].id);
    index_unlock(g->c.index);
    return lacks;
}

void branches_uris(struct engine *g, const struct neon_call *call)
{
    size_t n = 0;
    struct looked *l = ready_branches(g, &n);

    for (size_t i = 0; l && i < n; i++)
        ask_uri(g, call, &l[i]);
    looked_free(l, n);
}

void branches_look(struct engine *g, const struct neon_call *call)
{
    struct neon_branches all = {0};
    cleanup_err struct err e = {0};
    size_t n = 0;
    struct looked *l = ready_branches(g, &n); /* first: one that is made meanwhile isn't missed in the list */

    if (neon_said(g, neon_branches_list(g->c.neon, call, &all, &e), &e) == 0)
        for (size_t i = 0; l && i < n; i++)
            look_at(g, call, &all, &l[i]);
    neon_branches_free(&all);
    looked_free(l, n);
}
