/* The envelope as one line of JSON for the store, and back; and what meta.json supplies to it. See include/formats/state.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "formats_i.h"
#include "util/cleanup.h"
#include "util/text.h"

static void write_call(struct buf *b, const struct call *c)
{
    jw_open(b, NULL, '{');
    jw_text(b, "id", c->id);
    jw_text(b, "tool", c->tool);
    jw_text(b, "arguments", c->arguments);
    jw_text(b, "arguments_form", c->arguments ? (c->is_json ? "json" : "text") : NULL);
    jw_text(b, "arguments_sha256", c->arguments_sha256);
    jw_text(b, "agent", c->agent);
    jw_text(b, "server", c->server);
    jw_text(b, "via", c->via);
    jw_text(b, "group", c->group);
    jw_text(b, "kind", call_kind_name(c->kind));
    jw_text(b, "decision", call_decision_name(c->decision));
    jw_text(b, "message", c->message);
    jw_allowed(b, "allowed", c->allowed);
    jw_close(b, '}');
}

int state_to_json(const struct state_info *info, struct buf *ret)
{
    struct buf *b = ret;

    jw_open(b, NULL, '{');
    jw_int(b, "envelope", 1);
    jw_text(b, "framework", framework_name(info->framework));
    jw_text(b, "schema_version", info->schema_version);
    jw_text(b, "agent", info->agent);
    jw_text(b, "status", run_status_name(info->status));
    jw_int(b, "turn", info->turn);
    jw_int(b, "max_turns", info->max_turns);
    jw_text(b, "model", info->model);
    jw_usage(b, "usage", &info->usage);
    jw_open(b, "trace", '{');
    jw_text(b, "id", info->trace_id);
    jw_text(b, "group_id", info->trace_group);
    jw_text(b, "workflow", info->trace_workflow);
    jw_close(b, '}');
    jw_text(b, "run_id", info->run_id);
    jw_text(b, "step_id", info->step_id);
    jw_text(b, "parent", info->parent);
    jw_time(b, "created_at", info->created_at);
    jw_text(b, "snapshot_id", info->snapshot_id);
    jw_open(b, "pending", '[');
    for (size_t i = 0; i < info->pending_count; i++)
        write_call(b, &info->pending[i]);
    jw_close(b, ']');
    if (info->pending_supplied)
        jw_raw(b, "pending_supplied", "true", 4);
    jw_open(b, "problems", '[');
    for (size_t i = 0; i < info->problem_count; i++)
        jw_text(b, NULL, info->problems[i]);
    jw_close(b, ']');
    jw_close(b, '}');
    return buf_error(b);
}

static unsigned read_allowed(struct jval list)
{
    unsigned allowed = 0;

    for (struct jval v = j_first(list); v.node && j_is(list, J_ARRAY); v = j_next(list, v))
        allowed |= allow_bit(v);
    return allowed;
}

static void read_call(struct reading *r, struct jval v)
{
    struct jval decision = j_get(v, "decision");
    struct call *c = add_call(r);

    if (!c)
        return;
    take_text(r, &c->id, j_get(v, "id"));
    take_text(r, &c->tool, j_get(v, "tool"));
    take_text(r, &c->arguments, j_get(v, "arguments"));
    take_text(r, &c->agent, j_get(v, "agent"));
    take_text(r, &c->server, j_get(v, "server"));
    take_text(r, &c->via, j_get(v, "via"));
    take_text(r, &c->group, j_get(v, "group"));
    take_text(r, &c->message, j_get(v, "message"));
    c->is_json = j_equals(j_get(v, "arguments_form"), "json");
    c->kind = j_equals(j_get(v, "kind"), "input") ? CALL_INPUT : CALL_APPROVAL;
    if (j_equals(decision, "approved"))
        c->decision = CALL_APPROVED;
    else if (j_equals(decision, "rejected"))
        c->decision = CALL_REJECTED;
    c->allowed = read_allowed(j_get(v, "allowed"));
    call_finish(r, c);
}

static enum framework framework_from(struct jval name)
{
    for (enum framework f = FRAMEWORK_RAW; f <= FRAMEWORK_CREWAI; f++) {
        if (j_equals(name, framework_name(f)))
            return f;
    }
    return FRAMEWORK_RAW;
}

static enum run_status run_status_from(struct jval name)
{
    for (enum run_status s = RUN_UNKNOWN; s <= RUN_FINAL; s++) {
        if (j_equals(name, run_status_name(s)))
            return s;
    }
    return RUN_UNKNOWN;
}

static void read_lists(struct reading *r, struct jval root)
{
    struct jval pending = j_get(root, "pending"), problems = j_get(root, "problems");

    for (struct jval v = j_first(pending); v.node && j_is(pending, J_ARRAY); v = j_next(pending, v))
        read_call(r, v);
    for (struct jval v = j_first(problems); v.node && j_is(problems, J_ARRAY); v = j_next(problems, v)) {
        cleanup_free char *text = NULL;
        take_text(r, &text, v);
        if (text)
            add_problem(r, "%s", text);
    }
}

static void read_envelope(struct reading *r, struct jval root)
{
    struct state_info *info = r->info;
    struct jval usage = j_get(root, "usage"), trace = j_get(root, "trace");

    info->framework = framework_from(j_get(root, "framework"));
    info->status = run_status_from(j_get(root, "status"));
    info->turn = take_int(j_get(root, "turn"));
    info->max_turns = take_int(j_get(root, "max_turns"));
    info->usage = (struct usage){take_int(j_get(usage, "requests")), take_int(j_get(usage, "input")),
                                 take_int(j_get(usage, "output")), take_int(j_get(usage, "total"))};
    info->created_at = take_time(r, j_get(root, "created_at"));
    info->pending_supplied = j_is(j_get(root, "pending_supplied"), J_TRUE);
    take_text(r, &info->schema_version, j_get(root, "schema_version"));
    take_text(r, &info->agent, j_get(root, "agent"));
    take_text(r, &info->model, j_get(root, "model"));
    take_text(r, &info->run_id, j_get(root, "run_id"));
    take_text(r, &info->step_id, j_get(root, "step_id"));
    take_text(r, &info->parent, j_get(root, "parent"));
    take_text(r, &info->snapshot_id, j_get(root, "snapshot_id"));
    take_text(r, &info->trace_id, j_get(trace, "id"));
    take_text(r, &info->trace_group, j_get(trace, "group_id"));
    take_text(r, &info->trace_workflow, j_get(trace, "workflow"));
    read_lists(r, root);
}

int state_from_json(const char *json, size_t n, struct state_info *ret, struct err *e)
{
    cleanup_jdoc struct jdoc doc = {0};
    struct state_info info;
    struct reading r = {.info = &info};
    int parsed = jdoc_parse(json, n, &doc);

    if (parsed == -ENOMEM)
        return err_set(e, ENOMEM, "out of memory while reading a stored envelope");
    if (parsed < 0 || !j_is(j_root(&doc), J_OBJECT))
        return err_set(e, EINVAL, "the stored envelope isn't a JSON object");
    state_info_init(&info);
    read_envelope(&r, j_root(&doc));
    if (r.oom) {
        state_info_free(&info);
        return err_set(e, ENOMEM, "out of memory while reading a stored envelope");
    }
    *ret = info;
    return 0;
}

/* -- What the writer supplies ----------------------------------------------------------------------------------------- */

/* Whether the state says itself which calls are pending. Those of the other frameworks name what waits, but not what it is about. */
static bool state_lists_calls(const struct state_info *info)
{
    switch (info->framework) {
    case FRAMEWORK_OPENAI_PYTHON:
    case FRAMEWORK_OPENAI_JS:
    case FRAMEWORK_PYDANTIC_AI:
    case FRAMEWORK_GOOGLE_ADK:
    case FRAMEWORK_LANGGRAPH_PYTHON:
    case FRAMEWORK_LANGGRAPH_JS: return info->pending_count > 0;
    case FRAMEWORK_RAW:
    case FRAMEWORK_LLAMAINDEX:
    case FRAMEWORK_MS_AGENT:
    case FRAMEWORK_AUTOGEN:
    case FRAMEWORK_CLAUDE:
    case FRAMEWORK_CREWAI: return false;
    }
    return false;
}

static void supply_call(struct reading *r, struct jval v)
{
    struct call *c = add_call(r);

    if (!c)
        return;
    take_text(r, &c->id, j_get(v, "id"));
    take_text(r, &c->tool, j_get(v, "tool"));
    take_text(r, &c->agent, j_get(v, "agent"));
    take_arguments(r, c, j_get(v, "arguments"));
    c->kind = j_equals(j_get(v, "kind"), "input") ? CALL_INPUT : CALL_APPROVAL;
    c->allowed = read_allowed(j_get(v, "allowed"));
    if (c->allowed == 0)
        c->allowed = c->kind == CALL_INPUT ? ALLOW_RESPOND : ALLOW_APPROVE | ALLOW_REJECT | ALLOW_EDIT | ALLOW_RESPOND;
    call_finish(r, c);
}

static void supply_calls(struct reading *r, struct jval list)
{
    struct state_info *info = r->info;

    for (size_t i = 0; i < info->pending_count; i++)
        call_clear(&info->pending[i]);
    info->pending_count = 0;
    free(info->pending);
    info->pending = NULL;
    for (struct jval v = j_first(list); v.node; v = j_next(list, v))
        supply_call(r, v);
    if (info->pending_count > 0)
        info->status = state_waits_for_input(info) ? RUN_WAITING_INPUT : RUN_INTERRUPTED;
}

int state_supply(struct state_info *info, const struct meta *m, struct err *e)
{
    struct reading r = {.info = info};
    cleanup_jdoc struct jdoc doc = {0};

    if (!m->pending || json_array_size(m->pending) == 0)
        return 0;
    if (state_lists_calls(info)) {
        add_problem(&r, "\"pending\" in meta.json is not used: the %s state lists its own pending calls",
                    framework_name(info->framework));
        return r.oom ? err_set(e, ENOMEM, "out of memory while reading meta.json") : 0;
    }
    if (jdoc_parse(m->text, strlen(m->text), &doc) < 0)
        return err_set(e, ENOMEM, "out of memory while reading meta.json");
    if (info->status == RUN_FINAL)
        info->status = RUN_UNKNOWN; /* the writer knows better */
    supply_calls(&r, j_get(j_root(&doc), "pending"));
    info->pending_supplied = true;
    return r.oom ? err_set(e, ENOMEM, "out of memory while reading meta.json") : 0;
}
