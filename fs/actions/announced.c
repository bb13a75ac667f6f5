/* What an action announced to make in Neon under a unique name: found by that name, after a lost answer or a killed mount, and taken
 * away again when it is of no use. Neon has no idempotency key; the name stands in for one (design.md §7.5). */
#include <errno.h>
#include <stdlib.h>

#include "actions_i.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/log.h"
#include "util/text.h"

/* Neon shows new things late (neon-api.md §1.3): so often, so far apart, something is looked for before it counts as not made. */
#define LOOK_TIMES 6
#define LOOK_MS 400
/* How much longer for something that Neon has said to have made. */
#define MADE_TIMES 20

#define LABEL_MAX 60

/* How long Neon is left alone after an action couldn't go on for it. */
#define TROUBLE_MS 500

char *announced_name(const struct run *r, const char *prefix, const char *checkpoint_name)
{
    cleanup_free char *label = ascii_label(checkpoint_name, LABEL_MAX);

    return label ? str_format("%s%s-%s", prefix, label, r->uid) : NULL;
}

int neon_later(int r)
{
    return r < 0 && (store_away(-r) || r == -EPROTO || r == -EACCES) ? -EAGAIN : r;
}

bool neon_wait_for(struct run *r, const struct err *e)
{
    if (!r->waits_for_neon)
        log_warn("action %s goes on when Neon can be asked again: %s", r->uid, err_text(e));
    r->waits_for_neon = true;
    r->doubtful = true;
    clock_sleep_ms(TROUBLE_MS);
    return !run_leaves(r);
}

int operations_settle(struct run *r, const struct neon_call *call, struct err *e)
{
    json_t *list = json_object_get(r->data, "operations");
    size_t n = json_array_size(list);
    cleanup_free const char **ids = calloc(n + 1, sizeof(*ids));
    int rc = -ENOENT;

    if (!ids)
        return err_set(e, ENOMEM, "out of memory");
    for (size_t i = 0; i < n; i++)
        ids[i] = json_string_value(json_array_get(list, i));
    if (n)
        rc = neon_settle(r->g->c.neon, call, ids, n, NULL, NULL, e);
    if (rc == -ENOENT) /* their ids were lost with an answer, or Neon has forgotten them */
        rc = neon_settle_project(r->g->c.neon, call, e);
    return rc;
}

/* ---- looking ------------------------------------------------------------------------------------------------------------ */

static bool pause_is_over(const struct neon_call *call, int64_t ms)
{
    clock_sleep_ms(ms);
    return call->cancelled && atomic_load(call->cancelled);
}

int announced_snapshot(struct engine *g, const struct neon_call *call, const char *name, bool made, struct neon_snapshot *ret,
                       struct err *e)
{
    int r = made ? 0 : neon_settle_project(g->c.neon, call, e);

    for (int i = 0; r == 0 && i < (made ? MADE_TIMES : LOOK_TIMES); i++) {
        r = neon_snapshot_find(g->c.neon, call, name, ret, e);
        if (r != -ENOENT)
            return neon_said(g, r, e);
        r = pause_is_over(call, LOOK_MS) ? err_set(e, ECANCELED, "cancelled") : 0;
    }
    return r < 0 ? r : err_set(e, ENOENT, "Neon has no snapshot called %s", name);
}

int announced_branch(struct engine *g, const struct neon_call *call, const char *name, struct neon_branch *ret, struct err *e)
{
    int r = neon_settle_project(g->c.neon, call, e);

    for (int i = 0; r == 0 && i < LOOK_TIMES; i++) {
        r = neon_branch_find(g->c.neon, call, name, ret, e);
        if (r != -ENOENT)
            return neon_said(g, r, e);
        r = pause_is_over(call, LOOK_MS) ? err_set(e, ECANCELED, "cancelled") : 0;
    }
    return r < 0 ? r : err_set(e, ENOENT, "Neon has no branch called %s", name);
}

int made_branch(struct engine *g, const struct neon_call *call, const char *id, struct neon_branch *ret, struct err *e)
{
    int r = -ENOENT;

    for (int i = 0; i < MADE_TIMES; i++) {
        r = neon_branch_get(g->c.neon, call, id, ret, e);
        if (r != -ENOENT || pause_is_over(call, LOOK_MS))
            break;
    }
    return neon_said(g, r, e);
}

int made_endpoints(struct engine *g, const struct neon_call *call, const char *branch, struct neon_endpoints *ret, struct err *e)
{
    int r = -ENOENT;

    for (int i = 0; i < MADE_TIMES; i++) {
        r = neon_endpoints_list(g->c.neon, call, branch, ret, e);
        if (r != -ENOENT || pause_is_over(call, LOOK_MS))
            break;
    }
    return neon_said(g, r, e);
}

/* ---- taking away ------------------------------------------------------------------------------------------------------ */

/* Deletes one object with `call_delete`, again after an answer that was lost; gone already is fine. -EAGAIN: it may be gone or not. */
static int delete_surely(struct engine *g, const struct neon_call *call, const char *id,
                         int (*call_delete)(struct neon *, const struct neon_call *, const char *, struct neon_operations *, bool *,
                                            struct err *),
                         struct err *e)
{
    struct neon_operations ops = {0};
    bool unknown = true;
    int r = 0;

    for (int attempt = 0; unknown && attempt < 3; attempt++) {
        if (attempt > 0 && (r = neon_later(neon_settle_project(g->c.neon, call, e))) < 0)
            break;
        r = neon_said(g, call_delete(g->c.neon, call, id, &ops, &unknown, e), e);
    }
    if (r == -ENOENT) {
        err_clear(e);
        r = 0;
    } else if (r == 0) {
        r = neon_settle_operations(g->c.neon, call, &ops, NULL, NULL, e);
    }
    neon_operations_free(&ops);
    return r;
}

int snapshot_delete_surely(struct engine *g, const struct neon_call *call, const char *id, struct err *e)
{
    return delete_surely(g, call, id, neon_snapshot_delete, e);
}

int branch_delete_surely(struct engine *g, const struct neon_call *call, const char *id, struct err *e)
{
    return delete_surely(g, call, id, neon_branch_delete, e);
}

int discard_snapshots(struct engine *g, const struct neon_call *call, const char *name, const char *keep, struct err *e)
{
    struct neon_snapshots all = {0};
    int r = neon_said(g, neon_snapshots_list(g->c.neon, call, &all, e), e);

    for (size_t i = 0; r == 0 && i < all.n; i++) {
        if (!str_equal(all.items[i].name, name) || str_equal(all.items[i].id, keep))
            continue;
        if (keep)
            log_warn("Neon made snapshot %s twice; %s is deleted", name, all.items[i].id);
        r = snapshot_delete_surely(g, call, all.items[i].id, e);
    }
    neon_snapshots_free(&all);
    return r;
}

int discard_branches(struct engine *g, const struct neon_call *call, const char *name, const char *keep, struct err *e)
{
    struct neon_branches all = {0};
    int r = neon_said(g, neon_branches_list(g->c.neon, call, &all, e), e);

    for (size_t i = 0; r == 0 && i < all.n; i++) {
        const struct neon_branch *b = &all.items[i];

        /* Only what was restored and never swapped in: a finalized one is somebody's database. */
        if (!str_equal(b->name, name) || str_equal(b->id, keep) || b->is_default || !str_equal(b->restore_status, "restored"))
            continue;
        if (keep)
            log_warn("Neon made branch %s twice; %s is deleted", name, b->id);
        r = delete_surely(g, call, b->id, neon_branch_delete, e);
    }
    neon_branches_free(&all);
    return r;
}
