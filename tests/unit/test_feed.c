/* One open, one command: how programs really write. */
#include "samples.h"

#include <errno.h>

#include <jansson.h>

#include "commands/command.h"
#include "commands/feed.h"

static enum feed_result put_bytes(struct feed *f, const char *bytes, size_t n)
{
    cleanup_err struct err e = {0};
    enum feed_result r = feed_write(f, bytes, n, &e);

    assert_int_equal(r == FEED_BAD, e.code != 0);
    return r;
}

static enum feed_result put(struct feed *f, const char *text)
{
    return put_bytes(f, text, strlen(text));
}

static void assert_bad(struct feed *f, const char *text, int code, const char *says)
{
    cleanup_err struct err e = {0};

    assert_int_equal(feed_write(f, text, strlen(text), &e), FEED_BAD);
    assert_int_equal(e.code, code);
    if (!strstr(err_text(&e), says))
        fail_msg("the error doesn't say \"%s\" but: %s", says, err_text(&e));
}

static void assert_command(const struct feed *f, const char *text)
{
    size_t n = 0;
    const char *bytes = feed_command(f, &n);

    assert_int_equal(n, strlen(text));
    assert_memory_equal(bytes, text, n);
}

static void test_one_line(void **state)
{
    struct feed *f = feed_new();

    (void)state;
    assert_int_equal(put(f, ""), FEED_IGNORE);
    assert_null(feed_close(f));
    assert_int_equal(put(f, "approve\n"), FEED_COMMAND);
    assert_command(f, "approve\n");
    assert_null(feed_close(f));
    feed_free(f);
}

/* Python writes a failed write again, Node one after EINTR: no second effect. */
static void test_repetition(void **state)
{
    struct feed *f = feed_new();

    (void)state;
    assert_int_equal(put(f, "frobnicate\n"), FEED_COMMAND);
    assert_int_equal(put(f, "frobnicate\n"), FEED_SAME);
    assert_int_equal(put(f, "frobnicate\n"), FEED_SAME);
    assert_int_equal(put(f, ""), FEED_IGNORE);
    assert_bad(f, "approve\n", EINVAL, "one open, one command");
    assert_int_equal(put(f, "frobnicate\n"), FEED_SAME);
    feed_free(f);
}

/* bash sends each line as a write of its own, and 5,000 bytes as 4,096 and the rest. */
static void test_cut_at_first_line(void **state)
{
    struct feed *f = feed_new(), *g = feed_new();
    cleanup_free char *big = malloc(5000);

    (void)state;
    assert_int_equal(put(f, "reject first line\n"), FEED_COMMAND);
    assert_bad(f, "second line\n", EINVAL, "cut at its first line; send JSON");
    assert_bad(f, "\n", EINVAL, "send JSON");
    memset(big, 'x', 5000);
    assert_int_equal(put_bytes(g, big, 4096), FEED_COMMAND); /* the parser refuses it: too long */
    assert_int_equal(put_bytes(g, big, 904), FEED_BAD);
    feed_free(f);
    feed_free(g);
}

/* { printf approve; echo; } > resume */
static void test_the_newline_may_come_alone(void **state)
{
    struct feed *f = feed_new();

    (void)state;
    assert_int_equal(put(f, "approve"), FEED_COMMAND);
    assert_int_equal(put(f, "\n"), FEED_IGNORE);
    assert_bad(f, "\n", EINVAL, "one command");
    feed_free(f);
}

static void test_json_then_white_space(void **state)
{
    struct feed *f = feed_new();

    (void)state;
    assert_int_equal(put(f, "\n "), FEED_IGNORE);
    assert_int_equal(put(f, "{\"input\":\"x\"}"), FEED_COMMAND);
    assert_int_equal(put(f, "\n"), FEED_IGNORE);
    assert_int_equal(put(f, " \n\t"), FEED_IGNORE);
    assert_int_equal(put(f, "{\"input\":\"x\"}"), FEED_SAME);
    assert_bad(f, "{\"input\":\"y\"}", EINVAL, "one command");
    feed_free(f);
}

static void test_json_in_pieces(void **state)
{
    static const char *const pieces[] = {"{\"decisions\": [{\"decision\": \"rej", "ect\", \"message\": \"two\\", "nlines \xc3",
        "\xa9\"}]",
                                         "\n}\n"};
    struct feed *f = feed_new();

    (void)state;
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(put(f, pieces[i]), FEED_MORE);
        assert_string_equal(feed_close(f), "incomplete command");
    }
    assert_int_equal(put(f, pieces[4]), FEED_COMMAND);
    assert_null(feed_close(f));
    assert_command(f, "{\"decisions\": [{\"decision\": \"reject\", \"message\": \"two\\nlines \xc3\xa9\"}]\n}\n");
    assert_int_equal(put(f, pieces[4]), FEED_SAME); /* the failed write again */
    assert_int_equal(put(f, "{\"decisions\": [{\"decision\": \"reject\", \"message\": \"two\\nlines \xc3\xa9\"}]\n}\n"),
                     FEED_SAME);
    assert_bad(f, pieces[0], EINVAL, "one command");
    feed_free(f);
}

static void test_what_can_never_be_json(void **state)
{
    static const char *const texts[] = {
        "{foo", "{\"a\":}", "{\"a\" 1", "{\"a\":1,}", "{,", "{\"a\":[1 2", "{\"a\":tru ", "{\"a\":01", "{\"a\":1.x",
        "{\"a\":-x", "{\"a\":1e}",
        "{\"a\":\"\\x", "{\"a\":\"\\u00g", "{\"a\":\"\n", "{\"a\":\"\xff", "{\"a\":\"\xed\xa0", "{]", "{\"a\":[}", "{}}",
        "{} x", "{'a'",
        "{\"a\":NaN", "{\"a\":.5",
    };

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct feed *f = feed_new();
        assert_bad(f, texts[i], EINVAL, "JSON");
        assert_bad(f, texts[i], EINVAL, "JSON"); /* the same answer for the same bytes */
        assert_bad(f, "approve\n", EINVAL, "JSON");
        assert_null(feed_close(f));
        feed_free(f);
    }
}

static void test_too_much_json(void **state)
{
    size_t n = COMMAND_JSON_MAX / 2;
    cleanup_free char *text = malloc(n + 1);
    struct feed *f = feed_new();
    cleanup_err struct err e = {0};

    (void)state;
    memset(text, 'x', n);
    memcpy(text, "{\"input\":\"", 10);
    assert_int_equal(put_bytes(f, text, n), FEED_MORE);
    memset(text, 'y', n + 1);
    assert_int_equal(feed_write(f, text, n + 1, &e), FEED_BAD);
    assert_int_equal(e.code, E2BIG);
    assert_null(feed_close(f));
    feed_free(f);
}

static void test_nested_too_deep(void **state)
{
    struct feed *f = feed_new();
    cleanup_buf struct buf text = {0};

    (void)state;
    buf_adds(&text, "{\"a\":");
    for (int i = 0; i < 3000; i++)
        buf_addc(&text, '[');
    assert_bad(f, text.data, EINVAL, "nested too deep");
    feed_free(f);
}

/* Byte by byte, the same command is complete at the same place: never before its last bracket, and then at once. */
static void test_every_prefix(void **state)
{
    static const char text[] = "{\"decisions\":[{\"id\":\"c\\u00e9\",\"decision\":\"edit\",\"arguments\":{\"a\":[-1.5e+3,0,"
        "true,false,null,{}]}}],\"input\":\"\xf0\x9f\x98\x80\"}";
    struct feed *f = feed_new();

    (void)state;
    for (size_t i = 0; i + 1 < sizeof text; i++) {
        enum feed_result r = put_bytes(f, text + i, 1);
        if (r != (i + 2 < sizeof text ? FEED_MORE : FEED_COMMAND))
            fail_msg("wrong after %zu bytes", i + 1);
    }
    feed_free(f);
}

/* The checker agrees with jansson on what is JSON, for real states and for broken copies of them. */
static void agreement(const char *name, const char *bytes, size_t n)
{
    uint64_t seed = 5 + n;

    if (n > 30000 || bytes[0] != '{')
        return;
    for (int i = 0; i < 30; i++) {
        cleanup_free char *copy = malloc(n);
        cleanup_json json_t *root = NULL;
        struct feed *f = feed_new();
        enum feed_result r = FEED_MORE;
        memcpy(copy, bytes, n);
        for (int k = 0; k < i; k++)
            copy[next_random(&seed) % n] = "\"{}[],:0 \n\xc3x"[next_random(&seed) % 12];
        copy[0] = '{';
        for (size_t at = 0; at < n && r == FEED_MORE; at += 1000)
            r = put_bytes(f, copy + at, n - at < 1000 ? n - at : 1000);
        root = json_loadb(copy, n, JSON_ALLOW_NUL, NULL);
        if ((r == FEED_COMMAND) != (root != NULL))
            fail_msg("%s, %d changes: jansson says %s", name, i, root ? "JSON" : "no JSON");
        feed_free(f);
    }
}

static void test_agrees_with_jansson(void **state)
{
    (void)state;
    each_sample(agreement);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_line),
        cmocka_unit_test(test_repetition),
        cmocka_unit_test(test_cut_at_first_line),
        cmocka_unit_test(test_the_newline_may_come_alone),
        cmocka_unit_test(test_json_then_white_space),
        cmocka_unit_test(test_json_in_pieces),
        cmocka_unit_test(test_what_can_never_be_json),
        cmocka_unit_test(test_too_much_json),
        cmocka_unit_test(test_nested_too_deep),
        cmocka_unit_test(test_every_prefix),
        cmocka_unit_test(test_agrees_with_jansson),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
