/* threadsafe.c - the handle of call_soon_threadsafe(), from 3.14 on.
 *
 * asyncio guards each such handle by a threading.RLock, so that cancel() and
 * cancelled() from another thread wait for a callback that has begun.  Here
 * the GIL guards the handle, and the callback's thread is only noted as the
 * one that holds it.  The RLock is made when a second thread has to wait, or
 * somebody asks for it: from then on it is the lock.
 * Threading: any thread, GIL held.
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "loop/handle_int.h"

#include "state/errors.h"

/* Behind the slots of asyncio's class.  Of no meaning once there is an
 * RLock. */
typedef struct {
    unsigned long owner; /* the thread that holds the handle, */
    Py_ssize_t depth;    /*   and how many times; 0: nobody */
} handle_hold;

static inline handle_hold *
hold_of(hl_state *st, PyObject *op)
{
    return (handle_hold *)(void *)((char *)op + st->slots.hold);
}

/* The RLock, borrowed: made now, held by whoever holds the handle, if there is
 * none yet.  To make it may run the collector, and so let another thread make
 * one first; nothing after that lets one run. */
static PyObject *
handle_lock(hl_state *st, PyObject *op)
{
    PyObject **slot = &HL_SLOT_OF(op, st->slots.lock);
    if (*slot != NULL) {
        return *slot;
    }
    PyObject *lock = PyObject_CallNoArgs(st->RLock);
    if (lock == NULL) {
        return NULL;
    }
    if (*slot != NULL) {
        Py_DECREF(lock);
        return *slot;
    }
    const handle_hold *hold = hold_of(st, op);
    if (hold->depth > 0) {
        PyObject *res = PyObject_CallMethod(lock, "_acquire_restore", "((nk))",
                                            hold->depth, hold->owner);
        if (res == NULL) {
            Py_DECREF(lock);
            return NULL;
        }
        Py_DECREF(res);
    }
    *slot = lock;
    return lock;
}

static int
call_lock(PyObject *lock, PyObject *method)
{
    PyObject *res = PyObject_CallMethodNoArgs(lock, method);
    Py_XDECREF(res);
    return res == NULL ? -1 : 0;
}

/* Waits, without the GIL, while another thread holds the handle.  0, or -1
 * with what a signal handler raised meanwhile. */
static int
handle_acquire(hl_state *st, PyObject *op)
{
    handle_hold *hold = hold_of(st, op);
    PyObject *lock = HL_SLOT_OF(op, st->slots.lock);
    if (HL_LIKELY(lock == NULL)) {
        unsigned long me = PyThread_get_thread_ident();
        if (HL_LIKELY(hold->depth == 0 || hold->owner == me)) {
            hold->owner = me;
            hold->depth++;
            return 0;
        }
        lock = handle_lock(st, op);
    }
    return lock == NULL ? -1 : call_lock(lock, st->str_acquire);
}

/* Keeps the pending exception; rv is what the guarded function returned. */
static int
handle_release(hl_state *st, PyObject *op, int rv)
{
    PyObject *lock = HL_SLOT_OF(op, st->slots.lock);
    if (HL_LIKELY(lock == NULL)) {
        hold_of(st, op)->depth--;
        return rv;
    }
    PyObject *exc = rv < 0 ? hl_error_fetch() : NULL;
    int released = call_lock(lock, st->str_release);
    if (exc != NULL) {
        PyErr_Clear();
        hl_error_restore(exc);
    }
    return rv < 0 ? rv : released;
}

PyObject *
hl_handle_new_threadsafe(hl_loop *loop, PyObject *callback, PyObject *args,
                         PyObject *context)
{
    hl_state *st = loop->st;
    if (st->ThreadSafeHandle_type == NULL) {
        return hl_handle_new(loop, callback, args, context);
    }
    PyObject *op =
        hl_handle_alloc(st, st->ThreadSafeHandle_type, &loop->free_threadsafe);
    if (op == NULL) {
        return NULL;
    }
    hold_of(st, op)->depth = 0;
    return hl_handle_fill(loop, op, callback, args, context);
}

int
hl_handle_run_locked(hl_loop *loop, PyObject *op)
{
    hl_state *st = loop->st;
    int rv = 0;
    if (handle_acquire(st, op) < 0) {
        return -1;
    }
    /* To acquire it may have taken until another thread had cancelled it. */
    if (HL_LIKELY(!hl_handle_cancelled(st, op))) {
        rv = hl_handle_run_own(loop, op);
    }
    return handle_release(st, op, rv);
}

PyDoc_STRVAR(
    ThreadSafeHandle_cancel__doc__,
    "cancel($self, /)\n--\n\n"
    "Cancel the callback: it will not be called.\n\n"
    "Waits for the callback to end if it has begun in another thread.  As\n"
    "asyncio's handle of call_soon_threadsafe().");

static PyObject *
ThreadSafeHandle_cancel(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    hl_state *st = PyType_GetModuleState(Py_TYPE(op));
    if (handle_acquire(st, op) < 0 ||
        handle_release(st, op, hl_handle_cancel_own(st, op)) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    ThreadSafeHandle_cancelled__doc__,
    "cancelled($self, /)\n--\n\n"
    "Return True if the callback was cancelled.\n\n"
    "Waits for the callback to end if it has begun in another thread.");

static PyObject *
ThreadSafeHandle_cancelled(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    hl_state *st = PyType_GetModuleState(Py_TYPE(op));
    if (handle_acquire(st, op) < 0) {
        return NULL;
    }
    bool cancelled = hl_handle_cancelled(st, op);
    return handle_release(st, op, 0) < 0 ? NULL : PyBool_FromLong(cancelled);
}

static PyObject *
ThreadSafeHandle_get_lock(PyObject *op, void *Py_UNUSED(closure))
{
    return Py_XNewRef(handle_lock(PyType_GetModuleState(Py_TYPE(op)), op));
}

static void
ThreadSafeHandle_tp_dealloc(PyObject *op)
{
    hl_state *st = hl_handle_state(op);
    if (st != NULL) {
        Py_CLEAR(HL_SLOT_OF(op, st->slots.lock));
    }
    hl_handle_dealloc(op);
}

static PyMethodDef ThreadSafeHandle_methods[] = {
    {"cancel", ThreadSafeHandle_cancel, METH_NOARGS,
     ThreadSafeHandle_cancel__doc__},
    {"cancelled", ThreadSafeHandle_cancelled, METH_NOARGS,
     ThreadSafeHandle_cancelled__doc__},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef ThreadSafeHandle_getset[] = {
    HL_HANDLE_GETSET,
    {"_lock", ThreadSafeHandle_get_lock, NULL,
     "The threading.RLock that is held while the callback runs.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot ThreadSafeHandle_slots[] = {
    {Py_tp_doc,
     HL_DOC(
         "A callback queued by any thread, an asyncio.Handle with a lock.")},
    {Py_tp_traverse, HL_SLOT(hl_handle_traverse)},
    {Py_tp_clear, HL_SLOT(hl_handle_clear)},
    {Py_tp_dealloc, HL_SLOT(ThreadSafeHandle_tp_dealloc)},
    {Py_tp_methods, ThreadSafeHandle_methods},
    {Py_tp_getset, ThreadSafeHandle_getset},
    {0, NULL},
};

int
hl_threadsafe_type_init(PyObject *module, hl_state *st)
{
    PyTypeObject *base = (PyTypeObject *)st->AbstractThreadSafeHandle;
    if (base == NULL) {
        return 0;
    }
    st->slots.hold = (base->tp_basicsize + 7) & ~(Py_ssize_t)7;
    /* The name is the one that its repr shows. */
    PyType_Spec spec = {
        .name = "hotloop._core._ThreadSafeHandle",
        .basicsize = (int)(st->slots.hold + (Py_ssize_t)sizeof(handle_hold)),
        .flags = HL_HANDLE_FLAGS,
        .slots = ThreadSafeHandle_slots,
    };
    return hl_state_add_type(module, &st->ThreadSafeHandle_type, &spec,
                             (PyObject *)base);
}
