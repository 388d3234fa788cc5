/* stream_ops.c - hl_transport_ops of SocketTransport, and of all streams.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "io/fds.h"
#include "io/layer.h"
#include "io/stream.h"

#include <netinet/tcp.h>

int
hl_protocol_has(PyObject *protocol, PyObject *name)
{
    PyObject *value = PyObject_GenericGetAttr(protocol, name);
    if (value != NULL) {
        Py_DECREF(value);
        return 1;
    }
    if (!PyErr_ExceptionMatches(PyExc_AttributeError)) {
        return -1;
    }
    PyErr_Clear();
    return 0;
}

/* asyncio's pipes call data_received() whatever the base class is.  1, 0 or
 * -1. */
static int
protocol_is_buffered(hl_state *st, PyObject *protocol, bool is_socket)
{
    int buffered =
        is_socket ? PyObject_IsInstance(protocol, st->BufferedProtocol) : 0;
    if (buffered != 0) {
        return buffered;
    }
    /* Not asyncio's base class, but with its methods: such a protocol could
     * not work with asyncio, and does with other loops. */
    int plain = hl_protocol_has(protocol, st->str_data_received);
    return plain != 0 ? Py_MIN(plain, 0)
                      : hl_protocol_has(protocol, st->str_get_buffer);
}

int
hl_feed_pick(hl_state *st, PyObject *protocol, bool is_socket,
             unsigned char *feed)
{
    if (hl_streamreader_suits(st, protocol)) {
        *feed = HL_FEED_STREAM;
        return 0;
    }
    if (is_socket && hl_layer_check(st, protocol)) {
        *feed = HL_FEED_LAYER;
        return 0;
    }
    int buffered = protocol_is_buffered(st, protocol, is_socket);
    if (buffered < 0) {
        return -1;
    }
    *feed = buffered ? HL_FEED_BUFFER : HL_FEED_DATA;
    return 0;
}

int
hl_stream_pick_feed(hl_transport *self, PyObject *protocol)
{
    hl_state *st = hl_transport_state(self);
    int fds = 0;
    unsigned char feed;
    if (st == NULL ||
        hl_feed_pick(st, protocol, self->ops->is_socket, &feed) < 0) {
        return -1;
    }
    if (self->family == AF_UNIX &&
        (fds = hl_protocol_has(protocol, st->str_fds_received)) < 0) {
        return -1;
    }
    self->feed = feed;
    self->gives_fds = fds > 0;
    return fds > 0 ? hl_fds_want(self) : 0;
}

PyObject *
hl_stream_write_name(hl_state *st)
{
    return st->str__write_ready;
}

void
hl_stream_drop(hl_transport *self, bool send)
{
    if (send && self->queue.count > 0 && !self->blocked) {
        (void)hl_stream_send(self);
        self->loop->must_poll = true;
    }
    hl_writeq_clear(&self->queue);
}

size_t
hl_stream_count(const hl_transport *self)
{
    return self->queue.count;
}

size_t
hl_stream_size(const hl_transport *self)
{
    return self->queue.size;
}

/* Small writes go out without waiting for the peer's acknowledgement.  asyncio
 * asks for it only where the socket object knows its protocol number. */
static void
socket_set_nodelay(hl_transport *self)
{
    if (self->family == AF_INET || self->family == AF_INET6) {
        int on = 1;
        (void)setsockopt(self->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    }
}

static ssize_t
socket_receive(int fd, void *buffer, size_t size)
{
    return recv(fd, buffer, size, 0);
}

const hl_transport_ops hl_socket_ops = {
    HL_STREAM_OPS,
    .name = "SocketTransport",
    .link = HL_LINK_STREAM,
    .is_socket = true,
    .merge_max = 64 * 1024,
    .configure = socket_set_nodelay,
    .read = hl_transport_receive,
    .receive = socket_receive,
    .on_eof = hl_transport_read_eof,
    .is_quiet = hl_transport_os_error,
    .fatal_error = "Fatal error on transport",
    .read_error = "Fatal read error on socket transport",
    .write_error = "Fatal write error on socket transport",
    .lost_warning = "socket.send() raised exception.",
};
