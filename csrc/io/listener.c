/* listener.c - accepting stream connections.
 *
 * A connection costs asyncio a task that lives for two turns: in the first it
 * calls the protocol factory and makes the transport, which queues
 * connection_made() for the second.  Here the transport itself stands in the
 * ready queue for both, in the same order and the same context; only
 * asyncio.current_task() is None inside the factory.
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "io/accept.h"
#include "io/stream.h"

#include "state/errors.h"
#include "state/log.h"

#include <errno.h>
#include <unistd.h>

typedef struct {
    PyObject_HEAD
    hl_loop *loop;  /* owned */
    PyObject *sock; /* the listening Python socket */
    PyObject *factory;
    PyObject *server;   /* NULL for none */
    PyObject *context;  /* what connections copy */
    PyObject *wrapping; /* of wrap; NULL if protocols are not wrapped */
    hl_wrap_fn wrap;
    hl_watcher *watcher; /* NULL once stopped */
    bool own_context;    /* 3.15: a connection has one context for all */
    int fd;
    const int *sock_fd; /* hl_socket_fd() of sock */
    int limit;          /* connections per readiness */
    int family;
    int sock_type;
    int proto;
} hl_listener;

/* An exception ended the making of a connection: that one is closed, and told
 * of in debug mode only. */
static int
accepted_failed(hl_loop *loop, hl_transport *self, PyObject *protocol)
{
    if (hl_error_is_exit()) {
        hl_transport_discard(self);
        return -1;
    }
    PyObject *exc = hl_error_fetch();
    hl_transport_discard(self);
    int rv = 0;
    if (loop->debug) {
        hl_state *st = hl_loop_state(loop);
        rv = hl_report(st, (PyObject *)loop,
                       "Error on transport creation for incoming connection",
                       exc, st->str_protocol, protocol, NULL);
    }
    Py_DECREF(exc);
    return rv;
}

/* The protocol of a new connection: that of the program, or what stands in
 * front of it. */
static PyObject *
accepted_make_protocol(hl_loop *loop, hl_listener *listener)
{
    PyObject *protocol = PyObject_CallNoArgs(listener->factory);
    if (protocol == NULL || listener->wrapping == NULL) {
        return protocol;
    }
    PyObject *layer = listener->wrap(loop, protocol, listener->wrapping);
    Py_DECREF(protocol);
    return layer;
}

/* The turn after the accept: protocol and transport come to be. */
static int
accepted_run(hl_loop *loop, PyObject *op)
{
    hl_transport *self = (hl_transport *)op;
    hl_listener *listener = (hl_listener *)self->starter;
    PyObject *context = Py_NewRef(self->context), *protocol = NULL;
    self->starter = NULL;
    int rv = PyContext_Enter(context);
    if (rv == 0) {
        protocol = accepted_make_protocol(loop, listener);
        if (protocol == NULL ||
            hl_transport_start(self, protocol, listener->server) < 0) {
            rv = accepted_failed(loop, self, protocol);
        }
        if (PyContext_Exit(context) < 0) {
            rv = -1;
        }
    }
    else {
        hl_transport_discard(self);
    }
    Py_XDECREF(protocol);
    Py_DECREF(context);
    rv = hl_entry_end(loop, Py_NewRef((PyObject *)listener), rv,
                      hl_loop_state(loop)->str__accept, NULL, NULL);
    Py_DECREF(listener);
    Py_DECREF(op);
    return rv;
}

/* logger.debug("%r got a new connection from %r: %r", server, addr, conn) */
static int
log_accepted(hl_listener *self, hl_transport *transport)
{
    int rv = -1;
    hl_state *st = hl_loop_state(self->loop);
    PyObject *sock = hl_transport_socket(transport);
    PyObject *peer =
        hl_transport_extra_info(transport, st->str_peername, Py_None);
    if (sock != NULL && peer != NULL) {
        rv = hl_log(st, st->selector_events, "debug", NULL, "(sOOO)",
                    "%r got a new connection from %r: %r",
                    self->server != NULL ? self->server : Py_None, peer, sock);
    }
    Py_XDECREF(peer);
    Py_XDECREF(sock);
    return rv;
}

/* What a fresh transport learns from its listener. */
static int
accepted_prepare(hl_listener *self, hl_transport *transport)
{
    transport->family = (short)self->family;
    transport->sock_type = (unsigned char)self->sock_type;
    transport->proto = (short)self->proto;
    transport->own_context = self->own_context;
    transport->context = PyContext_Copy(self->context);
    if (transport->context == NULL) {
        return -1;
    }
    if (!hl_address_is_known(self->family)) {
        PyObject *sock = hl_transport_socket(transport);
        if (sock == NULL) {
            return -1;
        }
        int rv = hl_transport_learn_addresses(transport, sock);
        Py_DECREF(sock);
        return rv;
    }
    return 0;
}

/* Queues one connection; takes over fd in any case. */
static int
listener_queue(hl_listener *self, int fd, const hl_address *peer, size_t size)
{
    bool known = hl_address_is_known(self->family);
    hl_transport *transport =
        hl_transport_accepted(self->loop, fd, peer, known ? size : 0);
    if (transport == NULL) {
        close(fd);
        return -1;
    }
    if (accepted_prepare(self, transport) < 0 ||
        (self->loop->debug && log_accepted(self, transport) < 0)) {
        hl_transport_discard(transport);
        Py_DECREF(transport);
        return -1;
    }
    transport->starter = Py_NewRef((PyObject *)self);
    return hl_loop_push(self->loop, (PyObject *)transport, accepted_run);
}

/* Out of descriptors or memory: those in the backlog stay there, and the
 * listener tries again after a while. */
static int
listener_rest(hl_listener *self, PyObject *exc)
{
    int rv = -1;
    hl_loop *loop = self->loop;
    hl_state *st = hl_loop_state(loop);
    PyObject *delay = NULL, *resume = NULL, *res = NULL;
    PyObject *sock = PyObject_CallOneArg(st->TransportSocket, self->sock);
    if (sock == NULL || hl_report(st, (PyObject *)loop,
                                  "socket.accept() out of system resource",
                                  exc, st->str_socket, sock, NULL) < 0) {
        goto done;
    }
    if (self->watcher == NULL) {
        rv = 0; /* the exception handler stopped the server */
        goto done;
    }
    delay = PyObject_GetAttrString(st->constants, "ACCEPT_RETRY_DELAY");
    resume = PyObject_GetAttr((PyObject *)self, st->str__resume);
    if (delay == NULL || resume == NULL) {
        goto done;
    }
    (void)hl_watcher_want(self->watcher, 0);
    res = PyObject_CallMethodObjArgs((PyObject *)loop, st->str_call_later,
                                     delay, resume, NULL);
    rv = res == NULL ? -1 : 0;
done:
    Py_XDECREF(res);
    Py_XDECREF(resume);
    Py_XDECREF(delay);
    Py_XDECREF(sock);
    return rv;
}

/* accept() failed: 1 to go on with the next, 0 to end, -1 with an
 * exception. */
static int
listener_failed(hl_listener *self, int errnum)
{
    switch (errnum) {
    case EAGAIN:
#if EWOULDBLOCK != EAGAIN
    case EWOULDBLOCK:
#endif
        return 0;
    case ECONNABORTED:
        return hl_loop_state(self->loop)->release.skips_aborted;
    default:
        break;
    }
    PyObject *exc = hl_os_error(errnum);
    if (exc == NULL) {
        return -1;
    }
    if (errnum == EMFILE || errnum == ENFILE || errnum == ENOBUFS ||
        errnum == ENOMEM) {
        int rv = listener_rest(self, exc);
        Py_DECREF(exc);
        return rv;
    }
    hl_error_restore(exc);
    return -1;
}

/* As hl_transport_fd(). */
static inline int
listener_fd(const hl_listener *self)
{
    return self->sock_fd == NULL ? self->fd : *self->sock_fd;
}

static int
listener_accept(hl_listener *self)
{
    int limit = Py_MIN(self->limit, self->loop->budget.accepts);
    for (int i = 0; i < limit && self->watcher != NULL; i++) {
        hl_address address;
        socklen_t size;
        int fd = hl_accept(listener_fd(self), &address, &size);
        if (fd < 0) {
            int go_on = listener_failed(self, errno);
            if (go_on <= 0) {
                return go_on;
            }
            continue;
        }
        self->loop->counts.accepted++;
        if (listener_queue(self, fd, &address, size) < 0) {
            return -1;
        }
    }
    return 0;
}

static int
listener_on_ready(hl_loop *loop, PyObject *op)
{
    hl_listener *self = (hl_listener *)op;
    int rv = 0;
    if (self->watcher != NULL &&
        (hl_watcher_take(self->watcher) & UV_READABLE)) {
        rv = listener_accept(self);
    }
    return hl_entry_end(loop, op, rv, hl_loop_state(loop)->str__accept, NULL,
                        self->context);
}

/* The caller holds a reference. */
static void
listener_stop(hl_listener *self)
{
    hl_watcher *watcher = self->watcher;
    if (watcher != NULL) {
        self->watcher = NULL;
        self->loop->counts.listeners_stopped++;
        hl_watcher_close(watcher);
    }
}

/* Borrowed, or NULL. */
static hl_listener *
listener_of_fd(hl_loop *loop, int fd)
{
    hl_watcher *watcher = hl_watcher_find(loop, fd);
    if (watcher == NULL || watcher->owner == NULL ||
        !Py_IS_TYPE(watcher->owner, hl_loop_state(loop)->Listener_type)) {
        return NULL;
    }
    return (hl_listener *)watcher->owner;
}

int
hl_listener_stop(hl_loop *loop, int fd)
{
    hl_listener *self = listener_of_fd(loop, fd);
    if (self == NULL) {
        return 0;
    }
    Py_INCREF(self);
    listener_stop(self);
    Py_DECREF(self);
    return 1;
}

void
hl_listener_release(hl_loop *loop, int fd, bool fresh)
{
    hl_listener *self = listener_of_fd(loop, fd);
    if (self != NULL && (fresh || listener_fd(self) != fd)) {
        (void)hl_listener_stop(loop, fd);
    }
}

/* sock.name as an int, -1 with an exception. */
static int
socket_get_int(PyObject *sock, const char *name)
{
    PyObject *value = PyObject_GetAttrString(sock, name);
    if (value == NULL) {
        return -1;
    }
    long number = PyLong_AsLong(value);
    Py_DECREF(value);
    return (int)number;
}

static int
listener_describe(hl_listener *self, PyObject *sock)
{
    self->family = socket_get_int(sock, "family");
    if (self->family < 0) {
        return -1;
    }
    self->sock_type = socket_get_int(sock, "type");
    if (self->sock_type < 0) {
        return -1;
    }
    self->proto = socket_get_int(sock, "proto");
    return PyErr_Occurred() ? -1 : 0;
}

static int
listener_fill(hl_listener *self, PyObject *factory, PyObject *sock,
              PyObject *server, int backlog, PyObject *context)
{
    self->factory = Py_NewRef(factory);
    self->sock = Py_NewRef(sock);
    self->sock_fd = hl_socket_fd(hl_loop_state(self->loop), sock, self->fd);
    self->server = server == Py_None ? NULL : Py_XNewRef(server);
    if (hl_loop_state(self->loop)->release.accepts_one_more) {
        self->limit = backlog < INT_MAX ? Py_MAX(backlog, 0) + 1 : backlog;
    }
    else {
        self->limit = Py_MAX(backlog, 1);
    }
    self->own_context = context != NULL && context != Py_None;
    self->context =
        self->own_context ? Py_NewRef(context) : PyContext_CopyCurrent();
    return self->context == NULL ? -1 : listener_describe(self, sock);
}

static int
listener_watch(hl_listener *self)
{
    (void)hl_listener_stop(self->loop, self->fd);
    self->watcher = hl_watcher_open(self->loop, self->fd, (PyObject *)self,
                                    listener_on_ready, false);
    if (self->watcher == NULL) {
        return -1;
    }
    self->loop->counts.listeners_started++;
    return hl_watcher_want(self->watcher, UV_READABLE);
}

int
hl_listener_start(hl_loop *loop, PyObject *protocol_factory, PyObject *sock,
                  PyObject *server, int backlog, PyObject *context,
                  hl_wrap_fn wrap, PyObject *wrapping)
{
    hl_state *st = hl_loop_state(loop);
    if (hl_loop_check_closed(loop) < 0) {
        return -1;
    }
    PyObject *fileno = PyObject_CallMethodNoArgs(sock, st->str_fileno);
    int fd = fileno == NULL ? -1 : PyObject_AsFileDescriptor(fileno);
    Py_XDECREF(fileno);
    if (fd < 0) {
        return -1;
    }
    PyTypeObject *type = st->Listener_type;
    hl_listener *self = hl_alloc(type);
    if (self == NULL) {
        return -1;
    }
    self->loop = (hl_loop *)Py_NewRef((PyObject *)loop);
    self->fd = fd;
    self->wrap = wrap;
    self->wrapping = Py_XNewRef(wrapping);
    int rv =
        listener_fill(self, protocol_factory, sock, server, backlog, context);
    if (rv == 0) {
        rv = listener_watch(self);
    }
    Py_DECREF(self); /* from here on the watcher keeps it */
    return rv;
}

static PyObject *
Listener__accept(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return listener_accept((hl_listener *)op) < 0 ? NULL : Py_NewRef(Py_None);
}

PyDoc_STRVAR(Listener__accept__doc__,
             "_accept($self)\n--\n\n"
             "Accept what is waiting, up to the backlog.");

static PyObject *
Listener__resume(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    hl_listener *self = (hl_listener *)op;
    if (self->watcher != NULL &&
        hl_watcher_want(self->watcher, UV_READABLE) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    Listener__resume__doc__,
    "_resume($self)\n--\n\n"
    "Accept again after system resources ran out, unless stopped meanwhile.");

static PyMethodDef Listener_methods[] = {
    {"_accept", Listener__accept, METH_NOARGS, Listener__accept__doc__},
    {"_resume", Listener__resume, METH_NOARGS, Listener__resume__doc__},
    {NULL, NULL, 0, NULL},
};

static int
Listener_tp_traverse(PyObject *op, visitproc visit, void *arg)
{
    hl_listener *self = (hl_listener *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->loop);
    Py_VISIT(self->sock);
    Py_VISIT(self->factory);
    Py_VISIT(self->server);
    Py_VISIT(self->context);
    Py_VISIT(self->wrapping);
    return 0;
}

static int
Listener_tp_clear(PyObject *op)
{
    hl_listener *self = (hl_listener *)op;
    listener_stop(self);
    self->sock_fd = NULL;
    Py_CLEAR(self->sock);
    Py_CLEAR(self->factory);
    Py_CLEAR(self->server);
    Py_CLEAR(self->context);
    Py_CLEAR(self->wrapping);
    return 0;
}

static void
Listener_tp_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    (void)Listener_tp_clear(op);
    Py_CLEAR(((hl_listener *)op)->loop);
    type->tp_free(op);
    Py_DECREF(type);
}

PyDoc_STRVAR(
    Listener__doc__,
    "What accepts connections for one listening socket of a hotloop loop.");

static PyType_Slot Listener_slots[] = {
    {Py_tp_doc, (void *)(uintptr_t)Listener__doc__},
    {Py_tp_dealloc, HL_SLOT(Listener_tp_dealloc)},
    {Py_tp_traverse, HL_SLOT(Listener_tp_traverse)},
    {Py_tp_clear, HL_SLOT(Listener_tp_clear)},
    {Py_tp_methods, Listener_methods},
    {0, NULL},
};

static PyType_Spec Listener_spec = {
    .name = "hotloop._core.Listener",
    .basicsize = sizeof(hl_listener),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC |
             Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = Listener_slots,
};

int
hl_listener_type_init(PyObject *module, hl_state *st)
{
    return hl_state_add_type(module, &st->Listener_type, &Listener_spec, NULL);
}
