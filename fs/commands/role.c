/* The names of the roles. */
#include "commands/role.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

static const char *const names[] = {[ROLE_OPERATOR] = "operator", [ROLE_AGENT] = "agent", [ROLE_VIEWER] = "viewer"};

const char *role_name(enum role role) { return names[role]; }

int role_of_name(const char *name, enum role *ret)
{
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        if (strcmp(names[i], name) == 0) {
            *ret = (enum role)i;
            return 0;
        }
    }
    return -EINVAL;
}
