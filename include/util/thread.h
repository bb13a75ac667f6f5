/* Threads of a program whose signals one thread alone takes. Thread-safe. */
#ifndef UTIL_THREAD_H
#define UTIL_THREAD_H

#include <pthread.h>

/* pthread_create of a thread that no signal is delivered to: the main thread alone gets TERM and INT (fuse.md §1.9). `attr` may be NULL.
 * 0, or a positive errno as pthread_create gives it (EAGAIN). */
int thread_start(pthread_t *ret, const pthread_attr_t *attr, void *(*body)(void *), void *arg);

#endif
