/* type.c - SSLTransport.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "tls/tls.h"

#include "state/errors.h"

#include <stddef.h>
#include <string.h>

#define SELF(op) ((hl_tls *)(op))

static int
TLS_tp_traverse(PyObject *op, visitproc visit, void *arg)
{
    hl_tls *self = SELF(op);
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->layer.extra);
    for (size_t i = 0; i < Py_ARRAY_LENGTH(self->layer.unused); i++) {
        Py_VISIT(self->layer.unused[i]);
    }
    Py_VISIT(self->layer.loop);
    Py_VISIT(self->layer.dict);
    Py_VISIT(self->protocol);
    Py_VISIT(self->lower);
    Py_VISIT(self->context);
    Py_VISIT(self->object);
    Py_VISIT(self->raw);
    Py_VISIT(self->hostname);
    Py_VISIT(self->waiter);
    Py_VISIT(self->peercert);
    Py_VISIT(self->handshake_timeout);
    Py_VISIT(self->shutdown_timeout);
    Py_VISIT(self->handshake_timer);
    Py_VISIT(self->shutdown_timer);
    Py_VISIT(self->incoming);
    Py_VISIT(self->outgoing);
    Py_VISIT(self->received_into);
    Py_VISIT(self->file_future);
    Py_VISIT(self->lost_exc);
    for (int i = 0; i < 2; i++) {
        Py_VISIT(self->read_values[i]);
        Py_VISIT(self->write_values[i]);
    }
    return 0;
}

/* The loop stays: methods of what is left of the connection look for it. */
static int
TLS_tp_clear(PyObject *op)
{
    hl_tls *self = SELF(op);
    self->closed = true;
    self->state = HL_TLS_UNWRAPPED;
    hl_tls_release(self);
    Py_CLEAR(self->layer.extra);
    for (size_t i = 0; i < Py_ARRAY_LENGTH(self->layer.unused); i++) {
        Py_CLEAR(self->layer.unused[i]);
    }
    Py_CLEAR(self->layer.dict);
    Py_CLEAR(self->protocol);
    Py_CLEAR(self->lower);
    Py_CLEAR(self->file_future);
    self->is_socket = false;
    hl_tls_set_kernel_below(self);
    Py_CLEAR(self->waiter);
    Py_CLEAR(self->peercert);
    Py_CLEAR(self->handshake_timer);
    Py_CLEAR(self->shutdown_timer);
    Py_CLEAR(self->received_into);
    Py_CLEAR(self->lost_exc);
    return 0;
}

/* What only the end of the object can do without. */
static void
tls_clear_rest(hl_tls *self)
{
    Py_CLEAR(self->context);
    Py_CLEAR(self->object);
    Py_CLEAR(self->incoming);
    Py_CLEAR(self->outgoing);
    Py_CLEAR(self->hostname);
    Py_CLEAR(self->handshake_timeout);
    Py_CLEAR(self->shutdown_timeout);
    for (int i = 0; i < 2; i++) {
        Py_CLEAR(self->read_values[i]);
        Py_CLEAR(self->write_values[i]);
    }
    Py_CLEAR(self->layer.loop);
}

static void
TLS_tp_finalize(PyObject *op)
{
    hl_tls *self = SELF(op);
    if (self->closed) {
        return;
    }
    self->closed = true;
    PyObject *pending = hl_error_fetch();
    if (PyErr_ResourceWarning(op, 1, "unclosed transport %R", op) < 0) {
        PyErr_WriteUnraisable(op);
    }
    if (pending != NULL) {
        hl_error_restore(pending);
    }
}

static void
TLS_tp_dealloc(PyObject *op)
{
    if (PyObject_CallFinalizerFromDealloc(op) < 0) {
        return;
    }
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    if (SELF(op)->layer.weakrefs != NULL) {
        PyObject_ClearWeakRefs(op);
    }
    (void)TLS_tp_clear(op);
    tls_clear_rest(SELF(op));
    type->tp_free(op);
    Py_DECREF(type);
}

static PyMemberDef TLS_members[] = {
    {"__dictoffset__", T_PYSSIZET, offsetof(hl_tls, layer.dict), READONLY,
     NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(hl_tls, layer.weakrefs),
     READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

PyDoc_STRVAR(
    TLS__doc__,
    "A TLS connection of a hotloop event loop.\n\n"
    "The transport of the program's protocol, and the protocol of the\n"
    "transport below, as asyncio.sslproto; made by the loop only.");

/* The methods of both tables as the one that a type takes. */
static PyMethodDef *
join_methods(void)
{
    PyMethodDef *const tables[] = {hl_tls_transport_methods,
                                   hl_tls_protocol_methods,
                                   hl_tls_sendfile_methods};
    return hl_state_join_methods(tables, Py_ARRAY_LENGTH(tables));
}

static int
type_add_constants(hl_state *st)
{
    PyObject *type = (PyObject *)st->SSLTransport_type;
    PyObject *size = PyLong_FromLong(HL_READ_BUFFER_SIZE);
    int rv = size == NULL ||
                     PyObject_SetAttrString(type, "_start_tls_compatible",
                                            Py_True) < 0 ||
                     PyObject_SetAttr(type, st->str_max_size, size) < 0
                 ? -1
                 : 0;
    Py_XDECREF(size);
    return rv;
}

static int
type_make(PyObject *module, hl_state *st)
{
    PyType_Slot slots[] = {
        {Py_tp_doc, (void *)(uintptr_t)TLS__doc__},
        {Py_tp_dealloc, HL_SLOT(TLS_tp_dealloc)},
        {Py_tp_finalize, HL_SLOT(TLS_tp_finalize)},
        {Py_tp_traverse, HL_SLOT(TLS_tp_traverse)},
        {Py_tp_clear, HL_SLOT(TLS_tp_clear)},
        {Py_tp_methods, st->tls_methods},
        {Py_tp_members, TLS_members},
        {Py_tp_getset, hl_tls_getset},
        {0, NULL},
    };
    PyType_Spec spec = {
        .name = "hotloop._core.SSLTransport",
        .basicsize = sizeof(hl_tls),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC |
                 Py_TPFLAGS_DISALLOW_INSTANTIATION,
        .slots = slots,
    };
    /* A protocol with buffers for transports that ask what it is. */
    PyObject *bases =
        PyTuple_Pack(2, st->FlowControlMixin, st->BufferedProtocol);
    if (bases == NULL) {
        return -1;
    }
    int rv =
        hl_transport_check_base(st->FlowControlMixin) < 0
            ? -1
            : hl_state_add_type(module, &st->SSLTransport_type, &spec, bases);
    Py_DECREF(bases);
    return rv;
}

/* The methods that the direct engine stands for; none in a Python without the
 * ssl module, where nobody makes a connection of the type. */
static int
find_originals(hl_state *st)
{
    if (st->SSLObject == NULL) {
        return 0;
    }
    st->sslobject_read = PyObject_GetAttr(st->SSLObject, st->str_read);
    st->sslobject_write = PyObject_GetAttr(st->SSLObject, st->str_write);
    return st->sslobject_read == NULL || st->sslobject_write == NULL ? -1 : 0;
}

int
hl_tls_type_init(PyObject *module, hl_state *st)
{
    st->tls_methods = join_methods();
    if (st->tls_methods == NULL || find_originals(st) < 0 ||
        type_make(module, st) < 0) {
        return -1;
    }
    return type_add_constants(st);
}
