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

typedef struct {
    PyObject *owner; /* owned */
    const char *data;
    size_t size; /* never 0 */
} hl_chunk;

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

/* Appends size bytes at data, which live as long as owner (a new reference is
 * taken).  0, or -1 with MemoryError and the queue as it was. */
int hl_writeq_push(hl_writeq *queue, PyObject *owner, const char *data,
                   size_t size);

/* If the last chunk still belongs to owner, replaces it by a copy of what is
 * left of it: for memory that the caller may change afterwards.  0, or -1 with
 * MemoryError and the queue as it was. */
int hl_writeq_own_tail(hl_writeq *queue, PyObject *owner);

/* Drops everything and frees the storage. */
void hl_writeq_clear(hl_writeq *queue);

/* Sends as much as the kernel takes.  0 when the queue is empty, EAGAIN when
 * the kernel is full, else the errno of the failure. */
int hl_writeq_send(hl_writeq *queue, int fd);

#endif
