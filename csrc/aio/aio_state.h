/* aio_state.h - what futures and tasks share in one module.
 *
 * An object of its own, so that the module state needs one slot for it.  It
 * also holds what was found out about the running interpreter's _asyncio by
 * trying it at import: patch releases differ, and a built module may run on
 * another one than it was compiled for.
 * SPDX-License-Identifier: MIT */

#ifndef HL_AIO_AIO_STATE_H
#define HL_AIO_AIO_STATE_H

#include "aio/future.h"

#define HL_ITER_POOL_MAX 256

/* Offsets in asyncio's own structures (3.14+); 0 is unknown. */
typedef struct {
    uint16_t awaited_by; /* owned object: one waiter or a set */
    uint16_t task_node;  /* two pointers: the intrusive list of tasks */
    uint16_t task_name;  /* owned object: str, or int for "Task-<int>" */
    uint16_t task_coro;  /* owned object */
    uint16_t is_task;    /* one byte, 1 for tasks */
} hl_base_layout;

/* What loop.create_task(name=...) does with the name where there is a task
 * factory. */
typedef enum {
    HL_NAME_PASSED,     /* a keyword argument of the factory (3.14) */
    HL_NAME_SET,        /* set_name() afterwards, if it is not None */
    HL_NAME_SET_ALWAYS, /* set_name() afterwards, None too (3.13.0) */
} hl_factory_name;

typedef struct {
    PyObject_HEAD
    PyObject *coroutine_types; /* set: iscoroutine() said yes to one */
    PyObject *scheduled; /* 3.11 to 3.13: the set inside asyncio's WeakSet, */
    PyObject *iterating; /*   its iteration guards */
    PyObject *removals;  /*   and what waits for them */
    PyTypeObject *iter_type;           /* of the pooled iterators */
    PyObject *iters[HL_ITER_POOL_MAX]; /* dead FutureIter objects */
    int iters_count;
    bool stop_iteration_wrapped; /* set_exception(StopIteration()) works */
    bool uncancel_clears;        /* uncancel() to zero resets _must_cancel */
    bool init_once;              /* a second __init__() is refused */
    bool create_task_keywords;   /* create_task() takes what Task() takes */
    hl_factory_name factory_name;
    hl_base_layout layout;
} hl_aio;

static inline hl_aio *
hl_aio_of(const hl_state *st)
{
    return (hl_aio *)(void *)st->aio;
}

/* Makes st->aio.  Needs nothing of ours; the types need it. */
int hl_aio_init(PyObject *module, hl_state *st);

/* probe.c: fills the facts about the running _asyncio.  0 or -1. */
int hl_aio_probe(hl_state *st, hl_aio *aio);

/* Parses keyword arguments in the manner and with the words of
 * PyArg_ParseTupleAndKeywords(), for calls that the fast paths do not know.
 * Values are borrowed from args. */
int hl_aio_parse(PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                 const char *format, char **keywords, ...);

/* type(*args, **kwargs) without the type's own vectorcall: tp_new and tp_init
 * on a tuple and a dict. */
PyObject *hl_aio_call_type(PyObject *type, PyObject *const *args,
                           size_t nargsf, PyObject *kwnames);

#endif
