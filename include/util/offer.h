/* Lines offered for copying. They stand in JSON (`result`), from which people paste them as they are, so whatever JSON and sh would write
 * in two ways has no place in them: a checkpoint with such a name is named by its id, and what can't be is said in words. Each string is
 * owned by the caller; NULL when out of memory, and also for an argument that is NULL. */
#ifndef UTIL_OFFER_H
#define UTIL_OFFER_H

/* Where a checkpoint is in the mount, as a path and as `delete` takes it: NAME, or .by-id/UID when the name holds ' " or \. */
char *offer_path(const char *name, const char *uid);

/* The same of its branch, whose own name stays: it has no other. */
char *offer_branch_path(const char *name, const char *uid, const char *branch);

/* The line that runs `program` on PATH/FILE, or on `path` alone when `file` is NULL. */
char *offer_run(const char *program, const char *path, const char *file);

/* The line that writes `text` and a newline to `file`, in one write. */
char *offer_write(const char *file, const char *text);

/* The line that deletes what is at a path made above. */
char *offer_delete(const char *path);

#endif
