/* The index: what a mount answers from memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tree/index.h"
#include "tree/tree.h"
#include "util/text.h"

static struct index *x;

static int up(void **state)
{
    (void)state;
    x = index_new();
    return x ? 0 : -1;
}

static int down(void **state)
{
    (void)state;
    index_free(x);
    return 0;
}

/* A sealed checkpoint as the store would hand it over. */
static void put(int64_t id, const char *name, int64_t seq, enum checkpoint_phase phase, int64_t call)
{
    struct store_checkpoint c = {.id = id, .uid = str_format("ck-%d", (int)id), .name = str_dup(name), .seq = seq, .phase = phase};

    for (int i = 0; i < FILE_COUNT; i++)
        c.sizes[i] = -1;
    if (call) {
        c.calls = calloc(1, sizeof(*c.calls));
        c.calls[0] = (struct store_call){.id = call, .filename = str_format("c%d.json", (int)call), .file_size = 7};
        c.n_calls = 1;
    }
    assert_int_equal(index_put(x, &c, NULL), 0);
}

static int64_t latest(void)
{
    struct index_entry *e;
    int64_t id;

    index_read_lock(x);
    e = index_latest(x);
    id = e ? e->c.id : 0;
    index_unlock(x);
    return id;
}

/* Not by id: a failed take that was tried again is newer than what was taken in between. */
static void the_latest_is_by_sequence(void **state)
{
    (void)state;
    assert_int_equal(latest(), 0);
    put(1, "one", 10, PHASE_FAILED, 0);
    put(2, "two", 11, PHASE_SEALED, 0);
    put(3, "three", 12, PHASE_SAVED, 0);
    assert_int_equal(latest(), 2);
    put(1, "one", 13, PHASE_SEALED, 0);
    assert_int_equal(latest(), 1);
    index_remove(x, 1, NULL);
    assert_int_equal(latest(), 2);
    index_remove(x, 2, NULL);
    assert_int_equal(latest(), 0);
}

/* A call is found by its row id, in whichever checkpoint, until it is gone. */
static void calls_by_their_ids(void **state)
{
    struct node_attr a;

    (void)state;
    for (int64_t i = 1; i <= 50; i++) {
        char name[] = {'n', (char)('0' + i / 10), (char)('0' + i % 10), '\0'};

        put(i, name, i, PHASE_SEALED, 1000 + i);
    }
    put(7, "renamed", 7, PHASE_SEALED, 1007);
    for (int64_t i = 1; i <= 50; i++) {
        assert_int_equal(tree_attr(x, node_make(CLASS_CALL, 1000 + i, ONLY_KIND), &a), 0);
        assert_int_equal(a.size, 7);
    }
    index_remove(x, 9, NULL);
    put(10, "failed", 60, PHASE_FAILED, 0);
    assert_int_equal(tree_attr(x, node_make(CLASS_CALL, 1009, ONLY_KIND), &a), -ESTALE);
    assert_int_equal(tree_attr(x, node_make(CLASS_CALL, 1010, ONLY_KIND), &a), -ESTALE);
    assert_int_equal(tree_attr(x, node_make(CLASS_CALL, 1011, ONLY_KIND), &a), 0);
}

static void actions_by_their_names(void **state)
{
    node_id dir = node_make(CLASS_MOUNT, 0, MOUNT_ACTIONS);
    struct node_attr a;

    (void)state;
    for (int64_t id = 30; id > 0; id--) { /* they may come in any order */
        struct store_action_entry e = {.id = id, .doc_size = id, .checkpoint = 1};

        e.uid[0] = (char)('A' + id);
        assert_int_equal(index_action_put(x, &e), 0);
        assert_int_equal(index_action_put(x, &e), 0);
    }
    assert_int_equal(tree_lookup(x, dir, "C.json", &a), 0);
    assert_int_equal(node_row(a.id), 2);
    assert_int_equal(a.size, 2);
    assert_int_equal(tree_lookup(x, dir, "C", &a), -ENOENT);
    assert_int_equal(tree_lookup(x, dir, ".json", &a), -ENOENT);
    assert_int_equal(tree_lookup(x, dir, "no.json", &a), -ENOENT);
    assert_int_equal(tree_lookup(x, dir, "a name that is longer than any public id of an action.json", &a), -ENOENT);
}

/* Temporaries that became their file are remembered for whoever has them open, but not for ever; those of a deleted checkpoint go. */
static void temporaries(void **state)
{
    int64_t first = 0;
    struct index_temp *t;

    (void)state;
    put(1, "one", 1, PHASE_SAVED, 0);
    index_write_lock(x);
    for (int i = 0; i < 200; i++) {
        t = index_temp_add(x, 1, ".state.json.tmp");
        assert_non_null(t);
        first = first ? first : t->id;
        assert_ptr_equal(index_temp_by_name(x, 1, ".state.json.tmp"), t);
        t->became = CKPT_STATE;
        assert_null(index_temp_by_name(x, 1, ".state.json.tmp"));
    }
    assert_null(index_temp_by_id(x, first));
    assert_ptr_equal(index_temp_by_id(x, t->id), t);
    t = index_temp_add(x, 1, "meta.json~");
    first = t->id;
    index_unlock(x);
    index_remove(x, 1, NULL);
    index_write_lock(x);
    assert_null(index_temp_by_id(x, first));
    assert_null(index_temp_next(x, 1, 0));
    index_unlock(x);
}

#define T(f) cmocka_unit_test_setup_teardown(f, up, down)

int main(void)
{
    const struct CMUnitTest tests[] = {T(the_latest_is_by_sequence), T(calls_by_their_ids), T(actions_by_their_names), T(temporaries)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
