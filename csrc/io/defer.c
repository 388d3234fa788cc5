/* defer.c - sends that wait: for the end of the turn, or for the kernel.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "io/stream.h"

#include "state/log.h"

int
hl_transport_write_block(hl_transport *self)
{
    self->blocked = true;
    if (self->write_context == NULL && !self->own_context &&
        (self->write_context = PyContext_CopyCurrent()) == NULL) {
        return -1;
    }
    return hl_transport_update_watcher(self);
}

/* The end of the turn.  In the context of the write() that asked for it, which
 * is where asyncio would meet a failure. */
static int
transport_run_flush(hl_loop *loop, PyObject *op)
{
    hl_transport *self = (hl_transport *)op;
    PyObject *context = Py_XNewRef(self->write_context);
    self->flush_queued = false;
    int rv = context == NULL ? 0 : PyContext_Enter(context);
    if (rv == 0) {
        rv = self->ops->flush(self);
        if (context != NULL && PyContext_Exit(context) < 0) {
            rv = -1;
        }
    }
    rv = hl_entry_end(loop, op, rv, self->ops->write_name(hl_loop_state(loop)),
                      NULL, context);
    Py_XDECREF(context);
    return rv;
}

int
hl_transport_defer_flush(hl_transport *self)
{
    if (self->flush_queued) {
        return 0;
    }
    int later =
        hl_loop_defer_flush(self->loop, (PyObject *)self, transport_run_flush);
    if (later != 0) {
        PyErr_Clear();
        return 1;
    }
    self->flush_queued = true;
    if (!self->in_read && !self->own_context && self->write_context == NULL) {
        self->write_context = PyContext_CopyCurrent();
        return self->write_context == NULL ? -1 : 0;
    }
    return 0;
}

int
hl_transport_flush_soon(hl_transport *self)
{
    if (self->flush_queued) {
        return 0;
    }
    self->flush_queued = true;
    return hl_loop_push(self->loop, Py_NewRef((PyObject *)self),
                        transport_run_flush);
}

int
hl_count_lost_write(hl_state *st, PyObject *logs_to, const char *warning,
                    unsigned *lost)
{
    int rv = 0;
    PyObject *limit = PyObject_GetAttrString(
        st->constants, "LOG_THRESHOLD_FOR_CONNLOST_WRITES");
    long threshold = limit == NULL ? -1 : PyLong_AsLong(limit);
    Py_XDECREF(limit);
    if (threshold == -1 && PyErr_Occurred()) {
        return -1;
    }
    if ((long)*lost >= threshold) {
        rv = hl_log(st, logs_to, "warning", NULL, "(s)", warning);
    }
    (*lost)++;
    return rv;
}

int
hl_transport_write_to_lost(hl_transport *self)
{
    hl_state *st = hl_transport_state(self);
    unsigned *lost = self->ops->is_socket ? &self->conn_lost : &self->dropped;
    return st == NULL ? -1
                      : hl_count_lost_write(st, hl_transport_logs_to(self),
                                            self->ops->lost_warning, lost);
}
