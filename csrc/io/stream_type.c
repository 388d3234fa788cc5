/* stream_type.c - the Python side of SocketTransport.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "io/stream.h"

#include "base/args.h"
#include "io/fds.h"

#define SELF(op) ((hl_transport *)(op))

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
    return hl_none_or_null(hl_transport_write(SELF(op), data));
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
    return hl_none_or_null(hl_transport_writelines(SELF(op), list_of_data));
}

PyDoc_STRVAR(
    SocketTransport_writelines__doc__,
    "writelines($self, list_of_data)\n--\n\n"
    "Write an iterable of bytes-like objects without joining them first.");

static PyObject *
SocketTransport_write_eof(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return hl_none_or_null(hl_transport_write_eof(SELF(op)));
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
SocketTransport__read_ready(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return hl_none_or_null(hl_transport_read(SELF(op)));
}

static PyObject *
SocketTransport__write_ready(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return hl_none_or_null(hl_transport_write_ready(SELF(op)));
}

static PyObject *
SocketTransport__make_empty_waiter(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return hl_transport_make_empty_waiter(SELF(op));
}

static PyObject *
SocketTransport__reset_empty_waiter(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return hl_none_or_null(hl_transport_reset_empty_waiter(SELF(op)));
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

PyMethodDef hl_stream_methods[] = {
    KEYWORDS(write),
    KEYWORDS(writelines),
    METHOD(write_eof, METH_NOARGS),
    METHOD(can_write_eof, METH_NOARGS),
    {"send_fds", HL_FASTCALL(hl_fds_send_method),
     METH_FASTCALL | METH_KEYWORDS, hl_fds_send_doc},
    {"recv_fds", hl_fds_recv_method, METH_NOARGS, hl_fds_recv_doc},
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
    .methods = hl_stream_methods,
    .getset = hl_stream_getset,
};

static int
type_add_constants(hl_state *st)
{
    PyObject *type = (PyObject *)st->SocketTransport_type;
    PyObject *native = PyObject_GetAttrString(st->SendfileMode, "TRY_NATIVE");
    int rv = native == NULL ||
                     PyObject_SetAttrString(type, "_start_tls_compatible",
                                            Py_True) < 0 ||
                     PyObject_SetAttrString(type, "_sendfile_compatible",
                                            native) < 0
                 ? -1
                 : 0;
    Py_XDECREF(native);
    return rv;
}

int
hl_stream_type_init(PyObject *module, hl_state *st)
{
    return hl_transport_add_type(module, &st->SocketTransport_type,
                                 &SocketTransport_spec,
                                 (PyObject *)st->Transport_type) < 0
               ? -1
               : type_add_constants(st);
}
