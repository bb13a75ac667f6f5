/* meta.json: what is accepted, what is refused, and in which words. */
#include "samples.h"

#include <errno.h>
#include <time.h>

#include "formats/meta.h"
#include "util/buf.h"
#include "util/clock.h"

static void accepted(const char *text, struct meta *ret)
{
    cleanup_err struct err e = {0};

    if (meta_parse(text, strlen(text), ret, &e) != 0)
        fail_msg("refused: %s: %s", text, err_text(&e));
}

static void refused(const char *text, const char *says)
{
    cleanup_err struct err e = {0};
    cleanup_meta struct meta m = {0};

    if (meta_parse(text, strlen(text), &m, &e) != -EINVAL)
        fail_msg("accepted: %s", text);
    if (!strstr(err_text(&e), says))
        fail_msg("%s: the error doesn't say \"%s\" but: %s", text, says, err_text(&e));
}

static void test_all_fields(void **state)
{
    cleanup_meta struct meta m = {0};
    int64_t expires = 0;

    (void)state;
    accepted("{\"run_id\":\"r\",\"step_id\":\"s\",\"parent\":\"p\",\"framework\":\"crewai\",\"framework_version\":\"1.8\","
             "\"traceparent\":\"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\",\"reason\":\"before the drop\","
             "\"pin\":true,"
             "\"expires_at\":\"2026-12-01T00:00:00+01:00\",\"agent\":\"A\",\"pending\":[{\"id\":\"c\"}],\"team\":{\"n\":[1,"
             "null]}}", &m);
    assert_string_equal(m.run_id, "r");
    assert_string_equal(m.step_id, "s");
    assert_string_equal(m.parent, "p");
    assert_string_equal(m.framework, "crewai");
    assert_string_equal(m.framework_version, "1.8");
    assert_string_equal(m.trace_id, "0af7651916cd43dd8448eb211c80319c");
    assert_string_equal(m.reason, "before the drop");
    assert_string_equal(m.agent, "A");
    assert_true(m.pin);
    assert_int_equal(clock_parse("2026-11-30T23:00:00Z", &expires), 0);
    assert_int_equal(m.expires_at, expires);
    assert_int_equal(json_array_size(m.pending), 1);
    assert_true(json_is_object(json_object_get(m.root, "team")));
}

static void test_nothing_given(void **state)
{
    static const char *const texts[] = {"", " \n", "{}", "{\"run_id\":null,\"pin\":null,\"expires_at\":null,\"pending\":null}"};

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        cleanup_meta struct meta m = {0};
        accepted(texts[i], &m);
        assert_null(m.run_id);
        assert_false(m.pin);
        assert_int_equal(m.expires_at, 0);
        assert_null(m.pending);
        assert_string_equal(m.trace_id, "");
    }
}

static void test_refusals_name_the_field(void **state)
{
    (void)state;
    refused("{\"run_id\":", "line 1");
    refused("[]", "must be an object");
    refused("\"x\"", "meta.json");
    refused("{\"run_id\":7}", "\"run_id\" must be a string");
    refused("{\"parent\":\"\"}", "\"parent\" is empty");
    refused("{\"run_id\":\"a\",\"run_id\":\"b\"}", "duplicate");
    refused("{\"pin\":\"yes\"}", "\"pin\" must be true or false");
    refused("{\"expires_at\":\"tomorrow\"}", "\"expires_at\" must be an RFC 3339 time");
    refused("{\"expires_at\":1764000000}", "not a number");
    refused("{\"pending\":{}}", "\"pending\" must be an array");
    refused("{\"pending\":[1]}", "pending[0] must be an object");
    refused("{\"pending\":[{\"id\":\"a\"},{\"tool\":\"t\"}]}", "pending[1] has no \"id\"");
    refused("{\"pending\":[{\"id\":\"a\"},{\"id\":\"a\"}]}", "pending[0] and pending[1]");
    refused("{\"pending\":[{\"id\":\"a\",\"kind\":\"maybe\"}]}", "pending[0].kind");
    refused("{\"pending\":[{\"id\":\"a\",\"allowed\":[\"shrug\"]}]}", "pending[0].allowed");
    refused("{\"pending\":[{\"id\":\"a\",\"allowed\":[]}]}", "pending[0].allowed");
    refused("{\"a\":\"\\u0000\"}", "line 1");
}

static void test_times(void **state)
{
    static const char *const bad[] = {
        "", "2026-12-01", "2026-12-01T00:00:00", "2026-12-01T00:00Z", "2026-13-01T00:00:00Z", "2026-02-29T00:00:00Z",
        "2026-04-31T00:00:00Z",
        "2026-12-01T24:00:00Z", "2026-12-01T00:60:00Z", "2026-12-01T00:00:61Z", "2026-12-01T00:00:00.Z", "2026-12-01T00:00:00+0100",
        "2026-12-01T00:00:00+24:00", "2026-12-01T00:00:00Zx", " 2026-12-01T00:00:00Z", "2026-1-01T00:00:00Z", "-026-12-01T00:00:00Z",
        "2026-12-+1T00:00:00Z", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z", "1764000000",
    };
    static const struct { const char *text; int64_t seconds; } good[] = {
        {"2026-12-01T00:00:00Z", 1796083200}, {"2026-12-01t00:00:00z", 1796083200}, {"2026-12-01 00:00:00.000+00:00", 1796083200},
        {"2026-11-30T19:00:00-05:00", 1796083200}, {"2028-02-29T00:00:00Z", 1835395200}, {"2261-12-31T23:59:59Z", 9214646399},
    };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cleanup_free char *text = str_format("{\"expires_at\":\"%s\"}", bad[i]);
        refused(text, "\"expires_at\" must be an RFC 3339 time like");
    }
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        cleanup_free char *text = str_format("{\"expires_at\":\"%s\"}", good[i].text);
        cleanup_meta struct meta m = {0};
        accepted(text, &m);
        assert_int_equal(m.expires_at, good[i].seconds * 1000000000);
    }
}

/* Every well-known key of every wrong type is refused by its name; a label may be anything. */
static void test_wrong_types(void **state)
{
    static const char *const keys[] = {"run_id", "step_id", "parent", "framework", "framework_version", "traceparent", "reason", "agent",
                                       "pin", "expires_at", "pending"};
    static const char *const values[] = {"7", "1.5", "true", "\"text\"", "[]", "{}"};

    (void)state;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        cleanup_free char *named = str_format("\"%s\"", keys[i]);
        for (size_t k = 0; k < sizeof values / sizeof *values; k++) {
            cleanup_free char *text = str_format("{\"%s\":%s}", keys[i], values[k]);
            bool fits = (strcmp(keys[i], "pin") == 0 && k == 2) || (strcmp(keys[i], "pending") == 0 && k == 4) ||
                        (k == 3 && strcmp(keys[i], "traceparent") != 0 && strcmp(keys[i], "pin") != 0 &&
                         strcmp(keys[i], "expires_at") != 0 && strcmp(keys[i], "pending") != 0);
            cleanup_meta struct meta m = {0};
            if (fits)
                accepted(text, &m);
            else
                refused(text, named);
        }
    }
    for (size_t k = 0; k < sizeof values / sizeof *values; k++) {
        cleanup_free char *text = str_format("{\"label\":%s}", values[k]);
        cleanup_meta struct meta m = {0};
        accepted(text, &m);
    }
}

static void test_traceparent(void **state)
{
    static const char *const bad[] = {
        "x", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331", "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
        "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0g",
    };
    cleanup_meta struct meta m = {0}, later = {0};

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cleanup_free char *text = str_format("{\"traceparent\":\"%s\"}", bad[i]);
        refused(text, "W3C");
    }
    accepted("{\"traceparent\":\"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00\"}", &m);
    accepted("{\"traceparent\":\"01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00-more\"}", &later);
}

static void assert_fixed(const char *sealed, const char *now, const char *named)
{
    cleanup_meta struct meta a = {0}, b = {0};
    cleanup_err struct err e = {0};

    accepted(sealed, &a);
    accepted(now, &b);
    if (!named) {
        assert_int_equal(meta_changed_fixed(&a, &b, &e), 0);
        return;
    }
    assert_int_equal(meta_changed_fixed(&a, &b, &e), -EPERM);
    assert_non_null(strstr(err_text(&e), named));
}

static void test_fixed_fields(void **state)
{
    (void)state;
    assert_fixed("{\"run_id\":\"r\"}", "{\"run_id\":\"r\",\"reason\":\"x\",\"pin\":true,\"step_id\":null}", NULL);
    assert_fixed("{\"run_id\":\"r\"}", "{\"run_id\":\"q\"}", "\"run_id\"");
    assert_fixed("{\"run_id\":\"r\",\"step_id\":\"s\",\"parent\":\"p\"}", "{}", NULL); /* left out is kept */
    assert_fixed("{}", "{\"step_id\":\"s\"}", "\"step_id\"");
    assert_fixed("{\"parent\":\"p\"}", "{\"parent\":\"q\"}", "\"parent\"");
}

/* As many as fit in a meta.json: well under a second, where comparing all with all takes minutes. */
static void test_many_calls(void **state)
{
    cleanup_buf struct buf b = {0};
    cleanup_meta struct meta m = {0};
    clock_t before = clock();

    (void)state;
    for (int i = 0; i < 60000; i++)
        buf_addf(&b, "%s{\"id\":\"%d\"}", i ? "," : "{\"pending\":[", i);
    buf_adds(&b, "]}");
    accepted(b.data, &m);
    assert_true(clock() - before < 10 * CLOCKS_PER_SEC);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_fields),     cmocka_unit_test(test_nothing_given),
                         cmocka_unit_test(test_refusals_name_the_field),
        cmocka_unit_test(test_times),          cmocka_unit_test(test_wrong_types),
        cmocka_unit_test(test_many_calls), cmocka_unit_test(test_traceparent),    cmocka_unit_test(test_fixed_fields),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
