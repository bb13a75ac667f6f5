/* Threads of a program whose signals one thread alone takes. */
#include "util/thread.h"

#include <signal.h>

int thread_start(pthread_t *ret, const pthread_attr_t *attr, void *(*body)(void *), void *arg)
{
    sigset_t all, old;
    int failed;

    sigfillset(&all); /* before it begins: a thread inherits what its maker has blocked */
    pthread_sigmask(SIG_SETMASK, &all, &old);
    failed = pthread_create(ret, attr, body, arg);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return failed;
}
