/* States of the OpenAI Agents SDK, Python (snake_case) and JS (camelCase). reference/frameworks.md §1.2, §2. */
#include <stdlib.h>
#include <string.h>

#include "formats_i.h"
#include "util/cleanup.h"
#include "util/text.h"

/* Agents as tools hold the state of their own run inside; deeper than this nobody nests. */
#define NESTED_MAX 16

/* The names of the fields, in both spellings. */
struct spelling {
    const char *turn, *max_turns, *agent, *step, *raw_item, *call_id, *tool_name, *input_tokens, *output_tokens, *total_tokens,
        *last_response, *responses, *provider_data, *conversation;
};

static const struct spelling python = {
    "current_turn", "max_turns", "current_agent", "current_step", "raw_item", "call_id", "tool_name", "input_tokens",
    "output_tokens", "total_tokens", "last_model_response", "model_responses", "provider_data", "conversation_id",
};
static const struct spelling javascript = {
    "currentTurn", "maxTurns", "currentAgent", "currentStep", "rawItem", "callId", "toolName", "inputTokens",
    "outputTokens", "totalTokens", "lastModelResponse", "modelResponses", "providerData", "conversationId",
};

static struct jval interruptions_of(struct jval root, const struct spelling *s)
{
    struct jval step = j_get(root, s->step);
    struct jval list = j_path(step, "data.interruptions");

    return list.node ? list : j_get(step, "interruptions"); /* very old states */
}

static void read_interruption(struct reading *r, struct jval item, const struct spelling *s)
{
    struct jval raw = j_get(item, s->raw_item);
    struct jval arguments = j_get(raw, "arguments");
    struct call *c = add_call(r);

    if (!c)
        return;
    take_text(r, &c->id, j_either(raw, s->call_id, "id"));
    take_text(r, &c->tool, j_has(j_get(item, s->tool_name)) ? j_get(item, s->tool_name) : j_get(raw, "name"));
    if (!c->tool)
        take_text(r, &c->tool, j_get(raw, "type")); /* shell_call, apply_patch_call, computer_call */
    take_text(r, &c->agent, j_path(item, "agent.name"));
    if (!j_has(arguments))
        arguments = j_either(raw, "action", "operation");
    take_arguments(r, c, j_has(arguments) ? arguments : raw);
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

/* -- Decisions that the state already holds --------------------------------------------------------------------------- */

/* Whether an approval's key means that tool: bare, `namespace.tool`, `deferred_top_level:tool`, or `["bare","tool"]`. */
static bool key_means_tool(const char *key, const char *tool)
{
    size_t n, m;

    if (!key || !tool)
        return false;
    n = strlen(key);
    m = strlen(tool);
    if (n > m + 3 && key[0] == '[' && strcmp(key + n - 2, "\"]") == 0)
        return key[n - m - 3] == '"' && memcmp(key + n - m - 2, tool, m) == 0;
    if (n < m || strcmp(key + n - m, tool) != 0)
        return false;
    return n == m || key[n - m - 1] == '.' || key[n - m - 1] == ':';
}

static bool lists_id(struct jval list, const char *id)
{
    if (!j_is(list, J_ARRAY))
        return false;
    for (struct jval v = j_first(list); v.node; v = j_next(list, v)) {
        if (j_equals(v, id))
            return true;
    }
    return false;
}

static void decide(struct reading *r, struct call *c, struct jval record, bool approved)
{
    struct jval messages = j_either(record, "rejection_messages", "messages");
    struct jval message = j_get(messages, c->id);

    c->decision = approved ? CALL_APPROVED : CALL_REJECTED;
    free(c->message);
    c->message = NULL;
    if (approved)
        return;
    take_text(r, &c->message, j_has(message) ? message : j_either(record, "sticky_rejection_message", "stickyRejectMessage"));
}

/* Whose decision a record is: what is known of the tool, the agent, the one request it is about. None = any. */
struct subject {
    struct jval tool_key, agent, request_id;
};

/* Whether a decision on the tool, not on an exact call, is about this one. */
static bool subject_means(const struct subject *about, const char *key, const struct call *c)
{
    if (j_has(about->request_id))
        return j_equals(about->request_id, c->id);
    if (j_has(about->agent) && c->agent && !j_equals(about->agent, c->agent))
        return false;
    return key_means_tool(key, c->tool);
}

/* One record {approved: true | [ids], rejected: …}. A decision on the exact call overrides one on the tool. */
static void apply_record(struct reading *r, struct jval record, const struct subject *about, bool exact)
{
    struct jval approved = j_get(record, "approved"), rejected = j_get(record, "rejected");
    cleanup_free char *key = NULL;

    take_text(r, &key, about->tool_key);
    for (size_t i = 0; i < r->info->pending_count; i++) {
        struct call *c = &r->info->pending[i];
        bool sticky = !exact && subject_means(about, key, c);
        if (exact && lists_id(approved, c->id))
            decide(r, c, record, true);
        else if (exact && lists_id(rejected, c->id))
            decide(r, c, record, false);
        else if (sticky && j_is(approved, J_TRUE))
            decide(r, c, record, true);
        else if (sticky && j_is(rejected, J_TRUE))
            decide(r, c, record, false);
    }
}

static bool is_record(struct jval v)
{
    struct jval approved = j_get(v, "approved"), rejected = j_get(v, "rejected");

    return j_is(approved, J_ARRAY) || j_is(approved, J_TRUE) || j_is(approved, J_FALSE) || j_is(rejected, J_ARRAY) ||
           j_is(rejected, J_TRUE) || j_is(rejected, J_FALSE);
}

static void set_if(struct jval *field, struct jval v)
{
    if (j_is(v, J_STRING))
        *field = v;
}

/* Finds the records in whatever lists and maps the versions put them:
 *   approvals {tool: RECORD}; functionApprovals [{agentIdentity, approvals: {key: RECORD}}];
 *   function_tool_approvals [{agent, tool_key, decision: RECORD}]; hosted_mcp_approvals [{identity, decision: RECORD}]. */
static void walk_records(struct reading *r, struct jval v, struct subject about, bool exact, unsigned depth)
{
    if (depth == 0 || (!j_is(v, J_OBJECT) && !j_is(v, J_ARRAY)))
        return;
    if (is_record(v)) {
        apply_record(r, v, &about, exact);
        return;
    }
    set_if(&about.tool_key, j_get(v, "tool_key"));
    set_if(&about.tool_key, j_path(v, "identity.tool_name"));
    set_if(&about.request_id, j_path(v, "identity.request_id"));
    set_if(&about.agent, j_get(v, "agentIdentity"));
    set_if(&about.agent, j_path(v, "agent.name"));
    if (is_record(j_get(v, "decision"))) {
        apply_record(r, j_get(v, "decision"), &about, exact);
        return;
    }
    for (struct jval c = j_first(v); c.node; c = j_next(v, c)) {
        struct subject inner = about;
        if (j_is(v, J_OBJECT))
            inner.tool_key = j_key(c);
        walk_records(r, c, inner, exact, depth - 1);
    }
}

/* Every version adds a list of its own; what they have in common is the end of the name. */
static void apply_context(struct reading *r, struct jval context, bool exact)
{
    if (!j_is(context, J_OBJECT))
        return;
    for (struct jval c = j_first(context); c.node; c = j_next(context, c)) {
        struct subject anybody = {{0}, {0}, {0}};
        cleanup_free char *name = NULL;
        size_t n;

        take_text(r, &name, j_key(c));
        n = name ? strlen(name) : 0;
        if (n >= 9 && strcmp(name + n - 8, "pprovals") == 0)
            walk_records(r, c, anybody, exact, 5);
    }
}

/* -- States inside the state: agents used as tools -------------------------------------------------------------------- */

typedef void nested_fn(struct reading *r, struct jval root, bool flag, unsigned depth);

/* Calls `fn` for a nested state, which is an object or a string that holds one. */
static void visit_nested(struct reading *r, struct jval v, nested_fn *fn, bool flag, unsigned depth)
{
    struct jdoc doc = {0};
    char *text = NULL;

    if (j_is(v, J_OBJECT)) {
        fn(r, v, flag, depth);
    } else if (parse_inner(r, v, &doc, &text)) {
        fn(r, j_root(&doc), flag, depth);
        jdoc_free(&doc);
        free(text);
    }
}

static void each_nested(struct reading *r, struct jval root, nested_fn *fn, bool flag, unsigned depth)
{
    struct jval functions = j_path(root, "last_processed_response.functions");
    struct jval runs = j_get(root, "pendingAgentToolRuns");

    if (depth == 0)
        return;
    if (j_is(functions, J_ARRAY)) {
        for (struct jval f = j_first(functions); f.node; f = j_next(functions, f))
            visit_nested(r, j_get(f, "agent_run_state"), fn, flag, depth - 1);
    }
    if (j_is(runs, J_OBJECT)) {
        for (struct jval run = j_first(runs); run.node; run = j_next(runs, run))
            visit_nested(r, run, fn, flag, depth - 1);
    }
}

static void apply_decisions(struct reading *r, struct jval root, bool exact, unsigned depth)
{
    apply_context(r, j_get(root, "context"), exact);
    each_nested(r, root, apply_decisions, exact, depth);
}

static void read_nested_interruptions(struct reading *r, struct jval root, bool js, unsigned depth)
{
    const struct spelling *s = js ? &javascript : &python;

    read_interruptions(r, interruptions_of(root, s), s);
    each_nested(r, root, read_nested_interruptions, js, depth);
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

static void note_approvals(struct reading *r)
{
    for (size_t i = 0; i < r->info->pending_count; i++) {
        const struct call *c = &r->info->pending[i];
        if (c->decision == CALL_APPROVED && c->id)
            add_problem(r, "%s is already approved inside this state: resuming it runs the tool unless it is rejected", c->id);
    }
}

void read_openai(struct reading *r, struct jval root, bool js)
{
    const struct spelling *s = js ? &javascript : &python;
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
    read_interruptions(r, interruptions_of(root, s), s);
    if (info->pending_count == 0)
        each_nested(r, root, read_nested_interruptions, js, NESTED_MAX);
    read_status(r, root, s);
    if (!r->oom) {
        apply_decisions(r, root, false, NESTED_MAX);
        apply_decisions(r, root, true, NESTED_MAX);
    }
    if (!js)
        check_required(r, root);
    note_approvals(r);
}
