/* attrs.c - attributes of instances of Python classes, without asking.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "base/attrs.h"

/* What stands in front of an object that may have attributes, in words before
 * it: from 3.13 on its dict, NULL until that is made, and the array lies
 * behind the object; on 3.12 the dict, or one less than the array's address;
 * on 3.11 the dict, and before that the array, NULL once there is a dict. */
#define DICT_WORD 3
#define ARRAY_WORD 4

static inline char *
word_before(PyObject *op, int n)
{
    return ((char **)(void *)op)[-n];
}

#if defined(Py_GIL_DISABLED) || PY_VERSION_HEX >= 0x03100000

/* Not looked at yet. */
static inline PyObject **
find_array(PyObject *Py_UNUSED(op))
{
    return NULL;
}

static inline unsigned
array_size(PyObject **Py_UNUSED(array))
{
    return 0;
}

static inline uint8_t
array_nth(PyObject **Py_UNUSED(array), unsigned Py_UNUSED(n))
{
    return 0;
}

#elif PY_VERSION_HEX >= 0x030D0000

static inline PyObject **
find_array(PyObject *op)
{
    if (!PyType_HasFeature(Py_TYPE(op), Py_TPFLAGS_INLINE_VALUES) ||
        word_before(op, DICT_WORD) != NULL) {
        return NULL;
    }
    /* Four bytes in front: how many fit, how many are set, whether they are
     * behind the object, whether it still has them (not after "del
     * op.__dict__"). */
    char *front = (char *)op + Py_TYPE(op)->tp_basicsize;
    return front[3] != 0 ? (PyObject **)(void *)front + 1 : NULL;
}

/* How many attributes are set, and which the nth of them is. */
static inline unsigned
array_size(PyObject **array)
{
    return ((const uint8_t *)(array - 1))[1];
}

static inline uint8_t
array_nth(PyObject **array, unsigned n)
{
    uint8_t fit = ((const uint8_t *)(array - 1))[0];
    return ((const uint8_t *)(array + fit))[n];
}

#else

static inline PyObject **
find_array(PyObject *op)
{
    if (!PyType_HasFeature(Py_TYPE(op), Py_TPFLAGS_MANAGED_DICT)) {
        return NULL;
    }
#    if PY_VERSION_HEX >= 0x030C0000
    char *word = word_before(op, DICT_WORD);
    return (uintptr_t)word & 1 ? (PyObject **)(void *)(word + 1) : NULL;
#    else
    return (PyObject **)(void *)word_before(op, ARRAY_WORD);
#    endif
}

/* The bytes before the array, backwards: how many these are, how many
 * attributes are set, and which. */
static inline unsigned
array_size(PyObject **array)
{
    return ((const uint8_t *)array)[-2];
}

static inline uint8_t
array_nth(PyObject **array, unsigned n)
{
    return ((const uint8_t *)array)[-3 - (int)n];
}

#endif

PyObject **
hl_attrs_of(const hl_attrs *attrs, PyObject *op)
{
    PyObject **array =
        HL_LIKELY(Py_IS_TYPE(op, attrs->type)) ? find_array(op) : NULL;
    if (HL_UNLIKELY(array == NULL)) {
        return NULL;
    }
    unsigned set = 0;
    for (unsigned i = 0; i < attrs->count; i++) {
        set += array[attrs->index[i]] != NULL;
    }
    return HL_LIKELY(set == array_size(array)) ? array : NULL;
}

/* Gives op the attributes of names, each another value, which end up in
 * values.  Their number, or -1. */
static int
set_all(PyObject *op, const char *const *names, PyObject **values)
{
    int count = 0;
    for (; names[count] != NULL; count++) {
        assert(count < HL_ATTRS_MAX);
        values[count] = PyList_New(0);
        if (values[count] == NULL ||
            PyObject_SetAttrString(op, names[count], values[count]) < 0) {
            Py_XDECREF(values[count]);
            values[count] = NULL;
            return -1;
        }
    }
    return count;
}

/* Reads where op has the values, in the order in which they were set.  Is each
 * of them there? */
static bool
learn(hl_attrs *attrs, PyObject *op, PyObject *const *values, int count)
{
    PyObject **array = find_array(op);
    if (array == NULL || array_size(array) != (unsigned)count) {
        return false;
    }
    for (int i = 0; i < count; i++) {
        attrs->index[i] = array_nth(array, (unsigned)i);
        if (array[attrs->index[i]] != values[i]) {
            return false;
        }
    }
    attrs->count = (uint8_t)count;
    return true;
}

/* Takes the attributes away again: a finalizer is to find none. */
static int
delete_all(PyObject *op, const char *const *names, int count)
{
    int rv = 0;
    for (int i = 0; i < count && rv == 0; i++) {
        rv = PyObject_DelAttrString(op, names[i]);
    }
    return rv;
}

/* object.__new__(type) */
static PyObject *
make_instance(PyTypeObject *type)
{
    PyObject *none = PyTuple_New(0);
    PyObject *op =
        none == NULL ? NULL : PyBaseObject_Type.tp_new(type, none, NULL);
    Py_XDECREF(none);
    return op;
}

int
hl_attrs_find(hl_attrs *attrs, PyTypeObject *type, const char *const *names)
{
    PyObject *values[HL_ATTRS_MAX] = {NULL};
    PyObject *op = make_instance(type);
    if (op == NULL) {
        return -1;
    }
    int count = set_all(op, names, values);
    if (count >= 0 && learn(attrs, op, values, count)) {
        attrs->type = type;
    }
    int rv = count < 0 ? -1 : delete_all(op, names, count);
    for (int i = 0; i < HL_ATTRS_MAX; i++) {
        Py_XDECREF(values[i]);
    }
    Py_DECREF(op);
    return rv;
}
