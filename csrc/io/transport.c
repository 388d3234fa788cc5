/* transport.c - how a transport begins, and its reading switch.
 *
 * A transport made for a Python socket shares it; one made by our own accept
 * owns the bare descriptor until somebody asks for the socket object.
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "io/stream.h"

#include "state/errors.h"

#include <netinet/tcp.h>

hl_transport *
hl_transport_alloc(hl_loop *loop, PyTypeObject *type,
                   const hl_transport_ops *ops)
{
    hl_transport *self = (hl_transport *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->ops = ops;
        self->loop = (hl_loop *)Py_NewRef((PyObject *)loop);
        self->fd = -1;
        self->high = 64 * 1024;
        self->low = 16 * 1024;
    }
    return self;
}

static int
stream_pick_feed(hl_transport *self, PyObject *protocol)
{
    hl_state *st = hl_transport_state(self);
    if (st == NULL) {
        return -1;
    }
    hl_feed feed = HL_FEED_DATA;
    int buffered = PyObject_IsInstance(protocol, st->BufferedProtocol);
    if (buffered < 0) {
        return -1;
    }
    if (hl_streamreader_suits(st, protocol)) {
        feed = HL_FEED_STREAM;
    }
    else if (!buffered && !PyObject_HasAttr(protocol, st->str_data_received)) {
        /* Not asyncio's base class, but with its methods: such a protocol
         * could not work with asyncio, and does with other loops. */
        buffered = PyObject_HasAttr(protocol, st->str_get_buffer);
    }
    self->feed = (unsigned char)(buffered ? HL_FEED_BUFFER : feed);
    return 0;
}

/* Small writes go out without waiting for the peer's acknowledgement.  asyncio
 * asks for it only where the socket object knows its protocol number. */
static void
stream_set_nodelay(hl_transport *self)
{
    if (self->family == AF_INET || self->family == AF_INET6) {
        int on = 1;
        (void)setsockopt(self->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    }
}

static PyObject *
stream_write_name(hl_state *st)
{
    return st->str__write_ready;
}

static void
stream_drop(hl_transport *self, bool send)
{
    if (send && self->queue.count > 0 && !self->blocked) {
        (void)hl_writeq_send(&self->queue, self->fd);
        self->loop->must_poll = true;
    }
    hl_writeq_clear(&self->queue);
}

static size_t
stream_count(const hl_transport *self)
{
    return self->queue.count;
}

static size_t
stream_size(const hl_transport *self)
{
    return self->queue.size;
}

static const hl_transport_ops stream_ops = {
    .name = "SocketTransport",
    .pick_feed = stream_pick_feed,
    .configure = stream_set_nodelay,
    .on_readable = hl_transport_read_and_flush,
    .on_writable = hl_transport_write_ready,
    .write_name = stream_write_name,
    .flush = hl_transport_flush,
    .drop = stream_drop,
    .count = stream_count,
    .size = stream_size,
};

static hl_transport *
stream_alloc(hl_loop *loop)
{
    return hl_transport_alloc(loop, hl_loop_state(loop)->SocketTransport_type,
                              &stream_ops);
}

hl_transport *
hl_transport_accepted(hl_loop *loop, int fd, const void *peer,
                      size_t peer_size)
{
    hl_transport *self = stream_alloc(loop);
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
    return Py_IS_TYPE(op, st->SocketTransport_type) ||
           Py_IS_TYPE(op, st->DatagramTransport_type);
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

/* A closing transport may still be draining into a descriptor that was closed
 * behind its back and now has another meaning: it must let go of it. */
static void
transport_release_fd(hl_loop *loop, int fd)
{
    hl_watcher *watcher = hl_watcher_find(loop, fd);
    if (watcher == NULL || watcher->owner == NULL ||
        !hl_transport_check(hl_loop_state(loop), watcher->owner)) {
        return;
    }
    hl_transport *other = (hl_transport *)Py_NewRef(watcher->owner);
    if (other->closing && other->watcher == watcher) {
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
}

int
hl_transport_update_watcher(hl_transport *self)
{
    int events =
        (self->reading ? UV_READABLE : 0) | (self->blocked ? UV_WRITABLE : 0);
    if (self->watcher == NULL) {
        if (self->conn_lost || self->empty_waiter != NULL) {
            return 0;
        }
        if (hl_loop_check_closed(self->loop) < 0) {
            return -1;
        }
        self->watcher = hl_watcher_open(self->loop, self->fd, (PyObject *)self,
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
    if (self->closing || self->paused || self->loop == NULL) {
        return 0;
    }
    if (hl_loop_check_closed(self->loop) < 0) {
        return -1;
    }
    self->reading = true;
    return hl_transport_update_watcher(self);
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
    self->starter = self->waiter = NULL;
    int rv = made == NULL || context == NULL
                 ? 0
                 : start_call_made(loop, self, made);
    PyObject *ending = rv < 0 ? hl_error_fetch() : NULL;
    Py_XDECREF(made);
    if (!self->closing && context != NULL) {
        Py_XSETREF(self->context, Py_NewRef(context));
    }
    Py_XDECREF(context);
    rv = hl_transport_add_reader(self);
    if (waiter != NULL) {
        if (rv < 0) {
            PyErr_WriteUnraisable(op);
        }
        rv = hl_future_set_result_unless_done(st, waiter, Py_None);
        Py_DECREF(waiter);
    }
    if (ending != NULL) {
        PyErr_Clear();
        hl_error_restore(ending);
        Py_DECREF(op);
        return -1;
    }
    return hl_entry_end(loop, op, rv, st->str__add_reader, NULL, NULL);
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
    if (rv == 0) {
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
    transport_release_fd(loop, self->fd);
    if (hl_transport_update_watcher(self) < 0) {
        return -1;
    }
    self->starter =
        PyObject_GetAttr(protocol, hl_loop_state(loop)->str_connection_made);
    if (self->starter == NULL) {
        return -1;
    }
    int rv = HL_LIKELY(hl_loop_is_direct(loop))
                 ? hl_loop_push(loop, Py_NewRef((PyObject *)self),
                                transport_run_start)
                 : start_by_handles(self);
    self->connected = rv == 0;
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

/* The optional arguments of the constructor.  0 or -1. */
static int
transport_set_options(hl_transport *self, PyObject *waiter, PyObject *extra,
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
hl_transport_begin(hl_transport *self, PyObject *sock, PyObject *protocol,
                   PyObject *waiter, PyObject *extra, PyObject *server,
                   PyObject *context)
{
    self->fd_open = true;
    self->sock = Py_NewRef(sock);
    if (transport_set_options(self, waiter, extra, context) < 0 ||
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
    hl_transport *self = fd < 0 ? NULL : stream_alloc(loop);
    if (self == NULL) {
        return NULL;
    }
    self->fd = fd;
    if (hl_transport_begin(self, sock, protocol, waiter, extra, server,
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
