/* batch.c - system calls that move many datagrams at once.
 *
 * SPDX-License-Identifier: MIT */

#ifndef _GNU_SOURCE
#    define _GNU_SOURCE /* recvmmsg(), sendmmsg() */
#endif

#include "base/hotloop.h"

#include "io/batch.h"

#include <errno.h>
#include <string.h>
#include <sys/uio.h>

/* HL_NO_MMSG: build as where the platform has no such calls. */
#if !defined(HL_NO_MMSG) && (defined(__linux__) || defined(__FreeBSD__))
#    define HAVE_MMSG 1
typedef struct mmsghdr batch_message;
#else
typedef struct {
    struct msghdr msg_hdr;
    unsigned msg_len;
} batch_message;
#endif

#if !defined(HL_NO_MMSG) && defined(__linux__)
#    include <netinet/udp.h>
#    if defined(UDP_SEGMENT) && defined(UDP_GRO)
#        define HAVE_SEGMENTS 1
#    endif
#endif

#ifndef MSG_NOSIGNAL
#    define MSG_NOSIGNAL 0
#endif

/* GSO: below this many equal datagrams it is not worth its checks; the kernel
 * takes no more than these segments and bytes in one message. */
#define SEGMENTS_MIN 4
#define SEGMENTS_MAX 64
#define SEGMENTS_BYTES 65000

/* After so many failures GSO is left alone. */
#define SEGMENTS_FAILURES 3

void
hl_batch_probe(hl_batch_caps *caps, int fd)
{
    memset(caps, 0, sizeof(*caps));
#ifdef HAVE_MMSG
    caps->many = true;
#endif
#ifdef HAVE_SEGMENTS
    int type = 0, protocol = 0;
    socklen_t size = sizeof(type);
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 &&
        type == SOCK_DGRAM &&
        getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &size) == 0 &&
        protocol == IPPROTO_UDP) {
        caps->segments = true;
        caps->segment_max = SEGMENTS_BYTES;
    }
#else
    (void)fd;
#endif
}

bool
hl_batch_join(hl_batch_caps *caps, int fd, bool on)
{
#ifdef HAVE_SEGMENTS
    int value = on;
    if (setsockopt(fd, IPPROTO_UDP, UDP_GRO, &value, sizeof(value)) == 0) {
        /* Once on, joined datagrams may be waiting already. */
        caps->joined = caps->joined || on;
        return true;
    }
#else
    (void)caps;
    (void)fd;
    (void)on;
#endif
    return false;
}

size_t
hl_batch_segment_size(const hl_received *received)
{
#ifdef HAVE_SEGMENTS
    struct msghdr header = {
        .msg_control = received->control,
        .msg_controllen = received->control_size,
    };
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&header); c != NULL;
         c = CMSG_NXTHDR(&header, c)) {
        if (c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_GRO) {
            int size;
            memcpy(&size, CMSG_DATA(c), sizeof(size));
            return size > 0 && (size_t)size < received->size ? (size_t)size
                                                             : 0;
        }
    }
#else
    (void)received;
#endif
    return 0;
}

static void
receive_prepare(struct msghdr *header, struct iovec *vector, hl_received *r)
{
    vector->iov_base = r->data;
    vector->iov_len = r->room;
    memset(header, 0, sizeof(*header));
    header->msg_name = &r->addr;
    header->msg_namelen = sizeof(r->addr);
    header->msg_iov = vector;
    header->msg_iovlen = 1;
    header->msg_control = r->control;
    header->msg_controllen = r->control_room;
}

static void
receive_finish(const struct msghdr *header, size_t size, hl_received *r)
{
    r->size = size;
    r->error = 0;
    r->addr_size = header->msg_namelen;
    r->flags = header->msg_flags;
    r->control_size = header->msg_controllen;
}

/* One after the other, until there is none left. */
static int
receive_plain(int fd, hl_received *batch, int n)
{
    int count = 0;
    while (count < n) {
        struct msghdr header;
        struct iovec vector;
        receive_prepare(&header, &vector, &batch[count]);
        ssize_t size = recvmsg(fd, &header, MSG_DONTWAIT);
        if (size >= 0) {
            receive_finish(&header, (size_t)size, &batch[count++]);
        }
        else if (errno != EINTR) {
            if (count == 0) {
                return -errno;
            }
            if (errno != EAGAIN && errno != EWOULDBLOCK) {
                batch[count++].error = errno;
            }
            break;
        }
    }
    return count;
}

int
hl_batch_receive(hl_batch_caps *caps, int fd, hl_received *batch, int n)
{
#ifdef HAVE_MMSG
    if (caps->many && n > 1) {
        batch_message messages[HL_BATCH_MAX];
        struct iovec vectors[HL_BATCH_MAX];
        for (int i = 0; i < n; i++) {
            receive_prepare(&messages[i].msg_hdr, &vectors[i], &batch[i]);
        }
        int count;
        do {
            count = recvmmsg(fd, messages, (unsigned)n, MSG_DONTWAIT, NULL);
        } while (count < 0 && errno == EINTR);
        for (int i = 0; i < count; i++) {
            receive_finish(&messages[i].msg_hdr, messages[i].msg_len,
                           &batch[i]);
        }
        if (count >= 0 || errno != ENOSYS) {
            return count < 0 ? -errno : count;
        }
        caps->many = false;
    }
#else
    (void)caps;
#endif
    return receive_plain(fd, batch, n);
}

int
hl_batch_send_one(int fd, const void *data, size_t size, PyObject *raw_addr)
{
    ssize_t sent;
    do {
        if (raw_addr == NULL) {
            sent = send(fd, data, size, MSG_NOSIGNAL);
        }
        else {
            sent = sendto(fd, data, size, MSG_NOSIGNAL,
                          (struct sockaddr *)PyBytes_AS_STRING(raw_addr),
                          (socklen_t)PyBytes_GET_SIZE(raw_addr));
        }
    } while (sent < 0 && errno == EINTR);
    return sent < 0 ? errno : 0;
}

/* Datagrams of one call, and the messages they make. */
typedef struct {
    batch_message messages[HL_BATCH_MAX];
    uint32_t items[HL_BATCH_MAX]; /* how many items each message holds */
    struct iovec vectors[HL_BATCH_MAX];
    int count;
    int vectors_used;
#ifdef HAVE_SEGMENTS
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(uint16_t))];
    } segment[HL_BATCH_MAX / SEGMENTS_MIN];
    int segments_used;
#endif
} outgoing;

#ifdef HAVE_SEGMENTS

static bool
same_destination(const hl_datagram_item *a, const hl_datagram_item *b)
{
    if (a->raw == b->raw) {
        return true;
    }
    return a->raw != NULL && b->raw != NULL &&
           PyBytes_GET_SIZE(a->raw) == PyBytes_GET_SIZE(b->raw) &&
           memcmp(PyBytes_AS_STRING(a->raw), PyBytes_AS_STRING(b->raw),
                  (size_t)PyBytes_GET_SIZE(a->raw)) == 0;
}

/* How many items from index on can leave as segments of one message: equal in
 * size, but for a shorter last one, and in destination. */
static uint32_t
segments_count(const hl_batch_caps *caps, const hl_datagramq *queue,
               uint32_t index, uint32_t limit)
{
    const hl_datagram_item *first = hl_datagramq_item(queue, index);
    size_t size = hl_datagram_item_size(first), total = size, last = size;
    if (size == 0 || size > caps->segment_max || first->ancillary != NULL) {
        return 1;
    }
    uint32_t n = 1;
    while (n < limit && n < SEGMENTS_MAX && last == size) {
        const hl_datagram_item *item = hl_datagramq_item(queue, index + n);
        last = hl_datagram_item_size(item);
        total += last;
        if (last == 0 || last > size || total > SEGMENTS_BYTES ||
            item->ancillary != NULL || !same_destination(first, item)) {
            break;
        }
        n++;
    }
    return n;
}

static bool
option_is_set(int fd, int level, int option)
{
    int value = 0;
    socklen_t size = sizeof(value);
    return getsockopt(fd, level, option, &value, &size) == 0 && value != 0;
}

/* A program may have the socket cut its messages itself, or want to hear of
 * every datagram that is refused on the way, which the kernel does not tell of
 * one among the segments of a message. */
static bool
segments_allowed(int fd)
{
    return !option_is_set(fd, IPPROTO_UDP, UDP_SEGMENT) &&
           !option_is_set(fd, IPPROTO_IP, IP_RECVERR) &&
           !option_is_set(fd, IPPROTO_IPV6, IPV6_RECVERR);
}

static void
outgoing_set_segment(outgoing *out, struct msghdr *header, size_t size)
{
    uint16_t value = (uint16_t)size;
    header->msg_control = out->segment[out->segments_used++].bytes;
    header->msg_controllen = CMSG_SPACE(sizeof(value));
    struct cmsghdr *c = CMSG_FIRSTHDR(header);
    c->cmsg_level = IPPROTO_UDP;
    c->cmsg_type = UDP_SEGMENT;
    c->cmsg_len = CMSG_LEN(sizeof(value));
    memcpy(CMSG_DATA(c), &value, sizeof(value));
}

/* GSO failed for the first message: 1 if that is no fault of the datagrams,
 * and is not tried again in this way. */
static bool
segments_failed(hl_batch_caps *caps, size_t size, int err)
{
    if (err != EINVAL && err != EIO && err != EMSGSIZE && err != ENOPROTOOPT &&
        err != EOPNOTSUPP) {
        return false;
    }
    caps->segment_max = size - 1; /* as a rule it is larger than the MTU */
    if (err != EMSGSIZE && ++caps->failures >= SEGMENTS_FAILURES) {
        caps->segments = false;
    }
    if (err == EIO) {
        caps->segments = false; /* the device cannot */
    }
    return true;
}

#endif

/* Adds a message of n items from index on. */
static void
outgoing_add(outgoing *out, const hl_datagramq *queue, uint32_t index,
             uint32_t n)
{
    const hl_datagram_item *first = hl_datagramq_item(queue, index);
    struct msghdr *header = &out->messages[out->count].msg_hdr;
    memset(header, 0, sizeof(*header));
    header->msg_iov = &out->vectors[out->vectors_used];
    for (uint32_t i = 0; i < n; i++) {
        const hl_datagram_item *item = hl_datagramq_item(queue, index + i);
        struct iovec *vector = &out->vectors[out->vectors_used++];
        vector->iov_base = PyBytes_AS_STRING(item->data);
        vector->iov_len = hl_datagram_item_size(item);
        header->msg_iovlen++;
    }
    if (first->raw != NULL) {
        header->msg_name = PyBytes_AS_STRING(first->raw);
        header->msg_namelen = (socklen_t)PyBytes_GET_SIZE(first->raw);
    }
    if (first->ancillary != NULL) {
        header->msg_control = PyBytes_AS_STRING(first->ancillary);
        header->msg_controllen = (size_t)PyBytes_GET_SIZE(first->ancillary);
    }
#ifdef HAVE_SEGMENTS
    if (n > 1) {
        outgoing_set_segment(out, header, hl_datagram_item_size(first));
    }
#endif
    out->items[out->count++] = n;
}

/* Fills in at most max messages from the front of the queue. */
static void
outgoing_fill(outgoing *out, hl_batch_caps *caps, int fd,
              const hl_datagramq *queue, bool connected, int max)
{
    uint32_t index = 0, limit = 0;
    uint32_t most = max > 1 || caps->segments ? HL_BATCH_MAX : 1;
    out->count = out->vectors_used = 0;
    while (limit < queue->count && limit < most &&
           hl_batch_can_send(hl_datagramq_item(queue, limit), connected)) {
        limit++;
    }
#ifdef HAVE_SEGMENTS
    out->segments_used = 0;
    bool asked = false, may_join = caps->segments;
#else
    (void)fd;
#endif
    while (index < limit && out->count < max) {
        uint32_t n = 1;
#ifdef HAVE_SEGMENTS
        if (may_join) {
            n = segments_count(caps, queue, index, limit - index);
            if (n >= SEGMENTS_MIN && !asked) {
                asked = true;
                may_join = segments_allowed(fd);
            }
            n = n >= SEGMENTS_MIN && may_join ? n : 1;
        }
#endif
        outgoing_add(out, queue, index, n);
        index += n;
    }
}

/* How many messages were sent, or -1 with errno set. */
static int
outgoing_send(outgoing *out, hl_batch_caps *caps, int fd)
{
#ifdef HAVE_MMSG
    if (out->count > 1) {
        int sent;
        do {
            sent = sendmmsg(fd, out->messages, (unsigned)out->count,
                            MSG_NOSIGNAL);
        } while (sent < 0 && errno == EINTR);
        if (sent >= 0 || errno != ENOSYS) {
            return sent;
        }
        caps->many = false;
    }
#else
    (void)caps;
#endif
    ssize_t size;
    do {
        size = sendmsg(fd, &out->messages[0].msg_hdr, MSG_NOSIGNAL);
    } while (size < 0 && errno == EINTR);
    return size < 0 ? -1 : 1;
}

int
hl_batch_send(hl_batch_caps *caps, int fd, const hl_datagramq *queue,
              bool connected)
{
    outgoing out;
    for (;;) {
        int max = connected || !caps->many ? 1 : HL_BATCH_MAX;
        outgoing_fill(&out, caps, fd, queue, connected, max);
        int sent = outgoing_send(&out, caps, fd);
        if (sent >= 0) {
            int items = 0;
            for (int i = 0; i < sent; i++) {
                items += (int)out.items[i];
            }
            return items;
        }
        int err = errno == EWOULDBLOCK ? EAGAIN : errno;
#ifdef HAVE_SEGMENTS
        size_t size = out.vectors[0].iov_len;
        if (out.items[0] > 1 && segments_failed(caps, size, err)) {
            continue;
        }
#endif
        return -err;
    }
}
