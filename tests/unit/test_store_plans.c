/* The store: plans and their application, the plan's limits, replaced branches, expiries, against a real PostgreSQL. */
#include "store_fixture.h"

static struct store_begin prune_of(void)
{
    return (struct store_begin){.kind = ACTION_PRUNE, .line_id = line.id, .mount_id = mount_row.id, .command = "keep-last=0", .who = &who};
}

static int64_t begun(const char *plan, const char *branch)
{
    cleanup_err struct err err = {0};
    struct store_begin b = prune_of();
    struct store_action a = {0};
    int64_t id;

    OK(store_prune_begin(store, &b, plan, branch, false, &a, &err));
    id = a.id;
    assert_int_equal(a.kind, ACTION_PRUNE);
    assert_int_equal(a.checkpoint, 0);
    store_action_free(&a);
    return id;
}

/* A plan that lets these go whole, made by an action that is over. */
static void planned(const char *uid, const int64_t *checkpoints, size_t n, bool whole)
{
    cleanup_err struct err err = {0};
    struct store_plan_item items[8] = {{0}};
    int64_t action = begun(NULL, NULL);

    for (size_t i = 0; i < n; i++)
        items[i] = (struct store_plan_item){.checkpoint = checkpoints[i], .uid = (char *)(uintptr_t)"ck-x", .name = (char *)(uintptr_t)"x",
                                            .why = (char *)(uintptr_t)"no rule keeps it", .whole = whole, .has_snapshot = true};
    OK(store_plan_put(store, action, uid, "keep-last=0", false, items, n, &err));
    OK(finish(action, ACTION_DONE, 0, NULL, false, &err));
}

/* The next item: 1 claimed, 2 skipped, for that reason. */
static struct store_plan_item next(int64_t action, int wanted)
{
    cleanup_err struct err err = {0};
    struct store_plan_item x = {0};
    size_t total = 0;
    int r = store_prune_next(store, action, &x, &total, &err);

    if (r != wanted)
        fail_msg("%d instead of %d: %s %s", r, wanted, err_text(&err), x.message ? x.message : "");
    return x;
}

static void skipped(int64_t action, const char *why)
{
    struct store_plan_item x = next(action, 2);

    assert_string_equal(x.outcome, "skipped");
    assert_string_equal(x.message, why);
    store_plan_item_clear(&x);
}

static void nothing_left(int64_t action)
{
    struct store_plan_item x = next(action, 0);

    assert_null(x.uid);
}

static void facts_are_what_the_planner_asks(void **state)
{
    cleanup_err struct err err = {0};
    struct store_fact *f = NULL;
    size_t n = 0;
    int64_t one = take("one", "br-a");
    int64_t two = take("two", "br-a");
    int64_t unused, taking;

    (void)state;
    seal(one);
    OK(put_meta(two, "{\"pin\": true}", 13, false, &err));
    OK(store_take_begin(store, line.id, mount_row.id, "three", &who, &taking, &unused, &err));
    OK(store_facts(store, line.id, &f, &n, &err));
    assert_int_equal(n, 2); /* a take under way is none */
    assert_string_equal(f[0].name, "one");
    assert_true(f[0].latest && f[0].pending && f[0].has_snapshot && !f[0].pinned && !f[0].busy);
    assert_int_equal(f[0].state_bytes, 7);
    assert_string_equal(f[1].name, "two");
    assert_true(f[1].pinned && f[1].has_snapshot && !f[1].latest && !f[1].pending);
    assert_int_equal(f[1].state_bytes, 0);
    assert_null(f[1].parent);
    store_facts_free(f, n);
}

static void a_plan_is_applied_once(void **state)
{
    cleanup_err struct err err = {0};
    struct store_begin b = prune_of();
    struct store_action a = {0};
    struct store_plan_item x;
    struct store_plan_item *items = NULL;
    struct store_checkpoint k;
    size_t n = 0;
    int64_t all[2] = {take("two", "br-a"), take("one", "br-a")};
    int64_t action;

    (void)state;
    planned("plan-1", all, 2, true);
    REFUSED(ENOENT, store_prune_begin(store, &b, "plan-9", NULL, false, &a, &err));
    action = begun("plan-1", NULL);
    REFUSED(EALREADY, store_prune_begin(store, &b, "plan-1", NULL, false, &a, &err));
    planned("plan-2", all, 2, true);
    REFUSED(EBUSY, store_prune_begin(store, &b, "plan-2", NULL, false, &a, &err));

    x = next(action, 1);
    assert_string_equal(x.snapshot_id, "snap-two");
    assert_string_equal(x.outcome, "deleting");
    store_plan_item_clear(&x);
    k = get(all[0]);
    assert_string_equal(k.activity, "deleting 1/2");
    assert_int_equal(k.busy_action, action);
    store_checkpoint_free(&k);
    REFUSED(EBUSY, begin(ACTION_RESTORE, all[0], &a, &err)); /* nobody else works on it */
    REFUSED(EBUSY, begin(ACTION_DELETE, all[0], &a, &err));
    x = next(action, 1); /* as after a kill: the same again */
    assert_int_equal(x.n, 1);
    store_plan_item_clear(&x);
    OK(store_prune_done(store, action, 1, "[{\"request_id\":\"r-1\"}]", &err));
    OK(store_prune_done(store, action, 1, NULL, &err)); /* recorded before */
    assert_int_equal(store_checkpoint(store, all[0], &k, &err), -ENOENT);
    assert_int_equal(events_named("checkpoint.deleted"), 1);

    x = next(action, 1);
    store_plan_item_clear(&x);
    OK(store_prune_skip(store, action, 2, "Neon said no", NULL, &err));
    k = get(all[1]);
    assert_null(k.activity);
    assert_int_equal(k.busy_action, 0);
    store_checkpoint_free(&k);
    nothing_left(action);
    OK(store_plan_items(store, action, &items, &n, &err));
    assert_int_equal(n, 2);
    assert_string_equal(items[0].outcome, "deleted");
    assert_non_null(strstr(items[0].requests, "r-1"));
    assert_null(items[1].requests);
    assert_string_equal(items[1].message, "Neon said no");
    store_plan_items_free(items, n);
    OK(finish(action, ACTION_DONE, 0, NULL, false, &err));
    assert_int_equal(events_named("prune.finished"), 3); /* two plans and this */
    chain_holds();
}

static void what_changed_is_skipped(void **state)
{
    cleanup_err struct err err = {0};
    int64_t gone = take("gone", "br-a");
    int64_t all[4] = {gone, take("restored", "br-a"), take("pinned", "br-a"), take("missing", "br-a")};
    struct store_snapshot missing = {.missing = true};
    cleanup_buf struct buf json = text("{}\n");
    struct store_action a = {0};
    int64_t action;

    (void)state;
    planned("plan-1", all, 4, false);
    restore(all[1], "br-a", "br-b");
    OK(put_meta(all[2], "{\"pin\":1}", 9, false, &err));
    OK(store_snapshot_put(store, all[3], &missing, &json, &err));
    OK(begin(ACTION_DELETE, gone, &a, &err));
    OK(store_delete_done(store, a.id, "{}\n", &err));
    store_action_free(&a);
    action = begun("plan-1", NULL);
    skipped(action, "it is gone already");
    skipped(action, "it was restored since the plan was made");
    skipped(action, "it is pinned now");
    skipped(action, "its snapshot is gone already");
    nothing_left(action);
}

static void the_snapshot_alone(void **state)
{
    cleanup_err struct err err = {0};
    int64_t one = take("one", "br-a");
    struct store_checkpoint k;
    struct store_plan_item x;
    int64_t action;

    (void)state;
    planned("plan-1", &one, 1, false);
    action = begun("plan-1", NULL);
    x = next(action, 1);
    store_plan_item_clear(&x);
    OK(store_prune_done(store, action, 1, NULL, &err));
    k = get(one);
    assert_true(k.snapshot.missing);
    assert_string_equal(k.snapshot.id, "snap-one");
    assert_null(k.activity);
    store_checkpoint_free(&k);
    assert_int_equal(events_named("snapshot.deleted"), 1);
}

static void nothing_done_gives_the_plan_back(void **state)
{
    cleanup_err struct err err = {0};
    int64_t one = take("one", "br-a");
    struct store_plan_item x;
    int64_t action;

    (void)state;
    planned("plan-1", &one, 1, true);
    action = begun("plan-1", NULL);
    x = next(action, 1);
    store_plan_item_clear(&x);
    OK(store_prune_release(store, action, &err));
    OK(finish(action, ACTION_FAILED, ECONNREFUSED, NULL, false, &err));
    action = begun("plan-1", NULL);
    x = next(action, 1);
    assert_int_equal(x.checkpoint, one);
    store_plan_item_clear(&x);
    REFUSED(EALREADY, store_prune_release(store, 1, &err)); /* the take's action, which is over */
}

static void an_old_plan_is_refused(void **state)
{
    cleanup_err struct err err = {0};
    struct store_begin b = prune_of();
    struct store_action a = {0};
    int64_t one = take("one", "br-a");

    (void)state;
    planned("plan-1", &one, 1, true);
    sql_is("UPDATE checkpointfs.plans SET made_at = made_at - 86400000000000 RETURNING 1", "1");
    REFUSED(ESTALE, store_prune_begin(store, &b, "plan-1", NULL, false, &a, &err));
}

static void room_is_remembered(void **state)
{
    cleanup_err struct err err = {0};
    struct store_room m = {0};

    (void)state;
    OK(store_room(store, "proj-1", &m, &err));
    assert_true(m.max_snapshots == -1 && m.max_branches == -1 && m.snapshots == 0);
    m = (struct store_room){.max_snapshots = 1, .max_root_branches = 3, .max_branches = -1,
                            .snapshots = 1,     .root_branches = 2,     .branches = 4};
    OK(store_room_put(store, "proj-1", &m, &err));
    m.snapshots = 0;
    OK(store_room_put(store, "proj-1", &m, &err));
    m = (struct store_room){0};
    OK(store_room(store, "proj-1", &m, &err));
    assert_true(m.max_snapshots == 1 && m.max_root_branches == 3 && m.max_branches == -1 && m.snapshots == 0 && m.branches == 4);
}

static void replaced_branches_are_listed_and_deleted(void **state)
{
    cleanup_err struct err err = {0};
    struct store_begin b = prune_of();
    struct store_replaced *l = NULL;
    struct store_action a = {0};
    size_t n = 0;
    int64_t changed, action;
    int64_t one = take("one", "br-a");

    (void)state;
    restore(one, "br-a", "br-b");
    OK(store_rename(store, one, "other", &who, &err));
    OK(store_replaced(store, line.id, &l, &n, &err));
    assert_int_equal(n, 1);
    assert_string_equal(l[0].branch_id, "br-a");
    assert_string_equal(l[0].by_name, "one"); /* as it was called then */
    assert_true(l[0].made_here && l[0].size == -1 && !l[0].created_at && l[0].replaced_at > 0 && l[0].by_action && l[0].by_checkpoint);
    changed = l[0].changed_at;
    OK(store_replaced_put(store, l[0].id, "its name", 4096, 77, false, &err));
    store_replaced_free(l, n);
    OK(store_replaced(store, line.id, &l, &n, &err));
    assert_true(n == 1 && l[0].size == 4096 && l[0].created_at == 77 && l[0].changed_at > changed);
    assert_string_equal(l[0].name, "its name");
    store_replaced_free(l, n);
    REFUSED(EPERM, store_prune_begin(store, &b, NULL, "br-b", true, &a, &err)); /* the active one */
    REFUSED(EPERM, store_prune_begin(store, &b, NULL, "br-x", true, &a, &err));
    action = begun(NULL, "br-a");
    REFUSED(EBUSY, store_prune_begin(store, &b, NULL, "br-a", true, &a, &err));
    OK(store_branch_gone(store, action, "br-a", &err));
    OK(store_branch_gone(store, action, "br-a", &err)); /* as when the answer was lost */
    assert_int_equal(events_named("branch.deleted"), 1);
    OK(finish(action, ACTION_DONE, 0, NULL, false, &err));
    OK(store_replaced(store, line.id, &l, &n, &err));
    assert_int_equal(n, 0);
    store_replaced_free(l, n);
    REFUSED(ENOENT, store_prune_begin(store, &b, NULL, "br-a", true, &a, &err));
}

static void expiries_follow_meta_json(void **state)
{
    static const char soon[] = "{\"expires_at\": \"2031-12-01T00:00:00.5Z\"}";
    cleanup_err struct err err = {0};
    struct store_expiry *l = NULL;
    size_t n = 0;
    int64_t one = take("one", "br-a");
    int64_t at;

    (void)state;
    OK(put_meta(one, soon, strlen(soon), false, &err));
    OK(store_expiries(store, line.id, &l, &n, &err));
    assert_int_equal(n, 1);
    assert_true(l[0].checkpoint == one && l[0].at == 1953849600LL * 1000000000); /* whole seconds */
    assert_string_equal(l[0].snapshot_id, "snap-one");
    at = l[0].at;
    store_expiries_free(l, n);
    OK(store_expiry_done(store, one, at, NULL, NULL, &err));
    OK(store_expiry_done(store, one, at, NULL, NULL, &err)); /* another mount, too */
    assert_int_equal(events_named("snapshot.expiry_set"), 1);
    OK(store_expiries(store, line.id, &l, &n, &err));
    assert_int_equal(n, 0);
    store_expiries_free(l, n);
    OK(put_meta(one, "{}", 2, false, &err));
    OK(store_expiries(store, line.id, &l, &n, &err));
    assert_true(n == 1 && l[0].at == 0);
    store_expiries_free(l, n);
    OK(store_expiry_done(store, one, 0, "Neon said no", NULL, &err));
    assert_int_equal(events_named("snapshot.expiry_refused"), 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_store, close_store)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(facts_are_what_the_planner_asks), TEST(a_plan_is_applied_once), TEST(what_changed_is_skipped), TEST(the_snapshot_alone),
        TEST(nothing_done_gives_the_plan_back), TEST(an_old_plan_is_refused), TEST(room_is_remembered),
        TEST(replaced_branches_are_listed_and_deleted), TEST(expiries_follow_meta_json),
    };

    return cmocka_run_group_tests(tests, fixture_up, fixture_down);
}
