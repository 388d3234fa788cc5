/* streamreader.c - streams fed from C.
 *
 * An exact StreamReaderProtocol of asyncio, or one of ours, with an exact
 * StreamReader of asyncio or one of ours, none of them patched, gets what its
 * data_received() would do without a Python frame and without a bytes object.
 * Whatever is not as expected takes the Python way.
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "io/reader.h"
#include "io/stream.h"
#include "io/writer.h"

#include <string.h>

bool
hl_streamreader_suits(hl_state *st, PyObject *protocol)
{
    return Py_IS_TYPE(protocol, (PyTypeObject *)st->StreamReaderProtocol) ||
           PyObject_TypeCheck(protocol, st->StreamReaderProtocol_type);
}

/* Is obj.name the method that asyncio.streams defines?  Looked up as a call
 * would look it up, so that a replacement is seen, on the class or on the
 * instance. */
static bool
method_is_stock(hl_state *st, PyObject *obj, PyObject *name)
{
    PyObject *method = PyObject_GetAttr(obj, name);
    if (method == NULL) {
        PyErr_Clear();
        return false;
    }
    bool stock = false;
    if (PyMethod_Check(method) && PyMethod_GET_SELF(method) == obj) {
        PyObject *function = PyMethod_GET_FUNCTION(method);
        stock =
            PyFunction_Check(function) &&
            PyFunction_GET_GLOBALS(function) == PyModule_GetDict(st->streams);
    }
    Py_DECREF(method);
    return stock;
}

/* The reader that asyncio's protocol knows, if that one is not patched; new
 * reference or NULL, without an exception. */
static PyObject *
stock_reader(hl_state *st, PyObject *protocol)
{
    if (!method_is_stock(st, protocol, st->str_data_received)) {
        return NULL;
    }
    PyObject *ref = PyObject_GetAttr(protocol, st->str__stream_reader_wr);
    if (ref == NULL) {
        PyErr_Clear();
        return NULL;
    }
    PyObject *reader = hl_weakref_get(ref);
    Py_DECREF(ref);
    return reader;
}

/* A size stored in reader under name, -1 if it is not one. */
static Py_ssize_t
reader_get_size(PyObject *reader, PyObject *name)
{
    PyObject *value = PyObject_GetAttr(reader, name);
    Py_ssize_t size = -1;
    if (value != NULL && PyLong_CheckExact(value)) {
        size = PyLong_AsSsize_t(value);
    }
    Py_XDECREF(value);
    PyErr_Clear();
    return size;
}

/* reader._buffer += data, unless the reader has seen its end or is not what we
 * know.  The new length; 0 if the Python method must do it. */
static Py_ssize_t
reader_append(hl_state *st, PyObject *reader, const char *data,
              Py_ssize_t size)
{
    Py_ssize_t total = 0;
    PyObject *buffer = NULL;
    PyObject *eof = PyObject_GetAttr(reader, st->str__eof);
    if (eof == Py_False) {
        buffer = PyObject_GetAttr(reader, st->str__buffer);
    }
    if (buffer != NULL && PyByteArray_CheckExact(buffer)) {
        Py_ssize_t before = PyByteArray_GET_SIZE(buffer);
        if (size <= PY_SSIZE_T_MAX - before &&
            PyByteArray_Resize(buffer, before + size) == 0) {
            memcpy(PyByteArray_AS_STRING(buffer) + before, data, (size_t)size);
            total = before + size;
        }
    }
    Py_XDECREF(buffer);
    Py_XDECREF(eof);
    PyErr_Clear(); /* it will come again from the Python method */
    return total;
}

/* _wakeup_waiter() */
static int
reader_wake(hl_state *st, PyObject *reader)
{
    PyObject *waiter = PyObject_GetAttr(reader, st->str__waiter);
    if (waiter == NULL) {
        return -1;
    }
    int rv = 0;
    if (waiter != Py_None) {
        rv = PyObject_SetAttr(reader, st->str__waiter, Py_None);
        if (rv == 0) {
            rv = hl_future_set_result_unless_done(st, waiter, Py_None);
        }
    }
    Py_DECREF(waiter);
    return rv;
}

/* transport.pause_reading(); 1 if it paused, 0 if it cannot, -1. */
static int
reader_pause_transport(hl_state *st, PyObject *transport)
{
    PyObject *res =
        PyObject_CallMethodNoArgs(transport, st->str_pause_reading);
    if (res != NULL) {
        Py_DECREF(res);
        return 1;
    }
    if (!PyErr_ExceptionMatches(PyExc_NotImplementedError)) {
        return -1;
    }
    PyErr_Clear();
    return 0;
}

/* The reader holds more than twice its limit: reading stops until it has been
 * read from. */
static int
reader_pause(hl_state *st, PyObject *reader)
{
    int rv = -1;
    PyObject *transport = PyObject_GetAttr(reader, st->str__transport);
    PyObject *paused = PyObject_GetAttr(reader, st->str__paused);
    if (transport == NULL || paused == NULL) {
        goto done;
    }
    int is_paused = PyObject_IsTrue(paused);
    if (is_paused != 0 || transport == Py_None) {
        rv = is_paused < 0 ? -1 : 0;
        goto done;
    }
    int did = reader_pause_transport(st, transport);
    if (did >= 0) {
        rv = did == 1 ? PyObject_SetAttr(reader, st->str__paused, Py_True)
                      : PyObject_SetAttr(reader, st->str__transport, Py_None);
    }
done:
    Py_XDECREF(transport);
    Py_XDECREF(paused);
    return rv;
}

/* Feeds a reader of asyncio: 1, 0 or -1 as below. */
static int
feed_stock(hl_state *st, PyObject *reader, const char *data, Py_ssize_t size)
{
    if (!Py_IS_TYPE(reader, (PyTypeObject *)st->StreamReader) ||
        !method_is_stock(st, reader, st->str_feed_data)) {
        return 0;
    }
    int rv = 0;
    Py_ssize_t limit = reader_get_size(reader, st->str__limit);
    Py_ssize_t total = limit < 0 ? 0 : reader_append(st, reader, data, size);
    if (total > 0) {
        rv = reader_wake(st, reader);
        if (rv == 0 && total / 2 >= limit && total > 2 * limit) {
            rv = reader_pause(st, reader);
        }
        rv = rv < 0 ? -1 : 1;
    }
    return rv;
}

/* The reader behind protocol: new reference or NULL, without an exception. */
static PyObject *
find_reader(hl_state *st, PyObject *protocol)
{
    if (!PyObject_TypeCheck(protocol, st->StreamReaderProtocol_type)) {
        return stock_reader(st, protocol);
    }
    return hl_subclass_is_stock(protocol, &st->protocol_stock)
               ? hl_weakref_get(((hl_stream_protocol *)protocol)->reader_ref)
               : NULL;
}

int
hl_streamreader_feed(hl_state *st, PyObject *protocol, const char *data,
                     Py_ssize_t size)
{
    PyObject *reader = find_reader(st, protocol);
    if (reader == NULL) {
        return 0;
    }
    int rv;
    if (HL_LIKELY(hl_reader_check(st, reader))) {
        hl_reader *ours = (hl_reader *)reader;
        /* After the end it is for feed_data() to complain. */
        rv = ours->eof ? 0 : hl_reader_feed(ours, data, size) < 0 ? -1 : 1;
    }
    else {
        rv = feed_stock(st, reader, data, size);
    }
    Py_DECREF(reader);
    return rv;
}

char *
hl_streamreader_room(hl_state *st, PyObject *protocol, Py_ssize_t *room)
{
    if (!hl_stream_protocol_check(st, protocol)) {
        return NULL;
    }
    PyObject *ref = ((hl_stream_protocol *)protocol)->reader_ref;
    PyObject *reader = hl_weakref_get(ref);
    char *data = NULL;
    if (reader != NULL && hl_reader_check(st, reader)) {
        hl_reader *ours = (hl_reader *)reader;
        data =
            ours->need == 0 || ours->eof ? NULL : hl_reader_room(ours, room);
    }
    Py_XDECREF(reader); /* whoever waits has another */
    return data;
}

int
hl_streamreader_filled(hl_state *st, PyObject *protocol, Py_ssize_t size)
{
    PyObject *reader = find_reader(st, protocol);
    hl_reader_commit((hl_reader *)reader, size);
    int rv = hl_reader_fed((hl_reader *)reader);
    Py_DECREF(reader);
    return rv;
}
