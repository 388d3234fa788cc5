/* future_ops.c - what a future does: results, callbacks, cancellation.
 *
 * The order of events and the errors are those of _asyncio.Future.
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "aio/future_int.h"

#include "state/errors.h"

int
hl_future_ensure_alive(const hl_future *fut)
{
    if (HL_UNLIKELY(fut->loop == NULL)) {
        PyErr_SetString(PyExc_RuntimeError,
                        "Future object is not initialized.");
        return -1;
    }
    return 0;
}

static int
raise_invalid(hl_state *st, const char *text)
{
    PyErr_SetString(st->InvalidStateError, text);
    return -1;
}

/* call_soon(callback, fut, context=context) of the future's loop; a task that
 * waits needs no Handle. */
static int
schedule_one(hl_state *st, hl_future *fut, PyObject *callback,
             PyObject *context)
{
    hl_task *task = hl_task_of_wakeup(callback);
    if (task != NULL && task->linked &&
        task->fut_waiter == hl_future_op(fut)) {
        return hl_task_wake(st, (hl_task *)Py_NewRef(task), fut);
    }
    if (hl_future_ensure_alive(fut) < 0) {
        return -1;
    }
    /* An evil call_soon() could replace the loop. */
    PyObject *loop = Py_NewRef(fut->loop);
    int rv = hl_call_soon_one(st, loop, callback, hl_future_op(fut), context);
    Py_DECREF(loop);
    return rv;
}

/* Queues the callbacks of the list (stolen). */
static int
schedule_rest(hl_state *st, hl_future *fut, PyObject *callbacks)
{
    int rv = 0;
    for (Py_ssize_t i = 0; rv == 0 && i < PyList_GET_SIZE(callbacks); i++) {
        PyObject *item = PyList_GET_ITEM(callbacks, i);
        rv = PyTuple_CheckExact(item)
                 ? schedule_one(st, fut, PyTuple_GET_ITEM(item, 0),
                                PyTuple_GET_ITEM(item, 1))
                 : hl_task_wake(st, (hl_task *)Py_NewRef(item), fut);
    }
    Py_DECREF(callbacks);
    return rv;
}

/* Ends the pending state and queues the callbacks.  Steals result and
 * traceback; the caller owns a reference to the future. */
static int
future_finish(hl_state *st, hl_future *fut, hl_future_state state,
              PyObject *result, PyObject *traceback)
{
    /* Detached first: an evil call_soon() could change them. */
    PyObject *callback = fut->callback0, *context = fut->context0;
    PyObject *rest = NULL;
    bool linked = fut->callback0_is_task;
    fut->callback0 = NULL;
    fut->callback0_is_task = false;
    fut->context0 = traceback;
    fut->result = result;
    fut->state = (uint8_t)state;
    if (HL_UNLIKELY(fut->rare != NULL)) {
        rest = fut->rare->callbacks;
        fut->rare->callbacks = NULL;
    }
    if (fut->is_task) {
        hl_task_count_end((hl_task *)fut);
        hl_task_unregister(st, (hl_task *)fut);
    }
    int rv = 0;
    if (linked) {
        rv = hl_task_wake(st, (hl_task *)callback, fut);
    }
    else if (callback != NULL) {
        rv = schedule_one(st, fut, callback, context);
        Py_DECREF(callback);
        Py_DECREF(context);
    }
    if (HL_UNLIKELY(rest != NULL)) {
        if (rv == 0) {
            rv = schedule_rest(st, fut, rest);
        }
        else {
            Py_DECREF(rest);
        }
    }
    return rv;
}

int
hl_future_set_result(hl_state *st, hl_future *fut, PyObject *result)
{
    if (hl_future_ensure_alive(fut) < 0) {
        return -1;
    }
    if (fut->state != HL_FUTURE_PENDING) {
        return raise_invalid(st, "invalid state");
    }
    return future_finish(st, fut, HL_FUTURE_FINISHED, Py_NewRef(result), NULL);
}

/* What asyncio since 3.12.2 puts in the place of a StopIteration (stolen). */
static PyObject *
wrap_stop_iteration(PyObject *exc)
{
    PyObject *wrapped = PyObject_CallFunction(
        PyExc_RuntimeError, "s",
        "StopIteration interacts badly with generators and cannot be raised "
        "into a Future");
    if (wrapped == NULL) {
        Py_DECREF(exc);
        return NULL;
    }
    PyException_SetCause(wrapped, Py_NewRef(exc));
    PyException_SetContext(wrapped, exc);
    return wrapped;
}

/* The instance that set_exception() stores: new reference, or NULL. */
static PyObject *
exception_to_store(hl_state *st, PyObject *exc)
{
    PyObject *value = PyExceptionClass_Check(exc) ? PyObject_CallNoArgs(exc)
                                                  : Py_NewRef(exc);
    if (value == NULL) {
        return NULL;
    }
    if (!PyExceptionInstance_Check(value)) {
        Py_DECREF(value);
        PyErr_SetString(PyExc_TypeError, "invalid exception object");
        return NULL;
    }
    if (hl_aio_of(st)->stop_iteration_wrapped) {
        return PyErr_GivenExceptionMatches(value, PyExc_StopIteration)
                   ? wrap_stop_iteration(value)
                   : value;
    }
    if (Py_IS_TYPE(value, (PyTypeObject *)PyExc_StopIteration)) {
        Py_DECREF(value);
        PyErr_SetString(PyExc_TypeError,
                        "StopIteration interacts badly with generators "
                        "and cannot be raised into a Future");
        return NULL;
    }
    return value;
}

int
hl_future_set_exception(hl_state *st, hl_future *fut, PyObject *exc)
{
    if (hl_future_ensure_alive(fut) < 0) {
        return -1;
    }
    if (fut->state != HL_FUTURE_PENDING) {
        return raise_invalid(st, "invalid state");
    }
    PyObject *value = exception_to_store(st, exc);
    if (value == NULL) {
        return -1;
    }
    /* Making the instance may have run Python. */
    if (fut->state != HL_FUTURE_PENDING || fut->loop == NULL) {
        Py_DECREF(value);
        return raise_invalid(st, "invalid state");
    }
    fut->is_exception = true;
    if (future_finish(st, fut, HL_FUTURE_FINISHED, value,
                      PyException_GetTraceback(value)) < 0) {
        return -1;
    }
    fut->log_traceback = true;
    return 0;
}

int
hl_future_cancel(hl_state *st, hl_future *fut, PyObject *message)
{
    fut->log_traceback = false;
    if (fut->state != HL_FUTURE_PENDING) {
        return 0;
    }
    PyObject *old = NULL;
    bool has_message = message != NULL && message != Py_None;
    if (has_message || fut->rare != NULL) {
        hl_future_rare *rare = hl_future_get_rare(fut);
        if (rare == NULL) {
            return -1;
        }
        old = rare->cancel_message;
        rare->cancel_message = has_message ? Py_NewRef(message) : NULL;
    }
    int rv = future_finish(st, fut, HL_FUTURE_CANCELLED, NULL, NULL);
    Py_XDECREF(old);
    return rv < 0 ? -1 : 1;
}

int
hl_future_cancel_with(hl_state *st, hl_future *fut, PyObject *exc)
{
    fut->log_traceback = false;
    if (fut->state != HL_FUTURE_PENDING) {
        Py_DECREF(exc);
        return 0;
    }
    PyObject *old = NULL;
    if (fut->rare != NULL) {
        old = fut->rare->cancel_message;
        fut->rare->cancel_message = NULL;
    }
    int rv = future_finish(st, fut, HL_FUTURE_CANCELLED, exc, NULL);
    Py_XDECREF(old);
    return rv;
}

PyObject *
hl_future_make_cancelled_error(hl_state *st, hl_future *fut)
{
    if (fut->state == HL_FUTURE_CANCELLED && fut->result != NULL) {
        PyObject *exc = fut->result;
        fut->result = NULL;
        return exc;
    }
    PyObject *message = fut->rare ? fut->rare->cancel_message : NULL;
    if (message == NULL || message == Py_None) {
        return PyObject_CallNoArgs(st->CancelledError);
    }
    Py_INCREF(message);
    PyObject *exc = PyObject_CallOneArg(st->CancelledError, message);
    Py_DECREF(message);
    return exc;
}

static void
raise_cancelled(hl_state *st, hl_future *fut)
{
    PyObject *exc = hl_future_make_cancelled_error(st, fut);
    if (exc != NULL) {
        PyErr_SetObject(st->CancelledError, exc);
        Py_DECREF(exc);
    }
}

/* The state that result() sees: 0 and the result, 1 and the exception (both
 * new references in *value), or -1 with an exception raised. */
static int
future_outcome(hl_state *st, hl_future *fut, PyObject **value)
{
    if (fut->state == HL_FUTURE_CANCELLED) {
        raise_cancelled(st, fut);
        return -1;
    }
    if (fut->state != HL_FUTURE_FINISHED) {
        return raise_invalid(st, "Result is not set.");
    }
    fut->log_traceback = false;
    *value = Py_NewRef(fut->result);
    if (!fut->is_exception) {
        return 0;
    }
    /* The traceback of when it was set: raising it here must not grow it. */
    PyObject *traceback = fut->context0;
    fut->context0 = NULL;
    int rv = PyException_SetTraceback(*value, traceback ? traceback : Py_None);
    Py_XDECREF(traceback);
    if (rv < 0) {
        Py_CLEAR(*value);
        return -1;
    }
    return 1;
}

PyObject *
hl_future_result(hl_state *st, hl_future *fut)
{
    PyObject *value;
    int rv = future_outcome(st, fut, &value);
    if (rv == 0) {
        return value;
    }
    if (rv == 1) {
        PyErr_SetObject(PyExceptionInstance_Class(value), value);
        Py_DECREF(value);
    }
    return NULL;
}

PyObject *
hl_future_failure(hl_state *st, hl_future *fut)
{
    PyObject *value;
    int rv = future_outcome(st, fut, &value);
    if (rv == 0) {
        Py_DECREF(value);
        return NULL;
    }
    return rv == 1 ? value : hl_error_fetch();
}

/* call_soon() for a callback that comes too late to wait. */
static int
schedule_late(hl_state *st, hl_future *fut, PyObject *callback,
              PyObject *context)
{
    PyObject *loop = Py_NewRef(fut->loop);
    int rv = hl_call_soon_one(st, loop, callback, hl_future_op(fut), context);
    Py_DECREF(loop);
    return rv;
}

/* Adds an item (stolen, may be NULL) to the list of the second and later
 * callbacks: a (callback, context) pair, or a task that waits. */
static int
append_callback(hl_future *fut, PyObject *item)
{
    int rv = -1;
    PyObject *fresh = NULL;
    if (item == NULL || (fresh = PyList_New(0)) == NULL) {
        goto done;
    }
    /* Nothing below starts the garbage collector, which runs Python. */
    hl_future_rare *rare = hl_future_get_rare(fut);
    if (rare == NULL) {
        goto done;
    }
    if (rare->callbacks == NULL) {
        rare->callbacks = Py_NewRef(fresh);
    }
    rv = PyList_Append(rare->callbacks, item);
done:
    Py_XDECREF(fresh);
    Py_XDECREF(item);
    return rv;
}

int
hl_future_add_callback(hl_state *st, hl_future *fut, PyObject *callback,
                       PyObject *context)
{
    if (fut->state != HL_FUTURE_PENDING) {
        return schedule_late(st, fut, callback, context);
    }
    bool more = fut->rare != NULL && fut->rare->callbacks != NULL;
    if (!more && fut->callback0 == NULL) {
        fut->callback0 = Py_NewRef(callback);
        fut->context0 = Py_NewRef(context);
        return 0;
    }
    return append_callback(fut, PyTuple_Pack(2, callback, context));
}

int
hl_future_link(hl_state *st, hl_future *fut, hl_task *task)
{
    if (HL_UNLIKELY(fut->state != HL_FUTURE_PENDING)) {
        return hl_task_wake(st, (hl_task *)Py_NewRef(hl_task_op(task)), fut);
    }
    if (HL_LIKELY(fut->callback0 == NULL &&
                  (fut->rare == NULL || fut->rare->callbacks == NULL))) {
        fut->callback0 = Py_NewRef(hl_task_op(task));
        fut->callback0_is_task = true;
        return 0;
    }
    return append_callback(fut, Py_NewRef(hl_task_op(task)));
}
