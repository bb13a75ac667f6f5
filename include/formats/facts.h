/* What the store knows about a checkpoint and its snapshot, as the renderers take it.
 *
 * Plain borrowed values: NULL and 0 mean absent. Times are nanoseconds since the epoch. */
#ifndef FORMATS_FACTS_H
#define FORMATS_FACTS_H

#include <stdint.h>

struct checkpoint_facts {
    const char *id;
    const char *name;              /* as taken */
    int64_t created_at;
    int64_t state_bytes;
    const char *state_sha256;      /* NULL: database only, no state */
    /* Supplied in meta.json: */
    const char *parent, *run_id, *step_id;
    const char *framework, *framework_version;
    const char *agent, *reason, *traceparent;
};

struct snapshot_facts {
    const char *project_id;
    const char *branch_id;         /* at capture */
    const char *id, *name, *lsn;
    int64_t requested_at, captured_at, expires_at;
    int64_t full_size, diff_size;  /* bytes; known late */
};

#endif
