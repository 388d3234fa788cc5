/* handle_int.h - what the types of handles share.
 *
 * op is a handle of one of our types throughout.
 * SPDX-License-Identifier: MIT */

#ifndef HL_LOOP_HANDLE_INT_H
#define HL_LOOP_HANDLE_INT_H

#include "loop/handle.h"

/* Not immutable: a type may not be that over a mutable base. */
#define HL_HANDLE_FLAGS                        \
    (Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | \
     Py_TPFLAGS_DISALLOW_INSTANTIATION)

/* The deadline sits behind the fields of asyncio.TimerHandle. */
static inline double *
hl_timer_when(hl_state *st, PyObject *op)
{
    return (double *)((char *)op + st->slots.when);
}

/* The loop of a handle of ours, NULL if Python code replaced it. */
static inline hl_loop *
hl_handle_loop(hl_state *st, PyObject *op)
{
    PyObject *loop = HL_SLOT_OF(op, st->slots.loop);
    return loop != NULL && hl_loop_check(st, loop) ? (hl_loop *)loop : NULL;
}

/* A dead or fresh object of type, untracked: the slots that hl_handle_fill()
 * sets are void, the others as in a handle that was just made. */
PyObject *hl_handle_alloc(hl_state *st, PyTypeObject *type, hl_freelist *list);

/* Fills the slots common to all types and starts tracking.  Steals op on
 * failure. */
PyObject *hl_handle_fill(hl_loop *loop, PyObject *op, PyObject *callback,
                         PyObject *args, PyObject *context);

/* Handle.cancel(), without a lock.  0 or -1. */
int hl_handle_cancel_own(hl_state *st, PyObject *op);

/* Handle._run(), without a lock: 0, or -1 when the exception must end the
 * run. */
int hl_handle_run_own(hl_loop *loop, PyObject *op);

/* threadsafe.c: _ThreadSafeHandle._run(), in the same manner. */
int hl_handle_run_locked(hl_loop *loop, PyObject *op);

/* The state of a handle's type, NULL when the collector has cleared the type
 * before the handle (the end of the interpreter): the slots are then out of
 * reach, and what they hold is left to the process's end. */
hl_state *hl_handle_state(PyObject *op);

/* Drops a reference in the name of a loop that runs: the last one, mostly. */
void hl_handle_drop(hl_loop *loop, PyObject *op);

/* tp_traverse, tp_clear, tp_dealloc. */
int hl_handle_traverse(PyObject *op, visitproc visit, void *arg);
int hl_handle_clear(PyObject *op);
void hl_handle_dealloc(PyObject *op);

/* The attributes of every handle. */
PyObject *hl_Handle_get_context(PyObject *op, void *closure);
int hl_Handle_set_context(PyObject *op, PyObject *value, void *closure);

#define HL_HANDLE_GETSET                                       \
    {"_context", hl_Handle_get_context, hl_Handle_set_context, \
     "The contextvars.Context the callback runs in.", NULL}

/* Makes the type, where asyncio has such handles.  0 or -1. */
int hl_threadsafe_type_init(PyObject *module, hl_state *st);

#endif
