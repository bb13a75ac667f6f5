/* pending/: the calls of nested agents, hosted servers, parallel calls and interrupts in real states, what the states have decided
 * already, and that no id is mistaken for another. */
#include "samples.h"

#include <errno.h>

#include "commands/resolve.h"
#include "formats/state.h"

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

struct expected {
    const char *id, *tool, *arguments, *agent, *via, *server;
    enum call_decision decision;
    const char *message;
};

static void assert_text(const char *what, const char *is, const char *expected)
{
    if (!str_equal(is, expected))
        fail_msg("%s is %s, not %s", what, is ? is : "absent", expected ? expected : "absent");
}

static void assert_calls(const char *name, const struct expected *expected, size_t n)
{
    cleanup_state_info struct state_info info = {0};

    read_named(name, &info);
    assert_int_equal(info.pending_count, n);
    for (size_t i = 0; i < n; i++) {
        const struct call *c = &info.pending[i];
        assert_text("id", c->id, expected[i].id);
        assert_text("tool", c->tool, expected[i].tool);
        assert_text("arguments", c->arguments, expected[i].arguments);
        assert_text("agent", c->agent, expected[i].agent);
        assert_text("via", c->via, expected[i].via);
        assert_text("server", c->server, expected[i].server);
        assert_int_equal(c->decision, expected[i].decision);
        assert_text("message", c->message, expected[i].message);
    }
}

#define assert_sample(name, ...)                                                                                                    \
    do {                                                                                                                            \
        const struct expected calls[] = {__VA_ARGS__};                                                                              \
        assert_calls(name, calls, sizeof calls / sizeof *calls);                                                                    \
    } while (0)

static void test_three_levels_of_agents(void **state)
{
    (void)state;
    for (int js = 0; js < 2; js++) {
        assert_sample(js ? "js_nested3_interrupted.json" : "py_nested3_interrupted.json",
                      {"call_first_drop", "drop_table", "{\"name\":\"users\"}", "First", "Boss > Lead", NULL, CALL_UNDECIDED, NULL},
                      {"call_second_drop", "drop_table", "{\"name\":\"logs\"}", "Second", "Boss > Lead", NULL, CALL_UNDECIDED, NULL},
                      {"call_boss_2", "drop_table", "{\"name\":\"audit\"}", "Boss", NULL, NULL, CALL_UNDECIDED, NULL});
        assert_sample(js ? "js_nested3_decided.json" : "py_nested3_decided.json",
                      {"call_first_drop", "drop_table", "{\"name\":\"users\"}", "First", "Boss > Lead", NULL, CALL_REJECTED,
                       "Keep the users"},
                      {"call_second_drop", "drop_table", "{\"name\":\"logs\"}", "Second", "Boss > Lead", NULL, CALL_UNDECIDED, NULL},
                      {"call_boss_2", "drop_table", "{\"name\":\"audit\"}", "Boss", NULL, NULL, CALL_APPROVED, NULL});
    }
}

static void test_hosted_shell_and_patch(void **state)
{
    (void)state;
    assert_sample("py_hosted_decided.json",
                  {"call_function", "drop_table", "{\"name\":\"users\"}", "Operator", NULL, NULL, CALL_UNDECIDED, NULL},
                  {"call_shell", "shell", "{\"commands\":[\"rm -rf /var/lib/old\",\"ls\"],\"max_output_length\":null,\"timeout_ms\":1000}",
                   "Operator", NULL, NULL, CALL_APPROVED, NULL},
                  {"call_patch", "apply_patch",
                   "{\"diff\":\"@@\\n-DROP TABLE users;\\n+-- kept\\n\",\"path\":\"schema.sql\",\"type\":\"update_file\"}",
                   "Operator", NULL, NULL, CALL_UNDECIDED, NULL},
                  {"mcpr_1", "create_issue", "{\"title\": \"Drop it\", \"labels\": [\"db\"]}", "Operator", NULL, "tracker", CALL_REJECTED,
                   "Not on this tracker"});
    assert_sample("js_hosted_decided.json",
                  {"call_shell", "shell", "{\"commands\":[\"rm -rf /var/lib/old\"],\"timeoutMs\":1000}", "Operator", NULL, NULL,
                   CALL_APPROVED, NULL},
                  {"call_patch", "apply_patch",
                   "{\"type\":\"update_file\",\"path\":\"schema.sql\",\"diff\":\"@@\\n-DROP TABLE users;\\n+-- kept\\n\"}",
                   "Operator", NULL, NULL, CALL_UNDECIDED, NULL},
                  {"call_function", "drop_table", "{\"name\":\"users\"}", "Operator", NULL, NULL, CALL_UNDECIDED, NULL},
                  {"mcpr_1", "create_issue", "{\"title\": \"Drop it\"}", "Operator", NULL, "tracker", CALL_REJECTED,
                   "Not on this tracker"});
}

static void test_two_agents_whose_calls_have_one_id(void **state)
{
    (void)state;
    assert_sample("py_nested_same_ids.json",
                  {"call_0", "drop_table", "{\"name\":\"users\"}", "Users", "Boss", NULL, CALL_UNDECIDED, NULL},
                  {"call_0~2", "drop_table", "{\"name\":\"logs\"}", "Logs", "Boss", NULL, CALL_UNDECIDED, NULL});
}

/* `text` with the first `what` replaced. */
static char *replaced(const struct buf *text, const char *what, const char *by)
{
    const char *at = strstr(text->data, what);

    assert_non_null(at);
    return str_format("%.*s%s%s", (int)(at - text->data), text->data, by, at + strlen(what));
}

/* A decision in one inner state isn't about the other's call, and one in the outermost isn't about either. */
static void test_one_id_two_decisions(void **state)
{
    cleanup_buf struct buf bytes = {0};
    cleanup_free char *in_the_last = NULL, *outermost = NULL;
    cleanup_state_info struct state_info inner = {0}, outer = {0};
    const char *approvals = "\"approvals\": {},";
    size_t first;
    struct buf rest;

    (void)state;
    read_sample("py_nested_same_ids.json", &bytes);
    buf_addc(&bytes, 0);
    outermost = replaced(&bytes, approvals, "\"approvals\": {\"drop_table\": {\"approved\": [\"call_0\"], \"rejected\": []}},");
    read_text(outermost, &outer);
    assert_int_equal(outer.pending[0].decision, CALL_UNDECIDED);
    assert_int_equal(outer.pending[1].decision, CALL_UNDECIDED);
    first = (size_t)(strstr(strstr(bytes.data, approvals) + 1, approvals) - bytes.data) + 1;
    rest = (struct buf){.data = bytes.data + first, .len = bytes.len - first};
    in_the_last = replaced(&rest, approvals, "\"approvals\": {\"drop_table\": {\"approved\": [\"call_0\"], \"rejected\": []}},");
    {
        cleanup_free char *whole = str_format("%.*s%s", (int)first, bytes.data, in_the_last);
        read_text(whole, &inner);
    }
    assert_int_equal(inner.pending[0].decision, CALL_UNDECIDED);
    assert_int_equal(inner.pending[1].decision, CALL_APPROVED);
}

static void test_langgraph_in_every_form(void **state)
{
    static const char *const names[] = {"langgraph_py_actions.json", "langgraph_py_actions.msgpack", "langgraph_py_tuple.msgpack",
                                        "langgraph_py_actions_objects.json", "langgraph_py_actions_tables.json"};

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        cleanup_state_info struct state_info info = {0};
        assert_sample(names[i],
                      {"5edca9517b64acbb7c12617e4e308244:0", "drop_table", "{\"name\":\"users\"}", NULL, NULL, NULL, CALL_UNDECIDED, NULL},
                      {"5edca9517b64acbb7c12617e4e308244:1", "drop_table", "{\"name\":\"logs\"}", NULL, NULL, NULL, CALL_UNDECIDED, NULL});
        read_named(names[i], &info);
        assert_int_equal(info.framework, FRAMEWORK_LANGGRAPH_PYTHON);
        assert_string_equal(info.run_id, "thread-7");
        assert_string_equal(info.pending[1].group, "5edca9517b64acbb7c12617e4e308244");
        assert_int_equal(info.pending[1].allowed, ALLOW_APPROVE | ALLOW_EDIT | ALLOW_REJECT);
        assert_int_equal(info.status, RUN_INTERRUPTED);
        assert_non_null(info.parent);
        assert_true(info.created_at > 0);
    }
}

/* Rows that PostgreSQL gave, of a thread that was answered later: the answer lies beside the interrupt. */
static void test_rows_of_langgraph_js(void **state)
{
    cleanup_state_info struct state_info info = {0};

    (void)state;
    assert_sample("langgraph_js_tables.json", {"a49aaf52b14bc033521cdcb7cd21cc9f", "drop_users_table", "{}", NULL, NULL, NULL,
                                               CALL_REJECTED, "Action denied by admin"});
    read_named("langgraph_js_tables.json", &info);
    assert_int_equal(info.framework, FRAMEWORK_LANGGRAPH_JS);
    assert_string_equal(info.model, "gpt-5-mini");
    assert_int_equal(info.usage.total, 220);
}

static void test_bare_interrupts(void **state)
{
    (void)state;
    assert_sample("langgraph_py_questions.json",
                  {"de3e7d82e7f6c9acfe5bc8cb20b511fb", NULL, "Which table?", NULL, NULL, NULL, CALL_UNDECIDED, NULL},
                  {"639dbbf5f3ff6b888b30f30671f55c63", NULL, "{\"question\":\"Are you sure?\",\"options\":[\"yes\",\"no\"]}",
                   NULL, NULL, NULL, CALL_UNDECIDED, NULL});
    assert_sample("langgraph_py_questions_half.json", /* the other has its answer, and its node has run */
                  {"639dbbf5f3ff6b888b30f30671f55c63", NULL, "{\"question\":\"Are you sure?\",\"options\":[\"yes\",\"no\"]}",
                   NULL, NULL, NULL, CALL_UNDECIDED, NULL});
}

/* A node that asks twice: what was answered to its first question decides nothing about the second one. */
static void test_the_second_question_of_a_node(void **state)
{
    (void)state;
    assert_sample("langgraph_py_second.json",
                  {"50a1f6cc2190e1e3c62e48778a4ef9eb:0", "drop_users", "{\"nth\":0}", NULL, NULL, NULL, CALL_UNDECIDED, NULL},
                  {"50a1f6cc2190e1e3c62e48778a4ef9eb:1", "send_mail", "{\"nth\":1}", NULL, NULL, NULL, CALL_UNDECIDED, NULL});
    assert_sample("langgraph_py_second_done.json", /* the run has gone on: the last answer is the one to this question */
                  {"50a1f6cc2190e1e3c62e48778a4ef9eb:0", "drop_users", "{\"nth\":0}", NULL, NULL, NULL, CALL_REJECTED, "Keep them"},
                  {"50a1f6cc2190e1e3c62e48778a4ef9eb:1", "send_mail", "{\"nth\":1}", NULL, NULL, NULL, CALL_APPROVED, NULL});
}

/* A node that failed has failed behind its question, or before it asked the next one: both look the same. */
static void test_a_node_that_failed(void **state)
{
    (void)state;
    assert_sample("langgraph_py_failed.json",
                  {"52c3e1ad11bf04e0748425ba9dbeec19:0", "drop_users", "{}", NULL, NULL, NULL, CALL_UNDECIDED, NULL},
                  {"52c3e1ad11bf04e0748425ba9dbeec19:1", "send_mail", "{}", NULL, NULL, NULL, CALL_UNDECIDED, NULL});
    assert_sample("langgraph_py_failed_second.json",
                  {"b36c8691c49a456c8f119f40060a2842", "drop_logs", "{}", NULL, NULL, NULL, CALL_UNDECIDED, NULL});
}

static void test_other_frameworks(void **state)
{
    cleanup_state_info struct state_info li = {0}, v0 = {0}, done = {0}, crew = {0}, claude = {0}, adk = {0}, pydantic = {0};

    (void)state;
    assert_sample("pydantic_ai_interrupted.json",
                  {"call_1", "drop_table", "{\"name\": \"users\"}", NULL, NULL, NULL, CALL_UNDECIDED, NULL},
                  {"call_2", "drop_table", "{\"name\":\"logs\"}", NULL, NULL, NULL, CALL_UNDECIDED, NULL});
    read_named("pydantic_ai_done.json", &pydantic);
    assert_int_equal(pydantic.status, RUN_FINAL);
    for (int snake = 0; snake < 2; snake++)
        assert_sample(snake ? "adk_interrupted_snake.json" : "adk_interrupted.json",
                      {"adk-611f8c4d-4806-4937-8da6-fe2ceeb559e9", "drop_table", "{\"name\":\"users\"}", "cleaner", NULL, NULL,
                       CALL_UNDECIDED, NULL},
                      {"adk-c6c51eb4-199b-4439-8418-eb9d21f04873", "drop_table", "{\"name\":\"logs\"}", "cleaner", NULL, NULL,
                       CALL_UNDECIDED, NULL});
    read_named("adk_done.json", &adk);
    assert_int_equal(adk.status, RUN_FINAL);
    assert_int_equal(adk.framework, FRAMEWORK_GOOGLE_ADK);
    assert_int_equal(adk.usage.total, 45);
    assert_sample("claude_interrupted.jsonl",
                  {"toolu_02", "Bash", "{\"command\":\"rm -rf build\"}", NULL, NULL, NULL, CALL_UNDECIDED, NULL});
    read_named("claude_interrupted.jsonl", &claude);
    assert_int_equal(claude.framework, FRAMEWORK_CLAUDE);
    assert_int_equal(claude.usage.requests, 2); /* one message takes two lines */
    assert_string_equal(claude.model, "claude-sonnet-4-5");
    read_named("crewai_feedback.json", &crew);
    assert_int_equal(crew.framework, FRAMEWORK_CREWAI);
    assert_int_equal(crew.status, RUN_WAITING_INPUT);
    assert_string_equal(crew.pending[0].arguments,
                        "{\"method_name\":\"propose\",\"message\":\"Drop the table users?\",\"method_output\":\"DROP TABLE users\"}");
    read_named("llamaindex_waiting.json", &li);
    assert_string_equal(li.pending[0].id, "drop users?");
    assert_string_equal(li.pending[0].agent, "ask");
    read_named("llamaindex_v0.json", &v0);
    assert_int_equal(v0.status, RUN_WAITING_INPUT);
    read_named("llamaindex_done.json", &done);
    assert_int_equal(done.status, RUN_FINAL);
}

/* -- Ids as file names ------------------------------------------------------------------------------------------------------ */

static void state_with_ids(const char *const *ids, size_t n, struct state_info *ret)
{
    cleanup_buf struct buf text = {0};

    buf_adds(&text, "{\"$schemaVersion\":\"1\",\"currentAgent\":{},\"currentStep\":{\"data\":{\"interruptions\":[");
    for (size_t i = 0; i < n; i++)
        buf_addf(&text, "%s{\"toolName\":\"t\",\"rawItem\":{\"callId\":\"%s\",\"arguments\":\"{}\"}}", i ? "," : "", ids[i]);
    buf_adds(&text, "]}}}");
    read_text(text.data, ret);
}

static void test_names_of_odd_ids(void **state)
{
    static const struct { const char *id, *filename; } cases[] = {
        {"plain.Id_1:2@x-", "plain.Id_1:2@x-"}, {".hidden", "%2Ehidden"}, {"a/../b", "a%2F..%2Fb"}, {"..", "%2E."},
        {"a b%\xc3\xa4", "a%20b%25%C3%A4"},
        {"x\x1b[2J\n", "x%1B%5B2J%0A"}, {"~", "%7E"}, {"*?'\"$`|<>", "%2A%3F%27%22%24%60%7C%3C%3E"},
    };
    char longest[300];

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cleanup_free char *name = id_to_filename(cases[i].id, strlen(cases[i].id));
        assert_string_equal(name, cases[i].filename);
    }
    for (size_t n = 199; n < 300; n += n > 202 ? 41 : 1) {
        cleanup_free char *name = NULL;
        memset(longest, 'a', n);
        longest[n] = 0;
        name = id_to_filename(longest, n);
        assert_int_equal(strlen(name), n > 200 ? 150 + 1 + 16 : n);
        assert_int_equal(name[150], n > 200 ? '~' : 'a');
    }
}

/* Both the id and the name of its file are taken, by approve and by reject, however odd it is. */
static void test_both_forms_are_taken(void **state)
{
    char longest[3 * 260 + 1] = "";
    const char *ids[] = {"a/b", "a b", "\xc3\xa4", ".x", "c~2", longest};
    cleanup_state_info struct state_info info = {0};

    (void)state;
    for (int i = 0; i < 260; i++)
        strcat(longest, "\xe2\x82\xac");
    state_with_ids(ids, 6, &info);
    for (size_t i = 0; i < 6; i++) {
        cleanup_free char *name = id_to_filename(ids[i], strlen(ids[i]));
        cleanup_free char *approve = str_format("approve %s", name), *reject = str_format("reject id=%s no such thing", name);
        const char *const lines[] = {approve, reject};

        assert_true(strlen(name) + strlen(".json") <= 255);
        assert_ptr_equal(state_find_call(&info, ids[i]), &info.pending[i]);
        assert_ptr_equal(state_find_call(&info, name), &info.pending[i]);
        for (size_t k = 0; k < 2; k++) {
            cleanup_err struct err e = {0};
            cleanup_command struct command cmd = {0};
            cleanup_resolution struct resolution x = {0};
            assert_int_equal(command_parse(CONTROL_RESUME, lines[k], strlen(lines[k]), &cmd, &e), 0);
            assert_int_equal(resolve(&info, &cmd, &x, &e), 0);
            assert_int_equal(x.count, 1);
            assert_ptr_equal(x.items[0].call, &info.pending[i]);
            assert_int_equal(x.items[0].decision->kind, k ? DECIDE_REJECT : DECIDE_APPROVE);
        }
    }
}

/* The name of one call's file is another's id: nobody can know which is meant, so nothing is decided. */
static void test_an_id_that_is_anothers_file_name(void **state)
{
    const char *ids[] = {"a/b", "a%2Fb"};
    cleanup_state_info struct state_info info = {0};
    cleanup_err struct err e = {0};
    cleanup_command struct command cmd = {0};
    cleanup_resolution struct resolution x = {0};

    (void)state;
    state_with_ids(ids, 2, &info);
    assert_null(state_find_call(&info, "a%2Fb"));
    assert_ptr_equal(state_find_call(&info, "a/b"), &info.pending[0]);
    assert_ptr_equal(state_find_call(&info, "a%252Fb"), &info.pending[1]);
    assert_int_equal(command_parse(CONTROL_RESUME, "approve a%2Fb", 13, &cmd, &e), 0);
    assert_int_equal(resolve(&info, &cmd, &x, &e), -EINVAL);
    assert_non_null(strstr(err_text(&e), "a%2Fb"));
}

static void test_a_number_that_is_taken(void **state)
{
    const char *ids[] = {"c", "c~2", "c", "c~2", "c"};
    static const char *const expected[] = {"c", "c~2", "c~3", "c~2~2", "c~4"};
    cleanup_state_info struct state_info info = {0};

    (void)state;
    state_with_ids(ids, 5, &info);
    for (size_t i = 0; i < 5; i++)
        assert_string_equal(info.pending[i].id, expected[i]);
    assert_int_equal(info.problem_count, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_three_levels_of_agents),
        cmocka_unit_test(test_hosted_shell_and_patch),
        cmocka_unit_test(test_two_agents_whose_calls_have_one_id),
        cmocka_unit_test(test_one_id_two_decisions),
        cmocka_unit_test(test_langgraph_in_every_form),
        cmocka_unit_test(test_rows_of_langgraph_js),
        cmocka_unit_test(test_the_second_question_of_a_node),
        cmocka_unit_test(test_a_node_that_failed),
        cmocka_unit_test(test_bare_interrupts),
        cmocka_unit_test(test_other_frameworks),
        cmocka_unit_test(test_names_of_odd_ids),
        cmocka_unit_test(test_both_forms_are_taken),
        cmocka_unit_test(test_an_id_that_is_anothers_file_name),
        cmocka_unit_test(test_a_number_that_is_taken),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
