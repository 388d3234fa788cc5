/* transport_base.c - what the types of transports have in common.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "io/fds.h"
#include "io/stream.h"

#include <stddef.h>
#include <string.h>

#define SELF(op) ((hl_transport *)(op))

int
hl_transport_traverse(PyObject *op, visitproc visit, void *arg)
{
    hl_transport *self = SELF(op);
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->extra);
    Py_VISIT(self->high_value);
    Py_VISIT(self->loop);
    Py_VISIT(self->low_value);
    Py_VISIT(self->dict);
    Py_VISIT(self->protocol);
    Py_VISIT(self->server);
    Py_VISIT(self->sock);
    Py_VISIT(self->context);
    Py_VISIT(self->write_context);
    Py_VISIT(self->starter);
    Py_VISIT(self->waiter);
    Py_VISIT(self->empty_waiter);
    Py_VISIT(self->lost_exc);
    return 0;
}

/* Leaves a closed transport: what still refers to it may call it. */
int
hl_transport_clear(PyObject *op)
{
    hl_transport *self = SELF(op);
    hl_transport_finalize(op); /* closed already, unless it was resurrected */
    self->closing = self->lost = true;
    self->conn_lost = Py_MAX(self->conn_lost, 1);
    hl_transport_drop_watcher(self);
    self->ops->drop(self, false);
    hl_fds_free(self);
    Py_CLEAR(self->extra);
    Py_CLEAR(self->high_value);
    Py_CLEAR(self->loop);
    Py_CLEAR(self->low_value);
    Py_CLEAR(self->dict);
    Py_CLEAR(self->protocol);
    Py_CLEAR(self->server);
    self->sock_fd = NULL;
    Py_CLEAR(self->sock);
    Py_CLEAR(self->context);
    Py_CLEAR(self->write_context);
    Py_CLEAR(self->starter);
    Py_CLEAR(self->waiter);
    Py_CLEAR(self->empty_waiter);
    Py_CLEAR(self->lost_exc);
    Py_CLEAR(self->sockname);
    return 0;
}

static void
transport_tp_dealloc(PyObject *op)
{
    if (PyObject_CallFinalizerFromDealloc(op) < 0) {
        return;
    }
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    if (SELF(op)->weakrefs != NULL) {
        PyObject_ClearWeakRefs(op);
    }
    (void)type->tp_clear(op);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyMemberDef transport_members[] = {
    {"__dictoffset__", T_PYSSIZET, offsetof(hl_transport, dict), READONLY,
     NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(hl_transport, weakrefs),
     READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

/* Are the slots of the base where hl_transport has them? */
int
hl_transport_check_base(PyObject *base)
{
    const struct {
        const char *name;
        size_t offset;
    } table[] = {
        {"_extra", offsetof(hl_transport, extra)},
        {"_high_water", offsetof(hl_transport, high_value)},
        {"_loop", offsetof(hl_transport, loop)},
        {"_low_water", offsetof(hl_transport, low_value)},
        {"_protocol_paused", offsetof(hl_transport, unused)},
    };
    /* What a base lacks of them is ours; it may have nothing else. */
    size_t n = (size_t)(((PyTypeObject *)base)->tp_basicsize -
                        (Py_ssize_t)sizeof(PyObject)) /
               sizeof(PyObject *);
    bool known = n == 1 || n == Py_ARRAY_LENGTH(table);
    for (size_t i = 0; known && i < n; i++) {
        PyObject *descr = PyObject_GetAttrString(base, table[i].name);
        if (descr == NULL) {
            return -1;
        }
        known = Py_IS_TYPE(descr, &PyMemberDescr_Type) &&
                ((PyMemberDescrObject *)descr)->d_member->offset ==
                    (Py_ssize_t)table[i].offset;
        Py_DECREF(descr);
    }
    if (!known) {
        PyErr_Format(PyExc_ImportError,
                     "hotloop does not know this asyncio: the slots of %R",
                     base);
        return -1;
    }
    return 0;
}

/* A type made here, or a tuple of bases that begins with one: was checked. */
static bool
base_is_ours(PyObject *base)
{
    PyObject *first = PyTuple_Check(base) ? PyTuple_GET_ITEM(base, 0) : base;
    return ((PyTypeObject *)first)->tp_dealloc == transport_tp_dealloc;
}

int
hl_transport_add_type(PyObject *module, PyTypeObject **slot,
                      const hl_transport_spec *spec, PyObject *base)
{
    PyType_Slot slots[] = {
        {Py_tp_doc, (void *)(uintptr_t)spec->doc},
        {Py_tp_dealloc, HL_SLOT(transport_tp_dealloc)},
        {Py_tp_finalize, HL_SLOT(hl_transport_finalize)},
        {Py_tp_traverse,
         HL_SLOT(spec->traverse != NULL ? spec->traverse
                                        : hl_transport_traverse)},
        {Py_tp_clear,
         HL_SLOT(spec->clear != NULL ? spec->clear : hl_transport_clear)},
        {Py_tp_repr, HL_SLOT(spec->repr)},
        {Py_tp_methods, spec->methods},
        {Py_tp_members, transport_members},
        {Py_tp_getset, spec->getset},
        {0, NULL},
    };
    PyType_Spec type_spec = {
        .name = spec->name,
        .basicsize = (int)Py_MAX(spec->size, sizeof(hl_transport)),
        .flags =
            (unsigned int)(Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC |
                           Py_TPFLAGS_DISALLOW_INSTANTIATION | spec->flags),
        .slots = slots,
    };
    if (!base_is_ours(base) && hl_transport_check_base(base) < 0) {
        return -1;
    }
    return hl_state_add_type(module, slot, &type_spec, base);
}

static PyMethodDef *
find_method(PyMethodDef *def, const char *name)
{
    while (def->ml_name != NULL && strcmp(def->ml_name, name) != 0) {
        def++;
    }
    return def->ml_name != NULL ? def : NULL;
}

static PyGetSetDef *
find_getset(PyGetSetDef *def, const char *name)
{
    while (def->name != NULL && strcmp(def->name, name) != 0) {
        def++;
    }
    return def->name != NULL ? def : NULL;
}

/* A new descriptor in type for what SocketTransport has under name. */
static PyObject *
share_descr(PyTypeObject *type, const char *name)
{
    PyMethodDef *method = find_method(hl_stream_methods, name);
    if (method == NULL) {
        method = find_method(hl_transport_methods, name);
    }
    if (method != NULL) {
        return PyDescr_NewMethod(type, method);
    }
    PyGetSetDef *getset = find_getset(hl_stream_getset, name);
    if (getset == NULL) {
        getset = find_getset(hl_transport_getset, name);
    }
    if (getset != NULL) {
        return PyDescr_NewGetSet(type, getset);
    }
    PyErr_Format(PyExc_SystemError, "SocketTransport has no %s", name);
    return NULL;
}

int
hl_transport_share(PyTypeObject *type, const char *const *names)
{
    for (; *names != NULL; names++) {
        PyObject *descr = share_descr(type, *names);
        if (descr == NULL) {
            return -1;
        }
        int rv = PyObject_SetAttrString((PyObject *)type, *names, descr);
        Py_DECREF(descr);
        if (rv < 0) {
            return -1;
        }
    }
    return 0;
}
