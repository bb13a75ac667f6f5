/* What happens by itself: expiry, and computes that died. */
#ifndef EMULATOR_JANITOR_H
#define EMULATOR_JANITOR_H

#include "emulator/emulator.h"

/* Starts the thread; it ends soon after `stopping` is set. */
int janitor_start(struct emulator *e, pthread_t *ret_thread, struct err *err);

#endif
