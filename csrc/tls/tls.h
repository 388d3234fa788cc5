/* tls.h - TLS over a stream transport: asyncio's SSLProtocol in C.
 *
 * One object is what asyncio has two of: the protocol of the transport below,
 * and the transport of the program's protocol.  The state machine, its order
 * of calls and its errors are those of asyncio.sslproto.  What differs inside:
 * ciphertext is decrypted where it was received, straight into its
 * destination; what is written waits as plaintext until the turn ends, then
 * leaves in one piece; the connection keeps no buffers while it is idle.
 *
 * The connection itself is an ssl.SSLObject, which handshakes and says goodbye
 * by its own methods, so that verification, callbacks and errors are those of
 * the ssl module.  Data takes one of two engines: the direct one calls
 * OpenSSL on the SSL inside of the object; the other calls the object, and is
 * there for objects that are not as expected.
 *
 * Threading: GIL held, in the loop's thread.  Every function may be entered
 * while a callback of the same connection is on the stack; whoever calls one
 * holds a reference.
 * SPDX-License-Identifier: MIT */

#ifndef HL_TLS_TLS_H
#define HL_TLS_TLS_H

#include "io/layer.h"
#include "io/stream.h"
#include "tls/bio.h"

typedef enum {
    HL_TLS_UNWRAPPED = 0,
    HL_TLS_HANDSHAKE,
    HL_TLS_WRAPPED,
    HL_TLS_FLUSHING,
    HL_TLS_SHUTDOWN,
} hl_tls_state;

/* What the program's protocol has been told. */
typedef enum {
    HL_TLS_APP_INIT = 0,
    HL_TLS_APP_MADE,
    HL_TLS_APP_EOF,
    HL_TLS_APP_LOST,
} hl_tls_app_state;

/* The outcome of reading or writing. */
typedef enum {
    HL_TLS_OK = 0,
    HL_TLS_AGAIN,  /* not before more has come from the peer */
    HL_TLS_EOF,    /* the peer has sent its close_notify */
    HL_TLS_FAILED, /* with an exception */
} hl_tls_result;

typedef struct hl_tls hl_tls;

/* What a record takes beside its plaintext, and a little more. */
#define HL_TLS_RECORD_ROOM (17 * 1024)

/* How data gets through the SSLObject.  Unless said otherwise 0, or -1 with an
 * exception. */
typedef struct {
    const char *name;

    /* Ciphertext from the peer, which lives until settle(). */
    int (*feed)(hl_tls *self, const char *data, size_t size);
    int (*settle)(hl_tls *self);

    /* How much of it is not decrypted yet; -1 with an exception. */
    Py_ssize_t (*unread)(hl_tls *self);

    /* An upper bound for the plaintext that can be read now; 0 if there is
     * certainly none; -1 with an exception. */
    Py_ssize_t (*bound)(hl_tls *self);

    hl_tls_result (*read)(hl_tls *self, char *buffer, size_t size,
                          size_t *got);
    hl_tls_result (*write)(hl_tls *self, const char *data, size_t size,
                           size_t *taken);

    /* Ciphertext that waits to be sent, and sending it. */
    Py_ssize_t (*unsent)(hl_tls *self);
    int (*send)(hl_tls *self);

    /* After this the SSLObject can be used without the connection. */
    void (*close)(hl_tls *self);
} hl_tls_engine;

struct hl_tls {
    hl_layer layer;

    PyObject *protocol; /* the program's; NULL after connection_lost() */
    PyObject *lower;    /* the transport below; NULL without connection */
    PyObject *context;  /* ssl.SSLContext */
    PyObject *object;   /* ssl.SSLObject */
    PyObject *raw;      /* what object has inside: keeps ssl; or NULL */
    PyObject *hostname; /* server_hostname; NULL for None */
    PyObject *waiter;   /* told of the end of the handshake */
    PyObject *peercert; /* NULL before the handshake is complete */
    PyObject *handshake_timeout; /* seconds */
    PyObject *shutdown_timeout;
    PyObject *handshake_timer; /* TimerHandle or NULL */
    PyObject *shutdown_timer;
    PyObject *incoming; /* of the object engine: ssl.MemoryBIO */
    PyObject *outgoing;
    PyObject *lost_exc;      /* connection_lost() is told of this */
    PyObject *received_into; /* a bytearray lent by get_buffer(), or NULL */
    PyObject *file_future;   /* sendfile() waits for it, or NULL */

    /* The limits, high first, as set (NULL: never) and as sizes. */
    PyObject *read_values[2];
    PyObject *write_values[2];
    Py_ssize_t read_sizes[2];
    Py_ssize_t write_sizes[2];

    const hl_tls_engine *engine;
    hl_ssl *ssl; /* inside of object; NULL in the object engine */
    hl_bio_data bio;
    hl_writeq queue; /* plaintext that waits to be encrypted */
    double handshake_start;
    size_t lower_left;  /* unsent below when the shutdown timeout began */
    unsigned conn_lost; /* writes after the end, and the end itself */
    unsigned char state;
    unsigned char app_state;
    unsigned char feed; /* hl_feed of protocol */
    bool server_side : 1;
    bool is_socket : 1; /* lower is a SocketTransport of ours */
    bool closed : 1;
    bool eof : 1; /* of the connection below */
    bool in_event : 1;
    bool partial : 1;      /* OpenSSL holds the beginning of a record */
    bool app_paused : 1;   /* pause_reading() */
    bool lower_paused : 1; /* by us: too much is unread */
    bool write_paused : 1; /* pause_writing() of the transport below */
    bool app_write_paused : 1;
    bool flush_queued : 1;
    bool is_closing_lower : 1;
    bool is_sending : 1; /* what was deferred */
    bool forgotten : 1;
    bool busy : 1;         /* inside of a method of object, or of OpenSSL */
    bool release_due : 1;  /* when that returns */
    bool sending_file : 1; /* what is written waits, and so does the goodbye */
    bool file_stopped : 1; /* by the end of the connection */
    bool shutdown_due : 1; /* when the file is out of the way */
};

static inline hl_loop *
hl_tls_loop(const hl_tls *self)
{
    return self->layer.loop;
}

static inline hl_state *
hl_tls_module_state(const hl_tls *self)
{
    return hl_loop_state(self->layer.loop);
}

/* tls.c */
typedef struct {
    PyObject *protocol;
    PyObject *context; /* ssl.SSLContext */
    PyObject *waiter;  /* this and the next three may be None */
    PyObject *hostname;
    PyObject *handshake_timeout;
    PyObject *shutdown_timeout;
    bool server_side;
    bool call_connection_made;
} hl_tls_options;

/* SSLProtocol(): for a transport that is still to be connected to it.  New
 * reference or NULL. */
PyObject *hl_tls_new(hl_loop *loop, const hl_tls_options *options);

/* _set_app_protocol().  0 or -1. */
int hl_tls_set_protocol(hl_tls *self, PyObject *protocol);

/* Lets go of the buffers, and of the SSL: now, or while the connection is busy
 * when hl_tls_leave() sets that back to what it was before. */
void hl_tls_release(hl_tls *self);
void hl_tls_leave(hl_tls *self, bool outer);

/* The program has closed the transport again, as one does who has no use for
 * it: with the connection go the context and the SSLObject. */
void hl_tls_forget(hl_tls *self);

/* object.method(), or with an argument unless that is NULL.  New reference or
 * NULL. */
PyObject *hl_tls_call_object(hl_tls *self, PyObject *method, PyObject *arg);

/* _set_state(): 0, or -1 with RuntimeError. */
int hl_tls_set_state(hl_tls *self, hl_tls_state state);

/* _fatal_error(exc, message); hl_tls_failed() for the pending exception unless
 * that is not an Exception, which is passed through.  0 or -1. */
int hl_tls_fatal_error(hl_tls *self, PyObject *exc, const char *message);
int hl_tls_failed(hl_tls *self, const char *message);

/* _wakeup_waiter(exc); NULL for None. */
int hl_tls_wake_waiter(hl_tls *self, PyObject *exc);

/* _abort(exc) */
int hl_tls_abort(hl_tls *self, PyObject *exc);

/* logger.debug(), in debug mode. */
int hl_tls_log_debug(hl_tls *self, const char *format);

/* Has self.method() called after so many seconds, by *timer, which must be
 * NULL; cancels *timer, if there is one, and forgets it.  0 or -1. */
int hl_tls_start_timer(hl_tls *self, PyObject **timer, PyObject *seconds,
                       PyObject *method);
int hl_tls_cancel_timer(hl_tls *self, PyObject **timer);

/* loop.call_soon(obj.method); 0 or -1. */
int hl_tls_call_soon(hl_tls *self, PyObject *obj, PyObject *method);

/* handshake.c: connection_made(), more from the peer, the timeout, and the
 * end with exc or NULL. */
int hl_tls_start_handshake(hl_tls *self);
int hl_tls_do_handshake(hl_tls *self);
int hl_tls_check_handshake_timeout(hl_tls *self);
int hl_tls_handshake_done(hl_tls *self, PyObject *exc);

/* Does the pending exception mean that the peer has to act first? */
bool hl_tls_is_again(hl_tls *self);

/* shutdown.c */
int hl_tls_start_shutdown(hl_tls *self);
int hl_tls_do_flush(hl_tls *self);
int hl_tls_do_shutdown(hl_tls *self);
int hl_tls_check_shutdown_timeout(hl_tls *self);
int hl_tls_call_eof_received(hl_tls *self);

/* receive.c */
int hl_tls_received(PyObject *op, const char *data, size_t size);
int hl_tls_advance(hl_tls *self); /* buffer_updated() by state */
int hl_tls_do_read(hl_tls *self);
int hl_tls_control_reading(hl_tls *self);

/* What the callbacks of an event wrote leaves at its end: begin returns what
 * end takes. */
bool hl_tls_begin_event(hl_tls *self);
int hl_tls_end_event(hl_tls *self, bool outer, int rv);

/* send.c */
int hl_tls_write(hl_tls *self, PyObject *data);
int hl_tls_writelines(hl_tls *self, PyObject *list);

/* Appends data, which waits for a flush; what is no buffer ends the
 * connection, as it does in asyncio. */
int hl_tls_queue(hl_tls *self, PyObject *data);

/* _do_write() and _process_outgoing(): encrypts and sends what there is, as
 * long as the transport below wants more (or regardless of that). */
int hl_tls_flush(hl_tls *self, bool regardless);

/* The same without a look at flow control. */
int hl_tls_send_all(hl_tls *self, bool regardless);
int hl_tls_control_writing(hl_tls *self);

/* Before the connection is dropped, or its socket is shown: asyncio had what
 * is only deferred in the kernel already.  Failures are dropped. */
void hl_tls_send_deferred(PyObject *op);

/* What a callback wrote before it raised leaves at the end of the turn. */
void hl_tls_flush_later(hl_tls *self);
Py_ssize_t hl_tls_unsent(hl_tls *self);

/* lower.c: calls of the transport below. */
int hl_tls_lower_write(hl_tls *self, const char *data, size_t size);
int hl_tls_lower_call(hl_tls *self, PyObject *method);
int hl_tls_lower_force_close(hl_tls *self, PyObject *exc);

/* engine.c */
extern const hl_tls_engine hl_tls_direct, hl_tls_direct_ktls, hl_tls_object;

/* Makes the SSLObject, and chooses the engine.  0 or -1. */
int hl_tls_open(hl_tls *self);

/* engine_direct.c: what the direct engine does with the kernel's help and
 * without. */
int hl_direct_feed(hl_tls *self, const char *data, size_t size);
int hl_direct_settle(hl_tls *self);
Py_ssize_t hl_direct_unread(hl_tls *self);
Py_ssize_t hl_direct_bound(hl_tls *self);
Py_ssize_t hl_direct_unsent(hl_tls *self);

#define HL_TLS_DIRECT_OPS                                                 \
    .name = "direct", .feed = hl_direct_feed, .settle = hl_direct_settle, \
    .unread = hl_direct_unread, .bound = hl_direct_bound,                 \
    .unsent = hl_direct_unsent

/* Frees what was taken out of the BIO. */
void hl_tls_release_out(hl_tls *self, hl_bio_out *out);

/* engine_ktls.c */

/* Prepares for the kernel's encryption if ssl wants that: 1, 0 or -1. */
int hl_tls_use_ktls(hl_tls *self, const hl_ssl *ssl);

/* Undoes that. */
void hl_tls_forget_ktls(hl_tls *self);

/* The transport below has come, or is gone. */
void hl_tls_set_kernel_below(hl_tls *self);

/* Does the kernel encrypt what is sent? */
bool hl_tls_kernel_sends(const hl_tls *self);

/* Before data is sent that OpenSSL does not see: 0, or -1 with SSLError if the
 * peer has asked for new keys, which is told that it cannot have them. */
int hl_tls_check_keys(hl_tls *self);

/* sendfile.c: sendfile() by the kernel, which writes to the socket below.  One
 * at a time; what is written meanwhile follows the file. */

/* Whoever sends the file waits for future, and is woken if the connection
 * ends. */
void hl_tls_stop_file(hl_tls *self);
extern PyMethodDef hl_tls_sendfile_methods[];

/* methods.c and protocol.c: of the Python type. */
extern PyMethodDef hl_tls_transport_methods[];
extern PyMethodDef hl_tls_protocol_methods[];
extern PyGetSetDef hl_tls_getset[];

/* get_extra_info(); new reference, dflt borrowed. */
PyObject *hl_tls_extra_info(hl_tls *self, PyObject *name, PyObject *dflt);

int hl_tls_type_init(PyObject *module, hl_state *st);

#endif
