/* The parts of transcript.md that depend on the framework. */
#ifndef FORMATS_TRANSCRIPT_I_H
#define FORMATS_TRANSCRIPT_I_H

#include <stdbool.h>
#include <stddef.h>

#include "formats/jdoc.h"
#include "formats_i.h"
#include "util/buf.h"

/* What is under way while a transcript is written. */
struct transcript {
    struct buf *b;
    struct reading *r; /* whose `oom` tells; without an info */
    size_t steps;      /* headings "### N." so far */
    size_t *left_out;  /* how many steps, parts and outlines had no place; shared with inner runs */
    bool full;         /* nothing more is written */
};

/* Bytes of a run after which no step, part or outline is begun. The last one may take it further, by a few MiB at most. */
#define TRANSCRIPT_RUN_MAX (8u << 20)

/* Asked before each of them: whether there is no place for it. Then it is counted. */
bool transcript_full(struct transcript *t);

/* Each writes "## Input", "## Run" or "## State" from the framework's value. */
void transcript_openai(struct transcript *t, struct jval root, bool js);
void transcript_langgraph(struct transcript *t, struct jval root);
void transcript_llamaindex(struct transcript *t, struct jval root);
void transcript_pydantic_ai(struct transcript *t, struct jval root);
void transcript_google_adk(struct transcript *t, struct jval root);
void transcript_claude(struct transcript *t, struct jval root);
void transcript_autogen(struct transcript *t, struct jval root);
void transcript_crewai(struct transcript *t, struct jval root);
/* Any JSON: the messages in it, if there is a list of them, and an outline. */
void transcript_any(struct transcript *t, struct jval root);

/* "### N. WHAT `NAME` (`ID`), by `AGENT`"; each of the last three may be none or NULL. */
void step_heading(struct transcript *t, const char *what, struct jval name, struct jval id, struct jval agent);
/* A heading's further names, or a line's: nothing when `v` isn't a text, or is empty. */
void step_name(struct transcript *t, const char *before, struct jval v, const char *after);
/* Arguments: a JSON text, or a value. */
void step_arguments(struct transcript *t, struct jval arguments);
/* md_value and md_outline (markdown_i.h) of what was begun, if it was. */
void step_value(struct transcript *t, struct jval v);
void step_outline(struct transcript *t, struct jval v, struct jval but);

/* A list of chat messages {role, content, tool_calls…} in LangChain's, OpenAI's or Anthropic's form. */
void transcript_messages(struct transcript *t, struct jval messages);
/* One message whose content is a text or a list of parts; `name` of whoever says it, `agent` of whoever calls tools. */
void transcript_content(struct transcript *t, struct jval name, struct jval agent, struct jval content, bool skip_calls);
/* Whether `v` is a list of such messages. */
bool is_chat(struct jval v);

#endif
