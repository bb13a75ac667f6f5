/* Operations: the thread that works a job off, and what becomes of jobs when the emulator ends in the middle. */
#include "emulator/ops.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "emulator/compute.h"
#include "emulator/copy.h"
#include "emulator/ids.h"
#include "emulator/js.h"
#include "emulator/model.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/log.h"
#include "util/text.h"

/* How many operations are remembered; Neon prunes too. */
#define OPERATIONS_KEPT 1000

struct run {
    struct emulator *e;
    const struct job_kind *kind;
    char *id;
    json_t *args; /* this thread's copy */
};

static json_t *find_job(struct emulator *e, const char *id)
{
    size_t i;
    json_t *job;
    json_array_foreach(emulator_table(e, "jobs"), i, job)
        if (js_is(job, "id", id))
            return job;
    return NULL;
}

static json_t *find_operation(struct emulator *e, const char *id)
{
    json_t *all = emulator_table(e, "operations");
    for (size_t i = json_array_size(all); i-- > 0;)
        if (js_is(json_array_get(all, i), "id", id))
            return json_array_get(all, i);
    return NULL;
}

bool job_running(struct emulator *e, const char *project)
{
    size_t i;
    json_t *job;
    json_array_foreach(emulator_table(e, "jobs"), i, job)
        if (js_is(job, "project_id", project))
            return true;
    return false;
}

json_t *job_new(struct emulator *e, const struct request *rq, const char *kind, const char *project, json_t *args)
{
    cleanup_free char *id = ids_uuid();
    json_t *job = json_pack("{s:s, s:s, s:s, s:[], s:o}", "id", id, "project_id", project, "kind", kind, "operations", "args",
                            args);
    if (rq && rq->fault.op_status[0]) {
        js_set_str(job, "fault", rq->fault.op_status);
        js_set_str(job, "fault_error", rq->fault.op_error);
    }
    if (!rq)
        js_set_bool(job, "quick", true);
    json_array_append_new(emulator_table(e, "jobs"), job);
    return job;
}

/* Microseconds since the epoch, never the same twice: the cursor of the operation list. */
static int64_t operation_time(struct emulator *e)
{
    int64_t now = clock_now() / 1000, last = js_int(e->root, "_last_operation_us");
    if (now <= last)
        now = last + 1;
    js_set_int(e->root, "_last_operation_us", now);
    return now;
}

static void set_status(json_t *operation, const char *status)
{
    cleanup_free char *now = emulator_now();
    int64_t took = clock_now() / 1000 - js_int(operation, "_created_us");
    js_set_str(operation, "status", status);
    js_set_str(operation, "updated_at", now);
    js_set_int(operation, "total_duration_ms", took > 0 ? took / 1000 : 0);
}

void job_operation(struct emulator *e, json_t *job, const char *action, const char *branch, const char *endpoint)
{
    json_t *ids = json_object_get(job, "operations");
    cleanup_free char *id = ids_uuid();
    cleanup_free char *now = emulator_now();
    json_t *operation = json_pack("{s:s, s:s, s:s, s:s, s:i, s:s, s:s, s:i, s:I}", "id", id, "project_id",
                                  js_str(job, "project_id"), "action", action, "status",
                                  json_array_size(ids) ? "scheduling" : "running", "failures_count", 0, "created_at", now,
                                  "updated_at", now, "total_duration_ms", 0, "_created_us", (json_int_t)operation_time(e));
    js_set_str(operation, "branch_id", branch);
    js_set_str(operation, "endpoint_id", endpoint);
    json_array_append_new(emulator_table(e, "operations"), operation);
    json_array_append_new(ids, json_string(id));
}

static void prune(struct emulator *e)
{
    json_t *all = emulator_table(e, "operations");
    while (json_array_size(all) > OPERATIONS_KEPT && !js_is(json_array_get(all, 0), "status", "running") &&
           !js_is(json_array_get(all, 0), "status", "scheduling"))
        json_array_remove(all, 0);
}

static void remove_job(struct emulator *e, const char *id)
{
    json_t *jobs = emulator_table(e, "jobs");
    for (size_t i = json_array_size(jobs); i-- > 0;)
        if (js_is(json_array_get(jobs, i), "id", id))
            json_array_remove(jobs, i);
    prune(e);
}

/* The operation `at` failed with `text`, those after it never ran. */
static void fail_operations(struct emulator *e, const json_t *job, size_t at, const char *status, const char *text)
{
    size_t i;
    json_t *id;
    json_array_foreach(json_object_get(job, "operations"), i, id) {
        json_t *operation = find_operation(e, json_string_value(id));
        if (!operation || i < at)
            continue;
        set_status(operation, i == at ? status : "cancelled");
        if (i == at && !str_equal(status, "cancelled"))
            js_set_int(operation, "failures_count", 1);
        if (i == at && text)
            js_set_str(operation, "error", text);
    }
}

/* The port on which the compute of a branch is to serve; 0 = it isn't to run. */
static int wanted_port(struct emulator *e, const char *branch)
{
    json_t *endpoint = model_endpoint_of(e, branch);
    return endpoint && js_bool(endpoint, "_active") && js_is(endpoint, "current_state", "active") ? (int)js_int(endpoint, "_port")
                                                                                                  : 0;
}

/* Servers run as the state says: after a failure in the middle of a change, and at start. First all that are wrong are ended,
 * since one of them may hold the port of another. */
static void align_computes(struct emulator *e, const char *project)
{
    cleanup_json json_t *wanted = json_object();
    const char *id;
    json_t *record;
    json_object_foreach(emulator_table(e, "branches"), id, record)
        if (!project || js_is(record, "project_id", project))
            js_set_int(wanted, id, wanted_port(e, id));
    pthread_mutex_unlock(&e->lock);
    int port;
    json_object_foreach(wanted, id, record)
        if (compute_running(e, id, &port) && port != json_integer_value(record))
            compute_stop(e, id);
    json_object_foreach(wanted, id, record) {
        cleanup_err struct err err = {0};
        if (json_integer_value(record) && compute_start(e, id, (int)json_integer_value(record), &err) < 0)
            log_warn("%s", err_text(&err));
    }
    pthread_mutex_lock(&e->lock);
}

/* Removes the data of branches and snapshots that the state no longer has. Lock held; released while removing. */
static void sweep(struct emulator *e, const char *table)
{
    cleanup_free char *top = js_format("%s/%s", e->dir, table);
    DIR *dir = opendir(top);
    if (!dir)
        return;
    for (struct dirent *d; (d = readdir(dir));) {
        if (d->d_name[0] == '.')
            continue;
        cleanup_free char *id = js_strdup(d->d_name);
        char *part = strstr(id, ".part");
        if (part)
            *part = '\0';
        json_t *record = json_object_get(emulator_table(e, table), id);
        if (record)
            continue;
        cleanup_free char *path = js_format("%s/%s", top, d->d_name);
        pthread_mutex_unlock(&e->lock);
        if (!part && strcmp(table, "branches") == 0)
            compute_stop(e, id);
        int r = copy_remove(path);
        if (r < 0)
            log_warn("%s: can't be removed: %s", path, strerror(-r));
        cleanup_free char *log = js_format("%s/log/%s.log", e->dir, id);
        if (strcmp(table, "branches") == 0)
            copy_remove(log);
        pthread_mutex_lock(&e->lock);
    }
    closedir(dir);
}

static void sweep_all(struct emulator *e)
{
    sweep(e, "branches");
    sweep(e, "snapshots");
}

static void job_failed(struct run *run, json_t *job, size_t at, const char *status, const char *text)
{
    struct emulator *e = run->e;
    cleanup_free char *project = js_strdup(js_str(job, "project_id"));
    if (run->kind && run->kind->revert)
        run->kind->revert(e, run->args);
    align_computes(e, project); /* releases the lock: whoever sees that it failed may begin something else */
    fail_operations(e, job, at, status, text);
    remove_job(e, run->id);
    emulator_save(e);
}

/* One step of the job without the lock. */
static int without_lock(struct run *run, int (*step)(struct emulator *e, json_t *args, struct err *err), struct err *err)
{
    if (!step)
        return 0;
    pthread_mutex_unlock(&run->e->lock);
    int r = step(run->e, run->args, err);
    pthread_mutex_lock(&run->e->lock);
    return r;
}

/* Works one operation off. 0; 1 = the emulator ends, the job stays; < 0 = failed. */
static int run_operation(struct run *run, json_t *job, size_t i, size_t n, struct err *err)
{
    struct emulator *e = run->e;
    const char *fault = js_str(job, "fault");
    bool fails = fault && !str_equal(fault, "skipped");
    json_t *operation = find_operation(e, json_string_value(json_array_get(json_object_get(job, "operations"), i)));
    if (operation && !js_is(operation, "status", "running")) {
        set_status(operation, "running");
        emulator_save(e);
    }
    int r = 0;
    if (i == 0 && !fails && !js_bool(job, "worked")) {
        r = without_lock(run, run->kind->work, err);
        if (r == 0) {
            json_object_set_new(job, "args", json_deep_copy(run->args));
            js_set_bool(job, "worked", true);
        }
    }
    int least = js_bool(job, "quick") ? 0 : e->opt.operation_ms;
    for (int64_t end = clock_mono_ms() + least, left; r == 0 && !e->stopping && (left = end - clock_mono_ms()) > 0;)
        emulator_wait(e, left);
    if (r == 0 && i + 1 == n && !fails)
        r = without_lock(run, run->kind->flip, err);
    if (r < 0)
        return e->abandon ? 1 : r;
    if (i + 1 < n || !fails)
        set_status(operation, fault && !fails ? "skipped" : "finished");
    return 0;
}

static void work_off(struct run *run)
{
    struct emulator *e = run->e;
    json_t *job = find_job(e, run->id);
    size_t n = json_array_size(json_object_get(job, "operations"));
    const char *fault = js_str(job, "fault");
    for (size_t i = 0; i < n; i++) {
        cleanup_err struct err err = {0};
        int r = run_operation(run, job, i, n, &err);
        if (r > 0)
            return;
        if (r < 0) {
            log_warn("%s failed: %s", run->kind->name, err_text(&err));
            job_failed(run, job, i, "failed", err_text(&err));
            return;
        }
        if (i + 1 < n) {
            emulator_save(e);
            pthread_cond_broadcast(&e->changed);
        }
    }
    if (fault && !str_equal(fault, "skipped")) {
        job_failed(run, job, n - 1, fault, js_str(job, "fault_error"));
        return;
    }
    run->kind->commit(e, run->args);
    remove_job(e, run->id);
    emulator_save(e);
}

static void *job_thread(void *arg)
{
    struct run *run = arg;
    struct emulator *e = run->e;
    pthread_mutex_lock(&e->lock);
    work_off(run);
    if (!e->abandon)
        sweep_all(e);
    json_decref(run->args);
    free(run->id);
    free(run);
    e->jobs_running--;
    pthread_cond_broadcast(&e->changed);
    pthread_mutex_unlock(&e->lock);
    return NULL;
}

static void start_thread(struct emulator *e, const json_t *job)
{
    struct run *run = calloc(1, sizeof(*run));
    if (!run)
        abort();
    run->e = e;
    run->kind = job_kind(js_str(job, "kind"));
    run->id = js_strdup(js_str(job, "id"));
    run->args = json_deep_copy(json_object_get(job, "args"));
    e->jobs_running++;
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_t thread;
    if (!run->kind || pthread_create(&thread, &attr, job_thread, run) != 0) {
        log_error("no thread for an operation; ending");
        abort();
    }
    pthread_attr_destroy(&attr);
}

json_t *job_submit(struct emulator *e, json_t *job)
{
    json_t *out = json_array();
    size_t i;
    json_t *id;
    emulator_save(e);
    json_array_foreach(json_object_get(job, "operations"), i, id)
        json_array_append_new(out, js_public(find_operation(e, json_string_value(id))));
    start_thread(e, job);
    return out;
}

void jobs_resume(struct emulator *e)
{
    cleanup_json json_t *jobs = json_copy(emulator_table(e, "jobs"));
    size_t i;
    json_t *job;
    json_array_foreach(jobs, i, job) {
        const struct job_kind *kind = job_kind(js_str(job, "kind"));
        if (kind && (kind->restartable || js_bool(job, "worked")))
            continue;
        struct run run = {
            .e = e, .kind = kind, .id = js_strdup(js_str(job, "id")), .args = json_deep_copy(json_object_get(job, "args"))};
        job_failed(&run, job, 0, "failed", "the emulator ended during this operation");
        free(run.id);
        json_decref(run.args);
    }
    sweep_all(e);
    align_computes(e, NULL);
    json_array_foreach(emulator_table(e, "jobs"), i, job)
        start_thread(e, job);
}

void jobs_finish(struct emulator *e, int ms)
{
    e->stopping = true;
    pthread_cond_broadcast(&e->changed);
    for (int64_t end = clock_mono_ms() + ms; e->jobs_running > 0;) {
        if (clock_mono_ms() >= end)
            __atomic_store_n(&e->abandon, true, __ATOMIC_RELAXED);
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += 1;
        pthread_cond_timedwait(&e->changed, &e->lock, &until);
    }
}
