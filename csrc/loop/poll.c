/* poll.c - the libuv side of a loop: opening, polling, waking, closing.
 *
 * Callbacks of libuv run inside uv_run(), without the GIL when it blocks; they
 * only gather.  Blocking without missing a deadline: libuv counts in
 * milliseconds, so its timer covers the whole ones and the rest is waited for
 * on the poller's own descriptor.
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "loop/insight.h"
#include "loop/loop.h"
#include "loop/watchdog.h"
#include "loop/watcher.h"
#include "state/errors.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <time.h>
#include <unistd.h>

#ifdef __linux__
#    include <sys/eventfd.h>
#endif

#define NS_PER_MS 1000000LL
#define NS_PER_S 1000000000LL

/* Below this a deadline is waited for exactly, above it by libuv's timer. */
#define EXACT_WAIT_NS (2 * NS_PER_MS)

/* Exact waits end at least this far apart: a crowd of timers a few
 * microseconds from each other costs one wake-up, a timer by itself is on
 * time. */
#define EXACT_SPACING_NS (NS_PER_MS / 2)

/* Our own wake-up and not uv_async_t, whose receiver spins while a sender is
 * preempted between its write and its second store: on a busy machine that
 * cost more than the rest of the hand-over. */
static int
wake_open(int fds[2])
{
#ifdef __linux__
    fds[0] = fds[1] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    return fds[0] < 0 ? -errno : 0;
#else
    return uv_pipe(fds, UV_NONBLOCK_PIPE, UV_NONBLOCK_PIPE);
#endif
}

static void
wake_close(const int fds[2])
{
    close(fds[0]);
    if (fds[1] != fds[0]) {
        close(fds[1]);
    }
}

static void
wake_on_poll(uv_poll_t *poll, int Py_UNUSED(status), int Py_UNUSED(events))
{
    hl_loop *loop = poll->data;
    uint64_t counter;
    while (read(loop->wake_fds[0], &counter, sizeof(counter)) ==
               (ssize_t)sizeof(counter) &&
           loop->wake_fds[0] != loop->wake_fds[1]) {
    }
}

void
hl_loop_wake(hl_loop *loop)
{
    if (loop->parked && !loop->waking) {
        const uint64_t one = 1;
        loop->waking = true;
        /* Full means that a wake-up is waiting to be read. */
        while (write(loop->wake_fds[1], &one, sizeof(one)) < 0 &&
               errno == EINTR) {
        }
    }
}

/* libuv before 1.45 runs timers ahead of its poll: without this a deadline
 * that passed just before would leave the poll without one. */
static void
timer_on_timeout(uv_timer_t *timer)
{
    uv_stop(timer->loop);
}

int
hl_loop_open_uv(hl_loop *loop)
{
    int err = uv_loop_init(&loop->uv);
    if (err < 0) {
        return hl_raise_uv(err);
    }
    loop->uv.data = loop;
    err = wake_open(loop->wake_fds);
    if (err < 0) {
        goto fail_wake;
    }
    err = uv_poll_init(&loop->uv, &loop->wake, loop->wake_fds[0]);
    if (err < 0) {
        goto fail_poll;
    }
    loop->wake.data = loop;
    uv_poll_start(&loop->wake, UV_READABLE, wake_on_poll); /* cannot fail */
    uv_timer_init(&loop->uv, &loop->timer);                /* cannot fail */
    loop->uv_open = loop->uv_changed = true;
    return 0;

fail_poll:
    wake_close(loop->wake_fds);
fail_wake:
    uv_loop_close(&loop->uv);
    return hl_raise_uv(err);
}

void
hl_loop_close_uv(hl_loop *loop)
{
    if (!loop->uv_open) {
        return;
    }
    loop->uv_open = false;
    hl_watchers_close_all(loop);
    if (loop->fork_error < 0) {
        return; /* without a poller libuv cannot even close its handles */
    }
    uv_close((uv_handle_t *)&loop->wake, NULL);
    uv_close((uv_handle_t *)&loop->timer, NULL);
    uv_run(&loop->uv, UV_RUN_DEFAULT); /* the close callbacks, nothing else */
    (void)uv_loop_close(&loop->uv);
    wake_close(loop->wake_fds);
    PyMem_RawFree(loop->events);
    loop->events = NULL;
    loop->events_count = loop->events_size = 0;
}

/* Is it this thread that is inside a run of the loop? */
static bool
runs_here(hl_loop *loop)
{
    if (!loop->running || loop->thread_id == NULL ||
        !PyLong_Check(loop->thread_id)) {
        return false;
    }
    unsigned long ident = PyLong_AsUnsignedLong(loop->thread_id);
    PyErr_Clear(); /* of a number that no thread has */
    return ident == PyThread_get_thread_ident();
}

int
hl_loop_before_fork(hl_loop *loop)
{
    return runs_here(loop) ? hl_loop_run_flushes(loop) : 0;
}

/* Moves the descriptor from to the number to, closed in programs that are
 * executed.  0 or a libuv status. */
static int
wake_move(int from, int to)
{
    int err = 0;
    if (from != to) {
        if (dup2(from, to) < 0 || fcntl(to, F_SETFD, FD_CLOEXEC) < 0) {
            err = -errno;
        }
        close(from);
    }
    return err;
}

/* A wake-up of our own under the descriptors that libuv knows.  The parent's
 * goes first: there may be no other number free. */
static int
wake_replace(hl_loop *loop)
{
    int fds[2];
    wake_close(loop->wake_fds);
    int err = wake_open(fds);
    if (err < 0) {
        return err;
    }
    bool one = fds[1] == fds[0];
    err = wake_move(fds[0], loop->wake_fds[0]);
    if (!one && err == 0) {
        err = wake_move(fds[1], loop->wake_fds[1]);
    }
    return err;
}

void
hl_loop_after_fork(hl_loop *loop)
{
    if (!loop->uv_open) {
        return;
    }
    hl_watch_after_fork(loop);
    loop->parked = loop->waking = false; /* the parent's thread, not one of
                                          * ours */
    loop->fork_error = uv_loop_fork(&loop->uv);
    if (loop->fork_error == 0) {
        loop->fork_error = wake_replace(loop);
    }
    if (loop->fork_error == 0) {
        hl_watchers_after_fork(loop);
    }
    loop->uv_changed = loop->must_poll = true;
}

int64_t
hl_loop_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * NS_PER_S + now.tv_nsec;
}

double
hl_loop_now(void)
{
    return (double)hl_loop_now_ns() / 1e9;
}

/* Waits on the poller's descriptor: to the nanosecond where ppoll() is to be
 * had, and ended by any signal.  Returns whether there may be events.  Without
 * the GIL. */
static bool
wait_backend(uv_loop_t *uv, int64_t timeout)
{
    struct pollfd backend = {.fd = uv_backend_fd(uv), .events = POLLIN};
#ifdef __linux__
    struct timespec limit = {
        .tv_sec = (time_t)(timeout / NS_PER_S),
        .tv_nsec = (long)(timeout % NS_PER_S),
    };
    return ppoll(&backend, 1, timeout < 0 ? NULL : &limit, NULL) > 0;
#else
    int ms = timeout < 0 ? -1 : (int)((timeout + NS_PER_MS - 1) / NS_PER_MS);
    return poll(&backend, 1, ms) > 0;
#endif
}

/* Waits for a deadline within EXACT_WAIT_NS, or an event. */
static bool
wait_exact(hl_loop *loop, int64_t timeout)
{
    int64_t now = hl_loop_now_ns();
    int64_t until = Py_MAX(now + timeout, loop->next_exact);
    bool ready = wait_backend(&loop->uv, until - now);
    if (!ready && hl_loop_now_ns() >= until) {
        loop->next_exact = until + EXACT_SPACING_NS;
    }
    return ready;
}

/* A poll that may block.  Without the GIL. */
static void
poll_blocking(hl_loop *loop, int64_t timeout)
{
    bool exact = timeout >= 0 && timeout < EXACT_WAIT_NS;
    if (!exact && !loop->poll_sees_signals) {
        uv_run(&loop->uv, UV_RUN_ONCE);
        return;
    }
    if (loop->uv_changed) {
        uv_run(&loop->uv, UV_RUN_NOWAIT); /* may find events already */
    }
    if (loop->events_count > 0) {
        return;
    }
    if (exact ? wait_exact(loop, timeout) : wait_backend(&loop->uv, timeout)) {
        uv_run(&loop->uv, UV_RUN_NOWAIT);
    }
}

static void
set_timer(hl_loop *loop, int64_t timeout)
{
    if (timeout < EXACT_WAIT_NS) {
        if (uv_is_active((uv_handle_t *)&loop->timer)) {
            uv_timer_stop(&loop->timer);
        }
        return;
    }
    uv_update_time(&loop->uv);
    uv_timer_start(&loop->timer, timer_on_timeout,
                   (uint64_t)(timeout / NS_PER_MS - 1), 0);
}

/* If there are any, even a poll that does not block hands them the GIL, as
 * every poll of asyncio does. */
bool
hl_loop_has_other_threads(void)
{
    PyInterpreterState *interp = PyInterpreterState_Get();
    return PyThreadState_Next(PyInterpreterState_ThreadHead(interp)) != NULL;
}

/* Polls without the GIL: the others see no task entered. */
static int
poll_unlocked(hl_loop *loop, int64_t timeout)
{
    if (hl_loop_leave_task(loop) < 0) {
        return -1;
    }
    /* Once made it stays.  Alone there is no GIL to wait for. */
    bool insight = loop->insight != NULL && hl_loop_has_other_threads();
    loop->parked = true;
    Py_BEGIN_ALLOW_THREADS if (timeout == 0)
    {
        uv_run(&loop->uv, UV_RUN_NOWAIT);
    }
    else
    {
        poll_blocking(loop, timeout);
    }
    if (insight) {
        hl_insight_polled(loop);
    }
    Py_END_ALLOW_THREADS loop->parked = false;
    loop->waking = false;
    return 0;
}

/* Descriptors that the kernel had no room for are tried again soon. */
static int64_t
timeout_refused(const hl_loop *loop, int64_t timeout)
{
    if (hl_ring_count(&loop->ready) > 0 || hl_ring_count(&loop->urgent) > 0) {
        return 0; /* a report */
    }
    return timeout < 0 ? NS_PER_S : Py_MIN(timeout, NS_PER_S);
}

/* Tells those who look that the loop is in its poller, or comes from there. */
static void
poll_begins(hl_loop *loop)
{
    if (loop->insight != NULL) {
        hl_insight_poll_begins(loop);
    }
    if (loop->watch != NULL) {
        (void)hl_watch_beat(loop->watch, false);
    }
}

static void
poll_ends(hl_loop *loop)
{
    if (loop->insight != NULL) {
        hl_insight_poll_ends(loop);
    }
    if (loop->watch != NULL) {
        (void)hl_watch_beat(loop->watch, true);
    }
}

int
hl_loop_poll(hl_loop *loop, int64_t timeout)
{
    if (HL_UNLIKELY(loop->fork_error < 0)) {
        return hl_raise_uv(loop->fork_error);
    }
    hl_watchers_arm(loop);
    if (HL_UNLIKELY(loop->dirty_count > 0)) {
        timeout = timeout_refused(loop, timeout);
    }
    loop->must_poll = false;
    loop->turns_unpolled = 0;
    loop->operations_left = loop->budget.operations;
    loop->counts.polls++;
    if (HL_UNLIKELY(loop->insight != NULL || loop->watch != NULL)) {
        poll_begins(loop);
    }
    if (timeout != 0) {
        set_timer(loop, timeout);
    }
    if (timeout != 0 || hl_loop_has_other_threads()) {
        if (poll_unlocked(loop, timeout) < 0) {
            return -1;
        }
    }
    else {
        uv_run(&loop->uv, UV_RUN_NOWAIT);
    }
    loop->uv_changed = false;
    loop->last_poll = hl_loop_now_ns();
    if (HL_UNLIKELY(loop->insight != NULL || loop->watch != NULL)) {
        poll_ends(loop);
    }
    if (PyErr_CheckSignals() < 0) {
        PyObject *exc = hl_error_fetch();
        hl_watchers_drop_events(loop);
        hl_error_restore(exc);
        return -1;
    }
    return loop->events_count > 0 ? hl_watchers_dispatch(loop) : 0;
}
