/* What happened in a run, item by item, for each framework whose states hold it. See transcript_i.h. */
#include "transcript_i.h"

#include <stdlib.h>
#include <string.h>

#include "formats_i.h"
#include "markdown_i.h"
#include "util/cleanup.h"

static void add_name(struct transcript *t, const char *before, struct jval v, const char *after)
{
    cleanup_free char *text = NULL;

    if (j_string(v, &text) < 0)
        t->oom = true;
    if (!text || !*text)
        return;
    buf_adds(t->b, before);
    md_code(t->b, text);
    buf_adds(t->b, after);
}

void step_heading(struct transcript *t, const char *what, struct jval name, struct jval id, struct jval agent)
{
    buf_addf(t->b, "### %zu. %s", ++t->steps, what);
    add_name(t, " ", name, "");
    add_name(t, " (", id, ")");
    add_name(t, ", by ", agent, "");
    buf_adds(t->b, "\n\n");
}

void step_arguments(struct transcript *t, struct jval arguments)
{
    cleanup_buf struct buf text = {0};

    if (!j_has(arguments))
        return;
    if (j_is(arguments, J_STRING))
        j_add_string(&text, arguments);
    else
        j_add_compact(&text, arguments);
    t->oom |= buf_error(&text) != 0;
    md_json_block(t->b, text.len ? text.data : "", text.len);
}

/* -- OpenAI Agents SDK ------------------------------------------------------------------------------------------------ */

static const struct jval nothing;

/* An item of the Responses API, as in original_input: a message, a call, or its output. */
static void input_item(struct transcript *t, struct jval item)
{
    struct jval role = j_get(item, "role"), type = j_get(item, "type");

    if (j_has(role)) {
        step_heading(t, "Message from", role, nothing, nothing);
        md_value(t->b, j_get(item, "content"));
    } else if (j_get(item, "arguments").node) {
        step_heading(t, "Call of", j_get(item, "name"), j_either(item, "call_id", "callId"), nothing);
        step_arguments(t, j_get(item, "arguments"));
    } else if (j_get(item, "output").node) {
        step_heading(t, "Output", nothing, j_either(item, "call_id", "callId"), nothing);
        md_value(t->b, j_get(item, "output"));
    } else {
        step_heading(t, "Item", type, nothing, nothing);
        md_value(t->b, item);
    }
}

static void openai_input(struct transcript *t, struct jval input)
{
    if (!j_has(input))
        return;
    buf_adds(t->b, "## Input\n\n");
    if (!j_is(input, J_ARRAY)) {
        md_value(t->b, input);
        return;
    }
    for (struct jval item = j_first(input); item.node; item = j_next(input, item))
        input_item(t, item);
}

static void tool_call(struct transcript *t, struct jval item, struct jval raw, struct jval agent)
{
    struct jval name = j_either(item, "tool_name", "toolName");
    struct jval arguments = j_get(raw, "arguments");

    if (!j_has(name))
        name = j_either(raw, "name", "type");
    step_heading(t, "Call of", name, j_has(j_get(raw, "call_id")) ? j_get(raw, "call_id") : j_either(raw, "callId", "id"), agent);
    step_arguments(t, j_has(arguments) ? arguments : j_either(raw, "action", "operation"));
}

static void tool_output(struct transcript *t, struct jval item, struct jval raw)
{
    struct jval output = j_get(item, "output");

    step_heading(t, "Output", j_get(raw, "name"), j_either(raw, "call_id", "callId"), nothing);
    md_value(t->b, j_has(output) ? output : j_get(raw, "output"));
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
        md_value(t->b, j_get(raw, "content"));
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
            md_value(t->b, text);
    } else {
        step_heading(t, "Item", type, nothing, agent);
        md_value(t->b, j_has(raw) ? raw : item);
    }
}

void transcript_openai(struct transcript *t, struct jval root, bool js)
{
    struct jval items = j_get(root, js ? "generatedItems" : "generated_items"), session = j_get(root, "session_items");
    struct jval staged = j_either(root, "pending_input", "pendingInput");
    struct jval final = j_path(root, "currentStep.output");

    openai_input(t, j_either(root, "original_input", "originalInput"));
    if (j_count(session) > j_count(items)) /* a handoff may have trimmed what the model sees */
        items = session;
    buf_adds(t->b, "## Run\n\n");
    for (struct jval i = j_first(items); i.node && j_is(items, J_ARRAY); i = j_next(items, i))
        openai_item(t, i);
    for (struct jval i = j_first(staged); i.node && j_is(staged, J_ARRAY); i = j_next(staged, i))
        input_item(t, i);
    if (j_has(final)) {
        buf_adds(t->b, "## Final output\n\n");
        md_value(t->b, final);
    }
}

/* -- Chat messages ---------------------------------------------------------------------------------------------------- */

static void message_calls(struct transcript *t, struct jval calls)
{
    if (!j_is(calls, J_ARRAY))
        return;
    for (struct jval c = j_first(calls); c.node; c = j_next(calls, c)) {
        struct jval function = j_get(c, "function");
        step_heading(t, "Call of", j_has(function) ? j_get(function, "name") : j_get(c, "name"), j_get(c, "id"), nothing);
        step_arguments(t, j_has(function) ? j_get(function, "arguments") : j_either(c, "args", "arguments"));
    }
}

static bool is_blank(struct jval content)
{
    return !j_has(content) || j_equals(content, "") || (j_is(content, J_ARRAY) && j_count(content) == 0);
}

static void chat_message(struct transcript *t, struct jval message)
{
    struct jval fields = message_fields(message), content = j_get(fields, "content");
    struct reading r = {0};
    cleanup_free char *role = message_role(&r, message);

    t->oom |= r.oom;
    if (role && strcmp(role, "tool") == 0) {
        step_heading(t, "Output", j_get(fields, "name"), j_get(fields, "tool_call_id"), nothing);
        md_value(t->b, content);
        return;
    }
    if (!is_blank(content)) {
        buf_addf(t->b, "### %zu. Message from ", ++t->steps);
        md_code(t->b, role ? role : "?");
        buf_adds(t->b, "\n\n");
        md_value(t->b, content);
    }
    message_calls(t, j_get(fields, "tool_calls"));
}

void transcript_messages(struct transcript *t, struct jval messages)
{
    for (struct jval m = j_first(messages); m.node; m = j_next(messages, m))
        chat_message(t, m);
}

void transcript_langgraph(struct transcript *t, struct jval root)
{
    struct jval messages = langgraph_messages(root), values = j_path(root, "checkpoint.channel_values");

    buf_adds(t->b, "## Run\n\n");
    if (j_is(messages, J_ARRAY))
        transcript_messages(t, messages);
    else
        md_value(t->b, values.node ? values : j_either(root, "channel_values", "values"));
}

/* -- LlamaIndex ----------------------------------------------------------------------------------------------------------- */

/* Every value is a string that holds JSON. */
static void llamaindex_value(struct transcript *t, struct jval v)
{
    struct reading r = {0};
    struct jdoc doc = {0};
    char *text = NULL;
    struct jval inner;

    if (!parse_inner(&r, v, &doc, &text)) {
        t->oom |= r.oom;
        md_value(t->b, v);
        return;
    }
    inner = j_root(&doc);
    if (j_is(inner, J_ARRAY) && j_get(j_first(inner), "role").node)
        transcript_messages(t, inner);
    else
        md_value(t->b, inner);
    jdoc_free(&doc);
    free(text);
}

void transcript_llamaindex(struct transcript *t, struct jval root)
{
    struct jval data = j_path(root, "state.state_data._data");

    if (!j_is(data, J_OBJECT))
        data = j_path(root, "globals");
    buf_adds(t->b, "## Run\n\n");
    for (struct jval v = j_first(data); v.node && j_is(data, J_OBJECT); v = j_next(data, v)) {
        add_name(t, "State ", j_key(v), ":\n\n");
        llamaindex_value(t, v);
    }
}

/* -- Pydantic AI ------------------------------------------------------------------------------------------------------------ */

static void pydantic_part(struct transcript *t, struct jval part)
{
    struct jval kind = j_get(part, "part_kind"), content = j_get(part, "content");

    if (j_equals(kind, "tool-call")) {
        step_heading(t, "Call of", j_get(part, "tool_name"), j_get(part, "tool_call_id"), nothing);
        step_arguments(t, j_get(part, "args"));
    } else if (j_equals(kind, "tool-return") || j_equals(kind, "retry-prompt")) {
        step_heading(t, "Output", j_get(part, "tool_name"), j_get(part, "tool_call_id"), nothing);
        md_value(t->b, content);
    } else {
        step_heading(t, "Message", kind, nothing, nothing);
        md_value(t->b, j_has(content) ? content : part);
    }
}

void transcript_pydantic_ai(struct transcript *t, struct jval root)
{
    buf_adds(t->b, "## Run\n\n");
    for (struct jval m = j_first(root); m.node; m = j_next(root, m)) {
        struct jval parts = j_get(m, "parts");
        for (struct jval p = j_first(parts); p.node && j_is(parts, J_ARRAY); p = j_next(parts, p))
            pydantic_part(t, p);
    }
}
