/* Endpoints: list, create, change, delete, start, suspend, restart. reference/neon-api.md §5.1. */
#include <stdlib.h>
#include <string.h>

#include "api_i.h"
#include "emulator/js.h"
#include "util/cleanup.h"
#include "util/text.h"

static int list(struct request *rq, const char *branch)
{
    json_t *out = json_array();
    const char *id;
    json_t *endpoint;
    json_object_foreach(emulator_table(rq->e, "endpoints"), id, endpoint)
        if (model_endpoint(rq->e, rq->params[0], id) && (!branch || js_is(endpoint, "branch_id", branch)))
            json_array_append_new(out, model_show(endpoint));
    return answer(rq, 200, json_pack("{s:o}", "endpoints", out));
}

HANDLER(api_endpoints)
{
    return list(rq, NULL);
}

HANDLER(api_branch_endpoints)
{
    return need_branch(rq, 1) ? list(rq, rq->params[1]) : 404;
}

HANDLER(api_endpoint)
{
    json_t *endpoint = need_endpoint(rq, 1);
    return endpoint ? answer(rq, 200, json_pack("{s:o}", "endpoint", model_show(endpoint))) : 404;
}

/* Settings that are kept and shown; nothing here scales. */
static bool read_settings(struct request *rq, const json_t *fields, json_t *ret)
{
    static const char *const units[] = {"autoscaling_limit_min_cu", "autoscaling_limit_max_cu"};
    static const char *const flags[] = {"pooler_enabled", "disabled", "passwordless_access"};
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        json_t *value = json_object_get(fields, units[i]);
        if (value && (!json_is_number(value) || json_number_value(value) < 0.25 || json_number_value(value) > 56)) {
            answer_error(rq, 400, "", "endpoint.%s: must be a number from 0.25 to 56", units[i]);
            return false;
        }
        if (value)
            json_object_set(ret, units[i], value);
    }
    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
        bool value = false;
        if (!field_bool(rq, fields, "endpoint", flags[i], &value))
            return false;
        if (json_object_get(fields, flags[i]))
            js_set_bool(ret, flags[i], value);
    }
    int64_t timeout = 0;
    if (!field_int(rq, fields, "endpoint", "suspend_timeout_seconds", -1, 604800, &timeout))
        return false;
    if (json_object_get(fields, "suspend_timeout_seconds"))
        js_set_int(ret, "suspend_timeout_seconds", timeout);
    return true;
}

/* 0, or the status of the refusal. */
static int check_settings(struct request *rq, const json_t *fields, json_t *ret_settings)
{
    if (!read_settings(rq, fields, ret_settings))
        return 400;
    if (js_int(ret_settings, "suspend_timeout_seconds") && str_equal(rq->e->opt.plan, "free"))
        return answer_error(rq, 412, "", "endpoint.suspend_timeout_seconds: can't be set on the free plan");
    if (js_bool(ret_settings, "disabled"))
        return answer_error(rq, 422, "", "endpoint.disabled: is not available on this server; suspend the endpoint");
    return 0;
}

HANDLER(api_endpoint_create)
{
    struct emulator *e = rq->e;
    json_t *fields, *endpoint;
    const char *branch_id = NULL, *type = NULL;
    cleanup_json json_t *settings = json_object();
    if (!field_object(rq, rq->body, "endpoint", &fields) ||
        !field_string(rq, fields, "endpoint", "branch_id", 1, 60, &branch_id) ||
        !field_string(rq, fields, "endpoint", "type", 1, 20, &type))
        return 400;
    if (!branch_id || !type)
        return answer_error(rq, 400, "", "endpoint.%s: is required", branch_id ? "type" : "branch_id");
    if (!str_equal(type, "read_write") && !str_equal(type, "read_only"))
        return answer_error(rq, 400, "", "endpoint.type: must be read_write or read_only");
    int refused = check_settings(rq, fields, settings);
    if (refused)
        return refused;
    json_t *branch = model_branch(e, rq->params[0], branch_id);
    if (!branch)
        return answer_error(rq, 404, "", "branch not found");
    if (str_equal(type, "read_only"))
        return answer_error(rq, 422, "", "read-only endpoints are not available on this server");
    if (!need_ready(rq, branch))
        return 422;
    if (model_endpoint_of(e, branch_id))
        return answer_error(rq, 409, "", "read-write endpoint already exists");
    cleanup_err struct err err = {0};
    if (model_add_endpoint(e, rq->params[0], branch_id, &endpoint, &err) < 0)
        return answer_error(rq, 503, "", "%s", err_text(&err));
    json_object_update(endpoint, settings);
    json_t *job = job_new(e, rq, "create_endpoint", rq->params[0], json_pack("{s:s}", "endpoint", js_str(endpoint, "id")));
    job_operation(e, job, "start_compute", branch_id, js_str(endpoint, "id"));
    return answer_with_operations(rq, 201, "endpoint", model_show(endpoint), job);
}

HANDLER(api_endpoint_update)
{
    json_t *endpoint = need_endpoint(rq, 1), *fields;
    cleanup_json json_t *settings = json_object();
    const char *branch_id = NULL, *name = NULL;
    if (!endpoint)
        return 404;
    if (!field_object(rq, rq->body, "endpoint", &fields) ||
        !field_string(rq, fields, "endpoint", "branch_id", 1, 60, &branch_id) ||
        !field_string(rq, fields, "endpoint", "name", 1, 256, &name))
        return 400;
    int refused = check_settings(rq, fields, settings);
    if (refused)
        return refused;
    if (branch_id && !js_is(endpoint, "branch_id", branch_id))
        return answer_error(rq, 422, "", "endpoint.branch_id: moving an endpoint is deprecated and not available on this server");
    json_object_update(endpoint, settings);
    if (name)
        js_set_str(endpoint, "name", name);
    model_touch(endpoint);
    return answer_with_operations(rq, 200, "endpoint", model_show(endpoint), NULL);
}

static int transition(struct request *rq, json_t *endpoint, const char *kind, const char *pending, const char *const actions[])
{
    struct emulator *e = rq->e;
    json_t *job = job_new(e, rq, kind, rq->params[0], json_pack("{s:s}", "endpoint", rq->params[1]));
    for (size_t i = 0; actions[i]; i++)
        job_operation(e, job, actions[i], js_str(endpoint, "branch_id"), rq->params[1]);
    js_set_str(endpoint, "pending_state", pending);
    return answer_with_operations(rq, 200, "endpoint", model_show(endpoint), job);
}

HANDLER(api_endpoint_delete)
{
    static const char *const actions[] = {"suspend_compute", NULL};
    json_t *endpoint = model_endpoint(rq->e, rq->params[0], rq->params[1]);
    return endpoint ? transition(rq, endpoint, "delete_endpoint", NULL, actions) : 204;
}

HANDLER(api_endpoint_start)
{
    static const char *const actions[] = {"start_compute", NULL};
    json_t *endpoint = need_endpoint(rq, 1);
    if (!endpoint)
        return 404;
    if (js_is(endpoint, "current_state", "active"))
        return answer_with_operations(rq, 200, "endpoint", model_show(endpoint), NULL);
    return transition(rq, endpoint, "start_endpoint", "active", actions);
}

HANDLER(api_endpoint_suspend)
{
    static const char *const actions[] = {"suspend_compute", NULL};
    json_t *endpoint = need_endpoint(rq, 1);
    if (!endpoint)
        return 404;
    if (js_is(endpoint, "current_state", "idle"))
        return answer_with_operations(rq, 200, "endpoint", model_show(endpoint), NULL);
    return transition(rq, endpoint, "suspend_endpoint", "idle", actions);
}

HANDLER(api_endpoint_restart)
{
    static const char *const actions[] = {"suspend_compute", "start_compute", NULL};
    json_t *endpoint = need_endpoint(rq, 1);
    return endpoint ? transition(rq, endpoint, "restart_endpoint", "active", actions) : 404;
}
