/* schedule.c - call_soon(), call_at() and what belongs to them.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "loop/handle.h"
#include "loop/loop.h"
#include "state/errors.h"

int
hl_loop_check_closed(hl_loop *loop)
{
    if (HL_UNLIKELY(loop->closed)) {
        PyErr_SetString(PyExc_RuntimeError, "Event loop is closed");
        return -1;
    }
    return 0;
}

double
hl_loop_time(hl_loop *loop)
{
    if (HL_LIKELY(!loop->time_overridden)) {
        return hl_loop_now();
    }
    PyObject *now =
        PyObject_CallMethodNoArgs((PyObject *)loop, loop->st->str_time);
    if (now == NULL) {
        return -1.0;
    }
    double seconds = PyFloat_AsDouble(now);
    Py_DECREF(now);
    return seconds;
}

int
hl_loop_check_call(hl_loop *loop, PyObject *callback, const char *method,
                   bool same_thread)
{
    PyObject *self = (PyObject *)loop, *res = NULL;
    if (same_thread) {
        res = PyObject_CallMethodNoArgs(self, loop->st->str__check_thread);
        if (res == NULL) {
            return -1;
        }
        Py_DECREF(res);
    }
    res = PyObject_CallMethod(self, "_check_callback", "Os", callback, method);
    if (res == NULL) {
        return -1;
    }
    Py_DECREF(res);
    return 0;
}

PyObject *
hl_loop_call_soon(hl_loop *loop, PyObject *callback, PyObject *args,
                  PyObject *context)
{
    PyObject *handle = hl_handle_new(loop, callback, args, context);
    if (handle != NULL &&
        hl_loop_push_handle(loop, Py_NewRef(handle), hl_handle_run) < 0) {
        Py_CLEAR(handle);
    }
    return handle;
}

PyObject *
hl_loop_call_at(hl_loop *loop, double when, PyObject *callback, PyObject *args,
                PyObject *context)
{
    PyObject *timer = hl_timer_new(loop, when, callback, args, context);
    if (timer == NULL) {
        return NULL;
    }
    if (hl_timers_push(&loop->timers, when, timer, hl_loop_is_urgent(loop)) <
        0) {
        Py_DECREF(timer);
        return NULL;
    }
    hl_timer_set_scheduled(loop->st, timer, true);
    if (loop->parked) {
        hl_loop_wake(loop); /* another thread's: asyncio would not notice */
    }
    return timer;
}

void
hl_loop_timer_cancelled(hl_loop *loop, PyObject *timer)
{
    if (hl_timers_remove(&loop->timers, timer)) {
        /* As a rule that of a timeout that did not happen. */
        hl_timer_set_scheduled(loop->st, timer, false);
        Py_DECREF(timer); /* the caller holds another */
    }
    else {
        loop->timers_cancelled++;
    }
}

PyObject *
hl_call_soon(hl_state *st, PyObject *loop, PyObject *callback, PyObject *args,
             PyObject *context)
{
    if (hl_loop_check(st, loop)) {
        hl_loop *self = (hl_loop *)loop;
        if (!self->call_soon_overridden) {
            if (hl_loop_check_closed(self) < 0 ||
                (self->debug &&
                 hl_loop_check_call(self, callback, "call_soon", true) < 0)) {
                return NULL;
            }
            return hl_loop_call_soon(self, callback, args, context);
        }
    }
    PyObject *rv = NULL, *kwargs = NULL, *full = NULL, *method = NULL;
    PyObject *made = NULL;
    Py_ssize_t n = PyTuple_GET_SIZE(args);
    if (context == st->blank_context) {
        context = made = PyContext_New();
        if (made == NULL) {
            return NULL;
        }
    }
    if ((full = PyTuple_New(n + 1)) == NULL) {
        goto done;
    }
    PyTuple_SET_ITEM(full, 0, Py_NewRef(callback));
    for (Py_ssize_t i = 0; i < n; i++) {
        PyTuple_SET_ITEM(full, i + 1, Py_NewRef(PyTuple_GET_ITEM(args, i)));
    }
    if (context != NULL) {
        kwargs = PyDict_New();
        if (kwargs == NULL ||
            PyDict_SetItem(kwargs, st->str_context, context) < 0) {
            goto done;
        }
    }
    method = PyObject_GetAttr(loop, st->str_call_soon);
    if (method != NULL) {
        rv = PyObject_Call(method, full, kwargs);
    }
done:
    Py_XDECREF(made);
    Py_XDECREF(method);
    Py_XDECREF(kwargs);
    Py_XDECREF(full);
    return rv;
}

int
hl_call_soon_one(hl_state *st, PyObject *loop, PyObject *callback,
                 PyObject *arg, PyObject *context)
{
    PyObject *args = PyTuple_Pack(1, arg);
    if (args == NULL) {
        return -1;
    }
    PyObject *handle = hl_call_soon(st, loop, callback, args, context);
    Py_DECREF(args);
    if (handle == NULL) {
        return -1;
    }
    Py_DECREF(handle);
    return 0;
}

int
hl_loop_defer_flush(hl_loop *loop, PyObject *obj, hl_run_fn run)
{
    if (!loop->running) {
        return 1;
    }
    if (loop->flush_count == loop->flush_size) {
        int size = Py_MAX(32, loop->flush_size * 2);
        hl_flush_item *items = loop->flush;
        PyMem_Resize(items, hl_flush_item, (size_t)size);
        if (items == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        loop->flush = items;
        loop->flush_size = size;
    }
    hl_flush_item *item = &loop->flush[loop->flush_count++];
    item->obj = Py_NewRef(obj);
    item->run = run;
    if (loop->parked) {
        hl_loop_wake(loop); /* written by another thread */
    }
    return 0;
}
