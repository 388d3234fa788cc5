/* watcher_int.h - what the files about watchers share.
 * SPDX-License-Identifier: MIT */

#ifndef HL_LOOP_WATCHER_INT_H
#define HL_LOOP_WATCHER_INT_H

#include "loop/watcher.h"

#include <sys/stat.h>

/* Events to be checked when a number may stand for two files. */
#define HL_DOUBTS 8

/* Would epoll take the descriptor?  0 or a libuv status. */
int hl_fd_stat(int fd, struct stat *info);

/* Has the watcher looked at before the next poll.  0, or -1 with
 * MemoryError. */
int hl_watcher_mark_dirty(hl_watcher *watcher);

/* Records the mask of wanted events; the loop counts how many watchers want
 * any. */
void hl_watcher_record(hl_watcher *watcher, int events);

/* Lets go of the reader or writer; a handle is cancelled, which may run
 * Python. */
void hl_watcher_drop_slot(hl_watcher *watcher, int which);

/* Is it the file that was armed? */
static inline bool
watcher_is_of(const hl_watcher *watcher, const struct stat *info)
{
    return watcher->ino == info->st_ino && watcher->dev == info->st_dev;
}

/* Starts the poll handle for what is wanted.  0, or a libuv status if there is
 * no room for the descriptor, which then is not watched. */
int hl_watcher_register(hl_watcher *watcher, uv_poll_cb on_poll);

/* Queues the report that the kernel does not watch the descriptor (a libuv
 * status), unless there was one. */
void hl_watcher_refuse(hl_watcher *watcher, int err);

static inline hl_waiting *
watcher_slot(hl_watcher *watcher, int which)
{
    return which == UV_READABLE ? &watcher->reader : &watcher->writer;
}

#endif
