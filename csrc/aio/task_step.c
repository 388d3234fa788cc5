/* task_step.c - running a task: one step of its coroutine at a time.
 *
 * On a loop of ours a task sits in the ready queue as itself, and becomes the
 * current task without being left again: the loop does that when something
 * else runs.  On other loops, and in debug mode, a step is a callback.
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "aio/future_int.h"

#include "loop/handle.h"
#include "state/errors.h"

static inline bool
task_is_direct(const hl_task *task)
{
    return task->fut.loop_is_ours && task->plain_context &&
           hl_loop_is_direct((hl_loop *)task->fut.loop);
}

/* For a task that is direct. */
static inline int
queue_step(hl_task *task)
{
    return hl_loop_push_task((hl_loop *)task->fut.loop,
                             Py_NewRef(hl_task_op(task)), hl_task_run_step,
                             task->urgent);
}

int
hl_task_step_soon(hl_state *st, hl_task *task, PyObject *exc)
{
    if (HL_LIKELY(exc == NULL && task_is_direct(task))) {
        return queue_step(task);
    }
    if (hl_future_ensure_alive(&task->fut) < 0 ||
        hl_task_claim_context(st, task) < 0) {
        return -1;
    }
    PyObject *stepper = hl_task_stepper_new(st, task, exc);
    if (stepper == NULL) {
        return -1;
    }
    /* An evil call_soon() could replace both. */
    PyObject *loop = Py_NewRef(task->fut.loop);
    PyObject *context = Py_XNewRef(task->context);
    PyObject *handle =
        hl_call_soon(st, loop, stepper, st->empty_tuple, context);
    Py_DECREF(loop);
    Py_XDECREF(context);
    Py_DECREF(stepper);
    Py_XDECREF(handle);
    return handle == NULL ? -1 : 0;
}

/* ---- one step ---- */

/* coro.throw(exc), told like PyIter_Send(). */
static PySendResult
coro_throw(hl_state *st, PyObject *coro, PyObject *exc, PyObject **result)
{
    *result = PyObject_CallMethodOneArg(coro, st->str_throw, exc);
    if (*result != NULL) {
        return PYGEN_NEXT;
    }
    if (PyErr_Occurred() && !PyErr_ExceptionMatches(PyExc_StopIteration)) {
        return PYGEN_ERROR;
    }
    PyObject *stop = hl_error_fetch();
    *result = Py_NewRef(stop == NULL ? Py_None
                                     : ((PyStopIterationObject *)stop)->value);
    Py_XDECREF(stop);
    return PYGEN_RETURN;
}

/* The coroutine returned result (stolen). */
static int
task_return(hl_state *st, hl_task *task, PyObject *result)
{
    int rv;
    if (HL_UNLIKELY(task->must_cancel)) {
        /* Cancelled right before it stopped. */
        task->must_cancel = 0;
        hl_future_rare *rare = task->fut.rare;
        PyObject *message = rare ? Py_XNewRef(rare->cancel_message) : NULL;
        rv = hl_future_cancel(st, &task->fut, message);
        Py_XDECREF(message);
    }
    else {
        rv = hl_future_set_result(st, &task->fut, result);
    }
    Py_DECREF(result);
    return rv < 0 ? -1 : 0;
}

/* The coroutine raised the pending exception. */
static int
task_fail(hl_state *st, hl_task *task)
{
    bool cancelled = PyErr_ExceptionMatches(st->CancelledError);
    bool exits = hl_error_is_exit();
    PyObject *exc = hl_error_fetch();
    if (exc == NULL) {
        return -1;
    }
    if (cancelled) {
        return hl_future_cancel_with(st, &task->fut, exc);
    }
    int rv = hl_future_set_exception(st, &task->fut, exc);
    if (rv == 0 && exits) {
        hl_error_restore(Py_NewRef(exc));
        rv = -1;
    }
    Py_DECREF(exc);
    return rv;
}

static int
raise_done(hl_state *st, hl_task *task, PyObject *exc)
{
    /* The method's name, which 3.14 changed. */
    const char *step = PY_VERSION_HEX >= 0x030E0000 ? "__step" : "_step";
    PyErr_Format(st->InvalidStateError, "%s(): already done: %R %R", step,
                 hl_task_op(task), exc ? exc : Py_None);
    return -1;
}

/* The exception to throw in the place of exc for a cancelled task: new
 * reference, or NULL. */
static PyObject *
take_cancel(hl_state *st, hl_task *task, PyObject *exc)
{
    PyObject *thrown =
        exc != NULL && PyErr_GivenExceptionMatches(exc, st->CancelledError)
            ? Py_NewRef(exc)
            : hl_future_make_cancelled_error(st, &task->fut);
    if (thrown != NULL) {
        task->must_cancel = 0;
    }
    return thrown;
}

/* A callback steps the task while its wake-up still waits in the ready queue,
 * which will have to know who woke it.  0 or -1. */
static int
keep_waker(hl_task *task)
{
    hl_future_rare *rare = hl_future_get_rare(&task->fut);
    if (rare == NULL) {
        return -1;
    }
    if (rare->waker == NULL && task->linked) {
        rare->waker = Py_NewRef(task->fut_waiter);
    }
    return 0;
}

/* PyIter_Send(coro, None), whose first question is asked here: every step of
 * every task goes through it. */
static inline PySendResult
coro_send(PyObject *coro, PyObject **result)
{
    PyAsyncMethods *methods = Py_TYPE(coro)->tp_as_async;
    if (HL_LIKELY(methods != NULL && methods->am_send != NULL)) {
        return methods->am_send(coro, Py_None, result);
    }
    return PyIter_Send(coro, Py_None, result);
}

/* hl_task_step() for the ready queue, which is to have it without a call. */
static inline int
step(hl_state *st, hl_task *task, PyObject *exc)
{
    PyObject *thrown = NULL, *result = NULL;
    if (HL_UNLIKELY(task->fut.state != HL_FUTURE_PENDING)) {
        return raise_done(st, task, exc);
    }
    if (HL_UNLIKELY(task->woken && keep_waker(task) < 0)) {
        return -1;
    }
    if (HL_UNLIKELY(task->must_cancel)) {
        thrown = take_cancel(st, task, exc);
        if (thrown == NULL) {
            task->linked = 0;
            Py_CLEAR(task->fut_waiter);
            return -1;
        }
        exc = thrown;
    }
    task->linked = 0;
    Py_CLEAR(task->fut_waiter);
    PyObject *coro = Py_XNewRef(task->coro);
    if (HL_UNLIKELY(coro == NULL)) {
        Py_XDECREF(thrown);
        PyErr_SetString(PyExc_RuntimeError, "uninitialized Task object");
        return -1;
    }
    PySendResult sent = HL_LIKELY(exc == NULL)
                            ? coro_send(coro, &result)
                            : coro_throw(st, coro, exc, &result);
    Py_DECREF(coro);
    Py_XDECREF(thrown);
    switch (sent) {
    case PYGEN_NEXT:
        if (result == Py_None && task_is_direct(task)) {
            /* As hl_task_wait() would have it: the end of the queue. */
            Py_DECREF(result);
            return queue_step(task);
        }
        return hl_task_wait(st, task, result);
    case PYGEN_RETURN:
        return task_return(st, task, result);
    case PYGEN_ERROR:
    default:
        return task_fail(st, task);
    }
}

/* Whether a step failed for want of memory, and nothing will wake the task. */
static bool
is_adrift(const hl_task *task)
{
    return task->fut.state == HL_FUTURE_PENDING && !task->woken &&
           task->fut_waiter == NULL &&
           PyErr_ExceptionMatches(PyExc_MemoryError);
}

/* A step failed.  Where the task could not be queued or made to wait, its
 * coroutine hears of it at once, at its await: that takes no memory.  (asyncio
 * reports it, and the task waits for ever.) */
static int
step_failed(hl_state *st, hl_task *task)
{
    int rv = -1;
    while (rv < 0 && is_adrift(task)) {
        PyObject *exc = hl_error_fetch();
        rv = step(st, task, exc);
        Py_XDECREF(exc);
    }
    return rv;
}

int
hl_task_step(hl_state *st, hl_task *task, PyObject *exc)
{
    int rv = step(st, task, exc);
    return HL_LIKELY(rv == 0) ? 0 : step_failed(st, task);
}

/* ---- from the ready queue ---- */

/* Reports the pending exception as the Handle would that asyncio has for a
 * step.  0, or -1 when it must end the run. */
static int
task_report(hl_loop *loop, hl_task *task)
{
    if (hl_error_is_exit()) {
        return -1;
    }
    hl_state *st = loop->st;
    PyObject *handle = NULL, *exc = hl_error_fetch();
    PyObject *stepper = hl_task_stepper_new(st, task, NULL);
    if (stepper != NULL) {
        handle = hl_handle_new(loop, stepper, st->empty_tuple, task->context);
        Py_DECREF(stepper);
    }
    if (handle == NULL) {
        Py_XDECREF(exc);
        return -1;
    }
    hl_error_restore(exc);
    int rv = hl_handle_report(loop, handle);
    Py_DECREF(handle);
    return rv;
}

/* The task could not become the current one.  Without memory for that it is
 * stepped all the same, to hear of it. */
static int
enter_failed(hl_state *st, hl_task *task)
{
    if (!PyErr_ExceptionMatches(PyExc_MemoryError)) {
        return -1;
    }
    task->linked = 0;
    Py_CLEAR(task->fut_waiter);
    return step_failed(st, task);
}

/* One step as the current task; *left as hl_loop_enter_task() has it. */
static inline int
step_current(hl_loop *loop, hl_task *task, PyObject *exc, PyObject **left)
{
    if (HL_UNLIKELY(hl_loop_enter_task(loop, hl_task_op(task), left) < 0)) {
        return enter_failed(loop->st, task);
    }
    task->running = 1;
    loop->counts.task_steps++;
    int rv = step(loop->st, task, exc);
    if (HL_UNLIKELY(rv < 0)) {
        rv = step_failed(loop->st, task);
    }
    task->running = 0;
    return rv;
}

/* Leaves a task that only the register holds if it has a last word, which the
 * handler of exceptions gets with nothing entered.  0 or -1. */
static inline int
leave_dying(hl_loop *loop, const hl_task *next)
{
    hl_task *last = (hl_task *)loop->entered_task;
    if (HL_LIKELY(last == NULL || last == next ||
                  Py_REFCNT(hl_task_op(last)) > 2)) { /* its and ours */
        return 0;
    }
    return last->fut.log_traceback ? hl_loop_leave_task(loop) : 0;
}

/* One step as an entry of the ready queue.  Steals task and exc. */
static int
task_run(hl_loop *loop, hl_task *task, PyObject *exc)
{
    int rv = -1;
    PyObject *left = NULL;
    if (HL_UNLIKELY(task->context == NULL)) {
        PyErr_SetString(PyExc_RuntimeError, "uninitialized Task object");
    }
    else if (HL_LIKELY(leave_dying(loop, task) == 0 &&
                       hl_loop_enter_owner(loop, hl_task_op(task),
                                           &task->context) == 0)) {
        rv = step_current(loop, task, exc, &left);
        hl_loop_settle_owner(loop, &task->context);
    }
    if (HL_UNLIKELY(rv < 0)) {
        /* The handler is no task, and enters the context itself. */
        PyObject *raised = hl_error_fetch();
        if (hl_loop_leave_task(loop) < 0) {
            PyErr_Clear();
        }
        hl_error_restore(raised);
        rv = task_report(loop, task);
    }
    Py_XDECREF(exc);
    Py_XDECREF(left);
    Py_DECREF(hl_task_op(task));
    return rv;
}

int
hl_task_run_step(hl_loop *loop, PyObject *op)
{
    return task_run(loop, (hl_task *)op, NULL);
}

/* What a wake-up by fut throws into the task: new reference, or NULL. */
static inline PyObject *
wakeup_failure(hl_state *st, hl_task *task, hl_future *fut)
{
    if (hl_awaited_by_discard(st, hl_future_op(fut), task) < 0) {
        return hl_error_fetch();
    }
    if (HL_LIKELY(fut->state == HL_FUTURE_FINISHED && !fut->is_exception)) {
        return NULL;
    }
    Py_INCREF(fut);
    PyObject *exc = hl_future_failure(st, fut);
    Py_DECREF(fut);
    return exc;
}

int
hl_task_run_wakeup(hl_loop *loop, PyObject *op)
{
    hl_task *task = (hl_task *)op;
    hl_future_rare *rare = task->fut.rare;
    PyObject *exc = NULL;
    task->woken = 0;
    if (HL_UNLIKELY(rare != NULL && rare->waker != NULL)) {
        PyObject *waker = rare->waker;
        rare->waker = NULL;
        exc = wakeup_failure(loop->st, task, (hl_future *)waker);
        Py_DECREF(waker);
    }
    else if (HL_LIKELY(task->linked)) {
        exc = wakeup_failure(loop->st, task, (hl_future *)task->fut_waiter);
    }
    return task_run(loop, task, exc);
}

/* ---- from a callback ---- */

/* Refuses to enter a task while another one is on the C stack. */
static int
check_not_running(hl_state *st, hl_loop *loop, hl_task *task)
{
    PyObject *entered = loop->entered_task;
    if (entered != NULL && PyObject_TypeCheck(entered, st->Task_type) &&
        ((hl_task *)entered)->running) {
        PyErr_Format(PyExc_RuntimeError,
                     "Cannot enter into task %R while another task %R is "
                     "being executed.",
                     hl_task_op(task), entered);
        return -1;
    }
    return 0;
}

/* On a loop of ours, left at once: a callback is no task. */
static int
step_on_ours(hl_state *st, hl_loop *loop, hl_task *task, PyObject *exc)
{
    if (check_not_running(st, loop, task) < 0) {
        return -1;
    }
    PyObject *left;
    int rv = step_current(loop, task, exc, &left);
    PyObject *raised = rv < 0 ? hl_error_fetch() : NULL;
    if (hl_loop_leave_current(loop) < 0) {
        rv = -1;
    }
    Py_XDECREF(left);
    if (raised != NULL) {
        PyErr_Clear();
        hl_error_restore(raised);
    }
    return rv;
}

static int
step_on_foreign(hl_state *st, PyObject *loop, hl_task *task, PyObject *exc)
{
    if (hl_register_enter(st, loop, hl_task_op(task)) < 0) {
        return -1;
    }
    int rv = hl_task_step(st, task, exc);
    PyObject *raised = rv < 0 ? hl_error_fetch() : NULL;
    if (hl_register_leave(st, loop, hl_task_op(task)) < 0) {
        rv = -1;
    }
    if (raised != NULL) {
        PyErr_Clear();
        hl_error_restore(raised);
    }
    return rv;
}

int
hl_task_step_entered(hl_state *st, hl_task *task, PyObject *exc)
{
    if (hl_future_ensure_alive(&task->fut) < 0) {
        return -1;
    }
    PyObject *loop = Py_NewRef(task->fut.loop);
    int rv = task->fut.loop_is_ours
                 ? step_on_ours(st, (hl_loop *)loop, task, exc)
                 : step_on_foreign(st, loop, task, exc);
    Py_DECREF(loop);
    return rv;
}

/* ---- the eager first step ---- */

/* Makes task the current one on whatever loop it has. */
static int
task_swap(hl_state *st, hl_task *task, hl_swapped *before)
{
    PyObject *loop = task->fut.loop;
    if (task->fut.loop_is_ours) {
        return hl_loop_swap_task((hl_loop *)loop, hl_task_op(task), before);
    }
    return hl_register_swap(st, loop, hl_task_op(task), &before->task);
}

static int
swap_back(hl_state *st, hl_task *task, hl_swapped *before)
{
    if (task->fut.loop_is_ours) {
        return hl_loop_swap_back((hl_loop *)task->fut.loop, before);
    }
    PyObject *current;
    int rv = hl_register_swap(st, task->fut.loop, before->task, &current);
    Py_XDECREF(current);
    Py_CLEAR(before->task);
    return rv;
}

/* Keeps the pending exception if there is one already. */
static int
task_swap_back(hl_state *st, hl_task *task, hl_swapped *before)
{
    PyObject *raised = hl_error_fetch();
    int rv = swap_back(st, task, before);
    if (hl_task_unregister_eager(st, task) < 0) {
        rv = -1;
    }
    if (raised != NULL) {
        PyErr_Clear();
        hl_error_restore(raised);
        rv = -1;
    }
    return rv;
}

/* Runs the step, with the task as the current one. */
static int
eager_step(hl_state *st, hl_task *task, PyObject *context)
{
    if (hl_task_register_eager(st, task) < 0 || PyContext_Enter(context) < 0) {
        return -1;
    }
    task->running = 1;
    if (task->fut.loop_is_ours) {
        ((hl_loop *)task->fut.loop)->counts.task_steps++;
    }
    int rv = hl_task_step(st, task, NULL);
    task->running = 0;
    return PyContext_Exit(context) < 0 ? -1 : rv;
}

int
hl_task_eager_start(hl_state *st, hl_task *task)
{
    hl_swapped before;
    if (task_swap(st, task, &before) < 0) {
        return -1;
    }
    PyObject *context = Py_NewRef(task->context);
    int rv = eager_step(st, task, context);
    if (task_swap_back(st, task, &before) < 0) {
        rv = -1;
    }
    if (task->fut.state != HL_FUTURE_PENDING) {
        hl_task_drop_coro(st, task);
    }
    else if (rv == 0 && hl_task_register(st, task) < 0) {
        rv = -1;
    }
    Py_DECREF(context);
    return rv;
}
