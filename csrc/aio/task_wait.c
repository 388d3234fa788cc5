/* task_wait.c - what a task waits for, and how it is woken.
 *
 * A future of ours holds the waiting task itself; any other awaitable gets
 * the callback that asyncio would register.
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "aio/future_int.h"

#include "state/errors.h"

#include <stdarg.h>

/* ---- the wake-up as a callable ---- */

static PyObject *
task_wakeup(PyObject *op, PyObject *fut)
{
    hl_task *task = (hl_task *)op;
    hl_state *st = hl_future_st(&task->fut);
    if (st == NULL || hl_awaited_by_discard(st, fut, task) < 0) {
        return NULL;
    }
    PyObject *exc = NULL;
    if (hl_future_is_exact(st, fut)) {
        exc = hl_future_failure(st, (hl_future *)fut);
    }
    else {
        PyObject *res = PyObject_CallMethodNoArgs(fut, st->str_result);
        if (res == NULL) {
            exc = hl_error_fetch();
        }
        Py_XDECREF(res);
    }
    int rv = hl_task_step_entered(st, task, exc);
    Py_XDECREF(exc);
    if (rv < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyMethodDef wakeup_def = {"task_wakeup", task_wakeup, METH_O, NULL};

PyObject *
hl_task_wakeup_new(hl_task *task)
{
    return PyCFunction_New(&wakeup_def, hl_task_op(task));
}

hl_task *
hl_task_of_wakeup(PyObject *callback)
{
    if (PyCFunction_CheckExact(callback) &&
        PyCFunction_GET_FUNCTION(callback) == task_wakeup) {
        return (hl_task *)PyCFunction_GET_SELF(callback);
    }
    return NULL;
}

/* Has what call_soon() queues for the task go where the task belongs, while
 * loop is its loop and one of ours; NULL if it is not. */
static hl_ring *
switch_ring(const hl_task *task, PyObject *loop)
{
    if (!task->fut.loop_is_ours || loop != task->fut.loop) {
        return NULL;
    }
    hl_loop *ours = (hl_loop *)loop;
    return hl_loop_switch_ring(ours, hl_loop_ring(ours, task->urgent));
}

static void
restore_ring(PyObject *loop, hl_ring *into)
{
    if (into != NULL) {
        ((hl_loop *)loop)->into = into;
    }
}

int
hl_task_wake(hl_state *st, hl_task *task, hl_future *fut)
{
    /* A second wake-up, of a task that was stepped by hand and waits again,
     * must know its own future. */
    if (HL_LIKELY(fut->loop_is_ours && task->linked && !task->woken &&
                  task->plain_context &&
                  task->fut_waiter == hl_future_op(fut) &&
                  hl_loop_is_direct((hl_loop *)fut->loop))) {
        task->woken = 1;
        return hl_loop_push_task((hl_loop *)fut->loop, hl_task_op(task),
                                 hl_task_run_wakeup, task->urgent);
    }
    int rv = -1;
    PyObject *wakeup = hl_task_wakeup_new(task);
    if (wakeup != NULL && hl_future_ensure_alive(fut) == 0 &&
        hl_task_claim_context(st, task) == 0) {
        PyObject *loop = Py_NewRef(fut->loop);
        PyObject *context = Py_XNewRef(task->context);
        hl_ring *into = fut->loop_is_ours ? switch_ring(task, loop) : NULL;
        rv = hl_call_soon_one(st, loop, wakeup, hl_future_op(fut), context);
        restore_ring(loop, into);
        Py_XDECREF(context);
        Py_DECREF(loop);
    }
    Py_XDECREF(wakeup);
    Py_DECREF(hl_task_op(task));
    return rv;
}

/* ---- wrong yields ---- */

/* Has RuntimeError(format % ...) thrown into the coroutine by the next
 * step. */
static int
task_refuse(hl_state *st, hl_task *task, const char *format, ...)
{
    va_list values;
    va_start(values, format);
    PyObject *text = PyUnicode_FromFormatV(format, values);
    va_end(values);
    if (text == NULL) {
        return -1;
    }
    PyObject *exc = PyObject_CallOneArg(PyExc_RuntimeError, text);
    Py_DECREF(text);
    if (exc == NULL) {
        return -1;
    }
    int rv = hl_task_step_soon(st, task, exc);
    Py_DECREF(exc);
    return rv;
}

static int
refuse_plain_yield(hl_state *st, hl_task *task, PyObject *result)
{
    return task_refuse(st, task,
                       "yield was used instead of yield from in task %R "
                       "with %R",
                       hl_task_op(task), result);
}

static int
refuse_other_loop(hl_state *st, hl_task *task, PyObject *result)
{
    return task_refuse(st, task,
                       "Task %R got Future %R attached to a different loop",
                       hl_task_op(task), result);
}

static int
refuse_other(hl_state *st, hl_task *task, PyObject *result)
{
    int is_generator = PyObject_IsInstance(result, (PyObject *)&PyGen_Type);
    if (is_generator < 0) {
        return -1;
    }
    if (is_generator) {
        return task_refuse(st, task,
                           "yield was used instead of yield from for "
                           "generator in task %R with %R",
                           hl_task_op(task), result);
    }
    return task_refuse(st, task, "Task got bad yield: %R", result);
}

/* ---- waiting ---- */

/* The future waited for is stored: pass on a cancellation that came during
 * the step. */
static int
task_cancel_late(hl_state *st, hl_task *task)
{
    hl_future_rare *rare = task->fut.rare;
    PyObject *message = Py_NewRef(rare != NULL && rare->cancel_message != NULL
                                      ? rare->cancel_message
                                      : Py_None);
    int cancelled = hl_task_cancel_waiter(st, task, message);
    Py_DECREF(message);
    if (cancelled > 0) {
        task->must_cancel = 0;
    }
    return cancelled < 0 ? -1 : 0;
}

/* Waits for an exact Future or Task of ours (stolen). */
static int
wait_for_ours(hl_state *st, hl_task *task, hl_future *fut)
{
    int rv = -1;
    if (HL_UNLIKELY(fut->loop != task->fut.loop)) {
        rv = refuse_other_loop(st, task, hl_future_op(fut));
        goto done;
    }
    if (HL_UNLIKELY(!fut->blocking)) {
        rv = refuse_plain_yield(st, task, hl_future_op(fut));
        goto done;
    }
    if (hl_awaited_by_add(st, hl_future_op(fut), task) < 0) {
        goto done;
    }
    fut->blocking = false;
    if (hl_future_link(st, fut, task) < 0) {
        PyObject *exc = hl_error_fetch();
        if (hl_awaited_by_discard(st, hl_future_op(fut), task) < 0) {
            PyErr_Clear();
        }
        hl_error_restore(exc);
        goto done;
    }
    Py_XSETREF(task->fut_waiter, hl_future_op(fut));
    task->linked = 1;
    return HL_LIKELY(!task->must_cancel) ? 0 : task_cancel_late(st, task);
done:
    Py_DECREF(hl_future_op(fut));
    return rv;
}

/* The loop of any future: new reference, or NULL. */
static PyObject *
foreign_loop(hl_state *st, PyObject *fut)
{
    PyObject *method = PyObject_GetAttr(fut, st->str_get_loop);
    if (method != NULL) {
        PyObject *loop = PyObject_CallNoArgs(method);
        Py_DECREF(method);
        return loop;
    }
    if (!PyErr_ExceptionMatches(PyExc_AttributeError)) {
        return NULL;
    }
    PyErr_Clear();
    return PyObject_GetAttr(fut, st->str__loop);
}

/* fut.add_done_callback(wakeup, context=context).  0 or -1. */
static int
foreign_add_wakeup(hl_state *st, hl_task *task, PyObject *fut)
{
    int rv = -1;
    PyObject *kwnames = NULL, *res = NULL;
    if (hl_task_claim_context(st, task) < 0) {
        return -1;
    }
    PyObject *context = Py_XNewRef(task->context);
    PyObject *wakeup = hl_task_wakeup_new(task);
    if (wakeup == NULL ||
        (kwnames = PyTuple_Pack(1, st->str_context)) == NULL) {
        goto done;
    }
    PyObject *args[3] = {fut, wakeup, context ? context : Py_None};
    res =
        PyObject_VectorcallMethod(st->str_add_done_callback, args, 2, kwnames);
    rv = res == NULL ? -1 : 0;
done:
    Py_XDECREF(res);
    Py_XDECREF(kwnames);
    Py_XDECREF(wakeup);
    Py_XDECREF(context);
    return rv;
}

/* Waits for a future of another kind (stolen) by asyncio's protocol. */
static int
wait_for_foreign(hl_state *st, hl_task *task, PyObject *fut, int blocking)
{
    int rv = -1;
    PyObject *loop = foreign_loop(st, fut);
    if (loop == NULL) {
        goto done;
    }
    Py_DECREF(loop); /* only its identity counts */
    if (loop != task->fut.loop) {
        rv = refuse_other_loop(st, task, fut);
        goto done;
    }
    if (!blocking) {
        rv = refuse_plain_yield(st, task, fut);
        goto done;
    }
    if (hl_awaited_by_add(st, fut, task) < 0 ||
        PyObject_SetAttr(fut, st->str__asyncio_future_blocking, Py_False) <
            0 ||
        foreign_add_wakeup(st, task, fut) < 0) {
        goto done;
    }
    Py_XSETREF(task->fut_waiter, fut);
    task->linked = 0;
    return task->must_cancel ? task_cancel_late(st, task) : 0;
done:
    Py_DECREF(fut);
    return rv;
}

/* Does result follow the protocol of futures?  1 with *blocking, 0, -1. */
static int
foreign_is_future(hl_state *st, PyObject *result, int *blocking)
{
    PyObject *flag =
        PyObject_GetAttr(result, st->str__asyncio_future_blocking);
    if (flag == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_AttributeError)) {
            return -1;
        }
        PyErr_Clear();
        return 0;
    }
    int rv = flag == Py_None ? 0 : 1;
    if (rv == 1 && (*blocking = PyObject_IsTrue(flag)) < 0) {
        rv = -1;
    }
    Py_DECREF(flag);
    return rv;
}

int
hl_task_wait(hl_state *st, hl_task *task, PyObject *result)
{
    int rv;
    if (result == Py_None) {
        /* A bare yield: one turn of the loop for the others. */
        rv = hl_task_step_soon(st, task, NULL);
    }
    else if (HL_UNLIKELY(result == hl_task_op(task))) {
        rv = task_refuse(st, task, "Task cannot await on itself: %R", result);
    }
    else if (HL_LIKELY(hl_future_is_exact(st, result))) {
        return wait_for_ours(st, task, (hl_future *)result);
    }
    else {
        int blocking = 0;
        rv = foreign_is_future(st, result, &blocking);
        if (rv == 1) {
            return wait_for_foreign(st, task, result, blocking);
        }
        rv = rv < 0 ? -1 : refuse_other(st, task, result);
    }
    Py_DECREF(result);
    return rv;
}
