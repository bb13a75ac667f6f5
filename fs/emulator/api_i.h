/* The handlers, by the file that has them, and what they share. All are called with the lock held. */
#ifndef API_I_H
#define API_I_H

#include "emulator/http.h"
#include "emulator/model.h"
#include "emulator/ops.h"

/* Fields of a JSON body or of the query. Each returns false after it has set a 400 answer that names the field; a member that
 * is missing leaves the output as it was. `where` is how the object is called in messages, "" for the top. */
bool field_string(struct request *rq, const json_t *object, const char *where, const char *key, size_t min, size_t max,
                  const char **ret_value);
bool field_bool(struct request *rq, const json_t *object, const char *where, const char *key, bool *ret_value);
bool field_int(struct request *rq, const json_t *object, const char *where, const char *key, int64_t low, int64_t high,
               int64_t *ret_value);
/* An object member that must be there. */
bool field_object(struct request *rq, const json_t *object, const char *key, json_t **ret_value);
/* A time in the future, normalised to whole seconds in `*ret_text` (new string); null gives *ret_null. */
bool field_future(struct request *rq, const json_t *object, const char *where, const char *key, char **ret_text, bool *ret_null);
bool query_int(struct request *rq, const char *key, int64_t low, int64_t high, int64_t *ret_value);
bool query_bool(struct request *rq, const char *key, bool *ret_value);

/* The record that a path variable names; NULL after a 404 answer was set. */
json_t *need_branch(struct request *rq, int param);
json_t *need_snapshot(struct request *rq, int param);
json_t *need_endpoint(struct request *rq, int param);

/* A branch that isn't ready yet gets its 422. */
bool need_ready(struct request *rq, const json_t *branch);

/* The limits. False after the 422 was set. */
bool room_for_branch(struct request *rq, bool root);

/* Applies the fault `late` to what the request has made. */
void make_late(struct request *rq, json_t *record);

/* An answer of a record and the operations of a job, or of no operations. */
int answer_with_operations(struct request *rq, int status, const char *name, json_t *record, json_t *job);

#define HANDLER(name) int name(struct request *rq)

HANDLER(api_auth);
HANDLER(api_me);
HANDLER(api_my_organizations);
HANDLER(api_organization);
HANDLER(api_projects);
HANDLER(api_project_create);
HANDLER(api_project);
HANDLER(api_project_update);
HANDLER(api_project_delete);
HANDLER(api_project_limits);
HANDLER(api_connection_uri);

HANDLER(api_branches);
HANDLER(api_branch_create);
HANDLER(api_branches_count);
HANDLER(api_branch);
HANDLER(api_branch_update);
HANDLER(api_branch_delete);
HANDLER(api_branch_default);
HANDLER(api_branch_restore);
HANDLER(api_branch_finalize);
HANDLER(api_schedule);
HANDLER(api_schedule_set);

HANDLER(api_snapshot_create);
HANDLER(api_snapshots);
HANDLER(api_snapshot_update);
HANDLER(api_snapshot_delete);
HANDLER(api_snapshot_restore);

HANDLER(api_endpoints);
HANDLER(api_branch_endpoints);
HANDLER(api_endpoint);
HANDLER(api_endpoint_create);
HANDLER(api_endpoint_update);
HANDLER(api_endpoint_delete);
HANDLER(api_endpoint_start);
HANDLER(api_endpoint_suspend);
HANDLER(api_endpoint_restart);

HANDLER(api_roles);
HANDLER(api_role);
HANDLER(api_role_create);
HANDLER(api_role_delete);
HANDLER(api_role_reveal);
HANDLER(api_role_reset);
HANDLER(api_databases);
HANDLER(api_database);
HANDLER(api_database_create);
HANDLER(api_database_update);
HANDLER(api_database_delete);

HANDLER(api_operations);
HANDLER(api_operation);

HANDLER(control_faults);
HANDLER(control_faults_add);
HANDLER(control_faults_clear);
HANDLER(control_console);

#endif
