/* Projects, branches, endpoints, snapshots as records of the state. Everything here expects the lock to be held; records are
 * borrowed from the state unless a comment says that they are new. */
#ifndef EMULATOR_MODEL_H
#define EMULATOR_MODEL_H

#include <jansson.h>

#include "emulator/emulator.h"

/* By id; NULL when there is none, when it belongs to another project, or when it isn't visible yet. */
json_t *model_project(struct emulator *e, const char *id);
json_t *model_branch(struct emulator *e, const char *project, const char *id);
json_t *model_snapshot(struct emulator *e, const char *project, const char *id);
json_t *model_endpoint(struct emulator *e, const char *project, const char *id);

/* The read-write endpoint of a branch; NULL when it has none. */
json_t *model_endpoint_of(struct emulator *e, const char *branch);
json_t *model_default_branch(struct emulator *e, const char *project);
bool model_has_children(struct emulator *e, const char *branch);

/* Whether the record can be seen: faults may make it appear late. */
bool model_visible(const json_t *record);

/* Names. */
bool model_branch_name_taken(struct emulator *e, const char *project, const char *name, const json_t *except);
bool model_snapshot_name_taken(struct emulator *e, const char *project, const char *name, const json_t *except);
/* `wanted`, or that with a number added where it is taken; new string. */
char *model_free_branch_name(struct emulator *e, const char *project, const char *wanted);
char *model_free_snapshot_name(struct emulator *e, const char *project, const char *wanted);

/* How many there are, for the limits. */
int model_count_branches(struct emulator *e, const char *project, bool roots_only);
int model_count_snapshots(struct emulator *e, const char *project);

/* Add a record to the state and return it. `name` and `parent` as the comment of the caller says. */
json_t *model_add_branch(struct emulator *e, const char *project, const char *name);
json_t *model_add_snapshot(struct emulator *e, const json_t *branch, const char *name);
int model_add_endpoint(struct emulator *e, const char *project, const char *branch, json_t **ret_endpoint, struct err *err);
json_t *model_add_role(json_t *branch, const char *name, const char *password);
json_t *model_add_database(struct emulator *e, json_t *branch, const char *name, const char *owner);

/* Records kept inside a branch. */
json_t *model_role(const json_t *branch, const char *name);
json_t *model_database(const json_t *branch, const char *name);

/* Copies roles, databases from a branch or a snapshot to a branch or a snapshot. */
void model_copy_content(const json_t *from, json_t *to);

/* State changes that several routes share. */
void model_touch(json_t *record);
void model_branch_ready(json_t *branch);
void model_endpoint_state(json_t *endpoint, const char *state);

/* Ports that endpoints hold, running or not; new array of *ret_n. */
int *model_ports(struct emulator *e, size_t *ret_n);

/* As the API shows them; new. */
json_t *model_show(const json_t *record);
json_t *model_show_snapshot(const json_t *snapshot);

/* The connection string of a role; new string. It holds the password. */
char *model_uri(const json_t *endpoint, const json_t *role, const char *database);

#endif
