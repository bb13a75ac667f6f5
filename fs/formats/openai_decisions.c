/* Which of its pending calls a state of the OpenAI Agents SDK has already decided. reference/frameworks.md §1.2, §2. */
#include <stdlib.h>
#include <string.h>

#include "openai_i.h"
#include "util/cleanup.h"
#include "util/text.h"

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

/* What is known while decisions are handed out. `scope` says of each pending call whether the state at hand is the one that holds
 * its decision; NULL = all of them. */
struct deciding {
    struct reading *r;
    struct call **by_id;
    bool *scope;
    struct jval agent; /* the one that the record at hand is for, where it says so */
    bool exact;        /* the second round: a decision on the exact call overrides one on the tool */
    bool js;
};

static bool in_scope(const struct deciding *d, const struct call *c)
{
    return !d->scope || d->scope[c - d->r->info->pending];
}

static void decide(struct call *c, bool approved)
{
    c->decision = approved ? CALL_APPROVED : CALL_REJECTED;
    free(c->message);
    c->message = NULL;
}

/* Where several calls have one id, a decision in the outermost state isn't about an inner agent's call in Python, and is about one
 * agent's in JS. */
static bool is_another(const struct deciding *d, const struct call *c)
{
    return d->js ? j_has(d->agent) && c->agent && !j_equals(d->agent, c->agent) : !d->scope && c->via;
}

/* Calls `fn` for each pending call in scope whose id is the string `id`. */
static void each_call_of(struct deciding *d, struct jval id, void (*fn)(struct deciding *d, struct call *c, struct jval v),
                         struct jval v)
{
    size_t n = d->r->info->pending_count, first, end;
    cleanup_free char *text = NULL;

    take_text(d->r, &text, id);
    first = text ? calls_first(d->by_id, n, text) : n;
    for (end = first; end < n && strcmp(d->by_id[end]->id, text) == 0 && spend(d->r, 1);)
        end++;
    for (size_t i = first; i < end; i++) {
        if (in_scope(d, d->by_id[i]) && !(end - first > 1 && is_another(d, d->by_id[i])))
            fn(d, d->by_id[i], v);
    }
}

static void approve_call(struct deciding *d, struct call *c, struct jval v)
{
    (void)d;
    (void)v;
    decide(c, true);
}

static void reject_call(struct deciding *d, struct call *c, struct jval v)
{
    (void)d;
    (void)v;
    decide(c, false);
}

static void add_message(struct deciding *d, struct call *c, struct jval v)
{
    if (c->decision == CALL_REJECTED)
        take_text(d->r, &c->message, v);
}

static void decide_listed(struct deciding *d, struct jval list, bool approved)
{
    if (!j_is(list, J_ARRAY))
        return;
    for (struct jval v = j_first(list); v.node; v = j_next(list, v))
        each_call_of(d, v, approved ? approve_call : reject_call, v);
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

static void apply_sticky(struct deciding *d, struct jval record, const struct subject *about)
{
    bool approved = j_is(j_get(record, "approved"), J_TRUE), rejected = j_is(j_get(record, "rejected"), J_TRUE);
    size_t n = d->r->info->pending_count;
    cleanup_free char *key = NULL;

    take_text(d->r, &key, about->tool_key);
    if ((!approved && !rejected) || !spend(d->r, n))
        return;
    for (size_t i = 0; i < n; i++) {
        struct call *c = &d->r->info->pending[i];
        if (!in_scope(d, c) || !subject_means(about, key, c))
            continue;
        decide(c, approved);
        if (!approved)
            take_text(d->r, &c->message, j_either(record, "sticky_rejection_message", "stickyRejectMessage"));
    }
}

/* One record {approved: true | [ids], rejected: …, rejection_messages: {id: text}}. */
static void apply_record(struct deciding *d, struct jval record, const struct subject *about)
{
    struct jval messages = j_either(record, "rejection_messages", "messages");

    d->agent = about->agent;
    if (d->exact) {
        decide_listed(d, j_get(record, "rejected"), false);
        decide_listed(d, j_get(record, "approved"), true);
    } else {
        apply_sticky(d, record, about);
    }
    for (struct jval m = j_is(messages, J_OBJECT) ? j_first(messages) : (struct jval){0}; m.node; m = j_next(messages, m))
        each_call_of(d, j_key(m), add_message, m);
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
static void walk_records(struct deciding *d, struct jval v, struct subject about, unsigned depth)
{
    if (depth == 0 || (!j_is(v, J_OBJECT) && !j_is(v, J_ARRAY)))
        return;
    if (is_record(v)) {
        apply_record(d, v, &about);
        return;
    }
    set_if(&about.tool_key, j_get(v, "tool_key"));
    set_if(&about.tool_key, j_path(v, "identity.tool_name"));
    set_if(&about.request_id, j_path(v, "identity.request_id"));
    set_if(&about.agent, j_get(v, "agentIdentity"));
    set_if(&about.agent, j_path(v, "agent.name"));
    if (is_record(j_get(v, "decision"))) {
        apply_record(d, j_get(v, "decision"), &about);
        return;
    }
    for (struct jval c = j_first(v); c.node; c = j_next(v, c)) {
        struct subject inner = about;
        if (j_is(v, J_OBJECT))
            inner.tool_key = j_key(c);
        walk_records(d, c, inner, depth - 1);
    }
}

/* Every version adds a list of its own; what they have in common is the end of the name. */
static void apply_context(struct deciding *d, struct jval context)
{
    if (!j_is(context, J_OBJECT))
        return;
    for (struct jval c = j_first(context); c.node; c = j_next(context, c)) {
        struct subject anybody = {{0}, {0}, {0}};
        cleanup_free char *name = NULL;
        size_t n;

        take_text(d->r, &name, j_key(c));
        n = name ? strlen(name) : 0;
        if (n >= 9 && strcmp(name + n - 8, "pprovals") == 0)
            walk_records(d, c, anybody, 5);
    }
}

/* Whether an interruption of an inner state is that pending call. Models that count their calls from 0 give the calls of different
 * agents the same id. */
static bool is_call(struct reading *r, struct jval item, const struct spelling *s, const struct call *c)
{
    struct jval raw = j_get(item, s->raw_item);
    struct call other = {0};
    bool same;

    take_text(r, &other.agent, j_path(item, "agent.name"));
    take_arguments(r, &other, openai_arguments(raw, j_get(raw, s->provider_data)));
    same = str_equal(other.agent, c->agent) && str_equal(other.arguments, c->arguments);
    call_clear(&other);
    return same;
}

/* What is below one inner state: which agents asked for it, outermost first. */
struct inner {
    struct deciding *d;
    const char *via;
};

static void put_in_scope(struct deciding *d, struct jval root, const char *via)
{
    const struct spelling *s = d->js ? &openai_js : &openai_python;
    struct jval list = openai_interruptions(root, s);
    size_t n = d->r->info->pending_count;

    for (struct jval item = j_is(list, J_ARRAY) ? j_first(list) : (struct jval){0}; item.node; item = j_next(list, item)) {
        struct jval raw = j_get(item, s->raw_item);
        cleanup_free char *id = NULL;

        take_text(d->r, &id, j_either(raw, s->call_id, "id"));
        for (size_t i = id ? calls_first(d->by_id, n, id) : n; i < n && strcmp(d->by_id[i]->id, id) == 0; i++) {
            struct call *c = d->by_id[i];
            if (!spend(d->r, (item.node->end - item.node->start) / 16 + 1) || !is_call(d->r, item, s, c))
                continue;
            d->scope[c - d->r->info->pending] = true;
            free(c->via);
            c->via = str_dup(via);
            d->r->oom |= via && !c->via;
        }
    }
}

/* `arg` is a struct inner. */
static void apply_inner(struct reading *r, struct jval root, void *arg, unsigned depth)
{
    const struct inner *outside = arg;
    struct deciding d = *outside->d;
    cleanup_free bool *scope = NULL;
    cleanup_free char *agent = NULL, *via = NULL;
    struct inner inside = {.d = &d};

    if (!spend(r, r->info->pending_count + 1))
        return;
    scope = calloc(r->info->pending_count + 1, sizeof *scope);
    r->oom |= !scope;
    if (!scope)
        return;
    d.scope = scope;
    if (j_is(openai_interruptions(root, d.js ? &openai_js : &openai_python), J_ARRAY))
        put_in_scope(&d, root, outside->via);
    else /* it doesn't say whose calls it holds */
        memset(scope, true, r->info->pending_count);
    apply_context(&d, j_get(root, "context"));
    take_text(r, &agent, j_get(j_get(root, (d.js ? &openai_js : &openai_python)->agent), "name"));
    via = str_format("%s%s%s", outside->via ? outside->via : "", outside->via ? " > " : "", agent ? agent : "?");
    r->oom |= !via;
    inside.via = via;
    openai_each_nested(r, root, apply_inner, &inside, depth);
}

void openai_decisions(struct reading *r, struct jval root, bool js)
{
    cleanup_free struct call **by_id = calls_by_id(r);
    struct deciding d = {.r = r, .by_id = by_id, .js = js};

    for (int round = 0; by_id && round < 2; round++) {
        struct inner inside = {.d = &d, .via = r->info->agent};
        d.exact = round == 1;
        openai_each_nested(r, root, apply_inner, &inside, OPENAI_NESTED_MAX);
        apply_context(&d, j_get(root, "context"));
    }
}
