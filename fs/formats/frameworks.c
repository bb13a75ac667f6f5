/* States of LlamaIndex Workflows, Microsoft's Agent Framework, AutoGen and Pydantic AI. reference/frameworks.md §4, §5. */
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

void read_llamaindex(struct reading *r, struct jval root)
{
    struct state_info *info = r->info;
    struct jval workers = j_get(root, "workers"), running = j_get(root, "is_running");
    bool at_work = false;

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
        info->status = at_work || !j_is(workers, J_OBJECT) ? RUN_RUNNABLE : RUN_WAITING_INPUT;
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

/* -- Pydantic AI ------------------------------------------------------------------------------------------------------ */

static bool answers(struct jval part, const char *id)
{
    struct jval kind = j_get(part, "part_kind");

    return (j_equals(kind, "tool-return") || j_equals(kind, "retry-prompt")) && j_equals(j_get(part, "tool_call_id"), id);
}

/* Whether a message after `from` returns the call `id`. */
static bool is_answered(struct jval messages, struct jval from, const char *id)
{
    for (struct jval m = j_next(messages, from); m.node; m = j_next(messages, m)) {
        struct jval parts = j_get(m, "parts");
        for (struct jval p = j_first(parts); p.node && j_is(parts, J_ARRAY); p = j_next(parts, p)) {
            if (answers(p, id))
                return true;
        }
    }
    return false;
}

static void read_tool_call(struct reading *r, struct jval messages, struct jval response, struct jval part)
{
    cleanup_free char *id = NULL;
    struct call *c;

    take_text(r, &id, j_get(part, "tool_call_id"));
    if (id && is_answered(messages, response, id))
        return;
    c = add_call(r);
    if (!c)
        return;
    c->id = id;
    id = NULL;
    take_text(r, &c->tool, j_get(part, "tool_name"));
    take_arguments(r, c, j_get(part, "args"));
    c->allowed = ALLOW_APPROVE | ALLOW_REJECT | ALLOW_EDIT;
    call_finish(r, c);
}

static void sum(int64_t *total, struct jval v)
{
    int64_t n = take_int(v);

    if (n >= 0 && *total < INT64_MAX - n)
        *total = (*total < 0 ? 0 : *total) + n;
}

static void read_response(struct reading *r, struct jval message)
{
    struct state_info *info = r->info;
    struct jval usage = j_get(message, "usage");

    take_text(r, &info->model, j_get(message, "model_name"));
    sum(&info->usage.input, j_either(usage, "input_tokens", "request_tokens"));
    sum(&info->usage.output, j_either(usage, "output_tokens", "response_tokens"));
    sum(&info->usage.total, j_get(usage, "total_tokens"));
    info->usage.requests = info->usage.requests < 0 ? 1 : info->usage.requests + 1;
}

void read_pydantic_ai(struct reading *r, struct jval root)
{
    struct state_info *info = r->info;
    struct jval last = j_last(root), response = {0}, parts;

    for (struct jval m = j_first(root); m.node; m = j_next(root, m)) {
        if (!j_equals(j_get(m, "kind"), "response"))
            continue;
        read_response(r, m);
        response = m;
    }
    info->turn = info->usage.requests;
    take_text(r, &info->run_id, j_either(last, "run_id", "conversation_id"));
    info->created_at = take_time(r, j_get(last, "timestamp"));
    if (info->created_at == 0)
        info->created_at = take_time(r, j_get(response, "timestamp"));
    parts = j_get(response, "parts");
    for (struct jval p = j_first(parts); p.node && j_is(parts, J_ARRAY); p = j_next(parts, p)) {
        if (j_equals(j_get(p, "part_kind"), "tool-call"))
            read_tool_call(r, root, response, p);
    }
    if (info->pending_count > 0)
        info->status = RUN_INTERRUPTED;
    else
        info->status = j_equals(j_get(last, "kind"), "response") ? RUN_FINAL : RUN_RUNNABLE;
}
