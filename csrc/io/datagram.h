/* datagram.h - the DatagramTransport object, shared by its files.
 *
 * Semantics are those of asyncio's _SelectorDatagramTransport.  What differs
 * inside: datagrams are received in batches, and those sent in a burst leave
 * in one system call (docs/datagrams.md says what can be seen of that).
 *
 * Threading: GIL held.  Every function may be entered while a callback of the
 * same transport is on the stack, and whoever calls one holds a reference.
 * SPDX-License-Identifier: MIT */

#ifndef HL_IO_DATAGRAM_H
#define HL_IO_DATAGRAM_H

#include "io/batch.h"
#include "io/peers.h"
#include "io/stream.h"

/* One received datagram that is not handed over yet, or an error in its
 * place.  All owned. */
typedef struct {
    PyObject *data;      /* NULL: an error */
    PyObject *addr;      /* or the exception */
    PyObject *ancillary; /* (control messages, flags) or NULL */
} hl_inbox_item;

typedef struct {
    hl_inbox_item *items;
    uint32_t head;
    uint32_t count; /* index behind the last one */
    uint32_t capacity;
} hl_inbox;

typedef struct {
    hl_transport base;
    PyObject *address; /* _address: as given, NULL for None */
    PyObject *area;    /* bytearray that views are lent of; or NULL */
    hl_datagramq queue;
    hl_inbox inbox;
    hl_peers peers;
    hl_batch_caps caps;
    unsigned char asked;   /* how many datagrams the next receive asks for */
    bool fixed : 1;        /* _address is not empty: nowhere else to send */
    bool peer : 1;         /* connected: has a peer's name */
    bool known : 1;        /* a family whose addresses we know */
    bool whole : 1;        /* may be received from in batches */
    bool sending : 1;      /* inside a call of the socket object */
    bool burst : 1;        /* something was sent, what follows can wait */
    bool views : 1;        /* the protocol takes memoryviews */
    bool messages : 1;     /* the protocol takes control messages */
    bool inbox_queued : 1; /* an entry for the inbox is in the ready queue */
} hl_datagram;

/* What get_write_buffer_size() counts for a datagram beside its data.  3.13.0
 * forgets to take it off again; here it goes with the datagram, as in the
 * versions after it. */
#if PY_VERSION_HEX >= 0x030D0000
#    define HL_DATAGRAM_HEADER 8
#else
#    define HL_DATAGRAM_HEADER 0
#endif

static inline hl_datagram *
hl_datagram_of(hl_transport *self)
{
    return (hl_datagram *)self;
}

/* The first n of the queue were sent, and are in it still. */
static inline void
hl_datagram_count_sent(hl_datagram *self, uint32_t n)
{
    size_t size = 0;
    for (uint32_t i = 0; i < n; i++) {
        size += hl_datagram_item_size(hl_datagramq_item(&self->queue, i));
    }
    hl_count_datagrams_sent(&self->base.loop->counts, n, size);
}

/* datagram.c: protocol.error_received(OSError(err)).  0 or -1. */
int hl_datagram_error(hl_datagram *self, int err);

/* The same for the pending OSError; another exception is fatal.  message is
 * what asyncio reports then. */
int hl_datagram_failed(hl_datagram *self, const char *message);

/* datagram_receive.c: the reading half of an event; _read_ready(). */
int hl_datagram_on_readable(hl_transport *self);
int hl_datagram_read(hl_datagram *self);

/* After resume_reading(): hands over what came before the pause. */
int hl_datagram_resumed(hl_datagram *self);

void hl_inbox_clear(hl_inbox *inbox);
int hl_inbox_traverse(hl_inbox *inbox, visitproc visit, void *arg);

/* datagram_send.c: sendto() and the extra sendmsg(); ancillary may be NULL. */
int hl_datagram_sendto(hl_datagram *self, PyObject *data, PyObject *addr,
                       PyObject *ancillary);

/* _sendto_ready(), and what is deferred. */
int hl_datagram_on_writable(hl_transport *self);
int hl_datagram_flush(hl_transport *self);

/* ancillary.c: control messages as the lists of tuples of socket.recvmsg() and
 * sendmsg(), and as the system calls have them.  New reference or NULL. */
PyObject *hl_ancillary_to_python(const void *control, size_t size);
PyObject *hl_ancillary_to_raw(PyObject *messages);

#endif
