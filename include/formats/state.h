/* Reads what people need to know out of an agent's saved state, whichever framework wrote it (reference/frameworks.md §6).
 *
 * Never refuses a state: what can't be read is FRAMEWORK_RAW with nothing derived. All strings are valid UTF-8 without NUL, so
 * that jsonb takes them; the state's own bytes are never changed. Pure and thread-safe. */
#ifndef FORMATS_STATE_H
#define FORMATS_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/meta.h"
#include "util/buf.h"
#include "util/err.h"
#include "util/hash.h"

enum framework {
    FRAMEWORK_RAW,
    FRAMEWORK_OPENAI_PYTHON,
    FRAMEWORK_OPENAI_JS,
    FRAMEWORK_LANGGRAPH_PYTHON,
    FRAMEWORK_LANGGRAPH_JS,
    FRAMEWORK_LLAMAINDEX,
    FRAMEWORK_MS_AGENT,
    FRAMEWORK_AUTOGEN,
    FRAMEWORK_PYDANTIC_AI,
    FRAMEWORK_GOOGLE_ADK,
    FRAMEWORK_CLAUDE,
    FRAMEWORK_CREWAI,
};

enum run_status {
    RUN_UNKNOWN,
    RUN_INTERRUPTED,   /* tool calls await a decision */
    RUN_WAITING_INPUT, /* waits for a person's text */
    RUN_RUNNABLE,      /* could go on without a word */
    RUN_FINAL,         /* has ended */
};

enum call_kind { CALL_APPROVAL, CALL_INPUT };
enum call_decision { CALL_UNDECIDED, CALL_APPROVED, CALL_REJECTED };

/* What a call may be answered with; a set. */
enum { ALLOW_APPROVE = 1, ALLOW_REJECT = 2, ALLOW_EDIT = 4, ALLOW_RESPOND = 8 };

/* One tool call, or question, that awaits a decision. All strings owned. */
struct call {
    char *id;
    char *tool;        /* NULL for a question without a tool */
    char *arguments;   /* the text exactly as the model wrote it; for values other than strings their JSON in one line */
    bool is_json;      /* `arguments` was a JSON value in the state, not a text */
    char *agent;
    char *server;      /* the label of the hosted MCP server that the tool is on; else NULL */
    char *via;         /* the agents that asked through one another for this one's call, "Boss > Lead"; else NULL */
    char *group;       /* calls of one group are decided together (LangGraph's interrupt id); else NULL */
    enum call_kind kind;
    enum call_decision decision; /* already stored in the state */
    char *message;               /* the stored rejection's text */
    char arguments_sha256[SHA256_HEX_SIZE];
    unsigned allowed;
};

struct usage {
    int64_t requests, input, output, total; /* -1 = not known */
};

struct state_info {
    enum framework framework;
    char *schema_version, *agent, *model, *run_id, *step_id, *parent;
    char *snapshot_id;                       /* of Neon's guide's wrapper {snapshot_id, agent_state} */
    char *trace_id, *trace_group, *trace_workflow;
    int64_t turn, max_turns;                 /* -1 = not known */
    struct usage usage;
    enum run_status status;
    int64_t created_at;                      /* ns since the epoch; 0 = not known */
    struct call *pending;
    size_t pending_count;
    bool pending_supplied;                   /* `pending` comes from meta.json */
    char **problems;                         /* what is odd about this state, one line each, for people */
    size_t problem_count;
};

/* Reads `n` bytes. 0, or -ENOMEM. On success the caller frees `ret` by state_info_free. */
int state_read(const char *bytes, size_t n, struct state_info *ret, struct err *e);
void state_info_free(struct state_info *info);
#define cleanup_state_info __attribute__((cleanup(state_info_free)))

/* Adds what the writer supplied in meta.json and the state can't know: the pending calls of raw, LlamaIndex and similar states, and of
 * any other in which no reader found one (LangGraph's get() leaves out its interrupts). Where the state itself lists its calls, they
 * stand, and a problem is noted. 0, or -ENOMEM. */
int state_supply(struct state_info *info, const struct meta *m, struct err *e);

/* The whole of `info` as one line of JSON for the store's jsonb column, and back. Unknown fields are ignored when reading.
 * 0, or -ENOMEM; reading also -EINVAL. On success the caller frees `ret` by state_info_free. */
int state_to_json(const struct state_info *info, struct buf *ret);
int state_from_json(const char *json, size_t n, struct state_info *ret, struct err *e);

/* Whether the framework can resume with some calls decided and the others left pending. LangGraph can, if each interrupt
 * (`group`) is decided as a whole: false here, see commands/resolve.h. */
bool state_partial_ok(const struct state_info *info);

/* Whether what the run waits for is an input and not an approval. False once it has ended. */
bool state_waits_for_input(const struct state_info *info);

/* Static names: "openai-agents-python", …, "raw"; "interrupted", "waiting_input", "runnable", "final", "unknown"; "approval",
 * "input"; "approved", "rejected", or NULL for CALL_UNDECIDED. */
const char *framework_name(enum framework f);
const char *run_status_name(enum run_status s);
const char *call_kind_name(enum call_kind k);
const char *call_decision_name(enum call_decision d);

/* The pending call of that id, given as it is or in its file name's form (util/text.h id_to_filename); NULL if there is none, or
 * if it is the id of one call and the file name of another's: then nobody can know which is meant. */
const struct call *state_find_call(const struct state_info *info, const char *id);

#endif
