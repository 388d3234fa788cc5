/* datagramq.h - datagrams that wait to be sent, in order.
 *
 * Threading: GIL held.
 * SPDX-License-Identifier: MIT */

#ifndef HL_IO_DATAGRAMQ_H
#define HL_IO_DATAGRAMQ_H

#include "base/hotloop.h"

typedef struct {
    PyObject *data; /* owned, an exact bytes object */
    PyObject *addr; /* owned: what sendto() was given, or None */
    PyObject *raw;  /* owned: addr as the bytes of a sockaddr; NULL where there
                     * is none, or only the socket object can make it */
    PyObject *ancillary; /* owned: control messages as bytes, or NULL */
} hl_datagram_item;

/* All zeros is an empty queue. */
typedef struct {
    hl_datagram_item *items;
    uint32_t head; /* index of the first item */
    uint32_t count;
    uint32_t capacity;
    size_t bytes; /* of data in all items */
} hl_datagramq;

static inline hl_datagram_item *
hl_datagramq_item(const hl_datagramq *queue, uint32_t i)
{
    return &queue->items[queue->head + i];
}

static inline size_t
hl_datagram_item_size(const hl_datagram_item *item)
{
    return (size_t)PyBytes_GET_SIZE(item->data);
}

/* Appends a datagram, taking new references; raw and ancillary may be NULL.
 * 0, or -1 with MemoryError. */
int hl_datagramq_push(hl_datagramq *queue, PyObject *data, PyObject *addr,
                      PyObject *raw, PyObject *ancillary);

/* Drops the first n items.  May run Python (an address may be any object)
 * when the queue is in its new state. */
void hl_datagramq_pop(hl_datagramq *queue, uint32_t n);

/* Drops everything and frees the storage; may run Python as well. */
void hl_datagramq_clear(hl_datagramq *queue);

int hl_datagramq_traverse(hl_datagramq *queue, visitproc visit, void *arg);

#endif
