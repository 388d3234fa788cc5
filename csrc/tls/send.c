/* send.c - from what the program writes to ciphertext.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "tls/tls.h"

#include "state/errors.h"

#include <string.h>

/* The plaintext of a record, and how much of it is encrypted before what came
 * of that is sent: the less often the peer is woken the better.  What records
 * have beside the plaintext has room in the buffer, too. */
#define RECORD_MAX (16 * 1024)
#define BATCH_MAX (HL_BUFFER_SIZE - 8 * 1024)

Py_ssize_t
hl_tls_unsent(hl_tls *self)
{
    Py_ssize_t size = self->engine == NULL ? 0 : self->engine->unsent(self);
    return size < 0 ? -1 : size + (Py_ssize_t)self->queue.size;
}

/* pause_writing() or resume_writing(), whose failure is reported. */
static int
control_call(hl_tls *self, PyObject *method, const char *message)
{
    hl_state *st = hl_tls_module_state(self);
    if (self->protocol == NULL) {
        return 0;
    }
    PyObject *protocol = Py_NewRef(self->protocol);
    PyObject *res = PyObject_CallMethodNoArgs(protocol, method);
    Py_DECREF(protocol);
    if (res != NULL) {
        Py_DECREF(res);
        return 0;
    }
    if (hl_error_is_exit()) {
        return -1;
    }
    PyObject *exc = hl_error_fetch();
    int rv = hl_report(st, (PyObject *)hl_tls_loop(self), message, exc,
                       st->str_transport, (PyObject *)self, st->str_protocol,
                       (PyObject *)self, NULL);
    Py_DECREF(exc);
    return rv;
}

int
hl_tls_control_writing(hl_tls *self)
{
    hl_state *st = hl_tls_module_state(self);
    Py_ssize_t size = hl_tls_unsent(self);
    if (size < 0) {
        return -1;
    }
    if (size >= self->write_sizes[0] && !self->app_write_paused) {
        self->app_write_paused = true;
        return control_call(self, st->str_pause_writing,
                            "protocol.pause_writing() failed");
    }
    if (size <= self->write_sizes[1] && self->app_write_paused) {
        self->app_write_paused = false;
        return control_call(self, st->str_resume_writing,
                            "protocol.resume_writing() failed");
    }
    return 0;
}

/* Small pieces at the head of the queue as one record. */
static size_t
gather(hl_writeq *queue, char *record)
{
    size_t size = 0;
    for (uint32_t i = 0; i < queue->count && size < RECORD_MAX; i++) {
        const hl_chunk *chunk = hl_writeq_chunk(queue, i);
        size_t part = Py_MIN(chunk->size, RECORD_MAX - size);
        memcpy(record + size, chunk->data, part);
        size += part;
    }
    return size;
}

/* Encrypts from the head of the queue, at most room bytes; *taken is how much
 * it was. */
static hl_tls_result
encrypt_some(hl_tls *self, size_t room, size_t *taken)
{
    char record[RECORD_MAX];
    const hl_chunk *first = hl_writeq_chunk(&self->queue, 0);
    const char *data = first->data;
    size_t size = Py_MIN(first->size, room);
    if (size < RECORD_MAX && self->queue.count > 1) {
        size = gather(&self->queue, record);
        data = record;
    }
    PyObject *owner = Py_NewRef(first->owner);
    hl_tls_result result = self->engine->write(self, data, size, taken);
    Py_DECREF(owner);
    return result;
}

/* Encrypts a batch.  1 if there may be more to do, 0 if not, -1. */
static int
encrypt_batch(hl_tls *self)
{
    size_t total = 0;
    while (self->queue.count > 0 && total < BATCH_MAX) {
        size_t taken = 0;
        hl_tls_result result = encrypt_some(self, BATCH_MAX - total, &taken);
        if (result == HL_TLS_FAILED) {
            return -1;
        }
        if (result != HL_TLS_OK) {
            return 0;
        }
        total += taken;
        hl_writeq_drop(&self->queue, Py_MIN(taken, self->queue.size));
    }
    return self->queue.count > 0;
}

static bool
may_encrypt(const hl_tls *self)
{
    return self->queue.count > 0 && self->engine != NULL &&
           (self->state == HL_TLS_WRAPPED || self->state == HL_TLS_FLUSHING);
}

int
hl_tls_send_all(hl_tls *self, bool regardless)
{
    int more;
    do {
        more = 0;
        if (self->write_paused && !regardless) {
            break;
        }
        if (may_encrypt(self)) {
            more = encrypt_batch(self);
        }
        if (more >= 0 && self->engine != NULL &&
            self->engine->send(self) < 0) {
            more = -1;
        }
    } while (more > 0);
    return more;
}

int
hl_tls_flush(hl_tls *self, bool regardless)
{
    return hl_tls_send_all(self, regardless) < 0
               ? -1
               : hl_tls_control_writing(self);
}

void
hl_tls_send_deferred(PyObject *op)
{
    hl_tls *self = (hl_tls *)op;
    if (!may_encrypt(self) || self->is_sending || self->busy) {
        return;
    }
    self->is_sending = true; /* a failure closes the transport below */
    PyObject *pending = hl_error_fetch();
    if (hl_tls_send_all(self, false) < 0) {
        PyErr_Clear();
    }
    self->is_sending = false;
    if (pending != NULL) {
        hl_error_restore(pending);
    }
}

static int
flush_or_fail(hl_tls *self)
{
    return hl_tls_flush(self, false) < 0
               ? hl_tls_failed(self, "Fatal error on SSL protocol")
               : 0;
}

/* The end of the turn. */
static int
run_flush(hl_loop *loop, PyObject *op)
{
    hl_tls *self = (hl_tls *)op;
    self->flush_queued = false;
    int rv = may_encrypt(self) ? flush_or_fail(self) : 0;
    return hl_entry_end(loop, op, rv, hl_loop_state(loop)->str__do_write, NULL,
                        NULL);
}

/* May what is queued wait for the end of the turn?  Not if its amount means
 * something to flow control, nor if the program could close the socket before,
 * or do something to the SSLObject. */
static bool
write_may_wait(const hl_tls *self)
{
    const hl_transport *lower = (const hl_transport *)self->lower;
    return (Py_ssize_t)self->queue.size < self->write_sizes[0] &&
           self->queue.size < 64 * 1024 && !self->app_write_paused &&
           self->is_socket && Py_REFCNT(self->object) == 1 &&
           (lower->sock == NULL || !hl_transport_sock_is_shared(lower));
}

/* False if there is no end of a turn to wait for; nothing is raised. */
static bool
defer_flush(hl_tls *self)
{
    if (hl_loop_defer_flush(hl_tls_loop(self), (PyObject *)self, run_flush) !=
        0) {
        PyErr_Clear();
        return false;
    }
    self->flush_queued = true;
    return true;
}

/* Something was queued: it is encrypted at the end of the event or of the
 * turn, or now. */
static int
write_queued(hl_tls *self)
{
    if (self->state != HL_TLS_WRAPPED || self->engine == NULL) {
        return 0; /* after the handshake */
    }
    if (!write_may_wait(self)) {
        return flush_or_fail(self);
    }
    if (self->in_event || self->flush_queued) {
        return 0;
    }
    return defer_flush(self) ? 0 : flush_or_fail(self);
}

void
hl_tls_flush_later(hl_tls *self)
{
    if (may_encrypt(self) && !self->flush_queued && !defer_flush(self)) {
        hl_tls_send_deferred((PyObject *)self);
    }
}

static bool
write_is_lost(const hl_tls *self)
{
    return self->state != HL_TLS_WRAPPED && self->state != HL_TLS_HANDSHAKE;
}

static int
write_to_lost(hl_tls *self)
{
    hl_state *st = hl_tls_module_state(self);
    return hl_count_lost_write(st, st->sslproto, "SSL connection is closed",
                               &self->conn_lost);
}

int
hl_tls_queue(hl_tls *self, PyObject *data)
{
    hl_piece p;
    if (hl_piece_get(&p, data) < 0) {
        return hl_tls_failed(self, "Fatal error on SSL protocol");
    }
    int rv = p.size > 0 ? hl_piece_push(&self->queue, &p) : 0;
    hl_piece_release(&p);
    return rv;
}

/* Much that the caller may change afterwards is encrypted from where it is,
 * and what is left of it is copied. */
static int
write_at_once(hl_tls *self, const hl_piece *p)
{
    if (hl_writeq_push(&self->queue, p->owner, p->data, p->size) < 0) {
        return -1;
    }
    int rv = flush_or_fail(self);
    if (hl_writeq_own(&self->queue, p->owner) < 0) {
        /* Better no connection than a gap in its data. */
        hl_writeq_clear(&self->queue);
        rv = hl_tls_failed(self, "Fatal error on SSL protocol");
    }
    return rv;
}

static int
write_piece(hl_tls *self, const hl_piece *p)
{
    if (!p->stable && p->size >= RECORD_MAX && self->engine != NULL &&
        self->state == HL_TLS_WRAPPED && self->queue.count == 0) {
        return write_at_once(self, p);
    }
    return hl_piece_push(&self->queue, p) < 0 ? -1 : write_queued(self);
}

static int
write_wrong_type(PyObject *data)
{
    PyObject *name =
        PyObject_GetAttrString((PyObject *)Py_TYPE(data), "__name__");
    if (name != NULL) {
        PyErr_Format(PyExc_TypeError,
                     "data: expecting a bytes-like instance, got %S", name);
        Py_DECREF(name);
    }
    return -1;
}

int
hl_tls_write(hl_tls *self, PyObject *data)
{
    if (!PyBytes_Check(data) && !PyByteArray_Check(data) &&
        !PyMemoryView_Check(data)) {
        return write_wrong_type(data);
    }
    int some = PyBytes_CheckExact(data) ? PyBytes_GET_SIZE(data) > 0
                                        : PyObject_IsTrue(data);
    if (some <= 0) {
        return some;
    }
    if (HL_UNLIKELY(write_is_lost(self))) {
        return write_to_lost(self);
    }
    hl_piece p;
    if (hl_piece_get(&p, data) < 0) {
        return hl_tls_failed(self, "Fatal error on SSL protocol");
    }
    int rv = p.size > 0 ? write_piece(self, &p) : 0;
    hl_piece_release(&p);
    return rv;
}

int
hl_tls_writelines(hl_tls *self, PyObject *list)
{
    if (HL_UNLIKELY(write_is_lost(self))) {
        return write_to_lost(self);
    }
    PyObject *items = PySequence_List(list);
    if (items == NULL) {
        return -1;
    }
    int rv = 0;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(items) && rv == 0; i++) {
        rv = PyObject_Size(PyList_GET_ITEM(items, i)) < 0
                 ? -1
                 : hl_tls_queue(self, PyList_GET_ITEM(items, i));
    }
    Py_DECREF(items);
    return rv < 0 ? -1 : write_queued(self);
}
