/* state.c - what the module owns: types, strings, imported objects.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "state/state.h"

hl_state *
hl_state_of_type(PyTypeObject *type)
{
    if (type->tp_mro == NULL) {
        /* The collector cleared the type before this object of it. */
        PyErr_SetString(PyExc_RuntimeError, "hotloop is shut down");
        return NULL;
    }
    PyObject *module = PyType_GetModuleByDef(type, &hl_module_def);
    return module == NULL ? NULL : (hl_state *)PyModule_GetState(module);
}

/* An attribute of a module, imported now; with optional, a missing one or a
 * module that this Python was built without (ssl) is NULL and no error. */
static int
state_import(PyObject **slot, const char *module_name, const char *attr,
             bool optional)
{
    PyObject *module = PyImport_ImportModule(module_name);
    PyObject *missing = PyExc_ImportError;
    if (module != NULL) {
        *slot = PyObject_GetAttrString(module, attr);
        Py_DECREF(module);
        missing = PyExc_AttributeError;
    }
    if (*slot != NULL) {
        return 0;
    }
    if (!optional || !PyErr_ExceptionMatches(missing)) {
        return -1;
    }
    PyErr_Clear();
    return 0;
}

/* Where type keeps the slot (a member descriptor) called name. */
static int
state_slot_offset(PyObject *type, const char *name, Py_ssize_t *offset)
{
    PyObject *descr = PyObject_GetAttrString(type, name);
    if (descr == NULL) {
        return -1;
    }
    int rv = -1;
    if (Py_IS_TYPE(descr, &PyMemberDescr_Type)) {
        *offset = ((PyMemberDescrObject *)descr)->d_member->offset;
        rv = 0;
    }
    else {
        PyErr_Format(PyExc_ImportError,
                     "hotloop does not know this Python: %S.%s is not a slot",
                     type, name);
    }
    Py_DECREF(descr);
    return rv;
}

static int
state_find_slots(hl_state *st)
{
    hl_handle_slots *slots = &st->slots;
    hl_socket_slots *sock = &st->socket_slots;
    const struct {
        PyObject *type;
        const char *name;
        Py_ssize_t *offset;
    } table[] = {
        {st->AbstractHandle, "_callback", &slots->callback},
        {st->AbstractHandle, "_args", &slots->args},
        {st->AbstractHandle, "_cancelled", &slots->cancelled},
        {st->AbstractHandle, "_context", &slots->context},
        {st->AbstractHandle, "_loop", &slots->loop},
        {st->AbstractHandle, "_repr", &slots->repr},
        {st->AbstractHandle, "_source_traceback", &slots->source_traceback},
        {st->AbstractTimerHandle, "_scheduled", &slots->scheduled},
        {st->AbstractThreadSafeHandle, "_lock", &slots->lock},
        {st->raw_socket_type, "family", &sock->family},
        {st->raw_socket_type, "type", &sock->type},
        {st->raw_socket_type, "proto", &sock->proto},
    };
    for (size_t i = 0; i < Py_ARRAY_LENGTH(table); i++) {
        if (table[i].type != NULL &&
            state_slot_offset(table[i].type, table[i].name, table[i].offset) <
                0) {
            return -1;
        }
    }
    return 0;
}

int
hl_state_init(PyObject *module, hl_state *st)
{
    st->module = module;
    st->empty_tuple = PyTuple_New(0);
    st->blank_context = PyContext_New();
    if (st->empty_tuple == NULL || st->blank_context == NULL) {
        return -1;
    }
#define HL_TYPE(name)
#define HL_STR(name)                                                    \
    if ((st->str_##name = PyUnicode_InternFromString(#name)) == NULL) { \
        return -1;                                                      \
    }
#define HL_ATTR(name, module, attr)                         \
    if (state_import(&st->name, module, attr, false) < 0) { \
        return -1;                                          \
    }
#define HL_ATTR_OPT(name, module, attr)                    \
    if (state_import(&st->name, module, attr, true) < 0) { \
        return -1;                                         \
    }
#define HL_OBJECT(name)
#include "state/names.def"
#undef HL_TYPE
#undef HL_STR
#undef HL_ATTR
#undef HL_ATTR_OPT
#undef HL_OBJECT
    return state_find_slots(st);
}

int
hl_state_traverse(hl_state *st, visitproc visit, void *arg)
{
#define HL_TYPE(name) Py_VISIT(st->name##_type);
#define HL_STR(name) Py_VISIT(st->str_##name);
#define HL_ATTR(name, module, attr) Py_VISIT(st->name);
#define HL_ATTR_OPT(name, module, attr) Py_VISIT(st->name);
#define HL_OBJECT(name) Py_VISIT(st->name);
#include "state/names.def"
#undef HL_TYPE
#undef HL_STR
#undef HL_ATTR
#undef HL_ATTR_OPT
#undef HL_OBJECT
    return 0;
}

void
hl_state_clear(hl_state *st)
{
#define HL_TYPE(name) Py_CLEAR(st->name##_type);
#define HL_STR(name) Py_CLEAR(st->str_##name);
#define HL_ATTR(name, module, attr) Py_CLEAR(st->name);
#define HL_ATTR_OPT(name, module, attr) Py_CLEAR(st->name);
#define HL_OBJECT(name) Py_CLEAR(st->name);
#include "state/names.def"
#undef HL_TYPE
#undef HL_STR
#undef HL_ATTR
#undef HL_ATTR_OPT
#undef HL_OBJECT
}

int
hl_state_add_type(PyObject *module, PyTypeObject **slot, PyType_Spec *spec,
                  PyObject *base)
{
    PyObject *type = PyType_FromModuleAndSpec(module, spec, base);
    if (type == NULL) {
        return -1;
    }
    *slot = (PyTypeObject *)type;
    return 0;
}

PyMethodDef *
hl_state_join_methods(PyMethodDef *const *tables, size_t count)
{
    size_t total = 0, k = 0;
    for (size_t i = 0; i < count; i++) {
        for (PyMethodDef *m = tables[i]; m->ml_name != NULL; m++) {
            total++;
        }
    }
    PyMethodDef *all = PyMem_Calloc(total + 1, sizeof(PyMethodDef));
    if (all == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    for (size_t i = 0; i < count; i++) {
        for (PyMethodDef *m = tables[i]; m->ml_name != NULL; m++) {
            all[k++] = *m;
        }
    }
    return all;
}
