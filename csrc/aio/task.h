/* task.h - Task: a C subclass of asyncio.Task with its own step.
 * SPDX-License-Identifier: MIT */

#ifndef HL_AIO_TASK_H
#define HL_AIO_TASK_H

#include "aio/future.h"

/* A new Task of coro on a loop of ours, scheduled (or run, with eager) as
 * asyncio.Task() does.  name and context may be NULL. */
PyObject *hl_task_new(hl_loop *loop, PyObject *coro, PyObject *name,
                      PyObject *context, bool eager);

int hl_task_type_init(PyObject *module, hl_state *st);

#endif
