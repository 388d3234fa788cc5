/* loop_schedule.c - Loop methods that queue callbacks, tasks and futures.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "api/api.h"

#include "aio/aio_state.h"
#include "aio/task.h"
#include "aio/work.h"
#include "base/args.h"
#include "loop/handle.h"

#include <math.h>
#include <string.h>

PyDoc_STRVAR(
    Loop_call_soon__doc__,
    "call_soon($self, callback, *args, context=None)\n--\n\n"
    "Call callback(*args) in the next turn of the loop.\n\n"
    "context is a contextvars.Context (default: a copy of the current one).\n"
    "Return an asyncio.Handle.  Raise RuntimeError if the loop is closed.  "
    "As\n"
    "asyncio's loop.call_soon(); not thread-safe.");

static PyObject *
Loop_call_soon(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
               PyObject *kwnames)
{
    static const hl_args_spec spec = {"Loop.call_soon", {"callback"}, true};
    hl_loop *self = (hl_loop *)op;
    hl_args a;
    if (hl_loop_check_closed(self) < 0 ||
        hl_args_parse(&spec, self->st->empty_tuple, args, nargs, kwnames, &a) <
            0) {
        return NULL;
    }
    PyObject *handle = NULL;
    if (HL_LIKELY(!self->debug) ||
        hl_loop_check_call(self, a.leading[0], "call_soon", true) == 0) {
        handle = hl_loop_call_soon(self, a.leading[0], a.rest, a.context);
    }
    Py_DECREF(a.rest);
    return handle;
}

PyObject *
hl_loop_queue_call(hl_loop *self, const hl_args_spec *spec, bool threadsafe,
                   bool urgent, PyObject *const *args, Py_ssize_t nargs,
                   PyObject *kwnames)
{
    hl_args a;
    if (hl_loop_check_closed(self) < 0 ||
        hl_args_parse(spec, self->st->empty_tuple, args, nargs, kwnames, &a) <
            0) {
        return NULL;
    }
    PyObject *handle = NULL;
    if (self->debug &&
        hl_loop_check_call(self, a.leading[0], strchr(spec->method, '.') + 1,
                           !threadsafe) < 0) {
        goto done;
    }
    handle = threadsafe ? hl_handle_new_threadsafe(self, a.leading[0], a.rest,
                                                   a.context)
                        : hl_handle_new(self, a.leading[0], a.rest, a.context);
    self->has_urgent = self->has_urgent || urgent;
    if (handle != NULL &&
        hl_loop_push_from_thread(self, Py_NewRef(handle), hl_handle_run,
                                 urgent) < 0) {
        Py_CLEAR(handle);
    }
    if (threadsafe) {
        self->counts.threadsafe_calls++;
        hl_loop_wake(self);
    }
done:
    Py_DECREF(a.rest);
    return handle;
}

PyDoc_STRVAR(
    Loop_call_soon_threadsafe__doc__,
    "call_soon_threadsafe($self, callback, *args, context=None)\n--\n\n"
    "Like call_soon(), from any thread; wakes the loop if it is waiting.\n\n"
    "Raise RuntimeError if the loop is closed.");

static PyObject *
Loop_call_soon_threadsafe(PyObject *op, PyObject *const *args,
                          Py_ssize_t nargs, PyObject *kwnames)
{
    static const hl_args_spec spec = {
        "Loop.call_soon_threadsafe", {"callback"}, true};
    return hl_loop_queue_call((hl_loop *)op, &spec, true, false, args, nargs,
                              kwnames);
}

/* The deadline as a float, by the rules of Python's numbers. */
static int
deadline_of(PyObject *when, double *seconds)
{
    *seconds = PyFloat_AsDouble(when);
    return *seconds == -1.0 && PyErr_Occurred() ? -1 : 0;
}

static PyObject *
call_at(hl_loop *self, double when, const hl_args *a)
{
    if (HL_UNLIKELY(isnan(when))) {
        /* It would have no place in the heap: asyncio's poll fails over it. */
        PyErr_SetString(PyExc_ValueError, "a deadline must not be NaN");
        return NULL;
    }
    if (hl_loop_check_closed(self) < 0) {
        return NULL;
    }
    if (HL_UNLIKELY(self->debug) &&
        hl_loop_check_call(self, a->leading[1], "call_at", true) < 0) {
        return NULL;
    }
    return hl_loop_call_at(self, when, a->leading[1], a->rest, a->context);
}

PyDoc_STRVAR(
    Loop_call_at__doc__,
    "call_at($self, when, callback, *args, context=None)\n--\n\n"
    "Call callback(*args) at when, in seconds on the clock of time().\n\n"
    "Never early.  Return an asyncio.TimerHandle.  Raise TypeError if when "
    "is\n"
    "not a number, RuntimeError if the loop is closed.");

static PyObject *
Loop_call_at(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
             PyObject *kwnames)
{
    static const hl_args_spec spec = {
        "Loop.call_at", {"when", "callback"}, true};
    hl_loop *self = (hl_loop *)op;
    hl_args a;
    double when;
    if (hl_args_parse(&spec, self->st->empty_tuple, args, nargs, kwnames, &a) <
        0) {
        return NULL;
    }
    PyObject *timer = NULL;
    if (a.leading[0] == Py_None) {
        PyErr_SetString(PyExc_TypeError, "when cannot be None");
    }
    else if (deadline_of(a.leading[0], &when) == 0) {
        timer = call_at(self, when, &a);
    }
    Py_DECREF(a.rest);
    return timer;
}

/* self.time() + delay as Python computes it. */
static PyObject *
deadline_after(hl_loop *self, PyObject *delay)
{
    double now = hl_loop_time(self);
    if (now == -1.0 && PyErr_Occurred()) {
        return NULL;
    }
    PyObject *start = PyFloat_FromDouble(now);
    if (start == NULL) {
        return NULL;
    }
    PyObject *when = PyNumber_Add(start, delay);
    Py_DECREF(start);
    return when;
}

/* call_later() for delays that are not floats and loops whose call_at() is
 * somebody else's. */
static PyObject *
call_later_slow(hl_loop *self, const hl_args *a)
{
    double seconds;
    PyObject *timer = NULL;
    PyObject *when = deadline_after(self, a->leading[0]);
    if (when == NULL) {
        return NULL;
    }
    if (!self->call_at_overridden) {
        if (deadline_of(when, &seconds) == 0) {
            timer = call_at(self, seconds, a);
        }
        goto done;
    }
    PyObject *method =
        PyObject_GetAttr((PyObject *)self, self->st->str_call_at);
    PyObject *full = PyTuple_New(2 + PyTuple_GET_SIZE(a->rest));
    PyObject *kwargs = PyDict_New();
    if (method != NULL && full != NULL && kwargs != NULL) {
        PyTuple_SET_ITEM(full, 0, Py_NewRef(when));
        PyTuple_SET_ITEM(full, 1, Py_NewRef(a->leading[1]));
        for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(a->rest); i++) {
            PyTuple_SET_ITEM(full, i + 2,
                             Py_NewRef(PyTuple_GET_ITEM(a->rest, i)));
        }
        PyObject *context = a->context == NULL ? Py_None : a->context;
        if (PyDict_SetItem(kwargs, self->st->str_context, context) == 0) {
            timer = PyObject_Call(method, full, kwargs);
        }
    }
    Py_XDECREF(kwargs);
    Py_XDECREF(full);
    Py_XDECREF(method);
done:
    Py_DECREF(when);
    return timer;
}

PyDoc_STRVAR(Loop_call_later__doc__,
             "call_later($self, delay, callback, *args, context=None)\n--\n\n"
             "Call callback(*args) after delay seconds, never early.\n\n"
             "Return an asyncio.TimerHandle.  Raise TypeError if delay is not "
             "a number,\n"
             "RuntimeError if the loop is closed.");

static PyObject *
Loop_call_later(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                PyObject *kwnames)
{
    static const hl_args_spec spec = {
        "Loop.call_later", {"delay", "callback"}, true};
    hl_loop *self = (hl_loop *)op;
    hl_args a;
    if (hl_args_parse(&spec, self->st->empty_tuple, args, nargs, kwnames, &a) <
        0) {
        return NULL;
    }
    PyObject *timer = NULL;
    PyObject *delay = a.leading[0];
    if (delay == Py_None) {
        PyErr_SetString(PyExc_TypeError, "delay must not be None");
    }
    else if (PyFloat_CheckExact(delay) && !self->time_overridden &&
             !self->call_at_overridden) {
        timer = call_at(self, hl_loop_now() + PyFloat_AS_DOUBLE(delay), &a);
    }
    else {
        timer = call_later_slow(self, &a);
    }
    Py_DECREF(a.rest);
    return timer;
}

/* The method of BaseEventLoop that ours stands in front of. */
static PyObject *
call_inherited(hl_loop *self, PyObject *name, PyObject *const *args,
               Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *method = PyObject_GetAttr(self->st->BaseEventLoop, name);
    if (method == NULL) {
        return NULL;
    }
    Py_ssize_t nkw = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    PyObject **stack = PyMem_New(PyObject *, (size_t)(1 + nargs + nkw));
    PyObject *res = NULL;
    if (stack == NULL) {
        PyErr_NoMemory();
    }
    else {
        stack[0] = (PyObject *)self;
        for (Py_ssize_t i = 0; i < nargs + nkw; i++) {
            stack[i + 1] = args[i];
        }
        res = PyObject_Vectorcall(method, stack, (size_t)(1 + nargs), kwnames);
        PyMem_Free(stack);
    }
    Py_DECREF(method);
    return res;
}

PyDoc_STRVAR(Loop_create_future__doc__,
             "create_future($self, /)\n--\n\n"
             "Return a new hotloop.Future bound to this loop.");

static PyObject *
Loop_create_future(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    hl_loop *self = (hl_loop *)op;
    if (HL_UNLIKELY(hl_loop_replaced(self) & HL_REPLACED_FUTURE)) {
        return call_inherited(self, self->st->str_create_future, NULL, 0,
                              NULL);
    }
    return hl_future_new(self);
}

/* Reads coro, name=, context= and, where Python has it, eager_start= of a call
 * without a task factory, or with the eager one (*eager is set).  1 if they
 * are all there is; 0 for the inherited method to judge. */
static int
create_task_simple(hl_state *st, PyObject *const *args, Py_ssize_t nargs,
                   PyObject *kwnames, PyObject **name, PyObject **context,
                   int *eager)
{
    bool takes_start = hl_aio_of(st)->create_task_keywords &&
                       (!*eager || st->release.eager_takes_start);
    if (nargs != 1) {
        return 0;
    }
    Py_ssize_t n = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *key = PyTuple_GET_ITEM(kwnames, i);
        PyObject *value = args[nargs + i];
        if (PyUnicode_CompareWithASCIIString(key, "name") == 0) {
            *name = value == Py_None ? NULL : value;
        }
        else if (PyUnicode_CompareWithASCIIString(key, "context") == 0) {
            *context = value == Py_None ? NULL : value;
        }
        else if (takes_start &&
                 PyUnicode_CompareWithASCIIString(key, "eager_start") == 0) {
            *eager = PyObject_IsTrue(value);
            if (*eager < 0) {
                return -1;
            }
        }
        else {
            return 0;
        }
    }
    return 1;
}

/* Names the task (stolen) of a factory, as create_task() does if the factory
 * is not told the name: the first step of an eager task goes without. */
static PyObject *
name_afterwards(hl_state *st, PyObject *task, PyObject *name)
{
    if (name == NULL && hl_aio_of(st)->factory_name != HL_NAME_SET_ALWAYS) {
        return task;
    }
    PyObject *res =
        PyObject_CallMethod(task, "set_name", "O", name ? name : Py_None);
    if (res == NULL) {
        Py_CLEAR(task);
    }
    Py_XDECREF(res);
    return task;
}

#define CREATE_TASK_TEXT                                               \
    "Schedule a coroutine object; return its task, a hotloop.Task "    \
    "unless a task\n"                                                  \
    "factory is set.\n\n"                                              \
    "Keyword arguments and errors are those of the running Python's\n" \
    "loop.create_task()."

PyDoc_STRVAR(Loop_create_task__doc__,
#if PY_VERSION_HEX >= 0x030E0000
             "create_task($self, coro, **kwargs)\n--\n\n"
#else
             "create_task($self, coro, *, name=None, context=None)\n--\n\n"
#endif
             CREATE_TASK_TEXT);

void
hl_loop_describe_create_task(hl_state *st)
{
    if (PY_VERSION_HEX >= 0x030E0000 || !hl_aio_of(st)->create_task_keywords) {
        return;
    }
    for (PyMethodDef *m = st->loop_methods; m->ml_name != NULL; m++) {
        if (strcmp(m->ml_name, "create_task") == 0) {
            m->ml_doc = "create_task($self, coro, *, name=None, "
                        "context=None, **kwargs)\n--\n\n" CREATE_TASK_TEXT;
        }
    }
}

static PyObject *
Loop_create_task(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                 PyObject *kwnames)
{
    hl_loop *self = (hl_loop *)op;
    hl_state *st = self->st;
    PyObject *name = NULL, *context = NULL;
    int eager = 0;
    if (hl_loop_check_closed(self) < 0) {
        return NULL;
    }
    if (self->task_factory != NULL) {
        /* asyncio's own eager factory: a task of ours, started eagerly. */
        eager = self->task_factory == st->eager_task_factory;
        if (!eager) {
            return call_inherited(self, self->st->str_create_task, args, nargs,
                                  kwnames);
        }
    }
    else if (HL_UNLIKELY(hl_loop_replaced(self) & HL_REPLACED_TASK)) {
        return call_inherited(self, self->st->str_create_task, args, nargs,
                              kwnames);
    }
    int simple =
        create_task_simple(st, args, nargs, kwnames, &name, &context, &eager);
    if (simple < 0) {
        return NULL;
    }
    if (simple == 0) {
        return call_inherited(self, self->st->str_create_task, args, nargs,
                              kwnames);
    }
    if (self->task_factory == NULL ||
        hl_aio_of(st)->factory_name == HL_NAME_PASSED) {
        return hl_task_new(self, args[0], name, context, eager != 0);
    }
    PyObject *task = hl_task_new(self, args[0], NULL, context, eager != 0);
    return task == NULL ? NULL : name_afterwards(st, task, name);
}

PyDoc_STRVAR(
    Loop__call_soon__doc__,
    "_call_soon($self, callback, args, context, /)\n--\n\n"
    "Queue callback(*args) without checks (asyncio's internal seam).");

static PyObject *
Loop__call_soon(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 3) {
        PyErr_SetString(PyExc_TypeError,
                        "_call_soon() takes exactly 3 arguments");
        return NULL;
    }
    PyObject *tuple = PySequence_Tuple(args[1]);
    if (tuple == NULL) {
        return NULL;
    }
    PyObject *handle = hl_loop_call_soon((hl_loop *)op, args[0], tuple,
                                         args[2] == Py_None ? NULL : args[2]);
    Py_DECREF(tuple);
    return handle;
}

static int
require_handle(hl_loop *self, PyObject *handle)
{
    int is_handle = PyObject_IsInstance(handle, self->st->AbstractHandle);
    if (is_handle == 0) {
        PyErr_Format(PyExc_TypeError, "a Handle is required, not %.200s",
                     Py_TYPE(handle)->tp_name);
    }
    return is_handle == 1 ? 0 : -1;
}

PyDoc_STRVAR(
    Loop__add_callback__doc__,
    "_add_callback($self, handle, /)\n--\n\n"
    "Queue a handle unless it is cancelled (asyncio's internal seam).");

static PyObject *
Loop__add_callback(PyObject *op, PyObject *handle)
{
    hl_loop *self = (hl_loop *)op;
    if (require_handle(self, handle) < 0) {
        return NULL;
    }
    if (!hl_handle_cancelled(self->st, handle) &&
        hl_loop_push_handle(self, Py_NewRef(handle), hl_handle_run) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(Loop__add_callback_signalsafe__doc__,
             "_add_callback_signalsafe($self, handle, /)\n--\n\n"
             "Queue a handle from a signal handler and wake the loop.");

static PyObject *
Loop__add_callback_signalsafe(PyObject *op, PyObject *handle)
{
    hl_loop *self = (hl_loop *)op;
    hl_ring *into = hl_loop_switch_ring(self, &self->ready);
    PyObject *res = Loop__add_callback(op, handle);
    self->into = into;
    if (res != NULL) {
        hl_loop_wake(self);
    }
    return res;
}

PyDoc_STRVAR(
    Loop__timer_handle_cancelled__doc__,
    "_timer_handle_cancelled($self, handle, /)\n--\n\n"
    "Note that a timer was cancelled; timers of this loop do so themselves.");

static PyObject *
Loop__timer_handle_cancelled(PyObject *Py_UNUSED(op),
                             PyObject *Py_UNUSED(handle))
{
    Py_RETURN_NONE;
}

PyDoc_STRVAR(Loop__work__doc__,
             "_work($self, func, args, /)\n--\n\n"
             "Return a WorkItem that calls func(*args); args is a tuple.");

static PyObject *
Loop__work(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 2 || !PyTuple_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError,
                        "_work() takes a function and a tuple");
        return NULL;
    }
    return hl_work_new((hl_loop *)op, args[0], args[1]);
}

PyDoc_STRVAR(Loop__wrap_work__doc__,
             "_wrap_work($self, source, /)\n--\n\n"
             "asyncio.wrap_future() for a concurrent.futures.Future.");

static PyObject *
Loop__wrap_work(PyObject *op, PyObject *source)
{
    return hl_work_wrap((hl_loop *)op, source);
}

#define FASTCALL (METH_FASTCALL | METH_KEYWORDS)
PyMethodDef hl_loop_schedule_methods[] = {
    {"call_soon", HL_FASTCALL(Loop_call_soon), FASTCALL,
     Loop_call_soon__doc__},
    {"call_soon_threadsafe", HL_FASTCALL(Loop_call_soon_threadsafe), FASTCALL,
     Loop_call_soon_threadsafe__doc__},
    {"call_at", HL_FASTCALL(Loop_call_at), FASTCALL, Loop_call_at__doc__},
    {"call_later", HL_FASTCALL(Loop_call_later), FASTCALL,
     Loop_call_later__doc__},
    {"create_future", Loop_create_future, METH_NOARGS,
     Loop_create_future__doc__},
    {"create_task", HL_FASTCALL(Loop_create_task), FASTCALL,
     Loop_create_task__doc__},
    {"_work", HL_FASTCALL(Loop__work), METH_FASTCALL, Loop__work__doc__},
    {"_wrap_work", Loop__wrap_work, METH_O, Loop__wrap_work__doc__},
    {"_call_soon", HL_FASTCALL(Loop__call_soon), METH_FASTCALL,
     Loop__call_soon__doc__},
    {"_add_callback", Loop__add_callback, METH_O, Loop__add_callback__doc__},
    {"_add_callback_signalsafe", Loop__add_callback_signalsafe, METH_O,
     Loop__add_callback_signalsafe__doc__},
    {"_timer_handle_cancelled", Loop__timer_handle_cancelled, METH_O,
     Loop__timer_handle_cancelled__doc__},
    {NULL, NULL, 0, NULL},
};
