/* current.c - the current task in asyncio's register.
 *
 * Leaving is lazy: between two steps it stays entered until something that is
 * not a task runs, the GIL is released or the run ends.  A loop that switches
 * between tasks thus pays one change a step, and none while one task runs
 * alone.
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "loop/loop.h"

#include "state/errors.h"

/* func(loop, task), a function of asyncio's register: new reference. */
static PyObject *
call_register(PyObject *func, PyObject *loop, PyObject *task)
{
    PyObject *args[2] = {loop, task};
    return PyObject_Vectorcall(func, args, 2, NULL);
}

int
hl_register_enter(hl_state *st, PyObject *loop, PyObject *task)
{
    PyObject *res = call_register(st->enter_task, loop, task);
    Py_XDECREF(res);
    return res == NULL ? -1 : 0;
}

int
hl_register_leave(hl_state *st, PyObject *loop, PyObject *task)
{
    PyObject *args[2] = {loop, task};
    /* In parentheses: leaving takes no memory, base/faults.h is not asked. */
    PyObject *res = (PyObject_Vectorcall)(st->leave_task, args, 2, NULL);
    Py_XDECREF(res);
    return res == NULL ? -1 : 0;
}

int
hl_register_swap(hl_state *st, PyObject *loop, PyObject *task, PyObject **prev)
{
    *prev = NULL;
    PyObject *res =
        call_register(st->swap_current_task, loop, task ? task : Py_None);
    if (res == NULL) {
        return -1;
    }
    if (res == Py_None) {
        Py_DECREF(res);
    }
    else {
        *prev = res;
    }
    return 0;
}

int
hl_loop_replace_task(hl_loop *loop, PyObject *task, PyObject **left)
{
    hl_state *st = loop->st;
    PyObject *self = (PyObject *)loop, *old = loop->entered_task;
    int rv;
    if (old == NULL) {
        rv = hl_register_enter(st, self, task);
    }
    else if (st->current_tasks == NULL) {
        rv = hl_register_swap(st, self, task, left);
    }
    else {
        rv = PyDict_SetItem(st->current_tasks, self, task);
    }
    if (rv < 0) {
        return -1;
    }
    loop->entered_task = Py_NewRef(task);
    if (*left == NULL) {
        *left = old;
    }
    else {
        Py_XDECREF(old); /* as a rule the same, and in *left */
    }
    return 0;
}

int
hl_loop_leave_current(hl_loop *loop)
{
    PyObject *task = loop->entered_task;
    if (task == NULL) {
        return 0;
    }
    loop->entered_task = NULL;
    int rv = hl_register_leave(loop->st, (PyObject *)loop, task);
    Py_DECREF(task);
    return rv;
}

int
hl_loop_leave_task(hl_loop *loop)
{
    if (HL_LIKELY(hl_loop_leave_context(loop) == 0)) {
        return hl_loop_leave_current(loop);
    }
    PyObject *exc = hl_error_fetch();
    if (hl_loop_leave_current(loop) < 0) {
        PyErr_Clear(); /* the first one tells more */
    }
    hl_error_restore(exc);
    return -1;
}

int
hl_loop_swap_task(hl_loop *loop, PyObject *task, hl_swapped *before)
{
    if (hl_register_swap(loop->st, (PyObject *)loop, task, &before->task) <
        0) {
        return -1;
    }
    before->entered = loop->entered_task;
    loop->entered_task = Py_NewRef(task);
    return 0;
}

int
hl_loop_swap_back(hl_loop *loop, hl_swapped *before)
{
    PyObject *prev = before->task, *current, *mine = loop->entered_task;
    before->task = NULL;
    int rv = hl_register_swap(loop->st, (PyObject *)loop, prev, &current);
    /* prev may be another one, of asyncio's own type and itself in its eager
     * step: it gives the entered one its place back. */
    loop->entered_task = before->entered;
    Py_XDECREF(mine);
    Py_XDECREF(current);
    Py_XDECREF(prev);
    return rv;
}
