/* receive.c - from ciphertext to the program's protocol.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "tls/tls.h"

#include "base/bytes.h"
#include "state/errors.h"

bool
hl_tls_begin_event(hl_tls *self)
{
    bool outer = self->in_event;
    self->in_event = true;
    return outer;
}

int
hl_tls_end_event(hl_tls *self, bool outer, int rv)
{
    self->in_event = outer;
    if (outer || self->queue.count == 0 || self->state != HL_TLS_WRAPPED) {
        return rv;
    }
    if (rv < 0) {
        PyObject *exc = hl_error_fetch();
        hl_tls_flush_later(self);
        hl_error_restore(exc);
        return rv;
    }
    return hl_tls_flush(self, false) < 0
               ? hl_tls_failed(self, "Fatal error on SSL protocol")
               : 0;
}

int
hl_tls_advance(hl_tls *self)
{
    switch ((hl_tls_state)self->state) {
    case HL_TLS_HANDSHAKE:
        return hl_tls_do_handshake(self);
    case HL_TLS_WRAPPED:
        return hl_tls_do_read(self);
    case HL_TLS_FLUSHING:
        return hl_tls_do_flush(self);
    case HL_TLS_SHUTDOWN:
        return hl_tls_do_shutdown(self);
    default:
        return 0;
    }
}

int
hl_tls_received(PyObject *op, const char *data, size_t size)
{
    hl_tls *self = (hl_tls *)op;
    if (self->engine == NULL) {
        return 0;
    }
    bool outer = hl_tls_begin_event(self);
    int rv = self->engine->feed(self, data, size);
    if (rv == 0) {
        rv = hl_tls_advance(self);
    }
    PyObject *exc = rv < 0 ? hl_error_fetch() : NULL;
    /* Whatever happened, the memory is not ours any longer. */
    int settled = self->engine == NULL ? 0 : self->engine->settle(self);
    if (exc != NULL) {
        PyErr_Clear();
        hl_error_restore(exc);
    }
    else if (settled < 0) {
        rv = hl_tls_failed(self, "Fatal error on SSL protocol");
    }
    return hl_tls_end_event(self, outer, rv);
}

/* New reference; None once there is none, whose lack of methods is then told
 * as it is in asyncio. */
static PyObject *
app_protocol(hl_tls *self)
{
    return Py_NewRef(self->protocol != NULL ? self->protocol : Py_None);
}

/* protocol.data_received(data) */
static int
deliver_bytes(hl_tls *self, PyObject *data)
{
    return hl_call_dropping(self->protocol != NULL ? self->protocol : Py_None,
                            hl_tls_module_state(self)->str_data_received,
                            data);
}

/* The same for memory that nobody else touches. */
static int
deliver_memory(hl_tls *self, const char *data, size_t size)
{
    int done = 0;
    PyObject *protocol = app_protocol(self);
    if (protocol == Py_None) {
        /* the call below fails */
    }
    else if (self->feed == HL_FEED_LAYER) {
        done = ((hl_layer *)protocol)->received(protocol, data, size) < 0 ? -1
                                                                          : 1;
    }
    else if (self->feed == HL_FEED_STREAM) {
        done = hl_streamreader_feed(hl_tls_module_state(self), protocol, data,
                                    (Py_ssize_t)size);
    }
    if (done == 0) {
        PyObject *bytes = PyBytes_FromStringAndSize(data, (Py_ssize_t)size);
        done = bytes == NULL ? -1 : deliver_bytes(self, bytes);
        Py_XDECREF(bytes);
    }
    Py_DECREF(protocol);
    return done < 0 ? -1 : 0;
}

/* Decrypts into size bytes at buffer until they are full or no more is
 * there; *got is how much came even if that ended with a failure. */
static hl_tls_result
fill(hl_tls *self, char *buffer, size_t size, size_t *got)
{
    hl_tls_result result = HL_TLS_OK;
    *got = 0;
    while (*got < size && result == HL_TLS_OK && self->engine != NULL) {
        size_t more = 0;
        result = self->engine->read(self, buffer + *got, size - *got, &more);
        *got += more;
    }
    return result;
}

/* The exception of a failure while what came before it is delivered. */
typedef struct {
    hl_tls_result result;
    PyObject *exc; /* owned */
} outcome;

static outcome
outcome_of(hl_tls_result result)
{
    return (outcome){
        .result = result,
        .exc = result == HL_TLS_FAILED ? hl_error_fetch() : NULL,
    };
}

/* What follows the delivery: the failure, or the end of the data. */
static int
outcome_conclude(hl_tls *self, outcome *o, int rv)
{
    if (o->exc != NULL) {
        if (rv == 0) {
            hl_error_restore(o->exc);
            return -1;
        }
        Py_DECREF(o->exc);
        return rv;
    }
    if (rv < 0 || o->result != HL_TLS_EOF) {
        return rv;
    }
    return hl_tls_call_eof_received(self) < 0 ? -1
                                              : hl_tls_start_shutdown(self);
}

/* The rest waits for the next turn, as in asyncio. */
static int
read_on_soon(hl_tls *self)
{
    return hl_tls_call_soon(self, (PyObject *)self,
                            hl_tls_module_state(self)->str__do_read);
}

/* At the end of the connection all is handed over, as asyncio does. */
static bool
may_read_on(const hl_tls *self)
{
    return self->engine != NULL && self->protocol != NULL &&
           (!self->app_paused || self->state == HL_TLS_FLUSHING);
}

/* _do_read__copied() into memory of the loop's. */
static int
read_memory(hl_tls *self)
{
    hl_loop *loop = hl_tls_loop(self);
    char *buffer = hl_loop_lend_buffer(loop);
    if (buffer == NULL) {
        return -1;
    }
    Py_INCREF(loop);
    int rv = 0;
    unsigned char feed = self->feed;
    hl_tls_result result = HL_TLS_OK;
    while (rv == 0 && result == HL_TLS_OK && may_read_on(self)) {
        if (self->feed != feed) {
            rv = read_on_soon(self); /* another protocol, in another way */
            break;
        }
        size_t got;
        result = fill(self, buffer, HL_BUFFER_SIZE, &got);
        outcome o = outcome_of(result);
        if (got > 0) {
            rv = deliver_memory(self, buffer, got);
        }
        rv = outcome_conclude(self, &o, rv);
    }
    hl_loop_take_back_buffer(loop, buffer);
    Py_DECREF(loop);
    return rv;
}

/* _do_read__copied() into a bytes object of the right size. */
static int
read_bytes(hl_tls *self, Py_ssize_t bound)
{
    hl_tls_result result;
    Py_ssize_t size = 0;
    PyObject *data = PyBytes_FromStringAndSize(NULL, bound);
    if (data == NULL) {
        return -1;
    }
    do {
        size_t got;
        result = fill(self, PyBytes_AS_STRING(data) + size,
                      (size_t)(PyBytes_GET_SIZE(data) - size), &got);
        size += (Py_ssize_t)got;
        /* Full, though it was a bound: there may be more. */
    } while (result == HL_TLS_OK && self->engine != NULL &&
             _PyBytes_Resize(&data, 2 * PyBytes_GET_SIZE(data)) == 0);
    outcome o = outcome_of(data == NULL ? HL_TLS_FAILED : result);
    int rv = 0;
    if (data != NULL && size > 0) {
        data = hl_bytes_cut(data, size);
        rv = deliver_bytes(self, data);
    }
    Py_XDECREF(data);
    return outcome_conclude(self, &o, rv);
}

/* before is the protocol whose buffer it was: it hears of it unless another
 * one with buffers was set meanwhile, as in asyncio. */
static int
buffer_updated(hl_tls *self, PyObject *before, size_t size)
{
    PyObject *protocol =
        self->feed == HL_FEED_BUFFER ? app_protocol(self) : Py_NewRef(before);
    int rv = hl_protocol_buffer_updated(hl_tls_module_state(self), protocol,
                                        (Py_ssize_t)size);
    Py_DECREF(protocol);
    return rv;
}

/* Decrypts into buffer.  0, or -1 with an exception. */
static int
read_into(hl_tls *self, PyObject *buffer, size_t *got, outcome *o)
{
    Py_buffer view;
    if (PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE) < 0) {
        PyErr_Format(PyExc_TypeError,
                     "read() argument 2 must be read-write bytes-like object, "
                     "not %.50s",
                     Py_TYPE(buffer)->tp_name);
        return -1;
    }
    *o = outcome_of(fill(self, view.buf, (size_t)view.len, got));
    PyBuffer_Release(&view);
    return 0;
}

static int
read_buffered(hl_tls *self)
{
    size_t got = 0;
    outcome o = {HL_TLS_AGAIN, NULL};
    Py_ssize_t unread = self->engine->unread(self);
    PyObject *before = app_protocol(self);
    PyObject *buffer = unread < 0
                           ? NULL
                           : hl_protocol_get_buffer(hl_tls_module_state(self),
                                                    before, unread);
    if (buffer == NULL) {
        Py_DECREF(before);
        return -1;
    }
    int rv = 0;
    if (self->engine != NULL) { /* else get_buffer() ended it */
        rv = read_into(self, buffer, &got, &o);
    }
    Py_DECREF(buffer);
    if (rv == 0 && o.result == HL_TLS_OK) {
        rv = read_on_soon(self);
    }
    if (rv == 0 && got > 0) {
        rv = buffer_updated(self, before, got);
    }
    Py_DECREF(before);
    return outcome_conclude(self, &o, rv);
}

/* Hands over what can be decrypted, unless there is nothing for sure. */
static int
read_all(hl_tls *self)
{
    Py_ssize_t bound = self->engine->bound(self);
    if (bound <= 0) {
        return (int)bound;
    }
    switch (self->feed) {
    case HL_FEED_BUFFER:
        return read_buffered(self);
    case HL_FEED_STREAM:
    case HL_FEED_LAYER:
        return read_memory(self);
    default:
        return read_bytes(self, bound);
    }
}

int
hl_tls_do_read(hl_tls *self)
{
    if ((self->state != HL_TLS_WRAPPED && self->state != HL_TLS_FLUSHING) ||
        self->engine == NULL || self->protocol == NULL) {
        return 0;
    }
    bool outer = hl_tls_begin_event(self);
    int rv = 0;
    if (!self->app_paused) {
        rv = read_all(self);
        if (rv == 0 && self->engine != NULL) {
            rv = hl_tls_flush(self, false);
        }
    }
    if (rv == 0) {
        rv = hl_tls_control_reading(self);
    }
    if (rv < 0) {
        rv = hl_tls_failed(self, "Fatal error on SSL protocol");
    }
    return hl_tls_end_event(self, outer, rv);
}

int
hl_tls_control_reading(hl_tls *self)
{
    if (self->engine == NULL) {
        return 0;
    }
    hl_state *st = hl_tls_module_state(self);
    Py_ssize_t size = self->engine->unread(self);
    if (size < 0) {
        return -1;
    }
    if (size >= self->read_sizes[0] && !self->lower_paused) {
        self->lower_paused = true;
        return hl_tls_lower_call(self, st->str_pause_reading);
    }
    if (size <= self->read_sizes[1] && self->lower_paused) {
        self->lower_paused = false;
        return hl_tls_lower_call(self, st->str_resume_reading);
    }
    return 0;
}
