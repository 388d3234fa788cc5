/* sendfile.c - files that the kernel encrypts and sends.
 *
 * The loop's sendfile() does it, on the socket below.  While it does this
 * layer writes nothing: it waits as it does for a transport that is full.
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "tls/tls.h"

#include "state/errors.h"

#define SELF(op) ((hl_tls *)(op))

void
hl_tls_stop_file(hl_tls *self)
{
    if (!self->sending_file || self->file_stopped) {
        return;
    }
    self->file_stopped = true;
    PyObject *future = self->file_future;
    self->file_future = NULL;
    if (future != NULL) {
        PyObject *pending = hl_error_fetch();
        PyObject *res = PyObject_CallMethodNoArgs(
            future, hl_tls_module_state(self)->str_cancel);
        if (res == NULL) {
            PyErr_WriteUnraisable(future);
        }
        Py_XDECREF(res);
        Py_DECREF(future);
        if (pending != NULL) {
            hl_error_restore(pending);
        }
    }
}

static int
raise_lost(void)
{
    PyErr_SetString(PyExc_ConnectionError, "Connection closed by peer");
    return -1;
}

/* All that was written goes to the transport below, however much it is. */
static int
begin_flush(hl_tls *self)
{
    if (self->state != HL_TLS_WRAPPED || !hl_tls_kernel_sends(self)) {
        return raise_lost();
    }
    if ((hl_tls_flush(self, true) < 0 || hl_tls_check_keys(self) < 0) &&
        hl_tls_failed(self, "Fatal error on SSL protocol") < 0) {
        return -1;
    }
    bool lost = self->state != HL_TLS_WRAPPED || !hl_tls_kernel_sends(self) ||
                ((hl_transport *)self->lower)->conn_lost > 0;
    return lost ? raise_lost() : 0;
}

static PyObject *
TLS__begin_sendfile(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    hl_tls *self = SELF(op);
    if (self->sending_file) {
        PyErr_SetString(PyExc_RuntimeError, "Empty waiter is already set");
        return NULL;
    }
    if (begin_flush(self) < 0) {
        return NULL;
    }
    PyObject *lower = Py_NewRef(self->lower);
    PyObject *waiter = hl_transport_make_empty_waiter((hl_transport *)lower);
    Py_DECREF(lower);
    if (waiter != NULL) {
        self->sending_file = self->write_paused = true;
        self->file_stopped = self->shutdown_due = false;
        Py_XSETREF(self->file_future, Py_NewRef(waiter));
    }
    return waiter;
}

/* The future that the end of the connection is to cancel from now on; it does
 * so at once if it has come. */
static PyObject *
TLS__sendfile_waits(PyObject *op, PyObject *future)
{
    hl_tls *self = SELF(op);
    bool stopped = self->file_stopped;
    Py_XSETREF(self->file_future, Py_NewRef(future));
    if (stopped) {
        self->file_stopped = false;
        hl_tls_stop_file(self);
    }
    return Py_NewRef(future);
}

/* What waited for the file goes on. */
static int
end_flush(hl_tls *self)
{
    hl_transport *lower = (hl_transport *)self->lower;
    self->write_paused = lower->protocol_paused;
    if (hl_transport_reset_empty_waiter(lower) < 0) {
        return -1;
    }
    if (self->shutdown_due) {
        self->shutdown_due = false;
        return hl_tls_do_flush(self);
    }
    return hl_tls_flush(self, false) < 0
               ? hl_tls_failed(self, "Fatal error on SSL protocol")
               : 0;
}

/* True if the end of the connection has stopped it. */
static PyObject *
TLS__end_sendfile(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    hl_tls *self = SELF(op);
    self->sending_file = false;
    Py_CLEAR(self->file_future);
    if (self->lower != NULL && self->is_socket && end_flush(self) < 0) {
        return NULL;
    }
    return PyBool_FromLong(self->file_stopped);
}

PyMethodDef hl_tls_sendfile_methods[] = {
    {"_begin_sendfile", TLS__begin_sendfile, METH_NOARGS,
     "_begin_sendfile($self, /)\n--\n\n"},
    {"_sendfile_waits", TLS__sendfile_waits, METH_O,
     "_sendfile_waits($self, future, /)\n--\n\n"},
    {"_end_sendfile", TLS__end_sendfile, METH_NOARGS,
     "_end_sendfile($self, /)\n--\n\n"},
    {NULL, NULL, 0, NULL},
};
