/* packet.h - bytes that are sent with a control message.
 *
 * A packet is what owns a chunk of a hl_writeq that has descriptors to send
 * with its first byte, of which it owns duplicates until they are sent; or one
 * that is a record of TLS, of a type that the kernel is to be told.
 * Threading: GIL held.
 * SPDX-License-Identifier: MIT */

#ifndef HL_IO_PACKET_H
#define HL_IO_PACKET_H

#include "state/state.h"

#include <sys/socket.h>
#include <sys/uio.h>

/* What Linux lets one message carry. */
#define HL_PACKET_FDS 253

/* Takes data, an exact bytes object (new reference), and duplicates of the
 * descriptors, at most HL_PACKET_FDS.  New reference, or NULL with OSError. */
PyObject *hl_packet_new(hl_state *st, PyObject *data, const int *fds,
                        int count);

/* The same for a record of this type, not 0, on a socket that encrypts. */
PyObject *hl_packet_new_record(hl_state *st, PyObject *data,
                               unsigned char type);

/* Has op, the owner of a chunk, something to be sent in a control message? */
bool hl_packet_is_loaded(PyObject *op);

/* Sends part with the control message of a loaded packet.  Descriptors are
 * gone when the kernel took any of it.  As sendmsg(). */
ssize_t hl_packet_send(PyObject *op, int fd, struct iovec *part);

int hl_packet_type_init(PyObject *module, hl_state *st);

#endif
