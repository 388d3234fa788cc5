/* write.c - the writing side of a transport.
 *
 * The queue is in one of three states: empty; deferred, to be sent when the
 * turn ends; or blocked, the kernel having refused what is in it, which is all
 * that asyncio would call its buffer.
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "io/stream.h"

#include "state/errors.h"

#include <errno.h>

/* The kernel failed a write: the connection is lost. */
static int
write_failed(hl_transport *self, int errnum)
{
    PyObject *exc = hl_os_error(errnum);
    if (exc == NULL) {
        return -1;
    }
    hl_writeq_clear(&self->queue);
    self->blocked = false;
    self->dropped++;
    hl_state *st = hl_loop_state(self->loop);
    PyObject *waiter = Py_XNewRef(self->empty_waiter);
    int rv = hl_transport_fatal_error(self, exc, self->ops->write_error);
    if (waiter != NULL && rv == 0) {
        rv = hl_future_set_exception_unless_done(st, waiter, exc);
    }
    Py_XDECREF(waiter);
    Py_DECREF(exc);
    return rv;
}

int
hl_transport_flush(hl_transport *self)
{
    if (self->queue.count == 0 || self->blocked) {
        return 0;
    }
    int err = hl_stream_send(self);
    self->loop->must_poll = true; /* the peer may be in this loop */
    if (HL_LIKELY(err == 0)) {
        Py_CLEAR(self->write_context);
        return 0;
    }
    return err == EAGAIN ? hl_transport_write_block(self)
                         : write_failed(self, err);
}

/* Has the queue sent at the end of the turn, or now if there is none. */
static int
write_defer(hl_transport *self)
{
    int later = hl_transport_defer_flush(self);
    return later > 0 ? hl_transport_flush(self) : later;
}

/* More than may wait: what asyncio would do with it is done now, so that
 * pause_writing() is called from write() or not at all.  Nor may anything wait
 * where the program could close the socket, or shut it down, before. */
static bool
write_is_due(hl_transport *self, size_t size)
{
    return size > Py_MIN(self->ops->merge_max, (size_t)self->high) ||
           (self->sock != NULL && self->ops->is_socket &&
            hl_transport_sock_is_shared(self));
}

static int
write_now(hl_transport *self, const hl_piece *p)
{
    if (hl_writeq_push(&self->queue, p->owner, p->data, p->size) < 0) {
        return -1;
    }
    int rv = hl_transport_flush(self);
    if (!p->stable && hl_writeq_own(&self->queue, p->owner) < 0) {
        rv = hl_transport_callback_failed(self, self->ops->write_error);
    }
    return rv < 0 ? rv : hl_flow_maybe_pause(self);
}

static int
write_piece(hl_transport *self, const hl_piece *p)
{
    if (self->blocked) {
        return hl_piece_push(&self->queue, p) < 0 ? -1
                                                  : hl_flow_maybe_pause(self);
    }
    if (write_is_due(self, self->queue.size + p->size)) {
        return write_now(self, p);
    }
    return hl_piece_push(&self->queue, p) < 0 ? -1 : write_defer(self);
}

/* Is there nothing left to write to?  A pipe takes nothing from close() on, a
 * socket until all is sent. */
static bool
write_is_lost(const hl_transport *self)
{
    return self->conn_lost || self->loop == NULL ||
           (self->closing && !self->ops->is_socket);
}

/* The checks that write() and writelines() share.  0 or -1. */
static int
write_check_state(hl_transport *self, const char *method,
                  const char *in_sendfile)
{
    if (self->eof) {
        PyErr_Format(PyExc_RuntimeError, "Cannot call %s() after write_eof()",
                     method);
        return -1;
    }
    if (self->empty_waiter != NULL) {
        PyErr_SetString(PyExc_RuntimeError, in_sendfile);
        return -1;
    }
    return 0;
}

static int
write_wrong_type(const hl_transport *self, PyObject *data)
{
    PyObject *name =
        PyObject_GetAttrString((PyObject *)Py_TYPE(data), "__name__");
    if (name != NULL) {
        bool names = hl_loop_state(self->loop)->release.names_types;
        PyErr_Format(
            PyExc_TypeError, "data argument must be a %s object, not %R",
            names ? "bytes, bytearray, or memoryview" : "bytes-like", name);
        Py_DECREF(name);
    }
    return -1;
}

int
hl_transport_write(hl_transport *self, PyObject *data)
{
    if (!PyBytes_Check(data) && !PyByteArray_Check(data) &&
        !PyMemoryView_Check(data)) {
        if (self->ops->is_socket) {
            return write_wrong_type(self, data);
        }
        PyErr_Format(PyExc_AssertionError, "%R", data);
        return -1;
    }
    if (write_check_state(self, "write",
                          "unable to write; sendfile is in progress") < 0) {
        return -1;
    }
    int some = PyBytes_CheckExact(data) ? PyBytes_GET_SIZE(data) > 0
                                        : PyObject_IsTrue(data);
    if (some <= 0) {
        return some;
    }
    if (HL_UNLIKELY(write_is_lost(self))) {
        return hl_transport_write_to_lost(self);
    }
    hl_piece p;
    if (hl_piece_get(&p, data) < 0) {
        return hl_transport_callback_failed(self, self->ops->write_error);
    }
    int rv = 0;
    if (HL_UNLIKELY(write_is_lost(self))) {
        /* Closed by the exporter of the buffer. */
        rv = hl_transport_write_to_lost(self);
    }
    else if (p.size > 0) {
        rv = write_piece(self, &p);
    }
    hl_piece_release(&p);
    return rv;
}

int
hl_transport_write_memory(hl_transport *self, const char *data, size_t size)
{
    if (write_check_state(self, "write",
                          "unable to write; sendfile is in progress") < 0) {
        return -1;
    }
    if (HL_UNLIKELY(write_is_lost(self))) {
        return hl_transport_write_to_lost(self);
    }
    hl_piece p = {.owner = Py_None, .data = data, .size = size};
    if (!self->blocked) {
        return write_now(self, &p);
    }
    return hl_piece_push(&self->queue, &p) < 0 ? -1
                                               : hl_flow_maybe_pause(self);
}

static int
lines_push(hl_transport *self, PyObject *items)
{
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(items); i++) {
        hl_piece p;
        if (hl_piece_get(&p, PyList_GET_ITEM(items, i)) < 0) {
            return -1;
        }
        int rv = p.size > 0 ? hl_piece_push(&self->queue, &p) : 0;
        hl_piece_release(&p);
        if (rv < 0) {
            return -1;
        }
    }
    return 0;
}

/* The kernel is full already.  For a socket asyncio registers its writer anew
 * here, so that the context is that of the last writelines(). */
static int
lines_wait(hl_transport *self)
{
    if (!self->own_context && self->ops->is_socket) {
        PyObject *context = PyContext_CopyCurrent();
        if (context == NULL) {
            return -1;
        }
        Py_XSETREF(self->write_context, context);
    }
    return hl_flow_maybe_pause(self);
}

static int
lines_write(hl_transport *self, PyObject *items)
{
    if (HL_UNLIKELY(write_is_lost(self))) {
        return hl_transport_write_to_lost(self);
    }
    if (lines_push(self, items) < 0) {
        /* Some may be queued: better no connection than a gap in its data. */
        return hl_transport_callback_failed(self, self->ops->write_error);
    }
    if (self->queue.count == 0) {
        return 0;
    }
    if (self->blocked) {
        return lines_wait(self);
    }
    if (!write_is_due(self, self->queue.size)) {
        return write_defer(self);
    }
    return hl_transport_flush(self) < 0 ? -1 : hl_flow_maybe_pause(self);
}

/* write(b''.join(lines)) */
static int
lines_join_and_write(hl_transport *self, PyObject *lines)
{
    PyObject *joined = NULL;
    PyObject *empty = PyBytes_FromStringAndSize(NULL, 0);
    if (empty != NULL) {
        joined = PyObject_CallMethod(empty, "join", "O", lines);
        Py_DECREF(empty);
    }
    if (joined == NULL) {
        return -1;
    }
    int rv = hl_transport_write(self, joined);
    Py_DECREF(joined);
    return rv;
}

/* The same without the joining where it does not show: transports of pipes,
 * and all of them before 3.12. */
static int
lines_join(hl_transport *self, PyObject *list)
{
    if (!PyList_Check(list) && !PyTuple_Check(list)) {
        return lines_join_and_write(self, list);
    }
    PyObject *items = PySequence_List(list);
    if (items == NULL) {
        return -1;
    }
    int rv = -1;
    bool plain = PyList_GET_SIZE(items) <= HL_WRITEQ_IOV, some = false;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(items) && plain; i++) {
        plain = PyBytes_CheckExact(PyList_GET_ITEM(items, i));
        some =
            some || (plain && PyBytes_GET_SIZE(PyList_GET_ITEM(items, i)) > 0);
    }
    if (!plain) {
        rv = lines_join_and_write(self, items);
    }
    else if (write_check_state(self, "write",
                               "unable to write; sendfile is in progress") ==
             0) {
        rv = some ? lines_write(self, items) : 0;
    }
    Py_DECREF(items);
    return rv;
}

#if PY_VERSION_HEX >= 0x030C0000

/* 0 if item is left out, whatever it is: asyncio asks for its truth since
 * 3.14.  1 if not, -1 if it cannot tell. */
static int
lines_is_something(PyObject *item)
{
    return PY_VERSION_HEX >= 0x030E0000 ? PyObject_IsTrue(item) : 1;
}

/* writelines(): makes everything in items, a list of our own, an exact bytes
 * or a memoryview. */
static int
lines_view(PyObject *items)
{
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(items); i++) {
        PyObject *item = PyList_GET_ITEM(items, i);
        if (PyBytes_CheckExact(item)) {
            continue;
        }
        int something = lines_is_something(item);
        if (something < 0) {
            return -1;
        }
        PyObject *view = something ? PyMemoryView_FromObject(item)
                                   : PyBytes_FromStringAndSize(NULL, 0);
        if (view == NULL) {
            return -1;
        }
        PyList_SetItem(items, i, view);
    }
    return 0;
}

int
hl_transport_writelines(hl_transport *self, PyObject *list)
{
    if (!self->ops->is_socket) {
        return lines_join(self, list);
    }
    if (write_check_state(self, "writelines",
                          "unable to writelines; sendfile is in progress") <
        0) {
        return -1;
    }
    int some = PyObject_IsTrue(list);
    if (some <= 0) {
        return some;
    }
    PyObject *items = PySequence_List(list);
    if (items == NULL) {
        return -1;
    }
    int rv = lines_view(items);
    if (rv == 0) {
        rv = lines_write(self, items);
    }
    Py_DECREF(items);
    return rv;
}

#else

int
hl_transport_writelines(hl_transport *self, PyObject *list)
{
    return lines_join(self, list);
}

#endif

static int
write_shutdown(hl_transport *self)
{
    if (!self->fd_open || shutdown(hl_transport_fd(self), SHUT_WR) == 0) {
        return 0;
    }
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
}

int
hl_transport_write_eof(hl_transport *self)
{
    if (self->closing || self->eof) {
        return 0;
    }
    if (hl_transport_flush(self) < 0) {
        return -1;
    }
    if (self->closing) {
        return 0; /* the flush failed */
    }
    self->eof = true;
    return self->queue.count == 0 ? write_shutdown(self) : 0;
}

/* All that was blocked is sent: what waited for that is due. */
static int
write_drained(hl_transport *self)
{
    Py_CLEAR(self->write_context);
    if (hl_transport_update_watcher(self) < 0) {
        return -1;
    }
    if (self->empty_waiter != NULL) {
        hl_transport_drop_watcher(self); /* sendfile watches fd itself */
        if (hl_future_set_result_unless_done(
                hl_loop_state(self->loop), self->empty_waiter, Py_None) < 0) {
            return -1;
        }
    }
    if (self->conn_lost) {
        return 0;
    }
    if (self->closing) {
        self->conn_lost++;
        hl_transport_drop_watcher(self);
        return hl_transport_call_lost(self, NULL);
    }
    return self->eof ? write_shutdown(self) : 0;
}

int
hl_transport_write_ready(hl_transport *self)
{
    if (self->conn_lost || !self->blocked) {
        return 0;
    }
    size_t before = self->queue.size;
    int err = hl_stream_send(self);
    self->loop->must_poll = true;
    if (err != 0 && err != EAGAIN) {
        return write_failed(self, err);
    }
    if (self->queue.size == before) {
        return 0;
    }
    self->blocked = self->queue.count > 0;
    /* A pipe goes on when all is sent, as asyncio's. */
    int rv = self->ops->is_socket || !self->blocked
                 ? hl_flow_maybe_resume(self) /* may write */
                 : 0;
    PyObject *exc = rv < 0 ? hl_error_fetch() : NULL;
    rv = hl_transport_flush(self);
    if (rv == 0 && self->queue.count == 0 && self->loop != NULL) {
        rv = write_drained(self);
    }
    if (exc != NULL) {
        if (rv < 0) {
            PyErr_Clear();
        }
        hl_error_restore(exc);
        return -1;
    }
    return rv;
}

Py_ssize_t
hl_transport_buffer_size(hl_transport *self)
{
    return self->ops->flush(self) < 0 ? -1 : (Py_ssize_t)self->ops->size(self);
}

PyObject *
hl_transport_make_empty_waiter(hl_transport *self)
{
    if (self->empty_waiter != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "Empty waiter is already set");
        return NULL;
    }
    if (hl_transport_flush(self) < 0) {
        return NULL;
    }
    if (self->loop == NULL) {
        PyErr_SetString(PyExc_AttributeError,
                        "'NoneType' object has no attribute 'create_future'");
        return NULL;
    }
    hl_state *st = hl_loop_state(self->loop);
    PyObject *waiter = PyObject_CallMethodNoArgs((PyObject *)self->loop,
                                                 st->str_create_future);
    if (waiter == NULL) {
        return NULL;
    }
    Py_XSETREF(self->empty_waiter, Py_NewRef(waiter));
    if (self->queue.count == 0) {
        hl_transport_drop_watcher(self); /* sendfile watches fd itself */
        if (hl_future_set_result_unless_done(st, waiter, Py_None) < 0) {
            Py_CLEAR(waiter);
        }
    }
    return waiter;
}

int
hl_transport_reset_empty_waiter(hl_transport *self)
{
    Py_CLEAR(self->empty_waiter);
    return self->conn_lost || self->loop == NULL
               ? 0
               : hl_transport_update_watcher(self);
}
