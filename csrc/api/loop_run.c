/* loop_run.c - Loop methods that run, stop, wake and inspect the loop.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "api/api.h"

#include "loop/watchdog.h"

#define LONGEST_WAIT_S (24.0 * 3600.0)

PyDoc_STRVAR(
    Loop__run__doc__,
    "_run($self, /)\n--\n\n"
    "Run turns until stop() is called; run_forever() does the set-up.");

static PyObject *
Loop__run(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    hl_loop *self = (hl_loop *)op;
    if (hl_loop_check_closed(self) < 0 || hl_loop_run(self, false) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(Loop__run_once__doc__,
             "_run_once($self, /)\n--\n\n"
             "Run one turn: poll, then every callback that is ready.");

static PyObject *
Loop__run_once(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    hl_loop *self = (hl_loop *)op;
    if (hl_loop_check_closed(self) < 0 || hl_loop_run(self, true) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* Seconds as ns for hl_loop_poll(); None is for ever.  -2 with an
 * exception. */
static int64_t
wait_of(PyObject *seconds)
{
    if (seconds == Py_None) {
        return -1;
    }
    double wait = PyFloat_AsDouble(seconds);
    if (wait == -1.0 && PyErr_Occurred()) {
        return -2;
    }
    if (!(wait >= 0.0 && wait <= LONGEST_WAIT_S)) {
        PyErr_SetString(PyExc_ValueError, "no time to wait");
        return -2;
    }
    return (int64_t)(wait * 1e9);
}

PyDoc_STRVAR(
    Loop__run_held__doc__,
    "_run_held($self, wait, /)\n--\n\n"
    "Run one turn that waits up to wait seconds (None: for ever) if nothing "
    "is\n"
    "ready, whatever the deadlines.  Return an int: 1 if anything ran, plus 2 "
    "if\n"
    "that may have made a descriptor ready.");

static PyObject *
Loop__run_held(PyObject *op, PyObject *seconds)
{
    hl_loop *self = (hl_loop *)op;
    unsigned done;
    int64_t wait = wait_of(seconds);
    if (wait == -2 || hl_loop_check_closed(self) < 0 ||
        hl_loop_run_held(self, wait, &done) < 0) {
        return NULL;
    }
    return PyLong_FromUnsignedLong(done);
}

PyDoc_STRVAR(Loop_stop__doc__,
             "stop($self, /)\n--\n\n"
             "Stop the loop at the end of the current turn.");

static PyObject *
Loop_stop(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    ((hl_loop *)op)->stopping = true;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(Loop_is_running__doc__, "is_running($self, /)\n--\n\n"
                                     "Return True while the loop runs.");

static PyObject *
Loop_is_running(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(((hl_loop *)op)->thread_id != NULL);
}

PyDoc_STRVAR(Loop_is_closed__doc__, "is_closed($self, /)\n--\n\n"
                                    "Return True once the loop is closed.");

static PyObject *
Loop_is_closed(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(((hl_loop *)op)->closed);
}

PyDoc_STRVAR(
    Loop_time__doc__,
    "time($self, /)\n--\n\n"
    "Return the loop's clock in seconds, a float: that of time.monotonic().");

static PyObject *
Loop_time(PyObject *Py_UNUSED(op), PyObject *Py_UNUSED(ignored))
{
    return PyFloat_FromDouble(hl_loop_now());
}

PyDoc_STRVAR(Loop_get_debug__doc__, "get_debug($self, /)\n--\n\n"
                                    "Return True in debug mode.");

static PyObject *
Loop_get_debug(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(((hl_loop *)op)->debug);
}

PyDoc_STRVAR(Loop__check_closed__doc__,
             "_check_closed($self, /)\n--\n\n"
             "Raise RuntimeError if the loop is closed.");

static PyObject *
Loop__check_closed(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    if (hl_loop_check_closed((hl_loop *)op) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(Loop__write_to_self__doc__,
             "_write_to_self($self, /)\n--\n\n"
             "Wake the loop if it waits.  From any thread.");

static PyObject *
Loop__write_to_self(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    hl_loop_wake((hl_loop *)op);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(Loop__close_core__doc__, "_close_core($self, /)\n--\n\n"
                                      "Drop what is queued and give libuv's "
                                      "resources back; the end of close().");

static PyObject *
Loop__close_core(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    hl_loop *self = (hl_loop *)op;
    if (self->running) {
        PyErr_SetString(PyExc_RuntimeError,
                        "Cannot close a running event loop");
        return NULL;
    }
    self->closed = true;
    hl_watch_stop(self, false);
    hl_loop_drop_queues(self);
    hl_loop_close_uv(self);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(Loop__before_fork__doc__,
             "_before_fork($self, /)\n--\n\n"
             "Send what was written in this turn, if this thread runs the "
             "loop.");

static PyObject *
Loop__before_fork(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    if (hl_loop_before_fork((hl_loop *)op) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(Loop__renew_poller__doc__,
             "_renew_poller($self, /)\n--\n\n"
             "In a forked child: stop sharing the parent's poller.");

static PyObject *
Loop__renew_poller(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    hl_loop_after_fork((hl_loop *)op);
    Py_RETURN_NONE;
}

PyMethodDef hl_loop_run_methods[] = {
    {"_run", Loop__run, METH_NOARGS, Loop__run__doc__},
    {"_run_once", Loop__run_once, METH_NOARGS, Loop__run_once__doc__},
    {"_run_held", Loop__run_held, METH_O, Loop__run_held__doc__},
    {"stop", Loop_stop, METH_NOARGS, Loop_stop__doc__},
    {"is_running", Loop_is_running, METH_NOARGS, Loop_is_running__doc__},
    {"is_closed", Loop_is_closed, METH_NOARGS, Loop_is_closed__doc__},
    {"time", Loop_time, METH_NOARGS, Loop_time__doc__},
    {"get_debug", Loop_get_debug, METH_NOARGS, Loop_get_debug__doc__},
    {"_check_closed", Loop__check_closed, METH_NOARGS,
     Loop__check_closed__doc__},
    {"_write_to_self", Loop__write_to_self, METH_NOARGS,
     Loop__write_to_self__doc__},
    {"_before_fork", Loop__before_fork, METH_NOARGS, Loop__before_fork__doc__},
    {"_renew_poller", Loop__renew_poller, METH_NOARGS,
     Loop__renew_poller__doc__},
    {"_close_core", Loop__close_core, METH_NOARGS, Loop__close_core__doc__},
    {NULL, NULL, 0, NULL},
};

static PyObject *
Loop_get_closed(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((hl_loop *)op)->closed);
}

/* A flag as Python code assigns it; deleting one is refused. */
static int
set_flag(bool *flag, PyObject *value)
{
    if (value == NULL) {
        PyErr_SetString(PyExc_AttributeError, "cannot delete attribute");
        return -1;
    }
    if (PyBool_Check(value)) { /* cannot fail: the end of a run relies on it */
        *flag = value == Py_True;
        return 0;
    }
    int truth = PyObject_IsTrue(value);
    if (truth < 0) {
        return -1;
    }
    *flag = truth != 0;
    return 0;
}

static int
Loop_set_closed(PyObject *op, PyObject *value, void *Py_UNUSED(closure))
{
    hl_loop *self = (hl_loop *)op;
    if (set_flag(&self->closed, value) < 0) {
        return -1;
    }
    if (!self->closed && !self->uv_open) {
        /* As __init__() does: but there is nothing left to run. */
        self->closed = true;
        return hl_loop_check_closed(self);
    }
    return 0;
}

static PyObject *
Loop_get_stopping(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((hl_loop *)op)->stopping);
}

static int
Loop_set_stopping(PyObject *op, PyObject *value, void *Py_UNUSED(closure))
{
    return set_flag(&((hl_loop *)op)->stopping, value);
}

static int
Loop_set_debug_flag(PyObject *op, PyObject *value, void *Py_UNUSED(closure))
{
    hl_loop *self = (hl_loop *)op;
    int rv = set_flag(&self->debug, value);
    hl_loop_observe(self);
    return rv;
}

static PyObject *
Loop_get_debug_flag(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((hl_loop *)op)->debug);
}

static PyObject *
Loop_get_poll_sees_signals(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((hl_loop *)op)->poll_sees_signals);
}

static int
Loop_set_poll_sees_signals(PyObject *op, PyObject *value,
                           void *Py_UNUSED(closure))
{
    return set_flag(&((hl_loop *)op)->poll_sees_signals, value);
}

static PyObject *
Loop_get_handles_signals(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((hl_loop *)op)->handles_signals);
}

static int
Loop_set_handles_signals(PyObject *op, PyObject *value,
                         void *Py_UNUSED(closure))
{
    return set_flag(&((hl_loop *)op)->handles_signals, value);
}

static PyObject *
Loop_get_inside_run(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((hl_loop *)op)->running);
}

static PyObject *
Loop_get_thread_id(PyObject *op, void *Py_UNUSED(closure))
{
    PyObject *ident = ((hl_loop *)op)->thread_id;
    return Py_NewRef(ident == NULL ? Py_None : ident);
}

static int
Loop_set_thread_id(PyObject *op, PyObject *value, void *Py_UNUSED(closure))
{
    bool none = value == NULL || value == Py_None;
    Py_XSETREF(((hl_loop *)op)->thread_id, none ? NULL : Py_NewRef(value));
    return 0;
}

static PyObject *
Loop_get_task_factory(PyObject *op, void *Py_UNUSED(closure))
{
    PyObject *factory = ((hl_loop *)op)->task_factory;
    return Py_NewRef(factory == NULL ? Py_None : factory);
}

static int
Loop_set_task_factory(PyObject *op, PyObject *value, void *Py_UNUSED(closure))
{
    bool none = value == NULL || value == Py_None;
    Py_XSETREF(((hl_loop *)op)->task_factory, none ? NULL : Py_NewRef(value));
    return 0;
}

static PyObject *
Loop_get_slow_duration(PyObject *op, void *Py_UNUSED(closure))
{
    return Py_NewRef(((hl_loop *)op)->slow_callback_duration);
}

static int
Loop_set_slow_duration(PyObject *op, PyObject *value, void *Py_UNUSED(closure))
{
    if (value == NULL) {
        PyErr_SetString(PyExc_AttributeError, "cannot delete attribute");
        return -1;
    }
    Py_SETREF(((hl_loop *)op)->slow_callback_duration, Py_NewRef(value));
    return 0;
}

static int
list_entries(PyObject *list, const hl_ring *ring)
{
    for (size_t i = 0; i < hl_ring_count(ring); i++) {
        if (PyList_Append(list, hl_ring_peek(ring, i)->obj) < 0) {
            return -1;
        }
    }
    return 0;
}

static PyObject *
Loop_get_ready(PyObject *op, void *Py_UNUSED(closure))
{
    hl_loop *self = (hl_loop *)op;
    PyObject *list = PyList_New(0);
    if (list != NULL && (list_entries(list, &self->urgent) < 0 ||
                         list_entries(list, &self->ready) < 0)) {
        Py_CLEAR(list);
    }
    return list;
}

static PyObject *
Loop_get_scheduled(PyObject *op, void *Py_UNUSED(closure))
{
    hl_timers *timers = &((hl_loop *)op)->timers;
    const hl_heap_item *first = hl_timers_first(timers);
    PyObject *list = PyList_New(0);
    if (list == NULL || first == NULL) {
        return list;
    }
    if (PyList_Append(list, first->timer) < 0) {
        Py_DECREF(list);
        return NULL;
    }
    for (size_t i = 0; i < hl_timers_count(timers); i++) {
        PyObject *timer = hl_timers_at(timers, i)->timer;
        if (timer != PyList_GET_ITEM(list, 0) &&
            PyList_Append(list, timer) < 0) {
            Py_DECREF(list);
            return NULL;
        }
    }
    return list;
}

static PyObject *
Loop_get_next_deadline(PyObject *op, void *Py_UNUSED(closure))
{
    const hl_heap_item *first = hl_timers_first(&((hl_loop *)op)->timers);
    if (first == NULL) {
        Py_RETURN_NONE;
    }
    return PyFloat_FromDouble(first->when);
}

/* BaseEventLoop.__init__() assigns empty queues, which the core has. */
static int
Loop_ignore_queue(PyObject *Py_UNUSED(op), PyObject *Py_UNUSED(value),
                  void *Py_UNUSED(closure))
{
    return 0;
}

PyGetSetDef hl_loop_getset[] = {
    {"_closed", Loop_get_closed, Loop_set_closed, NULL, NULL},
    {"_stopping", Loop_get_stopping, Loop_set_stopping, NULL, NULL},
    {"_debug", Loop_get_debug_flag, Loop_set_debug_flag, NULL, NULL},
    {"_handles_signals", Loop_get_handles_signals, Loop_set_handles_signals,
     "Whether add_signal_handler() has handlers that wait for the poll.",
     NULL},
    {"_poll_sees_signals", Loop_get_poll_sees_signals,
     Loop_set_poll_sees_signals,
     "Whether to wait so that a signal interrupts: it goes elsewhere than to\n"
     "the self-pipe.",
     NULL},
    {"_inside_run", Loop_get_inside_run, NULL,
     "Whether a run is under way, which _thread_id denies after another\n"
     "__init__().",
     NULL},
    {"_thread_id", Loop_get_thread_id, Loop_set_thread_id, NULL, NULL},
    {"_task_factory", Loop_get_task_factory, Loop_set_task_factory, NULL,
     NULL},
    {"slow_callback_duration", Loop_get_slow_duration, Loop_set_slow_duration,
     "Seconds from which debug mode reports a callback as slow.", NULL},
    {"_ready", Loop_get_ready, Loop_ignore_queue,
     "A copy of the ready queue, what is urgent first: handles, tasks and\n"
     "transports.",
     NULL},
    {"_scheduled", Loop_get_scheduled, Loop_ignore_queue,
     "A copy of the timers, the earliest one first.", NULL},
    {"_next_deadline", Loop_get_next_deadline, NULL,
     "When the earliest timer is due, a cancelled one perhaps; or None.",
     NULL},
    {NULL, NULL, NULL, NULL, NULL},
};
