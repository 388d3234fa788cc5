/* stream_protocol.c - the protocol of C streams.
 *
 * asyncio's StreamReaderProtocol, of which receiving and draining look at
 * fields in C.  Everything else is inherited and goes by the attributes.
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "io/writer.h"

#include <stddef.h>

#define SELF(op) ((hl_stream_protocol *)(op))

PyObject *
hl_weakref_get(PyObject *ref)
{
    PyObject *obj = NULL;
    if (ref != NULL && PyWeakref_CheckRefExact(ref)) {
#if PY_VERSION_HEX >= 0x030D0000
        (void)PyWeakref_GetRef(ref, &obj); /* a reference cannot fail */
#else
        obj = Py_NewRef(PyWeakref_GET_OBJECT(ref));
        if (obj == Py_None) {
            Py_CLEAR(obj);
        }
#endif
    }
    return obj;
}

static int
StreamReaderProtocol_tp_setattro(PyObject *op, PyObject *name, PyObject *value)
{
    hl_state *st = hl_subclass_state(op);
    return st == NULL
               ? -1
               : hl_subclass_setattr(op, name, value, &st->protocol_stock);
}

static PyMemberDef StreamReaderProtocol_members[] = {
    HL_SUBCLASS_MEMBER,
    {"_stream_reader_wr", T_OBJECT_EX,
     offsetof(hl_stream_protocol, reader_ref), 0, NULL},
    {"_paused", T_BOOL, offsetof(hl_stream_protocol, paused), 0, NULL},
    {"_connection_lost", T_BOOL, offsetof(hl_stream_protocol, connection_lost),
     0, NULL},
    {NULL, 0, 0, 0, NULL},
};

PyDoc_STRVAR(StreamReaderProtocol__doc__,
             "asyncio's StreamReaderProtocol, for streams in C.");

static PyType_Slot StreamReaderProtocol_slots[] = {
    {Py_tp_doc, HL_DOC(StreamReaderProtocol__doc__)},
    {Py_tp_new, HL_SLOT(hl_subclass_new)},
    {Py_tp_setattro, HL_SLOT(StreamReaderProtocol_tp_setattro)},
    {Py_tp_members, StreamReaderProtocol_members},
    {0, NULL},
};

static PyType_Spec StreamReaderProtocol_spec = {
    .name = "hotloop._core.StreamReaderProtocol",
    .basicsize = sizeof(hl_stream_protocol),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = StreamReaderProtocol_slots,
};

static const char *const stock_names[] = {
    "data_received",
    "_stream_reader",
    "_stream_reader_wr",
    "_drain_helper",
    "_paused",
    "_connection_lost",
    NULL,
};

int
hl_stream_protocol_type_init(PyObject *module, hl_state *st)
{
    return hl_subclass_add_type(module, &st->StreamReaderProtocol_type,
                                &StreamReaderProtocol_spec,
                                st->StreamReaderProtocol, stock_names,
                                &st->protocol_originals, &st->protocol_stock);
}
