/* Operations: get and list. reference/neon-api.md §3.3, §1.4. */
#include <stdlib.h>
#include <string.h>

#include "api_i.h"
#include "emulator/ids.h"
#include "emulator/js.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/text.h"

#define PAGE_MAX 1000

HANDLER(api_operation)
{
    size_t i;
    json_t *operation;
    if (!ids_valid_uuid(rq->params[1]))
        return answer_error(rq, 400, "", "operation_id: must be a UUID");
    json_array_foreach(emulator_table(rq->e, "operations"), i, operation)
        if (js_is(operation, "id", rq->params[1]) && js_is(operation, "project_id", rq->params[0]))
            return answer(rq, 200, json_pack("{s:o}", "operation", js_public(operation)));
    return answer_error(rq, 404, "", "operation not found");
}

/* The cursor is the last row's time with microseconds: `2022-12-07T00:45:05.262011Z`. New string. */
static char *cursor_of(const json_t *operation)
{
    int64_t us = js_int(operation, "_created_us");
    char room[CLOCK_TEXT_MAX];
    clock_format_seconds(us * 1000, room);
    room[strcspn(room, "Z")] = '\0';
    return js_format("%s.%06lldZ", room, (long long)(us % 1000000));
}

HANDLER(api_operations)
{
    int64_t limit = PAGE_MAX, before = 0;
    const char *cursor = js_str(rq->query, "cursor");
    if (!query_int(rq, "limit", 1, PAGE_MAX, &limit))
        return 400;
    if (cursor && clock_parse(cursor, &before) < 0)
        return answer_error(rq, 400, "", "cursor: is not one that this server gave");
    json_t *list = json_array(), *all = emulator_table(rq->e, "operations");
    cleanup_free char *next = cursor ? js_strdup(cursor) : NULL;
    for (size_t i = json_array_size(all); i-- > 0 && (int64_t)json_array_size(list) < limit;) {
        const json_t *operation = json_array_get(all, i);
        if (!js_is(operation, "project_id", rq->params[0]) || (cursor && js_int(operation, "_created_us") >= before / 1000))
            continue;
        json_array_append_new(list, js_public(operation));
        free(next);
        next = cursor_of(operation);
    }
    json_t *body = json_pack("{s:o}", "operations", list);
    if (next)
        json_object_set_new(body, "pagination", json_pack("{s:s}", "cursor", next));
    return answer(rq, 200, body);
}
