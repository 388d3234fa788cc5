/* stream_op.c - what the coroutine methods of streams return.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "io/stream_op.h"

#include "aio/future.h"
#include "state/errors.h"

#define SELF(op) ((hl_stream_op *)(op))

/* ---- awaiting ---- */

/* Is op to be sent to itself when it is awaited? */
static bool
is_coroutine(PyObject *op)
{
    if (PyCoro_CheckExact(op) || !PyGen_CheckExact(op)) {
        return PyCoro_CheckExact(op);
    }
#if PY_VERSION_HEX >= 0x030C0000
    PyCodeObject *code = PyGen_GetCode((PyGenObject *)op);
#else
    PyCodeObject *code = ((PyGenObject *)op)->gi_code;
    Py_INCREF(code);
#endif
    bool is = code->co_flags & CO_ITERABLE_COROUTINE;
    Py_DECREF(code);
    return is;
}

int
hl_stream_op_await(hl_stream_op *op, PyObject *awaitable)
{
    PyAsyncMethods *methods = Py_TYPE(awaitable)->tp_as_async;
    PyObject *inner = NULL;
    if (is_coroutine(awaitable)) {
        inner = Py_NewRef(awaitable);
    }
    else if (methods != NULL && methods->am_await != NULL) {
        inner = methods->am_await(awaitable);
    }
    else {
        PyErr_Format(PyExc_TypeError,
                     "object %.100s can't be used in 'await' expression",
                     Py_TYPE(awaitable)->tp_name);
    }
    if (inner == NULL) {
        return -1;
    }
    Py_XSETREF(op->inner, inner);
    return 0;
}

int
hl_stream_op_wait(hl_stream_op *op, PyObject *future)
{
    if (HL_LIKELY(Py_IS_TYPE(future, op->st->Future_type))) {
        Py_XSETREF(op->future, future);
        return 0;
    }
    int rv = hl_stream_op_await(op, future);
    Py_DECREF(future);
    return rv;
}

static void
op_end_wait(hl_stream_op *self)
{
    if (self->kind->end_wait != NULL && self->owner != NULL) {
        self->kind->end_wait(self);
    }
    Py_CLEAR(self->future);
    Py_CLEAR(self->inner);
}

/* One exchange with what is waited for; first with nothing to say. */
static PySendResult
op_poll(hl_stream_op *self, PyObject *value, bool first, PyObject **result)
{
    if (HL_LIKELY(self->future != NULL)) {
        return hl_future_send(self->future, result);
    }
    if (self->inner != NULL) {
        PyObject *inner = Py_NewRef(self->inner);
        PySendResult sent = PyIter_Send(inner, value, result);
        Py_DECREF(inner);
        return sent;
    }
    *result = Py_NewRef(Py_None);
    return first ? PYGEN_NEXT : PYGEN_RETURN;
}

/* inner.throw(exc), or its end where it knows none. */
static PySendResult
inner_throw(hl_stream_op *self, PyObject *exc, PyObject **result)
{
    hl_state *st = self->st;
    PyObject *inner = Py_NewRef(self->inner);
    bool closes = PyErr_GivenExceptionMatches(exc, PyExc_GeneratorExit);
    PyObject *method =
        PyObject_GetAttr(inner, closes ? st->str_close : st->str_throw);
    *result = NULL;
    if (method == NULL && PyErr_ExceptionMatches(PyExc_AttributeError)) {
        PyErr_Clear();
        hl_error_restore(Py_NewRef(exc));
    }
    else if (method != NULL) {
        *result = closes ? PyObject_CallNoArgs(method)
                         : PyObject_CallOneArg(method, exc);
        Py_DECREF(method);
        if (closes && *result != NULL) {
            Py_CLEAR(*result);
            hl_error_restore(Py_NewRef(exc));
        }
    }
    Py_DECREF(inner);
    if (*result != NULL) {
        return PYGEN_NEXT;
    }
    if (!PyErr_ExceptionMatches(PyExc_StopIteration)) {
        return PYGEN_ERROR;
    }
    PyObject *stop = hl_error_fetch();
    *result = Py_NewRef(((PyStopIterationObject *)stop)->value);
    Py_DECREF(stop);
    return PYGEN_RETURN;
}

/* ---- running ---- */

/* The kind reported done: takes it on from wait to wait until it gives
 * something to whoever resumed it. */
static PySendResult
op_run(hl_stream_op *self, int done, PyObject **result)
{
    for (;;) {
        if (HL_UNLIKELY(done < 0)) {
            if (self->kind->failed == NULL) {
                return PYGEN_ERROR;
            }
            return self->kind->failed(self, result) > 0 ? PYGEN_RETURN
                                                        : PYGEN_ERROR;
        }
        if (done > 0) {
            return PYGEN_RETURN;
        }
        PySendResult sent = op_poll(self, Py_None, true, result);
        if (HL_LIKELY(sent == PYGEN_NEXT)) {
            return sent;
        }
        op_end_wait(self);
        if (sent == PYGEN_RETURN) {
            Py_CLEAR(*result);
        }
        done = sent == PYGEN_ERROR ? -1 : self->kind->go_on(self, result);
    }
}

/* What was waited for answered in this way. */
static PySendResult
op_resume(hl_stream_op *self, PySendResult sent, PyObject **result)
{
    if (sent == PYGEN_NEXT) {
        return sent;
    }
    PyObject *exc = sent == PYGEN_ERROR ? hl_error_fetch() : NULL;
    op_end_wait(self);
    if (exc != NULL) {
        hl_error_restore(exc);
        return op_run(self, -1, result);
    }
    Py_CLEAR(*result);
    return op_run(self, self->kind->go_on(self, result), result);
}

static void
op_finish(hl_stream_op *self)
{
    self->state = HL_OP_DONE;
    Py_CLEAR(self->owner);
    Py_CLEAR(self->arg);
}

/* A coroutine cannot raise StopIteration. */
static void
op_wrap_stop(void)
{
    PyObject *stop = hl_error_fetch();
    PyErr_SetString(PyExc_RuntimeError, "coroutine raised StopIteration");
    PyObject *exc = hl_error_fetch();
    PyException_SetCause(exc, Py_NewRef(stop));
    PyException_SetContext(exc, stop);
    hl_error_restore(exc);
}

static PySendResult
op_leave(hl_stream_op *self, PySendResult sent)
{
    if (sent == PYGEN_NEXT) {
        self->state = HL_OP_SUSPENDED;
        return sent;
    }
    if (HL_UNLIKELY(sent == PYGEN_ERROR)) {
        PyObject *exc = hl_error_fetch();
        op_finish(self);
        bool stop = PyErr_GivenExceptionMatches(exc, PyExc_StopIteration);
        hl_error_restore(exc);
        if (stop) {
            op_wrap_stop();
        }
        return sent;
    }
    op_finish(self);
    return sent;
}

/* May it be sent to or thrown into?  0 or -1. */
static int
op_enter(hl_stream_op *self)
{
    if (HL_UNLIKELY(self->state == HL_OP_DONE)) {
        PyErr_SetString(PyExc_RuntimeError,
                        "cannot reuse already awaited coroutine");
        return -1;
    }
    if (HL_UNLIKELY(self->state == HL_OP_RUNNING)) {
        PyErr_SetString(PyExc_ValueError, "coroutine already executing");
        return -1;
    }
    return 0;
}

PySendResult
hl_stream_op_send(PyObject *op, PyObject *value, PyObject **result)
{
    hl_stream_op *self = SELF(op);
    *result = NULL;
    if (HL_UNLIKELY(op_enter(self) < 0)) {
        return PYGEN_ERROR;
    }
    PySendResult sent;
    if (self->state == HL_OP_CREATED) {
        if (HL_UNLIKELY(value != Py_None)) {
            PyErr_SetString(PyExc_TypeError,
                            "can't send non-None value to a just-started "
                            "coroutine");
            return PYGEN_ERROR;
        }
        self->state = HL_OP_RUNNING;
        sent = op_run(self, self->kind->begin(self, result), result);
    }
    else {
        self->state = HL_OP_RUNNING;
        sent = op_resume(self, op_poll(self, value, false, result), result);
    }
    return op_leave(self, sent);
}

PySendResult
hl_stream_op_throw(hl_stream_op *self, PyObject *exc, PyObject **result)
{
    *result = NULL;
    if (op_enter(self) < 0) {
        return PYGEN_ERROR;
    }
    PySendResult sent = PYGEN_ERROR;
    bool started = self->state == HL_OP_SUSPENDED;
    self->state = HL_OP_RUNNING;
    if (started && self->inner != NULL) {
        sent = inner_throw(self, exc, result);
    }
    else {
        hl_error_restore(Py_NewRef(exc));
    }
    if (started) {
        sent = op_resume(self, sent, result);
    }
    return op_leave(self, sent);
}

int
hl_stream_op_close(hl_stream_op *self)
{
    if (self->state == HL_OP_CREATED) {
        op_finish(self);
    }
    if (self->state == HL_OP_DONE) {
        return 0;
    }
    PyObject *result, *exc = PyObject_CallNoArgs(PyExc_GeneratorExit);
    if (exc == NULL) {
        return -1;
    }
    PySendResult sent = hl_stream_op_throw(self, exc, &result);
    Py_DECREF(exc);
    if (sent == PYGEN_ERROR) {
        if (!PyErr_ExceptionMatches(PyExc_GeneratorExit)) {
            return -1;
        }
        PyErr_Clear();
        return 0;
    }
    Py_DECREF(result);
    if (sent == PYGEN_NEXT) {
        PyErr_SetString(PyExc_RuntimeError, "coroutine ignored GeneratorExit");
        return -1;
    }
    return 0;
}

void
hl_stream_op_clear(hl_stream_op *self)
{
    if (self->state == HL_OP_SUSPENDED) {
        op_end_wait(self);
    }
    op_finish(self);
}

void
hl_stream_op_abandon(hl_stream_op *self)
{
    PyObject *raised = hl_error_fetch();
    if (self->state == HL_OP_CREATED) {
        const char *name = self->kind->qualname;
        op_finish(self);
        if (PyErr_WarnFormat(PyExc_RuntimeWarning, 1,
                             "coroutine '%s' was never awaited", name) < 0) {
            PyErr_WriteUnraisable((PyObject *)self);
        }
    }
    else if (hl_stream_op_close(self) < 0) {
        PyErr_WriteUnraisable((PyObject *)self);
    }
    if (raised != NULL) {
        hl_error_restore(raised);
    }
}
