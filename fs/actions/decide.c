/* From the words of a command to one decision per pending call. */
#include <errno.h>
#include <stdlib.h>

#include "actions_i.h"
#include "commands/resolve.h"
#include "formats/state.h"
#include "util/cleanup.h"

int decide(struct engine *g, int64_t checkpoint, const struct command *cmd, char **ret_json, struct err *e)
{
    cleanup_buf struct buf envelope = {0};
    cleanup_buf struct buf json = {0};
    cleanup_resolution struct resolution res = {0};
    struct state_info info = {0};
    int r = store_read_envelope(g->c.store, checkpoint, &envelope, e);

    if (r == -ENOENT)
        return err_set(e, ENODATA, "there is no state here to resume: the checkpoint has only its database half");
    if (r < 0)
        return r;
    r = state_from_json(envelope.data, envelope.len, &info, e);
    if (r < 0)
        return r;
    r = resolve(&info, cmd, &res, e);
    if (r == 0)
        r = resolution_json(&res, &json) < 0 || !(*ret_json = buf_steal(&json)) ? err_set(e, ENOMEM, "out of memory") : 0;
    state_info_free(&info);
    return r;
}
