/* What a rename out of .import/ registers, now or by the importer's thread. */
#ifndef IMPORT_H
#define IMPORT_H

#include "staging.h"

/* One copy on its way to be a checkpoint. */
struct import {
    atomic_int refs;
    struct mount *m;
    node_id dir;             /* where it is */
    char *name, *to;         /* there, and at the root */
    char *command;           /* as the journal has it */
    struct who who;
    struct staged_attr what; /* frozen as long as it is registered */

    /* importer.c, under its lock */
    struct import *next;
    unsigned waiting; /* requests */
    bool done;
    int code;         /* positive errno */
    struct err e;
};
struct import *import_ref(struct import *i);
void import_unref(struct import *i);

/* import.c: registers what is frozen, and thaws it. -errno with `e` as engine_import; blocks for as long as that takes. */
int import_run(struct import *i, struct err *e);
/* It wasn't registered: journalled. */
void import_refused(const struct import *i, const struct err *e);

/* importer.c: large copies. One thread registers them one after another, since each is held in memory. Thread-safe. */
struct importer;
struct importer *importer_new(void);
/* Ends the thread, with all that waits for its turn; call it when the engine has stopped. */
void importer_free(struct importer *p);
/* Freezes it and has it registered, or joins the request that did so before. Waits up to 2 s: -EINPROGRESS when it goes on after that.
 * -EBUSY when it can't be frozen, or becomes something else. */
int importer_run(struct importer *p, struct import *i, struct err *e);

#endif
