/* Rules and the planner: the grammar, cases by hand, and properties of random lines of checkpoints. */
#include "samples.h"

#include <errno.h>

#include "actions/plan.h"

#define DAY 86400000000000LL
#define NOW (1000 * DAY)

/* ---- the grammar --------------------------------------------------------------------------------------------------- */

static void test_grammar(void **state)
{
    static const struct { const char *text, *again; } good[] = {
        {"keep-last=20 keep-pending keep-pinned older-than=30d", "keep-last=20 keep-pending keep-pinned older-than=30d"},
        {"  snapshots=20\tstates=90d ", "snapshots=20 states=90d"},
        {"states=5 snapshots=36h", "snapshots=36h states=5"},
        {"older-than=14d", "older-than=2w"},
        {"older-than=120s", "older-than=2m"},
        {"older-than=0s", "older-than=0s"},
        {"keep-last=0", "keep-last=0"},
    };
    static const struct { const char *text, *says; } bad[] = {
        {"", "let nothing go"}, {"keep-pending keep-pinned", "let nothing go"}, {"keep-last", "keep-last=N"},
        {"keep-last=", "keep-last=N"}, {"keep-last=-1", "keep-last=N"}, {"keep-last=3d", "keep-last=N"},
        {"keep-last=1 keep-last=2", "twice"},
        {"older-than=30", "older-than=TIME"}, {"older-than=30y", "older-than=TIME"}, {"older-than=3dd", "older-than=TIME"},
        {"older-than=99999999w", "older-than=TIME"}, {"keep-pending=1 keep-last=1", "keep-pending"}, {"snapshots=all", "snapshots=N"},
        {"keep-last=99999999999999999999", "keep-last=N"}, {"keep-first=3", "no rule"}, {"states= 3", "states=N"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        cleanup_err struct err e = {0};
        cleanup_buf struct buf b = {0};
        struct rules r, again;

        if (rules_parse(good[i].text, &r, &e) < 0)
            fail_msg("refused: %s: %s", good[i].text, err_text(&e));
        rules_text(&r, &b);
        assert_string_equal(b.data, good[i].again);
        assert_int_equal(rules_parse(b.data, &again, &e), 0);
        assert_memory_equal(&r, &again, sizeof r);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cleanup_err struct err e = {0};
        struct rules r;

        if (rules_parse(bad[i].text, &r, &e) != -EINVAL)
            fail_msg("accepted: %s", bad[i].text);
        if (!strstr(err_text(&e), bad[i].says))
            fail_msg("%s: %s", bad[i].text, err_text(&e));
    }
    assert_true(rules_begin(" keep-last=1") && rules_begin("keep-pending") && !rules_begin("keep-lastly") && !rules_begin("delete x"));
}

/* ---- by hand ---------------------------------------------------------------------------------------------------------- */

/* Checkpoint number i of n, the newest last: i days apart, the newest one day old. */
static struct plan_fact fact(size_t i, size_t n)
{
    static const char *const uids[] = {"u0", "u1", "u2",  "u3",  "u4",  "u5",  "u6",  "u7",
                                       "u8", "u9", "u10", "u11", "u12", "u13", "u14", "u15"};

    return (struct plan_fact){.id = (int64_t)i + 1, .uid = uids[i], .name = uids[i], .seq = (int64_t)(10 + i),
                              .created_at = NOW - (int64_t)(n - i) * DAY, .state_bytes = 100, .has_snapshot = true};
}

static struct rules rules(const char *text)
{
    cleanup_err struct err e = {0};
    struct rules r;

    if (rules_parse(text, &r, &e) < 0)
        fail_msg("%s: %s", text, err_text(&e));
    return r;
}

static const struct plan_item *item(const struct plan_item *items, size_t n, const char *uid)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(items[i].fact->uid, uid) == 0)
            return &items[i];
    fail_msg("no item %s", uid);
    return NULL;
}

/* What becomes of each, the oldest first: k s w. */
static void expect(const struct plan_fact *facts, size_t n, const char *text, bool incoming, const char *letters)
{
    cleanup_free struct plan_item *items = NULL;
    struct rules r = rules(text);
    char got[32] = "";

    assert_int_equal(plan_make(facts, n, &r, NOW, incoming, &items), 0);
    for (size_t i = 0; i < n; i++)
        got[i] = "ksw"[item(items, n, facts[i].uid)->what];
    if (strcmp(got, letters) != 0)
        fail_msg("%s: %s instead of %s", text, got, letters);
}

static void test_cases(void **state)
{
    struct plan_fact f[6];

    (void)state;
    for (size_t i = 0; i < 6; i++)
        f[i] = fact(i, 6);
    f[5].latest = true;
    expect(f, 6, "keep-last=2", false, "wwwwkk");
    expect(f, 6, "keep-last=0", false, "wwwwwk");
    expect(f, 6, "older-than=3d", false, "wwwkkk");
    expect(f, 6, "keep-last=2 older-than=5d", false, "wkkkkk");
    expect(f, 6, "snapshots=2", false, "sssskk");
    expect(f, 6, "snapshots=2", true, "sssssk");
    expect(f, 6, "snapshots=1", true, "ssssss");
    expect(f, 6, "snapshots=0", false, "sssssk");
    expect(f, 6, "snapshots=12h", true, "sssssk");
    expect(f, 6, "snapshots=2 states=4d", false, "wwsskk");
    expect(f, 6, "states=3", false, "wwwkkk");
    expect(f, 6, "keep-last=4 snapshots=2", false, "sskkkk");
    f[0].pinned = f[1].busy = f[2].branched = f[3].pending = true;
    expect(f, 6, "keep-last=0", false, "kkkwwk");
    expect(f, 6, "keep-last=0 keep-pending", false, "kkkkwk");
    expect(f, 6, "keep-pending snapshots=0", false, "kkkksk");
    f[3].pending = f[0].pinned = f[1].busy = f[2].branched = false;
    f[1].state_bytes = 0;
    expect(f, 6, "snapshots=4", false, "swkkkk");
    f[1].has_snapshot = false;
    expect(f, 6, "snapshots=4", false, "skkkkk");
    f[1] = fact(1, 6);
    f[5].parent = "u3";
    f[3].parent = "u0";
    f[0].parent = "nobody";
    expect(f, 6, "keep-last=1", false, "kwwkwk");
    expect(f, 6, "snapshots=2 states=2d", false, "swwskk");
    f[0].parent = "u5"; /* a circle, which no seal makes, is no endless one here */
    expect(f, 6, "keep-last=1", false, "kwwkwk");
}

static void test_it_says_why(void **state)
{
    cleanup_free struct plan_item *items = NULL;
    struct plan_fact f[3] = {fact(0, 3), fact(1, 3), fact(2, 3)};
    struct rules r = rules("keep-last=1");

    (void)state;
    f[2].parent = "u0";
    assert_int_equal(plan_make(f, 3, &r, NOW, false, &items), 0);
    assert_string_equal(items[0].fact->uid, "u2"); /* the newest first */
    assert_string_equal(items[0].why, "among the last");
    assert_string_equal(items[1].why, "no rule keeps it");
    assert_string_equal(items[2].why, "the parent of one that is kept");
    assert_string_equal(items[2].parent_of, "u2");
}

/* ---- properties --------------------------------------------------------------------------------------------------------- */

#define MOST 16

static unsigned chance(unsigned *seed, unsigned n)
{
    *seed = *seed * 1664525u + 1013904223u;
    return (*seed >> 8) % n;
}

static size_t random_line(unsigned *seed, struct plan_fact *f)
{
    size_t n = chance(seed, MOST) + 1;

    for (size_t i = 0; i < n; i++) {
        f[i] = fact(i, n);
        f[i].pinned = chance(seed, 8) == 0;
        f[i].busy = chance(seed, 8) == 0;
        f[i].branched = chance(seed, 8) == 0;
        f[i].pending = chance(seed, 4) == 0;
        f[i].has_snapshot = chance(seed, 6) != 0;
        f[i].state_bytes = chance(seed, 4) ? 100 : 0;
        if (i && chance(seed, 2))
            f[i].parent = f[chance(seed, (unsigned)i)].uid;
    }
    f[chance(seed, (unsigned)n)].latest = true;
    return n;
}

static struct rules random_rules(unsigned *seed)
{
    cleanup_buf struct buf b = {0};

    buf_addf(&b, "keep-last=%u", chance(seed, MOST));
    if (chance(seed, 2))
        buf_adds(&b, " keep-pending");
    if (chance(seed, 2))
        buf_addf(&b, " older-than=%ud", chance(seed, MOST));
    if (chance(seed, 2))
        buf_addf(&b, " snapshots=%u%s", chance(seed, MOST), chance(seed, 2) ? "d" : "");
    if (chance(seed, 2))
        buf_addf(&b, " states=%u%s", chance(seed, MOST), chance(seed, 2) ? "d" : "");
    return rules(b.data);
}

/* Nothing that is kept is touched, no kept one loses its parent, children go before their parents. */
static void check_plan(const struct plan_item *items, size_t n, const struct rules *r, bool incoming)
{
    for (size_t i = 0; i < n; i++) {
        const struct plan_fact *f = items[i].fact;

        assert_non_null(items[i].why);
        if (i)
            assert_true(items[i - 1].fact->seq > f->seq);
        if (f->pinned || f->busy || f->branched || (r->keep_pending && f->pending) || (int64_t)i < r->keep_last)
            assert_int_equal(items[i].what, PLAN_KEEP);
        if (f->latest)
            assert_int_not_equal(items[i].what, PLAN_WHOLE);
        if (f->latest && !incoming)
            assert_int_equal(items[i].what, PLAN_KEEP);
        if (items[i].what == PLAN_SNAPSHOT)
            assert_true(f->has_snapshot && r->snapshots.given);
        if (items[i].what != PLAN_WHOLE && f->parent)
            assert_int_not_equal(item(items, n, f->parent)->what, PLAN_WHOLE);
    }
}

static void test_properties(void **state)
{
    unsigned seed = 20261124;

    (void)state;
    for (int round = 0; round < 20000; round++) {
        cleanup_free struct plan_item *items = NULL;
        cleanup_free struct plan_item *stricter = NULL;
        cleanup_free struct plan_item *later = NULL;
        struct plan_fact f[MOST];
        size_t n = random_line(&seed, f);
        struct rules r = random_rules(&seed);
        struct rules more = r;
        bool incoming = chance(&seed, 2);

        assert_int_equal(plan_make(f, n, &r, NOW, incoming, &items), 0);
        check_plan(items, n, &r, incoming);
        more.keep_last++; /* monotone: who keeps more loses no more; who waits keeps no more */
        more.keep_pending = true;
        assert_int_equal(plan_make(f, n, &more, NOW, incoming, &stricter), 0);
        assert_int_equal(plan_make(f, n, &r, NOW + DAY, incoming, &later), 0);
        for (size_t i = 0; i < n; i++) {
            assert_true(stricter[i].what <= items[i].what);
            assert_true(later[i].what >= items[i].what);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_grammar), cmocka_unit_test(test_cases), cmocka_unit_test(test_it_says_why), cmocka_unit_test(test_properties),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
