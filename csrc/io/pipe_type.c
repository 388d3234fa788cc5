/* pipe_type.c - the Python side of ReadPipeTransport and WritePipeTransport.
 *
 * Most of it is SocketTransport's.
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "io/stream.h"

#define SELF(op) ((hl_transport *)(op))

/* The attributes that only asyncio's pipe transports have. */

static PyObject *
Pipe_get__pipe(PyObject *op, void *Py_UNUSED(closure))
{
    hl_transport *self = SELF(op);
    return Py_NewRef(self->fd_open && self->sock != NULL ? self->sock
                                                         : Py_None);
}

/* Only None: whoever sets it has taken the pipe away from the transport. */
static int
Pipe_set__pipe(PyObject *op, PyObject *value, void *Py_UNUSED(closure))
{
    hl_transport *self = SELF(op);
    if (value != Py_None) {
        PyErr_SetString(PyExc_AttributeError, "_pipe can only become None");
        return -1;
    }
    hl_transport_drop_watcher(self);
    self->fd_open = false;
    return 0;
}

static PyObject *
Pipe_get__fileno(PyObject *op, void *Py_UNUSED(closure))
{
    return PyLong_FromLong(SELF(op)->fd);
}

static PyGetSetDef pipe_getset[] = {
    {"_pipe", Pipe_get__pipe, Pipe_set__pipe, NULL, NULL},
    {"_fileno", Pipe_get__fileno, NULL, NULL, NULL},
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

/* repr() up to the part that tells whether the pipe is watched; tail is that
 * part of an open one whose loop is open. */
static PyObject *
pipe_repr(PyObject *op, const char *tail)
{
    hl_transport *self = SELF(op);
    const char *state = "";
    if (!self->fd_open) {
        state = " closed";
        tail = "closed";
    }
    else {
        state = self->closing ? " closing" : "";
        tail = self->loop == NULL || self->loop->closed ? "open" : tail;
    }
    return PyUnicode_FromFormat("%s%s fd=%d %s", self->ops->name, state,
                                self->fd, tail);
}

static PyObject *
ReadPipeTransport_repr(PyObject *op)
{
    PyObject *body = pipe_repr(op, SELF(op)->reading ? "polling" : "idle");
    PyObject *rv = body == NULL ? NULL : PyUnicode_FromFormat("<%U>", body);
    Py_XDECREF(body);
    return rv;
}

static PyObject *
WritePipeTransport_repr(PyObject *op)
{
    hl_transport *self = SELF(op);
    PyObject *body = pipe_repr(op, self->blocked ? "polling" : "idle");
    if (body == NULL) {
        return NULL;
    }
    bool live = self->fd_open && self->loop != NULL && !self->loop->closed;
    PyObject *rv =
        live ? PyUnicode_FromFormat("<%U bufsize=%zu>", body, self->queue.size)
             : PyUnicode_FromFormat("<%U>", body);
    Py_DECREF(body);
    return rv;
}

static PyObject *
WritePipeTransport_write_eof(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return hl_transport_close(SELF(op)) < 0 ? NULL : Py_NewRef(Py_None);
}

PyDoc_STRVAR(WritePipeTransport_write_eof__doc__,
             "write_eof($self)\n--\n\n"
             "Close the pipe once everything written has been taken.");

static PyMethodDef ReadPipeTransport_methods[] = {
    {NULL, NULL, 0, NULL},
};

static PyMethodDef WritePipeTransport_methods[] = {
    {"write_eof", WritePipeTransport_write_eof, METH_NOARGS,
     WritePipeTransport_write_eof__doc__},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(
    ReadPipeTransport__doc__,
    "The reading end of a pipe, FIFO, socket or character device.\n\n"
    "Behaves as asyncio's own; made by loop.connect_read_pipe() only.");

PyDoc_STRVAR(
    WritePipeTransport__doc__,
    "The writing end of a pipe, FIFO, socket or character device.\n\n"
    "Behaves as asyncio's own; made by loop.connect_write_pipe() only.\n"
    "Each write() leaves in a system call of its own, and at once.");

static const hl_transport_spec ReadPipeTransport_spec = {
    .name = "hotloop._core.ReadPipeTransport",
    .doc = ReadPipeTransport__doc__,
    .repr = ReadPipeTransport_repr,
    .methods = ReadPipeTransport_methods,
    .getset = pipe_getset,
};

static const hl_transport_spec WritePipeTransport_spec = {
    .name = "hotloop._core.WritePipeTransport",
    .doc = WritePipeTransport__doc__,
    .repr = WritePipeTransport_repr,
    .methods = WritePipeTransport_methods,
    .getset = pipe_getset,
};

/* What both have of SocketTransport, and each by itself. */
static const char *const shared_by_both[] = {
    "close",        "is_closing",   "get_extra_info",
    "set_protocol", "get_protocol", "_add_reader",
    "_read_ready",  "_fatal_error", "_call_connection_lost",
    "_loop",        "_protocol",    "_extra",
    "_closing",     NULL,
};

static const char *const shared_by_readers[] = {
    "is_reading", "pause_reading", "resume_reading", "_paused", NULL,
};

static const char *const shared_by_writers[] = {
    "write",
    "writelines",
    "can_write_eof",
    "abort",
    "set_write_buffer_limits",
    "get_write_buffer_limits",
    "get_write_buffer_size",
    "_set_write_buffer_limits",
    "_maybe_pause_protocol",
    "_maybe_resume_protocol",
    "_write_ready",
    "_buffer",
    "_conn_lost",
    "_protocol_paused",
    "_high_water",
    "_low_water",
    NULL,
};

static int
type_add_max_size(PyTypeObject *type, hl_state *st)
{
    PyObject *size = PyLong_FromLong(HL_READ_BUFFER_SIZE);
    if (size == NULL) {
        return -1;
    }
    int rv = PyObject_SetAttr((PyObject *)type, st->str_max_size, size);
    Py_DECREF(size);
    return rv;
}

int
hl_pipe_types_init(PyObject *module, hl_state *st)
{
    if (hl_transport_add_type(module, &st->ReadPipeTransport_type,
                              &ReadPipeTransport_spec,
                              st->ReadTransport) < 0 ||
        hl_transport_share(st->ReadPipeTransport_type, shared_by_both) < 0 ||
        hl_transport_share(st->ReadPipeTransport_type, shared_by_readers) <
            0 ||
        type_add_max_size(st->ReadPipeTransport_type, st) < 0) {
        return -1;
    }
    if (hl_transport_add_type(module, &st->WritePipeTransport_type,
                              &WritePipeTransport_spec,
                              st->FlowControlMixin) < 0 ||
        hl_transport_share(st->WritePipeTransport_type, shared_by_both) < 0) {
        return -1;
    }
    return hl_transport_share(st->WritePipeTransport_type, shared_by_writers);
}
