/* Sessions kept as a list of what happened: Google's ADK, and the Claude Agent SDK's transcripts. reference/frameworks.md §5. */
#include <stdlib.h>
#include <string.h>

#include "formats_i.h"
#include "util/cleanup.h"

/* -- A set of ids ------------------------------------------------------------------------------------------------------ */

static int compare_texts(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

void id_set_add(struct reading *r, struct id_set *set, struct jval id)
{
    char *text = NULL;

    take_text(r, &text, id);
    if (!text)
        return;
    if (set->count == set->cap) {
        size_t cap = set->cap ? set->cap * 2 : 16;
        char **grown = realloc(set->ids, cap * sizeof *grown);
        if (!grown) {
            r->oom = true;
            free(text);
            return;
        }
        set->ids = grown;
        set->cap = cap;
    }
    set->ids[set->count++] = text;
}

void id_set_sort(struct id_set *set)
{
    if (set->count > 1)
        qsort(set->ids, set->count, sizeof *set->ids, compare_texts);
}

bool id_set_has(struct reading *r, const struct id_set *set, struct jval id)
{
    cleanup_free char *text = NULL;

    take_text(r, &text, id);
    return text && set->count > 0 && bsearch(&text, set->ids, set->count, sizeof *set->ids, compare_texts);
}

void id_set_free(struct id_set *set)
{
    for (size_t i = 0; i < set->count; i++)
        free(set->ids[i]);
    free(set->ids);
}

void add_tokens(int64_t *total, struct jval v)
{
    int64_t n = take_int(v);

    if (n >= 0 && *total < INT64_MAX - n)
        *total = (*total < 0 ? 0 : *total) + n;
}

/* -- Google's ADK -------------------------------------------------------------------------------------------------------- */

struct jval adk_parts(struct jval event)
{
    struct jval parts = j_path(event, "content.parts");

    return j_is(parts, J_ARRAY) ? parts : (struct jval){event.doc, NULL};
}

/* A confirmation asked for is a call of its own, around the one that waits; adk_request_input is a question. */
static void read_request(struct reading *r, struct jval call, struct jval author)
{
    struct jval args = j_get(call, "args"), original = j_either(args, "originalFunctionCall", "original_function_call");
    bool confirmation = j_equals(j_get(call, "name"), "adk_request_confirmation");
    struct call *c = add_call(r);

    if (!c)
        return;
    take_text(r, &c->id, j_get(call, "id"));
    take_text(r, &c->agent, author);
    c->kind = confirmation ? CALL_APPROVAL : CALL_INPUT;
    c->allowed = confirmation ? ALLOW_APPROVE | ALLOW_REJECT : ALLOW_RESPOND;
    if (confirmation)
        take_text(r, &c->tool, j_get(original, "name"));
    take_arguments(r, c, confirmation && j_has(j_get(original, "args")) ? j_get(original, "args") : args);
    call_finish(r, c);
}

static bool is_request(struct jval name)
{
    return j_equals(name, "adk_request_confirmation") || j_equals(name, "adk_request_credential") ||
           j_equals(name, "adk_request_input");
}

static void collect_answers(struct reading *r, struct jval events, struct id_set *answered)
{
    for (struct jval e = j_first(events); e.node; e = j_next(events, e)) {
        struct jval parts = adk_parts(e);
        for (struct jval p = j_first(parts); p.node; p = j_next(parts, p))
            id_set_add(r, answered, j_get(j_either(p, "functionResponse", "function_response"), "id"));
    }
    id_set_sort(answered);
}

static void read_event(struct reading *r, struct jval event, const struct id_set *answered)
{
    struct state_info *info = r->info;
    struct jval usage = j_either(event, "usageMetadata", "usage_metadata"), parts = adk_parts(event), author = j_get(event, "author");
    bool calls = false;

    if (j_has(usage))
        info->usage.requests = info->usage.requests < 0 ? 1 : info->usage.requests + 1;
    add_tokens(&info->usage.input, j_either(usage, "promptTokenCount", "prompt_token_count"));
    add_tokens(&info->usage.output, j_either(usage, "candidatesTokenCount", "candidates_token_count"));
    add_tokens(&info->usage.total, j_either(usage, "totalTokenCount", "total_token_count"));
    take_text(r, &info->model, j_either(event, "modelVersion", "model_version"));
    take_text(r, &info->step_id, j_either(event, "invocationId", "invocation_id"));
    for (struct jval p = j_first(parts); p.node; p = j_next(parts, p)) {
        struct jval call = j_either(p, "functionCall", "function_call");
        calls |= j_has(call) || j_has(j_either(p, "functionResponse", "function_response"));
        if (is_request(j_get(call, "name")) && !id_set_has(r, answered, j_get(call, "id")))
            read_request(r, call, author);
    }
    info->status = calls || j_equals(author, "user") ? RUN_RUNNABLE : RUN_FINAL;
}

void read_google_adk(struct reading *r, struct jval root)
{
    struct state_info *info = r->info;
    struct jval events = j_get(root, "events");
    struct id_set answered = {0};

    take_text(r, &info->run_id, j_get(root, "id"));
    take_text(r, &info->agent, j_either(root, "appName", "app_name"));
    info->created_at = take_time(r, j_either(root, "lastUpdateTime", "last_update_time"));
    if (!j_is(events, J_ARRAY))
        return;
    collect_answers(r, events, &answered);
    for (struct jval e = j_first(events); e.node; e = j_next(events, e))
        read_event(r, e, &answered);
    id_set_free(&answered);
    info->turn = info->usage.requests;
    if (info->pending_count > 0)
        info->status = state_waits_for_input(info) ? RUN_WAITING_INPUT : RUN_INTERRUPTED;
}

/* -- Claude Agent SDK ---------------------------------------------------------------------------------------------------- */

/* Whether a line is something that a person wrote, and not the outcome of a tool. */
static bool is_prompt(struct jval line)
{
    struct jval content = j_path(line, "message.content");

    return j_equals(j_get(line, "type"), "user") && !j_equals(j_get(j_first(content), "type"), "tool_result");
}

static void collect_results(struct reading *r, struct jval lines, struct id_set *answered, struct jval *last_prompt)
{
    for (struct jval l = j_first(lines); l.node; l = j_next(lines, l)) {
        struct jval content = j_path(l, "message.content");
        if (is_prompt(l))
            *last_prompt = l;
        for (struct jval p = j_is(content, J_ARRAY) ? j_first(content) : (struct jval){0}; p.node; p = j_next(content, p))
            id_set_add(r, answered, j_get(p, "tool_use_id"));
    }
    id_set_sort(answered);
}

static void read_tool_use(struct reading *r, struct jval part, struct jval agent)
{
    struct call *c = add_call(r);

    if (!c)
        return;
    take_text(r, &c->id, j_get(part, "id"));
    take_text(r, &c->tool, j_get(part, "name"));
    take_text(r, &c->agent, agent);
    take_arguments(r, c, j_get(part, "input"));
    c->allowed = ALLOW_APPROVE | ALLOW_REJECT | ALLOW_EDIT;
    call_finish(r, c);
}

/* Calls of tools after the last prompt that have no result yet. A message of several parts takes several lines, each with the usage
 * of the whole. */
static void read_line(struct reading *r, struct jval line, bool waits, const struct id_set *answered, char **message_id)
{
    struct state_info *info = r->info;
    struct jval message = j_get(line, "message"), content = j_get(message, "content"), usage = j_get(message, "usage");
    bool calls = false;

    if (!j_is(message, J_OBJECT))
        return;
    take_text(r, &info->run_id, j_get(line, "sessionId"));
    take_text(r, &info->step_id, j_get(line, "uuid"));
    take_text(r, &info->schema_version, j_get(line, "version"));
    take_text(r, &info->model, j_get(message, "model"));
    if (j_has(usage) && !(*message_id && j_equals(j_get(message, "id"), *message_id))) {
        info->usage.requests = info->usage.requests < 0 ? 1 : info->usage.requests + 1;
        add_tokens(&info->usage.input, j_get(usage, "input_tokens"));
        add_tokens(&info->usage.output, j_get(usage, "output_tokens"));
    }
    take_text(r, message_id, j_get(message, "id"));
    for (struct jval p = j_is(content, J_ARRAY) ? j_first(content) : (struct jval){0}; p.node; p = j_next(content, p)) {
        if (!j_equals(j_get(p, "type"), "tool_use"))
            continue;
        calls = true;
        if (waits && !id_set_has(r, answered, j_get(p, "id")))
            read_tool_use(r, p, j_get(line, "agentId"));
    }
    info->status = j_equals(j_get(line, "type"), "assistant") && !calls ? RUN_FINAL : RUN_RUNNABLE;
}

void read_claude(struct reading *r, struct jval root)
{
    struct state_info *info = r->info;
    struct jval prompt = {0}, timestamp = {0};
    struct id_set answered = {0};
    cleanup_free char *message_id = NULL;
    bool after = false;

    collect_results(r, root, &answered, &prompt);
    for (struct jval l = j_first(root); l.node; l = j_next(root, l)) {
        after |= l.node == prompt.node || !prompt.node;
        read_line(r, l, after, &answered, &message_id);
        if (j_has(j_get(l, "timestamp")))
            timestamp = j_get(l, "timestamp");
    }
    id_set_free(&answered);
    info->created_at = take_time(r, timestamp);
    info->turn = info->usage.requests;
    if (info->pending_count > 0)
        info->status = RUN_INTERRUPTED;
}
