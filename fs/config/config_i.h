/* Between the files of the configuration. */
#ifndef CONFIG_I_H
#define CONFIG_I_H

#include "config/config.h"

/* Sets `*field` unless it is set or `value` is empty: what comes first wins. -ENOMEM. */
int config_take(char **field, const char *value, struct err *e);

/* --store's two forms: a connection string, or a directory. */
int config_take_store(struct config *c, const char *value, struct err *e);

/* One environment variable, by its name; unknown ones are ignored, since an .env file holds other things too. */
int config_take_variable(struct config *c, const char *name, const char *value, struct err *e);

/* ---- files.c ---- */
int config_take_env_file(struct config *c, const char *path, struct err *e);
int config_take_ini(struct config *c, const char *path, struct err *e);

/* fs/config/access.c: false if `option` (of -o) is none of them; *ret is 0 or -EINVAL, -ENOMEM. */
bool config_take_access(struct config *c, const char *option, struct err *e, int *ret);

#endif
