/* The state's half of a checkpoint: bytes as they come, then the seal, which reads the state once and fixes every file (design.md §4). */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "actions_i.h"
#include "sealing.h"
#include "formats/scan.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/hash.h"
#include "util/text.h"

/* How often a seal begins again because meta.json has changed meanwhile. */
#define SEAL_TRIES 20
/* How often a writer of meta.json looks again because another one came first. */
#define META_TRIES 20
/* How often other mounts hear of a state that is being written. */
#define TELL_MS 1000

/* Whether the other mounts are to hear of this write: of the first one, and of the later ones from time to time. */
static bool tells(struct engine *g, int64_t checkpoint)
{
    int64_t now = clock_mono_ms();
    struct index_entry *e;
    bool tell = false;

    index_write_lock(g->c.index);
    e = index_by_id(g->c.index, checkpoint);
    if (e)
        tell = now - e->told_ms >= TELL_MS || e->draft_size <= 0;
    if (tell)
        e->told_ms = now;
    index_unlock(g->c.index);
    return tell;
}

/* They hear of it in a moment. */
static void tell_later(struct engine *g, int64_t checkpoint)
{
    struct index_entry *e;

    index_write_lock(g->c.index);
    e = index_by_id(g->c.index, checkpoint);
    if (e)
        e->untold = true;
    index_unlock(g->c.index);
    atomic_store(&g->drafts_soon, true);
}

/* The next one after `id` that was written to and not told of; 0 = none. */
static int64_t next_untold(struct engine *g, int64_t id)
{
    struct index_entry *e;
    int64_t found = 0;

    index_write_lock(g->c.index);
    e = index_next(g->c.index, id + 1);
    while (e && !e->untold)
        e = index_next(g->c.index, e->c.id + 1);
    if (e) {
        e->untold = false;
        e->told_ms = clock_mono_ms();
        found = e->c.id;
    }
    index_unlock(g->c.index);
    return found;
}

void drafts_tell(struct engine *g)
{
    int64_t id = 0;

    if (!atomic_exchange(&g->drafts_soon, false))
        return;
    while ((id = next_untold(g, id))) {
        if (store_state_tell(g->c.store, id, NULL) == 0)
            follow_heard(g); /* of many, from a store that is far away, each is an answer */
        else
            tell_later(g, id);
    }
}

int engine_state_write(struct engine *g, int64_t checkpoint, int64_t off, const void *bytes, size_t n, struct err *e)
{
    bool tell = tells(g, checkpoint);
    int64_t part = 0;
    int r = store_state_write(g->c.store, checkpoint, off, bytes, n, tell, &part, e);

    if (r < 0)
        return r;
    index_draft(g->c.index, checkpoint, off + (int64_t)n, part, false);
    if (!tell)
        tell_later(g, checkpoint);
    return 0;
}

int engine_state_size(struct engine *g, int64_t checkpoint, int64_t *ret, struct err *e)
{
    int64_t size = -1;
    int64_t part = 0;
    int r = store_state_size(g->c.store, checkpoint, &size, &part, e);

    if (r == 0)
        *ret = index_draft_seen(g->c.index, checkpoint, size, part);
    return r;
}

/* The reason why there is no seal is in `status`: whoever wrote may be gone. */
static int note(struct engine *g, int64_t checkpoint, int r, const char *text)
{
    store_state_note(g->c.store, checkpoint, text, NULL);
    engine_refresh(g, checkpoint, 0);
    return r;
}

static bool noted(struct engine *g, int64_t checkpoint)
{
    struct index_entry *e;
    bool is;

    index_read_lock(g->c.index);
    e = index_by_id(g->c.index, checkpoint);
    is = e && e->c.note;
    index_unlock(g->c.index);
    return is;
}

/* Nothing is left where it is cut to nothing, and so no reason why that wasn't sealed. */
int engine_state_truncate(struct engine *g, int64_t checkpoint, int64_t size, struct err *e)
{
    int64_t part = 0;
    int r = store_state_truncate(g->c.store, checkpoint, size, &part, e);

    if (r < 0)
        return r;
    index_draft(g->c.index, checkpoint, size, part, true);
    return size == 0 && noted(g, checkpoint) ? note(g, checkpoint, 0, NULL) : 0;
}

void engine_sealing(struct engine *g, int64_t checkpoint, const struct who *by, bool last)
{
    struct index_entry *e;

    index_write_lock(g->c.index);
    e = index_by_id(g->c.index, checkpoint);
    if (e) {
        e->sealing = by != NULL;
        e->last_close = last;
    }
    if (e && by) {
        e->sealed_by = by->w.pid;
        e->sealed_ms = clock_mono_ms();
    }
    index_unlock(g->c.index);
}

void sealing_clear(struct sealing *s)
{
    for (size_t i = 0; s->calls && i < s->info.pending_count; i++) {
        free(s->calls[i].filename);
        buf_free(&s->call_files[i]);
    }
    free(s->calls);
    free(s->call_files);
    buf_free(&s->meta_text);
    buf_free(&s->envelope);
    buf_free(&s->checkpoint_json);
    buf_free(&s->transcript);
    if (s->has_info)
        state_info_free(&s->info);
    if (s->has_meta)
        meta_free(&s->meta);
    brief_clear(&s->b);
}

static int read_meta(struct engine *g, int64_t checkpoint, struct sealing *s, struct err *e)
{
    struct buf *text = &s->meta_text;
    int r = store_read_file(g->c.store, checkpoint, FILE_META, text, e);

    s->has_meta_text = r == 0;
    if (r == -ENOENT) {
        err_clear(e);
        r = 0;
    }
    if (r == 0)
        r = meta_parse(text->data ? text->data : "", text->len, &s->meta, e);
    s->has_meta = r == 0;
    return r;
}

int sealing_hash(struct sealing *s, const void *bytes, size_t n, struct err *e)
{
    return sha256_hex(bytes, n, s->sha256) < 0 ? err_set(e, EIO, "SHA-256 can't be computed") : 0;
}

int sealing_read(struct sealing *s, const void *bytes, size_t n, struct err *e)
{
    int r = state_read(bytes, n, &s->info, e);

    s->has_info = r == 0;
    return r < 0 ? r : state_supply(&s->info, &s->meta, e);
}

void sealing_facts(struct sealing *s, const struct checkpoint_facts *identity, size_t n)
{
    const struct meta *m = &s->meta;

    s->facts = (struct checkpoint_facts){
        .id = identity->id, .name = identity->name, .created_at = identity->created_at,
        .state_bytes = (int64_t)n, .state_sha256 = s->sha256,
        .parent = m->parent, .run_id = m->run_id, .step_id = m->step_id,
        .framework = m->framework, .framework_version = m->framework_version,
        .agent = m->agent, .reason = m->reason, .traceparent = m->traceparent,
    };
}

static int fill_calls(struct sealing *s)
{
    size_t n = s->info.pending_count;

    s->calls = calloc(n + 1, sizeof(*s->calls));
    s->call_files = calloc(n + 1, sizeof(*s->call_files));
    if (!s->calls || !s->call_files)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++) {
        const struct call *c = &s->info.pending[i];
        cleanup_free char *file = id_to_filename(c->id ? c->id : "", c->id ? strlen(c->id) : 0);

        s->calls[i] = (struct store_call){
            .call_id = c->id,
            .filename = file ? str_format("%s.json", file) : NULL,
            .tool = c->tool,
            .arguments = c->arguments,
            .agent = c->agent,
            .arguments_sha256 = (char *)(uintptr_t)c->arguments_sha256,
            .decided = c->decision == CALL_UNDECIDED ? NULL : (char *)(uintptr_t)(c->decision == CALL_APPROVED ? "approve" : "reject"),
            .is_input = c->kind == CALL_INPUT,
        };
        if (!s->calls[i].filename || render_pending_json(&s->call_files[i], c) < 0)
            return -ENOMEM;
        s->calls[i].file_size = (int64_t)s->call_files[i].len;
    }
    return 0;
}

int sealing_render(struct sealing *s, const void *bytes, size_t n, struct err *e)
{
    if (fill_calls(s) < 0 || state_to_json(&s->info, &s->envelope) < 0 ||
        render_checkpoint_json(&s->checkpoint_json, &s->facts, &s->info) < 0 ||
        render_transcript(&s->transcript, &s->facts, &s->info, bytes, n) < 0)
        return err_set(e, ENOMEM, "out of memory");
    return 0;
}

static int prepare(struct engine *g, int64_t checkpoint, const void *bytes, size_t n, struct sealing *s, struct err *e)
{
    struct checkpoint_facts identity;
    int r = engine_brief(g, checkpoint, &s->b);

    if (r < 0)
        return err_set(e, ENOENT, "the checkpoint is gone");
    identity = (struct checkpoint_facts){.id = s->b.uid, .name = s->b.name, .created_at = s->b.created_at};
    r = read_meta(g, checkpoint, s, e);
    if (r == 0)
        r = sealing_hash(s, bytes, n, e);
    if (r == 0)
        r = sealing_read(s, bytes, n, e);
    if (r < 0)
        return r;
    sealing_facts(s, &identity, n);
    return sealing_render(s, bytes, n, e);
}

static void sealed_by(struct engine *g, int64_t checkpoint, pid_t pid)
{
    struct index_entry *e;

    index_write_lock(g->c.index);
    e = index_by_id(g->c.index, checkpoint);
    if (e) {
        e->sealed_by = pid;
        e->sealed_ms = clock_mono_ms();
    }
    index_unlock(g->c.index);
}

static const char *first(const char *a, const char *b, const char *c)
{
    return a ? a : b ? b : c;
}

void sealing_fill(const struct sealing *s, const void *bytes, size_t n, pid_t by, struct store_seal *ret)
{
    *ret = (struct store_seal){
        .bytes = bytes, .n = n, .sha256 = s->sha256, .envelope = s->envelope.data,
        .run_id = first(s->facts.run_id, s->info.run_id, s->info.trace_id),
        .step_id = first(s->facts.step_id, s->info.step_id, NULL),
        .parent = first(s->facts.parent, s->info.parent, NULL),
        .framework = s->facts.framework ? s->facts.framework : framework_name(s->info.framework),
        .agent = first(s->facts.agent, s->info.agent, NULL),
        .trace_id = s->meta.trace_id[0] ? s->meta.trace_id : s->info.trace_id,
        .state_trace_id = s->meta.trace_id[0] && !str_equal(s->meta.trace_id, s->info.trace_id) ? s->info.trace_id : NULL,
        .partial_ok = state_partial_ok(&s->info),
        .waits_input = s->info.status == RUN_WAITING_INPUT,
        .meta = s->has_meta_text ? &s->meta_text : NULL,
        .checkpoint_json = &s->checkpoint_json, .transcript = &s->transcript,
        .calls = s->calls, .call_files = s->call_files, .n_calls = s->info.pending_count,
        .by = by,
    };
}

int sealing_whole(const void *bytes, size_t n, struct err *e)
{
    struct scanner scan = {0};
    cleanup_free char *reason = NULL;

    scan_feed(&scan, bytes, n);
    if (scan_result(&scan) != SCAN_OPEN)
        return 0;
    reason = scan_reason(&scan);
    return err_set(e, EINVAL, "%s", reason ? reason : "JSON cut short");
}

static int seal(struct engine *g, int64_t checkpoint, const void *bytes, size_t n, const struct who *who, struct err *e)
{
    struct sealing s = {0};
    struct store_seal seal;
    int r = prepare(g, checkpoint, bytes, n, &s, e);

    if (r == 0) {
        sealing_fill(&s, bytes, n, who->w.pid, &seal);
        r = store_seal(g->c.store, checkpoint, &seal, &who->w, e);
    }
    sealing_clear(&s);
    if (r == 0)
        r = engine_refresh(g, checkpoint, 0);
    if (r == 0)
        sealed_by(g, checkpoint, who->w.pid);
    return r;
}

int engine_seal_bytes(struct engine *g, int64_t checkpoint, const void *bytes, size_t n, const struct who *who, struct err *e)
{
    int r = sealing_whole(bytes, n, e);
    int tries = 0;

    while (r == 0) {
        r = seal(g, checkpoint, bytes, n, who, e);
        if (r != -EAGAIN || tries++ == SEAL_TRIES)
            break;
        r = 0; /* meta.json was written meanwhile */
    }
    return r < 0 ? note(g, checkpoint, r, err_text(e)) : 0;
}

int engine_seal(struct engine *g, int64_t checkpoint, const struct who *who, struct err *e)
{
    cleanup_buf struct buf text = {0};
    struct store_gap gap = {0};
    int r = store_state_assemble(g->c.store, checkpoint, &text, &gap, e);

    if (r < 0 || text.len == 0)
        return r;
    if (gap.from < gap.to) { /* a store that was put back to an earlier time, or a writer that left something out */
        r = err_set(e, EINVAL, "a part is missing: bytes %" PRId64 " to %" PRId64 " of %zu were never written", gap.from, gap.to - 1,
                    text.len);
        return note(g, checkpoint, r, err_text(e));
    }
    return engine_seal_bytes(g, checkpoint, text.data, text.len, who, e);
}

/* Before the seal, what an agent took is its own. */
static bool taken_by_agent(struct engine *g, int64_t checkpoint)
{
    struct index_entry *e;
    bool is;

    index_read_lock(g->c.index);
    e = index_by_id(g->c.index, checkpoint);
    is = e && e->by_agent;
    index_unlock(g->c.index);
    return is;
}

/* What checkpoint.json says is fixed, whatever meta.json has left out since. */
static int keeps_fixed(struct engine *g, int64_t checkpoint, const struct meta *now, struct err *e)
{
    cleanup_buf struct buf text = {0};
    cleanup_json json_t *root = NULL;
    struct meta sealed = {0};
    int r = store_read_file(g->c.store, checkpoint, FILE_CHECKPOINT, &text, e);

    if (r < 0)
        return r;
    root = json_loadb(text.data ? text.data : "", text.len, 0, NULL);
    if (!root)
        return err_set(e, EBADMSG, "the checkpoint.json in the store is broken");
    sealed.run_id = json_string_value(json_object_get(root, "run_id"));
    sealed.step_id = json_string_value(json_object_get(root, "step_id"));
    sealed.parent = json_string_value(json_object_get(root, "parent"));
    return meta_changed_fixed(&sealed, now, e);
}

/* What decides about a snapshot that is there: only operators let go of one, and Neon deletes none in the past. */
static int may_change(const struct buf *before, const struct meta *now, const char *no_operator, struct err *e)
{
    char when[CLOCK_TEXT_MAX];
    cleanup_meta struct meta old = {0};
    int r = meta_parse(before->data ? before->data : "", before->len, &old, NULL);

    if (r == -ENOMEM)
        return err_set(e, ENOMEM, "out of memory");
    if (no_operator && (old.pin != now->pin || old.expires_at != now->expires_at))
        return err_set(e, EPERM, "meta.json: \"%s\" is for operators to change here: %s",
                       old.pin != now->pin ? "pin" : "expires_at", no_operator);
    if (now->expires_at && old.expires_at != now->expires_at && now->expires_at <= clock_now())
        return err_set(e, EINVAL, "meta.json: \"expires_at\" is past (%s): it must be a time to come, or left out",
                       clock_format_seconds(now->expires_at, when));
    return 0;
}

static int put_meta(struct engine *g, int64_t checkpoint, const char *bytes, size_t n, const struct meta *now, const struct who *who,
                    const char *no_operator, struct err *e)
{
    cleanup_buf struct buf old = {0};
    struct brief b = {0};
    bool sealed;
    bool none;
    int r;

    if (engine_brief(g, checkpoint, &b) < 0)
        return err_set(e, ENOENT, "the checkpoint is gone");
    sealed = b.phase == PHASE_SEALED;
    if (!sealed && taken_by_agent(g, checkpoint))
        no_operator = NULL;
    brief_clear(&b);
    r = store_read_file(g->c.store, checkpoint, FILE_META, &old, e);
    if (r < 0 && r != -ENOENT)
        return r;
    none = r == -ENOENT;
    if (r == 0 && old.len == n && (n == 0 || memcmp(old.data, bytes, n) == 0))
        return 0; /* what a backup holds, copied over it: nothing has happened */
    r = may_change(&old, now, no_operator, e);
    if (r == 0 && sealed)
        r = keeps_fixed(g, checkpoint, now, e);
    if (r < 0)
        return r;
    return store_meta_put(g->c.store, checkpoint, none ? NULL : &old, bytes, n, sealed, &who->w, e);
}

int engine_meta(struct engine *g, int64_t checkpoint, const char *bytes, size_t n, const struct who *who, const char *no_operator,
                struct err *e)
{
    cleanup_meta struct meta now = {0};
    int r = meta_parse(bytes, n, &now, e);

    if (r < 0)
        return r;
    r = put_meta(g, checkpoint, bytes, n, &now, who, no_operator, e);
    for (int tries = 0; r == -EAGAIN && tries < META_TRIES; tries++) { /* another writer came first, or the seal, which fixes some fields */
        engine_refresh(g, checkpoint, 0);
        r = put_meta(g, checkpoint, bytes, n, &now, who, no_operator, e);
    }
    if (r == -EAGAIN)
        return err_set(e, EBUSY, "meta.json: others write it all the time; try again");
    if (r)
        return r;
    expiries_soon(g);
    return engine_refresh(g, checkpoint, 0);
}
