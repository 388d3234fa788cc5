/* datagram_receive.c - the reading side of a datagram transport.
 *
 * One system call per readiness takes a batch, which is then handed over one
 * by one.  Whatever stops that half way (a pause, stop(), Ctrl-C) leaves the
 * rest in the inbox, from where it comes first when reading goes on.
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "io/datagram.h"

#include "state/errors.h"

#include <errno.h>

/* Slots for receiving into begin at different cache lines of their pages: at
 * equal ones they would drive each other out of the cache. */
#define SLOT_SHIFT 1088

/* No datagram of the internet protocols is longer. */
#define INET_SLOT (64 * 1024)

static inline bool
inbox_is_empty(const hl_inbox *inbox)
{
    return inbox->head == inbox->count;
}

static void
item_free(hl_inbox_item *item)
{
    Py_XDECREF(item->data);
    Py_XDECREF(item->addr);
    Py_XDECREF(item->ancillary);
}

static hl_inbox_item
inbox_take(hl_inbox *inbox)
{
    hl_inbox_item item = inbox->items[inbox->head++];
    if (inbox->head == inbox->count) {
        inbox->head = inbox->count = 0;
    }
    return item;
}

void
hl_inbox_clear(hl_inbox *inbox)
{
    while (!inbox_is_empty(inbox)) {
        hl_inbox_item item = inbox_take(inbox);
        item_free(&item);
    }
    PyMem_Free(inbox->items);
    inbox->items = NULL;
    inbox->capacity = 0;
}

int
hl_inbox_traverse(hl_inbox *inbox, visitproc visit, void *arg)
{
    for (uint32_t i = inbox->head; i < inbox->count; i++) {
        Py_VISIT(inbox->items[i].data);
        Py_VISIT(inbox->items[i].addr);
        Py_VISIT(inbox->items[i].ancillary);
    }
    return 0;
}

/* Appends an item, all of which is stolen.  0, or -1 with MemoryError. */
static int
inbox_push(hl_inbox *inbox, hl_inbox_item item)
{
    if (inbox->count == inbox->capacity) {
        uint32_t capacity = Py_MAX(8, inbox->capacity * 2);
        hl_inbox_item *items =
            PyMem_Realloc(inbox->items, capacity * sizeof(hl_inbox_item));
        if (items == NULL) {
            item_free(&item);
            PyErr_NoMemory();
            return -1;
        }
        inbox->items = items;
        inbox->capacity = capacity;
    }
    inbox->items[inbox->count++] = item;
    return 0;
}

/* Where a batch is received: the buffer that all transports share, or for
 * views an area of our own. */
typedef struct {
    char *start;
    size_t stride;
    size_t room;    /* of one system-call buffer */
    size_t limit;   /* of one datagram: max_size */
    PyObject *view; /* of the area; NULL for the shared buffer */
} landing;

/* An area that nobody looks at any more. */
static int
area_renew(hl_datagram *self)
{
    if (self->area != NULL &&
        ((PyByteArrayObject *)self->area)->ob_exports == 0) {
        return 0;
    }
    Py_XSETREF(self->area,
               PyByteArray_FromStringAndSize(NULL, HL_READ_BUFFER_ROOM));
    return self->area == NULL ? -1 : 0;
}

/* The shared buffer is taken off the loop while it is in use: making objects
 * may run the garbage collector, and that anything. */
static int
landing_open(hl_datagram *self, landing *l)
{
    hl_transport *base = &self->base;
    Py_ssize_t room = hl_transport_max_size(base);
    if (room < 0) {
        return -1;
    }
    bool inet = base->family == AF_INET || base->family == AF_INET6;
    size_t slot = inet ? INET_SLOT : HL_READ_BUFFER_SIZE;
    l->stride = slot + SLOT_SHIFT;
    l->limit = Py_MIN((size_t)room, slot);
    /* Joined datagrams are cut to size when they are taken apart. */
    l->room = self->caps.joined ? slot : l->limit;
    l->view = NULL;
    if (self->views) {
        if (area_renew(self) < 0 ||
            (l->view = PyMemoryView_FromObject(self->area)) == NULL) {
            return -1;
        }
        l->start = PyByteArray_AS_STRING(self->area);
        return 0;
    }
    l->start = hl_loop_read_buffer(base->loop);
    base->loop->read_buffer = NULL;
    return l->start == NULL ? -1 : 0;
}

static void
landing_close(hl_loop *loop, landing *l)
{
    if (l->view != NULL) {
        Py_DECREF(l->view);
    }
    else if (loop->read_buffer == NULL) {
        loop->read_buffer = l->start;
    }
    else {
        PyMem_RawFree(l->start);
    }
}

/* The object that is handed over: bytes, or a part of the view. */
static PyObject *
landing_data(const landing *l, const char *data, size_t size)
{
    if (l->view == NULL) {
        return PyBytes_FromStringAndSize(data, (Py_ssize_t)size);
    }
    Py_ssize_t at = data - l->start;
    return PySequence_GetSlice(l->view, at, at + (Py_ssize_t)size);
}

/* (control messages, flags) for a protocol that wants them. */
static PyObject *
received_ancillary(const hl_received *r)
{
    PyObject *list = hl_ancillary_to_python(r->control, r->control_size);
    return list == NULL ? NULL : Py_BuildValue("(Ni)", list, r->flags);
}

/* Puts size bytes of what was received into the inbox. */
static int
keep_part(hl_datagram *self, const landing *l, const hl_received *r,
          const char *data, size_t size)
{
    hl_inbox_item item = {NULL, NULL, NULL};
    hl_count_datagrams_received(&self->base.loop->counts, 1, size);
    item.data = landing_data(l, data, Py_MIN(size, l->limit));
    if (item.data != NULL) {
        item.addr = hl_peers_addr(&self->peers, &r->addr,
                                  Py_MIN(r->addr_size, sizeof(r->addr)));
    }
    if (item.addr != NULL && self->messages) {
        item.ancillary = received_ancillary(r);
    }
    if (item.addr == NULL || (self->messages && item.ancillary == NULL)) {
        item_free(&item);
        return -1;
    }
    return inbox_push(&self->inbox, item);
}

/* Puts one message into the inbox, taken apart if the kernel had joined
 * several. */
static int
keep_received(hl_datagram *self, const landing *l, const hl_received *r)
{
    if (HL_UNLIKELY(r->error != 0)) {
        hl_inbox_item item = {NULL, hl_os_error(r->error), NULL};
        return item.addr == NULL ? -1 : inbox_push(&self->inbox, item);
    }
    size_t part = self->caps.joined ? hl_batch_segment_size(r) : 0;
    if (HL_LIKELY(part == 0)) {
        return keep_part(self, l, r, r->data, r->size);
    }
    for (size_t at = 0; at < r->size; at += part) {
        if (keep_part(self, l, r, r->data + at, Py_MIN(part, r->size - at)) <
            0) {
            return -1;
        }
    }
    return 0;
}

/* Twice as many the next time if all that were asked for came, fewer if not:
 * every one asked for in vain costs a little. */
static void
adapt_asked(hl_datagram *self, int asked, int came, int most)
{
    if (came == asked) {
        self->asked = (unsigned char)Py_MIN(2 * asked, most);
    }
    else {
        self->asked = (unsigned char)Py_MAX(1, (asked + came) / 2);
    }
}

/* One batch into the inbox.  0, -1 with an exception, or the errno value of
 * what the socket met. */
static int
receive_batch(hl_datagram *self, const landing *l)
{
    hl_received batch[HL_BATCH_MAX];
    union {
        struct cmsghdr align;
        char bytes[HL_BATCH_CONTROL];
    } control;
    int most = self->whole ? (int)(HL_READ_BUFFER_ROOM / l->stride) : 1;
    most = Py_MIN(most, HL_BATCH_MAX);
    if (self->messages) {
        /* There may be much control data; descriptors must not lie about. */
        most = self->base.family == AF_UNIX ? 1 : Py_MIN(most, 8);
    }
    int asked = Py_MIN((int)self->asked, most);
    bool wants_control = self->caps.joined || self->messages;
    size_t control_room = HL_BATCH_CONTROL / (size_t)most;
    for (int i = 0; i < asked; i++) {
        batch[i].data = l->start + (size_t)i * l->stride;
        batch[i].room = l->room;
        batch[i].control =
            wants_control ? control.bytes + (size_t)i * control_room : NULL;
        batch[i].control_room = wants_control ? control_room : 0;
    }
    int came = hl_batch_receive(&self->caps, hl_transport_fd(&self->base),
                                batch, asked);
    if (came < 0) {
        self->asked = 1;
        return -came;
    }
    adapt_asked(self, asked, came, most);
    for (int i = 0; i < came; i++) {
        if (keep_received(self, l, &batch[i]) < 0) {
            return -1;
        }
    }
    return 0;
}

/* A family that only the socket object knows: one datagram, as asyncio. */
static int
receive_by_socket(hl_datagram *self)
{
    hl_transport *base = &self->base;
    hl_state *st = hl_loop_state(base->loop);
    hl_inbox_item item = {NULL, NULL, NULL};
    PyObject *size = PyObject_GetAttr((PyObject *)self, st->str_max_size);
    PyObject *res =
        size == NULL
            ? NULL
            : PyObject_CallMethodOneArg(base->sock, st->str_recvfrom, size);
    Py_XDECREF(size);
    if (res == NULL) {
        if (PyErr_ExceptionMatches(PyExc_BlockingIOError) ||
            PyErr_ExceptionMatches(PyExc_InterruptedError)) {
            PyErr_Clear();
            return 0;
        }
        return hl_datagram_failed(self, base->ops->read_error);
    }
    if (PyArg_ParseTuple(res, "OO", &item.data, &item.addr)) {
        Py_INCREF(item.data);
        Py_INCREF(item.addr);
        if (PyBytes_Check(item.data)) {
            hl_count_datagrams_received(&base->loop->counts, 1,
                                        (size_t)PyBytes_GET_SIZE(item.data));
        }
        if (self->messages) {
            item.ancillary = Py_BuildValue("([]i)", 0);
        }
    }
    Py_DECREF(res);
    return PyErr_Occurred() || inbox_push(&self->inbox, item) < 0
               ? hl_transport_callback_failed(base, base->ops->read_error)
               : 0;
}

static int
datagram_receive(hl_datagram *self)
{
    hl_transport *base = &self->base;
    if (!self->known) {
        return receive_by_socket(self);
    }
    landing l;
    if (landing_open(self, &l) < 0) {
        return hl_transport_callback_failed(base, base->ops->read_error);
    }
    hl_loop *loop = base->loop;
    int err = receive_batch(self, &l);
    landing_close(loop, &l);
    if (err == -1) {
        return hl_transport_callback_failed(base, base->ops->read_error);
    }
    return err == 0 || err == EAGAIN || err == EWOULDBLOCK
               ? 0
               : hl_datagram_error(self, err);
}

/* Calls the protocol; item is used up. */
static int
deliver_one(hl_datagram *self, hl_inbox_item *item)
{
    hl_state *st = hl_loop_state(self->base.loop);
    PyObject *protocol = Py_NewRef(self->base.protocol);
    PyObject *res;
    if (HL_UNLIKELY(item->data == NULL)) {
        res = PyObject_CallMethodOneArg(protocol, st->str_error_received,
                                        item->addr);
    }
    else if (item->ancillary != NULL) {
        res = PyObject_CallMethodObjArgs(
            protocol, st->str_datagram_msg_received, item->data,
            PyTuple_GET_ITEM(item->ancillary, 0),
            PyTuple_GET_ITEM(item->ancillary, 1), item->addr, NULL);
    }
    else {
        PyObject *args[] = {protocol, item->data, item->addr};
        res = PyObject_VectorcallMethod(st->str_datagram_received, args,
                                        3 | PY_VECTORCALL_ARGUMENTS_OFFSET,
                                        NULL);
    }
    item_free(item);
    Py_DECREF(protocol);
    if (res == NULL) {
        return -1;
    }
    Py_DECREF(res);
    return 0;
}

/* Hands over what is in the inbox, until something stops it.  What one call
 * raises is reported, as asyncio does it per datagram, and the next one goes
 * on; -1 for what the caller reports or what ends the run. */
static int
inbox_deliver(hl_datagram *self)
{
    hl_transport *base = &self->base;
    hl_loop *loop = base->loop;
    int rv = 0;
    while (rv == 0 && base->reading && !inbox_is_empty(&self->inbox)) {
        hl_inbox_item item = inbox_take(&self->inbox);
        rv = deliver_one(self, &item);
        if (HL_UNLIKELY(rv < 0) && !inbox_is_empty(&self->inbox)) {
            rv = hl_entry_end(loop, Py_NewRef((PyObject *)self), rv,
                              hl_loop_state(loop)->str__read_ready, NULL,
                              NULL); /* a context that is not entered */
        }
        if (loop->stopping) {
            break;
        }
    }
    return rv;
}

static int
datagram_run_inbox(hl_loop *Py_UNUSED(loop), PyObject *op)
{
    hl_datagram *self = (hl_datagram *)op;
    hl_transport *base = &self->base;
    self->inbox_queued = false;
    int rv = 0;
    if (base->watcher != NULL) {
        base->watcher->ready &= ~UV_READABLE; /* this was the turn's reading */
    }
    if (!inbox_is_empty(&self->inbox) && base->loop != NULL) {
        rv =
            hl_transport_run_half(base, hl_datagram_on_readable, base->context,
                                  hl_loop_state(base->loop)->str__read_ready);
    }
    Py_DECREF(op);
    return rv;
}

int
hl_datagram_resumed(hl_datagram *self)
{
    hl_transport *base = &self->base;
    if (inbox_is_empty(&self->inbox) || self->inbox_queued || !base->reading ||
        base->loop == NULL) {
        return 0;
    }
    self->inbox_queued = true;
    return hl_loop_push(base->loop, Py_NewRef((PyObject *)self),
                        datagram_run_inbox);
}

int
hl_datagram_read(hl_datagram *self)
{
    hl_transport *base = &self->base;
    if (base->conn_lost || base->loop == NULL || base->protocol == NULL) {
        return 0;
    }
    if (inbox_is_empty(&self->inbox) && datagram_receive(self) < 0) {
        return -1;
    }
    int rv = base->loop == NULL ? 0 : inbox_deliver(self);
    if (base->closing) {
        hl_inbox_clear(&self->inbox);
    }
    return rv;
}

/* What the callbacks sent leaves now: the turn has nothing to add to it, and
 * nobody is kept waiting for the other callbacks. */
int
hl_datagram_on_readable(hl_transport *base)
{
    hl_datagram *self = hl_datagram_of(base);
    if (self->inbox_queued) {
        return 0; /* what came before has its own entry */
    }
    base->in_read = true;
    int rv = hl_datagram_read(self);
    base->in_read = false;
    self->burst = base->flush_queued;
    PyObject *exc = rv < 0 ? hl_error_fetch() : NULL;
    rv = hl_datagram_resumed(self);
    if (rv == 0) {
        rv = hl_datagram_flush(base);
    }
    if (exc != NULL) {
        PyErr_Clear();
        hl_error_restore(exc);
        return -1;
    }
    return rv;
}
