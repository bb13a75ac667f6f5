/* The one line of a checkpoint's `status` (design.md §1). Pure. */
#ifndef TREE_STATUS_H
#define TREE_STATUS_H

#include "store/store.h"
#include "util/buf.h"

/* Appends the status with its newline. `writing`: a part of its state has been written. `lost`: since when nothing is heard of the store,
 * so that it may no longer be true; 0 = it is. */
void status_render(const struct store_checkpoint *c, bool writing, int64_t lost, struct buf *b);

/* The same of an isolated branch of `c`. */
void status_render_branch(const struct store_checkpoint *c, const struct store_branch *i, int64_t lost, struct buf *b);

#endif
