/* future_callbacks.c - looking at and removing the callbacks of a future.
 *
 * The first callback may be a task that waits; seen from Python it is the
 * callable that asyncio would have registered for it.
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "aio/future_int.h"

/* The first callback as a callable: new reference, or NULL. */
static PyObject *
callback0_callable(hl_future *fut)
{
    PyObject *callback = Py_NewRef(fut->callback0);
    if (fut->callback0_is_task) {
        Py_SETREF(callback, hl_task_wakeup_new((hl_task *)callback));
    }
    return callback;
}

/* (callback, context): new reference, or NULL. */
static PyObject *
callback0_pair(hl_future *fut)
{
    PyObject *context = fut->callback0_is_task
                            ? ((hl_task *)fut->callback0)->context
                            : fut->context0;
    context = Py_NewRef(context ? context : Py_None);
    PyObject *pair = NULL, *callback = callback0_callable(fut);
    if (callback != NULL) {
        pair = PyTuple_Pack(2, callback, context);
        Py_DECREF(callback);
    }
    Py_DECREF(context);
    return pair;
}

PyObject *
hl_future_list_callbacks(hl_future *fut)
{
    PyObject *more = fut->rare ? Py_XNewRef(fut->rare->callbacks) : NULL;
    PyObject *pair = NULL, *list = NULL;
    Py_ssize_t count = more == NULL ? 0 : PyList_GET_SIZE(more);
    if (fut->callback0 == NULL && count == 0) {
        list = Py_NewRef(Py_None);
        goto done;
    }
    if (fut->callback0 != NULL && (pair = callback0_pair(fut)) == NULL) {
        goto done;
    }
    list = more == NULL ? PyList_New(0) : PySequence_List(more);
    if (list != NULL && pair != NULL && PyList_Insert(list, 0, pair) < 0) {
        Py_CLEAR(list);
    }
done:
    Py_XDECREF(pair);
    Py_XDECREF(more);
    return list;
}

/* 1 if the first callback equals callback and was removed, 0, or -1.  The
 * comparison may do anything to the future. */
static int
remove_first(hl_future *fut, PyObject *callback)
{
    if (fut->callback0 == NULL) {
        return 0;
    }
    PyObject *own = callback0_callable(fut);
    if (own == NULL) {
        return -1;
    }
    int equal = PyObject_RichCompareBool(own, callback, Py_EQ);
    Py_DECREF(own);
    if (equal == 1) {
        fut->callback0_is_task = false;
        PyObject *old = fut->callback0;
        fut->callback0 = NULL;
        if (fut->state == HL_FUTURE_PENDING) {
            Py_CLEAR(fut->context0);
        }
        Py_XDECREF(old);
    }
    return equal;
}

/* Those of the list that differ from callback: new list, or NULL. */
static PyObject *
keep_others(hl_future *fut, PyObject *callback)
{
    PyObject *kept = PyList_New(0);
    if (kept == NULL) {
        return NULL;
    }
    /* A comparison may change the list or take it away. */
    for (Py_ssize_t i = 0; fut->rare != NULL && fut->rare->callbacks != NULL
                           && i < PyList_GET_SIZE(fut->rare->callbacks);
         i++) {
        PyObject *item = Py_NewRef(PyList_GET_ITEM(fut->rare->callbacks, i));
        int equal = PyObject_RichCompareBool(PyTuple_GET_ITEM(item, 0),
                                             callback, Py_EQ);
        int rv = equal == 0 ? PyList_Append(kept, item) : equal;
        Py_DECREF(item);
        if (rv < 0) {
            Py_DECREF(kept);
            return NULL;
        }
    }
    return kept;
}

Py_ssize_t
hl_future_remove_callback(hl_future *fut, PyObject *callback)
{
    Py_ssize_t removed = remove_first(fut, callback);
    if (removed < 0 || fut->rare == NULL || fut->rare->callbacks == NULL) {
        return removed;
    }
    Py_ssize_t before = PyList_GET_SIZE(fut->rare->callbacks);
    PyObject *kept = keep_others(fut, callback);
    if (kept == NULL) {
        return -1;
    }
    if (fut->rare == NULL || fut->rare->callbacks == NULL) {
        Py_DECREF(kept);
        return removed + before;
    }
    before = PyList_GET_SIZE(fut->rare->callbacks);
    removed += before - PyList_GET_SIZE(kept);
    PyObject *old = fut->rare->callbacks;
    if (PyList_GET_SIZE(kept) == 0) {
        fut->rare->callbacks = NULL;
        Py_DECREF(kept);
    }
    else {
        fut->rare->callbacks = kept;
    }
    Py_DECREF(old);
    return removed;
}
