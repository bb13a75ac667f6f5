/* transcript.md: what it says of each framework's runs, that two of one run differ by what happened in between, and that nothing a
 * model or a tool wrote passes for structure or reaches a terminal raw. */
#include "samples.h"

#include <jansson.h>

#include "formats/meta.h"
#include "formats/render.h"

static const struct checkpoint_facts facts = {
    .id = "0198f00d", .name = "pre_drop_table", .created_at = 1764000000123000000, .state_bytes = 12244,
    .state_sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
};

static void transcript_of(const char *state_text, size_t n, struct buf *out)
{
    cleanup_state_info struct state_info info = {0};

    assert_int_equal(state_read(state_text, n, &info, NULL), 0);
    assert_int_equal(render_transcript(out, &facts, &info, state_text, n), 0);
}

static void transcript_named(const char *name, struct buf *out)
{
    cleanup_buf struct buf bytes = {0};

    read_sample(name, &bytes);
    transcript_of(bytes.data, bytes.len, out);
}

static void assert_holds(const char *name, const char *text)
{
    cleanup_buf struct buf out = {0};

    transcript_named(name, &out);
    if (!strstr(out.data, text))
        fail_msg("%s: not in the transcript: %s\n%s", name, text, out.data);
}

/* -- What it says ------------------------------------------------------------------------------------------------------- */

static void test_the_guide(void **state)
{
    cleanup_buf struct buf out = {0};

    (void)state;
    transcript_named("py_seed_interrupted.json", &out);
    assert_string_equal(out.data,
        "# Transcript\n\n- framework: `openai-agents-python`, schema `1.16`\n\n"
        "## Input\n\n    Add Charlie to the database, then drop the users table entirely.\n\n"
        "## Run\n\n"
        "### 1. Call of `add_user` (`call_00000000000000000000`), by `DB Admin`\n\n    {\n      \"name\": \"Charlie\"\n    }\n\n"
        "### 2. Output (`call_00000000000000000000`)\n\n    User Charlie added successfully.\n\n"
        "### 3. Call of `drop_users_table` (`call_00000000000000000001`), by `DB Admin`\n\n    {}\n\n"
        "## Waiting for a decision (1 call)\n\n"
        "### `drop_users_table` (`call_00000000000000000001`), by `DB Admin`\n\n    {}\n\n"
        "In this checkpoint's directory:\n\n```sh\n"
        "echo approve > resume                       # approve it, and wake the agent\n"
        "echo 'reject TEXT' > resume                 # reject it with that message\n"
        "echo in-place > restore                     # put the database back first\n"
        "echo 'in-place reject TEXT' > replay        # put it back, reject, and wake the agent\n```\n\n"
        "## Checkpoint\n\n- name: `pre_drop_table`\n- id: `0198f00d`\n- taken: `2025-11-24T16:00:00.123Z`\n- agent: `DB Admin`\n"
        "- turn: 2 of at most 10\n- usage: 2 requests, 640 tokens in, 24 tokens out\n- status: `interrupted`\n");
}

static void test_every_framework(void **state)
{
    static const struct { const char *name, *text; } cases[] = {
        {"seed_checkpoint.json", "### 1. Call of `add_user`"},
        {"py_handoff_interrupted.json", "### 4. Handoff to `DB Admin`, by `Triage`"},
        {"py_nested_decided.json", "Already rejected in the state: `Keep the logs`. A new decision overrides it."},
        {"langgraph_py_second_done.json", "Already rejected in the state: `Keep them`. LangGraph re-uses this answer unless the resume "
                                          "command leaves out the task's `__resume__`."},
        {"py_parallel3_interrupted.json", "\necho 'approve call_00000000000000000002' > resume\n"},
        {"py_nested3_interrupted.json", "## Inner run of `First`\n\n### 1. Input\n\n    drop users\n"},
        {"py_nested3_interrupted.json", "### `drop_table` (`call_first_drop`), by `First`, asked through `Boss > Lead`\n"},
        {"py_hosted_interrupted.json", "### `create_issue` (`mcpr_1`), by `Operator`, on the server `tracker`\n"},
        {"py_hosted_interrupted.json", "### `shell` (`call_shell`), by `Operator`\n\n    {\n      \"commands\": [\n        \"rm -rf /var"},
        {"py_hosted_interrupted.json", "### `apply_patch` (`call_patch`), by `Operator`\n\n    {\n      \"diff\": \"@@\\n-DROP"},
        {"js_nested3_interrupted.json", "## Inner run of `Second`\n"},
        {"js_hosted_interrupted.json", "### `create_issue` (`mcpr_1`), by `Operator`, on the server `tracker`\n\n    {\n      \"title\""},
        {"js_seed_after_reject.json", "## Final output\n\n    I could not drop the users table"},
        {"langgraph_js_interrupted.json", "### 3. Output `add_user` (`call_0`)\n\n    User Charlie added"},
        {"langgraph_js_interrupted.snapshot.json", "### 2. Call of `add_user`"},
        {"langgraph_js_tables.json", "### 3. Output `add_user` (`call_0`)\n\n    User Charlie added"},
        {"langgraph_py_interrupt.msgpack", "### `drop_users_table` (`a49aaf52b14bc033521cdcb7cd21cc9f`)"},
        {"langgraph_py_messages.msgpack", "### 2. Call of `add_user`"},
        {"langgraph_py_questions.json", "### 1. Message from `human`\n\n    Clean up.\n"},
        {"langgraph_py_questions.json", "### `question` (`de3e7d82e7f6c9acfe5bc8cb20b511fb`)\n\n    Which table?\n"},
        {"llamaindex_step_interrupted.json", "\necho 'answer TEXT' > resume"},
        {"llamaindex_waiting.json", "### 2. Call of `list_tables` (`call_0`)\n\n    {}\n\n### 3. Output (`call_0`)\n\n    users, logs\n"},
        {"llamaindex_waiting.json", "Value `tables`:\n\n    users: 3\n    logs: 12\n"},
        {"llamaindex_v0.json", "### 2. Message from `ai`\n\n    All of them?\n"},
        {"pydantic_ai_interrupted.json", "### 2. Reasoning\n\n    I look first.\n"},
        {"pydantic_ai_done.json", "Denied `drop_table` (`call_2`)\n\n    Keep the logs\n"},
        {"adk_interrupted.json", "### 2. Message from `cleaner`\n\n    I look first.\n"},
        {"adk_interrupted_snake.json", "### 3. Call of `list_tables` (`fc_0`), by `cleaner`\n"},
        {"autogen_team.json", "### 2. Call of `list_tables` (`call_0`), by `looker`\n\n    {}\n\n### 3. Output `list_tables` (`call_0`)\n"},
        {"ms_agent_interrupted.json", "    task: \"Clean up.\"\n"},
        {"claude_interrupted.jsonl", "### 6. Call of `Bash` (`toolu_02`)\n\n    {\n      \"command\": \"rm -rf build\"\n    }\n"},
        {"claude_interrupted.jsonl", "### 5. Output (`toolu_01`)\n\n    main.c\n"},
        {"crewai_feedback.json", "## Run\n\n### 1. Message from `human`\n\n    Drop every table.\n"},
        {"crewai_feedback.json", "    table: \"users\"\n    messages: above\n"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_holds(cases[i].name, cases[i].text);
}

static void test_all_forms_of_one_langgraph_run_say_the_same(void **state)
{
    static const char *const others[] = {"langgraph_py_actions.msgpack", "langgraph_py_tuple.msgpack", "langgraph_py_actions_objects.json",
                                         "langgraph_py_actions_tables.json"};
    cleanup_buf struct buf first = {0};

    (void)state;
    transcript_named("langgraph_py_actions.json", &first);
    assert_non_null(strstr(first.data, "### 5. Message from `ai`\n\n    Now the tables.\n\n### 6. Call of `drop_table` (`call_1`)\n"));
    assert_non_null(strstr(first.data, "## Waiting for a decision (2 calls)\n"));
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        cleanup_buf struct buf other = {0};
        transcript_named(others[i], &other);
        assert_string_equal(first.data, other.data);
    }
}

static void test_unknown_json(void **state)
{
    static const char text[] = "{\"b\":{\"list\":[1,[true,null],{\"x\":\"y\\n## z\"}],\"empty\":{},\"none\":[]},\"an odd: key\":\"v\","
                               "\"history\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"hi\"}]},{\"role\":"
                               "\"assistant\",\"content\":"
                               "[{\"type\":\"tool_use\",\"id\":\"t1\",\"name\":\"rm\",\"input\":{\"a\":1}}]},"
                               "{\"role\":\"user\",\"content\":"
                               "[{\"type\":\"tool_result\",\"tool_use_id\":\"t1\",\"content\":\"gone\"}]}]}";
    cleanup_buf struct buf out = {0}, scalar = {0};

    (void)state;
    transcript_of(text, strlen(text), &out);
    assert_non_null(strstr(out.data,
        "## Run\n\n### 1. Message from `human`\n\n    hi\n\n### 2. Call of `rm` (`t1`)\n\n    {\n      \"a\": 1\n    }\n\n"
        "### 3. Output (`t1`)\n\n    gone\n\n"
        "## State\n\n    b:\n      list:\n        - 1\n        -\n          - true\n          - null\n        -\n"
        "          x: \"y\\n## z\"\n      empty: {}\n      none: []\n    \"an odd: key\": \"v\"\n    history: above\n\n## Checkpoint\n"));
    transcript_of("42", 2, &scalar);
    assert_non_null(strstr(scalar.data, "## State\n\n    42\n\n"));
}

static void test_json_lines(void **state)
{
    static const char text[] = "{\"a\":1}\r\n\n{\"a\":2}\n";
    cleanup_buf struct buf out = {0};

    (void)state;
    transcript_of(text, strlen(text), &out);
    assert_non_null(strstr(out.data, "## State\n\n    -\n      a: 1\n    -\n      a: 2\n\n"));
}

static void test_an_outline_ends_and_says_so(void **state)
{
    cleanup_buf struct buf text = {0}, out = {0};

    (void)state;
    buf_adds(&text, "{\"s\":\"");
    for (int i = 0; i < 300; i++)
        buf_addc(&text, 's');
    buf_adds(&text, "\",\"l\":[0");
    for (int i = 1; i < 3000; i++)
        buf_addf(&text, ",%d", i);
    buf_adds(&text, "]}");
    transcript_of(text.data, text.len, &out);
    assert_non_null(strstr(out.data, "… 300 bytes\n"));
    assert_non_null(strstr(out.data, "      - 1997\n\nCut: 5011 more bytes are in state.json.\n"));
    assert_null(strstr(out.data, "      - 1998\n"));
}

static void test_what_is_no_json(void **state)
{
    cleanup_buf struct buf out = {0}, binary = {0}, none = {0}, empty = {0};

    (void)state;
    transcript_of("just\n\ntext", 10, &out);
    assert_non_null(strstr(out.data, "## State\n\n    just\n\n    text\n\n"));
    transcript_of("\xff\xfe\0x", 4, &binary);
    assert_non_null(strstr(binary.data, "4 bytes that aren't text, in state.json.\n"));
    transcript_of("", 0, &empty);
    assert_non_null(strstr(empty.data, "Nothing: it is empty.\n"));
    assert_int_equal(render_transcript(&none, &facts, NULL, NULL, 0), 0);
    assert_non_null(strstr(none.data, "database only"));
}

static void test_long_texts_are_cut(void **state)
{
    cleanup_buf struct buf text = {0}, out = {0};

    (void)state;
    buf_adds(&text, "{\"$schemaVersion\":\"1\",\"currentAgent\":{},\"originalInput\":\"x");
    for (int i = 0; i < 100000; i++)
        buf_adds(&text, "\xc3\xa9");
    buf_adds(&text, "\"}");
    transcript_of(text.data, text.len, &out);
    assert_true(utf8_valid(out.data, out.len));
    assert_true(out.len < 6000);
    assert_non_null(strstr(out.data, "\n\nCut: 4095 of 200001 bytes are shown, the rest is in state.json.\n\n"));
}

/* -- What two of one run differ by ------------------------------------------------------------------------------------- */

/* What comes before what is pending and which checkpoint it is. */
static size_t story(const struct buf *transcript)
{
    const char *end = strstr(transcript->data, "\n## Waiting for ");

    if (!end)
        end = strstr(transcript->data, "\n## Final output");
    if (!end)
        end = strstr(transcript->data, "\n## Checkpoint\n");
    return (size_t)(end - transcript->data);
}

static void test_a_later_transcript_only_adds(void **state)
{
    static const char *const pairs[][2] = {
        {"py_stages_1.json", "py_stages_2.json"}, {"py_stages_2.json", "py_stages_3.json"},
        {"js_stages_1.json", "js_stages_2.json"}, {"js_stages_2.json", "js_stages_3.json"},
        {"py_seed_interrupted.json", "py_seed_after_reject.json"}, {"js_seed_interrupted.json", "js_seed_after_approve.json"},
        {"langgraph_py_actions.json", "langgraph_py_actions_done.json"}, {"pydantic_ai_interrupted.json", "pydantic_ai_done.json"},
        {"adk_interrupted.json", "adk_done.json"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        cleanup_buf struct buf a = {0}, b = {0};
        transcript_named(pairs[i][0], &a);
        transcript_named(pairs[i][1], &b);
        assert_true(story(&a) > 100 && story(&b) > story(&a));
        if (memcmp(a.data, b.data, story(&a)) != 0)
            fail_msg("%s isn't the beginning of %s:\n%s\n%s", pairs[i][0], pairs[i][1], a.data, b.data);
    }
}

static void test_a_decision_changes_only_what_is_pending(void **state)
{
    cleanup_buf struct buf a = {0}, b = {0};

    (void)state;
    transcript_named("py_hosted_interrupted.json", &a);
    transcript_named("py_hosted_decided.json", &b);
    assert_int_equal(story(&a), story(&b));
    assert_memory_equal(a.data, b.data, story(&a));
    assert_string_not_equal(a.data, b.data);
}

/* -- What can't be mistaken for structure --------------------------------------------------------------------------------- */

static bool is_ours(const char *line)
{
    static const char *const beginnings[] = {
        "# Transcript\n", "## Input\n", "## Run\n", "## State\n", "## Final output\n", "## Inner run", "## Context", "## Waiting for a",
        "## Checkpoint\n", "### ", "- framework: `", "- run: `", "- name: `", "- id: `", "- taken: `", "- reason: `", "- parent: `",
        "- step: `", "- agent: `", "- model: `", "- turn: ", "- usage: ", "- status: `", "- note: `", "- database only", "```sh\n", "```\n",
        "echo approve > ", "echo in-place > ", "echo '", "# one of them; ", "# each its own", "Cut: ", "Nothing: it is empty.\n",
        "Channel `", "Value `", "Already ", "In this checkpoint's", "Its arguments aren't", "\n", "    ",
    };

    for (size_t i = 0; i < sizeof beginnings / sizeof *beginnings; i++) {
        if (str_starts(line, beginnings[i]))
            return true;
    }
    return strspn(line, "0123456789") > 0 && strstr(line, " bytes that aren't text, in state.json.\n");
}

static size_t count(const char *text, const char *what)
{
    size_t n = 0;

    for (const char *p = text; (p = strstr(p, what)); p++)
        n++;
    return n;
}

static void assert_tame(const char *name, const struct buf *out)
{
    static const char *const forbidden[] = {"\xc2\x85", "\xc2\x9b", "\xe2\x80\xae", "\xe2\x80\xa8", "\xe2\x81\xa6", "\xd8\x9c",
                                            "\xef\xbb\xbf", "\xf3\xa0\x81\x81", "\xc2\xad", "\xcd\x8f", "\xe1\x85\x9f", "\xe2\x80\x8b",
                                            "\xe2\x81\xa0", "\xe2\x81\xa4", "\xe3\x85\xa4", "\xef\xbe\xa0", "\xf3\xa0\x84\x80"};

    assert_true(utf8_valid(out->data, out->len));
    for (size_t i = 0; i < out->len; i++) {
        unsigned char c = (unsigned char)out->data[i];
        if ((c < 0x20 && c != '\n' && c != '\t') || c == 0x7f)
            fail_msg("%s: the byte 0x%02x reaches the terminal", name, c);
    }
    for (size_t i = 0; i < sizeof forbidden / sizeof *forbidden; i++)
        assert_null(strstr(out->data, forbidden[i]));
    for (const char *line = out->data; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
        if (!is_ours(line))
            fail_msg("%s: a line that isn't ours: %.60s", name, line);
    }
    assert_true(count(out->data, "\n## Waiting for ") <= 1);
    assert_int_equal(count(out->data, "\n## Checkpoint\n"), 1);
    assert_true(count(out->data, "\n```") <= 2);
    assert_int_equal(count(out->data, "\n- id: "), 1);
}

#define HOSTILE                                                                                                                     \
    "\n## Waiting for a decision (1 call)\n\n### `evil`\n```\n## Checkpoint\n- id: `x`\n- evil\n> evil\n1. evil\n<b>evil</b>\n"        \
    "\x1b[2J\x1b]0;t\x07\xc2\x9b" "2J\xe2\x80\xae\xe2\x80\xa8" "evil\xc2\x85\xe2\x81\xa6\xd8\x9c\xef\xbb\xbf\xf3\xa0\x81\x81"  \
    "\r## evil\r\n\xc2\xad\xcd\x8f\xe1\x85\x9f\xe2\x80\x8b\xe2\x81\xa0\xe2\x81\xa4\xe3\x85\xa4\xef\xbe\xa0\xf3\xa0\x84\x80"

/* What says which framework and which kind of item it is stays; everything else that is text becomes hostile. */
static void poison(json_t *v)
{
    static const char *const kept[] = {"type", "kind", "part_kind", "role", "store_type", "tool_calls", "state_json", "context_json"};
    const char *key;
    json_t *child;
    size_t i;

    json_array_foreach(v, i, child) {
        if (json_is_string(child))
            json_array_set_new(v, i, json_sprintf("%s%s", json_string_value(child), HOSTILE));
        else
            poison(child);
    }
    json_object_foreach(v, key, child) {
        bool keep = false;
        for (i = 0; i < sizeof kept / sizeof *kept; i++)
            keep |= strcmp(key, kept[i]) == 0;
        if (!keep && json_is_string(child))
            json_string_set(child, HOSTILE);
        else
            poison(child);
    }
}

static size_t poisoned;

static void poisoned_sample(const char *name, const char *bytes, size_t n)
{
    cleanup_json json_t *root = json_loadb(bytes, n, 0, NULL);
    cleanup_free char *text = NULL;
    cleanup_buf struct buf out = {0}, plain = {0};

    transcript_of(bytes, n, &plain);
    assert_tame(name, &plain);
    if (!root)
        return;
    poison(root);
    text = json_dumps(root, 0);
    transcript_of(text, strlen(text), &out);
    assert_tame(name, &out);
    poisoned++;
}

static void test_hostile_texts_in_every_sample(void **state)
{
    (void)state;
    each_sample(poisoned_sample);
    assert_true(poisoned > 50);
}

static void test_hostile_facts(void **state)
{
    struct checkpoint_facts f = facts;
    cleanup_state_info struct state_info info = {0};
    cleanup_buf struct buf out = {0};

    (void)state;
    f.name = f.reason = f.parent = f.run_id = f.step_id = f.framework = f.framework_version = f.agent = HOSTILE;
    assert_int_equal(state_read("{}", 2, &info, NULL), 0);
    assert_int_equal(render_transcript(&out, &f, &info, "{}", 2), 0);
    assert_tame("facts", &out);
}

static void test_bytes_that_are_no_utf8(void **state)
{
    static const char plain[] = "plain text with \x1b[31m and a bad byte \xff";
    static const char text[] = "{\"role\":\"\xff\xc0\xaf\",\"x\":\"\xed\xa0\x80 \xf4\x90\x80\x80 \x80 \xe2\x82\",\"\xfe\":1}";
    cleanup_buf struct buf out = {0}, cut = {0};

    (void)state;
    transcript_of(text, strlen(text), &out);
    assert_tame("invalid", &out);
    transcript_of(plain, strlen(plain), &cut);
    assert_tame("no text", &cut);
}

/* -- What it offers ----------------------------------------------------------------------------------------------------- */

/* The commands that a transcript offers for calls which take what `allowed` says, each a JSON list. */
static void offered(const char *const *allowed, size_t n, struct buf *out)
{
    cleanup_buf struct buf supplied = {0}, whole = {0};
    cleanup_state_info struct state_info info = {0};
    cleanup_meta struct meta meta = {0};
    const char *from, *to;

    for (size_t i = 0; i < n; i++)
        buf_addf(&supplied, "%s{\"id\":\"c%zu\",\"tool\":\"rm\",\"arguments\":{},\"allowed\":%s}", i ? "," : "{\"pending\":[", i,
                 allowed[i]);
    buf_adds(&supplied, "]}");
    assert_int_equal(meta_parse(supplied.data, supplied.len, &meta, NULL), 0);
    assert_int_equal(state_read("{}", 2, &info, NULL), 0);
    assert_int_equal(state_supply(&info, &meta, NULL), 0);
    assert_int_equal(render_transcript(&whole, &facts, &info, "{}", 2), 0);
    from = strstr(whole.data, "```sh\n");
    assert_non_null(from);
    to = strstr(from + 6, "```\n");
    assert_non_null(to);
    buf_add(out, from + 6, (size_t)(to - from) - 6);
    assert_int_equal(buf_error(out), 0);
}

#define PUT_BACK "echo in-place > restore                     # put the database back first\n"

static void test_only_what_is_allowed_is_offered(void **state)
{
    static const char *const review[] = {"[\"edit\",\"reject\"]"}, *const approve[] = {"[\"approve\"]"},
                      *const mixed[] = {"[\"approve\",\"edit\"]", "[\"edit\",\"respond\"]"},
                      *const either[] = {"[\"approve\",\"reject\"]", "[\"reject\"]"};
    cleanup_buf struct buf a = {0}, b = {0}, c = {0}, d = {0};

    (void)state;
    offered(review, 1, &a);
    assert_string_equal(a.data, "echo 'reject TEXT' > resume                 # reject it with that message\n" PUT_BACK
                        "echo 'in-place reject TEXT' > replay        # put it back, reject, and wake the agent\n\n"
                        "# what it takes instead\n"
                        "echo '{\"decisions\":[{\"id\":\"ID\",\"decision\":\"edit\",\"arguments\":{}}]}' > resume\n");
    offered(approve, 1, &b);
    assert_string_equal(b.data, "echo approve > resume                       # approve it, and wake the agent\n" PUT_BACK
                        "echo 'in-place approve' > replay            # put it back, approve, and wake the agent\n");
    offered(mixed, 2, &c);
    assert_string_equal(c.data, PUT_BACK "\n# each its own decision, all in one write\n"
                        "echo '{\"decisions\":[{\"id\":\"ID\",\"decision\":\"approve\"},\n"
                        "      {\"id\":\"ID\",\"decision\":\"edit\",\"arguments\":{}},\n"
                        "      {\"id\":\"ID\",\"decision\":\"respond\",\"message\":\"TEXT\"}]}' > resume\n");
    offered(either, 2, &d);
    assert_null(strstr(d.data, "echo approve"));
    assert_non_null(strstr(d.data, "echo 'reject TEXT' > resume                 # reject all with that message\n"));
}

/* -- How long it gets ---------------------------------------------------------------------------------------------------- */

#define LONG_RUN_MAX (16u << 20)

static void ends_and_says_so(const struct buf *state_text, const char *cut)
{
    static const char supplied[] = "{\"pending\":[{\"id\":\"call_1\",\"tool\":\"drop\",\"arguments\":{}}]}";
    cleanup_buf struct buf out = {0}, again = {0};
    cleanup_state_info struct state_info info = {0};
    cleanup_meta struct meta meta = {0};

    assert_int_equal(buf_error(state_text), 0);
    assert_int_equal(meta_parse(supplied, strlen(supplied), &meta, NULL), 0);
    assert_int_equal(state_read(state_text->data, state_text->len, &info, NULL), 0);
    assert_int_equal(state_supply(&info, &meta, NULL), 0);
    assert_int_equal(render_transcript(&out, &facts, &info, state_text->data, state_text->len), 0);
    assert_true(out.len < LONG_RUN_MAX);
    assert_non_null(strstr(out.data, cut));
    assert_non_null(strstr(out.data, "are in state.json.\n\n## Waiting for a decision (1 call)\n"));
    assert_non_null(strstr(out.data, "\n## Checkpoint\n"));
    assert_int_equal(render_transcript(&again, &facts, &info, state_text->data, state_text->len), 0);
    assert_true(again.len == out.len && memcmp(again.data, out.data, out.len) == 0);
}

static void test_a_run_of_many_parts_ends_and_says_so(void **state)
{
    cleanup_buf struct buf text = {0};

    (void)state;
    buf_adds(&text, "{\"messages\":[{\"role\":\"user\",\"content\":[\"a\"");
    for (size_t i = 0; i < 1000000; i++)
        buf_adds(&text, i % 2 ? ",\"a\"" : ",\"\"");
    buf_adds(&text, "]}]}");
    ends_and_says_so(&text, "\n## Cut\n\nThe run is shown to here: ");
}

static void test_a_run_of_many_messages_ends_and_says_so(void **state)
{
    cleanup_buf struct buf text = {0};

    (void)state;
    buf_adds(&text, "{\"messages\":[");
    for (size_t i = 0; i < 300000; i++)
        buf_addf(&text, "%s{\"role\":\"user\",\"content\":\"number %zu\"}", i ? "," : "", i);
    buf_adds(&text, "]}");
    ends_and_says_so(&text, " more steps, or parts of one, are in state.json.\n");
}

static void test_a_list_of_texts_ends_and_says_so(void **state)
{
    cleanup_buf struct buf text = {0}, out = {0};

    (void)state;
    buf_adds(&text, "{\"messages\":[{\"role\":\"tool\",\"tool_call_id\":\"c\",\"content\":[\"a\"");
    for (size_t i = 1; i < 100000; i++)
        buf_adds(&text, ",\"a\"");
    buf_adds(&text, "]},{\"role\":\"user\",\"content\":\"and on\"}]}");
    transcript_of(text.data, text.len, &out);
    assert_true(out.len < 300000);
    assert_non_null(strstr(out.data, " of 100000 parts are shown, the rest is in state.json.\n\n### 2. Message from `human`\n"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_guide),
        cmocka_unit_test(test_every_framework),
        cmocka_unit_test(test_all_forms_of_one_langgraph_run_say_the_same),
        cmocka_unit_test(test_unknown_json),
        cmocka_unit_test(test_json_lines),
        cmocka_unit_test(test_an_outline_ends_and_says_so),
        cmocka_unit_test(test_what_is_no_json),
        cmocka_unit_test(test_long_texts_are_cut),
        cmocka_unit_test(test_a_later_transcript_only_adds),
        cmocka_unit_test(test_a_decision_changes_only_what_is_pending),
        cmocka_unit_test(test_hostile_texts_in_every_sample),
        cmocka_unit_test(test_hostile_facts),
        cmocka_unit_test(test_bytes_that_are_no_utf8),
        cmocka_unit_test(test_only_what_is_allowed_is_offered),
        cmocka_unit_test(test_a_run_of_many_parts_ends_and_says_so),
        cmocka_unit_test(test_a_run_of_many_messages_ends_and_says_so),
        cmocka_unit_test(test_a_list_of_texts_ends_and_says_so),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
