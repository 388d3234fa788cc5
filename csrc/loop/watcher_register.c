/* watcher_register.c - descriptors made known to the kernel.
 *
 * libuv does it inside its poll, and aborts the process if the kernel has no
 * room for one more: so that it is done here.
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "loop/watcher_int.h"

#include <errno.h>

#ifdef __linux__
#    include <sys/epoll.h>
#endif

#ifdef __linux__
/* Takes io out of the list of what libuv is to tell the kernel in its next
 * poll: a ring of two pointers, which libuv has changed the names of only. */
static void
watcher_unqueue(uv__io_t *io)
{
    void **link = (void **)(void *)&io->watcher_queue;
    void **next = link[0], **prev = link[1];
    prev[0] = next;
    next[1] = prev;
    link[0] = link[1] = link;
    io->events = io->pevents;
}
#endif

int
hl_watcher_register(hl_watcher *watcher, uv_poll_cb on_poll)
{
    int err = uv_poll_start(&watcher->poll, watcher->wanted, on_poll);
#ifdef __linux__
    if (err < 0) {
        return err;
    }
    uv__io_t *io = &watcher->poll.io_watcher;
    struct epoll_event event = {.events = io->pevents, .data.fd = watcher->fd};
    int epoll = uv_backend_fd(&watcher->loop->uv);
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, watcher->fd, &event) == 0) {
        watcher_unqueue(io);
    }
    else if (errno == EEXIST) {
        io->events = io->pevents; /* a change, which takes no room */
    }
    else {
        err = -errno;
        uv_poll_stop(&watcher->poll);
    }
#endif
    return err;
}
