/* What handlers share: reading fields, finding the record a path names, limits, answers with operations. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "api_i.h"
#include "emulator/ids.h"
#include "emulator/js.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/text.h"

static bool bad(struct request *rq, const char *where, const char *key, const char *what)
{
    answer_error(rq, 400, "", "%s%s%s: %s", where, where[0] ? "." : "", key, what);
    return false;
}

bool field_string(struct request *rq, const json_t *object, const char *where, const char *key, size_t min, size_t max,
                  const char **ret_value)
{
    const json_t *value = json_object_get(object, key);
    if (!value)
        return true;
    const char *text = json_string_value(value);
    size_t n = text ? strlen(text) : 0;
    if (text && n >= min && n <= max) {
        *ret_value = text;
        return true;
    }
    cleanup_free char *what = js_format("must be a string of %zu to %zu characters", min, max);
    return bad(rq, where, key, what);
}

bool field_bool(struct request *rq, const json_t *object, const char *where, const char *key, bool *ret_value)
{
    const json_t *value = json_object_get(object, key);
    if (!value)
        return true;
    if (!json_is_boolean(value))
        return bad(rq, where, key, "must be true or false");
    *ret_value = json_is_true(value);
    return true;
}

bool field_int(struct request *rq, const json_t *object, const char *where, const char *key, int64_t low, int64_t high,
               int64_t *ret_value)
{
    const json_t *value = json_object_get(object, key);
    if (!value)
        return true;
    if (json_is_integer(value) && json_integer_value(value) >= low && json_integer_value(value) <= high) {
        *ret_value = json_integer_value(value);
        return true;
    }
    cleanup_free char *what = js_format("must be an integer from %lld to %lld", (long long)low, (long long)high);
    return bad(rq, where, key, what);
}

bool field_object(struct request *rq, const json_t *object, const char *key, json_t **ret_value)
{
    json_t *value = json_object_get(object, key);
    if (!json_is_object(value))
        return bad(rq, "", key, value ? "must be an object" : "is required");
    *ret_value = value;
    return true;
}

bool field_future(struct request *rq, const json_t *object, const char *where, const char *key, char **ret_text, bool *ret_null)
{
    const json_t *value = json_object_get(object, key);
    if (!value)
        return true;
    if (json_is_null(value) && ret_null) {
        *ret_null = true;
        return true;
    }
    int64_t at;
    if (!json_is_string(value) || clock_parse(json_string_value(value), &at) < 0)
        return bad(rq, where, key, "must be a time as RFC 3339 writes it");
    if (at <= clock_now())
        return bad(rq, where, key, "must be in the future");
    char room[CLOCK_TEXT_MAX];
    *ret_text = js_strdup(clock_format_seconds(at, room));
    return true;
}

bool query_int(struct request *rq, const char *key, int64_t low, int64_t high, int64_t *ret_value)
{
    const char *text = js_str(rq->query, key);
    if (!text)
        return true;
    char *end;
    errno = 0;
    long long n = strtoll(text, &end, 10);
    if (!errno && end != text && !*end && n >= low && n <= high) {
        *ret_value = n;
        return true;
    }
    cleanup_free char *what = js_format("must be an integer from %lld to %lld", (long long)low, (long long)high);
    return bad(rq, "", key, what);
}

bool query_bool(struct request *rq, const char *key, bool *ret_value)
{
    const char *text = js_str(rq->query, key);
    if (!text)
        return true;
    if (!str_equal(text, "true") && !str_equal(text, "false"))
        return bad(rq, "", key, "must be true or false");
    *ret_value = str_equal(text, "true");
    return true;
}

json_t *need_branch(struct request *rq, int param)
{
    json_t *branch = model_branch(rq->e, rq->params[0], rq->params[param]);
    if (!branch)
        answer_error(rq, 404, "", "branch not found");
    return branch;
}

json_t *need_snapshot(struct request *rq, int param)
{
    json_t *snapshot = model_snapshot(rq->e, rq->params[0], rq->params[param]);
    if (!snapshot)
        answer_error(rq, 404, "", "snapshot not found");
    return snapshot;
}

json_t *need_endpoint(struct request *rq, int param)
{
    json_t *endpoint = model_endpoint(rq->e, rq->params[0], rq->params[param]);
    if (!endpoint)
        answer_error(rq, 404, "", "endpoint not found");
    return endpoint;
}

bool need_ready(struct request *rq, const json_t *branch)
{
    if (js_is(branch, "current_state", "ready"))
        return true;
    answer_error(rq, 422, "", "branch not ready yet");
    return false;
}

bool room_for_branch(struct request *rq, bool root)
{
    struct emulator *e = rq->e;
    if (root && model_count_branches(e, rq->params[0], true) >= e->opt.root_branches)
        answer_error(rq, 422, "ROOT_BRANCHES_LIMIT_EXCEEDED", "root branches limit exceeded");
    else if (model_count_branches(e, rq->params[0], false) >= e->opt.branches)
        answer_error(rq, 422, "BRANCHES_LIMIT_EXCEEDED", "branches limit exceeded");
    else
        return true;
    return false;
}

void make_late(struct request *rq, json_t *record)
{
    if (rq->fault.late_ms > 0)
        js_set_int(record, "_visible_at", clock_now() / 1000000 + rq->fault.late_ms);
}

int answer_with_operations(struct request *rq, int status, const char *name, json_t *record, json_t *job)
{
    json_t *body = json_object();
    if (name)
        json_object_set_new(body, name, record);
    if (job) {
        json_object_set_new(body, "operations", job_submit(rq->e, job));
    } else {
        json_object_set_new(body, "operations", json_array());
        emulator_save(rq->e);
    }
    return answer(rq, status, body);
}
