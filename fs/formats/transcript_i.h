/* The parts of transcript.md that depend on the framework. */
#ifndef FORMATS_TRANSCRIPT_I_H
#define FORMATS_TRANSCRIPT_I_H

#include "formats/jdoc.h"
#include "util/buf.h"

/* What is under way while a transcript is written. */
struct transcript {
    struct buf *b;
    size_t steps; /* headings "### N." so far */
    bool oom;
};

/* Each writes "## Input" and "## Run" from the framework's value. */
void transcript_openai(struct transcript *t, struct jval root, bool js);
void transcript_langgraph(struct transcript *t, struct jval root);
void transcript_llamaindex(struct transcript *t, struct jval root);
void transcript_pydantic_ai(struct transcript *t, struct jval root);

/* "### N. WHAT `NAME` (`ID`), by `AGENT`"; each of the last three may be none or NULL. */
void step_heading(struct transcript *t, const char *what, struct jval name, struct jval id, struct jval agent);
/* Arguments: a JSON text, or a value. */
void step_arguments(struct transcript *t, struct jval arguments);
/* A list of chat messages {role, content, tool_calls…} in any of LangChain's or OpenAI's forms. */
void transcript_messages(struct transcript *t, struct jval messages);

#endif
