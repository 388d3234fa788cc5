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
};

/* May the plain system calls be used?  1 with *fd, 0 if not (closed sockets
 * included), -1 with an exception. */
int hl_sock_open(hl_loop *loop, PyObject *sock, int *fd);

/* sock.fileno(); -1 with OSError(EBADF) for a closed one. */
int hl_sock_fileno(hl_state *st, PyObject *sock);

/* A system call failed with errno: 1 to call again, 0 to wait, -1 with an
 * exception. */
int hl_sock_failed(void);

/* A wait for fd, already begun.  step may be NULL.  New reference or NULL. */
hl_sock_wait *hl_sock_wait_new(hl_loop *loop, PyObject *sock, int fd,
                               int which, hl_sock_step step);

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
