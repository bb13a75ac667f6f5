/* What happens behind branches and projects: making them, deleting them. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "emulator/compute.h"
#include "emulator/copy.h"
#include "emulator/js.h"
#include "emulator/model.h"
#include "jobs_i.h"
#include "util/cleanup.h"
#include "util/text.h"

static int copy_parent(struct emulator *e, json_t *args, struct err *err)
{
    cleanup_free char *to = compute_branch_dir(e, js_str(args, "branch"));
    cleanup_free char *lsn = NULL;
    int64_t bytes = 0;
    int r = compute_copy_branch(e, js_str(args, "parent"), to, &lsn, &bytes, err);
    if (r == 0)
        js_set_str(args, "lsn", lsn);
    return r;
}

static int start_endpoint(struct emulator *e, json_t *args, struct err *err)
{
    int port;
    cleanup_free char *branch = js_str(args, "endpoint") ? jobs_endpoint(e, js_str(args, "endpoint"), &port) : NULL;
    return branch ? compute_start(e, branch, port, err) : 0;
}

static void made(struct emulator *e, const json_t *args)
{
    json_t *branch = json_object_get(emulator_table(e, "branches"), js_str(args, "branch"));
    json_t *endpoint = js_str(args, "endpoint") ? json_object_get(emulator_table(e, "endpoints"), js_str(args, "endpoint"))
                                                : NULL;
    if (branch) {
        model_branch_ready(branch);
        if (js_str(args, "lsn"))
            js_set_str(branch, "parent_lsn", js_str(args, "lsn"));
    }
    if (endpoint)
        model_endpoint_state(endpoint, "active");
}

static void remove_branch(struct emulator *e, const json_t *args)
{
    const char *branch = js_str(args, "branch");
    for (json_t *endpoint; (endpoint = model_endpoint_of(e, branch));)
        json_object_del(emulator_table(e, "endpoints"), js_str(endpoint, "id"));
    json_object_del(emulator_table(e, "branches"), branch);
}

static int stop_branch(struct emulator *e, json_t *args, struct err *err)
{
    int r = compute_stop(e, js_str(args, "branch"));
    return r < 0 ? err_set(err, -r, "can't end the compute: %s", strerror(-r)) : 0;
}

static int init_project(struct emulator *e, json_t *args, struct err *err)
{
    return compute_init(e, js_str(args, "branch"), js_str(args, "role"), js_str(args, "password"), js_str(args, "database"), err);
}

static void remove_of_project(struct emulator *e, const char *table, const char *member, const char *project)
{
    const char *id;
    json_t *record;
    void *next;
    json_object_foreach_safe(emulator_table(e, table), next, id, record)
        if (js_is(record, member, project))
            json_object_del(emulator_table(e, table), id);
}

static void remove_project(struct emulator *e, const json_t *args)
{
    const char *project = js_str(args, "project");
    remove_of_project(e, "endpoints", "project_id", project);
    remove_of_project(e, "branches", "project_id", project);
    remove_of_project(e, "snapshots", "_project_id", project);
    json_object_del(emulator_table(e, "projects"), project);
    json_t *operations = emulator_table(e, "operations");
    for (size_t i = json_array_size(operations); i-- > 0;)
        if (js_is(json_array_get(operations, i), "project_id", project))
            json_array_remove(operations, i);
}

const struct job_kind jobs_branch_kinds[] = {
    {.name = "create_branch", .work = copy_parent, .flip = start_endpoint, .commit = made, .revert = remove_branch},
    {.name = "delete_branch", .restartable = true, .flip = stop_branch, .commit = remove_branch},
    {.name = "create_project",
     .restartable = true,
     .work = init_project,
     .flip = start_endpoint,
     .commit = made,
     .revert = remove_project},
    {.name = "delete_project", .restartable = true, .commit = remove_project},
    {0},
};
