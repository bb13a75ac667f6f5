/* States of the OpenAI Agents SDK, Python (snake_case) and JS (camelCase). reference/frameworks.md §1.2, §2. */
#include <stdlib.h>
#include <string.h>

#include "openai_i.h"
#include "util/cleanup.h"
#include "util/text.h"

const struct spelling openai_python = {
    "current_turn", "max_turns", "current_agent", "current_step", "raw_item", "call_id", "tool_name", "input_tokens",
    "output_tokens", "total_tokens", "last_model_response", "model_responses", "provider_data", "conversation_id",
};
const struct spelling openai_js = {
    "currentTurn", "maxTurns", "currentAgent", "currentStep", "rawItem", "callId", "toolName", "inputTokens",
    "outputTokens", "totalTokens", "lastModelResponse", "modelResponses", "providerData", "conversationId",
};

struct jval openai_interruptions(struct jval root, const struct spelling *s)
{
    struct jval step = j_get(root, s->step);
    struct jval list = j_path(step, "data.interruptions");

    return list.node ? list : j_get(step, "interruptions"); /* very old states */
}

struct jval openai_arguments(struct jval raw, struct jval provider)
{
    static const char *const keys[] = {"arguments", "action", "actions", "operation", "input"};

    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        if (j_has(j_get(raw, keys[i])))
            return j_get(raw, keys[i]);
    }
    return j_has(j_get(provider, "arguments")) ? j_get(provider, "arguments") : raw;
}

static void read_interruption(struct reading *r, struct jval item, const struct spelling *s)
{
    struct jval raw = j_get(item, s->raw_item), provider = j_get(raw, s->provider_data);
    bool hosted = j_equals(j_get(provider, "type"), "mcp_approval_request");
    struct call *c = add_call(r);

    if (!c)
        return;
    take_text(r, &c->id, j_either(raw, s->call_id, "id"));
    if (!c->id)
        take_text(r, &c->id, j_get(provider, "id"));
    take_text(r, &c->tool, j_has(j_get(item, s->tool_name)) ? j_get(item, s->tool_name) : j_get(hosted ? provider : raw, "name"));
    if (!c->tool)
        take_text(r, &c->tool, j_get(raw, "type")); /* shell_call, apply_patch_call, computer_call */
    take_text(r, &c->agent, j_path(item, "agent.name"));
    take_text(r, &c->server, j_get(raw, "server_label"));
    take_text(r, &c->server, j_either(provider, "server_label", "serverLabel"));
    take_arguments(r, c, openai_arguments(raw, provider));
    c->allowed = ALLOW_APPROVE | ALLOW_REJECT;
    call_finish(r, c);
}

static void read_interruptions(struct reading *r, struct jval list, const struct spelling *s)
{
    if (!j_is(list, J_ARRAY))
        return;
    for (struct jval item = j_first(list); item.node; item = j_next(list, item))
        read_interruption(r, item, s);
}

/* -- States inside the state: agents used as tools -------------------------------------------------------------------- */

/* Calls `fn` for a nested state, which is an object or a string that holds one. */
static void visit_nested(struct reading *r, struct jval v, nested_fn *fn, void *arg, unsigned depth)
{
    struct jdoc doc = {0};
    char *text = NULL;

    if (j_is(v, J_OBJECT)) {
        fn(r, v, arg, depth);
    } else if (parse_inner(r, v, &doc, &text)) {
        fn(r, j_root(&doc), arg, depth);
        jdoc_free(&doc);
        free(text);
    }
}

void openai_each_nested(struct reading *r, struct jval root, nested_fn *fn, void *arg, unsigned depth)
{
    struct jval functions = j_path(root, "last_processed_response.functions");
    struct jval runs = j_get(root, "pendingAgentToolRuns");

    if (depth == 0)
        return;
    if (j_is(functions, J_ARRAY)) {
        for (struct jval f = j_first(functions); f.node; f = j_next(functions, f))
            visit_nested(r, j_get(f, "agent_run_state"), fn, arg, depth - 1);
    }
    if (j_is(runs, J_OBJECT)) {
        for (struct jval run = j_first(runs); run.node; run = j_next(runs, run))
            visit_nested(r, run, fn, arg, depth - 1);
    }
}

/* `arg` is the spelling. */
static void read_nested_interruptions(struct reading *r, struct jval root, void *arg, unsigned depth)
{
    const struct spelling *s = arg;

    read_interruptions(r, openai_interruptions(root, s), s);
    openai_each_nested(r, root, read_nested_interruptions, arg, depth);
}

/* -- The rest --------------------------------------------------------------------------------------------------------- */

static void read_status(struct reading *r, struct jval root, const struct spelling *s)
{
    struct jval step = j_get(root, s->step), type = j_get(step, "type");

    if (!step.node)
        r->info->status = RUN_UNKNOWN;
    else if (j_is(step, J_NULL))
        r->info->status = j_count(j_either(root, "pending_input", "pendingInput")) ? RUN_RUNNABLE : RUN_FINAL;
    else if (r->info->pending_count > 0 || j_equals(type, "next_step_interruption"))
        r->info->status = RUN_INTERRUPTED;
    else if (j_equals(type, "next_step_final_output"))
        r->info->status = RUN_FINAL;
    else
        r->info->status =
            j_equals(type, "next_step_run_again") || j_equals(type, "next_step_handoff") ? RUN_RUNNABLE : RUN_UNKNOWN;
}

/* The model's name: beside the response (JS), or on each output item (chat completions). */
static struct jval model_of(struct jval response, const struct spelling *s)
{
    struct jval model = j_get(j_get(response, s->provider_data), "model"), output = j_get(response, "output");

    for (struct jval o = j_is(output, J_ARRAY) ? j_first(output) : output; !j_has(model) && o.node && j_is(output, J_ARRAY);
         o = j_next(output, o))
        model = j_get(j_get(o, s->provider_data), "model");
    return model;
}

static void read_model(struct reading *r, struct jval root, const struct spelling *s)
{
    struct jval response = j_get(root, s->last_response);
    struct jval provider = j_get(response, s->provider_data);
    struct jval model = model_of(response, s);

    if (!j_has(model))
        model = model_of(j_last(j_get(root, s->responses)), s);
    take_text(r, &r->info->model, model);
    r->info->created_at = take_time(r, j_either(provider, "created_at", "created"));
}

static void read_trace(struct reading *r, struct jval root, const struct spelling *s)
{
    struct state_info *info = r->info;
    struct jval trace = j_get(root, "trace");

    if (!j_equals(j_get(trace, "id"), "no-op")) { /* what JS writes while tracing is off */
        take_text(r, &info->trace_id, j_get(trace, "id"));
        take_text(r, &info->trace_group, j_get(trace, "group_id"));
        take_text(r, &info->trace_workflow, j_get(trace, "workflow_name"));
    }
    if (info->trace_group)
        take_text(r, &info->run_id, j_get(trace, "group_id"));
    else if (info->trace_id)
        take_text(r, &info->run_id, j_get(trace, "id"));
    else
        take_text(r, &info->run_id, j_get(root, s->conversation));
}

/* The Python SDK refuses a state without these, and its error doesn't say which: "Error details are redacted." */
static void check_required(struct reading *r, struct jval root)
{
    static const char *const keys[] = {"$schemaVersion", "current_turn", "current_agent", "original_input", "context",
                                       "max_turns"};

    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        if (!j_get(root, keys[i]).node)
            add_problem(r, "%s is missing: openai-agents can't load this state (and its own error doesn't say why)", keys[i]);
    }
}

/* So many calls are named one by one. */
#define NOTED_MAX 8

static void note_approvals(struct reading *r)
{
    size_t noted = 0;

    for (size_t i = 0; i < r->info->pending_count; i++) {
        const struct call *c = &r->info->pending[i];
        if (c->decision != CALL_APPROVED || !c->id || ++noted > NOTED_MAX)
            continue;
        add_problem(r, "%s is already approved inside this state: resuming it runs the tool unless it is rejected", c->id);
    }
    if (noted > NOTED_MAX)
        add_problem(r, "%zu more calls are already approved inside this state", noted - NOTED_MAX);
}

void read_openai(struct reading *r, struct jval root, bool js)
{
    const struct spelling *s = js ? &openai_js : &openai_python;
    struct jval usage = j_path(root, "context.usage");
    struct state_info *info = r->info;

    take_text(r, &info->schema_version, j_get(root, "$schemaVersion"));
    take_text(r, &info->agent, j_get(j_get(root, s->agent), "name"));
    info->turn = take_int(j_get(root, s->turn));
    info->max_turns = take_int(j_get(root, s->max_turns));
    info->usage = (struct usage){take_int(j_get(usage, "requests")), take_int(j_get(usage, s->input_tokens)),
                                 take_int(j_get(usage, s->output_tokens)), take_int(j_get(usage, s->total_tokens))};
    read_model(r, root, s);
    read_trace(r, root, s);
    read_interruptions(r, openai_interruptions(root, s), s);
    if (info->pending_count == 0)
        openai_each_nested(r, root, read_nested_interruptions, (void *)(uintptr_t)s, OPENAI_NESTED_MAX);
    read_status(r, root, s);
    if (!r->oom)
        openai_decisions(r, root, js);
    if (!js)
        check_required(r, root);
    note_approvals(r);
}
