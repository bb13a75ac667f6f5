/* The model of .import/: names, rules of rename and unlink, room, open files, and what it becomes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tree/staging.h"

#define FILE_MODE (S_IFREG | 0644)
#define DIR_MODE (S_IFDIR | 0755)

static struct staging *s;

static int up(void **state)
{
    (void)state;
    s = staging_new(10, 1000, 600, 1, 2, 0755);
    return s ? 0 : -1;
}

static int down(void **state)
{
    (void)state;
    staging_free(s);
    return 0;
}

static int64_t made(int64_t dir, const char *name, mode_t mode)
{
    struct staged_attr a = {0};

    assert_int_equal(staging_make(s, dir, name, mode, 3, 4, NULL, &a), 0);
    assert_int_equal(a.mode, mode);
    assert_int_equal(a.uid, 3);
    return a.id;
}

static int64_t id_of(int64_t dir, const char *name)
{
    struct staged_attr a;
    int r = staging_lookup(s, dir, name, &a);

    return r < 0 ? r : a.id;
}

static void names_lead_to_numbers_that_are_never_used_again(void **state)
{
    struct staged_attr a;
    int64_t gone = 0;
    int64_t first = made(STAGING_ROOT, "a", FILE_MODE);

    (void)state;
    assert_int_equal(id_of(STAGING_ROOT, "a"), first);
    assert_int_equal(id_of(STAGING_ROOT, "b"), -ENOENT);
    assert_int_equal(staging_make(s, STAGING_ROOT, "a", FILE_MODE, 0, 0, NULL, &a), -EEXIST);
    assert_int_equal(staging_make(s, first, "x", FILE_MODE, 0, 0, NULL, &a), -ENOTDIR);
    assert_int_equal(staging_make(s, 99, "x", FILE_MODE, 0, 0, NULL, &a), -ESTALE);
    assert_int_equal(staging_remove(s, STAGING_ROOT, "a", true, &gone), -ENOTDIR);
    assert_int_equal(staging_remove(s, STAGING_ROOT, "a", false, &gone), 0);
    assert_int_equal(gone, first);
    assert_int_equal(staging_attr(s, first, &a), -ESTALE);
    assert_true(made(STAGING_ROOT, "a", FILE_MODE) > first);
}

static void rename_follows_the_rules(void **state)
{
    int64_t d = made(STAGING_ROOT, "d", DIR_MODE);
    int64_t e = made(d, "e", DIR_MODE);
    int64_t f = made(STAGING_ROOT, "f", FILE_MODE);
    int64_t g = made(e, "g", FILE_MODE);
    int64_t gone = 0;

    (void)state;
    assert_int_equal(staging_rename(s, STAGING_ROOT, "d", e, "in", false, &gone), -EINVAL);
    assert_int_equal(staging_rename(s, STAGING_ROOT, "d", d, "in", false, &gone), -EINVAL);
    assert_int_equal(staging_rename(s, STAGING_ROOT, "f", STAGING_ROOT, "d", false, &gone), -EISDIR);
    assert_int_equal(staging_rename(s, STAGING_ROOT, "d", STAGING_ROOT, "f", false, &gone), -ENOTDIR);
    assert_int_equal(staging_rename(s, STAGING_ROOT, "f", e, "g", true, &gone), -EEXIST);
    assert_int_equal(staging_rename(s, STAGING_ROOT, "no", e, "g", false, &gone), -ENOENT);
    assert_int_equal(gone, 0);
    assert_int_equal(staging_rename(s, STAGING_ROOT, "f", e, "g", false, &gone), 0);
    assert_int_equal(gone, g);
    assert_int_equal(id_of(e, "g"), f);
    assert_int_equal(id_of(STAGING_ROOT, "f"), -ENOENT);
    assert_int_equal(staging_parent(s, f), e);
    assert_int_equal(staging_rename(s, e, "g", e, "g", false, &gone), 0);
    made(STAGING_ROOT, "empty", DIR_MODE);
    assert_int_equal(staging_rename(s, STAGING_ROOT, "empty", STAGING_ROOT, "d", false, &gone), -ENOTEMPTY);
    assert_int_equal(staging_rename(s, STAGING_ROOT, "d", STAGING_ROOT, "empty", false, &gone), 0);
    assert_int_equal(id_of(STAGING_ROOT, "empty"), d);
    assert_int_equal(staging_remove(s, STAGING_ROOT, "empty", true, &gone), -ENOTEMPTY);
}

struct seen {
    char names[256];
    size_t stop;
    int64_t cookie;
};

static bool see(void *arg, const char *name, const struct staged_attr *a, int64_t cookie)
{
    struct seen *n = arg;

    if (n->stop-- == 0)
        return false;
    strcat(strcat(n->names, name), " ");
    assert_int_equal(a->id, cookie);
    n->cookie = cookie;
    return true;
}

static void a_listing_goes_on_over_changes(void **state)
{
    struct seen n = {.stop = 2};
    int64_t gone;

    (void)state;
    for (const char *name = "abcd"; *name; name++) {
        char text[2] = {*name, '\0'};

        made(STAGING_ROOT, text, FILE_MODE);
    }
    assert_int_equal(staging_list(s, STAGING_ROOT, 0, see, &n), 0);
    assert_string_equal(n.names, "a b ");
    assert_int_equal(staging_remove(s, STAGING_ROOT, "b", false, &gone), 0);
    assert_int_equal(staging_remove(s, STAGING_ROOT, "c", false, &gone), 0);
    made(STAGING_ROOT, "e", FILE_MODE);
    n.stop = 9;
    assert_int_equal(staging_list(s, STAGING_ROOT, n.cookie, see, &n), 0);
    assert_string_equal(n.names, "a b d e ");
}

static void room_is_bounded(void **state)
{
    int64_t a = made(STAGING_ROOT, "a", FILE_MODE), b = made(STAGING_ROOT, "b", FILE_MODE);
    struct staged_attr attr;
    int64_t gone, bytes, max_bytes, old = -1;
    size_t nodes, max_nodes;

    (void)state;
    assert_int_equal(staging_resize(s, a, 601, false, NULL), -EFBIG);
    assert_int_equal(staging_resize(s, a, 600, false, &old), 0);
    assert_int_equal(old, 0);
    assert_int_equal(staging_resize(s, b, 401, true, NULL), -ENOSPC);
    assert_int_equal(staging_resize(s, b, 400, true, NULL), 0);
    assert_int_equal(staging_resize(s, b, 10, true, NULL), 0); /* at least */
    assert_int_equal(staging_attr(s, b, &attr), 0);
    assert_int_equal(attr.size, 400);
    assert_int_equal(staging_remove(s, STAGING_ROOT, "a", false, &gone), 0);
    staging_used(s, &nodes, &bytes, &max_nodes, &max_bytes);
    assert_int_equal(nodes, 1);
    assert_int_equal(bytes, 400);
    for (int i = 0; i < 9; i++) {
        char name[16];

        snprintf(name, sizeof(name), "n%d", i);
        made(STAGING_ROOT, name, FILE_MODE);
    }
    assert_int_equal(staging_make(s, STAGING_ROOT, "one more", FILE_MODE, 0, 0, NULL, &attr), -ENOSPC);
}

static void a_removed_file_lives_while_it_is_open(void **state)
{
    int64_t a = made(STAGING_ROOT, "a", FILE_MODE);
    struct staged_attr attr;
    int64_t gone;

    (void)state;
    assert_int_equal(staging_open(s, a, true), 0);
    assert_int_equal(staging_remove(s, STAGING_ROOT, "a", false, &gone), 0);
    assert_int_equal(staging_attr(s, a, &attr), 0);
    assert_int_equal(attr.nlink, 0);
    assert_int_equal(staging_resize(s, a, 5, false, NULL), 0);
    staging_close(s, a, true);
    assert_int_equal(staging_attr(s, a, &attr), -ESTALE);
    assert_int_equal(staging_open(s, a, false), -ESTALE);
}

static node_id resolve(void *arg, node_id dir, const char *name, mode_t mode)
{
    assert_string_equal(arg, "arg");
    (void)mode;
    if (dir == 700 && strcmp(name, "state.json") == 0)
        return 701;
    return dir == 700 && strcmp(name, "pending") == 0 ? 702 : dir == 702 ? 703 : 0;
}

static void what_is_registered_stands_for_the_checkpoint(void **state)
{
    int64_t d = made(STAGING_ROOT, "d", DIR_MODE), f = made(d, "state.json", FILE_MODE), p = made(d, "pending", DIR_MODE);
    int64_t call = made(p, "c.json", FILE_MODE), other = made(d, "other", FILE_MODE);
    int64_t *gone = NULL, bytes, max_bytes;
    struct staged_attr a;
    size_t n = 0, nodes, max_nodes;
    char arg[] = "arg";

    (void)state;
    assert_int_equal(staging_resize(s, f, 10, false, NULL), 0);
    assert_int_equal(staging_open(s, f, true), 0);
    assert_int_equal(staging_freeze(s, d), -EBUSY); /* somebody writes */
    assert_true(staging_written(s, d) && staging_written(s, f) && !staging_written(s, p));
    staging_close(s, f, true);
    assert_int_equal(staging_open(s, f, false), 0);
    assert_false(staging_written(s, d));
    assert_int_equal(staging_freeze(s, d), 0);
    assert_int_equal(staging_freeze(s, d), -EBUSY);
    assert_int_equal(staging_freeze(s, p), -EBUSY);
    assert_int_equal(staging_open(s, f, true), -EBUSY);
    assert_int_equal(staging_resize(s, f, 11, false, NULL), -EBUSY);
    assert_int_equal(staging_make(s, p, "x", FILE_MODE, 0, 0, NULL, &a), -EBUSY);
    assert_int_equal(staging_rename(s, d, "other", STAGING_ROOT, "out", false, &bytes), -EBUSY);
    assert_int_equal(staging_remove(s, d, "other", false, &bytes), -EBUSY);
    assert_int_equal(staging_become(s, d, 700, resolve, arg, &gone, &n), 0);
    staging_thaw(s, d);
    assert_int_equal(n, 5);
    free(gone);
    assert_int_equal(id_of(STAGING_ROOT, "d"), -ENOENT);
    assert_int_equal(staging_became(s, d), 700);
    assert_int_equal(staging_became(s, f), 701);
    assert_int_equal(staging_became(s, p), 702);
    assert_int_equal(staging_became(s, call), 703);
    assert_int_equal(staging_attr(s, other, &a), -ESTALE);
    assert_int_equal(staging_open(s, f, true), -EPERM);
    staging_used(s, &nodes, &bytes, &max_nodes, &max_bytes);
    assert_int_equal(bytes, 0);
    staging_close(s, f, false);
    assert_int_equal(staging_became(s, f), 701);
}

static void several_are_registered_at_a_time(void **state)
{
    int64_t d = made(STAGING_ROOT, "d", DIR_MODE), in = made(d, "in", DIR_MODE), file = made(STAGING_ROOT, "file", FILE_MODE);
    int64_t gone;

    (void)state;
    assert_int_equal(staging_freeze(s, in), 0);
    assert_int_equal(staging_freeze(s, d), -EBUSY); /* something in it */
    assert_int_equal(staging_freeze(s, file), 0);
    made(STAGING_ROOT, "other", FILE_MODE);
    assert_int_equal(staging_rename(s, STAGING_ROOT, "other", STAGING_ROOT, "file", false, &gone), -EBUSY);
    staging_thaw(s, in);
    assert_int_equal(staging_freeze(s, d), 0);
    assert_int_equal(staging_rename(s, STAGING_ROOT, "other", STAGING_ROOT, "file", false, &gone), -EBUSY);
    staging_thaw(s, file);
    assert_int_equal(staging_rename(s, STAGING_ROOT, "other", STAGING_ROOT, "file", false, &gone), 0);
    assert_int_equal(gone, file);
}

static void the_oldest_registered_are_forgotten(void **state)
{
    int64_t first = 0, *gone = NULL;
    struct staged_attr a;
    size_t n;

    (void)state;
    staging_free(s);
    s = staging_new(1000, 1000, 1000, 0, 0, 0755);
    for (int i = 0; i <= 64; i++) {
        int64_t id = made(STAGING_ROOT, "x", FILE_MODE);

        first = first ? first : id;
        assert_int_equal(staging_became(s, first), i ? 800 : 0);
        assert_int_equal(staging_become(s, id, 800, resolve, NULL, &gone, &n), 0);
        free(gone);
    }
    assert_int_equal(staging_attr(s, first, &a), -ESTALE);
    assert_int_equal(staging_became(s, first + 1), 800);
}

#define T(f) cmocka_unit_test_setup_teardown(f, up, down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(names_lead_to_numbers_that_are_never_used_again),
        T(rename_follows_the_rules),
        T(a_listing_goes_on_over_changes),
        T(room_is_bounded),
        T(a_removed_file_lives_while_it_is_open),
        T(what_is_registered_stands_for_the_checkpoint),
        T(several_are_registered_at_a_time),
        T(the_oldest_registered_are_forgotten),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
