/* sock_wait.c - waiting for a socket, as something to await.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "io/sock_int.h"

#include "aio/future.h"
#include "io/stream.h"
#include "state/errors.h"

#include <errno.h>

int
hl_sock_fileno(hl_state *st, PyObject *sock)
{
    PyObject *number = PyObject_CallMethodNoArgs(sock, st->str_fileno);
    if (number == NULL) {
        return -1;
    }
    int fd = hl_long_as_int(number);
    Py_DECREF(number);
    if (fd < 0 && !PyErr_Occurred()) {
        errno = EBADF;
        PyErr_SetFromErrno(PyExc_OSError);
    }
    return fd;
}

int
hl_sock_open(hl_loop *loop, PyObject *sock, int *fd)
{
    hl_state *st = hl_loop_state(loop);
    if (!Py_IS_TYPE(sock, (PyTypeObject *)st->socket_type) || loop->debug) {
        return 0;
    }
    PyObject *timeout = PyObject_CallMethodNoArgs(sock, st->str_gettimeout);
    if (timeout == NULL) {
        return -1;
    }
    bool blocks =
        !PyFloat_CheckExact(timeout) || PyFloat_AS_DOUBLE(timeout) != 0.0;
    Py_DECREF(timeout);
    if (blocks) {
        return 0;
    }
    *fd = hl_sock_fileno(st, sock);
    if (*fd < 0 && PyErr_ExceptionMatches(PyExc_OSError)) {
        PyErr_Clear();
        return 0;
    }
    return *fd < 0 ? -1 : 1;
}

int
hl_sock_failed(void)
{
    switch (errno) {
    case EINTR:
        return PyErr_CheckSignals() < 0 ? -1 : 1;
    case EAGAIN:
#if EWOULDBLOCK != EAGAIN
    case EWOULDBLOCK:
#endif
        return 0;
    default:
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
}

static void
wait_release(hl_sock_wait *self)
{
    self->ended = true;
    if (self->view.obj != NULL) {
        PyBuffer_Release(&self->view);
    }
}

/* Nothing more is to happen. */
static void
wait_stop(hl_sock_wait *self)
{
    hl_watcher_end_op(self->loop, self->fd, self->which, (PyObject *)self,
                      false);
    wait_release(self);
}

static int
wait_finish(hl_sock_wait *self)
{
    hl_watcher_end_op(self->loop, self->fd, self->which, (PyObject *)self,
                      true);
    wait_release(self);
    return hl_future_set_result_unless_done(hl_loop_state(self->loop),
                                            self->future, Py_None);
}

/* The pending exception is what the operation ends with, unless it must end
 * the run. */
static int
wait_fail(hl_sock_wait *self)
{
    if (hl_error_is_exit()) {
        PyObject *exit = hl_error_fetch();
        wait_stop(self);
        hl_error_restore(exit);
        return -1;
    }
    PyObject *exc = hl_error_fetch();
    wait_stop(self);
    int rv = hl_future_set_exception_unless_done(hl_loop_state(self->loop),
                                                 self->future, exc);
    Py_DECREF(exc);
    return rv;
}

/* The poller found the socket ready. */
static int
wait_on_ready(hl_loop *loop, PyObject *op)
{
    hl_sock_wait *self = (hl_sock_wait *)op;
    int rv = 0;
    if (!hl_watcher_has_op(loop, self->fd, self->which, op)) {
        goto done; /* ended or replaced since the poll */
    }
    if (hl_future_is_done(self->future)) {
        wait_stop(self);
        goto done;
    }
    self->waited = true;
    int go_on = self->step == NULL ? 1 : self->step(self);
    if (go_on != 0) {
        rv = go_on < 0 ? wait_fail(self) : wait_finish(self);
    }
done:
    return hl_entry_end(loop, op, rv, hl_loop_state(loop)->str_close, NULL,
                        NULL);
}

int
hl_sock_check_transport(hl_loop *loop, int fd)
{
    /* One that an operation has just used is known to be free. */
    if (hl_watcher_is_idle(loop, fd)) {
        return 0;
    }
    PyObject *number = PyLong_FromLong(fd);
    if (number == NULL) {
        return -1;
    }
    PyObject *res = PyObject_CallMethodOneArg(
        (PyObject *)loop, hl_loop_state(loop)->str__ensure_fd_no_transport,
        number);
    Py_DECREF(number);
    Py_XDECREF(res);
    return res == NULL ? -1 : 0;
}

hl_sock_wait *
hl_sock_wait_new(hl_loop *loop, PyObject *sock, int which, hl_sock_step step,
                 PyObject *future)
{
    PyTypeObject *type = hl_loop_state(loop)->SockWait_type;
    hl_sock_wait *self = hl_alloc(type);
    if (self == NULL) {
        return NULL;
    }
    self->loop = (hl_loop *)Py_NewRef((PyObject *)loop);
    self->sock = Py_NewRef(sock);
    self->which = which;
    self->step = step;
    self->guest = future != NULL;
    self->future = self->guest ? Py_NewRef(future) : hl_future_new(loop);
    if (self->future == NULL) {
        Py_CLEAR(self);
    }
    return self;
}

/* Has _done() called when the future is: nobody throws the cancellation into
 * this wait. */
static int
wait_follow_future(hl_sock_wait *self)
{
    PyObject *done = PyObject_GetAttrString((PyObject *)self, "_done");
    if (done == NULL) {
        return -1;
    }
    PyObject *res = PyObject_CallMethodOneArg(
        self->future, hl_loop_state(self->loop)->str_add_done_callback, done);
    Py_DECREF(done);
    Py_XDECREF(res);
    return res == NULL ? -1 : 0;
}

int
hl_sock_wait_begin(hl_sock_wait *self, int fd)
{
    self->fd = fd;
    if (hl_sock_check_transport(self->loop, fd) < 0 ||
        hl_loop_check_closed(self->loop) < 0 ||
        (self->guest && wait_follow_future(self) < 0)) {
        return -1;
    }
    return hl_watcher_set_op(self->loop, fd, self->which, (PyObject *)self,
                             wait_on_ready);
}

PyObject *
hl_sock_wait_for(hl_loop *loop, PyObject *sock, int fd, int which,
                 hl_sock_step step)
{
    hl_sock_wait *self = hl_sock_wait_new(loop, sock, which, step, NULL);
    if (self != NULL && hl_sock_wait_begin(self, fd) < 0) {
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

/* An operation begins that had to let others go first. */
static int
pause_go_on(hl_sock_wait *self)
{
    int go_on = self->step(self);
    if (go_on == 0 && !self->ended) {
        int fd = hl_sock_fileno(hl_loop_state(self->loop), self->sock);
        if (fd < 0 || (!self->ended && hl_sock_wait_begin(self, fd) < 0)) {
            go_on = -1;
        }
    }
    return go_on == 0 ? 0 : go_on < 0 ? wait_fail(self) : wait_finish(self);
}

static int
pause_end(hl_loop *loop, PyObject *op)
{
    hl_sock_wait *self = (hl_sock_wait *)op;
    hl_state *st = hl_loop_state(loop);
    int rv = 0;
    if (self->step == NULL) {
        rv = hl_future_set_result_unless_done(st, self->future, Py_None);
    }
    else if (!self->ended && !hl_future_is_done(self->future)) {
        rv = pause_go_on(self);
    }
    return hl_entry_end(loop, op, rv, st->str_close, NULL, NULL);
}

hl_sock_wait *
hl_sock_pause_new(hl_loop *loop, PyObject *sock, int which, hl_sock_step step)
{
    hl_sock_wait *self = hl_sock_wait_new(loop, sock, which, step, NULL);
    if (self == NULL) {
        return NULL;
    }
    self->fd = -1; /* none is watched */
    loop->must_poll = true;
    if (hl_loop_push(loop, Py_NewRef((PyObject *)self), pause_end) < 0) {
        Py_CLEAR(self);
    }
    return self;
}

/* ---- as an iterator ---- */

static PySendResult
SockWait_am_send(PyObject *op, PyObject *Py_UNUSED(value), PyObject **result)
{
    PySendResult sent = hl_future_send(((hl_sock_wait *)op)->future, result);
    if (HL_UNLIKELY(sent == PYGEN_ERROR)) {
        /* Cancelled, and resumed by hand: a task throws that in. */
        PyObject *exc = hl_error_fetch();
        wait_stop((hl_sock_wait *)op);
        hl_error_restore(exc);
    }
    return sent;
}

static PyObject *
SockWait_tp_iternext(PyObject *op)
{
    PyObject *result;
    PySendResult sent = SockWait_am_send(op, Py_None, &result);
    if (sent == PYGEN_RETURN) {
        Py_CLEAR(result); /* None */
    }
    return result;
}

PyDoc_STRVAR(SockWait_send__doc__, "send($self, value, /)\n--\n\n"
                                   "Resume; the value is ignored.");

static PyObject *
SockWait_send(PyObject *op, PyObject *Py_UNUSED(value))
{
    PyObject *result = SockWait_tp_iternext(op);
    if (result == NULL && !PyErr_Occurred()) {
        PyErr_SetNone(PyExc_StopIteration);
    }
    return result;
}

PyDoc_STRVAR(SockWait_throw__doc__,
             "throw($self, type, value=None, traceback=None, /)\n--\n\n"
             "Stop waiting and raise the exception.");

static PyObject *
SockWait_throw(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *exc = hl_thrown_exception(args, nargs);
    if (exc != NULL) {
        wait_stop((hl_sock_wait *)op);
        hl_error_restore(exc);
    }
    return NULL;
}

PyDoc_STRVAR(SockWait_close__doc__, "close($self, /)\n--\n\n"
                                    "Stop waiting.");

static PyObject *
SockWait_close(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    wait_stop((hl_sock_wait *)op);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(SockWait__done__doc__, "_done($self, future, /)\n--\n\n"
                                    "The future was done, perhaps cancelled.");

static PyObject *
SockWait__done(PyObject *op, PyObject *Py_UNUSED(future))
{
    wait_stop((hl_sock_wait *)op);
    Py_RETURN_NONE;
}

static PyMethodDef SockWait_methods[] = {
    {"send", SockWait_send, METH_O, SockWait_send__doc__},
    {"throw", HL_FASTCALL(SockWait_throw), METH_FASTCALL,
     SockWait_throw__doc__},
    {"close", SockWait_close, METH_NOARGS, SockWait_close__doc__},
    {"_done", SockWait__done, METH_O, SockWait__done__doc__},
    {NULL, NULL, 0, NULL},
};

/* ---- the type ---- */

/* There is no tp_clear: every cycle goes through something else that has one,
 * the loop, the future, a coroutine or the buffer's owner. */
static int
SockWait_tp_traverse(PyObject *op, visitproc visit, void *arg)
{
    hl_sock_wait *self = (hl_sock_wait *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->loop);
    Py_VISIT(self->sock);
    Py_VISIT(self->future);
    Py_VISIT(self->address);
    Py_VISIT(self->view.obj);
    return 0;
}

static void
SockWait_tp_dealloc(PyObject *op)
{
    hl_sock_wait *self = (hl_sock_wait *)op;
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    wait_release(self);
    Py_XDECREF(self->address);
    Py_XDECREF(self->sock);
    Py_XDECREF(self->future);
    Py_XDECREF(self->loop);
    type->tp_free(op);
    Py_DECREF(type);
}

PyDoc_STRVAR(SockWait__doc__,
             "What sock_recv() and its like await until a socket is ready.");

static PyType_Slot SockWait_slots[] = {
    {Py_tp_doc, HL_DOC(SockWait__doc__)},
    {Py_tp_dealloc, HL_SLOT(SockWait_tp_dealloc)},
    {Py_tp_traverse, HL_SLOT(SockWait_tp_traverse)},
    {Py_tp_iter, HL_SLOT(PyObject_SelfIter)},
    {Py_tp_iternext, HL_SLOT(SockWait_tp_iternext)},
    {Py_tp_methods, SockWait_methods},
    {Py_am_await, HL_SLOT(PyObject_SelfIter)},
    {Py_am_send, HL_SLOT(SockWait_am_send)},
    {0, NULL},
};

static PyType_Spec SockWait_spec = {
    .name = "hotloop._core.SockWait",
    .basicsize = sizeof(hl_sock_wait),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC |
             Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = SockWait_slots,
};

int
hl_sock_wait_type_init(PyObject *module, hl_state *st)
{
    return hl_state_add_type(module, &st->SockWait_type, &SockWait_spec, NULL);
}
