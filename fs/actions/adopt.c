/* Adopt: somebody else made another branch the active one, in Neon's console; from now on the record says so too (design.md §5). It
 * changes nothing in Neon, and may begin again at any moment. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "actions_i.h"
#include "commands/command.h"
#include "util/cleanup.h"
#include "util/text.h"

/* What Neon says of the branch. */
struct candidate {
    char *snapshot; /* it was restored from; NULL = none */
    char *endpoint;
    bool is_default;
};

static int check_branch(struct run *r, const struct neon_branches *all, const char *id, struct candidate *ret, struct err *e)
{
    const struct neon_branch *b = neon_branches_by_id(all, id);
    const struct neon_branch *def = neon_branches_default(all);

    if (!b)
        return err_set(e, ENOENT, "project %s has no branch %s", r->g->c.project_id, id);
    if (b->parent_id)
        return err_set(e, EINVAL, "branch %s is a child of %s; snapshots can only be taken of root branches", id, b->parent_id);
    if (r->g->follows_default && b != def)
        return err_set(e, EINVAL,
                       "branch %s isn't the default branch of project %s, which this mount follows (that is %s): make it so in Neon's "
                       "console, or mount with NEON_BRANCH_ID", id, r->g->c.project_id, def ? def->id : "none");
    ret->snapshot = str_dup(b->restored_from);
    ret->is_default = b->is_default;
    return 0;
}

static int check(struct run *r, const struct neon_call *call, const char *id, struct candidate *ret, struct err *e)
{
    struct neon_branches all = {0};
    struct neon_endpoints eps = {0};
    const struct neon_endpoint *rw;
    int rc = neon_said(r->g, neon_branches_list(r->g->c.neon, call, &all, e), e);

    if (rc == 0)
        rc = check_branch(r, &all, id, ret, e);
    if (rc == 0)
        rc = neon_said(r->g, neon_endpoints_list(r->g->c.neon, call, id, &eps, e), e);
    if (rc == 0) {
        rw = neon_endpoints_read_write(&eps);
        ret->endpoint = rw ? str_dup(rw->id) : NULL;
        if (!ret->endpoint)
            rc = err_set(e, EINVAL, "branch %s has no read-write endpoint; make one in Neon", id);
    }
    neon_branches_free(&all);
    neon_endpoints_free(&eps);
    return rc;
}

static int record(struct run *r, const char *id, const struct candidate *c, int64_t *ret_checkpoint, struct err *e)
{
    struct store_line line = {0};
    cleanup_free char *before = NULL;
    bool active_there;
    int tries = 0;
    int rc;

    if ((rc = store_line_get(r->g->c.store, r->g->line_id, &line, e)) < 0)
        return rc;
    active_there = c->is_default || str_equal(line.endpoint_id, c->endpoint);
    store_line_free(&line);
    do {
        rc = store_adopt_done(r->g->c.store, r->action, id, c->endpoint, c->snapshot, active_there, ret_checkpoint, &before, e);
    } while (rc < 0 && journal_again(r, rc, e, &tries));
    return rc == 0 && data_set(r, "branch_before", before) < 0 ? err_set(e, ENOMEM, "out of memory") : rc;
}

static char *told(struct run *r, const char *id, int64_t checkpoint)
{
    struct brief b = {0};
    char *text;

    if (checkpoint < 0)
        return str_format("branch %s was active already", id);
    if (checkpoint == 0 || engine_brief(r->g, checkpoint, &b) < 0)
        return str_format("branch %s is the active one now. Which database it has nobody here knows: every checkpoint is off line until it "
                          "is restored", id);
    text = str_format("branch %s is the active one now: the database of %s", id, b.name);
    brief_clear(&b);
    return text;
}

static int adopt(struct run *r, const char *id, char **ret_message, struct err *e)
{
    struct neon_call call = run_call(r);
    struct candidate c = {0};
    cleanup_err struct err later = {0};
    int64_t checkpoint = -1;
    int rc = journal_turn(r, e);

    if (rc == 0)
        rc = check(r, &call, id, &c, e);
    if (rc == 0)
        rc = record(r, id, &c, &checkpoint, e);
    if (rc == 0) {
        data_set(r, "branch_after", id);
        active_set(r->g, id, c.endpoint);
        active_uri(r->g, &call, id, NULL, &later);
        engine_reload(r->g, NULL);
        *ret_message = told(r, id, checkpoint);
    }
    free(c.snapshot);
    free(c.endpoint);
    return rc;
}

void adopt_body(struct run *r)
{
    cleanup_command struct command cmd = {0};
    cleanup_err struct err e = {0};
    cleanup_free char *message = NULL;
    int rc = command_parse(CONTROL_ADOPT, r->command, strlen(r->command), &cmd, &e);

    if (rc == 0)
        rc = adopt(r, cmd.target, &message, &e);
    if (rc < 0 && run_leaves(r))
        return;
    journal_settle(r, rc < 0 ? ACTION_FAILED : ACTION_DONE, rc < 0 ? e.code : 0, rc < 0 ? err_text(&e) : message, NULL, false);
}
