/* tls.c - a TLS connection: how it comes to be, its states and its errors.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "tls/tls.h"

#include "state/errors.h"
#include "state/log.h"

/* timeout, or the constant of asyncio for None; must be positive. */
static PyObject *
timeout_of(hl_state *st, PyObject *timeout, const char *name,
           const char *constant)
{
    if (timeout == Py_None) {
        return PyObject_GetAttrString(st->constants, constant);
    }
    PyObject *zero = PyLong_FromLong(0);
    int wrong =
        zero == NULL ? -1 : PyObject_RichCompareBool(timeout, zero, Py_LE);
    Py_XDECREF(zero);
    if (wrong > 0) {
        PyErr_Format(PyExc_ValueError,
                     "%s should be a positive number, got %S", name, timeout);
    }
    return wrong != 0 ? NULL : Py_NewRef(timeout);
}

static int
tls_init(hl_tls *self, const hl_tls_options *options)
{
    hl_state *st = hl_tls_module_state(self);
    self->handshake_timeout =
        timeout_of(st, options->handshake_timeout, "ssl_handshake_timeout",
                   "SSL_HANDSHAKE_TIMEOUT");
    if (self->handshake_timeout == NULL) {
        return -1;
    }
    self->shutdown_timeout =
        timeout_of(st, options->shutdown_timeout, "ssl_shutdown_timeout",
                   "SSL_SHUTDOWN_TIMEOUT");
    if (self->shutdown_timeout == NULL) {
        return -1;
    }
    self->server_side = options->server_side;
    self->app_state =
        options->call_connection_made ? HL_TLS_APP_INIT : HL_TLS_APP_MADE;
    self->context = Py_NewRef(options->context);
    self->waiter =
        options->waiter == Py_None ? NULL : Py_NewRef(options->waiter);
    int named = self->server_side ? 0 : PyObject_IsTrue(options->hostname);
    if (named < 0) {
        return -1;
    }
    self->hostname = named ? Py_NewRef(options->hostname) : NULL;
    return hl_tls_set_protocol(self, options->protocol) < 0
               ? -1
               : hl_tls_open(self);
}

PyObject *
hl_tls_new(hl_loop *loop, const hl_tls_options *options)
{
    hl_state *st = hl_loop_state(loop);
    PyTypeObject *type = st->SSLTransport_type;
    if (st->SSLObject == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "stdlib ssl module not available");
        return NULL;
    }
    hl_tls *self = hl_alloc(type);
    if (self == NULL) {
        return NULL;
    }
    self->layer.loop = (hl_loop *)Py_NewRef((PyObject *)loop);
    self->layer.received = hl_tls_received;
    self->layer.flush = hl_tls_send_deferred;
    self->write_sizes[0] = 512 * 1024;
    self->write_sizes[1] = 128 * 1024;
    self->read_sizes[0] = 256 * 1024;
    self->read_sizes[1] = 64 * 1024;
    if (tls_init(self, options) < 0) {
        self->closed = true; /* nothing to warn about */
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

int
hl_tls_set_protocol(hl_tls *self, PyObject *protocol)
{
    unsigned char feed;
    if (hl_feed_pick(hl_tls_module_state(self), protocol, true, &feed) < 0) {
        return -1;
    }
    self->feed = feed;
    Py_XSETREF(self->protocol, Py_NewRef(protocol));
    return 0;
}

void
hl_tls_release(hl_tls *self)
{
    hl_writeq_clear(&self->queue);
    if (self->busy) {
        self->release_due = true;
    }
    else if (self->engine != NULL) {
        self->engine->close(self);
        self->engine = NULL;
    }
}

void
hl_tls_forget(hl_tls *self)
{
    self->forgotten = true;
    if (self->lower == NULL && self->engine == NULL && !self->busy) {
        Py_CLEAR(self->context);
        Py_CLEAR(self->object);
    }
}

void
hl_tls_leave(hl_tls *self, bool outer)
{
    self->busy = outer;
    if (HL_UNLIKELY(self->release_due && !outer)) {
        self->release_due = false;
        hl_tls_release(self);
    }
}

PyObject *
hl_tls_call_object(hl_tls *self, PyObject *method, PyObject *arg)
{
    PyObject *object =
        Py_NewRef(self->object != NULL ? self->object : Py_None);
    bool outer = self->busy;
    self->busy = true;
    PyObject *res = arg == NULL
                        ? PyObject_CallMethodNoArgs(object, method)
                        : PyObject_CallMethodOneArg(object, method, arg);
    hl_tls_leave(self, outer);
    Py_DECREF(object);
    return res;
}

static const char *const state_names[] = {
    "SSLProtocolState.UNWRAPPED", "SSLProtocolState.DO_HANDSHAKE",
    "SSLProtocolState.WRAPPED", "SSLProtocolState.FLUSHING",
    "SSLProtocolState.SHUTDOWN"};

int
hl_tls_set_state(hl_tls *self, hl_tls_state state)
{
    /* Each state is entered from the one before it; the first from any. */
    if (state != HL_TLS_UNWRAPPED && self->state + 1 != (int)state) {
        PyErr_Format(PyExc_RuntimeError, "cannot switch state from %s to %s",
                     state_names[self->state], state_names[state]);
        return -1;
    }
    self->state = (unsigned char)state;
    return 0;
}

int
hl_tls_fatal_error(hl_tls *self, PyObject *exc, const char *message)
{
    hl_state *st = hl_tls_module_state(self);
    hl_loop *loop = hl_tls_loop(self);
    int rv = 0;
    hl_tls_send_deferred((PyObject *)self);
    PyObject *lower = Py_NewRef(self->lower != NULL ? self->lower : Py_None);
    if (self->lower != NULL) {
        rv = hl_tls_lower_force_close(self, exc);
    }
    if (rv < 0) {
        /* as it is */
    }
    else if (hl_transport_os_error(exc)) {
        if (loop->debug) {
            rv = hl_log(st, st->sslproto, "debug", exc, "(sOs)", "%r: %s",
                        self, message);
        }
    }
    else if (!PyErr_GivenExceptionMatches(exc, st->CancelledError)) {
        rv = hl_report(st, (PyObject *)loop, message, exc, st->str_transport,
                       lower, st->str_protocol, (PyObject *)self, NULL);
    }
    Py_DECREF(lower);
    return rv;
}

int
hl_tls_failed(hl_tls *self, const char *message)
{
    if (!PyErr_ExceptionMatches(PyExc_Exception)) {
        return -1;
    }
    PyObject *exc = hl_error_fetch();
    int rv = hl_tls_fatal_error(self, exc, message);
    Py_DECREF(exc);
    return rv;
}

int
hl_tls_wake_waiter(hl_tls *self, PyObject *exc)
{
    PyObject *waiter = self->waiter;
    if (waiter == NULL) {
        return 0;
    }
    self->waiter = NULL;
    hl_state *st = hl_tls_module_state(self);
    int rv = exc == NULL
                 ? hl_future_set_result_unless_done(st, waiter, Py_None)
                 : hl_future_set_exception_unless_done(st, waiter, exc);
    Py_DECREF(waiter);
    return rv;
}

int
hl_tls_abort(hl_tls *self, PyObject *exc)
{
    hl_tls_stop_file(self);
    hl_tls_send_deferred((PyObject *)self);
    self->state = HL_TLS_UNWRAPPED;
    return self->lower == NULL ? 0 : hl_tls_lower_force_close(self, exc);
}

int
hl_tls_log_debug(hl_tls *self, const char *format)
{
    if (HL_LIKELY(!hl_tls_loop(self)->debug)) {
        return 0;
    }
    hl_state *st = hl_tls_module_state(self);
    return hl_log(st, st->sslproto, "debug", NULL, "(sO)", format, self);
}

int
hl_tls_start_timer(hl_tls *self, PyObject **timer, PyObject *seconds,
                   PyObject *method)
{
    PyObject *callback = PyObject_GetAttr((PyObject *)self, method);
    if (callback == NULL) {
        return -1;
    }
    *timer = PyObject_CallMethodObjArgs(
        (PyObject *)hl_tls_loop(self),
        hl_tls_module_state(self)->str_call_later, seconds, callback, NULL);
    Py_DECREF(callback);
    return *timer == NULL ? -1 : 0;
}

int
hl_tls_cancel_timer(hl_tls *self, PyObject **timer)
{
    PyObject *handle = *timer;
    if (handle == NULL) {
        return 0;
    }
    *timer = NULL;
    PyObject *res = PyObject_CallMethodNoArgs(
        handle, hl_tls_module_state(self)->str_cancel);
    Py_DECREF(handle);
    if (res == NULL) {
        return -1;
    }
    Py_DECREF(res);
    return 0;
}

int
hl_tls_call_soon(hl_tls *self, PyObject *obj, PyObject *method)
{
    hl_state *st = hl_tls_module_state(self);
    PyObject *callback = PyObject_GetAttr(obj, method);
    PyObject *handle = callback == NULL
                           ? NULL
                           : hl_call_soon(st, (PyObject *)hl_tls_loop(self),
                                          callback, st->empty_tuple, NULL);
    Py_XDECREF(callback);
    Py_XDECREF(handle);
    return handle == NULL ? -1 : 0;
}
