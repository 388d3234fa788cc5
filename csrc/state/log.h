/* log.h - messages to asyncio's logger.
 * SPDX-License-Identifier: MIT */

#ifndef HL_STATE_LOG_H
#define HL_STATE_LOG_H

#include "state/state.h"

/* logger.LEVEL(*args), with exc_info=exc_info unless that is NULL: the args
 * are built by Py_BuildValue() from format, which must make a tuple.  The
 * logger is what the module of asyncio (st->base_events...) has by this name
 * now: programs and tests replace it there.  0, or -1.  Runs Python. */
int hl_log(hl_state *st, PyObject *module, const char *level,
           PyObject *exc_info, const char *format, ...);

#endif
