/* transport.h - transports over sockets and pipes.
 * SPDX-License-Identifier: MIT */

#ifndef HL_IO_TRANSPORT_H
#define HL_IO_TRANSPORT_H

#include "aio/future.h"
#include "loop/watcher.h"

/* BaseSelectorEventLoop._make_socket_transport(): takes the Python socket
 * object, waiter/extra/server/context may be NULL or None.  New reference. */
PyObject *hl_transport_new(hl_loop *loop, PyObject *sock, PyObject *protocol,
                           PyObject *waiter, PyObject *extra, PyObject *server,
                           PyObject *context);

/* _UnixSelectorEventLoop._make_read_pipe_transport() and
 * _make_write_pipe_transport(): pipe is a file object, owned by the transport
 * from now on; waiter/extra may be NULL or None.  New reference. */
PyObject *hl_read_pipe_new(hl_loop *loop, PyObject *pipe, PyObject *protocol,
                           PyObject *waiter, PyObject *extra);
PyObject *hl_write_pipe_new(hl_loop *loop, PyObject *pipe, PyObject *protocol,
                            PyObject *waiter, PyObject *extra);

/* The transport that owns fd and is not closing, borrowed, or NULL. */
PyObject *hl_transport_of_fd(hl_loop *loop, int fd);

/* Takes the descriptor away from a watcher's owner that cannot have it any
 * more, because it was closed behind its back and now has another meaning: a
 * transport that is closing and still drains, a listener whose socket is
 * closed; any owner at all if the descriptor is fresh from the kernel. */
void hl_transport_release_fd(hl_loop *loop, int fd, bool fresh);

/* The part of it for listeners. */
void hl_listener_release(hl_loop *loop, int fd, bool fresh);

/* Puts a protocol of ours (layer.h) between a new connection and protocol, as
 * wrapping says.  New reference or NULL. */
typedef PyObject *(*hl_wrap_fn)(hl_loop *loop, PyObject *protocol,
                                PyObject *wrapping);

/* BaseSelectorEventLoop._start_serving(): accepts on sock until
 * hl_listener_stop(); wrap is called unless wrapping is NULL.  0 or -1. */
int hl_listener_start(hl_loop *loop, PyObject *protocol_factory,
                      PyObject *sock, PyObject *server, int backlog,
                      PyObject *context, hl_wrap_fn wrap, PyObject *wrapping);

/* Stops accepting on the descriptor: 1 if there was a listener. */
int hl_listener_stop(hl_loop *loop, int fd);

/* BaseSelectorEventLoop._make_datagram_transport(): address, waiter and extra
 * may be NULL or None.  New reference. */
PyObject *hl_datagram_new(hl_loop *loop, PyObject *sock, PyObject *protocol,
                          PyObject *address, PyObject *waiter,
                          PyObject *extra);

/* In this order: the first is the base of the next two. */
int hl_transport_type_init(PyObject *module, hl_state *st);
int hl_stream_type_init(PyObject *module, hl_state *st);
int hl_datagram_type_init(PyObject *module, hl_state *st);
int hl_pipe_types_init(PyObject *module, hl_state *st);
int hl_listener_type_init(PyObject *module, hl_state *st);

#endif
