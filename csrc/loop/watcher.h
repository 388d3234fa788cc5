/* watcher.h - one descriptor watched through uv_poll_t.
 *
 * At most one watcher exists per descriptor and loop.  It serves either one
 * owner (a socket transport or a listener), or a reader and a writer, each a
 * handle of add_reader()/add_writer(), an operation on a socket or a pipe
 * transport: one descriptor may be the read pipe of one and the write pipe of
 * another.
 * Interest is recorded at once and told to libuv before the next poll, after
 * checking that the descriptor is still what it was: libuv aborts the process
 * when epoll refuses one.  Dropped interest is told to libuv only when an
 * unwanted event comes: pause and resume cost no system call.  A watcher stays
 * in the loop's table when its descriptor is closed and serves the next file
 * of that number, which saves the system calls of uv_poll_init().
 *
 * Reading for an operation on a socket (sock_recv() and the like) stays armed
 * when it ends.  Should the program close the descriptor then while another
 * process has the file, the kernel goes on to report it, under a number that
 * may be another file's by now, and cannot be told to stop: that is noticed,
 * and the poller made anew.
 * Threading: GIL held, except watcher_on_poll().
 * SPDX-License-Identifier: MIT */

#ifndef HL_LOOP_WATCHER_H
#define HL_LOOP_WATCHER_H

#include "loop/loop.h"

#include <sys/types.h>

/* Who waits for one of the two events. */
typedef struct {
    PyObject *obj; /* owned: Handle, operation, transport; NULL for none */
    hl_run_fn run; /* NULL for a Handle */
} hl_waiting;

struct hl_watcher {
    uv_poll_t poll;
    hl_loop *loop; /* borrowed: the loop owns its watchers; NULL when it has
                    * closed and the owner alone still points here */
    int fd;
    bool uv_open; /* poll is initialised */
    int wanted;   /* UV_READABLE | UV_WRITABLE the owner asks for */
    int armed;    /* what libuv was told */
    int ready;    /* events since the owner last took them */
    bool dirty;   /* in loop->dirty */
    bool force;   /* tell libuv although nothing changed: fd may be a new file,
                 * or libuv has an event for what is not wanted */
    bool internal; /* the loop's own self-pipe */
    bool queued;   /* an entry for the owner is in the ready queue */
    bool refused;  /* the kernel has no room for it, which was reported */
    bool urgent;   /* who watches was: its entries go into that queue */
    hl_waiting reader;
    hl_waiting writer;
    dev_t dev; /* the file that was armed */
    ino_t ino;
    uint8_t idle_events; /* unwanted ones since an operation left it armed */
    uint8_t doubt;   /* so many events are to be checked: another file, closed
                    * here and open elsewhere, may be behind them */
    PyObject *owner; /* owned while wanted != 0, else borrowed */
    hl_run_fn on_ready; /* queued with a new ref to owner on events */
};

/* Makes owner the one watcher of fd, wanting nothing yet.  Handles that
 * add_reader()/add_writer() left there are cancelled.  With keep_blocking the
 * descriptor's blocking mode is left alone (libuv sets O_NONBLOCK).  NULL with
 * OSError (as epoll gives it) or MemoryError.  on_ready is run through the
 * ready queue, in the same turn as the poll, once per poll; it calls
 * hl_watcher_take(). */
hl_watcher *hl_watcher_open(hl_loop *loop, int fd, PyObject *owner,
                            hl_run_fn on_ready, bool keep_blocking);

/* The same for a socket that the caller made and nobody else can close, which
 * saves a look at what fd is. */
hl_watcher *hl_watcher_open_socket(hl_loop *loop, int fd, PyObject *owner,
                                   hl_run_fn on_ready);

/* The watcher of fd or NULL. */
hl_watcher *hl_watcher_find(hl_loop *loop, int fd);

/* Sets the whole mask of wanted events (0 for none).  Never fails to drop
 * interest; -1 with MemoryError when interest cannot be recorded.  The watcher
 * holds a reference to its owner while anything is wanted, as a selector does
 * through its handles; dropping interest may therefore free the owner. */
int hl_watcher_want(hl_watcher *watcher, int events);

/* The events since the last call, cut down to what is wanted now; clears
 * them.  After a condition that libuv reports as an error (a reset, a refused
 * connect) both bits are set and the system call will find the error. */
int hl_watcher_take(hl_watcher *watcher);

/* Ends the watching; cancels its handles and drops the reference to the owner.
 * Must come before the descriptor is closed.  The pointer is dead
 * afterwards. */
void hl_watcher_close(hl_watcher *watcher);

/* add_reader()/add_writer(): which is UV_READABLE or UV_WRITABLE.  Steals
 * handle.  0 or -1. */
int hl_watcher_set_handle(hl_loop *loop, int fd, int which, PyObject *handle);

/* remove_reader()/remove_writer(): 1 removed, 0 none there. */
int hl_watcher_remove_handle(hl_loop *loop, int fd, int which);

/* An operation on a socket, or a pipe transport, waits: op is queued with run
 * (a new reference each time) by every poll that finds fd ready, until
 * hl_watcher_end_op().  Replaces the handle or operation there, as
 * add_reader() and add_writer() do.  0, or -1 with OSError, RuntimeError (a
 * transport has fd) or MemoryError. */
int hl_watcher_set_op(hl_loop *loop, int fd, int which, PyObject *op,
                      hl_run_fn run);

/* Is op still the one that waits? */
bool hl_watcher_has_op(hl_loop *loop, int fd, int which, PyObject *op);

/* Ends the wait of op, if it is still the one that waits.  With keep, reading
 * stays armed for the next operation on the same file: that then costs no
 * system call but an fstat(). */
void hl_watcher_end_op(hl_loop *loop, int fd, int which, PyObject *op,
                       bool keep);

/* Did an operation leave fd armed, with nobody watching it since? */
bool hl_watcher_is_idle(hl_loop *loop, int fd);

/* For its owner: the event was none.  The next ones are checked. */
void hl_watcher_doubt(hl_watcher *watcher);

/* Tells libuv what changed.  On the loop's thread, before each poll.  What
 * the kernel has no room for (ENOSPC by fs.epoll.max_user_watches, ENOMEM)
 * stays in loop->dirty for the next poll, and a report is queued once. */
void hl_watchers_arm(hl_loop *loop);

/* Queues what a poll gathered.  0, or -1 with MemoryError. */
int hl_watchers_dispatch(hl_loop *loop);

/* Forgets what a poll gathered: it comes again.  Clears exceptions. */
void hl_watchers_drop_events(hl_loop *loop);

/* In a forked child, once libuv has a poller of its own. */
void hl_watchers_after_fork(hl_loop *loop);

/* Drops every handle and owner, then the table (loop.close()).  The uv handles
 * are closing afterwards; their memory is freed by the close callbacks. */
void hl_watchers_close_all(hl_loop *loop);
int hl_watchers_traverse(hl_loop *loop, visitproc visit, void *arg);

#endif
