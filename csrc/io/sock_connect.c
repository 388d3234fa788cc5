/* sock_connect.c - sock_connect() and sock_accept().
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "io/sock_int.h"

#include "io/accept.h"
#include "state/errors.h"

#include <errno.h>
#include <unistd.h>

/* ---- connecting ---- */

/* Would asyncio connect to the address without a look at getaddrinfo()?  It
 * does for TCP and UDP. */
static bool
is_resolvable(const hl_state *st, PyObject *sock)
{
    int family = hl_sock_family(st, sock);
    int type = hl_sock_field(sock, st->socket_slots.type);
    int proto = hl_sock_field(sock, st->socket_slots.proto);
    return (family == AF_INET || family == AF_INET6) &&
           (type == SOCK_STREAM || type == SOCK_DGRAM) &&
           (proto == 0 || proto == IPPROTO_TCP || proto == IPPROTO_UDP);
}

/* The address as asyncio passes it on: that of IPv6 with all of its four
 * parts.  New reference or NULL. */
static PyObject *
full_address(PyObject *address, const hl_address *raw)
{
    if (raw->sa.sa_family == AF_INET || PyTuple_GET_SIZE(address) == 4) {
        return Py_NewRef(address);
    }
    return Py_BuildValue("OOII", PyTuple_GET_ITEM(address, 0),
                         PyTuple_GET_ITEM(address, 1),
                         (unsigned)ntohl(raw->in6.sin6_flowinfo),
                         (unsigned)raw->in6.sin6_scope_id);
}

static int
raise_failed(int errnum, PyObject *address)
{
    PyObject *text = PyUnicode_FromFormat("Connect call failed %S", address);
    PyObject *exc = text == NULL ? NULL
                                 : PyObject_CallFunction(PyExc_OSError, "iO",
                                                         errnum, text);
    Py_XDECREF(text);
    if (exc != NULL) {
        hl_error_restore(exc);
    }
    return -1;
}

/* The kernel has decided. */
static int
connect_step(hl_sock_wait *wait)
{
    int errnum = 0;
    socklen_t size = sizeof(errnum);
    int fd = hl_sock_fileno(hl_loop_state(wait->loop), wait->sock);
    if (fd < 0) {
        return -1;
    }
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &errnum, &size) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    switch (errnum) {
    case 0:
        return 1;
    case EAGAIN:
    case EALREADY:
    case EINPROGRESS:
    case EINTR:
        return 0;
    default:
        wait->loop->counts.connects_failed++;
        return raise_failed(errnum, wait->address);
    }
}

static PyObject *
connect_begin(hl_loop *loop, PyObject *sock, PyObject *address,
              const hl_address *raw, socklen_t size)
{
    /* A hook may close the socket. */
    if (PySys_Audit("socket.connect", "OO", sock, address) < 0) {
        return NULL;
    }
    int fd = hl_sock_fileno(hl_loop_state(loop), sock);
    if (fd < 0) {
        return NULL;
    }
    int rv = connect(fd, &raw->sa, size);
    loop->must_poll = true; /* the peer may be in this loop */
    if (rv == 0) {
        Py_RETURN_NONE;
    }
    /* What was interrupted goes on in the background. */
    if (errno != EINPROGRESS && errno != EINTR && errno != EAGAIN &&
        errno != EALREADY) {
        loop->counts.connects_failed++;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    hl_sock_wait *wait = (hl_sock_wait *)hl_sock_wait_for(
        loop, sock, fd, UV_WRITABLE, connect_step);
    if (wait != NULL) {
        wait->address = Py_NewRef(address);
    }
    return (PyObject *)wait;
}

PyObject *
hl_sock_connect(hl_loop *loop, PyObject *sock, PyObject *address)
{
    hl_state *st = hl_loop_state(loop);
    hl_address raw;
    socklen_t size;
    int fd, ours = hl_sock_open(loop, sock, &fd);
    if (ours <= 0) {
        return ours < 0 ? NULL : Py_NewRef(Py_NotImplemented);
    }
    if (!is_resolvable(st, sock) ||
        !hl_address_from_python(hl_sock_family(st, sock), address, &raw,
                                &size)) {
        Py_RETURN_NOTIMPLEMENTED;
    }
    PyObject *full = full_address(address, &raw);
    if (full == NULL) {
        return NULL;
    }
    PyObject *result = connect_begin(loop, sock, full, &raw, size);
    Py_DECREF(full);
    return result;
}

/* ---- accepting ---- */

/* A non-blocking socket.socket of the kind of sock; takes over fd in any
 * case. */
static PyObject *
accepted_socket(hl_state *st, PyObject *sock, int fd)
{
    PyObject *conn = PyObject_CallFunction(
        st->socket_type, "iiii", hl_sock_family(st, sock),
        hl_sock_field(sock, st->socket_slots.type),
        hl_sock_field(sock, st->socket_slots.proto), fd);
    if (conn == NULL) {
        close(fd);
        return NULL;
    }
    PyObject *res =
        PyObject_CallMethodOneArg(conn, st->str_setblocking, Py_False);
    if (res == NULL) {
        Py_CLEAR(conn);
    }
    Py_XDECREF(res);
    return conn;
}

PyObject *
hl_sock_accept(hl_loop *loop, PyObject *sock)
{
    hl_state *st = hl_loop_state(loop);
    hl_address address;
    socklen_t size;
    int fd, ours = hl_sock_open(loop, sock, &fd);
    if (ours <= 0) {
        return ours < 0 ? NULL : Py_NewRef(Py_NotImplemented);
    }
    if (!hl_address_is_known(hl_sock_family(st, sock))) {
        Py_RETURN_NOTIMPLEMENTED;
    }
    int conn_fd = hl_accept(fd, &address, &size);
    if (conn_fd < 0) {
        return hl_sock_failed() < 0
                   ? NULL
                   : hl_sock_wait_for(loop, sock, fd, UV_READABLE, NULL);
    }
    PyObject *pair = NULL;
    PyObject *conn = accepted_socket(st, sock, conn_fd);
    PyObject *peer =
        conn == NULL ? NULL : hl_address_to_python(&address, size);
    if (peer != NULL) {
        pair = PyTuple_Pack(2, conn, peer);
    }
    Py_XDECREF(peer);
    Py_XDECREF(conn);
    return pair;
}
