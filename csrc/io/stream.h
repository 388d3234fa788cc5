/* stream.h - the object behind every transport, and the stream transport.
 *
 * Semantics are those of asyncio's _SelectorSocketTransport.  What differs
 * inside: written data waits until the turn ends, so that several writes leave
 * in one system call; whatever lets the difference show (the buffer's size,
 * the socket, closing) sends first.
 *
 * Threading: GIL held.  Every function may be entered while a callback of the
 * same transport is on the stack, and whoever calls one holds a reference.
 * SPDX-License-Identifier: MIT */

#ifndef HL_IO_STREAM_H
#define HL_IO_STREAM_H

#include "io/address.h"
#include "io/transport.h"
#include "io/writeq.h"

/* Written data is sent at once when more than this is waiting. */
#define HL_MERGE_MAX (64 * 1024)

typedef enum {
    HL_FEED_DATA = 0, /* data_received() */
    HL_FEED_BUFFER,   /* get_buffer(), buffer_updated() */
    HL_FEED_STREAM, /* asyncio's own stream protocol: perhaps without calls */
} hl_feed;

typedef struct hl_transport hl_transport;

/* What differs between the kinds of transports that share hl_transport. */
typedef struct {
    const char *name; /* in repr() */

    /* set_protocol(): how data is handed to this protocol.  0 or -1. */
    int (*pick_feed)(hl_transport *self, PyObject *protocol);

    /* Socket options of a new transport; failures do not matter.  May be
     * NULL. */
    void (*configure)(hl_transport *self);

    /* The two halves of a readiness event, each run in its context as a handle
     * of write_name or _read_ready().  0 or -1. */
    int (*on_readable)(hl_transport *self);
    int (*on_writable)(hl_transport *self);
    PyObject *(*write_name)(hl_state *st); /* borrowed */

    /* Sends what waits only for the end of the turn.  0 or -1. */
    int (*flush)(hl_transport *self);

    /* Empties the queue; with send, what the kernel takes at once of what was
     * only deferred leaves first. */
    void (*drop)(hl_transport *self, bool send);

    /* What waits to be sent: pieces, and bytes as flow control counts. */
    size_t (*count)(const hl_transport *self);
    size_t (*size)(const hl_transport *self);
} hl_transport_ops;

struct hl_transport {
    PyObject_HEAD
    /* The slots of BaseTransport and _FlowControlMixin, in their order (it is
     * checked at import).  Python reads them through our getset. */
    PyObject *extra; /* _extra: dict, NULL until there is something in it */
    PyObject *high_value; /* _high_water as set, NULL for the default */
    hl_loop *loop;        /* _loop: owned, NULL after connection_lost() */
    PyObject *low_value;
    PyObject *unused; /* _protocol_paused is a flag below */

    PyObject *dict; /* as in asyncio, where instances have one */
    PyObject *weakrefs;
    const hl_transport_ops *ops;
    PyObject *protocol;
    PyObject *server;
    PyObject *sock;    /* Python socket; NULL while the transport owns fd */
    PyObject *context; /* readers run in it; later, connection_lost() */
    PyObject *write_context; /* of the write() that made data wait */
    PyObject *starter; /* connection_made, bound, until called; before that the
                        * listener of a connection not yet handed over */
    PyObject *waiter;  /* told when connection_made() has been called */
    PyObject *empty_waiter; /* sendfile's: told when all is sent */
    PyObject *lost_exc;     /* argument of the coming connection_lost() */
    PyObject *sockname;     /* raw address as bytes, once fd cannot tell */
    hl_watcher *watcher;    /* NULL once closing with nothing to send */
    Py_ssize_t high;        /* the limits, for comparing */
    Py_ssize_t low;
    hl_writeq queue;
    unsigned char peer[sizeof(struct sockaddr_in6)]; /* raw, if it fits */
    unsigned char peer_size;                         /* 0: none, or in extra */
    unsigned char sock_type;
    unsigned char feed; /* hl_feed */
    short family;
    short proto;        /* as a socket of the listener's kind has it */
    int fd;             /* kept for repr after closing */
    unsigned conn_lost; /* asyncio's counter: > 0 once it is to be called */
    bool fd_open : 1;
    bool own_context : 1; /* 3.15: everything runs in context itself */
    bool connected : 1;   /* a protocol was set: unclosed is worth a warning */
    bool reading : 1;     /* a reader would be registered */
    bool paused : 1;      /* pause_reading() */
    bool closing : 1;
    bool lost : 1;    /* connection_lost() was called */
    bool eof : 1;     /* write_eof() */
    bool blocked : 1; /* the kernel is full; else the queue is only deferred */
    bool flush_queued : 1;
    bool protocol_paused : 1; /* pause_writing() */
    bool in_read : 1;         /* inside a reader callback */
};

/* A new transport of a kind, type being its Python type: no more than storage,
 * to be completed by hl_transport_begin(). */
hl_transport *hl_transport_alloc(hl_loop *loop, PyTypeObject *type,
                                 const hl_transport_ops *ops);

/* Is op a transport of ours, of whatever kind? */
bool hl_transport_check(hl_state *st, PyObject *op);

/* None for a Python method that returns nothing, NULL after a failure. */
static inline PyObject *
hl_none_or_null(int rv)
{
    return rv < 0 ? NULL : Py_NewRef(Py_None);
}

static inline hl_state *
hl_transport_state(hl_transport *self)
{
    return self->loop != NULL ? hl_loop_state(self->loop)
                              : hl_state_of_type(Py_TYPE(self));
}

/* lifetime.c and transport.c.  Unless said otherwise: 0, or -1 with an
 * exception that goes to the caller of the Python method or ends the
 * ready-queue entry. */

/* A connection just accepted: takes over fd, on success only.  It has neither
 * protocol nor watcher before hl_transport_start(). */
hl_transport *hl_transport_accepted(hl_loop *loop, int fd, const void *peer,
                                    size_t peer_size);

/* The second half of the constructor: protocol, server, socket options,
 * watcher; queues connection_made().  On failure nothing is queued and the
 * caller disposes of the transport with hl_transport_discard(). */
int hl_transport_start(hl_transport *self, PyObject *protocol,
                       PyObject *server);

/* The constructor of a transport on a Python socket: may be NULL or None are
 * all but sock and protocol.  0, or -1 with self discarded. */
int hl_transport_begin(hl_transport *self, PyObject *sock, PyObject *protocol,
                       PyObject *waiter, PyObject *extra, PyObject *server,
                       PyObject *context);

/* _ensure_fd_no_transport(): the descriptor of sock, or -1. */
int hl_transport_fd_of(hl_loop *loop, PyObject *sock);

/* Undoes a transport that never got to its connection_made(): closes fd if the
 * transport owns it, leaves a Python socket alone. */
void hl_transport_discard(hl_transport *self);

/* set_protocol(): also picks how data is handed over. */
int hl_transport_set_protocol(hl_transport *self, PyObject *protocol);

/* _add_reader(): starts reading unless closing or paused. */
int hl_transport_add_reader(hl_transport *self);

/* Tells the watcher what is wanted now, opening it where that is due. */
int hl_transport_update_watcher(hl_transport *self);

/* Gives the descriptor free for other watchers. */
void hl_transport_drop_watcher(hl_transport *self);

int hl_transport_pause_reading(hl_transport *self);
int hl_transport_resume_reading(hl_transport *self);
int hl_transport_close(hl_transport *self);

/* _force_close(exc): exc may be NULL for None; borrowed. */
int hl_transport_force_close(hl_transport *self, PyObject *exc);

/* _fatal_error(exc, message). */
int hl_transport_fatal_error(hl_transport *self, PyObject *exc,
                             const char *message);

/* The same for the pending exception, which is passed through if it must end
 * the run. */
int hl_transport_callback_failed(hl_transport *self, const char *message);

/* _call_connection_lost(exc), at most once. */
int hl_transport_call_lost(hl_transport *self, PyObject *exc);

/* tp_finalize: warns of a transport that nobody closed, and closes it. */
void hl_transport_finalize(PyObject *op);

/* Reports the pending exception as that of a handle which called callback(arg)
 * in context; arg and context may be NULL.  0, or -1 if it must end the
 * run. */
int hl_entry_report(hl_loop *loop, PyObject *callback, PyObject *arg,
                    PyObject *context);

/* Ends a ready-queue entry: steals obj, and reports a failure (rv < 0) as that
 * of obj.method(arg) in context.  Returns what the entry returns. */
int hl_entry_end(hl_loop *loop, PyObject *obj, int rv, PyObject *method,
                 PyObject *arg, PyObject *context);

/* logger.debug(format, self) if the loop is in debug mode. */
int hl_transport_log_debug(hl_transport *self, const char *format);

/* transport_type.c: what the types of all kinds call. */
int hl_transport_traverse(PyObject *op, visitproc visit, void *arg);
int hl_transport_clear(PyObject *op);
void hl_transport_dealloc(PyObject *op);

/* attributes.c: repr(), and what asyncio's transports have as attributes. */
PyObject *hl_transport_repr(PyObject *self);
extern PyGetSetDef hl_transport_getset[]; /* as a type slot takes it */
extern PyGetSetDef hl_stream_getset[];    /* what only streams have */

/* extra.c */

/* The Python socket: made now if the transport owned the descriptor until
 * now.  New reference, None after closing; deferred data is sent first. */
PyObject *hl_transport_socket(hl_transport *self);

/* get_extra_info(): new reference; dflt is borrowed. */
PyObject *hl_transport_extra_info(hl_transport *self, PyObject *name,
                                  PyObject *dflt);

/* _extra with socket, sockname and peername in it.  New reference. */
PyObject *hl_transport_extra_dict(hl_transport *self);

/* The constructor's look at the socket: family, own address and peer. */
int hl_transport_learn_addresses(hl_transport *self, PyObject *sock);

/* Records a peer address as accept4() gave it.  0 or -1. */
int hl_transport_set_peer(hl_transport *self, const void *peer, size_t size);

/* Closes the descriptor, through the Python socket where there is one; keeps
 * what get_extra_info() can still be asked for. */
int hl_transport_close_fd(hl_transport *self);

/* read.c: what the watcher queues (an hl_run_fn), and _read_ready(). */
int hl_transport_on_ready(hl_loop *loop, PyObject *self);

/* Runs one of the two halves of an event in context (NULL: as it is), as a
 * handle of self.name would.  0, or -1 with what must end the run. */
int hl_transport_run_half(hl_transport *self, int (*half)(hl_transport *),
                          PyObject *context, PyObject *name);

/* max_size, which asyncio looks up for every recv(); at most
 * HL_READ_BUFFER_SIZE.  -1 with an exception. */
Py_ssize_t hl_transport_max_size(hl_transport *self);
int hl_transport_read(hl_transport *self);

/* A stream's ops->on_readable. */
int hl_transport_read_and_flush(hl_transport *self);

/* streamreader.c: may protocol be fed without calls? */
bool hl_streamreader_suits(hl_state *st, PyObject *protocol);

/* Does what StreamReaderProtocol.data_received() does with size > 0 bytes: 1
 * if done, 0 if the Python method must do it, -1 with an exception. */
int hl_streamreader_feed(hl_transport *self, const char *data,
                         Py_ssize_t size);

/* write.c: write() and writelines() after the checks of arguments. */
int hl_transport_write(hl_transport *self, PyObject *data);
int hl_transport_writelines(hl_transport *self, PyObject *list);
int hl_transport_write_eof(hl_transport *self);

/* _write_ready(): the kernel takes data again. */
int hl_transport_write_ready(hl_transport *self);

/* Sends what waits only for the end of the turn (a stream's ops->flush). */
int hl_transport_flush(hl_transport *self);

/* How much asyncio would have in its buffer: sends deferred data first.  -1
 * with an exception. */
Py_ssize_t hl_transport_buffer_size(hl_transport *self);

/* _make_empty_waiter(), _reset_empty_waiter(). */
PyObject *hl_transport_make_empty_waiter(hl_transport *self);
int hl_transport_reset_empty_waiter(hl_transport *self);

/* defer.c */

/* A send after the connection was lost: counted, and warned about when they
 * become many. */
int hl_transport_write_to_lost(hl_transport *self);

/* The kernel is full: the rest goes out when it says so, in a copy of the
 * context of the call that began it. */
int hl_transport_write_block(hl_transport *self);

/* Has obj->ops->flush() called at the end of the turn, in the context of this
 * call: 0 if so, 1 if there is no turn to end (nothing is raised), -1. */
int hl_transport_defer_flush(hl_transport *self);

/* The same in the next turn, among its callbacks.  0 or -1. */
int hl_transport_flush_soon(hl_transport *self);

/* flow.c */
int hl_flow_maybe_pause(hl_transport *self);
int hl_flow_maybe_resume(hl_transport *self);

/* _set_write_buffer_limits(); either may be NULL or None. */
int hl_flow_set_limits(hl_transport *self, PyObject *high, PyObject *low);

/* get_write_buffer_limits() and its halves.  New reference. */
PyObject *hl_flow_high(hl_transport *self);
PyObject *hl_flow_low(hl_transport *self);

#endif
