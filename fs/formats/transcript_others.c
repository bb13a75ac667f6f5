/* What happened in a run of Google's ADK, the Claude Agent SDK, AutoGen or CrewAI. See transcript_i.h. */
#include <stdlib.h>
#include <string.h>

#include "markdown_i.h"
#include "transcript_i.h"
#include "util/cleanup.h"

static const struct jval nothing;

/* -- Google's ADK ------------------------------------------------------------------------------------------------------ */

static void adk_part(struct transcript *t, struct jval part, struct jval author)
{
    struct jval call = j_either(part, "functionCall", "function_call"), text = j_get(part, "text");
    struct jval answer = j_either(part, "functionResponse", "function_response");

    if (j_has(call)) {
        step_heading(t, "Call of", j_get(call, "name"), j_get(call, "id"), author);
        step_arguments(t, j_get(call, "args"));
    } else if (j_has(answer)) {
        step_heading(t, "Output", j_get(answer, "name"), j_get(answer, "id"), nothing);
        step_value(t, j_get(answer, "response"));
    } else if (j_has(text)) {
        step_heading(t, j_is(j_get(part, "thought"), J_TRUE) ? "Reasoning of" : "Message from", author, nothing, nothing);
        step_value(t, text);
    } else {
        step_heading(t, "Part from", author, nothing, nothing);
        step_outline(t, part, nothing);
    }
}

static void adk_event(struct transcript *t, struct jval event)
{
    struct jval parts = adk_parts(event), author = j_get(event, "author"), actions = j_get(event, "actions");
    struct jval delta = j_either(actions, "stateDelta", "state_delta"), to = j_either(actions, "transferToAgent", "transfer_to_agent");
    struct jval error = j_either(event, "errorMessage", "error_message");

    for (struct jval p = j_first(parts); p.node; p = j_next(parts, p))
        adk_part(t, p, author);
    if (j_has(to))
        step_heading(t, "Handoff to", to, nothing, author);
    if (j_count(delta) > 0) {
        step_heading(t, "Change of the state", nothing, nothing, author);
        step_outline(t, delta, nothing);
    }
    if (j_has(error)) {
        step_heading(t, "Error", nothing, nothing, author);
        step_value(t, error);
    }
}

void transcript_google_adk(struct transcript *t, struct jval root)
{
    struct jval events = j_get(root, "events"), state = j_get(root, "state");

    buf_adds(t->b, "## Run\n\n");
    for (struct jval e = j_is(events, J_ARRAY) ? j_first(events) : nothing; e.node; e = j_next(events, e))
        adk_event(t, e);
    if (j_count(state) == 0 || transcript_full(t))
        return;
    buf_adds(t->b, "## State\n\n");
    step_outline(t, state, nothing);
}

/* -- Claude Agent SDK -------------------------------------------------------------------------------------------------- */

void transcript_claude(struct transcript *t, struct jval root)
{
    buf_adds(t->b, "## Run\n\n");
    for (struct jval l = j_first(root); l.node; l = j_next(root, l)) {
        struct jval message = j_get(l, "message"), role = j_get(message, "role"), agent = j_get(l, "agentId");

        if (j_is(message, J_OBJECT)) {
            transcript_content(t, j_has(role) ? role : j_get(l, "type"), agent, j_get(message, "content"), false);
        } else if (j_has(j_get(l, "summary"))) {
            step_heading(t, "Summary", nothing, nothing, nothing);
            step_value(t, j_get(l, "summary"));
        } else if (j_equals(j_get(l, "type"), "system") && j_has(j_get(l, "content"))) {
            step_heading(t, "Note of the system", j_get(l, "subtype"), nothing, nothing);
            step_value(t, j_get(l, "content"));
        }
    }
}

/* -- AutoGen ----------------------------------------------------------------------------------------------------------- */

/* A call, or its outcome, in a list of them. */
static void autogen_part(struct transcript *t, struct jval part, struct jval source)
{
    if (j_has(j_get(part, "call_id"))) {
        step_heading(t, j_is(j_get(part, "is_error"), J_TRUE) ? "Error" : "Output", j_get(part, "name"), j_get(part, "call_id"), nothing);
        step_value(t, j_get(part, "content"));
    } else if (j_has(j_get(part, "arguments"))) {
        step_heading(t, "Call of", j_get(part, "name"), j_get(part, "id"), source);
        step_arguments(t, j_get(part, "arguments"));
    } else {
        step_heading(t, "Part from", source, nothing, nothing);
        step_value(t, part);
    }
}

static void autogen_messages(struct transcript *t, struct jval messages)
{
    for (struct jval m = j_is(messages, J_ARRAY) ? j_first(messages) : nothing; m.node; m = j_next(messages, m)) {
        struct jval content = j_get(m, "content"), source = j_either(m, "source", "type");

        if (j_is(content, J_ARRAY)) {
            for (struct jval p = j_first(content); p.node; p = j_next(content, p))
                autogen_part(t, p, source);
        } else {
            step_heading(t, "Message from", source, nothing, nothing);
            step_value(t, j_has(content) ? content : m);
        }
    }
}

/* What an agent of the team has in its own context, where no manager keeps the thread of all. */
static void autogen_agents(struct transcript *t, struct jval agents)
{
    for (struct jval a = j_first(agents); a.node; a = j_next(agents, a)) {
        struct jval inner = j_has(j_get(a, "agent_state")) ? j_get(a, "agent_state") : a;
        struct transcript own = {.b = t->b, .r = t->r, .left_out = t->left_out};

        if (transcript_full(t))
            continue;
        buf_adds(t->b, "## Context");
        step_name(t, " of ", j_key(a), "");
        buf_adds(t->b, "\n\n");
        autogen_messages(&own, j_path(inner, "llm_context.messages"));
    }
}

void transcript_autogen(struct transcript *t, struct jval root)
{
    struct jval agents = j_get(root, "agent_states"), thread = nothing;

    for (struct jval a = j_is(agents, J_OBJECT) ? j_first(agents) : nothing; a.node && !thread.node; a = j_next(agents, a))
        thread = j_get(a, "message_thread");
    if (j_is(agents, J_OBJECT) && !j_is(thread, J_ARRAY)) {
        autogen_agents(t, agents);
        return;
    }
    buf_adds(t->b, "## Run\n\n");
    autogen_messages(t, j_is(thread, J_ARRAY) ? thread : j_path(root, "llm_context.messages"));
}

/* -- CrewAI ------------------------------------------------------------------------------------------------------------ */

void transcript_crewai(struct transcript *t, struct jval root)
{
    cleanup_jdoc struct jdoc doc = {0};
    cleanup_free char *text = NULL;
    struct jval state = root;

    if (crewai_part(t->r, root, "state_json", "state", &doc, &text, &state))
        transcript_any(t, state);
}
