/* Making projects: through the API, and the first one at the first start. */
#ifndef EMULATOR_PROJECTS_H
#define EMULATOR_PROJECTS_H

#include <jansson.h>

#include "emulator/http.h"

struct project_wish {
    const char *name;     /* NULL = generated */
    const char *branch;   /* NULL = main */
    const char *role;     /* NULL = neondb_owner */
    const char *database; /* NULL = neondb */
    bool store_passwords;
};

/* Adds the project with its default branch, role, database and endpoint, and a job that makes them. The job isn't submitted.
 * Lock held; records are borrowed from the state. */
int project_add(struct emulator *e, const struct request *rq, const struct project_wish *wish, json_t **ret_project,
                json_t **ret_job, struct err *err);

#endif
