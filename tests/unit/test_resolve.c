/* From what a person said to one decision per pending call. */
#include "samples.h"

#include <errno.h>

#include <jansson.h>

#include "commands/resolve.h"

/* A run of that framework with pending calls a, b, c…; `kinds` has one letter each: p = approval, q = question. */
static void make_run(enum framework framework, const char *kinds, struct state_info *ret)
{
    size_t n = strlen(kinds);

    *ret = (struct state_info){.framework = framework, .status = RUN_WAITING_INPUT, .pending_count = n};
    ret->pending = calloc(n + 1, sizeof *ret->pending);
    for (size_t i = 0; i < n; i++) {
        struct call *c = &ret->pending[i];
        c->id = str_format("%c", (int)('a' + i));
        c->kind = kinds[i] == 'p' ? CALL_APPROVAL : CALL_INPUT;
        c->tool = c->kind == CALL_APPROVAL ? str_dup("drop") : NULL;
        c->allowed = c->kind == CALL_APPROVAL ? ALLOW_APPROVE | ALLOW_REJECT : ALLOW_RESPOND;
        if (c->kind == CALL_APPROVAL)
            ret->status = RUN_INTERRUPTED;
    }
}

static int decide(const struct state_info *info, const char *text, struct buf *json, size_t *left, struct err *e)
{
    cleanup_command struct command c = {0};
    cleanup_resolution struct resolution r = {0};
    int result;

    if (command_parse(CONTROL_RESUME, text, strlen(text), &c, e) != 0)
        fail_msg("not a command: %s: %s", text, err_text(e));
    result = resolve(info, &c, &r, e);
    if (result < 0)
        return result;
    *left = r.left;
    assert_int_equal(resolution_json(&r, json), 0);
    return 0;
}

/* `expected` is the JSON without white space. */
static void assert_decided(const struct state_info *info, const char *text, size_t left, const char *expected)
{
    cleanup_err struct err e = {0};
    cleanup_buf struct buf json = {0};
    cleanup_json json_t *root = NULL;
    cleanup_free char *compact = NULL;
    size_t got_left = 0;

    if (decide(info, text, &json, &got_left, &e) != 0)
        fail_msg("%s: %s", text, err_text(&e));
    assert_int_equal(got_left, left);
    root = json_loadb(json.data, json.len, 0, NULL);
    assert_non_null(root);
    compact = json_dumps(root, JSON_COMPACT);
    assert_string_equal(compact, expected);
}

static void assert_refused(const struct state_info *info, const char *text, const char *says)
{
    cleanup_err struct err e = {0};
    cleanup_buf struct buf json = {0};
    size_t left = 0;

    if (decide(info, text, &json, &left, &e) != -EINVAL)
        fail_msg("accepted: %s", text);
    if (!strstr(err_text(&e), says))
        fail_msg("%s: the error doesn't say \"%s\" but: %s", text, says, err_text(&e));
}

#define A "{\"id\":\"a\",\"tool\":\"drop\",\"decision\":\"approve\",\"message\":null}"
#define B "{\"id\":\"b\",\"tool\":\"drop\",\"decision\":\"approve\",\"message\":null}"
#define C "{\"id\":\"c\",\"tool\":\"drop\",\"decision\":\"approve\",\"message\":null}"

static void test_all(void **state)
{
    cleanup_state_info struct state_info info = {0};

    (void)state;
    make_run(FRAMEWORK_OPENAI_PYTHON, "pp", &info);
    assert_decided(&info, "approve", 0, "{\"decisions\":[" A "," B "],\"input\":null}");
    assert_decided(&info, "reject Do not", 0,
                   "{\"decisions\":[{\"id\":\"a\",\"tool\":\"drop\",\"decision\":\"reject\",\"message\":\"Do not\"},"
                   "{\"id\":\"b\",\"tool\":\"drop\",\"decision\":\"reject\",\"message\":\"Do not\"}],\"input\":null}");
    assert_decided(&info, "approve b a", 0, "{\"decisions\":[" A "," B "],\"input\":null}"); /* in the state's order */
}

static void test_some(void **state)
{
    cleanup_state_info struct state_info openai = {0}, raw = {0};

    (void)state;
    make_run(FRAMEWORK_OPENAI_PYTHON, "pp", &openai);
    make_run(FRAMEWORK_RAW, "pp", &raw);
    assert_decided(&openai, "approve b", 1, "{\"decisions\":[" B "],\"input\":null}");
    assert_refused(&raw, "approve b", "decide these too: a (drop)");
    assert_decided(&raw, "{\"decisions\":[{\"id\":\"b\",\"decision\":\"approve\"},{\"decision\":\"reject\"}]}", 0,
                   "{\"decisions\":[{\"id\":\"a\",\"tool\":\"drop\",\"decision\":\"reject\",\"message\":null}," B "],"
                   "\"input\":null}");
}

static void test_stored_decisions_are_no_gap(void **state)
{
    cleanup_state_info struct state_info info = {0};

    (void)state;
    make_run(FRAMEWORK_RAW, "pp", &info);
    info.pending[0].decision = CALL_REJECTED;
    assert_decided(&info, "approve b", 0, "{\"decisions\":[" B "],\"input\":null}");
    assert_decided(&info, "approve", 0, "{\"decisions\":[" A "," B "],\"input\":null}"); /* the later word wins */
}

static void test_interrupts_are_decided_as_a_whole(void **state)
{
    cleanup_state_info struct state_info info = {0};

    (void)state;
    make_run(FRAMEWORK_LANGGRAPH_JS, "ppp", &info);
    info.pending[0].group = str_dup("i1");
    info.pending[1].group = str_dup("i1");
    info.pending[2].group = str_dup("i2");
    assert_refused(&info, "approve a", "b (drop)");
    assert_decided(&info, "approve a b", 1, "{\"decisions\":[" A "," B "],\"input\":null}");
    info.pending[0].decision = CALL_APPROVED; /* the new answer is to the whole interrupt */
    assert_refused(&info, "approve b", "decide these too: a (drop), c (drop)");
    info.pending[2].decision = CALL_APPROVED;
    assert_refused(&info, "approve b", "decide these too: a (drop)");
    assert_decided(&info, "approve c", 1, "{\"decisions\":[" C "],\"input\":null}");
    assert_decided(&info, "approve a b", 0, "{\"decisions\":[" A "," B "],\"input\":null}");
}

static void test_ids(void **state)
{
    cleanup_state_info struct state_info info = {0};

    (void)state;
    make_run(FRAMEWORK_OPENAI_JS, "pp", &info);
    free(info.pending[0].id);
    info.pending[0].id = str_dup("call/1 x");
    assert_decided(&info, "reject id=call%2F1%20x no", 1,
                   "{\"decisions\":[{\"id\":\"call/1 x\",\"tool\":\"drop\",\"decision\":\"reject\",\"message\":\"no\"}],"
                   "\"input\":null}");
    assert_refused(&info, "approve zz", "no pending call has the id zz; pending: call/1 x (drop), b (drop)");
    assert_refused(&info, "approve b b", "b is decided twice");
    assert_refused(&info, "{\"decisions\":[{\"decision\":\"approve\"},{\"decision\":\"reject\"}]}", "two decisions have no id");
}

static void test_allowed(void **state)
{
    cleanup_state_info struct state_info info = {0};

    (void)state;
    make_run(FRAMEWORK_LANGGRAPH_JS, "p", &info);
    assert_refused(&info, "{\"decisions\":[{\"id\":\"a\",\"decision\":\"edit\",\"arguments\":{}}]}",
                   "a can't be answered with edit; it takes: approve, reject");
    info.pending[0].allowed = ALLOW_EDIT;
    assert_refused(&info, "approve", "it takes: edit");
    assert_decided(&info, "{\"decisions\":[{\"id\":\"a\",\"decision\":\"edit\",\"arguments\":{\"n\":[1]}}]}", 0,
                   "{\"decisions\":[{\"id\":\"a\",\"tool\":\"drop\",\"decision\":\"edit\",\"message\":null,"
                   "\"arguments\":{\"n\":[1]}}],\"input\":null}");
}

static void test_questions(void **state)
{
    cleanup_state_info struct state_info question = {0}, approval = {0}, mixed = {0}, silent = {0};

    (void)state;
    make_run(FRAMEWORK_LLAMAINDEX, "q", &question);
    make_run(FRAMEWORK_OPENAI_PYTHON, "p", &approval);
    make_run(FRAMEWORK_RAW, "pq", &mixed);
    make_run(FRAMEWORK_LLAMAINDEX, "", &silent);
    assert_decided(&question, "answer blue", 0,
                   "{\"decisions\":[{\"id\":\"a\",\"tool\":null,\"decision\":\"respond\",\"message\":\"blue\"}],"
                   "\"input\":\"blue\"}");
    assert_refused(&question, "approve", "waits for an input, not for approval: write answer TEXT");
    assert_refused(&question, "reject no", "waits for an input");
    assert_refused(&approval, "answer blue", "waits for approval, not for an input");
    assert_decided(&approval, "{\"decisions\":[{\"decision\":\"approve\"}],\"input\":\"and hurry\"}", 0,
                   "{\"decisions\":[" A "],\"input\":\"and hurry\"}");
    assert_refused(&mixed, "approve", "decide these too: b");
    assert_refused(&mixed, "answer blue", "waits for approval");
    assert_decided(&mixed, "{\"decisions\":[{\"id\":\"a\",\"decision\":\"approve\"}],\"input\":\"blue\"}", 0,
                   "{\"decisions\":[" A ",{\"id\":\"b\",\"tool\":null,\"decision\":\"respond\",\"message\":\"blue\"}],"
                   "\"input\":\"blue\"}");
    assert_decided(&silent, "answer blue", 0, "{\"decisions\":[],\"input\":\"blue\"}");
    assert_refused(&silent, "approve", "waits for an input");
}

static void test_nothing_pending(void **state)
{
    cleanup_state_info struct state_info ended = {0}, unread = {0};

    (void)state;
    make_run(FRAMEWORK_OPENAI_PYTHON, "", &ended);
    ended.status = RUN_FINAL;
    assert_refused(&ended, "approve", "nothing is pending in this checkpoint: the run has ended");
    assert_refused(&ended, "answer x", "the run has ended");
    make_run(FRAMEWORK_LANGGRAPH_PYTHON, "", &unread);
    unread.status = RUN_INTERRUPTED;
    assert_refused(&unread, "answer x", "can't be read from the state");
}

static void test_many_names_are_cut(void **state)
{
    cleanup_state_info struct state_info info = {0};

    (void)state;
    make_run(FRAMEWORK_OPENAI_PYTHON, "pppppppppppp", &info);
    assert_refused(&info, "approve zz", "h (drop) and 4 more");
}

static void test_real_state(void **state)
{
    cleanup_state_info struct state_info info = {0};
    cleanup_buf struct buf bytes = {0};

    (void)state;
    read_sample("py_seed_interrupted.json", &bytes);
    assert_int_equal(state_read(bytes.data, bytes.len, &info, NULL), 0);
    assert_decided(&info, "reject Action denied by admin.\n", 0,
                   "{\"decisions\":[{\"id\":\"call_00000000000000000001\",\"tool\":\"drop_users_table\",\"decision\":\"reject\","
                   "\"message\":\"Action denied by admin.\"}],\"input\":null}");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all),
        cmocka_unit_test(test_some),
        cmocka_unit_test(test_stored_decisions_are_no_gap),
        cmocka_unit_test(test_interrupts_are_decided_as_a_whole),
        cmocka_unit_test(test_ids),
        cmocka_unit_test(test_allowed),
        cmocka_unit_test(test_questions),
        cmocka_unit_test(test_nothing_pending),
        cmocka_unit_test(test_many_names_are_cut),
        cmocka_unit_test(test_real_state),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
