/* bytes.c - making a bytes object shorter that nobody else has seen.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "base/bytes.h"

PyObject *
hl_bytes_cut(PyObject *bytes, Py_ssize_t size)
{
    assert(Py_REFCNT(bytes) == 1 && PyBytes_GET_SIZE(bytes) >= size);
    if (PyBytes_GET_SIZE(bytes) == size) {
        return bytes;
    }
    if (size == 0) {
        Py_DECREF(bytes);
        return PyBytes_FromStringAndSize(NULL, 0); /* there is but one */
    }
    Py_SET_SIZE(bytes, size);
    PyBytes_AS_STRING(bytes)[size] = '\0';
#ifndef Py_TRACE_REFS /* where objects must stay where they are */
    size_t all = offsetof(PyBytesObject, ob_sval) + (size_t)size + 1;
    PyObject *moved = PyObject_Realloc(bytes, all);
    if (moved != NULL) {
        bytes = moved;
    }
#endif
    return bytes;
}
