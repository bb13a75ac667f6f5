/* The one line of a checkpoint's `status` (design.md §1). Pure. */
#ifndef TREE_STATUS_H
#define TREE_STATUS_H

#include "store/store.h"
#include "util/buf.h"

/* Appends the status with its newline. `writing`: a part of its state has been written. */
void status_render(const struct store_checkpoint *c, bool writing, struct buf *b);

#endif
