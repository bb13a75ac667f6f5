/* States of LlamaIndex Workflows, Microsoft's Agent Framework, AutoGen, CrewAI and Pydantic AI. reference/frameworks.md §4, §5. */
#include <stdlib.h>
#include <string.h>

#include "formats_i.h"
#include "util/cleanup.h"

/* -- LlamaIndex Workflows --------------------------------------------------------------------------------------------- */

/* A question that a step waits on. Its text isn't in the state: the writer supplies it in meta.json. */
static void read_waiter(struct reading *r, struct jval waiter, struct jval step)
{
    struct call *c;

    if (j_has(j_get(waiter, "resolved_event")))
        return;
    c = add_call(r);
    if (!c)
        return;
    take_text(r, &c->id, j_get(waiter, "waiter_id"));
    take_text(r, &c->agent, step);
    c->kind = CALL_INPUT;
    c->allowed = ALLOW_RESPOND;
    call_finish(r, c);
}

/* Returns whether the step has work at hand. */
static bool read_worker(struct reading *r, struct jval worker)
{
    struct jval waiters = j_get(worker, "collected_waiters");

    for (struct jval w = j_first(waiters); w.node && j_is(waiters, J_ARRAY); w = j_next(waiters, w))
        read_waiter(r, w, j_key(worker));
    return j_count(j_get(worker, "queue")) > 0 || j_count(j_get(worker, "in_progress")) > 0;
}

/* Before version 1 a queue is a string that holds a list. */
static bool is_at_work_v0(struct jval root)
{
    static const char *const lists[] = {"queues", "in_progress"};
    bool at_work = false;

    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        struct jval steps = j_get(root, lists[i]);
        for (struct jval s = j_is(steps, J_OBJECT) ? j_first(steps) : (struct jval){0}; s.node; s = j_next(steps, s))
            at_work |= j_is(s, J_STRING) ? !j_equals(s, "[]") : j_count(s) > 0;
    }
    return at_work;
}

void read_llamaindex(struct reading *r, struct jval root)
{
    struct state_info *info = r->info;
    struct jval workers = j_get(root, "workers"), running = j_get(root, "is_running");
    bool at_work = !j_is(workers, J_OBJECT) && is_at_work_v0(root);

    take_text(r, &info->schema_version, j_get(root, "version"));
    if (j_is(workers, J_OBJECT)) {
        for (struct jval w = j_first(workers); w.node; w = j_next(workers, w))
            at_work |= read_worker(r, w);
    }
    if (info->pending_count > 0 || j_count(j_get(root, "waiting_ids")) > 0)
        info->status = RUN_WAITING_INPUT;
    else if (j_is(running, J_FALSE))
        info->status = RUN_FINAL;
    else if (j_is(running, J_TRUE))
        info->status = at_work ? RUN_RUNNABLE : RUN_WAITING_INPUT;
}

/* -- Microsoft Agent Framework ---------------------------------------------------------------------------------------- */

void read_ms_agent(struct reading *r, struct jval root)
{
    struct state_info *info = r->info;
    struct jval events = j_get(root, "pending_request_info_events");

    take_text(r, &info->schema_version, j_get(root, "version"));
    take_text(r, &info->agent, j_get(root, "workflow_name"));
    take_text(r, &info->step_id, j_get(root, "checkpoint_id"));
    take_text(r, &info->parent, j_get(root, "previous_checkpoint_id"));
    info->turn = take_int(j_get(root, "iteration_count"));
    info->created_at = take_time(r, j_get(root, "timestamp"));
    for (struct jval v = j_first(events); v.node && j_is(events, J_OBJECT); v = j_next(events, v)) {
        struct call *c = add_call(r);
        if (!c)
            return;
        take_text(r, &c->id, j_key(v));
        take_arguments(r, c, v);
        c->kind = CALL_INPUT;
        c->allowed = ALLOW_RESPOND;
        call_finish(r, c);
    }
    info->status = info->pending_count ? RUN_WAITING_INPUT : RUN_UNKNOWN;
}

/* -- AutoGen ---------------------------------------------------------------------------------------------------------- */

void read_autogen(struct reading *r, struct jval root)
{
    take_text(r, &r->info->schema_version, j_get(root, "version"));
    take_text(r, &r->info->agent, j_get(root, "type"));
}

/* -- CrewAI ----------------------------------------------------------------------------------------------------------- */

bool crewai_part(struct reading *r, struct jval root, const char *text_key, const char *key, struct jdoc *ret_doc, char **ret_text,
                 struct jval *ret)
{
    struct jval v = j_get(root, key), text = j_get(root, text_key);

    if (j_is(v, J_OBJECT)) {
        *ret = v;
        return true;
    }
    if (!parse_inner(r, text, ret_doc, ret_text))
        return false;
    *ret = j_root(ret_doc);
    return j_is(*ret, J_OBJECT);
}

/* What the flow shows to whoever gives feedback on one of its methods. */
static void take_feedback(struct reading *r, struct call *c, struct jval context)
{
    static const char *const keys[] = {"method_name", "message", "method_output", "emit"};
    cleanup_buf struct buf shown = {0};

    jw_open(&shown, NULL, '{');
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        cleanup_buf struct buf json = {0};
        if (!j_has(j_get(context, keys[i])))
            continue;
        j_add_compact(&json, j_get(context, keys[i]));
        shown.failed |= buf_error(&json) != 0;
        jw_raw(&shown, keys[i], json.data ? json.data : "", json.len);
    }
    jw_close(&shown, '}');
    c->is_json = true;
    c->arguments = buf_steal(&shown);
    r->oom |= !c->arguments;
}

static void read_feedback(struct reading *r, struct jval context)
{
    struct state_info *info = r->info;
    struct call *c = add_call(r);

    if (!c)
        return;
    take_text(r, &c->id, j_get(context, "flow_id"));
    take_text(r, &c->agent, j_get(context, "flow_class"));
    take_feedback(r, c, context);
    c->kind = CALL_INPUT;
    c->allowed = ALLOW_RESPOND;
    call_finish(r, c);
    take_text(r, &info->agent, j_get(context, "flow_class"));
    take_text(r, &info->run_id, j_get(context, "flow_id"));
    take_text(r, &info->step_id, j_get(context, "method_name"));
    info->status = RUN_WAITING_INPUT;
}

void read_crewai(struct reading *r, struct jval root)
{
    struct state_info *info = r->info;
    cleanup_jdoc struct jdoc doc = {0};
    cleanup_free char *text = NULL;
    struct jval context = root;

    take_text(r, &info->run_id, j_get(root, "flow_uuid"));
    take_text(r, &info->step_id, j_get(root, "method_name"));
    info->created_at = take_time(r, j_either(root, "created_at", "timestamp"));
    if (j_has(j_get(root, "flow_class")) || crewai_part(r, root, "context_json", "context", &doc, &text, &context))
        read_feedback(r, context);
}

/* -- Pydantic AI ------------------------------------------------------------------------------------------------------ */

/* The ids of the calls that a message after `from` returns. */
static void collect_returns(struct reading *r, struct jval messages, struct jval from, struct id_set *returned)
{
    for (struct jval m = j_next(messages, from); m.node; m = j_next(messages, m)) {
        struct jval parts = j_get(m, "parts");
        for (struct jval p = j_first(parts); p.node && j_is(parts, J_ARRAY); p = j_next(parts, p)) {
            struct jval kind = j_get(p, "part_kind");
            if (j_equals(kind, "tool-return") || j_equals(kind, "retry-prompt"))
                id_set_add(r, returned, j_get(p, "tool_call_id"));
        }
    }
    id_set_sort(returned);
}

static void read_tool_call(struct reading *r, struct jval part)
{
    struct call *c = add_call(r);

    if (!c)
        return;
    take_text(r, &c->id, j_get(part, "tool_call_id"));
    take_text(r, &c->tool, j_get(part, "tool_name"));
    take_arguments(r, c, j_get(part, "args"));
    c->allowed = ALLOW_APPROVE | ALLOW_REJECT | ALLOW_EDIT;
    call_finish(r, c);
}

static void read_response(struct reading *r, struct jval message)
{
    struct state_info *info = r->info;
    struct jval usage = j_get(message, "usage");

    take_text(r, &info->model, j_get(message, "model_name"));
    add_tokens(&info->usage.input, j_either(usage, "input_tokens", "request_tokens"));
    add_tokens(&info->usage.output, j_either(usage, "output_tokens", "response_tokens"));
    add_tokens(&info->usage.total, j_get(usage, "total_tokens"));
    info->usage.requests = info->usage.requests < 0 ? 1 : info->usage.requests + 1;
}

void read_pydantic_ai(struct reading *r, struct jval root)
{
    struct state_info *info = r->info;
    struct jval last = j_last(root), response = {0}, parts;
    struct id_set returned = {0};

    for (struct jval m = j_first(root); m.node; m = j_next(root, m)) {
        if (!j_equals(j_get(m, "kind"), "response"))
            continue;
        read_response(r, m);
        response = m;
    }
    info->turn = info->usage.requests;
    take_text(r, &info->run_id, j_either(last, "conversation_id", "run_id")); /* what goes on after a decision has a new run_id */
    if (j_has(j_get(last, "conversation_id")))
        take_text(r, &info->step_id, j_get(last, "run_id"));
    info->created_at = take_time(r, j_get(last, "timestamp"));
    if (info->created_at == 0)
        info->created_at = take_time(r, j_get(response, "timestamp"));
    if (response.node)
        collect_returns(r, root, response, &returned);
    parts = j_get(response, "parts");
    for (struct jval p = j_first(parts); p.node && j_is(parts, J_ARRAY); p = j_next(parts, p)) {
        if (j_equals(j_get(p, "part_kind"), "tool-call") && !id_set_has(r, &returned, j_get(p, "tool_call_id")))
            read_tool_call(r, p);
    }
    id_set_free(&returned);
    if (info->pending_count > 0)
        info->status = RUN_INTERRUPTED;
    else
        info->status = j_equals(j_get(last, "kind"), "response") ? RUN_FINAL : RUN_RUNNABLE;
}
