/* Opens a saved state: takes its wrappers off and tells which framework wrote it (reference/frameworks.md §6). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "formats_i.h"

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
    if (!j_is(text, J_STRING) || v->layers == STATE_LAYERS)
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

int state_view_open(struct state_view *ret, const char *bytes, size_t n)
{
    struct state_view v = {0};
    int r = view_add_layer(&v, bytes, n, NULL);

    while (r == 0 || r == 1) {
        r = view_unwrap(&v);
        if (r == 0)
            break;
    }
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

enum framework detect_framework(struct jval root)
{
    enum framework f;

    if (j_is(root, J_ARRAY))
        return has(j_first(root), "kind") && has(j_first(root), "parts") ? FRAMEWORK_PYDANTIC_AI : FRAMEWORK_RAW;
    f = detect_openai(root);
    if (f == FRAMEWORK_RAW)
        f = detect_langgraph(root);
    if (f != FRAMEWORK_RAW)
        return f;
    if ((has(root, "workers") && has(root, "is_running")) || (has(root, "broker_log") && has(root, "queues")))
        return FRAMEWORK_LLAMAINDEX;
    if (has(root, "graph_signature_hash") && has(root, "pending_request_info_events"))
        return FRAMEWORK_MS_AGENT;
    if (has(root, "agent_states") && has(root, "type"))
        return FRAMEWORK_AUTOGEN;
    return FRAMEWORK_RAW;
}
