/* stream.h - the object behind every transport, shared by the files of io/.
 *
 * One engine serves SocketTransport, ReadPipeTransport and
 * WritePipeTransport, and what is common to all transports serves
 * DatagramTransport as well (datagram.h); hl_transport_ops is where they
 * differ.  Semantics are those of asyncio's _SelectorSocketTransport,
 * _UnixReadPipeTransport and _UnixWritePipeTransport.  What differs inside:
 * data written to a socket waits until the turn ends, so that several writes
 * leave in one system call; whatever lets the difference show (the buffer's
 * size, the socket, closing) sends first.
 *
 * Threading: GIL held.  Every function may be entered while a callback of the
 * same transport is on the stack, and whoever calls one holds a reference.
 * SPDX-License-Identifier: MIT */

#ifndef HL_IO_STREAM_H
#define HL_IO_STREAM_H

#include "io/address.h"
#include "io/transport.h"
#include "io/writeq.h"

typedef enum {
    HL_FEED_DATA = 0, /* data_received() */
    HL_FEED_BUFFER,   /* get_buffer(), buffer_updated() */
    HL_FEED_STREAM, /* asyncio's own stream protocol: perhaps without calls */
    HL_FEED_LAYER,  /* a protocol in C: layer.h */
} hl_feed;

typedef struct hl_transport hl_transport;

/* Where the kinds of transports differ.  Unless said otherwise a function
 * returns 0, or -1 with an exception. */
typedef struct {
    const char *name; /* in repr() */
    hl_link link;     /* what it is counted as */
    bool is_socket;   /* recv() and send(), addresses, half-closing */
    bool peer_only;   /* reads only to learn that the peer has left */
    bool reads_raise; /* what data_received() raises is reported, no more */
    size_t merge_max; /* what is sent waits no longer when it is more */

    /* set_protocol(): how data is handed to this protocol. */
    int (*pick_feed)(hl_transport *self, PyObject *protocol);

    /* Socket options of a new transport; failures do not matter.  May be
     * NULL. */
    void (*configure)(hl_transport *self);

    /* The two halves of a readiness event, each run in its context as a handle
     * of write_name or _read_ready(). */
    int (*on_readable)(hl_transport *self);
    int (*on_writable)(hl_transport *self);
    PyObject *(*write_name)(hl_state *st); /* borrowed */

    /* Of streams alone: what _read_ready() does while the connection lasts,
     * the system call of it, and the end of the data. */
    int (*read)(hl_transport *self);
    ssize_t (*receive)(int fd, void *buffer, size_t size);
    int (*on_eof)(hl_transport *self);

    /* Sends what waits only for the end of the turn. */
    int (*flush)(hl_transport *self);

    /* Empties the queue; with send, what the kernel takes at once of what was
     * only deferred leaves first. */
    void (*drop)(hl_transport *self, bool send);

    /* What waits to be sent: pieces, and bytes as flow control counts. */
    size_t (*count)(const hl_transport *self);
    size_t (*size)(const hl_transport *self);

    bool (*is_quiet)(PyObject *exc); /* an error that is not reported */
    const char *fatal_error;         /* messages, as asyncio has them */
    const char *read_error;
    const char *write_error;
    const char *lost_warning;
} hl_transport_ops;

struct hl_transport {
    PyObject_HEAD
    /* The slots of BaseTransport and _FlowControlMixin, in their order (it is
     * checked at import; a read pipe's base has the first alone).  Python
     * reads them through our getset. */
    PyObject *extra; /* _extra: dict, NULL until there is something in it */
    PyObject *high_value; /* _high_water as set, NULL for the default */
    hl_loop *loop;        /* _loop: owned, NULL after connection_lost() */
    PyObject *low_value;
    PyObject *unused; /* _protocol_paused is a flag below */

    PyObject *dict; /* as in asyncio, where instances have one */
    PyObject *weakrefs;
    PyObject *protocol;
    PyObject *server;
    PyObject *sock;    /* Python socket or pipe; NULL while the transport owns
                     * fd */
    PyObject *context; /* readers run in it; later, connection_lost() */
    PyObject *write_context; /* of the write() that made data wait */
    PyObject *starter; /* connection_made, bound, until called; before that the
                        * listener of a connection not yet handed over */
    PyObject *waiter;  /* told when connection_made() has been called */
    PyObject *empty_waiter; /* sendfile's: told when all is sent */
    PyObject *lost_exc;     /* argument of the coming connection_lost() */
    PyObject *sockname;     /* raw address as bytes, once fd cannot tell */
    const hl_transport_ops *ops;
    hl_watcher *watcher; /* NULL once closing with nothing to send; for pipes
                          * always, see watched */
    Py_ssize_t high;     /* the limits, for comparing */
    Py_ssize_t low;
    hl_writeq queue;
    struct hl_fds *fds; /* fds.c: received; NULL while nobody wants any */
    unsigned char peer[sizeof(struct sockaddr_in6)]; /* raw, if it fits */
    unsigned char peer_size;                         /* 0: none, or in extra */
    unsigned char sock_type;
    unsigned char feed; /* hl_feed */
    short family;
    short proto;           /* as a socket of the listener's kind has it */
    int fd;                /* kept for repr after closing */
    const int *sock_fd;    /* that of sock, inside of it: see
                            * hl_transport_fd() */
    unsigned conn_lost;    /* asyncio's counter: > 0 once it is to be called */
    unsigned dropped;      /* the counter of a write pipe, for failed writes */
    unsigned char watched; /* pipes: UV_READABLE, UV_WRITABLE */
    bool fd_open : 1;
    bool own_context : 1; /* 3.15: everything runs in context itself */
    bool counted : 1;     /* among the loop's transports that are open */
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
    bool gives_fds : 1;       /* protocol.fds_received() */
    bool deaf : 1; /* a write pipe that cannot learn of its peer's leaving */
};

/* obj.method(arg), or without argument if that is NULL; the result does not
 * matter, and whatever the method does obj lives as long as it.  0 or -1. */
static inline int
hl_call_dropping(PyObject *obj, PyObject *method, PyObject *arg)
{
    Py_INCREF(obj);
    PyObject *res = arg == NULL ? PyObject_CallMethodNoArgs(obj, method)
                                : PyObject_CallMethodOneArg(obj, method, arg);
    Py_DECREF(obj);
    Py_XDECREF(res);
    return res == NULL ? -1 : 0;
}

/* protocol.get_buffer(hint), which must not be empty.  New reference or
 * NULL. */
PyObject *hl_protocol_get_buffer(hl_state *st, PyObject *protocol,
                                 Py_ssize_t hint);

/* protocol.buffer_updated(size).  0 or -1. */
int hl_protocol_buffer_updated(hl_state *st, PyObject *protocol,
                               Py_ssize_t size);

/* None for a Python method that returns nothing, NULL after a failure. */
static inline PyObject *
hl_none_or_null(int rv)
{
    return rv < 0 ? NULL : Py_NewRef(Py_None);
}

/* The descriptor for a system call: fd, or -1 once the socket object was
 * closed or detached behind the transport's back.  fd may be somebody else's
 * by then, and -1 gives the EBADF that asyncio gets. */
static inline int
hl_transport_fd(const hl_transport *self)
{
    return HL_LIKELY(self->sock_fd == NULL) ? self->fd : *self->sock_fd;
}

/* Does the program hold the socket object, or what get_extra_info('socket')
 * gave it? */
bool hl_transport_sock_is_shared(const hl_transport *self);

/* Where a socket object keeps its descriptor; NULL for an object of another
 * kind.  Valid as long as the object. */
const int *hl_socket_fd(hl_state *st, PyObject *sock, int fd);

static inline hl_state *
hl_transport_state(hl_transport *self)
{
    return self->loop != NULL ? hl_loop_state(self->loop)
                              : hl_state_of_type(Py_TYPE(self));
}

/* The asyncio module whose logger hears of this transport; borrowed. */
static inline PyObject *
hl_transport_logs_to(hl_transport *self)
{
    hl_state *st = hl_transport_state(self);
    return self->ops->is_socket ? st->selector_events : st->unix_events;
}

/* lifetime.c and transport.c.  Unless said otherwise: 0, or -1 with an
 * exception that goes to the caller of the Python method or ends the
 * ready-queue entry. */

/* Is op a transport of sockets? */
bool hl_transport_check(hl_state *st, PyObject *op);

/* A connection just accepted: takes over fd, on success only.  It has neither
 * protocol nor watcher before hl_transport_start(). */
hl_transport *hl_transport_accepted(hl_loop *loop, int fd, const void *peer,
                                    size_t peer_size);

/* A new transport of this type without a descriptor, or NULL. */
hl_transport *hl_transport_alloc(hl_loop *loop, PyTypeObject *type,
                                 const hl_transport_ops *ops);

/* The optional arguments of a constructor; NULL and None mean the same.  0 or
 * -1. */
int hl_transport_set_options(hl_transport *self, PyObject *waiter,
                             PyObject *extra, PyObject *context);

/* The second half of the constructor: protocol, server, socket options,
 * watcher; queues connection_made().  On failure nothing is queued and the
 * caller disposes of the transport with hl_transport_discard(). */
int hl_transport_start(hl_transport *self, PyObject *protocol,
                       PyObject *server);

/* _ensure_fd_no_transport(): the descriptor of sock, or -1. */
int hl_transport_fd_of(hl_loop *loop, PyObject *sock);

/* The whole constructor of a transport on a Python socket whose descriptor it
 * has: all but sock and protocol may be NULL or None.  0, or -1 with self
 * discarded. */
int hl_transport_adopt(hl_transport *self, PyObject *sock, PyObject *protocol,
                       PyObject *waiter, PyObject *extra, PyObject *server,
                       PyObject *context);

/* The end of it, for pipes as well: queues connection_made(). */
int hl_transport_begin(hl_transport *self);

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

/* ops->is_quiet of most: every OSError. */
bool hl_transport_os_error(PyObject *exc);

/* _call_connection_lost(exc), at most once. */
int hl_transport_call_lost(hl_transport *self, PyObject *exc);

/* Has a protocol in C (layer.h) write what it only defers. */
void hl_transport_flush_layer(hl_transport *self);

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

/* logger.debug(format, self) if the loop is in debug mode; the other is
 * logger.info(). */
int hl_transport_log_debug(hl_transport *self, const char *format);
int hl_transport_log_info(hl_transport *self, const char *format);

/* Queues connection_lost(exc) (NULL for None) of a transport that has been
 * marked as closing.  The descriptor is watched no longer. */
int hl_transport_schedule_lost(hl_transport *self, PyObject *exc);

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

/* read.c: what the watcher queues (hl_run_fn; the two halves are for pipes),
 * and _read_ready(). */
int hl_transport_on_ready(hl_loop *loop, PyObject *self);
int hl_transport_on_readable(hl_loop *loop, PyObject *self);
int hl_transport_on_writable(hl_loop *loop, PyObject *self);
int hl_transport_read(hl_transport *self);

/* Runs one of the two halves of an event in context (NULL: as it is), as a
 * handle of self.name would.  0, or -1 with what must end the run. */
int hl_transport_run_half(hl_transport *self, int (*half)(hl_transport *),
                          PyObject *context, PyObject *name);

/* max_size, which asyncio looks up for every recv(); at most
 * HL_READ_BUFFER_SIZE.  -1 with an exception. */
Py_ssize_t hl_transport_max_size(hl_transport *self);

/* Of streams: ops->on_readable; ops->read, which reads once and hands over
 * what came; ops->on_eof of sockets. */
int hl_transport_read_and_flush(hl_transport *self);
int hl_transport_receive(hl_transport *self);
int hl_transport_read_eof(hl_transport *self);

/* stream_ops.c: the ops of SocketTransport, and what those of all streams have
 * in common. */
extern const hl_transport_ops hl_socket_ops;

/* Has the protocol an attribute of its class or its own?  One that it makes up
 * when asked (__getattr__) does not count: asyncio would not ask.  1, 0 or
 * -1. */
int hl_protocol_has(PyObject *protocol, PyObject *name);

/* How data is handed to the protocol of a socket, or of a pipe.  0 or -1. */
int hl_feed_pick(hl_state *st, PyObject *protocol, bool is_socket,
                 unsigned char *feed);

int hl_stream_pick_feed(hl_transport *self, PyObject *protocol);
PyObject *hl_stream_write_name(hl_state *st);
void hl_stream_drop(hl_transport *self, bool send);
size_t hl_stream_count(const hl_transport *self);
size_t hl_stream_size(const hl_transport *self);

#define HL_STREAM_OPS                                                \
    .pick_feed = hl_stream_pick_feed,                                \
    .on_readable = hl_transport_read_and_flush,                      \
    .on_writable = hl_transport_write_ready,                         \
    .write_name = hl_stream_write_name, .flush = hl_transport_flush, \
    .drop = hl_stream_drop, .count = hl_stream_count, .size = hl_stream_size

/* Sends what the kernel takes of the queue; as hl_writeq_send(). */
static inline int
hl_stream_send(hl_transport *self)
{
    return hl_writeq_send(&self->queue, hl_transport_fd(self),
                          self->ops->is_socket, &self->loop->counts);
}

/* streamreader.c: learns at import how asyncio's streams are made.  0 or -1.
 */
int hl_streamreader_init(hl_state *st);

/* May protocol be fed without calls? */
bool hl_streamreader_suits(hl_state *st, PyObject *protocol);

/* Does what StreamReaderProtocol.data_received() does with size > 0 bytes: 1
 * if done, 0 if the Python method must do it, -1 with an exception. */
int hl_streamreader_feed(hl_state *st, PyObject *protocol, const char *data,
                         Py_ssize_t size);

/* Where data may be received to without a copy, *room bytes; NULL if nowhere.
 * Before any Python code runs, hl_streamreader_filled() must tell how much has
 * come (> 0); 0 or -1 with an exception. */
char *hl_streamreader_room(hl_state *st, PyObject *protocol, Py_ssize_t *room);
int hl_streamreader_filled(hl_state *st, PyObject *protocol, Py_ssize_t size);

/* write.c: write() and writelines() after the checks of arguments. */
int hl_transport_write(hl_transport *self, PyObject *data);
int hl_transport_writelines(hl_transport *self, PyObject *list);
int hl_transport_write_eof(hl_transport *self);

/* write() of size > 0 bytes of memory, without delay: what the kernel does not
 * take is copied. */
int hl_transport_write_memory(hl_transport *self, const char *data,
                              size_t size);

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

/* pipe.c: hl_transport_update_watcher() and drop_watcher() of pipes, whose
 * descriptor may belong to two of them. */
int hl_pipe_update_watcher(hl_transport *self);
void hl_pipe_drop_watcher(hl_transport *self);

/* defer.c */

/* A send after the connection was lost: counted, and warned about when they
 * become many. */
int hl_transport_write_to_lost(hl_transport *self);

/* The same of anything that counts such writes in *lost; logs_to is the module
 * of asyncio whose logger gets the warning.  0 or -1. */
int hl_count_lost_write(hl_state *st, PyObject *logs_to, const char *warning,
                        unsigned *lost);

/* The kernel is full: the rest goes out when it says so, in a copy of the
 * context of the call that began it. */
int hl_transport_write_block(hl_transport *self);

/* Has self->ops->flush() called at the end of the turn, in the context of this
 * call: 0 if so, 1 if there is no turn to end (nothing is raised), -1. */
int hl_transport_defer_flush(hl_transport *self);

/* The same in the next turn, among its callbacks.  0 or -1. */
int hl_transport_flush_soon(hl_transport *self);

/* transport_base.c */

/* tp_traverse and tp_clear of hl_transport, for those of a larger object. */
int hl_transport_traverse(PyObject *op, visitproc visit, void *arg);
int hl_transport_clear(PyObject *op);

/* Makes a type of transports.  Unless base is such a type itself (or a tuple
 * that begins with one), its slots are checked to be where hl_transport has
 * them.  0, or -1 with ImportError or another exception. */
typedef struct {
    const char *name;
    const char *doc;
    size_t size;         /* of the object; 0: hl_transport */
    unsigned long flags; /* beside those that all have */
    reprfunc repr;
    traverseproc traverse; /* NULL: hl_transport_traverse() */
    inquiry clear;         /* NULL: hl_transport_clear() */
    PyMethodDef *methods;
    PyGetSetDef *getset;
} hl_transport_spec;

int hl_transport_add_type(PyObject *module, PyTypeObject **slot,
                          const hl_transport_spec *spec, PyObject *base);

/* The check alone, for types that are made otherwise.  0 or -1. */
int hl_transport_check_base(PyObject *base);

/* Gives type those of SocketTransport's methods or attributes that names
 * lists, ended by NULL.  0 or -1. */
int hl_transport_share(PyTypeObject *type, const char *const *names);

extern PyMethodDef hl_transport_methods[]; /* transport_type.c */
extern PyMethodDef hl_stream_methods[];    /* stream_type.c */

/* flow.c */
int hl_flow_maybe_pause(hl_transport *self);
int hl_flow_maybe_resume(hl_transport *self);

/* _set_write_buffer_limits(); either may be NULL or None. */
int hl_flow_set_limits(hl_transport *self, PyObject *high, PyObject *low);

/* What both parameters of it come to: new references in values, high first,
 * and the same as whole sizes.  dflt is the high limit when none is given.  0,
 * or -1 with ValueError or another exception. */
int hl_flow_parse_limits(PyObject *high, PyObject *low, long dflt,
                         PyObject *values[2], Py_ssize_t sizes[2]);

/* get_write_buffer_limits() and its halves.  New reference. */
PyObject *hl_flow_high(hl_transport *self);
PyObject *hl_flow_low(hl_transport *self);

#endif
