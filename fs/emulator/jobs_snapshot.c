/* What happens behind snapshots: taking, deleting, restoring, finalizing. reference/neon-api.md §2.3 to §2.8. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "emulator/compute.h"
#include "emulator/copy.h"
#include "emulator/js.h"
#include "emulator/model.h"
#include "jobs_i.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/text.h"

/* How long after a snapshot is finished its size is known. */
#define SIZE_LATER_MS 2000

static int take(struct emulator *e, json_t *args, struct err *err)
{
    cleanup_free char *to = compute_snapshot_dir(e, js_str(args, "snapshot"));
    cleanup_free char *lsn = NULL;
    int64_t bytes = 0;
    int r = compute_copy_branch(e, js_str(args, "branch"), to, &lsn, &bytes, err);
    if (r < 0)
        return r;
    js_set_str(args, "lsn", lsn);
    js_set_int(args, "bytes", bytes);
    return 0;
}

static void taken(struct emulator *e, const json_t *args)
{
    json_t *snapshot = json_object_get(emulator_table(e, "snapshots"), js_str(args, "snapshot"));
    json_t *branch = json_object_get(emulator_table(e, "branches"), js_str(args, "branch"));
    if (branch)
        js_set_int(branch, "logical_size", js_int(args, "bytes")); /* an optional field: it is told once it was measured */
    if (!snapshot)
        return;
    js_set_str(snapshot, "lsn", js_str(args, "lsn"));
    js_set_int(snapshot, "_full_size", js_int(args, "bytes"));
    js_set_int(snapshot, "_full_size_at", clock_now() / 1000000 + SIZE_LATER_MS);
}

static void remove_snapshot(struct emulator *e, const json_t *args)
{
    json_object_del(emulator_table(e, "snapshots"), js_str(args, "snapshot"));
}

static int restore(struct emulator *e, json_t *args, struct err *err)
{
    return compute_copy_snapshot(e, js_str(args, "snapshot"), js_str(args, "branch"), err);
}

static int start_preview(struct emulator *e, json_t *args, struct err *err)
{
    int port;
    cleanup_free char *branch = jobs_endpoint(e, js_str(args, "endpoint"), &port);
    return branch ? compute_start(e, branch, port, err) : 0;
}

static void restored(struct emulator *e, const json_t *args)
{
    json_t *branch = json_object_get(emulator_table(e, "branches"), js_str(args, "branch"));
    json_t *endpoint = json_object_get(emulator_table(e, "endpoints"), js_str(args, "endpoint"));
    const json_t *snapshot = json_object_get(emulator_table(e, "snapshots"), js_str(args, "snapshot"));
    if (branch) {
        model_branch_ready(branch);
        js_set_str(branch, "restore_status", "restored");
        if (snapshot)
            js_set_int(branch, "logical_size", js_int(snapshot, "_full_size"));
    }
    if (endpoint)
        model_endpoint_state(endpoint, "active");
}

static void remove_restored(struct emulator *e, const json_t *args)
{
    if (js_str(args, "endpoint"))
        json_object_del(emulator_table(e, "endpoints"), js_str(args, "endpoint"));
    json_object_del(emulator_table(e, "branches"), js_str(args, "branch"));
}

/* The target's compute, as it is to go on with the restored branch: its port, and whether it runs. */
static bool target_compute(struct emulator *e, const char *target, int *ret_port, bool *ret_active)
{
    pthread_mutex_lock(&e->lock);
    json_t *endpoint = model_endpoint_of(e, target);
    if (endpoint) {
        *ret_port = (int)js_int(endpoint, "_port");
        *ret_active = js_bool(endpoint, "_active");
    }
    pthread_mutex_unlock(&e->lock);
    return endpoint != NULL;
}

/* The moment at which the data changes under the connection string: one server ends, the other begins on its port. */
static int swap(struct emulator *e, json_t *args, struct err *err)
{
    const char *branch = js_str(args, "branch"), *target = js_str(args, "target");
    int port = 0;
    bool active = false;
    if (!target_compute(e, target, &port, &active))
        return 0;
    int r = compute_stop(e, branch);
    if (r == 0)
        r = compute_stop(e, target);
    if (r < 0)
        return err_set(err, -r, "can't end a compute: %s", strerror(-r));
    return active ? compute_start(e, branch, port, err) : 0;
}

/* The endpoint of the target goes to the restored branch, and the one that branch had meanwhile goes away. */
static void move_endpoint(struct emulator *e, const json_t *branch, const json_t *target)
{
    json_t *kept = model_endpoint_of(e, js_str(target, "id"));
    json_t *own = model_endpoint_of(e, js_str(branch, "id"));
    if (!kept)
        return;
    if (own)
        json_object_del(emulator_table(e, "endpoints"), js_str(own, "id"));
    js_set_str(kept, "branch_id", js_str(branch, "id"));
    model_endpoint_state(kept, js_bool(kept, "_active") ? "active" : "idle");
}

static void move_flag(json_t *from, json_t *to, const char *flag)
{
    js_set_bool(to, flag, js_bool(from, flag));
    js_set_bool(from, flag, false);
}

static void rename_both(struct emulator *e, json_t *branch, json_t *target, const char *wanted)
{
    const char *project = js_str(branch, "project_id");
    cleanup_free char *name = js_strdup(js_str(target, "name"));
    cleanup_free char *old = wanted ? js_strdup(wanted) : js_format("%s (old)", name);
    cleanup_free char *unique = model_free_branch_name(e, project, old);
    js_set_str(target, "name", unique);
    js_set_str(branch, "name", name);
}

static void swapped(struct emulator *e, const json_t *args)
{
    json_t *branch = json_object_get(emulator_table(e, "branches"), js_str(args, "branch"));
    json_t *target = json_object_get(emulator_table(e, "branches"), js_str(args, "target"));
    if (!branch || !target)
        return;
    move_endpoint(e, branch, target);
    rename_both(e, branch, target, js_str(args, "name"));
    move_flag(target, branch, "default");
    move_flag(target, branch, "primary");
    move_flag(target, branch, "protected");
    json_object_set(branch, "_schedule", json_object_get(target, "_schedule"));
    json_object_set_new(target, "_schedule", json_array());
    js_set_str(branch, "expires_at", js_str(target, "expires_at"));
    js_set_str(target, "expires_at", NULL);
    js_set_str(branch, "restore_status", "finalized");
    model_branch_ready(branch);
    model_touch(target);
}

const struct job_kind jobs_snapshot_kinds[] = {
    {.name = "create_snapshot", .work = take, .commit = taken, .revert = remove_snapshot},
    {.name = "delete_snapshot", .restartable = true, .commit = remove_snapshot},
    {.name = "restore",
     .restartable = true,
     .work = restore,
     .flip = start_preview,
     .commit = restored,
     .revert = remove_restored},
    {.name = "restore_finalized",
     .restartable = true,
     .work = restore,
     .flip = swap,
     .commit = swapped,
     .revert = remove_restored},
    {.name = "finalize", .restartable = true, .flip = swap, .commit = swapped},
    {0},
};
