/* The files of a checkpoint: their fields, their determinism, and that no text gets out of its block. */
#include "samples.h"

#include <errno.h>

#include <jansson.h>

#include "formats/render.h"
#include "util/clock.h"

static const struct checkpoint_facts facts = {
    .id = "0198f00d", .name = "pre_drop_table", .created_at = 1764000000123000000, .state_bytes = 12244,
    .state_sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
};

static void read_named(const char *name, struct buf *bytes, struct state_info *ret)
{
    read_sample(name, bytes);
    assert_int_equal(state_read(bytes->data, bytes->len, ret, NULL), 0);
}

static json_t *parsed(const struct buf *b)
{
    json_t *root = json_loadb(b->data, b->len, JSON_REJECT_DUPLICATES, NULL);

    assert_non_null(root);
    assert_int_equal(b->data[b->len - 1], '\n');
    return root;
}

static void test_checkpoint_json(void **state)
{
    cleanup_state_info struct state_info info = {0};
    cleanup_buf struct buf bytes = {0}, out = {0};
    struct checkpoint_facts f = facts;

    (void)state;
    f.parent = "0197";
    f.framework = "openai-agents-python";
    f.framework_version = "0.22.0";
    read_named("py_seed_interrupted.json", &bytes, &info);
    assert_int_equal(render_checkpoint_json(&out, &f, &info), 0);
    assert_string_equal(out.data,
                        "{\n  \"id\": \"0198f00d\",\n  \"name\": \"pre_drop_table\",\n  \"parent\": \"0197\",\n"
                        "  \"framework\": \"openai-agents-python\",\n  \"framework_version\": \"0.22.0\",\n"
                        "  \"schema_version\": \"1.16\",\n  \"agent\": \"DB Admin\",\n  \"turn\": 2,\n"
                        "  \"max_turns\": 10,\n  \"usage\": {\n    \"requests\": 2,\n    \"input\": 640,\n"
                        "    \"output\": 24,\n    \"total\": 664\n  },\n  \"status\": \"interrupted\",\n"
                        "  \"created_at\": \"2025-11-24T16:00:00.123Z\",\n  \"state\": {\n    \"bytes\": 12244,\n"
                        "    \"sha256\": \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\"\n"
                        "  },\n  \"pending\": [\n    {\n      \"id\": \"call_00000000000000000001\",\n"
                        "      \"tool\": \"drop_users_table\",\n      \"agent\": \"DB Admin\",\n"
                        "      \"kind\": \"approval\",\n"
                        "      \"arguments_sha256\": \"44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a\"\n"
                        "    }\n  ],\n  \"derived\": [\n    \"schema_version\",\n    \"agent\",\n"
                        "    \"turn\",\n    \"max_turns\",\n    \"usage\",\n    \"status\",\n"
                        "    \"pending\"\n  ]\n}\n");
}

static void test_supplied_wins_and_conflicts_show(void **state)
{
    cleanup_state_info struct state_info info = {0};
    cleanup_buf struct buf bytes = {0}, out = {0};
    cleanup_json json_t *root = NULL;
    struct checkpoint_facts f = facts;

    (void)state;
    f.run_id = "mine";
    f.agent = "DB Admin";
    read_named("js_seed_traced_interrupted.json", &bytes, &info);
    assert_int_equal(render_checkpoint_json(&out, &f, &info), 0);
    root = parsed(&out);
    assert_string_equal(json_string_value(json_object_get(root, "run_id")), "mine");
    assert_int_equal(json_object_size(json_object_get(root, "conflicts")), 1);
    assert_string_equal(json_string_value(json_object_get(json_object_get(root, "conflicts"), "run_id")), "thread-42");
    assert_string_equal(json_string_value(json_object_get(json_object_get(root, "trace"), "workflow")), "Nightly admin");
    for (size_t i = 0; i < json_array_size(json_object_get(root, "derived")); i++) {
        const char *name = json_string_value(json_array_get(json_object_get(root, "derived"), i));
        assert_string_not_equal(name, "run_id");
        assert_string_not_equal(name, "agent");
    }
}

static void test_raw_and_database_only(void **state)
{
    cleanup_state_info struct state_info info = {0};
    cleanup_buf struct buf raw = {0}, none = {0};
    cleanup_json json_t *a = NULL, *b = NULL;
    struct checkpoint_facts f = facts;

    (void)state;
    f.traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    assert_int_equal(state_read("plain", 5, &info, NULL), 0);
    assert_int_equal(render_checkpoint_json(&raw, &f, &info), 0);
    a = parsed(&raw);
    assert_string_equal(json_string_value(json_object_get(a, "framework")), "raw");
    assert_int_equal(json_array_size(json_object_get(a, "derived")), 0);
    assert_string_equal(json_string_value(json_object_get(json_object_get(a, "trace"), "id")),
                        "0af7651916cd43dd8448eb211c80319c");
    f.state_sha256 = NULL;
    assert_int_equal(render_checkpoint_json(&none, &f, NULL), 0);
    b = parsed(&none);
    assert_null(json_object_get(b, "state"));
    assert_null(json_object_get(b, "framework"));
}

static void test_snapshot_json(void **state)
{
    const struct snapshot_facts f = {
        .project_id = "p", .branch_id = "br-1", .id = "snap-1", .name = "pre", .lsn = "0/1A2B3C",
        .requested_at = 1764000000000000000, .captured_at = 1764000000250000000, .full_size = 31457280,
    };
    cleanup_buf struct buf out = {0};

    (void)state;
    assert_int_equal(render_snapshot_json(&out, &f), 0);
    assert_string_equal(out.data, "{\n  \"project_id\": \"p\",\n  \"branch_id\": \"br-1\",\n  \"id\": \"snap-1\",\n  "
                        "\"name\": \"pre\",\n  \"requested_at\": \"2025-11-24T16:00:00.000Z\",\n  \"captured_at\": "
                                  "\"2025-11-24T16:00:00.250Z\",\n"
                                  "  \"lag_ms\": 250,\n  \"lsn\": \"0/1A2B3C\",\n  \"full_size\": 31457280\n}\n");
}

static void test_pending_json(void **state)
{
    cleanup_state_info struct state_info python = {0}, graph = {0};
    cleanup_buf struct buf a = {0}, b = {0}, text = {0}, value = {0};
    cleanup_json json_t *x = NULL, *y = NULL;

    (void)state;
    read_named("py_seed_after_reject.decided.json", &a, &python);
    assert_int_equal(render_pending_json(&text, &python.pending[0]), 0);
    x = parsed(&text);
    assert_string_equal(json_string_value(json_object_get(x, "arguments")), "{}");
    assert_string_equal(json_string_value(json_object_get(x, "decision")), "rejected");
    assert_true(str_starts(json_string_value(json_object_get(x, "message")), "Action denied"));
    read_named("langgraph_js_interrupted.json", &b, &graph);
    assert_int_equal(render_pending_json(&value, &graph.pending[0]), 0);
    y = parsed(&value);
    assert_true(json_is_object(json_object_get(y, "arguments")));
    assert_int_equal(json_array_size(json_object_get(y, "allowed")), 3);
}

static void test_pending_json_of_others(void **state)
{
    cleanup_state_info struct state_info hosted = {0}, nested = {0};
    cleanup_buf struct buf a = {0}, b = {0}, x = {0}, y = {0};

    (void)state;
    read_named("js_hosted_interrupted.json", &a, &hosted);
    assert_int_equal(render_pending_json(&x, &hosted.pending[3]), 0);
    assert_string_equal(x.data, "{\n  \"id\": \"mcpr_1\",\n  \"tool\": \"create_issue\",\n  \"arguments\": \"{\\\"title\\\": "
                        "\\\"Drop it\\\"}\",\n  \"agent\": \"Operator\",\n  \"server\": \"tracker\",\n  \"kind\": \"approval\",\n"
                        "  \"arguments_sha256\": \"78525d70bbb7ade7af06d867acad96099ff87fa75be5de825f8ed7326c87e3bc\",\n"
                        "  \"allowed\": [\n    \"approve\",\n    \"reject\"\n  ]\n}\n");
    read_named("py_nested3_interrupted.json", &b, &nested);
    assert_int_equal(render_pending_json(&y, &nested.pending[0]), 0);
    assert_non_null(strstr(y.data, "  \"agent\": \"First\",\n  \"via\": \"Boss > Lead\",\n"));
}

/* A terminal obeys U+009B, and U+202E turns what follows: neither reaches it, and no program reads anything else. */
static void test_pending_json_shows_what_cant_be_seen(void **state)
{
    static const char value[] = "{\"path\":\"a\xc2\x9b" "31m\xe2\x80\xae" "txt.exe\xf3\xa0\x81\x81\xe2\x80\x8b \xc3\xa9\"}";
    struct call c = {.id = (char *)(uintptr_t)"c\xe2\x80\xae", .arguments = (char *)(uintptr_t)value, .is_json = true};

    (void)state;
    for (int as_value = 0; as_value < 2; as_value++) {
        cleanup_buf struct buf out = {0};
        cleanup_json json_t *root = NULL, *inner = NULL;

        c.is_json = as_value;
        assert_int_equal(render_pending_json(&out, &c), 0);
        assert_null(strstr(out.data, "\xc2\x9b"));
        assert_null(strstr(out.data, "\xe2\x80"));
        assert_non_null(strstr(out.data, "a\\u009b31m\\u202etxt.exe\\udb40\\udc41\\u200b \xc3\xa9"));
        root = parsed(&out);
        assert_string_equal(json_string_value(json_object_get(root, "id")), c.id);
        inner = json_loads(value, 0, NULL);
        if (as_value)
            assert_true(json_equal(json_object_get(root, "arguments"), inner));
        else
            assert_string_equal(json_string_value(json_object_get(root, "arguments")), value);
    }
}

/* The same input gives the same bytes, all of them valid UTF-8, JSON where it is JSON, and everything ends with a newline. */
static void all_files(const char *name, const char *bytes, size_t n)
{
    cleanup_state_info struct state_info info = {0}, again = {0};
    cleanup_buf struct buf out = {0}, second = {0}, envelope = {0}, json = {0};
    cleanup_json json_t *root = NULL;

    assert_int_equal(state_read(bytes, n, &info, NULL), 0);
    assert_int_equal(state_to_json(&info, &envelope), 0);
    assert_int_equal(state_from_json(envelope.data, envelope.len, &again, NULL), 0);
    assert_int_equal(render_transcript(&out, &facts, &info, bytes, n), 0);
    assert_int_equal(render_transcript(&second, &facts, &again, bytes, n), 0);
    assert_string_equal(out.data, second.data);
    assert_true(utf8_valid(out.data, out.len));
    assert_int_equal(out.data[out.len - 1], '\n');
    assert_int_equal(render_checkpoint_json(&json, &facts, &info), 0);
    root = parsed(&json);
    if (!json_is_object(root))
        fail_msg("%s", name);
    for (size_t i = 0; i < info.pending_count; i++) {
        cleanup_buf struct buf call = {0};
        cleanup_json json_t *object = NULL;
        assert_int_equal(render_pending_json(&call, &info.pending[i]), 0);
        object = parsed(&call);
    }
}

static void test_all_samples(void **state)
{
    (void)state;
    each_sample(all_files);
}

static void mutated_files(const char *name, const char *bytes, size_t n)
{
    uint64_t seed = 7 + n;

    if (n > 30000)
        return;
    for (int i = 0; i < 25; i++) {
        cleanup_free char *copy = malloc(n);
        memcpy(copy, bytes, n);
        for (int k = 0; k < 6; k++)
            copy[next_random(&seed) % n] = "\"{}[],:0\xc3\x01"[next_random(&seed) % 10];
        all_files(name, copy, i % 2 ? n : 1 + next_random(&seed) % n);
    }
}

static void test_mutations(void **state)
{
    (void)state;
    each_sample(mutated_files);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_checkpoint_json),
        cmocka_unit_test(test_supplied_wins_and_conflicts_show),
        cmocka_unit_test(test_raw_and_database_only),
        cmocka_unit_test(test_snapshot_json),
        cmocka_unit_test(test_pending_json),
        cmocka_unit_test(test_pending_json_shows_what_cant_be_seen),
        cmocka_unit_test(test_pending_json_of_others),
        cmocka_unit_test(test_all_samples),
        cmocka_unit_test(test_mutations),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
