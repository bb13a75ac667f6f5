/* Version 9: the trace that a state names. trace_id is that of meta.json's traceparent, if it has one: both lead to the checkpoint. */
#include "store_i.h"

const char schema_traces[] =
    "ALTER TABLE states ADD state_trace_id text;" /* null: none, or the same */
    "UPDATE states SET state_trace_id = envelope->'trace'->>'id' WHERE envelope->'trace'->>'id' <> trace_id;";
