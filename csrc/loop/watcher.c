/* watcher.c - descriptors watched through uv_poll_t.
 *
 * Whatever touches libuv happens on the loop's thread outside of uv_run():
 * while another thread finds the loop parked in the poller, changes are only
 * recorded and the loop is woken to apply them.
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "loop/watcher.h"

#include "loop/handle.h"
#include "state/errors.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#ifdef __linux__
#    include <sys/epoll.h>
#endif

/* Some devices cannot be polled (/dev/null): only the kernel knows which. */
static int
device_check(hl_loop *loop, int fd)
{
#ifdef __linux__
    int poller = uv_backend_fd(&loop->uv);
    struct epoll_event event = {.data.fd = -1}; /* which libuv skips */
    if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) < 0) {
        return errno == EEXIST ? 0 : -errno;
    }
    (void)epoll_ctl(poller, EPOLL_CTL_DEL, fd, &event);
#else
    (void)loop;
    (void)fd;
#endif
    return 0;
}

/* Would epoll take the descriptor?  0 or a libuv status. */
static int
fd_check(hl_loop *loop, int fd)
{
    struct stat info;
    if (fstat(fd, &info) < 0) {
        return UV_EBADF;
    }
    if (S_ISREG(info.st_mode) || S_ISDIR(info.st_mode)) {
        return UV_EPERM;
    }
    return S_ISCHR(info.st_mode) ? device_check(loop, fd) : 0;
}

/* Gathers one event.  Runs inside uv_run(), without the GIL when that blocks:
 * touches nothing but the event array.  An event lost to a failed allocation
 * comes again with the next poll. */
static void
watcher_on_poll(uv_poll_t *poll, int status, int events)
{
    hl_watcher *watcher = (hl_watcher *)poll->data;
    hl_loop *loop = watcher->loop;
    if (loop->events_count == loop->events_size) {
        int size = Py_MAX(64, loop->events_size * 2);
        hl_poll_event *array = PyMem_RawRealloc(
            loop->events, (size_t)size * sizeof(hl_poll_event));
        if (array == NULL) {
            return;
        }
        loop->events = array;
        loop->events_size = size;
    }
    hl_poll_event *event = &loop->events[loop->events_count++];
    event->watcher = watcher;
    event->events = status < 0 ? -1 : events;
}

/* The memory goes when libuv has let go of it and no owner points to it. */
static void
watcher_on_close(uv_handle_t *handle)
{
    hl_watcher *watcher = handle->data;
    watcher->uv_open = false;
    if (watcher->owner == NULL) {
        PyMem_RawFree(watcher);
    }
}

static int
watcher_open_uv(hl_watcher *watcher, bool keep_blocking)
{
    int flags = keep_blocking ? fcntl(watcher->fd, F_GETFL) : -1;
    int err = uv_poll_init(&watcher->loop->uv, &watcher->poll, watcher->fd);
    if (err == 0) {
        watcher->poll.data = watcher;
        watcher->uv_open = true;
        if (flags >= 0 && !(flags & O_NONBLOCK)) {
            (void)fcntl(watcher->fd, F_SETFL, flags);
        }
    }
    return err;
}

static int
table_reserve(hl_loop *loop, int fd)
{
    if (fd < loop->watchers_size) {
        return 0;
    }
    int size = Py_MAX(64, loop->watchers_size);
    while (size <= fd) {
        size *= 2;
    }
    hl_watcher **table = loop->watchers;
    PyMem_Resize(table, hl_watcher *, (size_t)size);
    if (table == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    memset(table + loop->watchers_size, 0,
           (size_t)(size - loop->watchers_size) * sizeof(hl_watcher *));
    loop->watchers = table;
    loop->watchers_size = size;
    return 0;
}

static int
watcher_mark_dirty(hl_watcher *watcher)
{
    hl_loop *loop = watcher->loop;
    loop->must_poll = true;
    if (watcher->dirty) {
        return 0;
    }
    if (loop->dirty_count == loop->dirty_size) {
        int size = Py_MAX(64, loop->dirty_size * 2);
        hl_watcher **array = loop->dirty;
        PyMem_Resize(array, hl_watcher *, (size_t)size);
        if (array == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        loop->dirty = array;
        loop->dirty_size = size;
    }
    loop->dirty[loop->dirty_count++] = watcher;
    watcher->dirty = true;
    if (loop->parked) {
        hl_loop_wake(loop);
    }
    return 0;
}

/* Records the mask; the loop counts how many watchers want anything. */
static void
watcher_record(hl_watcher *watcher, int events)
{
    int change = (events != 0) - (watcher->wanted != 0);
    watcher->wanted = events;
    watcher->loop->watching += change;
    if (watcher->internal) {
        watcher->loop->watching_internal += change;
    }
}

/* Takes the descriptor out of the poller at once: its owner may close it. */
static void
watcher_disarm(hl_watcher *watcher)
{
    watcher_record(watcher, 0);
    watcher->ready = 0;
    if (watcher->armed == 0) {
        return;
    }
    if (watcher->loop->parked) {
        watcher->force = true;
        if (watcher_mark_dirty(watcher) < 0) {
            PyErr_Clear(); /* the next event for it disarms */
        }
        return;
    }
    uv_poll_stop(&watcher->poll);
    watcher->armed = 0;
}

hl_watcher *
hl_watcher_find(hl_loop *loop, int fd)
{
    return fd >= 0 && fd < loop->watchers_size ? loop->watchers[fd] : NULL;
}

/* The watcher of fd, made if there is none; checked against what fd is now. */
static hl_watcher *
watcher_get(hl_loop *loop, int fd, bool keep_blocking)
{
    hl_watcher *watcher = hl_watcher_find(loop, fd);
    if (watcher != NULL) {
        int err = watcher->wanted == 0 ? fd_check(loop, fd) : 0;
        if (err < 0) {
            hl_raise_uv(err);
            return NULL;
        }
        return watcher;
    }
    if (table_reserve(loop, fd) < 0) {
        return NULL;
    }
    watcher = PyMem_RawCalloc(1, sizeof(hl_watcher));
    if (watcher == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    watcher->loop = loop;
    watcher->fd = fd;
    int err = loop->parked ? fd_check(loop, fd)
                           : watcher_open_uv(watcher, keep_blocking);
    if (err < 0) {
        PyMem_RawFree(watcher);
        hl_raise_uv(err);
        return NULL;
    }
    loop->watchers[fd] = watcher;
    return watcher;
}

/* Lets go of what was a reader or writer; a handle is cancelled.  May run
 * Python. */
static void
half_release(hl_state *st, PyObject *obj, hl_run_fn run)
{
    if (obj == NULL) {
        return;
    }
    if (run == hl_handle_run && hl_handle_cancel(st, obj) < 0) {
        PyErr_WriteUnraisable(obj);
    }
    Py_DECREF(obj);
}

/* Takes the reader or the writer out of the watcher. */
static void
watcher_drop_half(hl_watcher *watcher, int which)
{
    hl_state *st = watcher->loop->st;
    PyObject *obj;
    if (which == UV_READABLE) {
        obj = watcher->reader;
        watcher->reader = NULL;
        half_release(st, obj, watcher->reader_run);
    }
    else {
        obj = watcher->writer;
        watcher->writer = NULL;
        half_release(st, obj, watcher->writer_run);
    }
}

static void
watcher_drop_halves(hl_watcher *watcher)
{
    watcher_drop_half(watcher, UV_READABLE);
    watcher_drop_half(watcher, UV_WRITABLE);
}

hl_watcher *
hl_watcher_open(hl_loop *loop, int fd, PyObject *owner, hl_run_fn on_ready,
                bool keep_blocking)
{
    hl_watcher *watcher = watcher_get(loop, fd, keep_blocking);
    if (watcher == NULL) {
        return NULL;
    }
    if (watcher->owner != NULL) {
        hl_raise_uv(UV_EEXIST);
        return NULL;
    }
    watcher_disarm(watcher);
    watcher->owner = owner;
    watcher->on_ready = on_ready;
    watcher->queued = false;
    watcher_drop_halves(watcher);
    return watcher;
}

int
hl_watcher_want(hl_watcher *watcher, int events)
{
    int before = watcher->wanted;
    if (events == before || watcher->loop == NULL) {
        return 0;
    }
    if ((events & ~watcher->armed) != 0 && watcher_mark_dirty(watcher) < 0) {
        return -1;
    }
    watcher_record(watcher, events);
    if (before == 0) {
        Py_INCREF(watcher->owner);
    }
    else if (events == 0) {
        Py_DECREF(watcher->owner); /* last: may end in hl_watcher_close() */
    }
    return 0;
}

int
hl_watcher_take(hl_watcher *watcher)
{
    int events = watcher->ready & watcher->wanted;
    watcher->ready = 0;
    watcher->queued = false;
    return events;
}

void
hl_watcher_close(hl_watcher *watcher)
{
    if (watcher->loop == NULL) {
        watcher->owner = NULL;
        if (!watcher->uv_open) {
            PyMem_RawFree(watcher);
        }
        return;
    }
    PyObject *owner = watcher->wanted != 0 ? watcher->owner : NULL;
    watcher->owner = NULL;
    watcher->on_ready = NULL;
    watcher->queued = false;
    watcher_disarm(watcher);
    Py_XDECREF(owner);
}

int
hl_watcher_set_half(hl_loop *loop, int fd, int which, PyObject *obj,
                    hl_run_fn run)
{
    hl_watcher *watcher = watcher_get(loop, fd, true);
    if (watcher == NULL) {
        return -1;
    }
    if (watcher->owner != NULL) {
        PyErr_Format(PyExc_RuntimeError,
                     "File descriptor %d is used by transport %R", fd,
                     watcher->owner);
        return -1;
    }
    if (watcher_mark_dirty(watcher) < 0) {
        return -1;
    }
    /* Without an owner nobody vouches that fd is still the file it was. */
    watcher->force = watcher->force || (watcher->armed & which) != 0;
    watcher_record(watcher, watcher->wanted | which);
    bool reads = which == UV_READABLE;
    PyObject **slot = reads ? &watcher->reader : &watcher->writer;
    hl_run_fn *slot_run = reads ? &watcher->reader_run : &watcher->writer_run;
    PyObject *old = *slot;
    hl_run_fn old_run = *slot_run;
    *slot = Py_NewRef(obj);
    *slot_run = run;
    half_release(loop->st, old, old_run);
    return 0;
}

int
hl_watcher_set_handle(hl_loop *loop, int fd, int which, PyObject *handle)
{
    int rv = hl_watcher_set_half(loop, fd, which, handle, hl_handle_run);
    Py_DECREF(handle);
    return rv;
}

/* Takes the reader or writer out and tells libuv. */
static void
watcher_remove_half(hl_watcher *watcher, int which)
{
    int rest = watcher->wanted & ~which;
    if (rest == 0) {
        watcher_disarm(watcher);
    }
    else {
        watcher_record(watcher, rest);
        watcher->force = true;
        if (watcher_mark_dirty(watcher) < 0) {
            PyErr_Clear(); /* the next event for it disarms */
        }
    }
    watcher_drop_half(watcher, which);
}

int
hl_watcher_remove_handle(hl_loop *loop, int fd, int which)
{
    hl_watcher *watcher = hl_watcher_find(loop, fd);
    if (watcher == NULL || watcher->owner != NULL ||
        (watcher->wanted & which) == 0) {
        return 0;
    }
    watcher_remove_half(watcher, which);
    return 1;
}

void
hl_watcher_remove_half(hl_loop *loop, int fd, int which, PyObject *obj)
{
    hl_watcher *watcher = hl_watcher_find(loop, fd);
    if (watcher != NULL &&
        (which == UV_READABLE ? watcher->reader : watcher->writer) == obj) {
        watcher_remove_half(watcher, which);
    }
}

static void
watcher_arm(hl_watcher *watcher)
{
    bool force = watcher->force;
    watcher->force = false;
    if (!watcher->uv_open && watcher_open_uv(watcher, true) < 0) {
        return; /* closed meanwhile by the thread that asked */
    }
    if (!force && (watcher->wanted & ~watcher->armed) == 0) {
        return;
    }
    if (watcher->wanted == 0) {
        uv_poll_stop(&watcher->poll);
        watcher->armed = 0;
    }
    else if (fd_check(watcher->loop, watcher->fd) < 0) {
        /* The descriptor was closed without a word, which epoll forgives and
         * libuv does not. */
        uv_poll_stop(&watcher->poll);
        watcher->armed = 0;
    }
    else if (uv_poll_start(&watcher->poll, watcher->wanted, watcher_on_poll) ==
             0) {
        watcher->armed = watcher->wanted;
        watcher->loop->uv_changed = true;
    }
}

void
hl_watchers_arm(hl_loop *loop)
{
    for (int i = 0; i < loop->dirty_count; i++) {
        hl_watcher *watcher = loop->dirty[i];
        watcher->dirty = false;
        watcher_arm(watcher);
    }
    loop->dirty_count = 0;
}

/* Queues a reader or writer; a cancelled handle is removed instead. */
static int
dispatch_half(hl_watcher *watcher, int which, PyObject *obj, hl_run_fn run)
{
    hl_loop *loop = watcher->loop;
    if (obj == NULL) {
        return 0;
    }
    if (run == hl_handle_run && hl_handle_cancelled(loop->st, obj)) {
        watcher_remove_half(watcher, which);
        return 0;
    }
    return run == hl_handle_run
               ? hl_loop_push_handle(loop, Py_NewRef(obj), run)
               : hl_loop_push(loop, Py_NewRef(obj), run);
}

static int
dispatch_event(hl_watcher *watcher, int events)
{
    if (events < 0) {
        /* libuv stopped the handle: let the system calls find the error. */
        watcher->armed = 0;
        events = UV_READABLE | UV_WRITABLE;
        if (watcher->wanted != 0 && watcher_mark_dirty(watcher) < 0) {
            return -1;
        }
    }
    else if ((events & ~watcher->wanted) != 0) {
        watcher->force = true;
        if (watcher_mark_dirty(watcher) < 0) {
            return -1;
        }
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
    if ((events & UV_READABLE) &&
        dispatch_half(watcher, UV_READABLE, watcher->reader,
                      watcher->reader_run) < 0) {
        return -1;
    }
    if (events & UV_WRITABLE) {
        return dispatch_half(watcher, UV_WRITABLE, watcher->writer,
                             watcher->writer_run);
    }
    return 0;
}

int
hl_watchers_dispatch(hl_loop *loop)
{
    int rv = 0;
    for (int i = 0; i < loop->events_count; i++) {
        hl_poll_event *event = &loop->events[i];
        if (dispatch_event(event->watcher, event->events) < 0) {
            rv = -1; /* level-triggered: the rest comes again */
            break;
        }
    }
    loop->events_count = 0;
    return rv;
}

/* libuv has a new poller and would put into it all that it knows.  That must
 * not be a descriptor closed without a word: each is looked at again. */
void
hl_watchers_after_fork(hl_loop *loop)
{
    for (int fd = 0; fd < loop->watchers_size; fd++) {
        hl_watcher *watcher = loop->watchers[fd];
        if (watcher == NULL) {
            continue;
        }
        if (watcher->internal) { /* the self-pipe will be another */
            watcher->internal = false;
            loop->watching_internal -= watcher->wanted != 0;
        }
        if (watcher->armed == 0) {
            continue;
        }
        uv_poll_stop(&watcher->poll);
        watcher->armed = 0;
        if (watcher->wanted != 0 && watcher_mark_dirty(watcher) < 0) {
            PyErr_WriteUnraisable((PyObject *)loop);
        }
    }
}

/* Takes a watcher away from its closing loop.  An owner keeps the memory until
 * its hl_watcher_close(). */
static void
watcher_orphan(hl_watcher *watcher)
{
    PyObject *owner = watcher->wanted != 0 ? watcher->owner : NULL;
    bool owned = watcher->owner != NULL;
    watcher_record(watcher, 0);
    watcher->ready = 0;
    watcher_drop_halves(watcher);
    watcher->loop = NULL;
    if (watcher->uv_open) {
        uv_close((uv_handle_t *)&watcher->poll, watcher_on_close);
    }
    else if (!owned) {
        PyMem_RawFree(watcher);
    }
    Py_XDECREF(owner);
}

void
hl_watchers_close_all(hl_loop *loop)
{
    loop->dirty_count = 0;
    loop->events_count = 0;
    for (int fd = 0; fd < loop->watchers_size; fd++) {
        hl_watcher *watcher = loop->watchers[fd];
        if (watcher != NULL) {
            loop->watchers[fd] = NULL;
            watcher_orphan(watcher);
        }
    }
}

int
hl_watchers_traverse(hl_loop *loop, visitproc visit, void *arg)
{
    for (int fd = 0; fd < loop->watchers_size; fd++) {
        hl_watcher *watcher = loop->watchers[fd];
        if (watcher != NULL) {
            Py_VISIT(watcher->reader);
            Py_VISIT(watcher->writer);
            if (watcher->wanted != 0) {
                Py_VISIT(watcher->owner);
            }
        }
    }
    return 0;
}
