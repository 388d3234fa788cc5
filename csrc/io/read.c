/* read.c - the reading side of a transport.
 *
 * One recv() per readiness, as in asyncio: into the buffer that all transports
 * of the loop share, or straight into that of a BufferedProtocol.
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "io/fds.h"
#include "io/layer.h"
#include "io/stream.h"

#include "state/errors.h"

#include <errno.h>

static inline ssize_t
read_receive(hl_transport *self, void *buffer, size_t size)
{
    ssize_t got = HL_LIKELY(self->fds == NULL)
                      ? self->ops->receive(hl_transport_fd(self), buffer, size)
                      : hl_fds_recv(self, buffer, size);
    if (HL_LIKELY(self->loop != NULL)) {
        hl_count_read(&self->loop->counts, got);
    }
    return got;
}

/* The call failed: -1 goes on to be the error of this connection. */
static int
read_failed(hl_transport *self)
{
    if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) {
        if (self->watcher != NULL) {
            hl_watcher_doubt(self->watcher);
        }
        return 0;
    }
    PyObject *exc = hl_os_error(errno);
    if (exc == NULL) {
        return -1;
    }
    int rv = hl_transport_fatal_error(self, exc, self->ops->read_error);
    Py_DECREF(exc);
    return rv;
}

int
hl_transport_read_eof(hl_transport *self)
{
    if (hl_transport_log_debug(self, "%r received EOF") < 0) {
        return -1;
    }
    PyObject *protocol = Py_NewRef(self->protocol);
    PyObject *res = PyObject_CallMethodNoArgs(
        protocol, hl_loop_state(self->loop)->str_eof_received);
    Py_DECREF(protocol);
    if (res == NULL) {
        return hl_transport_callback_failed(
            self, "Fatal error: protocol.eof_received() call failed.");
    }
    int keep_open = PyObject_IsTrue(res);
    Py_DECREF(res);
    if (keep_open < 0) {
        return -1;
    }
    if (!keep_open) {
        return hl_transport_close(self);
    }
    /* The protocol may still write, but there is nothing more to read. */
    self->reading = false;
    return self->loop == NULL ? 0 : hl_transport_update_watcher(self);
}

/* Only an instance can have another max_size than the type. */
Py_ssize_t
hl_transport_max_size(hl_transport *self)
{
    if (HL_LIKELY(self->dict == NULL)) {
        return HL_READ_BUFFER_SIZE;
    }
    hl_state *st = hl_loop_state(self->loop);
    PyObject *value = PyObject_GetAttr((PyObject *)self, st->str_max_size);
    Py_ssize_t size = value == NULL ? -1 : PyLong_AsSsize_t(value);
    Py_XDECREF(value);
    if (size < 0 && !PyErr_Occurred()) {
        PyErr_SetString(PyExc_ValueError, "negative buffersize in recv");
    }
    return Py_MIN(size, HL_READ_BUFFER_SIZE);
}

static int
read_to_data_received(hl_transport *self, const char *data, Py_ssize_t size)
{
    if (self->feed == HL_FEED_STREAM) {
        int fed = hl_streamreader_feed(hl_loop_state(self->loop),
                                       self->protocol, data, size);
        if (fed != 0) {
            return fed < 0 ? -1 : 0;
        }
    }
    PyObject *bytes = PyBytes_FromStringAndSize(data, size);
    if (bytes == NULL) {
        return -1;
    }
    int rv = hl_call_dropping(
        self->protocol, hl_loop_state(self->loop)->str_data_received, bytes);
    Py_DECREF(bytes);
    return rv;
}

/* Descriptors are handed over before the data they came with.  1 if the data
 * is to follow, 0 if that ended the connection, -1 with an exception. */
static int
read_give_fds(hl_transport *self)
{
    if (HL_LIKELY(self->fds == NULL)) {
        return 1;
    }
    if (hl_fds_deliver(self) < 0) {
        return hl_transport_callback_failed(
            self, "Fatal error: protocol.fds_received() call failed.");
    }
    return !self->closing && self->loop != NULL;
}

/* Where to receive to: a reader's own store, *direct, or the buffer of the
 * loop; NULL with MemoryError.  *limit is what fits. */
static char *
read_place(hl_transport *self, Py_ssize_t *limit, bool *direct)
{
    Py_ssize_t room;
    char *place = NULL;
    if (self->feed == HL_FEED_STREAM && self->fds == NULL) {
        place = hl_streamreader_room(hl_loop_state(self->loop), self->protocol,
                                     &room);
    }
    *direct = place != NULL;
    if (place == NULL) {
        return hl_loop_read_buffer(self->loop);
    }
    *limit = Py_MIN(*limit, room);
    return place;
}

static int
read_data(hl_transport *self)
{
    bool direct;
    Py_ssize_t limit = hl_transport_max_size(self);
    char *buffer = limit < 0 ? NULL : read_place(self, &limit, &direct);
    if (buffer == NULL) {
        return hl_transport_callback_failed(self, self->ops->read_error);
    }
    ssize_t size = read_receive(self, buffer, (size_t)limit);
    if (size < 0) {
        return read_failed(self);
    }
    if (size == 0) {
        return self->ops->on_eof(self);
    }
    int rv = direct ? 1 : read_give_fds(self);
    if (rv <= 0) {
        return rv;
    }
    rv = direct ? hl_streamreader_filled(hl_loop_state(self->loop),
                                         self->protocol, size)
                : read_to_data_received(self, buffer, size);
    if (rv == 0) {
        return 0;
    }
    return self->ops->reads_raise
               ? -1
               : hl_transport_callback_failed(
                     self,
                     "Fatal error: protocol.data_received() call failed.");
}

PyObject *
hl_protocol_get_buffer(hl_state *st, PyObject *protocol, Py_ssize_t hint)
{
    PyObject *number = PyLong_FromSsize_t(hint);
    if (number == NULL) {
        return NULL;
    }
    PyObject *buffer =
        PyObject_CallMethodOneArg(protocol, st->str_get_buffer, number);
    Py_DECREF(number);
    if (buffer == NULL) {
        return NULL;
    }
    Py_ssize_t size = PyObject_Size(buffer);
    if (size == 0) {
        PyErr_SetString(PyExc_RuntimeError,
                        "get_buffer() returned an empty buffer");
    }
    if (size <= 0) {
        Py_CLEAR(buffer);
    }
    return buffer;
}

int
hl_protocol_buffer_updated(hl_state *st, PyObject *protocol, Py_ssize_t size)
{
    PyObject *number = PyLong_FromSsize_t(size);
    if (number == NULL) {
        return -1;
    }
    int rv = hl_call_dropping(protocol, st->str_buffer_updated, number);
    Py_DECREF(number);
    return rv;
}

static int
read_wrong_buffer(PyObject *buffer)
{
    if (PyErr_ExceptionMatches(PyExc_BufferError) ||
        PyErr_ExceptionMatches(PyExc_TypeError)) {
        PyErr_Format(PyExc_TypeError,
                     "recv_into() argument 1 must be read-write bytes-like "
                     "object, not %.50s",
                     Py_TYPE(buffer)->tp_name);
    }
    return -1;
}

/* Reads into the protocol's buffer.  The size, or -1 with errno set, or -2
 * with an exception. */
static ssize_t
read_into(hl_transport *self, PyObject *buffer)
{
    Py_buffer view;
    if (PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE) < 0) {
        (void)read_wrong_buffer(buffer);
        return -2;
    }
    ssize_t size = read_receive(self, view.buf, (size_t)view.len);
    int errnum = errno;
    PyBuffer_Release(&view);
    errno = errnum;
    return size;
}

static int
read_buffered(hl_transport *self)
{
    hl_state *st = hl_loop_state(self->loop);
    int rv = 0;
    PyObject *protocol = Py_NewRef(self->protocol);
    PyObject *buffer = hl_protocol_get_buffer(st, protocol, -1);
    if (buffer == NULL) {
        rv = hl_transport_callback_failed(
            self, "Fatal error: protocol.get_buffer() call failed.");
        goto done;
    }
    if (!self->fd_open) {
        goto done; /* get_buffer() ended the connection */
    }
    ssize_t size = read_into(self, buffer);
    if (size == -2) {
        rv = hl_transport_callback_failed(self, self->ops->read_error);
    }
    else if (size < 0) {
        rv = read_failed(self);
    }
    else if (size == 0) {
        rv = self->protocol == NULL ? 0 : self->ops->on_eof(self);
    }
    else if ((rv = read_give_fds(self)) > 0 &&
             /* get_buffer() may have set another protocol */
             (rv = hl_protocol_buffer_updated(st, self->protocol, size)) < 0) {
        rv = hl_transport_callback_failed(
            self, "Fatal error: protocol.buffer_updated() call failed.");
    }
done:
    Py_XDECREF(buffer);
    Py_DECREF(protocol);
    return rv;
}

/* A protocol in C gets the memory itself. */
static int
read_layer(hl_transport *self)
{
    hl_loop *loop = (hl_loop *)Py_NewRef((PyObject *)self->loop);
    PyObject *protocol = Py_NewRef(self->protocol);
    char *buffer = hl_loop_lend_buffer(loop);
    int rv = -1;
    if (buffer == NULL) {
        rv = hl_transport_callback_failed(self, self->ops->read_error);
        goto done;
    }
    ssize_t size = read_receive(self, buffer, HL_READ_BUFFER_SIZE);
    if (size < 0) {
        rv = read_failed(self);
    }
    else if (size == 0) {
        rv = self->ops->on_eof(self);
    }
    else if ((rv = ((hl_layer *)protocol)
                       ->received(protocol, buffer, (size_t)size)) < 0) {
        rv = hl_transport_callback_failed(
            self, "Fatal error: protocol.buffer_updated() call failed.");
    }
done:
    hl_loop_take_back_buffer(loop, buffer);
    Py_DECREF(protocol);
    Py_DECREF(loop);
    return rv;
}

int
hl_transport_receive(hl_transport *self)
{
    switch (self->feed) {
    case HL_FEED_BUFFER:
        return read_buffered(self);
    case HL_FEED_LAYER:
        return read_layer(self);
    default:
        return read_data(self);
    }
}

int
hl_transport_read(hl_transport *self)
{
    if (self->conn_lost || self->loop == NULL || self->protocol == NULL) {
        return 0;
    }
    return self->ops->read(self);
}

int
hl_transport_run_half(hl_transport *self, int (*half)(hl_transport *),
                      PyObject *context, PyObject *name)
{
    hl_loop *loop = self->loop;
    Py_XINCREF(context);
    Py_INCREF(loop);
    int rv = context == NULL ? 0 : PyContext_Enter(context);
    if (rv == 0) {
        rv = half(self);
        if (context != NULL && PyContext_Exit(context) < 0) {
            rv = -1;
        }
    }
    if (HL_UNLIKELY(rv < 0)) {
        rv = hl_entry_end(loop, Py_NewRef((PyObject *)self), rv, name, NULL,
                          context);
    }
    Py_DECREF(loop);
    Py_XDECREF(context);
    return rv;
}

/* Sends at once what the callback wrote: the turn has nothing to add to it,
 * and the peer is not kept waiting for the other callbacks. */
int
hl_transport_read_and_flush(hl_transport *self)
{
    self->in_read = true;
    int rv = hl_transport_read(self);
    self->in_read = false;
    return rv < 0 ? -1 : hl_transport_flush(self);
}

static int
ready_readable(hl_transport *self)
{
    return hl_transport_run_half(self, self->ops->on_readable, self->context,
                                 hl_loop_state(self->loop)->str__read_ready);
}

static int
ready_writable(hl_transport *self)
{
    return hl_transport_run_half(
        self, self->ops->on_writable,
        self->own_context ? self->context : self->write_context,
        self->ops->write_name(hl_loop_state(self->loop)));
}

int
hl_transport_on_ready(hl_loop *Py_UNUSED(loop), PyObject *op)
{
    hl_transport *self = (hl_transport *)op;
    int events = self->watcher == NULL ? 0 : hl_watcher_take(self->watcher);
    int rv = 0;
    if (events & UV_READABLE) {
        rv = ready_readable(self);
    }
    if (rv == 0 && (events & UV_WRITABLE) && self->blocked) {
        rv = ready_writable(self);
    }
    Py_DECREF(op);
    return rv;
}

int
hl_transport_on_readable(hl_loop *Py_UNUSED(loop), PyObject *op)
{
    hl_transport *self = (hl_transport *)op;
    int rv = self->watched & UV_READABLE ? ready_readable(self) : 0;
    Py_DECREF(op);
    return rv;
}

int
hl_transport_on_writable(hl_loop *Py_UNUSED(loop), PyObject *op)
{
    hl_transport *self = (hl_transport *)op;
    int rv = self->watched & UV_WRITABLE ? ready_writable(self) : 0;
    Py_DECREF(op);
    return rv;
}
