/* engine_object.c - data by the methods of the SSLObject and its MemoryBIOs.
 *
 * For objects that are not plainly those of the ssl module, and for an OpenSSL
 * that cannot be called.  Objects of Python's own keep what they are given, so
 * they get copies.
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "tls/tls.h"

#include <string.h>

static int
object_feed(hl_tls *self, const char *data, size_t size)
{
    PyObject *bytes = PyBytes_FromStringAndSize(data, (Py_ssize_t)size);
    PyObject *res =
        bytes == NULL
            ? NULL
            : PyObject_CallMethodOneArg(
                  self->incoming, hl_tls_module_state(self)->str_write, bytes);
    Py_XDECREF(bytes);
    Py_XDECREF(res);
    return res == NULL ? -1 : 0;
}

static int
object_settle(hl_tls *Py_UNUSED(self))
{
    return 0;
}

static Py_ssize_t
pending_in(PyObject *bio)
{
    PyObject *value = PyObject_GetAttrString(bio, "pending");
    Py_ssize_t size = value == NULL ? -1 : PyLong_AsSsize_t(value);
    Py_XDECREF(value);
    return size;
}

static Py_ssize_t
object_unread(hl_tls *self)
{
    return pending_in(self->incoming);
}

static Py_ssize_t
object_bound(hl_tls *self)
{
    Py_ssize_t size = pending_in(self->incoming);
    return size < 0 ? -1 : size + HL_TLS_RECORD_ROOM;
}

static hl_tls_result
object_failed(hl_tls *self)
{
    if (hl_tls_is_again(self)) {
        PyErr_Clear();
        return HL_TLS_AGAIN;
    }
    return HL_TLS_FAILED;
}

static hl_tls_result
object_read(hl_tls *self, char *buffer, size_t size, size_t *got)
{
    Py_ssize_t bound = object_bound(self);
    PyObject *limit =
        bound < 0 ? NULL : PyLong_FromSize_t(Py_MIN(size, (size_t)bound));
    PyObject *data =
        limit == NULL ? NULL
                      : hl_tls_call_object(
                            self, hl_tls_module_state(self)->str_read, limit);
    Py_XDECREF(limit);
    *got = 0;
    if (data == NULL) {
        return object_failed(self);
    }
    hl_tls_result result = HL_TLS_EOF;
    if (!PyBytes_Check(data) || (size_t)PyBytes_GET_SIZE(data) > size) {
        PyErr_Format(PyExc_TypeError, "read() returned %R", data);
        result = HL_TLS_FAILED;
    }
    else if (PyBytes_GET_SIZE(data) > 0) {
        *got = (size_t)PyBytes_GET_SIZE(data);
        memcpy(buffer, PyBytes_AS_STRING(data), *got);
        result = HL_TLS_OK;
    }
    Py_DECREF(data);
    return result;
}

static hl_tls_result
object_write(hl_tls *self, const char *data, size_t size, size_t *taken)
{
    PyObject *bytes = PyBytes_FromStringAndSize(data, (Py_ssize_t)size);
    PyObject *res =
        bytes == NULL ? NULL
                      : hl_tls_call_object(
                            self, hl_tls_module_state(self)->str_write, bytes);
    Py_XDECREF(bytes);
    *taken = 0;
    if (res == NULL) {
        return object_failed(self);
    }
    Py_ssize_t count = PyLong_AsSsize_t(res);
    Py_DECREF(res);
    if (count < 0 || (size_t)count > size) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_ValueError, "write() took too much");
        }
        return HL_TLS_FAILED;
    }
    *taken = (size_t)count;
    return HL_TLS_OK;
}

static Py_ssize_t
object_unsent(hl_tls *self)
{
    return pending_in(self->outgoing);
}

static int
object_send(hl_tls *self)
{
    PyObject *data = PyObject_CallMethodNoArgs(
        self->outgoing, hl_tls_module_state(self)->str_read);
    char *bytes;
    Py_ssize_t size;
    int rv = data == NULL ? -1 : PyBytes_AsStringAndSize(data, &bytes, &size);
    if (rv == 0 && size > 0) {
        rv = hl_tls_lower_write(self, bytes, (size_t)size);
    }
    Py_XDECREF(data);
    return rv;
}

static void
object_close(hl_tls *self)
{
    Py_CLEAR(self->incoming);
    Py_CLEAR(self->outgoing);
}

const hl_tls_engine hl_tls_object = {
    .name = "object",
    .feed = object_feed,
    .settle = object_settle,
    .unread = object_unread,
    .bound = object_bound,
    .read = object_read,
    .write = object_write,
    .unsent = object_unsent,
    .send = object_send,
    .close = object_close,
};
