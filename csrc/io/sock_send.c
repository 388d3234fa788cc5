/* sock_send.c - sock_sendall() and sock_sendto().
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "io/sock_int.h"

#include <errno.h>

/* Sends what is left of a buffer: 1 when all is gone, 0 when the kernel takes
 * no more, -1 with an exception. */
static int
send_some(hl_loop *loop, int fd, const Py_buffer *view, Py_ssize_t *sent)
{
    ssize_t n = send(fd, (const char *)view->buf + *sent,
                     (size_t)(view->len - *sent), MSG_DONTWAIT | MSG_NOSIGNAL);
    hl_count_write(&loop->counts, n);
    if (n < 0) {
        int again = hl_sock_failed();
        /* Interrupted: asyncio waits, too. */
        return again < 0 ? -1 : *sent == view->len;
    }
    loop->must_poll = true; /* the peer may be in this loop */
    *sent += n;
    return *sent == view->len;
}

static int
sendall_step(hl_sock_wait *wait)
{
    int fd = hl_sock_fileno(hl_loop_state(wait->loop), wait->sock);
    if (fd >= 0 && wait->ended) {
        return 0; /* a replaced fileno() ended the wait */
    }
    return fd < 0 ? -1 : send_some(wait->loop, fd, &wait->view, &wait->sent);
}

/* A buffer that may be held for long: not of a memoryview itself, which its
 * owner may release meanwhile.  0 or -1. */
static int
get_bytes(PyObject *data, Py_buffer *view)
{
    if (!PyMemoryView_Check(data)) {
        return PyObject_GetBuffer(data, view, PyBUF_SIMPLE);
    }
    PyObject *own = PyMemoryView_FromObject(data);
    int rv = own == NULL ? -1 : PyObject_GetBuffer(own, view, PyBUF_SIMPLE);
    Py_XDECREF(own);
    return rv;
}

PyObject *
hl_sock_sendall(hl_loop *loop, PyObject *sock, PyObject *data)
{
    Py_buffer view;
    Py_ssize_t sent = 0;
    hl_sock_wait *wait = NULL;
    int fd, ours = hl_sock_open(loop, sock, &fd);
    if (ours <= 0) {
        return ours < 0 ? NULL : Py_NewRef(Py_NotImplemented);
    }
    if (get_bytes(data, &view) < 0) {
        PyErr_Clear();
        Py_RETURN_NOTIMPLEMENTED;
    }
    int done = 0;
    if (!hl_sock_may_go_on(loop)) {
        wait = hl_sock_pause_new(loop, sock, UV_WRITABLE, sendall_step);
    }
    else if ((done = send_some(loop, fd, &view, &sent)) == 0) {
        wait = (hl_sock_wait *)hl_sock_wait_for(loop, sock, fd, UV_WRITABLE,
                                                sendall_step);
    }
    if (wait != NULL) {
        wait->view = view;
        wait->sent = sent;
        return (PyObject *)wait;
    }
    PyBuffer_Release(&view);
    return done > 0 ? Py_NewRef(Py_None) : NULL;
}

PyObject *
hl_sock_sendto(hl_loop *loop, PyObject *sock, PyObject *data,
               PyObject *address)
{
    hl_state *st = hl_loop_state(loop);
    hl_address raw;
    socklen_t size;
    Py_buffer view;
    int fd, ours = hl_sock_open(loop, sock, &fd);
    if (ours <= 0) {
        return ours < 0 ? NULL : Py_NewRef(Py_NotImplemented);
    }
    if (!hl_address_from_python(hl_sock_family(st, sock), address, &raw,
                                &size)) {
        Py_RETURN_NOTIMPLEMENTED;
    }
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
        PyErr_Clear();
        Py_RETURN_NOTIMPLEMENTED;
    }
    if (!hl_sock_may_go_on(loop)) {
        PyBuffer_Release(&view);
        return hl_sock_pause(loop, sock);
    }
    PyObject *result = NULL;
    int again = -1;
    /* A hook may close the socket. */
    if (PySys_Audit("socket.sendto", "OO", sock, address) == 0 &&
        (fd = hl_sock_fileno(st, sock)) >= 0) {
        ssize_t sent = sendto(fd, view.buf, (size_t)view.len,
                              MSG_DONTWAIT | MSG_NOSIGNAL, &raw.sa, size);
        loop->must_poll = true;
        if (sent >= 0) {
            hl_count_datagrams_sent(&loop->counts, 1, (size_t)sent);
        }
        again = sent < 0 ? hl_sock_failed() : -1;
        result = sent < 0 ? NULL : PyLong_FromSsize_t(sent);
    }
    PyBuffer_Release(&view);
    if (again >= 0) {
        result = hl_sock_wait_for(loop, sock, fd, UV_WRITABLE, NULL);
    }
    return result;
}
