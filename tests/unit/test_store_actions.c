/* The store's journal: what each verb refuses, attempts and decisions, restores, the project's turn, taking over. */
#include <pthread.h>

#include "store_fixture.h"

static void a_decision_is_claimed_once(void **state)
{
    cleanup_err struct err err = {0};
    struct store_action a = {0}, b = {0};
    struct store_checkpoint k;
    int64_t one = take("one", "br-a");

    (void)state;
    REFUSED(ENODATA, begin(ACTION_RESUME, one, &a, &err)); /* no state */
    REFUSED(ENODATA, begin(ACTION_REPLAY, one, &a, &err));
    seal(one);
    OK(begin(ACTION_RESUME, one, &a, &err));
    assert_int_equal(a.state, ACTION_RUNNING);
    assert_true(str_starts(a.uid, "act-") && strlen(a.uid) == 20);
    assert_string_equal(a.command, "words");
    assert_string_equal(a.step, "");
    assert_string_equal(a.data, "{}");
    assert_null(a.doc);
    k = get(one);
    assert_int_equal(k.attempt_id, a.attempt);
    assert_false(k.attempt_open);
    assert_int_equal(k.busy_action, a.id);
    store_checkpoint_free(&k);
    REFUSED(EBUSY, begin(ACTION_RESUME, one, &b, &err));
    assert_int_equal(take("while-it-runs", "br-a") > one, true);
    OK(store_action_step(store, a.id, "agent", "{\"pid\":7}", "{\"running\":1}\n", "agent running on h1", &err));
    k = get(one);
    assert_string_equal(k.activity, "agent running on h1");
    assert_int_equal(k.sizes[FILE_RESULT], 14);
    store_checkpoint_free(&k);
    OK(finish(a.id, ACTION_DONE, 0, "finished", false, &err));
    REFUSED(EALREADY, finish(a.id, ACTION_DONE, 0, NULL, false, &err));
    REFUSED(EALREADY, store_action_step(store, a.id, "x", NULL, NULL, NULL, &err));
    k = get(one);
    assert_string_equal(k.outcome, "finished");
    assert_null(k.activity);
    assert_int_equal(k.busy_action, 0);
    store_checkpoint_free(&k);
    REFUSED(EALREADY, begin(ACTION_RESUME, one, &b, &err));
    REFUSED(EALREADY, begin_with(ACTION_RESUME, one, APPROVE, true, &b, &err)); /* `again` is for what failed */
    sql_is("SELECT string_agg(call_id || decision || arguments_sha256, ',' ORDER BY call_id) FROM checkpointfs.decisions",
           "c1approveaa,c2rejectbb");
    assert_int_equal(events_named("approval.decided"), 1);
    assert_int_equal(events_named("resume.started"), 1);
    assert_int_equal(events_named("resume.finished"), 1);
    store_action_free(&a);
}

static void again_goes_on_after_failure(void **state)
{
    static const struct { enum action_state ends; const char *outcome; bool release; int plain, again; } table[] = {
        {ACTION_FAILED, "failed resume: exit 1", false, EALREADY, 0},
        {ACTION_UNKNOWN, "unknown", false, EALREADY, 0},
        {ACTION_FAILED, "", true, 0, 0}, /* exit 75: open again */
        {ACTION_DONE, "stopped again -> two", false, EALREADY, EALREADY},
    };
    cleanup_err struct err err = {0};
    struct store_action a = {0};

    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        cleanup_free char *name = str_format("n%zu", i);
        int64_t one = take(name, "br-a");

        seal(one);
        OK(begin(ACTION_RESUME, one, &a, &err));
        OK(finish(a.id, table[i].ends, table[i].ends == ACTION_DONE ? 0 : EIO, table[i].outcome, table[i].release, &err));
        for (int again = 0; again < 2; again++) {
            int wanted = again ? table[i].again : table[i].plain;

            store_action_free(&a);
            if (wanted) {
                REFUSED(wanted, begin_with(ACTION_RESUME, one, APPROVE, again, &a, &err));
            } else {
                OK(begin_with(ACTION_RESUME, one, APPROVE, again, &a, &err));
                OK(finish(a.id, table[i].ends, EIO, table[i].outcome, table[i].release, &err));
            }
        }
    }
    sql_is("SELECT string_agg(state, ',' ORDER BY id) FROM checkpointfs.attempts", "failed,unknown,open,stopped");
    assert_int_equal(events_named("resume.stopped"), 1);
    assert_int_equal(events_named("resume.unknown"), 2);
    store_action_free(&a);
}

/* What nobody knew before the claim isn't known after it: plain words don't decide, and the status says so still. */
static void a_release_puts_back_what_was(void **state)
{
    static const struct { enum action_state ends; const char *outcome, *state; } table[] = {
        {ACTION_UNKNOWN, "unknown", "unknown"},
        {ACTION_FAILED, "failed resume: exit 1", "failed"},
    };
    cleanup_err struct err err = {0};
    struct store_action a = {0};

    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        cleanup_free char *attempt = NULL;
        int64_t one = take(table[i].state, "br-a");
        struct store_checkpoint k;

        seal(one);
        OK(begin(ACTION_RESUME, one, &a, &err));
        OK(finish(a.id, table[i].ends, EIO, table[i].outcome, false, &err));
        store_action_free(&a);
        for (int times = 0; times < 2; times++) {
            OK(begin_with(ACTION_RESUME, one, APPROVE, true, &a, &err));
            k = get(one);
            assert_null(k.outcome);
            store_checkpoint_free(&k);
            OK(finish(a.id, ACTION_FAILED, EAGAIN, "", true, &err));
            store_action_free(&a);
            k = get(one);
            assert_string_equal(k.outcome, table[i].outcome);
            assert_false(k.attempt_open);
            store_checkpoint_free(&k);
            attempt = str_format("SELECT state FROM checkpointfs.attempts WHERE checkpoint_id = %lld", (long long)one);
            sql_is(attempt, table[i].state);
            free(steal_ptr(&attempt));
            REFUSED(EALREADY, begin_with(ACTION_RESUME, one, APPROVE, false, &a, &err));
        }
    }
}

static void decisions_are_bound_to_arguments(void **state)
{
    cleanup_err struct err err = {0};
    struct store_action a = {0};
    int64_t one = take("one", "br-a");

    (void)state;
    seal(one);
    REFUSED(EINVAL, begin_with(ACTION_RESUME, one, "{\"decisions\":[{\"id\":\"nope\",\"decision\":\"approve\"}]}", false, &a,
                               &err));
    REFUSED(EINVAL, begin_with(ACTION_RESUME, one, "not json", false, &a, &err));
    REFUSED(EINVAL, begin_with(ACTION_RESUME, one, "{\"decisions\":[{\"id\":\"c1\",\"decision\":\"approve\"},"
                                                   "{\"id\":\"c1\",\"decision\":\"reject\"}]}", false, &a, &err));
    REFUSED(ESTALE, begin_with(ACTION_RESUME, one, "{\"decisions\":[{\"id\":\"c1\",\"decision\":\"approve\",\"arguments_sha256\":"
                                                   "\"ab\"}]}", false, &a, &err));
    sql_is("SELECT count(*) FROM checkpointfs.actions WHERE kind = 'resume'", "0"); /* nothing was claimed */
    OK(begin_with(ACTION_RESUME, one, "{\"decisions\":[{\"id\":\"c1\",\"decision\":\"approve\",\"arguments_sha256\":\"aa\"}],"
                                      "\"input\":\"caf\xc3\xa9 \\u0000\"}", false, &a, &err));
    sql_is("SELECT detail::text FROM checkpointfs.decisions WHERE call_id IS NULL", "\"caf\xc3\xa9 \xef\xbf\xbd\"");
    store_action_free(&a);
}

static void a_restore_moves_the_line(void **state)
{
    cleanup_err struct err err = {0};
    struct store_action a = {0};
    struct store_checkpoint k;
    int64_t one = take("one", "br-a"), two = take("two", "br-a"), three = take("three", "br-a");
    int64_t checkpoint, action, first_attempt;

    (void)state;
    seal(one);
    seal(two);
    k = get(one);
    first_attempt = k.attempt_id;
    store_checkpoint_free(&k);
    OK(begin(ACTION_RESUME, one, &a, &err));
    OK(finish(a.id, ACTION_DONE, 0, "finished", false, &err));
    OK(begin(ACTION_RESTORE, one, &a, &err));
    assert_int_equal(a.state, ACTION_QUEUED);
    REFUSED(EBUSY, store_take_begin(store, line.id, mount_row.id, "blocked", &who, &checkpoint, &action, &err));
    REFUSED(EBUSY, begin_with(ACTION_RESTORE, two, NULL, false, &a, &err));
    REFUSED(EBUSY, begin_with(ACTION_RESUME, two, APPROVE, false, &a, &err));
    REFUSED(EBUSY, begin_with(ACTION_REPLAY, two, APPROVE, false, &a, &err));
    REFUSED(EBUSY, begin_with(ACTION_DELETE, one, NULL, false, &a, &err));
    assert_int_equal(store_turn(store, a.id, &err), 1);
    OK(store_restore_done(store, a.id, "br-b", "br-a", "old", "ep-1", NULL, &err));
    OK(store_restore_done(store, a.id, "br-b", "br-a", "old", "ep-1", NULL, &err)); /* settled again after a crash */
    OK(store_take_begin(store, line.id, mount_row.id, "passes", &who, &checkpoint, &action, &err));
    OK(store_turn_release(store, a.id, &err));
    OK(finish(a.id, ACTION_DONE, 0, NULL, false, &err));
    k = get(one);
    assert_int_equal(k.offline_by, 0);
    assert_true(k.attempt_open);
    assert_true(k.attempt_id > first_attempt);
    assert_null(k.outcome);
    store_checkpoint_free(&k);
    k = get(two);
    assert_int_equal(k.offline_by, a.id);
    store_checkpoint_free(&k);
    REFUSED(ESTALE, begin_with(ACTION_RESUME, two, APPROVE, false, &a, &err));
    k = get(three);
    assert_int_equal(k.offline_by, a.id);
    store_checkpoint_free(&k);
    k = get(checkpoint);
    assert_int_equal(k.offline_by, 0);
    store_checkpoint_free(&k);
    OK(finish(action, ACTION_FAILED, EIO, NULL, false, &err));
    restore(two, "br-b", "br-c");
    k = get(two);
    assert_int_equal(k.offline_by, 0);
    store_checkpoint_free(&k);
    sql_is("SELECT string_agg(branch_id || coalesce('=' || replaced_name, ''), ',' ORDER BY branch_id)"
           " FROM checkpointfs.line_branches",
           "br-a=old,br-b=old (replaced),br-c");
    assert_int_equal(events_named("restore.finished"), 2);
    store_action_free(&a);
}

static void what_a_restore_refuses(void **state)
{
    cleanup_err struct err err = {0};
    cleanup_buf struct buf json = text("{}");
    struct store_snapshot gone = {.missing = true};
    struct store_action a = {0};
    int64_t checkpoint, action, one = take("one", "br-a");

    (void)state;
    OK(store_take_begin(store, line.id, mount_row.id, "new", &who, &checkpoint, &action, &err));
    REFUSED(ENODATA, begin(ACTION_RESTORE, checkpoint, &a, &err));
    OK(store_take_failed(store, checkpoint, action, EIO, "no", NULL, &err));
    REFUSED(ENODATA, begin(ACTION_RESTORE, checkpoint, &a, &err));
    OK(store_snapshot_put(store, one, &gone, &json, &err));
    REFUSED(ENODATA, begin(ACTION_RESTORE, one, &a, &err));
    REFUSED(ENOENT, begin(ACTION_RESTORE, 999, &a, &err));
    REFUSED(ENOENT, begin(ACTION_CANCEL, 999, &a, &err));
}

static void a_replay_claims_its_own_attempt(void **state)
{
    cleanup_err struct err err = {0};
    struct store_action a = {0}, b = {0};
    struct store_checkpoint k;
    int64_t one = take("one", "br-a");

    (void)state;
    seal(one);
    OK(begin(ACTION_REPLAY, one, &a, &err));
    assert_int_equal(a.attempt, 0);
    assert_int_equal(store_turn(store, a.id, &err), 1);
    OK(store_restore_done(store, a.id, "br-b", "br-a", "old", "ep-1", APPROVE, &err));
    k = get(one);
    assert_false(k.attempt_open);
    assert_int_equal(k.busy_action, a.id);
    store_checkpoint_free(&k);
    REFUSED(EBUSY, begin(ACTION_RESUME, one, &b, &err));
    OK(finish(a.id, ACTION_DONE, 0, "finished", false, &err));
    REFUSED(EALREADY, begin(ACTION_RESUME, one, &b, &err));
    sql_is("SELECT string_agg(state, ',' ORDER BY id) FROM checkpointfs.attempts", "open,finished");
    /* one that fails before its database is there decides nothing */
    OK(begin(ACTION_REPLAY, one, &a, &err));
    OK(finish(a.id, ACTION_FAILED, EIO, "failed restore: Neon", false, &err));
    sql_is("SELECT string_agg(state, ',' ORDER BY id) FROM checkpointfs.attempts", "open,finished");
    assert_int_equal(events_named("restore.failed"), 1);
    assert_int_equal(events_named("resume.finished"), 1);
    store_action_free(&a);
}

static void deleting(void **state)
{
    cleanup_err struct err err = {0};
    cleanup_buf struct buf doc = {0};
    struct store_action a = {0}, b = {0};
    struct store_checkpoint k;
    int64_t checkpoint, action, one = take("one", "br-a");

    (void)state;
    seal(one);
    OK(store_output_append(store, one, 0, "x", 1, &err));
    OK(store_take_begin(store, line.id, mount_row.id, "new", &who, &checkpoint, &action, &err));
    REFUSED(EBUSY, begin(ACTION_DELETE, checkpoint, &a, &err));
    OK(put_meta(one, "{\"pin\":true}", 12, true, &err));
    REFUSED(EPERM, begin(ACTION_DELETE, one, &a, &err));
    OK(put_meta(one, "{\"pin\":false}", 13, true, &err));
    OK(begin(ACTION_DELETE, one, &a, &err));
    REFUSED(EBUSY, begin(ACTION_RESUME, one, &b, &err));
    REFUSED(EBUSY, begin(ACTION_RESTORE, one, &b, &err));
    OK(store_delete_done(store, a.id, "{\"deleted\":1}\n", &err));
    REFUSED(EALREADY, store_delete_done(store, a.id, "{}", &err));
    REFUSED(ENOENT, store_checkpoint(store, one, &k, &err));
    OK(store_read_action(store, a.id, &doc, &err));
    assert_string_equal(doc.data, "{\"deleted\":1}\n");
    OK(store_action(store, a.id, &b, &err));
    assert_int_equal(b.checkpoint, 0);
    assert_int_equal(b.state, ACTION_DONE);
    sql_is("SELECT (SELECT count(*) FROM checkpointfs.states) + (SELECT count(*) FROM checkpointfs.state_chunks)"
           " + (SELECT count(*) FROM checkpointfs.calls) + (SELECT count(*) FROM checkpointfs.attempts)"
           " + (SELECT count(*) FROM checkpointfs.output_parts)", "0");
    store_action_free(&a);
    store_action_free(&b);
}

static int add_entry(void *arg, const struct store_action_entry *x)
{
    struct buf *b = arg;

    buf_addf(b, "%lld:%d ", (long long)x->doc_size, (int)x->of_mount);
    return 0;
}

static void refusals_are_journalled(void **state)
{
    cleanup_err struct err err = {0};
    cleanup_buf struct buf result = {0}, list = {0};
    int64_t one = take("one", "br-a"), last = 0, id = 0;
    struct store_begin b = {.kind = ACTION_RESTORE, .line_id = line.id, .mount_id = mount_row.id, .checkpoint = one,
                            .command = "fly \xff", .who = &who};
    struct store_action_entry entry = {0};
    struct store_action a = {0};

    (void)state;
    OK(store_action_refuse(store, &b, EINVAL, "unknown verb", "{\n  \"errno\": \"EINVAL\"\n}\n", &id, &err));
    OK(store_action(store, id, &a, &err));
    assert_int_equal(a.state, ACTION_REFUSED);
    assert_string_equal(a.command, "fly \xef\xbf\xbd");
    OK(store_read_file(store, one, FILE_RESULT, &result, &err));
    cleanup_free char *wanted = str_format("{\n  \"action\": \"%s\",\n  \"errno\": \"EINVAL\"\n}\n", a.uid);
    assert_string_equal(result.data, wanted);
    assert_string_equal(a.doc, wanted);
    store_action_free(&a);
    b.checkpoint = 0;
    OK(store_action_refuse(store, &b, EPERM, "no", NULL, &last, &err));
    b.checkpoint = 12345; /* deleted meanwhile */
    OK(store_action_refuse(store, &b, EPERM, "no", "{}", &last, &err));
    OK(store_actions(store, line.id, add_entry, &list, &err));
    cleanup_free char *entries = str_format("11:0 %zu:0 34:1 ", strlen(wanted));
    assert_string_equal(list.data, entries);
    assert_int_equal(store_action_entry(store, id, &entry, &err), 1);
    assert_non_null(strstr(wanted, entry.uid));
    assert_int_equal(entry.doc_size, strlen(wanted));
    assert_int_equal(store_action_entry(store, 999, &entry, &err), 0);
    REFUSED(ENOENT, store_action(store, 999, &a, &err));
    assert_int_equal(events_named("command.refused"), 3);
}

static void a_restore_passes_and_fails_queued_takes(void **state)
{
    cleanup_err struct err err = {0};
    struct store_action a = {0};
    struct store_checkpoint k;
    int64_t one = take("one", "br-a"), running, running_action, queued, queued_action;

    (void)state;
    OK(store_take_begin(store, line.id, mount_row.id, "running", &who, &running, &running_action, &err));
    OK(store_take_begin(store, line.id, mount_row.id, "queued", &who, &queued, &queued_action, &err));
    assert_int_equal(store_turn(store, queued_action, &err), 0); /* not before the first */
    assert_int_equal(store_turn(store, running_action, &err), 1);
    assert_int_equal(store_turn(store, running_action, &err), 1);
    OK(begin(ACTION_RESTORE, one, &a, &err));
    assert_int_equal(store_turn(store, a.id, &err), 0);
    REFUSED(ESTALE, store_turn(store, queued_action, &err));
    k = get(queued);
    assert_int_equal(k.phase, PHASE_FAILED);
    assert_non_null(strstr(k.note, a.uid));
    store_checkpoint_free(&k);
    OK(store_take_failed(store, queued, queued_action, ESTALE, "overtaken", "{\"x\":1}\n", &err));
    /* its waiter writes the document */
    k = get(queued);
    assert_string_equal(k.note, "overtaken");
    assert_int_equal(k.sizes[FILE_RESULT], 8);
    store_checkpoint_free(&k);
    assert_int_equal(events_named("checkpoint.failed"), 1);
    k = get(running);
    assert_int_equal(k.phase, PHASE_TAKING);
    store_checkpoint_free(&k);
    OK(store_turn_release(store, running_action, &err));
    assert_int_equal(store_turn(store, a.id, &err), 1);
    assert_int_equal(store_turn(store, running_action, &err), 0);
    OK(finish(a.id, ACTION_FAILED, EIO, NULL, false, &err));
    assert_int_equal(store_turn(store, running_action, &err), 1); /* a holder that is settled counts as none */
    store_action_free(&a);
}

static void dead_mounts_are_taken_over(void **state)
{
    cleanup_err struct err err = {0};
    struct store_mount other = {.host = "h2", .boot_id = "boot-2", .pid = 5, .pid_start = 6, .mountpoint = "/m2"};
    struct store_left *left = NULL;
    struct store_action *list = NULL;
    size_t n = 0;
    int64_t ck1, act1, ck2, act2;

    struct store *theirs = open_again();

    (void)state;
    OK(store_mount_register(theirs, line.id, &other, &err));
    OK(store_take_begin(store, line.id, other.id, "theirs", &who, &ck1, &act1, &err));
    OK(store_take_begin(store, line.id, mount_row.id, "mine", &who, &ck2, &act2, &err));
    OK(store_mount_beat(store, other.id, &err));
    OK(store_left_mounts(store, line.id, mount_row.id, &left, &n, &err));
    assert_int_equal(n, 1);
    assert_string_equal(left[0].host, "h2");
    assert_string_equal(left[0].boot_id, "boot-2");
    assert_int_equal(left[0].pid_start, 6);
    assert_false(left[0].lease_over || left[0].left);
    store_left_free(left, n);
    assert_int_equal(store_turn(store, act2, &err), 0); /* theirs is first */
    OK(store_mount_leave(store, other.id, &err));
    OK(store_mount_leave(store, other.id, &err));
    REFUSED(ESTALE, store_mount_beat(store, other.id, &err));
    assert_int_equal(store_turn(store, act2, &err), 1); /* nobody asks for theirs now */
    OK(store_left_mounts(store, line.id, mount_row.id, &left, &n, &err));
    assert_true(n == 1 && left[0].left);
    store_left_free(left, n);
    OK(store_take_over(store, other.id, mount_row.id, false, &list, &n, &err));
    assert_int_equal(n, 1);
    assert_int_equal(list[0].id, act1);
    assert_int_equal(list[0].mount_id, mount_row.id);
    assert_non_null(strstr(list[0].by, "\"gid\":100,")); /* whoever asked, not whoever goes on */
    store_action_free(&list[0]);
    free(list);
    OK(store_take_over(store, other.id, mount_row.id, false, &list, &n, &err));
    assert_int_equal(n, 0);
    free(list);
    OK(store_left_mounts(store, line.id, mount_row.id, &left, &n, &err));
    assert_int_equal(n, 0);
    store_left_free(left, n);
    assert_int_equal(events_named("action.taken_over"), 1);
    store_close(theirs);
}

/* What Neon was asked stands in the event that tells of its effect, once: not in those of the agent. */
static void an_event_tells_what_neon_was_asked(void **state)
{
    cleanup_err struct err err = {0};
    struct store_action a = {0};
    int64_t one = take("one", "br-a");

    (void)state;
    seal(one);
    OK(begin(ACTION_REPLAY, one, &a, &err));
    assert_int_equal(store_turn(store, a.id, &err), 1);
    OK(store_action_step(store, a.id, "finalized", "{}",
                         "{\"journal\":{\"steps\":[{\"step\":\"check\"},{\"step\":\"restore\",\"requests\":[{\"request_id\":\"r-1\"}]},"
                         "{\"step\":\"finalize\",\"requests\":[{\"request_id\":\"r-2\"}]}]}}\n", NULL, &err));
    OK(store_restore_done(store, a.id, "br-b", "br-a", "old", "ep-1", APPROVE, &err));
    OK(finish(a.id, ACTION_DONE, 0, "finished", false, &err));
    sql_is("SELECT count(*) FROM checkpointfs.events WHERE convert_from(bytes, 'UTF8') LIKE '%\"requests\"%'", "1");
    sql_is("SELECT convert_from(bytes, 'UTF8')::json->>'requests' FROM checkpointfs.events WHERE convert_from(bytes, 'UTF8') LIKE"
           " '%\"restore.finished\"%'", "[{\"request_id\":\"r-1\"},{\"request_id\":\"r-2\"}]");
    store_action_free(&a);
    chain_holds();
}

static void a_lease_runs_out(void **state)
{
    cleanup_err struct err err = {0};
    struct store_mount other = {.host = "h2", .boot_id = "b", .pid = 5, .pid_start = 6, .mountpoint = "/m2"};
    struct store_left *left = NULL;
    struct store_action *list = NULL;
    size_t n = 0;
    int64_t ck1, act1, ck2, act2;

    struct store *theirs = open_again();

    (void)state;
    OK(store_mount_register(theirs, line.id, &other, &err));
    OK(store_take_begin(store, line.id, other.id, "theirs", &who, &ck1, &act1, &err));
    OK(store_take_begin(store, line.id, mount_row.id, "mine", &who, &ck2, &act2, &err));
    assert_int_equal(store_turn(theirs, act1, &err), 1);
    REFUSED(ESTALE, store_turn(store, act1, &err)); /* as long as nobody took it over */
    REFUSED(EBUSY, store_take_over(store, other.id, mount_row.id, false, &list, &n, &err));
    OK(store_mount_beat(theirs, other.id, &err));
    cleanup_free char *out = sql_in(NULL, "boss",
                                    "UPDATE checkpointfs.mounts SET beat_at = now() - interval '1 min' WHERE host = 'h2'");
    assert_null(out);
    OK(store_left_mounts(store, line.id, mount_row.id, &left, &n, &err));
    assert_true(n == 1 && left[0].lease_over && !left[0].left);
    store_left_free(left, n);
    assert_int_equal(store_turn(store, act2, &err), 0); /* what it began in Neon isn't settled */

    /* taken over, it can do nothing more: neither on with the action, nor live on under the old number */
    OK(store_take_over(store, other.id, mount_row.id, false, &list, &n, &err));
    assert_int_equal(n, 1);
    store_action_free(&list[0]);
    free(list);
    REFUSED(ESTALE, store_action_step(theirs, act1, "request", "{}", NULL, NULL, &err));
    REFUSED(ESTALE, store_take_failed(theirs, ck1, act1, EIO, "no", NULL, &err));
    REFUSED(ESTALE, store_turn(theirs, act1, &err));
    REFUSED(ESTALE, store_mount_beat(theirs, other.id, &err));
    OK(store_action_step(store, act1, "request", "{}", NULL, NULL, &err));
    OK(store_mount_register(theirs, line.id, &other, &err));
    OK(store_mount_beat(theirs, other.id, &err));
    store_close(theirs);
}

/* ---- what others change ------------------------------------------------------------------------------------------------ */

struct heard { int checkpoints, actions, lines, logs; int64_t last_checkpoint; };

static void hear(void *arg, enum store_change_kind what, int64_t row)
{
    struct heard *h = arg;

    h->checkpoints += what == CHANGE_CHECKPOINT;
    h->actions += what == CHANGE_ACTION;
    h->lines += what == CHANGE_LINE;
    h->logs += what == CHANGE_LOG;
    if (what == CHANGE_CHECKPOINT)
        h->last_checkpoint = row;
}

static void changes_are_told_in_order(void **state)
{
    cleanup_err struct err err = {0};
    struct store_feed *feed = NULL;
    struct heard h = {0};
    int64_t n = 0;
    int64_t ck, act;

    (void)state;
    OK(store_feed_open(store, line.id, &feed, &n, &err));
    assert_int_equal(store_feed_wait(feed, 0), 0);
    OK(store_take_begin(store, line.id, mount_row.id, "one", &who, &ck, &act, &err));
    assert_int_equal(store_feed_wait(feed, 5000), 1);
    OK(store_feed_read(feed, n, hear, &h, &n, &err));
    assert_true(h.checkpoints > 0 && h.actions > 0 && h.logs > 0);
    assert_int_equal(h.last_checkpoint, ck);
    h = (struct heard){0};
    OK(store_feed_read(feed, n, hear, &h, &n, &err)); /* nothing twice */
    assert_int_equal(h.checkpoints + h.actions + h.lines + h.logs, 0);
    OK(store_rename(store, ck, "two", &who, &err));
    OK(store_feed_read(feed, n, hear, &h, &n, &err));
    assert_int_equal(h.last_checkpoint, ck);
    cleanup_free char *out = sql_in(NULL, "boss", "UPDATE checkpointfs.changes SET at = now() - interval '1 hour'");
    assert_null(out);
    cleanup_free char *marks = sql_in(NULL, "boss", "UPDATE checkpointfs.commits SET at = now() - interval '1 hour'");
    assert_null(marks);
    OK(store_changes_trim(store, line.id, &err));
    sql_is("SELECT count(*) FROM checkpointfs.commits", "1"); /* the trim's own */
    REFUSED(ESTALE, store_feed_read(feed, 0, hear, &h, &n, &err)); /* no longer kept */
    store_feed_close(feed);
}

/* ---- workers ------------------------------------------------------------------------------------------------------------ */

static void a_decision_finds_its_worker(void **state)
{
    cleanup_err struct err err = {0};
    struct store *theirs = open_again();
    struct store_mount worker = {.host = "w1", .boot_id = "b", .pid = 5, .pid_start = 6, .mountpoint = "/w", .can_resume = true};
    struct store_begin b = {.kind = ACTION_RESUME, .line_id = line.id, .mount_id = mount_row.id, .worker = "any", .command = "approve",
                            .decisions = APPROVE, .who = &who};
    struct store_action a = {0};
    struct store_action *list = NULL;
    size_t n = 0;
    int64_t cancelled = 0;

    (void)state;
    b.checkpoint = take("one", "br-a");
    seal(b.checkpoint);
    cleanup_free char *none = sql_in(NULL, "boss", "UPDATE checkpointfs.mounts SET can_resume = false");
    assert_null(none);
    REFUSED(EOPNOTSUPP, store_action_begin(store, &b, &a, &err));
    OK(store_mount_register(theirs, line.id, &worker, &err));
    b.worker = "w2";
    REFUSED(EOPNOTSUPP, store_action_begin(store, &b, &a, &err));
    b.worker = "w1";
    OK(store_action_begin(store, &b, &a, &err));
    assert_int_equal(a.mount_id, worker.id);
    assert_true(a.assigned);
    REFUSED(ESTALE, store_accept(store, a.id, &err)); /* not ours */
    OK(store_cancel(store, b.checkpoint, 0, &cancelled, &err));
    assert_int_equal(cancelled, a.id);
    OK(store_told(theirs, worker.id, &list, &n, &err));
    assert_true(n == 1 && list[0].id == a.id && list[0].assigned && list[0].cancel);
    assert_non_null(list[0].decisions);
    store_action_free(&list[0]);
    free(list);
    assert_int_equal(store_accept(theirs, a.id, &err), 1);
    assert_int_equal(store_accept(theirs, a.id, &err), 0); /* once */
    store_action_free(&a);
    store_close(theirs);
}



/* ---- races ----------------------------------------------------------------------------------------------------------- */

enum { RACERS = 6 };
struct racer { pthread_t thread; pthread_barrier_t *start; int64_t checkpoint; int64_t action; int result; };

static void *race_resume(void *arg)
{
    struct racer *r = arg;
    struct store_action a = {0};

    pthread_barrier_wait(r->start);
    r->result = begin_with(ACTION_RESUME, r->checkpoint, APPROVE, false, &a, NULL);
    store_action_free(&a);
    return NULL;
}

static void *race_turn(void *arg)
{
    struct racer *r = arg;

    pthread_barrier_wait(r->start);
    r->result = store_turn(store, r->action, NULL);
    return NULL;
}

static void *race_take(void *arg)
{
    struct racer *r = arg;
    int64_t checkpoint, action;

    pthread_barrier_wait(r->start);
    r->result = store_take_begin(store, line.id, mount_row.id, "same", &who, &checkpoint, &action, NULL);
    return NULL;
}

/* How many of the racers came back with `wanted`. */
static int race(void *(*run)(void *), struct racer *r, int wanted)
{
    pthread_barrier_t start;
    int n = 0;

    pthread_barrier_init(&start, NULL, RACERS);
    for (int i = 0; i < RACERS; i++) {
        r[i].start = &start;
        assert_int_equal(pthread_create(&r[i].thread, NULL, run, &r[i]), 0);
    }
    for (int i = 0; i < RACERS; i++) {
        pthread_join(r[i].thread, NULL);
        n += r[i].result == wanted;
    }
    pthread_barrier_destroy(&start);
    return n;
}

static void exactly_one_wins(void **state)
{
    cleanup_err struct err err = {0};
    struct racer r[RACERS] = {0};
    int64_t one = take("one", "br-a");

    (void)state;
    seal(one);
    for (int i = 0; i < RACERS; i++)
        r[i].checkpoint = one;
    assert_int_equal(race(race_resume, r, 0), 1);
    sql_is("SELECT count(*) FROM checkpointfs.actions WHERE kind = 'resume'", "1");
    assert_int_equal(race(race_take, r, 0), 1);
    assert_int_equal(race(race_take, r, -EEXIST), RACERS);
    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < RACERS; i++) {
            cleanup_free char *name = str_format("t%d-%d", round, i);
            int64_t checkpoint;

            OK(store_take_begin(store, line.id, mount_row.id, name, &who, &checkpoint, &r[i].action, &err));
        }
        if (round == 0) { /* the winner of the last race is before them */
            cleanup_free char *out = sql_in(NULL, "boss",
                                            "UPDATE checkpointfs.actions SET state = 'failed', waiting = false WHERE id ="
                                            " (SELECT seq FROM checkpointfs.checkpoints WHERE name = 'same')");
            assert_null(out);
        }
        assert_int_equal(race(race_turn, r, 1), 1);
        for (int i = 0; i < RACERS; i++)
            OK(finish(r[i].action, ACTION_FAILED, EIO, NULL, false, &err));
    }
}

static void *log_much(void *arg)
{
    struct racer *r = arg;

    pthread_barrier_wait(r->start);
    for (int i = 0; i < 40 && r->result == 0; i++)
        r->result = i % 2 ? put_meta(r->checkpoint, "{}", 2, false, NULL)
                          : store_action_step(store, r->action, "s", "{}", "{}", "busy", NULL);
    return NULL;
}

/* Numbers without a gap and offsets without a hole, whoever writes at once. */
static void the_log_has_no_gaps(void **state)
{
    cleanup_err struct err err = {0};
    struct racer r[RACERS] = {0};

    (void)state;
    for (int i = 0; i < RACERS; i++) {
        cleanup_free char *name = str_format("n%d", i);

        OK(store_take_begin(store, line.id, mount_row.id, name, &who, &r[i].checkpoint, &r[i].action, &err));
    }
    assert_int_equal(race(log_much, r, 0), RACERS);
    sql_is("SELECT count(*) = max(seq) AND sum(octet_length(bytes)) = max(start_off + octet_length(bytes))"
           " FROM checkpointfs.events", "t");
    sql_is("SELECT bool_and(ok) FROM (SELECT sum(octet_length(bytes)) = max(history_off + octet_length(bytes)) AS ok"
           " FROM checkpointfs.events WHERE checkpoint_id IS NOT NULL GROUP BY checkpoint_id) x", "t");
    sql_is("SELECT count(*) FROM checkpointfs.events WHERE convert_from(bytes, 'UTF8')::json->>'seq' <> seq::text", "0");
    chain_holds();
}

#define T(f) cmocka_unit_test_setup_teardown(f, open_store, close_store)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_decision_is_claimed_once),
        T(again_goes_on_after_failure), T(a_release_puts_back_what_was),
        T(decisions_are_bound_to_arguments),
        T(a_restore_moves_the_line),
        T(what_a_restore_refuses),
        T(a_replay_claims_its_own_attempt),
        T(deleting),
        T(refusals_are_journalled),
        T(a_restore_passes_and_fails_queued_takes),
        T(dead_mounts_are_taken_over),
        T(an_event_tells_what_neon_was_asked),
        T(a_lease_runs_out),
        T(changes_are_told_in_order),
        T(a_decision_finds_its_worker),
        T(exactly_one_wins),
        T(the_log_has_no_gaps),
    };

    return cmocka_run_group_tests(tests, fixture_up, fixture_down);
}
