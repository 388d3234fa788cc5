/* lower.c - calls of the transport below.
 *
 * A SocketTransport of ours takes memory as it is; any other gets the methods
 * of asyncio's transports called: that of another TLS connection, or one that
 * a program wrote.
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "tls/tls.h"

int
hl_tls_lower_write(hl_tls *self, const char *data, size_t size)
{
    PyObject *lower = self->lower;
    if (lower == NULL) {
        return 0;
    }
    Py_INCREF(lower);
    int rv = -1;
    if (HL_LIKELY(self->is_socket)) {
        rv = hl_transport_write_memory((hl_transport *)lower, data, size);
    }
    else {
        PyObject *bytes = PyBytes_FromStringAndSize(data, (Py_ssize_t)size);
        if (bytes != NULL) {
            rv = hl_call_dropping(lower, hl_tls_module_state(self)->str_write,
                                  bytes);
        }
        Py_XDECREF(bytes);
    }
    Py_DECREF(lower);
    return rv;
}

int
hl_tls_lower_call(hl_tls *self, PyObject *method)
{
    return self->lower == NULL ? 0
                               : hl_call_dropping(self->lower, method, NULL);
}

int
hl_tls_lower_force_close(hl_tls *self, PyObject *exc)
{
    return hl_call_dropping(self->lower,
                            hl_tls_module_state(self)->str__force_close,
                            exc != NULL ? exc : Py_None);
}
