/* sock_sendfile.c - sendfile(2) to a socket, as sock_sendfile() does it.
 *
 * The call goes through os.sendfile(): it lets other threads run while the
 * file is read, and whoever replaces it there is heard.
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "io/sock_int.h"

#include "aio/future.h"
#include "state/errors.h"

#include <errno.h>
#include <unistd.h>

/* How often a call that sent all it was asked to is followed by another at
 * once: a file that grows must not keep the loop. */
#define CALLS_MAX 4

/* As asyncio has it, for 32-bit machines. */
#define BLOCK_MAX (PY_SSIZE_T_MAX / 2 + 1)

/* The program sees the file's own position moved when all is over, with older
 * releases only if something was sent.  0, or -1 with OSError. */
static int
file_set_position(const hl_sock_wait *wait)
{
    const hl_sock_file *file = &wait->file;
    if (file->total == 0 && !hl_loop_state(wait->loop)->release.moves_file) {
        return 0;
    }
    if (lseek(file->fd, (off_t)file->offset, SEEK_SET) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    return 0;
}

/* How much the next call is to send; 0 when count is reached. */
static Py_ssize_t
file_block(const hl_sock_file *file)
{
    int64_t size = file->count > 0 ? file->count - file->total : file->block;
    return (Py_ssize_t)Py_MIN(size, (int64_t)BLOCK_MAX);
}

/* os.sendfile(): how much was sent, or -1 with an exception. */
static Py_ssize_t
file_send(hl_sock_wait *wait, Py_ssize_t size)
{
    hl_state *st = hl_loop_state(wait->loop);
    const hl_sock_file *file = &wait->file;
    Py_ssize_t sent = -1;
    PyObject *out = PyObject_CallMethodNoArgs(wait->sock, st->str_fileno);
    PyObject *res =
        out == NULL
            ? NULL
            : PyObject_CallMethod(st->os, "sendfile", "OiLn", out, file->fd,
                                  (long long)file->offset, size);
    if (res != NULL) {
        sent = PyLong_AsSsize_t(res);
        hl_count_write(&wait->loop->counts, sent);
        wait->loop->must_poll = true; /* the peer may be in this loop */
    }
    Py_XDECREF(res);
    Py_XDECREF(out);
    return sent;
}

/* Gives the pending exception a new one in its place, with it as the cause
 * or, without, as the context only. */
static void
error_replace(PyObject *type, PyObject *args, bool cause)
{
    PyObject *old = hl_error_fetch();
    PyObject *exc = args == NULL ? NULL : PyObject_CallObject(type, args);
    Py_XDECREF(args);
    if (exc == NULL) {
        Py_XDECREF(old);
        return;
    }
    PyException_SetContext(exc, Py_NewRef(old));
    if (cause) {
        PyException_SetCause(exc, Py_NewRef(old));
    }
    Py_XDECREF(old);
    hl_error_restore(exc);
}

static bool
error_is_not_connected(void)
{
    PyObject *exc = hl_error_fetch();
    bool rv = PyErr_GivenExceptionMatches(exc, PyExc_OSError) &&
              !Py_IS_TYPE(exc, (PyTypeObject *)PyExc_ConnectionError);
    PyObject *number = rv ? PyObject_GetAttrString(exc, "errno") : NULL;
    rv = number != NULL && PyLong_Check(number) &&
         PyLong_AsLong(number) == ENOTCONN;
    Py_XDECREF(number);
    PyErr_Clear();
    hl_error_restore(exc);
    return rv;
}

/* The pending exception of the call becomes what the caller is told.  0 to
 * wait and call again, else -1. */
static int
file_failed(hl_sock_wait *wait)
{
    hl_state *st = hl_loop_state(wait->loop);
    const hl_sock_file *file = &wait->file;
    if (PyErr_ExceptionMatches(PyExc_BlockingIOError) ||
        PyErr_ExceptionMatches(PyExc_InterruptedError)) {
        PyErr_Clear();
        return 0;
    }
    if (hl_error_is_exit()) {
        return -1;
    }
    if (PyErr_ExceptionMatches(PyExc_OSError)) {
        if (file->total == 0) {
            /* Among other reasons for a file that is not a regular one, which
             * plain send() will do for. */
            error_replace(st->SendfileNotAvailableError,
                          Py_BuildValue("(s)", "os.sendfile call failed"),
                          false);
        }
        else if (wait->waited && error_is_not_connected()) {
            error_replace(
                PyExc_ConnectionError,
                Py_BuildValue("(si)", "socket is not connected", ENOTCONN),
                true);
        }
    }
    PyObject *exc = hl_error_fetch();
    if (file_set_position(wait) < 0) {
        Py_DECREF(exc);
        return -1;
    }
    hl_error_restore(exc);
    return -1;
}

/* Sends until the socket is full: 1 when all is sent, 0 to wait, -1 with an
 * exception. */
static int
file_send_some(hl_sock_wait *wait)
{
    hl_sock_file *file = &wait->file;
    for (int calls = 0; calls < CALLS_MAX; calls++) {
        Py_ssize_t size = file_block(file);
        if (size <= 0) {
            return 1;
        }
        Py_ssize_t sent = file_send(wait, size);
        if (sent < 0) {
            return file_failed(wait);
        }
        if (sent == 0) {
            return 1; /* the end of the file */
        }
        file->offset += sent;
        file->total += sent;
        if (sent < size) {
            return 0;
        }
    }
    return 0;
}

static int
sendfile_step(hl_sock_wait *wait)
{
    int done = file_send_some(wait);
    if (done <= 0) {
        return done;
    }
    if (file_set_position(wait) < 0) {
        return -1;
    }
    PyObject *total = PyLong_FromLongLong(wait->file.total);
    if (total == NULL) {
        return -1;
    }
    int rv = hl_future_set_result_unless_done(hl_loop_state(wait->loop),
                                              wait->future, total);
    Py_DECREF(total);
    return rv < 0 ? -1 : 1;
}

/* An int that fits: 1; 0 if it does not, -1 with an exception. */
static int
file_number(PyObject *op, int64_t *number)
{
    int overflow;
    long long value = PyLong_AsLongLongAndOverflow(op, &overflow);
    *number = value;
    return value == -1 && PyErr_Occurred() ? -1 : overflow == 0;
}

/* Takes the arguments of asyncio's _sock_sendfile_native_impl().  1; 0 for
 * numbers that are out of reach, -1 with an exception. */
static int
file_init(hl_sock_file *file, int fd, PyObject *offset, PyObject *count,
          PyObject *block)
{
    file->fd = fd;
    int rv = file_number(offset, &file->offset);
    if (rv > 0 && count != Py_None) {
        rv = file_number(count, &file->count);
    }
    return rv > 0 ? file_number(block, &file->block) : rv;
}

/* The first call, and the wait after it. */
static int
sendfile_begin(hl_sock_wait *wait, int fd)
{
    int done = sendfile_step(wait);
    if (done < 0 && !hl_error_is_exit()) {
        PyObject *exc = hl_error_fetch();
        done = hl_future_set_exception_unless_done(hl_loop_state(wait->loop),
                                                   wait->future, exc);
        Py_DECREF(exc);
        return done;
    }
    return done == 0 ? hl_sock_wait_begin(wait, fd) : done;
}

int
hl_sock_sendfile(hl_loop *loop, PyObject *future, PyObject *sock, int file_fd,
                 PyObject *offset, PyObject *count, PyObject *block)
{
    hl_state *st = hl_loop_state(loop);
    int fd, ours = hl_sock_open(loop, sock, &fd);
    if (ours <= 0 || !Py_IS_TYPE(future, st->Future_type)) {
        return ours < 0 ? -1 : 0;
    }
    if (hl_sock_check_transport(loop, fd) < 0) {
        return -1;
    }
    hl_sock_wait *wait =
        hl_sock_wait_new(loop, sock, UV_WRITABLE, sendfile_step, future);
    if (wait == NULL) {
        return -1;
    }
    int rv = file_init(&wait->file, file_fd, offset, count, block);
    if (rv > 0) {
        rv = sendfile_begin(wait, fd) < 0 ? -1 : 1;
    }
    Py_DECREF(wait);
    return rv;
}
