/* Version 10: texts of any length. What a state calls its tools, calls and parent is the writer's, and an entry of a b-tree has at most
 * 2,704 bytes (https://www.postgresql.org/docs/current/btree.html): a longer one could never be sealed, or decided on. A hash index holds
 * no text. */
#include "store_i.h"

const char schema_texts[] =
    "DROP INDEX calls_tool_idx;"
    "CREATE INDEX calls_tool_idx ON calls USING hash (tool);"
    "DROP INDEX states_parent_idx;"
    "CREATE INDEX states_parent_idx ON states USING hash (parent);"
    /* that an action decides on a call once is seen to where it does (attempts.c) */
    "ALTER TABLE decisions DROP CONSTRAINT decisions_action_id_call_id_key;"
    "CREATE INDEX ON decisions (action_id);";
