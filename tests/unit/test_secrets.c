/* Secrets in what is quoted: what is called one, and how long it takes to look. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "util/cleanup.h"
#include "util/secrets.h"

static void what_is_called_a_secret(void **state)
{
    static const struct { const char *text, *masked; } cases[] = {
        {"PGPASSWORD=x y", "PGPASSWORD=*** y"},
        {"run --token abc --api-key=def", "run --token *** --api-key=***"},
        {"the token abc", "the token abc"},
        {"--long-token abc token def", "--long-token *** token def"},
        {"postgres://me:secret@h/db", "postgres://me:***@h/db"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        cleanup_buf struct buf b = {0};

        assert_true(secrets_mask_named(cases[i].text, &b) == (strcmp(cases[i].text, cases[i].masked) != 0));
        assert_string_equal(b.data, cases[i].masked);
    }
}

/* A refused command may be megabytes without a blank. */
static void a_long_word_takes_no_time(void **state)
{
    size_t n = 4 << 20;
    cleanup_free char *text = calloc(1, n + 1);
    cleanup_buf struct buf b = {0};
    clock_t start = clock();

    (void)state;
    assert_non_null(text);
    for (size_t i = 0; i < n; i++)
        text[i] = "token"[i % 5];
    assert_false(secrets_mask_named(text, &b));
    assert_int_equal(b.len, n);
    assert_true(clock() - start < 20 * CLOCKS_PER_SEC);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(what_is_called_a_secret), cmocka_unit_test(a_long_word_takes_no_time)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
