/* Version 12: what an attempt was before it was claimed. Who finds that nothing was done gives it back so: one that was `unknown` stays
 * unknown, since the agent that nobody knows of may have done it all the same. */
#include "store_i.h"

const char schema_releases[] =
    "ALTER TABLE attempts ADD was text NOT NULL DEFAULT 'open', ADD was_outcome text;"
    "COMMENT ON COLUMN attempts.was IS 'The state before the present claim, which a release puts back.';"
    "COMMENT ON COLUMN attempts.was_outcome IS 'What its checkpoint or branch told of it then.';";
