/* What every program that is started in a session of its own needs: descriptors out of the way, signals as at the start. Thread-safe. */
#ifndef UTIL_SPAWN_H
#define UTIL_SPAWN_H

#include <spawn.h>

/* Replaces `*fd` by a copy of 10 or above, which no dup2 onto a low number runs into, and which closes on exec. 0, or -EMFILE: then `*fd`
 * is as it was. */
int spawn_move_high(int *fd);

/* A new session; every signal at its default, and blocked from the start, so that none can end the program before it is ready to take
 * it. `attr` is initialised. 0, or a positive errno as posix_spawnattr_… give it. */
int spawn_own_session(posix_spawnattr_t *attr);

#endif
