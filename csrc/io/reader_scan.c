/* reader_scan.c - readline(), readuntil() and iteration over lines.
 *
 * Each operation remembers how far there is no separator, and the reader how
 * far there is no newline: no byte is looked at for every piece that comes.
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "io/reader_ops.h"

#include "state/errors.h"

#include <string.h>

/* ---- separators ---- */

/* A tuple of the same in the order of sizes, equal ones as they were.  New
 * reference or NULL. */
static PyObject *
separators_sort(PyObject *tuple)
{
    Py_ssize_t count = PyTuple_GET_SIZE(tuple);
    PyObject *sorted = PyTuple_New(count);
    if (sorted == NULL) {
        return NULL;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *item = PyTuple_GET_ITEM(tuple, i);
        Py_ssize_t at = i;
        while (at > 0 && PyBytes_GET_SIZE(PyTuple_GET_ITEM(sorted, at - 1)) >
                             PyBytes_GET_SIZE(item)) {
            PyTuple_SET_ITEM(sorted, at, PyTuple_GET_ITEM(sorted, at - 1));
            at--;
        }
        PyTuple_SET_ITEM(sorted, at, Py_NewRef(item));
    }
    return sorted;
}

PyObject *
hl_reader_separators(PyObject *separator)
{
    if (PyBytes_CheckExact(separator)) {
        return Py_NewRef(separator);
    }
    if (PY_VERSION_HEX >= 0x030D0000 && PyTuple_CheckExact(separator)) {
        for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(separator); i++) {
            if (!PyBytes_CheckExact(PyTuple_GET_ITEM(separator, i))) {
                return NULL;
            }
        }
        return separators_sort(separator);
    }
    return NULL;
}

static inline Py_ssize_t
separators_count(PyObject *arg)
{
    return PyTuple_Check(arg) ? PyTuple_GET_SIZE(arg) : 1;
}

static inline PyObject *
separators_get(PyObject *arg, Py_ssize_t i)
{
    return PyTuple_Check(arg) ? PyTuple_GET_ITEM(arg, i) : arg;
}

/* ---- searching ---- */

typedef struct {
    Py_ssize_t least; /* sizes of the shortest and the longest separator */
    Py_ssize_t most;
    Py_ssize_t start; /* of the match, -1 if there is none */
    Py_ssize_t end;
} hl_match;

static Py_ssize_t
find(const char *data, Py_ssize_t size, Py_ssize_t from, PyObject *separator)
{
    size_t length = (size_t)PyBytes_GET_SIZE(separator);
    const char *needle = PyBytes_AS_STRING(separator);
    const char *found =
        length == 1
            ? memchr(data + from, needle[0], (size_t)(size - from))
            : memmem(data + from, (size_t)(size - from), needle, length);
    return found == NULL ? -1 : found - data;
}

/* The match that ends first; of those, that of the first separator. */
static int
search_all(hl_stream_op *op, Py_ssize_t size, hl_match *match)
{
    const char *data = hl_reader_data(hl_op_reader(op));
    if (data == NULL) {
        return -1;
    }
    for (Py_ssize_t i = 0; i < separators_count(op->arg); i++) {
        PyObject *separator = separators_get(op->arg, i);
        Py_ssize_t start = find(data, size, op->offset, separator);
        Py_ssize_t end = start + PyBytes_GET_SIZE(separator);
        if (start >= 0 && (match->start < 0 || end < match->end)) {
            match->start = start;
            match->end = end;
        }
    }
    return 0;
}

static int
search_newline(hl_stream_op *op, Py_ssize_t size, hl_match *match)
{
    hl_reader *self = hl_op_reader(op);
    const char *data = hl_reader_data(self);
    if (data == NULL) {
        return -1;
    }
    /* Whoever has the bytearray may have put in another newline. */
    Py_ssize_t scanned = self->exposed == NULL ? self->scanned : 0;
    Py_ssize_t from = Py_MAX(scanned, op->offset);
    const char *found = memchr(data + from, '\n', (size_t)(size - from));
    if (found != NULL) {
        match->start = found - data;
        match->end = match->start + 1;
    }
    if (self->exposed == NULL && op->offset <= self->scanned) {
        self->scanned = found != NULL ? match->start : size;
    }
    return 0;
}

/* ---- readuntil() ---- */

static int
raise_overrun(hl_state *st, const char *message, Py_ssize_t consumed)
{
    PyObject *exc =
        PyObject_CallFunction(st->LimitOverrunError, "sn", message, consumed);
    if (exc != NULL) {
        hl_error_restore(exc);
    }
    return -1;
}

static int
until_found(hl_stream_op *op, const hl_match *match, PyObject **result)
{
    hl_reader *self = hl_op_reader(op);
    if (HL_UNLIKELY(match->start > self->limit)) {
        return raise_overrun(
            op->st, "Separator is found, but chunk is longer than limit",
            match->start);
    }
    return hl_op_take(self, match->end, result);
}

/* The end came before the separator.  readline() takes what there is. */
static int
until_eof(hl_stream_op *op, PyObject **result)
{
    hl_reader *self = hl_op_reader(op);
    if (op->kind == &hl_op_readuntil) {
        return hl_reader_incomplete(self, Py_None);
    }
    *result = hl_reader_take(self, hl_reader_size(self));
    return *result == NULL ? -1 : 1;
}

static int
until_step(hl_stream_op *op, hl_match *match, PyObject **result)
{
    hl_reader *self = hl_op_reader(op);
    Py_ssize_t size = hl_reader_size(self);
    match->start = -1;
    if (size - op->offset >= match->least) {
        if ((op->arg == NULL ? search_newline(op, size, match)
                             : search_all(op, size, match)) < 0) {
            return -1;
        }
        if (match->start >= 0) {
            return until_found(op, match, result);
        }
        op->offset = Py_MAX(0, size + 1 - match->most);
        if (HL_UNLIKELY(op->offset > self->limit)) {
            return raise_overrun(
                op->st, "Separator is not found, and chunk exceed the limit",
                op->offset);
        }
    }
    if (self->eof) {
        return until_eof(op, result);
    }
    return hl_op_wait_for_data(op, "readuntil");
}

/* What a step goes by.  0 or -1. */
static int
until_prepare(hl_stream_op *op, hl_match *match)
{
    match->least = match->most = 1;
    if (op->arg == NULL) {
        return 0;
    }
    Py_ssize_t count = separators_count(op->arg);
    if (count == 0) {
        PyErr_SetString(PyExc_ValueError,
                        "Separator should contain at least one element");
        return -1;
    }
    match->least = PyBytes_GET_SIZE(separators_get(op->arg, 0));
    match->most = PyBytes_GET_SIZE(separators_get(op->arg, count - 1));
    if (match->least == 0) {
        PyErr_SetString(PyExc_ValueError,
                        "Separator should be at least one-byte string");
        return -1;
    }
    return 0;
}

static int
until_begin(hl_stream_op *op, PyObject **result)
{
    hl_match match;
    if (until_prepare(op, &match) < 0) {
        return -1;
    }
    if (HL_UNLIKELY(hl_reader_failed(hl_op_reader(op)))) {
        return hl_reader_raise(hl_op_reader(op));
    }
    return until_step(op, &match, result);
}

static int
until_go_on(hl_stream_op *op, PyObject **result)
{
    hl_match match;
    return until_prepare(op, &match) < 0 ? -1 : until_step(op, &match, result);
}

const hl_stream_op_kind hl_op_readuntil = {
    .name = "readuntil",
    .qualname = "StreamReader.readuntil",
    .begin = until_begin,
    .go_on = until_go_on,
    .end_wait = hl_op_end_wait,
};

/* ---- readline() ---- */

/* The line is too long: drops it if its end is there, else everything. */
static int
line_drop(hl_reader *self, PyObject *exc)
{
    PyObject *number = PyObject_GetAttrString(exc, "consumed");
    Py_ssize_t consumed = number == NULL ? -1 : PyLong_AsSsize_t(number);
    Py_XDECREF(number);
    if (consumed < 0 && PyErr_Occurred()) {
        return -1;
    }
    Py_ssize_t size = hl_reader_size(self);
    const char *data = hl_reader_data(self);
    if (data == NULL) {
        return -1;
    }
    if (consumed >= 0 && consumed < size && data[consumed] == '\n') {
        size = consumed + 1;
    }
    return hl_reader_drop(self, size) < 0 ? -1 : hl_reader_maybe_resume(self);
}

/* raise ValueError(exc.args[0]), in an except clause.  -1. */
static int
line_raise(PyObject *exc)
{
    PyObject *args = PyObject_GetAttrString(exc, "args");
    PyObject *text = args == NULL ? NULL : PySequence_GetItem(args, 0);
    PyObject *raised =
        text == NULL ? NULL : PyObject_CallOneArg(PyExc_ValueError, text);
    Py_XDECREF(text);
    Py_XDECREF(args);
    if (raised != NULL) {
        PyException_SetContext(raised, Py_NewRef(exc));
        hl_error_restore(raised);
    }
    return -1;
}

/* The except clauses of readline(). */
static int
line_failed(hl_stream_op *op, PyObject **result)
{
    bool incomplete = PyErr_ExceptionMatches(op->st->IncompleteReadError);
    if (!incomplete && !PyErr_ExceptionMatches(op->st->LimitOverrunError)) {
        return -1;
    }
    PyObject *exc = hl_error_fetch();
    int rv = -1;
    if (incomplete) {
        *result = PyObject_GetAttrString(exc, "partial");
        rv = *result == NULL ? -1 : 1;
    }
    else if (line_drop(hl_op_reader(op), exc) == 0) {
        rv = line_raise(exc);
    }
    Py_DECREF(exc);
    return rv;
}

const hl_stream_op_kind hl_op_readline = {
    .name = "readline",
    .qualname = "StreamReader.readline",
    .begin = until_begin,
    .go_on = until_go_on,
    .end_wait = hl_op_end_wait,
    .failed = line_failed,
};

/* ---- __anext__() ---- */

/* An empty line is the end. */
static int
anext_check(int done, PyObject **result)
{
    if (done > 0 && PyBytes_CheckExact(*result) &&
        PyBytes_GET_SIZE(*result) == 0) {
        Py_CLEAR(*result);
        PyErr_SetNone(PyExc_StopAsyncIteration);
        return -1;
    }
    return done;
}

static int
anext_begin(hl_stream_op *op, PyObject **result)
{
    return anext_check(until_begin(op, result), result);
}

static int
anext_go_on(hl_stream_op *op, PyObject **result)
{
    return anext_check(until_go_on(op, result), result);
}

static int
anext_failed(hl_stream_op *op, PyObject **result)
{
    return anext_check(line_failed(op, result), result);
}

const hl_stream_op_kind hl_op_anext = {
    .name = "__anext__",
    .qualname = "StreamReader.__anext__",
    .begin = anext_begin,
    .go_on = anext_go_on,
    .end_wait = hl_op_end_wait,
    .failed = anext_failed,
};
