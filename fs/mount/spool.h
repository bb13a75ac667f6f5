/* The bytes of what lies in .import/: a private directory of this mount under TMPDIR, a file for each staged file, called by its id.
 *
 * It goes with the mount; what a mount left that was killed, the next one removes. Thread-safe. */
#ifndef SPOOL_H
#define SPOOL_H

#include <stdint.h>

struct spool;

/* Removes what dead mounts of this user left, and makes an empty one; its directory is made with the first file. NULL when out of
 * memory. */
struct spool *spool_new(void);
/* Removes everything. */
void spool_free(struct spool *s);
/* Opens a file for reading and writing, made if it isn't there. A descriptor that is the caller's, or -errno. */
int spool_open(struct spool *s, int64_t id);
void spool_remove(struct spool *s, int64_t id);

#endif
