/* Roles and databases that SQL has made or dropped, brought into the state, as Neon's sync_dbs_and_roles_from_compute does. */
#ifndef EMULATOR_CONTENT_H
#define EMULATOR_CONTENT_H

#include "emulator/emulator.h"

/* Looks into the running compute of a branch (NULL = the project's default branch). Takes the lock itself. Does nothing where
 * there is no such branch, no running compute, or a change under way. */
void content_sync(struct emulator *e, const char *project, const char *branch);

#endif
