/* future_int.h - the insides of Future and Task, for the aio layer alone.
 *
 * Both structures start with the bytes of asyncio's own class, which stay
 * zero but for what asyncio itself keeps there (instance dict, weak
 * references, on 3.14+ the awaited-by set and the list node) and what
 * debuggers read there on 3.14+ (see aio_state.h).  A zero base is what
 * asyncio's methods take for an object whose __init__() was not called.
 * Threading: GIL held.
 * SPDX-License-Identifier: MIT */

#ifndef HL_AIO_FUTURE_INT_H
#define HL_AIO_FUTURE_INT_H

#include "aio/aio_state.h"
#include "aio/future.h"
#include "aio/task.h"

/* What most futures never have. */
typedef struct {
    PyObject *callbacks; /* list of (callback, context): second and later */
    PyObject *source_tb;
    PyObject *cancel_message;
    PyObject *waker; /* of a woken task that was stepped by hand before its
                      * turn: the future that woke it */
} hl_future_rare;

struct hl_future {
    union {
        PyObject ob_base;
        unsigned char bytes[HL_BASE_SIZE];
    } base;
    PyObject *loop;       /* owned; NULL: __init__() was not called */
    PyObject *result;     /* owned.  FINISHED: result or exception;
                       * CANCELLED: the CancelledError to raise first */
    PyObject *callback0;  /* owned: the first callback, or a Task of ours that
                          * waits (callback0_is_task) */
    PyObject *context0;   /* owned.  PENDING: context of a plain callback0;
                         * FINISHED by an exception: its traceback */
    hl_future_rare *rare; /* owned, NULL until needed */
    uint8_t state;        /* hl_future_state */
    bool is_exception;    /* what result holds */
    bool log_traceback;
    bool blocking;
    bool loop_is_ours; /* loop is an hl_loop */
    bool callback0_is_task;
    bool is_task; /* an hl_task that was initialised */
    bool pooled;  /* of the exact type: storage may go to the loop */
};

struct hl_task {
    hl_future fut;
    PyObject *coro; /* all owned */
    PyObject *context;
    uintptr_t name; /* a str (owned), or 2n + 1 for the default name number n
                     * that nobody asked for yet; 0 before __init__() */
    PyObject *fut_waiter;
    PyObject *ref; /* hl_task_ref in asyncio's set (3.11 to 3.13) */
    int num_cancels;
    unsigned must_cancel : 1;
    unsigned log_destroy_pending : 1;
    unsigned running : 1; /* a step is on the C stack */
    unsigned linked : 1;  /* fut_waiter is an exact Future or Task of ours */
    unsigned woken : 1;   /* an entry for that waits in the ready queue */
    unsigned plain_context : 1; /* context is a contextvars.Context */
    unsigned in_dealloc : 1;    /* the finalizer is not the collector's */
    unsigned urgent : 1;        /* of high priority */
    unsigned counted : 1;       /* among the loop's tasks that are not done */
    unsigned node_offset : 16;  /* of asyncio's list node in base (3.14+) */
};

/* The module state; NULL with an exception set once the module was cleared by
 * the garbage collector. */
static inline hl_state *
hl_future_st(hl_future *fut)
{
    hl_state *st;
    if (HL_LIKELY(fut->loop_is_ours)) {
        st = ((hl_loop *)fut->loop)->st;
    }
    else {
        st = hl_state_of_type(Py_TYPE(&fut->base.ob_base));
    }
    if (HL_UNLIKELY(st == NULL || st->aio == NULL)) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_RuntimeError, "hotloop is shut down");
        }
        return NULL;
    }
    return st;
}

/* May fields be used without asking the object's methods? */
static inline bool
hl_future_is_exact(const hl_state *st, PyObject *op)
{
    return Py_IS_TYPE(op, st->Future_type) || Py_IS_TYPE(op, st->Task_type);
}

static inline PyObject *
hl_future_op(hl_future *fut)
{
    return &fut->base.ob_base;
}

static inline PyObject *
hl_task_op(hl_task *task)
{
    return &task->fut.base.ob_base;
}

/* The name as an object, borrowed; NULL if it has not been one yet. */
static inline PyObject *
hl_task_name_object(const hl_task *task)
{
    return task->name & 1 ? NULL : (PyObject *)task->name;
}

/* A field of asyncio's structure, at an offset that aio_state.h found. */
static inline PyObject **
hl_base_field(PyObject *op, unsigned offset)
{
    return (PyObject **)(void *)((char *)op + offset);
}

/* The loop's count of tasks; begun once for each, ended with its life at the
 * latest. */
static inline void
hl_task_count_begin(hl_task *task)
{
    if (HL_LIKELY(task->fut.loop_is_ours && !task->counted)) {
        task->counted = 1;
        ((hl_loop *)task->fut.loop)->counts.tasks_created++;
    }
}

static inline void
hl_task_count_end(hl_task *task)
{
    if (task->counted) {
        task->counted = 0;
        ((hl_loop *)task->fut.loop)->counts.tasks_done++;
    }
}

/* ---- future.c: allocation and life cycle ---- */

/* A tracked object of an exact type of ours, all fields zero, from list or
 * fresh.  size is that of its structure. */
PyObject *hl_future_alloc(hl_freelist *list, PyTypeObject *type, size_t size);

/* Future.__init__().  loop may be NULL or None.  0 or -1. */
int hl_future_init(hl_state *st, hl_future *fut, PyObject *loop);

/* Records where the object was made, if the interpreter still can. */
int hl_future_record_origin(hl_state *st, hl_future *fut);

/* tp_traverse and tp_clear of the Future part, asyncio's own part (base: its
 * type) included. */
int hl_future_traverse(hl_future *fut, PyTypeObject *base, visitproc visit,
                       void *arg);
void hl_future_clear(hl_future *fut, PyTypeObject *base);

/* The asyncio class behind op's type, where dealloc is that of our class. */
PyTypeObject *hl_future_base(PyObject *op, destructor dealloc);

/* tp_finalize of the Future part: "exception was never retrieved".  Keeps the
 * pending exception. */
void hl_future_finalize(hl_future *fut);

/* Calls fut.loop.call_exception_handler() for a finalizer; an exception from
 * it is unraisable.  With exception: "message", "exception", key (fut); else
 * "message", key.  Then the origin, if recorded. */
void hl_future_last_word(hl_state *st, hl_future *fut, PyObject *message,
                         PyObject *exception, PyObject *key);

/* Ends the life of storage that was cleared: into list or to the allocator.
 * The type's reference is dropped, and that to loop (may be NULL). */
void hl_future_release(hl_future *fut, PyObject *loop, hl_freelist *list);

/* ---- future_ops.c: what a future does ---- */

/* RuntimeError unless __init__() was called.  0 or -1. */
int hl_future_ensure_alive(const hl_future *fut);

int hl_future_set_result(hl_state *st, hl_future *fut, PyObject *result);
int hl_future_set_exception(hl_state *st, hl_future *fut, PyObject *exc);

/* Future.cancel() (not Task's).  message may be NULL.  1, 0 if done already,
 * -1. */
int hl_future_cancel(hl_state *st, hl_future *fut, PyObject *message);

/* A task ended by exc (stolen), a CancelledError.  0 or -1. */
int hl_future_cancel_with(hl_state *st, hl_future *fut, PyObject *exc);

/* A new CancelledError for the cancellation; hands out a saved one once. */
PyObject *hl_future_make_cancelled_error(hl_state *st, hl_future *fut);

/* What result() does: new reference, or NULL with its exception raised. */
PyObject *hl_future_result(hl_state *st, hl_future *fut);

/* The exception that an awaiting coroutine gets: new reference; NULL if there
 * is a result.  No exception is pending afterwards. */
PyObject *hl_future_failure(hl_state *st, hl_future *fut);

/* Future.add_done_callback(); context is never NULL.  0 or -1. */
int hl_future_add_callback(hl_state *st, hl_future *fut, PyObject *callback,
                           PyObject *context);

/* Future.remove_done_callback(): how many, or -1. */
Py_ssize_t hl_future_remove_callback(hl_future *fut, PyObject *callback);

/* Future._callbacks: new list or None. */
PyObject *hl_future_list_callbacks(hl_state *st, hl_future *fut);

/* Makes task (of the same loop, not fut) wait for a pending future that has
 * no callbacks; -1 with MemoryError otherwise possible. */
int hl_future_link(hl_state *st, hl_future *fut, hl_task *task);

/* The rare part, allocated now if need be; NULL with MemoryError. */
hl_future_rare *hl_future_get_rare(hl_future *fut);

/* ---- future_iter.c ---- */

/* tp_iter and am_await of both types. */
PyObject *hl_future_iter(PyObject *op);
int hl_future_iter_type_init(PyObject *module, hl_state *st);

/* ---- future_methods.c and future_getset.c: entries of both types ---- */

PyObject *hl_Future_result(PyObject *op, PyObject *ignored);
PyObject *hl_Future_exception(PyObject *op, PyObject *ignored);
PyObject *hl_Future_done(PyObject *op, PyObject *ignored);
PyObject *hl_Future_cancelled(PyObject *op, PyObject *ignored);
PyObject *hl_Future_get_loop(PyObject *op, PyObject *ignored);
PyObject *hl_Future_add_done_callback(PyObject *op, PyObject *const *args,
                                      Py_ssize_t nargs, PyObject *kwnames);
PyObject *hl_Future_remove_done_callback(PyObject *op, PyObject *callback);
PyObject *hl_Future__make_cancelled_error(PyObject *op, PyObject *ignored);

extern const char hl_Future_result__doc__[];
extern const char hl_Future_exception__doc__[];
extern const char hl_Future_done__doc__[];
extern const char hl_Future_cancelled__doc__[];
extern const char hl_Future_get_loop__doc__[];
extern const char hl_Future_add_done_callback__doc__[];
extern const char hl_Future_remove_done_callback__doc__[];
extern const char hl_Future__make_cancelled_error__doc__[];

#if PY_VERSION_HEX >= 0x030D0000
#    define HL_CLASS_GETITEM_DOC \
        "__class_getitem__($type, object, /)\n--\n\nSee PEP 585."
#else
#    define HL_CLASS_GETITEM_DOC \
        "See PEP 585." /* no signature, as asyncio's */
#endif

/* The head of both method tables: asyncio's Task must not fall through to
 * asyncio's Future for any of them. */
#define HL_FUTURE_METHOD(name, flags) \
    {#name, HL_FASTCALL(hl_Future_##name), flags, hl_Future_##name##__doc__}
#define HL_FUTURE_METHODS                                                   \
    HL_FUTURE_METHOD(result, METH_NOARGS),                                  \
        HL_FUTURE_METHOD(exception, METH_NOARGS),                           \
        HL_FUTURE_METHOD(done, METH_NOARGS),                                \
        HL_FUTURE_METHOD(cancelled, METH_NOARGS),                           \
        HL_FUTURE_METHOD(get_loop, METH_NOARGS),                            \
        HL_FUTURE_METHOD(add_done_callback, METH_FASTCALL | METH_KEYWORDS), \
        HL_FUTURE_METHOD(remove_done_callback, METH_O),                     \
        HL_FUTURE_METHOD(_make_cancelled_error, METH_NOARGS),               \
    {                                                                       \
        "__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS,          \
            HL_CLASS_GETITEM_DOC                                            \
    }

/* Parses the arguments of cancel(msg=None), borrowed into *message. */
int hl_future_parse_cancel(PyObject *const *args, Py_ssize_t nargs,
                           PyObject *kwnames, PyObject **message);

/* AttributeError for `del op.<name>`, in asyncio's words: value is NULL.  0 or
 * -1. */
int hl_future_refuse_delete(PyObject *op, PyObject *value, const char *name);

PyObject *hl_Future_get_state(PyObject *op, void *closure);
PyObject *hl_Future_get_blocking(PyObject *op, void *closure);
int hl_Future_set_blocking(PyObject *op, PyObject *value, void *closure);
PyObject *hl_Future_get_log_traceback(PyObject *op, void *closure);
int hl_Future_set_log_traceback(PyObject *op, PyObject *value, void *closure);
PyObject *hl_Future_get_cancel_message(PyObject *op, void *closure);
int hl_Future_set_cancel_message(PyObject *op, PyObject *value, void *closure);
PyObject *hl_Future_get_private_loop(PyObject *op, void *closure);
PyObject *hl_Future_get_callbacks(PyObject *op, void *closure);
PyObject *hl_Future_get_private_result(PyObject *op, void *closure);
PyObject *hl_Future_get_private_exception(PyObject *op, void *closure);
PyObject *hl_Future_get_source_traceback(PyObject *op, void *closure);

#define HL_FUTURE_GETSET                                                      \
    {"_state", hl_Future_get_state, NULL, NULL, NULL},                        \
        {"_asyncio_future_blocking", hl_Future_get_blocking,                  \
         hl_Future_set_blocking, NULL, NULL},                                 \
        {"_log_traceback", hl_Future_get_log_traceback,                       \
         hl_Future_set_log_traceback, NULL, NULL},                            \
        {"_cancel_message", hl_Future_get_cancel_message,                     \
         hl_Future_set_cancel_message, NULL, NULL},                           \
        {"_loop", hl_Future_get_private_loop, NULL, NULL, NULL},              \
        {"_callbacks", hl_Future_get_callbacks, NULL, NULL, NULL},            \
        {"_result", hl_Future_get_private_result, NULL, NULL, NULL},          \
        {"_exception", hl_Future_get_private_exception, NULL, NULL, NULL},    \
    {                                                                         \
        "_source_traceback", hl_Future_get_source_traceback, NULL, NULL, NULL \
    }

/* ---- task.c: creation, cancelling ---- */

/* Puts a context in the place of the marker that task->context may be, before
 * it is shown or used elsewhere.  0 or -1. */
int hl_task_claim_context(hl_state *st, hl_task *task);

/* Task.__init__() after Future's.  name and context may be NULL or None.  0 or
 * -1. */
int hl_task_start(hl_state *st, hl_task *task, PyObject *coro, PyObject *name,
                  PyObject *context, bool eager);

/* Task.cancel(): 1, 0 if done already, -1. */
int hl_task_cancel(hl_state *st, hl_task *task, PyObject *message);

/* task.cancel(message) for a future awaited, whatever it is: 1, 0 or -1. */
int hl_task_cancel_waiter(hl_state *st, hl_task *task, PyObject *message);

/* Task.get_name(): new reference. */
PyObject *hl_task_get_name(hl_task *task);
int hl_task_set_name(hl_state *st, hl_task *task, PyObject *value);
void hl_task_clear_name(hl_task *task);

/* Takes the coroutine away from a task that finished eagerly. */
void hl_task_drop_coro(hl_state *st, hl_task *task);

/* task_methods.c: the whole method table of Task. */
extern PyMethodDef hl_task_methods[];

/* ---- task_step.c ---- */

/* Queue entries (hl_run_fn). */
int hl_task_run_step(hl_loop *loop, PyObject *task);
int hl_task_run_wakeup(hl_loop *loop, PyObject *task);

/* Queues a step; exc (borrowed) may be NULL.  0 or -1. */
int hl_task_step_soon(hl_state *st, hl_task *task, PyObject *exc);

/* One step.  The caller owns a reference, has entered the context and made the
 * task the current one.  exc (borrowed) may be NULL.  0 or -1. */
int hl_task_step(hl_state *st, hl_task *task, PyObject *exc);

/* The same as a callback of any loop runs it: enters and leaves the task. */
int hl_task_step_entered(hl_state *st, hl_task *task, PyObject *exc);

/* The eager first step.  0 or -1. */
int hl_task_eager_start(hl_state *st, hl_task *task);

/* ---- task_wait.c ---- */

/* What the coroutine yielded (stolen).  0 or -1. */
int hl_task_wait(hl_state *st, hl_task *task, PyObject *result);

/* Queues the wake-up of a task (stolen) by a future that is done. */
int hl_task_wake(hl_state *st, hl_task *task, hl_future *fut);

/* The wake-up as asyncio has it: a callable(future). */
PyObject *hl_task_wakeup_new(hl_task *task);

/* The task behind such a callable, borrowed, or NULL. */
hl_task *hl_task_of_wakeup(PyObject *callback);

/* A callable() that runs one step of the task, exc thrown in if not NULL. */
PyObject *hl_task_stepper_new(hl_state *st, hl_task *task, PyObject *exc);
int hl_task_stepper_type_init(PyObject *module, hl_state *st);

/* ---- task_register.c: asyncio's set of all tasks ---- */

int hl_task_register(hl_state *st, hl_task *task);
int hl_task_register_eager(hl_state *st, hl_task *task);
int hl_task_unregister_eager(hl_state *st, hl_task *task);

/* The task is done.  No exception may be pending. */
void hl_task_unregister(hl_state *st, hl_task *task);

/* The task dies, or is broken up by the collector.  Keeps the pending
 * exception, does without the module state where that is gone. */
void hl_task_unregister_dying(hl_task *task);

int hl_task_ref_type_init(PyObject *module, hl_state *st);

/* 3.14+: the awaited-by links of the call graph.  Elsewhere nothing.  0 or -1
 */
int hl_awaited_by_add(hl_state *st, PyObject *fut, hl_task *task);
int hl_awaited_by_discard(hl_state *st, PyObject *fut, hl_task *task);

#endif
