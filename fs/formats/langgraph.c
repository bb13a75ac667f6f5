/* States of LangGraph: a checkpoint tuple, a bare checkpoint, or what get_state returns. reference/frameworks.md §3. */
#include <stdlib.h>
#include <string.h>

#include "formats_i.h"
#include "util/cleanup.h"
#include "util/text.h"

/* -- LangChain's messages --------------------------------------------------------------------------------------------- */

struct jval langgraph_values(struct jval root)
{
    struct jval values = j_path(root, "checkpoint.channel_values");

    return values.node ? values : j_either(root, "channel_values", "values");
}

struct jval message_fields(struct jval message)
{
    struct jval inner = j_either(message, "kwargs", "data");

    return j_is(inner, J_OBJECT) ? inner : message;
}

static bool is_message(struct jval v)
{
    return j_is(v, J_OBJECT) && j_get(message_fields(v), "content").node;
}

struct jval langgraph_messages(struct jval root)
{
    struct jval values = langgraph_values(root), messages = j_get(values, "messages");

    if (j_is(messages, J_ARRAY) || !j_is(values, J_OBJECT))
        return messages;
    for (struct jval c = j_first(values); c.node; c = j_next(values, c)) {
        if (j_is(c, J_ARRAY) && is_message(j_first(c)))
            return c;
    }
    return messages;
}

char *message_role(struct reading *r, struct jval message)
{
    static const struct { const char *word, *role; } words[] = {
        {"human", "human"}, {"user", "human"}, {"ai", "ai"}, {"assistant", "ai"}, {"tool", "tool"}, {"system", "system"},
        {"HumanMessage", "human"}, {"AIMessage", "ai"}, {"ToolMessage", "tool"}, {"SystemMessage", "system"},
        {"HumanMessageChunk", "human"}, {"AIMessageChunk", "ai"}, {"ToolMessageChunk", "tool"},
    };
    struct jval fields = message_fields(message), class_name = j_last(j_get(message, "id"));
    struct jval name = j_is(class_name, J_STRING) ? class_name : j_either(fields, "role", "type");
    char *own = NULL;

    if (!j_is(name, J_STRING))
        name = j_get(message, "type");
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (j_equals(name, words[i].word)) {
            own = str_dup(words[i].role);
            r->oom |= !own;
            return own;
        }
    }
    take_text(r, &own, name);
    return own;
}

static void read_messages(struct reading *r, struct jval messages)
{
    struct state_info *info = r->info;

    if (!j_is(messages, J_ARRAY))
        return;
    for (struct jval m = j_first(messages); m.node; m = j_next(messages, m)) {
        struct jval fields = message_fields(m), usage = j_get(fields, "usage_metadata");
        struct jval about = j_get(fields, "response_metadata");
        if (j_is(usage, J_OBJECT)) {
            info->usage.requests = info->usage.requests < 0 ? 1 : info->usage.requests + 1;
            add_tokens(&info->usage.input, j_get(usage, "input_tokens"));
            add_tokens(&info->usage.output, j_get(usage, "output_tokens"));
            add_tokens(&info->usage.total, j_get(usage, "total_tokens"));
        }
        take_text(r, &info->model, j_either(about, "model_name", "model"));
    }
}

/* -- Interrupts ------------------------------------------------------------------------------------------------------- */

#define RE_USED "LangGraph re-uses that answer unless the resume command leaves out the task's __resume__"

/* Where an interrupt comes from and what was already answered to it. */
struct interrupt {
    char *id;           /* owned */
    struct jval value;  /* what the node asked */
    struct jval answer; /* what was answered to it; none if nothing was */
};

/* The decisions that an answer holds: {"decisions":[…]} or the list itself. */
static struct jval answered(struct reading *r, const struct interrupt *in, size_t index)
{
    struct jval list = j_get(in->answer, "decisions"), none = {list.doc, NULL};

    if (!list.node)
        list = in->answer;
    return spend(r, index + 1) ? j_at(list, index) : none;
}

static void read_answer(struct reading *r, const struct interrupt *in, size_t index, struct call *c)
{
    struct jval given;
    unsigned bit;

    if (!in->answer.node)
        return;
    given = answered(r, in, index);
    bit = allow_bit(j_get(given, "type"));
    if (bit == 0)
        return;
    c->decision = bit == ALLOW_REJECT ? CALL_REJECTED : CALL_APPROVED;
    if (bit == ALLOW_REJECT)
        take_text(r, &c->message, j_either(given, "message", "args"));
}

/* What the review configuration allows for the action: by its place in the list, else by its name. */
static unsigned allowed_for(struct reading *r, struct jval configs, struct jval name, size_t index)
{
    const unsigned usual = ALLOW_APPROVE | ALLOW_EDIT | ALLOW_REJECT;
    cleanup_free char *tool = NULL;
    struct jval list, config;
    unsigned allowed = 0;

    if (!spend(r, 2 * j_count(configs)))
        return usual;
    config = j_at(configs, index);
    if (j_string(name, &tool) < 0 || !tool)
        tool = NULL;
    if (tool && !j_equals(j_get(config, "action_name"), tool) && j_is(configs, J_ARRAY)) {
        for (struct jval c = j_first(configs); c.node; c = j_next(configs, c)) {
            if (j_equals(j_get(c, "action_name"), tool))
                config = c;
        }
    }
    list = j_get(config, "allowed_decisions");
    if (j_is(list, J_ARRAY)) {
        for (struct jval w = j_first(list); w.node; w = j_next(list, w))
            allowed |= allow_bit(w);
    }
    return allowed ? allowed : usual;
}

/* The calls of one interrupt share its id, and have their place in it behind a colon if there are several. */
static struct call *add_interrupt_call(struct reading *r, const struct interrupt *in, size_t index, size_t of)
{
    struct call *c = add_call(r);

    if (!c)
        return NULL;
    c->group = str_dup(in->id);
    if (in->id) {
        c->id = of > 1 ? str_format("%s:%zu", in->id, index) : str_dup(in->id);
        r->oom |= !c->id || !c->group;
    }
    return c;
}

/* LangChain's human-in-the-loop middleware: {action_requests, review_configs}. */
static void read_action_requests(struct reading *r, const struct interrupt *in, struct jval actions)
{
    struct jval configs = j_get(in->value, "review_configs");
    size_t i = 0;

    for (struct jval a = j_first(actions); a.node; a = j_next(actions, a), i++) {
        struct call *c = add_interrupt_call(r, in, i, j_count(actions));
        if (!c)
            return;
        take_text(r, &c->tool, j_either(a, "name", "action"));
        take_arguments(r, c, j_either(a, "args", "arguments"));
        c->allowed = allowed_for(r, configs, j_either(a, "name", "action"), i);
        read_answer(r, in, i, c);
        call_finish(r, c);
    }
}

/* The older prebuilt HumanInterrupt: {action_request: {action, args}, config: {allow_accept, …}}. */
static void read_human_interrupt(struct reading *r, const struct interrupt *in, struct jval value, size_t index, size_t of)
{
    struct jval action = j_get(value, "action_request"), config = j_get(value, "config");
    struct call *c = add_interrupt_call(r, in, index, of);

    if (!c)
        return;
    take_text(r, &c->tool, j_either(action, "action", "name"));
    take_arguments(r, c, j_get(action, "args"));
    c->allowed = (j_is(j_get(config, "allow_accept"), J_TRUE) ? (unsigned)ALLOW_APPROVE : 0) |
                 (j_is(j_get(config, "allow_edit"), J_TRUE) ? (unsigned)ALLOW_EDIT : 0) |
                 (j_is(j_get(config, "allow_respond"), J_TRUE) ? (unsigned)ALLOW_RESPOND : 0) |
                 (j_is(j_get(config, "allow_ignore"), J_TRUE) ? (unsigned)ALLOW_REJECT : 0);
    if (c->allowed == 0)
        c->allowed = ALLOW_APPROVE | ALLOW_REJECT;
    read_answer(r, in, index, c);
    call_finish(r, c);
}

/* interrupt("text"): a question without a tool. */
static void read_question(struct reading *r, const struct interrupt *in)
{
    struct call *c = add_interrupt_call(r, in, 0, 1);

    if (!c)
        return;
    c->kind = CALL_INPUT;
    c->allowed = ALLOW_RESPOND;
    take_arguments(r, c, in->value);
    read_answer(r, in, 0, c);
    call_finish(r, c);
}

static void read_interrupt_value(struct reading *r, const struct interrupt *in)
{
    struct jval actions = j_get(in->value, "action_requests"), first = j_first(in->value);
    size_t i = 0;

    if (j_is(actions, J_ARRAY) && j_count(actions) > 0) {
        read_action_requests(r, in, actions);
    } else if (j_get(in->value, "action_request").node) {
        read_human_interrupt(r, in, in->value, 0, 1);
    } else if (j_is(in->value, J_ARRAY) && j_get(first, "action_request").node) {
        for (struct jval v = first; v.node; v = j_next(in->value, v), i++)
            read_human_interrupt(r, in, v, i, j_count(in->value));
    } else {
        read_question(r, in);
    }
}

/* One interrupt object {id, value} (or the msgpack form [module, class, {value, id}]) of the task `task`. */
static void read_interrupt(struct reading *r, struct jval v, struct jval task, size_t place, struct jval answer)
{
    struct jval fields = j_is(v, J_ARRAY) && j_count(v) == 3 ? j_last(v) : v;
    struct interrupt in = {.value = j_get(fields, "value"), .answer = answer};
    cleanup_free char *task_id = NULL;

    take_text(r, &in.id, j_either(fields, "id", "interrupt_id"));
    if (!in.id) { /* before 0.4 an interrupt had only a namespace */
        take_text(r, &task_id, task);
        in.id = str_format("%s~%zu", task_id ? task_id : "interrupt", place + 1);
        r->oom |= !in.id;
    }
    if (!in.value.node)
        in.value = fields;
    if (in.answer.node)
        add_problem(r, "interrupt %s was answered in this state already: " RE_USED, in.id ? in.id : "?");
    read_interrupt_value(r, &in);
    free(in.id);
}

/* The last write of a task to that channel. */
static struct jval write_of(struct reading *r, struct jval writes, struct jval task, const char *channel)
{
    struct jval found = {task.doc, NULL};
    cleanup_free char *id = NULL;

    if (j_string(task, &id) < 0 || !id || !spend(r, j_count(writes)))
        return found;
    for (struct jval w = j_first(writes); w.node; w = j_next(writes, w)) {
        if (j_equals(j_at(w, 1), channel) && j_equals(j_at(w, 0), id))
            found = j_at(w, 2);
    }
    return found;
}

/* The last answer that a task was given; LangGraph keeps one value per interrupt of the node in a list. */
static struct jval resume_write(struct reading *r, struct jval writes, struct jval task)
{
    struct jval answer = write_of(r, writes, task, "__resume__");

    return j_is(answer, J_ARRAY) && j_get(j_last(answer), "decisions").node ? j_last(answer) : answer;
}

/* Whether a write says what happened to its task, and not what the task did: CONTROL_WRITES of langgraph/pregel/_task_status.py, and one
 * that older versions had. */
static bool is_control(struct jval channel)
{
    static const char *const names[] = {"__interrupt__", "__resume__", "__error__", "__error_source_node__", "__scheduled__"};

    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (j_equals(channel, names[i]))
            return true;
    }
    return false;
}

/* Whether a task went on behind its interrupt: then it has written something, and be it that it had nothing to write. */
static bool has_gone_on(struct reading *r, struct jval writes, struct jval task)
{
    cleanup_free char *id = NULL;

    if (j_string(task, &id) < 0 || !id || !spend(r, j_count(writes)))
        return false;
    for (struct jval w = j_first(writes); w.node; w = j_next(writes, w)) {
        if (j_equals(j_at(w, 0), id) && !is_control(j_at(w, 1)))
            return true;
    }
    return false;
}

static bool is_interrupt(struct jval write)
{
    return j_equals(j_at(write, 1), "__interrupt__");
}

/* The answer that was given to a task's interrupt. A node may ask several times, of which only the last question is stored, and all of
 * its answers: only if the node went on one of them is to that question. Whether a node that failed did so before it asked or behind it,
 * nothing says, since its error stays when it is run again. */
static struct jval answer_to(struct reading *r, struct jval writes, struct jval task)
{
    struct jval answer = resume_write(r, writes, task);
    cleanup_free char *id = NULL;

    if (!answer.node || has_gone_on(r, writes, task))
        return answer;
    if (write_of(r, writes, task, "__error__").node) {
        take_text(r, &id, task);
        add_problem(r, "the task %s had an answer in this state, and failed: " RE_USED, id ? id : "?");
    }
    return (struct jval){task.doc, NULL};
}

/* The interrupts of one write, which holds one or a list of them. */
static void read_interrupt_write(struct reading *r, struct jval writes, struct jval w)
{
    struct jval task = j_at(w, 0), value = j_at(w, 2), answer = answer_to(r, writes, task);
    size_t place = 0;

    if (j_get(value, "b64").node) {
        add_problem(r, "a pending interrupt is stored in a form that can't be read here: supply \"pending\" in meta.json");
        r->info->status = RUN_INTERRUPTED;
    } else if (j_is(value, J_ARRAY)) {
        for (struct jval v = j_first(value); v.node; v = j_next(value, v))
            read_interrupt(r, v, task, place++, answer);
    } else if (j_is(value, J_OBJECT)) {
        read_interrupt(r, value, task, 0, answer);
    }
}

/* Of several tasks that were interrupted at once some may have had their answer and gone on: those don't wait any more. Where all of
 * them have, this is an old checkpoint of a run that has gone on, and what it was asked stands, with the answers. */
static void read_pending_writes(struct reading *r, struct jval writes)
{
    bool some_wait = false;

    if (!j_is(writes, J_ARRAY))
        return;
    for (struct jval w = j_first(writes); w.node && !some_wait; w = j_next(writes, w))
        some_wait = is_interrupt(w) && !has_gone_on(r, writes, j_at(w, 0));
    for (struct jval w = j_first(writes); w.node; w = j_next(writes, w)) {
        if (is_interrupt(w) && !(some_wait && has_gone_on(r, writes, j_at(w, 0))))
            read_interrupt_write(r, writes, w);
    }
}

static void read_tasks(struct reading *r, struct jval tasks)
{
    if (!j_is(tasks, J_ARRAY))
        return;
    for (struct jval t = j_first(tasks); t.node; t = j_next(tasks, t)) {
        struct jval interrupts = j_get(t, "interrupts");
        size_t place = 0;
        for (struct jval v = j_first(interrupts); v.node && j_is(interrupts, J_ARRAY); v = j_next(interrupts, v))
            read_interrupt(r, v, j_get(t, "id"), place++, (struct jval){0});
    }
}

/* -- The rest --------------------------------------------------------------------------------------------------------- */

static bool key_starts(struct jval member, const char *prefix)
{
    cleanup_free char *key = NULL;

    return j_string(j_key(member), &key) == 0 && key && str_starts(key, prefix);
}

/* Whether a node is due: a `branch:to:NODE` channel still holds a value. Unknown where the graph doesn't use such channels. */
static enum run_status status_of_channels(struct jval root)
{
    struct jval values = langgraph_values(root), next = j_get(root, "next");
    struct jval checkpoint = j_either(root, "checkpoint", "values");
    struct jval versions = j_get(j_has(checkpoint) ? checkpoint : root, "channel_versions");
    bool uses_branches = false;

    if (j_is(next, J_ARRAY))
        return j_count(next) ? RUN_RUNNABLE : RUN_FINAL;
    for (struct jval c = j_is(values, J_OBJECT) ? j_first(values) : (struct jval){0}; c.node; c = j_next(values, c)) {
        if (key_starts(c, "branch:to:") || key_starts(c, "__start__"))
            return RUN_RUNNABLE;
    }
    for (struct jval c = j_is(versions, J_OBJECT) ? j_first(versions) : (struct jval){0}; c.node; c = j_next(versions, c))
        uses_branches |= key_starts(c, "branch:to:");
    return uses_branches ? RUN_FINAL : RUN_UNKNOWN;
}

static void read_status(struct reading *r, struct jval root)
{
    struct state_info *info = r->info;

    if (info->pending_count == 0) {
        if (info->status != RUN_INTERRUPTED)
            info->status = status_of_channels(root);
        return;
    }
    info->status = RUN_WAITING_INPUT;
    for (size_t i = 0; i < info->pending_count; i++) {
        if (info->pending[i].kind == CALL_APPROVAL)
            info->status = RUN_INTERRUPTED;
    }
}

void read_langgraph(struct reading *r, struct jval root)
{
    struct state_info *info = r->info;
    struct jval checkpoint = j_has(j_get(root, "checkpoint")) ? j_get(root, "checkpoint") : root;
    struct jval config = j_path(root, "config.configurable"), metadata = j_get(root, "metadata");
    struct jval parent = j_get(j_either(root, "parentConfig", "parent_config"), "configurable");
    struct jval time = j_get(checkpoint, "ts");

    take_text(r, &info->schema_version, j_get(checkpoint, "v"));
    take_text(r, &info->run_id, j_has(j_get(config, "thread_id")) ? j_get(config, "thread_id") : j_get(metadata, "run_id"));
    take_text(r, &info->step_id, j_get(checkpoint, "id"));
    take_text(r, &info->step_id, j_get(config, "checkpoint_id"));
    take_text(r, &info->parent, j_get(parent, "checkpoint_id"));
    take_text(r, &info->agent, j_get(metadata, "lc_agent_name"));
    info->turn = take_int(j_get(metadata, "step"));
    info->created_at = take_time(r, j_has(time) ? time : j_either(root, "createdAt", "created_at"));
    read_messages(r, langgraph_messages(root));
    read_pending_writes(r, j_either(root, "pendingWrites", "pending_writes"));
    if (info->pending_count == 0)
        read_tasks(r, j_get(root, "tasks"));
    read_status(r, root);
}
