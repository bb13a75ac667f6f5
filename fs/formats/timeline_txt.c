/* The time line as text, 80 columns wide: time, lanes, what happened, what is to be said about it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "timeline_i.h"
#include "util/cleanup.h"
#include "util/clock.h"

#define COLUMNS 80
#define MAX_LANES 10 /* a bit each in the masks below */
#define TIME_COLUMNS 12

/* Each one column wide. */
static const char *const glyphs[LOOK_COUNT] = {
    [LOOK_SAVED] = "●", [LOOK_WAITING] = "◐", [LOOK_RUNNING] = "◌", [LOOK_FINISHED] = "✓", [LOOK_FAILED] = "✗",
    [LOOK_UNKNOWN] = "?", [LOOK_OFFLINE] = "○", [LOOK_RESTORE] = "◆", [LOOK_RESTORE_FAILED] = "◇", [LOOK_UNDO] = "◀",
    [LOOK_RESUME] = "▶",
    [LOOK_RESUME_FAILED] = "▷", [LOOK_BRANCH] = "■", [LOOK_OTHER] = "•",
    [LOOK_LEFT_OUT] = "⋮",
};

/* Which lanes have a line, by row. */
struct lines {
    unsigned *through; /* past the row */
    unsigned *above;   /* between the row and the one before */
    unsigned *branch;  /* one begins at the row, to the side */
};

struct text {
    const struct timeline *t;
    const struct tl_layout *l;
    struct lines lines;
    struct buf *b;
    size_t what, about; /* columns of what happened, and of what is said about it */
};

static void spaces(struct buf *b, size_t n)
{
    while (n-- > 0)
        buf_addc(b, ' ');
}

static void find_lines(const struct tl_layout *l, struct lines *m)
{
    for (int i = 0; i < l->n; i++) {
        const struct tl_row *r = &l->rows[i];
        unsigned lane = 1u << r->lane;

        if (r->from < 0)
            continue;
        if (r->lane != l->rows[r->from].lane)
            m->branch[r->from] |= lane;
        m->above[i] |= lane;
        for (int k = r->from + 1; k < i; k++) {
            m->through[k] |= lane;
            m->above[k] |= lane;
        }
    }
}

static const char *corner(int lane, int node, int lo, int hi, bool crossed)
{
    if (lane == hi && lane > node)
        return crossed ? "┤" : "╮";
    if (lane == lo && lane < node)
        return crossed ? "├" : "╭";
    return crossed ? "┼" : "┬";
}

static void draw_lanes(const struct text *x, int row)
{
    const struct tl_row *r = &x->l->rows[row];
    unsigned branch = x->lines.branch[row];
    int lo = r->lane;
    int hi = r->lane;

    for (int k = 0; k < x->l->lanes; k++) {
        if (branch & 1u << k) {
            lo = k < lo ? k : lo;
            hi = k > hi ? k : hi;
        }
    }
    for (int k = 0; k < x->l->lanes; k++) {
        bool crossed = x->lines.through[row] & 1u << k;

        if (k == r->lane)
            buf_adds(x->b, glyphs[tl_look(r)]);
        else if (branch & 1u << k)
            buf_adds(x->b, corner(k, r->lane, lo, hi, crossed));
        else if (k > lo && k < hi)
            buf_adds(x->b, crossed ? "┼" : "─");
        else
            buf_adds(x->b, crossed ? "│" : " ");
        buf_adds(x->b, k >= lo && k < hi ? "─" : " ");
    }
}

/* No line ends in spaces. */
static void end_line(struct buf *b)
{
    while (b->len > 0 && b->data[b->len - 1] == ' ')
        buf_truncate(b, b->len - 1);
    buf_addc(b, '\n');
}

/* The date when it is another, and how long nothing happened. */
static void draw_pause(const struct text *x, int row)
{
    const struct tl_row *r = &x->l->rows[row];
    char now[CLOCK_TEXT_MAX], before[CLOCK_TEXT_MAX];
    int64_t pause = row > 0 ? r->at - x->l->rows[row - 1].at : 0;
    bool new_day;

    clock_format_seconds(r->at, now);
    if (row > 0)
        clock_format_seconds(x->l->rows[row - 1].at, before);
    new_day = row == 0 || memcmp(now, before, 10) != 0;
    if (!new_day && pause < TL_PAUSE)
        return;
    buf_addf(x->b, "%-*.10s", TIME_COLUMNS, new_day ? now : "");
    for (int k = 0; k < x->l->lanes; k++)
        buf_adds(x->b, x->lines.above[row] & 1u << k ? "│ " : "  ");
    if (pause >= TL_PAUSE) {
        buf_addc(x->b, ' ');
        tl_duration(x->b, pause);
        buf_adds(x->b, " later");
    }
    end_line(x->b);
}

static void draw_row(const struct text *x, int row)
{
    const struct tl_row *r = &x->l->rows[row];
    cleanup_buf struct buf what = {0};
    cleanup_buf struct buf about = {0};
    char when[CLOCK_TEXT_MAX];
    size_t used;

    draw_pause(x, row);
    buf_addf(x->b, "  %.8s  ", r->c ? clock_format_seconds(r->at, when) + 11 : "        ");
    draw_lanes(x, row);
    buf_addc(x->b, ' ');
    tl_what(&what, r);
    tl_about(&about, x->t, r);
    used = r->c ? tl_label(x->b, what.data, x->what) : 0;
    if (r->c && about.len)
        spaces(x->b, x->what - used + 2);
    tl_sentence(x->b, about.data, r->c ? x->about : x->what + 2 + x->about);
    end_line(x->b);
    x->b->failed = x->b->failed || what.failed || about.failed;
}

/* Shares out what is left of the line. */
static void find_columns(struct text *x)
{
    size_t rest = (size_t)(COLUMNS - TIME_COLUMNS - 2 * x->l->lanes - 1);
    size_t most = 1;

    for (int i = 0; i < x->l->n; i++) {
        cleanup_buf struct buf what = {0};
        cleanup_buf struct buf label = {0};

        tl_what(&what, &x->l->rows[i]);
        if (x->l->rows[i].c && tl_label(&label, what.data, rest) > most)
            most = tl_columns(label.data);
    }
    x->what = most < rest * 11 / 20 ? most : rest * 11 / 20;
    x->about = rest - x->what - 2;
}

static void draw_legend(const struct text *x)
{
    bool used[LOOK_COUNT] = {false};
    size_t at = 0;

    for (int i = 0; i < x->l->n; i++)
        used[tl_look(&x->l->rows[i])] = true;
    buf_addc(x->b, '\n');
    for (int k = 0; k < LOOK_LEFT_OUT; k++) {
        size_t n = 2 + strlen(tl_look_names[k]);

        if (!used[k])
            continue;
        if (at && at + 3 + n > COLUMNS) {
            buf_addc(x->b, '\n');
            at = 0;
        }
        buf_addf(x->b, "%s%s %s", at ? "   " : "", glyphs[k], tl_look_names[k]);
        at += n + (at ? 3 : 0);
    }
    buf_adds(x->b, "\nTimes are UTC.\n");
}

static void draw(struct text *x)
{
    buf_adds(x->b, "Run ");
    tl_label(x->b, x->t->run, COLUMNS - 4);
    buf_addc(x->b, '\n');
    tl_summary(x->b, x->t, x->l);
    buf_adds(x->b, "\n\n");
    find_columns(x);
    for (int i = 0; i < x->l->n; i++)
        draw_row(x, i);
    draw_legend(x);
}

int timeline_txt(const struct timeline *t, struct buf *b)
{
    cleanup_layout struct tl_layout l = {0};
    cleanup_free unsigned *masks = NULL;
    struct text x = {.t = t, .l = &l, .b = b};
    int r = tl_layout(t, MAX_LANES, &l);
    size_t n = (size_t)l.n + 1;

    if (r < 0)
        return r;
    masks = calloc(3 * n, sizeof(*masks));
    if (!masks)
        return -ENOMEM;
    x.lines = (struct lines){.through = masks, .above = masks + n, .branch = masks + 2 * n};
    find_lines(&l, &x.lines);
    draw(&x);
    return buf_error(b);
}
