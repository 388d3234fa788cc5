/* ktls.c - sockets that the kernel encrypts for (Linux: the "tls" protocol).
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "io/ktls.h"

#include "io/packet.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#ifdef __linux__

/* Of Linux's interface. */
enum {
    ULP = 31, /* TCP_ULP */
    TX = 1,   /* TLS_TX */
};

/* The size of what begins with this: struct tls12_crypto_info_*. */
static socklen_t
info_size(const void *info)
{
    uint16_t head[2]; /* version, cipher */
    memcpy(head, info, sizeof(head));
    switch (head[1]) {
    case 51: /* AES-GCM with 128 bits */
    case 53: /* AES-CCM */
        return 40;
    case 52: /* AES-GCM with 256 bits */
    case 54: /* ChaCha20-Poly1305 */
        return 56;
    default:
        return 0;
    }
}

static bool
send_rest(int fd, const char *unsent, size_t *size, hl_counts *counts)
{
    ssize_t sent = 0;
    while (*size > 0) {
        sent = send(fd, unsent, *size, MSG_NOSIGNAL | MSG_DONTWAIT);
        hl_count_write(counts, sent);
        if (sent < 0 && errno != EINTR) {
            return false;
        }
        unsent += Py_MAX(sent, 0);
        *size -= (size_t)Py_MAX(sent, 0);
    }
    return true;
}

bool
hl_ktls_start(const hl_transport *self, const char *unsent, size_t *size,
              const void *info)
{
    int fd = hl_transport_fd(self);
    socklen_t length = info_size(info);
    if (length == 0 || self->queue.count > 0 || self->closing || fd < 0 ||
        setsockopt(fd, IPPROTO_TCP, ULP, "tls", sizeof("tls")) < 0) {
        return false;
    }
    /* What is not encrypted by the kernel goes before; the protocol alone
     * changes nothing yet. */
    self->loop->must_poll = true; /* the peer may be in this loop */
    return send_rest(fd, unsent, size, &self->loop->counts) &&
           setsockopt(fd, HL_SOL_TLS, TX, info, length) == 0;
}

#else

bool
hl_ktls_start(const hl_transport *Py_UNUSED(self),
              const char *Py_UNUSED(unsent), size_t *Py_UNUSED(size),
              const void *Py_UNUSED(info))
{
    return false;
}

#endif

int
hl_ktls_write_record(hl_transport *self, unsigned char type, const char *data,
                     size_t size)
{
    if (self->conn_lost || self->loop == NULL) {
        return 0;
    }
    PyObject *packet = NULL;
    PyObject *bytes = PyBytes_FromStringAndSize(data, (Py_ssize_t)size);
    int rv = -1;
    if (bytes == NULL) {
        return -1;
    }
    packet = hl_packet_new_record(hl_loop_state(self->loop), bytes, type);
    if (packet != NULL &&
        hl_writeq_push(&self->queue, packet, PyBytes_AS_STRING(bytes), size) ==
            0) {
        self->queue.packets++;
        rv = hl_transport_flush(self);
    }
    if (rv == 0) {
        rv = hl_flow_maybe_pause(self);
    }
    Py_XDECREF(packet);
    Py_DECREF(bytes);
    return rv;
}
