/* loop_share.c - Loop methods that share the loop out: priorities, budgets.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "api/api.h"

#include "base/args.h"

/* A batch of datagrams is of 64; a kernel that joins them makes more of it.
 * Operations are as many as a thousand sockets need that all became ready. */
const hl_budget hl_loop_default_budget = {
    .accepts = 256,
    .datagrams = 256,
    .operations = 1024,
};

PyDoc_STRVAR(
    Loop_call_soon_priority__doc__,
    "call_soon_priority($self, callback, *args, context=None)\n--\n\n"
    "Call callback(*args) before all that call_soon() has queued.\n\n"
    "It runs as soon as the callback that runs now has ended, after what is\n"
    "urgent already.  What it schedules, waits for or watches is urgent, "
    "too.\n"
    "Return an asyncio.Handle.  Raise RuntimeError if the loop is closed.  "
    "Not\n"
    "thread-safe.");

static PyObject *
Loop_call_soon_priority(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                        PyObject *kwnames)
{
    static const hl_args_spec spec = {
        "Loop.call_soon_priority", {"callback"}, true};
    return hl_loop_queue_call((hl_loop *)op, &spec, false, true, args, nargs,
                              kwnames);
}

PyDoc_STRVAR(
    Loop_call_soon_priority_threadsafe__doc__,
    "call_soon_priority_threadsafe($self, callback, *args, context=None)\n--"
    "\n\n"
    "Like call_soon_priority(), from any thread; wakes the loop if it is "
    "waiting.\n\n"
    "Raise RuntimeError if the loop is closed.");

static PyObject *
Loop_call_soon_priority_threadsafe(PyObject *op, PyObject *const *args,
                                   Py_ssize_t nargs, PyObject *kwnames)
{
    static const hl_args_spec spec = {
        "Loop.call_soon_priority_threadsafe", {"callback"}, true};
    return hl_loop_queue_call((hl_loop *)op, &spec, true, true, args, nargs,
                              kwnames);
}

PyDoc_STRVAR(Loop__set_urgent__doc__,
             "_set_urgent($self, urgent, /)\n--\n\n"
             "Have what is scheduled from now on be urgent or not; return "
             "what was before.");

static PyObject *
Loop__set_urgent(PyObject *op, PyObject *value)
{
    hl_loop *self = (hl_loop *)op;
    int urgent = PyObject_IsTrue(value);
    if (urgent < 0) {
        return NULL;
    }
    self->has_urgent = self->has_urgent || urgent;
    hl_ring *before =
        hl_loop_switch_ring(self, hl_loop_ring(self, urgent != 0));
    return PyBool_FromLong(before == &self->urgent);
}

/* A number of a budget, NULL or None to leave it; the limits keep sums of a
 * turn within an int. */
static int
read_share(const char *name, PyObject *value, int *share)
{
    if (value == NULL || value == Py_None) {
        return 0;
    }
    if (!PyLong_Check(value) || PyBool_Check(value)) {
        PyErr_Format(PyExc_TypeError, "%s must be an int, not %.100s", name,
                     Py_TYPE(value)->tp_name);
        return -1;
    }
    int overflow;
    long number = PyLong_AsLongAndOverflow(value, &overflow);
    if (overflow != 0 || number < 1 || number > 1000000000) {
        PyErr_Format(PyExc_ValueError,
                     "%s must be between 1 and 1000000000, not %R", name,
                     value);
        return -1;
    }
    *share = (int)number;
    return 0;
}

PyDoc_STRVAR(
    Loop_set_budget__doc__,
    "set_budget($self, /, *, accepts=None, datagrams=None, operations=None)\n"
    "--\n\n"
    "Say how much one source may do before others have their turn.\n\n"
    "accepts: connections of a server in one turn (256), if its backlog is "
    "not\n"
    "smaller; datagrams: of a transport in one turn (256); operations: of\n"
    "sock_recv() and its like that did not have to wait, before one does\n"
    "(1024).  None leaves a number as it is.  Raise TypeError or ValueError "
    "for\n"
    "what is not an int above 0.");

static PyObject *
Loop_set_budget(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                PyObject *kwnames)
{
    static const char *const names[] = {"accepts", "datagrams", "operations",
                                        NULL};
    static const hl_params params = {"Loop.set_budget", names, 0, 0};
    hl_loop *self = (hl_loop *)op;
    hl_budget budget = self->budget;
    PyObject *given[Py_ARRAY_LENGTH(names) - 1];
    if (hl_params_parse(&params, args, nargs, kwnames, given) < 0 ||
        read_share(names[0], given[0], &budget.accepts) < 0 ||
        read_share(names[1], given[1], &budget.datagrams) < 0 ||
        read_share(names[2], given[2], &budget.operations) < 0) {
        return NULL;
    }
    self->budget = budget;
    self->operations_left = budget.operations;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(Loop_get_budget__doc__,
             "get_budget($self, /)\n--\n\n"
             "Return what set_budget() sets, as a dict.");

static PyObject *
Loop_get_budget(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    const hl_budget *budget = &((hl_loop *)op)->budget;
    return Py_BuildValue("{sisisi}", "accepts", budget->accepts, "datagrams",
                         budget->datagrams, "operations", budget->operations);
}

#define FASTCALL (METH_FASTCALL | METH_KEYWORDS)
PyMethodDef hl_loop_share_methods[] = {
    {"call_soon_priority", HL_FASTCALL(Loop_call_soon_priority), FASTCALL,
     Loop_call_soon_priority__doc__},
    {"call_soon_priority_threadsafe",
     HL_FASTCALL(Loop_call_soon_priority_threadsafe), FASTCALL,
     Loop_call_soon_priority_threadsafe__doc__},
    {"set_budget", HL_FASTCALL(Loop_set_budget), FASTCALL,
     Loop_set_budget__doc__},
    {"get_budget", Loop_get_budget, METH_NOARGS, Loop_get_budget__doc__},
    {"_set_urgent", Loop__set_urgent, METH_O, Loop__set_urgent__doc__},
    {NULL, NULL, 0, NULL},
};
