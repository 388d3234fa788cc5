/* extra.c - get_extra_info(), the socket object, and closing the descriptor.
 *
 * asyncio computes all of it when a connection begins; here it is computed
 * when asked for, and what could not be had later is kept raw.
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "io/stream.h"

#include "state/errors.h"

#include <string.h>
#include <unistd.h>

static int
extra_store(hl_transport *self, PyObject *name, PyObject *value)
{
    if (self->extra == NULL && (self->extra = PyDict_New()) == NULL) {
        return -1;
    }
    return PyDict_SetItem(self->extra, name, value);
}

/* sock.method(), or None if that raises OSError; into extra. */
static int
extra_store_call(hl_transport *self, PyObject *sock, PyObject *method,
                 PyObject *name)
{
    PyObject *value = PyObject_CallMethodNoArgs(sock, method);
    if (value == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_OSError)) {
            return -1;
        }
        PyErr_Clear();
        value = Py_NewRef(Py_None);
    }
    int rv = extra_store(self, name, value);
    Py_DECREF(value);
    return rv;
}

int
hl_transport_set_peer(hl_transport *self, const void *peer, size_t size)
{
    if (size <= sizeof(self->peer)) {
        memcpy(self->peer, peer, size);
        self->peer_size = (unsigned char)size;
        return 0;
    }
    hl_state *st = hl_loop_state(self->loop);
    PyObject *value = hl_address_to_python(peer, size);
    if (value == NULL) {
        return -1;
    }
    int rv = extra_store(self, st->str_peername, value);
    Py_DECREF(value);
    return rv;
}

int
hl_transport_learn_addresses(hl_transport *self, PyObject *sock)
{
    hl_state *st = hl_loop_state(self->loop);
    hl_address address;
    socklen_t size = sizeof(address);
    self->family = AF_UNSPEC;
    if (getsockname(self->fd, &address.sa, &size) == 0) {
        self->family = (short)address.sa.sa_family;
    }
    if (!hl_address_is_known(self->family)) {
        if (extra_store_call(self, sock, st->str_getsockname,
                             st->str_sockname) < 0) {
            return -1;
        }
    }
    else if ((self->sockname = PyBytes_FromStringAndSize(
                  (const char *)&address, (Py_ssize_t)size)) == NULL) {
        return -1;
    }
    int has_peer = self->extra == NULL
                       ? 0
                       : PyDict_Contains(self->extra, st->str_peername);
    if (has_peer != 0) {
        return has_peer < 0 ? -1 : 0;
    }
    if (!hl_address_is_known(self->family)) {
        return extra_store_call(self, sock, st->str_getpeername,
                                st->str_peername);
    }
    size = sizeof(address);
    if (getpeername(self->fd, &address.sa, &size) == 0) {
        return hl_transport_set_peer(self, &address, size);
    }
    return 0;
}

/* socket.socket(family, type, proto, fileno), non-blocking; without fileno a
 * closed one. */
static PyObject *
socket_make(hl_transport *self, hl_state *st, bool closed)
{
    PyObject *sock = PyObject_CallFunction(
        st->socket_type, closed ? "iii" : "iiii", (int)self->family,
        (int)self->sock_type, (int)self->proto, self->fd);
    if (sock == NULL || !closed) {
        return sock;
    }
    PyObject *res = PyObject_CallMethodNoArgs(sock, st->str_close);
    if (res == NULL) {
        Py_DECREF(sock);
        return NULL;
    }
    Py_DECREF(res);
    return sock;
}

/* The Python socket, closed or not, made if there is none.  Borrowed. */
static PyObject *
transport_need_sock(hl_transport *self)
{
    hl_state *st = hl_transport_state(self);
    if (self->sock != NULL || st == NULL) {
        return self->sock;
    }
    bool closed = !self->fd_open;
    PyObject *sock = socket_make(self, st, closed);
    if (sock == NULL) {
        return NULL;
    }
    self->sock = sock; /* from here on it owns the descriptor */
    self->sock_fd = closed ? NULL : hl_socket_fd(st, sock, self->fd);
    PyObject *res =
        closed
            ? Py_NewRef(Py_None)
            : PyObject_CallMethodOneArg(sock, st->str_setblocking, Py_False);
    if (res == NULL) {
        return NULL;
    }
    Py_DECREF(res);
    return self->sock;
}

PyObject *
hl_transport_socket(hl_transport *self)
{
    hl_transport_flush_layer(self);
    if (self->ops->flush(self) < 0) {
        return NULL;
    }
    if (!self->fd_open) {
        Py_RETURN_NONE;
    }
    return Py_XNewRef(transport_need_sock(self));
}

static PyObject *
extra_make_socket(hl_transport *self)
{
    hl_state *st = hl_transport_state(self);
    PyObject *sock = st == NULL ? NULL : transport_need_sock(self);
    return sock == NULL ? NULL
                        : PyObject_CallOneArg(st->TransportSocket, sock);
}

static PyObject *
extra_make_sockname(hl_transport *self)
{
    if (self->sockname != NULL) {
        return hl_address_to_python(PyBytes_AS_STRING(self->sockname),
                                    (size_t)PyBytes_GET_SIZE(self->sockname));
    }
    hl_address address;
    socklen_t size = sizeof(address);
    if (!self->fd_open ||
        getsockname(hl_transport_fd(self), &address.sa, &size) < 0) {
        Py_RETURN_NONE;
    }
    return hl_address_to_python(&address, size);
}

static PyObject *
extra_make_peername(hl_transport *self)
{
    return hl_address_to_python(self->peer, self->peer_size);
}

bool
hl_transport_sock_is_shared(const hl_transport *self)
{
    if (Py_REFCNT(self->sock) == 1) {
        return false;
    }
    /* The one that get_extra_info() made and keeps holds it, too. */
    PyObject *view =
        self->extra == NULL || Py_REFCNT(self->sock) > 2
            ? NULL
            : PyDict_GetItemWithError(self->extra,
                                      hl_loop_state(self->loop)->str_socket);
    if (view == NULL) {
        PyErr_Clear();
        return true;
    }
    return Py_REFCNT(view) > 1;
}

typedef PyObject *(*extra_maker)(hl_transport *);

/* What makes the value of name; NULL if it is not one of ours. */
static extra_maker
extra_find_maker(hl_state *st, PyObject *name)
{
    const struct {
        PyObject *name;
        extra_maker make;
    } table[] = {
        {st->str_socket, extra_make_socket},
        {st->str_sockname, extra_make_sockname},
        {st->str_peername, extra_make_peername},
    };
    for (size_t i = 0; i < Py_ARRAY_LENGTH(table); i++) {
        if (name == table[i].name) {
            return table[i].make;
        }
    }
    if (!PyUnicode_Check(name) || PyUnicode_CHECK_INTERNED(name)) {
        return NULL;
    }
    for (size_t i = 0; i < Py_ARRAY_LENGTH(table); i++) {
        if (PyUnicode_Compare(name, table[i].name) == 0) {
            return table[i].make;
        }
    }
    return NULL;
}

PyObject *
hl_transport_extra_info(hl_transport *self, PyObject *name, PyObject *dflt)
{
    hl_state *st = hl_transport_state(self);
    if (st == NULL) {
        return NULL;
    }
    extra_maker make =
        self->ops->is_socket ? extra_find_maker(st, name) : NULL;
    if (make == extra_make_socket) {
        hl_transport_flush_layer(self);
        if (self->ops->flush(self) < 0) {
            return NULL; /* whoever holds the socket must find it all sent */
        }
    }
    if (self->extra != NULL) {
        PyObject *value = PyDict_GetItemWithError(self->extra, name);
        if (value != NULL) {
            return Py_NewRef(value);
        }
        if (PyErr_Occurred()) {
            return NULL;
        }
    }
    else if (make == NULL && PyObject_Hash(name) == -1) {
        return NULL; /* as the lookup in a dict would say */
    }
    if (make == NULL) {
        return Py_NewRef(dflt);
    }
    PyObject *value = make(self);
    if (value != NULL && extra_store(self, name, value) < 0) {
        Py_CLEAR(value);
    }
    return value;
}

PyObject *
hl_transport_extra_dict(hl_transport *self)
{
    if (!self->ops->is_socket) {
        return Py_NewRef(self->extra != NULL ? self->extra : Py_None);
    }
    hl_state *st = hl_transport_state(self);
    if (st == NULL) {
        return NULL;
    }
    PyObject *names[] = {st->str_socket, st->str_sockname, st->str_peername};
    for (size_t i = 0; i < Py_ARRAY_LENGTH(names); i++) {
        PyObject *value = hl_transport_extra_info(self, names[i], Py_None);
        if (value == NULL) {
            return NULL;
        }
        Py_DECREF(value);
    }
    return Py_XNewRef(self->extra);
}

/* The own address, while the kernel still tells it. */
static int
transport_keep_sockname(hl_transport *self)
{
    hl_address address;
    socklen_t size = sizeof(address);
    if (self->sockname != NULL || !hl_address_is_known(self->family) ||
        getsockname(hl_transport_fd(self), &address.sa, &size) < 0) {
        return 0;
    }
    self->sockname =
        PyBytes_FromStringAndSize((const char *)&address, (Py_ssize_t)size);
    return self->sockname == NULL ? -1 : 0;
}

int
hl_transport_close_fd(hl_transport *self)
{
    if (!self->fd_open) {
        return 0;
    }
    if (transport_keep_sockname(self) < 0) {
        PyErr_Clear(); /* get_extra_info() will say None */
    }
    self->fd_open = false;
    if (self->sock == NULL) {
        close(self->fd);
        return 0;
    }
    hl_state *st = hl_transport_state(self);
    PyObject *res = st == NULL
                        ? NULL
                        : PyObject_CallMethodNoArgs(self->sock, st->str_close);
    if (res == NULL) {
        return -1;
    }
    Py_DECREF(res);
    return 0;
}
