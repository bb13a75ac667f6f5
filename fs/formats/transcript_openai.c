/* What happened in a run of the OpenAI Agents SDK, agents used as tools included. See transcript_i.h. */
#include <string.h>

#include "markdown_i.h"
#include "openai_i.h"
#include "transcript_i.h"

static const struct jval nothing;

/* An item of the Responses API, as in original_input: a message, a call, or its output. */
static void input_item(struct transcript *t, struct jval item)
{
    struct jval role = j_get(item, "role"), type = j_get(item, "type");

    if (j_has(role)) {
        step_heading(t, "Message from", role, nothing, nothing);
        step_value(t, j_get(item, "content"));
    } else if (j_get(item, "arguments").node) {
        step_heading(t, "Call of", j_get(item, "name"), j_either(item, "call_id", "callId"), nothing);
        step_arguments(t, j_get(item, "arguments"));
    } else if (j_get(item, "output").node) {
        step_heading(t, "Output", nothing, j_either(item, "call_id", "callId"), nothing);
        step_value(t, j_get(item, "output"));
    } else {
        step_heading(t, "Item", type, nothing, nothing);
        step_value(t, item);
    }
}

static void openai_input(struct transcript *t, struct jval input)
{
    if (!j_has(input))
        return;
    buf_adds(t->b, "## Input\n\n");
    if (!j_is(input, J_ARRAY)) {
        step_value(t, input);
        return;
    }
    for (struct jval item = j_first(input); item.node; item = j_next(input, item))
        input_item(t, item);
}

static void tool_call(struct transcript *t, struct jval item, struct jval raw, struct jval agent)
{
    struct jval name = j_either(item, "tool_name", "toolName"), provider = j_either(raw, "provider_data", "providerData");
    struct jval id = j_has(j_get(raw, "call_id")) ? j_get(raw, "call_id") : j_either(raw, "callId", "id"), arguments;

    if (!j_has(name))
        name = j_has(j_get(provider, "name")) ? j_get(provider, "name") : j_either(raw, "name", "type");
    step_heading(t, "Call of", name, id, agent);
    arguments = openai_arguments(raw, provider);
    if (arguments.node != raw.node)
        step_arguments(t, arguments);
}

static void tool_output(struct transcript *t, struct jval item, struct jval raw)
{
    struct jval output = j_get(item, "output");

    step_heading(t, "Output", j_get(raw, "name"), j_either(raw, "call_id", "callId"), nothing);
    step_value(t, j_has(output) ? output : j_get(raw, "output"));
}

static void handoff(struct transcript *t, struct jval item)
{
    struct jval from = j_either(item, "source_agent", "sourceAgent"), to = j_either(item, "target_agent", "targetAgent");

    step_heading(t, "Handoff to", j_get(to, "name"), nothing, j_get(from, "name"));
}

static void openai_item(struct transcript *t, struct jval item)
{
    struct jval type = j_get(item, "type"), raw = j_either(item, "raw_item", "rawItem"), agent = j_path(item, "agent.name");

    if (j_equals(type, "tool_approval_item"))
        return; /* comes under "Waiting for a decision", or was decided and has its output */
    if (j_equals(type, "message_output_item")) {
        step_heading(t, "Message", nothing, nothing, agent);
        step_value(t, j_get(raw, "content"));
    } else if (j_equals(type, "tool_call_item") || j_equals(type, "handoff_call_item")) {
        tool_call(t, item, raw, agent);
    } else if (j_equals(type, "tool_call_output_item")) {
        tool_output(t, item, raw);
    } else if (j_equals(type, "handoff_output_item")) {
        handoff(t, item);
    } else if (j_equals(type, "reasoning_item")) {
        struct jval text = j_count(j_get(raw, "summary")) ? j_get(raw, "summary") : j_get(raw, "content");
        step_heading(t, "Reasoning", nothing, nothing, agent);
        if (j_count(text) > 0)
            step_value(t, text);
    } else {
        step_heading(t, "Item", type, nothing, agent);
        step_value(t, j_has(raw) ? raw : item);
    }
}

static void openai_run(struct transcript *t, struct jval root, bool js)
{
    struct jval items = j_get(root, js ? "generatedItems" : "generated_items"), session = j_get(root, "session_items");
    struct jval staged = j_either(root, "pending_input", "pendingInput");

    if (j_count(session) >= j_count(items)) /* a handoff may have trimmed what the model sees */
        items = session;
    for (struct jval i = j_first(items); i.node && j_is(items, J_ARRAY); i = j_next(items, i))
        openai_item(t, i);
    for (struct jval i = j_first(staged); i.node && j_is(staged, J_ARRAY); i = j_next(staged, i))
        input_item(t, i);
}

/* What an agent used as a tool has done so far; it goes away when that agent has answered. */
static void inner_run(struct reading *r, struct jval root, void *arg, unsigned depth)
{
    struct transcript *t = arg, inner = {.b = t->b, .r = r, .left_out = t->left_out};
    bool js = j_get(root, "currentAgent").node != NULL;
    struct jval input = j_either(root, "original_input", "originalInput");

    if (transcript_full(t))
        return;
    buf_adds(t->b, "## Inner run");
    step_name(t, " of ", j_path(root, js ? "currentAgent.name" : "current_agent.name"), "");
    buf_adds(t->b, "\n\n");
    if (j_is(input, J_STRING)) {
        step_heading(&inner, "Input", nothing, nothing, nothing);
        step_value(t, input);
    }
    for (struct jval i = j_first(input); i.node && j_is(input, J_ARRAY); i = j_next(input, i))
        input_item(&inner, i);
    openai_run(&inner, root, js);
    openai_each_nested(r, root, inner_run, t, depth);
}

void transcript_openai(struct transcript *t, struct jval root, bool js)
{
    struct jval final = j_path(root, "currentStep.output");

    openai_input(t, j_either(root, "original_input", "originalInput"));
    buf_adds(t->b, "## Run\n\n");
    openai_run(t, root, js);
    if (j_has(final) && !transcript_full(t)) {
        buf_adds(t->b, "## Final output\n\n");
        step_value(t, final);
    }
    openai_each_nested(t->r, root, inner_run, t, OPENAI_NESTED_MAX);
}
