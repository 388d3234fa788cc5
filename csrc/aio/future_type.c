/* future_type.c - the Python type hotloop.Future.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "aio/future_int.h"

#include "state/errors.h"

/* ---- construction ---- */

static int
Future_tp_init(PyObject *op, PyObject *args, PyObject *kwargs)
{
    char loop_name[] = "loop";
    char *keywords[] = {loop_name, NULL};
    PyObject *loop = Py_None;
    hl_future *fut = (hl_future *)op;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|$O:Future", keywords,
                                     &loop)) {
        return -1;
    }
    /* A fresh object has no loop to find the state by. */
    hl_state *st = hl_future_st(fut);
    return st == NULL ? -1 : hl_future_init(st, fut, loop);
}

/* Future(loop=loop) of the exact type; anything else goes the long way, which
 * words the errors. */
static PyObject *
Future_vectorcall(PyObject *callable, PyObject *const *args, size_t nargsf,
                  PyObject *kwnames)
{
    PyTypeObject *type = (PyTypeObject *)callable;
    hl_state *st = hl_state_of_type(type);
    if (st == NULL) {
        return NULL;
    }
    if (PyVectorcall_NARGS(nargsf) != 0 || kwnames == NULL ||
        PyTuple_GET_SIZE(kwnames) != 1 ||
        PyTuple_GET_ITEM(kwnames, 0) != st->str_loop ||
        type != st->Future_type || !hl_loop_check(st, args[0])) {
        return hl_aio_call_type(callable, args, nargsf, kwnames);
    }
    hl_loop *loop = (hl_loop *)args[0];
    PyObject *op =
        hl_future_alloc(&loop->free_futures, type, sizeof(hl_future));
    if (op != NULL && hl_future_init(st, (hl_future *)op, args[0]) < 0) {
        Py_CLEAR(op);
    }
    return op;
}

/* ---- collection ---- */

static void Future_tp_dealloc(PyObject *op);

static int
Future_tp_traverse(PyObject *op, visitproc visit, void *arg)
{
    return hl_future_traverse(
        (hl_future *)op, hl_future_base(op, Future_tp_dealloc), visit, arg);
}

static int
Future_tp_clear(PyObject *op)
{
    hl_future_clear((hl_future *)op, hl_future_base(op, Future_tp_dealloc));
    return 0;
}

static void
Future_tp_finalize(PyObject *op)
{
    hl_future_finalize((hl_future *)op);
}

static void
Future_tp_dealloc(PyObject *op)
{
    hl_future *fut = (hl_future *)op;
    if ((!fut->pooled || fut->log_traceback) &&
        PyObject_CallFinalizerFromDealloc(op) < 0) {
        return; /* resurrected */
    }
    PyObject_GC_UnTrack(op);
    Py_TRASHCAN_BEGIN(op, Future_tp_dealloc) PyObject_ClearWeakRefs(op);
    PyObject *loop = Py_XNewRef(fut->loop);
    hl_freelist *list =
        fut->loop_is_ours ? &((hl_loop *)loop)->free_futures : NULL;
    hl_future_clear(fut, hl_future_base(op, Future_tp_dealloc));
    hl_future_release(fut, loop, list);
    Py_TRASHCAN_END
}

static PyObject *
Future_tp_repr(PyObject *op)
{
    hl_future *fut = (hl_future *)op;
    if (hl_future_ensure_alive(fut) < 0) {
        return NULL;
    }
    hl_state *st = hl_future_st(fut);
    return st == NULL ? NULL : PyObject_CallOneArg(st->future_repr, op);
}

/* ---- methods ---- */

PyDoc_STRVAR(Future_set_result__doc__,
             "set_result($self, result, /)\n--\n\n"
             "Mark the future done and set its result.\n\n"
             "Raises InvalidStateError if it is done already.");

static PyObject *
Future_set_result(PyObject *op, PyObject *result)
{
    hl_future *fut = (hl_future *)op;
    hl_state *st = hl_future_st(fut);
    if (st == NULL || hl_future_set_result(st, fut, result) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    Future_set_exception__doc__,
    "set_exception($self, exception, /)\n--\n\n"
    "Mark the future done and set an exception (class or instance).\n\n"
    "Raises InvalidStateError if it is done already.");

static PyObject *
Future_set_exception(PyObject *op, PyObject *exc)
{
    hl_future *fut = (hl_future *)op;
    hl_state *st = hl_future_st(fut);
    if (st == NULL || hl_future_set_exception(st, fut, exc) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(Future_cancel__doc__,
             "cancel($self, /, msg=None)\n--\n\n"
             "Cancel the future and have its callbacks called.\n\n"
             "Returns False, and does nothing, if it is done already; else "
             "True.  msg is\n"
             "passed on to the CancelledError.");

static PyObject *
Future_cancel(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
              PyObject *kwnames)
{
    hl_future *fut = (hl_future *)op;
    PyObject *message;
    if (hl_future_parse_cancel(args, nargs, kwnames, &message) < 0 ||
        hl_future_ensure_alive(fut) < 0) {
        return NULL;
    }
    hl_state *st = hl_future_st(fut);
    int rv = st == NULL ? -1 : hl_future_cancel(st, fut, message);
    return rv < 0 ? NULL : PyBool_FromLong(rv);
}

PyDoc_STRVAR(
    Future__doc__,
    "Future(*, loop=None)\n--\n\n"
    "An asyncio.Future with its state in hotloop.\n\n"
    "The same methods, errors and callback order as the running asyncio's; a\n"
    "hotloop.Task that awaits it is woken without a Handle.");

static PyMethodDef Future_methods[] = {
    HL_FUTURE_METHODS,
    {"set_result", Future_set_result, METH_O, Future_set_result__doc__},
    {"set_exception", Future_set_exception, METH_O,
     Future_set_exception__doc__},
    {"cancel", HL_FASTCALL(Future_cancel), METH_FASTCALL | METH_KEYWORDS,
     Future_cancel__doc__},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef Future_getset[] = {
    HL_FUTURE_GETSET,
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot Future_slots[] = {
    {Py_tp_doc, HL_DOC(Future__doc__)},
    {Py_tp_init, HL_SLOT(Future_tp_init)},
    {Py_tp_new, HL_SLOT(PyType_GenericNew)},
    {Py_tp_dealloc, HL_SLOT(Future_tp_dealloc)},
    {Py_tp_finalize, HL_SLOT(Future_tp_finalize)},
    {Py_tp_traverse, HL_SLOT(Future_tp_traverse)},
    {Py_tp_clear, HL_SLOT(Future_tp_clear)},
    {Py_tp_repr, HL_SLOT(Future_tp_repr)},
    {Py_tp_iter, HL_SLOT(hl_future_iter)},
    {Py_am_await, HL_SLOT(hl_future_iter)},
    {Py_tp_methods, Future_methods},
    {Py_tp_getset, Future_getset},
    {0, NULL},
};

static PyType_Spec Future_spec = {
    .name = "hotloop.Future",
    .basicsize = sizeof(hl_future),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = Future_slots,
};

int
hl_future_type_init(PyObject *module, hl_state *st)
{
    if (hl_aio_init(module, st) < 0 ||
        hl_future_iter_type_init(module, st) < 0 ||
        hl_state_add_type(module, &st->Future_type, &Future_spec,
                          st->asyncio_Future) < 0) {
        return -1;
    }
    st->Future_type->tp_vectorcall = Future_vectorcall;
    return 0;
}

/* ---- for transports ---- */

/* done() of any future: 1, 0 or -1. */
static int
foreign_is_done(hl_state *st, PyObject *op)
{
    PyObject *res = PyObject_CallMethodNoArgs(op, st->str_done);
    if (res == NULL) {
        return -1;
    }
    int done = PyObject_IsTrue(res);
    Py_DECREF(res);
    return done;
}

static int
foreign_set(hl_state *st, PyObject *op, PyObject *method, PyObject *value)
{
    int done = foreign_is_done(st, op);
    if (done != 0) {
        return done < 0 ? -1 : 0;
    }
    PyObject *res = PyObject_CallMethodOneArg(op, method, value);
    Py_XDECREF(res);
    return res == NULL ? -1 : 0;
}

int
hl_future_set_result_unless_done(hl_state *st, PyObject *op, PyObject *result)
{
    if (!Py_IS_TYPE(op, st->Future_type)) {
        return foreign_set(st, op, st->str_set_result, result);
    }
    hl_future *fut = (hl_future *)op;
    return fut->state != HL_FUTURE_PENDING
               ? 0
               : hl_future_set_result(st, fut, result);
}

int
hl_future_set_exception_unless_done(hl_state *st, PyObject *op, PyObject *exc)
{
    if (!Py_IS_TYPE(op, st->Future_type)) {
        return foreign_set(st, op, st->str_set_exception, exc);
    }
    hl_future *fut = (hl_future *)op;
    return fut->state != HL_FUTURE_PENDING
               ? 0
               : hl_future_set_exception(st, fut, exc);
}
