/* A copy is not a take (design.md §4): which files a take accepts, and what gives away that a backup is being copied straight in. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "agents/caller.h"
#include "mount_i.h"
#include "util/clock.h"
#include "util/log.h"
#include "util/text.h"

/* How long after its seal a checkpoint can still turn out to be part of a copy: whoever copies goes on at once. */
#define AFTER_SEAL_MS 30000

/* ---- names ---------------------------------------------------------------------------------------------------------- */

bool copies_temporary_of(const char *name, const char *file)
{
    const char *at = strstr(name, file);

    return at && strcmp(name, file) != 0;
}

bool copies_temporary_name(const char *name)
{
    size_t n = strlen(name);

    if (copies_temporary_of(name, "state.json") || copies_temporary_of(name, "meta.json"))
        return true;
    if (tree_names_own_file(name)) /* a temporary of one of them is a backup being copied in: traps.md 12 */
        return false;
    return name[0] == '.' || name[n - 1] == '~' || strspn(name, "0123456789") == n || str_starts(name, "tmp") || str_starts(name, "sed") ||
           (n > 4 && (strcmp(name + n - 4, ".tmp") == 0 || strcmp(name + n - 4, ".swp") == 0)) ||
           (n > 5 && strcmp(name + n - 5, ".part") == 0);
}

/* ---- who it is ------------------------------------------------------------------------------------------------------ */

struct asker {
    pid_t process, parent;
    bool forked;  /* from the parent, by the same program */
    bool unlinks;
};

/* rsync makes the directory in one process and the files in a fork of it. tar unlinks in the process that made it. */
static bool took(const struct index_entry *e, const struct asker *a)
{
    if (!e->taken_by)
        return false;
    return a->process == e->taken_by || (!a->unlinks && a->parent == e->taken_by && a->forked);
}

/* A script makes the directory with mkdir and the files with cp. */
static bool same_group(const struct index_entry *e, const struct asker *a)
{
    return e->taken_by && e->taken_group > 0 && a->process > 0 && getpgid(a->process) == e->taken_group;
}

/* Only what the same process has just made can be the work of a copy: nobody's `rm -r`, `rsync` or mistake destroys a checkpoint that is
 * anybody's. tar unlinks what is in its way without having read the directory; whoever removes a tree reads it first. */
static bool gives_itself_away(const struct index_entry *e, const struct asker *a)
{
    const struct store_checkpoint *c = &e->c;

    if (a->unlinks && e->listed)
        return false;
    switch (c->phase) {
    case PHASE_TAKING: /* nothing is there yet that could be lost */
        return took(e, a) || (!a->unlinks && same_group(e, a));
    case PHASE_SAVED:
        return !c->closed && !c->offline_by && !c->activity && (took(e, a) || (e->sealing && a->process == e->sealed_by));
    case PHASE_SEALED:
        return a->process == e->sealed_by && clock_mono_ms() - e->sealed_ms < AFTER_SEAL_MS && c->attempt_open && !c->activity &&
               !c->offline_by;
    case PHASE_FAILED:
        break;
    }
    return false;
}

static void is_copy(struct call *c)
{
    struct who who;

    who_read(c->from.pid, c->from.uid, &who);
    if (engine_take_is_copy(c->m->engine, node_row(c->node), &who, &c->e) < 0)
        log_warn("a copy in the making isn't recorded: %s", err_text(&c->e));
    who_clear(&who);
    call_reply_err(c, EPERM);
}

static void refuse(struct call *c, bool unlinks)
{
    struct asker a = {.unlinks = unlinks};
    struct index_entry *e;
    bool away = false;

    caller_ids(c->from.pid, &a.process, &a.parent);
    a.forked = caller_same_command(a.process, a.parent);
    index_write_lock(c->m->c.index);
    e = index_by_id(c->m->c.index, node_row(c->node));
    if (e) {
        away = gives_itself_away(e, &a);
        if (!unlinks && e->c.phase != PHASE_SEALED)
            e->copier = a.process;
    }
    index_unlock(c->m->c.index);
    if (away)
        jobs_add(c->m->dirs, c, is_copy);
    else
        call_reply_err(c, EPERM);
}

void copies_refuse(struct call *c) { refuse(c, false); }
void copies_refuse_unlink(struct call *c) { refuse(c, true); }

void copies_listed(struct mount *m, node_id dir, pid_t pid)
{
    struct index_entry *e;
    pid_t process, parent;
    bool watched;

    if (node_class(dir) != CLASS_CHECKPOINT)
        return;
    index_read_lock(m->c.index);
    e = index_by_id(m->c.index, node_row(dir));
    watched = e && !e->listed && (e->taken_by || e->sealed_by);
    index_unlock(m->c.index);
    if (!watched)
        return;
    caller_ids(pid, &process, &parent);
    index_write_lock(m->c.index);
    e = index_by_id(m->c.index, node_row(dir));
    if (e && (process == e->taken_by || process == e->sealed_by))
        e->listed = true;
    index_unlock(m->c.index);
}

int copies_may_write(struct mount *m, int64_t checkpoint, pid_t pid)
{
    struct index_entry *e;
    pid_t process, parent;
    bool copies;

    caller_ids(pid, &process, &parent);
    index_read_lock(m->c.index);
    e = index_by_id(m->c.index, checkpoint);
    copies = e && (e->copier == process || (e->c.phase == PHASE_FAILED && str_equal(e->c.note, TAKE_IS_COPY)));
    index_unlock(m->c.index);
    return copies ? -EPERM : 0;
}
