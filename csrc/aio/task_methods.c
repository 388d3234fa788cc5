/* task_methods.c - the methods of hotloop.Task.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "aio/future_int.h"

PyDoc_STRVAR(Task_cancel__doc__, "cancel($self, /, msg=None)\n--\n\n"
                                 "Have CancelledError thrown into the "
                                 "coroutine by the loop's next turn.\n\n"
                                 "Returns False if the task is done, else "
                                 "True.  The coroutine may catch it,\n"
                                 "so that True does not mean that the task "
                                 "ends cancelled.  Adds one to the\n"
                                 "count of cancellation requests.  msg is "
                                 "passed on to the CancelledError.");

static PyObject *
Task_cancel(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
            PyObject *kwnames)
{
    hl_task *task = (hl_task *)op;
    PyObject *message;
    if (hl_future_parse_cancel(args, nargs, kwnames, &message) < 0) {
        return NULL;
    }
    hl_state *st = hl_future_st(&task->fut);
    int rv = st == NULL ? -1 : hl_task_cancel(st, task, message);
    return rv < 0 ? NULL : PyBool_FromLong(rv);
}

PyDoc_STRVAR(
    Task_cancelling__doc__,
    "cancelling($self, /)\n--\n\n"
    "Return the number of cancellation requests: cancel() less uncancel().");

static PyObject *
Task_cancelling(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromLong(((hl_task *)op)->num_cancels);
}

PyDoc_STRVAR(
    Task_uncancel__doc__,
    "uncancel($self, /)\n--\n\n"
    "Take one cancellation request back; return how many are left.\n\n"
    "For code that caught CancelledError and goes on.");

static PyObject *
Task_uncancel(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    hl_task *task = (hl_task *)op;
    hl_state *st = hl_future_st(&task->fut);
    if (st == NULL) {
        return NULL;
    }
    if (task->num_cancels > 0) {
        task->num_cancels--;
        if (task->num_cancels == 0 && hl_aio_of(st)->uncancel_clears) {
            task->must_cancel = 0;
        }
    }
    return PyLong_FromLong(task->num_cancels);
}

PyDoc_STRVAR(
    Task_get_stack__doc__,
    "get_stack($self, /, *, limit=None)\n--\n\n"
    "Return the list of stack frames of the coroutine, oldest first.\n\n"
    "Where it is suspended; empty if it returned or was cancelled; the frames "
    "of\n"
    "the traceback if it raised.  limit is the largest number of frames.");

static PyObject *
Task_get_stack(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
               PyObject *kwnames)
{
    char limit_name[] = "limit";
    char *keywords[] = {limit_name, NULL};
    PyObject *limit = Py_None;
    hl_state *st = hl_future_st((hl_future *)op);
    if (st == NULL || hl_aio_parse(args, nargs, kwnames, "|$O:get_stack",
                                   keywords, &limit) < 0) {
        return NULL;
    }
    PyObject *stack[2] = {op, limit};
    return PyObject_Vectorcall(st->task_get_stack, stack, 2, NULL);
}

PyDoc_STRVAR(
    Task_print_stack__doc__,
    "print_stack($self, /, *, limit=None, file=None)\n--\n\n"
    "Print the stack or traceback of the coroutine as the traceback module\n"
    "does.\n\n"
    "limit is that of get_stack(); file is a text stream, sys.stderr if "
    "None.");

static PyObject *
Task_print_stack(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                 PyObject *kwnames)
{
    char limit_name[] = "limit", file_name[] = "file";
    char *keywords[] = {limit_name, file_name, NULL};
    PyObject *limit = Py_None, *file = Py_None;
    hl_state *st = hl_future_st((hl_future *)op);
    if (st == NULL || hl_aio_parse(args, nargs, kwnames, "|$OO:print_stack",
                                   keywords, &limit, &file) < 0) {
        return NULL;
    }
    PyObject *stack[3] = {op, limit, file};
    return PyObject_Vectorcall(st->task_print_stack, stack, 3, NULL);
}

PyDoc_STRVAR(Task_set_result__doc__,
             "set_result($self, result, /)\n--\n\n"
             "Raise RuntimeError: only the coroutine ends a task.");

static PyObject *
Task_set_result(PyObject *Py_UNUSED(op), PyObject *Py_UNUSED(result))
{
    PyErr_SetString(PyExc_RuntimeError,
                    "Task does not support set_result operation");
    return NULL;
}

PyDoc_STRVAR(Task_set_exception__doc__,
             "set_exception($self, exception, /)\n--\n\n"
             "Raise RuntimeError: only the coroutine ends a task.");

static PyObject *
Task_set_exception(PyObject *Py_UNUSED(op), PyObject *Py_UNUSED(exc))
{
    PyErr_SetString(PyExc_RuntimeError,
                    "Task does not support set_exception operation");
    return NULL;
}

PyDoc_STRVAR(Task_get_coro__doc__,
             "get_coro($self, /)\n--\n\n"
             "Return the coroutine; None after a task that finished eagerly.");

static PyObject *
Task_get_coro(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    PyObject *coro = ((hl_task *)op)->coro;
    return Py_NewRef(coro ? coro : Py_None);
}

PyDoc_STRVAR(Task_get_name__doc__, "get_name($self, /)\n--\n\n"
                                   "Return the name of the task.");

static PyObject *
Task_get_name(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return hl_task_get_name((hl_task *)op);
}

PyDoc_STRVAR(Task_set_name__doc__, "set_name($self, value, /)\n--\n\n"
                                   "Set the name of the task to str(value).");

static PyObject *
Task_set_name(PyObject *op, PyObject *value)
{
    hl_task *task = (hl_task *)op;
    hl_state *st = hl_future_st(&task->fut);
    if (st == NULL || hl_task_set_name(st, task, value) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

#if PY_VERSION_HEX >= 0x030C0000
PyDoc_STRVAR(Task_get_context__doc__,
             "get_context($self, /)\n--\n\n"
             "Return the contextvars.Context the task runs in.");

static PyObject *
Task_get_context(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    hl_task *task = (hl_task *)op;
    hl_state *st = hl_future_st(&task->fut);
    if (st == NULL || hl_task_claim_context(st, task) < 0) {
        return NULL;
    }
    return Py_NewRef(task->context ? task->context : Py_None);
}
#endif

PyMethodDef hl_task_methods[] = {
    HL_FUTURE_METHODS,
    {"cancel", HL_FASTCALL(Task_cancel), METH_FASTCALL | METH_KEYWORDS,
     Task_cancel__doc__},
    {"cancelling", Task_cancelling, METH_NOARGS, Task_cancelling__doc__},
    {"uncancel", Task_uncancel, METH_NOARGS, Task_uncancel__doc__},
    {"get_stack", HL_FASTCALL(Task_get_stack), METH_FASTCALL | METH_KEYWORDS,
     Task_get_stack__doc__},
    {"print_stack", HL_FASTCALL(Task_print_stack),
     METH_FASTCALL | METH_KEYWORDS, Task_print_stack__doc__},
    {"set_result", Task_set_result, METH_O, Task_set_result__doc__},
    {"set_exception", Task_set_exception, METH_O, Task_set_exception__doc__},
    {"get_coro", Task_get_coro, METH_NOARGS, Task_get_coro__doc__},
    {"get_name", Task_get_name, METH_NOARGS, Task_get_name__doc__},
    {"set_name", Task_set_name, METH_O, Task_set_name__doc__},
#if PY_VERSION_HEX >= 0x030C0000
    {"get_context", Task_get_context, METH_NOARGS, Task_get_context__doc__},
#endif
    {NULL, NULL, 0, NULL},
};
