/* reader_ops.h - the coroutine methods of StreamReader.
 * SPDX-License-Identifier: MIT */

#ifndef HL_IO_READER_OPS_H
#define HL_IO_READER_OPS_H

#include "io/reader.h"
#include "io/stream_op.h"

/* read(n) with n > 0 or n == 0; read() to the end; readexactly(n). */
extern const hl_stream_op_kind hl_op_read;
extern const hl_stream_op_kind hl_op_read_all;
extern const hl_stream_op_kind hl_op_readexactly;

/* reader_scan.c: readline(), readuntil(), __anext__().  The argument is NULL
 * for a newline, else bytes, or a tuple of bytes in the order of sizes. */
extern const hl_stream_op_kind hl_op_readline;
extern const hl_stream_op_kind hl_op_readuntil;
extern const hl_stream_op_kind hl_op_anext;

/* Is separator one that readuntil() can be made for here?  Then the argument
 * for it: new reference.  NULL without an exception for others, or with
 * one. */
PyObject *hl_reader_separators(PyObject *separator);

static inline hl_reader *
hl_op_reader(const hl_stream_op *op)
{
    return (hl_reader *)op->owner;
}

static inline bool
hl_reader_failed(const hl_reader *self)
{
    return self->exception != NULL && self->exception != Py_None;
}

/* _wait_for_data(): has the operation wait.  0 or -1. */
int hl_op_wait_for_data(hl_stream_op *op, const char *method);

/* Takes size bytes as the result, and lets the transport go on.  1 or -1. */
int hl_op_take(hl_reader *self, Py_ssize_t size, PyObject **result);

/* end_wait of all kinds. */
void hl_op_end_wait(hl_stream_op *op);

/* The content is all there will be: raises IncompleteReadError with it,
 * expected (borrowed) being None or a number.  -1. */
int hl_reader_incomplete(hl_reader *self, PyObject *expected);

#endif
