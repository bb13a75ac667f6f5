/* What an answer of Neon's, or its absence, means: an errno, whether to try again, whether something may have been done, and
 * one line that says so. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "neon_i.h"
#include "util/cleanup.h"
#include "util/text.h"

#define MAX_MESSAGE 500 /* bytes of Neon's message that are repeated */

static const char not_known[] = "whether Neon did it is not known, look before asking again";
static const char key_prefix[] = "Authorization: Bearer ";

bool neon_is_limit(const char *code, const char *message)
{
    size_t n = code ? strlen(code) : 0;
    size_t suffix = strlen("LIMIT_EXCEEDED");

    if (n >= suffix && strcmp(code + n - suffix, "LIMIT_EXCEEDED") == 0)
        return true;
    if (code && strcmp(code, "COMPUTE_TIME_EXCEEDED") == 0)
        return true;
    return message && strstr(message, "limit exceeded");
}

void neon_clean(const struct neon *neon, char *text)
{
    const char *key = neon->auth_header + strlen(key_prefix);
    char *at;

    for (char *p = text; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = ' ';
    while ((at = strstr(text, key)))
        memset(at, '*', strlen(key));
}

/* ---- a transfer that brought no answer ---- */

static int connect_errno(const struct answer *a)
{
    switch (a->os_error) {
    case ENETUNREACH:
    case EHOSTUNREACH:
    case EADDRNOTAVAIL:
        return EHOSTUNREACH;
    case ETIMEDOUT:
        return ETIMEDOUT;
    default:
        return ECONNREFUSED;
    }
}

static int curl_errno(const struct answer *a)
{
    switch ((int)a->code) {
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
        return EHOSTUNREACH;
    case CURLE_COULDNT_CONNECT:
        return connect_errno(a);
    case CURLE_OPERATION_TIMEDOUT:
        return ETIMEDOUT;
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_PARTIAL_FILE:
        return ECONNRESET;
    case CURLE_WRITE_ERROR:
        return a->too_large ? EMSGSIZE : ENOMEM;
    case CURLE_OUT_OF_MEMORY:
        return ENOMEM;
    default:
        return EPROTO; /* TLS, not HTTP, … */
    }
}

static const char *curl_advice(const struct answer *a, int code)
{
    switch (code) {
    case EHOSTUNREACH:
        return "check the network and NEON_API_HOST";
    case ECONNREFUSED:
        return "check NEON_API_HOST, and that its server runs";
    case EMSGSIZE:
        return "this is more than any answer of Neon's";
    case ENOMEM:
        return "free some memory";
    default:
        if (a->code == CURLE_PEER_FAILED_VERIFICATION || a->code == CURLE_SSL_CACERT_BADFILE)
            return "check NEON_API_HOST and the system's certificates (package ca-certificates)";
        return "try again later";
    }
}

static bool is_network_trouble(const struct answer *a, int code)
{
    return code == EHOSTUNREACH || code == ECONNREFUSED || code == ETIMEDOUT || code == ECONNRESET
        || a->code == CURLE_SSL_CONNECT_ERROR;
}

static void understand_transfer(const struct neon *neon, const struct request *r, const struct answer *a, struct failure *f)
{
    bool get = strcmp(r->method, "GET") == 0;

    f->code = curl_errno(a);
    f->unknown = !get && a->sent;
    f->retry = is_network_trouble(a, f->code) && !f->unknown ? RETRY_LIMITED : RETRY_NEVER;
    err_set(&f->text, f->code, "can't %s: no usable answer from %s: %s; %s", r->what, neon->base,
            *a->detail ? a->detail : curl_easy_strerror(a->code), f->unknown ? not_known : curl_advice(a, f->code));
}

/* ---- an answer that says no ---- */

static int status_errno(long status, bool limit)
{
    if (limit && status >= 400 && status < 500 && status != 401)
        return EDQUOT;
    switch (status) {
    case 401:
    case 403:
        return EACCES;
    case 404:
        return ENOENT;
    case 409:
        return EEXIST;
    case 412:
        return EOPNOTSUPP;
    case 423:
    case 429:
        return EBUSY;
    default:
        break;
    }
    if (status >= 500)
        return EIO;
    return status >= 400 ? EINVAL : EPROTO;
}

static enum retry status_retry(const struct request *r, long status, const char *message)
{
    bool get = strcmp(r->method, "GET") == 0;

    if (status == 423 || status == 429)
        return RETRY_LOCKED;
    if (status == 422 && message && strstr(message, "not ready yet")) /* a branch still in `init` (NA §1.3) */
        return RETRY_LOCKED;
    if (status == 503)
        return RETRY_LIMITED;
    if (get && (status == 500 || status == 502 || status == 504 || status == 524))
        return RETRY_LIMITED;
    return RETRY_NEVER;
}

static const char *status_advice(const struct failure *f, long status, bool json)
{
    switch (f->code) {
    case EACCES:
        return status == 401 ? "check NEON_API_KEY" : "use a key that may do this in this project";
    case ENOENT:
        return json ? "it may have been deleted; check NEON_PROJECT_ID too"
                    : "check that NEON_API_HOST ends as the API does, in /api/v2";
    case EEXIST:
        return "choose another name, or delete the other one";
    case EOPNOTSUPP:
        return "the project's plan or settings don't allow it";
    case EDQUOT:
        return "delete what is no longer needed, or change the plan";
    case EBUSY:
        return status == 429 ? "too many requests, try again in a minute"
                             : "another operation runs in the project, try again when it is done";
    case EPROTO:
        return "nothing there speaks Neon's API; check NEON_API_HOST";
    case EIO:
        return f->unknown ? not_known : "try again later; see https://neonstatus.com";
    default:
        return "Neon doesn't accept the request";
    }
}

/* `message` of a GeneralError, or of {"error": {…}}, which Neon's CLI accepts too. */
static const json_t *error_object(const json_t *root)
{
    const json_t *inner = json_object_get(root, "error");

    return json_is_object(inner) ? inner : root;
}

static void understand_status(const struct request *r, const struct answer *a, struct failure *f)
{
    json_t *root cleanup_json = json_loadb(a->body.data ? a->body.data : "", a->body.len, 0, NULL);
    const json_t *e = error_object(root);
    const char *message = neon_json_text(e, "message");
    const char *code = neon_json_text(e, "code");
    const char *id = neon_json_text(root, "request_id");

    id = id ? id : a->request_id;
    f->code = status_errno(a->status, neon_is_limit(code, message));
    f->retry = status_retry(r, a->status, message);
    f->unknown = strcmp(r->method, "GET") != 0 && a->status >= 500 && a->status != 503;
    err_set(&f->text, f->code, "can't %s: Neon answers %ld%s%.*s%s%s%s%s%s; %s", r->what, a->status, message ? " " : "",
            MAX_MESSAGE, message ? message : "", code && *code ? " " : "", code && *code ? code : "", id ? " (request id " : "",
            id ? id : "", id ? ")" : "", status_advice(f, a->status, root != NULL));
}

/* A 2xx whose body isn't what it has to be: Neon has done it, and nobody knows what. */
static void understand_garbage(const struct request *r, const struct answer *a, struct failure *f)
{
    f->code = EPROTO;
    f->retry = RETRY_NEVER;
    f->unknown = strcmp(r->method, "GET") != 0;
    err_set(&f->text, EPROTO, "can't %s: Neon answers %ld with a body that isn't a JSON object%s%s%s; %s", r->what, a->status,
            a->request_id ? " (request id " : "", a->request_id ? a->request_id : "", a->request_id ? ")" : "",
            f->unknown ? not_known : "check NEON_API_HOST");
}

void neon_understand(const struct neon *neon, const struct request *r, const struct answer *a, struct failure *f)
{
    if (a->code != CURLE_OK)
        understand_transfer(neon, r, a, f);
    else if (a->status >= 200 && a->status < 300)
        understand_garbage(r, a, f);
    else
        understand_status(r, a, f);
    if (f->text.text)
        neon_clean(neon, f->text.text);
}
