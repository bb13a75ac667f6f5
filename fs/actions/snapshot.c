/* A snapshot that an action announced: asked for under its unique name, looked for by it after a lost answer, awaited. */
#include <errno.h>

#include "actions_i.h"
#include "util/cleanup.h"

#define ASK_TIMES 3

int snapshot_look(struct run *r, const struct neon_call *call, struct neon_snapshot *ret, struct err *e)
{
    return neon_later(announced_snapshot(r->g, call, data_get(r, "snapshot_name"), false, ret, e));
}

int snapshot_ask(struct run *r, const struct neon_call *call, const char *branch, bool look_first, struct neon_snapshot *ret,
                 struct neon_operations *ret_ops, struct err *e)
{
    bool unknown = r->doubtful || look_first;
    int rc = -EEXIST;

    for (int attempt = 0; attempt <= ASK_TIMES; attempt++) {
        if (unknown || attempt > 0) {
            cleanup_err struct err why = {0};
            int found = snapshot_look(r, call, ret, &why);

            r->doubtful = true;
            if (found < 0 && found != -ENOENT)
                err_move(e, &why);
            if (found != -ENOENT)
                return found;
            if (attempt == ASK_TIMES)
                break;
        }
        rc = neon_snapshot_create(r->g->c.neon, call, branch, data_get(r, "snapshot_name"), 0, ret, ret_ops, &unknown, e);
        neon_said(r->g, rc, e);
        if (rc == 0 || (rc != -EEXIST && !unknown))
            break;
    }
    return rc;
}

/* It is read again after its operations, since the LSN and the times come with settling. */
int snapshot_settle(struct run *r, const struct neon_call *call, struct neon_snapshot *ret, struct err *e)
{
    const char *name = data_get(r, "snapshot_name");
    struct neon_snapshot snap = {0};
    int rc = operations_settle(r, call, e);

    if (rc == -EIO) /* what the operation failed with, in Neon's words */
        return rc;
    if (rc == 0)
        rc = announced_snapshot(r->g, call, name, true, &snap, e);
    if (rc == 0 && (r->doubtful || r->recovered))
        rc = discard_snapshots(r->g, call, name, snap.id, e);
    rc = neon_later(rc);
    if (rc == 0)
        *ret = snap;
    else
        neon_snapshot_free(&snap);
    return rc;
}
