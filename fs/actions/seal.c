/* The state's half of a checkpoint: bytes as they come, then the seal, which reads the state once and fixes every file (design.md §4). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "actions_i.h"
#include "formats/meta.h"
#include "formats/render.h"
#include "formats/scan.h"
#include "formats/state.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/hash.h"
#include "util/text.h"

/* How often a seal begins again because meta.json has changed meanwhile. */
#define SEAL_TRIES 20

static void draft(struct engine *g, int64_t checkpoint, int64_t size, bool exactly)
{
    struct index_entry *e;

    index_write_lock(g->c.index);
    e = index_by_id(g->c.index, checkpoint);
    if (e && e->c.phase != PHASE_SEALED) {
        if (exactly || e->draft_size < size)
            e->draft_size = size;
        e->draft_mtime = clock_now();
    }
    index_unlock(g->c.index);
}

int engine_state_write(struct engine *g, int64_t checkpoint, int64_t off, const void *bytes, size_t n, struct err *e)
{
    int r = store_state_write(g->c.store, checkpoint, off, bytes, n, e);

    if (r == 0)
        draft(g, checkpoint, off + (int64_t)n, false);
    return r;
}

int engine_state_truncate(struct engine *g, int64_t checkpoint, int64_t size, struct err *e)
{
    int r = store_state_truncate(g->c.store, checkpoint, size, e);

    if (r == 0)
        draft(g, checkpoint, size, true);
    return r;
}

void engine_sealing(struct engine *g, int64_t checkpoint, const struct who *by)
{
    struct index_entry *e;

    index_write_lock(g->c.index);
    e = index_by_id(g->c.index, checkpoint);
    if (e)
        e->sealing = by != NULL;
    if (e && by) {
        e->sealed_by = by->w.pid;
        e->sealed_ms = clock_mono_ms();
    }
    index_unlock(g->c.index);
}

/* Everything a seal is made of. */
struct sealing {
    struct brief b;
    struct buf meta_text;
    bool has_meta_text;
    struct meta meta;
    bool has_meta;
    struct state_info info;
    bool has_info;
    char sha256[SHA256_HEX_SIZE];
    struct checkpoint_facts facts;
    struct buf envelope, checkpoint_json, transcript;
    struct store_call *calls;
    struct buf *call_files;
};

static void sealing_clear(struct sealing *s)
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

static void fill_facts(struct sealing *s, size_t n)
{
    const struct meta *m = &s->meta;

    s->facts = (struct checkpoint_facts){
        .id = s->b.uid, .name = s->b.name, .created_at = s->b.created_at,
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

static int prepare(struct engine *g, int64_t checkpoint, const void *bytes, size_t n, struct sealing *s, struct err *e)
{
    int r = engine_brief(g, checkpoint, &s->b);

    if (r < 0)
        return err_set(e, ENOENT, "the checkpoint is gone");
    if ((r = read_meta(g, checkpoint, s, e)) < 0)
        return r;
    if (sha256_hex(bytes, n, s->sha256) < 0)
        return err_set(e, EIO, "SHA-256 can't be computed");
    if ((r = state_read(bytes, n, &s->info, e)) < 0)
        return r;
    s->has_info = true;
    if ((r = state_supply(&s->info, &s->meta, e)) < 0)
        return r;
    fill_facts(s, n);
    if (fill_calls(s) < 0 || state_to_json(&s->info, &s->envelope) < 0 ||
        render_checkpoint_json(&s->checkpoint_json, &s->facts, &s->info) < 0 ||
        render_transcript(&s->transcript, &s->facts, &s->info, bytes, n) < 0)
        return err_set(e, ENOMEM, "out of memory");
    return 0;
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

/* The reason why there is no seal is in `status`: whoever wrote may be gone. */
static int note(struct engine *g, int64_t checkpoint, int r, const char *text)
{
    store_state_note(g->c.store, checkpoint, text, NULL);
    engine_refresh(g, checkpoint, 0);
    return r;
}

/* JSON cut short starts with { or [ and its brackets don't close: traps.md 9. */
static int check_whole(const void *bytes, size_t n, struct err *e)
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
        seal = (struct store_seal){
            .bytes = bytes, .n = n, .sha256 = s.sha256, .envelope = s.envelope.data,
            .run_id = first(s.meta.run_id, s.info.run_id, s.info.trace_id),
            .step_id = first(s.meta.step_id, s.info.step_id, NULL),
            .parent = first(s.meta.parent, s.info.parent, NULL),
            .framework = s.meta.framework ? s.meta.framework : framework_name(s.info.framework),
            .agent = first(s.meta.agent, s.info.agent, NULL),
            .trace_id = s.meta.trace_id[0] ? s.meta.trace_id : s.info.trace_id,
            .partial_ok = state_partial_ok(&s.info),
            .waits_input = s.info.status == RUN_WAITING_INPUT,
            .meta = s.has_meta_text ? &s.meta_text : NULL,
            .checkpoint_json = &s.checkpoint_json, .transcript = &s.transcript,
            .calls = s.calls, .call_files = s.call_files, .n_calls = s.info.pending_count,
            .by = who->w.pid,
        };
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
    int r = check_whole(bytes, n, e);
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
    int r = store_state_assemble(g->c.store, checkpoint, &text, e);

    if (r < 0 || text.len == 0)
        return r;
    return engine_seal_bytes(g, checkpoint, text.data, text.len, who, e);
}

static int fixed_since_seal(const struct buf *sealed, const struct meta *now, struct err *e)
{
    cleanup_meta struct meta old = {0};

    return meta_parse(sealed->data ? sealed->data : "", sealed->len, &old, NULL) < 0 ? 0 : meta_changed_fixed(&old, now, e);
}

static int put_meta(struct engine *g, int64_t checkpoint, const char *bytes, size_t n, const struct meta *now, const struct who *who,
                    struct err *e)
{
    cleanup_buf struct buf old = {0};
    struct brief b = {0};
    bool sealed;
    int r;

    if (engine_brief(g, checkpoint, &b) < 0)
        return err_set(e, ENOENT, "the checkpoint is gone");
    sealed = b.phase == PHASE_SEALED;
    brief_clear(&b);
    r = store_read_file(g->c.store, checkpoint, FILE_META, &old, e);
    if (r < 0 && r != -ENOENT)
        return r;
    if (r == 0 && old.len == n && (n == 0 || memcmp(old.data, bytes, n) == 0))
        return 0; /* what a backup holds, copied over it: nothing has happened */
    if (r == 0 && sealed && (r = fixed_since_seal(&old, now, e)) < 0)
        return r;
    return store_meta_put(g->c.store, checkpoint, bytes, n, sealed, &who->w, e);
}

int engine_meta(struct engine *g, int64_t checkpoint, const char *bytes, size_t n, const struct who *who, struct err *e)
{
    cleanup_meta struct meta now = {0};
    int r = meta_parse(bytes, n, &now, e);

    if (r < 0)
        return r;
    r = put_meta(g, checkpoint, bytes, n, &now, who, e);
    if (r == -EAGAIN) { /* it was sealed meanwhile: some fields are fixed now */
        engine_refresh(g, checkpoint, 0);
        r = put_meta(g, checkpoint, bytes, n, &now, who, e);
    }
    return r ? r : engine_refresh(g, checkpoint, 0);
}
