/* Reading saved states: the real ones of every framework, odd ones, and broken ones. */
#include "samples.h"

#include <errno.h>

#include "formats/jdoc.h"
#include "formats/state.h"
#include "util/clock.h"

static void read_named(const char *name, struct state_info *ret)
{
    cleanup_buf struct buf bytes = {0};

    read_sample(name, &bytes);
    assert_int_equal(state_read(bytes.data, bytes.len, ret, NULL), 0);
}

static void read_text(const char *text, struct state_info *ret)
{
    assert_int_equal(state_read(text, strlen(text), ret, NULL), 0);
}

static void assert_call(const struct call *c, const char *id, const char *tool, const char *arguments, const char *agent)
{
    char sha[SHA256_HEX_SIZE];

    assert_string_equal(c->id, id);
    assert_string_equal(c->tool, tool);
    assert_string_equal(c->arguments, arguments);
    if (agent)
        assert_string_equal(c->agent, agent);
    assert_int_equal(sha256_hex(arguments, strlen(arguments), sha), 0);
    assert_string_equal(c->arguments_sha256, sha);
}

static void test_openai_python(void **state)
{
    cleanup_state_info struct state_info info = {0};

    (void)state;
    read_named("py_seed_interrupted.json", &info);
    assert_int_equal(info.framework, FRAMEWORK_OPENAI_PYTHON);
    assert_string_equal(info.schema_version, "1.16");
    assert_string_equal(info.agent, "DB Admin");
    assert_int_equal(info.turn, 2);
    assert_int_equal(info.max_turns, 10);
    assert_null(info.model);
    assert_int_equal(info.usage.requests, 2);
    assert_int_equal(info.usage.input, 640);
    assert_int_equal(info.usage.output, 24);
    assert_int_equal(info.usage.total, 664);
    assert_null(info.trace_id);
    assert_int_equal(info.status, RUN_INTERRUPTED);
    assert_int_equal(info.pending_count, 1);
    assert_call(&info.pending[0], "call_00000000000000000001", "drop_users_table", "{}", "DB Admin");
    assert_int_equal(info.pending[0].kind, CALL_APPROVAL);
    assert_int_equal(info.pending[0].decision, CALL_UNDECIDED);
    assert_int_equal(info.pending[0].allowed, ALLOW_APPROVE | ALLOW_REJECT);
    assert_int_equal(info.problem_count, 0);
    assert_true(state_partial_ok(&info));
    assert_false(state_waits_for_input(&info));
}

static void test_openai_js(void **state)
{
    cleanup_state_info struct state_info info = {0};

    (void)state;
    read_named("js_seed_traced_interrupted.json", &info);
    assert_int_equal(info.framework, FRAMEWORK_OPENAI_JS);
    assert_string_equal(info.schema_version, "1.22");
    assert_string_equal(info.model, "gpt-5-mini");
    assert_string_equal(info.trace_id, "trace_c51ccb78418d4f0498eb5eff98818c41");
    assert_string_equal(info.trace_group, "thread-42");
    assert_string_equal(info.trace_workflow, "Nightly admin");
    assert_string_equal(info.run_id, "thread-42");
    assert_int_equal(info.created_at, 1700000000LL * 1000000000);
    assert_int_equal(info.pending_count, 1);
    assert_call(&info.pending[0], "call_00000000000000000001", "drop_users_table", "{}", "DB Admin");
}

static void test_no_op_trace_is_absent(void **state)
{
    cleanup_state_info struct state_info info = {0};

    (void)state;
    read_named("js_seed_interrupted.json", &info);
    assert_null(info.trace_id);
    assert_null(info.run_id);
}

static void test_model_of_chat_completions(void **state)
{
    cleanup_state_info struct state_info info = {0};

    (void)state;
    read_named("py_seed_chat_interrupted.json", &info);
    assert_string_equal(info.model, "gpt-5-mini");
}

static void test_old_schemas(void **state)
{
    static const char *const names[] = {"py_seed_v0.12.1.json", "py_seed_v0.19.4.json", "js_seed_v0.1.11.json",
        "js_seed_v0.14.3.json"};

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        cleanup_state_info struct state_info info = {0};
        read_named(names[i], &info);
        assert_int_equal(info.framework, names[i][0] == 'p' ? FRAMEWORK_OPENAI_PYTHON : FRAMEWORK_OPENAI_JS);
        assert_int_equal(info.pending_count, 1);
        assert_string_equal(info.pending[0].tool, "drop_users_table");
    }
}

static void test_parallel_calls_differ_by_id(void **state)
{
    cleanup_state_info struct state_info info = {0};

    (void)state;
    read_named("py_parallel3_interrupted.json", &info);
    assert_int_equal(info.pending_count, 3);
    assert_string_equal(info.pending[2].id, "call_00000000000000000003");
    assert_ptr_equal(state_find_call(&info, "call_00000000000000000002"), &info.pending[1]);
    assert_null(state_find_call(&info, "call_4"));
}

static void test_ended_runs(void **state)
{
    static const char *const names[] = {"py_seed_after_approve.json", "py_seed_after_reject.json", "js_seed_after_approve.json",
                                        "js_seed_after_reject.json"};

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        cleanup_state_info struct state_info info = {0};
        read_named(names[i], &info);
        assert_int_equal(info.status, RUN_FINAL);
        assert_int_equal(info.pending_count, 0);
        assert_false(state_waits_for_input(&info));
    }
}

#define REJECTION                                                                                                              \
    "Action denied by admin. Do not drop the table. List the users instead and reply that it is against TOS to drop the table."

static void test_stored_decisions(void **state)
{
    static const struct { const char *name; enum call_decision decision; const char *message; } cases[] = {
        {"py_seed_after_approve.decided.json", CALL_APPROVED, NULL},
        {"py_seed_after_reject.decided.json", CALL_REJECTED, REJECTION},
        {"js_seed_after_approve.decided.json", CALL_APPROVED, NULL},
        {"js_seed_after_reject.decided.json", CALL_REJECTED, REJECTION},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cleanup_state_info struct state_info info = {0};
        read_named(cases[i].name, &info);
        assert_int_equal(info.pending[0].decision, cases[i].decision);
        assert_true(str_equal(info.pending[0].message, cases[i].message));
        assert_int_equal(info.problem_count, cases[i].decision == CALL_APPROVED); /* a bare resume would run it */
    }
}

static void test_partly_decided(void **state)
{
    cleanup_state_info struct state_info info = {0}, sticky = {0};

    (void)state;
    read_named("py_partly_decided.json", &info);
    assert_int_equal(info.pending_count, 3);
    assert_int_equal(info.pending[0].decision, CALL_APPROVED);
    assert_int_equal(info.pending[1].decision, CALL_UNDECIDED);
    assert_int_equal(info.pending[2].decision, CALL_UNDECIDED);
    read_named("py_sticky_decided.json", &sticky);
    assert_int_equal(sticky.pending[2].decision, CALL_REJECTED);
    assert_string_equal(sticky.pending[2].message, "Never");
}

/* The decisions on an inner agent's calls are in the inner state. */
static void test_nested_agents(void **state)
{
    cleanup_state_info struct state_info open = {0}, decided = {0};

    (void)state;
    read_named("py_nested_interrupted.json", &open);
    assert_string_equal(open.agent, "Boss");
    assert_int_equal(open.pending_count, 2);
    assert_call(&open.pending[0], "call_inner_1", "drop_table", "{\"name\":\"users\"}", "Cleaner");
    assert_int_equal(open.pending[0].decision, CALL_UNDECIDED);
    read_named("py_nested_decided.json", &decided);
    assert_int_equal(decided.pending[0].decision, CALL_APPROVED);
    assert_int_equal(decided.pending[1].decision, CALL_REJECTED);
    assert_string_equal(decided.pending[1].message, "Keep the logs");
}

/* JS keeps the inner state as a string. */
static void test_nested_js(void **state)
{
    cleanup_state_info struct state_info info = {0};

    (void)state;
    read_text("{\"$schemaVersion\":\"1.22\",\"currentAgent\":{\"name\":\"Boss\"},\"currentTurn\":1,\"currentStep\":{\"type\":"
              "\"next_step_interruption\",\"data\":{\"interruptions\":[{\"rawItem\":{\"callId\":\"c1\",\"name\":\"drop\","
              "\"arguments\":\"{}\"},\"agent\":{\"name\":\"In\"}}]}},\"pendingAgentToolRuns\":{\"t:c0\":"
              "\"{\\\"context\\\":{\\\"functionApprovals\\\":[{\\\"agentIdentity\\\":\\\"In\\\",\\\"approvals\\\":"
              "{\\\"[\\\\\\\"bare\\\\\\\",\\\\\\\"drop\\\\\\\"]\\\":{\\\"approved\\\":true,\\\"rejected\\\":[]}}}]}}\"}}",
              &info);
    assert_int_equal(info.pending_count, 1);
    assert_int_equal(info.pending[0].decision, CALL_APPROVED);
}

static void test_exact_decision_overrides_sticky(void **state)
{
    cleanup_state_info struct state_info info = {0};

    (void)state;
    read_text("{\"$schemaVersion\":\"1.16\",\"current_agent\":{\"name\":\"A\"},\"current_turn\":1,\"original_input\":\"\","
              "\"max_turns\":"
              "null,\"context\":{\"approvals\":{\"ns.drop\":{\"approved\":true,\"rejected\":[]},\"drop\":{\"approved\":[],"
              "\"rejected\":[\"c2\"],\"rejection_messages\":{\"c2\":\"no\"}}}},\"current_step\":{\"interruptions\":["
              "{\"raw_item\":{\"call_id\":\"c1\"},\"tool_name\":\"drop\"},{\"raw_item\":{\"call_id\":\"c2\"},"
              "\"tool_name\":\"drop\"},"
              "{\"raw_item\":{\"id\":\"m1\",\"type\":\"shell_call\",\"action\":{\"commands\":[\"ls\"],\"n\":1.10}}}]}}",
              &info);
    assert_int_equal(info.pending_count, 3);
    assert_int_equal(info.pending[0].decision, CALL_APPROVED);
    assert_int_equal(info.pending[1].decision, CALL_REJECTED);
    assert_string_equal(info.pending[1].message, "no");
    assert_call(&info.pending[2], "m1", "shell_call", "{\"commands\":[\"ls\"],\"n\":1.10}", NULL);
    assert_int_equal(info.max_turns, -1);
}

static void test_hosted_mcp_decision(void **state)
{
    cleanup_state_info struct state_info info = {0};

    (void)state;
    read_text("{\"$schemaVersion\":\"1.16\",\"current_agent\":{\"name\":\"A\"},\"current_turn\":1,\"original_input\":\"\","
              "\"max_turns\":1,"
              "\"context\":{\"hosted_mcp_approvals\":[{\"identity\":{\"type\":\"request\",\"request_id\":\"mcpr_1\"},"
              "\"decision\":{\"approved\":true,\"rejected\":[]}}]},\"current_step\":{\"type\":\"next_step_interruption\","
              "\"data\":{\"interruptions\":[{\"raw_item\":{\"id\":\"mcpr_1\",\"name\":\"q\",\"arguments\":\"{ }\"}},"
              "{\"raw_item\":{\"id\":\"mcpr_2\",\"name\":\"q\",\"arguments\":\"{ }\"}}]}}}",
              &info);
    assert_int_equal(info.pending[0].decision, CALL_APPROVED);
    assert_int_equal(info.pending[1].decision, CALL_UNDECIDED);
    assert_call(&info.pending[1], "mcpr_2", "q", "{ }", NULL); /* not re-written */
}

static void test_missing_keys_are_named(void **state)
{
    cleanup_state_info struct state_info info = {0};

    (void)state;
    read_text("{\"$schemaVersion\":\"9.9\",\"current_agent\":{\"name\":\"A\"},\"current_step\":null}", &info);
    assert_int_equal(info.framework, FRAMEWORK_OPENAI_PYTHON);
    assert_string_equal(info.schema_version, "9.9");
    assert_int_equal(info.problem_count, 4);
    assert_true(str_starts(info.problems[0], "current_turn is missing"));
    assert_true(str_starts(info.problems[3], "max_turns is missing"));
}

static void test_wrapper(void **state)
{
    cleanup_state_info struct state_info object = {0}, text = {0}, doubled = {0};

    (void)state;
    read_named("seed_checkpoint.json", &object);
    assert_string_equal(object.snapshot_id, "snap-fragrant-pine-ap8212hy");
    assert_int_equal(object.framework, FRAMEWORK_OPENAI_PYTHON);
    assert_int_equal(object.pending_count, 1);
    read_text("{\"snapshot_id\":\"s\",\"agent_state\":\"{\\\"$schemaVersion\\\":\\\"1.22\\\",\\\"currentAgent\\\":{\\\"name\\\":"
              "\\\"A\\\"},\\\"currentStep\\\":{\\\"type\\\":\\\"next_step_run_again\\\"}}\"}", &text);
    assert_string_equal(text.snapshot_id, "s");
    assert_int_equal(text.framework, FRAMEWORK_OPENAI_JS);
    assert_int_equal(text.status, RUN_RUNNABLE);
    read_text("\"[{\\\"kind\\\":\\\"request\\\",\\\"parts\\\":[]}]\"", &doubled);
    assert_int_equal(doubled.framework, FRAMEWORK_PYDANTIC_AI);
}

static void test_langgraph(void **state)
{
    static const char *const names[] = {"langgraph_js_interrupted.json", "langgraph_js_from_sql.json",
                                        "langgraph_js_interrupted.snapshot.json"};
    int64_t ts = 0;

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        cleanup_state_info struct state_info info = {0};
        read_named(names[i], &info);
        assert_int_equal(info.framework, FRAMEWORK_LANGGRAPH_JS);
        assert_string_equal(info.run_id, "thread-42");
        assert_non_null(info.step_id);
        assert_non_null(info.parent);
        assert_int_equal(info.turn, 3);
        assert_string_equal(info.model, "gpt-5-mini");
        assert_int_equal(info.usage.total, 220);
        assert_int_equal(info.status, RUN_INTERRUPTED);
        assert_int_equal(info.pending_count, 1);
        assert_string_equal(info.pending[0].tool, "drop_users_table");
        assert_string_equal(info.pending[0].arguments, "{}");
        assert_true(info.pending[0].is_json);
        assert_int_equal(info.pending[0].allowed, ALLOW_APPROVE | ALLOW_EDIT | ALLOW_REJECT);
        assert_string_equal(info.pending[0].group, info.pending[0].id);
        assert_false(state_partial_ok(&info));
        if (i == 0) {
            assert_int_equal(clock_parse("2026-11-23T19:28:58.291Z", &ts), 0);
            assert_int_equal(info.created_at, ts);
        }
    }
}

static void test_langgraph_interrupt_forms(void **state)
{
    cleanup_state_info struct state_info info = {0};

    (void)state;
    read_text("{\"checkpoint\":{\"v\":4,\"id\":\"k\",\"channel_versions\":{},\"channel_values\":{}},\"parent_config\":null,"
              "\"pending_writes\":[[\"t1\",\"__interrupt__\",[{\"value\":\"Which table?\",\"id\":\"i1\"}]],"
              "[\"t2\",\"__interrupt__\",[{\"value\":[{\"action_request\":{\"action\":\"drop\",\"args\":{\"n\":0.10}},"
              "\"config\":{\"allow_accept\":true,\"allow_ignore\":true,\"allow_edit\":false,\"allow_respond\":true}}],"
              "\"ns\":[\"x\"]}]],"
              "[\"t3\",\"__interrupt__\",[{\"id\":\"i3\",\"value\":{\"action_requests\":[{\"name\":\"a\",\"args\":{}},"
              "{\"name\":\"b\","
              "\"args\":{}}],\"review_configs\":[{\"action_name\":\"b\",\"allowed_decisions\":[\"approve\"]}]}}]]]}",
              &info);
    assert_int_equal(info.framework, FRAMEWORK_LANGGRAPH_PYTHON);
    assert_int_equal(info.pending_count, 4);
    assert_string_equal(info.pending[0].id, "i1");
    assert_int_equal(info.pending[0].kind, CALL_INPUT);
    assert_string_equal(info.pending[0].arguments, "Which table?");
    assert_int_equal(info.pending[0].allowed, ALLOW_RESPOND);
    assert_string_equal(info.pending[1].arguments, "{\"n\":0.10}");
    assert_int_equal(info.pending[1].allowed, ALLOW_APPROVE | ALLOW_REJECT | ALLOW_RESPOND);
    assert_string_equal(info.pending[2].id, "i3:0");
    assert_string_equal(info.pending[3].id, "i3:1");
    assert_int_equal(info.pending[3].allowed, ALLOW_APPROVE);
    assert_int_equal(info.pending[2].decision, CALL_UNDECIDED);
    assert_int_equal(info.status, RUN_INTERRUPTED);
}

/* An answer belongs to the question that is stored with it only if its task went on: a task that only asked again writes no more than
 * these two, in whichever order the saver gives them. */
static void test_langgraph_answers(void **state)
{
    static const char *const rest[] = {"", ",[\"t\",\"__error__\",\"no\"]", ",[\"other\",\"c\",1]", ",[\"t\",\"c\",1]",
                                       ",[\"t\",\"__no_writes__\",null]", ",[\"t\",\"__error__\",\"no\"],[\"t\",\"c\",1]"};
    const char *asked = "[\"t\",\"__interrupt__\",[{\"id\":\"i\",\"value\":{\"action_requests\":[{\"name\":\"a\",\"args\":{}},"
                        "{\"name\":\"b\",\"args\":{}}]}}]]";
    const char *answer = "[\"t\",\"__resume__\",[{\"decisions\":[{\"type\":\"approve\"},{\"type\":\"reject\",\"message\":\"no\"}]}]]";

    (void)state;
    for (size_t i = 0; i < 2 * sizeof rest / sizeof *rest; i++) {
        cleanup_state_info struct state_info info = {0};
        cleanup_free char *text = str_format("{\"checkpoint\":{\"v\":4,\"id\":\"k\",\"channel_versions\":{},\"channel_values\":{}},"
                                             "\"parent_config\":null,\"pending_writes\":[%s,%s%s]}",
                                             i % 2 ? answer : asked, i % 2 ? asked : answer, rest[i / 2]);
        read_text(text, &info);
        assert_int_equal(info.pending_count, 2);
        assert_int_equal(info.pending[0].decision, i / 2 < 3 ? CALL_UNDECIDED : CALL_APPROVED);
        assert_int_equal(info.pending[1].decision, i / 2 < 3 ? CALL_UNDECIDED : CALL_REJECTED);
        assert_true(i / 2 < 3 ? !info.pending[1].message : str_equal(info.pending[1].message, "no"));
    }
}

/* MessagePack's keys may be anything: {1: …} is read, and so is what has such a key in a key, but a tower of them is no state. An
 * object that can't be read is shown as what it is, and how long. */
static void test_keys_of_msgpack(void **state)
{
    const char *ext = "\xc7\x08\x02\x93\xa1m\xa1" "c"; /* an object of LangGraph's, in front of {X: nil} */

    (void)state;
    for (int levels = 0; levels < 5; levels++) {
        for (int packed = 0; packed < 2; packed++) {
            cleanup_state_info struct state_info info = {0};
            cleanup_buf struct buf b = {0};
            buf_adds(&b, "\x83\xaa" "checkpoint\x83\xa1v\x04\xa2id\xa1k\xb0" "channel_versions\x80\xad" "parent_config\xc0\xa1x");
            for (int i = 0; i < levels; i++)
                buf_addc(&b, (char)0x81);
            buf_adds(&b, packed ? ext : "");
            buf_adds(&b, "\x81\x01\xc0");
            for (int i = 0; i < levels; i++)
                buf_addc(&b, (char)0xc0);
            assert_int_equal(state_read(b.data, b.len, &info, NULL), 0);
            assert_int_equal(info.framework, levels < 2 + packed ? FRAMEWORK_LANGGRAPH_PYTHON : FRAMEWORK_RAW);
        }
    }
}

static void test_llamaindex(void **state)
{
    cleanup_state_info struct state_info info = {0}, waiting = {0};

    (void)state;
    read_named("llamaindex_step_interrupted.json", &info);
    assert_int_equal(info.framework, FRAMEWORK_LLAMAINDEX);
    assert_string_equal(info.schema_version, "1");
    assert_int_equal(info.status, RUN_WAITING_INPUT);
    assert_true(state_waits_for_input(&info));
    read_text("{\"version\":1,\"is_running\":true,\"workers\":{\"ask\":{\"queue\":[],\"in_progress\":[\"e\"],"
              "\"collected_waiters\":"
              "[{\"waiter_id\":\"w1\",\"resolved_event\":null},{\"waiter_id\":\"w2\",\"resolved_event\":\"{}\"}]}}}", &waiting);
    assert_int_equal(waiting.pending_count, 1);
    assert_string_equal(waiting.pending[0].id, "w1");
    assert_string_equal(waiting.pending[0].agent, "ask");
}

static void test_other_frameworks(void **state)
{
    cleanup_state_info struct state_info ms = {0}, autogen = {0}, pydantic = {0};

    (void)state;
    read_text("{\"workflow_name\":\"w\",\"graph_signature_hash\":\"h\",\"checkpoint_id\":\"k2\","
              "\"previous_checkpoint_id\":\"k1\","
              "\"timestamp\":\"2026-01-02T03:04:05Z\",\"pending_request_info_events\":{\"r1\":{\"q\":1}},"
              "\"iteration_count\":3}", &ms);
    assert_int_equal(ms.framework, FRAMEWORK_MS_AGENT);
    assert_string_equal(ms.step_id, "k2");
    assert_string_equal(ms.parent, "k1");
    assert_string_equal(ms.pending[0].id, "r1");
    read_text("{\"type\":\"TeamState\",\"version\":\"1.0.0\",\"agent_states\":{}}", &autogen);
    assert_int_equal(autogen.framework, FRAMEWORK_AUTOGEN);
    read_text("[{\"kind\":\"request\",\"parts\":[{\"part_kind\":\"user-prompt\",\"content\":\"hi\"}]},{\"kind\":\"response\","
              "\"model_name\":\"m\",\"run_id\":\"r\",\"usage\":{\"input_tokens\":5,\"output_tokens\":2},"
              "\"parts\":[{\"part_kind\":"
              "\"tool-call\",\"tool_name\":\"a\",\"args\":\"{\\\"x\\\": 1}\",\"tool_call_id\":\"c1\"},"
              "{\"part_kind\":\"tool-call\","
              "\"tool_name\":\"b\",\"args\":{\"y\":2},\"tool_call_id\":\"c2\"}]},{\"kind\":\"request\",\"run_id\":\"r\","
              "\"parts\":[{\"part_kind\":\"tool-return\",\"tool_call_id\":\"c1\",\"content\":\"ok\"}]}]", &pydantic);
    assert_int_equal(pydantic.framework, FRAMEWORK_PYDANTIC_AI);
    assert_string_equal(pydantic.model, "m");
    assert_string_equal(pydantic.run_id, "r");
    assert_int_equal(pydantic.pending_count, 1);
    assert_call(&pydantic.pending[0], "c2", "b", "{\"y\":2}", NULL);
}

static void test_raw(void **state)
{
    static const char *const texts[] = {"", "  ", "plain text", "{\"a\":1}", "[1,2]", "42", "\"x\"", "null", "{\"a\":",
        "\x82\xa1k\x01",
                                        "{\"a\":1}\n{\"a\":2}\n", "[]", "{}", "[{\"kind\":1}]",
                                        "{\"snapshot_id\":1,\"agent_state\":{}}"};

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        cleanup_state_info struct state_info info = {0};
        read_text(texts[i], &info);
        assert_int_equal(info.framework, FRAMEWORK_RAW);
        assert_int_equal(info.status, RUN_UNKNOWN);
        assert_int_equal(info.pending_count, 0);
        assert_null(info.agent);
    }
}

/* What jansson refuses, jsonb refuses, or both: read, and clean in the envelope. */
static void test_what_other_parsers_refuse(void **state)
{
    cleanup_state_info struct state_info info = {0}, again = {0};
    cleanup_buf struct buf json = {0};

    (void)state;
    read_text("\xef\xbb\xbf{\"$schemaVersion\":\"1.16\",\"x\":NaN,\"y\":[-Infinity,1e999,123456789012345678901234567890],"
              "\"current_turn\":99999999999999999999,\"current_agent\":{\"name\":\"first\","
              "\"name\":\"A\\u0000\\ud800\xff\\ud83d\\ude00\"},\"original_input\":\"a\nb\",\"max_turns\":-5,\"context\":{},"
              "\"current_step\":{\"data\":{\"interruptions\":[{\"raw_item\":"
              "{\"call_id\":\"c\",\"arguments\":\"{\\\"n\\\": 1.0, \\\"n\\\": 1.0}\"},\"tool_name\":\"t\"}]}}}", &info);
    assert_int_equal(info.framework, FRAMEWORK_OPENAI_PYTHON);
    assert_string_equal(info.agent, "A\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xf0\x9f\x98\x80");
    assert_int_equal(info.turn, -1);
    assert_call(&info.pending[0], "c", "t", "{\"n\": 1.0, \"n\": 1.0}", NULL);
    assert_int_equal(state_to_json(&info, &json), 0);
    assert_true(utf8_valid(json.data, json.len));
    assert_null(strstr(json.data, "\\u0000"));
    assert_int_equal(state_from_json(json.data, json.len, &again, NULL), 0);
    assert_string_equal(again.agent, info.agent);
}

static void test_same_ids_are_told_apart(void **state)
{
    cleanup_state_info struct state_info info = {0};

    (void)state;
    read_text("{\"$schemaVersion\":\"1\",\"currentAgent\":{},\"currentStep\":{\"data\":{\"interruptions\":[{\"rawItem\":{\"cal"
              "lId\":\"c\"}},{\"rawItem\":{\"callId\":\"c\"}},{\"rawItem\":{}},{\"rawItem\":{\"callId\":\"c\"}}]}}}", &info);
    assert_int_equal(info.pending_count, 4);
    assert_string_equal(info.pending[0].id, "c");
    assert_string_equal(info.pending[1].id, "c~2");
    assert_string_equal(info.pending[2].id, "call-3");
    assert_string_equal(info.pending[3].id, "c~3");
    assert_int_equal(info.problem_count, 1);
}

static void supply(const char *state_text, const char *meta_text, struct state_info *ret)
{
    cleanup_meta struct meta m = {0};

    read_text(state_text, ret);
    assert_int_equal(meta_parse(meta_text, strlen(meta_text), &m, NULL), 0);
    assert_int_equal(state_supply(ret, &m, NULL), 0);
}

static void test_supplied_calls(void **state)
{
    cleanup_state_info struct state_info raw = {0}, openai = {0}, none = {0};

    (void)state;
    supply("binary", "{\"pending\":[{\"id\":\"p1\",\"tool\":\"pay\",\"arguments\":{\"amount\":0.10},\"agent\":\"A\"},"
           "{\"id\":\"q1\",\"kind\":\"input\",\"arguments\":\"How much?\",\"allowed\":[\"respond\",\"reject\"]}]}", &raw);
    assert_int_equal(raw.pending_count, 2);
    assert_true(raw.pending_supplied);
    assert_call(&raw.pending[0], "p1", "pay", "{\"amount\":0.10}", "A");
    assert_int_equal(raw.pending[1].kind, CALL_INPUT);
    assert_int_equal(raw.pending[1].allowed, ALLOW_RESPOND | ALLOW_REJECT);
    assert_int_equal(raw.status, RUN_INTERRUPTED);
    supply("{\"$schemaVersion\":\"1\",\"currentAgent\":{},"
           "\"currentStep\":{\"data\":{\"interruptions\":[{\"rawItem\":{\"callId\":\"c\"}}]}}}",
           "{\"pending\":[{\"id\":\"x\"}]}", &openai);
    assert_int_equal(openai.pending_count, 1);
    assert_string_equal(openai.pending[0].id, "c");
    assert_true(str_starts(openai.problems[openai.problem_count - 1], "\"pending\" in meta.json is not used"));
    supply("binary", "{\"pending\":[]}", &none);
    assert_int_equal(none.pending_count, 0);
}

/* States that list their calls, and list none: of LangGraph what the savers' get() returns, which never holds an interrupt. */
static void test_supplied_where_none_is_found(void **state)
{
    static const char *const texts[] = {
        "{\"v\":4,\"id\":\"k\",\"channel_versions\":{\"branch:to:n\":\"2\"},\"channel_values\":{\"x\":[],\"branch:to:n\":null}}",
        "{\"v\":4,\"id\":\"k\",\"channel_versions\":{\"branch:to:n\":\"2\"},\"channel_values\":{\"x\":[]}}",
        "{\"checkpoint\":{\"v\":4,\"id\":\"k\",\"channel_versions\":{},\"channel_values\":{}},\"parentConfig\":null,\"pendingWrites\":[]}",
        "{\"$schemaVersion\":\"1\",\"currentAgent\":{},\"currentStep\":{}}",
        "[{\"kind\":\"request\",\"parts\":[{\"part_kind\":\"user-prompt\",\"content\":\"hi\"}]}]",
        "{\"appName\":\"a\",\"userId\":\"u\",\"events\":[]}",
    };

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        cleanup_state_info struct state_info alone = {0}, info = {0};
        read_text(texts[i], &alone);
        assert_int_not_equal(alone.framework, FRAMEWORK_RAW);
        assert_int_equal(alone.pending_count, 0);
        supply(texts[i], "{\"pending\":[{\"id\":\"c1\",\"tool\":\"drop\",\"arguments\":{}}]}", &info);
        assert_int_equal(info.pending_count, 1);
        assert_call(&info.pending[0], "c1", "drop", "{}", NULL);
        assert_true(info.pending_supplied);
        assert_int_equal(info.status, RUN_INTERRUPTED);
        assert_int_equal(info.problem_count, alone.problem_count);
    }
}

/* Everything that is known survives the store's column. */
static void round_trip(const char *name, const char *bytes, size_t n)
{
    cleanup_state_info struct state_info info = {0}, again = {0};
    cleanup_buf struct buf first = {0}, second = {0};

    assert_int_equal(state_read(bytes, n, &info, NULL), 0);
    assert_int_equal(state_to_json(&info, &first), 0);
    assert_int_equal(state_from_json(first.data, first.len, &again, NULL), 0);
    assert_int_equal(state_to_json(&again, &second), 0);
    if (strcmp(first.data, second.data) != 0)
        fail_msg("%s: the envelope changes when read back", name);
}

static void test_envelope_round_trip(void **state)
{
    (void)state;
    each_sample(round_trip);
}

/* One of the ways a text goes wrong, at a place that the seed gives. */
static void mutate(char *bytes, size_t *n, uint64_t *seed)
{
    static const char bits[] = "{}[]\",:\\u0nN-.eE\xff";
    size_t at = next_random(seed) % *n;

    switch (next_random(seed) % 4) {
    case 0: bytes[at] = (char)next_random(seed); break;
    case 1: bytes[at] = bits[next_random(seed) % (sizeof bits - 1)]; break;
    case 2: *n = at + 1; break;
    default: {
        size_t len = next_random(seed) % 40;
        len = len < *n - at ? len : *n - at;
        memmove(bytes + at, bytes + at + len, *n - at - len);
        *n -= len < *n ? len : 0;
    }
    }
}

static void mutations(const char *name, const char *bytes, size_t n)
{
    uint64_t seed = 20261124 + n;

    (void)name;
    if (n > 60000)
        return;
    for (int i = 0; i < 40; i++) {
        cleanup_state_info struct state_info info = {0}, again = {0};
        cleanup_buf struct buf json = {0};
        cleanup_free char *copy = malloc(n); /* not NUL-terminated: reading past the end is seen by ASan */
        size_t len = n;

        memcpy(copy, bytes, n);
        for (uint64_t k = next_random(&seed) % 4 + 1; k > 0; k--)
            mutate(copy, &len, &seed);
        assert_int_equal(state_read(copy, len, &info, NULL), 0);
        assert_int_equal(state_to_json(&info, &json), 0);
        assert_true(utf8_valid(json.data, json.len));
        assert_int_equal(state_from_json(json.data, json.len, &again, NULL), 0);
    }
}

static void test_mutations(void **state)
{
    (void)state;
    each_sample(mutations);
}

static void test_deep_nesting(void **state)
{
    cleanup_state_info struct state_info info = {0};
    size_t n = 1000000;
    cleanup_free char *text = malloc(n);

    (void)state;
    memset(text, '[', n / 2);
    memset(text + n / 2, ']', n / 2);
    assert_int_equal(state_read(text, n, &info, NULL), 0);
    assert_int_equal(info.framework, FRAMEWORK_RAW);
}

static void test_json_text(void **state)
{
    static const char source[] = " {\"a\" : [1.10, -0, 1e5, 1e9999, 01, NaN, \"\\/\\u00e9\\b\\ud800\"], \"b\":{}, \"c\" : [ ] "
        ", \"a\": null} ";
    cleanup_jdoc struct jdoc d = {0};
    cleanup_buf struct buf compact = {0}, pretty = {0}, bad = {0};

    (void)state;
    assert_int_equal(jdoc_parse(source, strlen(source), &d), 0);
    j_add_compact(&compact, j_root(&d));
    assert_string_equal(compact.data, "{\"a\":[1.10,-0,1e5,\"1e9999\",\"01\",\"NaN\",\"/\xc3\xa9\\b\xef\xbf\xbd\"],\"b\":{},"
                        "\"c\":[],\"a\":null}");
    assert_int_equal(json_add_indented(&pretty, "{\"a\":[1,{\"b\":[]}],\"c\":{}}", 25), 0);
    assert_string_equal(pretty.data, "{\n  \"a\": [\n    1,\n    {\n      \"b\": []\n    }\n  ],\n  \"c\": {}\n}\n");
    assert_int_equal(json_add_indented(&bad, "{,}", 3), -EINVAL);
    assert_false(j_has(j_get(j_root(&d), "a"))); /* the last of two members */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_openai_python),
        cmocka_unit_test(test_openai_js),
        cmocka_unit_test(test_no_op_trace_is_absent),
        cmocka_unit_test(test_model_of_chat_completions),
        cmocka_unit_test(test_old_schemas),
        cmocka_unit_test(test_parallel_calls_differ_by_id),
        cmocka_unit_test(test_ended_runs),
        cmocka_unit_test(test_stored_decisions),
        cmocka_unit_test(test_partly_decided),
        cmocka_unit_test(test_nested_agents),
        cmocka_unit_test(test_nested_js),
        cmocka_unit_test(test_exact_decision_overrides_sticky),
        cmocka_unit_test(test_hosted_mcp_decision),
        cmocka_unit_test(test_missing_keys_are_named),
        cmocka_unit_test(test_wrapper),
        cmocka_unit_test(test_langgraph),
        cmocka_unit_test(test_langgraph_interrupt_forms),
        cmocka_unit_test(test_langgraph_answers),
        cmocka_unit_test(test_keys_of_msgpack),
        cmocka_unit_test(test_llamaindex),
        cmocka_unit_test(test_other_frameworks),
        cmocka_unit_test(test_raw),
        cmocka_unit_test(test_what_other_parsers_refuse),
        cmocka_unit_test(test_same_ids_are_told_apart),
        cmocka_unit_test(test_supplied_calls),
        cmocka_unit_test(test_supplied_where_none_is_found),
        cmocka_unit_test(test_envelope_round_trip),
        cmocka_unit_test(test_mutations),
        cmocka_unit_test(test_deep_nesting),
        cmocka_unit_test(test_json_text),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
