/* writeq.c - bytes that wait to be sent on one descriptor.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "io/writeq.h"

#include "io/packet.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

/* Linux asks per call; elsewhere Python has SIGPIPE ignored. */
#ifndef MSG_NOSIGNAL
#    define MSG_NOSIGNAL 0
#endif

/* Makes room for one chunk at the end. */
static int
writeq_reserve(hl_writeq *queue)
{
    uint32_t capacity =
        queue->array != NULL ? queue->capacity : HL_WRITEQ_INLINE;
    if (queue->head + queue->count < capacity) {
        return 0;
    }
    hl_chunk *first = hl_writeq_chunk(queue, 0);
    if (queue->head > 0 && queue->head >= capacity / 2) {
        memmove(first - queue->head, first, queue->count * sizeof(hl_chunk));
        queue->head = 0;
        return 0;
    }
    if (capacity > UINT32_MAX / (2 * sizeof(hl_chunk))) {
        PyErr_NoMemory();
        return -1;
    }
    capacity = Py_MAX(8, capacity * 2);
    hl_chunk *array = PyMem_Malloc(capacity * sizeof(hl_chunk));
    if (array == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    memcpy(array, first, queue->count * sizeof(hl_chunk));
    PyMem_Free(queue->array);
    queue->array = array;
    queue->capacity = capacity;
    queue->head = 0;
    return 0;
}

int
hl_writeq_push(hl_writeq *queue, PyObject *owner, const char *data,
               size_t size)
{
    if (writeq_reserve(queue) < 0) {
        return -1;
    }
    hl_chunk *chunk = hl_writeq_chunk(queue, queue->count++);
    chunk->owner = Py_NewRef(owner);
    chunk->data = data;
    chunk->size = size;
    queue->size += size;
    return 0;
}

int
hl_writeq_own(hl_writeq *queue, PyObject *owner)
{
    for (uint32_t i = 0; i < queue->count; i++) {
        hl_chunk *chunk = hl_writeq_chunk(queue, i);
        if (chunk->owner != owner) {
            continue;
        }
        PyObject *copy =
            PyBytes_FromStringAndSize(chunk->data, (Py_ssize_t)chunk->size);
        if (copy == NULL) {
            return -1;
        }
        chunk->owner = copy;
        chunk->data = PyBytes_AS_STRING(copy);
        Py_DECREF(owner); /* not the last: the caller holds one */
    }
    return 0;
}

/* Gives the array back: an idle connection keeps no memory for writing. */
static void
writeq_reset(hl_writeq *queue)
{
    PyMem_Free(queue->array);
    queue->array = NULL;
    queue->head = queue->capacity = 0;
}

void
hl_writeq_clear(hl_writeq *queue)
{
    while (queue->count > 0) {
        Py_DECREF(hl_writeq_chunk(queue, 0)->owner);
        queue->head++;
        queue->count--;
    }
    queue->size = 0;
    queue->packets = 0;
    writeq_reset(queue);
}

void
hl_writeq_drop(hl_writeq *queue, size_t size)
{
    queue->size -= size;
    while (size > 0) {
        hl_chunk *chunk = hl_writeq_chunk(queue, 0);
        if (chunk->size > size) {
            chunk->data += size;
            chunk->size -= size;
            return;
        }
        size -= chunk->size;
        Py_DECREF(chunk->owner);
        queue->head++;
        queue->count--;
    }
    if (queue->count == 0) {
        queue->packets = 0;
        writeq_reset(queue);
    }
}

/* How many chunks from the head on can leave in one plain system call. */
static uint32_t
writeq_plain(hl_writeq *queue)
{
    uint32_t n = 0, limit = Py_MIN(queue->count, HL_WRITEQ_IOV);
    if (HL_LIKELY(queue->packets == 0)) {
        return limit;
    }
    while (n < limit &&
           !hl_packet_is_loaded(hl_writeq_chunk(queue, n)->owner)) {
        n++;
    }
    return n;
}

/* One system call over the first chunks; *size is what it was given. */
static ssize_t
writeq_send_once(hl_writeq *queue, int fd, bool is_socket, size_t *size)
{
    uint32_t n = writeq_plain(queue);
    const hl_chunk *first = hl_writeq_chunk(queue, 0);
    if (n == 1) {
        *size = first->size;
        return is_socket ? send(fd, first->data, first->size, MSG_NOSIGNAL)
                         : write(fd, first->data, first->size);
    }
    struct iovec vector[HL_WRITEQ_IOV];
    *size = 0;
    for (uint32_t i = 0; i < Py_MAX(n, 1); i++) {
        const hl_chunk *chunk = hl_writeq_chunk(queue, i);
        vector[i].iov_base = (void *)(uintptr_t)chunk->data;
        vector[i].iov_len = chunk->size;
        *size += chunk->size;
    }
    if (n == 0) {
        return hl_packet_send(first->owner, fd, vector);
    }
    if (!is_socket) {
        return writev(fd, vector, (int)n);
    }
    struct msghdr message = {.msg_iov = vector, .msg_iovlen = n};
    return sendmsg(fd, &message, MSG_NOSIGNAL);
}

int
hl_writeq_send(hl_writeq *queue, int fd, bool is_socket, hl_counts *counts)
{
    while (queue->count > 0) {
        size_t size;
        ssize_t sent = writeq_send_once(queue, fd, is_socket, &size);
        hl_count_write(counts, sent);
        if (sent < 0) {
            if (errno == EINTR) {
                continue;
            }
            return errno == EWOULDBLOCK ? EAGAIN : errno;
        }
        hl_writeq_drop(queue, (size_t)sent);
        if ((size_t)sent < size) {
            return EAGAIN;
        }
    }
    return 0;
}

int
hl_piece_get(hl_piece *p, PyObject *data)
{
    p->owner = data;
    if (HL_LIKELY(PyBytes_CheckExact(data))) {
        p->data = PyBytes_AS_STRING(data);
        p->size = (size_t)PyBytes_GET_SIZE(data);
        p->stable = true;
        p->view.obj = NULL;
        return 0;
    }
    if (PyObject_GetBuffer(data, &p->view, PyBUF_SIMPLE) < 0) {
        return -1;
    }
    p->data = p->view.buf;
    p->size = (size_t)p->view.len;
    p->stable = false;
    if (PyMemoryView_Check(data)) {
        PyObject *base = PyMemoryView_GET_BASE(data);
        if (base != NULL && PyBytes_CheckExact(base)) {
            p->owner = base;
            p->stable = true;
        }
    }
    return 0;
}

void
hl_piece_release(hl_piece *p)
{
    if (p->view.obj != NULL) {
        PyBuffer_Release(&p->view);
    }
}

int
hl_piece_push(hl_writeq *queue, const hl_piece *p)
{
    if (p->stable) {
        return hl_writeq_push(queue, p->owner, p->data, p->size);
    }
    PyObject *copy = PyBytes_FromStringAndSize(p->data, (Py_ssize_t)p->size);
    if (copy == NULL) {
        return -1;
    }
    int rv = hl_writeq_push(queue, copy, PyBytes_AS_STRING(copy), p->size);
    Py_DECREF(copy);
    return rv;
}
