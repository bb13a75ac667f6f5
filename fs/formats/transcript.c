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

/* The name is any UTF-8 without control characters; in a heading what Markdown would read as markup is escaped. */
static void write_title(struct buf *b, const char *name)
{
    buf_adds(b, "# ");
    for (const char *p = name ? name : "checkpoint"; *p; p++) {
        if (strchr("\\`*[]<>", *p))
            buf_addc(b, '\\');
        buf_addc(b, *p);
    }
    buf_adds(b, "\n\n");
}

static void write_facts(struct buf *b, const struct checkpoint_facts *f, const struct state_info *info)
{
    char time[CLOCK_TEXT_MAX];

    write_title(b, f->name);
    fact(b, "checkpoint", f->id);
    fact(b, "taken", f->created_at ? clock_format(f->created_at, time) : NULL);
    fact(b, "reason", f->reason);
    fact(b, "parent", either(f->parent, info ? info->parent : NULL));
    fact(b, "run", either(f->run_id, info ? info->run_id : NULL));
    fact(b, "step", either(f->step_id, info ? info->step_id : NULL));
    if (info) {
        write_framework(b, f, info);
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
    buf_addc(b, '\n');
}

/* -- What is pending -------------------------------------------------------------------------------------------------- */

static void write_call(struct buf *b, const struct call *c)
{
    buf_adds(b, "### ");
    md_code(b, c->tool ? c->tool : "question");
    buf_adds(b, " (");
    md_code(b, c->id);
    buf_addc(b, ')');
    if (c->agent) {
        buf_adds(b, ", by ");
        md_code(b, c->agent);
    }
    buf_adds(b, "\n\n");
    if (c->arguments && (c->is_json || c->kind == CALL_APPROVAL))
        md_json_block(b, c->arguments, strlen(c->arguments));
    else if (c->arguments)
        md_block(b, c->arguments, strlen(c->arguments), "text");
    else
        buf_adds(b, "Its arguments aren't in the state.\n\n");
    if (c->decision == CALL_UNDECIDED)
        return;
    buf_addf(b, "Already %s in the state", call_decision_name(c->decision));
    if (c->message) {
        buf_adds(b, ": ");
        md_code(b, c->message);
    }
    buf_adds(b, ". A new decision overrides it.\n\n");
}

static void command(struct buf *b, const char *line, const char *what)
{
    buf_addf(b, "    %-44s# %s\n", line, what);
}

static int write_commands_for_one(struct buf *b, const struct state_info *info)
{
    for (size_t i = 0; i < info->pending_count; i++) {
        const struct call *c = &info->pending[i];
        cleanup_free char *name = id_to_filename(c->id, strlen(c->id));
        if (!name)
            return -ENOMEM;
        if (c->allowed & ALLOW_APPROVE)
            buf_addf(b, "    echo 'approve %s' > resume\n", name);
        if (c->allowed & ALLOW_REJECT)
            buf_addf(b, "    echo 'reject id=%s TEXT' > resume\n", name);
    }
    return 0;
}

static int write_commands(struct buf *b, const struct state_info *info)
{
    bool input = state_waits_for_input(info);
    size_t n = info->pending_count;

    buf_adds(b, "In this checkpoint's directory:\n\n");
    if (input) {
        command(b, "echo 'answer TEXT' > resume", "answer, and wake the agent");
        return 0;
    }
    command(b, "echo approve > resume", n == 1 ? "approve it, and wake the agent" : "approve all, and wake the agent");
    command(b, "echo 'reject TEXT' > resume", n == 1 ? "reject it with that message" : "reject all with that message");
    command(b, "echo in-place > restore", "put the database back first");
    command(b, "echo 'in-place reject TEXT' > replay", "put it back, reject, and wake the agent");
    if (n < 2)
        return 0;
    if (state_partial_ok(info)) {
        buf_adds(b, "\nOne of them; the others stay pending:\n\n");
        return write_commands_for_one(b, info);
    }
    buf_adds(b, "\nEach its own decision, all in one write:\n\n"
             "    echo '{\"decisions\":[{\"id\":\"ID\",\"decision\":\"approve\"},\n"
             "          {\"id\":\"ID\",\"decision\":\"reject\",\"message\":\"TEXT\"}]}' > resume\n");
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
        write_call(b, &info->pending[i]);
    return write_commands(b, info);
}

/* -- The run ------------------------------------------------------------------------------------------------------------ */

/* What nobody knows how to read is shown from its beginning, if it is text. */
static void write_excerpt(struct buf *b, const char *state, size_t n)
{
    size_t looked = n < MD_TEXT_MAX ? n : MD_TEXT_MAX;

    while (looked > 0 && n > looked && ((unsigned char)state[looked] & 0xc0) == 0x80)
        looked--;
    buf_adds(b, "## State\n\n");
    if (n > 0 && (!utf8_valid(state, looked) || memchr(state, 0, looked)))
        buf_addf(b, "%zu bytes that aren't text, in state.json\n\n", n);
    else
        md_block(b, state, n, "text");
}

static int write_run(struct buf *b, const struct state_info *info, const char *state, size_t n)
{
    struct transcript t = {.b = b};
    cleanup_state_view struct state_view view = {0};
    int opened = state_view_open(&view, state, n);

    if (opened == -ENOMEM)
        return opened;
    switch (opened < 0 ? FRAMEWORK_RAW : info->framework) {
    case FRAMEWORK_OPENAI_PYTHON: transcript_openai(&t, view.root, false); break;
    case FRAMEWORK_OPENAI_JS: transcript_openai(&t, view.root, true); break;
    case FRAMEWORK_LANGGRAPH_PYTHON:
    case FRAMEWORK_LANGGRAPH_JS: transcript_langgraph(&t, view.root); break;
    case FRAMEWORK_LLAMAINDEX: transcript_llamaindex(&t, view.root); break;
    case FRAMEWORK_PYDANTIC_AI: transcript_pydantic_ai(&t, view.root); break;
    case FRAMEWORK_RAW:
    case FRAMEWORK_MS_AGENT:
    case FRAMEWORK_AUTOGEN: write_excerpt(b, state, n); break;
    }
    return t.oom ? -ENOMEM : 0;
}

int render_transcript(struct buf *b, const struct checkpoint_facts *f, const struct state_info *info, const char *state,
                      size_t n)
{
    int r = 0;

    write_facts(b, f, info);
    if (info && state)
        r = write_run(b, info, state, n);
    if (r == 0 && info)
        r = write_waiting(b, info);
    return r < 0 ? r : buf_error(b);
}
