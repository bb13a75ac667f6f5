/* A request as a handler sees it, and the answers it can give. */
#ifndef EMULATOR_HTTP_H
#define EMULATOR_HTTP_H

#include <stdbool.h>

#include <jansson.h>

#include "emulator/emulator.h"

#define REQUEST_PARAMS 4

struct request {
    struct emulator *e;
    const char *method;
    const char *path;                   /* without prefix and query, still encoded */
    const char *params[REQUEST_PARAMS]; /* the path's variables in order, decoded */
    json_t *query;                      /* object of strings */
    json_t *body;                       /* object; NULL when there was none */
    const char *request_id;
    struct fault_plan fault;
    json_t *answer; /* owned by the request */
};

struct http_server;

/* Serves on the emulator's address until http_stop. -EADDRINUSE, -EIO. */
int http_start(struct emulator *e, struct http_server **ret_server, struct err *err);
void http_stop(struct http_server *server);

/* For handlers: set the answer and return its status. `body` is taken over. */
int answer(struct request *rq, int status, json_t *body);

/* A GeneralError. */
int answer_error(struct request *rq, int status, const char *code, const char *fmt, ...) __attribute__((format(printf, 4, 5)));

#endif
