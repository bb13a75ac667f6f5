/* What the plan's limits leave: how many branches and snapshots there may be, how many there are, and what could go. */
#include <errno.h>
#include <stdlib.h>

#include "actions_i.h"
#include "util/cleanup.h"
#include "util/offer.h"
#include "util/text.h"

static int look_branches(struct engine *g, const struct neon_call *call, struct room *room, struct err *e)
{
    struct neon_branches all = {0};
    int r = neon_said(g, neon_branches_list(g->c.neon, call, &all, e), e);

    for (size_t i = 0; r == 0 && i < all.n; i++)
        room->root_branches += !all.items[i].parent_id;
    room->branches = (int64_t)all.n;
    neon_branches_free(&all);
    return r;
}

static int look_snapshots(struct engine *g, const struct neon_call *call, struct room *room, struct err *e)
{
    struct neon_snapshots all = {0};
    int r = neon_said(g, neon_snapshots_list(g->c.neon, call, &all, e), e);

    for (size_t i = 0; r == 0 && i < all.n; i++)
        room->snapshots += all.items[i].manual;
    neon_snapshots_free(&all);
    return r;
}

int room_look(struct engine *g, const struct neon_call *call, struct room *ret, struct err *e)
{
    struct room room = {.max = {-1, -1, -1}};
    cleanup_err struct err why = {0};
    int r = look_branches(g, call, &room, e);

    if (r == 0)
        r = look_snapshots(g, call, &room, e);
    if (r == 0)
        neon_limits_get(g->c.neon, call, &room.max, &why); /* not documented: without an answer nothing is known, and Neon decides */
    if (r == 0)
        *ret = room;
    return r;
}

/* ---- what could go ------------------------------------------------------------------------------------------------------- */

static bool there(const struct neon_branches *all, const char *id)
{
    const struct neon_branch *b = neon_branches_by_id(all, id);

    return b && !b->is_default && !b->is_protected;
}

/* The oldest replaced branch that Neon still has; owned by the caller, NULL when there is none. */
static char *replaced_branch(struct engine *g, const struct neon_call *call, const char *keep)
{
    struct neon_branches all = {0};
    cleanup_err struct err ignored = {0};
    char **ids = NULL;
    char *found = NULL;

    if (neon_branches_list(g->c.neon, call, &all, &ignored) == 0 && store_replaced_ids(g->c.store, g->line_id, &ids, &ignored) == 0) {
        for (char **p = ids; *p; p++) {
            if (!found && !str_equal(*p, keep) && there(&all, *p))
                found = str_dup(*p);
            free(*p);
        }
        free(ids);
    }
    neon_branches_free(&all);
    return found;
}

/* Where the checkpoint is that was taken first of those whose end frees a snapshot and that may be deleted; owned by the caller, NULL when
 * there is none. */
static char *oldest_checkpoint(struct engine *g)
{
    cleanup_err struct err ignored = {0};
    const struct store_fact *oldest = NULL;
    struct store_fact *all = NULL;
    size_t n = 0;
    char *path = NULL;

    if (store_facts(g->c.store, g->line_id, &all, &n, &ignored) < 0)
        return NULL;
    for (size_t i = 0; i < n; i++)
        if (all[i].has_snapshot && !all[i].pinned && !all[i].busy && !all[i].branched && (!oldest || all[i].seq < oldest->seq))
            oldest = &all[i];
    if (oldest)
        path = offer_path(oldest->name, oldest->uid);
    store_facts_free(all, n);
    return path;
}

void room_name_snapshot(struct engine *g, struct err *e)
{
    cleanup_free char *path = oldest_checkpoint(g);
    cleanup_free char *text = str_dup(err_text(e));
    cleanup_free char *how = offer_delete(path);

    if (how && text)
        err_set(e, EDQUOT, "%s; to free one: %s", text, how);
}

void room_name_branch(struct engine *g, const struct neon_call *call, const char *keep, struct err *e)
{
    cleanup_free char *id = replaced_branch(g, call, keep);
    cleanup_free char *text = str_dup(err_text(e));
    cleanup_free char *how = offer_delete(id);

    if (how && text)
        err_set(e, EDQUOT, "%s; to free one: delete %s, which a restore replaced (%s)", text, id, how);
}

int room_for(struct engine *g, const struct neon_call *call, int64_t branches, int64_t snapshots, const char *keep, struct err *e)
{
    struct room room = {0};
    int r = room_look(g, call, &room, e);

    if (r < 0)
        return r;
    if (room.max.root_branches >= 0 && room.root_branches + branches > room.max.root_branches)
        r = err_set(e, EDQUOT, "the plan allows %lld root branches and there are %lld; nothing was changed",
                    (long long)room.max.root_branches, (long long)room.root_branches);
    else if (room.max.branches >= 0 && room.branches + branches > room.max.branches)
        r = err_set(e, EDQUOT, "the plan allows %lld branches and there are %lld; nothing was changed", (long long)room.max.branches,
                    (long long)room.branches);
    if (r < 0) {
        room_name_branch(g, call, keep, e);
        return r;
    }
    if (room.max.snapshots >= 0 && room.snapshots + snapshots > room.max.snapshots) {
        r = err_set(e, EDQUOT, "the plan allows %lld snapshots and there are %lld; nothing was changed", (long long)room.max.snapshots,
                    (long long)room.snapshots);
        room_name_snapshot(g, e);
    }
    return r;
}
