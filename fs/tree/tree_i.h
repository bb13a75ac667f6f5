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
void attr_checkpoint_file(const struct index *x, const struct index_entry *e, const struct file_row *row, struct node_attr *a);
void attr_view_link(const struct index_entry *e, unsigned kind, struct node_attr *a);
/* What a view's link has before the checkpoint's name; NULL = that kind is no link. */
const char *view_link_prefix(unsigned kind);
void attr_group_dir(const struct index_group *g, enum node_class class, struct node_attr *a);
void attr_run_file(struct index_group *g, const struct file_row *row, struct node_attr *a);
/* The run or trace of a CLASS_RUN or CLASS_TRACE node; NULL = it has no checkpoint any more. */
struct index_group *group_of_node(const struct index *x, node_id node);
int attr_of_group(const struct index *x, node_id node, struct node_attr *ret);
/* Appends a run's timeline.svg or .txt. 0, -ENOMEM. */
int run_picture(const struct index_group *g, unsigned kind, struct buf *b);
/* Whether that file of an isolated branch is there. */
bool branch_has(struct index *x, const struct store_branch *i, const struct file_row *row);
void attr_branch_dir(const struct store_branch *i, struct node_attr *a);
void attr_branch_file(struct index *x, const struct index_entry *e, const struct store_branch *i, const struct file_row *row,
                      struct node_attr *a);
/* branches/X/checkpoints/NAME */
void attr_branch_link(const struct index_entry *e, struct node_attr *a);
#define BRANCH_LINK_PREFIX "../../../../"
/* Appends what a file of an isolated branch holds: branch.json, status, connection_uri. */
int branch_text(struct index *x, const struct index_entry *e, const struct store_branch *i, unsigned kind, struct buf *b);
void attr_call(const struct store_checkpoint *c, const struct store_call *call, struct node_attr *a);
void attr_action(const struct store_action_entry *act, struct node_attr *a);
void attr_replaced(const struct index_replaced *b, struct node_attr *a);
void attr_temp(const struct index_temp *t, struct node_attr *a);
/* -ENOENT when the row has nothing to show now. */
int attr_mount_row(struct index *x, const struct file_row *row, struct node_attr *a);

#endif
