/* subclass.h - C types that subclass Python classes of asyncio.
 *
 * An instance is that of the Python class (dict, weak references, finalizer)
 * with a C structure behind it.  The interpreter's own functions for Python
 * classes traverse, clear and deallocate it: every object that the structure
 * owns is a member of the type (T_OBJECT_EX) and so known to them.  Members
 * whose name begins with HL_HIDDEN cannot be reached from Python.
 *
 * Methods in C take short cuts past other methods, which is right only while
 * nobody has put something else in their place: on the class, in a Python
 * subclass, in asyncio's class or on the instance.  hl_subclass_is_stock()
 * tells.
 * SPDX-License-Identifier: MIT */

#ifndef HL_IO_SUBCLASS_H
#define HL_IO_SUBCLASS_H

#include "state/state.h"

#define HL_HIDDEN "_hl_"

typedef struct {
    PyObject_HEAD
#if PY_VERSION_HEX < 0x030C0000
    PyObject *weakrefs; /* of the Python class; later it is in front */
#endif
    PyObject *module; /* owned: keeps st whole; NULL once cleared */
    hl_state *st;
    unsigned int tag; /* of the type, when same was found out; 0 never is */
    bool same;        /* the methods were those of our type */
    bool patched;     /* one was replaced on the instance */
} hl_subclass;

#define HL_SUBCLASS_MEMBER \
    {HL_HIDDEN "module", T_OBJECT_EX, offsetof(hl_subclass, module), 0, NULL}

/* Makes the type, a subclass of the Python class base, and fills stock with
 * what names (ended by NULL) are in both.  0, or -1 with ImportError or
 * another exception. */
int hl_subclass_add_type(PyObject *module, PyTypeObject **slot,
                         PyType_Spec *spec, PyObject *base,
                         const char *const *names, PyObject **originals,
                         hl_stock *stock);

/* The second half of it, for any type; base may be NULL. */
int hl_stock_init(hl_stock *stock, PyObject **originals, PyTypeObject *type,
                  PyObject *base, const char *const *names);

/* Are the names in type, and in the base, what they were?  Never fails. */
bool hl_stock_compare(hl_stock *stock, PyTypeObject *type);

static inline bool
hl_stock_check(hl_stock *stock, PyTypeObject *type)
{
    return HL_LIKELY(stock->tag == type->tp_version_tag && stock->tag)
               ? stock->same
               : hl_stock_compare(stock, type);
}

/* tp_new, the arguments being __init__()'s. */
PyObject *hl_subclass_new(PyTypeObject *type, PyObject *args,
                          PyObject *kwargs);

/* tp_setattro. */
int hl_subclass_setattr(PyObject *op, PyObject *name, PyObject *value,
                        const hl_stock *stock);

bool hl_subclass_renew(hl_subclass *self, hl_stock *stock);

static inline bool
hl_subclass_is_stock(PyObject *op, hl_stock *stock)
{
    hl_subclass *self = (hl_subclass *)op;
    return HL_LIKELY(self->tag == Py_TYPE(op)->tp_version_tag && self->tag)
               ? self->same
               : hl_subclass_renew(self, stock);
}

/* The module state; NULL with RuntimeError once the garbage collector has
 * cleared the object. */
hl_state *hl_subclass_state(PyObject *op);

/* For Python classes that inherit object.__new__(): the interpreter goes on to
 * call a __new__() that was set and deleted, and then refuses arguments.  Of
 * the subclasses as well.  0 or -1. */
int hl_subclass_restore_new(PyTypeObject *type);

/* The arguments of an __init__(): positional ones first, then by name; missing
 * ones are NULL in out.  names is NULL-ended, the first required ones must be
 * given.  0, or -1 with TypeError. */
int hl_subclass_parse_init(const char *type, const char *const *names,
                           Py_ssize_t required, PyObject *args,
                           PyObject *kwargs, PyObject **out);

/* Calls base.name(op, *args), base being the Python class. */
PyObject *hl_subclass_inherited(PyObject *base, PyObject *name, PyObject *op,
                                PyObject *const *args, Py_ssize_t nargs,
                                PyObject *kwnames);

#endif
