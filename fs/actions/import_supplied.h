/* What meta.json supplied at the seal, and the meta.json of the copy doesn't say any more: it is replaced whole by whoever pins or labels
 * a checkpoint. checkpoint.json and pending/ of the copy still have the calls that wait, and the trace. */
#ifndef IMPORT_SUPPLIED_H
#define IMPORT_SUPPLIED_H

#include "formats/state.h"
#include "import_files.h"

/* Completes `m`. The calls are those of the seal, whatever `m` has; a fork's are those that its meta.json has, if it has that key.
 * *ret_calls: `m` has the seal's calls now. 0; -EINVAL naming a file that is broken, -ENODATA one that is missing, -ENOMEM. */
int supplied_complete(const struct claim *c, const struct import_source *src, bool fork, struct meta *m, bool *ret_calls, struct err *e);

/* Then, once the state was read with them: 0, or -EINVAL naming the call that isn't the one which checkpoint.json names. */
int supplied_check(const struct claim *c, const struct state_info *info, struct err *e);

#endif
