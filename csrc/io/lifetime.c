/* lifetime.c - how a transport ends: close, abort, errors, connection_lost().
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "io/layer.h"
#include "io/stream.h"

#include "loop/handle.h"
#include "state/errors.h"
#include "state/log.h"

int
hl_entry_report(hl_loop *loop, PyObject *callback, PyObject *arg,
                PyObject *context)
{
    PyObject *exc = hl_error_fetch();
    PyObject *handle = NULL;
    PyObject *args = arg == NULL ? PyTuple_New(0) : PyTuple_Pack(1, arg);
    if (args != NULL && callback != NULL) {
        handle = hl_handle_new(loop, callback, args, context);
    }
    Py_XDECREF(args);
    PyErr_Clear(); /* without a handle the report still has the exception */
    int rv;
    if (handle != NULL) {
        hl_error_restore(exc);
        rv = hl_handle_report(loop, handle);
        Py_DECREF(handle);
        return rv;
    }
    rv = hl_report(hl_loop_state(loop), (PyObject *)loop,
                   "Exception in callback", exc, NULL);
    Py_XDECREF(exc);
    return rv;
}

int
hl_entry_end(hl_loop *loop, PyObject *obj, int rv, PyObject *method,
             PyObject *arg, PyObject *context)
{
    if (HL_UNLIKELY(rv < 0) && !hl_error_is_exit()) {
        PyObject *exc = hl_error_fetch();
        PyObject *callback = PyObject_GetAttr(obj, method);
        PyErr_Clear();
        hl_error_restore(exc);
        rv = hl_entry_report(loop, callback, arg, context);
        Py_XDECREF(callback);
    }
    Py_DECREF(obj);
    return rv;
}

static int
log_in_debug(hl_transport *self, const char *level, const char *format)
{
    if (self->loop == NULL || HL_LIKELY(!self->loop->debug)) {
        return 0;
    }
    hl_state *st = hl_loop_state(self->loop);
    return hl_log(st, hl_transport_logs_to(self), level, NULL, "(sO)", format,
                  self);
}

int
hl_transport_log_debug(hl_transport *self, const char *format)
{
    return log_in_debug(self, "debug", format);
}

int
hl_transport_log_info(hl_transport *self, const char *format)
{
    return log_in_debug(self, "info", format);
}

bool
hl_transport_os_error(PyObject *exc)
{
    return PyObject_TypeCheck(exc, (PyTypeObject *)PyExc_OSError);
}

int
hl_transport_fatal_error(hl_transport *self, PyObject *exc,
                         const char *message)
{
    if (self->loop == NULL) {
        return 0;
    }
    int rv = 0;
    if (!self->ops->is_quiet(exc)) {
        hl_state *st = hl_loop_state(self->loop);
        PyObject *loop = Py_NewRef((PyObject *)self->loop);
        PyObject *protocol =
            Py_NewRef(self->protocol != NULL ? self->protocol : Py_None);
        rv = hl_report(st, loop, message, exc, st->str_transport,
                       (PyObject *)self, st->str_protocol, protocol, NULL);
        Py_DECREF(protocol);
        Py_DECREF(loop);
    }
    else if (self->loop->debug) {
        hl_state *st = hl_loop_state(self->loop);
        rv = hl_log(st, hl_transport_logs_to(self), "debug", exc, "(sOs)",
                    "%r: %s", self, message);
    }
    return rv < 0 ? rv : hl_transport_force_close(self, exc);
}

int
hl_transport_callback_failed(hl_transport *self, const char *message)
{
    if (hl_error_is_exit()) {
        return -1;
    }
    PyObject *exc = hl_error_fetch();
    int rv = hl_transport_fatal_error(self, exc, message);
    Py_DECREF(exc);
    return rv;
}

static int
transport_run_lost(hl_loop *loop, PyObject *op)
{
    hl_transport *self = (hl_transport *)op;
    PyObject *exc = self->lost_exc;
    self->lost_exc = NULL;
    PyObject *context = Py_XNewRef(self->context);
    int rv = 0;
    if (context != NULL) { /* else Python called _call_connection_lost() */
        rv = PyContext_Enter(context);
        if (rv == 0) {
            rv = hl_transport_call_lost(self, exc);
            if (PyContext_Exit(context) < 0) {
                rv = -1;
            }
        }
    }
    rv = hl_entry_end(loop, op, rv,
                      hl_loop_state(loop)->str__call_connection_lost,
                      exc != NULL ? exc : Py_None, context);
    Py_XDECREF(context);
    Py_XDECREF(exc);
    return rv;
}

int
hl_transport_schedule_lost(hl_transport *self, PyObject *exc)
{
    hl_loop *loop = self->loop;
    hl_state *st = hl_loop_state(loop);
    hl_transport_drop_watcher(self);
    Py_CLEAR(self->write_context);
    if (HL_LIKELY(hl_loop_is_direct(loop))) {
        if (!self->own_context) {
            PyObject *context = PyContext_CopyCurrent();
            if (context == NULL) {
                return -1;
            }
            Py_XSETREF(self->context, context);
        }
        Py_XSETREF(self->lost_exc, Py_XNewRef(exc));
        return hl_loop_push(loop, Py_NewRef((PyObject *)self),
                            transport_run_lost);
    }
    PyObject *callback =
        PyObject_GetAttr((PyObject *)self, st->str__call_connection_lost);
    if (callback == NULL) {
        return -1;
    }
    int rv = hl_call_soon_one(st, (PyObject *)loop, callback,
                              exc != NULL ? exc : Py_None,
                              self->own_context ? self->context : NULL);
    Py_DECREF(callback);
    return rv;
}

void
hl_transport_flush_layer(hl_transport *self)
{
    if (HL_UNLIKELY(self->feed == HL_FEED_LAYER && self->protocol != NULL)) {
        PyObject *protocol = Py_NewRef(self->protocol);
        ((hl_layer *)protocol)->flush(protocol);
        Py_DECREF(protocol);
    }
}

int
hl_transport_close(hl_transport *self)
{
    if (self->closing || self->loop == NULL) {
        return 0;
    }
    hl_transport_flush_layer(self);
    if (self->ops->flush(self) < 0) {
        return -1;
    }
    if (self->closing) {
        return 0; /* the flush failed, or a callback of it closed */
    }
    self->closing = true;
    if (!self->ops->peer_only) {
        self->reading = false;
    }
    if (self->ops->count(self) > 0) {
        return hl_transport_update_watcher(self);
    }
    self->reading = false;
    self->conn_lost++;
    return hl_transport_schedule_lost(self, NULL);
}

int
hl_transport_force_close(hl_transport *self, PyObject *exc)
{
    if (self->conn_lost || self->loop == NULL) {
        return 0;
    }
    hl_transport_flush_layer(self);
    if (self->conn_lost) {
        return 0; /* that failed */
    }
    /* asyncio had what is only deferred in the kernel already; a failure would
     * be news of a connection that is being dropped anyway. */
    self->ops->drop(self, true);
    self->blocked = false;
    self->closing = true;
    self->reading = false;
    self->conn_lost++;
    return hl_transport_schedule_lost(self, exc);
}

/* server._detach(), with the transport from 3.13 on. */
static int
server_detach(hl_state *st, PyObject *server, hl_transport *self)
{
    PyObject *res;
#if PY_VERSION_HEX >= 0x030D0000
    res = PyObject_CallMethodOneArg(server, st->str__detach, (PyObject *)self);
#else
    (void)self;
    res = PyObject_CallMethodNoArgs(server, st->str__detach);
#endif
    if (res == NULL) {
        return -1;
    }
    Py_DECREF(res);
    return 0;
}

/* What follows connection_lost(), whatever that did. */
static void
transport_dismantle(hl_transport *self, PyObject **exc)
{
    hl_loop *loop = self->loop;
    hl_state *st = hl_loop_state(loop);
    PyObject *server = self->server, *waiter = self->empty_waiter;
    self->server = NULL;
    Py_XINCREF(waiter);
    hl_transport_drop_watcher(self);
    hl_error_keep(hl_transport_close_fd(self), exc);
    Py_CLEAR(self->protocol);
    if (server != NULL) {
        hl_error_keep(server_detach(st, server, self), exc);
        Py_DECREF(server);
    }
    if (waiter != NULL) {
        PyObject *error = PyObject_CallFunction(
            PyExc_ConnectionError, "s", "Connection is closed by peer");
        int rv = error == NULL
                     ? -1
                     : hl_future_set_exception_unless_done(st, waiter, error);
        hl_error_keep(rv, exc);
        Py_XDECREF(error);
        Py_DECREF(waiter);
    }
    Py_CLEAR(self->context);
    if (self->loop == loop) {
        self->loop = NULL;
        Py_DECREF(loop);
    }
}

/* A transport whose connection_made() was queued ends, once. */
static void
count_lost(hl_transport *self)
{
    if (self->counted && self->loop != NULL) {
        self->counted = false;
        self->loop->counts.lost[self->ops->link]++;
    }
}

int
hl_transport_call_lost(hl_transport *self, PyObject *exc)
{
    if (self->lost || self->loop == NULL) {
        return 0;
    }
    self->lost = true;
    self->closing = true;
    self->reading = false;
    if (self->conn_lost == 0) {
        self->conn_lost = 1;
    }
    count_lost(self);
    self->ops->drop(self, false);
    self->blocked = false;
    PyObject *raised = NULL;
    PyObject *protocol = Py_XNewRef(self->protocol);
    if (protocol != NULL) {
        PyObject *res = PyObject_CallMethodOneArg(
            protocol, hl_loop_state(self->loop)->str_connection_lost,
            exc != NULL ? exc : Py_None);
        hl_error_keep(res == NULL ? -1 : 0, &raised);
        Py_XDECREF(res);
        Py_DECREF(protocol);
    }
    if (self->loop != NULL) {
        transport_dismantle(self, &raised);
    }
    if (raised != NULL) {
        hl_error_restore(raised);
        return -1;
    }
    return 0;
}

void
hl_transport_discard(hl_transport *self)
{
    PyObject *raised = NULL, *pending = hl_error_fetch();
    self->closing = self->lost = true;
    self->connected = false;
    count_lost(self);
    self->conn_lost = 1;
    hl_transport_drop_watcher(self);
    PyObject *server = self->server;
    self->server = NULL;
    if (server != NULL) {
        hl_error_keep(server_detach(hl_loop_state(self->loop), server, self),
                      &raised);
        Py_DECREF(server);
    }
    if (self->sock == NULL) {
        hl_error_keep(hl_transport_close_fd(self), &raised);
    }
    self->fd_open = false;
    Py_CLEAR(self->starter);
    Py_CLEAR(self->protocol);
    Py_XDECREF(raised);
    if (pending != NULL) {
        hl_error_restore(pending);
    }
}

/* __del__(): a transport that nobody closed. */
void
hl_transport_finalize(PyObject *op)
{
    hl_transport *self = (hl_transport *)op;
    if (!self->fd_open) {
        return;
    }
    PyObject *pending = hl_error_fetch();
    if (self->connected &&
        PyErr_ResourceWarning(op, 1, "unclosed transport %R", op) < 0) {
        PyErr_WriteUnraisable(op);
    }
    count_lost(self);
    hl_transport_drop_watcher(self);
    self->ops->drop(self, false);
    self->blocked = self->reading = false;
    self->closing = true;
    if (self->conn_lost == 0) {
        self->conn_lost = 1;
    }
    if (hl_transport_close_fd(self) < 0) {
        PyErr_WriteUnraisable(op);
    }
    PyObject *server = self->server;
    self->server = NULL;
    if (server != NULL) {
        hl_state *st = hl_transport_state(self);
        if (st == NULL || server_detach(st, server, self) < 0) {
            PyErr_WriteUnraisable(op);
        }
        Py_DECREF(server);
    }
    if (pending != NULL) {
        hl_error_restore(pending);
    }
}
