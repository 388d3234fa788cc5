/* handle.h - Handle and TimerHandle: C subtypes of asyncio's.
 *
 * The state lives in the slots of the Python base class, which C reads and
 * writes in place, so that every attribute is where asyncio has it.
 * SPDX-License-Identifier: MIT */

#ifndef HL_LOOP_HANDLE_H
#define HL_LOOP_HANDLE_H

#include "loop/loop.h"

#define HL_SLOT_OF(op, offset) (*(PyObject **)((char *)(op) + (offset)))

/* A new Handle.  args is a tuple; context NULL or None is a copy of the
 * current one.  In debug mode it records where it was made.  NULL with an
 * exception set on failure. */
PyObject *hl_handle_new(hl_loop *loop, PyObject *callback, PyObject *args,
                        PyObject *context);

/* A new TimerHandle, not yet among the loop's timers. */
PyObject *hl_timer_new(hl_loop *loop, double when, PyObject *callback,
                       PyObject *args, PyObject *context);

/* A new handle for a call from any thread: an asyncio _ThreadSafeHandle where
 * there is one (3.14+), else a Handle. */
PyObject *hl_handle_new_threadsafe(hl_loop *loop, PyObject *callback,
                                   PyObject *args, PyObject *context);

/* Runs any instance of asyncio.Handle from the ready queue (an hl_run_fn). */
int hl_handle_run(hl_loop *loop, PyObject *handle);

/* Handle.cancel() for any instance of asyncio.Handle.  0 or -1. */
int hl_handle_cancel(hl_state *st, PyObject *handle);

/* Was it cancelled?  Any instance of asyncio.Handle; never fails. */
bool hl_handle_cancelled(hl_state *st, PyObject *handle);

/* Reports the pending exception of a callback as asyncio.Handle._run() does:
 * 0 when reported, -1 when it must end the run. */
int hl_handle_report(hl_loop *loop, PyObject *handle);

/* Tells a TimerHandle of ours whether a loop has it (_scheduled). */
void hl_timer_set_scheduled(hl_state *st, PyObject *timer, bool scheduled);

/* Frees the dead handles that a loop keeps, at its own end. */
void hl_handles_free(hl_loop *loop);

int hl_handle_type_init(PyObject *module, hl_state *st);

#endif
