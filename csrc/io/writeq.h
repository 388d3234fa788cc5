/* writeq.h - bytes that wait to be sent on one descriptor.
 *
 * A queue of chunks, each an owned object and the part of its memory that is
 * not sent yet.  Owners are exact bytes objects (or kept only for the length
 * of one call), so that releasing them never runs Python code.
 * Threading: GIL held.
 * SPDX-License-Identifier: MIT */

#ifndef HL_IO_WRITEQ_H
#define HL_IO_WRITEQ_H

#include "base/hotloop.h"

#include "loop/counts.h"

#include <limits.h>

typedef struct {
    PyObject *owner; /* owned */
    const char *data;
    size_t size; /* never 0 */
} hl_chunk;

/* Chunks that one system call takes: the array is on the stack. */
#if defined(IOV_MAX) && IOV_MAX < 256
#    define HL_WRITEQ_IOV IOV_MAX
#else
#    define HL_WRITEQ_IOV 256
#endif

/* A head and a body without an allocation. */
#define HL_WRITEQ_INLINE 2

/* All zeros is an empty queue. */
typedef struct {
    hl_chunk *array; /* NULL while the inline chunks suffice */
    size_t size;     /* bytes in all chunks */
    uint32_t head;   /* index of the first chunk */
    uint32_t count;
    uint32_t capacity; /* of array */
    uint32_t packets;  /* chunks owned by packets, perhaps sent in part */
    hl_chunk local[HL_WRITEQ_INLINE];
} hl_writeq;

static inline hl_chunk *
hl_writeq_chunk(hl_writeq *queue, uint32_t i)
{
    hl_chunk *chunks = queue->array != NULL ? queue->array : queue->local;
    return &chunks[queue->head + i];
}

/* What write() was given: size bytes at data, kept in place by owner.  Unless
 * stable, the caller may change them as soon as it gets control back. */
typedef struct {
    PyObject *owner; /* borrowed */
    const char *data;
    size_t size;
    bool stable;
    Py_buffer view; /* view.obj is NULL for bytes */
} hl_piece;

/* The memory of data, which has a buffer.  0 or -1 with an exception.  May
 * run Python; hl_piece_release() may as well. */
int hl_piece_get(hl_piece *p, PyObject *data);
void hl_piece_release(hl_piece *p);

/* Appends a piece, copied unless it is stable.  0, or -1 with MemoryError. */
int hl_piece_push(hl_writeq *queue, const hl_piece *p);

/* Appends size bytes at data, which live as long as owner (a new reference is
 * taken).  0, or -1 with MemoryError and the queue as it was. */
int hl_writeq_push(hl_writeq *queue, PyObject *owner, const char *data,
                   size_t size);

/* Chunks that still belong to owner get a copy of what is left of them: for
 * memory that the caller may change afterwards.  0, or -1 with MemoryError. */
int hl_writeq_own(hl_writeq *queue, PyObject *owner);

/* Drops the first size bytes, which are there; frees the storage with the
 * last. */
void hl_writeq_drop(hl_writeq *queue, size_t size);

/* Drops everything and frees the storage. */
void hl_writeq_clear(hl_writeq *queue);

/* Sends as much as the kernel takes, by the calls for sockets or by those for
 * any file, which are counted.  0 when the queue is empty, EAGAIN when the
 * kernel is full, else the errno of the failure. */
int hl_writeq_send(hl_writeq *queue, int fd, bool is_socket,
                   hl_counts *counts);

#endif
