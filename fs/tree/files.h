/* The tables of the tree's files; see files.c. */
#ifndef FILES_H
#define FILES_H

#include "tree/tree.h"

struct file_row {
    const char *name;
    unsigned kind;
    mode_t mode;
    enum node_source source;
    enum store_file file;  /* SOURCE_FILE and the like: whose size it is */
    bool (*listed)(const struct index_entry *e, const struct file_row *row); /* NULL = always */
    bool hidden;           /* answered by name, never listed: no backup ever holds it (design.md §1) */
    bool immutable;        /* once its checkpoint is sealed */
};

extern const struct file_row checkpoint_files[];
extern const size_t n_checkpoint_files;
extern const struct file_row root_files[];
extern const size_t n_root_files;
extern const struct file_row control_files[];
extern const size_t n_control_files;

#endif
