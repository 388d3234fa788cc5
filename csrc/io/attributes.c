/* attributes.c - repr() of a transport, and the attributes of asyncio's.
 *
 * They are private there, and libraries read them all the same.
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "io/stream.h"

#define SELF(op) ((hl_transport *)(op))

static PyObject *
value_or_none(PyObject *value)
{
    return Py_NewRef(value != NULL ? value : Py_None);
}

/* The part of repr() that only an open transport has; "" otherwise. */
static PyObject *
repr_polling(hl_transport *self)
{
    if (self->loop == NULL || self->loop->closed) {
        return PyUnicode_FromString("");
    }
    return PyUnicode_FromFormat(
        " read=%s write=<%s, bufsize=%zu>", self->reading ? "polling" : "idle",
        self->blocked ? "polling" : "idle",
        self->blocked ? self->ops->size(self) : (size_t)0);
}

PyObject *
hl_transport_repr(PyObject *op)
{
    hl_transport *self = SELF(op);
    const char *state = "";
    if (!self->fd_open) {
        state = " closed";
    }
    else if (self->closing) {
        state = " closing";
    }
    PyObject *polling = repr_polling(self);
    if (polling == NULL) {
        return NULL;
    }
    PyObject *rv = PyUnicode_FromFormat("<%s%s fd=%d%U>", self->ops->name,
                                        state, self->fd, polling);
    Py_DECREF(polling);
    return rv;
}

static PyObject *
Transport_get__sock(PyObject *op, void *Py_UNUSED(closure))
{
    return hl_transport_socket(SELF(op));
}

static PyObject *
Transport_get__sock_fd(PyObject *op, void *Py_UNUSED(closure))
{
    return PyLong_FromLong(SELF(op)->fd);
}

static PyObject *
Transport_get__loop(PyObject *op, void *Py_UNUSED(closure))
{
    return value_or_none((PyObject *)SELF(op)->loop);
}

static PyObject *
Transport_get__protocol(PyObject *op, void *Py_UNUSED(closure))
{
    return value_or_none(SELF(op)->protocol);
}

static PyObject *
Transport_get__server(PyObject *op, void *Py_UNUSED(closure))
{
    return value_or_none(SELF(op)->server);
}

static PyObject *
Transport_get__extra(PyObject *op, void *Py_UNUSED(closure))
{
    return hl_transport_extra_dict(SELF(op));
}

static PyObject *
SocketTransport_get__empty_waiter(PyObject *op, void *Py_UNUSED(closure))
{
    return value_or_none(SELF(op)->empty_waiter);
}

/* The unsent chunks as a list of bytes. */
static PyObject *
buffer_as_list(hl_transport *self)
{
    if (hl_transport_buffer_size(self) < 0) {
        return NULL;
    }
    PyObject *list = PyList_New(0);
    for (uint32_t i = 0; list != NULL && i < self->queue.count; i++) {
        const hl_chunk *chunk = hl_writeq_chunk(&self->queue, i);
        PyObject *bytes =
            PyBytes_FromStringAndSize(chunk->data, (Py_ssize_t)chunk->size);
        if (bytes == NULL || PyList_Append(list, bytes) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(bytes);
    }
    return list;
}

static PyObject *
list_as_bytearray(PyObject *list)
{
    PyObject *joined = NULL;
    PyObject *empty = PyBytes_FromStringAndSize(NULL, 0);
    if (empty != NULL) {
        joined = PyObject_CallMethod(empty, "join", "O", list);
        Py_DECREF(empty);
    }
    PyObject *rv = joined == NULL ? NULL : PyByteArray_FromObject(joined);
    Py_XDECREF(joined);
    return rv;
}

/* A copy: a deque of chunks; of pipes, and on 3.11, a bytearray. */
static PyObject *
SocketTransport_get__buffer(PyObject *op, void *Py_UNUSED(closure))
{
    hl_state *st = hl_transport_state(SELF(op));
    PyObject *list = st == NULL ? NULL : buffer_as_list(SELF(op));
    if (list == NULL) {
        return NULL;
    }
    bool chunks = PY_VERSION_HEX >= 0x030C0000 && SELF(op)->ops->is_socket;
    PyObject *rv = chunks ? PyObject_CallOneArg(st->deque, list)
                          : list_as_bytearray(list);
    Py_DECREF(list);
    return rv;
}

static PyObject *
Transport_get__conn_lost(PyObject *op, void *Py_UNUSED(closure))
{
    hl_transport *self = SELF(op);
    return PyLong_FromUnsignedLong(self->ops->is_socket ? self->conn_lost
                                                        : self->dropped);
}

static PyObject *
Transport_get__closing(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(SELF(op)->closing);
}

static PyObject *
Transport_get__paused(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(SELF(op)->paused);
}

static PyObject *
SocketTransport_get__eof(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(SELF(op)->eof);
}

static PyObject *
Transport_get__protocol_paused(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(SELF(op)->protocol_paused);
}

static PyObject *
Transport_get__protocol_connected(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(SELF(op)->connected);
}

static PyObject *
Transport_get__high_water(PyObject *op, void *Py_UNUSED(closure))
{
    return hl_flow_high(SELF(op));
}

static PyObject *
Transport_get__low_water(PyObject *op, void *Py_UNUSED(closure))
{
    return hl_flow_low(SELF(op));
}

#if PY_VERSION_HEX >= 0x030F0000
static PyObject *
Transport_get__buffer_size(PyObject *op, void *Py_UNUSED(closure))
{
    Py_ssize_t size = hl_transport_buffer_size(SELF(op));
    return size < 0 ? NULL : PyLong_FromSsize_t(size);
}

static PyObject *
Transport_get__context(PyObject *op, void *Py_UNUSED(closure))
{
    hl_transport *self = SELF(op);
    return value_or_none(self->own_context ? self->context : NULL);
}
#endif

#define GETTER(type, name) {#name, type##_get_##name, NULL, NULL, NULL}

PyGetSetDef hl_transport_getset[] = {
    GETTER(Transport, _sock),
    GETTER(Transport, _sock_fd),
    GETTER(Transport, _loop),
    GETTER(Transport, _protocol),
    GETTER(Transport, _server),
    GETTER(Transport, _extra),
    GETTER(Transport, _conn_lost),
    GETTER(Transport, _closing),
    GETTER(Transport, _paused),
    GETTER(Transport, _protocol_paused),
    GETTER(Transport, _protocol_connected),
    GETTER(Transport, _high_water),
    GETTER(Transport, _low_water),
#if PY_VERSION_HEX >= 0x030F0000
    GETTER(Transport, _buffer_size),
    GETTER(Transport, _context),
#endif
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyGetSetDef hl_stream_getset[] = {
    GETTER(SocketTransport, _empty_waiter),
    GETTER(SocketTransport, _buffer),
    GETTER(SocketTransport, _eof),
    {NULL, NULL, NULL, NULL, NULL},
};
