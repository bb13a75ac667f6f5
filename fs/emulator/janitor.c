/* What happens by itself: branches and snapshots expire, a compute that died is started again. */
#include "emulator/janitor.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "emulator/compute.h"
#include "emulator/js.h"
#include "emulator/model.h"
#include "emulator/ops.h"
#include "util/cleanup.h"
#include "util/clock.h"

#define ROUND_MS 500

static bool expired(const json_t *record)
{
    int64_t at;
    const char *text = js_str(record, "expires_at");
    return text && clock_parse(text, &at) == 0 && at <= clock_now();
}

/* At most one in a round: a project does one thing at a time. */
static void expire_branch(struct emulator *e)
{
    const char *id;
    json_t *branch;
    json_object_foreach(emulator_table(e, "branches"), id, branch) {
        const char *project = js_str(branch, "project_id");
        if (!expired(branch) || js_bool(branch, "default") || js_bool(branch, "protected") || model_has_children(e, id) ||
            job_running(e, project))
            continue;
        json_t *job = job_new(e, NULL, "delete_branch", project, json_pack("{s:s}", "branch", id));
        json_t *endpoint = model_endpoint_of(e, id);
        if (endpoint)
            job_operation(e, job, "suspend_compute", id, js_str(endpoint, "id"));
        job_operation(e, job, "delete_timeline", id, NULL);
        json_decref(job_submit(e, job));
        return;
    }
}

static void expire_snapshot(struct emulator *e)
{
    const char *id;
    json_t *snapshot;
    json_object_foreach(emulator_table(e, "snapshots"), id, snapshot) {
        const char *project = js_str(snapshot, "_project_id");
        if (!expired(snapshot) || job_running(e, project))
            continue;
        json_t *job = job_new(e, NULL, "delete_snapshot", project, json_pack("{s:s}", "snapshot", id));
        job_operation(e, job, "delete_timeline", js_str(snapshot, "_hidden_branch_id"), NULL);
        json_decref(job_submit(e, job));
        return;
    }
}

/* A compute that ended without having been asked to comes back, as one of Neon's does: by the job that starts an endpoint. */
static void revive(struct emulator *e)
{
    const char *id;
    json_t *endpoint;
    json_object_foreach(emulator_table(e, "endpoints"), id, endpoint) {
        const char *project = js_str(endpoint, "project_id"), *branch = js_str(endpoint, "branch_id");
        if (!js_is(endpoint, "current_state", "active") || job_running(e, project) || compute_running(e, branch, NULL))
            continue;
        js_set_str(endpoint, "current_state", "idle");
        js_set_str(endpoint, "pending_state", "active");
        json_t *job = job_new(e, NULL, "start_endpoint", project, json_pack("{s:s}", "endpoint", id));
        job_operation(e, job, "start_compute", branch, id);
        json_decref(job_submit(e, job));
        return;
    }
}

static void *janitor(void *arg)
{
    struct emulator *e = arg;
    pthread_mutex_lock(&e->lock);
    while (!e->stopping) {
        expire_branch(e);
        expire_snapshot(e);
        revive(e);
        for (int64_t end = clock_mono_ms() + ROUND_MS, left; !e->stopping && (left = end - clock_mono_ms()) > 0;)
            emulator_wait(e, left);
    }
    pthread_mutex_unlock(&e->lock);
    return NULL;
}

int janitor_start(struct emulator *e, pthread_t *ret_thread, struct err *err)
{
    int r = pthread_create(ret_thread, NULL, janitor, e);
    return r ? err_set(err, r, "no thread: %s", strerror(r)) : 0;
}
