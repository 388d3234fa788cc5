/* datagram_send.c - the sending side of a datagram transport.
 *
 * The first datagram of a turn is sent at once, as asyncio does, with its
 * errors told inside sendto().  What follows in the same turn, and what is
 * sent while a batch is handed over, is deferred and leaves in one call.  The
 * queue is in one of three states: empty, deferred, or blocked, the kernel
 * having refused what is in it, which is all that asyncio would call its
 * buffer.
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "io/datagram.h"

#include "state/errors.h"

#include <errno.h>

/* A longer datagram is sent at once: the call is the least of its cost, and
 * its size may be too much for the socket. */
#define DEFER_MAX 8192

enum {
    SENT_ALL = 0,
    SENT_NO_MORE, /* the kernel is full */
    SENT_ERROR,   /* an error was told; there may be more to send */
};

/* sock.sendto(data, addr): what only the socket object can send.  0 or -1. */
static int
send_by_socket(hl_datagram *self, PyObject *data, PyObject *addr)
{
    hl_transport *base = &self->base;
    hl_state *st = hl_loop_state(base->loop);
    PyObject *args[] = {base->sock, data, addr};
    base->loop->must_poll = true;
    PyObject *res = PyObject_VectorcallMethod(
        st->str_sendto, args, 3 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    if (res == NULL) {
        return -1;
    }
    size_t size = PyLong_Check(res) ? PyLong_AsSize_t(res) : 0;
    Py_DECREF(res);
    if (PyErr_Occurred()) {
        PyErr_Clear(); /* a socket of the program's says what it likes */
        size = 0;
    }
    if (base->loop != NULL) {
        hl_count_datagrams_sent(&base->loop->counts, 1, size);
    }
    return 0;
}

static bool
error_is_full(void)
{
    return PyErr_ExceptionMatches(PyExc_BlockingIOError) ||
           PyErr_ExceptionMatches(PyExc_InterruptedError);
}

/* The first of the queue, by way of the socket object.  1 when the kernel is
 * full, 0 when done, -1 with an exception that is told or fatal. */
static int
queue_send_by_socket(hl_datagram *self)
{
    hl_datagram_item *item = hl_datagramq_item(&self->queue, 0);
    PyObject *data = Py_NewRef(item->data), *addr = Py_NewRef(item->addr);
    self->sending = true; /* the call may run Python that sends, too */
    int rv = send_by_socket(self, data, addr);
    self->sending = false;
    Py_DECREF(data);
    Py_DECREF(addr);
    if (rv < 0 && error_is_full()) {
        PyErr_Clear();
        return 1;
    }
    return rv;
}

/* Sends the queue, up to the first datagram that something is wrong with: that
 * is told.  -1 with an exception of the protocol's. */
static int
queue_send(hl_datagram *self)
{
    hl_transport *base = &self->base;
    while (self->queue.count > 0 && base->loop != NULL) {
        int sent, rv;
        if (hl_batch_can_send(hl_datagramq_item(&self->queue, 0),
                              self->peer)) {
            sent = hl_batch_send(&self->caps, hl_transport_fd(base),
                                 &self->queue, self->peer);
            base->loop->must_poll = true;
            if (sent > 0) {
                hl_datagram_count_sent(self, (uint32_t)sent);
                hl_datagramq_pop(&self->queue, (uint32_t)sent);
                continue;
            }
            if (sent == 0 || sent == -EAGAIN) {
                return SENT_NO_MORE;
            }
            hl_datagramq_pop(&self->queue, 1);
            rv = hl_datagram_error(self, -sent);
        }
        else {
            rv = queue_send_by_socket(self);
            if (rv > 0) {
                return SENT_NO_MORE;
            }
            PyObject *exc = rv < 0 ? hl_error_fetch() : NULL;
            hl_datagramq_pop(&self->queue, 1);
            if (exc == NULL) {
                continue;
            }
            hl_error_restore(exc);
            rv = hl_datagram_failed(self, self->base.ops->write_error);
        }
        return rv < 0 ? -1 : SENT_ERROR;
    }
    return SENT_ALL;
}

/* error_received() raised: asyncio's sendto() would have passed that on, and
 * the next datagram had its turn all the same.  Reports what does not end the
 * run, and returns the rest. */
static PyObject *
flush_report(hl_datagram *self, hl_loop *loop)
{
    int rv = hl_entry_end(loop, Py_NewRef((PyObject *)self), -1,
                          hl_loop_state(loop)->str__sendto_ready, NULL, NULL);
    return rv < 0 ? hl_error_fetch() : NULL;
}

int
hl_datagram_flush(hl_transport *base)
{
    hl_datagram *self = hl_datagram_of(base);
    PyObject *ending = NULL;
    /* An error_received() that sends what fails again gets a turn for it. */
    uint32_t patience = self->queue.count;
    int rv = SENT_ALL;
    self->burst = base->flush_queued;
    while (self->queue.count > 0 && !base->blocked && !self->sending &&
           base->loop != NULL) {
        hl_loop *loop = (hl_loop *)Py_NewRef((PyObject *)base->loop);
        rv = queue_send(self);
        PyObject *exc = rv < 0 ? flush_report(self, loop) : NULL;
        Py_DECREF(loop);
        if (exc != NULL) {
            Py_XSETREF(ending, exc);
        }
        if (rv == SENT_NO_MORE || rv == SENT_ALL || patience-- == 0) {
            break;
        }
    }
    if (rv == SENT_NO_MORE) {
        rv = hl_transport_write_block(base);
    }
    else if (self->queue.count > 0 && !base->blocked && base->loop != NULL) {
        rv = hl_transport_flush_soon(base);
    }
    else {
        rv = 0;
        if (!base->blocked) {
            Py_CLEAR(base->write_context);
        }
    }
    if (ending != NULL) {
        hl_error_restore(ending);
        return -1;
    }
    return rv;
}

/* The buffer is empty: what waited for that is due. */
static int
queue_drained(hl_datagram *self)
{
    hl_transport *base = &self->base;
    Py_CLEAR(base->write_context);
    if (base->conn_lost) {
        return 0;
    }
    if (base->closing) {
        hl_transport_drop_watcher(base);
        return hl_transport_call_lost(base, NULL);
    }
    return hl_transport_update_watcher(base);
}

int
hl_datagram_on_writable(hl_transport *base)
{
    hl_datagram *self = hl_datagram_of(base);
    if (base->loop == NULL || !base->blocked || self->sending) {
        return 0;
    }
    int sent = queue_send(self);
    if (sent < 0 || sent == SENT_ERROR || base->loop == NULL ||
        base->conn_lost) {
        return sent < 0 ? -1 : 0; /* the next event goes on */
    }
    base->blocked = self->queue.count > 0;
    int rv = hl_flow_maybe_resume(base); /* may send */
    PyObject *exc = rv < 0 ? hl_error_fetch() : NULL;
    rv = hl_datagram_flush(base);
    if (rv == 0 && self->queue.count == 0 && base->loop != NULL) {
        rv = queue_drained(self);
    }
    if (exc != NULL) {
        PyErr_Clear();
        hl_error_restore(exc);
        return -1;
    }
    return rv;
}

static int
send_wrong_type(PyObject *data)
{
    PyObject *name =
        PyObject_GetAttrString((PyObject *)Py_TYPE(data), "__name__");
    if (name != NULL) {
        PyErr_Format(PyExc_TypeError,
                     "data argument must be a bytes-like object, not %R",
                     name);
        Py_DECREF(name);
    }
    return -1;
}

/* addr not in (None, self._address): 1 if it is, 0 if not, -1. */
static int
is_own_address(hl_datagram *self, PyObject *addr)
{
    if (addr == Py_None || addr == self->address) {
        return 1;
    }
    int rv = PyObject_RichCompareBool(Py_None, addr, Py_EQ);
    if (rv == 0) {
        rv = PyObject_RichCompareBool(self->address, addr, Py_EQ);
    }
    return rv;
}

/* Queues a datagram, in a copy unless it is a bytes object.  raw is borrowed
 * from the peers, or NULL. */
static int
send_queue(hl_datagram *self, PyObject *data, PyObject *addr, PyObject *raw,
           PyObject *ancillary)
{
    Py_XINCREF(raw);
    PyObject *bytes =
        PyBytes_CheckExact(data) ? Py_NewRef(data) : PyBytes_FromObject(data);
    int rv = -1;
    if (bytes != NULL) {
        rv = hl_datagramq_push(&self->queue, bytes, addr, raw, ancillary);
        Py_DECREF(bytes);
    }
    Py_XDECREF(raw);
    return rv;
}

/* The kernel is full already, or was just now. */
static int
send_buffer(hl_datagram *self, PyObject *data, PyObject *addr,
            PyObject *ancillary)
{
    PyObject *raw = NULL;
    if (!self->peer && self->known) {
        raw = hl_peers_raw(&self->peers, self->base.family, addr);
        if (raw == NULL && PyErr_Occurred()) {
            return -1;
        }
    }
    return send_queue(self, data, addr, raw, ancillary) < 0
               ? -1
               : hl_flow_maybe_pause(&self->base);
}

/* May a datagram of this size wait for the end of the turn?  Only as much as
 * never calls for pause_writing(). */
static bool
may_wait(hl_datagram *self, size_t size)
{
    hl_transport *base = &self->base;
    if (!self->burst &&
        !(base->in_read && self->inbox.head != self->inbox.count)) {
        return false;
    }
    size_t waiting = base->ops->size(base) + size + HL_DATAGRAM_HEADER;
    return size <= DEFER_MAX && !base->conn_lost &&
           waiting <= Py_MIN(base->ops->merge_max, (size_t)base->high);
}

/* Something was sent: what follows in this turn may wait for its end. */
static int
open_burst(hl_datagram *self)
{
    hl_transport *base = &self->base;
    base->loop->must_poll = true;
    if (self->burst || base->conn_lost) {
        return 0;
    }
    int rv = base->in_read ? 0 : hl_transport_defer_flush(base);
    self->burst = rv == 0;
    return rv < 0 ? -1 : 0;
}

static int
send_error(hl_datagram *self, int err, PyObject *data, PyObject *addr)
{
    if (err == EAGAIN || err == EWOULDBLOCK) {
        return send_buffer(self, data, addr, NULL) < 0
                   ? -1
                   : hl_transport_write_block(&self->base);
    }
    return hl_datagram_error(self, err);
}

/* Sends at once to an address that only the socket object knows. */
static int
send_unknown(hl_datagram *self, PyObject *data, PyObject *addr)
{
    if (send_by_socket(self, data, addr) == 0) {
        return 0;
    }
    if (error_is_full()) {
        PyErr_Clear();
        return send_error(self, EAGAIN, data, addr);
    }
    return hl_datagram_failed(self, self->base.ops->write_error);
}

/* Sends at once; raw is NULL for the peer. */
static int
send_known(hl_datagram *self, PyObject *data, PyObject *addr, PyObject *raw)
{
    int err;
    size_t size;
    if (HL_LIKELY(PyBytes_CheckExact(data))) {
        size = (size_t)PyBytes_GET_SIZE(data);
        err = hl_batch_send_one(hl_transport_fd(&self->base),
                                PyBytes_AS_STRING(data), size, raw);
    }
    else {
        Py_buffer view;
        if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
            return hl_transport_callback_failed(&self->base,
                                                self->base.ops->write_error);
        }
        size = (size_t)view.len;
        err = hl_batch_send_one(hl_transport_fd(&self->base), view.buf, size,
                                raw);
        PyBuffer_Release(&view);
    }
    if (err != 0) {
        return send_error(self, err, data, addr);
    }
    hl_count_datagrams_sent(&self->base.loop->counts, 1, size);
    return open_burst(self);
}

/* Sends at once, what was deferred first. */
static int
send_now(hl_datagram *self, PyObject *data, PyObject *addr,
         PyObject *ancillary)
{
    hl_transport *base = &self->base;
    if (self->queue.count > 0 && hl_datagram_flush(base) < 0) {
        return -1;
    }
    if (base->loop == NULL || !base->fd_open) {
        return 0; /* error_received() ended the transport */
    }
    if (base->blocked || self->queue.count > 0) {
        return send_buffer(self, data, addr, ancillary);
    }
    PyObject *raw = NULL;
    if (!self->peer) {
        raw = self->known ? hl_peers_raw(&self->peers, base->family, addr)
                          : NULL;
        if (raw == NULL) {
            return PyErr_Occurred()
                       ? hl_datagram_failed(self, self->base.ops->write_error)
                       : send_unknown(self, data, addr);
        }
        Py_INCREF(raw); /* an audit hook may send, too */
        if (PySys_Audit("socket.sendto", "OO", base->sock, addr) < 0) {
            Py_DECREF(raw);
            return hl_datagram_failed(self, self->base.ops->write_error);
        }
    }
    int rv = 0;
    if (HL_UNLIKELY(base->loop == NULL || !base->fd_open)) {
        /* ended by the audit hook */
    }
    else if (HL_LIKELY(ancillary == NULL)) {
        rv = send_known(self, data, addr, raw);
    }
    else {
        rv = send_queue(self, data, addr, raw, ancillary);
        rv = rv < 0 ? rv : hl_datagram_flush(base);
    }
    Py_XDECREF(raw);
    return rv;
}

/* Would sock.sendto() take the memory as it is? */
static bool
is_contiguous(PyObject *data)
{
    return !PyMemoryView_Check(data) ||
           PyBuffer_IsContiguous(PyMemoryView_GET_BUFFER(data), 'C');
}

/* Has the datagram wait, if it is one that can go wrong only in the kernel. */
static int
send_later(hl_datagram *self, PyObject *data, PyObject *addr,
           PyObject *ancillary)
{
    hl_transport *base = &self->base;
    if (!is_contiguous(data)) {
        return send_now(self, data, addr, ancillary);
    }
    if (base->in_read && hl_transport_defer_flush(base) < 0) {
        return -1; /* not only on_readable's: os.fork() must find it, too */
    }
    if (self->peer) {
        return send_queue(self, data, addr, NULL, ancillary);
    }
    PyObject *raw =
        self->known ? hl_peers_raw(&self->peers, base->family, addr) : NULL;
    if (raw == NULL) {
        PyErr_Clear();
        return send_now(self, data, addr, ancillary);
    }
    Py_INCREF(raw);
    int rv = PySys_Audit("socket.sendto", "OO", base->sock, addr) < 0
                 ? hl_datagram_failed(self, self->base.ops->write_error)
                 : send_queue(self, data, addr, raw, ancillary);
    Py_DECREF(raw);
    return rv;
}

/* asyncio finds no socket and then no loop to report that to. */
static int
send_to_nothing(void)
{
    PyErr_SetString(
        PyExc_AttributeError,
        "'NoneType' object has no attribute 'call_exception_handler'");
    return -1;
}

/* Its length, or -1 with the exception that asyncio's sendto() raises in want
 * of it.  From CPython 3.13 on that asks for none: what is wrong with the data
 * is found by sending it, and so counts as too long to wait. */
static Py_ssize_t
data_size(PyObject *data)
{
    if (HL_LIKELY(PyBytes_CheckExact(data))) {
        return PyBytes_GET_SIZE(data);
    }
    Py_ssize_t size = PyObject_Size(data);
    if (size < 0 && PY_VERSION_HEX >= 0x030D0000) {
        PyErr_Clear();
        return PY_SSIZE_T_MAX;
    }
    return size;
}

int
hl_datagram_sendto(hl_datagram *self, PyObject *data, PyObject *addr,
                   PyObject *ancillary)
{
    hl_transport *base = &self->base;
    if (!PyBytes_Check(data) && !PyByteArray_Check(data) &&
        !PyMemoryView_Check(data)) {
        return send_wrong_type(data);
    }
    Py_ssize_t size = data_size(data);
    if (size < 0 || (size == 0 && PY_VERSION_HEX < 0x030D0000)) {
        return size < 0 ? -1 : 0;
    }
    if (self->fixed) {
        int own = is_own_address(self, addr);
        if (own == 0) {
            PyErr_Format(PyExc_ValueError,
                         "Invalid address: must be None or %S", self->address);
        }
        if (own <= 0) {
            return -1;
        }
        addr = self->address;
    }
    if (base->conn_lost && self->fixed) {
        return hl_transport_write_to_lost(base);
    }
    if (base->loop == NULL) {
        return send_to_nothing();
    }
    if (base->blocked || self->sending) {
        return send_buffer(self, data, addr, ancillary);
    }
    if (!may_wait(self, (size_t)size)) {
        return send_now(self, data, addr, ancillary);
    }
    return send_later(self, data, addr, ancillary);
}
