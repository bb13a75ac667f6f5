/* Version 7: the requests to Neon by which a plan's items were deleted. Every other action has its own in its document; a plan may have
 * too many items for that to be written again with each of them. */
#include "store_i.h"

const char schema_requests[] = "ALTER TABLE plan_items ADD requests json;"; /* as in the journal's steps; null: none, or not known */
