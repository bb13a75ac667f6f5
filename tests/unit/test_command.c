/* Commands: the line, the JSON, and the words in which they are refused. */
#include "samples.h"

#include <errno.h>

#include "commands/command.h"

static void accepted(enum control control, const char *text, struct command *ret)
{
    cleanup_err struct err e = {0};

    if (command_parse(control, text, strlen(text), ret, &e) != 0)
        fail_msg("refused: %s: %s", text, err_text(&e));
}

static void refused_bytes(enum control control, const char *text, size_t n, const char *says)
{
    cleanup_err struct err e = {0};
    cleanup_command struct command c = {0};

    if (command_parse(control, text, n, &c, &e) != -EINVAL)
        fail_msg("accepted: %s", text);
    if (!strstr(err_text(&e), says))
        fail_msg("%s: the error doesn't say \"%s\" but: %s", text, says, err_text(&e));
    assert_null(strchr(err_text(&e), '\n'));
}

static void refused(enum control control, const char *text, const char *says)
{
    refused_bytes(control, text, strlen(text), says);
}

static void assert_decision(const struct command *c, size_t i, enum decision_kind kind, const char *id, const char *message)
{
    assert_true(i < c->decision_count);
    assert_int_equal(c->decisions[i].kind, kind);
    if (!str_equal(c->decisions[i].id, id) || !str_equal(c->decisions[i].message, message))
        fail_msg("decision %zu is for %s: %s", i, c->decisions[i].id, c->decisions[i].message);
}

static void test_simple_verbs(void **state)
{
    static const struct { enum control control; const char *text; enum verb verb; } cases[] = {
        {CONTROL_RESTORE, "in-place", VERB_IN_PLACE}, {CONTROL_RESTORE, "in-place\n", VERB_IN_PLACE},
        {CONTROL_RESTORE, "  in-place  \n", VERB_IN_PLACE}, {CONTROL_CANCEL, "cancel\n", VERB_CANCEL},
        {CONTROL_PRUNE, "delete pre drop\n", VERB_DELETE}, {CONTROL_RESUME, "approve", VERB_DECIDE},
        {CONTROL_RESTORE, "dry-run\n", VERB_DRY_RUN}, {CONTROL_UNDO, " undo\n", VERB_UNDO},
        {CONTROL_ADOPT, "adopt  br-a-b-12345678 \n", VERB_ADOPT},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cleanup_command struct command c = {0};
        accepted(cases[i].control, cases[i].text, &c);
        assert_int_equal(c.verb, cases[i].verb);
        assert_false(c.nowait);
        assert_false(c.again);
        assert_null(c.confirm);
        if (c.verb == VERB_DELETE)
            assert_string_equal(c.target, "pre drop");
        if (c.verb == VERB_ADOPT)
            assert_string_equal(c.target, "br-a-b-12345678");
    }
}

static void test_prefixes(void **state)
{
    cleanup_command struct command a = {0}, b = {0}, c = {0};

    (void)state;
    accepted(CONTROL_RESUME, "nowait again reject no\n", &a);
    assert_true(a.nowait);
    assert_true(a.again);
    assert_decision(&a, 0, DECIDE_REJECT, NULL, "no");
    accepted(CONTROL_RESTORE, "nowait in-place confirm=br-x-123", &b);
    assert_true(b.nowait);
    assert_string_equal(b.confirm, "br-x-123");
    accepted(CONTROL_REPLAY, "in-place confirm=br-1 reject confirm=br-2 stays text", &c);
    assert_string_equal(c.confirm, "br-1");
    assert_decision(&c, 0, DECIDE_REJECT, NULL, "confirm=br-2 stays text");
}

static void test_going_back_refused(void **state)
{
    static const char long_id[] = "adopt br-0123456789012345678901234567890123456789012345678901234567";

    (void)state;
    refused(CONTROL_UNDO, "undo it", "undo takes: undo | {\"verb\":\"undo\"}");
    refused(CONTROL_UNDO, "redo", "unknown verb");
    refused(CONTROL_UNDO, "again undo", "\"again\" belongs to resume");
    refused(CONTROL_UNDO, "undo confirm=br-a-b-12345678", "unexpected");
    refused(CONTROL_RESTORE, "dry-run confirm=br-a-b-12345678", "unexpected");
    refused(CONTROL_RESTORE, "{\"verb\":\"dry-run\",\"confirm\":\"br-a-b-12345678\"}", "belongs to in-place");
    refused(CONTROL_ADOPT, "adopt", "branch's id");
    refused(CONTROL_ADOPT, "adopt ../x", "branch's id");
    refused(CONTROL_ADOPT, "adopt br-a-b-12345678 br-c-d-12345678", "branch's id");
    refused(CONTROL_ADOPT, long_id, "branch's id");
    refused(CONTROL_ADOPT, "{\"verb\":\"adopt\"}", "\"branch\" is missing");
    refused(CONTROL_ADOPT, "{\"verb\":\"adopt\",\"branch\":\"A\"}", "isn't a branch's id");
}

/* The line to write when a command has to be confirmed. */
static void test_confirmed(void **state)
{
    static const struct { enum control control; const char *text, *wanted; } cases[] = {
        {CONTROL_RESTORE, "in-place", "in-place confirm=br-x"},
        {CONTROL_RESTORE, " nowait  in-place ", " nowait  in-place confirm=br-x "},
        {CONTROL_RESTORE, "in-place confirm=br-old", "in-place confirm=br-x"},
        {CONTROL_REPLAY, "nowait in-place reject  It's \"so\"  ", "nowait in-place confirm=br-x reject  It's \"so\"  "},
        {CONTROL_REPLAY, "in-place   confirm=br-old approve c1", "in-place confirm=br-x approve c1"},
        {CONTROL_REPLAY, "in-place answer confirm=br-mine", "in-place confirm=br-x answer confirm=br-mine"},
        {CONTROL_RESTORE, "{\"verb\": \"in-place\", \"confirm\": \"br-old\"}", "{\"verb\":\"in-place\",\"confirm\":\"br-x\"}"},
        {CONTROL_REPLAY, "{\"verb\":\"in-place\",\"input\":\"a\\nb\"}",
         "{\"verb\":\"in-place\",\"input\":\"a\\nb\",\"confirm\":\"br-x\"}"},
        {CONTROL_REPLAY,
         "{\"verb\":\"in-place\",\"decisions\":[{\"id\":\"c\",\"decision\":\"edit\",\"arguments\":{\"n\":10000000000000000001}}]}",
         "{\"verb\":\"in-place\",\"decisions\":[{\"id\":\"c\",\"decision\":\"edit\",\"arguments\":{\"n\":10000000000000000001}}],"
         "\"confirm\":\"br-x\"}"},
        {CONTROL_RESUME, "approve", NULL}, /* takes none */
        {CONTROL_UNDO, "undo", NULL},
        {CONTROL_RESTORE, "{\"verb\":\"in-pl", NULL}, /* cut, as the journal cuts a long one */
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cleanup_free char *line = command_confirmed(cases[i].control, cases[i].text, "br-x");

        if (!str_equal(line, cases[i].wanted))
            fail_msg("%s: %s", cases[i].text, line ? line : "NULL");
    }
}

static void test_approve(void **state)
{
    cleanup_command struct command all = {0}, some = {0};

    (void)state;
    accepted(CONTROL_RESUME, "approve\n", &all);
    assert_int_equal(all.decision_count, 1);
    assert_decision(&all, 0, DECIDE_APPROVE, NULL, NULL);
    accepted(CONTROL_RESUME, "approve call_1  call%202 \n", &some);
    assert_int_equal(some.decision_count, 2);
    assert_decision(&some, 0, DECIDE_APPROVE, "call_1", NULL);
    assert_decision(&some, 1, DECIDE_APPROVE, "call%202", NULL);
}

/* The text behind one blank is kept as it is. */
static void test_reject(void **state)
{
    static const struct { const char *text, *id, *message; } cases[] = {
        {"reject Do not drop the table\n", NULL, "Do not drop the table"},
        {"reject   two  more blanks \n", NULL, "  two  more blanks "},
        {"reject\n", NULL, NULL}, {"reject ", NULL, NULL},
        {"reject id=call_1 no, \"this\" one\n", "call_1", "no, \"this\" one"},
        {"reject id=call_1\n", "call_1", NULL},
        {"reject  id=call_1 no\n", "call_1", "no"},
        {"reject \t id=call_1\t no\n", "call_1", " no"},
        {"reject caf\xc3\xa9\n", NULL, "caf\xc3\xa9"},
        {"reject approve\n", NULL, "approve"},
        {"reject {\"a\":1}", NULL, "{\"a\":1}"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cleanup_command struct command c = {0};
        accepted(CONTROL_RESUME, cases[i].text, &c);
        assert_int_equal(c.decision_count, 1);
        assert_decision(&c, 0, DECIDE_REJECT, cases[i].id, cases[i].message);
    }
}

static void test_answer_and_replay(void **state)
{
    cleanup_command struct command answer = {0}, replay = {0}, approve = {0};

    (void)state;
    accepted(CONTROL_RESUME, "answer  blue \n", &answer);
    assert_string_equal(answer.input, " blue ");
    assert_int_equal(answer.decision_count, 0);
    accepted(CONTROL_REPLAY, "in-place reject Action denied by admin.\n", &replay);
    assert_int_equal(replay.verb, VERB_IN_PLACE);
    assert_decision(&replay, 0, DECIDE_REJECT, NULL, "Action denied by admin.");
    accepted(CONTROL_REPLAY, "nowait in-place approve call_1", &approve);
    assert_decision(&approve, 0, DECIDE_APPROVE, "call_1", NULL);
}

static void test_lines_refused(void **state)
{
    cleanup_free char *longest = malloc(5000);

    (void)state;
    refused(CONTROL_RESUME, "frobnicate\n", "unknown verb \"frobnicate\"; resume takes: approve [ID…] | reject [id=ID] TEXT "
            "| answer TEXT");
    refused(CONTROL_RESTORE, "frobnicate\n", "restore takes: in-place | dry-run | branch NAME | {\"verb\":\"in-place|dry-run|branch\"");
    refused(CONTROL_PRUNE, "prune", "prune takes: delete NAME");
    refused(CONTROL_RESTORE, "approve", "unknown verb");
    refused(CONTROL_RESTORE, "in-placed", "unknown verb");
    refused(CONTROL_RESTORE, "IN-PLACE", "unknown verb");
    refused(CONTROL_RESTORE, "in-place now", "unexpected \"now\"");
    refused(CONTROL_RESTORE, "again in-place", "belongs to resume");
    refused(CONTROL_RESTORE, "nowait", "no verb");
    refused(CONTROL_RESTORE, "nowait nowait in-place", "unknown verb");
    refused(CONTROL_RESTORE, "in-place confirm=", "confirm=");
    refused(CONTROL_REPLAY, "in-place confirm= approve", "confirm=");
    refused(CONTROL_RESUME, "reject id= text", "id=");
    refused(CONTROL_RESUME, "reject   id= text", "id=");
    refused(CONTROL_RESUME, "answer \n", "needs a text");
    refused(CONTROL_RESUME, "reject a\nb\n", "one line");
    refused(CONTROL_RESUME, "approve\n\n", "one line");
    refused(CONTROL_REPLAY, "in-place", "needs a decision");
    refused(CONTROL_REPLAY, "in-place frobnicate", "needs a decision");
    refused(CONTROL_PRUNE, "delete", "name");
    refused(CONTROL_PRUNE, "delete ../x", "name");
    refused(CONTROL_RESUME, "reject \xff", "UTF-8");
    refused_bytes(CONTROL_RESUME, "reject a\0b", 10, "NUL");
    refused(CONTROL_RESUME, "", "no verb");
    refused(CONTROL_RESUME, "[]", "unknown verb");
    memset(longest, 'x', 5000);
    memcpy(longest, "reject ", 7);
    refused_bytes(CONTROL_RESUME, longest, 4096, "send JSON");
    {
        cleanup_command struct command c = {0};
        assert_int_equal(command_parse(CONTROL_RESUME, longest, 4095, &c, NULL), 0);
        assert_int_equal(strlen(c.decisions[0].message), 4088);
    }
}

static void test_json_decisions(void **state)
{
    cleanup_command struct command c = {0}, replay = {0}, restore = {0}, prune = {0}, input = {0};

    (void)state;
    accepted(CONTROL_RESUME,
             " {\"nowait\": true, \"again\": false, \"decisions\": [\n {\"id\":\"a\",\"decision\":\"approve\",\"message\":null},"
             "{\"id\":\"b\",\"decision\":\"reject\",\"message\":\"two\\nlines\"},"
             "{\"id\":\"c\",\"decision\":\"edit\",\"arguments\":{\"n\":1.10,\"big\":123456789012345678901}},"
             "{\"id\":\"d\",\"decision\":\"respond\",\"value\":[true]},{\"decision\":\"reject\"}],\"input\":\"x\"}\n", &c);
    assert_true(c.nowait);
    assert_int_equal(c.decision_count, 5);
    assert_decision(&c, 0, DECIDE_APPROVE, "a", NULL);
    assert_decision(&c, 1, DECIDE_REJECT, "b", "two\nlines");
    assert_string_equal(c.decisions[2].arguments, "{\"n\":1.10,\"big\":123456789012345678901}");
    assert_string_equal(c.decisions[3].value, "[true]");
    assert_decision(&c, 4, DECIDE_REJECT, NULL, NULL);
    assert_string_equal(c.input, "x");
    accepted(CONTROL_REPLAY, "{\"verb\":\"in-place\",\"confirm\":\"br-1\",\"decisions\":[{\"decision\":\"approve\"}]}", &replay);
    assert_int_equal(replay.verb, VERB_IN_PLACE);
    assert_string_equal(replay.confirm, "br-1");
    accepted(CONTROL_RESTORE, "{\"verb\":\"in-place\"}", &restore);
    assert_int_equal(restore.verb, VERB_IN_PLACE);
    accepted(CONTROL_PRUNE, "{\"verb\":\"delete\",\"name\":\"pre\"}", &prune);
    assert_string_equal(prune.target, "pre");
    accepted(CONTROL_RESUME, "{\"input\":\"\"}", &input);
    assert_string_equal(input.input, "");
}

static void test_json_refused(void **state)
{
    (void)state;
    refused(CONTROL_RESUME, "{}", "neither");
    refused(CONTROL_RESUME, "{\"decisions\":[]}", "neither");
    refused(CONTROL_RESUME, "{\"desicions\":[]}", "\"desicions\" isn't known here");
    refused(CONTROL_RESUME, "{\"input\":\"a\",\"input\":\"b\"}", "given twice");
    refused(CONTROL_RESUME, "{\"verb\":\"approve\"}", "\"verb\" isn't known here");
    refused(CONTROL_RESUME, "{\"decisions\":{}}", "must be an array");
    refused(CONTROL_RESUME, "{\"decisions\":[\"approve\"]}", "must be an object");
    refused(CONTROL_RESUME, "{\"decisions\":[{\"id\":\"a\"}]}", "no \"decision\"");
    refused(CONTROL_RESUME, "{\"decisions\":[{\"decision\":\"approved\"}]}", "must be approve, reject, edit or respond");
    refused(CONTROL_RESUME, "{\"decisions\":[{\"id\":1,\"decision\":\"approve\"}]}", "\"id\" must be a string");
    refused(CONTROL_RESUME, "{\"decisions\":[{\"id\":\"\",\"decision\":\"approve\"}]}", "empty");
    refused(CONTROL_RESUME, "{\"decisions\":[{\"id\":\"a\",\"decision\":\"edit\"}]}", "edit needs");
    refused(CONTROL_RESUME, "{\"decisions\":[{\"id\":\"a\",\"decision\":\"respond\"}]}", "respond needs");
    refused(CONTROL_RESUME, "{\"decisions\":[{\"decision\":\"approve\",\"message\":\"x\"}]}", "\"message\" belongs to");
    refused(CONTROL_RESUME, "{\"decisions\":[{\"decision\":\"reject\",\"arguments\":{}}]}", "\"arguments\" belongs to");
    refused(CONTROL_RESUME, "{\"nowait\":1,\"input\":\"x\"}", "true or false");
    refused(CONTROL_RESUME, "{\"input\":\"x\"} trailing", "more after the JSON");
    refused(CONTROL_RESUME, "{\"input\":\"x\"", "cut short");
    refused(CONTROL_RESUME, "{\"input\":\"a\nb\"}", "must be escaped");
    refused(CONTROL_RESTORE, "{\"nowait\":true}", "\"verb\" is missing");
    refused(CONTROL_RESTORE, "{\"verb\":\"branch\"}", "\"branch\" is missing");
    refused(CONTROL_RESTORE, "{\"verb\":\"in-place\",\"branch\":\"x\"}", "belongs to the verb branch");
    refused(CONTROL_RESTORE, "{\"verb\":\"swap\"}", "unknown verb \"swap\"");
    refused(CONTROL_RESTORE, "{\"verb\":\"in-place\",\"decisions\":[{\"decision\":\"approve\"}]}", "isn't known here");
    refused(CONTROL_REPLAY, "{\"verb\":\"in-place\"}", "neither");
    refused(CONTROL_PRUNE, "{\"verb\":\"delete\"}", "\"name\" is missing");
    refused(CONTROL_PRUNE, "{\"verb\":\"delete\",\"name\":\"a/b\"}", "delete needs a checkpoint's name");
}

/* A tool that copies a backup's files onto control files does nothing. */
static void no_command(const char *name, const char *bytes, size_t n)
{
    for (enum control c = CONTROL_RESTORE; c <= CONTROL_PRUNE; c++) {
        cleanup_command struct command parsed = {0};
        if (command_parse(c, bytes, n, &parsed, NULL) != -EINVAL)
            fail_msg("%s is a command for %s", name, control_name(c));
    }
}

static void test_no_backed_up_file_is_a_command(void **state)
{
    static const char *const texts[] = {
        "saved\n", "waiting (2 calls)\n", "restoring 2/5\n", "finished\n", "br-cool-sun-123456\n", "{\n  \"id\": \"x\"\n}\n",
        "{}\n",
        "{\"action\":\"a1\",\"verb\":\"in-place\",\"outcome\":\"done\"}\n", "{\"decisions\":[],\"input\":null}\n",
        "# transcript\n",
    };

    (void)state;
    each_sample(no_command);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        no_command(texts[i], texts[i], strlen(texts[i]));
}

static void test_usage(void **state)
{
    cleanup_buf struct buf b = {0};

    (void)state;
    command_usage(CONTROL_RESUME, &b);
    assert_non_null(strstr(b.data, "reject [id=ID] TEXT  reject all pending calls"));
    assert_non_null(strstr(b.data, "\"decisions\""));
    assert_string_equal(control_name(CONTROL_PRUNE), "prune");
}

/* Whatever is written, the parser answers. */
static void test_mutations(void **state)
{
    static const char *const texts[] = {
        "nowait again reject id=call_1 Do not\n", "in-place confirm=br-1 approve call_1\n",
        ("{\"decisions\":[{\"id\":\"a\",\"decision\":\"edit\",\"arguments\":{\"n\":[1.5,\"\\u00e9\"]}}],\"input\":\"x\","
         "\"nowait\":true}"),
    };
    uint64_t seed = 99;

    (void)state;
    for (int i = 0; i < 20000; i++) {
        const char *text = texts[i % 3];
        size_t n = strlen(text);
        cleanup_free char *copy = malloc(n);
        cleanup_command struct command c = {0};
        int r;
        memcpy(copy, text, n);
        for (uint64_t k = next_random(&seed) % 3; k < 3; k++)
            copy[next_random(&seed) % n] = i % 2 ? (char)next_random(&seed) : "{}[]\",: \n\\u=x"[next_random(&seed) % 13];
        r = command_parse((enum control)(next_random(&seed) % 5), copy, 1 + next_random(&seed) % n, &c, NULL);
        assert_true(r == 0 || r == -EINVAL);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_simple_verbs),
        cmocka_unit_test(test_prefixes),
        cmocka_unit_test(test_going_back_refused),
        cmocka_unit_test(test_confirmed),
        cmocka_unit_test(test_approve),
        cmocka_unit_test(test_reject),
        cmocka_unit_test(test_answer_and_replay),
        cmocka_unit_test(test_lines_refused),
        cmocka_unit_test(test_json_decisions),
        cmocka_unit_test(test_json_refused),
        cmocka_unit_test(test_no_backed_up_file_is_a_command),
        cmocka_unit_test(test_usage),
        cmocka_unit_test(test_mutations),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
