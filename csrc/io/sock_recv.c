/* sock_recv.c - sock_recv(), sock_recvfrom() and their _into() forms.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "io/sock_int.h"

#include "base/bytes.h"

#include <errno.h>
#include <string.h>

/* A number of bytes that needs no second thought: above 0; else -1. */
static Py_ssize_t
plain_count(PyObject *count)
{
    if (!PyLong_CheckExact(count)) {
        return -1;
    }
    Py_ssize_t size = PyLong_AsSsize_t(count);
    if (size == -1) {
        PyErr_Clear(); /* too large: asyncio says so */
    }
    return size > 0 ? size : -1;
}

/* One receive of up to size bytes.  with address it also asks for the
 * sender's. */
typedef struct {
    PyObject *sock; /* borrowed */
    bool from;
    hl_address address;
    socklen_t address_size;
} receiver;

/* Who asks for the sender asks for datagrams. */
static void
count_received(const receiver *r, hl_loop *loop, ssize_t got)
{
    if (!r->from) {
        hl_count_read(&loop->counts, got);
    }
    else if (got >= 0) {
        hl_count_datagrams_received(&loop->counts, 1, (size_t)got);
    }
}

/* How much came; or -1 with *other: NULL with an exception, or what the caller
 * returns in the place of a result. */
static Py_ssize_t
receive(receiver *r, hl_loop *loop, char *data, Py_ssize_t size,
        PyObject **other)
{
    for (;;) {
        int fd, ours = hl_sock_open(loop, r->sock, &fd);
        if (ours <= 0) {
            *other = ours < 0 ? NULL : Py_NewRef(Py_NotImplemented);
            return -1;
        }
        if (!hl_sock_may_go_on(loop)) {
            *other = hl_sock_pause(loop, r->sock);
            return -1;
        }
        r->address_size = sizeof(r->address);
        ssize_t got = r->from ? recvfrom(fd, data, (size_t)size, MSG_DONTWAIT,
                                         &r->address.sa, &r->address_size)
                              : recv(fd, data, (size_t)size, MSG_DONTWAIT);
        count_received(r, loop, got);
        if (HL_LIKELY(got >= 0)) {
            return got;
        }
        int again = hl_sock_failed();
        if (again <= 0) {
            *other = again < 0 ? NULL
                               : hl_sock_wait_for(loop, r->sock, fd,
                                                  UV_READABLE, NULL);
            return -1;
        }
    }
}

/* Receives into a new bytes object; NULL with *other as above. */
static PyObject *
receive_bytes(receiver *r, hl_loop *loop, Py_ssize_t size, PyObject **other)
{
    PyObject *bytes = NULL;
    char *data;
    *other = NULL;
    if (size > HL_READ_BUFFER_SIZE) {
        bytes = PyBytes_FromStringAndSize(NULL, size);
        data = bytes == NULL ? NULL : PyBytes_AS_STRING(bytes);
    }
    else {
        data = hl_loop_read_buffer(loop);
    }
    Py_ssize_t got = data == NULL ? -1 : receive(r, loop, data, size, other);
    if (got < 0) {
        Py_XDECREF(bytes);
        return NULL;
    }
    if (bytes == NULL) {
        return PyBytes_FromStringAndSize(data, got);
    }
    return hl_bytes_cut(bytes, got);
}

/* The buffer that data goes into; false, with no exception, if asyncio must
 * look at it. */
static bool
plain_buffer(PyObject *buffer, Py_buffer *view)
{
    if (PyObject_GetBuffer(buffer, view, PyBUF_WRITABLE) < 0) {
        PyErr_Clear();
        return false;
    }
    if (view->len == 0) {
        PyBuffer_Release(view);
        return false;
    }
    return true;
}

/* (first, address); steals first, which may be NULL. */
static PyObject *
with_address(const receiver *r, PyObject *first)
{
    PyObject *pair = NULL;
    PyObject *address =
        first == NULL ? NULL
                      : hl_address_to_python(&r->address, r->address_size);
    if (address != NULL) {
        pair = PyTuple_Pack(2, first, address);
        Py_DECREF(address);
    }
    Py_XDECREF(first);
    return pair;
}

/* Is it a socket whose addresses can be told?  Looks at no other object. */
static bool
tells_addresses(hl_loop *loop, PyObject *sock)
{
    hl_state *st = hl_loop_state(loop);
    return Py_IS_TYPE(sock, (PyTypeObject *)st->socket_type) &&
           hl_address_is_known(hl_sock_family(st, sock));
}

PyObject *
hl_sock_recv(hl_loop *loop, PyObject *sock, PyObject *count)
{
    receiver r = {.sock = sock};
    PyObject *other;
    Py_ssize_t size = plain_count(count);
    if (size < 0) {
        Py_RETURN_NOTIMPLEMENTED;
    }
    PyObject *bytes = receive_bytes(&r, loop, size, &other);
    return bytes != NULL ? bytes : other;
}

PyObject *
hl_sock_recv_into(hl_loop *loop, PyObject *sock, PyObject *buffer)
{
    receiver r = {.sock = sock};
    PyObject *other;
    Py_buffer view;
    if (!plain_buffer(buffer, &view)) {
        Py_RETURN_NOTIMPLEMENTED;
    }
    Py_ssize_t got = receive(&r, loop, view.buf, view.len, &other);
    PyBuffer_Release(&view);
    return got < 0 ? other : PyLong_FromSsize_t(got);
}

PyObject *
hl_sock_recvfrom(hl_loop *loop, PyObject *sock, PyObject *count)
{
    receiver r = {.sock = sock, .from = true};
    PyObject *other;
    Py_ssize_t size = plain_count(count);
    if (size < 0 || !tells_addresses(loop, sock)) {
        Py_RETURN_NOTIMPLEMENTED;
    }
    PyObject *bytes = receive_bytes(&r, loop, size, &other);
    return bytes != NULL ? with_address(&r, bytes) : other;
}

PyObject *
hl_sock_recvfrom_into(hl_loop *loop, PyObject *sock, PyObject *buffer,
                      PyObject *count)
{
    receiver r = {.sock = sock, .from = true};
    PyObject *other = NULL;
    Py_buffer view;
    Py_ssize_t size = plain_count(count);
    if (size < 0 || !tells_addresses(loop, sock) ||
        !plain_buffer(buffer, &view)) {
        Py_RETURN_NOTIMPLEMENTED;
    }
    if (size > view.len) {
        PyBuffer_Release(&view);
        Py_RETURN_NOTIMPLEMENTED;
    }
    Py_ssize_t got = receive(&r, loop, view.buf, size, &other);
    PyBuffer_Release(&view);
    return got < 0 ? other : with_address(&r, PyLong_FromSsize_t(got));
}
