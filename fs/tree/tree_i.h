/* What the files of fs/tree share. All of it is called with the index's read lock held. */
#ifndef TREE_I_H
#define TREE_I_H

#include "files.h"

/* Rows of a table by name or kind; NULL = none. */
const struct file_row *row_by_name(const struct file_row *rows, size_t n, const char *name);
const struct file_row *row_by_kind(const struct file_row *rows, size_t n, unsigned kind);

/* The attributes of each sort of node. */
void attr_link(struct node_attr *a, node_id id, const char *prefix, const char *name, int64_t mtime);
void attr_entry_dir(const struct index_entry *e, struct node_attr *a);
void attr_checkpoint_file(const struct index_entry *e, const struct file_row *row, struct node_attr *a);
void attr_pending_link(const struct index_entry *e, struct node_attr *a);
void attr_call(const struct store_checkpoint *c, const struct store_call *call, struct node_attr *a);
void attr_action(const struct store_action_entry *act, struct node_attr *a);
void attr_temp(const struct index_temp *t, struct node_attr *a);
/* -ENOENT when the row has nothing to show now. */
int attr_mount_row(struct index *x, const struct file_row *row, struct node_attr *a);

#endif
