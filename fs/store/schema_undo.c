/* Version 4: going back. */
#include "store_i.h"

const char schema_undo[] =
    /* a row of restores is whatever replaced the active branch: by a restore in place, a promote, or an adopt (checkpoint_id 0: by a
     * database that nobody knows) */
    "ALTER TABLE restores ADD COLUMN undone_by bigint NOT NULL DEFAULT 0;"
    "CREATE INDEX restores_to_undo ON restores (line_id, action_id) WHERE undone_by = 0;"
    "CREATE INDEX restores_undone ON restores (undone_by) WHERE undone_by <> 0;"
    "ALTER TABLE actions DROP CONSTRAINT actions_kind_check;"
    "ALTER TABLE actions ADD CONSTRAINT actions_kind_check CHECK (kind IN ('take', 'restore', 'resume', 'replay', 'cancel', 'delete',"
    " 'undo', 'adopt', 'branch', 'promote', 'prune', 'import', 'dry-run'));";
