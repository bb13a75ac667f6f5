/* checkpoint.json and snapshot.json as they come back from a backup: whoever copied them may have edited them, so each field is checked. */
#include "import_files.h"

#include <errno.h>
#include <string.h>

#include "formats/jdoc.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/hash.h"
#include "util/text.h"

#define FILE_MAX (1 << 20)
#define NEON_ID_MAX 128

static bool all_of(const char *s, const char *set, size_t n)
{
    return strlen(s) == n && strspn(s, set) == n;
}

static int load(const struct import_file *f, const char *name, size_t max, json_t **ret, struct err *e)
{
    json_error_t why;

    if (f->bytes.len > max)
        return err_set(e, EINVAL, "%s has %zu bytes: that is no %s", name, f->bytes.len, name);
    *ret = json_loadb(f->bytes.data ? f->bytes.data : "", f->bytes.len, JSON_REJECT_DUPLICATES, &why);
    if (!*ret)
        return json_error_code(&why) == json_error_out_of_memory
                   ? err_set(e, ENOMEM, "out of memory")
                   : err_set(e, EINVAL, "%s isn't valid JSON: line %d, column %d: %s", name, why.line, why.column, why.text);
    return json_is_object(*ret) ? 0 : err_set(e, EINVAL, "%s isn't a JSON object", name);
}

/* ---- fields --------------------------------------------------------------------------------------------------------- */

static int text(const json_t *o, const char *file, const char *key, const char **ret, struct err *e)
{
    const json_t *v = json_object_get(o, key);

    if (!v || json_is_null(v))
        return 0;
    if (!json_is_string(v) || json_string_length(v) == 0)
        return err_set(e, EINVAL, "%s: \"%s\" must be a text that isn't empty", file, key);
    *ret = json_string_value(v);
    return 0;
}

static int when(const json_t *o, const char *file, const char *key, int64_t *ret, struct err *e)
{
    const char *s = NULL;
    int r = text(o, file, key, &s, e);

    if (r == 0 && s && clock_parse(s, ret) < 0)
        return err_set(e, EINVAL, "%s: \"%s\" must be an RFC 3339 time, not %.40s", file, key, s);
    return r;
}

static int size(const json_t *o, const char *file, const char *key, int64_t *ret, struct err *e)
{
    const json_t *v = json_object_get(o, key);

    *ret = -1;
    if (!v || json_is_null(v))
        return 0;
    if (!json_is_integer(v) || json_integer_value(v) < 0)
        return err_set(e, EINVAL, "%s: \"%s\" must be a number of bytes", file, key);
    *ret = json_integer_value(v);
    return 0;
}

/* An id of Neon's: snap-…, br-…, a project's. It goes into paths of the API. */
static int neon_id(const json_t *o, const char *file, const char *key, const char **ret, struct err *e)
{
    static const char set[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
    const char *s = NULL;
    int r = text(o, file, key, &s, e);

    if (r == 0 && s && (strlen(s) > NEON_ID_MAX || !all_of(s, set, strlen(s))))
        return err_set(e, EINVAL, "%s: \"%s\" is no id of Neon's: %.60s", file, key, s);
    if (r == 0)
        *ret = s;
    return r;
}

/* ---- checkpoint.json ------------------------------------------------------------------------------------------------ */

#define CHECKPOINT "checkpoint.json"

static int read_id(struct claim *c, struct err *e)
{
    int r = text(c->root, CHECKPOINT, "id", &c->id, e);

    if (r == 0 && (!c->id || !str_starts(c->id, "ck-") || !all_of(c->id + 3, "0123456789abcdef", CHECKPOINT_ID_SIZE - 4)))
        return err_set(e, EINVAL, CHECKPOINT ": \"id\" must be `ck-` and 20 hex digits%s%.40s", c->id ? ", not " : "", c->id ? c->id : "");
    return r;
}

static int read_state(struct claim *c, struct err *e)
{
    const json_t *state = json_object_get(c->root, "state");
    int64_t bytes;
    int r;

    if (!state || json_is_null(state))
        return 0;
    r = text(state, CHECKPOINT, "sha256", &c->state_sha256, e);
    if (r == 0 && (!c->state_sha256 || !all_of(c->state_sha256, "0123456789abcdef", SHA256_HEX_SIZE - 1)))
        return err_set(e, EINVAL, CHECKPOINT ": \"state.sha256\" must be 64 hex digits");
    return r ? r : size(state, CHECKPOINT, "bytes", &bytes, e);
}

static int read_texts(struct claim *c, struct err *e)
{
    const struct { const char *key, **field; } texts[] = {
        {"name", &c->name},           {"parent", &c->parent},       {"run_id", &c->run_id},
        {"step_id", &c->step_id},     {"framework", &c->framework}, {"framework_version", &c->framework_version},
        {"agent", &c->agent},
    };
    int r = 0;

    for (size_t i = 0; r == 0 && i < sizeof(texts) / sizeof(*texts); i++)
        r = text(c->root, CHECKPOINT, texts[i].key, texts[i].field, e);
    if (r == 0 && c->name && name_problem(c->name))
        r = err_set(e, EINVAL, CHECKPOINT ": \"name\" can't be a checkpoint's name: %s", name_problem(c->name));
    return r;
}

static bool is_derived(const json_t *root, const char *key)
{
    const json_t *list = json_object_get(root, "derived"), *v;
    size_t i;

    json_array_foreach(list, i, v)
        if (str_equal(json_string_value(v), key))
            return true;
    return false;
}

static int read_pending(struct claim *c, struct err *e)
{
    const json_t *list = json_object_get(c->root, "pending"), *call;
    size_t i;

    if (!list || json_is_null(list))
        return 0;
    if (!json_is_array(list))
        return err_set(e, EINVAL, CHECKPOINT ": \"pending\" must be a list of calls");
    json_array_foreach(list, i, call)
        if (json_string_length(json_object_get(call, "id")) == 0)
            return err_set(e, EINVAL, CHECKPOINT ": \"pending[%zu].id\" must be a text", i);
    c->pending = list;
    c->pending_supplied = json_array_size(list) > 0 && !is_derived(c->root, "pending");
    return 0;
}

/* The guide's form, whose agent_state is as free as any state: what it holds may be more than jansson takes. 1 when it is that. */
static int read_guide(const struct import_file *f, struct claim *ret, struct err *e)
{
    cleanup_jdoc struct jdoc d = {0};
    cleanup_free char *id = NULL;
    struct jval root, snapshot;
    int r = jdoc_parse(f->bytes.data ? f->bytes.data : "", f->bytes.len, &d);

    if (r < 0)
        return r == -ENOMEM ? err_set(e, ENOMEM, "out of memory") : 0;
    root = j_root(&d);
    if (j_has(j_get(root, "id")) || !j_has(j_get(root, "agent_state")))
        return 0;
    snapshot = j_get(root, "snapshot_id");
    if (!j_has(snapshot))
        return err_set(e, EINVAL, CHECKPOINT ": \"snapshot_id\" is missing");
    ret->root = json_object();
    if (j_string(snapshot, &id) < 0 || json_object_set_new(ret->root, "snapshot_id", id ? json_string(id) : json_false()) < 0)
        return err_set(e, ENOMEM, "out of memory");
    r = neon_id(ret->root, CHECKPOINT, "snapshot_id", &ret->guide_snapshot, e);
    return r < 0 ? r : 1;
}

int claim_read(const struct import_file *f, struct claim *ret, struct err *e)
{
    int r = f->bytes.len > STORE_STATE_MAX ? 0 : read_guide(f, ret, e);

    if (r)
        return r < 0 ? r : 0;
    r = load(f, CHECKPOINT, FILE_MAX, &ret->root, e);
    if (r < 0)
        return r;
    r = read_id(ret, e);
    if (r == 0)
        r = read_texts(ret, e);
    if (r == 0)
        r = when(ret->root, CHECKPOINT, "created_at", &ret->created_at, e);
    if (r == 0)
        r = text(json_object_get(ret->root, "trace"), CHECKPOINT, "traceparent", &ret->traceparent, e);
    if (r == 0)
        r = read_pending(ret, e);
    return r ? r : read_state(ret, e);
}

/* ---- snapshot.json -------------------------------------------------------------------------------------------------- */

#define SNAPSHOT "snapshot.json"

int snapshot_read(const struct import_file *f, json_t **ret_root, struct store_snapshot *ret, struct err *e)
{
    const char *id = NULL, *project = NULL, *branch = NULL, *name = NULL, *lsn = NULL;
    int r = load(f, SNAPSHOT, FILE_MAX, ret_root, e);

    if (r == 0)
        r = neon_id(*ret_root, SNAPSHOT, "id", &id, e);
    if (r == 0)
        r = neon_id(*ret_root, SNAPSHOT, "project_id", &project, e);
    if (r == 0 && (!id || !project))
        r = err_set(e, EINVAL, SNAPSHOT ": \"%s\" is missing", id ? "project_id" : "id");
    if (r == 0)
        r = neon_id(*ret_root, SNAPSHOT, "branch_id", &branch, e);
    if (r == 0)
        r = text(*ret_root, SNAPSHOT, "name", &name, e);
    if (r == 0)
        r = text(*ret_root, SNAPSHOT, "lsn", &lsn, e);
    if (r == 0)
        r = when(*ret_root, SNAPSHOT, "requested_at", &ret->requested_at, e);
    if (r == 0)
        r = when(*ret_root, SNAPSHOT, "captured_at", &ret->captured_at, e);
    if (r == 0)
        r = when(*ret_root, SNAPSHOT, "expires_at", &ret->expires_at, e);
    if (r == 0)
        r = size(*ret_root, SNAPSHOT, "full_size", &ret->full_size, e);
    if (r == 0)
        r = size(*ret_root, SNAPSHOT, "diff_size", &ret->diff_size, e);
    ret->id = (char *)(uintptr_t)id;
    ret->project_id = (char *)(uintptr_t)project;
    ret->branch_id = (char *)(uintptr_t)branch;
    ret->name = (char *)(uintptr_t)name;
    ret->lsn = (char *)(uintptr_t)lsn;
    return r;
}
