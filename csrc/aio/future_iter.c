/* future_iter.c - what `await future` iterates over.
 *
 * Yields the future once, marked as blocking, and returns its result when
 * resumed.  Dead iterators are kept for the next await.
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "aio/future_int.h"

#include "state/errors.h"

typedef struct {
    PyObject_HEAD
    hl_future *future; /* owned; NULL after throw() and close() */
    bool spent; /* gave its result: up to 3.13 that ends the iteration */
} hl_future_iter_object;

bool
hl_future_is_done(PyObject *op)
{
    return ((hl_future *)op)->state != HL_FUTURE_PENDING;
}

PySendResult
hl_future_send(PyObject *op, PyObject **result)
{
    hl_future *fut = (hl_future *)op;
    *result = NULL;
    if (fut->state == HL_FUTURE_PENDING) {
        if (HL_LIKELY(!fut->blocking)) {
            fut->blocking = true;
            *result = Py_NewRef(op);
            return PYGEN_NEXT;
        }
        PyErr_SetString(PyExc_RuntimeError, "await wasn't used with future");
        return PYGEN_ERROR;
    }
    hl_state *st = hl_future_st(fut);
    if (st != NULL) {
        Py_INCREF(fut);
        *result = hl_future_result(st, fut);
        Py_DECREF(fut);
    }
    return *result == NULL ? PYGEN_ERROR : PYGEN_RETURN;
}

static PySendResult
FutureIter_am_send(PyObject *op, PyObject *Py_UNUSED(value), PyObject **result)
{
    hl_future_iter_object *it = (hl_future_iter_object *)op;
    hl_future *fut = it->future;
    if (HL_UNLIKELY(fut == NULL || it->spent)) {
        *result = Py_NewRef(Py_None);
        return PYGEN_RETURN;
    }
#if PY_VERSION_HEX < 0x030E0000
    it->spent = fut->state != HL_FUTURE_PENDING;
#endif
    return hl_future_send(hl_future_op(fut), result);
}

/* StopIteration(value), made here: raised with a bare value, a tuple or an
 * exception would be taken apart. */
static void
raise_stop_iteration(PyObject *value)
{
    if (value == Py_None) {
        PyErr_SetNone(PyExc_StopIteration);
        return;
    }
    PyObject *exc = PyObject_CallOneArg(PyExc_StopIteration, value);
    if (exc != NULL) {
        hl_error_restore(exc);
    }
}

/* With no_exception, a None result ends the iteration without StopIteration:
 * what tp_iternext may do, and `await` finds cheapest. */
static PyObject *
iter_next(PyObject *op, bool no_exception)
{
    PyObject *result;
    switch (FutureIter_am_send(op, Py_None, &result)) {
    case PYGEN_NEXT:
        return result;
    case PYGEN_RETURN:
        if (result != Py_None || !no_exception) {
            raise_stop_iteration(result);
        }
        Py_DECREF(result);
        return NULL;
    case PYGEN_ERROR:
    default:
        return NULL;
    }
}

static PyObject *
FutureIter_tp_iternext(PyObject *op)
{
    return iter_next(op, true);
}

static int
FutureIter_tp_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(((hl_future_iter_object *)op)->future);
    return 0;
}

static int
FutureIter_tp_clear(PyObject *op)
{
    Py_CLEAR(((hl_future_iter_object *)op)->future);
    return 0;
}

static void
FutureIter_tp_dealloc(PyObject *op)
{
    hl_future_iter_object *it = (hl_future_iter_object *)op;
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    hl_future *fut = it->future;
    it->future = NULL;
    if (fut != NULL && fut->loop_is_ours &&
        ((hl_loop *)fut->loop)->st->aio != NULL) {
        hl_aio *aio = hl_aio_of(((hl_loop *)fut->loop)->st);
        if (aio->iter_type == type && aio->iters_count < HL_ITER_POOL_MAX) {
            aio->iters[aio->iters_count++] = op;
            op = NULL;
        }
    }
    if (op != NULL) {
        PyObject_GC_Del(op);
    }
    Py_DECREF(type);
    Py_XDECREF(fut);
}

PyObject *
hl_future_iter(PyObject *op)
{
    hl_future *fut = (hl_future *)op;
    if (hl_future_ensure_alive(fut) < 0) {
        return NULL;
    }
    hl_state *st = hl_future_st(fut);
    if (st == NULL) {
        return NULL;
    }
    hl_aio *aio = hl_aio_of(st);
    hl_future_iter_object *it;
    if (HL_LIKELY(aio->iters_count > 0)) {
        it = (hl_future_iter_object *)aio->iters[--aio->iters_count];
        PyObject_Init((PyObject *)it, st->FutureIter_type);
    }
    else {
        it = PyObject_GC_New(hl_future_iter_object, st->FutureIter_type);
        if (it == NULL) {
            return NULL;
        }
    }
    it->future = (hl_future *)Py_NewRef(op);
    it->spent = false;
    PyObject_GC_Track(it);
    return (PyObject *)it;
}

/* ---- methods ---- */

static PyObject *
FutureIter_send(PyObject *op, PyObject *Py_UNUSED(value))
{
    return iter_next(op, false);
}

static PyObject *
FutureIter_close(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    Py_CLEAR(((hl_future_iter_object *)op)->future);
    Py_RETURN_NONE;
}

/* The exception that throw(type, value) means: new reference, or NULL. */
static PyObject *
thrown_exception(PyObject *type, PyObject *value)
{
    if (PyExceptionInstance_Check(type)) {
        if (value != NULL) {
            PyErr_SetString(PyExc_TypeError,
                            "instance exception may not have a separate "
                            "value");
            return NULL;
        }
        return Py_NewRef(type);
    }
    if (!PyExceptionClass_Check(type)) {
        PyErr_SetString(PyExc_TypeError,
                        "exceptions must be classes deriving BaseException "
                        "or instances of such a class");
        return NULL;
    }
    if (value == NULL) {
        return PyObject_CallNoArgs(type);
    }
    int is_instance = PyObject_IsInstance(value, type);
    if (is_instance != 0) {
        return is_instance < 0 ? NULL : Py_NewRef(value);
    }
    return PyTuple_Check(value) ? PyObject_Call(type, value, NULL)
                                : PyObject_CallOneArg(type, value);
}

static int
check_throw_args(PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs < 1 || nargs > 3) {
        PyErr_Format(PyExc_TypeError,
                     "throw expected at %s %d argument%s, got %zd",
                     nargs < 1 ? "least" : "most", nargs < 1 ? 1 : 3,
                     nargs < 1 ? "" : "s", nargs);
        return -1;
    }
#if PY_VERSION_HEX >= 0x030C0000
    if (nargs > 1 &&
        PyErr_WarnEx(PyExc_DeprecationWarning,
                     "the (type, exc, tb) signature of throw() is "
                     "deprecated, use the single-arg signature instead.",
                     1) < 0) {
        return -1;
    }
#endif
    if (nargs == 3 && args[2] != Py_None && !PyTraceBack_Check(args[2])) {
        PyErr_SetString(PyExc_TypeError,
                        "throw() third argument must be a traceback");
        return -1;
    }
    return 0;
}

PyObject *
hl_thrown_exception(PyObject *const *args, Py_ssize_t nargs)
{
    if (check_throw_args(args, nargs) < 0) {
        return NULL;
    }
    PyObject *value = nargs > 1 && args[1] != Py_None ? args[1] : NULL;
    PyObject *exc = thrown_exception(args[0], value);
    if (exc == NULL) {
        return NULL;
    }
    if (!PyExceptionInstance_Check(exc)) {
        PyErr_Format(PyExc_TypeError,
                     "calling %R should have returned an instance of "
                     "BaseException, not %R",
                     args[0], Py_TYPE(exc));
        Py_DECREF(exc);
        return NULL;
    }
    if (nargs == 3 && args[2] != Py_None &&
        PyException_SetTraceback(exc, args[2]) < 0) {
        Py_CLEAR(exc);
    }
    return exc;
}

static PyObject *
FutureIter_throw(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *exc = hl_thrown_exception(args, nargs);
    if (exc != NULL) {
        Py_CLEAR(((hl_future_iter_object *)op)->future);
        hl_error_restore(exc); /* with its own traceback and context */
    }
    return NULL;
}

PyDoc_STRVAR(FutureIter_send__doc__,
             "send($self, value, /)\n--\n\n"
             "Resume; the value is ignored, as in asyncio.");

PyDoc_STRVAR(FutureIter_throw__doc__,
             "throw($self, type, value=None, traceback=None, /)\n--\n\n"
             "Raise the exception and forget the future.");

PyDoc_STRVAR(FutureIter_close__doc__, "close($self, /)\n--\n\n"
                                      "Forget the future.");

static PyMethodDef FutureIter_methods[] = {
    {"send", FutureIter_send, METH_O, FutureIter_send__doc__},
    {"throw", HL_FASTCALL(FutureIter_throw), METH_FASTCALL,
     FutureIter_throw__doc__},
    {"close", FutureIter_close, METH_NOARGS, FutureIter_close__doc__},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot FutureIter_slots[] = {
    {Py_tp_dealloc, HL_SLOT(FutureIter_tp_dealloc)},
    {Py_tp_traverse, HL_SLOT(FutureIter_tp_traverse)},
    {Py_tp_clear, HL_SLOT(FutureIter_tp_clear)},
    {Py_tp_iter, HL_SLOT(PyObject_SelfIter)},
    {Py_tp_iternext, HL_SLOT(FutureIter_tp_iternext)},
    {Py_tp_methods, FutureIter_methods},
    {Py_am_send, HL_SLOT(FutureIter_am_send)},
    {0, NULL},
};

static PyType_Spec FutureIter_spec = {
    .name = "hotloop._core.FutureIter",
    .basicsize = sizeof(hl_future_iter_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC |
             Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = FutureIter_slots,
};

int
hl_future_iter_type_init(PyObject *module, hl_state *st)
{
    if (hl_state_add_type(module, &st->FutureIter_type, &FutureIter_spec,
                          NULL) < 0) {
        return -1;
    }
    hl_aio_of(st)->iter_type = (PyTypeObject *)Py_NewRef(st->FutureIter_type);
    return 0;
}
