/* A run's time line: what stands where, and what other people's texts can't do to it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/timeline.h"
#include "util/text.h"

#define S 1000000000LL
#define T0 (1795000000LL * S) /* 2026-11-18 11:06:40 UTC */

static struct timeline_checkpoint ck(const char *uid, const char *name, const char *parent, int64_t seconds)
{
    return (struct timeline_checkpoint){.uid = uid, .name = name, .parent = parent, .status = "saved", .created_at = T0 + seconds * S};
}

static struct timeline_mark mark(const char *kind, const char *state, int64_t began, int64_t ended, bool restored)
{
    return (struct timeline_mark){.kind = kind, .state = state, .began = T0 + began * S, .ended = ended ? T0 + ended * S : 0,
                                  .restored = restored};
}

static char *txt(const struct timeline_checkpoint *c, size_t n)
{
    struct timeline t = {.run = "r", .checkpoints = c, .n = n, .left_out_after = n};
    struct buf b = {0};

    assert_int_equal(timeline_txt(&t, &b), 0);
    return buf_steal(&b);
}

static char *svg(const struct timeline *t)
{
    struct buf b = {0};

    assert_int_equal(timeline_svg(t, &b), 0);
    return buf_steal(&b);
}

/* Whether the text has these lines, in this order, each from its time on. */
static void has_rows(char *text, const char *const *rows)
{
    const char *at = text;

    for (; *rows; rows++) {
        const char *found = strstr(at, *rows);

        if (!found)
            fail_msg("no `%s` (or not in this order) in\n%s", *rows, text);
        at = found + strlen(*rows);
    }
    free(text);
}
#define ROWS(...) (const char *const[]){__VA_ARGS__, NULL}

static void a_line(void **state)
{
    const struct timeline_checkpoint c[] = {ck("1", "one", NULL, 0), ck("2", "two", NULL, 60), ck("3", "three", "2", 120)};
    char *text = txt(c, 3);

    (void)state;
    assert_string_equal(text, "Run r\n3 checkpoints\n\n2026-11-18\n  11:06:40  ●  one    saved\n  11:07:40  ●  two    saved\n"
                              "  11:08:40  ●  three  saved\n\n● saved\nTimes are UTC.\n");
    free(text);
}

static void nothing(void **state)
{
    char *text = txt(NULL, 0);

    (void)state;
    assert_non_null(strstr(text, "0 checkpoints"));
    free(text);
    text = svg(&(struct timeline){.run = "r"});
    assert_non_null(strstr(text, "</svg>"));
    free(text);
}

/* What is named as parent counts more than the order; what nothing names follows the newest, or what was restored last. */
static void forks_and_restores(void **state)
{
    struct timeline_mark marks[] = {mark("restore", "failed", 200, 201, false), mark("restore", "done", 210, 214, true)};
    struct timeline_checkpoint c[] = {ck("1", "one", NULL, 0), ck("2", "two", NULL, 60), ck("3", "lost", NULL, 120),
                                      ck("4", "after", NULL, 300), ck("5", "fork", "1", 400), ck("6", "stray", "elsewhere", 500)};

    (void)state;
    c[1].marks = marks;
    c[1].n_marks = 2;
    c[2].offline = c[4].offline = c[5].offline = true;
    has_rows(txt(c, 6), ROWS("6 checkpoints, 2 forks, 2 restores", "11:06:40  ●─╮    one", "11:07:40  ●─┼─╮  two",
                             "11:08:40  │ │ ○  lost",
                             "11:10:00  ◇ │    restored two", "failed",
                             "11:10:10  ◆ │    restored two", "took 4.0 s", "11:11:40  ● │    after",
                             "11:13:20    ○    fork", "11:15:00      ○  stray", "from elsewhere", "○ off-line"));
}

/* After an undo the run goes on from where it was before the restore. */
static void undo(void **state)
{
    struct timeline_mark marks[] = {mark("restore", "done", 200, 204, true), mark("undo", "done", 400, 404, true)};
    struct timeline_checkpoint c[] = {ck("1", "one", NULL, 0), ck("2", "two", NULL, 60), ck("3", "wrong", NULL, 300),
                                      ck("4", "right", NULL, 500)};

    (void)state;
    c[0].marks = marks;
    c[0].n_marks = 2;
    c[2].offline = true;
    has_rows(txt(c, 4), ROWS("●─╮  one", "● │  two", "│ ◆  restored one", "│ ○  wrong", "◀    undid the restore of one", "●    right"));
}

/* What is done on an isolated branch goes on beside the line, and never becomes it. */
static void branches(void **state)
{
    struct timeline_mark marks[] = {mark("branch", "done", 200, 204, false), mark("resume", "done", 210, 230, false),
                                    mark("branch", "failed", 240, 241, false)};
    struct timeline_checkpoint c[] = {ck("1", "one", NULL, 0), ck("2", "two", NULL, 60), ck("3", "tried", "1", 220),
                                      ck("4", "three", NULL, 300),
                                      ck("5", "again", NULL, 400)};

    (void)state;
    marks[0].branch = marks[1].branch = c[2].branch = c[4].branch = "fix-1";
    c[2].isolated = c[4].isolated = true;
    marks[2].branch = "fix-2";
    c[0].marks = marks;
    c[0].n_marks = 3;
    has_rows(txt(c, 5), ROWS("●─┬─╮  one", "● │ │  two", "│ ■ │  branched off one", "branch fix-1 · took", "│ ▶ │  resumed one",
                             "on branch fix-1",
                             "│ ● │  tried", "saved · on branch fix-1", "│ │ ■  branched off one", "branch fix-2 · failed", "● │    three",
                             "  ●    again"));
}

/* A promoted branch is the line from then on, with what was taken on it. */
static void promote(void **state)
{
    struct timeline_mark marks[] = {mark("branch", "done", 200, 204, false), mark("promote", "done", 310, 314, true)};
    struct timeline_checkpoint c[] = {ck("1", "one", NULL, 0), ck("2", "old", NULL, 60), ck("3", "tried", "1", 300),
                                      ck("4", "next", NULL, 400),
                                      ck("5", "named", "3", 500)};

    (void)state;
    marks[0].branch = marks[1].branch = c[2].branch = "fix-1";
    c[0].marks = marks;
    c[0].n_marks = 2;
    c[1].offline = true;
    has_rows(txt(c, 5), ROWS("●─╮  one", "│ ○  old", "■    branched off one", "●    tried", "on branch fix-1",
                             "◆─╮  promoted a branch of one",
                             "branch fix-1 · took", "│ ●  next", "●    named"));
}

/* Every look has a sign of its own, and the legend tells those that are used. */
static void looks(void **state)
{
    static const enum timeline_state states[] = {TIMELINE_SAVED, TIMELINE_WAITING, TIMELINE_RUNNING, TIMELINE_FINISHED, TIMELINE_FAILED,
                                                 TIMELINE_UNKNOWN};
    struct timeline_mark marks[] = {mark("resume", "done", 1000, 1001, false), mark("resume", "unknown", 1002, 1003, false),
                                    mark("replay", "failed", 1004, 1005, false), mark("replay", "failed", 1006, 1007, true),
                                    mark("branch", "running", 1008, 0, false), mark("promote", "queued", 1010, 0, false)};
    struct timeline_checkpoint c[6];

    (void)state;
    for (int i = 0; i < 6; i++) {
        c[i] = ck((const char *[]){"a", "b", "c", "d", "e", "f"}[i], "name", NULL, i);
        c[i].state = states[i];
    }
    marks[0].decided = "approve, reject";
    c[5].marks = marks;
    c[5].n_marks = 6;
    has_rows(txt(c, 6), ROWS("2 resumes, 4 other actions", "●", "◐", "◌", "✓", "✗", "?", "▶", "approve, reject · took 1.0 s",
                             "▷", "outcome unknown", "◇", "failed", "◆", "failed, after the restore", "■", "under way", "◆", "queued",
                             "● saved   ◐ waiting for a decision",
                             "◌ under way", "✓ finished", "✗ failed", "? outcome unknown", "◆ restored", "◇ restore failed", "▶ resumed",
                             "▷ resume failed", "■ branch made"));
}

static void pauses_and_dates(void **state)
{
    const struct timeline_checkpoint c[] = {ck("1", "one", NULL, 0), ck("2", "two", NULL, 3599), ck("3", "three", NULL, 3599 + 3600),
                                            ck("4", "four", NULL, 3 * 86400 + 7210), ck("5", "before time", NULL, -5)};

    (void)state;
    has_rows(txt(c, 5), ROWS("2026-11-18\n  11:06:35  ●", "one", "12:06:39  ●", "            │  1 h 0 min later\n  13:06:39  ●",
                             "2026-11-21  │  3 d 0 h later\n  13:06:50  ●"));
}

static void left_out(void **state)
{
    const struct timeline_checkpoint c[] = {ck("1", "one", NULL, 0), ck("7", "seven", "6", 100), ck("8", "eight", "7", 160)};
    struct timeline t = {.run = "r", .checkpoints = c, .n = 3, .left_out = 5, .left_out_after = 1};
    struct buf b = {0};
    char *text;

    (void)state;
    assert_int_equal(timeline_txt(&t, &b), 0);
    has_rows(buf_steal(&b), ROWS("8 checkpoints\n", "●  one", "            ⋮  5 checkpoints are not shown\n", "●  seven", "●  eight"));
    text = svg(&t);
    assert_non_null(strstr(text, "5 checkpoints are not shown"));
    free(text);
}

/* The columns of UTF-8 text in which only CJK is wide. */
static size_t columns(const char *s, size_t n)
{
    size_t cols = 0;

    for (size_t i = 0; i < n; i++)
        if (((unsigned char)s[i] & 0xc0) != 0x80)
            cols += (unsigned char)s[i] >= 0xe4 && (unsigned char)s[i] <= 0xe9 ? 2 : 1;
    return cols;
}

static void check_width(const char *text)
{
    for (const char *line = text; *line;) {
        size_t n = strcspn(line, "\n");

        if (columns(line, n) > 80)
            fail_msg("%zu columns: %.*s", columns(line, n), (int)n, line);
        assert_true(n == 0 || line[n - 1] != ' ');
        line += n + (line[n] == '\n');
    }
}

static void hostile_texts(void **state)
{
    char longest[4096];
    struct timeline_mark marks[] = {mark("resume", "done", 70, 71, false)};
    struct timeline_checkpoint c[] = {ck("1", "<script>alert(1)</script> & \"quotes\"", NULL, 0), ck("2", longest, NULL, 60),
                                      ck("3", "\xe3\x85\xa4\xe2\x80\xaeright to left\x1b[31m red\x07 \xff\xfe \xef\xbf\xbf", NULL, 120),
                                      ck("4", "漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字", NULL, 180)};
    struct timeline t = {.run = "]]></title><script>x</script>\n\x01", .checkpoints = c, .n = 4, .left_out_after = 4};
    char *text;

    (void)state;
    memset(longest, 'x', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    c[1].status = c[1].step = c[1].agent = longest;
    c[2].status = "failed resume: \n\n</text>\x1b]0;title\x07";
    marks[0].decided = longest;
    c[1].marks = marks;
    c[1].n_marks = 1;
    text = svg(&t);
    assert_true(utf8_valid(text, strlen(text)));
    assert_null(strstr(text, "<script"));
    assert_null(strstr(text, "</text>]"));
    assert_null(strstr(text, "\xe2\x80\xae"));
    assert_null(strstr(text, "\xe3\x85\xa4"));
    assert_null(strstr(text, "\xef\xbf\xbf"));
    assert_non_null(strstr(text, "&lt;script&gt;alert(1)&lt;/script&gt; &amp; &quot;quotes&quot;"));
    assert_true(strlen(text) < 40000);
    for (const char *p = text; *p; p++)
        assert_true((unsigned char)*p >= 0x20 || *p == '\n');
    free(text);
    text = txt(c, 4);
    assert_true(utf8_valid(text, strlen(text)));
    for (const char *p = text; *p; p++)
        assert_true((unsigned char)*p >= 0x20 || *p == '\n');
    assert_null(strstr(text, "\xe2\x80\xae"));
    check_width(text);
    free(text);
}

/* More lines beside each other than there is room for, and all that an index hands over. */
static void very_many(void **state)
{
    enum { N = 400 };
    struct timeline_checkpoint *c = calloc(N, sizeof(*c));
    struct timeline_mark *marks = calloc(N * 4, sizeof(*marks));
    struct timeline t = {.run = "many", .checkpoints = c, .n = N, .left_out_after = N};
    char *text, *again;

    (void)state;
    assert_non_null(c);
    assert_non_null(marks);
    for (int i = 0; i < N; i++) {
        char *uid = str_format("ck-%d", i);
        char *parent = i ? str_format("ck-%d", i * 7919 % i) : NULL;

        c[i] = ck(uid, str_format("checkpoint-%d", i), parent, i * 60);
        c[i].offline = i % 3 == 0;
        for (int k = 0; k < 4; k++)
            marks[4 * i + k] = mark(k % 2 ? "restore" : "resume", "done", i * 60 + k * 500, i * 60 + k * 500 + 3, k % 2);
        c[i].marks = marks + 4 * i;
        c[i].n_marks = 4;
    }
    text = txt(c, N);
    check_width(text);
    free(text);
    text = svg(&t);
    again = svg(&t);
    assert_string_equal(text, again);
    for (int i = 0; i < N; i++) {
        free((char *)(uintptr_t)c[i].uid);
        free((char *)(uintptr_t)c[i].name);
        free((char *)(uintptr_t)c[i].parent);
    }
    free(again);
    free(text);
    free(c);
    free(marks);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line), cmocka_unit_test(nothing), cmocka_unit_test(forks_and_restores), cmocka_unit_test(undo),
        cmocka_unit_test(branches), cmocka_unit_test(promote),
        cmocka_unit_test(looks), cmocka_unit_test(pauses_and_dates), cmocka_unit_test(left_out), cmocka_unit_test(hostile_texts),
        cmocka_unit_test(very_many),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
