/* datagramq.c - datagrams that wait to be sent, in order.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "io/datagramq.h"

#include <string.h>

#define DATAGRAMQ_MIN 16

/* Storage of more items than this is given back when the queue is empty. */
#define DATAGRAMQ_KEEP 64

/* Makes room for one item at the end. */
static int
datagramq_reserve(hl_datagramq *queue)
{
    if (queue->head + queue->count < queue->capacity) {
        return 0;
    }
    if (queue->head > 0 && queue->head >= queue->capacity / 2) {
        memmove(queue->items, hl_datagramq_item(queue, 0),
                queue->count * sizeof(hl_datagram_item));
        queue->head = 0;
        return 0;
    }
    if (queue->capacity > UINT32_MAX / (2 * sizeof(hl_datagram_item))) {
        PyErr_NoMemory();
        return -1;
    }
    uint32_t capacity = Py_MAX(DATAGRAMQ_MIN, queue->capacity * 2);
    hl_datagram_item *items =
        PyMem_Realloc(queue->items, capacity * sizeof(hl_datagram_item));
    if (items == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    queue->items = items;
    queue->capacity = capacity;
    return 0;
}

int
hl_datagramq_push(hl_datagramq *queue, PyObject *data, PyObject *addr,
                  PyObject *raw, PyObject *ancillary)
{
    if (datagramq_reserve(queue) < 0) {
        return -1;
    }
    hl_datagram_item *item = hl_datagramq_item(queue, queue->count++);
    item->data = Py_NewRef(data);
    item->addr = Py_NewRef(addr);
    item->raw = Py_XNewRef(raw);
    item->ancillary = Py_XNewRef(ancillary);
    queue->bytes += hl_datagram_item_size(item);
    return 0;
}

static void
storage_release(hl_datagramq *queue)
{
    queue->head = 0;
    if (queue->capacity > DATAGRAMQ_KEEP) {
        PyMem_Free(queue->items);
        queue->items = NULL;
        queue->capacity = 0;
    }
}

void
hl_datagramq_pop(hl_datagramq *queue, uint32_t n)
{
    for (; n > 0 && queue->count > 0; n--) {
        hl_datagram_item item = *hl_datagramq_item(queue, 0);
        queue->bytes -= hl_datagram_item_size(&item);
        queue->head++;
        queue->count--;
        if (queue->count == 0) {
            storage_release(queue);
        }
        Py_DECREF(item.data);
        Py_XDECREF(item.raw);
        Py_XDECREF(item.ancillary);
        Py_DECREF(item.addr);
    }
}

void
hl_datagramq_clear(hl_datagramq *queue)
{
    hl_datagramq dropped = *queue;
    memset(queue, 0, sizeof(*queue));
    hl_datagramq_pop(&dropped, dropped.count);
    PyMem_Free(dropped.items);
}

int
hl_datagramq_traverse(hl_datagramq *queue, visitproc visit, void *arg)
{
    for (uint32_t i = 0; i < queue->count; i++) {
        Py_VISIT(hl_datagramq_item(queue, i)->addr);
    }
    return 0;
}
