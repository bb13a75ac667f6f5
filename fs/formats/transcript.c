/* transcript.md: the run as a person reads it, and what to type to decide. See include/formats/render.h. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "formats/render.h"
#include "formats_i.h"
#include "markdown_i.h"
#include "transcript_i.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/text.h"

static void fact(struct buf *b, const char *label, const char *value)
{
    if (!value)
        return;
    buf_addf(b, "- %s: ", label);
    md_code(b, value);
    buf_addc(b, '\n');
}

static const char *either(const char *a, const char *b)
{
    return a ? a : b;
}

static void write_framework(struct buf *b, const struct checkpoint_facts *f, const struct state_info *info)
{
    buf_adds(b, "- framework: ");
    md_code(b, either(f->framework, framework_name(info->framework)));
    if (f->framework_version) {
        buf_addc(b, ' ');
        md_code(b, f->framework_version);
    }
    if (info->schema_version) {
        buf_adds(b, ", schema ");
        md_code(b, info->schema_version);
    }
    buf_addc(b, '\n');
}

static void write_turn(struct buf *b, const struct state_info *info)
{
    if (info->turn < 0)
        return;
    buf_addf(b, "- turn: %" PRId64, info->turn);
    if (info->max_turns >= 0)
        buf_addf(b, " of at most %" PRId64, info->max_turns);
    buf_addc(b, '\n');
}

static void write_usage(struct buf *b, const struct usage *u)
{
    const struct { int64_t n; const char *what; } parts[] = {
        {u->requests, u->requests == 1 ? "request" : "requests"}, {u->input, "tokens in"}, {u->output, "tokens out"},
    };
    bool any = false;

    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (parts[i].n < 0)
            continue;
        buf_addf(b, "%s%" PRId64 " %s", any ? ", " : "- usage: ", parts[i].n, parts[i].what);
        any = true;
    }
    if (any)
        buf_addc(b, '\n');
}

/* What stays the same all through a run comes first, what only this checkpoint has comes last: then the difference of two transcripts
 * is what happened in between. */
static void write_head(struct buf *b, const struct checkpoint_facts *f, const struct state_info *info)
{
    const char *run = either(f->run_id, info ? info->run_id : NULL);

    buf_adds(b, "# Transcript\n\n");
    if (info)
        write_framework(b, f, info);
    fact(b, "run", run);
    if (info || run)
        buf_addc(b, '\n');
}

static void write_checkpoint(struct buf *b, const struct checkpoint_facts *f, const struct state_info *info)
{
    char time[CLOCK_TEXT_MAX];

    buf_adds(b, "## Checkpoint\n\n");
    fact(b, "name", f->name);
    fact(b, "id", f->id);
    fact(b, "taken", f->created_at ? clock_format(f->created_at, time) : NULL);
    fact(b, "reason", f->reason);
    fact(b, "parent", either(f->parent, info ? info->parent : NULL));
    fact(b, "step", either(f->step_id, info ? info->step_id : NULL));
    if (info) {
        fact(b, "agent", either(f->agent, info->agent));
        fact(b, "model", info->model);
        write_turn(b, info);
        write_usage(b, &info->usage);
        fact(b, "status", run_status_name(info->status));
        for (size_t i = 0; i < info->problem_count; i++)
            fact(b, "note", info->problems[i]);
    } else {
        buf_adds(b, "- database only: there is no state, so it can be restored but not resumed\n");
    }
}

/* -- What is pending -------------------------------------------------------------------------------------------------- */

static void named(struct buf *b, const char *before, const char *name)
{
    if (!name)
        return;
    buf_adds(b, before);
    md_code(b, name);
}

/* What the state holds already, and what becomes of it. */
static void write_stored_decision(struct buf *b, const struct call *c, enum framework framework)
{
    bool re_used = framework == FRAMEWORK_LANGGRAPH_PYTHON || framework == FRAMEWORK_LANGGRAPH_JS;

    buf_addf(b, "Already %s in the state", call_decision_name(c->decision));
    if (c->message) {
        buf_adds(b, ": ");
        md_code(b, c->message);
    }
    buf_adds(b, re_used ? ". LangGraph re-uses this answer unless the resume command leaves out the task's `__resume__`.\n\n"
                        : ". A new decision overrides it.\n\n");
}

static void write_call(struct buf *b, const struct call *c, enum framework framework)
{
    buf_adds(b, "### ");
    md_code(b, c->tool ? c->tool : "question");
    buf_adds(b, " (");
    md_code(b, c->id);
    buf_addc(b, ')');
    named(b, ", by ", c->agent);
    named(b, ", asked through ", c->via);
    named(b, ", on the server ", c->server);
    buf_adds(b, "\n\n");
    if (c->arguments && (c->is_json || c->kind == CALL_APPROVAL))
        md_json_block(b, c->arguments, strlen(c->arguments));
    else if (c->arguments)
        md_block(b, c->arguments, strlen(c->arguments));
    else
        buf_adds(b, "Its arguments aren't in the state.\n\n");
    if (c->decision != CALL_UNDECIDED)
        write_stored_decision(b, c, framework);
}

static void command(struct buf *b, const char *line, const char *what)
{
    buf_addf(b, "%-44s# %s\n", line, what);
}

static int write_commands_for_one(struct buf *b, const struct state_info *info)
{
    for (size_t i = 0; i < info->pending_count; i++) {
        const struct call *c = &info->pending[i];
        cleanup_free char *name = id_to_filename(c->id, strlen(c->id));
        if (!name)
            return -ENOMEM;
        if (c->allowed & ALLOW_APPROVE)
            buf_addf(b, "echo 'approve %s' > resume\n", name);
        if (c->allowed & ALLOW_REJECT)
            buf_addf(b, "echo 'reject id=%s TEXT' > resume\n", name);
    }
    return 0;
}

/* What every pending call may be answered with, or any of them. A word for all passes over questions that it doesn't fit, which stay
 * pending where that is possible. */
static unsigned allowed(const struct state_info *info, bool by_all)
{
    unsigned all = ~0u, any = 0;

    for (size_t i = 0; i < info->pending_count; i++) {
        const struct call *c = &info->pending[i];
        any |= c->allowed;
        if (c->kind == CALL_APPROVAL || !state_partial_ok(info))
            all &= c->allowed;
    }
    return by_all ? all & any : any;
}

/* One entry for each of the decisions in `set`. */
static void write_json_command(struct buf *b, unsigned set)
{
    static const struct { unsigned bit; const char *entry; } samples[] = {
        {ALLOW_APPROVE, "\"decision\":\"approve\""},
        {ALLOW_REJECT, "\"decision\":\"reject\",\"message\":\"TEXT\""},
        {ALLOW_EDIT, "\"decision\":\"edit\",\"arguments\":{}"},
        {ALLOW_RESPOND, "\"decision\":\"respond\",\"message\":\"TEXT\""},
    };
    bool more = false;

    if (!set)
        return;
    buf_adds(b, "echo '{\"decisions\":[");
    for (size_t i = 0; i < sizeof samples / sizeof *samples; i++) {
        if (!(set & samples[i].bit))
            continue;
        buf_addf(b, "%s{\"id\":\"ID\",%s}", more ? ",\n      " : "", samples[i].entry);
        more = true;
    }
    buf_adds(b, "]}' > resume\n");
}

static void write_commands_for_all(struct buf *b, size_t n, unsigned all)
{
    if (all & ALLOW_APPROVE)
        command(b, "echo approve > resume", n == 1 ? "approve it, and wake the agent" : "approve all, and wake the agent");
    if (all & ALLOW_REJECT)
        command(b, "echo 'reject TEXT' > resume", n == 1 ? "reject it with that message" : "reject all with that message");
    command(b, "echo in-place > restore", "put the database back first");
    if (all & ALLOW_REJECT)
        command(b, "echo 'in-place reject TEXT' > replay", "put it back, reject, and wake the agent");
    else if (all & ALLOW_APPROVE)
        command(b, "echo 'in-place approve' > replay", "put it back, approve, and wake the agent");
}

/* Nothing is offered that would be refused. */
static int write_commands(struct buf *b, const struct state_info *info)
{
    const unsigned usual = ALLOW_APPROVE | ALLOW_REJECT;
    unsigned all = allowed(info, true), any = allowed(info, false);
    size_t n = info->pending_count;

    buf_adds(b, "In this checkpoint's directory:\n\n```sh\n");
    if (state_waits_for_input(info)) {
        command(b, "echo 'answer TEXT' > resume", "answer, and wake the agent");
        return 0;
    }
    write_commands_for_all(b, n, all);
    if (n > 1 && state_partial_ok(info)) {
        buf_adds(b, "\n# one of them; the others stay pending\n");
        return write_commands_for_one(b, info);
    }
    if (n > 1) {
        buf_adds(b, "\n# each its own decision, all in one write\n");
        write_json_command(b, (any & usual) == usual ? usual : any);
    } else if ((all & usual) != usual && (all & ~usual)) {
        buf_adds(b, "\n# what it takes instead\n");
        write_json_command(b, all & ALLOW_EDIT);
        write_json_command(b, all & ALLOW_RESPOND);
    }
    return 0;
}

static int write_waiting(struct buf *b, const struct state_info *info)
{
    size_t n = info->pending_count;

    if (n == 0 && info->status != RUN_WAITING_INPUT)
        return 0;
    if (state_waits_for_input(info))
        buf_adds(b, "## Waiting for an input\n\n");
    else
        buf_addf(b, "## Waiting for a decision (%zu call%s)\n\n", n, n == 1 ? "" : "s");
    for (size_t i = 0; i < n; i++)
        write_call(b, &info->pending[i], info->framework);
    if (write_commands(b, info) < 0)
        return -ENOMEM;
    buf_adds(b, "```\n\n");
    return 0;
}

/* -- The run ------------------------------------------------------------------------------------------------------------ */

/* What isn't JSON is shown from its beginning, if it is text. */
static void write_excerpt(struct buf *b, const char *state, size_t n)
{
    size_t looked = md_cut(state, n, MD_TEXT_MAX);

    buf_adds(b, "## State\n\n");
    if (n > 0 && (!utf8_valid(state, looked) || memchr(state, 0, looked)))
        buf_addf(b, "%zu bytes that aren't text, in state.json.\n\n", n);
    else
        md_block(b, state, n);
}

static void write_steps(struct transcript *t, enum framework framework, struct jval root)
{
    switch (framework) {
    case FRAMEWORK_OPENAI_PYTHON: transcript_openai(t, root, false); break;
    case FRAMEWORK_OPENAI_JS: transcript_openai(t, root, true); break;
    case FRAMEWORK_LANGGRAPH_PYTHON:
    case FRAMEWORK_LANGGRAPH_JS: transcript_langgraph(t, root); break;
    case FRAMEWORK_LLAMAINDEX: transcript_llamaindex(t, root); break;
    case FRAMEWORK_PYDANTIC_AI: transcript_pydantic_ai(t, root); break;
    case FRAMEWORK_GOOGLE_ADK: transcript_google_adk(t, root); break;
    case FRAMEWORK_CLAUDE: transcript_claude(t, root); break;
    case FRAMEWORK_AUTOGEN: transcript_autogen(t, root); break;
    case FRAMEWORK_CREWAI: transcript_crewai(t, root); break;
    case FRAMEWORK_MS_AGENT:
    case FRAMEWORK_RAW: transcript_any(t, root); break;
    }
}

/* A run may be as long as a state, and nobody reads that: what is pending comes after it and has to be found. */
static int write_run(struct buf *b, const struct state_info *info, const char *state, size_t n)
{
    struct reading r = {0};
    cleanup_buf struct buf run = {0};
    size_t left_out = 0;
    struct transcript t = {.b = &run, .r = &r, .left_out = &left_out};
    cleanup_state_view struct state_view view = {0};
    int opened = state_view_open(&view, state, n);

    if (opened == -ENOMEM)
        return opened;
    if (opened < 0) {
        write_excerpt(b, state, n);
        return 0;
    }
    write_steps(&t, info->framework, view.root);
    buf_add(b, run.data, run.len);
    if (left_out > 0)
        buf_addf(b, "## Cut\n\nThe run is shown to here: %zu more step%s, or parts of one, are in state.json.\n\n", left_out,
                 left_out == 1 ? "" : "s");
    return r.oom || buf_error(&run) ? -ENOMEM : 0;
}

int render_transcript(struct buf *b, const struct checkpoint_facts *f, const struct state_info *info, const char *state,
                      size_t n)
{
    int r = 0;

    write_head(b, f, info);
    if (info && state)
        r = write_run(b, info, state, n);
    if (r == 0 && info)
        r = write_waiting(b, info);
    write_checkpoint(b, f, info);
    return r < 0 ? r : buf_error(b);
}
