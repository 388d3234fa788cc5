/* watcher.c - descriptors watched through uv_poll_t.
 *
 * Whatever touches libuv happens on the loop's thread outside of uv_run():
 * while another thread finds the loop parked in the poller, changes are only
 * recorded and the loop is woken to apply them.
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "loop/watcher_int.h"

#include "loop/handle.h"
#include "state/errors.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#ifdef __linux__
#    include <sys/epoll.h>
#endif

int
hl_fd_stat(int fd, struct stat *info)
{
    if (fstat(fd, info) < 0) {
        return UV_EBADF;
    }
    return S_ISREG(info->st_mode) || S_ISDIR(info->st_mode) ? UV_EPERM : 0;
}

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

/* hl_fd_stat() for what libuv is about to be told of. */
static int
fd_check(hl_loop *loop, int fd, struct stat *info)
{
    int err = hl_fd_stat(fd, info);
    return err == 0 && S_ISCHR(info->st_mode) ? device_check(loop, fd) : err;
}

/* Gathers one event.  Runs inside uv_run(), without the GIL when that blocks:
 * touches nothing but the event array.  An event lost to a failed allocation
 * comes again with the next poll: after an error, which stops libuv's handle,
 * because the descriptor is told of again. */
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
            if (status < 0) {
                (void)uv_poll_start(poll, watcher->armed, watcher_on_poll);
            }
            return;
        }
        loop->events = array;
        loop->events_size = size;
    }
    hl_poll_event *event = &loop->events[loop->events_count++];
    event->watcher = watcher;
    event->events = status < 0 ? -1 : events;
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

int
hl_watcher_mark_dirty(hl_watcher *watcher)
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

void
hl_watcher_record(hl_watcher *watcher, int events)
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
    hl_watcher_record(watcher, 0);
    watcher->ready = 0;
    if (watcher->armed == 0) {
        return;
    }
    if (watcher->loop->parked) {
        watcher->force = true;
        if (hl_watcher_mark_dirty(watcher) < 0) {
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

/* What fd is now: 0 or a libuv status.  If an operation had left it armed and
 * it is another file meanwhile, that one's registration is out of reach. */
static int
watcher_verify(hl_watcher *watcher)
{
    struct stat info;
    int err = fd_check(watcher->loop, watcher->fd, &info);
    if (err == 0 && watcher->armed != 0 && watcher->owner == NULL &&
        !watcher_is_of(watcher, &info)) {
        watcher->doubt = HL_DOUBTS;
        watcher_disarm(watcher);
    }
    return err;
}

/* The watcher of fd, made if there is none; checked against what fd is now,
 * unless that is known to be a socket and nothing was left armed there. */
static hl_watcher *
watcher_get(hl_loop *loop, int fd, bool keep_blocking, bool is_socket)
{
    hl_watcher *watcher = hl_watcher_find(loop, fd);
    if (watcher != NULL) {
        bool check = !is_socket || watcher->armed != 0;
        int err = watcher->wanted == 0 && check ? watcher_verify(watcher) : 0;
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
    struct stat info;
    int err = loop->parked ? fd_check(loop, fd, &info)
                           : watcher_open_uv(watcher, keep_blocking);
    if (err < 0) {
        PyMem_RawFree(watcher);
        hl_raise_uv(err);
        return NULL;
    }
    loop->watchers[fd] = watcher;
    return watcher;
}

/* Lets go of what waited; a handle is cancelled, which may run Python. */
static void
waiting_drop(hl_loop *loop, hl_waiting waiting)
{
    if (waiting.obj == NULL) {
        return;
    }
    if (waiting.run == NULL && hl_handle_cancel(loop->st, waiting.obj) < 0) {
        PyErr_WriteUnraisable(waiting.obj);
    }
    Py_DECREF(waiting.obj);
}

void
hl_watcher_drop_slot(hl_watcher *watcher, int which)
{
    hl_waiting *slot = watcher_slot(watcher, which);
    hl_waiting waiting = *slot;
    *slot = (hl_waiting){NULL, NULL};
    waiting_drop(watcher->loop, waiting);
}

/* Gives a watcher that watcher_get() found to its owner. */
static hl_watcher *
watcher_own(hl_watcher *watcher, PyObject *owner, hl_run_fn on_ready)
{
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
    watcher->urgent = hl_loop_is_urgent(watcher->loop);
    hl_watcher_drop_slot(watcher, UV_READABLE);
    hl_watcher_drop_slot(watcher, UV_WRITABLE);
    return watcher;
}

hl_watcher *
hl_watcher_open(hl_loop *loop, int fd, PyObject *owner, hl_run_fn on_ready,
                bool keep_blocking)
{
    return watcher_own(watcher_get(loop, fd, keep_blocking, false), owner,
                       on_ready);
}

hl_watcher *
hl_watcher_open_socket(hl_loop *loop, int fd, PyObject *owner,
                       hl_run_fn on_ready)
{
    return watcher_own(watcher_get(loop, fd, false, true), owner, on_ready);
}

int
hl_watcher_want(hl_watcher *watcher, int events)
{
    int before = watcher->wanted;
    if (events == before || watcher->loop == NULL) {
        return 0;
    }
    if ((events & ~watcher->armed) != 0 &&
        hl_watcher_mark_dirty(watcher) < 0) {
        return -1;
    }
    hl_watcher_record(watcher, events);
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

/* Sees to it that libuv is told of a new reader or writer.  Without an owner
 * nobody vouches that fd is still the file it was, but that watcher_get() has
 * just compared an idle one, which is enough for an operation. */
static int
watcher_renew(hl_watcher *watcher, int which, bool vouched)
{
    if (vouched && !watcher->force && (watcher->armed & which) != 0) {
        return 0;
    }
    if (hl_watcher_mark_dirty(watcher) < 0) {
        return -1;
    }
    watcher->force = watcher->force || (watcher->armed & which) != 0;
    return 0;
}

/* Puts waiting (its reference is stolen) where handles of add_reader() or
 * add_writer() are. */
static int
watcher_set_slot(hl_loop *loop, int fd, int which, hl_waiting waiting)
{
    hl_watcher *watcher = watcher_get(loop, fd, true, false);
    if (watcher != NULL && watcher->owner != NULL) {
        PyErr_Format(PyExc_RuntimeError,
                     "File descriptor %d is used by transport %R", fd,
                     watcher->owner);
        watcher = NULL;
    }
    if (watcher == NULL ||
        watcher_renew(watcher, which,
                      waiting.run != NULL && watcher->wanted == 0) < 0) {
        Py_DECREF(waiting.obj);
        return -1;
    }
    watcher->idle_events = 0;
    watcher->urgent = hl_loop_is_urgent(loop);
    hl_watcher_record(watcher, watcher->wanted | which);
    hl_waiting *slot = watcher_slot(watcher, which);
    hl_waiting old = *slot;
    *slot = waiting;
    waiting_drop(loop, old);
    return 0;
}

int
hl_watcher_set_handle(hl_loop *loop, int fd, int which, PyObject *handle)
{
    return watcher_set_slot(loop, fd, which, (hl_waiting){handle, NULL});
}

int
hl_watcher_remove_handle(hl_loop *loop, int fd, int which)
{
    hl_watcher *watcher = hl_watcher_find(loop, fd);
    if (watcher == NULL || watcher->owner != NULL ||
        (watcher->wanted & which) == 0) {
        return 0;
    }
    int rest = watcher->wanted & ~which;
    if (rest == 0) {
        watcher_disarm(watcher);
    }
    else {
        hl_watcher_record(watcher, rest);
        watcher->force = true;
        if (hl_watcher_mark_dirty(watcher) < 0) {
            PyErr_Clear(); /* the next event for it disarms */
        }
    }
    hl_watcher_drop_slot(watcher, which);
    return 1;
}

int
hl_watcher_set_op(hl_loop *loop, int fd, int which, PyObject *op,
                  hl_run_fn run)
{
    return watcher_set_slot(loop, fd, which, (hl_waiting){Py_NewRef(op), run});
}

bool
hl_watcher_has_op(hl_loop *loop, int fd, int which, PyObject *op)
{
    hl_watcher *watcher = hl_watcher_find(loop, fd);
    return watcher != NULL && watcher_slot(watcher, which)->obj == op;
}

void
hl_watcher_end_op(hl_loop *loop, int fd, int which, PyObject *op, bool keep)
{
    hl_watcher *watcher = hl_watcher_find(loop, fd);
    if (watcher == NULL || watcher_slot(watcher, which)->obj != op) {
        return;
    }
#ifdef __linux__
    /* Elsewhere sockets have no numbers to tell them apart by, and a writable
     * one would report itself all the time. */
    if (keep && which == UV_READABLE) {
        hl_watcher_record(watcher, watcher->wanted & ~which);
        hl_watcher_drop_slot(watcher, which);
        return;
    }
#else
    (void)keep;
#endif
    (void)hl_watcher_remove_handle(loop, fd, which);
}

bool
hl_watcher_is_idle(hl_loop *loop, int fd)
{
    hl_watcher *watcher = hl_watcher_find(loop, fd);
    return watcher != NULL && watcher->owner == NULL && watcher->wanted == 0 &&
           watcher->armed != 0;
}

void
hl_watcher_doubt(hl_watcher *watcher)
{
    watcher->doubt = HL_DOUBTS;
}

/* libuv forgets the descriptor.  That of another file by now, or none, leaves
 * a registration behind if the file is open elsewhere. */
static void
watcher_forget(hl_watcher *watcher, bool same)
{
    if (watcher->armed != 0 && watcher->owner == NULL && !same) {
        watcher->loop->stale = true;
    }
    uv_poll_stop(&watcher->poll);
    watcher->armed = 0;
}

/* 0, or a libuv status if the descriptor is to be tried again. */
static int
watcher_arm(hl_watcher *watcher)
{
    bool force = watcher->force;
    watcher->force = false;
    if (!watcher->uv_open && watcher_open_uv(watcher, true) < 0) {
        return 0; /* closed meanwhile by the thread that asked */
    }
    if (!force && (watcher->wanted & ~watcher->armed) == 0) {
        return 0;
    }
    struct stat info;
    int err = fd_check(watcher->loop, watcher->fd, &info);
    bool same = err == 0 && watcher_is_of(watcher, &info);
    if (watcher->wanted == 0 || err < 0) {
        /* A descriptor that was closed without a word is forgotten: epoll
         * forgives that, libuv does not. */
        watcher_forget(watcher, same);
        return 0;
    }
    if (watcher->armed != 0 && watcher->owner == NULL && !same) {
        watcher->doubt = HL_DOUBTS;
    }
    err = hl_watcher_register(watcher, watcher_on_poll);
    watcher->armed = err == 0 ? watcher->wanted : 0;
    if (err == 0) {
        watcher->dev = info.st_dev;
        watcher->ino = info.st_ino;
        watcher->refused = false;
        watcher->loop->uv_changed = true;
    }
    return err;
}

/* Before libuv puts all that it knows into a new poller, which aborts on a
 * descriptor that is closed: forgets those. */
static void
watchers_forget_closed(hl_loop *loop)
{
    for (int fd = 0; fd < loop->watchers_size; fd++) {
        hl_watcher *watcher = loop->watchers[fd];
        struct stat info;
        if (watcher == NULL || watcher->armed == 0) {
            continue;
        }
        if (hl_fd_stat(fd, &info) < 0 ||
            (watcher->owner == NULL && !watcher_is_of(watcher, &info))) {
            uv_poll_stop(&watcher->poll);
            watcher->armed = 0;
        }
        watcher->doubt = 0;
    }
}

/* The kernel drops every registration of a poller that is closed. */
static void
watchers_renew_poller(hl_loop *loop)
{
    loop->stale = false;
    watchers_forget_closed(loop);
    (void)uv_loop_fork(&loop->uv);
    loop->uv_changed = true;
}

void
hl_watchers_arm(hl_loop *loop)
{
    int refused = 0;
    for (int i = 0; i < loop->dirty_count; i++) {
        hl_watcher *watcher = loop->dirty[i];
        watcher->dirty = false;
        int err = watcher_arm(watcher);
        if (HL_UNLIKELY(err < 0)) {
            watcher->dirty = true;
            loop->dirty[refused++] = watcher;
            hl_watcher_refuse(watcher, err);
        }
    }
    loop->dirty_count = refused;
    if (HL_UNLIKELY(loop->stale)) {
        watchers_renew_poller(loop);
    }
}
