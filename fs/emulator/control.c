/* The emulator's own routes, for tests: failures on request, and what somebody else does in the console. */
#include <stdlib.h>
#include <string.h>

#include "api_i.h"
#include "emulator/js.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/text.h"

#define CONSOLE_WAIT_MS 60000

HANDLER(control_faults)
{
    return answer(rq, 200, json_pack("{s:o, s:o}", "faults", faults_list(rq->e->faults), "met", faults_met(rq->e->faults)));
}

HANDLER(control_faults_add)
{
    const char *spec = NULL;
    cleanup_err struct err err = {0};
    if (!field_string(rq, rq->body, "", "spec", 1, 4096, &spec))
        return 400;
    if (!spec)
        return answer_error(rq, 400, "", "spec: is required");
    if (faults_add(rq->e->faults, spec, &err) < 0)
        return answer_error(rq, 400, "", "%s", err_text(&err));
    return control_faults(rq);
}

HANDLER(control_faults_clear)
{
    faults_clear(rq->e->faults);
    return control_faults(rq);
}

static bool wait_idle(struct emulator *e, const char *project)
{
    for (int64_t end = clock_mono_ms() + CONSOLE_WAIT_MS; job_running(e, project);) {
        if (e->stopping || clock_mono_ms() >= end)
            return false;
        emulator_wait(e, 100);
    }
    return true;
}

static int busy(struct request *rq)
{
    return answer_error(rq, 503, "", "operations are still running");
}

/* A handler as the API has it, in the name of somebody else: it waits its turn, and returns when the operations are done. */
static int as_somebody_else(struct request *rq, int (*handler)(struct request *rq), const char *project, const char *id)
{
    rq->params[0] = js_strdup(project);
    rq->params[1] = js_strdup(id);
    if (!model_project(rq->e, project))
        return answer_error(rq, 404, "", "project not found");
    if (!wait_idle(rq->e, project))
        return busy(rq);
    int status = handler(rq);
    return wait_idle(rq->e, project) ? status : busy(rq);
}

HANDLER(control_console)
{
    static const struct {
        const char *action, *member;
        int (*handler)(struct request *rq);
    } actions[] = {
        {"delete_branch", "branch_id", api_branch_delete},
        {"delete_snapshot", "snapshot_id", api_snapshot_delete},
        {"set_default", "branch_id", api_branch_default},
        {"suspend_endpoint", "endpoint_id", api_endpoint_suspend},
    };
    const char *action = NULL, *project = NULL;
    if (!field_string(rq, rq->body, "", "action", 1, 40, &action) ||
        !field_string(rq, rq->body, "", "project_id", 1, 60, &project))
        return 400;
    for (size_t i = 0; action && project && i < sizeof(actions) / sizeof(actions[0]); i++) {
        const char *id = NULL;
        if (!str_equal(action, actions[i].action))
            continue;
        if (!field_string(rq, rq->body, "", actions[i].member, 1, 60, &id))
            return 400;
        return id ? as_somebody_else(rq, actions[i].handler, project, id)
                  : answer_error(rq, 400, "", "%s: is required", actions[i].member);
    }
    return answer_error(rq, 400, "",
                        "action: must be delete_branch, delete_snapshot, set_default or suspend_endpoint, with project_id");
}
