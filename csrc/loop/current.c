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

/* Calls a two-argument function of asyncio; the result is dropped. */
static int
call_register(PyObject *func, hl_loop *loop, PyObject *task)
{
    PyObject *args[2] = {(PyObject *)loop, task};
    PyObject *res = PyObject_Vectorcall(func, args, 2, NULL);
    if (res == NULL) {
        return -1;
    }
    Py_DECREF(res);
    return 0;
}

/* Replaces the entered task where asyncio has no swap (3.11). */
static int
replace_entered(hl_loop *loop, PyObject *task)
{
    hl_state *st = loop->st;
    if (st->current_tasks != NULL) {
        return PyDict_SetItem(st->current_tasks, (PyObject *)loop, task);
    }
    return call_register(st->swap_current_task, loop, task);
}

int
hl_loop_enter_task(hl_loop *loop, PyObject *task)
{
    if (loop->entered_task == task) {
        return 0;
    }
    int rv = loop->entered_task != NULL
                 ? replace_entered(loop, task)
                 : call_register(loop->st->enter_task, loop, task);
    if (rv == 0) {
        loop->entered_task = task;
    }
    return rv;
}

int
hl_loop_leave_current(hl_loop *loop)
{
    PyObject *task = loop->entered_task;
    if (task == NULL) {
        return 0;
    }
    loop->entered_task = NULL;
    return call_register(loop->st->leave_task, loop, task);
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

/* Swaps by hand in the dict that 3.11 has; the others have a function. */
static int
swap_in_dict(hl_loop *loop, PyObject *task, PyObject **prev)
{
    PyObject *tasks = loop->st->current_tasks;
    *prev = Py_XNewRef(PyDict_GetItemWithError(tasks, (PyObject *)loop));
    if (*prev == NULL && PyErr_Occurred()) {
        return -1;
    }
    if (task != NULL) {
        return PyDict_SetItem(tasks, (PyObject *)loop, task);
    }
    return *prev == NULL ? 0 : PyDict_DelItem(tasks, (PyObject *)loop);
}

int
hl_loop_swap_task(hl_loop *loop, PyObject *task, PyObject **prev)
{
    hl_state *st = loop->st;
    *prev = NULL;
    if (st->swap_current_task == NULL) {
        if (swap_in_dict(loop, task, prev) < 0) {
            Py_CLEAR(*prev);
            return -1;
        }
    }
    else {
        PyObject *args[2] = {(PyObject *)loop, task ? task : Py_None};
        PyObject *res =
            PyObject_Vectorcall(st->swap_current_task, args, 2, NULL);
        if (res == NULL) {
            return -1;
        }
        if (res == Py_None) {
            Py_DECREF(res);
        }
        else {
            *prev = res;
        }
    }
    loop->entered_task = task;
    return 0;
}
