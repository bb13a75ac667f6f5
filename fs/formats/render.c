/* checkpoint.json, snapshot.json and pending/CALL_ID.json as bytes. See include/formats/render.h. */
#include "formats/render.h"

#include <string.h>

#include "formats_i.h"
#include "util/cleanup.h"
#include "util/text.h"

static void add_escape(struct buf *b, uint32_t c)
{
    if (c < 0x10000)
        buf_addf(b, "\\u%04x", (unsigned)c);
    else
        buf_addf(b, "\\u%04x\\u%04x", (unsigned)(0xd800 + ((c - 0x10000) >> 10)), (unsigned)(0xdc00 + (c & 0x3ff)));
}

/* What can't be seen, or steers a terminal, becomes an escape: whoever decides about a call reads it, and a program reads the same. Such
 * characters stand in strings only, and in these nothing is left that has to be escaped otherwise. */
static void add_visible(struct buf *b, const char *json, size_t n)
{
    const unsigned char *u = (const unsigned char *)json;
    size_t plain = 0, len;

    for (size_t i = 0; i < n; i += len) {
        len = utf8_length(u + i, n - i);
        len = len ? len : 1;
        if (u[i] < 0x80 || !text_invisible(utf8_point(u + i, len)))
            continue;
        buf_add(b, json + plain, i - plain);
        add_escape(b, utf8_point(u + i, len));
        plain = i + len;
    }
    buf_add(b, json + plain, n - plain);
}

/* Puts the one-line object in `line` into `b`, indented. */
static int finish(struct buf *b, struct buf *line)
{
    cleanup_buf struct buf indented = {0};
    int r;

    jw_close(line, '}');
    r = buf_error(line) ? buf_error(line) : json_add_indented(&indented, line->data, line->len);
    if (r == 0)
        add_visible(b, indented.data, indented.len);
    return r ? r : buf_error(b);
}

/* -- checkpoint.json ------------------------------------------------------------------------------------------------ */

/* While the members are written, the names of the derived ones and the derived values that lost are collected. */
struct merging {
    struct buf *line, derived, conflicts;
};

static void add_derived(struct merging *m, const char *key)
{
    jw_text(&m->derived, NULL, key);
}

static void merge_text(struct merging *m, const char *key, const char *supplied, const char *derived)
{
    jw_text(m->line, key, supplied ? supplied : derived);
    if (supplied && derived && strcmp(supplied, derived) != 0)
        jw_text(&m->conflicts, key, derived);
    else if (!supplied && derived)
        add_derived(m, key);
}

static void merge_int(struct merging *m, const char *key, int64_t derived)
{
    jw_int(m->line, key, derived);
    if (derived >= 0)
        add_derived(m, key);
}

/* A W3C trace id is the 32 digits after the version. */
static void write_trace(struct merging *m, const struct checkpoint_facts *f, const struct state_info *info)
{
    cleanup_free char *supplied = f->traceparent && strlen(f->traceparent) >= 35 ? strndup(f->traceparent + 3, 32) : NULL;
    const char *id = info && info->trace_id ? info->trace_id : supplied;

    if (!id && !(info && info->trace_group))
        return;
    jw_open(m->line, "trace", '{');
    jw_text(m->line, "id", id);
    jw_text(m->line, "group_id", info ? info->trace_group : NULL);
    jw_text(m->line, "workflow", info ? info->trace_workflow : NULL);
    jw_text(m->line, "traceparent", f->traceparent);
    jw_close(m->line, '}');
    if (info && info->trace_id)
        add_derived(m, "trace");
}

static void write_pending(struct merging *m, const struct state_info *info)
{
    jw_open(m->line, "pending", '[');
    for (size_t i = 0; info && i < info->pending_count; i++) {
        const struct call *c = &info->pending[i];
        jw_open(m->line, NULL, '{');
        jw_text(m->line, "id", c->id);
        jw_text(m->line, "tool", c->tool);
        jw_text(m->line, "agent", c->agent);
        jw_text(m->line, "kind", call_kind_name(c->kind));
        jw_text(m->line, "arguments_sha256", c->arguments_sha256);
        jw_text(m->line, "decision", call_decision_name(c->decision));
        jw_close(m->line, '}');
    }
    jw_close(m->line, ']');
    if (info && info->pending_count > 0 && !info->pending_supplied)
        add_derived(m, "pending");
}

static void write_derivable(struct merging *m, const struct checkpoint_facts *f, const struct state_info *info)
{
    bool raw = !info || info->framework == FRAMEWORK_RAW;

    merge_text(m, "parent", f->parent, info ? info->parent : NULL);
    merge_text(m, "run_id", f->run_id, info ? info->run_id : NULL);
    merge_text(m, "step_id", f->step_id, info ? info->step_id : NULL);
    if (raw) /* that nothing was recognised derives nothing */
        jw_text(m->line, "framework", f->framework ? f->framework : info ? framework_name(FRAMEWORK_RAW) : NULL);
    else
        merge_text(m, "framework", f->framework, framework_name(info->framework));
    jw_text(m->line, "framework_version", f->framework_version);
    merge_text(m, "schema_version", NULL, info ? info->schema_version : NULL);
    merge_text(m, "agent", f->agent, info ? info->agent : NULL);
    merge_int(m, "turn", info ? info->turn : -1);
    merge_int(m, "max_turns", info ? info->max_turns : -1);
    merge_text(m, "model", NULL, info ? info->model : NULL);
    if (info) {
        size_t before = m->line->len;
        jw_usage(m->line, "usage", &info->usage);
        if (m->line->len > before)
            add_derived(m, "usage");
    }
    write_trace(m, f, info);
    if (info && info->status != RUN_UNKNOWN && !info->pending_supplied)
        merge_text(m, "status", NULL, run_status_name(info->status));
    else if (info)
        jw_text(m->line, "status", run_status_name(info->status));
}

static void write_state(struct buf *line, const struct checkpoint_facts *f)
{
    if (!f->state_sha256)
        return;
    jw_open(line, "state", '{');
    jw_int(line, "bytes", f->state_bytes);
    jw_text(line, "sha256", f->state_sha256);
    jw_close(line, '}');
}

static void write_problems(struct buf *line, const struct state_info *info)
{
    if (!info || info->problem_count == 0)
        return;
    jw_open(line, "problems", '[');
    for (size_t i = 0; i < info->problem_count; i++)
        jw_text(line, NULL, info->problems[i]);
    jw_close(line, ']');
}

int render_checkpoint_json(struct buf *b, const struct checkpoint_facts *f, const struct state_info *info)
{
    cleanup_buf struct buf line = {0};
    struct merging m = {.line = &line};
    int r;

    jw_open(&line, NULL, '{');
    jw_open(&m.derived, NULL, '[');
    jw_open(&m.conflicts, NULL, '{');
    jw_text(&line, "id", f->id);
    jw_text(&line, "name", f->name);
    write_derivable(&m, f, info);
    jw_time(&line, "created_at", f->created_at);
    write_state(&line, f);
    write_pending(&m, info);
    jw_close(&m.derived, ']');
    jw_raw(&line, "derived", m.derived.data ? m.derived.data : "", m.derived.len);
    if (m.conflicts.len > 1) {
        jw_close(&m.conflicts, '}');
        jw_raw(&line, "conflicts", m.conflicts.data, m.conflicts.len);
    }
    write_problems(&line, info);
    line.failed |= m.derived.failed || m.conflicts.failed;
    r = finish(b, &line);
    buf_free(&m.derived);
    buf_free(&m.conflicts);
    return r;
}

/* -- snapshot.json and pending/CALL_ID.json -------------------------------------------------------------------------- */

int render_snapshot_json(struct buf *b, const struct snapshot_facts *f)
{
    cleanup_buf struct buf line = {0};

    jw_open(&line, NULL, '{');
    jw_text(&line, "project_id", f->project_id);
    jw_text(&line, "branch_id", f->branch_id);
    jw_text(&line, "id", f->id);
    jw_text(&line, "name", f->name);
    jw_time(&line, "requested_at", f->requested_at);
    jw_time(&line, "captured_at", f->captured_at);
    if (f->requested_at && f->captured_at >= f->requested_at)
        jw_int(&line, "lag_ms", (f->captured_at - f->requested_at) / 1000000);
    jw_text(&line, "lsn", f->lsn);
    jw_time(&line, "expires_at", f->expires_at);
    jw_int(&line, "full_size", f->full_size ? f->full_size : -1);
    jw_int(&line, "diff_size", f->diff_size ? f->diff_size : -1);
    return finish(b, &line);
}

int render_pending_json(struct buf *b, const struct call *c)
{
    cleanup_buf struct buf line = {0};

    jw_open(&line, NULL, '{');
    jw_text(&line, "id", c->id);
    jw_text(&line, "tool", c->tool);
    if (c->arguments && c->is_json)
        jw_raw(&line, "arguments", c->arguments, strlen(c->arguments));
    else
        jw_text(&line, "arguments", c->arguments);
    jw_text(&line, "agent", c->agent);
    jw_text(&line, "via", c->via);
    jw_text(&line, "server", c->server);
    jw_text(&line, "kind", call_kind_name(c->kind));
    jw_text(&line, "arguments_sha256", c->arguments_sha256);
    jw_allowed(&line, "allowed", c->allowed);
    jw_text(&line, "decision", call_decision_name(c->decision));
    jw_text(&line, "message", c->message);
    return finish(b, &line);
}
