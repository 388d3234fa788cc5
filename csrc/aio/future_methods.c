/* future_methods.c - methods that Future and Task share.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "aio/future_int.h"

/* The state of a future of which the outcome is asked for; NULL with
 * InvalidStateError before __init__(). */
static hl_state *
outcome_state(hl_future *fut)
{
    hl_state *st = hl_future_st(fut);
    if (st != NULL && fut->loop == NULL) {
        PyErr_SetString(st->InvalidStateError,
                        "Future object is not initialized.");
        return NULL;
    }
    return st;
}

const char hl_Future_result__doc__[] =
    "result($self, /)\n--\n\n"
    "Return the result this future represents.\n\n"
    "Raises the exception that was set, CancelledError if the future was\n"
    "cancelled, InvalidStateError if it is not done yet.";

PyObject *
hl_Future_result(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    hl_future *fut = (hl_future *)op;
    hl_state *st = outcome_state(fut);
    return st == NULL ? NULL : hl_future_result(st, fut);
}

const char hl_Future_exception__doc__[] =
    "exception($self, /)\n--\n\n"
    "Return the exception that was set on this future, None if none was.\n\n"
    "Raises CancelledError if the future was cancelled, InvalidStateError\n"
    "if it is not done yet.";

PyObject *
hl_Future_exception(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    hl_future *fut = (hl_future *)op;
    hl_state *st = outcome_state(fut);
    if (st == NULL) {
        return NULL;
    }
    if (fut->state == HL_FUTURE_CANCELLED) {
        PyObject *exc = hl_future_make_cancelled_error(st, fut);
        if (exc != NULL) {
            PyErr_SetObject(st->CancelledError, exc);
            Py_DECREF(exc);
        }
        return NULL;
    }
    if (fut->state != HL_FUTURE_FINISHED) {
        PyErr_SetString(st->InvalidStateError, "Exception is not set.");
        return NULL;
    }
    if (!fut->is_exception) {
        Py_RETURN_NONE;
    }
    fut->log_traceback = false;
    return Py_NewRef(fut->result);
}

const char hl_Future_done__doc__[] =
    "done($self, /)\n--\n\n"
    "Return True if the future has a result, an exception or was cancelled.";

PyObject *
hl_Future_done(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    /* A future without a loop, before __init__(), is pending. */
    return PyBool_FromLong(((hl_future *)op)->state != HL_FUTURE_PENDING);
}

const char hl_Future_cancelled__doc__[] =
    "cancelled($self, /)\n--\n\n"
    "Return True if the future was cancelled.";

PyObject *
hl_Future_cancelled(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(((hl_future *)op)->state == HL_FUTURE_CANCELLED);
}

const char hl_Future_get_loop__doc__[] =
    "get_loop($self, /)\n--\n\n"
    "Return the event loop the future is bound to.";

PyObject *
hl_Future_get_loop(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    hl_future *fut = (hl_future *)op;
    if (hl_future_ensure_alive(fut) < 0) {
        return NULL;
    }
    return Py_NewRef(fut->loop);
}

const char hl_Future_add_done_callback__doc__[] =
    "add_done_callback($self, fn, /, *, context=None)\n--\n\n"
    "Have fn called with the future when it is done.\n\n"
    "The call is made by the loop, in context (contextvars.Context; by\n"
    "default a copy of the current one): soon, if the future is done now.";

/* The arguments of add_done_callback(), borrowed.  0 or -1. */
static int
parse_add_callback(hl_state *st, PyObject *const *args, Py_ssize_t nargs,
                   PyObject *kwnames, PyObject **callback, PyObject **context)
{
    *context = NULL;
    Py_ssize_t named = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    if (HL_LIKELY(nargs == 1 &&
                  (named == 0 || (named == 1 && PyTuple_GET_ITEM(kwnames, 0) ==
                                                    st->str_context)))) {
        *callback = args[0];
        if (named == 1) {
            *context = args[1];
        }
        return 0;
    }
    if (nargs > 1) {
        PyErr_Format(PyExc_TypeError,
                     "add_done_callback() takes exactly 1 positional "
                     "argument (%zd given)",
                     nargs);
        return -1;
    }
    char no_name[] = "", context_name[] = "context";
    char *keywords[] = {no_name, context_name, NULL};
    return hl_aio_parse(args, nargs, kwnames, "O|$O:add_done_callback",
                        keywords, callback, context);
}

PyObject *
hl_Future_add_done_callback(PyObject *op, PyObject *const *args,
                            Py_ssize_t nargs, PyObject *kwnames)
{
    hl_future *fut = (hl_future *)op;
    hl_state *st = hl_future_st(fut);
    PyObject *callback, *context;
    if (st == NULL || parse_add_callback(st, args, nargs, kwnames, &callback,
                                         &context) < 0) {
        return NULL;
    }
    context = context ? Py_NewRef(context) : hl_context_capture(st);
    if (context == NULL) {
        return NULL;
    }
    int rv = -1;
    if (fut->loop == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "uninitialized Future object");
    }
    else {
        rv = hl_future_add_callback(st, fut, callback, context);
    }
    Py_DECREF(context);
    if (rv < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

const char hl_Future_remove_done_callback__doc__[] =
    "remove_done_callback($self, fn, /)\n--\n\n"
    "Remove every registration of fn; return how many there were.";

PyObject *
hl_Future_remove_done_callback(PyObject *op, PyObject *callback)
{
    hl_future *fut = (hl_future *)op;
    if (hl_future_ensure_alive(fut) < 0) {
        return NULL;
    }
    Py_ssize_t removed = hl_future_remove_callback(fut, callback);
    return removed < 0 ? NULL : PyLong_FromSsize_t(removed);
}

const char hl_Future__make_cancelled_error__doc__[] =
    "_make_cancelled_error($self, /)\n--\n\n"
    "Create the CancelledError to raise if the future is cancelled.\n\n"
    "To be called once for a cancellation: it hands the saved exception out.";

PyObject *
hl_Future__make_cancelled_error(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    hl_future *fut = (hl_future *)op;
    hl_state *st = hl_future_st(fut);
    return st == NULL ? NULL : hl_future_make_cancelled_error(st, fut);
}

int
hl_future_parse_cancel(PyObject *const *args, Py_ssize_t nargs,
                       PyObject *kwnames, PyObject **message)
{
    *message = Py_None;
    if (HL_LIKELY(kwnames == NULL && nargs <= 1)) {
        if (nargs == 1) {
            *message = args[0];
        }
        return 0;
    }
    char msg_name[] = "msg";
    char *keywords[] = {msg_name, NULL};
    return hl_aio_parse(args, nargs, kwnames, "|O:cancel", keywords, message);
}
