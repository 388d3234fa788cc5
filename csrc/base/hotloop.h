/* hotloop.h - the umbrella header: first line of every .c file.
 *
 * Python.h must precede libc, and uv.h pulls libc in, so both come from here.
 * SPDX-License-Identifier: MIT */

#ifndef HL_BASE_HOTLOOP_H
#define HL_BASE_HOTLOOP_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include <uv.h>

#include <stdbool.h>
#include <stdint.h>

#if PY_VERSION_HEX < 0x030B0000
#    error "hotloop needs CPython 3.11 or later"
#endif

#if UV_VERSION_HEX < ((1 << 16) | (44 << 8))
#    error "hotloop needs libuv 1.44 or later"
#endif

#define HL_LIKELY(x) __builtin_expect(!!(x), 1)
#define HL_UNLIKELY(x) __builtin_expect(!!(x), 0)

/* METH_FASTCALL functions do not have PyCFunction's type; the detour through
 * void (*)(void) is the cast that compilers accept in silence. */
#define HL_FASTCALL(f) ((PyCFunction)(void (*)(void))(f))

/* A slot function pointer as PyType_Slot wants it. */
#define HL_SLOT(f) ((void *)(f))

/* The same for a constant string. */
#define HL_DOC(s) ((void *)(uintptr_t)(s))

/* An int from a Python int: OverflowError outside of C's range, TypeError for
 * another type, and then -1 (PyLong_AsInt() is of 3.13). */
static inline int
hl_long_as_int(PyObject *op)
{
    long value = PyLong_AsLong(op);
    if (value > INT_MAX || value < INT_MIN) {
        PyErr_SetString(PyExc_OverflowError,
                        "Python int too large to convert to C int");
        return -1;
    }
    return (int)value;
}

/* A new object of this type, zeroed; NULL with MemoryError. */
static inline void *
hl_alloc(PyTypeObject *type)
{
    return type->tp_alloc(type, 0);
}

#ifdef HL_FAULTS
#    include "base/faults.h"
#endif

#endif
