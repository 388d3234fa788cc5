/* streamreader.c - streams fed from C.
 *
 * An exact StreamReaderProtocol of asyncio, or one of ours, with an exact
 * StreamReader of asyncio or one of ours, none of them patched, gets what its
 * data_received() would do without a Python frame and without a bytes object.
 * Whatever is not as expected takes the Python way, and so do all while a tool
 * watches calls.
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "io/reader.h"
#include "io/stream.h"
#include "io/writer.h"

#include <string.h>

/* All attributes that asyncio gives the two classes, in its order: an instance
 * with another one is not as expected. */
static const char *const reader_attrs[] = {
    "_limit",     "_loop",      "_buffer", "_eof", "_waiter",
    "_exception", "_transport", "_paused", NULL,
};

typedef enum {
    READER_LIMIT = 0,
    READER_BUFFER = 2,
    READER_EOF = 3,
    READER_WAITER = 4,
} reader_attr;

static const char *const protocol_attrs[] = {
    "_loop",
    "_paused",
    "_drain_waiters",
    "_connection_lost",
    "_stream_reader_wr",
    "_source_traceback",
    "_strong_reader",
    "_reject_connection",
    "_stream_writer",
    "_task",
    "_transport",
    "_client_connected_cb",
    "_over_ssl",
    "_closed",
    NULL,
};

#define PROTOCOL_READER 4

/* What must be in the classes as it was: methods that are passed by, how
 * attributes are looked up and set, and nothing in the place of those. */
static const char *const reader_stock[] = {
    "feed_data", "_wakeup_waiter", "__getattribute__", "__setattr__", "_limit",
    "_buffer",   "_eof",           "_waiter",          NULL,
};

static const char *const protocol_stock[] = {
    "data_received",
    "_stream_reader",
    "__getattribute__",
    "_stream_reader_wr",
    NULL,
};

bool
hl_streamreader_suits(hl_state *st, PyObject *protocol)
{
    return Py_IS_TYPE(protocol, (PyTypeObject *)st->StreamReaderProtocol) ||
           PyObject_TypeCheck(protocol, st->StreamReaderProtocol_type);
}

/* Is type.name a function of asyncio.streams, or a property of one, known by
 * this name? */
static bool
is_from_asyncio(hl_state *st, PyObject *type, const char *name,
                const char *qualname)
{
    PyObject *function = PyObject_GetAttrString(type, name);
    if (function != NULL && Py_IS_TYPE(function, &PyProperty_Type)) {
        Py_SETREF(function, PyObject_GetAttrString(function, "fget"));
    }
    PyErr_Clear();
    bool is =
        function != NULL && PyFunction_Check(function) &&
        PyFunction_GET_GLOBALS(function) == PyModule_GetDict(st->streams) &&
        PyUnicode_CompareWithASCIIString(
            ((PyFunctionObject *)function)->func_qualname, qualname) == 0;
    Py_XDECREF(function);
    return is;
}

int
hl_streamreader_init(hl_state *st)
{
    PyObject *reader = st->StreamReader, *protocol = st->StreamReaderProtocol;
    /* Patched before we came: the Python way, for good. */
    if (!is_from_asyncio(st, reader, "feed_data", "StreamReader.feed_data") ||
        !is_from_asyncio(st, reader, "_wakeup_waiter",
                         "StreamReader._wakeup_waiter") ||
        !is_from_asyncio(st, protocol, "data_received",
                         "StreamReaderProtocol.data_received") ||
        !is_from_asyncio(st, protocol, "_stream_reader",
                         "StreamReaderProtocol._stream_reader")) {
        return 0;
    }
    if (hl_stock_init(&st->asyncio_reader_stock, &st->asyncio_reader_originals,
                      (PyTypeObject *)reader, NULL, reader_stock) < 0 ||
        hl_stock_init(&st->asyncio_protocol_stock,
                      &st->asyncio_protocol_originals,
                      (PyTypeObject *)protocol, NULL, protocol_stock) < 0) {
        return -1;
    }
    if (hl_attrs_find(&st->asyncio_reader_attrs, (PyTypeObject *)reader,
                      reader_attrs) < 0) {
        return -1;
    }
    return hl_attrs_find(&st->asyncio_protocol_attrs, (PyTypeObject *)protocol,
                         protocol_attrs);
}

/* Does a debugger or profiler of sys.settrace() or sys.setprofile() watch the
 * calls of this thread? */
static inline bool
calls_are_watched(void)
{
    PyThreadState *ts = PyThreadState_Get();
    return ts->c_tracefunc != NULL || ts->c_profilefunc != NULL;
}

/* The attributes of an instance of asyncio's class; NULL if it or its class is
 * not as asyncio left it. */
static inline PyObject **
stock_attrs(hl_stock *stock, const hl_attrs *attrs, PyObject *op)
{
    return Py_IS_TYPE(op, attrs->type) && hl_stock_check(stock, attrs->type)
               ? hl_attrs_of(attrs, op)
               : NULL;
}

/* The reader that asyncio's protocol knows: new reference or NULL, without an
 * exception. */
static PyObject *
stock_reader(hl_state *st, PyObject *protocol)
{
    const hl_attrs *attrs = &st->asyncio_protocol_attrs;
    PyObject **values =
        stock_attrs(&st->asyncio_protocol_stock, attrs, protocol);
    return values == NULL
               ? NULL
               : hl_weakref_get(values[attrs->index[PROTOCOL_READER]]);
}

/* The whole number that value is, -1 if it is none, or negative. */
static Py_ssize_t
size_of(PyObject *value)
{
    if (value == NULL || !PyLong_CheckExact(value)) {
        return -1;
    }
    Py_ssize_t size = PyLong_AsSsize_t(value);
    if (size == -1) {
        PyErr_Clear(); /* too large */
    }
    return size < 0 ? -1 : size;
}

/* buffer += data: the new length; 0 if the Python method must do it, or tell
 * why it cannot be done. */
static Py_ssize_t
append(PyObject *buffer, const char *data, Py_ssize_t size)
{
    if (buffer == NULL || !PyByteArray_CheckExact(buffer)) {
        return 0;
    }
    Py_ssize_t before = PyByteArray_GET_SIZE(buffer);
    if (size > PY_SSIZE_T_MAX - before) {
        return 0;
    }
    if (PyByteArray_Resize(buffer, before + size) < 0) {
        PyErr_Clear();
        return 0;
    }
    memcpy(PyByteArray_AS_STRING(buffer) + before, data, (size_t)size);
    return before + size;
}

/* May _wakeup_waiter() be done here?  A waiter that was cancelled, or set by
 * somebody else, is for the method. */
static inline bool
waiter_is_plain(hl_state *st, PyObject *waiter)
{
    return waiter == Py_None ||
           (waiter != NULL && Py_IS_TYPE(waiter, st->Future_type) &&
            !hl_future_is_done(waiter));
}

/* _wakeup_waiter() */
static int
reader_wake(hl_state *st, PyObject **slot)
{
    PyObject *waiter = *slot;
    if (waiter == Py_None) {
        return 0;
    }
    *slot = Py_NewRef(Py_None);
    int rv = hl_future_set_result_unless_done(st, waiter, Py_None);
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
    const hl_attrs *attrs = &st->asyncio_reader_attrs;
    PyObject **values = stock_attrs(&st->asyncio_reader_stock, attrs, reader);
    if (values == NULL || values[attrs->index[READER_EOF]] != Py_False ||
        !waiter_is_plain(st, values[attrs->index[READER_WAITER]])) {
        return 0;
    }
    Py_ssize_t limit = size_of(values[attrs->index[READER_LIMIT]]);
    Py_ssize_t total =
        limit < 0 ? 0
                  : append(values[attrs->index[READER_BUFFER]], data, size);
    if (total == 0) {
        return 0;
    }
    if (reader_wake(st, &values[attrs->index[READER_WAITER]]) < 0) {
        return -1;
    }
    bool full = (total - 1) / 2 >= limit; /* total > 2 * limit */
    return HL_UNLIKELY(full) && reader_pause(st, reader) < 0 ? -1 : 1;
}

/* The reader behind protocol: new reference or NULL, without an exception. */
static PyObject *
find_reader(hl_state *st, PyObject *protocol)
{
    if (HL_LIKELY(
            Py_IS_TYPE(protocol, (PyTypeObject *)st->StreamReaderProtocol))) {
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
    PyObject *reader =
        HL_UNLIKELY(calls_are_watched()) ? NULL : find_reader(st, protocol);
    if (reader == NULL) {
        return 0;
    }
    int rv;
    if (Py_IS_TYPE(reader, (PyTypeObject *)st->StreamReader)) {
        rv = feed_stock(st, reader, data, size);
    }
    else if (hl_reader_check(st, reader)) {
        hl_reader *ours = (hl_reader *)reader;
        /* After the end it is for feed_data() to complain. */
        rv = ours->eof ? 0 : hl_reader_feed(ours, data, size) < 0 ? -1 : 1;
    }
    else {
        rv = 0;
    }
    Py_DECREF(reader);
    return rv;
}

char *
hl_streamreader_room(hl_state *st, PyObject *protocol, Py_ssize_t *room)
{
    if (Py_IS_TYPE(protocol, (PyTypeObject *)st->StreamReaderProtocol) ||
        !hl_stream_protocol_check(st, protocol)) {
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
