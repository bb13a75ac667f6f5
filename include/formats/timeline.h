/* A run as a picture: its checkpoints, forks, restores and resumes from top to bottom in time, as SVG and as text.
 *
 * Pure: the same input gives the same bytes; no clock, no locale. Thread-safe. */
#ifndef FORMATS_TIMELINE_H
#define FORMATS_TIMELINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/buf.h"

/* How a checkpoint is drawn. */
enum timeline_state {
    TIMELINE_SAVED,
    TIMELINE_WAITING,  /* for a decision */
    TIMELINE_RUNNING,  /* something is under way */
    TIMELINE_FINISHED,
    TIMELINE_FAILED,
    TIMELINE_UNKNOWN,  /* nobody knows how it ended */
};

/* What was done to a checkpoint. All texts are borrowed. */
struct timeline_mark {
    const char *kind;    /* `restore`, `resume`, … */
    const char *state;   /* `queued`, `running`, `done`, `failed`, `unknown` */
    const char *decided; /* NULL or "" = nothing */
    const char *branch;  /* the isolated branch that it made or was done on; NULL or "" = none */
    int64_t began;       /* ns since 1970 */
    int64_t ended;       /* 0 = under way */
    bool restored;       /* the run went on from this checkpoint afterwards; of an `undo`: from where it was before that */
};

struct timeline_checkpoint {
    const char *name, *uid;
    const char *parent;       /* uid, perhaps of none of these; NULL = not known */
    const char *step, *agent; /* may be NULL */
    const char *branch;       /* the isolated branch that it was taken on; NULL or "" = the active one */
    bool isolated;            /* it belongs to that branch still */
    const char *status;       /* one line for people; may be NULL */
    enum timeline_state state;
    bool offline;             /* it belongs to a database that a restore replaced */
    int64_t created_at, sealed_at; /* ns */
    const struct timeline_mark *marks;
    size_t n_marks;
};

struct timeline {
    const char *run;
    const struct timeline_checkpoint *checkpoints; /* in the order in which they were taken */
    size_t n;
    size_t left_out;       /* checkpoints of the run that aren't in the list */
    size_t left_out_after; /* how many of the list come before those */
};

/* Appends the picture: an SVG document that stands alone, light and dark; and text in 80 columns of UTF-8. 0, -ENOMEM. */
int timeline_svg(const struct timeline *t, struct buf *b);
int timeline_txt(const struct timeline *t, struct buf *b);

#endif
