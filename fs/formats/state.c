/* Reads the envelope out of a saved state; what all frameworks share. See include/formats/state.h. */
#include "formats/state.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "formats_i.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/text.h"

static const char *const framework_names[] = {
    [FRAMEWORK_RAW] = "raw",
    [FRAMEWORK_OPENAI_PYTHON] = "openai-agents-python",
    [FRAMEWORK_OPENAI_JS] = "openai-agents-js",
    [FRAMEWORK_LANGGRAPH_PYTHON] = "langgraph-python",
    [FRAMEWORK_LANGGRAPH_JS] = "langgraph-js",
    [FRAMEWORK_LLAMAINDEX] = "llamaindex-workflows",
    [FRAMEWORK_MS_AGENT] = "ms-agent-framework",
    [FRAMEWORK_AUTOGEN] = "autogen",
    [FRAMEWORK_PYDANTIC_AI] = "pydantic-ai",
    [FRAMEWORK_GOOGLE_ADK] = "google-adk",
    [FRAMEWORK_CLAUDE] = "claude-agent-sdk",
    [FRAMEWORK_CREWAI] = "crewai",
};

static const char *const run_status_names[] = {
    [RUN_UNKNOWN] = "unknown",   [RUN_INTERRUPTED] = "interrupted", [RUN_WAITING_INPUT] = "waiting_input",
    [RUN_RUNNABLE] = "runnable", [RUN_FINAL] = "final",
};

const char *framework_name(enum framework f)
{
    return framework_names[f];
}

const char *run_status_name(enum run_status s)
{
    return run_status_names[s];
}

const char *call_kind_name(enum call_kind k)
{
    return k == CALL_INPUT ? "input" : "approval";
}

const char *call_decision_name(enum call_decision d)
{
    return d == CALL_APPROVED ? "approved" : d == CALL_REJECTED ? "rejected" : NULL;
}

void state_info_init(struct state_info *info)
{
    *info = (struct state_info){.turn = -1, .max_turns = -1, .usage = {-1, -1, -1, -1}};
}

void state_info_free(struct state_info *info)
{
    for (size_t i = 0; i < info->pending_count; i++)
        call_clear(&info->pending[i]);
    for (size_t i = 0; i < info->problem_count; i++)
        free(info->problems[i]);
    free(info->pending);
    free(info->problems);
    free(info->schema_version);
    free(info->agent);
    free(info->model);
    free(info->run_id);
    free(info->step_id);
    free(info->parent);
    free(info->snapshot_id);
    free(info->trace_id);
    free(info->trace_group);
    free(info->trace_workflow);
    *info = (struct state_info){0};
}

void take_text(struct reading *r, char **field, struct jval v)
{
    char *text = NULL;

    if (j_is(v, J_NUMBER)) {
        text = utf8_clean(v.doc->text + v.node->start, v.node->end - v.node->start);
        r->oom |= !text;
    } else if (j_string(v, &text) < 0) {
        r->oom = true;
    }
    if (!text)
        return;
    free(*field);
    *field = text;
}

int64_t take_int(struct jval v)
{
    int64_t n = j_int(v, -1);

    return n < 0 ? -1 : n;
}

int64_t take_time(struct reading *r, struct jval v)
{
    cleanup_free char *text = NULL;
    int64_t ns = 0;
    double seconds;

    take_text(r, &text, v);
    if (!text)
        return 0;
    if (j_is(v, J_STRING))
        return clock_parse(text, &ns) == 0 ? ns : 0;
    seconds = strtod(text, NULL);
    return isfinite(seconds) && seconds > 0 && seconds < 9e9 ? (int64_t)(seconds * 1e3 + 0.5) * 1000000 : 0;
}

bool parse_inner(struct reading *r, struct jval v, struct jdoc *ret_doc, char **ret_text)
{
    char *text = NULL;
    int e;

    if (j_string(v, &text) < 0)
        r->oom = true;
    if (!text)
        return false;
    e = jdoc_parse(text, strlen(text), ret_doc);
    if (e < 0) {
        r->oom |= e == -ENOMEM;
        free(text);
        return false;
    }
    *ret_text = text;
    return true;
}

/* A state with more problems than this is described well enough. */
#define PROBLEMS_MAX 64

void add_problem(struct reading *r, const char *fmt, ...)
{
    struct state_info *info = r->info;
    cleanup_buf struct buf line = {0};
    char **grown, *text;
    va_list ap;

    if (info->problem_count == PROBLEMS_MAX)
        return;
    grown = realloc(info->problems, (info->problem_count + 1) * sizeof *grown);
    if (!grown) {
        r->oom = true;
        return;
    }
    info->problems = grown;
    va_start(ap, fmt);
    buf_vaddf(&line, fmt, ap);
    va_end(ap);
    text = buf_steal(&line);
    if (text)
        info->problems[info->problem_count++] = text;
    else
        r->oom = true;
}

unsigned allow_bit(struct jval name)
{
    static const struct { const char *word; unsigned bit; } words[] = {
        {"approve", ALLOW_APPROVE}, {"accept", ALLOW_APPROVE}, {"reject", ALLOW_REJECT}, {"ignore", ALLOW_REJECT},
        {"edit", ALLOW_EDIT}, {"respond", ALLOW_RESPOND}, {"response", ALLOW_RESPOND},
    };

    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (j_equals(name, words[i].word))
            return words[i].bit;
    }
    return 0;
}

static void read_framework(struct reading *r, struct jval root)
{
    switch (r->info->framework) {
    case FRAMEWORK_OPENAI_PYTHON: read_openai(r, root, false); break;
    case FRAMEWORK_OPENAI_JS: read_openai(r, root, true); break;
    case FRAMEWORK_LANGGRAPH_PYTHON:
    case FRAMEWORK_LANGGRAPH_JS: read_langgraph(r, root); break;
    case FRAMEWORK_LLAMAINDEX: read_llamaindex(r, root); break;
    case FRAMEWORK_MS_AGENT: read_ms_agent(r, root); break;
    case FRAMEWORK_AUTOGEN: read_autogen(r, root); break;
    case FRAMEWORK_PYDANTIC_AI: read_pydantic_ai(r, root); break;
    case FRAMEWORK_GOOGLE_ADK: read_google_adk(r, root); break;
    case FRAMEWORK_CLAUDE: read_claude(r, root); break;
    case FRAMEWORK_CREWAI: read_crewai(r, root); break;
    case FRAMEWORK_RAW: break;
    }
}

int state_read(const char *bytes, size_t n, struct state_info *ret, struct err *e)
{
    struct state_info info;
    struct reading r = {.info = &info};
    cleanup_state_view struct state_view view = {0};
    int opened = state_view_open(&view, bytes, n);

    state_info_init(&info);
    if (opened == 0) {
        info.framework = detect_framework(view.root);
        take_text(&r, &info.snapshot_id, view.snapshot_id);
        read_framework(&r, view.root);
        make_ids_unique(&r);
    }
    if (opened == -ENOMEM || r.oom) {
        state_info_free(&info);
        return err_set(e, ENOMEM, "out of memory while reading the state (%zu bytes)", n);
    }
    *ret = info;
    return 0;
}

bool state_partial_ok(const struct state_info *info)
{
    return info->framework == FRAMEWORK_OPENAI_PYTHON || info->framework == FRAMEWORK_OPENAI_JS;
}

bool state_waits_for_input(const struct state_info *info)
{
    if (info->status == RUN_FINAL)
        return false;
    for (size_t i = 0; i < info->pending_count; i++) {
        if (info->pending[i].kind == CALL_APPROVAL)
            return false;
    }
    return true;
}
