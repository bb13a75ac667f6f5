/* Waiting: for Neon's operations, until deadlines, until a cancellation; and lists of several pages. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "neon_stub.h"

static const char *const two[] = {"op-1", "op-2"};

static int settle(struct fixture *f, const struct neon_call *call, size_t n)
{
    return neon_settle(f->neon, call, two, n, NULL, NULL, &f->err);
}

static struct neon_call within(int64_t ms)
{
    return (struct neon_call){.deadline_mono_ms = clock_mono_ms() + ms};
}

/* ---- operations ---- */

static void note_progress(void *arg, const struct neon_operation *op, size_t done, size_t n)
{
    buf_addf(arg, "%s %s %zu/%zu;", op->id, op->status, done, n);
}

static void all_operations_are_waited_for(void **state)
{
    struct buf seen cleanup_buf = {0};
    struct fixture f;

    (void)state;
    START(&f, {200, OP("op-1", "running", ""), NULL, KEEP}, {200, OP("op-1", "running", ""), NULL, KEEP},
          {200, OP("op-1", "polishing", ""), NULL, KEEP}, /* a status that Neon may add */
          {200, OP("op-1", "finished", ""), NULL, KEEP}, {200, OP("op-2", "scheduling", ""), NULL, KEEP},
          {200, OP("op-2", "skipped", ""), NULL, KEEP});
    assert_int_equal(neon_settle(f.neon, NULL, two, 2, note_progress, &seen, &f.err), 0);
    assert_string_equal(seen.data, "op-1 running 0/2;op-1 polishing 0/2;op-1 finished 1/2;op-2 scheduling 1/2;op-2 skipped 2/2;");
    assert_true(str_starts(f.stub.requests[0], "GET /api/v2/projects/p-1/operations/op-1 HTTP"));
    assert_true(str_starts(f.stub.requests[5], "GET /api/v2/projects/p-1/operations/op-2 HTTP"));
    finish(&f, 6);
}

static void no_operations_are_settled(void **state)
{
    const struct neon_operations none = {0};
    struct fixture f;

    (void)state;
    START(&f, {500, "", NULL, ANSWER});
    assert_int_equal(neon_settle_operations(f.neon, NULL, &none, NULL, NULL, &f.err), 0);
    finish(&f, 0);
}

static void error_and_cancelled_are_failures(void **state)
{
    static const struct {
        const char *body;
        const char *says;
    } cases[] = {
        {OP("op-1", "error", ",\"error\":\"timeline is archived\",\"branch_id\":\"br-x\""), "error: timeline is archived"},
        {OP("op-1", "cancelled", ""), "cancelled: no reason given"},
    };

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        const struct stub_step steps[] = {{200, cases[i].body, NULL, ANSWER}};
        struct fixture f;

        start(&f, steps, 1);
        assert_int_equal(settle(&f, NULL, 2), -EIO);
        assert_says(&f, cases[i].says);
        assert_says(&f, "create_branch (op-1");
        finish(&f, 1);
    }
}

static void failed_may_be_retried_by_neon(void **state)
{
    struct fixture f;

    (void)state;
    START(&f, {200, OP("op-1", "failed", ",\"failures_count\":1"), NULL, KEEP},
          {200, OP("op-1", "failed", ",\"failures_count\":2"), NULL, KEEP}, {200, OP("op-1", "running", ""), NULL, KEEP},
          {200, OP("op-1", "finished", ""), NULL, KEEP});
    assert_int_equal(settle(&f, NULL, 1), 0);
    finish(&f, 4);
}

static void failed_for_long_is_a_failure(void **state)
{
    const struct neon_config c = {.failed_grace_ms = 60};
    struct fixture f;

    (void)state;
    START(&f, {200, OP("op-1", "failed", ",\"failures_count\":1"), NULL, KEEP},
          {200, OP("op-1", "failed", ",\"failures_count\":1,\"error\":\"no room\""), NULL, KEEP},
          {200, OP("op-1", "failed", ",\"failures_count\":1,\"error\":\"no room\""), NULL, KEEP});
    neon_close(f.neon);
    open_with(&f, c);
    assert_int_equal(settle(&f, NULL, 1), -EIO);
    assert_says(&f, "failed: no room");
    assert_true(stub_count(&f.stub) >= 2);
    finish(&f, stub_count(&f.stub));
}

static void trouble_while_looking_is_borne(void **state)
{
    struct fixture f;

    (void)state;
    START(&f, {404, "{\"code\":\"\",\"message\":\"operation not found\"}", NULL, ANSWER}, {500, "", NULL, ANSWER},
          {0, NULL, NULL, DROP_READ}, {0, NULL, NULL, DROP_READ}, {500, "", NULL, ANSWER}, /* the client's four attempts */
          {200, "garbage", NULL, ANSWER}, {200, OP("op-1", "finished", ""), NULL, ANSWER});
    assert_int_equal(settle(&f, NULL, 1), 0);
    finish(&f, 7);
}

static void a_wrong_key_is_not_borne(void **state)
{
    struct fixture f;

    (void)state;
    START(&f, {401, "{\"message\":\"no\"}", NULL, ANSWER});
    assert_int_equal(settle(&f, NULL, 1), -EACCES);
    finish(&f, 1);
}

static void a_project_is_waited_for(void **state)
{
    struct fixture f;

    (void)state;
    START(&f,
          {200,
           "{\"operations\":[{\"id\":\"op-2\",\"status\":\"finished\"},{\"id\":\"op-1\",\"status\":\"cancelling\"}],"
           "\"pagination\":{\"cursor\":\"x\"}}",
           NULL, KEEP},
          {200,
           "{\"operations\":[{\"id\":\"op-2\",\"status\":\"finished\"},{\"id\":\"op-1\",\"status\":\"cancelled\"},"
           "{\"id\":\"op-0\",\"status\":\"failed\"}]}",
           NULL, ANSWER});
    assert_int_equal(neon_settle_project(f.neon, NULL, &f.err), 0);
    assert_true(str_starts(f.stub.requests[0], "GET /api/v2/projects/p-1/operations?limit=100 HTTP"));
    finish(&f, 2);
}

/* ---- deadlines and cancellation ---- */

/* Of a call that came too late on a busy machine: it is made again, with more time. */
static void drop(struct fixture *f)
{
    neon_close(f->neon);
    stub_stop(&f->stub);
    err_clear(&f->err);
}

static void deadlines_end_every_wait(void **state)
{
    const struct stub_step stalled[] = {{0, NULL, NULL, STALL}};
    const struct stub_step locked[] = {{423, LOCKED, "Retry-After: 60\r\n", ANSWER}};
    const struct stub_step running[] = {{200, OP("op-1", "running", ""), NULL, STALL}};
    struct neon_call soon;
    struct fixture f;

    (void)state;
    for (int64_t ms = 800;; ms *= 4) {
        start(&f, stalled, 1);
        soon = within(ms);
        assert_int_equal(take(&f, &soon), -ETIMEDOUT);
        if (f.unknown)
            break;
        assert_true(ms < CALL_MS); /* a busy machine hasn't even sent it by then */
        drop(&f);
    }
    assert_says(&f, "not known");
    assert_int_equal(take(&f, &soon), -ETIMEDOUT); /* over before it begins: not even sent */
    assert_false(f.unknown);
    finish(&f, 1);

    start(&f, locked, 1);
    soon = within(50000); /* what it is told to wait is longer */
    assert_int_equal(take(&f, &soon), -ETIMEDOUT);
    assert_false(f.unknown);
    assert_says(&f, "another operation runs");
    finish(&f, 1);

    for (int64_t ms = 800;; ms *= 4) {
        start(&f, running, 1);
        soon = within(ms);
        assert_int_equal(settle(&f, &soon, 1), -ETIMEDOUT);
        if (stub_count(&f.stub))
            break;
        assert_true(ms < CALL_MS);
        drop(&f);
    }
    assert_says(&f, "op-1");
    finish(&f, 1);
}

struct canceller {
    struct stub *stub;
    atomic_bool cancelled;
    _Atomic int64_t at;
};

/* Cancels as soon as the stub has seen a request. */
static void *cancel_after_request(void *arg)
{
    struct canceller *c = arg;

    while (stub_count(c->stub) == 0)
        clock_sleep_ms(5);
    clock_sleep_ms(60);
    c->at = clock_mono_ms();
    c->cancelled = true;
    return NULL;
}

static void check_cancel(struct stub_step step, int (*act)(struct fixture *, const struct neon_call *), bool unknown)
{
    struct canceller c = {0};
    const struct neon_call call = {.cancelled = &c.cancelled};
    struct fixture f;
    pthread_t thread;

    start(&f, &step, 1);
    c.stub = &f.stub;
    assert_int_equal(pthread_create(&thread, NULL, cancel_after_request, &c), 0);
    assert_int_equal(act(&f, &call), -ECANCELED);
    pthread_join(thread, NULL);
    assert_true(clock_mono_ms() - c.at < 20000); /* against waits of 30 s and more */
    assert_int_equal(f.unknown, unknown);
    finish(&f, 1);
}

static int settle_one(struct fixture *f, const struct neon_call *call)
{
    return settle(f, call, 1);
}

static int settle_project(struct fixture *f, const struct neon_call *call)
{
    return neon_settle_project(f->neon, call, &f->err);
}

static void cancellation_ends_every_wait(void **state)
{
    const struct stub_step stall = {0, NULL, NULL, STALL};

    (void)state;
    check_cancel(stall, take, true);
    check_cancel(stall, list, false);
    check_cancel(stall, settle_one, false);
    check_cancel(stall, settle_project, false);
    check_cancel((struct stub_step){423, LOCKED, "Retry-After: 60\r\n", ANSWER}, take, false);
}

static void slow_answers_time_out(void **state)
{
    const struct stub_step stalled[] = {{0, NULL, NULL, STALL}, {0, NULL, NULL, STALL}, {0, NULL, NULL, STALL}};
    struct fixture f;

    (void)state;
    for (int64_t ms = 500;; ms *= 4) {
        start(&f, stalled, 3);
        neon_close(f.neon);
        open_with(&f, (struct neon_config){.request_timeout_ms = ms, .max_attempts = 2});
        assert_int_equal(list(&f, NULL), -ETIMEDOUT);
        assert_int_equal(take(&f, NULL), -ETIMEDOUT);
        if (f.unknown && stub_count(&f.stub) == 3)
            break;
        assert_true(ms < CALL_MS);
        drop(&f);
    }
    finish(&f, 3);
}

/* ---- pages ---- */

static void all_pages_are_read(void **state)
{
    struct neon_branches l = {0};
    struct neon_branch b = {0};
    struct fixture f;

    (void)state;
    START(&f,
          {200, "{\"branches\":[{\"id\":\"br-a\",\"name\":\"a\",\"default\":true}],"
           "\"pagination\":{\"next\":\"eyJ+/==\",\"sort_order\":\"DESC\"}}",
           NULL, KEEP},
          {200, "{\"branches\":[{\"id\":\"br-b\",\"name\":\"b\"},{\"id\":\"br-c\",\"name\":\"c\"}],"
           "\"pagination\":{\"next\":\"two\"}}",
           NULL, KEEP},
          {200, "{\"branches\":[{\"id\":\"br-d\",\"name\":\"d\"}],\"annotations\":{},\"pagination\":{}}", NULL, KEEP},
          {200, "{\"branches\":[{\"id\":\"br-a\",\"name\":\"a\"}],\"pagination\":{\"next\":\"x\"}}", NULL, KEEP},
          {200, "{\"branches\":[],\"pagination\":{\"next\":\"x\"}}", NULL, KEEP},
          {200, "{\"branches\":[{\"id\":\"br-a\",\"name\":\"a\"}],\"pagination\":{\"next\":\"x\"}}", NULL, KEEP},
          {500, "", NULL, ANSWER}, {500, "", NULL, ANSWER}, {500, "", NULL, ANSWER}, {500, "", NULL, ANSWER});
    assert_int_equal(neon_branches_list(f.neon, NULL, &l, &f.err), 0);
    assert_int_equal(l.n, 4);
    assert_string_equal(l.items[3].id, "br-d");
    assert_null(strstr(f.stub.requests[0], "cursor"));
    assert_non_null(strstr(f.stub.requests[1], "&cursor=eyJ%2B%2F%3D%3D HTTP"));
    assert_non_null(strstr(f.stub.requests[2], "&cursor=two HTTP"));
    neon_branches_free(&l);
    assert_int_equal(neon_branch_find(f.neon, NULL, "b", &b, &f.err), -ENOENT);
    assert_int_equal(neon_branches_list(f.neon, NULL, &l, &f.err), -EIO); /* half a list is none */
    assert_int_equal(l.n, 0);
    finish(&f, 10);
}

/* ---- many threads ---- */

static void *list_often(void *arg)
{
    struct fixture *f = arg;

    for (int i = 0; i < 4; i++) {
        struct neon_snapshots l = {0};

        if (neon_snapshots_list(f->neon, NULL, &l, NULL) < 0)
            return f;
        neon_snapshots_free(&l);
    }
    return NULL;
}

static void threads_share_a_client(void **state)
{
    struct stub_step steps[48];
    struct fixture f;
    pthread_t threads[12];

    (void)state;
    for (size_t i = 0; i < 48; i++)
        steps[i] = (struct stub_step){200, NO_SNAPSHOTS, NULL, KEEP};
    start(&f, steps, 48);
    for (size_t i = 0; i < 12; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, list_often, &f), 0);
    for (size_t i = 0; i < 12; i++) {
        void *failed;

        pthread_join(threads[i], &failed);
        assert_null(failed);
    }
    finish(&f, 48);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_operations_are_waited_for),    cmocka_unit_test(no_operations_are_settled),
        cmocka_unit_test(error_and_cancelled_are_failures), cmocka_unit_test(failed_may_be_retried_by_neon),
        cmocka_unit_test(failed_for_long_is_a_failure),     cmocka_unit_test(trouble_while_looking_is_borne),
        cmocka_unit_test(a_wrong_key_is_not_borne),         cmocka_unit_test(a_project_is_waited_for),
        cmocka_unit_test(deadlines_end_every_wait),         cmocka_unit_test(cancellation_ends_every_wait),
        cmocka_unit_test(slow_answers_time_out),            cmocka_unit_test(all_pages_are_read),
        cmocka_unit_test(threads_share_a_client),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
