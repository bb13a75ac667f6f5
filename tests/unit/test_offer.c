/* Lines offered for copying: sh reads the same from them whether they are pasted from JSON as they stand there, or decoded. */
#include "util/offer.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "util/buf.h"
#include "util/cleanup.h"
#include "util/text.h"

#define UID "ck-00112233445566778899"

static const char *const safe[] = {"plain", "two words", "a;b", "$HOME", "`id`", "$(id)", "*", "~", "a&b", "a|b", "(x)", "#x", "!x", "-n",
                                   "é", "x>y"};
static const char *const unsafe[] = {"it's", "'; id; '", "'\\''", "a\"b", "a\\nb", "\\", "'"};

static void assert_sh(const char *line, const char *expected)
{
    FILE *f = popen(line, "r");
    struct buf out = {0};
    char part[256];
    size_t n;

    assert_non_null(f);
    while ((n = fread(part, 1, sizeof part, f)) > 0)
        buf_add(&out, part, n);
    assert_int_equal(pclose(f), 0);
    assert_string_equal(out.data, expected);
    buf_free(&out);
}

/* As it stands in JSON. */
static void assert_same_in_json(const char *line)
{
    cleanup_json json_t *s = json_string(line);
    cleanup_free char *text = json_dumps(s, JSON_ENCODE_ANY);
    cleanup_free char *plain = str_format("\"%s\"", line);

    assert_string_equal(text, plain);
}

static void test_names_that_sh_reads_back(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof safe / sizeof *safe; i++) {
        cleanup_free char *path = offer_path(safe[i], UID);
        cleanup_free char *line = offer_run("printf %s", path, "wait");
        cleanup_free char *dots = str_format("%s%s/wait", *safe[i] == '-' ? "./" : "", safe[i]);
        cleanup_free char *text = str_format("delete %s", path);
        cleanup_free char *write = offer_write("/dev/stdout", text);
        cleanup_free char *written = str_format("%s\n", text);

        assert_string_equal(path, safe[i]);
        assert_same_in_json(line);
        assert_sh(line, dots);
        assert_sh(write, written);
    }
}

static void test_others_go_by_their_id(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof unsafe / sizeof *unsafe; i++) {
        cleanup_free char *path = offer_path(unsafe[i], UID);
        cleanup_free char *branch = offer_branch_path(unsafe[i], UID, "two words");
        cleanup_free char *line = offer_delete(branch);

        assert_string_equal(path, ".by-id/" UID);
        assert_string_equal(line, "echo 'delete .by-id/" UID "/branches/two words' > .control/prune");
        assert_same_in_json(line);
    }
}

/* A branch has no id that is a path, and a person's own text none at all. */
static void test_what_no_line_can_say_is_said_in_words(void **state)
{
    cleanup_free char *branch = offer_branch_path("first", UID, "it's");
    cleanup_free char *away = offer_run("rmdir", branch, NULL);
    cleanup_free char *gone = offer_delete(branch);
    cleanup_free char *text = offer_write("first/replay", "in-place reject Don't");

    (void)state;
    assert_string_equal(away, "rmdir of the path <first/branches/it's>");
    assert_string_equal(gone, "write <delete first/branches/it's> to the file <.control/prune>");
    assert_string_equal(text, "write <in-place reject Don't> to the file <first/replay>");
}

static void test_lines_as_people_type_them(void **state)
{
    cleanup_free char *plain = offer_write("first/restore", "in-place");
    cleanup_free char *words = offer_run("cat", "two words", "wait");

    (void)state;
    assert_string_equal(plain, "echo in-place > first/restore");
    assert_string_equal(words, "cat 'two words/wait'");
    assert_null(offer_delete(NULL));
    assert_null(offer_run("cat", NULL, "wait"));
    assert_null(offer_write(NULL, "x"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names_that_sh_reads_back),
        cmocka_unit_test(test_others_go_by_their_id),
        cmocka_unit_test(test_what_no_line_can_say_is_said_in_words),
        cmocka_unit_test(test_lines_as_people_type_them),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
