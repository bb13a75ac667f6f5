/* Going back, in the store: what an undo puts back and what goes off line, and what an adopt makes of the record. */
#include "store_fixture.h"

static int64_t offline(int64_t checkpoint)
{
    struct store_checkpoint k = get(checkpoint);
    int64_t by = k.offline_by;

    store_checkpoint_free(&k);
    return by;
}

static void decide(int64_t checkpoint)
{
    cleanup_err struct err err = {0};
    struct store_action a = {0};

    OK(begin(ACTION_RESUME, checkpoint, &a, &err));
    OK(finish(a.id, ACTION_DONE, 0, "finished", false, &err));
    store_action_free(&a);
}

/* Undoes the last restore, from the claim to the end; the action's id. */
static int64_t undo(const char *old_branch, const char *new_branch)
{
    cleanup_err struct err err = {0};
    struct store_action a = {0};
    struct store_undo u = {0};
    int64_t id;

    OK(begin(ACTION_UNDO, 0, &a, &err));
    assert_int_equal(a.state, ACTION_QUEUED);
    assert_int_equal(a.checkpoint, 0);
    assert_int_equal(store_turn(store, a.id, &err), 1);
    OK(store_undo_next(store, line.id, &u, &err));
    OK(store_undo_done(store, a.id, u.action, new_branch, old_branch, "replaced-undo", "ep-1", &err));
    OK(store_undo_done(store, a.id, u.action, new_branch, old_branch, "replaced-undo", "ep-1", &err)); /* again after a crash */
    OK(finish(a.id, ACTION_DONE, 0, NULL, false, &err));
    id = a.id;
    store_undo_free(&u);
    store_action_free(&a);
    return id;
}

static void what_was_there_comes_back(void **state)
{
    cleanup_err struct err err = {0};
    struct store_action a = {0};
    struct store_undo u = {0};
    struct store_checkpoint k;
    int64_t one = take("one", "br-a"), two, bare, since, by;

    (void)state;
    seal(one);
    decide(one);
    two = take("two", "br-a");
    seal(two);
    bare = take("bare", "br-a");
    REFUSED(ENODATA, begin(ACTION_UNDO, 0, &a, &err));
    REFUSED(ENODATA, store_undo_next(store, line.id, &u, &err));
    restore(one, "br-a", "br-b");
    since = take("since", "br-b");
    OK(store_undo_next(store, line.id, &u, &err));
    assert_string_equal(u.old_branch, "br-a");
    assert_string_equal(u.name, "one");
    assert_int_equal(u.checkpoint, one);
    assert_int_equal(offline(two), u.action);
    store_undo_free(&u);

    by = undo("br-b", "br-c");
    assert_int_equal(offline(two), 0);
    assert_int_equal(offline(bare), 0);
    assert_int_equal(offline(since), by);
    k = get(one);
    assert_string_equal(k.outcome, "finished");
    assert_false(k.attempt_open);
    store_checkpoint_free(&k);
    REFUSED(EALREADY, begin(ACTION_RESUME, one, &a, &err));
    OK(begin(ACTION_RESUME, two, &a, &err)); /* never decided */
    REFUSED(EBUSY, begin(ACTION_UNDO, 0, &a, &err));
    sql_is("SELECT active_branch || endpoint_id FROM checkpointfs.lines", "br-cep-1");
    sql_is("SELECT string_agg(branch_id || coalesce(replaced_name, ''), ',' ORDER BY branch_id) FROM checkpointfs.line_branches",
           "br-aold (replaced),br-breplaced-undo,br-c");
    assert_int_equal(events_named("undo.finished"), 1);
    sql_is("SELECT count(*) FROM checkpointfs.events WHERE convert_from(bytes, 'UTF8') LIKE '%undo.finished%'"
           " AND checkpoint_id IS NOT NULL", "1");
    REFUSED(ENODATA, store_undo_next(store, line.id, &u, &err));
}

static void each_undo_goes_back_one_more(void **state)
{
    cleanup_err struct err err = {0};
    struct store_action a = {0};
    int64_t one = take("one", "br-a"), two = take("two", "br-a"), first, second;

    (void)state;
    restore(one, "br-a", "br-b"); /* takes two off line */
    first = offline(two);
    restore(two, "br-b", "br-c"); /* and back on */
    assert_true(first > 0);
    assert_int_equal(offline(two), 0);
    undo("br-c", "br-d");
    assert_int_equal(offline(two), first);
    second = undo("br-d", "br-e");
    assert_int_equal(offline(two), 0);
    assert_true(second > first);
    REFUSED(ENODATA, begin(ACTION_UNDO, 0, &a, &err));
    restore(one, "br-e", "br-f");
    undo("br-f", "br-g");
    assert_int_equal(offline(two), 0);
    REFUSED(ENODATA, begin(ACTION_UNDO, 0, &a, &err));
}

static void it_replaces_as_a_restore_does(void **state)
{
    cleanup_err struct err err = {0};
    struct store_action a = {0}, b = {0};
    int64_t one = take("one", "br-a"), waits = 0, waiting = 0, ignored = 0;

    (void)state;
    restore(one, "br-a", "br-b");
    OK(store_take_begin(store, line.id, mount_row.id, "waits", &who, &waits, &waiting, &err));
    OK(begin(ACTION_UNDO, 0, &a, &err));
    REFUSED(ESTALE, store_turn(store, waiting, &err));
    REFUSED(EBUSY, store_take_begin(store, line.id, mount_row.id, "more", &who, &ignored, &ignored, &err));
    REFUSED(EBUSY, begin(ACTION_UNDO, 0, &b, &err));
    REFUSED(EBUSY, begin(ACTION_ADOPT, 0, &b, &err));
    REFUSED(EBUSY, begin(ACTION_RESTORE, one, &b, &err));
    OK(begin(ACTION_DRY_RUN, one, &b, &err)); /* waits for nobody, and nobody for it */
    assert_int_equal(b.state, ACTION_RUNNING);
    OK(finish(a.id, ACTION_FAILED, EIO, NULL, false, &err));
    OK(begin(ACTION_RESTORE, one, &a, &err));
    OK(finish(b.id, ACTION_DONE, 0, NULL, false, &err));
    assert_int_equal(events_named("undo.failed"), 1);
    OK(finish(a.id, ACTION_FAILED, EIO, NULL, false, &err));
    OK(begin(ACTION_UNDO, 0, &a, &err)); /* the first one can still be undone */
    store_action_free(&a);
    store_action_free(&b);
}

static void adopt_done(int64_t action, const char *branch, const char *snapshot, int wanted, const char *wanted_before, int64_t *ret)
{
    cleanup_err struct err err = {0};
    cleanup_free char *before = NULL;

    assert_int_equal(store_adopt_done(store, action, branch, "ep-2", snapshot, true, ret, &before, &err), -wanted);
    assert_string_equal(before ? before : "none", wanted_before ? wanted_before : "none");
}

/* `before`: the branch that was active until then. */
static void adopt(const char *branch, const char *snapshot, int wanted, const char *before, int64_t *ret)
{
    cleanup_err struct err err = {0};
    struct store_action a = {0};
    int64_t again = 0;

    OK(begin(ACTION_ADOPT, 0, &a, &err));
    assert_int_equal(store_turn(store, a.id, &err), 1);
    adopt_done(a.id, branch, snapshot, wanted, before, ret);
    if (!wanted) { /* a mount that takes it over doesn't know that it is recorded */
        adopt_done(a.id, branch, snapshot, 0, before, &again);
        assert_int_equal(again, *ret);
    }
    OK(finish(a.id, wanted ? ACTION_FAILED : ACTION_DONE, wanted, NULL, false, &err));
    store_action_free(&a);
}

static void adopting(void **state)
{
    cleanup_err struct err err = {0};
    struct store_line other = {0};
    int64_t one = take("one", "br-a"), two, found = 0;

    (void)state;
    seal(one);
    decide(one);
    two = take("two", "br-a");
    adopt("br-a", NULL, 0, "br-a", &found);
    assert_int_equal(found, -1);
    assert_int_equal(offline(two), 0);
    sql_is("SELECT active_branch || endpoint_id FROM checkpointfs.lines", "br-aep-2");

    adopt("br-b", "snap-one", 0, "br-a", &found); /* as its restore in place */
    assert_int_equal(found, one);
    assert_int_equal(offline(one), 0);
    assert_true(offline(two) > 0);
    sql_is("SELECT replaced_by IS NULL AND replaced_at IS NOT NULL FROM checkpointfs.line_branches WHERE branch_id = 'br-a'", "t");
    sql_is("SELECT string_agg(state, ',' ORDER BY id) FROM checkpointfs.attempts", "finished,open");

    adopt("br-c", "snap-of-somebody", 0, "br-b", &found); /* a database that nobody knows */
    assert_int_equal(found, 0);
    assert_true(offline(one) > 0);
    undo("br-c", "br-d");
    assert_int_equal(offline(one), 0);
    assert_true(offline(two) > 0);
    undo("br-d", "br-e");
    assert_int_equal(offline(two), 0);

    OK(store_line_create(store, "proj-1", "br-z", "ep-9", &other, &err));
    adopt("br-z", NULL, EEXIST, NULL, &found);
    store_line_free(&other);
}

static void what_could_be_deleted(void **state)
{
    cleanup_err struct err err = {0};
    char **ids = NULL;
    int64_t one = take("one", "br-a"), found = 0;

    (void)state;
    restore(one, "br-a", "br-b");
    restore(one, "br-b", "br-c");
    adopt("br-d", NULL, 0, "br-c", &found); /* nobody here replaced br-c */
    OK(store_replaced_ids(store, line.id, &ids, &err));
    assert_string_equal(ids[0], "br-a");
    assert_string_equal(ids[1], "br-b");
    assert_null(ids[2]);
    for (char **p = ids; *p; p++)
        free(*p);
    free(ids);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_was_there_comes_back, open_store, close_store),
        cmocka_unit_test_setup_teardown(each_undo_goes_back_one_more, open_store, close_store),
        cmocka_unit_test_setup_teardown(it_replaces_as_a_restore_does, open_store, close_store),
        cmocka_unit_test_setup_teardown(adopting, open_store, close_store),
        cmocka_unit_test_setup_teardown(what_could_be_deleted, open_store, close_store),
    };

    return cmocka_run_group_tests(tests, fixture_up, fixture_down);
}
