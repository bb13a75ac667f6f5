/* What both pictures of a run share: where each thing stands, and the words and lengths that people read. */
#ifndef FORMATS_TIMELINE_I_H
#define FORMATS_TIMELINE_I_H

#include "formats/timeline.h"

/* A thing that happened: one row of the picture. */
struct tl_row {
    const struct timeline_checkpoint *c; /* NULL: the checkpoints that are left out */
    const struct timeline_mark *m;       /* NULL: the checkpoint itself */
    int64_t at;                          /* ns */
    size_t order;                        /* among those of one time */
    int from;                            /* the row that it follows; -1 = a beginning */
    int chain;                           /* rows below each other in one lane */
    int lane;                            /* 0 is leftmost: the line that is active now */
    bool elsewhere;                      /* its parent isn't in this picture */
};

struct tl_layout {
    struct tl_row *rows; /* in order of time */
    int n;
    int lanes;           /* at least 1 */
    size_t n_restores, n_resumes, n_others;
};

/* 0, -ENOMEM. Free by tl_layout_free. More lanes than `max_lanes` share the last. */
int tl_layout(const struct timeline *t, int max_lanes, struct tl_layout *ret);
void tl_layout_free(struct tl_layout *l);
#define cleanup_layout __attribute__((cleanup(tl_layout_free)))

/* How a row is drawn: shapes differ, so that it means the same without colour. */
enum tl_look {
    LOOK_SAVED, LOOK_WAITING, LOOK_RUNNING, LOOK_FINISHED, LOOK_FAILED, LOOK_UNKNOWN, LOOK_OFFLINE,
    LOOK_RESTORE, LOOK_RESTORE_FAILED, LOOK_UNDO, LOOK_RESUME, LOOK_RESUME_FAILED, LOOK_BRANCH, LOOK_OTHER, LOOK_LEFT_OUT,
    LOOK_COUNT
};
enum tl_look tl_look(const struct tl_row *r);
extern const char *const tl_look_names[]; /* for the legend */

/* Appends `s` for a label of at most `columns`: what isn't UTF-8 as U+FFFD, control characters and those that turn the writing
 * direction as nothing, longer ones cut in the middle. Returns the columns used. NULL is nothing. */
size_t tl_label(struct buf *b, const char *s, size_t columns);
/* The same, cut at its end. */
size_t tl_sentence(struct buf *b, const char *s, size_t columns);
/* Columns of a text that either made. */
size_t tl_columns(const char *s);

/* Appends what happened, as plain text not yet cut: the name of a checkpoint, `restored NAME`; and what is to be said about it. */
void tl_what(struct buf *b, const struct tl_row *r);
void tl_about(struct buf *b, const struct timeline *t, const struct tl_row *r);
/* `7 checkpoints, 1 restore, 2 resumes`. */
void tl_summary(struct buf *b, const struct timeline *t, const struct tl_layout *l);
/* A length of time in words, its two largest units: `2 h 10 min`. */
void tl_duration(struct buf *b, int64_t ns);

/* A pause before a row that is worth a word. */
#define TL_PAUSE (3600 * 1000000000LL)

#endif
