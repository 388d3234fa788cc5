/* errors.h - the one place where failures become Python exceptions or
 * reports to the loop's exception handler.
 * SPDX-License-Identifier: MIT */

#ifndef HL_STATE_ERRORS_H
#define HL_STATE_ERRORS_H

#include "state/state.h"

/* Raises OSError for a libuv status (err < 0).  Returns -1. */
int hl_raise_uv(int err);

/* A new OSError instance (of the right subclass) for errno value, or NULL with
 * another exception set. */
PyObject *hl_os_error(int errnum);

/* True if the pending exception must end the run instead of being reported:
 * SystemExit or KeyboardInterrupt, as in asyncio's handles. */
bool hl_error_is_exit(void);

/* Takes the pending exception off the thread state, normalised and with its
 * traceback attached; new reference, NULL if there was none. */
PyObject *hl_error_fetch(void);

/* Makes exc (stolen) the pending exception, traceback included. */
void hl_error_restore(PyObject *exc);

/* Keeps the first of several exceptions: after a step that failed (rv < 0)
 * moves the pending one to *first, which the caller owns, or drops it. */
void hl_error_keep(int rv, PyObject **first);

/* Calls loop.call_exception_handler({'message': message, 'exception': exc,
 * key: value...}).  The variadic part is pairs of (PyObject *key, PyObject
 * *value), both borrowed, ended by a NULL key; a pair whose value is NULL is
 * left out, as is exc when NULL.  0, or -1 if the handler let an exception
 * out.  Runs Python.  Must be entered without a pending exception. */
int hl_report(hl_state *st, PyObject *loop, const char *message, PyObject *exc,
              ...);

/* The same with the message as a str. */
int hl_report_text(hl_state *st, PyObject *loop, PyObject *message,
                   PyObject *exc, ...);

#endif
