/* Which handler answers which route. */
#ifndef EMULATOR_ROUTER_H
#define EMULATOR_ROUTER_H

#include "emulator/http.h"

/* Calls the handler of the request's method and path with the lock held, and returns the HTTP status; 404 when there is none.
 * Before a handler runs: the body is an object, the project exists, and for a change no operation runs in it (423). */
int router_dispatch(struct request *rq, const char *body, size_t body_len);

#endif
