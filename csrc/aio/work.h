/* work.h - functions that an executor runs for the loop.
 * SPDX-License-Identifier: MIT */

#ifndef HL_AIO_WORK_H
#define HL_AIO_WORK_H

#include "aio/future.h"

/* A WorkItem for the queue of a concurrent.futures.ThreadPoolExecutor: its
 * run() calls func(*args) in a worker thread, its waiter is the future to
 * await.  args is a tuple.  New reference or NULL. */
PyObject *hl_work_new(hl_loop *loop, PyObject *func, PyObject *args);

/* asyncio.wrap_future(source, loop=loop) for a concurrent.futures.Future: a
 * new future that gets its outcome and whose cancellation cancels it.  New
 * reference or NULL. */
PyObject *hl_work_wrap(hl_loop *loop, PyObject *source);

int hl_work_type_init(PyObject *module, hl_state *st);

#endif
