/* The kinds of jobs, by the file that has them. */
#ifndef JOBS_I_H
#define JOBS_I_H

#include "emulator/ops.h"

/* Each ends with a row whose name is NULL. */
extern const struct job_kind jobs_snapshot_kinds[];
extern const struct job_kind jobs_branch_kinds[];
extern const struct job_kind jobs_endpoint_kinds[];
extern const struct job_kind jobs_content_kinds[];

/* The port of an endpoint, its branch as a new string (NULL when it has gone). Takes the lock. */
char *jobs_endpoint(struct emulator *e, const char *endpoint, int *ret_port);

#endif
