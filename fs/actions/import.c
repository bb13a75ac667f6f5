/* A copy of a checkpoint becomes a checkpoint again: same id, times and parent; a changed state becomes a fork (design.md §2). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "import_files.h"
#include "import_supplied.h"
#include "sealing.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/log.h"
#include "util/offer.h"
#include "util/text.h"

struct importing {
    struct engine *g;
    const struct import_source *src;
    const char *name;
    int64_t started_at;
    struct claim claim;
    const struct import_file *state; /* NULL = database only */
    json_t *snapshot_root;
    struct store_snapshot snapshot;
    struct buf snapshot_json;
    struct sealing s;
    char uid[CHECKPOINT_ID_SIZE];
    bool fork;
    struct buf checkpoint_json; /* database only */
    struct buf message;
};

static void clear(struct importing *i)
{
    json_decref(i->claim.root);
    json_decref(i->snapshot_root);
    buf_free(&i->snapshot_json);
    buf_free(&i->checkpoint_json);
    buf_free(&i->message);
    sealing_clear(&i->s);
}

void import_source_clear(struct import_source *s)
{
    buf_free(&s->state.bytes);
    buf_free(&s->checkpoint.bytes);
    buf_free(&s->snapshot.bytes);
    buf_free(&s->meta.bytes);
}

/* ---- what is there -------------------------------------------------------------------------------------------------- */

static int read_claim(struct importing *i, struct err *e)
{
    const struct import_source *src = i->src;
    int r = src->checkpoint.there ? claim_read(&src->checkpoint, &i->claim, e) : 0;

    if (r < 0)
        return r;
    if (i->claim.guide_snapshot && src->state.there)
        return err_set(e, EINVAL, "checkpoint.json holds an agent_state, and there is a state.json too: which of them is it?");
    if (src->one_file && !i->claim.guide_snapshot)
        return err_set(e, EINVAL, "a file alone must be {\"snapshot_id\": …, \"agent_state\": …}; for anything else make a "
                       "directory that holds state.json");
    i->state = i->claim.guide_snapshot ? &src->checkpoint : src->state.there ? &src->state : NULL;
    if (!i->state && !i->claim.id)
        return err_set(e, ENODATA, "there is neither checkpoint.json nor state.json: this is no checkpoint");
    if (!i->state && i->claim.state_sha256)
        return err_set(e, ENODATA, "state.json is missing, and checkpoint.json names one");
    if (i->state && i->state->bytes.len == 0)
        return err_set(e, ENODATA, "state.json is empty");
    r = i->state ? sealing_whole(i->state->bytes.data, i->state->bytes.len, e) : 0;
    return r < 0 ? err_prefix(e, "state.json") : 0;
}

/* Only a snapshot of this project's can be restored here; any other counts as missing. */
static int read_snapshot(struct importing *i, struct err *e)
{
    const char *id = i->claim.guide_snapshot;
    int r = 0;

    if (i->src->snapshot.there) {
        r = snapshot_read(&i->src->snapshot, &i->snapshot_root, &i->snapshot, e);
        if (r == 0 && id && !str_equal(i->snapshot.id, id))
            r = err_set(e, EINVAL, "checkpoint.json names the snapshot %s, and snapshot.json %s: which of them is it?", id, i->snapshot.id);
        buf_add(&i->snapshot_json, i->src->snapshot.bytes.data, i->src->snapshot.bytes.len);
    } else {
        if (!id && i->s.has_info)
            id = i->s.info.snapshot_id;
        i->snapshot = (struct store_snapshot){.id = (char *)(uintptr_t)id, .full_size = -1, .diff_size = -1};
        if (id) {
            i->snapshot.project_id = (char *)(uintptr_t)i->g->c.project_id;
            r = snapshot_render(&i->snapshot, &i->snapshot_json);
        }
    }
    if (r == 0)
        r = buf_error(&i->snapshot_json);
    i->snapshot.missing = i->snapshot.id && !str_equal(i->snapshot.project_id, i->g->c.project_id);
    return r == -ENOMEM ? err_set(e, ENOMEM, "out of memory") : r;
}

static int read_meta(struct importing *i, const char *bytes, size_t n, struct err *e)
{
    struct sealing *s = &i->s;
    int r = meta_parse(bytes, n, &s->meta, e);

    s->has_meta = r == 0;
    s->has_meta_text = true;
    buf_truncate(&s->meta_text, 0);
    buf_add(&s->meta_text, bytes, n);
    return r == 0 && buf_error(&s->meta_text) ? err_set(e, ENOMEM, "out of memory") : r;
}

/* Which checkpoint it comes from is fixed for a fork: meta.json mustn't say something else. */
static int fork_meta(struct importing *i, struct err *e)
{
    cleanup_json json_t *root = json_deep_copy(i->s.meta.root);
    cleanup_free char *text = NULL;
    cleanup_free char *line = NULL;

    if (!i->s.meta.parent || str_equal(i->s.meta.parent, i->claim.id))
        return 0;
    json_object_set_new(root, "parent", json_string(i->claim.id));
    text = json_dumps(root, JSON_INDENT(2));
    line = text ? str_format("%s\n", text) : NULL;
    if (!line)
        return err_set(e, ENOMEM, "out of memory");
    meta_free(&i->s.meta);
    i->s.has_meta = false;
    return read_meta(i, line, strlen(line), e);
}

/* The fields that the seal fixed are what checkpoint.json says. */
static int same_as_sealed(const struct importing *i, struct err *e)
{
    const struct { const char *key, *meta, *sealed; } fields[] = {
        {"run_id", i->s.meta.run_id, i->claim.run_id},
        {"step_id", i->s.meta.step_id, i->claim.step_id},
        {"parent", i->s.meta.parent, i->claim.parent},
    };

    for (size_t k = 0; k < sizeof(fields) / sizeof(*fields); k++)
        if (fields[k].meta && fields[k].sealed && strcmp(fields[k].meta, fields[k].sealed) != 0)
            return err_set(e, EINVAL, "meta.json: \"%s\" is fixed since the seal: checkpoint.json says %.100s, meta.json %.100s",
                           fields[k].key, fields[k].sealed, fields[k].meta);
    return 0;
}

/* ---- who it is ------------------------------------------------------------------------------------------------------ */

/* The same id, unless there is none, or the state is another one: then it is a new checkpoint. */
static int identify(struct importing *i, struct err *e)
{
    i->fork = i->claim.id && i->state && !str_equal(i->claim.state_sha256, i->s.sha256);
    if (i->claim.id && !i->fork) {
        memcpy(i->uid, i->claim.id, sizeof(i->uid));
        return 0;
    }
    memcpy(i->uid, "ck-", 4);
    return random_hex(i->uid + 3, sizeof(i->uid) - 4) < 0 ? err_set(e, EIO, "no random numbers") : 0;
}

/* Copies of control files keep the time to the nanosecond that checkpoint.json has in milliseconds. */
static int64_t created_at(const struct importing *i)
{
    int64_t said = i->claim.created_at;
    int64_t other = i->state ? i->state->mtime : clock_now();

    if (i->fork)
        return clock_now();
    if (!said)
        return other;
    return i->src->made_at / 1000000 == said / 1000000 ? i->src->made_at : said;
}

/* What was supplied then and isn't in meta.json now; what the state says itself is derived again. */
static const char *supplied(const char *meta, const char *claimed, const char *derived)
{
    return meta ? meta : str_equal(claimed, derived) ? NULL : claimed;
}

static void complete_facts(struct importing *i)
{
    struct checkpoint_facts *f = &i->s.facts;
    const struct claim *c = &i->claim;
    const struct state_info *info = &i->s.info;

    f->id = i->uid;
    f->name = c->name && !i->fork ? c->name : i->name;
    f->created_at = created_at(i);
    f->run_id = supplied(f->run_id, c->run_id, info->run_id);
    f->step_id = supplied(f->step_id, c->step_id, info->step_id);
    f->parent = i->fork ? c->id : supplied(f->parent, c->parent, info->parent);
    f->agent = supplied(f->agent, c->agent, info->agent);
    f->framework = supplied(f->framework, c->framework, i->state ? framework_name(info->framework) : NULL);
    f->framework_version = f->framework_version ? f->framework_version : c->framework_version;
}

/* Which calls wait is fixed by the seal as well: where it took none from meta.json, one that was written later can't add any. */
static int read_state(struct importing *i, struct err *e)
{
    const struct buf *state = &i->state->bytes;
    struct sealing *s = &i->s;
    bool calls;
    int r = supplied_complete(&i->claim, i->src, i->fork, &s->meta, &calls, e);

    if (r == 0)
        r = sealing_read(s, state->data, state->len, e);
    if (r == 0 && !i->fork && i->claim.pending && !i->claim.pending_supplied && s->info.pending_supplied) {
        state_info_free(&s->info);
        s->has_info = false;
        s->meta.pending = NULL;
        r = sealing_read(s, state->data, state->len, e);
    }
    return r < 0 || !calls ? r : supplied_check(&i->claim, &s->info, e);
}

static int read_sealed(struct importing *i, struct err *e)
{
    const struct checkpoint_facts unknown = {0};
    const struct buf *state = &i->state->bytes;
    int r = sealing_hash(&i->s, state->data, state->len, e);

    if (r == 0)
        r = identify(i, e);
    if (r == 0)
        r = i->fork ? fork_meta(i, e) : same_as_sealed(i, e);
    if (r == 0)
        r = read_state(i, e);
    if (r < 0)
        return r;
    sealing_facts(&i->s, &unknown, state->len);
    complete_facts(i);
    return sealing_render(&i->s, state->data, state->len, e);
}

static int read_bare(struct importing *i, struct err *e)
{
    int r = identify(i, e);

    if (r == 0)
        r = same_as_sealed(i, e);
    if (r < 0)
        return r;
    complete_facts(i);
    return render_checkpoint_json(&i->checkpoint_json, &i->s.facts, NULL) < 0 ? err_set(e, ENOMEM, "out of memory") : 0;
}

/* EINVAL from a rename is what mv takes for "to a subdirectory of itself", and says so. */
static int bad_copy(int r, struct err *e)
{
    if (r == -EINVAL && e->code)
        e->code = EBADMSG;
    return r == -EINVAL ? -EBADMSG : r;
}

static int read_all(struct importing *i, struct err *e)
{
    const struct import_file *meta = &i->src->meta;
    int r = read_claim(i, e);

    if (r == 0 && (meta->there || i->state))
        r = read_meta(i, meta->bytes.len ? meta->bytes.data : "{}\n", meta->bytes.len ? meta->bytes.len : 3, e);
    if (r == 0)
        r = i->state ? read_sealed(i, e) : read_bare(i, e);
    return bad_copy(r ? r : read_snapshot(i, e), e);
}

/* ---- registering ---------------------------------------------------------------------------------------------------- */

/* What is to be done next; `isolated`: it belongs to an isolated branch, so in place it would be refused. */
static void offer(struct importing *i, bool isolated)
{
    cleanup_free char *path = offer_path(i->name, i->uid);
    cleanup_free char *file = path ? str_format("%s/restore", path) : NULL;
    cleanup_free char *how = offer_write(file, isolated ? "branch NAME" : "in-place");

    if (isolated)
        buf_addf(&i->message, "; it belongs to an isolated branch: restore it into a branch of its own: %s",
                 how ? how : "write branch NAME to its restore");
    else
        buf_addf(&i->message, "; off-line until it is restored: %s", how ? how : "write in-place to its restore");
}

static void say(struct importing *i, bool isolated)
{
    buf_truncate(&i->message, 0);
    if (i->fork)
        buf_addf(&i->message, "the state isn't the one that checkpoint.json names: registered as a fork, %s, of %s", i->uid, i->claim.id);
    else
        buf_addf(&i->message, "registered as %s", i->uid);
    if (!i->snapshot.id)
        buf_adds(&i->message, "; without a snapshot: there is only the state");
    else if (i->snapshot.missing)
        buf_addf(&i->message, "; its snapshot %s is of the project %s, not of %s: there is only the state", i->snapshot.id,
                 i->snapshot.project_id, i->g->c.project_id);
    else
        offer(i, isolated);
}

/* Owned by the caller; NULL when out of memory. */
static char *document(struct importing *i, bool isolated, const char *command, const struct who *who)
{
    struct run r = {.g = i->g, .kind = ACTION_IMPORT, .command = (char *)(uintptr_t)command, .started_at = i->started_at};
    cleanup_json json_t *by = journal_by(&who->w);
    cleanup_json json_t *data = json_pack("{s:s, s:s, s:b}", "checkpoint", i->uid, "name", i->name, "fork", (int)i->fork);

    r.data = data;
    r.by = by;
    if (i->fork)
        json_object_set_new(data, "parent", json_string(i->claim.id));
    say(i, isolated);
    return data && !buf_error(&i->message) ? journal_doc(&r, "done", 0, i->message.data) : NULL;
}

static int store_it(struct importing *i, const char *command, const struct who *who, int64_t *ret_checkpoint, int64_t *ret_action,
                    struct err *e)
{
    cleanup_free char *doc = document(i, false, command, who);
    cleanup_free char *isolated_doc = document(i, true, command, who); /* which of them is true only the store knows */
    struct store_seal seal;
    struct store_import m = {
        .line_id = i->g->line_id, .uid = i->uid, .name = i->name, .taken_name = i->s.facts.name,
        .fork_of = i->fork ? i->claim.id : NULL, .created_at = i->s.facts.created_at,
        .sealed_at = i->fork || !i->state ? i->s.facts.created_at : i->state->mtime,
        .checkpoint_json = &i->checkpoint_json, .meta = i->s.has_meta_text ? &i->s.meta_text : NULL,
        .snapshot = &i->snapshot, .snapshot_json = i->snapshot.id ? &i->snapshot_json : NULL, .command = command,
        .doc_without_id = doc, .isolated_doc_without_id = isolated_doc,
    };

    if (!doc || !isolated_doc)
        return err_set(e, ENOMEM, "out of memory");
    m.mtimes[FILE_SNAPSHOT] = i->src->snapshot.mtime;
    m.mtimes[FILE_META] = i->src->meta.mtime;
    if (!i->fork) {
        m.mtimes[FILE_CHECKPOINT] = i->src->checkpoint.mtime;
        m.mtimes[FILE_TRANSCRIPT] = i->src->transcript_mtime;
    }
    if (i->state) {
        sealing_fill(&i->s, i->state->bytes.data, i->state->bytes.len, who->w.pid, &seal);
        m.seal = &seal;
    }
    return LEASED(i->g, store_import(i->g->c.store, &m, &who->w, ret_checkpoint, ret_action, e));
}

int engine_import(struct engine *g, const struct import_source *src, const char *command, const char *name, const struct who *who,
                  int64_t *ret_checkpoint, struct err *e)
{
    struct importing i = {.g = g, .src = src, .name = name, .started_at = clock_now()};
    int64_t action = 0;
    int r;

    engine_works(g, 1); /* a large one takes seconds: who unmounts waits for it */
    r = atomic_load(&g->stopping) ? err_set(e, ESHUTDOWN, "the mount is being unmounted") : read_all(&i, e);
    if (r == 0)
        r = store_it(&i, command, who, ret_checkpoint, &action, e);
    clear(&i);
    if (r == 0) {
        watch_soon(g); /* whether the snapshot is still there */
        r = engine_refresh(g, *ret_checkpoint, action);
    }
    engine_works(g, -1);
    return r;
}
