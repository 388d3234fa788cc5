/* loop_net.c - Loop methods on addresses and client connections.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "api/api.h"

#include "base/args.h"
#include "io/connect.h"
#include "io/resolve.h"

/* The C int in an int or enum member: 1, or 0 without an exception if it is
 * none. */
static int
int_of(PyObject *op, int *value)
{
    if (!PyLong_Check(op)) {
        return 0;
    }
    *value = hl_long_as_int(op);
    if (*value == -1 && PyErr_Occurred()) {
        PyErr_Clear();
        return 0;
    }
    return 1;
}

PyDoc_STRVAR(Loop__numeric_addrinfo__doc__,
             "_numeric_addrinfo($self, host, port, family, type, proto, "
             "flags, /)\n--\n\n"
             "Return what socket.getaddrinfo() does, without blocking.\n\n"
             "None unless host and port are numeric or None, and where the "
             "result would\n"
             "be an error.");

static PyObject *
Loop__numeric_addrinfo(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    if (hl_args_count("_numeric_addrinfo", nargs, 6) < 0) {
        return NULL;
    }
    hl_addrinfo_query query = {.host = args[0], .port = args[1]};
    if (!int_of(args[2], &query.family) || !int_of(args[3], &query.type) ||
        !int_of(args[4], &query.proto) || !int_of(args[5], &query.flags)) {
        Py_RETURN_NONE;
    }
    return hl_numeric_addrinfo(((hl_loop *)op)->st, &query);
}

PyDoc_STRVAR(Loop__numeric_resolved__doc__,
             "_numeric_resolved($self, address, family, type, proto, /)\n--"
             "\n\n"
             "Return a list of one address info if address is numeric, else "
             "None.");

static PyObject *
Loop__numeric_resolved(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    if (hl_args_count("_numeric_resolved", nargs, 4) < 0) {
        return NULL;
    }
    return hl_numeric_resolved(((hl_loop *)op)->st, args[0], args[1], args[2],
                               args[3]);
}

PyDoc_STRVAR(Loop__connect__doc__,
             "_connect($self, family, type, proto, address, /)\n--\n\n"
             "Begin to connect a new socket to a numeric address.\n\n"
             "Return a Connector, to be awaited by its waiter, or None where "
             "the socket\n"
             "module has to decide.  Raise OSError as sock_connect() does.");

static PyObject *
Loop__connect(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    hl_loop *self = (hl_loop *)op;
    int family, type, proto;
    if (hl_args_count("_connect", nargs, 4) < 0) {
        return NULL;
    }
    if (self->connect_overridden || !int_of(args[0], &family) ||
        !int_of(args[1], &type) || !int_of(args[2], &proto)) {
        Py_RETURN_NONE;
    }
    return hl_connector_start(self, family, type, proto, args[3]);
}

PyDoc_STRVAR(Loop__finish_connect__doc__,
             "_finish_connect($self, connector, protocol, waiter, context, /)"
             "\n--\n\n"
             "Make the stream transport of a connected Connector.");

static PyObject *
Loop__finish_connect(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    if (hl_args_count("_finish_connect", nargs, 4) < 0) {
        return NULL;
    }
    return hl_connector_finish((hl_loop *)op, args[0], args[1], args[2],
                               args[3]);
}

#define METHOD(name) \
    {#name, HL_FASTCALL(Loop_##name), METH_FASTCALL, Loop_##name##__doc__}
PyMethodDef hl_loop_net_methods[] = {
    METHOD(_numeric_addrinfo), METHOD(_numeric_resolved), METHOD(_connect),
    METHOD(_finish_connect),   {NULL, NULL, 0, NULL},
};
