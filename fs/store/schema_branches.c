/* Version 5: isolated branches. What works on one says so by its id; 0 stands for the line itself. */
#include "store_i.h"

const char schema_branches[] =
    "CREATE TABLE isolated_branches ("
    " id bigserial PRIMARY KEY,"
    " line_id bigint NOT NULL REFERENCES lines,"
    " checkpoint_id bigint NOT NULL REFERENCES checkpoints,"
    " name text NOT NULL,"
    " state text NOT NULL DEFAULT 'making' CHECK (state IN ('making', 'ready', 'failed', 'gone', 'promoted')),"
    " made_by bigint NOT NULL," /* action */
    " branch_id text, branch_name text, endpoint_id text,"
    " restored_for text," /* the branch that it would replace when Neon finalizes it */
    " created_at bigint NOT NULL DEFAULT now_ns(), changed_at bigint NOT NULL DEFAULT now_ns(),"
    " ready_at bigint NOT NULL DEFAULT 0, expires_at bigint NOT NULL DEFAULT 0,"
    " activity text, outcome text,"
    " attempt_id bigint NOT NULL DEFAULT 0,"
    " result_action bigint NOT NULL DEFAULT 0, result_bytes bigint NOT NULL DEFAULT -1, result_at bigint NOT NULL DEFAULT 0,"
    " UNIQUE (checkpoint_id, name));"
    "CREATE INDEX ON isolated_branches (line_id);"
    "COMMENT ON TABLE isolated_branches IS 'Replays of a checkpoint beside the active branch: NAME/branches/X.';"
    "ALTER TABLE actions ADD isolated_id bigint NOT NULL DEFAULT 0;" /* which database it works on */
    "CREATE INDEX ON actions (isolated_id) WHERE isolated_id <> 0 AND state IN ('queued', 'running');"
    "ALTER TABLE attempts ADD isolated_id bigint NOT NULL DEFAULT 0;"
    /* which database it belongs to, and the branch it was taken on, which stays when that is promoted */
    "ALTER TABLE checkpoints ADD isolated_id bigint NOT NULL DEFAULT 0, ADD taken_on bigint NOT NULL DEFAULT 0,"
    " ADD promoted_by bigint NOT NULL DEFAULT 0;" /* the promote that brought it onto the line */
    "CREATE INDEX ON checkpoints (taken_on) WHERE taken_on <> 0;"
    "ALTER TABLE restores ADD isolated_id bigint NOT NULL DEFAULT 0;" /* the branch that was promoted */
    "ALTER TABLE outputs ADD isolated_id bigint NOT NULL DEFAULT 0, DROP CONSTRAINT outputs_pkey,"
    " ADD PRIMARY KEY (checkpoint_id, isolated_id);"
    "ALTER TABLE output_parts ADD isolated_id bigint NOT NULL DEFAULT 0, DROP CONSTRAINT output_parts_pkey,"
    " ADD PRIMARY KEY (checkpoint_id, isolated_id, off);";
