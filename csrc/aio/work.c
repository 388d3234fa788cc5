/* work.c - functions that an executor runs for the loop.
 *
 * A WorkItem stands where concurrent.futures has a _WorkItem, a Future with a
 * lock, and asyncio two callbacks that chain it to a future of the loop.
 * What ends in a worker thread goes into the ready queue as the item itself;
 * the loop is woken only if it waits, so a batch of them wakes it once.
 *
 * Threads: a worker calls run(), any thread cancel(), all with the GIL held;
 * the waiter is touched by the loop's thread only.
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "aio/work.h"

#include "aio/future_int.h"

#include "state/errors.h"

typedef enum {
    WORK_WAITS,
    WORK_RUNS,
    WORK_CANCELLED,
    WORK_ENDED
} work_state;

typedef struct {
    PyObject_HEAD
    hl_loop *loop;    /* owned */
    PyObject *waiter; /* owned: an hl_future, NULL once it has its outcome */
    PyObject *func;   /* owned, with args: NULL once called, or wrapping */
    PyObject *args;
    PyObject *source;  /* owned: the concurrent.futures.Future wrapped */
    PyObject *outcome; /* owned: result or exception */
    work_state state;
    bool failed; /* outcome is an exception */
    bool urgent; /* who waits for it is */
} hl_work;

static hl_work *
work_alloc(hl_loop *loop)
{
    hl_state *st = loop->st;
    PyObject *waiter = hl_future_new(loop);
    if (waiter == NULL) {
        return NULL;
    }
    hl_work *work = PyObject_GC_New(hl_work, st->WorkItem_type);
    if (work == NULL) {
        Py_DECREF(waiter);
        return NULL;
    }
    work->loop = (hl_loop *)Py_NewRef(loop);
    work->waiter = waiter;
    work->func = work->args = work->source = work->outcome = NULL;
    work->state = WORK_WAITS;
    work->failed = false;
    work->urgent = hl_loop_is_urgent(loop);
    PyObject_GC_Track(work);
    return work;
}

PyObject *
hl_work_new(hl_loop *loop, PyObject *func, PyObject *args)
{
    hl_work *work = work_alloc(loop);
    if (work != NULL) {
        loop->counts.executor_jobs++;
        work->func = Py_NewRef(func);
        work->args = Py_NewRef(args);
    }
    return (PyObject *)work;
}

PyObject *
hl_work_wrap(hl_loop *loop, PyObject *source)
{
    hl_state *st = loop->st;
    hl_work *work = work_alloc(loop);
    if (work == NULL) {
        return NULL;
    }
    work->source = Py_NewRef(source);
    PyObject *waiter = Py_NewRef(work->waiter), *res = NULL;
    if (hl_future_add_callback(st, (hl_future *)waiter, (PyObject *)work,
                               st->blank_context) == 0) {
        res = PyObject_CallMethodOneArg(source, st->str_add_done_callback,
                                        (PyObject *)work);
    }
    Py_DECREF(work);
    if (res == NULL) {
        Py_CLEAR(waiter);
    }
    Py_XDECREF(res);
    return waiter;
}

/* ---- in the loop's thread ---- */

/* The outcome of a call, as asyncio's _copy_future_state() has it. */
static int
waiter_settle(hl_state *st, hl_work *work, hl_future *waiter)
{
    if (work->source != NULL) {
        PyObject *args[2] = {work->source, hl_future_op(waiter)};
        PyObject *res =
            PyObject_Vectorcall(st->copy_future_state, args, 2, NULL);
        Py_XDECREF(res);
        return res == NULL ? -1 : 0;
    }
    if (work->state == WORK_CANCELLED) {
        return hl_future_cancel(st, waiter, NULL) < 0 ? -1 : 0;
    }
    if (!work->failed) {
        return hl_future_set_result(st, waiter, work->outcome);
    }
    PyObject *exc = PyObject_CallOneArg(st->convert_future_exc, work->outcome);
    int rv = exc == NULL ? -1 : hl_future_set_exception(st, waiter, exc);
    Py_XDECREF(exc);
    return rv;
}

/* An entry of the ready queue: steals op. */
static int
work_deliver(hl_loop *loop, PyObject *op)
{
    hl_work *work = (hl_work *)op;
    PyObject *waiter = work->waiter;
    int rv = 0;
    work->waiter = NULL;
    if (waiter != NULL && ((hl_future *)waiter)->state == HL_FUTURE_PENDING) {
        rv = waiter_settle(loop->st, work, (hl_future *)waiter);
    }
    if (HL_UNLIKELY(rv < 0) && !hl_error_is_exit()) {
        PyObject *exc = hl_error_fetch();
        rv = hl_report(loop->st, (PyObject *)loop,
                       "Exception in callback of run_in_executor()", exc,
                       loop->st->str_future, waiter, NULL);
        Py_XDECREF(exc);
    }
    Py_XDECREF(waiter);
    Py_DECREF(op);
    return rv;
}

/* ---- in any thread ---- */

/* Sends the outcome to the loop; a closed one is not told, as by asyncio. */
static int
work_send(hl_work *work)
{
    hl_loop *loop = work->loop;
    if (loop->closed) {
        return 0;
    }
    hl_ring *ring = hl_loop_ring(loop, work->urgent);
    if (hl_ring_push(ring, Py_NewRef((PyObject *)work), work_deliver,
                     HL_ENTRY_OTHER) < 0) {
        return -1;
    }
    hl_loop_wake(loop);
    return 0;
}

static int
work_end(hl_work *work, PyObject *outcome, bool failed)
{
    work->state = WORK_ENDED;
    work->outcome = outcome;
    work->failed = failed;
    return work_send(work);
}

PyDoc_STRVAR(WorkItem_run__doc__,
             "run($self, /, *args)\n--\n\n"
             "Call the function and send its outcome to the loop, unless the\n"
             "future was cancelled before.  Called by a worker thread; args "
             "are ignored.");

static PyObject *
WorkItem_run(PyObject *op, PyObject *const *Py_UNUSED(args),
             Py_ssize_t Py_UNUSED(nargs))
{
    hl_work *work = (hl_work *)op;
    PyObject *func = work->func, *args = work->args;
    work->func = work->args = NULL;
    int rv = 0;
    if (func != NULL && work->state == WORK_WAITS &&
        ((hl_future *)work->waiter)->state != HL_FUTURE_CANCELLED) {
        work->state = WORK_RUNS;
        PyObject *result = PyObject_CallObject(func, args);
        bool failed = result == NULL;
        rv = work_end(work, failed ? hl_error_fetch() : result, failed);
    }
    Py_XDECREF(func);
    Py_XDECREF(args);
    if (rv < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(WorkItem_cancel__doc__,
             "cancel($self, /)\n--\n\n"
             "Cancel the future if the function was not called yet; return "
             "whether.\n\n"
             "Called by an executor that drops its queue.");

static PyObject *
WorkItem_cancel(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    hl_work *work = (hl_work *)op;
    if (work->state != WORK_WAITS) {
        return PyBool_FromLong(work->state == WORK_CANCELLED);
    }
    work->state = WORK_CANCELLED;
    if (work_send(work) < 0) {
        return NULL;
    }
    Py_RETURN_TRUE;
}

PyDoc_STRVAR(WorkItem_set_exception__doc__,
             "set_exception($self, exception, /)\n--\n\n"
             "End the future with an exception instead of calling the "
             "function.\n\n"
             "Called by an executor that cannot start its threads.");

static PyObject *
WorkItem_set_exception(PyObject *op, PyObject *exception)
{
    hl_work *work = (hl_work *)op;
    if (work->state == WORK_WAITS &&
        work_end(work, Py_NewRef(exception), true) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* With later releases an outcome that appears in the loop's own thread does
 * not go through the queue. */
static bool
ends_at_once(const hl_work *work)
{
    PyObject *running = work->loop->thread_id;
    if (!work->loop->st->release.chains_by_thread || running == NULL) {
        return false;
    }
    unsigned long ident = PyLong_AsUnsignedLong(running);
    PyErr_Clear(); /* somebody else's value: no thread has it */
    return ident == PyThread_get_thread_ident();
}

/* A done callback: of the future that is wrapped, in any thread, or of the
 * waiter, in the loop's. */
static PyObject *
WorkItem_tp_call(PyObject *op, PyObject *args, PyObject *kwargs)
{
    hl_work *work = (hl_work *)op;
    if (kwargs != NULL || PyTuple_GET_SIZE(args) != 1) {
        PyErr_SetString(PyExc_TypeError, "one future is required");
        return NULL;
    }
    if (PyTuple_GET_ITEM(args, 0) == work->source) {
        int rv = ends_at_once(work) ? work_deliver(work->loop, Py_NewRef(op))
                                    : work_send(work);
        return rv < 0 ? NULL : Py_NewRef(Py_None);
    }
    hl_future *waiter = (hl_future *)work->waiter;
    if (waiter != NULL && waiter->state == HL_FUTURE_CANCELLED &&
        work->source != NULL) {
        return PyObject_CallMethodNoArgs(work->source,
                                         work->loop->st->str_cancel);
    }
    Py_RETURN_NONE;
}

static PyObject *
WorkItem_get_future(PyObject *op, void *Py_UNUSED(closure))
{
    return Py_NewRef(op);
}

static PyObject *
WorkItem_get_waiter(PyObject *op, void *Py_UNUSED(closure))
{
    PyObject *waiter = ((hl_work *)op)->waiter;
    return Py_NewRef(waiter ? waiter : Py_None);
}

static int
WorkItem_tp_traverse(PyObject *op, visitproc visit, void *arg)
{
    hl_work *work = (hl_work *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(work->loop);
    Py_VISIT(work->waiter);
    Py_VISIT(work->func);
    Py_VISIT(work->args);
    Py_VISIT(work->source);
    Py_VISIT(work->outcome);
    return 0;
}

/* The loop stays: an item that a worker still has needs it. */
static int
WorkItem_tp_clear(PyObject *op)
{
    hl_work *work = (hl_work *)op;
    Py_CLEAR(work->func);
    Py_CLEAR(work->args);
    Py_CLEAR(work->source);
    Py_CLEAR(work->outcome);
    return 0;
}

static void
WorkItem_tp_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    WorkItem_tp_clear(op);
    Py_CLEAR(((hl_work *)op)->waiter);
    Py_CLEAR(((hl_work *)op)->loop);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyMethodDef WorkItem_methods[] = {
    {"run", HL_FASTCALL(WorkItem_run), METH_FASTCALL, WorkItem_run__doc__},
    {"cancel", WorkItem_cancel, METH_NOARGS, WorkItem_cancel__doc__},
    {"set_exception", WorkItem_set_exception, METH_O,
     WorkItem_set_exception__doc__},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef WorkItem_getset[] = {
    {"future", WorkItem_get_future, NULL,
     "What the executor has for the future: the item itself.", NULL},
    {"waiter", WorkItem_get_waiter, NULL,
     "The future to await; None once it has its outcome.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot WorkItem_slots[] = {
    {Py_tp_doc, HL_DOC("A call that a thread pool makes for a loop.")},
    {Py_tp_call, HL_SLOT(WorkItem_tp_call)},
    {Py_tp_traverse, HL_SLOT(WorkItem_tp_traverse)},
    {Py_tp_clear, HL_SLOT(WorkItem_tp_clear)},
    {Py_tp_dealloc, HL_SLOT(WorkItem_tp_dealloc)},
    {Py_tp_methods, WorkItem_methods},
    {Py_tp_getset, WorkItem_getset},
    {0, NULL},
};

static PyType_Spec WorkItem_spec = {
    .name = "hotloop._core.WorkItem",
    .basicsize = sizeof(hl_work),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC |
             Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = WorkItem_slots,
};

int
hl_work_type_init(PyObject *module, hl_state *st)
{
    return hl_state_add_type(module, &st->WorkItem_type, &WorkItem_spec, NULL);
}
