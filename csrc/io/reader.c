/* reader.c - what a StreamReader does between transport and coroutine.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "io/reader.h"

#include "aio/future.h"

/* Detaches the future of who waits: new reference, NULL if nobody does. */
static PyObject *
reader_take_waiter(hl_reader *self)
{
    PyObject *waiter = self->waiter;
    if (waiter == NULL || waiter == Py_None) {
        return NULL;
    }
    self->waiter = Py_NewRef(Py_None);
    self->need = 0;
    return waiter;
}

static int
reader_wake(hl_reader *self)
{
    PyObject *waiter = reader_take_waiter(self);
    if (waiter == NULL) {
        return 0;
    }
    int rv = hl_future_set_result_unless_done(self->base.st, waiter, Py_None);
    Py_DECREF(waiter);
    return rv;
}

/* transport.pause_reading(); one that cannot is forgotten, so as not to be
 * asked again. */
static int
reader_pause(hl_reader *self)
{
    hl_state *st = self->base.st;
    PyObject *transport = Py_NewRef(self->transport);
    PyObject *res =
        PyObject_CallMethodNoArgs(transport, st->str_pause_reading);
    Py_DECREF(transport);
    if (res != NULL) {
        Py_DECREF(res);
        self->paused = true;
        return 0;
    }
    if (!PyErr_ExceptionMatches(PyExc_NotImplementedError)) {
        return -1;
    }
    PyErr_Clear();
    Py_XSETREF(self->transport, Py_NewRef(Py_None));
    return 0;
}

static int
reader_resume(hl_reader *self)
{
    self->paused = false;
    PyObject *transport =
        Py_NewRef(self->transport == NULL ? Py_None : self->transport);
    PyObject *res = PyObject_CallMethodNoArgs(
        transport, self->base.st->str_resume_reading);
    Py_DECREF(transport);
    Py_XDECREF(res);
    return res == NULL ? -1 : 0;
}

int
hl_reader_feed(hl_reader *self, const char *data, Py_ssize_t size)
{
    return hl_reader_append(self, data, size) < 0 ? -1 : hl_reader_fed(self);
}

int
hl_reader_fed(hl_reader *self)
{
    if (self->need > 0 && hl_reader_size(self) < self->need) {
        /* readexactly() would wait again, and let the transport go on. */
        return 0;
    }
    if (reader_wake(self) < 0) {
        return -1;
    }
    bool pause = !self->paused && self->transport != NULL &&
                 self->transport != Py_None &&
                 hl_reader_size(self) > 2 * self->limit;
    return pause ? reader_pause(self) : 0;
}

int
hl_reader_feed_eof(hl_reader *self)
{
    self->eof = true;
    return reader_wake(self);
}

int
hl_reader_set_exception(hl_reader *self, PyObject *exc)
{
    Py_XSETREF(self->exception, Py_NewRef(exc));
    PyObject *waiter = reader_take_waiter(self);
    if (waiter == NULL) {
        return 0;
    }
    int rv = hl_future_set_exception_unless_done(self->base.st, waiter, exc);
    Py_DECREF(waiter);
    return rv;
}

int
hl_stream_raise(PyObject *exc)
{
    if (PyExceptionInstance_Check(exc)) {
        PyErr_SetObject((PyObject *)Py_TYPE(exc), exc);
    }
    else if (PyExceptionClass_Check(exc)) {
        PyErr_SetNone(exc);
    }
    else {
        PyErr_SetString(PyExc_TypeError,
                        "exceptions must derive from BaseException");
    }
    return -1;
}

int
hl_reader_raise(hl_reader *self)
{
    PyObject *exc = Py_NewRef(self->exception);
    (void)hl_stream_raise(exc);
    Py_DECREF(exc);
    return -1;
}

int
hl_reader_maybe_resume(hl_reader *self)
{
    return self->paused && hl_reader_size(self) <= self->limit
               ? reader_resume(self)
               : 0;
}

PyObject *
hl_reader_begin_wait(hl_reader *self, const char *method)
{
    if (self->waiter != NULL && self->waiter != Py_None) {
        PyErr_Format(PyExc_RuntimeError,
                     "%s() called while another coroutine is already waiting "
                     "for incoming data",
                     method);
        return NULL;
    }
    if (self->eof) {
        PyErr_SetString(PyExc_AssertionError, "_wait_for_data after EOF");
        return NULL;
    }
    /* Nothing would come while paused. */
    if (self->paused && reader_resume(self) < 0) {
        return NULL;
    }
    PyObject *loop = Py_NewRef(self->loop == NULL ? Py_None : self->loop);
    PyObject *waiter =
        PyObject_CallMethodNoArgs(loop, self->base.st->str_create_future);
    Py_DECREF(loop);
    if (waiter != NULL) {
        Py_XSETREF(self->waiter, Py_NewRef(waiter));
    }
    return waiter;
}

void
hl_reader_end_wait(hl_reader *self)
{
    self->need = 0;
    if (self->waiter != Py_None) {
        Py_XSETREF(self->waiter, Py_NewRef(Py_None));
    }
}
