/* The time line as an SVG document that stands alone: no script, no font, nothing fetched. Light or dark as its reader has it, and
 * each shape means the same in black and white. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "timeline_i.h"
#include "util/cleanup.h"
#include "util/clock.h"

#define MAX_LANES 24
#define LANE 22         /* px between lanes */
#define AXIS 96         /* x of the time axis */
#define GRAPH 122       /* x of lane 0 */
#define TOP 84          /* y above the first row */
#define NAME_COLUMNS 56
#define ABOUT_COLUMNS 84
#define MARK_COLUMNS 48
#define LEGEND_PITCH 172
#define LEGEND_LINE 22

static const char style[] =
    "<style>"
    "text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;font-size:12px;fill:#57606a}"
    ".bg{fill:#ffffff}.h{font-size:18px;font-weight:600;fill:#1f2328}.n{font-size:14px;font-weight:600;fill:#1f2328}"
    ".a{font-size:13px;fill:#1f2328}.d{font-weight:600;fill:#1f2328}.t{font-variant-numeric:tabular-nums;text-anchor:end}"
    ".off{fill:#6e7781;font-weight:400}.late{font-style:italic}"
    "path,circle,rect.s{fill:none;stroke:#57606a;stroke-width:2}"
    ".axis{stroke:#d0d7de}.e{stroke:#8c959f}.eo{stroke:#b6bec7;stroke-dasharray:3 4}"
    ".saved{stroke:#0969da;fill:#0969da}.wait{stroke:#9a6700;fill:#fff8c5}.run{stroke:#0969da;fill:#ddf4ff}"
    ".fin{stroke:#1a7f37;fill:#1a7f37}.bad{stroke:#cf222e;fill:#ffebe9}.unk{stroke:#bc4c00;fill:#fff1e5}"
    ".gone{stroke:#8c959f;fill:#ffffff;stroke-dasharray:3 2.5}.res{stroke:#8250df;fill:#8250df}.resx{stroke:#8250df;fill:#ffffff}"
    ".go{stroke:#1b7c83;fill:#1b7c83}.gox{stroke:#1b7c83;fill:#ffffff}.oth{stroke:#57606a;fill:#57606a}"
    ".on{stroke:#ffffff;fill:none}.k{fill:none}.wait.k,.unk.k,.bad.k,.run.k{fill:none}.q{font-size:11px;font-weight:700;fill:#bc4c00;"
    "text-anchor:middle}a:hover text{text-decoration:underline}"
    "@media (prefers-color-scheme:dark){text{fill:#9198a1}.bg{fill:#0d1117}.h,.n,.a,.d{fill:#f0f6fc}.off{fill:#8b949e}"
    "path,circle,rect.s{stroke:#9198a1}.axis{stroke:#30363d}.e{stroke:#6e7681}.eo{stroke:#484f58}"
    ".saved{stroke:#58a6ff;fill:#58a6ff}.wait{stroke:#e3b341;fill:#2d2308}.run{stroke:#58a6ff;fill:#0c2d6b}"
    ".fin{stroke:#3fb950;fill:#3fb950}.bad{stroke:#ff7b72;fill:#3c1618}.unk{stroke:#f0883e;fill:#3d1f06}"
    ".gone{stroke:#8b949e;fill:#0d1117}.res{stroke:#bc8cff;fill:#bc8cff}"
    ".resx{stroke:#bc8cff;fill:#0d1117}.go{stroke:#39c5cf;fill:#39c5cf}.gox{stroke:#39c5cf;fill:#0d1117}.oth{stroke:#9198a1;fill:#9198a1}"
    ".on{stroke:#0d1117}.q{fill:#f0883e}}"
    "</style>";

struct picture {
    const struct timeline *t;
    const struct tl_layout *l;
    struct buf *b;
    int *y;        /* of each row */
    int text_x;
    int width, height;
};

/* ---- text -------------------------------------------------------------------------------------------------------------- */

static void escape(struct buf *b, const char *s)
{
    for (; *s; s++) {
        if (*s == '&')
            buf_adds(b, "&amp;");
        else if (*s == '<')
            buf_adds(b, "&lt;");
        else if (*s == '>')
            buf_adds(b, "&gt;");
        else if (*s == '"')
            buf_adds(b, "&quot;");
        else
            buf_addc(b, *s);
    }
}

/* What is happening is cut at its end, names in their middle. Returns the columns that it takes. */
static size_t put(struct buf *b, size_t (*fit)(struct buf *, const char *, size_t), const char *s, size_t columns)
{
    cleanup_buf struct buf text = {0};
    size_t n = fit(&text, s, columns);

    if (text.data)
        escape(b, text.data);
    b->failed = b->failed || text.failed;
    return n;
}

static size_t label(struct buf *b, const char *s, size_t columns) { return put(b, tl_label, s, columns); }
static size_t sentence(struct buf *b, const char *s, size_t columns) { return put(b, tl_sentence, s, columns); }

/* A relative link to a file name in the directory that the picture is in. */
static void link_to(struct buf *b, const char *name)
{
    buf_adds(b, "./");
    for (const unsigned char *p = (const unsigned char *)name; *p; p++) {
        bool plain = (*p >= '0' && *p <= '9') || (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || strchr("-._~", *p);

        buf_addf(b, plain ? "%c" : "%%%02X", *p);
    }
    buf_addc(b, '/');
}

/* ---- shapes ------------------------------------------------------------------------------------------------------------ */

static void circle(struct buf *b, int x, int y, const char *class)
{
    buf_addf(b, "<circle cx=\"%d\" cy=\"%d\" r=\"7\" class=\"%s\"/>", x, y, class);
}

static void shape(struct buf *b, int x, int y, const char *class, const char *path)
{
    buf_addf(b, "<path transform=\"translate(%d %d)\" class=\"%s\" d=\"%s\"/>", x, y, class, path);
}

#define DIAMOND "M0-7.5L7.5 0 0 7.5-7.5 0Z"
#define TRIANGLE "M-5-7L7.5 0-5 7Z"
#define CROSS "M-3-3L3 3M3-3L-3 3"

static void draw_look(struct buf *b, int x, int y, enum tl_look look)
{
    switch (look) {
    case LOOK_SAVED:
        circle(b, x, y, "saved");
        break;
    case LOOK_WAITING:
        circle(b, x, y, "wait");
        shape(b, x, y, "wait k", "M-2-3V3M2-3V3");
        break;
    case LOOK_RUNNING:
        circle(b, x, y, "run");
        shape(b, x, y, "run k", "M0-3.5V0L2.5 2");
        break;
    case LOOK_FINISHED:
        circle(b, x, y, "fin");
        shape(b, x, y, "on", "M-3.5 0L-1 2.7 3.5-2.5");
        break;
    case LOOK_FAILED:
        circle(b, x, y, "bad");
        shape(b, x, y, "bad k", CROSS);
        break;
    case LOOK_UNKNOWN:
        circle(b, x, y, "unk");
        buf_addf(b, "<text x=\"%d\" y=\"%d\" class=\"q\">?</text>", x, y + 4);
        break;
    case LOOK_OFFLINE:
        circle(b, x, y, "gone");
        break;
    case LOOK_RESTORE:
        shape(b, x, y, "res", DIAMOND);
        break;
    case LOOK_RESTORE_FAILED:
        shape(b, x, y, "resx", DIAMOND);
        shape(b, x, y, "bad k", CROSS);
        break;
    case LOOK_UNDO:
        shape(b, x, y, "res", "M5-7L-7.5 0 5 7Z");
        break;
    case LOOK_RESUME:
        shape(b, x, y, "go", TRIANGLE);
        break;
    case LOOK_RESUME_FAILED:
        shape(b, x, y, "gox", TRIANGLE);
        shape(b, x, y, "bad k", CROSS);
        break;
    case LOOK_BRANCH:
        shape(b, x, y, "oth", "M-5-5H5V5H-5Z");
        break;
    case LOOK_OTHER:
        shape(b, x, y, "oth", "M-2-2H2V2H-2Z");
        break;
    case LOOK_LEFT_OUT:
        shape(b, x, y, "on", "M0-12V12");
        shape(b, x, y, "e", "M0-9V-6M0-1.5V1.5M0 6V9");
        break;
    case LOOK_COUNT:
        break;
    }
}

/* ---- rows -------------------------------------------------------------------------------------------------------------- */

static int lane_x(int lane) { return GRAPH + lane * LANE; }

static bool new_day(const struct picture *p, int row)
{
    char now[CLOCK_TEXT_MAX], before[CLOCK_TEXT_MAX];

    if (row == 0)
        return true;
    clock_format_seconds(p->l->rows[row].at, now);
    clock_format_seconds(p->l->rows[row - 1].at, before);
    return memcmp(now, before, 10) != 0;
}

static int64_t pause_before(const struct picture *p, int row)
{
    return row == 0 ? 0 : p->l->rows[row].at - p->l->rows[row - 1].at;
}

/* Rows of equal height, further apart where more time went by: to scale, minutes would hide between days. */
static void place_rows(struct picture *p)
{
    int y = TOP;

    for (int i = 0; i < p->l->n; i++) {
        const struct tl_row *r = &p->l->rows[i];
        int half = !r->c || r->m ? 15 : 22;

        if (new_day(p, i) || pause_before(p, i) >= TL_PAUSE)
            y += i == 0 ? 26 : 34;
        else if (pause_before(p, i) >= TL_PAUSE / 12)
            y += 8;
        p->y[i] = y + half;
        y += 2 * half;
    }
    p->height = y + 16;
}

static void draw_time(const struct picture *p, int row)
{
    const struct tl_row *r = &p->l->rows[row];
    int64_t pause = pause_before(p, row);
    char when[CLOCK_TEXT_MAX];
    int half = !r->c || r->m ? 15 : 22;
    int y = p->y[row];

    clock_format_seconds(r->at, when);
    if (new_day(p, row))
        buf_addf(p->b, "<text x=\"%d\" y=\"%d\" class=\"d t\">%.10s</text>", AXIS - 10, y - half - 4, when);
    if (pause >= TL_PAUSE) {
        buf_addf(p->b, "<text x=\"%d\" y=\"%d\" class=\"late\">", p->text_x, y - half - 4);
        tl_duration(p->b, pause);
        buf_adds(p->b, " later</text>");
    }
    if (!r->c)
        return;
    buf_addf(p->b, "<path class=\"axis\" d=\"M%d %dH%d\"/>", AXIS - 4, y, AXIS + 4);
    buf_addf(p->b, "<text x=\"%d\" y=\"%d\" class=\"t\">%.8s</text>", AXIS - 10, y + 4, when + 11);
}

static bool faded(const struct tl_row *r) { return r->c && r->c->offline; }

static void draw_edge(const struct picture *p, int row)
{
    const struct tl_row *r = &p->l->rows[row];
    const char *class = faded(r) ? "eo" : "e";
    int x2 = lane_x(r->lane), y2 = p->y[row];
    int x1, y1, bend;

    if (r->from < 0)
        return;
    x1 = lane_x(p->l->rows[r->from].lane);
    y1 = p->y[r->from];
    bend = p->y[r->from + 1] - y1;
    bend = bend > 40 ? 40 : bend;
    if (x1 == x2)
        buf_addf(p->b, "<path class=\"%s\" d=\"M%d %dV%d\"/>", class, x1, y1, y2);
    else
        buf_addf(p->b, "<path class=\"%s\" d=\"M%d %dC%d %d %d %d %d %dV%d\"/>", class, x1, y1, x1, y1 + bend * 2 / 3, x2,
                 y1 + bend / 3, x2, y1 + bend, y2);
}

/* What a pointer held over it tells: everything in full. */
static void tooltip(const struct picture *p, const struct tl_row *r)
{
    char when[CLOCK_TEXT_MAX];
    cleanup_buf struct buf what = {0};
    cleanup_buf struct buf about = {0};

    tl_what(&what, r);
    tl_about(&about, p->t, r);
    buf_adds(p->b, "<title>");
    label(p->b, what.data, 400);
    buf_addf(p->b, " · %s", clock_format(r->at, when));
    if (!r->m)
        buf_addf(p->b, " · %s", r->c->uid);
    if (about.len)
        buf_adds(p->b, " · ");
    sentence(p->b, about.data, 400);
    buf_adds(p->b, "</title>");
    p->b->failed = p->b->failed || what.failed || about.failed;
}

static void draw_text(const struct picture *p, const struct tl_row *r, int y)
{
    cleanup_buf struct buf what = {0};
    cleanup_buf struct buf about = {0};

    tl_what(&what, r);
    tl_about(&about, p->t, r);
    if (!r->c) {
        buf_addf(p->b, "<text x=\"%d\" y=\"%d\" class=\"late\">", p->text_x, y + 4);
        sentence(p->b, about.data, ABOUT_COLUMNS);
    } else if (r->m) {
        buf_addf(p->b, "<text x=\"%d\" y=\"%d\"><tspan class=\"a\">", p->text_x, y + 4);
        label(p->b, what.data, NAME_COLUMNS);
        buf_adds(p->b, "</tspan>  ");
        sentence(p->b, about.data, MARK_COLUMNS);
    } else {
        buf_adds(p->b, "<a href=\"");
        link_to(p->b, r->c->name);
        buf_addf(p->b, "\"><text x=\"%d\" y=\"%d\" class=\"n%s\">", p->text_x, about.len ? y - 3 : y + 4, r->c->offline ? " off" : "");
        label(p->b, what.data, NAME_COLUMNS);
        buf_addf(p->b, "</text></a><text x=\"%d\" y=\"%d\">", p->text_x, y + 13);
        sentence(p->b, about.data, ABOUT_COLUMNS);
    }
    buf_adds(p->b, "</text>");
    p->b->failed = p->b->failed || what.failed || about.failed;
}

static void draw_row(const struct picture *p, int row)
{
    const struct tl_row *r = &p->l->rows[row];

    draw_time(p, row);
    buf_adds(p->b, "<g>");
    if (r->c)
        tooltip(p, r);
    draw_look(p->b, lane_x(r->lane), p->y[row], tl_look(r));
    draw_text(p, r, p->y[row]);
    buf_adds(p->b, "</g>\n");
}

/* ---- the whole --------------------------------------------------------------------------------------------------------- */

static void find_width(struct picture *p)
{
    size_t most = 52;

    for (int i = 0; i < p->l->n; i++) {
        const struct tl_row *r = &p->l->rows[i];
        cleanup_buf struct buf what = {0};
        cleanup_buf struct buf about = {0};
        cleanup_buf struct buf scratch = {0};
        size_t n, m;

        tl_what(&what, r);
        tl_about(&about, p->t, r);
        n = label(&scratch, what.data, NAME_COLUMNS);
        m = sentence(&scratch, about.data, r->m ? MARK_COLUMNS : ABOUT_COLUMNS);
        n = n * 9 / 8; /* bold, and larger */
        n = r->m ? n + m : n > m ? n : m;
        most = n > most ? n : most;
    }
    p->text_x = lane_x(p->l->lanes - 1) + 22;
    p->width = p->text_x + (int)most * 7 + 24;
}

static int legend_columns(const struct picture *p)
{
    int n = (p->width - 32) / LEGEND_PITCH;

    return n > 0 ? n : 1;
}

static int draw_legend(const struct picture *p, bool draw)
{
    bool used[LOOK_COUNT] = {false};
    int n = 0;

    for (int i = 0; i < p->l->n; i++)
        used[tl_look(&p->l->rows[i])] = true;
    for (int k = 0; k < LOOK_LEFT_OUT; k++) {
        int x = 32 + n % legend_columns(p) * LEGEND_PITCH;
        int y = p->height + 20 + n / legend_columns(p) * LEGEND_LINE;

        if (!used[k])
            continue;
        n++;
        if (draw) {
            draw_look(p->b, x, y, (enum tl_look)k);
            buf_addf(p->b, "<text x=\"%d\" y=\"%d\">%s</text>", x + 14, y + 4, tl_look_names[k]);
        }
    }
    return (n + legend_columns(p) - 1) / legend_columns(p) * LEGEND_LINE;
}

static void draw(struct picture *p)
{
    struct buf *b = p->b;
    int last = p->l->n - 1;
    int height;

    find_width(p);
    place_rows(p);
    height = p->height + draw_legend(p, false) + 24;
    buf_addf(b,
             "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\""
             " viewBox=\"0 0 %d %d\" role=\"img\">\n<title>Run ",
             p->width, height, p->width, height);
    label(b, p->t->run, 200);
    buf_addf(b, "</title>\n%s\n<rect class=\"bg\" width=\"%d\" height=\"%d\"/>\n<text x=\"24\" y=\"38\" class=\"h\">Run ", style, p->width,
             height);
    label(b, p->t->run, (size_t)(p->width - 80) / 13);
    buf_adds(b, "</text><text x=\"24\" y=\"60\">");
    tl_summary(b, p->t, p->l);
    buf_adds(b, " · times are UTC</text>\n");
    if (last >= 0)
        buf_addf(b, "<path class=\"axis\" d=\"M%d %dV%d\"/>\n", AXIS, TOP + 8, p->y[last] + 16);
    for (int i = 0; i <= last; i++)
        draw_edge(p, i);
    buf_addc(b, '\n');
    for (int i = 0; i <= last; i++)
        draw_row(p, i);
    buf_addf(b, "<path class=\"axis\" d=\"M24 %dH%d\"/>", p->height, p->width - 24);
    draw_legend(p, true);
    buf_adds(b, "\n</svg>\n");
}

int timeline_svg(const struct timeline *t, struct buf *b)
{
    cleanup_layout struct tl_layout l = {0};
    cleanup_free int *y = NULL;
    struct picture p = {.t = t, .l = &l, .b = b};
    int r = tl_layout(t, MAX_LANES, &l);

    if (r < 0)
        return r;
    y = calloc((size_t)l.n + 1, sizeof(*y));
    if (!y)
        return -ENOMEM;
    p.y = y;
    draw(&p);
    return buf_error(b);
}
