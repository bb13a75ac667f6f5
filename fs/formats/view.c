/* Opens a saved state: takes its wrappers off and tells which framework wrote it (reference/frameworks.md §6). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "formats_i.h"
#include "util/cleanup.h"

static int view_add_layer(struct state_view *v, const char *bytes, size_t n, char *owned)
{
    int r = jdoc_parse(bytes, n, &v->docs[v->layers]);

    if (r < 0) {
        free(owned);
        return r;
    }
    v->texts[v->layers] = owned;
    v->root = j_root(&v->docs[v->layers]);
    v->layers++;
    return 0;
}

/* Goes into the wrapper, or into the JSON that a string holds. 1 when it went a layer down. */
static int view_unwrap(struct state_view *v)
{
    struct jval inner = j_get(v->root, "agent_state");
    struct jval text = v->root;
    char *owned = NULL;
    int r;

    if (j_has(inner) && j_get(v->root, "snapshot_id").node) {
        v->snapshot_id = j_get(v->root, "snapshot_id");
        v->root = inner;
        return 1;
    }
    if (!j_is(text, J_STRING) || v->layers >= STATE_LAYERS - 1)
        return 0;
    r = j_string(text, &owned);
    if (r < 0)
        return r;
    if (owned[0] != '{' && owned[0] != '[') {
        free(owned);
        return 0;
    }
    r = view_add_layer(v, owned, strlen(owned), owned);
    return r == 0 ? 1 : r == -ENOMEM ? r : 0;
}

/* `text` becomes a layer of its own. 1, or an error. */
static int view_add_text(struct state_view *v, struct buf *text)
{
    size_t n = text->len;
    char *owned = buf_steal(text);
    int r = owned ? view_add_layer(v, owned, n, owned) : -ENOMEM;

    return r == 0 ? 1 : r;
}

/* JSON lines: an object a line. 0 when they aren't that. */
static int view_open_lines(struct state_view *v, const char *bytes, size_t n)
{
    cleanup_buf struct buf array = {0};
    int r;

    for (size_t i = 0, len; i < n; i += len + 1) {
        const char *end = memchr(bytes + i, '\n', n - i);
        len = end ? (size_t)(end - bytes) - i : n - i;
        if (len == 0 || (len == 1 && bytes[i] == '\r'))
            continue;
        if (bytes[i] != '{')
            return 0;
        buf_addc(&array, array.len ? ',' : '[');
        buf_add(&array, bytes + i, len);
    }
    if (array.len == 0)
        return buf_error(&array);
    buf_addc(&array, ']');
    r = view_add_text(v, &array);
    return r == -EINVAL ? 0 : r;
}

/* What isn't JSON as a whole. 1 when it is something else that can be read. */
static int view_open_other(struct state_view *v, const char *bytes, size_t n, bool *ret_packed)
{
    cleanup_buf struct buf json = {0};
    int r = n > 0 ? msgpack_to_json(bytes, n, &json) : -EINVAL;

    *ret_packed = r == 0 && (json.data[0] == '{' || json.data[0] == '[');
    if (*ret_packed)
        return view_add_text(v, &json);
    return r == -ENOMEM ? r : view_open_lines(v, bytes, n);
}

static int view_export(struct state_view *v, bool packed)
{
    cleanup_buf struct buf json = {0};
    int r = v->layers < STATE_LAYERS ? langgraph_export(v->root, packed, &json) : 0;

    if (r == 1) {
        r = view_add_text(v, &json);
        r = r == -EINVAL ? 0 : r;
    }
    return r < 0 ? r : 0;
}

int state_view_open(struct state_view *ret, const char *bytes, size_t n)
{
    struct state_view v = {0};
    bool packed = false;
    int r = view_add_layer(&v, bytes, n, NULL);

    if (r == -EINVAL && (r = view_open_other(&v, bytes, n, &packed)) == 0)
        r = -EINVAL;
    while (r >= 0) {
        r = view_unwrap(&v);
        if (r == 0)
            break;
    }
    if (r == 0)
        r = view_export(&v, packed);
    if (r < 0) {
        state_view_close(&v);
        return r;
    }
    /* The values point at docs of this very struct: they move along. */
    *ret = v;
    ret->root.doc = ret->docs + (v.root.doc - v.docs);
    if (v.snapshot_id.node)
        ret->snapshot_id.doc = ret->docs + (v.snapshot_id.doc - v.docs);
    return 0;
}

void state_view_close(struct state_view *v)
{
    for (size_t i = 0; i < v->layers; i++) {
        jdoc_free(&v->docs[i]);
        free(v->texts[i]);
    }
    *v = (struct state_view){0};
}

static bool has(struct jval object, const char *key)
{
    return j_get(object, key).node != NULL;
}

static enum framework detect_openai(struct jval root)
{
    bool versioned = has(root, "$schemaVersion");

    if (versioned ? has(root, "current_agent") || has(root, "current_turn") || has(root, "current_step")
                  : has(root, "current_agent") && has(root, "current_turn") && has(root, "original_input"))
        return FRAMEWORK_OPENAI_PYTHON;
    if (versioned ? has(root, "currentAgent") || has(root, "currentTurn") || has(root, "currentStep")
                  : has(root, "currentAgent") && has(root, "currentTurn") && has(root, "originalInput"))
        return FRAMEWORK_OPENAI_JS;
    return FRAMEWORK_RAW;
}

/* A checkpoint tuple, a bare checkpoint, or what get_state returns. */
static enum framework detect_langgraph(struct jval root)
{
    bool tuple = has(j_get(root, "checkpoint"), "channel_versions");
    bool bare = has(root, "channel_versions") && has(root, "channel_values");
    bool snapshot = has(root, "values") && has(root, "next") && has(root, "tasks") && has(j_get(root, "config"), "configurable");

    if (!tuple && !bare && !snapshot)
        return FRAMEWORK_RAW;
    if (has(root, "parent_config") || has(root, "pending_writes") || has(root, "created_at"))
        return FRAMEWORK_LANGGRAPH_PYTHON;
    if (has(root, "parentConfig") || has(root, "pendingWrites") || has(root, "createdAt"))
        return FRAMEWORK_LANGGRAPH_JS;
    return j_int(j_get(j_first(langgraph_messages(root)), "lc"), 0) == 1 ? FRAMEWORK_LANGGRAPH_JS : FRAMEWORK_LANGGRAPH_PYTHON;
}

/* Lines of a session; the first few may be a summary or a snapshot of files. */
static bool is_claude(struct jval lines)
{
    size_t looked = 0;

    for (struct jval l = j_first(lines); l.node && looked++ < 10; l = j_next(lines, l)) {
        if (has(l, "sessionId") && has(l, "uuid") && has(j_get(l, "message"), "content"))
            return true;
    }
    return false;
}

/* A row of its tables, or the context of a method that waits for feedback. */
static bool is_crewai(struct jval root)
{
    struct jval context = has(root, "context") ? j_get(root, "context") : root;

    return (has(root, "flow_uuid") && has(root, "state_json")) || (has(context, "flow_class") && has(context, "method_name"));
}

enum framework detect_framework(struct jval root)
{
    enum framework f;

    if (j_is(root, J_ARRAY) && has(j_first(root), "kind") && has(j_first(root), "parts"))
        return FRAMEWORK_PYDANTIC_AI;
    if (j_is(root, J_ARRAY))
        return is_claude(root) ? FRAMEWORK_CLAUDE : FRAMEWORK_RAW;
    f = detect_openai(root);
    if (f == FRAMEWORK_RAW)
        f = detect_langgraph(root);
    if (f != FRAMEWORK_RAW)
        return f;
    if ((has(root, "workers") && has(root, "is_running")) || (has(root, "broker_log") && has(root, "queues")))
        return FRAMEWORK_LLAMAINDEX;
    if (has(root, "graph_signature_hash") && has(root, "pending_request_info_events"))
        return FRAMEWORK_MS_AGENT;
    if ((has(root, "agent_states") || has(j_get(root, "llm_context"), "messages")) && has(root, "type"))
        return FRAMEWORK_AUTOGEN;
    if (has(root, "events") && ((has(root, "appName") && has(root, "userId")) || (has(root, "app_name") && has(root, "user_id"))))
        return FRAMEWORK_GOOGLE_ADK;
    if (is_crewai(root))
        return FRAMEWORK_CREWAI;
    return FRAMEWORK_RAW;
}
