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
        struct store_action_entry e = {.id = id, .doc_size = id};

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

/* They are in memory: who is killed before the rename leaves them there. */
static void no_room_for_temporaries(void **state)
{
    struct index_temp *big, *t;

    (void)state;
    put(1, "one", 1, PHASE_SAVED, 0);
    index_write_lock(x);
    big = index_temp_add(x, 1, ".state.json.1");
    t = index_temp_add(x, 1, ".state.json.2");
    big->data.len = INDEX_TEMPS_MAX - 10; /* as if it had been written */
    assert_int_equal(index_temp_resize(x, t, 11), -ENOSPC);
    assert_int_equal(index_temp_resize(x, t, 10), 0);
    big->data.len = 0;
    assert_int_equal(index_temp_resize(x, t, 11), 0);
    index_unlock(x);
}

/* ---- states under way ----------------------------------------------------------------------------------------------------- */

/* The store's answer about checkpoint 1: so many bytes, as of that part. */
static void answer(int64_t seq, enum checkpoint_phase phase, int64_t size, int64_t part)
{
    struct store_checkpoint c = {.id = 1, .uid = str_dup("ck-1"), .name = str_dup("one"), .seq = seq, .phase = phase, .state_part = part};

    for (int i = 0; i < FILE_COUNT; i++)
        c.sizes[i] = -1;
    c.sizes[FILE_STATE] = size;
    assert_int_equal(index_put(x, &c, NULL), 0);
}

static int64_t draft(void)
{
    int64_t size;

    index_read_lock(x);
    size = index_by_id(x, 1)->draft_size;
    index_unlock(x);
    return size;
}

/* Else what appends afterwards would overwrite. */
static void an_older_answer_takes_no_bytes_back(void **state)
{
    (void)state;
    answer(1, PHASE_SAVED, -1, 0);
    assert_int_equal(index_draft_seen(x, 1, 1006, 7), 1006); /* an open asked for it, */
    answer(1, PHASE_SAVED, -1, 0);                           /* and a refresh had asked before the first write, */
    assert_int_equal(draft(), 1006);
    answer(1, PHASE_SAVED, 500, 6); /* or before the last one */
    assert_int_equal(draft(), 1006);
    assert_int_equal(index_draft_seen(x, 1, 500, 6), 1006);
    answer(1, PHASE_SAVED, 2000, 8); /* and this one later */
    assert_int_equal(draft(), 2000);
    index_draft(x, 1, 2010, 9, false);
    answer(1, PHASE_SAVED, 2000, 8);
    assert_int_equal(draft(), 2010);
    index_draft(x, 1, 3, 10, true); /* cut */
    answer(1, PHASE_SAVED, 2010, 9);
    assert_int_equal(draft(), 3);
    index_draft(x, 1, 20, 11, false); /* within what another mount has written: that mount's part is older, the size is not */
    answer(1, PHASE_SAVED, 30, 11);
    assert_int_equal(draft(), 30);
}

/* Its parts are gone with it, so their numbers say nothing of the next. */
static void another_take_has_another_state(void **state)
{
    (void)state;
    answer(1, PHASE_SAVED, 1006, 7);
    answer(2, PHASE_TAKING, -1, 0);
    assert_int_equal(draft(), -1);
    answer(2, PHASE_SAVED, 1006, 9);
    answer(2, PHASE_SEALED, 1006, 0);
    assert_int_equal(draft(), -1);
}

/* ---- views --------------------------------------------------------------------------------------------------------------- */

static void put_at(int64_t id, const char *name, int64_t seq, int64_t ms, const char *run, const char *step, const char *snapshot)
{
    struct store_checkpoint c = {.id = id, .uid = str_format("ck-%d", (int)id), .name = str_dup(name), .seq = seq, .phase = PHASE_SEALED,
                                 .run_id = str_dup(run), .step_id = str_dup(step), .trace_id = str_dup(run),
                                 .changed_at = seq * 1000000000LL, .created_at = ms * 1000000};

    c.snapshot.id = str_dup(snapshot);
    for (int i = 0; i < FILE_COUNT; i++)
        c.sizes[i] = -1;
    assert_int_equal(index_put(x, &c, NULL), 0);
}

static void put_in(int64_t id, const char *name, int64_t seq, const char *run, const char *step, const char *snapshot)
{
    put_at(id, name, seq, seq, run, step, snapshot);
}

struct names {
    char text[4096];
    int64_t cookie;
    int room; /* entries until the buffer is full */
};

static bool collect(void *arg, const char *name, const struct node_attr *a, int64_t cookie)
{
    struct names *n = arg;

    (void)a;
    if (n->room-- == 0)
        return false;
    strcat(strcat(n->text, name), " ");
    assert_true(cookie > n->cookie);
    n->cookie = cookie;
    return true;
}

/* The names in a directory, read `room` at a time. */
static void lists(node_id dir, int room, const char *expected)
{
    struct names n = {.cookie = 0};
    size_t before;

    do {
        before = strlen(n.text);
        n.room = room;
        assert_int_equal(tree_list(x, dir, n.cookie, collect, &n), 0);
    } while (strlen(n.text) > before);
    assert_string_equal(n.text, expected);
}

static node_id at(node_id dir, const char *name)
{
    struct node_attr a;

    assert_int_equal(tree_lookup(x, dir, name, &a), 0);
    return a.id;
}

#define VIEW(kind) node_make(CLASS_MOUNT, 0, kind)

static void runs_in_step_order(void **state)
{
    node_id run;

    (void)state;
    put_in(1, "first", 10, "r", "step-2", "s1");
    put_in(2, "second", 11, "r", "10", "s2");
    put_in(3, "third", 12, "r", "step-9", "s3");
    put_in(4, "other", 13, "a/b", "1", "s4");
    put_in(5, "uuid", 14, "r", "1f0a-77", "s5"); /* no number: 0 */
    put_in(6, "fork", 15, "r", "2", "s1");
    put_in(7, "none", 16, NULL, NULL, NULL);
    lists(VIEW(MOUNT_RUNS), 1, "r a%2Fb ");
    run = at(VIEW(MOUNT_RUNS), "r");
    for (int room = 1; room < 4; room++)
        lists(run, room, "timeline.svg timeline.txt uuid first fork third second ");
    lists(at(VIEW(MOUNT_BY_TRACE), "r"), 2, "uuid first fork third second ");
    lists(VIEW(MOUNT_BY_SNAPSHOT), 2, "s1 s2 s3 s4 s5 ");
    lists(VIEW(MOUNT_BY_ID), 3, "ck-1 ck-2 ck-3 ck-4 ck-5 ck-6 ck-7 ");
    assert_int_equal(node_row(at(VIEW(MOUNT_BY_SNAPSHOT), "s1")), 1);
    index_remove(x, 1, NULL);
    assert_int_equal(node_row(at(VIEW(MOUNT_BY_SNAPSHOT), "s1")), 6); /* the fork is what is left of it */
    lists(run, 1, "timeline.svg timeline.txt uuid fork third second ");
    put_in(3, "third", 12, "a/b", "step-9", "s3"); /* elsewhere now */
    lists(run, 1, "timeline.svg timeline.txt uuid fork second ");
    for (int64_t id = 1; id <= 7; id++)
        index_remove(x, id, NULL);
    lists(VIEW(MOUNT_RUNS), 1, "");
    lists(VIEW(MOUNT_BY_TRACE), 1, "");
    lists(VIEW(MOUNT_BY_SNAPSHOT), 1, "");
    lists(VIEW(MOUNT_BY_ID), 1, "");
}

/* What was taken here is in its own order whatever the clock said; copies, with negative numbers, stand where their times put them. */
static void runs_without_steps(void **state)
{
    (void)state;
    put_at(1, "copy", -5, 25, "r", NULL, NULL);
    put_at(2, "old", -9, 5, "r", NULL, NULL);
    put_at(3, "one", 1, 10, "r", NULL, NULL);
    put_at(4, "two", 2, 30, "r", NULL, NULL);
    put_at(5, "back", 3, 20, "r", NULL, NULL);
    put_at(6, "then", 4, 40, "r", NULL, NULL);
    put_at(7, "same", -1, 40, "r", NULL, NULL);
    put_at(8, "early", 5, -1, "r", NULL, NULL);
    lists(at(VIEW(MOUNT_RUNS), "r"), 1, "timeline.svg timeline.txt old one copy two back then same early ");
    for (int64_t id = 1; id <= 8; id++)
        index_remove(x, id, NULL);
    lists(VIEW(MOUNT_RUNS), 1, "");
}

/* A listing that was begun goes on after changes: what stays is told once. */
static void listing_over_changes(void **state)
{
    struct names n = {.room = 4};
    node_id run;

    (void)state;
    for (int64_t id = 1; id <= 6; id++)
        put_in(id, (const char *[]){"a", "b", "c", "d", "e", "f"}[id - 1], 10 * id, "r", NULL, NULL);
    run = at(VIEW(MOUNT_RUNS), "r");
    assert_int_equal(tree_list(x, run, 0, collect, &n), 0);
    assert_string_equal(n.text, "timeline.svg timeline.txt a b ");
    index_remove(x, 2, NULL);
    index_remove(x, 3, NULL);
    put_in(7, "before", 5, "r", NULL, NULL);
    put_in(8, "between", 45, "r", NULL, NULL);
    n.room = 10;
    assert_int_equal(tree_list(x, run, n.cookie, collect, &n), 0);
    assert_string_equal(n.text, "timeline.svg timeline.txt a b d between e f ");
}

/* Size and time are those of the bytes, stay while nothing changes, and change with each change, a deletion too. */
static void pictures(void **state)
{
    struct node_attr a, b;
    struct buf text = {0};
    node_id file;

    (void)state;
    put_in(1, "one", 10, "r", NULL, NULL);
    put_in(2, "two", 11, "r", NULL, NULL);
    for (unsigned kind = RUN_TIMELINE_SVG; kind <= RUN_TIMELINE_TXT; kind++) {
        file = at(at(VIEW(MOUNT_RUNS), "r"), kind == RUN_TIMELINE_SVG ? "timeline.svg" : "timeline.txt");
        assert_int_equal(node_kind(file), kind);
        assert_int_equal(tree_attr(x, file, &a), 0);
        assert_int_equal(tree_text(x, file, &text), 0);
        assert_int_equal(a.size, text.len);
        assert_int_equal(a.mtime / 1000000000, 11);
        put_in(1, "one", 10, "r", NULL, NULL);
        put_in(3, "three", 5, "s", NULL, NULL);
        assert_int_equal(tree_attr(x, file, &b), 0);
        assert_memory_equal(&a, &b, sizeof(a));
        index_remove(x, 1, NULL);
        assert_int_equal(tree_attr(x, file, &b), 0);
        assert_true(b.size < a.size && b.mtime != a.mtime);
        buf_truncate(&text, 0);
        assert_int_equal(tree_text(x, file, &text), 0);
        assert_int_equal(b.size, text.len);
        put_in(1, "one", 10, "r", NULL, NULL);
        assert_int_equal(tree_attr(x, file, &b), 0);
        assert_memory_equal(&a, &b, sizeof(a)); /* also as on a mount that never saw the other */
        buf_truncate(&text, 0);
    }
    index_remove(x, 1, NULL);
    index_remove(x, 2, NULL);
    assert_int_equal(tree_attr(x, file, &b), -ESTALE);
    assert_int_equal(tree_text(x, file, &text), -ESTALE);
    buf_free(&text);
}

/* A long run's picture shows its beginning and its end. */
static void a_long_run(void **state)
{
    struct buf text = {0};

    (void)state;
    for (int64_t id = 1; id <= 1000; id++) {
        char *name = str_format("n%d", (int)id);

        put_in(id, name, id, "r", NULL, NULL);
        free(name);
    }
    assert_int_equal(tree_text(x, at(at(VIEW(MOUNT_RUNS), "r"), "timeline.txt"), &text), 0);
    assert_non_null(strstr(text.data, "1000 checkpoints"));
    assert_non_null(strstr(text.data, "600 checkpoints are not shown"));
    assert_non_null(strstr(text.data, " n50 "));
    assert_null(strstr(text.data, " n51 "));
    assert_null(strstr(text.data, " n650 "));
    assert_non_null(strstr(text.data, " n651 "));
    buf_free(&text);
}

#define T(f) cmocka_unit_test_setup_teardown(f, up, down)

int main(void)
{
    const struct CMUnitTest tests[] = {T(the_latest_is_by_sequence), T(calls_by_their_ids), T(actions_by_their_names), T(temporaries),
                                       T(no_room_for_temporaries), T(an_older_answer_takes_no_bytes_back),
                                       T(another_take_has_another_state), T(runs_in_step_order), T(runs_without_steps),
                                       T(listing_over_changes), T(pictures), T(a_long_run)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
