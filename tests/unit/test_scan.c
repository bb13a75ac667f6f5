/* The scanner for JSON cut short. */
#include "samples.h"

#include "formats/scan.h"

static enum scan of(const char *text)
{
    return scan_text(text, strlen(text));
}

static void test_kinds(void **state)
{
    (void)state;
    assert_int_equal(of(""), SCAN_EMPTY);
    assert_int_equal(of(" \n\t\r"), SCAN_EMPTY);
    assert_int_equal(of("\xef\xbb\xbf \n"), SCAN_EMPTY);
    assert_int_equal(of("{}"), SCAN_COMPLETE);
    assert_int_equal(of("\xef\xbb\xbf [1, 2]\n"), SCAN_COMPLETE);
    assert_int_equal(of("{\"a\": [1, {\"b\": \"}]\\\"\"}]} \n"), SCAN_COMPLETE);
    assert_int_equal(of("\"text\""), SCAN_OTHER);
    assert_int_equal(of("42"), SCAN_OTHER);
    assert_int_equal(of("\x82\xa1{"), SCAN_OTHER);
    assert_int_equal(of("plain {"), SCAN_OTHER);
    assert_int_equal(of("\xef\xbb{"), SCAN_OTHER);
}

/* A parser reports each of these as something else than a premature end. */
static void test_cut_where_parsers_are_misled(void **state)
{
    static const char *const cut[] = {
        "{", "[", "{\"a", "{\"a\\", "{\"a\\\"", "{\"a\": tru", "{\"a\": \"\\u00", "{\"a\": \"\xc3", "{\"a\": NaN, \"b\": [1",
        "{\"a\": \"\\ud800\", \"b\"", "{\"a\": 1e999,", "[123456789012345678901234567890", "{\"a\": \"}", "  [[1], [2]",
        "{\"a\":1}\n{\"b\":",
    };

    (void)state;
    for (size_t i = 0; i < sizeof cut / sizeof *cut; i++) {
        if (of(cut[i]) != SCAN_OPEN)
            fail_msg("not seen to be cut: %s", cut[i]);
    }
    assert_int_equal(of("{\"a\":1}\n{\"b\":2}\n"), SCAN_COMPLETE); /* JSON lines */
}

static void prefixes(const char *name, const char *bytes, size_t n)
{
    struct scanner s = {0};
    size_t last = n;

    if ((bytes[0] != '{' && bytes[0] != '[') || strstr(name, ".jsonl")) /* of JSON lines each is whole */
        return;
    while (last > 0 && strchr(" \n", bytes[last - 1]))
        last--;
    for (size_t i = 0; i < last; i++) {
        scan_feed(&s, bytes + i, 1);
        if (scan_result(&s) != (i + 1 < last ? SCAN_OPEN : SCAN_COMPLETE))
            fail_msg("%s: wrong after %zu of %zu bytes", name, i + 1, last);
    }
}

static void test_every_prefix_of_a_state_is_open(void **state)
{
    (void)state;
    each_sample(prefixes);
}

/* However the text is cut into writes, the answer is the same. */
static void chunks(const char *name, const char *bytes, size_t n)
{
    uint64_t seed = 0x9e3779b97f4a7c15u + n;
    struct scanner s = {0};

    for (size_t at = 0; at < n;) {
        size_t len = 1 + next_random(&seed) % 9000;
        len = len < n - at ? len : n - at;
        scan_feed(&s, bytes + at, len);
        at += len;
    }
    if (scan_result(&s) != scan_text(bytes, n))
        fail_msg("%s: chunks differ from the whole", name);
}

static void test_chunks(void **state)
{
    (void)state;
    each_sample(chunks);
}

static void test_reason(void **state)
{
    struct scanner s = {0}, one = {0};
    cleanup_free char *text = NULL, *other = NULL;

    (void)state;
    scan_feed(&s, "{\"a\": [{", 8);
    text = scan_reason(&s);
    assert_string_equal(text, "cut short after 8 bytes: 3 brackets still open");
    scan_feed(&one, "[\"abc", 5);
    other = scan_reason(&one);
    assert_string_equal(other, "cut short after 5 bytes: 1 bracket still open, inside a string");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_cut_where_parsers_are_misled),
        cmocka_unit_test(test_every_prefix_of_a_state_is_open),
        cmocka_unit_test(test_chunks),
        cmocka_unit_test(test_reason),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
