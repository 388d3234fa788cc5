/* task_type.c - the Python type hotloop.Task.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "aio/future_int.h"

#include "state/errors.h"

/* ---- construction ---- */

static int
Task_tp_init(PyObject *op, PyObject *args, PyObject *kwargs)
{
    char coro_name[] = "coro", loop_name[] = "loop", name_name[] = "name";
    char context_name[] = "context", eager_name[] = "eager_start";
#if PY_VERSION_HEX >= 0x030C0000
    char *keywords[] = {coro_name,    loop_name,  name_name,
                        context_name, eager_name, NULL};
    const char *format = "O|$OOOp:Task";
#else
    (void)eager_name;
    char *keywords[] = {coro_name, loop_name, name_name, context_name, NULL};
    const char *format = "O|$OOO:Task";
#endif
    PyObject *coro, *loop = Py_None, *name = Py_None, *context = Py_None;
    int eager = 0;
    if (PyTuple_GET_SIZE(args) > 1) {
        PyErr_Format(PyExc_TypeError,
                     "Task() takes exactly 1 positional argument (%zd given)",
                     PyTuple_GET_SIZE(args));
        return -1;
    }
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, format, keywords, &coro,
                                     &loop, &name, &context, &eager)) {
        return -1;
    }
    hl_task *task = (hl_task *)op;
    hl_state *st = hl_future_st(&task->fut);
    if (st == NULL || hl_future_init(st, &task->fut, loop) < 0) {
        return -1;
    }
    return hl_task_start(st, task, coro, name, context, eager);
}

/* The keyword arguments of Task(), borrowed; NULL where not given. */
typedef struct {
    PyObject *loop;
    PyObject *name;
    PyObject *context;
    PyObject *eager;
} task_keywords;

/* Sorts the keyword arguments; false for a name that is not one of them by
 * identity. */
static bool
sort_keywords(hl_state *st, PyObject *kwnames, PyObject *const *values,
              task_keywords *out)
{
    Py_ssize_t count = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *name = PyTuple_GET_ITEM(kwnames, i);
        if (name == st->str_loop) {
            out->loop = values[i];
        }
        else if (name == st->str_name) {
            out->name = values[i];
        }
        else if (name == st->str_context) {
            out->context = values[i];
        }
#if PY_VERSION_HEX >= 0x030C0000
        else if (name == st->str_eager_start) {
            out->eager = values[i];
        }
#endif
        else {
            return false;
        }
    }
    return true;
}

/* Task(coro, loop=loop, ...) of the exact type on a loop of ours; anything
 * else goes the long way, which words the errors. */
static PyObject *
Task_vectorcall(PyObject *callable, PyObject *const *args, size_t nargsf,
                PyObject *kwnames)
{
    PyTypeObject *type = (PyTypeObject *)callable;
    hl_state *st = hl_state_of_type(type);
    task_keywords given = {NULL, NULL, NULL, NULL};
    if (st == NULL) {
        return NULL;
    }
    if (PyVectorcall_NARGS(nargsf) != 1 ||
        !sort_keywords(st, kwnames, args + 1, &given) || given.loop == NULL ||
        !hl_loop_check(st, given.loop)) {
        return hl_aio_call_type(callable, args, nargsf, kwnames);
    }
    int eager = given.eager == NULL ? 0 : PyObject_IsTrue(given.eager);
    if (eager < 0) {
        return NULL;
    }
    hl_loop *loop = (hl_loop *)given.loop;
    PyObject *op = hl_future_alloc(&loop->free_tasks, type, sizeof(hl_task));
    hl_task *task = (hl_task *)op;
    if (op != NULL && (hl_future_init(st, &task->fut, given.loop) < 0 ||
                       hl_task_start(st, task, args[0], given.name,
                                     given.context, eager) < 0)) {
        Py_CLEAR(op);
    }
    return op;
}

/* ---- collection ---- */

static void Task_tp_dealloc(PyObject *op);

static int
Task_tp_traverse(PyObject *op, visitproc visit, void *arg)
{
    hl_task *task = (hl_task *)op;
    Py_VISIT(task->coro);
    Py_VISIT(task->context);
    Py_VISIT(hl_task_name_object(task));
    Py_VISIT(task->fut_waiter);
    return hl_future_traverse(&task->fut, hl_future_base(op, Task_tp_dealloc),
                              visit, arg);
}

static int
Task_tp_clear(PyObject *op)
{
    hl_task *task = (hl_task *)op;
    /* all_tasks() shall not find half a task. */
    hl_task_unregister_dying(task);
    hl_task_count_end(task);
    task->linked = 0;
    hl_future_clear(&task->fut, hl_future_base(op, Task_tp_dealloc));
    Py_CLEAR(task->coro);
    Py_CLEAR(task->context);
    hl_task_clear_name(task);
    Py_CLEAR(task->fut_waiter);
    return 0;
}

static bool
task_dies_pending(const hl_task *task)
{
    return task->fut.state == HL_FUTURE_PENDING && task->log_destroy_pending &&
           task->fut.loop != NULL;
}

static void
Task_tp_finalize(PyObject *op)
{
    hl_task *task = (hl_task *)op;
#if PY_VERSION_HEX < 0x030E0000
    if (!task->in_dealloc) {
        /* Found by the garbage collector, which clears weak references before
         * finalizers: asyncio's own task would be out of its WeakSet. */
        hl_task_unregister_dying(task);
    }
#endif
    if (task_dies_pending(task)) {
        PyObject *pending = hl_error_fetch();
        hl_state *st = hl_future_st(&task->fut);
        PyObject *message =
            PyUnicode_FromString("Task was destroyed but it is pending!");
        if (st != NULL && message != NULL) {
            hl_future_last_word(st, &task->fut, message, NULL, st->str_task);
        }
        Py_XDECREF(message);
        PyErr_Clear();
        if (pending != NULL) {
            hl_error_restore(pending);
        }
    }
    hl_future_finalize(&task->fut);
}

static void
Task_tp_dealloc(PyObject *op)
{
    hl_task *task = (hl_task *)op;
#if PY_VERSION_HEX >= 0x030E0000
    hl_task_unregister_dying(task); /* before the finalizer, as asyncio */
#endif
    if (!task->fut.pooled || task->fut.log_traceback ||
        task_dies_pending(task)) {
        task->in_dealloc = 1;
        int alive = PyObject_CallFinalizerFromDealloc(op);
        task->in_dealloc = 0;
        if (alive < 0) {
            return; /* resurrected */
        }
    }
    /* From here no Python code runs until nobody can find the task. */
    hl_task_unregister_dying(task);
    PyObject_GC_UnTrack(op);
    Py_TRASHCAN_BEGIN(op, Task_tp_dealloc) PyObject_ClearWeakRefs(op);
    PyObject *loop = Py_XNewRef(task->fut.loop);
    hl_freelist *list =
        task->fut.loop_is_ours ? &((hl_loop *)loop)->free_tasks : NULL;
    Task_tp_clear(op);
    hl_future_release(&task->fut, loop, list);
    Py_TRASHCAN_END
}

static PyObject *
Task_tp_repr(PyObject *op)
{
    hl_task *task = (hl_task *)op;
    if (hl_future_ensure_alive(&task->fut) < 0) {
        return NULL;
    }
    hl_state *st = hl_future_st(&task->fut);
    return st == NULL ? NULL : PyObject_CallOneArg(st->task_repr, op);
}

/* ---- attributes ---- */

static PyObject *
Task_get_log_destroy_pending(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((hl_task *)op)->log_destroy_pending);
}

static int
Task_set_log_destroy_pending(PyObject *op, PyObject *value,
                             void *Py_UNUSED(closure))
{
    if (hl_future_refuse_delete(op, value, "_log_destroy_pending") < 0) {
        return -1;
    }
    int log = PyObject_IsTrue(value);
    if (log < 0) {
        return -1;
    }
    ((hl_task *)op)->log_destroy_pending = log != 0;
    return 0;
}

static PyObject *
Task_get_must_cancel(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((hl_task *)op)->must_cancel);
}

static PyObject *
Task_get_coro_attribute(PyObject *op, void *Py_UNUSED(closure))
{
    PyObject *coro = ((hl_task *)op)->coro;
    return Py_NewRef(coro ? coro : Py_None);
}

static PyObject *
Task_get_fut_waiter(PyObject *op, void *Py_UNUSED(closure))
{
    PyObject *waiter = ((hl_task *)op)->fut_waiter;
    return Py_NewRef(waiter ? waiter : Py_None);
}

static PyGetSetDef Task_getset[] = {
    HL_FUTURE_GETSET,
    {"_log_destroy_pending", Task_get_log_destroy_pending,
     Task_set_log_destroy_pending, NULL, NULL},
    {"_must_cancel", Task_get_must_cancel, NULL, NULL, NULL},
    {"_coro", Task_get_coro_attribute, NULL, NULL, NULL},
    {"_fut_waiter", Task_get_fut_waiter, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(
    Task__doc__,
#if PY_VERSION_HEX >= 0x030C0000
    "Task(coro, *, loop=None, name=None, context=None, eager_start=False)\n"
#else
    "Task(coro, *, loop=None, name=None, context=None)\n"
#endif
    "--\n\n"
    "An asyncio.Task that hotloop runs without Handles.\n\n"
    "The same methods, errors and order of steps as the running asyncio's, "
    "on\n"
    "any event loop; on a hotloop.Loop faster.");

static PyType_Slot Task_slots[] = {
    {Py_tp_doc, HL_DOC(Task__doc__)},
    {Py_tp_init, HL_SLOT(Task_tp_init)},
    {Py_tp_new, HL_SLOT(PyType_GenericNew)},
    {Py_tp_dealloc, HL_SLOT(Task_tp_dealloc)},
    {Py_tp_finalize, HL_SLOT(Task_tp_finalize)},
    {Py_tp_traverse, HL_SLOT(Task_tp_traverse)},
    {Py_tp_clear, HL_SLOT(Task_tp_clear)},
    {Py_tp_repr, HL_SLOT(Task_tp_repr)},
    {Py_tp_iter, HL_SLOT(hl_future_iter)},
    {Py_am_await, HL_SLOT(hl_future_iter)},
    {Py_tp_methods, hl_task_methods},
    {Py_tp_getset, Task_getset},
    {0, NULL},
};

static PyType_Spec Task_spec = {
    .name = "hotloop.Task",
    .basicsize = sizeof(hl_task),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = Task_slots,
};

int
hl_task_type_init(PyObject *module, hl_state *st)
{
    if (hl_task_ref_type_init(module, st) < 0 ||
        hl_task_stepper_type_init(module, st) < 0 ||
        hl_state_add_type(module, &st->Task_type, &Task_spec,
                          st->asyncio_Task) < 0) {
        return -1;
    }
    st->Task_type->tp_vectorcall = Task_vectorcall;
    return 0;
}
