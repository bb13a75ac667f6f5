/* The tables of the tree's files; see files.c. */
#ifndef FILES_H
#define FILES_H

#include "tree/tree.h"

struct file_row {
    const char *name;
    unsigned kind;
    mode_t mode;           /* before the mount's umask */
    enum role who;         /* who may write it, where it can be written at all: operators, if nothing is said */
    enum node_source source;
    enum store_file file;  /* SOURCE_FILE and the like: whose size it is */
    bool (*listed)(const struct index_entry *e, const struct file_row *row); /* NULL = always */
    bool hidden;           /* answered by name, never listed: no backup ever holds it (design.md §1) */
    bool immutable;        /* once its checkpoint is sealed */
    enum { OWN_WORD, LIKE_BACKUP, OF_BACKUP } copied; /* what a wish to make or write one means: nothing; a copy, or that somebody thinks
                              * it can be written; a copy: no slip of the finger and no agent's own file is called so */
};

extern const struct file_row checkpoint_files[];
extern const size_t n_checkpoint_files;
extern const struct file_row branch_files[];
extern const size_t n_branch_files;
extern const struct file_row root_files[];
extern const size_t n_root_files;
extern const struct file_row control_files[];
extern const size_t n_control_files;
extern const struct file_row run_files[];
extern const size_t n_run_files;

#endif
