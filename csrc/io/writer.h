/* writer.h - StreamWriter, and the protocol of C streams.
 * SPDX-License-Identifier: MIT */

#ifndef HL_IO_WRITER_H
#define HL_IO_WRITER_H

#include "io/subclass.h"

typedef struct {
    hl_subclass base;
    PyObject *transport; /* all owned; NULL before __init__() */
    PyObject *protocol;
    PyObject *reader; /* or None */
    PyObject *loop;
    PyObject *complete; /* _complete_fut, made when it is asked for */
} hl_writer;

typedef struct {
    hl_subclass base;
    PyObject *reader_ref; /* _stream_reader_wr; NULL before __init__() */
    bool paused;
    bool connection_lost;
} hl_stream_protocol;

/* Is op such a protocol, of methods that were not replaced? */
static inline bool
hl_stream_protocol_check(hl_state *st, PyObject *op)
{
    return PyObject_TypeCheck(op, st->StreamReaderProtocol_type) &&
           hl_subclass_is_stock(op, &st->protocol_stock);
}

/* What a weak reference refers to: new reference, NULL without an exception if
 * that is dead, or ref is no reference. */
PyObject *hl_weakref_get(PyObject *ref);

int hl_writer_type_init(PyObject *module, hl_state *st);
int hl_stream_protocol_type_init(PyObject *module, hl_state *st);

#endif
