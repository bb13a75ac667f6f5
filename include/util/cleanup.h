/* Cleanup attributes, so that every function has one way out (composefs, systemd). */
#ifndef UTIL_CLEANUP_H
#define UTIL_CLEANUP_H

#include <stdlib.h>
#include <unistd.h>

#include <jansson.h>

#include "util/buf.h"
#include "util/err.h"

static inline void cleanup_free_p(void *p) { free(*(void **)p); }
static inline void cleanup_fd_p(const int *fd) { if (*fd >= 0) close(*fd); }
static inline void cleanup_json_p(json_t **j) { json_decref(*j); }

#define cleanup_free __attribute__((cleanup(cleanup_free_p)))
#define cleanup_fd __attribute__((cleanup(cleanup_fd_p)))
#define cleanup_buf __attribute__((cleanup(buf_free)))
#define cleanup_err __attribute__((cleanup(err_clear)))
#define cleanup_json __attribute__((cleanup(cleanup_json_p)))

/* Takes a pointer (or a descriptor) out of its variable, so that its cleanup does nothing: `return steal_ptr(&p);` */
#define steal_ptr(pp) __extension__({ __typeof__(*(pp)) steal_tmp = *(pp); *(pp) = NULL; steal_tmp; })
static inline int steal_fd(int *fd) { int f = *fd; *fd = -1; return f; }

#endif
