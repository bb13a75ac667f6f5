/* What happened in a run that is kept as a list of chat messages: LangGraph, LlamaIndex, Pydantic AI, any other. See transcript_i.h. */
#include <stdlib.h>
#include <string.h>

#include "markdown_i.h"
#include "transcript_i.h"
#include "util/cleanup.h"

static const struct jval nothing;

bool transcript_full(struct transcript *t)
{
    t->full = t->b->len >= TRANSCRIPT_RUN_MAX;
    *t->left_out += t->full;
    return t->full;
}

void step_name(struct transcript *t, const char *before, struct jval v, const char *after)
{
    cleanup_free char *text = NULL;

    if (!t->full)
        take_text(t->r, &text, v);
    if (!text || !*text)
        return;
    buf_adds(t->b, before);
    md_code(t->b, text);
    buf_adds(t->b, after);
}

void step_heading(struct transcript *t, const char *what, struct jval name, struct jval id, struct jval agent)
{
    if (transcript_full(t))
        return;
    buf_addf(t->b, "### %zu. %s", ++t->steps, what);
    step_name(t, " ", name, "");
    step_name(t, " (", id, ")");
    step_name(t, ", by ", agent, "");
    buf_adds(t->b, "\n\n");
}

void step_arguments(struct transcript *t, struct jval arguments)
{
    cleanup_buf struct buf text = {0};

    if (!j_has(arguments) || t->full)
        return;
    if (j_is(arguments, J_STRING))
        j_add_string(&text, arguments);
    else
        j_add_compact(&text, arguments);
    t->r->oom |= buf_error(&text) != 0;
    md_json_block(t->b, text.len ? text.data : "", text.len);
}

void step_value(struct transcript *t, struct jval v)
{
    if (!t->full)
        md_value(t->b, v);
}

void step_outline(struct transcript *t, struct jval v, struct jval but)
{
    if (!t->full)
        md_outline(t->b, v, but);
}

/* -- Chat messages ---------------------------------------------------------------------------------------------------- */

static bool is_blank(struct jval content)
{
    return !j_has(content) || j_equals(content, "") || ((j_is(content, J_ARRAY) || j_is(content, J_OBJECT)) && !j_count(content));
}

static bool is_call_part(struct jval type)
{
    return j_equals(type, "tool_use") || j_equals(type, "tool_call") || j_equals(type, "server_tool_use") ||
           j_equals(type, "mcp_tool_use");
}

/* One part of a message's content. `said` is whether the heading of what this message says stands already. */
static void content_part(struct transcript *t, struct jval name, struct jval agent, struct jval part, bool skip_calls, bool *said)
{
    struct jval type = j_get(part, "type"), content = j_get(part, "content");

    if (is_call_part(type)) {
        if (skip_calls)
            return;
        step_heading(t, "Call of", j_get(part, "name"), j_get(part, "id"), agent);
        step_arguments(t, j_either(part, "input", "args"));
        *said = false;
    } else if (j_equals(type, "tool_result") || j_has(j_get(part, "tool_use_id"))) {
        step_heading(t, j_is(j_get(part, "is_error"), J_TRUE) ? "Error" : "Output", nothing, j_get(part, "tool_use_id"), nothing);
        step_value(t, content);
        *said = false;
    } else if (j_equals(type, "thinking") || j_equals(type, "reasoning")) {
        step_heading(t, "Reasoning", nothing, nothing, agent);
        step_value(t, j_has(j_get(part, "thinking")) ? j_get(part, "thinking") : j_either(part, "reasoning", "summary"));
        *said = false;
    } else if (*said) {
        if (!transcript_full(t))
            md_value(t->b, part);
    } else {
        step_heading(t, "Message from", name, nothing, nothing);
        step_value(t, part);
        *said = true;
    }
}

void transcript_content(struct transcript *t, struct jval name, struct jval agent, struct jval content, bool skip_calls)
{
    bool said = false;

    if (is_blank(content))
        return;
    if (!j_is(content, J_ARRAY)) {
        step_heading(t, "Message from", name, nothing, nothing);
        step_value(t, content);
        return;
    }
    for (struct jval p = j_first(content); p.node; p = j_next(content, p))
        content_part(t, name, agent, p, skip_calls, &said);
}

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

/* The role as a JSON value, so that it goes where names go. */
static void chat_message(struct transcript *t, struct jval message)
{
    struct jval fields = message_fields(message), content = j_get(fields, "content"), calls = j_get(fields, "tool_calls");
    cleanup_free char *role = message_role(t->r, message);
    cleanup_jdoc struct jdoc doc = {0};
    cleanup_buf struct buf quoted = {0};

    if (role && strcmp(role, "tool") == 0) {
        step_heading(t, j_equals(j_get(fields, "status"), "error") ? "Error" : "Output", j_get(fields, "name"),
                     j_get(fields, "tool_call_id"), nothing);
        step_value(t, content);
        return;
    }
    json_add_quoted(&quoted, role ? role : "?", role ? strlen(role) : 1);
    if (buf_error(&quoted) || jdoc_parse(quoted.data, quoted.len, &doc) < 0) {
        t->r->oom = true;
        return;
    }
    transcript_content(t, j_root(&doc), nothing, content, j_count(calls) > 0);
    message_calls(t, calls);
}

void transcript_messages(struct transcript *t, struct jval messages)
{
    for (struct jval m = j_first(messages); m.node; m = j_next(messages, m))
        chat_message(t, m);
}

bool is_chat(struct jval v)
{
    struct jval first = j_first(v), fields = message_fields(first);

    return j_is(v, J_ARRAY) && j_is(first, J_OBJECT) && (j_is(j_either(fields, "role", "type"), J_STRING) || j_has(j_get(first, "lc"))) &&
           (j_get(fields, "content").node || j_get(fields, "tool_calls").node);
}

/* -- LangGraph -------------------------------------------------------------------------------------------------------- */

/* Which channels are of the graph's own machinery, and say nothing to people. */
static bool is_machinery(struct jval key)
{
    static const char *const prefixes[] = {"branch:", "join:", "__"};
    cleanup_free char *text = NULL;

    if (j_string(key, &text) < 0 || !text)
        return true;
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
        if (strncmp(text, prefixes[i], strlen(prefixes[i])) == 0)
            return true;
    }
    return false;
}

void transcript_langgraph(struct transcript *t, struct jval root)
{
    struct jval messages = langgraph_messages(root), values = langgraph_values(root);
    bool any = false;

    if (is_chat(messages)) {
        buf_adds(t->b, "## Run\n\n");
        transcript_messages(t, messages);
    }
    if (!j_is(values, J_OBJECT)) {
        if (j_has(values) && values.node != messages.node && !transcript_full(t)) {
            buf_adds(t->b, "## State\n\n");
            step_outline(t, values, nothing);
        }
        return;
    }
    for (struct jval v = j_first(values); v.node; v = j_next(values, v)) {
        if ((is_chat(messages) && v.node == messages.node) || is_machinery(j_key(v)) || !j_has(v) || transcript_full(t))
            continue;
        buf_adds(t->b, any ? "" : "## State\n\n");
        any = true;
        step_name(t, "Channel ", j_key(v), ":\n\n");
        step_outline(t, v, nothing);
    }
}

/* -- LlamaIndex ----------------------------------------------------------------------------------------------------------- */

/* Every value is a string that holds JSON. True when it was a list of messages. */
static bool llamaindex_value(struct transcript *t, struct jval key, struct jval v, bool chat_only)
{
    struct jdoc doc = {0};
    char *text = NULL;
    struct jval inner = v;
    bool parsed = parse_inner(t->r, v, &doc, &text), chat;

    if (parsed)
        inner = j_root(&doc);
    chat = is_chat(inner);
    if (chat && chat_only) {
        transcript_messages(t, inner);
    } else if (!chat && !chat_only && !transcript_full(t)) {
        step_name(t, "Value ", key, ":\n\n");
        step_outline(t, inner, nothing);
    }
    if (parsed) {
        jdoc_free(&doc);
        free(text);
    }
    return chat;
}

void transcript_llamaindex(struct transcript *t, struct jval root)
{
    struct jval data = j_path(root, "state.state_data._data");
    size_t others = 0;

    if (!j_is(data, J_OBJECT))
        data = j_path(root, "globals");
    buf_adds(t->b, "## Run\n\n");
    for (struct jval v = j_first(data); v.node && j_is(data, J_OBJECT); v = j_next(data, v))
        others += !llamaindex_value(t, j_key(v), v, true);
    if (others)
        buf_adds(t->b, "## State\n\n");
    for (struct jval v = j_first(data); others && v.node; v = j_next(data, v))
        llamaindex_value(t, j_key(v), v, false);
}

/* -- Pydantic AI ------------------------------------------------------------------------------------------------------------ */

static void pydantic_part(struct transcript *t, struct jval part)
{
    struct jval kind = j_get(part, "part_kind"), content = j_get(part, "content");

    if (j_equals(kind, "tool-call") || j_equals(kind, "builtin-tool-call")) {
        step_heading(t, "Call of", j_get(part, "tool_name"), j_get(part, "tool_call_id"), nothing);
        step_arguments(t, j_get(part, "args"));
    } else if (j_equals(kind, "tool-return") || j_equals(kind, "retry-prompt") || j_equals(kind, "builtin-tool-return")) {
        step_heading(t, j_equals(j_get(part, "outcome"), "denied") ? "Denied" : "Output", j_get(part, "tool_name"),
                     j_get(part, "tool_call_id"), nothing);
        step_value(t, content);
    } else if (j_equals(kind, "thinking")) {
        step_heading(t, "Reasoning", nothing, nothing, nothing);
        step_value(t, content);
    } else {
        step_heading(t, "Message", kind, nothing, nothing);
        step_value(t, j_has(content) ? content : part);
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

/* -- Any other -------------------------------------------------------------------------------------------------------------- */

/* The first list of messages at most `depth` members down. */
static struct jval find_chat(struct jval v, unsigned depth)
{
    struct jval found = nothing;

    if (is_chat(v))
        return v;
    if (depth == 0 || !j_is(v, J_OBJECT))
        return found;
    for (struct jval c = j_first(v); c.node && !found.node; c = j_next(v, c))
        found = find_chat(c, depth - 1);
    return found;
}

void transcript_any(struct transcript *t, struct jval root)
{
    struct jval chat = find_chat(root, 3);

    if (chat.node) {
        buf_adds(t->b, "## Run\n\n");
        transcript_messages(t, chat);
    }
    if ((chat.node && chat.node == root.node) || transcript_full(t))
        return;
    buf_adds(t->b, "## State\n\n");
    step_outline(t, root, chat);
}
