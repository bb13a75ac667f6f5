/* What happens behind endpoints: computes start, stop, come and go. And the table of all kinds of jobs. */
#include <stdlib.h>
#include <string.h>

#include "emulator/compute.h"
#include "emulator/js.h"
#include "emulator/model.h"
#include "jobs_i.h"
#include "util/cleanup.h"
#include "util/text.h"

char *jobs_endpoint(struct emulator *e, const char *endpoint, int *ret_port)
{
    pthread_mutex_lock(&e->lock);
    json_t *record = endpoint ? json_object_get(emulator_table(e, "endpoints"), endpoint) : NULL;
    char *branch = record ? js_strdup(js_str(record, "branch_id")) : NULL;
    *ret_port = (int)js_int(record, "_port");
    pthread_mutex_unlock(&e->lock);
    return branch;
}

static int start(struct emulator *e, json_t *args, struct err *err)
{
    int port;
    cleanup_free char *branch = jobs_endpoint(e, js_str(args, "endpoint"), &port);
    return branch ? compute_start(e, branch, port, err) : 0;
}

static int stop(struct emulator *e, json_t *args, struct err *err)
{
    int port;
    cleanup_free char *branch = jobs_endpoint(e, js_str(args, "endpoint"), &port);
    int r = branch ? compute_stop(e, branch) : 0;
    return r < 0 ? err_set(err, -r, "can't end the compute: %s", strerror(-r)) : 0;
}

static int restart(struct emulator *e, json_t *args, struct err *err)
{
    int r = stop(e, args, err);
    return r == 0 ? start(e, args, err) : r;
}

static void set_state(struct emulator *e, const json_t *args, const char *state)
{
    json_t *endpoint = json_object_get(emulator_table(e, "endpoints"), js_str(args, "endpoint"));
    if (endpoint)
        model_endpoint_state(endpoint, state);
}

static void started(struct emulator *e, const json_t *args)
{
    set_state(e, args, "active");
}

static void stopped(struct emulator *e, const json_t *args)
{
    set_state(e, args, "idle");
}

/* A transition that failed leaves the state before it. */
static void as_before(struct emulator *e, const json_t *args)
{
    json_t *endpoint = json_object_get(emulator_table(e, "endpoints"), js_str(args, "endpoint"));
    if (endpoint)
        js_set_str(endpoint, "pending_state", NULL);
}

static void removed(struct emulator *e, const json_t *args)
{
    json_object_del(emulator_table(e, "endpoints"), js_str(args, "endpoint"));
}

const struct job_kind jobs_endpoint_kinds[] = {
    {.name = "create_endpoint", .restartable = true, .flip = start, .commit = started, .revert = removed},
    {.name = "start_endpoint", .restartable = true, .flip = start, .commit = started, .revert = as_before},
    {.name = "suspend_endpoint", .restartable = true, .flip = stop, .commit = stopped, .revert = as_before},
    {.name = "restart_endpoint", .restartable = true, .flip = restart, .commit = started, .revert = as_before},
    {.name = "delete_endpoint", .restartable = true, .flip = stop, .commit = removed, .revert = as_before},
    {0},
};

const struct job_kind *job_kind(const char *name)
{
    const struct job_kind *const tables[] = {jobs_snapshot_kinds, jobs_branch_kinds, jobs_endpoint_kinds, jobs_content_kinds};
    for (size_t t = 0; t < sizeof(tables) / sizeof(tables[0]); t++)
        for (const struct job_kind *k = tables[t]; k->name; k++)
            if (str_equal(k->name, name))
                return k;
    return NULL;
}
