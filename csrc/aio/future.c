/* future.c - how futures are made, collected and die.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "aio/future_int.h"

#include "state/errors.h"

#include <string.h>

PyObject *
hl_future_alloc(hl_freelist *list, PyTypeObject *type, size_t size)
{
    PyObject *op = hl_freelist_get(list);
    if (op == NULL) {
        op = hl_alloc(type);
    }
    else {
        /* asyncio's part was left as its tp_clear() leaves it: zero. */
        memset((char *)op + HL_BASE_SIZE, 0, size - HL_BASE_SIZE);
        PyObject_Init(op, type);
        PyObject_GC_Track(op);
    }
    if (op != NULL) {
        ((hl_future *)op)->pooled = true;
    }
    return op;
}

PyObject *
hl_future_new(hl_loop *loop)
{
    hl_state *st = loop->st;
    PyObject *op = hl_future_alloc(&loop->free_futures, st->Future_type,
                                   sizeof(hl_future));
    if (op == NULL) {
        return NULL;
    }
    hl_future *fut = (hl_future *)op;
    fut->loop = Py_NewRef(loop);
    fut->loop_is_ours = true;
    if (HL_UNLIKELY(loop->debug) && hl_future_record_origin(st, fut) < 0) {
        Py_DECREF(op);
        return NULL;
    }
    return op;
}

hl_future_rare *
hl_future_get_rare(hl_future *fut)
{
    if (fut->rare == NULL) {
        fut->rare = PyMem_Calloc(1, sizeof(hl_future_rare));
        if (fut->rare == NULL) {
            PyErr_NoMemory();
        }
    }
    return fut->rare;
}

static bool
is_finalizing(void)
{
#if PY_VERSION_HEX >= 0x030D0000
    return Py_IsFinalizing() != 0;
#else
    return _Py_IsFinalizing() != 0;
#endif
}

int
hl_future_record_origin(hl_state *st, hl_future *fut)
{
    if (is_finalizing()) {
        return 0; /* the traceback module may be gone */
    }
    PyObject *stack = PyObject_CallNoArgs(st->traceback_extract_stack);
    if (stack == NULL) {
        return -1;
    }
    hl_future_rare *rare = hl_future_get_rare(fut);
    if (rare == NULL) {
        Py_DECREF(stack);
        return -1;
    }
    Py_XSETREF(rare->source_tb, stack);
    return 0;
}

/* Drops what the Future part holds; every release may run Python, which then
 * sees the field empty. */
static void
future_drop(hl_future *fut)
{
    hl_future_rare *rare = fut->rare;
    fut->rare = NULL;
    fut->state = HL_FUTURE_PENDING;
    fut->is_exception = false;
    fut->log_traceback = false;
    Py_CLEAR(fut->loop);
    fut->loop_is_ours = false;
    fut->callback0_is_task = false;
    Py_CLEAR(fut->callback0);
    Py_CLEAR(fut->context0);
    Py_CLEAR(fut->result);
    if (rare != NULL) {
        Py_XDECREF(rare->callbacks);
        Py_XDECREF(rare->source_tb);
        Py_XDECREF(rare->waker);
        Py_XDECREF(rare->cancel_message);
        PyMem_Free(rare);
    }
}

static int
future_ask_debug(hl_state *st, PyObject *loop)
{
    PyObject *res = PyObject_CallMethodNoArgs(loop, st->str_get_debug);
    if (res == NULL) {
        return -1;
    }
    int debug = PyObject_IsTrue(res);
    Py_DECREF(res);
    return debug;
}

static int
raise_initialized(PyObject *op)
{
#if PY_VERSION_HEX >= 0x030D0000
    PyErr_Format(PyExc_RuntimeError, "%T object is already initialized", op);
#else
    PyErr_Format(PyExc_RuntimeError, "%s object is already initialized",
                 Py_TYPE(op)->tp_name);
#endif
    return -1;
}

int
hl_future_init(hl_state *st, hl_future *fut, PyObject *loop)
{
    if (fut->loop != NULL && hl_aio_of(st)->init_once) {
        return raise_initialized(hl_future_op(fut));
    }
    future_drop(fut);
    fut->blocking = false;
    if (loop == NULL || loop == Py_None) {
        loop = PyObject_CallNoArgs(st->get_event_loop);
        if (loop == NULL) {
            return -1;
        }
    }
    else {
        Py_INCREF(loop);
    }
    Py_XSETREF(fut->loop, loop);
    fut->loop_is_ours = hl_loop_check(st, loop);
    int debug = future_ask_debug(st, loop);
    return debug > 0 ? hl_future_record_origin(st, fut) : debug;
}

PyTypeObject *
hl_future_base(PyObject *op, destructor dealloc)
{
    PyTypeObject *type = Py_TYPE(op);
    while (type->tp_dealloc != dealloc) {
        type = type->tp_base;
    }
    while (type->tp_dealloc == dealloc) {
        type = type->tp_base;
    }
    return type;
}

int
hl_future_traverse(hl_future *fut, PyTypeObject *base, visitproc visit,
                   void *arg)
{
#if PY_VERSION_HEX < 0x030C0000
    Py_VISIT(Py_TYPE(hl_future_op(fut))); /* later, asyncio's does */
#endif
    Py_VISIT(fut->loop);
    Py_VISIT(fut->result);
    Py_VISIT(fut->callback0);
    Py_VISIT(fut->context0);
    if (fut->rare != NULL) {
        Py_VISIT(fut->rare->callbacks);
        Py_VISIT(fut->rare->source_tb);
        Py_VISIT(fut->rare->waker);
        Py_VISIT(fut->rare->cancel_message);
    }
    return base->tp_traverse(hl_future_op(fut), visit, arg);
}

void
hl_future_clear(hl_future *fut, PyTypeObject *base)
{
    future_drop(fut);
    (void)base->tp_clear(hl_future_op(fut));
}

void
hl_future_last_word(hl_state *st, hl_future *fut, PyObject *message,
                    PyObject *exception, PyObject *key)
{
    PyObject *func = NULL, *res = NULL, *loop = Py_NewRef(fut->loop);
    PyObject *origin = fut->rare ? Py_XNewRef(fut->rare->source_tb) : NULL;
    PyObject *context = PyDict_New();
    if (context == NULL ||
        PyDict_SetItem(context, st->str_message, message) < 0 ||
        (exception != NULL &&
         PyDict_SetItem(context, st->str_exception, exception) < 0) ||
        PyDict_SetItem(context, key, hl_future_op(fut)) < 0 ||
        (origin != NULL &&
         PyDict_SetItem(context, st->str_source_traceback, origin) < 0)) {
        goto done;
    }
    func = PyObject_GetAttr(loop, st->str_call_exception_handler);
    if (func != NULL) {
        res = PyObject_CallOneArg(func, context);
        if (res == NULL) {
            PyErr_WriteUnraisable(func);
        }
    }
done:
    PyErr_Clear();
    Py_XDECREF(res);
    Py_XDECREF(func);
    Py_XDECREF(context);
    Py_XDECREF(origin);
    Py_DECREF(loop);
}

void
hl_future_finalize(hl_future *fut)
{
    if (!fut->log_traceback || !fut->is_exception || fut->result == NULL ||
        fut->loop == NULL) {
        return;
    }
    fut->log_traceback = false;
    PyObject *pending = hl_error_fetch();
    PyObject *message = NULL, *exc = Py_NewRef(fut->result);
    hl_state *st = hl_future_st(fut);
    if (st != NULL) {
        /* Only the last part of the name, as asyncio has it. */
        const char *name = Py_TYPE(hl_future_op(fut))->tp_name;
        const char *dot = strrchr(name, '.');
        message = PyUnicode_FromFormat("%s exception was never retrieved",
                                       dot == NULL ? name : dot + 1);
    }
    if (message != NULL) {
        hl_future_last_word(st, fut, message, exc, st->str_future);
        Py_DECREF(message);
    }
    Py_DECREF(exc);
    PyErr_Clear();
    if (pending != NULL) {
        hl_error_restore(pending);
    }
}

void
hl_future_release(hl_future *fut, PyObject *loop, hl_freelist *list)
{
    PyObject *op = hl_future_op(fut);
    PyTypeObject *type = Py_TYPE(op);
    /* A finalizer runs once in the life of an object: storage that remembers
     * such a call would silence the next one. */
    if (!fut->pooled || list == NULL || PyObject_GC_IsFinalized(op) ||
        !hl_freelist_put((hl_loop *)loop, list, op)) {
        type->tp_free(op);
    }
    Py_DECREF(type);
    Py_XDECREF(loop);
}
