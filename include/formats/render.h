/* The files of a checkpoint as bytes: checkpoint.json, snapshot.json, pending/CALL_ID.json, transcript.md.
 *
 * Deterministic: the same facts give the same bytes, no clock, no locale. JSON is indented by two spaces in the order of
 * design.md §1 and ends with a newline; absent fields are left out. All return 0 or -ENOMEM, append to `b`, and are pure and
 * thread-safe. Raise RENDER_VERSION with every change of the bytes: sealed files keep theirs (design.md §10). */
#ifndef FORMATS_RENDER_H
#define FORMATS_RENDER_H

#include <stddef.h>

#include "formats/facts.h"
#include "formats/state.h"
#include "util/buf.h"

#define RENDER_VERSION 3

/* `info` may be NULL (database only). A supplied field wins over the derived one; where they differ, the derived one is kept
 * under "conflicts". "derived" names the fields that were read out of the state. */
int render_checkpoint_json(struct buf *b, const struct checkpoint_facts *f, const struct state_info *info);

int render_snapshot_json(struct buf *b, const struct snapshot_facts *f);

/* One pending call: id, tool, arguments (a string where the model wrote a text), agent, kind, arguments_sha256, allowed, and
 * the decision already stored in the state. */
int render_pending_json(struct buf *b, const struct call *c);

/* The run as a person reads it, ending with what is pending, the commands that decide it, and which checkpoint this is. What comes
 * before grows only at its end while a run goes on, so that two transcripts of one run differ by what happened in between. `state`
 * is the state's bytes (may be NULL with n 0: database only), `info` what state_read made of them (may be NULL). Every line of the
 * run's own text is behind four spaces or in a code span, and what a terminal would act on is made visible: it can neither pass for
 * structure nor paint. Linear; long texts are cut, with the number of bytes said. */
int render_transcript(struct buf *b, const struct checkpoint_facts *f, const struct state_info *info, const char *state,
                      size_t n);

#endif
