/* subclass.c - C types that subclass Python classes of asyncio.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "io/subclass.h"

#include <stddef.h>
#include <string.h>

#define SELF(op) ((hl_subclass *)(op))

/* The structures continue where instances of the base end. */
static int
base_check(PyObject *base)
{
    if (PyType_Check(base) && ((PyTypeObject *)base)->tp_basicsize ==
                                  (Py_ssize_t)offsetof(hl_subclass, module)) {
        return 0;
    }
    PyErr_Format(PyExc_ImportError,
                 "hotloop does not know this asyncio: the size of %R", base);
    return -1;
}

/* obj.name, None standing for nothing: new reference. */
static PyObject *
attribute_or_none(PyObject *obj, PyObject *name)
{
    PyObject *value = obj == NULL ? NULL : PyObject_GetAttr(obj, name);
    PyErr_Clear(); /* an attribute that only instances have */
    return value == NULL ? Py_NewRef(Py_None) : value;
}

/* (type.name, base.name): new reference or NULL. */
static PyObject *
stock_pair(PyTypeObject *type, PyObject *base, PyObject *name)
{
    PyObject *own = attribute_or_none((PyObject *)type, name);
    PyObject *inherited = attribute_or_none(base, name);
    PyObject *pair = PyTuple_Pack(2, own, inherited);
    Py_DECREF(own);
    Py_DECREF(inherited);
    return pair;
}

int
hl_stock_init(hl_stock *stock, PyObject **originals, PyTypeObject *type,
              PyObject *base, const char *const *names)
{
    PyObject *found = PyDict_New();
    for (; found != NULL && *names != NULL; names++) {
        PyObject *name = PyUnicode_InternFromString(*names);
        PyObject *pair = name == NULL ? NULL : stock_pair(type, base, name);
        if (pair == NULL || PyDict_SetItem(found, name, pair) < 0) {
            Py_CLEAR(found);
        }
        Py_XDECREF(pair);
        Py_XDECREF(name);
    }
    *originals = stock->originals = found;
    stock->base = base;
    return found == NULL ? -1 : 0;
}

/* Is obj.name still this? */
static bool
attribute_is(PyObject *obj, PyObject *name, PyObject *original)
{
    PyObject *value = attribute_or_none(obj, name);
    Py_DECREF(value);
    return value == original;
}

bool
hl_stock_compare(hl_stock *stock, PyTypeObject *type)
{
    PyObject *name, *pair;
    Py_ssize_t pos = 0;
    bool same = true;
    while (same && PyDict_Next(stock->originals, &pos, &name, &pair)) {
        same =
            attribute_is((PyObject *)type, name, PyTuple_GET_ITEM(pair, 0)) &&
            (stock->base == NULL ||
             attribute_is(stock->base, name, PyTuple_GET_ITEM(pair, 1)));
    }
    stock->tag = type->tp_version_tag;
    stock->same = same;
    return same;
}

/* The interpreter goes by its list of the members; the descriptors are of no
 * use to it. */
static int
hide_members(PyObject *type, const PyType_Spec *spec)
{
    const PyType_Slot *slot = spec->slots;
    while (slot->slot != Py_tp_members) {
        slot++;
    }
    for (const PyMemberDef *m = slot->pfunc; m->name != NULL; m++) {
        if (strncmp(m->name, HL_HIDDEN, strlen(HL_HIDDEN)) == 0 &&
            PyObject_DelAttrString(type, m->name) < 0) {
            return -1;
        }
    }
    return 0;
}

int
hl_subclass_add_type(PyObject *module, PyTypeObject **slot, PyType_Spec *spec,
                     PyObject *base, const char *const *names,
                     PyObject **originals, hl_stock *stock)
{
    if (base_check(base) < 0 ||
        hl_state_add_type(module, slot, spec, base) < 0 ||
        hide_members((PyObject *)*slot, spec) < 0) {
        return -1;
    }
    return hl_stock_init(stock, originals, *slot, base, names);
}

PyObject *
hl_subclass_new(PyTypeObject *type, PyObject *Py_UNUSED(args),
                PyObject *Py_UNUSED(kwargs))
{
    hl_state *st = hl_state_of_type(type);
    PyObject *op = st == NULL ? NULL : hl_alloc(type);
    if (op != NULL) {
        SELF(op)->st = st;
        SELF(op)->module = Py_NewRef(st->module);
    }
    return op;
}

int
hl_subclass_setattr(PyObject *op, PyObject *name, PyObject *value,
                    const hl_stock *stock)
{
    if (PyObject_GenericSetAttr(op, name, value) < 0) {
        return -1;
    }
    PyObject *pair = PyDict_GetItemWithError(stock->originals, name);
    if (pair == NULL) {
        return PyErr_Occurred() ? -1 : 0;
    }
    if (Py_TYPE(PyTuple_GET_ITEM(pair, 0))->tp_descr_set == NULL) {
        SELF(op)->patched = true;
        SELF(op)->tag = 0;
    }
    return 0;
}

bool
hl_subclass_renew(hl_subclass *self, hl_stock *stock)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    self->same =
        !self->patched && self->module != NULL && hl_stock_check(stock, type);
    self->tag = type->tp_version_tag;
    return self->same;
}

hl_state *
hl_subclass_state(PyObject *op)
{
    if (HL_UNLIKELY(SELF(op)->module == NULL)) {
        PyErr_SetString(PyExc_RuntimeError, "hotloop is shut down");
        return NULL;
    }
    return SELF(op)->st;
}

PyObject *
hl_subclass_inherited(PyObject *base, PyObject *name, PyObject *op,
                      PyObject *const *args, Py_ssize_t nargs,
                      PyObject *kwnames)
{
    Py_ssize_t nkw = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    PyObject *method = PyObject_GetAttr(base, name);
    PyObject *res = NULL;
    PyObject **stack = PyMem_New(PyObject *, (size_t)(1 + nargs + nkw));
    if (stack == NULL) {
        PyErr_NoMemory();
    }
    else if (method != NULL) {
        stack[0] = op;
        for (Py_ssize_t i = 0; i < nargs + nkw; i++) {
            stack[i + 1] = args[i];
        }
        res = PyObject_Vectorcall(method, stack, (size_t)(1 + nargs), kwnames);
    }
    PyMem_Free(stack);
    Py_XDECREF(method);
    return res;
}

static int
init_put(const char *type, const char *const *names, PyObject *name,
         PyObject *value, PyObject **out)
{
    for (int i = 0; names[i] != NULL; i++) {
        if (PyUnicode_CompareWithASCIIString(name, names[i]) != 0) {
            continue;
        }
        if (out[i] != NULL) {
            PyErr_Format(PyExc_TypeError,
                         "%s.__init__() got multiple values for argument '%U'",
                         type, name);
            return -1;
        }
        out[i] = value;
        return 0;
    }
    PyErr_Format(PyExc_TypeError,
                 "%s.__init__() got an unexpected keyword argument '%U'", type,
                 name);
    return -1;
}

int
hl_subclass_parse_init(const char *type, const char *const *names,
                       Py_ssize_t required, PyObject *args, PyObject *kwargs,
                       PyObject **out)
{
    PyObject *name, *value;
    Py_ssize_t pos = 0, count = 0, given = PyTuple_GET_SIZE(args);
    for (; names[count] != NULL; count++) {
        out[count] = count < given ? PyTuple_GET_ITEM(args, count) : NULL;
    }
    if (given > count) {
        PyErr_Format(PyExc_TypeError,
                     "%s.__init__() takes at most %zd positional arguments "
                     "but %zd were given",
                     type, count + 1, given + 1);
        return -1;
    }
    while (kwargs != NULL && PyDict_Next(kwargs, &pos, &name, &value)) {
        if (init_put(type, names, name, value, out) < 0) {
            return -1;
        }
    }
    for (Py_ssize_t i = 0; i < required; i++) {
        if (out[i] == NULL) {
            PyErr_Format(PyExc_TypeError,
                         "%s.__init__() missing a required argument: '%s'",
                         type, names[i]);
            return -1;
        }
    }
    return 0;
}

/* Does the class get object's own __new__() when it is asked for one? */
static int
has_objects_new(PyTypeObject *type)
{
    PyObject *own = PyObject_GetAttrString((PyObject *)type, "__new__");
    PyObject *objects =
        PyObject_GetAttrString((PyObject *)&PyBaseObject_Type, "__new__");
    int same = own == NULL || objects == NULL ? -1 : own == objects;
    Py_XDECREF(own);
    Py_XDECREF(objects);
    return same;
}

int
hl_subclass_restore_new(PyTypeObject *type)
{
    int plain = has_objects_new(type);
    if (plain <= 0) {
        return plain;
    }
    type->tp_new = PyBaseObject_Type.tp_new;
    PyType_Modified(type);
    PyObject *subclasses =
        PyObject_CallMethod((PyObject *)type, "__subclasses__", NULL);
    if (subclasses == NULL) {
        return -1;
    }
    int rv = 0;
    for (Py_ssize_t i = 0; rv == 0 && i < PyList_GET_SIZE(subclasses); i++) {
        rv = hl_subclass_restore_new(
            (PyTypeObject *)PyList_GET_ITEM(subclasses, i));
    }
    Py_DECREF(subclasses);
    return rv;
}
