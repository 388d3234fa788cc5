/* connect.c - a client connection on its way, before it has a transport.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "io/connect.h"

#include "io/descriptor.h"
#include "io/resolve.h"
#include "io/stream.h"
#include "state/errors.h"

#include <errno.h>
#include <unistd.h>

typedef struct {
    PyObject_HEAD
    hl_loop *loop;       /* owned */
    PyObject *address;   /* as the caller gave it */
    PyObject *waiter;    /* future; NULL when there is nothing to wait for */
    hl_watcher *watcher; /* while the kernel connects */
    int fd;              /* -1 once closed or given away */
    int family;
    int type;
    int proto;
} hl_connector;

/* A descriptor that is non-blocking and not inherited, or -1 with errno. */
static int
socket_open(int family, int type, int proto)
{
#ifdef __linux__
    return socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, proto);
#else
    return hl_descriptor_prepare(socket(family, type, proto));
#endif
}

/* Begins to connect.  0 when that is done, EINPROGRESS, or the errno of the
 * failure; *late tells that connect() had returned before it failed.
 *
 * A peer on this machine has answered by the time connect() returns, though it
 * says EINPROGRESS: to ask a second time saves a round through the poller. */
static int
socket_connect(int fd, int proto, const hl_address *address, socklen_t size,
               bool *late)
{
    *late = false;
    if (connect(fd, &address->sa, size) == 0) {
        return 0;
    }
    if (errno != EINPROGRESS && errno != EINTR) {
        return errno;
    }
#ifdef __linux__
    if (proto == IPPROTO_TCP) {
        *late = true;
        if (connect(fd, &address->sa, size) == 0 || errno == EISCONN) {
            return 0;
        }
        return errno == EALREADY || errno == EINTR ? EINPROGRESS : errno;
    }
#else
    (void)proto;
#endif
    return EINPROGRESS;
}

static void
connector_unwatch(hl_connector *self)
{
    hl_watcher *watcher = self->watcher;
    if (watcher != NULL) {
        self->watcher = NULL;
        hl_watcher_close(watcher);
    }
}

static void
connector_close(hl_connector *self)
{
    connector_unwatch(self);
    if (self->fd >= 0) {
        close(self->fd);
        self->fd = -1;
    }
}

/* OSError(errnum, 'Connect call failed (host, port)'), as sock_connect() words
 * a failure that it was told of by the poller. */
static PyObject *
connect_error(const hl_connector *self, int errnum)
{
    PyObject *text;
    if (self->family == AF_INET6 && PyTuple_GET_SIZE(self->address) == 2) {
        text = PyUnicode_FromFormat("Connect call failed (%R, %R, 0, 0)",
                                    PyTuple_GET_ITEM(self->address, 0),
                                    PyTuple_GET_ITEM(self->address, 1));
    }
    else {
        text = PyUnicode_FromFormat("Connect call failed %S", self->address);
    }
    return text == NULL
               ? NULL
               : PyObject_CallFunction(PyExc_OSError, "iN", errnum, text);
}

static int
connector_fail(const hl_connector *self, int errnum, bool late)
{
    self->loop->counts.connects_failed++;
    PyObject *exc = late ? connect_error(self, errnum) : hl_os_error(errnum);
    if (exc != NULL) {
        hl_error_restore(exc);
    }
    return -1;
}

/* The kernel has decided. */
static int
connector_settle(hl_connector *self)
{
    PyObject *waiter = self->waiter;
    int errnum = 0;
    socklen_t size = sizeof(errnum);
    if (getsockopt(self->fd, SOL_SOCKET, SO_ERROR, &errnum, &size) < 0) {
        errnum = errno;
    }
    if (errnum == EAGAIN || errnum == EINTR || errnum == EINPROGRESS) {
        return 0;
    }
    hl_state *st = hl_loop_state(self->loop);
    self->waiter = NULL;
    connector_unwatch(self);
    int rv;
    if (errnum == 0) {
        rv = hl_future_set_result_unless_done(st, waiter, Py_None);
    }
    else {
        self->loop->counts.connects_failed++;
        PyObject *exc = connect_error(self, errnum);
        if (exc == NULL) {
            exc = hl_error_fetch(); /* MemoryError ends the wait as well */
        }
        rv = hl_future_set_exception_unless_done(st, waiter, exc);
        Py_DECREF(exc);
    }
    Py_DECREF(waiter);
    return rv;
}

static int
connector_on_ready(hl_loop *loop, PyObject *op)
{
    hl_connector *self = (hl_connector *)op;
    int rv = 0;
    if (self->watcher != NULL && hl_watcher_take(self->watcher) != 0) {
        rv = connector_settle(self);
    }
    return hl_entry_end(loop, op, rv, hl_loop_state(loop)->str_close, NULL,
                        NULL);
}

static int
connector_wait(hl_connector *self)
{
    self->waiter = PyObject_CallMethodNoArgs(
        (PyObject *)self->loop, hl_loop_state(self->loop)->str_create_future);
    if (self->waiter == NULL) {
        return -1;
    }
    hl_transport_release_fd(self->loop, self->fd, true);
    self->watcher = hl_watcher_open_socket(
        self->loop, self->fd, (PyObject *)self, connector_on_ready);
    return self->watcher == NULL ? -1
                                 : hl_watcher_want(self->watcher, UV_WRITABLE);
}

static int
connector_begin(hl_connector *self, const hl_address *address, socklen_t size)
{
    bool late;
    int err = socket_connect(self->fd, self->proto, address, size, &late);
    self->loop->must_poll = true; /* the peer may be in this loop */
    if (err == EINPROGRESS) {
        return connector_wait(self);
    }
    return err == 0 ? 0 : connector_fail(self, err, late);
}

static hl_connector *
connector_new(hl_loop *loop, int family, int type, int proto,
              PyObject *address)
{
    PyTypeObject *cls = hl_loop_state(loop)->Connector_type;
    hl_connector *self = (hl_connector *)cls->tp_alloc(cls, 0);
    if (self == NULL) {
        return NULL;
    }
    self->loop = (hl_loop *)Py_NewRef((PyObject *)loop);
    self->address = Py_NewRef(address);
    self->family = family;
    self->type = type;
    self->proto = proto;
    self->fd = -1;
    return self;
}

/* Opens the descriptor, and tells audit hooks what the socket module does.
 * They see the connector in the place of the socket, and may close it. */
static int
connector_open(hl_connector *self)
{
    if (PySys_Audit("socket.__new__", "Oiii", self, self->family, self->type,
                    self->proto) < 0) {
        return -1;
    }
    self->fd = socket_open(self->family, self->type, self->proto);
    if (self->fd < 0) {
        return connector_fail(self, errno, false);
    }
    if (PySys_Audit("socket.connect", "OO", self, self->address) < 0) {
        return -1;
    }
    return hl_loop_check_closed(self->loop);
}

PyObject *
hl_connector_start(hl_loop *loop, int family, int type, int proto,
                   PyObject *address)
{
    hl_address raw;
    socklen_t size;
    if (hl_loop_check_closed(loop) < 0) {
        return NULL;
    }
    if (family == AF_UNSPEC && PyTuple_CheckExact(address) &&
        PyTuple_GET_SIZE(address) > 0) {
        family = hl_address_family_of(PyTuple_GET_ITEM(address, 0));
        proto = IPPROTO_TCP;
    }
    if (!hl_address_is_known(family) ||
        !hl_name_from_python(family, address, &raw, &size)) {
        Py_RETURN_NONE;
    }
    hl_connector *self = connector_new(loop, family, type, proto, address);
    if (self == NULL) {
        return NULL;
    }
    if (connector_open(self) < 0 || connector_begin(self, &raw, size) < 0) {
        connector_close(self); /* a watcher would keep it alive */
        Py_CLEAR(self);
    }
    if (self == NULL && family == AF_UNIX &&
        PyErr_ExceptionMatches(PyExc_BlockingIOError)) {
        PyErr_Clear(); /* the backlog is full: asyncio waits for it */
        loop->counts.connects_failed--;
        Py_RETURN_NONE;
    }
    return (PyObject *)self;
}

/* Will getpeername() say what connect() was given?  Addresses that stand for
 * others, zones and flows are not repeated. */
static bool
peer_is_literal(const hl_address *address)
{
    if (address->sa.sa_family == AF_INET) {
        return address->in.sin_addr.s_addr != htonl(INADDR_ANY);
    }
    const struct sockaddr_in6 *in6 = &address->in6;
    return in6->sin6_scope_id == 0 && in6->sin6_flowinfo == 0 &&
           !IN6_IS_ADDR_UNSPECIFIED(&in6->sin6_addr) &&
           !IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr);
}

/* The peer's address: *size is 0 if there is none any more. */
static void
connector_peer(hl_connector *self, hl_address *peer, socklen_t *size)
{
    if (self->family != AF_UNIX &&
        hl_name_from_python(self->family, self->address, peer, size) &&
        peer_is_literal(peer)) {
        return;
    }
    *size = sizeof(*peer);
    if (getpeername(self->fd, &peer->sa, size) < 0) {
        *size = 0;
    }
}

/* Fills a fresh transport; on failure the caller discards it. */
static int
finish_start(hl_connector *self, hl_transport *transport, PyObject *protocol,
             PyObject *waiter, PyObject *context)
{
    transport->family = (short)self->family;
    transport->sock_type = (unsigned char)self->type;
    transport->proto = (short)self->proto;
    transport->own_context = context != NULL && context != Py_None;
    transport->context =
        transport->own_context ? Py_NewRef(context) : PyContext_CopyCurrent();
    transport->waiter = waiter == Py_None ? NULL : Py_NewRef(waiter);
    return transport->context == NULL
               ? -1
               : hl_transport_start(transport, protocol, NULL);
}

PyObject *
hl_connector_finish(hl_loop *loop, PyObject *connector, PyObject *protocol,
                    PyObject *waiter, PyObject *context)
{
    hl_address peer;
    socklen_t size;
    hl_connector *self = (hl_connector *)connector;
    if (!Py_IS_TYPE(connector, hl_loop_state(loop)->Connector_type) ||
        self->loop != loop || self->fd < 0 || self->waiter != NULL) {
        PyErr_SetString(PyExc_TypeError, "not a connection of this loop");
        return NULL;
    }
    connector_peer(self, &peer, &size);
    hl_transport *transport =
        hl_transport_accepted(loop, self->fd, &peer, size);
    if (transport == NULL) {
        return NULL;
    }
    self->fd = -1;
    if (finish_start(self, transport, protocol, waiter, context) < 0) {
        hl_transport_discard(transport);
        Py_CLEAR(transport);
    }
    return (PyObject *)transport;
}

static PyObject *
Connector_close(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    connector_close((hl_connector *)op);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(Connector_close__doc__,
             "close($self)\n--\n\n"
             "Close the descriptor, unless a transport or socket has it.");

static PyObject *
Connector_fileno(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromLong(((hl_connector *)op)->fd);
}

PyDoc_STRVAR(Connector_fileno__doc__,
             "fileno($self)\n--\n\n"
             "Return the descriptor, -1 once it was closed or given away.");

static PyObject *
Connector_socket(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    hl_connector *self = (hl_connector *)op;
    hl_state *st = hl_loop_state(self->loop);
    PyObject *sock =
        PyObject_CallFunction(st->socket_type, "iiii", self->family,
                              self->type, self->proto, self->fd);
    if (sock != NULL) {
        self->fd = -1;
    }
    return sock;
}

PyDoc_STRVAR(Connector_socket__doc__,
             "socket($self)\n--\n\n"
             "Return a Python socket, which owns the descriptor from now on.");

static PyObject *
Connector_get_waiter(PyObject *op, void *Py_UNUSED(closure))
{
    PyObject *waiter = ((hl_connector *)op)->waiter;
    return Py_NewRef(waiter == NULL ? Py_None : waiter);
}

/* The member of an enum of the socket module. */
static PyObject *
socket_member(const char *name, int value)
{
    PyObject *module = PyImport_ImportModule("socket");
    if (module == NULL) {
        return NULL;
    }
    PyObject *member = PyObject_CallMethod(module, name, "i", value);
    Py_DECREF(module);
    return member;
}

static PyObject *
Connector_get_family(PyObject *op, void *Py_UNUSED(closure))
{
    return socket_member("AddressFamily", ((hl_connector *)op)->family);
}

static PyObject *
Connector_get_type(PyObject *op, void *Py_UNUSED(closure))
{
    return socket_member("SocketKind", ((hl_connector *)op)->type);
}

static PyObject *
Connector_get_proto(PyObject *op, void *Py_UNUSED(closure))
{
    return PyLong_FromLong(((hl_connector *)op)->proto);
}

static PyMethodDef Connector_methods[] = {
    {"close", Connector_close, METH_NOARGS, Connector_close__doc__},
    {"fileno", Connector_fileno, METH_NOARGS, Connector_fileno__doc__},
    {"socket", Connector_socket, METH_NOARGS, Connector_socket__doc__},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef Connector_getset[] = {
    {"waiter", Connector_get_waiter, NULL,
     PyDoc_STR("The future that ends the connecting; None if it has ended."),
     NULL},
    {"family", Connector_get_family, NULL,
     PyDoc_STR("As of a socket, for audit hooks."), NULL},
    {"type", Connector_get_type, NULL,
     PyDoc_STR("As of a socket, for audit hooks."), NULL},
    {"proto", Connector_get_proto, NULL,
     PyDoc_STR("As of a socket, for audit hooks."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static int
Connector_tp_traverse(PyObject *op, visitproc visit, void *arg)
{
    hl_connector *self = (hl_connector *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->loop);
    Py_VISIT(self->address);
    Py_VISIT(self->waiter);
    return 0;
}

static int
Connector_tp_clear(PyObject *op)
{
    hl_connector *self = (hl_connector *)op;
    connector_close(self);
    Py_CLEAR(self->address);
    Py_CLEAR(self->waiter);
    return 0;
}

static void
Connector_tp_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    (void)Connector_tp_clear(op);
    Py_CLEAR(((hl_connector *)op)->loop);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyType_Slot Connector_slots[] = {
    {Py_tp_doc, HL_DOC("A client connection that has no transport yet.")},
    {Py_tp_dealloc, HL_SLOT(Connector_tp_dealloc)},
    {Py_tp_traverse, HL_SLOT(Connector_tp_traverse)},
    {Py_tp_clear, HL_SLOT(Connector_tp_clear)},
    {Py_tp_methods, Connector_methods},
    {Py_tp_getset, Connector_getset},
    {0, NULL},
};

static PyType_Spec Connector_spec = {
    .name = "hotloop._core.Connector",
    .basicsize = sizeof(hl_connector),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC |
             Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = Connector_slots,
};

int
hl_connector_type_init(PyObject *module, hl_state *st)
{
    return hl_state_add_type(module, &st->Connector_type, &Connector_spec,
                             NULL);
}
