/* datagram_type.c - the Python side of DatagramTransport.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "io/datagram.h"

#include "base/args.h"

#define BASE(op) ((hl_transport *)(op))
#define SELF(op) ((hl_datagram *)(op))

static PyObject *
DatagramTransport_sendto(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                         PyObject *kwnames)
{
    static const char *const names[] = {"data", "addr", NULL};
    static const hl_params params = {"sendto", names, 2, 1};
    PyObject *v[2];
    if (HL_LIKELY(kwnames == NULL && nargs == 2)) {
        return hl_none_or_null(
            hl_datagram_sendto(SELF(op), args[0], args[1], NULL));
    }
    if (hl_params_parse(&params, args, nargs, kwnames, v) < 0) {
        return NULL;
    }
    return hl_none_or_null(hl_datagram_sendto(
        SELF(op), v[0], v[1] != NULL ? v[1] : Py_None, NULL));
}

PyDoc_STRVAR(
    DatagramTransport_sendto__doc__,
    "sendto($self, data, addr=None)\n--\n\n"
    "Send one datagram: bytes, a bytearray or a memoryview; never blocks.\n\n"
    "addr is an address as for socket.sendto(), None for the one the\n"
    "transport was made with.  The first datagram of a turn of the loop is\n"
    "sent at once, those after it at the end of the turn.  Raises TypeError\n"
    "for other types and ValueError for another addr than the transport's\n"
    "own; what the system objects to goes to protocol.error_received().  As\n"
    "asyncio.DatagramTransport.sendto().");

static PyObject *
DatagramTransport_sendmsg(PyObject *op, PyObject *const *args,
                          Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"data", "ancdata", "addr", NULL};
    static const hl_params params = {"sendmsg", names, 3, 2};
    hl_datagram *self = SELF(op);
    PyObject *v[3];
    if (hl_params_parse(&params, args, nargs, kwnames, v) < 0) {
        return NULL;
    }
    PyObject *addr = v[2] != NULL ? v[2] : Py_None;
    PyObject *where = addr == Py_None && self->fixed ? self->address : addr;
    if (!self->peer &&
        (!self->known ||
         hl_peers_raw(&self->peers, self->base.family, where) == NULL)) {
        if (!PyErr_Occurred()) {
            PyErr_Format(PyExc_ValueError,
                         "sendmsg() takes no address like %R", addr);
        }
        return NULL;
    }
    PyObject *ancillary = hl_ancillary_to_raw(v[1]);
    if (ancillary == NULL) {
        return NULL;
    }
    int rv = hl_datagram_sendto(
        self, v[0], addr, PyBytes_GET_SIZE(ancillary) > 0 ? ancillary : NULL);
    Py_DECREF(ancillary);
    return hl_none_or_null(rv);
}

PyDoc_STRVAR(
    DatagramTransport_sendmsg__doc__,
    "sendmsg($self, data, ancdata, addr=None)\n--\n\n"
    "Send one datagram with control messages, as sendto() otherwise.\n\n"
    "ancdata is an iterable of (level, type, data) tuples as for\n"
    "socket.sendmsg().  Raises ValueError for an addr with a host name, or "
    "of\n"
    "a family that is neither the internet's nor AF_UNIX.");

static PyObject *
DatagramTransport_resume_reading(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    if (hl_transport_resume_reading(BASE(op)) < 0) {
        return NULL;
    }
    return hl_none_or_null(hl_datagram_resumed(SELF(op)));
}

PyDoc_STRVAR(DatagramTransport_resume_reading__doc__,
             "resume_reading($self)\n--\n\n"
             "Receive again after pause_reading(); idempotent.");

static PyObject *
DatagramTransport__read_ready(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return hl_none_or_null(hl_datagram_read(SELF(op)));
}

static PyObject *
DatagramTransport__sendto_ready(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return hl_none_or_null(hl_datagram_on_writable(BASE(op)));
}

/* Only for a socket that nobody else has: others would not know that what they
 * receive is several datagrams. */
static PyObject *
DatagramTransport__join_segments(PyObject *op, PyObject *value)
{
    hl_datagram *self = SELF(op);
    int on = PyObject_IsTrue(value);
    if (on < 0) {
        return NULL;
    }
    return PyBool_FromLong(
        self->base.fd_open && self->caps.segments && self->known &&
        hl_batch_join(&self->caps, hl_transport_fd(&self->base), on > 0));
}

static PyMethodDef DatagramTransport_methods[] = {
    {"sendto", HL_FASTCALL(DatagramTransport_sendto),
     METH_FASTCALL | METH_KEYWORDS, DatagramTransport_sendto__doc__},
    {"sendmsg", HL_FASTCALL(DatagramTransport_sendmsg),
     METH_FASTCALL | METH_KEYWORDS, DatagramTransport_sendmsg__doc__},
    {"resume_reading", DatagramTransport_resume_reading, METH_NOARGS,
     DatagramTransport_resume_reading__doc__},
    {"_read_ready", DatagramTransport__read_ready, METH_NOARGS,
     "_read_ready($self)\n--\n\n"},
    {"_sendto_ready", DatagramTransport__sendto_ready, METH_NOARGS,
     "_sendto_ready($self)\n--\n\n"},
    {"_join_segments", DatagramTransport__join_segments, METH_O,
     "_join_segments($self, on, /)\n--\n\n"
     "Have the kernel join received datagrams of one flow (GRO).\n\n"
     "Return False where it cannot.  They arrive one by one all the same."},
    {NULL, NULL, 0, NULL},
};

static PyObject *
DatagramTransport_get__address(PyObject *op, void *Py_UNUSED(closure))
{
    PyObject *address = SELF(op)->address;
    return Py_NewRef(address != NULL ? address : Py_None);
}

/* A copy: a deque of (data, addr). */
static PyObject *
DatagramTransport_get__buffer(PyObject *op, void *Py_UNUSED(closure))
{
    hl_datagram *self = SELF(op);
    hl_state *st = hl_transport_state(BASE(op));
    if (st == NULL || hl_datagram_flush(BASE(op)) < 0) {
        return NULL;
    }
    PyObject *list = PyList_New(0);
    for (uint32_t i = 0; list != NULL && i < self->queue.count; i++) {
        const hl_datagram_item *item = hl_datagramq_item(&self->queue, i);
        PyObject *pair = PyTuple_Pack(2, item->data, item->addr);
        if (pair == NULL || PyList_Append(list, pair) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(pair);
    }
    PyObject *rv = list == NULL ? NULL : PyObject_CallOneArg(st->deque, list);
    Py_XDECREF(list);
    return rv;
}

static PyObject *
DatagramTransport_get__buffer_size(PyObject *op, void *Py_UNUSED(closure))
{
    Py_ssize_t size = hl_transport_buffer_size(BASE(op));
    return size < 0 ? NULL : PyLong_FromSsize_t(size);
}

/* Are recvmmsg() and sendmmsg() in use?  Can be switched off. */
static PyObject *
DatagramTransport_get__mmsg(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(SELF(op)->caps.many);
}

static int
DatagramTransport_set__mmsg(PyObject *op, PyObject *value,
                            void *Py_UNUSED(closure))
{
    int on = value == NULL ? 0 : PyObject_IsTrue(value);
    if (on < 0) {
        return -1;
    }
    SELF(op)->caps.many = SELF(op)->caps.many && on > 0;
    return 0;
}

static PyGetSetDef DatagramTransport_getset[] = {
    {"_address", DatagramTransport_get__address, NULL, NULL, NULL},
    {"_buffer", DatagramTransport_get__buffer, NULL, NULL, NULL},
    {"_buffer_size", DatagramTransport_get__buffer_size, NULL, NULL, NULL},
    {"_mmsg", DatagramTransport_get__mmsg, DatagramTransport_set__mmsg, NULL,
     NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static int
DatagramTransport_tp_traverse(PyObject *op, visitproc visit, void *arg)
{
    hl_datagram *self = SELF(op);
    Py_VISIT(self->address);
    int rv = hl_datagramq_traverse(&self->queue, visit, arg);
    if (rv == 0) {
        rv = hl_inbox_traverse(&self->inbox, visit, arg);
    }
    return rv != 0 ? rv : hl_transport_traverse(op, visit, arg);
}

static int
DatagramTransport_tp_clear(PyObject *op)
{
    hl_datagram *self = SELF(op);
    (void)hl_transport_clear(op);
    hl_datagramq_clear(&self->queue);
    hl_inbox_clear(&self->inbox);
    hl_peers_clear(&self->peers);
    Py_CLEAR(self->address);
    Py_CLEAR(self->area);
    return 0;
}

PyDoc_STRVAR(
    DatagramTransport__doc__,
    "A datagram endpoint of a hotloop event loop: UDP, Unix or another.\n\n"
    "Behaves as asyncio's own selector transport; made by the loop only.");

static const hl_transport_spec DatagramTransport_spec = {
    .name = "hotloop._core.DatagramTransport",
    .doc = DatagramTransport__doc__,
    .size = sizeof(hl_datagram),
    .repr = hl_transport_repr,
    .traverse = DatagramTransport_tp_traverse,
    .clear = DatagramTransport_tp_clear,
    .methods = DatagramTransport_methods,
    .getset = DatagramTransport_getset,
};

int
hl_datagram_type_init(PyObject *module, hl_state *st)
{
    PyObject *bases =
        PyTuple_Pack(2, st->Transport_type, st->asyncio_DatagramTransport);
    if (bases == NULL) {
        return -1;
    }
    int rv = hl_transport_add_type(module, &st->DatagramTransport_type,
                                   &DatagramTransport_spec, bases);
    Py_DECREF(bases);
    return rv;
}
