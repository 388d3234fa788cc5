/* future.h - Future: a C subclass of asyncio.Future with its own state.
 *
 * The base object's fields stay zero but for what future_int.h names;
 * HL_BASE_SIZE is an upper bound for the size of asyncio.Task (the larger of
 * the two) on the Python compiled for, checked at import.  hl_task begins with
 * the same fields, so that one set of functions serves both.
 * SPDX-License-Identifier: MIT */

#ifndef HL_AIO_FUTURE_H
#define HL_AIO_FUTURE_H

#include "loop/loop.h"

#ifdef Py_GIL_DISABLED
#    define HL_BASE_SIZE 208
#elif PY_VERSION_HEX >= 0x030E0000
#    define HL_BASE_SIZE 176
#elif PY_VERSION_HEX >= 0x030D0000
#    define HL_BASE_SIZE 144
#else
#    define HL_BASE_SIZE 176
#endif

typedef enum {
    HL_FUTURE_PENDING = 0,
    HL_FUTURE_CANCELLED,
    HL_FUTURE_FINISHED,
} hl_future_state;

/* A new pending Future on a loop of ours (create_future()). */
PyObject *hl_future_new(hl_loop *loop);

/* What transports need: both do nothing and return 0 when op is done already.
 * op is a future of ours or foreign (then by its methods).  -1 on failure. */
int hl_future_set_result_unless_done(hl_state *st, PyObject *op,
                                     PyObject *result);
int hl_future_set_exception_unless_done(hl_state *st, PyObject *op,
                                        PyObject *exc);

/* Is a future of ours (of the exact type) done? */
bool hl_future_is_done(PyObject *op);

/* What awaiting a future of ours comes to, as am_send has it: the future
 * itself (once, marked as blocking) while it is pending, then its outcome. */
PySendResult hl_future_send(PyObject *op, PyObject **result);

/* The exception that the arguments of a throw() method mean: new reference, or
 * NULL with TypeError or what its constructor raised. */
PyObject *hl_thrown_exception(PyObject *const *args, Py_ssize_t nargs);

int hl_future_type_init(PyObject *module, hl_state *st);

#endif
