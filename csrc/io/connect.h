/* connect.h - a client connection on its way, before it has a transport.
 *
 * Stands where asyncio has a Python socket: create_connection() passes it from
 * the connecting half to the one that makes the transport.
 * SPDX-License-Identifier: MIT */

#ifndef HL_IO_CONNECT_H
#define HL_IO_CONNECT_H

#include "loop/watcher.h"

/* Opens a non-blocking socket and begins to connect it.  With AF_UNSPEC, TCP
 * over whatever IP the host in address is of.  address must be numeric; if it
 * is not, or the kernel wants to be asked again later, None: the
 * socket module knows more.  New reference, or NULL with OSError as
 * sock_connect() raises it. */
PyObject *hl_connector_start(hl_loop *loop, int family, int type, int proto,
                             PyObject *address);

/* Makes the transport of a connected connector, which gives its descriptor
 * away on success.  waiter may be None; context NULL or None for a copy of the
 * current one.  New reference or NULL; TypeError for another object. */
PyObject *hl_connector_finish(hl_loop *loop, PyObject *connector,
                              PyObject *protocol, PyObject *waiter,
                              PyObject *context);

int hl_connector_type_init(PyObject *module, hl_state *st);

#endif
