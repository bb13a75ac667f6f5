/* A copy is not a take (design.md §4): which files a take accepts, and what gives away that a backup is being copied straight in. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agents/caller.h"
#include "mount_i.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/log.h"
#include "util/text.h"

/* How long after its seal a checkpoint can still turn out to be part of a copy: whoever copies goes on at once. */
#define AFTER_SEAL_MS 30000
/* How often refusals to processes that aren't known, and so can't be told apart, are put on record. */
#define UNKNOWN_TOLD_MS 10000

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
    return same_process(a->process, e->taken_by) || (!a->unlinks && same_process(a->parent, e->taken_by) && a->forked);
}

/* A script makes the directory with mkdir and the files with cp. */
static bool same_group(const struct index_entry *e, const struct asker *a)
{
    return e->taken_by && e->taken_group > 0 && a->process > 0 && getpgid(a->process) == e->taken_group;
}

/* A backup's name (tree_backup_file), asked for by the process that has just made what is here, is the work of a copy: nobody's `rm -r`,
 * `rsync` or mistake destroys a checkpoint that is anybody's. tar unlinks what is in its way without having read the directory; whoever
 * removes a tree reads it first. */
static bool gives_itself_away(const struct index_entry *e, const struct asker *a)
{
    const struct store_checkpoint *c = &e->c;

    if (a->unlinks && e->listed)
        return false;
    switch (c->phase) {
    case PHASE_TAKING:
        return took(e, a) || (!a->unlinks && same_group(e, a));
    case PHASE_SAVED:
        return !c->closed && !c->offline_by && !c->activity && (took(e, a) || (e->sealing && same_process(a->process, e->sealed_by)));
    case PHASE_SEALED:
        return same_process(a->process, e->sealed_by) && clock_mono_ms() - e->sealed_ms < AFTER_SEAL_MS && c->attempt_open &&
               !c->activity && !c->offline_by;
    case PHASE_FAILED:
        break;
    }
    return false;
}

static void is_copy(struct call *c)
{
    struct who who;

    who_read(c->m->engine, &c->from, &who);
    if (engine_take_is_copy(c->m->engine, node_row(c->node), tree_backup_file(c->name, false), &who, &c->e) < 0)
        log_warn("a copy in the making isn't recorded: %s", err_text(&c->e));
    who_clear(&who);
    call_reply_err(c, EPERM);
}

/* Of the state for whoever began to copy, and of a name that is neither a take's nor a backup's: the errno alone would tell nobody what is
 * wrong. A backup's names change nothing of what is there, not even `result`. */
static char *reason(const struct index_entry *e, const struct asker *a, const char *name)
{
    bool open = entry_takes_state(&e->c) && !e->c.activity && !e->c.offline_by;

    if (!open || a->unlinks)
        return NULL;
    if (strcmp(name, "state.json") == 0 && e->copied && same_process(a->process, e->copier))
        return str_format("%s was refused to the same process here before: state.json and meta.json are the files of a take, written by"
                          " another process or into a new directory; a backup goes through .import/", e->copied);
    if (tree_names_own_file(name) || copies_temporary_name(name) || strcmp(name, "state.json") == 0 || strcmp(name, "meta.json") == 0)
        return NULL;
    return str_dup("no file of a take: only state.json and meta.json can be written here");
}

/* Once for each process and reason: a mistaken `cp -r` of a whole tree, or a tool that tries for its lock file for ever, would fill the
 * audit log and hold the line's lock with what was said already, and push the last command's answer out of `result`. */
static bool told_before(struct index_entry *e, const struct asker *a, const char *name)
{
    pid_t *to = &e->refused_to[strcmp(name, "state.json") == 0];
    int64_t now = clock_mono_ms();

    if (same_process(a->process, *to))
        return true;
    if (a->process > 0) {
        *to = a->process;
        return false;
    }
    if (e->refused_ms && now - e->refused_ms < UNKNOWN_TOLD_MS)
        return true;
    e->refused_ms = now;
    return false;
}

static void tell(struct call *c)
{
    struct who who;

    who_read(c->m->engine, &c->from, &who);
    engine_take_refused(c->m->engine, node_row(c->node), c->name, &who, EPERM, err_text(&c->e));
    who_clear(&who);
    call_reply_err(c, EPERM);
}

/* What the name means here: whether it is a copy in the making, and else what `result` is to say (c->e). */
static bool judge(struct call *c, const struct asker *a, const char *name)
{
    cleanup_free char *why = NULL;
    const char *file = tree_backup_file(name, true);
    struct index_entry *e;
    bool away = false, tells;

    index_write_lock(c->m->c.index);
    e = index_by_id(c->m->c.index, node_row(c->node));
    if (e && (file || (e->c.phase == PHASE_TAKING && tree_backup_file(name, false)))) /* nothing is there yet that could be lost */
        away = gives_itself_away(e, a);
    if (e && file && !a->unlinks && e->c.phase != PHASE_SEALED) {
        e->copier = a->process;
        e->copied = file;
    }
    if (e && !away)
        why = reason(e, a, name);
    tells = why && !told_before(e, a, name);
    index_unlock(c->m->c.index);
    if (tells)
        err_set(&c->e, EPERM, "%s", why);
    return away;
}

static void refuse(struct call *c, const char *name, bool unlinks)
{
    struct asker a = {.unlinks = unlinks};
    char *own = name ? utf8_clean(name, strlen(name)) : NULL;
    bool away;

    free(c->name);
    c->name = own;
    if (!own) {
        call_reply_err(c, name ? ENOMEM : EPERM);
        return;
    }
    caller_ids(c->from.pid, &a.process, &a.parent);
    a.forked = caller_same_command(a.process, a.parent);
    away = judge(c, &a, own);
    if (away)
        jobs_add(c->m->dirs, c, is_copy);
    else if (c->e.code)
        jobs_add(c->m->dirs, c, tell);
    else
        call_reply_err(c, EPERM);
}

void copies_refuse(struct call *c, const char *name) { refuse(c, name, false); }
void copies_refuse_unlink(struct call *c, const char *name) { refuse(c, name, true); }

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
    if (e && (same_process(process, e->taken_by) || same_process(process, e->sealed_by)))
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
    copies = e && (same_process(process, e->copier) || (e->c.phase == PHASE_FAILED && e->c.note && str_starts(e->c.note, TAKE_IS_COPY)));
    index_unlock(m->c.index);
    return copies ? -EPERM : 0;
}
