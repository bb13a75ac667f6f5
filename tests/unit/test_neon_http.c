/* The Neon client against a server that misbehaves as scripted: what is sent, what is sent again, what is never sent again, and
 * what the errors say. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "neon/neon.h"
#include "neon_stub.h"
#include "util/cleanup.h"
#include "util/text.h"

/* ---- what is sent ---- */

static void requests_are_as_neon_wants_them(void **state)
{
    struct fixture f;
    const char *q;

    (void)state;
    START(&f, {200, SNAPSHOT, NULL, ANSWER}, {200, SNAPSHOT, NULL, ANSWER});
    assert_int_equal(take(&f, NULL), 0);
    assert_false(f.unknown);
    q = f.stub.requests[0];
    assert_true(str_starts(q, "POST /api/v2/projects/p-1/branches/br-a-b-1/snapshot?name=pre%20drop%2B1 HTTP/1.1\r\n"));
    assert_non_null(strstr(q, "\r\nAuthorization: Bearer " KEY "\r\n"));
    assert_non_null(strstr(q, "\r\nContent-Length: 0\r\n"));
    assert_non_null(strstr(q, "\r\nAccept: application/json\r\n"));
    assert_non_null(strstr(q, "\r\nX-Request-ID: "));
    assert_non_null(strstr(q, "\r\nUser-Agent: checkpointfs\r\n"));
    assert_null(strstr(q, "Content-Type"));
    assert_null(strstr(q, "Expect"));
    finish(&f, 1);
}

static void expiry_and_bodies_are_sent(void **state)
{
    struct neon_snapshot s = {0};
    struct neon_operations ops = {0};
    struct neon_restored made = {0};
    struct fixture f;

    (void)state;
    START(&f, {200, SNAPSHOT, NULL, ANSWER}, {200, SNAPSHOT, NULL, ANSWER},
          {200, "{\"branch\":{\"id\":\"br-n-x-1\",\"name\":\"r\"}}", NULL, ANSWER}, {200, "{}", NULL, ANSWER});
    assert_int_equal(neon_snapshot_create(f.neon, NULL, "br-a", "n", 1798761600000000000, &s, &ops, NULL, NULL), 0);
    neon_snapshot_free(&s);
    neon_operations_free(&ops);
    assert_non_null(strstr(f.stub.requests[0], "expires_at=2027-01-01T00%3A00%3A00Z "));
    assert_int_equal(neon_snapshot_patch(f.neon, NULL, "snap-a", NULL, NEON_EXPIRES_NEVER, &s, NULL, NULL), 0);
    neon_snapshot_free(&s);
    assert_true(str_starts(f.stub.requests[1], "PATCH /api/v2/projects/p-1/snapshots/snap-a HTTP"));
    assert_non_null(strstr(f.stub.requests[1], "\r\nContent-Type: application/json\r\n"));
    assert_non_null(strstr(f.stub.requests[1], "\r\n\r\n{\"snapshot\":{\"expires_at\":null}}"));
    assert_int_equal(neon_restore(f.neon, NULL, "snap-a", "r", "br-t", &made, NULL, NULL), 0);
    assert_int_equal(made.endpoints.n + made.operations.n, 0);
    neon_restored_free(&made);
    assert_non_null(strstr(f.stub.requests[2], "{\"name\":\"r\",\"target_branch_id\":\"br-t\",\"finalize_restore\":false}"));
    assert_int_equal(neon_finalize(f.neon, NULL, "br-n-x-1", "old one", &ops, NULL, NULL), 0);
    assert_non_null(strstr(f.stub.requests[3], "/branches/br-n-x-1/finalize_restore HTTP"));
    assert_non_null(strstr(f.stub.requests[3], "{\"name\":\"old one\"}"));
    finish(&f, 4);
}

static void deletes_have_no_body_and_may_have_no_answer(void **state)
{
    struct neon_operations ops = {0};
    struct fixture f;

    (void)state;
    START(&f, {202, "{\"operations\":[{\"id\":\"op-1\",\"status\":\"running\"}]}", NULL, ANSWER}, {204, NULL, NULL, ANSWER},
          {202, "", NULL, ANSWER});
    assert_int_equal(neon_snapshot_delete(f.neon, NULL, "snap-a", &ops, NULL, NULL), 0);
    assert_int_equal(ops.n, 1);
    neon_operations_free(&ops);
    assert_true(str_starts(f.stub.requests[0], "DELETE "));
    assert_null(strstr(f.stub.requests[0], "Content-"));
    assert_int_equal(neon_branch_delete(f.neon, NULL, "br-a", &ops, NULL, NULL), 0);
    assert_int_equal(ops.n, 0);
    assert_int_equal(neon_snapshot_delete(f.neon, NULL, "snap-a", &ops, NULL, NULL), 0);
    assert_int_equal(ops.n, 0);
    finish(&f, 3);
}

/* Nothing of it is documented: what isn't said, or makes no sense, is not known. */
static void limits_may_be_unknown(void **state)
{
    struct neon_limits l = {0};
    struct fixture f;

    (void)state;
    START(&f, {200, "{\"limits\":{\"max_branches\":25,\"max_root_branches\":5,\"max_snapshots\":100,\"more\":[]}}", NULL, ANSWER},
          {200, "{\"limits\":{\"max_branches\":\"many\",\"max_snapshots\":-1}}", NULL, ANSWER}, {200, "{}", NULL, ANSWER},
          {404, "{\"code\":\"\",\"message\":\"not found\"}", NULL, ANSWER});
    assert_int_equal(neon_limits_get(f.neon, NULL, &l, &f.err), 0);
    assert_true(str_starts(f.stub.requests[0], "GET /api/v2/projects/p-1/limits HTTP/1.1\r\n"));
    assert_int_equal(l.branches, 25);
    assert_int_equal(l.root_branches, 5);
    assert_int_equal(l.snapshots, 100);
    for (int i = 0; i < 2; i++) {
        l = (struct neon_limits){0};
        assert_int_equal(neon_limits_get(f.neon, NULL, &l, &f.err), 0);
        assert_true(l.branches == -1 && l.root_branches == -1 && l.snapshots == -1);
    }
    assert_int_equal(neon_limits_get(f.neon, NULL, &l, &f.err), -ENOENT);
    finish(&f, 4);
}

static void bad_arguments_are_never_sent(void **state)
{
    struct neon_branch b = {0};
    struct neon_operations ops = {0};
    struct neon_restored made = {0};
    struct fixture f;
    char *uri = NULL;

    (void)state;
    START(&f, {200, "{}", NULL, ANSWER});
    f.unknown = true;
    assert_int_equal(neon_branch_get(f.neon, NULL, "", &b, &f.err), -EINVAL);
    assert_int_equal(neon_branch_get(f.neon, NULL, NULL, &b, &f.err), -EINVAL);
    assert_int_equal(neon_branch_delete(f.neon, NULL, "../../projects", &ops, &f.unknown, &f.err), -EINVAL);
    assert_false(f.unknown);
    assert_int_equal(neon_snapshot_delete(f.neon, NULL, "a?b", &ops, NULL, &f.err), -EINVAL);
    assert_int_equal(neon_restore(f.neon, NULL, "snap-a", "", NULL, &made, NULL, &f.err), -EINVAL);
    assert_int_equal(neon_restore(f.neon, NULL, "snap-a", "\xff", NULL, &made, NULL, &f.err), -EINVAL);
    assert_int_equal(neon_restore(f.neon, NULL, "snap-a", "n", "B/", &made, NULL, &f.err), -EINVAL);
    assert_int_equal(neon_connection_uri(f.neon, NULL, "br-a", "", "r", &uri, &f.err), -EINVAL);
    finish(&f, 0);
}

static void names_in_queries_are_escaped(void **state)
{
    struct fixture f;
    char *uri cleanup_free = NULL;

    (void)state;
    START(&f, {200, "{\"uri\":\"postgresql://r:pw@h/d\"}", NULL, ANSWER}, {200, "{\"uri\":7}", NULL, ANSWER});
    assert_int_equal(neon_connection_uri(f.neon, NULL, "br-a", "a&b=c d", "o\xc3\xa9/?", &uri, &f.err), 0);
    assert_string_equal(uri, "postgresql://r:pw@h/d");
    assert_non_null(strstr(f.stub.requests[0],
                           "/connection_uri?branch_id=br-a&database_name=a%26b%3Dc%20d&role_name=o%C3%A9%2F%3F HTTP"));
    assert_int_equal(neon_connection_uri(f.neon, NULL, "br-a", "d", "r", &uri, &f.err), -EPROTO);
    finish(&f, 2);
}

/* ---- what is sent again ---- */

static void locked_is_waited_for_without_a_count(void **state)
{
    struct fixture f;

    (void)state;
    START(&f, {423, LOCKED, NULL, ANSWER}, {423, LOCKED, NULL, KEEP}, {429, "", NULL, ANSWER}, {423, LOCKED, NULL, ANSWER},
          {422, "{\"code\":\"\",\"message\":\"branch not ready yet\"}", NULL, ANSWER}, {423, LOCKED, NULL, ANSWER},
          {200, SNAPSHOT, NULL, ANSWER});
    assert_int_equal(take(&f, NULL), 0);
    finish(&f, 7);
}

static void unavailable_is_tried_a_few_times(void **state)
{
    struct fixture f;

    (void)state;
    START(&f, {503, "", NULL, ANSWER}, {503, "<html>", NULL, ANSWER}, {503, "", NULL, ANSWER}, {503, "", NULL, ANSWER},
          {200, SNAPSHOT, NULL, ANSWER});
    assert_int_equal(take(&f, NULL), -EIO);
    assert_false(f.unknown); /* a 503 says that nothing was done */
    assert_says(&f, "503");
    finish(&f, 4);
}

static void reads_are_repeated(void **state)
{
    struct fixture f;

    (void)state;
    START(&f, {500, "{\"message\":\"x\"}", NULL, ANSWER}, {0, NULL, NULL, DROP_READ}, {524, "<html>", NULL, ANSWER},
          {200, NO_SNAPSHOTS, NULL, ANSWER}, {200, "{\"snapsh", NULL, TRUNCATED}, {0, NULL, NULL, DROP_UNREAD},
          {502, "", NULL, ANSWER}, {200, NO_SNAPSHOTS, NULL, ANSWER});
    assert_int_equal(list(&f, NULL), 0);
    assert_int_equal(list(&f, NULL), 0);
    finish(&f, 8);
}

static void retry_after_is_honoured(void **state)
{
    struct fixture f;

    (void)state;
    START(&f, {429, "", "Retry-After: 1\r\n", ANSWER}, {200, NO_SNAPSHOTS, NULL, ANSWER});
    assert_int_equal(list(&f, NULL), 0);
    assert_true(f.stub.times[1] - f.stub.times[0] >= 990);
    finish(&f, 2);
}

static void retry_after_beyond_the_deadline_is_not_waited_for(void **state)
{
    struct fixture f;
    int64_t before = clock_mono_ms();

    (void)state;
    START(&f, {423, LOCKED, "Retry-After: 3600\r\n", ANSWER});
    assert_int_equal(take(&f, NULL), -ETIMEDOUT);
    assert_false(f.unknown);
    assert_says(&f, "conflicting operations");
    assert_true(clock_mono_ms() - before < CALL_MS);
    finish(&f, 1);
}

static bool three_times(void *arg, const char *what)
{
    int *asked = arg;

    assert_non_null(strstr(what, "snapshot"));
    return ++*asked <= 3;
}

/* Another mount may take over while the project is locked: each attempt needs the lease. */
static void a_retry_is_not_sent_once_changes_are_forbidden(void **state)
{
    int asked = 0;
    const struct neon_call call = {.before_change = three_times, .change_arg = &asked};
    struct fixture f;

    (void)state;
    START(&f, {423, LOCKED, NULL, ANSWER}, {429, "", NULL, ANSWER}, {423, LOCKED, NULL, ANSWER}, {200, SNAPSHOT, NULL, ANSWER});
    assert_int_equal(take(&f, &call), -ESTALE);
    assert_false(f.unknown);
    assert_int_equal(asked, 4);
    finish(&f, 3);
}

static void one_attempt_when_asked_for(void **state)
{
    const struct neon_call once = {.flags = NEON_CALL_ONCE};
    struct fixture f;

    (void)state;
    START(&f, {423, LOCKED, NULL, ANSWER}, {429, "", NULL, ANSWER}, {0, NULL, NULL, DROP_READ});
    assert_int_equal(take(&f, &once), -EBUSY);
    assert_int_equal(list(&f, &once), -EBUSY);
    assert_int_equal(list(&f, &once), -ECONNRESET);
    finish(&f, 3);
}

/* ---- what is never sent again ---- */

static void mutations_with_an_unknown_end_are_sent_once(void **state)
{
    static const struct {
        struct stub_step step;
        int code;
    } cases[] = {
        {{0, NULL, NULL, DROP_READ}, ECONNRESET},
        {{200, "{\"snapshot\":", NULL, TRUNCATED}, ECONNRESET},
        {{200, "{\"snapshot\":", NULL, ANSWER}, EPROTO},
        {{200, "<html>fine</html>", NULL, ANSWER}, EPROTO},
        {{200, "", NULL, ANSWER}, EPROTO},
        {{200, "[]", NULL, ANSWER}, EPROTO},
        {{200, "{\"operations\":[]}", NULL, ANSWER}, EPROTO},
        {{500, "{\"code\":\"\",\"message\":\"oops\"}", NULL, ANSWER}, EIO},
        {{502, "", NULL, ANSWER}, EIO},
        {{524, "<html>a timeout occurred</html>", NULL, ANSWER}, EIO},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct fixture f;

        start(&f, &cases[i].step, 1);
        assert_int_equal(take(&f, NULL), -cases[i].code);
        assert_int_equal(f.err.code, cases[i].code);
        assert_true(f.unknown);
        finish(&f, 1);
    }
}

/* libcurl sends a request again by itself when a kept connection was closed meanwhile; for a mutation that would be blind. */
static void a_dead_connection_never_doubles_a_mutation(void **state)
{
    struct fixture f;

    (void)state;
    START(&f, {200, NO_SNAPSHOTS, NULL, KEEP}, {200, NO_SNAPSHOTS, NULL, KEEP}, {0, NULL, NULL, DROP_READ},
          {200, SNAPSHOT, NULL, ANSWER});
    assert_int_equal(list(&f, NULL), 0);
    assert_int_equal(list(&f, NULL), 0);
    assert_int_equal(f.stub.n_connections, 1); /* reads do use it again */
    assert_int_equal(take(&f, NULL), -ECONNRESET);
    assert_true(f.unknown);
    finish(&f, 3);
}

static void refusals_are_final_and_understood(void **state)
{
    static const struct {
        int status;
        const char *body;
        int code;
        const char *says;
    } cases[] = {
        {401, "{\"code\":\"\",\"message\":\"supplied credentials do not pass authentication\"}", EACCES, "NEON_API_KEY"},
        {401, "{\"code\":\"\",\"message\":\"who is " KEY "?\"}", EACCES, "who is *****"},
        {403, "{\"code\":\"\",\"message\":\"no\"}", EACCES, "403 no"},
        {404, "{\"code\":\"\",\"message\":\"branch not found\",\"request_id\":\"r-1\"}", ENOENT,
         "404 branch not found (request id r-1)"},
        {404, "<html>", ENOENT, "/api/v2"},
        {409, "{\"error\":{\"code\":\"X\",\"message\":\"taken\"}}", EEXIST, "409 taken X"},
        {412, "{\"message\":\"plan\"}", EOPNOTSUPP, "412 plan"},
        {400, "{\"message\":\"bad\\nline\"}", EINVAL, "400 bad line"},
        {422, "{\"message\":\"odd\"}", EINVAL, "422 odd"},
        {301, "", EPROTO, "301"},
        {302, "{}", EPROTO, "NEON_API_HOST"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct stub_step steps[] = {{cases[i].status, cases[i].body, "Location: /elsewhere\r\n", ANSWER}};
        struct fixture f;

        start(&f, steps, 1);
        assert_int_equal(take(&f, NULL), -cases[i].code);
        assert_int_equal(f.err.code, cases[i].code);
        assert_false(f.unknown);
        assert_says(&f, cases[i].says);
        assert_null(strchr(f.err.text, '\n'));
        finish(&f, 1);
    }
}

static void the_request_id_is_taken_from_the_header(void **state)
{
    struct fixture f;

    (void)state;
    START(&f, {400, "", "x-neon-ret-request-id: 787531a0\r\n", ANSWER});
    assert_int_equal(list(&f, NULL), -EINVAL);
    assert_says(&f, "787531a0");
    finish(&f, 1);
}

/* What was told of one request. */
struct told {
    int times;
    char text[128];
};

static void after_change(void *arg, const char *what, const struct neon_change *done)
{
    struct told *t = arg;

    t->times++;
    assert_true(str_starts(what, "delete snapshot snap-a"));
    snprintf(t->text, sizeof(t->text), "%s %s", done ? done->request_id ? done->request_id : "no id" : "not done",
             done && done->operations.n ? done->operations.items[0].id : "-");
}

static void whoever_changes_something_is_told_the_request_id(void **state)
{
    static const char ops[] = "{\"operations\":[{\"id\":\"op-1\",\"status\":\"running\"}]}";
    static const char id[] = "X-Neon-Ret-Request-ID: r-7\r\n";
    static const struct {
        struct stub_step step;
        const char *told;
    } cases[] = {
        {{200, ops, id, ANSWER}, "r-7 op-1"}, {{200, ops, NULL, ANSWER}, "no id op-1"}, {{204, "", id, ANSWER}, "r-7 -"},
        {{404, "", id, ANSWER}, "not done -"}, {{200, ops, id, TRUNCATED}, "not done -"}, {{200, "", NULL, DROP_READ}, "not done -"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct neon_operations l = {0};
        struct told t = {0};
        struct neon_call call = {.after_change = after_change, .change_arg = &t};
        struct fixture f;

        start(&f, &cases[i].step, 1);
        neon_snapshot_delete(f.neon, &call, "snap-a", &l, NULL, NULL);
        assert_int_equal(t.times, 1);
        assert_string_equal(t.text, cases[i].told);
        neon_operations_free(&l);
        finish(&f, 1);
    }
}

static void a_limit_names_what_could_be_deleted(void **state)
{
    struct neon_restored made = {0};
    struct fixture f;

    (void)state;
    START(&f, {422, "{\"code\":\"\",\"message\":\"snapshots limit exceeded\"}", NULL, ANSWER},
          {200,
           "{\"snapshots\":[{\"id\":\"snap-new\",\"name\":\"new\",\"manual\":true,\"created_at\":\"2026-11-24T10:00:00Z\"},"
           "{\"id\":\"snap-daily\",\"name\":\"daily\",\"manual\":false,\"created_at\":\"2026-11-23T10:00:00Z\"},"
           "{\"id\":\"snap-old\",\"name\":\"old\",\"manual\":true,\"created_at\":\"2026-11-20T10:00:00Z\"}]}",
           NULL, ANSWER},
          {422, "{\"code\":\"ROOT_BRANCHES_LIMIT_EXCEEDED\",\"message\":\"root branches limit exceeded\"}", NULL, ANSWER},
          {200,
           "{\"branches\":[{\"id\":\"br-main\",\"name\":\"main\",\"default\":true},{\"id\":\"br-old\",\"name\":\"main (old)\"},"
           "{\"id\":\"br-child\",\"name\":\"child\",\"parent_id\":\"br-main\"}],\"annotations\":{}}",
           NULL, ANSWER},
          {422, "{\"code\":\"\",\"message\":\"snapshots limit exceeded\"}", NULL, ANSWER}, {500, "", NULL, ANSWER});
    assert_int_equal(take(&f, NULL), -EDQUOT);
    assert_says(&f, "snapshots limit exceeded");
    assert_says(&f, "old (snap-old), new (snap-new)");
    assert_null(strstr(f.err.text, "daily"));
    assert_int_equal(neon_restore(f.neon, NULL, "snap-a", "n", NULL, &made, &f.unknown, &f.err), -EDQUOT);
    assert_false(f.unknown);
    assert_says(&f, "main (old) (br-old)");
    assert_null(strstr(f.err.text, "br-child"));
    assert_int_equal(take(&f, NULL), -EDQUOT); /* though what to delete can't be found out */
    finish(&f, 6);
}

static void an_endless_answer_is_cut(void **state)
{
    size_t n = (64u << 20) + 1;
    char *body cleanup_free = malloc(n + 1);
    struct fixture f;

    (void)state;
    assert_non_null(body);
    memset(body, ' ', n);
    body[n] = '\0';
    START(&f, {200, body, NULL, ANSWER});
    assert_int_equal(list(&f, NULL), -EMSGSIZE);
    finish(&f, 1);
}

/* ---- unreachable ---- */

static void nobody_listening_is_refused_and_known(void **state)
{
    struct fixture f;

    (void)state;
    START(&f, {200, "{}", NULL, ANSWER});
    stub_stop(&f.stub);
    assert_int_equal(take(&f, NULL), -ECONNREFUSED);
    assert_false(f.unknown);
    assert_says(&f, "NEON_API_HOST");
    assert_int_equal(list(&f, NULL), -ECONNREFUSED);
    neon_close(f.neon);
    err_clear(&f.err);
}

static void an_unknown_host_is_unreachable(void **state)
{
    const struct neon_config c = {
        .api_host = "https://console.neon.invalid/api/v2", .api_key = KEY, .project_id = "p-1", .max_attempts = 1};
    struct fixture f = {0};

    (void)state;
    assert_int_equal(neon_open(&c, &f.neon, &f.err), 0);
    assert_int_equal(take(&f, NULL), -EHOSTUNREACH);
    assert_false(f.unknown);
    neon_close(f.neon);
    err_clear(&f.err);
}

/* A server that speaks no TLS where TLS is meant never sees the key. */
static void without_tls_nothing_is_sent(void **state)
{
    struct fixture f;
    char *host cleanup_free = NULL;
    struct neon_config c = {.api_key = KEY, .project_id = "p-1", .max_attempts = 1};
    struct neon_call soon = {.deadline_mono_ms = clock_mono_ms() + 300};

    (void)state;
    START(&f, {200, SNAPSHOT, NULL, ANSWER});
    neon_close(f.neon);
    host = str_format("https://127.0.0.1:%d/api/v2", f.stub.port);
    c.api_host = host;
    assert_int_equal(neon_open(&c, &f.neon, &f.err), 0);
    assert_int_equal(take(&f, &soon), -ETIMEDOUT);
    assert_false(f.unknown);
    finish(&f, 0);
}

static void configurations_are_checked(void **state)
{
    static const struct neon_config bad[] = {
        {.project_id = "p-1"},
        {.api_key = "", .project_id = "p-1"},
        {.api_key = KEY "\r\nX: y", .project_id = "p-1"},
        {.api_key = KEY},
        {.api_key = KEY, .project_id = ""},
        {.api_key = KEY, .project_id = "p/1"},
        {.api_key = KEY, .project_id = "p-1", .api_host = "ftp://h/api/v2"},
        {.api_key = KEY, .project_id = "p-1", .api_host = "https://user:pw@h/api/v2"},
        {.api_key = KEY, .project_id = "p-1", .api_host = "https://h/api/v2?x=y"},
        {.api_key = KEY, .project_id = "p-1", .api_host = "https://"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct err err cleanup_err = {0};
        struct neon *neon = NULL;

        assert_int_equal(neon_open(&bad[i], &neon, &err), -EINVAL);
        assert_null(neon);
        assert_non_null(err.text);
        assert_null(strstr(err.text, KEY));
        assert_null(strstr(err.text, "pw"));
    }
}

static void a_host_without_a_scheme_gets_one(void **state)
{
    static const struct {
        const char *host;
        const char *base;
    } cases[] = {
        {NULL, "https://console.neon.tech/api/v2"},
        {"console.neon.tech/api/v2/", "https://console.neon.tech/api/v2"},
        {"127.0.0.1:18080/api/v2", "http://127.0.0.1:18080/api/v2"},
        {"localhost:1/api/v2", "http://localhost:1/api/v2"},
        {"localhost.example.com/api/v2", "https://localhost.example.com/api/v2"},
        {"127.example.com/api/v2", "https://127.example.com/api/v2"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct neon_config c = {.api_host = cases[i].host, .api_key = KEY, .project_id = "p-1"};
        struct neon *neon = NULL;

        assert_int_equal(neon_open(&c, &neon, NULL), 0);
        assert_string_equal(neon_api_host(neon), cases[i].base);
        neon_close(neon);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_are_as_neon_wants_them),
        cmocka_unit_test(expiry_and_bodies_are_sent),
        cmocka_unit_test(deletes_have_no_body_and_may_have_no_answer),
        cmocka_unit_test(limits_may_be_unknown),
        cmocka_unit_test(bad_arguments_are_never_sent),
        cmocka_unit_test(names_in_queries_are_escaped),
        cmocka_unit_test(locked_is_waited_for_without_a_count),
        cmocka_unit_test(unavailable_is_tried_a_few_times),
        cmocka_unit_test(reads_are_repeated),
        cmocka_unit_test(retry_after_is_honoured),
        cmocka_unit_test(retry_after_beyond_the_deadline_is_not_waited_for),
        cmocka_unit_test(a_retry_is_not_sent_once_changes_are_forbidden),
        cmocka_unit_test(one_attempt_when_asked_for),
        cmocka_unit_test(mutations_with_an_unknown_end_are_sent_once),
        cmocka_unit_test(a_dead_connection_never_doubles_a_mutation),
        cmocka_unit_test(refusals_are_final_and_understood),
        cmocka_unit_test(the_request_id_is_taken_from_the_header),
        cmocka_unit_test(whoever_changes_something_is_told_the_request_id),
        cmocka_unit_test(a_limit_names_what_could_be_deleted),
        cmocka_unit_test(an_endless_answer_is_cut),
        cmocka_unit_test(nobody_listening_is_refused_and_known),
        cmocka_unit_test(an_unknown_host_is_unreachable),
        cmocka_unit_test(without_tls_nothing_is_sent),
        cmocka_unit_test(configurations_are_checked),
        cmocka_unit_test(a_host_without_a_scheme_gets_one),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
