/* layer.h - a protocol in C, between a transport and the program's protocol.
 *
 * It is the transport of the one above; so it begins with the slots that
 * asyncio's transports have, where hl_transport has them.
 * SPDX-License-Identifier: MIT */

#ifndef HL_IO_LAYER_H
#define HL_IO_LAYER_H

#include "loop/loop.h"

typedef struct {
    PyObject_HEAD
    PyObject *extra;
    PyObject *unused[4];
    PyObject *dict;
    PyObject *weakrefs;
    hl_loop *loop; /* owned */

    /* size > 0 bytes have come, in memory that nobody else touches during the
     * call: what buffer_updated() is for a protocol in Python.  0, or -1 with
     * what such a method would have raised. */
    int (*received)(PyObject *self, const char *data, size_t size);

    /* The transport below is about to close, or to show its socket: what was
     * written and only waits for the end of the turn goes to it now. */
    void (*flush)(PyObject *self);
} hl_layer;

/* Is protocol one that has the function above? */
static inline bool
hl_layer_check(hl_state *st, PyObject *protocol)
{
    return Py_IS_TYPE(protocol, st->SSLTransport_type);
}

#endif
