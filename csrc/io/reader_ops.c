/* reader_ops.c - read() and readexactly().
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "io/reader_ops.h"

#include "state/errors.h"

int
hl_op_wait_for_data(hl_stream_op *op, const char *method)
{
    PyObject *future = hl_reader_begin_wait(hl_op_reader(op), method);
    if (future == NULL) {
        return -1;
    }
    if (hl_stream_op_wait(op, future) < 0) {
        hl_op_end_wait(op);
        return -1;
    }
    return 0;
}

void
hl_op_end_wait(hl_stream_op *op)
{
    hl_reader_end_wait(hl_op_reader(op));
}

int
hl_op_take(hl_reader *self, Py_ssize_t size, PyObject **result)
{
    PyObject *data = hl_reader_take(self, size);
    if (data == NULL) {
        return -1;
    }
    if (HL_UNLIKELY(self->paused) && hl_reader_maybe_resume(self) < 0) {
        Py_DECREF(data);
        return -1;
    }
    *result = data;
    return 1;
}

/* ---- read(n) ---- */

static int
read_go_on(hl_stream_op *op, PyObject **result)
{
    hl_reader *self = hl_op_reader(op);
    return hl_op_take(self, Py_MIN(op->n, hl_reader_size(self)), result);
}

static int
read_begin(hl_stream_op *op, PyObject **result)
{
    hl_reader *self = hl_op_reader(op);
    if (hl_reader_failed(self)) {
        return hl_reader_raise(self);
    }
    if (op->n == 0) {
        *result = PyBytes_FromStringAndSize(NULL, 0);
        return *result == NULL ? -1 : 1;
    }
    if (hl_reader_size(self) == 0 && !self->eof) {
        return hl_op_wait_for_data(op, "read");
    }
    return read_go_on(op, result);
}

const hl_stream_op_kind hl_op_read = {
    .name = "read",
    .qualname = "StreamReader.read",
    .begin = read_begin,
    .go_on = read_go_on,
    .end_wait = hl_op_end_wait,
};

/* ---- read() ---- */

/* All blocks, op->arg, in one. */
static int
blocks_join(hl_stream_op *op, PyObject **result)
{
    PyObject *blocks = op->arg;
    if (blocks != NULL && PyList_GET_SIZE(blocks) == 1) {
        *result = Py_NewRef(PyList_GET_ITEM(blocks, 0));
        return 1;
    }
    PyObject *empty = PyBytes_FromStringAndSize(NULL, 0);
    *result = empty == NULL || blocks == NULL
                  ? Py_XNewRef(empty)
                  : PyObject_CallMethodOneArg(empty, op->st->str_join, blocks);
    Py_XDECREF(empty);
    return *result == NULL ? -1 : 1;
}

static int
read_all_begin(hl_stream_op *op, PyObject **result)
{
    hl_reader *self = hl_op_reader(op);
    for (;;) {
        bool failed = hl_reader_failed(self);
        if (failed && !op->waited) {
            return hl_reader_raise(self);
        }
        Py_ssize_t size = hl_reader_size(self);
        if (size == 0 && !self->eof && !op->waited) {
            return hl_op_wait_for_data(op, "read");
        }
        if (size == 0) {
            return blocks_join(op, result);
        }
        op->waited = false;
        if (op->arg == NULL && (op->arg = PyList_New(0)) == NULL) {
            return -1;
        }
        PyObject *block;
        if (hl_op_take(self, failed ? Py_MIN(size, self->limit) : size,
                       &block) < 0) {
            return -1;
        }
        int rv = PyList_Append(op->arg, block);
        Py_DECREF(block);
        if (rv < 0) {
            return -1;
        }
    }
}

static int
read_all_go_on(hl_stream_op *op, PyObject **result)
{
    op->waited = true;
    return read_all_begin(op, result);
}

const hl_stream_op_kind hl_op_read_all = {
    .name = "read",
    .qualname = "StreamReader.read",
    .begin = read_all_begin,
    .go_on = read_all_go_on,
    .end_wait = hl_op_end_wait,
};

/* ---- readexactly(n) ---- */

int
hl_reader_incomplete(hl_reader *self, PyObject *expected)
{
    hl_state *st = self->base.st;
    PyObject *partial = hl_reader_take(self, hl_reader_size(self));
    if (partial == NULL) {
        return -1;
    }
    PyObject *exc = PyObject_CallFunctionObjArgs(st->IncompleteReadError,
                                                 partial, expected, NULL);
    Py_DECREF(partial);
    if (exc != NULL) {
        hl_error_restore(exc);
    }
    return -1;
}

static int
exactly_go_on(hl_stream_op *op, PyObject **result)
{
    hl_reader *self = hl_op_reader(op);
    if (hl_reader_size(self) >= op->n) {
        return hl_op_take(self, op->n, result);
    }
    if (self->eof) {
        PyObject *expected = PyLong_FromSsize_t(op->n);
        if (expected != NULL) {
            (void)hl_reader_incomplete(self, expected);
            Py_DECREF(expected);
        }
        return -1;
    }
    if (hl_op_wait_for_data(op, "readexactly") < 0) {
        return -1;
    }
    hl_reader_reserve(self, op->n);
    self->need = op->n;
    return 0;
}

static int
exactly_begin(hl_stream_op *op, PyObject **result)
{
    hl_reader *self = hl_op_reader(op);
    if (op->n < 0) {
        PyErr_SetString(PyExc_ValueError,
                        "readexactly size can not be less than zero");
        return -1;
    }
    if (hl_reader_failed(self)) {
        return hl_reader_raise(self);
    }
    if (op->n == 0) {
        *result = PyBytes_FromStringAndSize(NULL, 0);
        return *result == NULL ? -1 : 1;
    }
    return exactly_go_on(op, result);
}

const hl_stream_op_kind hl_op_readexactly = {
    .name = "readexactly",
    .qualname = "StreamReader.readexactly",
    .begin = exactly_begin,
    .go_on = exactly_go_on,
    .end_wait = hl_op_end_wait,
};
