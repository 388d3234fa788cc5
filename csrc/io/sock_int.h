/* sock_int.h - what the files of sock_*() share.
 * SPDX-License-Identifier: MIT */

#ifndef HL_IO_SOCK_INT_H
#define HL_IO_SOCK_INT_H

#include "io/sock.h"

/* What is awaited until a socket is ready or an operation on it done: its own
 * iterator. */
typedef struct hl_sock_wait hl_sock_wait;

/* Goes on with an operation.  1 when it is done, 0 to wait on, -1 with the
 * exception that it ends with. */
typedef int (*hl_sock_step)(hl_sock_wait *wait);

/* A file on its way. */
typedef struct {
    int fd;
    int64_t offset; /* of what is to be sent next */
    int64_t total;  /* sent */
    int64_t count;  /* to be sent; 0 for all there is */
    int64_t block;  /* the most for one call, when count is 0 */
} hl_sock_file;

struct hl_sock_wait {
    PyObject_HEAD
    hl_loop *loop;     /* owned */
    PyObject *sock;    /* owned */
    PyObject *future;  /* owned: of ours, done when the wait is over */
    hl_sock_step step; /* NULL: to be ready is all */
    int fd;
    int which;         /* UV_READABLE or UV_WRITABLE */
    Py_buffer view;    /* of sendall(): what it sends; obj NULL for none */
    Py_ssize_t sent;   /* how much of it has gone */
    PyObject *address; /* owned: of connect() */
    hl_sock_file file; /* of sendfile() */
    bool guest;        /* future came from elsewhere */
    bool waited;       /* step has been called by the poller */
    bool ended;        /* nothing more is to happen */
};

/* May the plain system calls be used?  1 with *fd, 0 if not (closed sockets
 * included), -1 with an exception. */
int hl_sock_open(hl_loop *loop, PyObject *sock, int *fd);

/* May a task go on without a wait?  One that never has to would keep all
 * others from running: after many operations it pauses. */
static inline bool
hl_sock_may_go_on(hl_loop *loop)
{
    return HL_LIKELY(loop->operations_left-- > 0);
}

/* What is awaited then: after the next poll it is over (step NULL), or the
 * operation begins.  New reference or NULL. */
hl_sock_wait *hl_sock_pause_new(hl_loop *loop, PyObject *sock, int which,
                                hl_sock_step step);

static inline PyObject *
hl_sock_pause(hl_loop *loop, PyObject *sock)
{
    return (PyObject *)hl_sock_pause_new(loop, sock, UV_READABLE, NULL);
}

/* RuntimeError if a live transport has fd.  0 or -1. */
int hl_sock_check_transport(hl_loop *loop, int fd);

/* sock.fileno(); -1 with OSError(EBADF) for a closed one. */
int hl_sock_fileno(hl_state *st, PyObject *sock);

/* A system call failed with errno: 1 to call again, 0 to wait, -1 with an
 * exception. */
int hl_sock_failed(void);

/* A wait that is still to begin.  step and future may be NULL, and then future
 * is a new one.  New reference or NULL. */
hl_sock_wait *hl_sock_wait_new(hl_loop *loop, PyObject *sock, int which,
                               hl_sock_step step, PyObject *future);

/* Begins it.  0, or -1 with RuntimeError (a transport has fd, the loop is
 * closed), OSError or MemoryError.  One whose future came from elsewhere ends
 * when that is cancelled. */
int hl_sock_wait_begin(hl_sock_wait *wait, int fd);

/* Both, as what the caller returns. */
PyObject *hl_sock_wait_for(hl_loop *loop, PyObject *sock, int fd, int which,
                           hl_sock_step step);

/* What the socket module tells of a plain socket. */
static inline int
hl_sock_field(PyObject *sock, Py_ssize_t offset)
{
    return *(int *)(void *)((char *)sock + offset);
}

static inline int
hl_sock_family(const hl_state *st, PyObject *sock)
{
    return hl_sock_field(sock, st->socket_slots.family);
}

#endif
