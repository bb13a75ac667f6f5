/* What every program that is started in a session of its own needs. */
#include "util/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

int spawn_move_high(int *fd)
{
    int high = fcntl(*fd, F_DUPFD_CLOEXEC, 10);

    if (high < 0)
        return -errno;
    close(*fd);
    *fd = high;
    return 0;
}

int spawn_own_session(posix_spawnattr_t *attr)
{
    sigset_t all;
    int r;

    sigfillset(&all);
    r = posix_spawnattr_setsigmask(attr, &all);
    if (!r)
        r = posix_spawnattr_setsigdefault(attr, &all);
    if (!r)
        r = posix_spawnattr_setflags(attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSID);
    return r;
}
