/* Who may do what (design.md §7.10): the mount's role, an agent's process, the group of operators. The modes are the kernel's business. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "agents/ancestry.h"
#include "mount_i.h"

/* Whether the process that asks belongs to the group. Who can't be looked up (it is gone, or in another namespace) has only the group it
 * came with. */
static bool is_member(fuse_req_t req, gid_t group)
{
    gid_t few[64];
    gid_t *all = few;
    bool member = fuse_req_ctx(req)->gid == group;
    int n = member ? 0 : fuse_req_getgroups(req, sizeof(few) / sizeof(*few), few);

    if (n > (int)(sizeof(few) / sizeof(*few))) {
        int room = n;

        all = calloc((size_t)room, sizeof(*all));
        n = all ? fuse_req_getgroups(req, room, all) : 0;
        n = n < room ? n : room;
    }
    for (int i = 0; i < n && !member; i++)
        member = all[i] == group;
    if (all != few)
        free(all);
    return member;
}

/* What only operators may. */
static int check_operator(struct mount *m, fuse_req_t req, const char **why)
{
    const struct fuse_ctx *ctx = fuse_req_ctx(req);

    if (agent_is_below(ctx->pid)) {
        *why = "a process of a resumed agent may take checkpoints, but it can't decide";
        return EPERM;
    }
    if (m->c.has_operators && ctx->uid != getuid() && !is_member(req, m->c.operators)) {
        *why = "only members of the mount's operators (-o operators=GROUP), and who mounted it, may do this";
        return EACCES;
    }
    return 0;
}

int access_check(struct mount *m, fuse_req_t req, enum role needed, const char **ret_why)
{
    static const char *const less[] = {
        [ROLE_OPERATOR] = "",
        [ROLE_AGENT] = "this mount is an agent's (-o role=agent): checkpoints are taken through it, and nothing is decided",
        [ROLE_VIEWER] = "this mount is a viewer's (-o role=viewer): it is only read",
    };

    const char *why = less[m->c.role];
    int code = EPERM;

    if (role_may(m->c.role, needed))
        code = needed == ROLE_OPERATOR ? check_operator(m, req, &why) : 0;
    if (code && ret_why)
        *ret_why = why;
    return code;
}

bool access_refused(fuse_req_t req, enum role needed)
{
    struct mount *m = fuse_req_userdata(req);

    if (role_may(m->c.role, needed))
        return false;
    fuse_reply_err(req, EPERM);
    return true;
}
