/* flow.c - write flow control of a transport: asyncio's _FlowControlMixin.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "io/stream.h"

#include "state/errors.h"

/* Reports what a flow-control callback raised; the transport goes on. */
static int
flow_report(hl_transport *self, const char *message)
{
    if (hl_error_is_exit() || self->loop == NULL) {
        return -1;
    }
    PyObject *exc = hl_error_fetch();
    hl_loop *loop = (hl_loop *)Py_NewRef((PyObject *)self->loop);
    hl_state *st = hl_loop_state(loop);
    PyObject *protocol = Py_XNewRef(self->protocol);
    int rv = hl_report(st, (PyObject *)loop, message, exc, st->str_transport,
                       (PyObject *)self, st->str_protocol,
                       protocol != NULL ? protocol : Py_None, NULL);
    Py_XDECREF(protocol);
    Py_DECREF(loop);
    Py_DECREF(exc);
    return rv;
}

static int
flow_call(hl_transport *self, PyObject *method, const char *message)
{
    PyObject *protocol = self->protocol;
    if (protocol == NULL) {
        return 0;
    }
    Py_INCREF(protocol);
    PyObject *res = PyObject_CallMethodNoArgs(protocol, method);
    Py_DECREF(protocol);
    if (res == NULL) {
        return flow_report(self, message);
    }
    Py_DECREF(res);
    return 0;
}

int
hl_flow_maybe_pause(hl_transport *self)
{
    if (self->protocol_paused || self->loop == NULL ||
        self->ops->size(self) <= (size_t)self->high) {
        return 0;
    }
    self->protocol_paused = true;
    return flow_call(self, hl_loop_state(self->loop)->str_pause_writing,
                     "protocol.pause_writing() failed");
}

int
hl_flow_maybe_resume(hl_transport *self)
{
    if (!self->protocol_paused || self->loop == NULL ||
        self->ops->size(self) > (size_t)self->low) {
        return 0;
    }
    self->protocol_paused = false;
    return flow_call(self, hl_loop_state(self->loop)->str_resume_writing,
                     "protocol.resume_writing() failed");
}

/* value rounded down: comparing whole sizes with either is the same.  -1 with
 * an exception. */
static Py_ssize_t
limit_as_size(PyObject *value)
{
    PyObject *whole = PyNumber_Long(value);
    if (whole == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_OverflowError)) {
            return -1;
        }
        PyErr_Clear(); /* infinity */
        return PY_SSIZE_T_MAX;
    }
    Py_ssize_t size = PyLong_AsSsize_t(whole);
    Py_DECREF(whole);
    if (size == -1 && PyErr_ExceptionMatches(PyExc_OverflowError)) {
        PyErr_Clear();
        return PY_SSIZE_T_MAX;
    }
    return size;
}

/* Fills in the limits that were not given. */
static int
limits_complete(PyObject **high, PyObject **low, long dflt)
{
    PyObject *four = PyLong_FromLong(4);
    if (four == NULL) {
        return -1;
    }
    if (*high == NULL) {
        *high = *low == NULL ? PyLong_FromLong(dflt)
                             : PyNumber_Multiply(four, *low);
    }
    if (*high != NULL && *low == NULL) {
        *low = PyNumber_FloorDivide(*high, four);
    }
    Py_DECREF(four);
    return *high == NULL || *low == NULL ? -1 : 0;
}

/* high >= low >= 0?  1, 0 or -1. */
static int
limits_in_order(PyObject *high, PyObject *low)
{
    int rv = PyObject_RichCompareBool(high, low, Py_GE);
    if (rv <= 0) {
        return rv;
    }
    PyObject *zero = PyLong_FromLong(0);
    if (zero == NULL) {
        return -1;
    }
    rv = PyObject_RichCompareBool(low, zero, Py_GE);
    Py_DECREF(zero);
    return rv;
}

int
hl_flow_parse_limits(PyObject *high, PyObject *low, long dflt,
                     PyObject *values[2], Py_ssize_t sizes[2])
{
    int rv = -1;
    high = high == Py_None ? NULL : Py_XNewRef(high);
    low = low == Py_None ? NULL : Py_XNewRef(low);
    if (limits_complete(&high, &low, dflt) < 0) {
        goto done;
    }
    int in_order = limits_in_order(high, low);
    if (in_order == 0) {
        PyErr_Format(PyExc_ValueError,
                     "high (%R) must be >= low (%R) must be >= 0", high, low);
    }
    if (in_order <= 0) {
        goto done;
    }
    sizes[0] = limit_as_size(high);
    sizes[1] = sizes[0] < 0 ? -1 : limit_as_size(low);
    if (sizes[1] < 0) {
        goto done;
    }
    values[0] = Py_NewRef(high);
    values[1] = Py_NewRef(low);
    rv = 0;
done:
    Py_XDECREF(high);
    Py_XDECREF(low);
    return rv;
}

int
hl_flow_set_limits(hl_transport *self, PyObject *high, PyObject *low)
{
    PyObject *values[2];
    Py_ssize_t sizes[2];
    if (hl_flow_parse_limits(high, low, 64 * 1024, values, sizes) < 0) {
        return -1;
    }
    self->high = sizes[0];
    self->low = sizes[1];
    Py_XSETREF(self->high_value, values[0]);
    Py_XSETREF(self->low_value, values[1]);
    return 0;
}

PyObject *
hl_flow_high(hl_transport *self)
{
    return self->high_value != NULL ? Py_NewRef(self->high_value)
                                    : PyLong_FromSsize_t(self->high);
}

PyObject *
hl_flow_low(hl_transport *self)
{
    return self->low_value != NULL ? Py_NewRef(self->low_value)
                                   : PyLong_FromSsize_t(self->low);
}
