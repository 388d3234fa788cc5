/* loop_io.c - Loop methods on descriptors, transports and listeners.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "api/api.h"

#include "base/args.h"
#include "io/transport.h"
#include "loop/handle.h"
#include "loop/watcher.h"

/* The descriptor of an int or of an object with fileno(); -1 with the
 * ValueError that asyncio and selectors give. */
static int
fd_of(PyObject *file)
{
    long fd;
    if (PyLong_Check(file)) {
        fd = PyLong_AsLong(file);
    }
    else {
        PyObject *number = PyObject_CallMethod(file, "fileno", NULL);
        fd = number == NULL ? -1 : PyLong_AsLong(number);
        Py_XDECREF(number);
        if (fd == -1 && PyErr_Occurred() &&
            (PyErr_ExceptionMatches(PyExc_AttributeError) ||
             PyErr_ExceptionMatches(PyExc_TypeError) ||
             PyErr_ExceptionMatches(PyExc_ValueError))) {
            PyErr_Clear();
            PyErr_Format(PyExc_ValueError, "Invalid file object: %R", file);
            return -1;
        }
    }
    if (fd < 0 || fd > INT_MAX) {
        if (!PyErr_Occurred()) {
            PyErr_Format(PyExc_ValueError, "Invalid file descriptor: %ld", fd);
        }
        return -1;
    }
    return (int)fd;
}

/* RuntimeError if a live transport uses fd. */
static int
check_no_transport(hl_loop *self, int fd, PyObject *file)
{
    PyObject *transport = hl_transport_of_fd(self, fd);
    if (transport != NULL) {
        PyErr_Format(PyExc_RuntimeError,
                     "File descriptor %R is used by transport %R", file,
                     transport);
        return -1;
    }
    return 0;
}

PyDoc_STRVAR(
    Loop__core_transport__doc__,
    "_core_transport($self, fd, /)\n--\n\n"
    "Return the C transport that uses fd and is not closing, or None.");

static PyObject *
Loop__core_transport(PyObject *op, PyObject *file)
{
    int fd = fd_of(file);
    if (fd < 0) {
        return NULL;
    }
    PyObject *transport = hl_transport_of_fd((hl_loop *)op, fd);
    return Py_NewRef(transport == NULL ? Py_None : transport);
}

static PyObject *
add_handle(hl_loop *self, const hl_args_spec *spec, int which,
           PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    hl_args a;
    if (hl_loop_check_closed(self) < 0 ||
        hl_args_parse(spec, self->st->empty_tuple, args, nargs, kwnames, &a) <
            0) {
        return NULL;
    }
    PyObject *handle = NULL;
    int fd = fd_of(a.leading[0]);
    if (fd >= 0) {
        handle = hl_handle_new(self, a.leading[1], a.rest, a.context);
    }
    if (handle != NULL &&
        hl_watcher_set_handle(self, fd, which, Py_NewRef(handle)) < 0) {
        Py_CLEAR(handle);
    }
    Py_DECREF(a.rest);
    return handle;
}

PyDoc_STRVAR(
    Loop__add_reader__doc__,
    "_add_reader($self, fd, callback, *args, context=None)\n--\n\n"
    "Watch fd for reading without asking for transports; return the handle.");

static PyObject *
Loop__add_reader(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                 PyObject *kwnames)
{
    static const hl_args_spec spec = {
        "Loop._add_reader", {"fd", "callback"}, true};
    return add_handle((hl_loop *)op, &spec, UV_READABLE, args, nargs, kwnames);
}

PyDoc_STRVAR(
    Loop__add_writer__doc__,
    "_add_writer($self, fd, callback, *args, context=None)\n--\n\n"
    "Watch fd for writing without asking for transports; return the handle.");

static PyObject *
Loop__add_writer(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                 PyObject *kwnames)
{
    static const hl_args_spec spec = {
        "Loop._add_writer", {"fd", "callback"}, true};
    return add_handle((hl_loop *)op, &spec, UV_WRITABLE, args, nargs, kwnames);
}

/* Removes one handle; a listener counts as the reader of its socket. */
static PyObject *
remove_handle(hl_loop *self, int which, PyObject *file)
{
    if (self->closed) {
        Py_RETURN_FALSE;
    }
    int fd = fd_of(file);
    if (fd < 0) {
        /* selectors look a closed or odd file up in vain, and say so. */
        if (!PyErr_ExceptionMatches(PyExc_ValueError)) {
            return NULL;
        }
        PyErr_Clear();
        Py_RETURN_FALSE;
    }
    int removed = hl_watcher_remove_handle(self, fd, which);
    if (removed == 0 && which == UV_READABLE) {
        removed = hl_listener_stop(self, fd);
    }
    return removed < 0 ? NULL : PyBool_FromLong(removed);
}

PyDoc_STRVAR(Loop__remove_reader__doc__,
             "_remove_reader($self, fd, /)\n--\n\n"
             "Stop watching fd for reading; return True if it was watched.");

static PyObject *
Loop__remove_reader(PyObject *op, PyObject *file)
{
    return remove_handle((hl_loop *)op, UV_READABLE, file);
}

PyDoc_STRVAR(Loop__remove_writer__doc__,
             "_remove_writer($self, fd, /)\n--\n\n"
             "Stop watching fd for writing; return True if it was watched.");

static PyObject *
Loop__remove_writer(PyObject *op, PyObject *file)
{
    return remove_handle((hl_loop *)op, UV_WRITABLE, file);
}

PyDoc_STRVAR(
    Loop__watched__doc__,
    "_watched($self, fd, /)\n--\n\n"
    "Return (events, reader, writer) of a watched descriptor, or None.\n\n"
    "events is a mask of 1 (readable) and 2 (writable); reader and writer "
    "are\n"
    "handles or None.");

static PyObject *
Loop__watched(PyObject *op, PyObject *file)
{
    int fd = fd_of(file);
    if (fd < 0) {
        return NULL;
    }
    hl_watcher *watcher = hl_watcher_find((hl_loop *)op, fd);
    if (watcher == NULL || watcher->wanted == 0) {
        Py_RETURN_NONE;
    }
    return Py_BuildValue("iOO", watcher->wanted,
                         watcher->reader.obj ? watcher->reader.obj : Py_None,
                         watcher->writer.obj ? watcher->writer.obj : Py_None);
}

PyDoc_STRVAR(Loop__watched_fds__doc__,
             "_watched_fds($self, /)\n--\n\n"
             "Return the list of watched descriptors.");

static PyObject *
Loop__watched_fds(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    hl_loop *self = (hl_loop *)op;
    PyObject *list = PyList_New(0);
    for (int fd = 0; list != NULL && fd < self->watchers_size; fd++) {
        hl_watcher *watcher = self->watchers[fd];
        if (watcher == NULL || watcher->wanted == 0) {
            continue;
        }
        PyObject *number = PyLong_FromLong(fd);
        if (number == NULL || PyList_Append(list, number) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(number);
    }
    return list;
}

PyDoc_STRVAR(
    Loop__mark_internal__doc__,
    "_mark_internal($self, fd, /)\n--\n\n"
    "Tell the loop that fd is its own self-pipe, not the application's.");

static PyObject *
Loop__mark_internal(PyObject *op, PyObject *file)
{
    hl_loop *self = (hl_loop *)op;
    int fd = fd_of(file);
    if (fd < 0) {
        return NULL;
    }
    hl_watcher *watcher = hl_watcher_find(self, fd);
    if (watcher != NULL && !watcher->internal) {
        watcher->internal = true;
        self->watching_internal += watcher->wanted != 0;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(Loop__make_socket_transport__doc__,
             "_make_socket_transport($self, sock, protocol, waiter=None, *, "
             "extra=None,\n"
             "                       server=None, context=None)\n--\n\n"
             "Make a stream transport on a connected, non-blocking socket.\n\n"
             "Raise RuntimeError if a live transport uses the socket.  "
             "asyncio's seam.");

static PyObject *
Loop__make_socket_transport(PyObject *op, PyObject *const *args,
                            Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {
        "sock", "protocol", "waiter", "extra", "server", "context", NULL};
    static const hl_params params = {"Loop._make_socket_transport", names, 3,
                                     2};
    hl_loop *self = (hl_loop *)op;
    PyObject *v[6];
    if (hl_params_parse(&params, args, nargs, kwnames, v) < 0) {
        return NULL;
    }
    int fd = fd_of(v[0]);
    if (fd < 0 || check_no_transport(self, fd, v[0]) < 0) {
        return NULL;
    }
    return hl_transport_new(self, v[0], v[1], v[2], v[3], v[4], v[5]);
}

PyDoc_STRVAR(Loop__make_datagram_transport__doc__,
             "_make_datagram_transport($self, sock, protocol, address=None, "
             "waiter=None,\n"
             "                         extra=None)\n--\n\n"
             "Make a datagram transport on a bound or connected socket.\n\n"
             "Raise RuntimeError if a live transport uses the socket.  "
             "asyncio's seam.");

static PyObject *
Loop__make_datagram_transport(PyObject *op, PyObject *const *args,
                              Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"sock",   "protocol", "address",
                                        "waiter", "extra",    NULL};
    static const hl_params params = {"Loop._make_datagram_transport", names, 5,
                                     2};
    hl_loop *self = (hl_loop *)op;
    PyObject *v[5];
    if (hl_params_parse(&params, args, nargs, kwnames, v) < 0) {
        return NULL;
    }
    int fd = fd_of(v[0]);
    if (fd < 0 || check_no_transport(self, fd, v[0]) < 0) {
        return NULL;
    }
    return hl_datagram_new(self, v[0], v[1], v[2], v[3], v[4]);
}

static PyObject *
make_pipe_transport(PyObject *op, const char *function,
                    PyObject *(*make)(hl_loop *, PyObject *, PyObject *,
                                      PyObject *, PyObject *),
                    PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"pipe", "protocol", "waiter", "extra",
                                        NULL};
    const hl_params params = {function, names, 4, 2};
    PyObject *v[4];
    if (hl_params_parse(&params, args, nargs, kwnames, v) < 0) {
        return NULL;
    }
    return make((hl_loop *)op, v[0], v[1], v[2], v[3]);
}

PyDoc_STRVAR(Loop__make_read_pipe_transport__doc__,
             "_make_read_pipe_transport($self, pipe, protocol, waiter=None, "
             "extra=None)\n--\n\n"
             "Make a transport that reads from an open file and owns it.\n\n"
             "Raise ValueError unless it is a pipe, a socket or a character\n"
             "device.  asyncio's seam.");

static PyObject *
Loop__make_read_pipe_transport(PyObject *op, PyObject *const *args,
                               Py_ssize_t nargs, PyObject *kwnames)
{
    return make_pipe_transport(op, "Loop._make_read_pipe_transport",
                               hl_read_pipe_new, args, nargs, kwnames);
}

PyDoc_STRVAR(Loop__make_write_pipe_transport__doc__,
             "_make_write_pipe_transport($self, pipe, protocol, waiter=None, "
             "extra=None)\n--\n\n"
             "Make a transport that writes to an open file and owns it.\n\n"
             "Raise ValueError unless it is a pipe, a socket or a character\n"
             "device.  asyncio's seam.");

static PyObject *
Loop__make_write_pipe_transport(PyObject *op, PyObject *const *args,
                                Py_ssize_t nargs, PyObject *kwnames)
{
    return make_pipe_transport(op, "Loop._make_write_pipe_transport",
                               hl_write_pipe_new, args, nargs, kwnames);
}

PyDoc_STRVAR(Loop__serve__doc__, "_serve($self, protocol_factory, sock, "
                                 "server, backlog, context, tls, /)\n--\n\n"
                                 "Accept connections on a listening socket "
                                 "until its reader is removed.\n\n"
                                 "tls is None or (sslcontext, "
                                 "ssl_handshake_timeout, "
                                 "ssl_shutdown_timeout).");

static PyObject *
Loop__serve(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    if (hl_args_count("_serve", nargs, 6) < 0) {
        return NULL;
    }
    PyObject *tls = args[5] == Py_None ? NULL : args[5];
    if (tls != NULL && (!PyTuple_Check(tls) || PyTuple_GET_SIZE(tls) != 3)) {
        PyErr_SetString(PyExc_TypeError, "tls must be a tuple of three");
        return NULL;
    }
    int backlog = hl_long_as_int(args[3]);
    if (backlog == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (hl_listener_start((hl_loop *)op, args[0], args[1], args[2], backlog,
                          args[4], hl_loop_wrap_accepted, tls) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

#define FASTCALL (METH_FASTCALL | METH_KEYWORDS)
PyMethodDef hl_loop_io_methods[] = {
    {"_core_transport", Loop__core_transport, METH_O,
     Loop__core_transport__doc__},
    {"_add_reader", HL_FASTCALL(Loop__add_reader), FASTCALL,
     Loop__add_reader__doc__},
    {"_add_writer", HL_FASTCALL(Loop__add_writer), FASTCALL,
     Loop__add_writer__doc__},
    {"_remove_reader", Loop__remove_reader, METH_O,
     Loop__remove_reader__doc__},
    {"_remove_writer", Loop__remove_writer, METH_O,
     Loop__remove_writer__doc__},
    {"_watched", Loop__watched, METH_O, Loop__watched__doc__},
    {"_watched_fds", Loop__watched_fds, METH_NOARGS, Loop__watched_fds__doc__},
    {"_mark_internal", Loop__mark_internal, METH_O,
     Loop__mark_internal__doc__},
    {"_make_socket_transport", HL_FASTCALL(Loop__make_socket_transport),
     FASTCALL, Loop__make_socket_transport__doc__},
    {"_make_datagram_transport", HL_FASTCALL(Loop__make_datagram_transport),
     FASTCALL, Loop__make_datagram_transport__doc__},
    {"_make_read_pipe_transport", HL_FASTCALL(Loop__make_read_pipe_transport),
     FASTCALL, Loop__make_read_pipe_transport__doc__},
    {"_make_write_pipe_transport",
     HL_FASTCALL(Loop__make_write_pipe_transport), FASTCALL,
     Loop__make_write_pipe_transport__doc__},
    {"_serve", HL_FASTCALL(Loop__serve), METH_FASTCALL, Loop__serve__doc__},
    {NULL, NULL, 0, NULL},
};
