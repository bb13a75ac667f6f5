/* The store: taking, writing, sealing, reading back, the audit log and the output, against a real PostgreSQL. */
#include "store_fixture.h"

#define CHUNK (256 * 1024)

static int64_t part_no; /* part of a state under way */

static void random_bytes(char *p, size_t n, unsigned seed)
{
    uint64_t x = seed * 2654435761u + 1;

    for (size_t i = 0; i < n; i++) {
        x = x * 6364136223846793005ull + 1442695040888963407ull;
        p[i] = (char)(x >> 56);
    }
}

static void lines_are_found_by_every_branch(void **state)
{
    cleanup_err struct err err = {0};
    struct store_line l = {0};

    (void)state;
    REFUSED(EEXIST, store_line_create(store, "proj-1", "br-a", NULL, &l, &err));
    REFUSED(ENOENT, store_line_find(store, "proj-1", "br-x", &l, &err));
    REFUSED(ENOENT, store_line_find(store, "proj-2", "br-a", &l, &err));
    REFUSED(ENOENT, store_line_get(store, 999, &l, &err));
    restore(take("one", "br-a"), "br-a", "br-b");
    OK(store_line_find(store, "proj-1", "br-a", &l, &err));
    assert_string_equal(l.active_branch, "br-b");
    assert_string_equal(l.endpoint_id, "ep-1");
    assert_int_equal(l.id, line.id);
    store_line_free(&l);
    OK(store_line_find(store, "proj-1", "br-b", &l, &err));
    assert_int_equal(l.id, line.id);
    store_line_free(&l);
    OK(store_line_create(store, "proj-2", "br-a", NULL, &l, &err));
    assert_null(l.endpoint_id);
    store_line_free(&l);
}

static void a_take_from_begin_to_seal(void **state)
{
    cleanup_err struct err err = {0};
    struct store_checkpoint k;
    int64_t checkpoint, action, id;

    (void)state;
    OK(store_take_begin(store, line.id, mount_row.id, "first \xc3\xa4", &who, &checkpoint, &action, &err));
    k = get(checkpoint);
    assert_int_equal(k.phase, PHASE_TAKING);
    assert_int_equal(k.seq, action);
    assert_int_equal(k.busy_action, 0);
    assert_int_equal(k.sizes[FILE_STATE], -1);
    assert_int_equal(k.sizes[FILE_SNAPSHOT], -1);
    assert_true(k.sizes[FILE_HISTORY] > 0);
    assert_true(str_starts(k.uid, "ck-") && strlen(k.uid) == 23);
    store_checkpoint_free(&k);
    REFUSED(EEXIST, store_take_begin(store, line.id, mount_row.id, "first \xc3\xa4", &who, &id, &id, &err));
    REFUSED(EINVAL, seal_as(checkpoint, "{}", 2, NULL, &err)); /* not settled */
    OK(finish(action, ACTION_FAILED, EIO, NULL, false, &err));

    checkpoint = take("second", "br-a");
    k = get(checkpoint);
    assert_int_equal(k.phase, PHASE_SAVED);
    assert_string_equal(k.snapshot.id, "snap-second");
    assert_int_equal(k.snapshot.full_size, -1);
    assert_int_equal(k.sizes[FILE_SNAPSHOT], 14);
    assert_int_equal(k.sizes[FILE_RESULT], 11);
    assert_int_equal(k.n_calls, 0);
    store_checkpoint_free(&k);
    seal(checkpoint);
    k = get(checkpoint);
    assert_int_equal(k.phase, PHASE_SEALED);
    assert_int_equal(k.sizes[FILE_STATE], 7);
    assert_int_equal(k.n_calls, 2);
    assert_string_equal(k.calls[0].call_id, "c1");
    assert_string_equal(k.calls[1].arguments, "\xff\x01 not utf-8");
    assert_null(k.calls[1].agent);
    assert_int_equal(k.calls[0].file_size, 12);
    assert_true(k.attempt_open && k.partial_ok && !k.waits_input);
    assert_int_equal(k.sealed_by, 4711);
    assert_string_equal(k.run_id, "run-1");
    cleanup_buf struct buf file = {0};
    OK(store_read_call(store, k.calls[1].id, &file, &err));
    assert_string_equal(file.data, "{\"id\":\"c2\"}\n");
    store_checkpoint_free(&k);
    REFUSED(EINVAL, seal_as(checkpoint, "{}", 2, NULL, &err)); /* twice */
    REFUSED(EINVAL, store_state_write(store, checkpoint, 0, "x", 1, false, &part_no, &err));
    REFUSED(ENOENT, store_state_write(store, 12345, 0, "x", 1, false, &part_no, &err));
    assert_int_equal(events_named("checkpoint.sealed"), 1);
    assert_int_equal(events_named("approval.requested"), 1);
}

static void files_are_read_back_exactly(void **state)
{
    cleanup_err struct err err = {0};
    cleanup_buf struct buf meta = {0}, result = {0}, envelope = {0}, again = {0};
    cleanup_buf struct buf snapshot_json = text("{\"full_size\":5}\n");
    struct store_checkpoint before, after;
    struct store_snapshot snap = {.id = (char *)(uintptr_t)"snap-one", .full_size = 5, .diff_size = 3, .missing = true};
    int64_t checkpoint = take("one", "br-a");

    (void)state;
    REFUSED(ENOENT, store_read_file(store, checkpoint, FILE_META, &meta, &err));
    REFUSED(ENOENT, store_read_envelope(store, checkpoint, &envelope, &err));
    before = get(checkpoint);
    OK(put_meta(checkpoint, "{\"pin\":\0true}", 13, false, &err));
    OK(store_read_file(store, checkpoint, FILE_META, &meta, &err));
    assert_int_equal(meta.len, 13);
    assert_memory_equal(meta.data, "{\"pin\":\0true}", 13);
    OK(store_read_file(store, checkpoint, FILE_RESULT, &result, &err));
    assert_string_equal(result.data, "{\"take\":1}\n");
    OK(store_snapshot_put(store, checkpoint, &snap, &snapshot_json, &err));
    OK(store_read_file(store, checkpoint, FILE_SNAPSHOT, &again, &err));
    assert_string_equal(again.data, "{\"full_size\":5}\n");
    after = get(checkpoint);
    assert_int_equal(after.snapshot.full_size, 5);
    assert_true(after.snapshot.missing);
    assert_int_equal(after.sizes[FILE_META], 13);
    assert_true(after.mtimes[FILE_SNAPSHOT] > before.mtimes[FILE_SNAPSHOT]);
    assert_true(after.changed_at > before.changed_at);
    assert_int_equal(after.mtimes[FILE_CHECKPOINT], before.mtimes[FILE_CHECKPOINT]);
    store_checkpoint_free(&before);
    store_checkpoint_free(&after);
    seal(checkpoint);
    OK(store_read_envelope(store, checkpoint, &envelope, &err));
    assert_non_null(strstr(envelope.data, "drop_users_table"));
    assert_int_equal(events_named("meta.changed"), 1);
    assert_int_equal(events_named("snapshot.missing"), 1);
}

/* Two mounts read it, and each has checked its own against what it read. */
static void of_two_writers_of_meta_the_second_looks_again(void **state)
{
    cleanup_err struct err err = {0};
    cleanup_buf struct buf first = {0}, now = {0};
    int64_t checkpoint = take("one", "br-a");

    (void)state;
    OK(store_meta_put(store, checkpoint, NULL, "{\"pin\":true}", 12, false, &who, &err));
    REFUSED(EAGAIN, store_meta_put(store, checkpoint, NULL, "{}", 2, false, &who, &err));
    REFUSED(EAGAIN, store_meta_put(store, checkpoint, &first, "{}", 2, false, &who, &err));
    REFUSED(EAGAIN, store_meta_put(store, checkpoint, &first, "{}", 2, true, &who, &err));
    OK(store_read_file(store, checkpoint, FILE_META, &now, &err));
    assert_string_equal(now.data, "{\"pin\":true}");
    OK(store_meta_put(store, checkpoint, &now, "{}", 2, false, &who, &err));
}

static void a_large_state_keeps_every_byte(void **state)
{
    cleanup_err struct err err = {0};
    size_t n = 20 * 1024 * 1024 + 12345;
    cleanup_free char *bytes = malloc(n);
    int64_t checkpoint = take("large", "br-a");
    static const struct { int64_t off; size_t n; } reads[] = {
        {0, 1}, {CHUNK - 1, 2}, {CHUNK, CHUNK}, {3 * CHUNK - 5, 131072}, {20 * 1024 * 1024, 131072},
        {20 * 1024 * 1024 + 12344, 9}};

    (void)state;
    random_bytes(bytes, n, 1);
    for (size_t off = 0; off < n; off += 131072) {
        size_t len = n - off < 131072 ? n - off : 131072;

        OK(store_state_write(store, checkpoint, (int64_t)off, bytes + off, len, false, &part_no, &err));
    }
    cleanup_buf struct buf all = {0};
    OK(store_state_assemble(store, checkpoint, &all, NULL, &err));
    assert_int_equal(all.len, n);
    assert_memory_equal(all.data, bytes, n);
    OK(seal_as(checkpoint, all.data, all.len, NULL, &err));
    for (size_t i = 0; i < sizeof(reads) / sizeof(reads[0]); i++) {
        cleanup_buf struct buf part = {0};
        size_t want = n - (size_t)reads[i].off < reads[i].n ? n - (size_t)reads[i].off : reads[i].n;

        OK(store_read_state(store, checkpoint, reads[i].off, reads[i].n, &part, &err));
        assert_int_equal(part.len, want);
        assert_memory_equal(part.data, bytes + reads[i].off, want);
    }
    cleanup_buf struct buf beyond = {0};
    OK(store_read_state(store, checkpoint, (int64_t)n + 1000000, 10, &beyond, &err));
    assert_int_equal(beyond.len, 0);
    cleanup_buf struct buf whole = {0};
    OK(store_read_state(store, checkpoint, 0, n + 5, &whole, &err));
    assert_int_equal(whole.len, n);
    assert_memory_equal(whole.data, bytes, n);
    sql_is("SELECT count(*) FROM checkpointfs.state_parts", "0");
}

/* Writes and cuts at random places, against the same done in memory. */
static void writes_anywhere_assemble_right(void **state)
{
    cleanup_err struct err err = {0};
    enum { MAX = 50000 };
    static char model[MAX];
    char piece[4000];
    int64_t size = 0;
    int64_t checkpoint = take("random", "br-a");

    (void)state;
    part_no = 0;
    memset(model, 0, sizeof(model));
    srand(7);
    for (int i = 0; i < 150; i++) {
        int64_t off = rand() % (MAX - 4000);
        size_t n = (size_t)(rand() % 4000) + 1;
        struct store_checkpoint k;
        int64_t seen, before = part_no;

        if (i % 10 == 9) {
            int64_t cut = i == 89 ? 0 : rand() % (MAX - 1);

            OK(store_state_truncate(store, checkpoint, cut, &part_no, &err));
            memset(model + cut, 0, (size_t)(MAX - cut));
            size = cut;
        } else {
            random_bytes(piece, n, (unsigned)i);
            OK(store_state_write(store, checkpoint, off, piece, n, i % 2, &part_no, &err));
            memcpy(model + off, piece, n);
            if (off + (int64_t)n > size)
                size = off + (int64_t)n;
        }
        assert_true(part_no > before);
        before = part_no;
        k = get(checkpoint);
        assert_int_equal(k.sizes[FILE_STATE], size);
        assert_int_equal(k.state_part, before);
        store_checkpoint_free(&k);
        OK(store_state_size(store, checkpoint, &seen, &part_no, &err));
        assert_int_equal(seen, size);
        assert_int_equal(part_no, before);
    }
    cleanup_buf struct buf all = {0};
    OK(store_state_assemble(store, checkpoint, &all, NULL, &err));
    assert_int_equal(all.len, size);
    assert_memory_equal(all.data, model, (size_t)size);
    REFUSED(EFBIG, store_state_write(store, checkpoint, STORE_STATE_MAX, "x", 1, false, &part_no, &err));
    REFUSED(EFBIG, store_state_truncate(store, checkpoint, STORE_STATE_MAX + 1, &part_no, &err));
}

static void what_nobody_wrote_is_told(void **state)
{
    static const struct { int64_t off; size_t n; int64_t from, to; } writes[] = {
        {10, 10, 0, 10}, {30, 10, 0, 10}, {0, 4, 4, 10}, {6, 4, 4, 6}, {2, 6, 20, 30}, {22, 2, 20, 22}, {20, 2, 24, 30}, {24, 6, 0, 0},
        {50, 1, 40, 50},
    };
    cleanup_err struct err err = {0};
    int64_t checkpoint = take("gaps", "br-a");
    struct store_gap gap;

    (void)state;
    for (size_t i = 0; i < sizeof(writes) / sizeof(writes[0]); i++) {
        cleanup_buf struct buf all = {0};

        OK(store_state_write(store, checkpoint, writes[i].off, "0123456789", writes[i].n, false, &part_no, &err));
        OK(store_state_assemble(store, checkpoint, &all, &gap, &err));
        assert_int_equal(gap.from, writes[i].from);
        assert_int_equal(gap.to, writes[i].to);
    }
    for (int i = 0; i < 2; i++) { /* a cut takes a gap away, and one beyond the end asks for NULs */
        cleanup_buf struct buf all = {0};

        OK(store_state_truncate(store, checkpoint, i ? 60 : 40, &part_no, &err));
        OK(store_state_assemble(store, checkpoint, &all, &gap, &err));
        assert_int_equal(all.len, i ? 60 : 40);
        assert_true(gap.from == 0 && gap.to == 0);
    }
}

static void a_seal_compares(void **state)
{
    cleanup_err struct err err = {0};
    cleanup_buf struct buf empty = {0};
    struct store_seal s = {.bytes = "{}", .n = 2, .sha256 = "0000", .checkpoint_json = &empty, .transcript = &empty};
    struct store_checkpoint k;
    int64_t checkpoint = take("one", "br-a");

    (void)state;
    REFUSED(EIO, store_seal(store, checkpoint, &s, &who, &err));
    OK(store_state_note(store, checkpoint, "cut short: line 1", &err));
    k = get(checkpoint);
    assert_int_equal(k.phase, PHASE_SAVED);
    assert_string_equal(k.note, "cut short: line 1");
    store_checkpoint_free(&k);
    OK(seal_as(checkpoint, "", 0, NULL, &err)); /* no bytes are a state too */
    k = get(checkpoint);
    assert_int_equal(k.sizes[FILE_STATE], 0);
    assert_null(k.note);
    store_checkpoint_free(&k);
    /* another branch became active since */
    int64_t other = take("other", "br-a");
    restore(checkpoint, "br-a", "br-b");
    REFUSED(ESTALE, seal_as(other, "{}", 2, NULL, &err));
    /* restored as database only: closed */
    int64_t only = take("only", "br-b");
    OK(store_state_write(store, only, 0, "{", 1, false, &part_no, &err));
    restore(only, "br-b", "br-c");
    REFUSED(EINVAL, seal_as(only, "{}", 2, NULL, &err));
    REFUSED(EINVAL, store_state_write(store, only, 0, "{", 1, false, &part_no, &err));
    k = get(only);
    assert_true(k.closed);
    assert_int_equal(k.sizes[FILE_STATE], -1);
    store_checkpoint_free(&k);
}

static void a_failed_take_can_be_tried_again_and_removed(void **state)
{
    cleanup_err struct err err = {0};
    struct store_checkpoint k;
    int64_t checkpoint, action, second;

    (void)state;
    OK(store_take_begin(store, line.id, mount_row.id, "bad", &who, &checkpoint, &action, &err));
    REFUSED(EPERM, store_take_remove(store, checkpoint, &who, &err));
    REFUSED(EINVAL, store_take_again(store, checkpoint, mount_row.id, &who, &second, &err));
    OK(store_state_write(store, checkpoint, 0, "{", 1, false, &part_no, &err));
    OK(store_take_failed(store, checkpoint, action, ECONNREFUSED, "Neon is down", "{\"failed\":1}\n", &err));
    k = get(checkpoint);
    assert_int_equal(k.phase, PHASE_FAILED);
    assert_string_equal(k.note, "Neon is down");
    assert_int_equal(k.sizes[FILE_STATE], -1);
    assert_int_equal(k.sizes[FILE_RESULT], 13);
    store_checkpoint_free(&k);
    REFUSED(EINVAL, store_state_write(store, checkpoint, 0, "{", 1, false, &part_no, &err));
    OK(store_take_again(store, checkpoint, mount_row.id, &who, &second, &err));
    k = get(checkpoint);
    assert_int_equal(k.phase, PHASE_TAKING);
    assert_int_equal(k.seq, second);
    assert_null(k.note);
    store_checkpoint_free(&k);
    OK(store_take_failed(store, checkpoint, second, EDQUOT, "limit", NULL, &err));
    OK(store_take_remove(store, checkpoint, &who, &err));
    REFUSED(ENOENT, store_checkpoint(store, checkpoint, &k, &err));
    REFUSED(ENOENT, store_take_remove(store, checkpoint, &who, &err));
    assert_int_equal(events_named("checkpoint.failed"), 2);
    assert_int_equal(events_named("checkpoint.deleted"), 1);
    /* its history stays, the name is free */
    cleanup_buf struct buf history = {0};
    OK(store_read_history(store, checkpoint, 0, 1 << 20, &history, &err));
    assert_non_null(strstr(history.data, "checkpoint.deleted"));
    assert_true(take("bad", "br-a") > checkpoint);
}

static void a_copy_found_out_loses_what_was_sealed(void **state)
{
    cleanup_err struct err err = {0};
    cleanup_buf struct buf left = {0};
    struct store_checkpoint k;
    struct store_action a = {0};
    int64_t checkpoint = take("copy", "br-a");

    (void)state;
    seal(checkpoint);
    OK(store_take_is_copy(store, checkpoint, EPERM, "a copy, use .import/", &who, &a, &err));
    assert_int_equal(a.kind, ACTION_DELETE); /* journalled together */
    assert_int_equal(a.state, ACTION_QUEUED);
    assert_int_equal(a.checkpoint, checkpoint);
    store_action_free(&a);
    k = get(checkpoint);
    assert_int_equal(k.phase, PHASE_FAILED);
    assert_int_equal(k.sizes[FILE_STATE], -1);
    assert_int_equal(k.sizes[FILE_TRANSCRIPT], -1);
    assert_int_equal(k.n_calls, 0);
    assert_false(k.attempt_open);
    assert_string_equal(k.snapshot.id, "snap-copy"); /* to be deleted in Neon */
    assert_true(k.busy_action != 0);
    store_checkpoint_free(&k);
    OK(store_read_state(store, checkpoint, 0, 100, &left, &err));
    assert_int_equal(left.len, 0);
}

static void names_are_unique_among_what_exists(void **state)
{
    cleanup_err struct err err = {0};
    int64_t one = take("one", "br-a");
    int64_t two = take("two", "br-a");
    struct store_checkpoint k;

    (void)state;
    REFUSED(EEXIST, store_rename(store, one, "two", &who, &err));
    REFUSED(ENOENT, store_rename(store, 999, "three", &who, &err));
    OK(store_rename(store, one, "three", &who, &err));
    OK(store_rename(store, one, "three", &who, &err));
    OK(store_rename(store, two, "one", &who, &err));
    k = get(one);
    assert_string_equal(k.name, "three");
    assert_string_equal(k.taken_name, "one");
    store_checkpoint_free(&k);
    assert_int_equal(events_named("checkpoint.renamed"), 2);
}

static void the_log_is_read_by_offset(void **state)
{
    cleanup_err struct err err = {0};
    cleanup_buf struct buf log = {0}, pieces = {0}, history = {0}, history_pieces = {0};
    struct store_checkpoint k;
    int64_t size, mtime;
    int64_t one = take("one", "br-a");
    int seq = 0;

    (void)state;
    take("two", "br-a");
    for (int i = 0; i < 20; i++)
        OK(put_meta(one, "{}", 2, false, &err));
    OK(store_events_size(store, line.id, &size, &mtime, &err));
    OK(store_read_events(store, line.id, 0, 1 << 20, &log, &err));
    assert_int_equal(log.len, size);
    assert_true(mtime > 0);
    for (int64_t off = 0; off < size; off += 97)
        OK(store_read_events(store, line.id, off, 97, &pieces, &err));
    assert_int_equal(pieces.len, size);
    assert_memory_equal(pieces.data, log.data, log.len);
    OK(store_read_history(store, one, 0, 1 << 20, &history, &err));
    k = get(one);
    assert_int_equal(k.sizes[FILE_HISTORY], history.len);
    store_checkpoint_free(&k);
    for (int64_t off = 0; off < (int64_t)history.len; off += 61)
        OK(store_read_history(store, one, off, 61, &history_pieces, &err));
    assert_memory_equal(history_pieces.data, history.data, history.len);
    assert_null(strstr(history.data, "\"two\""));
    for (char *p = log.data, *end; (end = strchr(p, '\n')); p = end + 1) {
        cleanup_json json_t *o = json_loadb(p, (size_t)(end - p), 0, NULL);

        assert_int_equal(json_integer_value(json_object_get(o, "seq")), ++seq);
        assert_non_null(json_object_get(o, "at"));
        assert_non_null(json_object_get(o, "event"));
    }
    assert_true(seq > 22);
    assert_non_null(strstr(log.data,
                           "\"by\":{\"uid\":1000,\"gid\":100,\"user\":\"ada\",\"pid\":4711,\"command\":\"bash\",\"host\":\"h1\"}"));
}

static void metrics_count_actions_and_tell_heads(void **state)
{
    cleanup_err struct err err = {0};
    struct store_metrics m = {0};
    cleanup_free char *last = NULL;
    int64_t one;

    (void)state;
    OK(store_metrics(store, line.id, &m, &err));
    assert_int_equal(m.n_actions, 0);
    assert_int_equal(m.n_heads, 1); /* of a log without a line */
    assert_null(m.heads[0].uid);
    assert_int_equal(m.heads[0].lines, 0);
    assert_int_equal(strspn(m.heads[0].hash, "0"), 64);
    store_metrics_free(&m);
    one = take("one", "br-a");
    take("two", "br-a");
    OK(put_meta(one, "{}", 2, false, &err));
    OK(store_metrics(store, line.id, &m, &err));
    assert_int_equal(m.n_actions, 1);
    assert_string_equal(m.actions[0].kind, "take");
    assert_int_equal(m.actions[0].n, 2);
    assert_true(m.actions[0].ns > 0);
    assert_int_equal(m.n_heads, 3);
    assert_string_equal(m.heads[1].name, "one");
    assert_string_equal(m.heads[2].name, "two");
    assert_true(m.heads[0].lines == m.heads[1].lines + m.heads[2].lines);
    last = sql_in(NULL, "boss", "SELECT convert_from(bytes, 'UTF8')::json->>'hash' FROM checkpointfs.events ORDER BY seq DESC LIMIT 1");
    assert_string_equal(m.heads[0].hash, last);
    assert_string_equal(m.heads[1].hash, last); /* the last event was about it */
    assert_string_not_equal(m.heads[2].hash, last);
    store_metrics_free(&m);
}

static void output_keeps_its_beginning_and_its_end(void **state)
{
    cleanup_err struct err err = {0};
    size_t half = 8 << 20;
    size_t n = 20 << 20;
    const char *gap = "\n[checkpointfs: 4194304 bytes are left out here]\n";
    size_t gap_len = strlen(gap);
    cleanup_free char *bytes = malloc(n);
    cleanup_buf struct buf out = {0}, around = {0};
    struct store_checkpoint k;
    int64_t checkpoint = take("one", "br-a");

    (void)state;
    REFUSED(ENOENT, store_output_append(store, 999, 0, "x", 1, &err));
    REFUSED(ENOENT, store_output_reset(store, 999, 0, &err));
    random_bytes(bytes, n, 3);
    k = get(checkpoint);
    assert_int_equal(k.sizes[FILE_OUTPUT], -1);
    store_checkpoint_free(&k);
    OK(store_output_reset(store, checkpoint, 0, &err));
    OK(store_output_append(store, checkpoint, 0, "hello ", 6, &err));
    OK(store_output_append(store, checkpoint, 0, "world", 5, &err));
    OK(store_read_output(store, checkpoint, 0, 3, 100, &out, &err));
    assert_string_equal(out.data, "lo world");
    OK(store_output_reset(store, checkpoint, 0, &err));
    k = get(checkpoint);
    assert_int_equal(k.sizes[FILE_OUTPUT], 0);
    store_checkpoint_free(&k);
    for (size_t off = 0; off < n; off += 100001)
        OK(store_output_append(store, checkpoint, 0, bytes + off, n - off < 100001 ? n - off : 100001, &err));
    k = get(checkpoint);
    assert_int_equal(k.sizes[FILE_OUTPUT], 2 * half + gap_len);
    store_checkpoint_free(&k);
    buf_truncate(&out, 0);
    OK(store_read_output(store, checkpoint, 0, 0, n, &out, &err));
    assert_int_equal(out.len, 2 * half + gap_len);
    assert_memory_equal(out.data, bytes, half);
    assert_memory_equal(out.data + half, gap, gap_len);
    assert_memory_equal(out.data + half + gap_len, bytes + n - half, half);
    for (size_t off = half - 5; off < half + gap_len + 5; off++) { /* wherever a read begins and ends */
        buf_truncate(&around, 0);
        OK(store_read_output(store, checkpoint, 0, (int64_t)off, 7, &around, &err));
        assert_int_equal(around.len, 7);
        assert_memory_equal(around.data, out.data + off, 7);
    }
    sql_is("SELECT sum(octet_length(bytes)) < 18 * 1024 * 1024 FROM checkpointfs.output_parts", "t");
}

static void children_are_found_by_their_parent(void **state)
{
    cleanup_err struct err err = {0};
    struct store_action a = {0};
    struct store_checkpoint k;
    cleanup_free char *name = NULL;
    int64_t one = take("one", "br-a");

    (void)state;
    seal(one);
    k = get(one);
    OK(begin(ACTION_RESUME, one, &a, &err));
    REFUSED(ENOENT, store_child(store, line.id, 0, k.uid, a.id, &name, &err));
    OK(seal_as(take("child", "br-a"), "{}", 2, k.uid, &err));
    OK(store_child(store, line.id, 0, k.uid, a.id, &name, &err));
    assert_string_equal(name, "child");
    store_action_free(&a);
    store_checkpoint_free(&k);
}

static void sql_users_see_who_waits_on_which_tool(void **state)
{
    int64_t one = take("one", "br-a");
    int64_t two = take("two", "br-a");

    (void)state;
    seal(one);
    seal(two);
    sql_is("SELECT count(*) FROM checkpointfs.pending_calls WHERE tool = 'drop_users_table' AND run_id = 'run-1'", "2");
    sql_is("SELECT arguments FROM checkpointfs.pending_calls WHERE call_id = 'c1' LIMIT 1", "{\"x\":1}");
    sql_is("SELECT count(*) FROM checkpointfs.checkpoint_envelopes WHERE envelope @> '{\"tools\": [\"drop_users_table\"]}'", "2");
    restore(one, "br-a", "br-b"); /* the second is off line now */
    sql_is("SELECT string_agg(DISTINCT name, ',') FROM checkpointfs.pending_calls", "one");
    sql_is("SELECT obj_description('checkpointfs.pending_calls'::regclass) IS NOT NULL", "t");
}

#define T(f) cmocka_unit_test_setup_teardown(f, open_store, close_store)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(lines_are_found_by_every_branch),
        T(a_take_from_begin_to_seal),
        T(files_are_read_back_exactly),
        T(of_two_writers_of_meta_the_second_looks_again),
        T(a_large_state_keeps_every_byte),
        T(writes_anywhere_assemble_right),
        T(what_nobody_wrote_is_told),
        T(a_seal_compares),
        T(a_failed_take_can_be_tried_again_and_removed),
        T(a_copy_found_out_loses_what_was_sealed),
        T(names_are_unique_among_what_exists),
        T(the_log_is_read_by_offset),
        T(metrics_count_actions_and_tell_heads),
        T(output_keeps_its_beginning_and_its_end),
        T(children_are_found_by_their_parent),
        T(sql_users_see_who_waits_on_which_tool),
    };

    return cmocka_run_group_tests(tests, fixture_up, fixture_down);
}
