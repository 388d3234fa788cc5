/* watcher_dispatch.c - from the events of a poll to the ready queue.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "loop/watcher_int.h"

#include "loop/handle.h"
#include "state/errors.h"

#include <poll.h>

/* Unwanted events that an idle descriptor may have before it is disarmed: the
 * task that was woken to read has not run yet. */
#define IDLE_EVENTS_MAX 2

/* Queues what waits; a handle that was cancelled is removed instead. */
static int
dispatch_waiting(hl_watcher *watcher, int which)
{
    hl_loop *loop = watcher->loop;
    const hl_waiting *slot = watcher_slot(watcher, which);
    if (slot->obj == NULL) {
        return 0;
    }
    if (slot->run != NULL) {
        return hl_loop_push(loop, Py_NewRef(slot->obj), slot->run);
    }
    if (hl_handle_cancelled(loop->st, slot->obj)) {
        hl_watcher_remove_handle(loop, watcher->fd, which);
        return 0;
    }
    return hl_loop_push_handle(loop, Py_NewRef(slot->obj), hl_handle_run);
}

/* Is the event that of the file that has the number now? */
static bool
watcher_confirm(hl_watcher *watcher, int events)
{
    struct pollfd now = {.fd = watcher->fd};
    now.events = (short)((events & UV_READABLE ? POLLIN : 0) |
                         (events & UV_WRITABLE ? POLLOUT : 0));
    if (watcher->owner != NULL) {
        watcher->doubt--; /* it says so when an event turns out to be none */
    }
    return poll(&now, 1, 0) != 0;
}

/* An event that nobody wants: libuv is told so, for an idle descriptor after a
 * while. */
static int
dispatch_unwanted(hl_watcher *watcher)
{
    if (watcher->owner == NULL && watcher->idle_events < IDLE_EVENTS_MAX) {
        watcher->idle_events++;
        return 0;
    }
    watcher->force = true;
    return hl_watcher_mark_dirty(watcher);
}

/* An error may be that of a file that is out of reach. */
static void
watcher_check_file(hl_watcher *watcher)
{
    struct stat info;
    if (watcher->owner == NULL && (hl_fd_stat(watcher->fd, &info) < 0 ||
                                   !watcher_is_of(watcher, &info))) {
        watcher->loop->stale = true;
    }
}

static int
dispatch_event(hl_watcher *watcher, int events)
{
    if (events < 0) {
        /* libuv stopped the handle: let the system calls find the error. */
        watcher_check_file(watcher);
        watcher->armed = 0;
        events = UV_READABLE | UV_WRITABLE;
        if (watcher->wanted != 0 && hl_watcher_mark_dirty(watcher) < 0) {
            return -1;
        }
    }
    else if (HL_UNLIKELY(watcher->doubt > 0) &&
             !watcher_confirm(watcher, events)) {
        watcher->loop->stale = true;
        return 0;
    }
    else if ((events & ~watcher->wanted) != 0 &&
             dispatch_unwanted(watcher) < 0) {
        return -1;
    }
    events &= watcher->wanted;
    if (watcher->owner != NULL) {
        watcher->ready |= events;
        if (events == 0 || watcher->queued) {
            return 0;
        }
        watcher->queued = true;
        return hl_loop_push(watcher->loop, Py_NewRef(watcher->owner),
                            watcher->on_ready);
    }
    if ((events & UV_READABLE) && dispatch_waiting(watcher, UV_READABLE) < 0) {
        return -1;
    }
    return events & UV_WRITABLE ? dispatch_waiting(watcher, UV_WRITABLE) : 0;
}

void
hl_watchers_drop_events(hl_loop *loop)
{
    for (int i = 0; i < loop->events_count; i++) {
        hl_watcher *watcher = loop->events[i].watcher;
        if (loop->events[i].events < 0) {
            watcher->armed = 0; /* libuv stopped it */
            if (watcher->wanted != 0 && hl_watcher_mark_dirty(watcher) < 0) {
                PyErr_Clear();
            }
        }
    }
    loop->events_count = 0;
}

int
hl_watchers_dispatch(hl_loop *loop)
{
    int rv = 0;
    hl_ring *into = loop->into;
    for (int i = 0; i < loop->events_count; i++) {
        hl_poll_event *event = &loop->events[i];
        loop->into = hl_loop_ring(loop, event->watcher->urgent);
        if (dispatch_event(event->watcher, event->events) < 0) {
            rv = -1; /* level-triggered: the rest comes again */
            break;
        }
    }
    loop->into = into;
    loop->events_count = 0;
    return rv;
}

static int
refused_run(hl_loop *loop, PyObject *exc)
{
    int rv = hl_report(loop->st, (PyObject *)loop,
                       "The kernel does not watch a descriptor", exc, NULL);
    Py_DECREF(exc);
    return rv;
}

void
hl_watcher_refuse(hl_watcher *watcher, int err)
{
    if (watcher->refused) {
        return;
    }
    watcher->refused = true;
    PyObject *exc = hl_os_error(-err);
    if (exc == NULL || hl_loop_push(watcher->loop, exc, refused_run) < 0) {
        PyErr_Clear(); /* the report is lost; the descriptor is not */
    }
}
