/* transport_type.c - the Python side of SocketTransport.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "io/stream.h"

#include "base/args.h"
#include "io/fds.h"

#define SELF(op) ((hl_transport *)(op))

static PyObject *
none_or_null(int rv)
{
    return rv < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *
SocketTransport_write(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                      PyObject *kwnames)
{
    static const char *const names[] = {"data", NULL};
    static const hl_params params = {"write", names, 1, 1};
    PyObject *data;
    if (hl_params_parse(&params, args, nargs, kwnames, &data) < 0) {
        return NULL;
    }
    return none_or_null(hl_transport_write(SELF(op), data));
}

PyDoc_STRVAR(
    SocketTransport_write__doc__,
    "write($self, data)\n--\n\n"
    "Write bytes, a bytearray or a memoryview; never blocks.\n\n"
    "Several writes of one turn of the loop leave in one system call.  "
    "Raises\n"
    "TypeError for other types and RuntimeError after write_eof(); after the\n"
    "connection was lost data is dropped.  As "
    "asyncio.WriteTransport.write().");

static PyObject *
SocketTransport_writelines(PyObject *op, PyObject *const *args,
                           Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"list_of_data", NULL};
    static const hl_params params = {"writelines", names, 1, 1};
    PyObject *list_of_data;
    if (hl_params_parse(&params, args, nargs, kwnames, &list_of_data) < 0) {
        return NULL;
    }
    return none_or_null(hl_transport_writelines(SELF(op), list_of_data));
}

PyDoc_STRVAR(
    SocketTransport_writelines__doc__,
    "writelines($self, list_of_data)\n--\n\n"
    "Write an iterable of bytes-like objects without joining them first.");

static PyObject *
SocketTransport_write_eof(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return none_or_null(hl_transport_write_eof(SELF(op)));
}

PyDoc_STRVAR(
    SocketTransport_write_eof__doc__,
    "write_eof($self)\n--\n\n"
    "Shut down the writing side once everything written has been sent.");

static PyObject *
SocketTransport_can_write_eof(PyObject *Py_UNUSED(op),
                              PyObject *Py_UNUSED(ignored))
{
    Py_RETURN_TRUE;
}

PyDoc_STRVAR(SocketTransport_can_write_eof__doc__,
             "can_write_eof($self)\n--\n\n"
             "Return True: sockets can be half-closed.");

static PyObject *
SocketTransport_close(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return none_or_null(hl_transport_close(SELF(op)));
}

PyDoc_STRVAR(
    SocketTransport_close__doc__,
    "close($self)\n--\n\n"
    "Stop reading, send what is buffered, then call connection_lost(None).");

static PyObject *
SocketTransport_abort(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return none_or_null(hl_transport_force_close(SELF(op), NULL));
}

PyDoc_STRVAR(SocketTransport_abort__doc__,
             "abort($self)\n--\n\n"
             "Close without waiting for buffered data, which is lost.");

static PyObject *
SocketTransport_is_closing(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(SELF(op)->closing);
}

PyDoc_STRVAR(SocketTransport_is_closing__doc__,
             "is_closing($self)\n--\n\n"
             "Return True if the transport is closing or closed.");

static PyObject *
SocketTransport_is_reading(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(!SELF(op)->closing && !SELF(op)->paused);
}

PyDoc_STRVAR(SocketTransport_is_reading__doc__,
             "is_reading($self)\n--\n\n"
             "Return True unless closing or paused by pause_reading().");

static PyObject *
SocketTransport_pause_reading(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return none_or_null(hl_transport_pause_reading(SELF(op)));
}

PyDoc_STRVAR(SocketTransport_pause_reading__doc__,
             "pause_reading($self)\n--\n\n"
             "Receive nothing until resume_reading(); idempotent.");

static PyObject *
SocketTransport_resume_reading(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return none_or_null(hl_transport_resume_reading(SELF(op)));
}

PyDoc_STRVAR(SocketTransport_resume_reading__doc__,
             "resume_reading($self)\n--\n\n"
             "Receive again after pause_reading(); idempotent.");

static PyObject *
SocketTransport_get_extra_info(PyObject *op, PyObject *const *args,
                               Py_ssize_t nargs, PyObject *kwnames)
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
    SocketTransport_get_extra_info__doc__,
    "get_extra_info($self, name, default=None)\n--\n\n"
    "Return 'socket', 'sockname', 'peername' or what else was given when the\n"
    "transport was made; also after it was closed.");

static PyObject *
SocketTransport_set_protocol(PyObject *op, PyObject *const *args,
                             Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"protocol", NULL};
    static const hl_params params = {"set_protocol", names, 1, 1};
    PyObject *protocol;
    if (hl_params_parse(&params, args, nargs, kwnames, &protocol) < 0) {
        return NULL;
    }
    return none_or_null(hl_transport_set_protocol(SELF(op), protocol));
}

PyDoc_STRVAR(SocketTransport_set_protocol__doc__,
             "set_protocol($self, protocol)\n--\n\n"
             "Switch to another Protocol or BufferedProtocol.");

static PyObject *
SocketTransport_get_protocol(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    PyObject *protocol = SELF(op)->protocol;
    return Py_NewRef(protocol != NULL ? protocol : Py_None);
}

PyDoc_STRVAR(SocketTransport_get_protocol__doc__,
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
SocketTransport__maybe_pause_protocol(PyObject *op,
                                      PyObject *Py_UNUSED(ignored))
{
    if (hl_transport_buffer_size(SELF(op)) < 0) {
        return NULL;
    }
    return none_or_null(hl_flow_maybe_pause(SELF(op)));
}

static PyObject *
SocketTransport__maybe_resume_protocol(PyObject *op,
                                       PyObject *Py_UNUSED(ignored))
{
    if (hl_transport_buffer_size(SELF(op)) < 0) {
        return NULL;
    }
    return none_or_null(hl_flow_maybe_resume(SELF(op)));
}

static PyObject *
SocketTransport__set_write_buffer_limits(PyObject *op, PyObject *const *args,
                                         Py_ssize_t nargs, PyObject *kwnames)
{
    return none_or_null(limits_set(SELF(op), args, nargs, kwnames));
}

static PyObject *
SocketTransport_set_write_buffer_limits(PyObject *op, PyObject *const *args,
                                        Py_ssize_t nargs, PyObject *kwnames)
{
    if (limits_set(SELF(op), args, nargs, kwnames) < 0) {
        return NULL;
    }
    return SocketTransport__maybe_pause_protocol(op, NULL);
}

PyDoc_STRVAR(
    SocketTransport_set_write_buffer_limits__doc__,
    "set_write_buffer_limits($self, high=None, low=None)\n--\n\n"
    "Set when pause_writing() and resume_writing() are called, in bytes.\n\n"
    "Defaults: high is 65536 or four times low, low is a quarter of high.\n"
    "Raises ValueError unless high >= low >= 0.");

static PyObject *
SocketTransport_get_write_buffer_limits(PyObject *op,
                                        PyObject *Py_UNUSED(ignored))
{
    PyObject *low = hl_flow_low(SELF(op));
    PyObject *high = low == NULL ? NULL : hl_flow_high(SELF(op));
    PyObject *rv = high == NULL ? NULL : PyTuple_Pack(2, low, high);
    Py_XDECREF(low);
    Py_XDECREF(high);
    return rv;
}

PyDoc_STRVAR(SocketTransport_get_write_buffer_limits__doc__,
             "get_write_buffer_limits($self)\n--\n\n"
             "Return (low, high) in bytes.");

static PyObject *
SocketTransport_get_write_buffer_size(PyObject *op,
                                      PyObject *Py_UNUSED(ignored))
{
    Py_ssize_t size = hl_transport_buffer_size(SELF(op));
    return size < 0 ? NULL : PyLong_FromSsize_t(size);
}

PyDoc_STRVAR(SocketTransport_get_write_buffer_size__doc__,
             "get_write_buffer_size($self)\n--\n\n"
             "Return how many bytes the kernel has not taken yet.");

static PyObject *
SocketTransport__force_close(PyObject *op, PyObject *exc)
{
    return none_or_null(
        hl_transport_force_close(SELF(op), exc == Py_None ? NULL : exc));
}

static PyObject *
SocketTransport__fatal_error(PyObject *op, PyObject *const *args,
                             Py_ssize_t nargs, PyObject *kwnames)
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
    return none_or_null(
        hl_transport_fatal_error(SELF(op), values[0], message));
}

static PyObject *
SocketTransport__call_connection_lost(PyObject *op, PyObject *exc)
{
    return none_or_null(
        hl_transport_call_lost(SELF(op), exc == Py_None ? NULL : exc));
}

/* Called by a handle: its context becomes that of the reading side. */
static PyObject *
SocketTransport__add_reader(PyObject *op, PyObject *Py_UNUSED(args))
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
    return none_or_null(hl_transport_add_reader(self));
}

static PyObject *
SocketTransport__read_ready(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return none_or_null(hl_transport_read(SELF(op)));
}

static PyObject *
SocketTransport__write_ready(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return none_or_null(hl_transport_write_ready(SELF(op)));
}

static PyObject *
SocketTransport__make_empty_waiter(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return hl_transport_make_empty_waiter(SELF(op));
}

static PyObject *
SocketTransport__reset_empty_waiter(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return none_or_null(hl_transport_reset_empty_waiter(SELF(op)));
}

/* sendfile works on the socket by itself: the descriptor is lent to it. */
static PyObject *
SocketTransport__lend_socket(PyObject *op, PyObject *lent)
{
    hl_transport *self = SELF(op);
    int lend = PyObject_IsTrue(lent);
    if (lend < 0) {
        return NULL;
    }
    if (lend) {
        hl_transport_drop_watcher(self);
    }
    else if (self->loop != NULL && hl_transport_update_watcher(self) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

#define METHOD(name, flags) \
    {#name, SocketTransport_##name, flags, SocketTransport_##name##__doc__}
#define KEYWORDS(name)                           \
    {#name, HL_FASTCALL(SocketTransport_##name), \
     METH_FASTCALL | METH_KEYWORDS, SocketTransport_##name##__doc__}

PyMethodDef hl_transport_methods[] = {
    KEYWORDS(write),
    KEYWORDS(writelines),
    METHOD(write_eof, METH_NOARGS),
    METHOD(can_write_eof, METH_NOARGS),
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
    {"send_fds", HL_FASTCALL(hl_fds_send_method),
     METH_FASTCALL | METH_KEYWORDS, hl_fds_send_doc},
    {"recv_fds", hl_fds_recv_method, METH_NOARGS, hl_fds_recv_doc},
    {"_set_write_buffer_limits",
     HL_FASTCALL(SocketTransport__set_write_buffer_limits),
     METH_FASTCALL | METH_KEYWORDS,
     "_set_write_buffer_limits($self, high=None, low=None)\n--\n\n"},
    {"_maybe_pause_protocol", SocketTransport__maybe_pause_protocol,
     METH_NOARGS, "_maybe_pause_protocol($self)\n--\n\n"},
    {"_maybe_resume_protocol", SocketTransport__maybe_resume_protocol,
     METH_NOARGS, "_maybe_resume_protocol($self)\n--\n\n"},
    {"_force_close", SocketTransport__force_close, METH_O,
     "_force_close($self, exc, /)\n--\n\n"},
    {"_fatal_error", HL_FASTCALL(SocketTransport__fatal_error),
     METH_FASTCALL | METH_KEYWORDS,
     "_fatal_error($self, exc, message='Fatal error on transport')\n--\n\n"},
    {"_call_connection_lost", SocketTransport__call_connection_lost, METH_O,
     "_call_connection_lost($self, exc, /)\n--\n\n"},
    {"_add_reader", SocketTransport__add_reader, METH_VARARGS,
     "_add_reader($self, fd, callback, /, *args)\n--\n\n"},
    {"_read_ready", SocketTransport__read_ready, METH_NOARGS,
     "_read_ready($self)\n--\n\n"},
    {"_write_ready", SocketTransport__write_ready, METH_NOARGS,
     "_write_ready($self)\n--\n\n"},
    {"_make_empty_waiter", SocketTransport__make_empty_waiter, METH_NOARGS,
     "_make_empty_waiter($self)\n--\n\n"},
    {"_reset_empty_waiter", SocketTransport__reset_empty_waiter, METH_NOARGS,
     "_reset_empty_waiter($self)\n--\n\n"},
    {"_lend_socket", SocketTransport__lend_socket, METH_O,
     "_lend_socket($self, lent, /)\n--\n\n"},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(
    SocketTransport__doc__,
    "A TCP or Unix stream connection of a hotloop event loop.\n\n"
    "Behaves as asyncio's own selector transport; made by the loop only.");

static const hl_transport_spec SocketTransport_spec = {
    .name = "hotloop._core.SocketTransport",
    .doc = SocketTransport__doc__,
    .repr = hl_transport_repr,
    .methods = hl_transport_methods,
    .getset = hl_transport_getset,
};

static int
type_add_constants(PyObject *type, hl_state *st)
{
    PyObject *native = PyObject_GetAttrString(st->SendfileMode, "TRY_NATIVE");
    PyObject *size = PyLong_FromLong(HL_READ_BUFFER_SIZE);
    int rv = native == NULL || size == NULL ||
                     PyObject_SetAttr(type, st->str_max_size, size) < 0 ||
                     PyObject_SetAttrString(type, "_start_tls_compatible",
                                            Py_True) < 0 ||
                     PyObject_SetAttrString(type, "_sendfile_compatible",
                                            native) < 0
                 ? -1
                 : 0;
    Py_XDECREF(native);
    Py_XDECREF(size);
    return rv;
}

int
hl_transport_type_init(PyObject *module, hl_state *st)
{
    if (hl_transport_add_type(module, &st->SocketTransport_type,
                              &SocketTransport_spec,
                              st->FlowControlMixin) < 0) {
        return -1;
    }
    return type_add_constants((PyObject *)st->SocketTransport_type, st);
}
