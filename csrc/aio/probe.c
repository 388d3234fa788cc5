/* probe.c - finds out how the running _asyncio behaves, by trying it.
 *
 * Patch releases of one Python differ, and 3.14+ keeps things in asyncio's own
 * structures that debuggers read out of process and that no API reaches.  All
 * objects here are bare (made by __new__ alone) or on a loop that only
 * answers get_debug().
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "aio/aio_state.h"

/* A loop as far as Future.__init__() asks: get_debug() is false. */
static PyObject *
probe_loop(void)
{
    PyObject *types = PyImport_ImportModule("types");
    if (types == NULL) {
        return NULL;
    }
    PyObject *loop = PyObject_CallMethod(types, "SimpleNamespace", NULL);
    Py_DECREF(types);
    if (loop != NULL && PyObject_SetAttrString(loop, "get_debug",
                                               (PyObject *)&PyBool_Type) < 0) {
        Py_CLEAR(loop);
    }
    return loop;
}

static PyObject *
bare_object(PyObject *type)
{
    return PyObject_CallMethod(type, "__new__", "O", type);
}

/* type.__init__(op, ...) with loop=loop: 0 or -1. */
static int
init_object(PyObject *op, PyObject *arg, PyObject *loop)
{
    int rv = -1;
    PyObject *res = NULL, *init = PyObject_GetAttrString(op, "__init__");
    PyObject *args = arg ? PyTuple_Pack(1, arg) : PyTuple_New(0);
    PyObject *kwargs = Py_BuildValue("{s:O}", "loop", loop);
    if (init != NULL && args != NULL && kwargs != NULL) {
        res = PyObject_Call(init, args, kwargs);
        rv = res == NULL ? -1 : 0;
    }
    Py_XDECREF(res);
    Py_XDECREF(init);
    Py_XDECREF(args);
    Py_XDECREF(kwargs);
    return rv;
}

/* Did the last call fail with exc_type?  Clears that; 1, 0 or -1 (another
 * exception). */
static int
failed_with(PyObject *exc_type)
{
    if (!PyErr_Occurred()) {
        return 0;
    }
    if (!PyErr_ExceptionMatches(exc_type)) {
        return -1;
    }
    PyErr_Clear();
    return 1;
}

static int
call_dropped(PyObject *res)
{
    Py_XDECREF(res);
    return res == NULL ? -1 : 0;
}

/* set_exception(StopIteration()): refused up to 3.12.1, wrapped later; and is
 * a second __init__() refused? */
static int
probe_future(hl_state *st, hl_aio *aio, PyObject *loop)
{
    int rv = -1, refused;
    PyObject *fut = bare_object(st->asyncio_Future);
    if (fut == NULL || init_object(fut, NULL, loop) < 0) {
        goto done;
    }
    PyObject *res =
        PyObject_CallMethod(fut, "set_exception", "O", PyExc_StopIteration);
    Py_XDECREF(res);
    if ((refused = failed_with(PyExc_TypeError)) < 0) {
        goto done;
    }
    aio->stop_iteration_wrapped = !refused;
    /* Or its finalizer would report the exception to the loop. */
    if (PyObject_SetAttrString(fut, "_log_traceback", Py_False) < 0) {
        goto done;
    }
    (void)init_object(fut, NULL, loop);
    if ((refused = failed_with(PyExc_RuntimeError)) < 0) {
        goto done;
    }
    aio->init_once = refused;
    rv = 0;
done:
    Py_XDECREF(fut);
    return rv;
}

/* cancel() and uncancel() work on a bare task. */
static int
probe_uncancel(hl_state *st, hl_aio *aio)
{
    int rv = -1;
    PyObject *must = NULL, *task = bare_object(st->asyncio_Task);
    if (task == NULL ||
        call_dropped(PyObject_CallMethod(task, "cancel", NULL)) < 0 ||
        call_dropped(PyObject_CallMethod(task, "uncancel", NULL)) < 0 ||
        (must = PyObject_GetAttrString(task, "_must_cancel")) == NULL) {
        goto done;
    }
    aio->uncancel_clears = must == Py_False;
    rv = 0;
done:
    Py_XDECREF(must);
    Py_XDECREF(task);
    return rv;
}

/* BaseEventLoop.create_task(task, key=value) on an open loop with a task
 * factory, which stands for its result: new reference or NULL. */
static PyObject *
call_create_task(hl_state *st, PyObject *factory, PyObject *task,
                 const char *key, PyObject *value)
{
    PyObject *res = NULL, *self = NULL, *args = NULL, *kwargs = NULL;
    PyObject *create =
        PyObject_GetAttrString(st->BaseEventLoop, "create_task");
    PyObject *type = PyObject_CallFunction(
        (PyObject *)&PyType_Type, "s(){s:O,s:O}", "Probe", "_check_closed",
        &PyLong_Type, "_task_factory", factory);
    if (create == NULL || type == NULL ||
        (self = PyObject_CallNoArgs(type)) == NULL ||
        (args = PyTuple_Pack(2, self, task)) == NULL ||
        (kwargs = PyDict_New()) == NULL ||
        (key != NULL && PyDict_SetItemString(kwargs, key, value) < 0)) {
        goto done;
    }
    res = PyObject_Call(create, args, kwargs);
done:
    Py_XDECREF(kwargs);
    Py_XDECREF(args);
    Py_XDECREF(self);
    Py_XDECREF(type);
    Py_XDECREF(create);
    return res;
}

/* Does create_task() pass unknown keywords on?  To str.format(), which takes
 * any; what it returns has no set_name(). */
static int
probe_create_keywords(hl_state *st, hl_aio *aio)
{
    PyObject *text = PyUnicode_FromString("");
    PyObject *factory =
        text == NULL ? NULL : PyObject_GetAttrString(text, "format");
    int rv = -1;
    if (factory != NULL) {
        PyObject *res =
            call_create_task(st, factory, Py_None, "eager_start", Py_True);
        Py_XDECREF(res);
        if (res == NULL && PyErr_ExceptionMatches(PyExc_AttributeError)) {
            PyErr_Clear();
        }
        int refused = failed_with(PyExc_TypeError);
        aio->create_task_keywords = refused == 0;
        rv = refused < 0 ? -1 : 0;
    }
    Py_XDECREF(factory);
    Py_XDECREF(text);
    return rv;
}

/* Is the name a keyword of the factory, or set afterwards, even if it is
 * None?  dict.get() returns its second argument, and takes no keywords. */
static int
probe_factory_name(hl_state *st, hl_aio *aio)
{
    int rv = -1, refused;
    PyObject *name = NULL, *factory = NULL, *task = NULL;
    PyObject *dict = PyDict_New();
    if (dict == NULL ||
        (factory = PyObject_GetAttrString(dict, "get")) == NULL ||
        (task = bare_object(st->asyncio_Task)) == NULL) {
        goto done;
    }
    Py_XDECREF(call_create_task(st, factory, task, "name", st->str_name));
    if ((refused = failed_with(PyExc_TypeError)) != 0) {
        aio->factory_name = HL_NAME_PASSED;
        rv = refused < 0 ? -1 : 0;
        goto done;
    }
    Py_SETREF(task, bare_object(st->asyncio_Task));
    if (task == NULL ||
        call_dropped(call_create_task(st, factory, task, NULL, NULL)) < 0 ||
        (name = PyObject_CallMethod(task, "get_name", NULL)) == NULL) {
        goto done;
    }
    aio->factory_name = name == Py_None ? HL_NAME_SET : HL_NAME_SET_ALWAYS;
    rv = 0;
done:
    Py_XDECREF(name);
    Py_XDECREF(task);
    Py_XDECREF(factory);
    Py_XDECREF(dict);
    return rv;
}

#if PY_VERSION_HEX >= 0x030E0000

static void **
word_at(PyObject *op, Py_ssize_t offset)
{
    return (void **)(void *)((char *)op + offset);
}

/* Where op's structure holds this pointer, 0 if nowhere. */
static uint16_t
find_word(PyObject *op, const void *pointer)
{
    Py_ssize_t size = Py_TYPE(op)->tp_basicsize;
    Py_ssize_t step = (Py_ssize_t)sizeof(void *);
    for (Py_ssize_t i = (Py_ssize_t)sizeof(PyObject); i + step <= size;
         i += step) {
        if (*word_at(op, i) == pointer) {
            return (uint16_t)i;
        }
    }
    return 0;
}

/* The list node: two neighbours point back at it. */
static int
probe_node(hl_state *st, hl_aio *aio, PyObject *task)
{
    if (call_dropped(PyObject_CallOneArg(st->register_task, task)) < 0) {
        return -1;
    }
    Py_ssize_t size = Py_TYPE(task)->tp_basicsize;
    Py_ssize_t step = (Py_ssize_t)sizeof(void *);
    for (Py_ssize_t i = (Py_ssize_t)sizeof(PyObject); i + 2 * step <= size;
         i += step) {
        void **node = word_at(task, i);
        if (node[0] != NULL && node[1] != NULL &&
            ((void **)node[0])[1] == node && ((void **)node[1])[0] == node) {
            aio->layout.task_node = (uint16_t)i;
            break;
        }
    }
    return call_dropped(PyObject_CallOneArg(st->unregister_task, task));
}

/* The name by writing it, the coroutine by what the getter reads back. */
static int
probe_name_and_coro(hl_aio *aio, PyObject *task, PyObject *mark)
{
    if (call_dropped(PyObject_CallMethod(task, "set_name", "O", mark)) < 0) {
        return -1;
    }
    aio->layout.task_name = find_word(task, mark);
    Py_ssize_t size = Py_TYPE(task)->tp_basicsize;
    Py_ssize_t step = (Py_ssize_t)sizeof(void *);
    for (Py_ssize_t i = (Py_ssize_t)sizeof(PyObject); i + step <= size;
         i += step) {
        void **word = word_at(task, i);
        if (*word != NULL) {
            continue;
        }
        *word = mark;
        PyObject *coro = PyObject_GetAttrString(task, "_coro");
        *word = NULL;
        Py_XDECREF(coro);
        if (coro == NULL) {
            return -1;
        }
        if (coro == mark) {
            aio->layout.task_coro = (uint16_t)i;
            break;
        }
    }
    return 0;
}

/* The byte that is 1 in an initialised task and 0 in a future: next to it is
 * the one that tells a set of waiters, which can be made to change. */
static int
probe_awaited_by(hl_state *st, hl_aio *aio, PyObject *task, PyObject *fut,
                 PyObject *loop)
{
    if (call_dropped(PyObject_CallFunctionObjArgs(st->add_to_awaited_by, task,
                                                  fut, NULL)) < 0) {
        return -1;
    }
    uint16_t awaited_by = find_word(task, fut);
    if (call_dropped(PyObject_CallFunctionObjArgs(st->discard_from_awaited_by,
                                                  task, fut, NULL)) < 0) {
        return -1;
    }
    if (awaited_by == 0 || *word_at(task, awaited_by) != NULL) {
        return 0;
    }
    aio->layout.awaited_by = awaited_by;
    /* A task that refuses its coroutine is marked as a task all the same. */
    if (init_object(task, Py_None, loop) == 0 ||
        failed_with(PyExc_TypeError) != 1 ||
        init_object(fut, NULL, loop) < 0) {
        return PyErr_Occurred() ? -1 : 0;
    }
    const size_t offset = awaited_by + sizeof(PyObject *) + sizeof(int);
    if (((char *)task)[offset] == 1 && ((char *)fut)[offset] == 0) {
        aio->layout.is_task = (uint16_t)offset;
    }
    return 0;
}

static int
probe_layout(hl_state *st, hl_aio *aio, PyObject *loop)
{
    int rv = -1;
    PyObject *fut = NULL, *task = NULL;
    PyObject *mark = PyUnicode_FromString("hotloop's probe");
    if (mark == NULL || (fut = bare_object(st->asyncio_Future)) == NULL ||
        (task = bare_object(st->asyncio_Task)) == NULL ||
        probe_node(st, aio, task) < 0 ||
        probe_name_and_coro(aio, task, mark) < 0 ||
        probe_awaited_by(st, aio, task, fut, loop) < 0) {
        goto done;
    }
    rv = 0;
done:
    Py_XDECREF(task);
    Py_XDECREF(fut);
    Py_XDECREF(mark);
    return rv;
}

#endif

int
hl_aio_probe(hl_state *st, hl_aio *aio)
{
    PyObject *loop = probe_loop();
    if (loop == NULL) {
        return -1;
    }
    int rv = -1;
    if (probe_future(st, aio, loop) < 0 || probe_uncancel(st, aio) < 0 ||
        probe_create_keywords(st, aio) < 0 ||
        probe_factory_name(st, aio) < 0) {
        goto done;
    }
#if PY_VERSION_HEX >= 0x030E0000
    if (probe_layout(st, aio, loop) < 0) {
        goto done;
    }
#endif
    rv = 0;
done:
    Py_DECREF(loop);
    return rv;
}
