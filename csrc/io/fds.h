/* fds.h - descriptors that come and go over a Unix stream transport.
 * SPDX-License-Identifier: MIT */

#ifndef HL_IO_FDS_H
#define HL_IO_FDS_H

#include "io/stream.h"

/* recv() that keeps descriptors which come along, for a transport that has
 * fds: -1 with EMFILE if the kernel had to drop some. */
ssize_t hl_fds_recv(hl_transport *self, void *buffer, size_t size);

/* Gives what came to protocol.fds_received(), if the protocol has that.  0, or
 * -1 with the exception of the call, those descriptors closed. */
int hl_fds_deliver(hl_transport *self);

/* Has the transport keep descriptors from now on.  0, or -1 with
 * MemoryError. */
int hl_fds_want(hl_transport *self);

/* Closes what nobody took. */
void hl_fds_free(hl_transport *self);

/* The methods of SocketTransport. */
PyObject *hl_fds_send_method(PyObject *op, PyObject *const *args,
                             Py_ssize_t nargs, PyObject *kwnames);
PyObject *hl_fds_recv_method(PyObject *op, PyObject *ignored);
extern const char hl_fds_send_doc[];
extern const char hl_fds_recv_doc[];

#endif
