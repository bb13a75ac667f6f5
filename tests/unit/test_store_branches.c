/* Isolated branches in the store: what works on one is in nobody's way elsewhere, and what a promote changes in the record. */
#include "store_fixture.h"

static int begin_branch(enum action_kind kind, int64_t checkpoint, const char *name, struct store_action *ret, struct err *e)
{
    struct store_begin b = {.kind = kind, .line_id = line.id, .mount_id = mount_row.id, .checkpoint = checkpoint, .command = "words",
                            .decisions = kind == ACTION_REPLAY ? APPROVE : NULL, .who = &who, .branch = name};

    store_action_free(ret);
    return store_action_begin(store, &b, ret, e);
}

/* An action written to a file of the branch. */
static int begin_on(enum action_kind kind, int64_t checkpoint, int64_t branch, struct store_action *ret, struct err *e)
{
    struct store_begin b = {.kind = kind, .line_id = line.id, .mount_id = mount_row.id, .checkpoint = checkpoint, .command = "words",
                            .decisions = kind == ACTION_RESUME ? APPROVE : NULL, .who = &who, .isolated = branch};

    store_action_free(ret);
    return store_action_begin(store, &b, ret, e);
}

static int made(int64_t action, const char *id, struct err *e)
{
    struct store_branch_made m = {.branch_id = id, .branch_name = "in neon", .endpoint_id = "ep-9", .restored_for = "br-a",
                                  .decisions = APPROVE};

    return store_branch_made(store, action, &m, e);
}

/* A ready branch; its row id. */
static int64_t branch(int64_t checkpoint, const char *name, const char *id)
{
    cleanup_err struct err err = {0};
    struct store_action a = {0};
    int64_t row;

    OK(begin_branch(ACTION_BRANCH, checkpoint, name, &a, &err));
    row = a.isolated;
    assert_true(row > 0 && a.of_branch);
    assert_int_equal(store_turn(store, a.id, &err), 1);
    OK(made(a.id, id, &err));
    OK(made(a.id, id, &err)); /* settled again after a crash */
    OK(finish(a.id, ACTION_DONE, 0, NULL, false, &err));
    store_action_free(&a);
    return row;
}

static int64_t take_on(int64_t branch_row, const char *name, const char *neon)
{
    cleanup_err struct err err = {0};
    cleanup_buf struct buf json = text("{}\n");
    cleanup_free char *id = str_format("snap-%s", name);
    struct store_snapshot snap = {.id = id, .name = id, .project_id = (char *)(uintptr_t)"proj-1", .branch_id = (char *)(uintptr_t)neon,
                                  .requested_at = 1000, .captured_at = 2000, .full_size = -1, .diff_size = -1};
    int64_t checkpoint = 0;
    int64_t action = 0;

    OK(store_take_begin_on(store, line.id, mount_row.id, branch_row, name, &who, &checkpoint, &action, &err));
    assert_int_equal(store_turn(store, action, &err), 1);
    OK(store_take_settled(store, action, &snap, &json, &json, NULL, &err));
    return checkpoint;
}

static void a_branch_is_made(void **state)
{
    cleanup_err struct err err = {0};
    struct store_action a = {0}, x = {0};
    struct store_checkpoint k;
    int64_t one = take("one", "br-a");

    (void)state;
    seal(one);
    OK(begin_branch(ACTION_BRANCH, one, "x", &x, &err));
    assert_int_equal(x.state, ACTION_QUEUED);
    REFUSED(EEXIST, begin_branch(ACTION_BRANCH, one, "x", &a, &err));
    k = get(one);
    assert_int_equal(k.n_branches, 1);
    assert_int_equal(k.branches[0].state, ISOLATED_MAKING);
    REFUSED(EBUSY, begin_on(ACTION_RESUME, one, k.branches[0].id, &a, &err));
    REFUSED(EPERM, store_branch_remove(store, k.branches[0].id, &who, &err));
    store_checkpoint_free(&k);
    OK(begin(ACTION_RESUME, one, &a, &err)); /* the line is free */
    OK(finish(a.id, ACTION_DONE, 0, "finished", false, &err));
    OK(finish(x.id, ACTION_FAILED, EIO, NULL, false, &err));
    branch(one, "y", "br-y");
    k = get(one);
    assert_string_equal(k.outcome, "finished");
    assert_int_equal(k.n_branches, 2);
    assert_int_equal(k.branches[1].state, ISOLATED_READY);
    assert_string_equal(k.branches[1].branch_id, "br-y");
    assert_true(k.branches[1].attempt_open && k.branches[1].result_size > 0);
    assert_null(k.branches[1].activity);
    store_checkpoint_free(&k);
    assert_int_equal(events_named("branch.ready"), 1);
    chain_holds();
    store_action_free(&a);
    store_action_free(&x);
}

static void one_that_failed_is_removed(void **state)
{
    cleanup_err struct err err = {0};
    struct store_action a = {0};
    int64_t one = take("one", "br-a");
    int64_t row;

    (void)state;
    OK(begin_branch(ACTION_BRANCH, one, "x", &a, &err));
    row = a.isolated;
    OK(store_branch_failed(store, a.id, &err));
    REFUSED(EBUSY, store_branch_remove(store, row, &who, &err));
    OK(finish(a.id, ACTION_FAILED, EIO, "failed restore: why", false, &err));
    sql_is("SELECT state || ' ' || outcome FROM checkpointfs.isolated_branches", "failed failed restore: why");
    REFUSED(ENODATA, begin_on(ACTION_PROMOTE, one, row, &a, &err));
    REFUSED(EBUSY, begin(ACTION_DELETE, one, &a, &err));
    OK(store_branch_remove(store, row, &who, &err));
    OK(begin(ACTION_DELETE, one, &a, &err));
    store_action_free(&a);
}

static void attempts_are_its_own(void **state)
{
    cleanup_err struct err err = {0};
    struct store_action a = {0}, b = {0};
    struct store_checkpoint k;
    int64_t one = take("one", "br-a");
    int64_t row, other;

    (void)state;
    seal(one);
    row = branch(one, "x", "br-x");
    other = branch(one, "y", "br-y");
    OK(begin_on(ACTION_RESUME, one, row, &a, &err));
    REFUSED(EBUSY, begin_on(ACTION_RESUME, one, row, &b, &err));
    OK(begin(ACTION_RESUME, one, &b, &err)); /* the line's */
    OK(finish(b.id, ACTION_FAILED, EIO, "failed resume: why", false, &err));
    OK(begin_on(ACTION_RESUME, one, other, &b, &err)); /* another branch's */
    OK(finish(b.id, ACTION_DONE, 0, "finished", false, &err));
    OK(begin(ACTION_RESTORE, one, &b, &err)); /* in place, while agents run on branches */
    assert_int_equal(store_turn(store, b.id, &err), 1);
    OK(store_restore_done(store, b.id, "br-b", "br-a", "old", "ep-1", NULL, &err));
    OK(finish(b.id, ACTION_DONE, 0, NULL, false, &err));
    REFUSED(EBUSY, begin_on(ACTION_DELETE, one, row, &b, &err));
    REFUSED(EBUSY, begin_on(ACTION_PROMOTE, one, row, &b, &err));
    OK(store_output_append(store, one, row, "out", 3, &err));
    OK(finish(a.id, ACTION_UNKNOWN, EIO, "unknown", false, &err));
    REFUSED(EALREADY, begin_on(ACTION_RESUME, one, row, &b, &err));
    k = get(one);
    assert_null(k.outcome);
    assert_true(k.attempt_open);
    assert_string_equal(k.branches[0].outcome, "unknown");
    assert_int_equal(k.branches[0].output_size, 3);
    assert_int_equal(k.sizes[FILE_OUTPUT], -1);
    store_checkpoint_free(&k);
    store_action_free(&a);
    store_action_free(&b);
}

static void a_replay_claims_the_branch(void **state)
{
    cleanup_err struct err err = {0};
    struct store_action a = {0}, b = {0};
    int64_t one = take("one", "br-a");

    (void)state;
    seal(one);
    OK(begin_branch(ACTION_REPLAY, one, "x", &a, &err));
    assert_int_equal(store_turn(store, a.id, &err), 1);
    OK(made(a.id, "br-x", &err));
    sql_is("SELECT count(*) FROM checkpointfs.decisions", "2");
    REFUSED(EBUSY, begin_on(ACTION_RESUME, one, a.isolated, &b, &err));
    OK(finish(a.id, ACTION_FAILED, EAGAIN, "", true, &err));
    assert_int_equal(events_named("resume.failed"), 1);
    OK(begin_on(ACTION_RESUME, one, a.isolated, &b, &err));
    store_action_free(&a);
    store_action_free(&b);
}

static void what_is_taken_on_one(void **state)
{
    cleanup_err struct err err = {0};
    struct store_action a = {0};
    struct store_checkpoint k;
    int64_t one = take("one", "br-a"), checkpoint, action, row, child;

    (void)state;
    row = branch(one, "x", "br-x");
    child = take_on(row, "child", "br-x");
    OK(seal_as(child, "{\"a\":1}", 7, NULL, &err));
    REFUSED(EXDEV, begin(ACTION_RESTORE, child, &a, &err));
    REFUSED(EXDEV, begin(ACTION_REPLAY, child, &a, &err));
    OK(begin(ACTION_RESUME, child, &a, &err));
    assert_int_equal(a.isolated, row);
    assert_false(a.of_branch);
    REFUSED(EBUSY, begin_on(ACTION_DELETE, one, row, &a, &err));
    OK(begin(ACTION_RESTORE, one, &a, &err));
    OK(store_take_begin_on(store, line.id, mount_row.id, row, "passes", &who, &checkpoint, &action, &err));
    REFUSED(EBUSY, store_take_begin(store, line.id, mount_row.id, "blocked", &who, &checkpoint, &action, &err));
    assert_int_equal(store_turn(store, a.id, &err), 1);
    OK(store_restore_done(store, a.id, "br-b", "br-a", "old", "ep-1", NULL, &err));
    k = get(child);
    assert_int_equal(k.offline_by, 0);
    assert_string_equal(k.branches ? "" : "none", "none");
    store_checkpoint_free(&k);
    OK(store_branch_look(store, row, true, 0, &err));
    k = get(child);
    assert_int_equal(k.offline_by, -1);
    store_checkpoint_free(&k);
    REFUSED(ESTALE, store_take_begin_on(store, line.id, mount_row.id, row, "late", &who, &checkpoint, &action, &err));
    REFUSED(ESTALE, begin_on(ACTION_PROMOTE, one, row, &a, &err));
    store_action_free(&a);
}

static void a_promote_moves_the_line(void **state)
{
    cleanup_err struct err err = {0};
    struct store_action a = {0}, b = {0};
    struct store_checkpoint k;
    int64_t one = take("one", "br-a"), checkpoint, action, row, child, later;

    (void)state;
    seal(one);
    row = branch(one, "x", "br-x");
    later = take("later", "br-a");
    child = take_on(row, "child", "br-x");
    OK(begin_on(ACTION_RESUME, one, row, &a, &err));
    OK(finish(a.id, ACTION_DONE, 0, "stopped again -> child", false, &err));
    OK(begin_on(ACTION_PROMOTE, one, row, &a, &err));
    REFUSED(EBUSY, store_take_begin(store, line.id, mount_row.id, "blocked", &who, &checkpoint, &action, &err));
    REFUSED(EBUSY, store_take_begin_on(store, line.id, mount_row.id, row, "blocked", &who, &checkpoint, &action, &err));
    REFUSED(EBUSY, begin(ACTION_RESTORE, one, &b, &err));
    assert_int_equal(store_turn(store, a.id, &err), 1);
    OK(store_promote_done(store, a.id, "br-x", "br-a", "old", "ep-1", &err));
    OK(store_promote_done(store, a.id, "br-x", "br-a", "old", "ep-1", &err)); /* settled again after a crash */
    OK(finish(a.id, ACTION_DONE, 0, NULL, false, &err));
    sql_is("SELECT active_branch FROM checkpointfs.lines", "br-x");
    k = get(one);
    assert_string_equal(k.outcome, "stopped again -> child");
    assert_int_equal(k.attempt_id, k.branches[0].attempt_id);
    assert_int_equal(k.branches[0].state, ISOLATED_PROMOTED);
    store_checkpoint_free(&k);
    k = get(child);
    assert_int_equal(k.isolated, 0);
    assert_int_equal(k.taken_on, row);
    assert_int_equal(k.offline_by, 0);
    store_checkpoint_free(&k);
    k = get(later);
    assert_int_equal(k.offline_by, a.id);
    store_checkpoint_free(&k);
    REFUSED(ESTALE, begin_on(ACTION_PROMOTE, one, row, &b, &err));
    assert_int_equal(events_named("promote.finished"), 1);
    store_action_free(&a);
    store_action_free(&b);
}

static void a_deleted_one_leaves_its_checkpoints(void **state)
{
    cleanup_err struct err err = {0};
    struct store_action a = {0};
    struct store_checkpoint k;
    int64_t one = take("one", "br-a");
    int64_t row, child;

    (void)state;
    row = branch(one, "x", "br-x");
    child = take_on(row, "child", "br-x");
    OK(store_output_append(store, one, row, "out", 3, &err));
    OK(begin_on(ACTION_DELETE, one, row, &a, &err));
    assert_int_equal(store_turn(store, a.id, &err), 1);
    OK(store_branch_deleted(store, a.id, "{}\n", &err));
    k = get(one);
    assert_int_equal(k.n_branches, 0);
    store_checkpoint_free(&k);
    k = get(child);
    assert_int_equal(k.offline_by, a.id);
    store_checkpoint_free(&k);
    sql_is("SELECT count(*) FROM checkpointfs.outputs", "0");
    REFUSED(EXDEV, begin(ACTION_RESTORE, child, &a, &err));
    branch(child, "again", "br-z");
    store_action_free(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_branch_is_made, open_store, close_store),
        cmocka_unit_test_setup_teardown(one_that_failed_is_removed, open_store, close_store),
        cmocka_unit_test_setup_teardown(attempts_are_its_own, open_store, close_store),
        cmocka_unit_test_setup_teardown(a_replay_claims_the_branch, open_store, close_store),
        cmocka_unit_test_setup_teardown(what_is_taken_on_one, open_store, close_store),
        cmocka_unit_test_setup_teardown(a_promote_moves_the_line, open_store, close_store),
        cmocka_unit_test_setup_teardown(a_deleted_one_leaves_its_checkpoints, open_store, close_store),
    };

    return cmocka_run_group_tests(tests, fixture_up, fixture_down);
}
