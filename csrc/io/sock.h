/* sock.h - sock_recv() and its like: the system call, and the wait.
 *
 * Each function tries the system call first.  It returns the result; or a
 * SockWait to await, after which reading, accepting and sending a datagram are
 * tried again, and the others are done; or NotImplemented, having done
 * nothing, where asyncio's own method must do it all: in debug mode, for other
 * objects than a plain non-blocking socket.socket, and for arguments that are
 * unusual or wrong.  NULL with OSError and the like.
 *
 * As nothing is read before the task that asked runs again, a wait that is
 * cancelled has taken nothing, at whatever moment.
 * Threading: GIL held.
 * SPDX-License-Identifier: MIT */

#ifndef HL_IO_SOCK_H
#define HL_IO_SOCK_H

#include "io/address.h"
#include "loop/watcher.h"

PyObject *hl_sock_recv(hl_loop *loop, PyObject *sock, PyObject *count);
PyObject *hl_sock_recv_into(hl_loop *loop, PyObject *sock, PyObject *buffer);
PyObject *hl_sock_recvfrom(hl_loop *loop, PyObject *sock, PyObject *count);
PyObject *hl_sock_recvfrom_into(hl_loop *loop, PyObject *sock,
                                PyObject *buffer, PyObject *count);
PyObject *hl_sock_sendall(hl_loop *loop, PyObject *sock, PyObject *data);
PyObject *hl_sock_sendto(hl_loop *loop, PyObject *sock, PyObject *data,
                         PyObject *address);
PyObject *hl_sock_accept(hl_loop *loop, PyObject *sock);

/* For numeric addresses of IPv4 and IPv6. */
PyObject *hl_sock_connect(hl_loop *loop, PyObject *sock, PyObject *address);

/* asyncio's _sock_sendfile_native_impl() at its first call: sends the file
 * file_fd until future is done.  count may be None.  1, or 0 where the
 * inherited method must do it, or -1 with an exception. */
int hl_sock_sendfile(hl_loop *loop, PyObject *future, PyObject *sock,
                     int file_fd, PyObject *offset, PyObject *count,
                     PyObject *block);

int hl_sock_wait_type_init(PyObject *module, hl_state *st);

#endif
