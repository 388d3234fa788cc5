/* task.c - how tasks are made, named and cancelled.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "aio/future_int.h"

/* At most this many coroutine types are remembered. */
#define COROUTINE_TYPES_MAX 100

/* asyncio.iscoroutine(), remembering the types that are: 1, 0 or -1. */
static int
is_coroutine(hl_state *st, PyObject *coro)
{
    if (HL_LIKELY(PyCoro_CheckExact(coro))) {
        return 1;
    }
    PyObject *type = (PyObject *)Py_TYPE(coro);
    PyObject *known = hl_aio_of(st)->coroutine_types;
    int found = PySet_Contains(known, type);
    if (found != 0) {
        return found;
    }
    PyObject *res = PyObject_CallOneArg(st->iscoroutine, coro);
    if (res == NULL) {
        return -1;
    }
    int yes = PyObject_IsTrue(res);
    Py_DECREF(res);
    if (yes > 0 && PySet_GET_SIZE(known) < COROUTINE_TYPES_MAX &&
        PySet_Add(known, type) < 0) {
        return -1;
    }
    return yes;
}

#if PY_VERSION_HEX >= 0x030E0000
/* Shows a value where debuggers look for it, in asyncio's own structure: that
 * owns a reference of its own, which its tp_clear() drops. */
static void
show_in_base(hl_task *task, unsigned offset, PyObject *value)
{
    if (offset != 0) {
        PyObject **field = hl_base_field(hl_task_op(task), offset);
        Py_XSETREF(*field, Py_XNewRef(value));
    }
}

/* What `python -m asyncio ps` reads of a task.  0 or -1. */
static int
show_task(hl_state *st, hl_task *task)
{
    const hl_base_layout *layout = &hl_aio_of(st)->layout;
    PyObject *name = hl_task_name_object(task);
    name = name != NULL ? Py_NewRef(name) : PyLong_FromSize_t(task->name / 2);
    if (name == NULL) {
        return -1;
    }
    show_in_base(task, layout->task_name, name);
    show_in_base(task, layout->task_coro, task->coro);
    if (layout->is_task != 0) {
        ((char *)task)[layout->is_task] = 1;
    }
    Py_DECREF(name);
    return 0;
}
#endif

int
hl_task_claim_context(hl_state *st, hl_task *task)
{
    hl_loop *loop = task->fut.loop_is_ours ? (hl_loop *)task->fut.loop : NULL;
    return hl_context_claim(st, loop, hl_task_op(task), &task->context);
}

/* An eager step runs inside of somebody's step: in a context of its own. */
static int
task_init_context(hl_state *st, hl_task *task, PyObject *context, bool eager)
{
    if (context == NULL || context == Py_None) {
        context = eager ? PyContext_CopyCurrent() : hl_context_capture(st);
        if (context == NULL) {
            return -1;
        }
    }
    else {
        Py_INCREF(context);
    }
    task->plain_context = PyContext_CheckExact(context) != 0;
    task->urgent =
        task->fut.loop_is_ours && hl_loop_is_urgent((hl_loop *)task->fut.loop);
    Py_XSETREF(task->context, context);
    if (!task->plain_context && st->release.checks_context) {
        PyErr_Format(PyExc_TypeError, /* releases that check know %T */
                     "a contextvars.Context was expected, got %T", context);
        return -1;
    }
    return 0;
}

/* Drops the name; new is the field's next value, a reference in it stolen. */
static void
replace_name(hl_task *task, uintptr_t new)
{
    PyObject *old = hl_task_name_object(task);
    task->name = new;
    Py_XDECREF(old);
}

void
hl_task_clear_name(hl_task *task)
{
    replace_name(task, 0);
}

static int
task_init_name(hl_state *st, hl_task *task, PyObject *name)
{
    if (name == NULL || name == Py_None) {
        replace_name(task, (uintptr_t)++st->task_counter * 2 + 1);
        return 0;
    }
    name = PyUnicode_CheckExact(name) ? Py_NewRef(name) : PyObject_Str(name);
    if (name == NULL) {
        return -1;
    }
    replace_name(task, (uintptr_t)name);
    return 0;
}

/* loop.is_running(): 1, 0 or -1. */
static int
is_loop_running(hl_state *st, PyObject *loop)
{
    PyObject *res = PyObject_CallMethodNoArgs(loop, st->str_is_running);
    if (res == NULL) {
        return -1;
    }
    int running = PyObject_IsTrue(res);
    Py_DECREF(res);
    return running;
}

int
hl_task_start(hl_state *st, hl_task *task, PyObject *coro, PyObject *name,
              PyObject *context, bool eager)
{
    int is_coro = is_coroutine(st, coro);
    if (is_coro <= 0) {
        if (is_coro == 0) {
            task->log_destroy_pending = 0;
            PyErr_Format(PyExc_TypeError, "a coroutine was expected, got %R",
                         coro);
        }
        return -1;
    }
    if (task_init_context(st, task, context, eager) < 0) {
        return -1;
    }
    task->fut.is_task = true;
    task->linked = 0;
    Py_CLEAR(task->fut_waiter);
    task->must_cancel = 0;
    task->log_destroy_pending = 1;
    task->num_cancels = 0;
    Py_XSETREF(task->coro, Py_NewRef(coro));
    hl_task_count_begin(task);
    if (task_init_name(st, task, name) < 0) {
        return -1;
    }
#if PY_VERSION_HEX >= 0x030E0000
    if (show_task(st, task) < 0) {
        return -1;
    }
#endif
    if (eager && st->swap_current_task != NULL) {
        int running = is_loop_running(st, task->fut.loop);
        if (running != 0) {
            return running < 0 ? -1 : hl_task_eager_start(st, task);
        }
    }
    if (hl_task_step_soon(st, task, NULL) < 0) {
        return -1;
    }
    return hl_task_register(st, task);
}

PyObject *
hl_task_new(hl_loop *loop, PyObject *coro, PyObject *name, PyObject *context,
            bool eager)
{
    hl_state *st = loop->st;
    PyObject *op =
        hl_future_alloc(&loop->free_tasks, st->Task_type, sizeof(hl_task));
    if (op == NULL) {
        return NULL;
    }
    hl_task *task = (hl_task *)op;
    task->fut.loop = Py_NewRef(loop);
    task->fut.loop_is_ours = true;
    if ((HL_UNLIKELY(loop->debug) &&
         hl_future_record_origin(st, &task->fut) < 0) ||
        hl_task_start(st, task, coro, name, context, eager) < 0) {
        Py_DECREF(op);
        return NULL;
    }
    return op;
}

/* ---- cancelling ---- */

/* op.cancel(message) by its method: 1, 0 or -1. */
static int
foreign_cancel(hl_state *st, PyObject *op, PyObject *message)
{
    PyObject *res = PyObject_CallMethodOneArg(op, st->str_cancel, message);
    if (res == NULL) {
        return -1;
    }
    int cancelled = PyObject_IsTrue(res);
    Py_DECREF(res);
    return cancelled;
}

int
hl_task_cancel_waiter(hl_state *st, hl_task *task, PyObject *message)
{
    /* Cancelling runs callbacks of an evil call_soon(). */
    PyObject *waiter = Py_NewRef(task->fut_waiter);
    int rv = -1;
    if (Py_IS_TYPE(waiter, st->Future_type)) {
        rv = hl_future_ensure_alive((hl_future *)waiter) < 0
                 ? -1
                 : hl_future_cancel(st, (hl_future *)waiter, message);
    }
    else if (!Py_IS_TYPE(waiter, st->Task_type)) {
        rv = foreign_cancel(st, waiter, message);
    }
    /* A chain of tasks that wait for each other may be long. */
    else if (Py_EnterRecursiveCall(" while calling a Python object") == 0) {
        rv = hl_task_cancel(st, (hl_task *)waiter, message);
        Py_LeaveRecursiveCall();
    }
    Py_DECREF(waiter);
    return rv;
}

int
hl_task_cancel(hl_state *st, hl_task *task, PyObject *message)
{
    task->fut.log_traceback = false;
    if (task->fut.state != HL_FUTURE_PENDING) {
        return 0;
    }
    task->num_cancels++;
    if (task->fut_waiter != NULL) {
        int rv = hl_task_cancel_waiter(st, task, message);
        if (rv != 0) {
            return rv;
        }
    }
    task->must_cancel = 1;
    if (message == Py_None && task->fut.rare == NULL) {
        return 1; /* no message is what is stored already */
    }
    hl_future_rare *rare = hl_future_get_rare(&task->fut);
    if (rare == NULL) {
        return -1;
    }
    Py_XSETREF(rare->cancel_message, Py_NewRef(message));
    return 1;
}

/* ---- names ---- */

PyObject *
hl_task_get_name(hl_task *task)
{
    PyObject *name = hl_task_name_object(task);
    if (name != NULL) {
        return Py_NewRef(name);
    }
    if (task->name == 0) {
        Py_RETURN_NONE; /* __init__() was not called */
    }
    name = PyUnicode_FromFormat("Task-%zu", (size_t)(task->name / 2));
    if (name != NULL) {
        replace_name(task, (uintptr_t)Py_NewRef(name));
    }
    return name;
}

int
hl_task_set_name(hl_state *st, hl_task *task, PyObject *value)
{
    PyObject *name =
        PyUnicode_CheckExact(value) ? Py_NewRef(value) : PyObject_Str(value);
    if (name == NULL) {
        return -1;
    }
#if PY_VERSION_HEX >= 0x030E0000
    show_in_base(task, hl_aio_of(st)->layout.task_name, name);
#else
    (void)st;
#endif
    replace_name(task, (uintptr_t)name);
    return 0;
}

void
hl_task_drop_coro(hl_state *st, hl_task *task)
{
#if PY_VERSION_HEX >= 0x030E0000
    show_in_base(task, hl_aio_of(st)->layout.task_coro, NULL);
#else
    (void)st;
#endif
    Py_CLEAR(task->coro);
}
