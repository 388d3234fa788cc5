/* transport_type.c - the Python side of what all transports share.
 *
 * As in asyncio it is a type of its own, of which those of sockets are
 * subclasses.
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "io/stream.h"

#include "base/args.h"

#define SELF(op) ((hl_transport *)(op))

static PyObject *
Transport_close(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return hl_none_or_null(hl_transport_close(SELF(op)));
}

PyDoc_STRVAR(
    Transport_close__doc__,
    "close($self)\n--\n\n"
    "Stop reading, send what is buffered, then call connection_lost(None).");

static PyObject *
Transport_abort(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return hl_none_or_null(hl_transport_force_close(SELF(op), NULL));
}

PyDoc_STRVAR(Transport_abort__doc__,
             "abort($self)\n--\n\n"
             "Close without waiting for buffered data, which is lost.");

static PyObject *
Transport_is_closing(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(SELF(op)->closing);
}

PyDoc_STRVAR(Transport_is_closing__doc__,
             "is_closing($self)\n--\n\n"
             "Return True if the transport is closing or closed.");

static PyObject *
Transport_is_reading(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(!SELF(op)->closing && !SELF(op)->paused);
}

PyDoc_STRVAR(Transport_is_reading__doc__,
             "is_reading($self)\n--\n\n"
             "Return True unless closing or paused by pause_reading().");

static PyObject *
Transport_pause_reading(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return hl_none_or_null(hl_transport_pause_reading(SELF(op)));
}

PyDoc_STRVAR(Transport_pause_reading__doc__,
             "pause_reading($self)\n--\n\n"
             "Receive nothing until resume_reading(); idempotent.");

static PyObject *
Transport_resume_reading(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return hl_none_or_null(hl_transport_resume_reading(SELF(op)));
}

PyDoc_STRVAR(Transport_resume_reading__doc__,
             "resume_reading($self)\n--\n\n"
             "Receive again after pause_reading(); idempotent.");

static PyObject *
Transport_get_extra_info(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                         PyObject *kwnames)
{
    static const char *const names[] = {"name", "default", NULL};
    static const hl_params params = {"get_extra_info", names, 2, 1};
    PyObject *values[2];
    if (hl_params_parse(&params, args, nargs, kwnames, values) < 0) {
        return NULL;
    }
    return hl_transport_extra_info(SELF(op), values[0],
                                   values[1] != NULL ? values[1] : Py_None);
}

PyDoc_STRVAR(
    Transport_get_extra_info__doc__,
    "get_extra_info($self, name, default=None)\n--\n\n"
    "Return 'socket', 'sockname', 'peername' or what else was given when the\n"
    "transport was made; also after it was closed.");

static PyObject *
Transport_set_protocol(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                       PyObject *kwnames)
{
    static const char *const names[] = {"protocol", NULL};
    static const hl_params params = {"set_protocol", names, 1, 1};
    PyObject *protocol;
    if (hl_params_parse(&params, args, nargs, kwnames, &protocol) < 0) {
        return NULL;
    }
    return hl_none_or_null(hl_transport_set_protocol(SELF(op), protocol));
}

PyDoc_STRVAR(Transport_set_protocol__doc__,
             "set_protocol($self, protocol)\n--\n\n"
             "Switch to another Protocol or BufferedProtocol.");

static PyObject *
Transport_get_protocol(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    PyObject *protocol = SELF(op)->protocol;
    return Py_NewRef(protocol != NULL ? protocol : Py_None);
}

PyDoc_STRVAR(Transport_get_protocol__doc__,
             "get_protocol($self)\n--\n\n"
             "Return the protocol, None after connection_lost().");

static int
limits_set(hl_transport *self, PyObject *const *args, Py_ssize_t nargs,
           PyObject *kwnames)
{
    static const char *const names[] = {"high", "low", NULL};
    static const hl_params params = {"set_write_buffer_limits", names, 2, 0};
    PyObject *values[2];
    if (hl_params_parse(&params, args, nargs, kwnames, values) < 0) {
        return -1;
    }
    return hl_flow_set_limits(self, values[0], values[1]);
}

static PyObject *
Transport__maybe_pause_protocol(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    if (hl_transport_buffer_size(SELF(op)) < 0) {
        return NULL;
    }
    return hl_none_or_null(hl_flow_maybe_pause(SELF(op)));
}

static PyObject *
Transport__maybe_resume_protocol(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    if (hl_transport_buffer_size(SELF(op)) < 0) {
        return NULL;
    }
    return hl_none_or_null(hl_flow_maybe_resume(SELF(op)));
}

static PyObject *
Transport__set_write_buffer_limits(PyObject *op, PyObject *const *args,
                                   Py_ssize_t nargs, PyObject *kwnames)
{
    return hl_none_or_null(limits_set(SELF(op), args, nargs, kwnames));
}

static PyObject *
Transport_set_write_buffer_limits(PyObject *op, PyObject *const *args,
                                  Py_ssize_t nargs, PyObject *kwnames)
{
    if (limits_set(SELF(op), args, nargs, kwnames) < 0) {
        return NULL;
    }
    return Transport__maybe_pause_protocol(op, NULL);
}

PyDoc_STRVAR(
    Transport_set_write_buffer_limits__doc__,
    "set_write_buffer_limits($self, high=None, low=None)\n--\n\n"
    "Set when pause_writing() and resume_writing() are called, in bytes.\n\n"
    "Defaults: high is 65536 or four times low, low is a quarter of high.\n"
    "Raises ValueError unless high >= low >= 0.");

static PyObject *
Transport_get_write_buffer_limits(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    PyObject *low = hl_flow_low(SELF(op));
    PyObject *high = low == NULL ? NULL : hl_flow_high(SELF(op));
    PyObject *rv = high == NULL ? NULL : PyTuple_Pack(2, low, high);
    Py_XDECREF(low);
    Py_XDECREF(high);
    return rv;
}

PyDoc_STRVAR(Transport_get_write_buffer_limits__doc__,
             "get_write_buffer_limits($self)\n--\n\n"
             "Return (low, high) in bytes.");

static PyObject *
Transport_get_write_buffer_size(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    Py_ssize_t size = hl_transport_buffer_size(SELF(op));
    return size < 0 ? NULL : PyLong_FromSsize_t(size);
}

PyDoc_STRVAR(Transport_get_write_buffer_size__doc__,
             "get_write_buffer_size($self)\n--\n\n"
             "Return how many bytes the kernel has not taken yet.");

static PyObject *
Transport__force_close(PyObject *op, PyObject *exc)
{
    return hl_none_or_null(
        hl_transport_force_close(SELF(op), exc == Py_None ? NULL : exc));
}

static PyObject *
Transport__fatal_error(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                       PyObject *kwnames)
{
    static const char *const names[] = {"exc", "message", NULL};
    static const hl_params params = {"_fatal_error", names, 2, 1};
    PyObject *values[2];
    if (hl_params_parse(&params, args, nargs, kwnames, values) < 0) {
        return NULL;
    }
    const char *message = SELF(op)->ops->fatal_error;
    if (values[1] != NULL && (message = PyUnicode_AsUTF8(values[1])) == NULL) {
        return NULL;
    }
    return hl_none_or_null(
        hl_transport_fatal_error(SELF(op), values[0], message));
}

static PyObject *
Transport__call_connection_lost(PyObject *op, PyObject *exc)
{
    return hl_none_or_null(
        hl_transport_call_lost(SELF(op), exc == Py_None ? NULL : exc));
}

/* Called by a handle: its context becomes that of the reading side. */
static PyObject *
Transport__add_reader(PyObject *op, PyObject *Py_UNUSED(args))
{
    hl_transport *self = SELF(op);
    if (self->closing || self->paused || self->deaf) {
        Py_RETURN_NONE;
    }
    if (!self->own_context) {
        PyObject *context = PyContext_CopyCurrent();
        if (context == NULL) {
            return NULL;
        }
        Py_XSETREF(self->context, context);
    }
    return hl_none_or_null(hl_transport_add_reader(self));
}

#define METHOD(name, flags) \
    {#name, Transport_##name, flags, Transport_##name##__doc__}
#define KEYWORDS(name)                                                    \
    {#name, HL_FASTCALL(Transport_##name), METH_FASTCALL | METH_KEYWORDS, \
     Transport_##name##__doc__}

PyMethodDef hl_transport_methods[] = {
    METHOD(close, METH_NOARGS),
    METHOD(abort, METH_NOARGS),
    METHOD(is_closing, METH_NOARGS),
    METHOD(is_reading, METH_NOARGS),
    METHOD(pause_reading, METH_NOARGS),
    METHOD(resume_reading, METH_NOARGS),
    KEYWORDS(get_extra_info),
    KEYWORDS(set_protocol),
    METHOD(get_protocol, METH_NOARGS),
    KEYWORDS(set_write_buffer_limits),
    METHOD(get_write_buffer_limits, METH_NOARGS),
    METHOD(get_write_buffer_size, METH_NOARGS),
    {"_set_write_buffer_limits",
     HL_FASTCALL(Transport__set_write_buffer_limits),
     METH_FASTCALL | METH_KEYWORDS,
     "_set_write_buffer_limits($self, high=None, low=None)\n--\n\n"},
    {"_maybe_pause_protocol", Transport__maybe_pause_protocol, METH_NOARGS,
     "_maybe_pause_protocol($self)\n--\n\n"},
    {"_maybe_resume_protocol", Transport__maybe_resume_protocol, METH_NOARGS,
     "_maybe_resume_protocol($self)\n--\n\n"},
    {"_force_close", Transport__force_close, METH_O,
     "_force_close($self, exc, /)\n--\n\n"},
    {"_fatal_error", HL_FASTCALL(Transport__fatal_error),
     METH_FASTCALL | METH_KEYWORDS,
     "_fatal_error($self, exc, message='Fatal error on transport')\n--\n\n"},
    {"_call_connection_lost", Transport__call_connection_lost, METH_O,
     "_call_connection_lost($self, exc, /)\n--\n\n"},
    {"_add_reader", Transport__add_reader, METH_VARARGS,
     "_add_reader($self, fd, callback, /, *args)\n--\n\n"},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(Transport__doc__,
             "What the transports of a hotloop event loop share.");

static const hl_transport_spec Transport_spec = {
    .name = "hotloop._core._Transport",
    .doc = Transport__doc__,
    .flags = Py_TPFLAGS_BASETYPE,
    .repr = hl_transport_repr,
    .methods = hl_transport_methods,
    .getset = hl_transport_getset,
};

int
hl_transport_type_init(PyObject *module, hl_state *st)
{
    if (hl_transport_add_type(module, &st->Transport_type, &Transport_spec,
                              st->FlowControlMixin) < 0) {
        return -1;
    }
    PyObject *size = PyLong_FromLong(HL_READ_BUFFER_SIZE);
    int rv = size == NULL ? -1
                          : PyObject_SetAttr((PyObject *)st->Transport_type,
                                             st->str_max_size, size);
    Py_XDECREF(size);
    return rv;
}
