/* packet.h - bytes with descriptors, on their way over a Unix socket.
 *
 * A packet is what owns a chunk of a hl_writeq that has descriptors to send
 * with its first byte.  It owns duplicates of them until they are sent.
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

/* Has op, the owner of a chunk, descriptors that are not sent yet? */
bool hl_packet_is_loaded(PyObject *op);

/* Sends part with the descriptors of a loaded packet, which are gone when the
 * kernel took any of it.  As sendmsg(). */
ssize_t hl_packet_send(PyObject *op, int fd, struct iovec *part);

int hl_packet_type_init(PyObject *module, hl_state *st);

#endif
