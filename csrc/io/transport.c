/* transport.c - how a transport begins, and its reading switch.
 *
 * A transport made for a Python socket shares it; one made by our own accept
 * owns the bare descriptor until somebody asks for the socket object.
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "io/stream.h"

#include "state/errors.h"

hl_transport *
hl_transport_alloc(hl_loop *loop, PyTypeObject *type,
                   const hl_transport_ops *ops)
{
    hl_transport *self = (hl_transport *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->loop = (hl_loop *)Py_NewRef((PyObject *)loop);
        self->ops = ops;
        self->fd = -1;
        self->high = 64 * 1024;
        self->low = 16 * 1024;
    }
    return self;
}

static hl_transport *
socket_alloc(hl_loop *loop)
{
    return hl_transport_alloc(loop, hl_loop_state(loop)->SocketTransport_type,
                              &hl_socket_ops);
}

hl_transport *
hl_transport_accepted(hl_loop *loop, int fd, const void *peer,
                      size_t peer_size)
{
    hl_transport *self = socket_alloc(loop);
    if (self == NULL) {
        return NULL;
    }
    if (hl_transport_set_peer(self, peer, peer_size) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    self->fd = fd;
    self->fd_open = true;
    return self;
}

bool
hl_transport_check(hl_state *st, PyObject *op)
{
    return PyObject_TypeCheck(op, st->Transport_type);
}

PyObject *
hl_transport_of_fd(hl_loop *loop, int fd)
{
    hl_watcher *watcher = hl_watcher_find(loop, fd);
    if (watcher == NULL || watcher->owner == NULL ||
        !hl_transport_check(hl_loop_state(loop), watcher->owner) ||
        ((hl_transport *)watcher->owner)->closing) {
        return NULL;
    }
    return watcher->owner;
}

const int *
hl_socket_fd(hl_state *st, PyObject *sock, int fd)
{
    if (!PyObject_TypeCheck(sock, (PyTypeObject *)st->raw_socket_type)) {
        return NULL;
    }
    /* The first field of the socket module's object, followed by the family:
     * checked by its value. */
    const int *field =
        (const int *)(const void *)((char *)sock + st->socket_slots.family) -
        1;
    return *field == fd ? field : NULL;
}

void
hl_transport_release_fd(hl_loop *loop, int fd, bool fresh)
{
    hl_watcher *watcher = hl_watcher_find(loop, fd);
    if (watcher == NULL || watcher->owner == NULL) {
        return;
    }
    if (!hl_transport_check(hl_loop_state(loop), watcher->owner)) {
        hl_listener_release(loop, fd, fresh);
        return;
    }
    hl_transport *other = (hl_transport *)Py_NewRef(watcher->owner);
    if ((other->closing || fresh) && other->watcher == watcher) {
        hl_transport_drop_watcher(other);
    }
    Py_DECREF(other);
}

void
hl_transport_drop_watcher(hl_transport *self)
{
    hl_watcher *watcher = self->watcher;
    if (watcher != NULL) {
        self->watcher = NULL;
        hl_watcher_close(watcher);
    }
    else if (self->watched != 0) {
        hl_pipe_drop_watcher(self);
    }
}

int
hl_transport_update_watcher(hl_transport *self)
{
    if (!self->ops->is_socket) {
        return hl_pipe_update_watcher(self);
    }
    int events =
        (self->reading ? UV_READABLE : 0) | (self->blocked ? UV_WRITABLE : 0);
    if (self->watcher == NULL) {
        if (self->conn_lost || self->empty_waiter != NULL ||
            hl_transport_fd(self) != self->fd) {
            return 0;
        }
        if (hl_loop_check_closed(self->loop) < 0) {
            return -1;
        }
        self->watcher =
            self->sock == NULL
                ? hl_watcher_open_socket(self->loop, self->fd,
                                         (PyObject *)self,
                                         hl_transport_on_ready)
                : hl_watcher_open(self->loop, self->fd, (PyObject *)self,
                                  hl_transport_on_ready, false);
        if (self->watcher == NULL) {
            return -1;
        }
    }
    return hl_watcher_want(self->watcher, events);
}

int
hl_transport_set_protocol(hl_transport *self, PyObject *protocol)
{
    if (self->ops->pick_feed(self, protocol) < 0) {
        return -1;
    }
    Py_XSETREF(self->protocol, Py_NewRef(protocol));
    return 0;
}

/* server._attach(), with the transport from 3.13 on. */
static int
transport_attach(hl_transport *self, PyObject *server)
{
    hl_state *st = hl_loop_state(self->loop);
    PyObject *res;
#if PY_VERSION_HEX >= 0x030D0000
    res = PyObject_CallMethodOneArg(server, st->str__attach, (PyObject *)self);
#else
    res = PyObject_CallMethodNoArgs(server, st->str__attach);
#endif
    if (res == NULL) {
        return -1;
    }
    Py_DECREF(res);
    self->server = Py_NewRef(server);
    return 0;
}

int
hl_transport_add_reader(hl_transport *self)
{
    if (self->closing || self->paused || self->deaf || self->loop == NULL) {
        return 0;
    }
    if (hl_loop_check_closed(self->loop) < 0) {
        return -1;
    }
    self->reading = true;
    int rv = hl_transport_update_watcher(self);
    if (rv < 0) {
        self->reading = false;
    }
    return rv;
}

/* connection_made() in a context of its own: what it sets there is not seen by
 * the callbacks that follow, unless 3.15 gave one context for all. */
static int
start_call_made(hl_loop *loop, hl_transport *self, PyObject *made)
{
    PyObject *context = self->own_context ? Py_NewRef(self->context)
                                          : PyContext_Copy(self->context);
    if (context == NULL) {
        return -1;
    }
    int rv = PyContext_Enter(context);
    if (rv == 0) {
        PyObject *res = PyObject_CallOneArg(made, (PyObject *)self);
        rv = res == NULL ? -1 : 0;
        Py_XDECREF(res);
        if (PyContext_Exit(context) < 0) {
            rv = -1;
        }
    }
    if (rv < 0) {
        rv = hl_entry_report(loop, made, (PyObject *)self, context);
    }
    Py_DECREF(context);
    return rv;
}

/* connection_made(), then reading, then the waiter: asyncio's three handles,
 * which nothing can come between.  An exception that ends the run does so
 * after all three. */
static int
transport_run_start(hl_loop *loop, PyObject *op)
{
    hl_transport *self = (hl_transport *)op;
    hl_state *st = hl_loop_state(loop);
    PyObject *made = self->starter, *waiter = self->waiter;
    PyObject *context = Py_XNewRef(self->context);
    PyObject *ending = NULL;
    self->starter = self->waiter = NULL;
    if (made != NULL && context != NULL) {
        hl_error_keep(start_call_made(loop, self, made), &ending);
    }
    Py_XDECREF(made);
    if (!self->closing && context != NULL) {
        Py_XSETREF(self->context, Py_NewRef(context));
    }
    Py_XDECREF(context);
    int rv = hl_transport_add_reader(self);
    hl_error_keep(
        hl_entry_end(loop, Py_NewRef(op), rv, st->str__add_reader, NULL, NULL),
        &ending);
    if (waiter != NULL) {
        hl_error_keep(hl_future_set_result_unless_done(st, waiter, Py_None),
                      &ending);
        Py_DECREF(waiter);
    }
    Py_DECREF(op);
    if (ending != NULL) {
        hl_error_restore(ending);
        return -1;
    }
    return 0;
}

/* loop.call_soon(callback, *args, context=...), stealing both. */
static int
start_call_soon(hl_transport *self, PyObject *callback, PyObject *args)
{
    PyObject *handle = NULL;
    if (callback != NULL && args != NULL) {
        handle = hl_call_soon(hl_loop_state(self->loop),
                              (PyObject *)self->loop, callback, args,
                              self->own_context ? self->context : NULL);
    }
    Py_XDECREF(callback);
    Py_XDECREF(args);
    Py_XDECREF(handle);
    return handle == NULL ? -1 : 0;
}

/* The same as asyncio does it: for debug mode and overridden call_soon(). */
static int
start_by_handles(hl_transport *self)
{
    hl_state *st = hl_loop_state(self->loop);
    PyObject *made = self->starter, *waiter = self->waiter;
    self->starter = self->waiter = NULL;
    int rv = start_call_soon(self, made, PyTuple_Pack(1, self));
    if (rv == 0 && !self->deaf) {
        PyObject *reader =
            PyObject_GetAttr((PyObject *)self, st->str__read_ready);
        PyObject *args =
            reader == NULL ? NULL : Py_BuildValue("iO", self->fd, reader);
        Py_XDECREF(reader);
        rv = start_call_soon(
            self, PyObject_GetAttr((PyObject *)self, st->str__add_reader),
            args);
    }
    if (rv == 0 && waiter != NULL) {
        rv = start_call_soon(self, Py_NewRef(st->set_result_unless_cancelled),
                             PyTuple_Pack(2, waiter, Py_None));
    }
    Py_XDECREF(waiter);
    return rv;
}

int
hl_transport_start(hl_transport *self, PyObject *protocol, PyObject *server)
{
    hl_loop *loop = self->loop;
    if (hl_transport_set_protocol(self, protocol) < 0 ||
        (server != NULL && transport_attach(self, server) < 0)) {
        return -1;
    }
    if (self->ops->configure != NULL) {
        self->ops->configure(self);
    }
    hl_transport_release_fd(loop, self->fd, self->sock == NULL);
    if (hl_transport_update_watcher(self) < 0) {
        return -1;
    }
    return hl_transport_begin(self);
}

int
hl_transport_begin(hl_transport *self)
{
    hl_loop *loop = self->loop;
    self->starter = PyObject_GetAttr(self->protocol,
                                     hl_loop_state(loop)->str_connection_made);
    if (self->starter == NULL) {
        return -1;
    }
    int rv = HL_LIKELY(hl_loop_is_direct(loop))
                 ? hl_loop_push(loop, Py_NewRef((PyObject *)self),
                                transport_run_start)
                 : start_by_handles(self);
    self->connected = rv == 0;
    if (rv == 0) {
        self->counted = true;
        loop->counts.made[self->ops->link]++;
    }
    return rv;
}

int
hl_transport_fd_of(hl_loop *loop, PyObject *sock)
{
    PyObject *fileno =
        PyObject_CallMethodNoArgs(sock, hl_loop_state(loop)->str_fileno);
    if (fileno == NULL) {
        return -1;
    }
    int fd = PyObject_AsFileDescriptor(fileno);
    Py_DECREF(fileno);
    PyObject *other = fd < 0 ? NULL : hl_transport_of_fd(loop, fd);
    if (other != NULL) {
        PyErr_Format(PyExc_RuntimeError,
                     "File descriptor %R is used by transport %R", sock,
                     other);
        return -1;
    }
    return fd;
}

int
hl_transport_set_options(hl_transport *self, PyObject *waiter, PyObject *extra,
                         PyObject *context)
{
    if (extra != NULL && extra != Py_None) {
        if (!PyDict_Check(extra)) {
            PyErr_Format(PyExc_TypeError, "extra must be a dict, not %R",
                         extra);
            return -1;
        }
        self->extra = Py_NewRef(extra);
    }
    if (waiter != NULL && waiter != Py_None) {
        self->waiter = Py_NewRef(waiter);
    }
    if (context != NULL && context != Py_None) {
        self->context = Py_NewRef(context);
        self->own_context = true;
        return 0;
    }
    self->context = PyContext_CopyCurrent();
    return self->context == NULL ? -1 : 0;
}

int
hl_transport_adopt(hl_transport *self, PyObject *sock, PyObject *protocol,
                   PyObject *waiter, PyObject *extra, PyObject *server,
                   PyObject *context)
{
    self->fd_open = true;
    self->sock = Py_NewRef(sock);
    self->sock_fd = hl_socket_fd(hl_loop_state(self->loop), sock, self->fd);
    if (hl_transport_set_options(self, waiter, extra, context) < 0 ||
        hl_transport_learn_addresses(self, sock) < 0 ||
        hl_transport_start(self, protocol, server == Py_None ? NULL : server) <
            0) {
        hl_transport_discard(self);
        return -1;
    }
    return 0;
}

PyObject *
hl_transport_new(hl_loop *loop, PyObject *sock, PyObject *protocol,
                 PyObject *waiter, PyObject *extra, PyObject *server,
                 PyObject *context)
{
    int fd = hl_transport_fd_of(loop, sock);
    hl_transport *self = fd < 0 ? NULL : socket_alloc(loop);
    if (self == NULL) {
        return NULL;
    }
    self->fd = fd;
    if (hl_transport_adopt(self, sock, protocol, waiter, extra, server,
                           context) < 0) {
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

int
hl_transport_pause_reading(hl_transport *self)
{
    if (self->closing || self->paused || self->loop == NULL) {
        return 0;
    }
    self->paused = true;
    self->reading = false;
    if (hl_transport_update_watcher(self) < 0) {
        return -1;
    }
    return hl_transport_log_debug(self, "%r pauses reading");
}

int
hl_transport_resume_reading(hl_transport *self)
{
    if (self->closing || !self->paused || self->loop == NULL) {
        return 0;
    }
    self->paused = false;
    if (!self->own_context) {
        PyObject *context = PyContext_CopyCurrent();
        if (context == NULL) {
            return -1;
        }
        Py_XSETREF(self->context, context);
    }
    if (hl_transport_add_reader(self) < 0) {
        return -1;
    }
    return hl_transport_log_debug(self, "%r resumes reading");
}
