/* Whatever is written into a state: every sample cut, with bytes flipped and with its types swapped; and states made to take long.
 * Read, rendered and read back, under ASan and UBSan where the suite runs with them. */
#include "samples.h"

#include <time.h>

#include <jansson.h>

#include "formats/jdoc.h"
#include "formats/render.h"

static const struct checkpoint_facts facts = {.id = "id", .name = "name", .created_at = 1764000000123000000, .state_sha256 = "00"};

/* All that a seal makes of a state; returns the bytes of the transcript. */
static size_t seal(const char *bytes, size_t n)
{
    cleanup_state_info struct state_info info = {0}, again = {0};
    cleanup_buf struct buf envelope = {0}, checkpoint = {0}, transcript = {0};

    assert_int_equal(state_read(bytes, n, &info, NULL), 0);
    assert_int_equal(state_to_json(&info, &envelope), 0);
    assert_true(utf8_valid(envelope.data, envelope.len));
    assert_int_equal(state_from_json(envelope.data, envelope.len, &again, NULL), 0);
    assert_int_equal(again.pending_count, info.pending_count);
    assert_int_equal(render_checkpoint_json(&checkpoint, &facts, &info), 0);
    assert_int_equal(render_transcript(&transcript, &facts, &info, bytes, n), 0);
    assert_true(utf8_valid(transcript.data, transcript.len));
    assert_null(memchr(transcript.data, 0x1b, transcript.len));
    for (size_t i = 0; i < info.pending_count; i++) {
        cleanup_buf struct buf call = {0};
        assert_int_equal(render_pending_json(&call, &info.pending[i]), 0);
        assert_true(utf8_valid(call.data, call.len));
    }
    return transcript.len;
}

/* -- Mutations --------------------------------------------------------------------------------------------------------------- */

/* Not NUL-terminated, of exactly that length: reading past the end is seen by ASan. */
static char *exact_copy(const char *bytes, size_t n)
{
    char *copy = malloc(n ? n : 1);

    assert_non_null(copy);
    memcpy(copy, bytes, n);
    return copy;
}

static void cut_sample(const char *name, const char *bytes, size_t n)
{
    uint64_t seed = 41 + n;

    (void)name;
    for (int i = 0; n <= 70000 && i < 12; i++) {
        size_t len = next_random(&seed) % (n + 1);
        cleanup_free char *copy = exact_copy(bytes, len);
        seal(copy, len);
    }
}

static void test_cut(void **state)
{
    (void)state;
    each_sample(cut_sample);
}

static void flip_sample(const char *name, const char *bytes, size_t n)
{
    static const char odd[] = "\"\\{}[],:0-.eu\xff\xc2\x80\x1b\n";
    uint64_t seed = 43 + n;

    (void)name;
    for (int i = 0; n > 0 && n <= 70000 && i < 16; i++) {
        cleanup_free char *copy = exact_copy(bytes, n);
        for (uint64_t k = 1 + next_random(&seed) % 12; k > 0; k--) {
            size_t at = next_random(&seed) % n;
            copy[at] = k % 2 ? (char)next_random(&seed) : odd[next_random(&seed) % (sizeof odd - 1)];
        }
        seal(copy, n);
    }
}

static void test_flipped(void **state)
{
    (void)state;
    each_sample(flip_sample);
}

static json_t *something_else(uint64_t random)
{
    switch (random % 9) {
    case 0: return json_null();
    case 1: return json_true();
    case 2: return json_integer(-7);
    case 3: return json_real(1e300);
    case 4: return json_string("");
    case 5: return json_string("{\"role\":[]}");
    case 6: return json_array();
    case 7: return json_pack("[[]{s:[n]}]", "type");
    default: return json_pack("{s:{s:[i]}s:s}", "content", "text", 1, "type", "tool_use");
    }
}

/* One value in `every` becomes another of another type; one in as many members gets another's name. */
static void swap_types(json_t *v, uint64_t *seed, uint64_t every)
{
    static const char *const names[] = {"content", "id", "value", "type", "raw_item", "agent", "parts", "messages", "arguments", "b64"};
    json_t *child;
    const char *key;
    void *next;
    size_t i;

    json_array_foreach(v, i, child) {
        if (next_random(seed) % every == 0)
            json_array_set_new(v, i, something_else(next_random(seed)));
        else
            swap_types(child, seed, every);
    }
    json_object_foreach_safe(v, next, key, child) {
        if (next_random(seed) % every == 0)
            json_object_set_new(v, key, something_else(next_random(seed)));
        else if (next_random(seed) % every == 0)
            json_object_set(v, names[next_random(seed) % 10], child);
        else
            swap_types(child, seed, every);
    }
}

static size_t swapped;

static void swap_sample(const char *name, const char *bytes, size_t n)
{
    uint64_t seed = 47 + n;

    (void)name;
    for (int i = 0; n <= 70000 && i < 24; i++) {
        cleanup_json json_t *root = json_loadb(bytes, n, 0, NULL);
        cleanup_free char *text = NULL;

        if (!root)
            return;
        swap_types(root, &seed, i % 3 == 0 ? 8 : i % 3 == 1 ? 40 : 200);
        text = json_dumps(root, JSON_ENCODE_ANY);
        seal(text, strlen(text));
        swapped++;
    }
}

static void test_swapped_types(void **state)
{
    (void)state;
    each_sample(swap_sample);
    assert_true(swapped > 1000);
}

static void test_random_msgpack(void **state)
{
    uint64_t seed = 53;

    (void)state;
    for (int i = 0; i < 3000; i++) {
        size_t n = 1 + next_random(&seed) % 60;
        cleanup_free char *bytes = malloc(n);
        for (size_t k = 0; k < n; k++)
            bytes[k] = (char)(next_random(&seed) >> 13);
        bytes[0] = (char)(i % 2 ? 0x81 + i % 8 : 0x91 + i % 8);
        seal(bytes, n);
    }
}

/* -- States made to take long ----------------------------------------------------------------------------------------------- */

typedef void make_fn(struct buf *b, size_t n);

#define PYTHON "{\"$schemaVersion\":\"1.16\",\"current_agent\":{\"name\":\"A\"},\"current_turn\":1,\"original_input\":\"\",\"max_turns\":1,"

/* `first`, then `n` times `item` with its number in the place of each %zu, with commas between. */
static void repeat(struct buf *b, size_t n, const char *first, const char *item)
{
    buf_adds(b, first);
    for (size_t i = 0; i < n; i++) {
        const char *rest = item, *at;
        if (i)
            buf_addc(b, ',');
        for (; (at = strstr(rest, "%zu")); rest = at + 3) {
            buf_add(b, rest, (size_t)(at - rest));
            buf_addf(b, "%zu", i);
        }
        buf_adds(b, rest);
    }
}

static void interruptions(struct buf *b, size_t n, const char *item)
{
    repeat(b, n, "\"current_step\":{\"data\":{\"interruptions\":[", item);
    buf_adds(b, "]}}}");
}

static void plain_run(struct buf *b, size_t n)
{
    repeat(b, n, PYTHON "\"context\":{},\"current_step\":null,\"generated_items\":[",
           "{\"type\":\"tool_call_item\",\"raw_item\":{\"call_id\":\"c%zu\",\"name\":\"t\",\"arguments\":\"{}\"}}");
    buf_adds(b, "]}");
}

static void calls_of_one_id(struct buf *b, size_t n)
{
    buf_adds(b, PYTHON "\"context\":{\"approvals\":{\"t\":{\"approved\":[\"c\",\"c\",\"c\"],\"rejected\":[]}}},");
    interruptions(b, n, "{\"tool_name\":\"t\",\"raw_item\":{\"call_id\":\"c\"}}");
}

static void decided_one_by_one(struct buf *b, size_t n)
{
    repeat(b, n, PYTHON "\"context\":{\"approvals\":{\"t\":{\"approved\":[],\"rejected\":[", "\"c%zu\"");
    repeat(b, n, "],\"rejection_messages\":{", "\"c%zu\":\"no %zu\"");
    buf_adds(b, "}}}},");
    interruptions(b, n, "{\"tool_name\":\"t\",\"raw_item\":{\"call_id\":\"c%zu\"}}");
}

static void decided_by_many_records(struct buf *b, size_t n)
{
    repeat(b, n, PYTHON "\"context\":{\"approvals\":{", "\"x.t%zu\":{\"approved\":true,\"rejected\":[\"c\"]}");
    buf_adds(b, "}},");
    interruptions(b, n, "{\"tool_name\":\"t%zu\",\"raw_item\":{\"call_id\":\"c\"}}");
}

static void many_inner_runs(struct buf *b, size_t n)
{
    repeat(b, n, PYTHON "\"context\":{},\"last_processed_response\":{\"functions\":[",
           "{\"agent_run_state\":{\"current_step\":{\"data\":{\"interruptions\":[{\"raw_item\":{\"call_id\":\"c\"}}]}}}}");
    buf_adds(b, "]},");
    interruptions(b, n, "{\"tool_name\":\"t\",\"raw_item\":{\"call_id\":\"c\"}}");
}

static void many_actions(struct buf *b, size_t n)
{
    repeat(b, n, "{\"checkpoint\":{\"channel_versions\":{}},\"parent_config\":null,"
           "\"pending_writes\":[[\"t\",\"__interrupt__\",[{\"id\":\"i\","
           "\"value\":{\"action_requests\":[", "{\"name\":\"a%zu\",\"args\":{}}");
    repeat(b, n, "],\"review_configs\":[", "{\"action_name\":\"b%zu\"}");
    repeat(b, n, "]}}]],[\"t\",\"__resume__\",[{\"decisions\":[", "{\"type\":\"approve\"}");
    buf_adds(b, "]}]]]}");
}

static void many_interrupts(struct buf *b, size_t n)
{
    repeat(b, n, "{\"checkpoint\":{\"channel_versions\":{}},\"parent_config\":null,\"pending_writes\":[",
           "[\"t%zu\",\"__interrupt__\",[{\"id\":\"i%zu\",\"value\":\"?\"}]]");
    buf_adds(b, "]}");
}

static void many_blobs(struct buf *b, size_t n)
{
    repeat(b, n, "{\"checkpoints\":[{\"thread_id\":\"t\",\"checkpoint_ns\":\"\",\"checkpoint_id\":\"i\","
           "\"checkpoint\":{\"channel_versions\":{",
           "\"c%zu\":\"1\"");
    repeat(b, n, "}}}],\"checkpoint_blobs\":[",
           "{\"thread_id\":\"t\",\"checkpoint_ns\":\"\",\"channel\":\"c%zu\",\"version\":\"1\",\"type\":\"json\",\"blob\":\"\\\\x7b7d\"}");
    buf_adds(b, "]}");
}

static void many_stored_values(struct buf *b, size_t n)
{
    repeat(b, n, "{\"checkpoint\":{\"channel_versions\":{},\"channel_values\":{", "\"c%zu\":{\"type\":\"msgpack\",\"b64\":\"gaFhAQ==\"}");
    buf_adds(b, "}}}");
}

static void pydantic_calls(struct buf *b, size_t n)
{
    repeat(b, n, "[{\"kind\":\"response\",\"parts\":[", "{\"part_kind\":\"tool-call\",\"tool_name\":\"t\",\"tool_call_id\":\"c%zu\"}");
    repeat(b, n, "]},{\"kind\":\"request\",\"parts\":[", "{\"part_kind\":\"tool-return\",\"tool_call_id\":\"d%zu\"}");
    buf_adds(b, "]}]");
}

static void claude_lines(struct buf *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        buf_addf(b, "{\"sessionId\":\"s\",\"uuid\":\"u\",\"type\":\"assistant\",\"message\":"
                 "{\"content\":[{\"type\":\"tool_use\",\"id\":\"c%zu\"}]}}\n", i);
}

static void adk_events(struct buf *b, size_t n)
{
    repeat(b, n, "{\"appName\":\"a\",\"userId\":\"u\",\"events\":[",
           "{\"content\":{\"parts\":[{\"functionCall\":{\"id\":\"c%zu\",\"name\":\"adk_request_confirmation\"}}]}}");
    buf_adds(b, "]}");
}

static void deep_arguments(struct buf *b, size_t n)
{
    buf_adds(b, PYTHON "\"context\":{},\"current_step\":null,\"generated_items\":[0");
    for (size_t i = 0; i < n / 50; i++) {
        buf_adds(b, ",{\"type\":\"tool_call_item\",\"raw_item\":{\"arguments\":\"");
        for (int k = 0; k < 2000; k++)
            buf_adds(b, "[");
        for (int k = 0; k < 2000; k++)
            buf_adds(b, "]");
        buf_adds(b, "\"}}");
    }
    buf_adds(b, "]}");
}

static void deep_outline(struct buf *b, size_t n)
{
    for (size_t i = 0; i < n * 40; i++)
        buf_adds(b, "[");
    for (size_t i = 0; i < n * 40; i++)
        buf_adds(b, "]");
}

static void wide_outline(struct buf *b, size_t n)
{
    repeat(b, n * 4, "{\"a\":[", "{\"role\":\"x\",\"k%zu\":[]}");
    buf_adds(b, "]}");
}

static void deep_msgpack(struct buf *b, size_t n)
{
    for (size_t i = 0; i < n * 80; i++)
        buf_addc(b, (char)0x91);
    buf_addc(b, (char)0xc0);
}

/* A map that is a map's key, and so on: 120 bytes, which would be twice as many at each level. */
static void keys_in_keys(struct buf *b, size_t n)
{
    (void)n;
    for (int i = 0; i < 60; i++)
        buf_addc(b, (char)0x81);
    for (int i = 0; i < 61; i++)
        buf_addc(b, (char)0xc0);
}

/* A string in a string in a string, each a state. */
static void deep_strings(struct buf *b, size_t n)
{
    cleanup_free char *inner = str_format("{\"currentAgent\":{\"name\":\"%*s\"}}", (int)(n * 40), "x");

    for (int i = 0; i < 5; i++) {
        cleanup_buf struct buf quoted = {0};
        json_add_quoted(&quoted, inner, strlen(inner));
        free(inner);
        inner = str_format("{\"$schemaVersion\":\"1\",\"currentAgent\":{},\"pendingAgentToolRuns\":{\"a\":%s}}", quoted.data);
    }
    buf_adds(b, inner);
}

/* Of the processor: what else runs on the machine doesn't count. */
static int64_t cpu_ms(void)
{
    struct timespec t;

    assert_int_equal(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t), 0);
    return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int64_t took(make_fn *make, size_t n, size_t *ret_bytes)
{
    cleanup_buf struct buf text = {0};
    int64_t start;

    make(&text, n);
    *ret_bytes = text.len;
    start = cpu_ms();
    seal(text.data, text.len);
    return cpu_ms() - start;
}

/* Measured against what the same number of bytes takes that hold nothing odd: 4 MB are 4 MB, whoever wrote them. */
static void test_nothing_takes_long(void **state)
{
    static const struct { const char *name; make_fn *make; } cases[] = {
        {"calls of one id", calls_of_one_id}, {"decided one by one", decided_one_by_one}, {"many records", decided_by_many_records},
        {"many inner runs", many_inner_runs}, {"many actions", many_actions}, {"many interrupts", many_interrupts},
        {"many blobs", many_blobs}, {"many stored values", many_stored_values}, {"pydantic", pydantic_calls}, {"claude", claude_lines},
        {"adk", adk_events}, {"deep arguments", deep_arguments}, {"deep outline", deep_outline}, {"wide outline", wide_outline},
        {"deep msgpack", deep_msgpack}, {"keys in keys", keys_in_keys}, {"deep strings", deep_strings},
    };
    size_t n = 50000, bytes, plain_bytes;
    int64_t plain = took(plain_run, n, &plain_bytes);

    (void)state;
    assert_true(plain_bytes > 4000000);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t t = took(cases[i].make, n, &bytes);
        double scale = (double)bytes / (double)plain_bytes;
        print_message("%-20s %9zu bytes %6lld ms\n", cases[i].name, bytes, (long long)t);
        if ((double)t > (scale < 1 ? 1 : scale) * 30.0 * (double)(plain + 50))
            fail_msg("%s: %lld ms, where a plain run takes %lld ms", cases[i].name, (long long)t, (long long)plain);
    }
    print_message("%-20s %9zu bytes %6lld ms\n", "plain run", plain_bytes, (long long)plain);
}

static void test_four_times_the_state_takes_four_times_as_long(void **state)
{
    static make_fn *const makes[] = {plain_run, decided_one_by_one, pydantic_calls, claude_lines, adk_events};
    size_t bytes;

    (void)state;
    for (size_t i = 0; i < sizeof makes / sizeof *makes; i++) {
        int64_t small = took(makes[i], 10000, &bytes), large = took(makes[i], 40000, &bytes);
        assert_true(large < 9 * small + 300);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cut),
        cmocka_unit_test(test_flipped),
        cmocka_unit_test(test_swapped_types),
        cmocka_unit_test(test_random_msgpack),
        cmocka_unit_test(test_nothing_takes_long),
        cmocka_unit_test(test_four_times_the_state_takes_four_times_as_long),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
