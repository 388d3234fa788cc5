/* future_callbacks.c - looking at and removing the callbacks of a future.
 *
 * A task that waits stands for itself, first or in the list; seen from Python
 * it is the callable that asyncio would have registered for it.
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "aio/future_int.h"

/* The callable of a waiting task, or of a (callback, context) pair of the
 * list: new reference, or NULL. */
static PyObject *
item_callable(PyObject *item)
{
    return PyTuple_CheckExact(item) ? Py_NewRef(PyTuple_GET_ITEM(item, 0))
                                    : hl_task_wakeup_new((hl_task *)item);
}

/* The context it is called in: new reference, or NULL. */
static PyObject *
item_context(hl_state *st, PyObject *item)
{
    if (PyTuple_CheckExact(item)) {
        PyObject *context = PyTuple_GET_ITEM(item, 1);
        return context == st->blank_context ? PyContext_New()
                                            : Py_NewRef(context);
    }
    hl_task *task = (hl_task *)item;
    if (hl_task_claim_context(st, task) < 0) {
        return NULL;
    }
    return Py_NewRef(task->context ? task->context : Py_None);
}

/* Both as a pair. */
static PyObject *
item_pair(hl_state *st, PyObject *item)
{
    PyObject *pair = NULL, *context = item_context(st, item);
    PyObject *callback = item_callable(item);
    if (context != NULL && callback != NULL) {
        pair = PyTuple_Pack(2, callback, context);
    }
    Py_XDECREF(callback);
    Py_XDECREF(context);
    return pair;
}

/* The first callback as an item of the list is: new reference, or NULL. */
static PyObject *
first_item(hl_future *fut)
{
    return fut->callback0_is_task
               ? Py_NewRef(fut->callback0)
               : PyTuple_Pack(2, fut->callback0, fut->context0);
}

static int
list_add(hl_state *st, PyObject *list, PyObject *item)
{
    PyObject *pair = item == NULL ? NULL : item_pair(st, item);
    int rv = pair == NULL ? -1 : PyList_Append(list, pair);
    Py_XDECREF(pair);
    return rv;
}

PyObject *
hl_future_list_callbacks(hl_state *st, hl_future *fut)
{
    PyObject *more = fut->rare ? fut->rare->callbacks : NULL;
    if (fut->callback0 == NULL &&
        (more == NULL || PyList_GET_SIZE(more) == 0)) {
        Py_RETURN_NONE;
    }
    Py_XINCREF(more);
    PyObject *list = PyList_New(0);
    if (list != NULL && fut->callback0 != NULL) {
        PyObject *item = first_item(fut);
        if (list_add(st, list, item) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(item);
    }
    for (Py_ssize_t i = 0;
         list != NULL && more != NULL && i < PyList_GET_SIZE(more); i++) {
        if (list_add(st, list, PyList_GET_ITEM(more, i)) < 0) {
            Py_CLEAR(list);
        }
    }
    Py_XDECREF(more);
    return list;
}

/* Does the callable of item equal callback?  1, 0 or -1. */
static int
item_equals(PyObject *item, PyObject *callback)
{
    PyObject *own = item == NULL ? NULL : item_callable(item);
    if (own == NULL) {
        return -1;
    }
    int equal = PyObject_RichCompareBool(own, callback, Py_EQ);
    Py_DECREF(own);
    return equal;
}

/* 1 if the first callback equals callback and was removed, 0, or -1.  The
 * comparison may do anything to the future. */
static int
remove_first(hl_future *fut, PyObject *callback)
{
    if (fut->callback0 == NULL) {
        return 0;
    }
    PyObject *item = first_item(fut);
    int equal = item_equals(item, callback);
    Py_XDECREF(item);
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
    for (Py_ssize_t i = 0; fut->rare != NULL && fut->rare->callbacks != NULL &&
                           i < PyList_GET_SIZE(fut->rare->callbacks);
         i++) {
        PyObject *item = Py_NewRef(PyList_GET_ITEM(fut->rare->callbacks, i));
        int equal = item_equals(item, callback);
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
