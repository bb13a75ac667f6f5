/* What the readers of the frameworks and the renderers share inside fs/formats. */
#ifndef FORMATS_FORMATS_I_H
#define FORMATS_FORMATS_I_H

#include "formats/jdoc.h"
#include "formats/state.h"

/* -- A state opened for reading, its wrappers taken off --------------------------------------------------------------- */

#define STATE_LAYERS 6

/* `root` is the framework's own value: Neon's guide wraps it as {snapshot_id, agent_state}, and it may be JSON in a string, JSON
 * lines (an array of them here), or what LangGraph's savers store. */
struct state_view {
    struct jdoc docs[STATE_LAYERS];
    char *texts[STATE_LAYERS]; /* owned texts that docs[i] points into; NULL where it is the caller's */
    size_t layers;
    struct jval root;
    struct jval snapshot_id;
};

/* 0, -EINVAL when the bytes aren't JSON, -EFBIG, -ENOMEM. Free by state_view_close; `bytes` must outlive it. */
int state_view_open(struct state_view *ret, const char *bytes, size_t n);
void state_view_close(struct state_view *v);
#define cleanup_state_view __attribute__((cleanup(state_view_close)))

enum framework detect_framework(struct jval root);

/* Appends MessagePack as JSON; objects that LangGraph's extensions make are their fields. -EINVAL when it isn't one whole value, or
 * is nested too deep, -ENOMEM. */
int msgpack_to_json(const void *packed, size_t n, struct buf *b);

/* Appends what LangGraph's savers store in the form that read_langgraph takes. `packed`: it was MessagePack as a whole. 1; 0 with
 * nothing to use in `b` when `root` is no such thing, or has that form already; -ENOMEM. */
int langgraph_export(struct jval root, bool packed, struct buf *b);

/* -- Reading ---------------------------------------------------------------------------------------------------------- */

/* Failure is sticky: readers go on and state_read looks once at the end. */
struct reading {
    struct state_info *info;
    bool oom;
    uint64_t work; /* see spend */
};

void state_info_init(struct state_info *info);

/* Each fills `r->info` from the framework's value. */
void read_openai(struct reading *r, struct jval root, bool js);
void read_langgraph(struct reading *r, struct jval root);
void read_llamaindex(struct reading *r, struct jval root);
void read_ms_agent(struct reading *r, struct jval root);
void read_autogen(struct reading *r, struct jval root);
void read_pydantic_ai(struct reading *r, struct jval root);
void read_google_adk(struct reading *r, struct jval root);
void read_claude(struct reading *r, struct jval root);
void read_crewai(struct reading *r, struct jval root);

/* Copies a string, or a number's text, into *field; leaves it when `v` is neither. */
void take_text(struct reading *r, char **field, struct jval v);
/* The number or -1. */
int64_t take_int(struct jval v);
/* RFC 3339 text, or seconds since the epoch; 0 when neither. */
int64_t take_time(struct reading *r, struct jval v);
/* The text of a string that holds JSON, parsed; free by jdoc_free and free(*ret_text). False when it isn't that. */
bool parse_inner(struct reading *r, struct jval v, struct jdoc *ret_doc, char **ret_text);

void add_problem(struct reading *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* A new pending call, or NULL (r->oom). Fill it, then call_finish. */
struct call *add_call(struct reading *r);
/* `v` as the call's arguments: a text as it is, any other value as JSON in one line. */
void take_arguments(struct reading *r, struct call *c, struct jval v);
/* Gives the call an id if it has none, and its hash. */
void call_finish(struct reading *r, struct call *c);
void call_clear(struct call *c);
/* Ids become file names and name the call in commands: the second of the same id gets `~2`, or the next number that is free. */
void make_ids_unique(struct reading *r);
/* The pending calls in the order of their ids, of one id in that of the state; free() it, not them. NULL: r->oom. */
struct call **calls_by_id(struct reading *r);
/* Where in `sorted` the calls of that id begin; `n` when there is none. */
size_t calls_first(struct call *const *sorted, size_t n, const char *id);
/* Counts work that may grow faster than the state. False when a hostile state has used it up: stop there. */
bool spend(struct reading *r, uint64_t steps);

/* ALLOW_… of a decision's name in any framework's words; 0 when unknown. */
unsigned allow_bit(struct jval name);

/* -- Sessions --------------------------------------------------------------------------------------------------------- */

/* Ids that something was answered to. Zero-initialise; sort before asking. */
struct id_set {
    char **ids;
    size_t count, cap;
};

void id_set_add(struct reading *r, struct id_set *set, struct jval id); /* nothing when `id` is no text */
void id_set_sort(struct id_set *set);
bool id_set_has(struct reading *r, const struct id_set *set, struct jval id);
void id_set_free(struct id_set *set);

/* Adds a number that isn't negative; -1 in *total is 0. */
void add_tokens(int64_t *total, struct jval v);

/* The parts of an ADK event; none if it has none. */
struct jval adk_parts(struct jval event);

/* A member that is an object, or a string that holds one, as CrewAI's tables have it: JSON, parsed. False when it is neither; what is
 * in `ret_doc` and `ret_text` is the caller's to free either way. */
bool crewai_part(struct reading *r, struct jval root, const char *text_key, const char *key, struct jdoc *ret_doc, char **ret_text,
                 struct jval *ret);

/* -- Agents used as tools: states of the OpenAI Agents SDK inside such a state ------------------------------------------ */

/* Deeper than this nobody nests. */
#define OPENAI_NESTED_MAX 16

typedef void nested_fn(struct reading *r, struct jval root, void *arg, unsigned depth);

/* Calls `fn` for each state directly inside `root`, with `depth` - 1; not at all when that is none. */
void openai_each_nested(struct reading *r, struct jval root, nested_fn *fn, void *arg, unsigned depth);

/* -- LangChain messages, shared with the transcript ------------------------------------------------------------------- */

/* The list of messages in a LangGraph state; none if there is none. */
struct jval langgraph_messages(struct jval root);
/* The values of its channels; none if there are none. */
struct jval langgraph_values(struct jval root);
/* The fields of a message, whichever of the three forms it has. */
struct jval message_fields(struct jval message);
/* "human", "ai", "tool", "system", or the class's or role's own name; owned by the caller; NULL when it says nothing. */
char *message_role(struct reading *r, struct jval message);

/* -- Writing JSON ----------------------------------------------------------------------------------------------------- */

/* One-line JSON members; a comma is put where one is needed. `key` NULL = an array's element. NULL and 0 values: see each. */
void jw_open(struct buf *b, const char *key, char bracket);
void jw_close(struct buf *b, char bracket);
void jw_text(struct buf *b, const char *key, const char *value);   /* left out when NULL */
void jw_int(struct buf *b, const char *key, int64_t value);        /* left out when negative */
void jw_time(struct buf *b, const char *key, int64_t ns);          /* left out when 0 */
void jw_raw(struct buf *b, const char *key, const char *json, size_t n);
void jw_allowed(struct buf *b, const char *key, unsigned allowed);
void jw_usage(struct buf *b, const char *key, const struct usage *u); /* left out when nothing is known */

#endif
