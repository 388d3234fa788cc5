/* stream_op_type.c - the Python side of what coroutine methods return.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "io/stream_op.h"

#include "aio/future.h"
#include "state/errors.h"

#define SELF(op) ((hl_stream_op *)(op))

PyObject *
hl_stream_op_new(hl_state *st, const hl_stream_op_kind *kind, PyObject *owner,
                 PyObject *arg, Py_ssize_t n)
{
    hl_stream_op *self;
    if (HL_LIKELY(st->op_pool_count > 0)) {
        self = SELF(st->op_pool[--st->op_pool_count]);
        PyObject_Init((PyObject *)self, st->StreamOperation_type);
    }
    else {
        self = PyObject_GC_New(hl_stream_op, st->StreamOperation_type);
        if (self == NULL) {
            return NULL;
        }
    }
    self->st = st;
    self->module = Py_NewRef(st->module);
    self->kind = kind;
    self->owner = Py_NewRef(owner);
    self->arg = Py_XNewRef(arg);
    self->future = self->inner = NULL;
    self->n = n;
    self->offset = 0;
    self->state = HL_OP_CREATED;
    self->waited = false;
    PyObject_GC_Track((PyObject *)self);
    return (PyObject *)self;
}

/* ---- results, as iterators and methods have them ---- */

/* The exception that carries results is used again when nobody has kept it:
 * this is what an `await` in Python code costs. */
static PyObject *
stop_renew(hl_state *st, PyObject *value)
{
    PyStopIterationObject *stop = (PyStopIterationObject *)st->stop_iteration;
    if (stop == NULL || Py_REFCNT(stop) != 1 || stop->traceback != NULL ||
        stop->context != NULL || stop->cause != NULL || stop->dict != NULL) {
        PyObject *made = PyObject_CallOneArg(PyExc_StopIteration, value);
        if (made != NULL) {
            Py_XSETREF(st->stop_iteration, Py_NewRef(made));
        }
        return made;
    }
    PyObject *args = PyTuple_Pack(1, value);
    if (args == NULL) {
        return NULL;
    }
    Py_XSETREF(stop->args, args);
    Py_XSETREF(stop->value, Py_NewRef(value));
    return Py_NewRef((PyObject *)stop);
}

/* It keeps no result alive. */
static inline void
stop_empty(hl_state *st)
{
    PyStopIterationObject *stop = (PyStopIterationObject *)st->stop_iteration;
    if (stop != NULL && (Py_REFCNT(stop) != 1 || stop->traceback != NULL)) {
        /* Python code has it, or had it: its frames are not ours to keep. */
        Py_CLEAR(st->stop_iteration);
    }
    else if (stop != NULL && stop->value != NULL) {
        Py_XSETREF(stop->args, Py_NewRef(st->empty_tuple));
        Py_CLEAR(stop->value);
    }
}

/* Ends an exchange: the object yielded, or NULL with StopIteration; without
 * any exception for None where the caller is an iterator's. */
static PyObject *
op_answer(hl_stream_op *self, PySendResult sent, PyObject *result,
          bool no_exception)
{
    if (sent != PYGEN_RETURN) {
        return result;
    }
    if (result != Py_None) {
        PyObject *stop =
            no_exception ? stop_renew(self->st, result)
                         : PyObject_CallOneArg(PyExc_StopIteration, result);
        if (stop != NULL) {
            hl_error_restore(stop);
        }
    }
    else if (!no_exception) {
        PyErr_SetNone(PyExc_StopIteration);
    }
    Py_DECREF(result);
    return NULL;
}

static PyObject *
StreamOperation_tp_iternext(PyObject *op)
{
    PyObject *result;
    PySendResult sent = hl_stream_op_send(op, Py_None, &result);
    return op_answer(SELF(op), sent, result, true);
}

PyDoc_STRVAR(StreamOperation_send__doc__,
             "send($self, value, /)\n--\n\n"
             "Start or resume; as a coroutine's method.");

static PyObject *
StreamOperation_send(PyObject *op, PyObject *value)
{
    PyObject *result;
    PySendResult sent = hl_stream_op_send(op, value, &result);
    return op_answer(SELF(op), sent, result, false);
}

PyDoc_STRVAR(StreamOperation_throw__doc__,
             "throw($self, type, value=None, traceback=None, /)\n--\n\n"
             "Raise the exception where it waits; as a coroutine's method.");

static PyObject *
StreamOperation_throw(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *result, *exc = hl_thrown_exception(args, nargs);
    if (exc == NULL) {
        return NULL;
    }
    PySendResult sent = hl_stream_op_throw(SELF(op), exc, &result);
    Py_DECREF(exc);
    return op_answer(SELF(op), sent, result, false);
}

PyDoc_STRVAR(StreamOperation_close__doc__,
             "close($self, /)\n--\n\n"
             "Give it up; as a coroutine's method.");

static PyObject *
StreamOperation_close(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return hl_stream_op_close(SELF(op)) < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *
StreamOperation_am_await(PyObject *op)
{
    if (SELF(op)->state == HL_OP_SUSPENDED) {
        PyErr_SetString(PyExc_RuntimeError,
                        "coroutine is being awaited already");
        return NULL;
    }
    return Py_NewRef(op);
}

static PyMethodDef StreamOperation_methods[] = {
    {"send", StreamOperation_send, METH_O, StreamOperation_send__doc__},
    {"throw", HL_FASTCALL(StreamOperation_throw), METH_FASTCALL,
     StreamOperation_throw__doc__},
    {"close", StreamOperation_close, METH_NOARGS,
     StreamOperation_close__doc__},
    {NULL, NULL, 0, NULL},
};

static PyObject *
StreamOperation_get_name(PyObject *op, void *Py_UNUSED(closure))
{
    return PyUnicode_FromString(SELF(op)->kind->name);
}

static PyObject *
StreamOperation_get_qualname(PyObject *op, void *Py_UNUSED(closure))
{
    return PyUnicode_FromString(SELF(op)->kind->qualname);
}

static PyObject *
StreamOperation_get_running(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(SELF(op)->state == HL_OP_RUNNING);
}

static PyObject *
StreamOperation_get_suspended(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(SELF(op)->state == HL_OP_SUSPENDED);
}

static PyGetSetDef StreamOperation_getset[] = {
    {"__name__", StreamOperation_get_name, NULL, NULL, NULL},
    {"__qualname__", StreamOperation_get_qualname, NULL, NULL, NULL},
    {"cr_running", StreamOperation_get_running, NULL, NULL, NULL},
    {"cr_suspended", StreamOperation_get_suspended, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

/* ---- the type ---- */

static PyObject *
StreamOperation_tp_repr(PyObject *op)
{
    return PyUnicode_FromFormat("<coroutine object %s at %p>",
                                SELF(op)->kind->qualname, (void *)op);
}

static int
StreamOperation_tp_traverse(PyObject *op, visitproc visit, void *arg)
{
    hl_stream_op *self = SELF(op);
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->module);
    Py_VISIT(self->owner);
    Py_VISIT(self->arg);
    Py_VISIT(self->future);
    Py_VISIT(self->inner);
    return 0;
}

static int
StreamOperation_tp_clear(PyObject *op)
{
    hl_stream_op_clear(SELF(op));
    return 0;
}

static void
StreamOperation_tp_finalize(PyObject *op)
{
    if (SELF(op)->state != HL_OP_DONE) {
        hl_stream_op_abandon(SELF(op));
    }
}

static void
StreamOperation_tp_dealloc(PyObject *op)
{
    hl_stream_op *self = SELF(op);
    if (HL_UNLIKELY(self->state != HL_OP_DONE) &&
        PyObject_CallFinalizerFromDealloc(op) < 0) {
        return;
    }
    PyTypeObject *type = Py_TYPE(op);
    hl_state *st = self->st;
    PyObject *module = self->module;
    PyObject_GC_UnTrack(op);
    stop_empty(st);
    Py_CLEAR(self->owner);
    Py_CLEAR(self->arg);
    Py_CLEAR(self->future);
    Py_CLEAR(self->inner);
    if (st->op_pool_count < HL_OP_POOL_MAX && !PyObject_GC_IsFinalized(op) &&
        type == st->StreamOperation_type) {
        st->op_pool[st->op_pool_count++] = op;
    }
    else {
        PyObject_GC_Del(op);
    }
    Py_DECREF(module);
    Py_DECREF(type);
}

PyDoc_STRVAR(StreamOperation__doc__,
             "What read(), drain() and their like return: a coroutine in C.");

static PyType_Slot StreamOperation_slots[] = {
    {Py_tp_doc, HL_DOC(StreamOperation__doc__)},
    {Py_tp_dealloc, HL_SLOT(StreamOperation_tp_dealloc)},
    {Py_tp_finalize, HL_SLOT(StreamOperation_tp_finalize)},
    {Py_tp_traverse, HL_SLOT(StreamOperation_tp_traverse)},
    {Py_tp_clear, HL_SLOT(StreamOperation_tp_clear)},
    {Py_tp_repr, HL_SLOT(StreamOperation_tp_repr)},
    {Py_tp_iter, HL_SLOT(PyObject_SelfIter)},
    {Py_tp_iternext, HL_SLOT(StreamOperation_tp_iternext)},
    {Py_tp_methods, StreamOperation_methods},
    {Py_tp_getset, StreamOperation_getset},
    {Py_am_await, HL_SLOT(StreamOperation_am_await)},
    {Py_am_send, HL_SLOT(hl_stream_op_send)},
    {0, NULL},
};

static PyType_Spec StreamOperation_spec = {
    .name = "hotloop._core.StreamOperation",
    .basicsize = sizeof(hl_stream_op),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC |
             Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = StreamOperation_slots,
};

int
hl_stream_op_type_init(PyObject *module, hl_state *st)
{
    return hl_state_add_type(module, &st->StreamOperation_type,
                             &StreamOperation_spec, NULL);
}

void
hl_stream_op_free_pool(hl_state *st)
{
    while (st->op_pool_count > 0) {
        PyObject_GC_Del(st->op_pool[--st->op_pool_count]);
    }
}
