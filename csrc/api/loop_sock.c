/* loop_sock.c - Loop methods behind sock_recv() and its like.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "api/api.h"

#include "base/args.h"
#include "io/sock.h"

PyDoc_STRVAR(Loop__try_recv__doc__,
             "_try_recv($self, sock, n, /)\n--\n\n"
             "Receive up to n bytes, if there are any.\n\n"
             "Else return a SockWait to await before trying again, or\n"
             "NotImplemented where the inherited sock_recv() must do it.");

static PyObject *
Loop__try_recv(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    return hl_args_count("_try_recv", nargs, 2) < 0
               ? NULL
               : hl_sock_recv((hl_loop *)op, args[0], args[1]);
}

PyDoc_STRVAR(
    Loop__try_recv_into__doc__,
    "_try_recv_into($self, sock, buf, /)\n--\n\n"
    "Receive into a buffer; return how many bytes came.\n\n"
    "Else return a SockWait to await before trying again, or\n"
    "NotImplemented where the inherited sock_recv_into() must do it.");

static PyObject *
Loop__try_recv_into(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    return hl_args_count("_try_recv_into", nargs, 2) < 0
               ? NULL
               : hl_sock_recv_into((hl_loop *)op, args[0], args[1]);
}

PyDoc_STRVAR(Loop__try_recvfrom__doc__,
             "_try_recvfrom($self, sock, n, /)\n--\n\n"
             "Receive a datagram; return (bytes, address).\n\n"
             "Else return a SockWait to await before trying again, or\n"
             "NotImplemented where the inherited sock_recvfrom() must do it.");

static PyObject *
Loop__try_recvfrom(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    return hl_args_count("_try_recvfrom", nargs, 2) < 0
               ? NULL
               : hl_sock_recvfrom((hl_loop *)op, args[0], args[1]);
}

PyDoc_STRVAR(
    Loop__try_recvfrom_into__doc__,
    "_try_recvfrom_into($self, sock, buf, n, /)\n--\n\n"
    "Receive up to n bytes into a buffer; return (size, address).\n\n"
    "Else return a SockWait to await before trying again, or\n"
    "NotImplemented where the inherited sock_recvfrom_into() must do it.");

static PyObject *
Loop__try_recvfrom_into(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    return hl_args_count("_try_recvfrom_into", nargs, 3) < 0
               ? NULL
               : hl_sock_recvfrom_into((hl_loop *)op, args[0], args[1],
                                       args[2]);
}

PyDoc_STRVAR(Loop__try_sendall__doc__,
             "_try_sendall($self, sock, data, /)\n--\n\n"
             "Send all of data; return None.\n\n"
             "Else return a SockWait to await, after which that is done, or\n"
             "NotImplemented where the inherited sock_sendall() must do it.");

static PyObject *
Loop__try_sendall(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    return hl_args_count("_try_sendall", nargs, 2) < 0
               ? NULL
               : hl_sock_sendall((hl_loop *)op, args[0], args[1]);
}

PyDoc_STRVAR(Loop__try_sendto__doc__,
             "_try_sendto($self, sock, data, address, /)\n--\n\n"
             "Send a datagram; return its size in bytes.\n\n"
             "Else return a SockWait to await before trying again, or\n"
             "NotImplemented where the inherited sock_sendto() must do it.");

static PyObject *
Loop__try_sendto(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    return hl_args_count("_try_sendto", nargs, 3) < 0
               ? NULL
               : hl_sock_sendto((hl_loop *)op, args[0], args[1], args[2]);
}

PyDoc_STRVAR(Loop__try_connect__doc__,
             "_try_connect($self, sock, address, /)\n--\n\n"
             "Connect to a numeric address; return None.\n\n"
             "Else return a SockWait to await, after which that is done, or\n"
             "NotImplemented where the inherited sock_connect() must do it.");

static PyObject *
Loop__try_connect(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    return hl_args_count("_try_connect", nargs, 2) < 0
               ? NULL
               : hl_sock_connect((hl_loop *)op, args[0], args[1]);
}

PyDoc_STRVAR(Loop__try_accept__doc__,
             "_try_accept($self, sock, /)\n--\n\n"
             "Accept a connection; return (socket, address).\n\n"
             "Else return a SockWait to await before trying again, or\n"
             "NotImplemented where the inherited sock_accept() must do it.");

static PyObject *
Loop__try_accept(PyObject *op, PyObject *sock)
{
    return hl_sock_accept((hl_loop *)op, sock);
}

PyDoc_STRVAR(Loop__try_sendfile__doc__,
             "_try_sendfile($self, future, sock, fileno, offset, count, "
             "blocksize, /)\n--\n\n"
             "Send a file until future is done; return True.\n\n"
             "Return False where the inherited method must do it.");

static PyObject *
Loop__try_sendfile(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    if (hl_args_count("_try_sendfile", nargs, 6) < 0) {
        return NULL;
    }
    int fd = hl_long_as_int(args[2]);
    if (fd == -1 && PyErr_Occurred()) {
        return NULL;
    }
    int rv = hl_sock_sendfile((hl_loop *)op, args[0], args[1], fd, args[3],
                              args[4], args[5]);
    return rv < 0 ? NULL : PyBool_FromLong(rv);
}

#define TRY(name)                                                 \
    {"_try_" #name, HL_FASTCALL(Loop__try_##name), METH_FASTCALL, \
     Loop__try_##name##__doc__}
PyMethodDef hl_loop_sock_methods[] = {
    TRY(recv),
    TRY(recv_into),
    TRY(recvfrom),
    TRY(recvfrom_into),
    TRY(sendall),
    TRY(sendto),
    TRY(connect),
    TRY(sendfile),
    {"_try_accept", Loop__try_accept, METH_O, Loop__try_accept__doc__},
    {NULL, NULL, 0, NULL},
};
