/* protocol.c - SSLTransport as the protocol of the transport below.
 *
 * That of a socket of ours hands data over by a call in C; these methods are
 * for all other events, and for other transports.
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "tls/tls.h"

#include "base/args.h"
#include "state/errors.h"

#include <string.h>

#define SELF(op) ((hl_tls *)(op))

static PyObject *
TLS_connection_made(PyObject *op, PyObject *transport)
{
    hl_tls *self = SELF(op);
    hl_state *st = hl_tls_module_state(self);
    Py_XSETREF(self->lower, Py_NewRef(transport));
    self->is_socket = Py_IS_TYPE(transport, st->SocketTransport_type);
    hl_tls_set_kernel_below(self);
    bool outer = hl_tls_begin_event(self);
    int rv = hl_tls_start_handshake(self);
    return hl_none_or_null(hl_tls_end_event(self, outer, rv));
}

/* What there is to tell the program when the connection is gone. */
static int
lost_tell(hl_tls *self, PyObject *exc)
{
    hl_state *st = hl_tls_module_state(self);
    if (self->state == HL_TLS_HANDSHAKE ||
        (self->app_state != HL_TLS_APP_MADE &&
         self->app_state != HL_TLS_APP_EOF)) {
        return 0;
    }
    self->app_state = HL_TLS_APP_LOST;
    PyObject *callback =
        PyObject_GetAttr(self->protocol, st->str_connection_lost);
    if (callback == NULL) {
        return -1;
    }
    int rv = hl_call_soon_one(st, (PyObject *)hl_tls_loop(self), callback, exc,
                              NULL);
    Py_DECREF(callback);
    return rv;
}

static PyObject *
TLS_connection_lost(PyObject *op, PyObject *exc)
{
    hl_tls *self = SELF(op);
    PyObject *raised = NULL;
    PyObject *told = Py_NewRef(self->lost_exc != NULL ? self->lost_exc : exc);
    self->conn_lost++;
    self->closed = true;
    if (self->protocol != NULL) {
        hl_error_keep(lost_tell(self, told), &raised);
    }
    self->state = HL_TLS_UNWRAPPED;
    hl_tls_stop_file(self);
    hl_tls_release(self);
    Py_CLEAR(self->lower);
    self->is_socket = false;
    hl_tls_set_kernel_below(self);
    Py_CLEAR(self->protocol);
    Py_CLEAR(self->lost_exc);
    hl_error_keep(hl_tls_wake_waiter(self, told == Py_None ? NULL : told),
                  &raised);
    hl_error_keep(hl_tls_cancel_timer(self, &self->shutdown_timer), &raised);
    hl_error_keep(hl_tls_cancel_timer(self, &self->handshake_timer), &raised);
    if (self->forgotten) {
        hl_tls_forget(self);
    }
    Py_DECREF(told);
    if (raised != NULL) {
        hl_error_restore(raised);
        return NULL;
    }
    Py_RETURN_NONE;
}

/* For a transport that is not ours.  Its data lands in memory of its own. */
static PyObject *
TLS_get_buffer(PyObject *op, PyObject *Py_UNUSED(hint))
{
    hl_tls *self = SELF(op);
    if (self->received_into == NULL) {
        PyObject *memory = PyByteArray_FromStringAndSize(NULL, 64 * 1024);
        if (memory == NULL) {
            return NULL;
        }
        self->received_into = memory;
    }
    return PyMemoryView_FromObject(self->received_into);
}

static PyObject *
TLS_buffer_updated(PyObject *op, PyObject *arg)
{
    hl_tls *self = SELF(op);
    PyObject *memory = self->received_into;
    Py_ssize_t size = PyLong_AsSsize_t(arg);
    if (size == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (memory == NULL || size < 0 || size > PyByteArray_GET_SIZE(memory)) {
        PyErr_SetString(PyExc_ValueError,
                        "buffer_updated() without as much of a buffer");
        return NULL;
    }
    Py_buffer view; /* it cannot be resized before this is released */
    if (PyObject_GetBuffer(memory, &view, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    self->received_into = NULL;
    int rv = size == 0 ? 0 : hl_tls_received(op, view.buf, (size_t)size);
    PyBuffer_Release(&view);
    Py_DECREF(memory);
    return hl_none_or_null(rv);
}

/* eof_received(): 1 to keep the transport below open, 0 or -1. */
static int
eof_received(hl_tls *self)
{
    if (hl_tls_log_debug(self, "%r received EOF") < 0) {
        return -1;
    }
    PyObject *exc;
    int rv;
    switch ((hl_tls_state)self->state) {
    case HL_TLS_HANDSHAKE:
        exc = PyObject_CallNoArgs(PyExc_ConnectionResetError);
        rv = exc == NULL ? -1 : hl_tls_handshake_done(self, exc);
        Py_XDECREF(exc);
        return rv;
    case HL_TLS_WRAPPED:
        hl_tls_send_deferred((PyObject *)self);
        self->state = HL_TLS_FLUSHING;
        return self->app_paused || self->sending_file ? 1
                                                      : hl_tls_do_flush(self);
    case HL_TLS_FLUSHING:
        return hl_tls_do_flush(self);
    case HL_TLS_SHUTDOWN:
        return hl_tls_do_shutdown(self);
    default:
        return 0;
    }
}

static PyObject *
TLS_eof_received(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    hl_tls *self = SELF(op);
    self->eof = true;
    bool outer = hl_tls_begin_event(self);
    int keep_open = eof_received(self);
    self->in_event = outer;
    if (keep_open < 0 && PyErr_ExceptionMatches(PyExc_Exception)) {
        PyObject *exc = hl_error_fetch();
        (void)hl_tls_lower_call(self, hl_tls_module_state(self)->str_close);
        PyErr_Clear();
        hl_error_restore(exc);
    }
    if (keep_open < 0) {
        return NULL;
    }
    return Py_NewRef(keep_open ? Py_True : Py_None);
}

static PyObject *
TLS_pause_writing(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    SELF(op)->write_paused = true;
    Py_RETURN_NONE;
}

static PyObject *
TLS_resume_writing(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    hl_tls *self = SELF(op);
    self->write_paused = self->sending_file;
    if (self->engine == NULL) {
        Py_RETURN_NONE;
    }
    if (hl_tls_flush(self, false) < 0) {
        return hl_none_or_null(
            hl_tls_failed(self, "Fatal error on SSL protocol"));
    }
    Py_RETURN_NONE;
}

static PyObject *
TLS__do_read(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return hl_none_or_null(hl_tls_do_read(SELF(op)));
}

static PyObject *
TLS__check_handshake_timeout(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return hl_none_or_null(hl_tls_check_handshake_timeout(SELF(op)));
}

static PyObject *
TLS__check_shutdown_timeout(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return hl_none_or_null(hl_tls_check_shutdown_timeout(SELF(op)));
}

/* Ciphertext that came before the transport below was ours. */
static PyObject *
TLS__feed(PyObject *op, PyObject *data)
{
    hl_tls *self = SELF(op);
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    int rv = self->engine == NULL
                 ? 0
                 : self->engine->feed(self, view.buf, (size_t)view.len);
    if (rv == 0 && self->engine != NULL) {
        rv = self->engine->settle(self);
    }
    PyBuffer_Release(&view);
    return hl_none_or_null(rv);
}

/* asyncio's has it for tests of what is written before all else. */
static PyObject *
TLS__test__append_write_backlog(PyObject *op, PyObject *data)
{
    return hl_none_or_null(hl_tls_queue(SELF(op), data));
}

static PyObject *
TLS__do_write(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    hl_tls_send_deferred(op);
    Py_RETURN_NONE;
}

#define METHOD(name, flags, parameters) \
    {#name, TLS_##name, flags, #name "($self" parameters ")\n--\n\n"}

PyMethodDef hl_tls_protocol_methods[] = {
    METHOD(connection_made, METH_O, ", transport, /"),
    METHOD(connection_lost, METH_O, ", exc, /"),
    METHOD(get_buffer, METH_O, ", sizehint, /"),
    METHOD(buffer_updated, METH_O, ", nbytes, /"),
    METHOD(eof_received, METH_NOARGS, ""),
    METHOD(pause_writing, METH_NOARGS, ""),
    METHOD(resume_writing, METH_NOARGS, ""),
    METHOD(_do_read, METH_NOARGS, ""),
    METHOD(_do_write, METH_NOARGS, ""),
    METHOD(_check_handshake_timeout, METH_NOARGS, ""),
    METHOD(_check_shutdown_timeout, METH_NOARGS, ""),
    METHOD(_feed, METH_O, ", data, /"),
    METHOD(_test__append_write_backlog, METH_O, ", data, /"),
    {NULL, NULL, 0, NULL},
};
