/* attrs.h - attributes of instances of Python classes, without asking.
 *
 * CPython keeps the attributes of an instance in an array until somebody wants
 * its __dict__.  Which attribute is where is the same for all instances of a
 * class; it is found by filling one.  Asking the object takes some 300
 * instructions an attribute.
 *
 * Threading: GIL held.
 * SPDX-License-Identifier: MIT */

#ifndef HL_BASE_ATTRS_H
#define HL_BASE_ATTRS_H

#include "base/hotloop.h"

#define HL_ATTRS_MAX 16

typedef struct {
    PyTypeObject *type; /* borrowed; NULL where this Python does otherwise */
    uint8_t count;
    uint8_t index[HL_ATTRS_MAX]; /* by the order of the names */
} hl_attrs;

/* Finds where instances of type, a Python class, have the attributes of names
 * (ended by NULL), in the order in which its __init__() sets them.  0, or -1
 * with an exception; not to find them is no failure. */
int hl_attrs_find(hl_attrs *attrs, PyTypeObject *type,
                  const char *const *names);

/* The array of op's attributes, to be read and written at attrs->index[],
 * where NULL is one that op has not.  NULL if op is of another type or keeps
 * them elsewhere, or has any that are not among the names.  Valid until Python
 * code runs. */
PyObject **hl_attrs_of(const hl_attrs *attrs, PyObject *op);

#endif
