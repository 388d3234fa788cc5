/* watcher_table.c - all watchers of a loop at once: forks, its end, GC.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "loop/watcher_int.h"

/* libuv has a new poller and would put into it all that it knows.  That must
 * not be a descriptor closed without a word: each is looked at again. */
void
hl_watchers_after_fork(hl_loop *loop)
{
    loop->stale = false;
    for (int fd = 0; fd < loop->watchers_size; fd++) {
        hl_watcher *watcher = loop->watchers[fd];
        if (watcher == NULL) {
            continue;
        }
        watcher->doubt = 0;
        if (watcher->internal) { /* the self-pipe will be another */
            watcher->internal = false;
            loop->watching_internal -= watcher->wanted != 0;
        }
        if (watcher->armed == 0) {
            continue;
        }
        uv_poll_stop(&watcher->poll);
        watcher->armed = 0;
        if (watcher->wanted != 0 && hl_watcher_mark_dirty(watcher) < 0) {
            PyErr_WriteUnraisable((PyObject *)loop);
        }
    }
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

/* Takes a watcher away from its closing loop.  An owner keeps the memory until
 * its hl_watcher_close(). */
static void
watcher_orphan(hl_watcher *watcher)
{
    PyObject *owner = watcher->wanted != 0 ? watcher->owner : NULL;
    bool owned = watcher->owner != NULL;
    hl_watcher_record(watcher, 0);
    watcher->ready = 0;
    hl_watcher_drop_slot(watcher, UV_READABLE);
    hl_watcher_drop_slot(watcher, UV_WRITABLE);
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
            Py_VISIT(watcher->reader.obj);
            Py_VISIT(watcher->writer.obj);
            if (watcher->wanted != 0) {
                Py_VISIT(watcher->owner);
            }
        }
    }
    return 0;
}
