/* log.c - messages to asyncio's logger.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "state/log.h"

#include <stdarg.h>

int
hl_log(hl_state *st, PyObject *module, const char *level, PyObject *exc_info,
       const char *format, ...)
{
    va_list values;
    va_start(values, format);
    PyObject *args = Py_VaBuildValue(format, values);
    va_end(values);
    PyObject *logger = NULL, *method = NULL, *kwargs = NULL, *res = NULL;
    if (args == NULL ||
        (logger = PyObject_GetAttr(module, st->str_logger)) == NULL ||
        (method = PyObject_GetAttrString(logger, level)) == NULL ||
        (exc_info != NULL &&
         ((kwargs = PyDict_New()) == NULL ||
          PyDict_SetItem(kwargs, st->str_exc_info, exc_info) < 0))) {
        goto done;
    }
    res = PyObject_Call(method, args, kwargs);
done:
    Py_XDECREF(kwargs);
    Py_XDECREF(method);
    Py_XDECREF(logger);
    Py_XDECREF(args);
    Py_XDECREF(res);
    return res == NULL ? -1 : 0;
}
