/* Snapshots: create, list, change, delete, restore, finalize. reference/neon-api.md §2. */
#include <stdlib.h>
#include <string.h>

#include "api_i.h"
#include "emulator/ids.h"
#include "emulator/js.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/text.h"

#define NAME_MAX_CHARS 256

static bool good_slug(const char *slug)
{
    size_t n = strlen(slug);
    return n >= 1 && n <= 63 && slug[0] >= 'a' && slug[0] <= 'z' && slug[n - 1] != '-' &&
           strspn(slug, "abcdefghijklmnopqrstuvwxyz0123456789-") == n;
}

static bool slug_taken(struct emulator *e, const char *project, const char *slug)
{
    const char *id;
    json_t *snapshot;
    json_object_foreach(emulator_table(e, "snapshots"), id, snapshot)
        if (js_is(snapshot, "_project_id", project) && js_is(snapshot, "slug", slug))
            return true;
    return false;
}

/* `0/3000000`: two hexadecimal numbers. */
static bool good_lsn(const char *lsn)
{
    static const char digits[] = "0123456789abcdefABCDEF";
    size_t a = strspn(lsn, digits), b = lsn[a] == '/' ? strspn(lsn + a + 1, digits) : 0;
    return a >= 1 && a <= 8 && b >= 1 && b <= 8 && lsn[a + 1 + b] == '\0';
}

/* Only the head of a branch can be had here: every other point in time is one that isn't available. 0, or the status. */
static int refuse_point_in_time(struct request *rq)
{
    const char *lsn = js_str(rq->query, "lsn"), *timestamp = js_str(rq->query, "timestamp");
    int64_t at;
    if (lsn && timestamp)
        return answer_error(rq, 400, "", "lsn and timestamp exclude each other");
    if (lsn && !good_lsn(lsn))
        return answer_error(rq, 400, "", "lsn: must be of the form 0/3000000");
    if (timestamp && clock_parse(timestamp, &at) < 0)
        return answer_error(rq, 400, "", "timestamp: must be a time as RFC 3339 writes it");
    if (lsn || timestamp)
        return answer_error(rq, 422, "", "%s: lies outside of the project's history window", lsn ? "lsn" : "timestamp");
    return 0;
}

static char *default_name(struct emulator *e, const json_t *branch)
{
    cleanup_free char *now = emulator_now();
    cleanup_free char *name = js_format("%s at %s (manual)", js_str(branch, "name"), now);
    return model_free_snapshot_name(e, js_str(branch, "project_id"), name);
}

/* The hidden branch behind a snapshot, which operations name and no list has. */
static void snapshot_operation(struct emulator *e, json_t *job, json_t *snapshot, const char *action)
{
    if (!js_str(snapshot, "_hidden_branch_id")) {
        cleanup_free char *id = ids_new("br");
        js_set_str(snapshot, "_hidden_branch_id", id);
    }
    job_operation(e, job, action, js_str(snapshot, "_hidden_branch_id"), NULL);
}

HANDLER(api_snapshot_create)
{
    struct emulator *e = rq->e;
    const char *project = rq->params[0], *name = NULL, *slug = NULL;
    cleanup_free char *expires = NULL;
    json_t *branch = need_branch(rq, 1);
    if (!branch)
        return 404;
    if (!field_string(rq, rq->query, "", "name", 1, NAME_MAX_CHARS, &name) ||
        !field_string(rq, rq->query, "", "slug", 1, 63, &slug) || !field_future(rq, rq->query, "", "expires_at", &expires, NULL))
        return 400;
    if (slug && !good_slug(slug))
        return answer_error(rq, 400, "", "slug: must match ^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$");
    int refused = refuse_point_in_time(rq);
    if (refused)
        return refused;
    if (js_get(branch, "parent_id"))
        return answer_error(rq, 422, "", "snapshots can be created only from root branches");
    if (!need_ready(rq, branch))
        return 422;
    if (name && !e->opt.lenient_names && model_snapshot_name_taken(e, project, name, NULL))
        return answer_error(rq, 409, "", "snapshot already exists");
    if (slug && slug_taken(e, project, slug))
        return answer_error(rq, 409, "", "snapshot slug already exists");
    if (model_count_snapshots(e, project) >= e->opt.snapshots)
        return answer_error(rq, 422, "", "snapshots limit exceeded");

    cleanup_free char *generated = name ? NULL : default_name(e, branch);
    json_t *snapshot = model_add_snapshot(e, branch, name ? name : generated);
    js_set_str(snapshot, "expires_at", expires);
    if (slug)
        js_set_str(snapshot, "slug", slug);
    make_late(rq, snapshot);
    json_t *job = job_new(e, rq, "create_snapshot", project,
                          json_pack("{s:s, s:s}", "snapshot", js_str(snapshot, "id"), "branch", js_str(branch, "id")));
    snapshot_operation(e, job, snapshot, "create_branch");
    snapshot_operation(e, job, snapshot, "timeline_archive");
    return answer_with_operations(rq, 200, "snapshot", model_show_snapshot(snapshot), job);
}

HANDLER(api_snapshots)
{
    json_t *list = json_array();
    const char *id;
    json_t *snapshot;
    /* The table is in order of creation; the newest comes first. */
    json_object_foreach(emulator_table(rq->e, "snapshots"), id, snapshot)
        if (js_is(snapshot, "_project_id", rq->params[0]) && model_visible(snapshot))
            json_array_insert_new(list, 0, model_show_snapshot(snapshot));
    return answer(rq, 200, json_pack("{s:o}", "snapshots", list));
}

HANDLER(api_snapshot_update)
{
    json_t *snapshot = need_snapshot(rq, 1), *fields;
    const char *name = NULL;
    cleanup_free char *expires = NULL;
    bool never = false;
    if (!snapshot)
        return 404;
    if (!field_object(rq, rq->body, "snapshot", &fields) ||
        !field_string(rq, fields, "snapshot", "name", 1, NAME_MAX_CHARS, &name) ||
        !field_future(rq, fields, "snapshot", "expires_at", &expires, &never))
        return 400;
    if (name && !rq->e->opt.lenient_names && model_snapshot_name_taken(rq->e, rq->params[0], name, snapshot))
        return answer_error(rq, 409, "", "snapshot already exists");
    if (name)
        js_set_str(snapshot, "name", name);
    if (expires || never)
        js_set_str(snapshot, "expires_at", expires);
    emulator_save(rq->e);
    return answer(rq, 200, json_pack("{s:o}", "snapshot", model_show_snapshot(snapshot)));
}

HANDLER(api_snapshot_delete)
{
    json_t *snapshot = need_snapshot(rq, 1);
    if (!snapshot)
        return 404;
    json_t *job = job_new(rq->e, rq, "delete_snapshot", rq->params[0], json_pack("{s:s}", "snapshot", js_str(snapshot, "id")));
    snapshot_operation(rq->e, job, snapshot, "delete_timeline");
    return answer_with_operations(rq, 202, NULL, NULL, job);
}

/* The branch that a restore is to replace. NULL after the answer was set. */
static json_t *restore_target(struct request *rq, const json_t *snapshot, const char *target)
{
    json_t *branch = model_branch(rq->e, rq->params[0], target ? target : js_str(snapshot, "source_branch_id"));
    if (branch)
        return need_ready(rq, branch) ? branch : NULL;
    if (target)
        answer_error(rq, 404, "", "branch not found");
    else
        answer_error(rq, 422, "", "target_branch_id: is required, since the snapshot's source branch no longer exists");
    return NULL;
}

static json_t *add_restored(struct request *rq, const json_t *snapshot, const json_t *target, const char *name)
{
    struct emulator *e = rq->e;
    cleanup_free char *now = emulator_now();
    cleanup_free char *wanted = js_format("%s (restored %s)", js_str(snapshot, "name"), now);
    cleanup_free char *generated = name ? NULL : model_free_branch_name(e, rq->params[0], wanted);
    json_t *branch = model_add_branch(e, rq->params[0], name ? name : generated);
    js_set_str(branch, "parent_lsn", js_str(snapshot, "lsn"));
    js_set_str(branch, "restore_status", "restored");
    js_set_str(branch, "restored_from", js_str(snapshot, "id"));
    js_set_str(branch, "restored_as", js_str(target, "id"));
    model_copy_content(snapshot, branch);
    make_late(rq, branch);
    return branch;
}

static json_t *restore_job(struct request *rq, json_t *snapshot, const json_t *branch, const json_t *target,
                           const json_t *endpoint)
{
    struct emulator *e = rq->e;
    json_t *args = json_pack("{s:s, s:s, s:s}", "snapshot", js_str(snapshot, "id"), "branch", js_str(branch, "id"), "target",
                             js_str(target, "id"));
    if (endpoint)
        js_set_str(args, "endpoint", js_str(endpoint, "id"));
    json_t *job = job_new(e, rq, endpoint ? "restore" : "restore_finalized", rq->params[0], args);
    snapshot_operation(e, job, snapshot, "timeline_unarchive");
    job_operation(e, job, "create_branch", js_str(branch, "id"), NULL);
    if (endpoint)
        job_operation(e, job, "start_compute", js_str(branch, "id"), js_str(endpoint, "id"));
    else
        job_operation(e, job, "suspend_compute", js_str(target, "id"), js_str(model_endpoint_of(e, js_str(target, "id")), "id"));
    return job;
}

HANDLER(api_snapshot_restore)
{
    struct emulator *e = rq->e;
    const char *name = NULL, *target_id = NULL;
    bool finalize = false;
    json_t *snapshot = need_snapshot(rq, 1);
    if (!snapshot)
        return 404;
    if (!field_string(rq, rq->query, "", "name", 1, NAME_MAX_CHARS, &name) ||
        !field_string(rq, rq->body, "", "name", 1, NAME_MAX_CHARS, &name) ||
        !field_string(rq, rq->body, "", "target_branch_id", 1, 60, &target_id) ||
        !field_bool(rq, rq->body, "", "finalize_restore", &finalize))
        return 400;
    json_t *target = restore_target(rq, snapshot, target_id);
    if (!target)
        return js_is(rq->answer, "message", "branch not found") ? 404 : 422;
    if (name && !e->opt.lenient_names && model_branch_name_taken(e, rq->params[0], name, NULL))
        return answer_error(rq, 409, "", "branch already exists");
    if (!room_for_branch(rq, true))
        return 422;

    json_t *branch = add_restored(rq, snapshot, target, name), *endpoint = NULL;
    cleanup_err struct err err = {0};
    if (!finalize && model_add_endpoint(e, rq->params[0], js_str(branch, "id"), &endpoint, &err) < 0) {
        json_object_del(emulator_table(e, "branches"), js_str(branch, "id"));
        return answer_error(rq, 503, "", "%s", err_text(&err));
    }
    json_t *job = restore_job(rq, snapshot, branch, target, endpoint);
    int status = answer_with_operations(rq, 200, "branch", model_show(branch), job);
    if (endpoint)
        json_object_set_new(rq->answer, "endpoints", json_pack("[o]", model_show(endpoint)));
    return status;
}

HANDLER(api_branch_finalize)
{
    struct emulator *e = rq->e;
    const char *name = NULL;
    json_t *branch = need_branch(rq, 1);
    if (!branch)
        return 404;
    if (!field_string(rq, rq->body, "", "name", 1, NAME_MAX_CHARS, &name))
        return 400;
    if (!js_str(branch, "restored_from"))
        return answer_error(rq, 422, "", "branch was not created by restoring a snapshot");
    if (!js_is(branch, "restore_status", "restored"))
        return answer_error(rq, 422, "", "the restore of this branch is finalized already");
    if (!need_ready(rq, branch))
        return 422;
    json_t *target = model_branch(e, rq->params[0], js_str(branch, "restored_as"));
    if (!target)
        return answer_error(rq, 422, "", "the branch to be replaced no longer exists");
    if (name && !e->opt.lenient_names && model_branch_name_taken(e, rq->params[0], name, NULL))
        return answer_error(rq, 409, "", "branch already exists");
    json_t *args = json_pack("{s:s, s:s}", "branch", js_str(branch, "id"), "target", js_str(target, "id"));
    js_set_str(args, "name", name);
    json_t *job = job_new(e, rq, "finalize", rq->params[0], args);
    const char *endpoint = js_str(model_endpoint_of(e, js_str(target, "id")), "id");
    job_operation(e, job, "suspend_compute", js_str(target, "id"), endpoint);
    job_operation(e, job, "start_compute", js_str(branch, "id"), endpoint);
    return answer_with_operations(rq, 200, NULL, NULL, job);
}
