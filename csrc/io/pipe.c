/* pipe.c - the stream engine over pipes: what is not as with sockets.
 *
 * A descriptor may be the read pipe of one transport and the write pipe of
 * another (a terminal, say), so that each watches only its half.  Written data
 * leaves at once and each write by itself: what is behind a pipe may be shared
 * with others who write to it, and a device may tell one write from two.
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "io/stream.h"

#include "state/errors.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static int
pipe_update_half(hl_transport *self, int which, bool wanted,
                 hl_run_fn on_event)
{
    if (!wanted) {
        if (self->watched & which) {
            self->watched &= (unsigned char)~which;
            hl_watcher_end_op(self->loop, self->fd, which, (PyObject *)self,
                              false);
        }
        return 0;
    }
    if (self->watched & which) {
        return 0;
    }
    if (hl_loop_check_closed(self->loop) < 0 ||
        hl_watcher_set_op(self->loop, self->fd, which, (PyObject *)self,
                          on_event) < 0) {
        return -1;
    }
    self->watched |= (unsigned char)which;
    return 0;
}

int
hl_pipe_update_watcher(hl_transport *self)
{
    bool open = !self->conn_lost;
    if (pipe_update_half(self, UV_READABLE, open && self->reading,
                         hl_transport_on_readable) < 0) {
        return -1;
    }
    return pipe_update_half(self, UV_WRITABLE, open && self->blocked,
                            hl_transport_on_writable);
}

void
hl_pipe_drop_watcher(hl_transport *self)
{
    (void)pipe_update_half(self, UV_READABLE, false, NULL);
    (void)pipe_update_half(self, UV_WRITABLE, false, NULL);
}

/* The end of what there is to read: eof_received(), then connection_lost(),
 * whatever the former returns. */
static int
pipe_on_eof(hl_transport *self)
{
    hl_loop *loop = self->loop;
    hl_state *st = hl_loop_state(loop);
    if (hl_transport_log_info(self, "%r was closed by peer") < 0) {
        return -1;
    }
    if (self->closing || self->protocol == NULL) {
        return 0;
    }
    self->closing = true;
    self->reading = false;
    self->conn_lost++;
    hl_transport_drop_watcher(self);
    PyObject *callback =
        PyObject_GetAttr(self->protocol, st->str_eof_received);
    PyObject *handle = NULL;
    if (callback != NULL) {
        handle = hl_call_soon(st, (PyObject *)loop, callback, st->empty_tuple,
                              NULL);
        Py_DECREF(callback);
    }
    if (handle == NULL) {
        return -1;
    }
    Py_DECREF(handle);
    return hl_transport_schedule_lost(self, NULL);
}

/* A writer hears that its reader has left. */
static int
pipe_on_peer_closed(hl_transport *self)
{
    if (hl_transport_log_info(self, "%r was closed by peer") < 0) {
        return -1;
    }
    if (self->queue.count == 0) {
        return hl_transport_force_close(self, NULL);
    }
    PyObject *exc = PyObject_CallNoArgs(PyExc_BrokenPipeError);
    if (exc == NULL) {
        return -1;
    }
    int rv = hl_transport_force_close(self, exc);
    Py_DECREF(exc);
    return rv;
}

/* A terminal that hung up: the way in which a pty says that it ended. */
static bool
hang_up_is_quiet(PyObject *exc)
{
    if (!hl_transport_os_error(exc)) {
        return false;
    }
    PyObject *number = PyObject_GetAttrString(exc, "errno");
    long value =
        number != NULL && PyLong_Check(number) ? PyLong_AsLong(number) : 0;
    Py_XDECREF(number);
    PyErr_Clear();
    return value == EIO;
}

static const hl_transport_ops read_pipe_ops = {
    HL_STREAM_OPS,
    .name = "ReadPipeTransport",
    .link = HL_LINK_PIPE,
    .reads_raise = true,
    .receive = read,
    .read = hl_transport_receive,
    .on_eof = pipe_on_eof,
    .is_quiet = hang_up_is_quiet,
    .fatal_error = "Fatal error on pipe transport",
    .read_error = "Fatal read error on pipe transport",
};

static const hl_transport_ops write_pipe_ops = {
    HL_STREAM_OPS,
    .name = "WritePipeTransport",
    .link = HL_LINK_PIPE,
    .peer_only = true,
    .read = pipe_on_peer_closed,
    .is_quiet = hl_transport_os_error,
    .fatal_error = "Fatal error on pipe transport",
    .write_error = "Fatal write error on pipe transport",
    .lost_warning =
        "pipe closed by peer or os.write(pipe, data) raised exception.",
};

/* Does a poll for reading tell that the readers have left?  The kernels of
 * Apple and Sun take it for one of unread data where a FIFO has a name. */
static bool
peer_can_be_watched(const struct stat *info)
{
    if (S_ISSOCK(info->st_mode)) {
        return true;
    }
#if defined(__APPLE__) || defined(__sun)
    return S_ISFIFO(info->st_mode) && info->st_nlink == 0;
#elif defined(_AIX)
    return false;
#else
    return S_ISFIFO(info->st_mode);
#endif
}

/* Is the descriptor of a kind that can be waited for?  0 or -1. */
static int
pipe_check_kind(hl_transport *self)
{
    struct stat info;
    if (fstat(self->fd, &info) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    if (!S_ISFIFO(info.st_mode) && !S_ISSOCK(info.st_mode) &&
        !S_ISCHR(info.st_mode)) {
        PyErr_SetString(PyExc_ValueError,
                        self->ops->peer_only
                            ? "Pipe transport is only for pipes, sockets and "
                              "character devices"
                            : "Pipe transport is for pipes/sockets only.");
        return -1;
    }
    self->deaf = self->ops->peer_only && !peer_can_be_watched(&info);
    return 0;
}

static int
pipe_set_nonblocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || (!(flags & O_NONBLOCK) &&
                      fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    return 0;
}

/* The descriptor of pipe and what get_extra_info() knows.  0 or -1. */
static int
pipe_adopt(hl_transport *self, PyObject *pipe)
{
    hl_state *st = hl_loop_state(self->loop);
    if (self->extra == NULL && (self->extra = PyDict_New()) == NULL) {
        return -1;
    }
    if (PyDict_SetItem(self->extra, st->str_pipe, pipe) < 0) {
        return -1;
    }
    PyObject *fileno = PyObject_CallMethodNoArgs(pipe, st->str_fileno);
    if (fileno == NULL) {
        return -1;
    }
    int fd = PyLong_Check(fileno) ? hl_long_as_int(fileno)
                                  : PyObject_AsFileDescriptor(fileno);
    Py_DECREF(fileno);
    if (fd == -1 && PyErr_Occurred()) {
        return -1;
    }
    self->fd = fd;
    if (pipe_check_kind(self) < 0 || pipe_set_nonblocking(fd) < 0) {
        return -1;
    }
    self->sock = Py_NewRef(pipe);
    self->fd_open = true;
    return 0;
}

static PyObject *
pipe_new(hl_transport *self, PyObject *pipe, PyObject *protocol,
         PyObject *waiter, PyObject *extra)
{
    if (self == NULL) {
        return NULL;
    }
    if (hl_transport_set_options(self, waiter, extra, NULL) < 0 ||
        pipe_adopt(self, pipe) < 0 ||
        hl_transport_set_protocol(self, protocol) < 0 ||
        hl_transport_begin(self) < 0) {
        self->fd_open = false; /* the pipe stays its maker's */
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

PyObject *
hl_read_pipe_new(hl_loop *loop, PyObject *pipe, PyObject *protocol,
                 PyObject *waiter, PyObject *extra)
{
    return pipe_new(
        hl_transport_alloc(loop, hl_loop_state(loop)->ReadPipeTransport_type,
                           &read_pipe_ops),
        pipe, protocol, waiter, extra);
}

PyObject *
hl_write_pipe_new(hl_loop *loop, PyObject *pipe, PyObject *protocol,
                  PyObject *waiter, PyObject *extra)
{
    return pipe_new(
        hl_transport_alloc(loop, hl_loop_state(loop)->WritePipeTransport_type,
                           &write_pipe_ops),
        pipe, protocol, waiter, extra);
}
