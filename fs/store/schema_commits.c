/* Version 11: what was committed, for a call whose COMMIT wasn't answered. A transaction's number doesn't tell: a server that crashes
 * before it has written anything of a transaction gives its number to another one. */
#include "store_i.h"

const char schema_commits[] =
    "CREATE TABLE commits ("
    " token uuid PRIMARY KEY,"
    " at timestamptz NOT NULL DEFAULT clock_timestamp());"
    "COMMENT ON TABLE commits IS 'A row of each transaction that has written something, for some minutes: it is there when that was"
    " committed.';";
