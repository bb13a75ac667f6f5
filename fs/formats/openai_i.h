/* What the readers of the OpenAI Agents SDK's states share. */
#ifndef FORMATS_OPENAI_I_H
#define FORMATS_OPENAI_I_H

#include "formats_i.h"

/* The names of the fields, in both spellings. */
struct spelling {
    const char *turn, *max_turns, *agent, *step, *raw_item, *call_id, *tool_name, *input_tokens, *output_tokens, *total_tokens,
        *last_response, *responses, *provider_data, *conversation;
};

extern const struct spelling openai_python, openai_js;

/* The list of what waits for approval; none if there is none. */
struct jval openai_interruptions(struct jval root, const struct spelling *s);

/* What a call is about: a function's arguments, a custom tool's input, a shell's action, a patch's operation; a hosted MCP call of
 * the JS SDK keeps them with the provider's data. */
struct jval openai_arguments(struct jval raw, struct jval provider);

/* Puts the decisions that the state already holds into the pending calls, and which agents asked through one another. */
void openai_decisions(struct reading *r, struct jval root, bool js);

#endif
