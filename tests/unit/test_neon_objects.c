/* Neon's JSON: the bodies recorded in Neon's documentation, and what Neon may do to them without notice. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "../../fs/neon/neon_i.h"
#include "util/cleanup.h"
#include "util/clock.h"

static json_t *load(const char *text)
{
    json_t *root = json_loads(text, 0, NULL);

    assert_non_null(root);
    return root;
}

static int64_t at(const char *time)
{
    int64_t ns;

    assert_int_equal(clock_parse(time, &ns), 0);
    return ns;
}

static const char created_snapshot[] =
    "{\"snapshot\":{\"id\":\"snap-quiet-meadow-a5b6c7d8\",\"name\":\"my-snapshot-2\","
    "\"source_branch_id\":\"br-young-forest-a5b6c7d8\","
    "\"created_at\":\"2025-01-15T10:30:00Z\",\"manual\":true,\"slug\":\"unheard-of\"},"
    "\"operations\":[{\"id\":\"a07f8772-1877-4da9-a939-3a3ae62d1d8d\",\"project_id\":\"p-1\",\"branch_id\":\"br-hidden-x-1\","
    "\"action\":\"create_branch\",\"status\":\"running\",\"failures_count\":0,\"created_at\":\"2025-01-15T10:30:00Z\"},"
    "{\"id\":\"b07f8772-1877-4da9-a939-3a3ae62d1d8d\",\"action\":\"timeline_archive\",\"status\":\"scheduling\","
    "\"failures_count\":2.0,\"retry_at\":\"2025-01-15T10:31:00.5Z\",\"error\":\"storage is slow\"}]}";

static void created_snapshot_is_read(void **state)
{
    json_t *root cleanup_json = load(created_snapshot);
    struct neon_snapshot s = {0};
    struct neon_operations ops = {0};

    (void)state;
    assert_int_equal(neon_parse_snapshot(root, "snapshot", &s, NULL), 0);
    assert_string_equal(s.id, "snap-quiet-meadow-a5b6c7d8");
    assert_string_equal(s.name, "my-snapshot-2");
    assert_string_equal(s.source_branch_id, "br-young-forest-a5b6c7d8");
    assert_true(s.manual);
    assert_null(s.lsn);
    assert_int_equal(s.created_at_ns, at("2025-01-15T10:30:00Z"));
    assert_int_equal(s.expires_at_ns, 0);
    assert_int_equal(s.full_size, -1);
    assert_int_equal(s.diff_size, -1);
    assert_int_equal(neon_parse_operations(root, &ops, NULL), 0);
    assert_int_equal(ops.n, 2);
    assert_string_equal(ops.items[0].action, "create_branch");
    assert_string_equal(ops.items[0].branch_id, "br-hidden-x-1");
    assert_null(ops.items[0].error);
    assert_string_equal(ops.items[1].status, "scheduling");
    assert_string_equal(ops.items[1].error, "storage is slow");
    assert_int_equal(ops.items[1].failures_count, 2);
    assert_int_equal(ops.items[1].retry_at_ns, at("2025-01-15T10:31:00.5Z"));
    neon_snapshot_free(&s);
    neon_operations_free(&ops);
    assert_null(ops.items);
}

static const char restored[] =
    "{\"branch\":{\"id\":\"br-new-x-1\",\"project_id\":\"p-1\",\"parent_lsn\":\"0/1ADB9F8\",\"name\":\"restored-from-snapshot\","
    "\"current_state\":\"init\",\"pending_state\":\"ready\",\"creation_source\":\"console\",\"primary\":false,\"default\":false,"
    "\"protected\":true,\"cpu_used_sec\":0,\"logical_size\":9007199254740993,\"restore_status\":\"restored\","
    "\"restored_from\":\"snap-a-b-1\",\"restored_as\":\"br-target-x-1\",\"expires_at\":null},"
    "\"endpoints\":[{\"id\":\"ep-new-x-1\",\"branch_id\":\"br-new-x-1\",\"type\":\"read_write\","
    "\"autoscaling_limit_min_cu\":0.25,"
    "\"host\":\"ep-new-x-1.c-5.us-east-2.aws.neon.tech\",\"current_state\":\"init\",\"pending_state\":\"active\","
    "\"group\":{\"size\":1}}],"
    "\"operations\":[{\"id\":\"c07f\",\"action\":\"timeline_unarchive\",\"status\":\"running\"}]}";

static void restored_branch_is_read(void **state)
{
    json_t *root cleanup_json = load(restored);
    struct neon_restored r = {0};

    (void)state;
    assert_int_equal(neon_parse_restored(root, &r, NULL), 0);
    assert_string_equal(r.branch.id, "br-new-x-1");
    assert_null(r.branch.parent_id);
    assert_string_equal(r.branch.pending_state, "ready");
    assert_string_equal(r.branch.restored_from, "snap-a-b-1");
    assert_string_equal(r.branch.restored_as, "br-target-x-1");
    assert_string_equal(r.branch.restore_status, "restored");
    assert_false(r.branch.is_default);
    assert_true(r.branch.is_protected);
    assert_true(r.branch.logical_size == 9007199254740993); /* more than a double holds */
    assert_int_equal(r.branch.expires_at_ns, 0);
    assert_int_equal(r.endpoints.n, 1);
    assert_string_equal(r.endpoints.items[0].host, "ep-new-x-1.c-5.us-east-2.aws.neon.tech");
    assert_int_equal(r.operations.n, 1);
    neon_restored_free(&r);
}

static void absent_lists_are_empty(void **state)
{
    static const char *const bodies[] = {"{}", "{\"operations\":null,\"endpoints\":[]}"};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        json_t *root cleanup_json = load(bodies[i]);
        struct neon_operations ops = {.n = 7};
        struct neon_endpoints eps = {.n = 7};
        struct neon_snapshots snaps = {0};

        assert_int_equal(neon_parse_operations(root, &ops, NULL), 0);
        assert_int_equal(ops.n, 0);
        assert_int_equal(neon_parse_endpoints(root, &eps, NULL), 0);
        assert_int_equal(eps.n, 0);
        assert_int_equal(neon_parse_snapshots(root, &snaps, NULL), -EPROTO);
    }
}

/* An answer without what everything rests on is refused, and the result left as it was. */
static void lacking_answers_are_refused(void **state)
{
    static const char *const bodies[] = {
        "{}",
        "{\"branch\":[]}",
        "{\"branch\":{\"name\":\"no id\"}}",
        "{\"branch\":{\"id\":\"\",\"name\":\"empty id\"}}",
        "{\"branch\":{\"id\":7,\"name\":\"number\"}}",
        "{\"branch\":{\"id\":\"br-a-b-1\"}}",
        "{\"branch\":{\"id\":\"br-a-b-1\",\"name\":\"n\"},\"operations\":[{\"id\":\"x\"}]}",
        "{\"branch\":{\"id\":\"br-a-b-1\",\"name\":\"n\"},\"operations\":[{\"id\":\"x\",\"status\":\"running\"},3]}",
        "{\"branch\":{\"id\":\"br-a-b-1\",\"name\":\"n\"},\"operations\":{}}",
        "{\"branch\":{\"id\":\"br-a-b-1\",\"name\":\"n\"},\"endpoints\":[{}]}",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
        json_t *root cleanup_json = load(bodies[i]);
        struct neon_restored r = {.operations = {.n = 42}};
        struct err err cleanup_err = {0};

        assert_int_equal(neon_parse_restored(root, &r, &err), -EPROTO);
        assert_int_equal(err.code, EPROTO);
        assert_int_equal(r.operations.n, 42);
        assert_null(r.branch.id);
    }
}

static void older_default_flag_is_understood(void **state)
{
    json_t *root cleanup_json = load("{\"branches\":[{\"id\":\"br-a\",\"name\":\"a\",\"primary\":true},"
                                     "{\"id\":\"br-b\",\"name\":\"b\",\"primary\":true,\"default\":false,"
                                     "\"parent_id\":\"br-a\"}]}");
    struct neon_branches l = {0};

    (void)state;
    assert_int_equal(neon_parse_branches(root, &l, NULL), 0);
    assert_ptr_equal(neon_branches_default(&l), &l.items[0]);
    assert_ptr_equal(neon_branches_by_id(&l, "br-b"), &l.items[1]);
    assert_null(neon_branches_by_id(&l, "br-c"));
    l.items[1].is_default = true;
    assert_null(neon_branches_default(&l));
    neon_branches_free(&l);
}

static void roles_and_databases_are_read(void **state)
{
    json_t *root cleanup_json = load("{\"roles\":[{\"branch_id\":\"br-a\",\"name\":\"o\\u00e9\",\"protected\":false,"
                                     "\"authentication_method\":\"password\"},{\"name\":\"x\","
                                     "\"authentication_method\":\"no_login\"}],"
                                     "\"databases\":[{\"id\":834686,\"name\":\"neondb\",\"owner_name\":\"o\"}]}");
    struct neon_roles roles = {0};
    struct neon_databases databases = {0};

    (void)state;
    assert_int_equal(neon_parse_roles(root, &roles, NULL), 0);
    assert_string_equal(roles.items[0].name, "o\xc3\xa9");
    assert_false(roles.items[0].no_login);
    assert_true(roles.items[1].no_login);
    assert_int_equal(neon_parse_databases(root, &databases, NULL), 0);
    assert_string_equal(databases.items[0].owner_name, "o");
    neon_roles_free(&roles);
    neon_databases_free(&databases);
}

static void ids_are_checked(void **state)
{
    (void)state;
    assert_true(neon_id_ok("br-young-forest-a5b6c7d8"));
    assert_true(neon_id_ok("x23456789012345678901234567890123456789012345678901234567890"));
    assert_false(neon_id_ok("x234567890123456789012345678901234567890123456789012345678901"));
    assert_false(neon_id_ok(NULL));
    assert_false(neon_id_ok(""));
    assert_false(neon_id_ok("a/b"));
    assert_false(neon_id_ok(".."));
    assert_false(neon_id_ok("A"));
    assert_false(neon_id_ok("a?b=c"));
}

static void limits_are_recognised(void **state)
{
    (void)state;
    assert_true(neon_is_limit("", "snapshots limit exceeded"));
    assert_true(neon_is_limit("ROOT_BRANCHES_LIMIT_EXCEEDED", NULL));
    assert_true(neon_is_limit("BRANCHES_LIMIT_EXCEEDED", "anything"));
    assert_false(neon_is_limit("", "branch not ready yet"));
    assert_false(neon_is_limit(NULL, NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(created_snapshot_is_read),     cmocka_unit_test(restored_branch_is_read),
        cmocka_unit_test(absent_lists_are_empty),       cmocka_unit_test(lacking_answers_are_refused),
        cmocka_unit_test(older_default_flag_is_understood), cmocka_unit_test(roles_and_databases_are_read),
        cmocka_unit_test(ids_are_checked),              cmocka_unit_test(limits_are_recognised),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
