/* errors.c - failures become Python exceptions or reports here.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "state/errors.h"

#include <errno.h>
#include <string.h>

PyObject *
hl_os_error(int errnum)
{
    /* OSError() itself picks the subclass: ConnectionResetError and so on. */
    return PyObject_CallFunction(PyExc_OSError, "is", errnum,
                                 strerror(errnum));
}

int
hl_raise_uv(int err)
{
    if (err == UV_ENOMEM) {
        PyErr_NoMemory();
        return -1;
    }
    errno = -err; /* libuv statuses are negated errno values on Unix */
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
}

bool
hl_error_is_exit(void)
{
    return PyErr_ExceptionMatches(PyExc_SystemExit) ||
           PyErr_ExceptionMatches(PyExc_KeyboardInterrupt);
}

PyObject *
hl_error_fetch(void)
{
#if PY_VERSION_HEX >= 0x030C0000
    return PyErr_GetRaisedException();
#else
    PyObject *type, *value, *tb;
    PyErr_Fetch(&type, &value, &tb);
    if (type == NULL) {
        return NULL;
    }
    PyErr_NormalizeException(&type, &value, &tb);
    if (tb != NULL) {
        PyException_SetTraceback(value, tb);
    }
    Py_DECREF(type);
    Py_XDECREF(tb);
    return value;
#endif
}

void
hl_error_restore(PyObject *exc)
{
#if PY_VERSION_HEX >= 0x030C0000
    PyErr_SetRaisedException(exc);
#else
    PyErr_Restore(Py_NewRef(Py_TYPE(exc)), exc, PyException_GetTraceback(exc));
#endif
}

void
hl_error_keep(int rv, PyObject **first)
{
    if (rv < 0) {
        PyObject *raised = hl_error_fetch();
        if (*first == NULL) {
            *first = raised;
        }
        else {
            Py_XDECREF(raised);
        }
    }
}

/* The pairs of (key, value) after exc, into context.  0 or -1. */
static int
report_add_pairs(PyObject *context, va_list pairs)
{
    PyObject *key;
    while ((key = va_arg(pairs, PyObject *)) != NULL) {
        PyObject *value = va_arg(pairs, PyObject *);
        if (value != NULL && PyDict_SetItem(context, key, value) < 0) {
            return -1;
        }
    }
    return 0;
}

static int
report_send(hl_state *st, PyObject *loop, PyObject *message, PyObject *exc,
            va_list pairs)
{
    int rv = -1;
    PyObject *res = NULL;
    PyObject *context = PyDict_New();
    if (context == NULL ||
        PyDict_SetItem(context, st->str_message, message) < 0) {
        goto done;
    }
    if (exc != NULL && PyDict_SetItem(context, st->str_exception, exc) < 0) {
        goto done;
    }
    if (report_add_pairs(context, pairs) < 0) {
        goto done;
    }
    res = PyObject_CallMethodOneArg(loop, st->str_call_exception_handler,
                                    context);
    rv = res == NULL ? -1 : 0;
done:
    Py_XDECREF(res);
    Py_XDECREF(context);
    return rv;
}

int
hl_report(hl_state *st, PyObject *loop, const char *message, PyObject *exc,
          ...)
{
    PyObject *text = PyUnicode_FromString(message);
    if (text == NULL) {
        return -1;
    }
    va_list pairs;
    va_start(pairs, exc);
    int rv = report_send(st, loop, text, exc, pairs);
    va_end(pairs);
    Py_DECREF(text);
    return rv;
}

int
hl_report_text(hl_state *st, PyObject *loop, PyObject *message, PyObject *exc,
               ...)
{
    va_list pairs;
    va_start(pairs, exc);
    int rv = report_send(st, loop, message, exc, pairs);
    va_end(pairs);
    return rv;
}
