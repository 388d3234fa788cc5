/* future_getset.c - the private attributes that asyncio and others look at.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "aio/future_int.h"

static PyObject *
new_ref_or_none(PyObject *value)
{
    return Py_NewRef(value == NULL ? Py_None : value);
}

int
hl_future_refuse_delete(PyObject *op, PyObject *value, const char *name)
{
    if (value != NULL) {
        return 0;
    }
#if PY_VERSION_HEX >= 0x030E0000
    PyErr_Format(PyExc_AttributeError,
                 "attribute '%s' of '%s' objects cannot be deleted", name,
                 Py_TYPE(op)->tp_name);
#else
    (void)op;
    (void)name;
    PyErr_SetString(PyExc_AttributeError, "cannot delete attribute");
#endif
    return -1;
}

PyObject *
hl_Future_get_state(PyObject *op, void *Py_UNUSED(closure))
{
    hl_future *fut = (hl_future *)op;
    if (hl_future_ensure_alive(fut) < 0) {
        return NULL;
    }
    switch ((hl_future_state)fut->state) {
    case HL_FUTURE_CANCELLED:
        return PyUnicode_InternFromString("CANCELLED");
    case HL_FUTURE_FINISHED:
        return PyUnicode_InternFromString("FINISHED");
    case HL_FUTURE_PENDING:
    default:
        return PyUnicode_InternFromString("PENDING");
    }
}

PyObject *
hl_Future_get_blocking(PyObject *op, void *Py_UNUSED(closure))
{
    hl_future *fut = (hl_future *)op;
    return PyBool_FromLong(fut->loop != NULL && fut->blocking);
}

int
hl_Future_set_blocking(PyObject *op, PyObject *value, void *Py_UNUSED(closure))
{
    hl_future *fut = (hl_future *)op;
    if (hl_future_ensure_alive(fut) < 0 ||
        hl_future_refuse_delete(op, value, "_asyncio_future_blocking") < 0) {
        return -1;
    }
    int blocking = PyObject_IsTrue(value);
    if (blocking < 0) {
        return -1;
    }
    fut->blocking = blocking;
    return 0;
}

PyObject *
hl_Future_get_log_traceback(PyObject *op, void *Py_UNUSED(closure))
{
    hl_future *fut = (hl_future *)op;
    if (hl_future_ensure_alive(fut) < 0) {
        return NULL;
    }
    return PyBool_FromLong(fut->log_traceback);
}

int
hl_Future_set_log_traceback(PyObject *op, PyObject *value,
                            void *Py_UNUSED(closure))
{
    if (hl_future_refuse_delete(op, value, "_log_traceback") < 0) {
        return -1;
    }
    int log = PyObject_IsTrue(value);
    if (log < 0) {
        return -1;
    }
    if (log) {
        PyErr_SetString(PyExc_ValueError,
                        "_log_traceback can only be set to False");
        return -1;
    }
    ((hl_future *)op)->log_traceback = false;
    return 0;
}

PyObject *
hl_Future_get_cancel_message(PyObject *op, void *Py_UNUSED(closure))
{
    hl_future *fut = (hl_future *)op;
    return new_ref_or_none(fut->rare ? fut->rare->cancel_message : NULL);
}

int
hl_Future_set_cancel_message(PyObject *op, PyObject *value,
                             void *Py_UNUSED(closure))
{
    if (hl_future_refuse_delete(op, value, "_cancel_message") < 0) {
        return -1;
    }
    hl_future_rare *rare = hl_future_get_rare((hl_future *)op);
    if (rare == NULL) {
        return -1;
    }
    Py_XSETREF(rare->cancel_message, Py_NewRef(value));
    return 0;
}

PyObject *
hl_Future_get_private_loop(PyObject *op, void *Py_UNUSED(closure))
{
    return new_ref_or_none(((hl_future *)op)->loop);
}

PyObject *
hl_Future_get_callbacks(PyObject *op, void *Py_UNUSED(closure))
{
    hl_future *fut = (hl_future *)op;
    hl_state *st = hl_future_st(fut);
    if (st == NULL || hl_future_ensure_alive(fut) < 0) {
        return NULL;
    }
    return hl_future_list_callbacks(st, fut);
}

PyObject *
hl_Future_get_private_result(PyObject *op, void *Py_UNUSED(closure))
{
    hl_future *fut = (hl_future *)op;
    if (hl_future_ensure_alive(fut) < 0) {
        return NULL;
    }
    bool has_result = fut->state == HL_FUTURE_FINISHED && !fut->is_exception;
    return new_ref_or_none(has_result ? fut->result : NULL);
}

PyObject *
hl_Future_get_private_exception(PyObject *op, void *Py_UNUSED(closure))
{
    hl_future *fut = (hl_future *)op;
    if (hl_future_ensure_alive(fut) < 0) {
        return NULL;
    }
    bool failed = fut->state == HL_FUTURE_FINISHED && fut->is_exception;
    return new_ref_or_none(failed ? fut->result : NULL);
}

PyObject *
hl_Future_get_source_traceback(PyObject *op, void *Py_UNUSED(closure))
{
    hl_future *fut = (hl_future *)op;
    return new_ref_or_none(fut->rare ? fut->rare->source_tb : NULL);
}
