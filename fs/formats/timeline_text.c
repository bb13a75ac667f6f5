/* The words of a time line, and labels that fit. */
#include <string.h>

#include "timeline_i.h"
#include "util/cleanup.h"
#include "util/text.h"

const char *const tl_look_names[LOOK_COUNT] = {
    [LOOK_SAVED] = "saved", [LOOK_WAITING] = "waiting for a decision", [LOOK_RUNNING] = "under way", [LOOK_FINISHED] = "finished",
    [LOOK_FAILED] = "failed", [LOOK_UNKNOWN] = "outcome unknown", [LOOK_OFFLINE] = "off-line", [LOOK_RESTORE] = "restored",
    [LOOK_RESTORE_FAILED] = "restore failed", [LOOK_UNDO] = "restore undone",
    [LOOK_RESUME] = "resumed", [LOOK_RESUME_FAILED] = "resume failed",
    [LOOK_BRANCH] = "branch made", [LOOK_OTHER] = "other action", [LOOK_LEFT_OUT] = "left out",
};

static bool is(const char *a, const char *b) { return a && strcmp(a, b) == 0; }

enum tl_look tl_look(const struct tl_row *r)
{
    static const enum tl_look looks[] = {
        [TIMELINE_SAVED] = LOOK_SAVED, [TIMELINE_WAITING] = LOOK_WAITING, [TIMELINE_RUNNING] = LOOK_RUNNING,
        [TIMELINE_FINISHED] = LOOK_FINISHED, [TIMELINE_FAILED] = LOOK_FAILED, [TIMELINE_UNKNOWN] = LOOK_UNKNOWN,
    };
    bool failed = r->m && (is(r->m->state, "failed") || is(r->m->state, "unknown"));

    if (!r->c)
        return LOOK_LEFT_OUT;
    if (!r->m)
        return r->c->offline ? LOOK_OFFLINE : looks[r->c->state];
    if (is(r->m->kind, "restore") || is(r->m->kind, "replay") || is(r->m->kind, "promote"))
        return failed && !r->m->restored ? LOOK_RESTORE_FAILED : LOOK_RESTORE;
    if (is(r->m->kind, "branch"))
        return LOOK_BRANCH;
    if (is(r->m->kind, "undo"))
        return LOOK_UNDO;
    if (is(r->m->kind, "resume"))
        return failed ? LOOK_RESUME_FAILED : LOOK_RESUME;
    return LOOK_OTHER;
}

/* ---- labels -------------------------------------------------------------------------------------------------------------- */

/* The code point at *s, which is valid UTF-8, and past it. */
static uint32_t next_point(const char **s)
{
    const unsigned char *p = (const unsigned char *)*s;
    size_t len = p[0] < 0x80 ? 1 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;

    *s += len;
    return utf8_point(p, len);
}

static size_t width(uint32_t u)
{
    if ((u >= 0x300 && u <= 0x36f) || (u >= 0x1ab0 && u <= 0x1aff) || (u >= 0x20d0 && u <= 0x20ff) || (u >= 0xfe00 && u <= 0xfe0f) ||
        (u >= 0xfe20 && u <= 0xfe2f))
        return 0;
    if ((u >= 0x1100 && u <= 0x115f) || (u >= 0x2e80 && u <= 0xa4cf && u != 0x303f) || (u >= 0xa960 && u <= 0xa97c) ||
        (u >= 0xac00 && u <= 0xd7a3) || (u >= 0xf900 && u <= 0xfaff) || (u >= 0xfe30 && u <= 0xfe6f) || (u >= 0xff00 && u <= 0xff60) ||
        (u >= 0xffe0 && u <= 0xffe6) || (u >= 0x1f300 && u <= 0x1faff) || (u >= 0x20000 && u <= 0x3fffd))
        return 2;
    return 1;
}

size_t tl_columns(const char *s)
{
    size_t n = 0;

    while (*s)
        n += width(next_point(&s));
    return n;
}

/* Where a text goes on whose first part fills at most `columns`. */
static const char *after_columns(const char *s, size_t columns)
{
    for (size_t n = 0; *s;) {
        const char *next = s;

        n += width(next_point(&next));
        if (n > columns)
            break;
        s = next;
    }
    return s;
}

static char *visible(const char *s)
{
    cleanup_free char *clean = utf8_clean(s, strlen(s));
    struct buf b = {0};
    const char *p = clean;
    bool space = false;

    while (p && *p) {
        const char *from = p;
        uint32_t u = next_point(&p);

        if (u == '\t' || u == '\n' || u == '\r' || u == ' ') {
            space = b.len > 0;
        } else if (!text_invisible(u)) {
            if (space)
                buf_addc(&b, ' ');
            space = false;
            buf_add(&b, from, (size_t)(p - from));
        }
    }
    return clean ? buf_steal(&b) : NULL;
}

/* The last `tail` of `columns` are for the end of the text. */
static size_t fit(struct buf *b, const char *s, size_t columns, size_t tail)
{
    cleanup_free char *text = visible(s ? s : "");
    const char *cut, *rest;
    size_t have;

    if (!text) {
        b->failed = true;
        return 0;
    }
    have = tl_columns(text);
    if (have <= columns) {
        buf_adds(b, text);
        return have;
    }
    if (columns == 0)
        return 0;
    cut = after_columns(text, columns - 1 - tail);
    rest = after_columns(text, have - tail);
    while (*rest && tl_columns(rest) > tail) /* a wide character lay across the cut */
        next_point(&rest);
    buf_add(b, text, (size_t)(cut - text));
    buf_adds(b, "…");
    buf_adds(b, rest);
    return have - tl_columns(cut) + 1 + tl_columns(rest);
}

size_t tl_label(struct buf *b, const char *s, size_t columns) { return fit(b, s, columns, columns / 3); } /* names differ at their ends */
size_t tl_sentence(struct buf *b, const char *s, size_t columns) { return fit(b, s, columns, 0); }

/* ---- words --------------------------------------------------------------------------------------------------------------- */

void tl_duration(struct buf *b, int64_t ns)
{
    int64_t s = ns / 1000000000;

    if (ns < 0)
        buf_adds(b, "0 s");
    else if (s < 10)
        buf_addf(b, "%lld.%lld s", (long long)s, (long long)(ns / 100000000 % 10));
    else if (s < 60)
        buf_addf(b, "%lld s", (long long)s);
    else if (s < 3600)
        buf_addf(b, "%lld min %lld s", (long long)(s / 60), (long long)(s % 60));
    else if (s < 86400)
        buf_addf(b, "%lld h %lld min", (long long)(s / 3600), (long long)(s % 3600 / 60));
    else
        buf_addf(b, "%lld d %lld h", (long long)(s / 86400), (long long)(s % 86400 / 3600));
}

void tl_what(struct buf *b, const struct tl_row *r)
{
    static const char *const pasts[][2] = {
        {"restore", "restored"}, {"resume", "resumed"}, {"replay", "replayed"}, {"undo", "undid the restore of"},
        {"branch", "branched off"}, {"promote", "promoted a branch of"},
    };
    const char *past = r->m ? r->m->kind : "";

    if (!r->c)
        return;
    for (size_t i = 0; i < sizeof(pasts) / sizeof(pasts[0]); i++)
        if (strcmp(past, pasts[i][0]) == 0)
            past = pasts[i][1];
    buf_addf(b, "%s%s%s", past, *past ? " " : "", r->c->name);
}

static void part(struct buf *b, const char *before, const char *s)
{
    if (!s || !*s)
        return;
    if (b->len)
        buf_adds(b, " · ");
    buf_addf(b, "%s%s", before, s);
}

static void about_mark(struct buf *b, const struct timeline_mark *m)
{
    part(b, is(m->kind, "branch") || is(m->kind, "promote") ? "branch " : "on branch ", m->branch);
    part(b, "", m->decided);
    if (is(m->state, "failed"))
        part(b, "", m->restored ? "failed, after the restore" : "failed");
    else if (is(m->state, "unknown"))
        part(b, "", "outcome unknown");
    else if (!m->ended)
        part(b, "", is(m->state, "queued") ? "queued" : "under way");
    if (m->ended) {
        part(b, "", "took ");
        tl_duration(b, m->ended - m->began);
    }
}

void tl_about(struct buf *b, const struct timeline *t, const struct tl_row *r)
{
    struct buf out = {0};

    if (!r->c) {
        buf_addf(&out, "%zu checkpoints are not shown", t->left_out);
    } else if (r->m) {
        about_mark(&out, r->m);
    } else {
        part(&out, str_starts(r->c->step ? r->c->step : "", "step") ? "" : "step ", r->c->step);
        part(&out, "", r->c->status);
        part(&out, "on branch ", r->c->branch);
        if (r->elsewhere)
            part(&out, "from ", r->c->parent);
        part(&out, "", r->c->agent);
    }
    buf_add(b, out.data ? out.data : "", out.len);
    b->failed = b->failed || out.failed;
    buf_free(&out);
}

static void counted(struct buf *b, size_t n, const char *word)
{
    if (n)
        buf_addf(b, ", %zu %s%s", n, word, n == 1 ? "" : "s");
}

void tl_summary(struct buf *b, const struct timeline *t, const struct tl_layout *l)
{
    size_t n = t->n + t->left_out;
    size_t forks = 0;

    for (int i = 0; i < l->n; i++)
        forks += l->rows[i].from >= 0 && l->rows[i].chain != l->rows[l->rows[i].from].chain;
    buf_addf(b, "%zu checkpoint%s", n, n == 1 ? "" : "s");
    counted(b, forks, "fork");
    counted(b, l->n_restores, "restore");
    counted(b, l->n_resumes, "resume");
    counted(b, l->n_others, "other action");
}
