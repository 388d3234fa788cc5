/* observe.h - running an entry that somebody looks at.
 *
 * SPDX-License-Identifier: MIT */

#ifndef HL_LOOP_OBSERVE_H
#define HL_LOOP_OBSERVE_H

#include "loop/loop.h"

/* As entry.run(loop, entry.obj): timed in debug mode, for a profile, and known
 * to the watchdog. */
int hl_entry_run_observed(hl_loop *loop, hl_entry entry);

#endif
