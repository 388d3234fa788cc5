/* datagram.c - how a datagram transport begins, and how its errors are told.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "io/datagram.h"

#include "state/errors.h"

static int
datagram_pick_feed(hl_transport *op, PyObject *protocol)
{
    hl_datagram *self = hl_datagram_of(op);
    hl_state *st = hl_transport_state(op);
    if (st == NULL) {
        return -1;
    }
    int views = hl_protocol_has(protocol, st->str_datagram_memoryview);
    if (views > 0) {
        PyObject *flag =
            PyObject_GenericGetAttr(protocol, st->str_datagram_memoryview);
        views = flag == NULL ? -1 : PyObject_IsTrue(flag);
        Py_XDECREF(flag);
    }
    int messages = hl_protocol_has(protocol, st->str_datagram_msg_received);
    if (views < 0 || messages < 0) {
        return -1;
    }
    self->views = views > 0;
    self->messages = messages > 0;
    return 0;
}

static PyObject *
datagram_write_name(hl_state *st)
{
    return st->str__sendto_ready;
}

static void
datagram_drop(hl_transport *op, bool send)
{
    hl_datagram *self = hl_datagram_of(op);
    while (send && !op->blocked && self->queue.count > 0 &&
           hl_batch_can_send(hl_datagramq_item(&self->queue, 0), self->peer)) {
        int sent = hl_batch_send(&self->caps, hl_transport_fd(op),
                                 &self->queue, self->peer);
        if (sent == -EAGAIN) {
            break;
        }
        hl_datagram_count_sent(self, sent > 0 ? (uint32_t)sent : 0);
        hl_datagramq_pop(&self->queue, sent > 0 ? (uint32_t)sent : 1);
        op->loop->must_poll = true;
    }
    hl_datagramq_clear(&self->queue);
}

static size_t
datagram_count(const hl_transport *op)
{
    return ((const hl_datagram *)op)->queue.count;
}

static size_t
datagram_size(const hl_transport *op)
{
    const hl_datagramq *queue = &((const hl_datagram *)op)->queue;
    return queue->bytes + (size_t)queue->count * HL_DATAGRAM_HEADER;
}

static const hl_transport_ops datagram_ops = {
    .name = "DatagramTransport",
    .link = HL_LINK_DATAGRAM,
    .is_socket = true,
    .merge_max = 64 * 1024,
    .pick_feed = datagram_pick_feed,
    .on_readable = hl_datagram_on_readable,
    .on_writable = hl_datagram_on_writable,
    .write_name = datagram_write_name,
    .flush = hl_datagram_flush,
    .drop = datagram_drop,
    .count = datagram_count,
    .size = datagram_size,
    .is_quiet = hl_transport_os_error,
    .fatal_error = "Fatal error on transport",
    .read_error = "Fatal read error on datagram transport",
    .write_error = "Fatal write error on datagram transport",
    .lost_warning = "socket.send() raised exception.",
};

/* What sendto() and the reading side want to know of the socket. */
static int
datagram_learn(hl_datagram *self)
{
    hl_transport *base = &self->base;
    hl_state *st = hl_loop_state(base->loop);
    PyObject *peer = hl_transport_extra_info(base, st->str_peername, Py_None);
    int has_peer = peer == NULL ? -1 : PyObject_IsTrue(peer);
    Py_XDECREF(peer);
    int fixed = self->address == NULL ? 0 : PyObject_IsTrue(self->address);
    if (has_peer < 0 || fixed < 0) {
        return -1;
    }
    int type = 0;
    socklen_t size = sizeof(type);
    if (getsockopt(base->fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0) {
        type = 0;
    }
    self->peer = has_peer > 0;
    self->fixed = fixed > 0;
    self->known = hl_address_is_known(base->family);
    self->whole = type == SOCK_DGRAM || type == SOCK_RAW;
    self->asked = 1;
    hl_batch_probe(&self->caps, base->fd);
    return 0;
}

PyObject *
hl_datagram_new(hl_loop *loop, PyObject *sock, PyObject *protocol,
                PyObject *address, PyObject *waiter, PyObject *extra)
{
    int fd = hl_transport_fd_of(loop, sock);
    hl_transport *base =
        fd < 0
            ? NULL
            : hl_transport_alloc(loop,
                                 hl_loop_state(loop)->DatagramTransport_type,
                                 &datagram_ops);
    if (base == NULL) {
        return NULL;
    }
    hl_datagram *self = hl_datagram_of(base);
    base->fd = fd;
    if (address != NULL && address != Py_None) {
        self->address = Py_NewRef(address);
    }
    if (hl_transport_adopt(base, sock, protocol, waiter, extra, NULL, NULL) <
        0) {
        Py_DECREF(base);
        return NULL;
    }
    if (datagram_learn(self) < 0) {
        hl_transport_discard(base);
        Py_CLEAR(base);
    }
    return (PyObject *)base;
}

/* protocol.error_received(exc) */
static int
datagram_tell_error(hl_datagram *self, PyObject *exc)
{
    hl_transport *base = &self->base;
    if (base->protocol == NULL) {
        return 0;
    }
    PyObject *protocol = Py_NewRef(base->protocol);
    PyObject *res = PyObject_CallMethodOneArg(
        protocol, hl_loop_state(base->loop)->str_error_received, exc);
    Py_DECREF(protocol);
    if (res == NULL) {
        return -1;
    }
    Py_DECREF(res);
    return 0;
}

int
hl_datagram_error(hl_datagram *self, int err)
{
    PyObject *exc = hl_os_error(err);
    if (exc == NULL) {
        return -1;
    }
    int rv = datagram_tell_error(self, exc);
    Py_DECREF(exc);
    return rv;
}

int
hl_datagram_failed(hl_datagram *self, const char *message)
{
    if (!PyErr_ExceptionMatches(PyExc_OSError)) {
        return hl_transport_callback_failed(&self->base, message);
    }
    PyObject *exc = hl_error_fetch();
    int rv = datagram_tell_error(self, exc);
    Py_DECREF(exc);
    return rv;
}
