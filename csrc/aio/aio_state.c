/* aio_state.c - what futures and tasks share in one module.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "aio/aio_state.h"

/* The arguments of a vectorcall as a tuple and a dict (NULL without keywords),
 * both owned.  0 or -1. */
static int
pack_arguments(PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
               PyObject **tuple, PyObject **dict)
{
    *dict = NULL;
    if ((*tuple = PyTuple_New(nargs)) == NULL) {
        return -1;
    }
    for (Py_ssize_t i = 0; i < nargs; i++) {
        PyTuple_SET_ITEM(*tuple, i, Py_NewRef(args[i]));
    }
    Py_ssize_t named = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    if (named > 0 && (*dict = PyDict_New()) == NULL) {
        goto fail;
    }
    for (Py_ssize_t i = 0; i < named; i++) {
        if (PyDict_SetItem(*dict, PyTuple_GET_ITEM(kwnames, i),
                           args[nargs + i]) < 0) {
            goto fail;
        }
    }
    return 0;
fail:
    Py_CLEAR(*tuple);
    Py_CLEAR(*dict);
    return -1;
}

int
hl_aio_parse(PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
             const char *format, char **keywords, ...)
{
    PyObject *tuple, *dict;
    if (pack_arguments(args, nargs, kwnames, &tuple, &dict) < 0) {
        return -1;
    }
    va_list values;
    va_start(values, keywords);
    int ok =
        PyArg_VaParseTupleAndKeywords(tuple, dict, format, keywords, values);
    va_end(values);
    Py_DECREF(tuple);
    Py_XDECREF(dict);
    return ok ? 0 : -1;
}

PyObject *
hl_aio_call_type(PyObject *type, PyObject *const *args, size_t nargsf,
                 PyObject *kwnames)
{
    PyObject *tuple, *dict;
    if (pack_arguments(args, PyVectorcall_NARGS(nargsf), kwnames, &tuple,
                       &dict) < 0) {
        return NULL;
    }
    PyObject *op = Py_TYPE(type)->tp_call(type, tuple, dict);
    Py_DECREF(tuple);
    Py_XDECREF(dict);
    return op;
}

/* The parts of the WeakSet in which asyncio keeps tasks; dead references are
 * taken out under its own rules (see task_register.c). */
static int
aio_open_weak_set(hl_state *st, hl_aio *aio)
{
    PyObject *weak = st->scheduled_tasks ? st->scheduled_tasks : st->all_tasks;
    if (weak == NULL) {
        return 0;
    }
    aio->scheduled = PyObject_GetAttrString(weak, "data");
    aio->iterating = PyObject_GetAttrString(weak, "_iterating");
    aio->removals = PyObject_GetAttrString(weak, "_pending_removals");
    if (aio->scheduled == NULL || aio->iterating == NULL ||
        aio->removals == NULL) {
        return -1;
    }
    if (!PySet_Check(aio->scheduled) || !PySet_Check(aio->iterating) ||
        !PyList_Check(aio->removals)) {
        PyErr_SetString(PyExc_ImportError,
                        "hotloop does not know this asyncio: "
                        "tasks are not kept in a weakref.WeakSet");
        return -1;
    }
    return 0;
}

static void
aio_free_iters(hl_aio *aio)
{
    while (aio->iters_count > 0) {
        PyObject_GC_Del(aio->iters[--aio->iters_count]);
    }
}

static int
AioState_tp_traverse(PyObject *op, visitproc visit, void *arg)
{
    hl_aio *aio = (hl_aio *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(aio->coroutine_types);
    Py_VISIT(aio->scheduled);
    Py_VISIT(aio->iterating);
    Py_VISIT(aio->removals);
    Py_VISIT(aio->iter_type);
    return 0;
}

static int
AioState_tp_clear(PyObject *op)
{
    hl_aio *aio = (hl_aio *)op;
    aio_free_iters(aio);
    Py_CLEAR(aio->coroutine_types);
    Py_CLEAR(aio->scheduled);
    Py_CLEAR(aio->iterating);
    Py_CLEAR(aio->removals);
    Py_CLEAR(aio->iter_type);
    return 0;
}

static void
AioState_tp_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    AioState_tp_clear(op);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyType_Slot AioState_slots[] = {
    {Py_tp_traverse, HL_SLOT(AioState_tp_traverse)},
    {Py_tp_clear, HL_SLOT(AioState_tp_clear)},
    {Py_tp_dealloc, HL_SLOT(AioState_tp_dealloc)},
    {0, NULL},
};

static PyType_Spec AioState_spec = {
    .name = "hotloop._core.AioState",
    .basicsize = sizeof(hl_aio),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC |
             Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = AioState_slots,
};

/* How large asyncio's own objects are here; more would not fit. */
static int
check_base_size(PyObject *type)
{
    Py_ssize_t size = ((PyTypeObject *)type)->tp_basicsize;
    if (size > HL_BASE_SIZE) {
        PyErr_Format(PyExc_ImportError,
                     "hotloop does not know this asyncio: instances of %R "
                     "take %zd bytes, at most %d were expected",
                     type, size, HL_BASE_SIZE);
        return -1;
    }
    return 0;
}

int
hl_aio_init(PyObject *module, hl_state *st)
{
    if (check_base_size(st->asyncio_Future) < 0 ||
        check_base_size(st->asyncio_Task) < 0 ||
        hl_state_add_type(module, &st->AioState_type, &AioState_spec, NULL) <
            0) {
        return -1;
    }
    PyTypeObject *type = st->AioState_type;
    hl_aio *aio = hl_alloc(type);
    if (aio == NULL) {
        return -1;
    }
    aio->coroutine_types = PySet_New(NULL);
    if (aio->coroutine_types == NULL || aio_open_weak_set(st, aio) < 0 ||
        hl_aio_probe(st, aio) < 0) {
        Py_DECREF(aio);
        return -1;
    }
    st->aio = (PyObject *)aio;
    return 0;
}
