/* batch.h - system calls that move many datagrams at once.
 *
 * recvmmsg() and sendmmsg() where there are any, plain calls where the
 * platform or the running kernel has none.  On Linux, UDP segments that the
 * kernel joins (GRO) or cuts (GSO).  Nothing here knows Python objects but for
 * the queue's items.  Threading: GIL held.
 * SPDX-License-Identifier: MIT */

#ifndef HL_IO_BATCH_H
#define HL_IO_BATCH_H

#include "io/address.h"
#include "io/datagramq.h"

/* Datagrams per system call. */
#define HL_BATCH_MAX 64

/* Room for control messages in a whole batch.  That of the joining comes after
 * time stamps that a program may have asked for. */
#define HL_BATCH_CONTROL (HL_BATCH_MAX * 256)

/* Where one datagram is received, and what was. */
typedef struct {
    char *data; /* in: where to */
    size_t room;
    size_t size;   /* out: how much came */
    void *control; /* in: NULL if unwanted */
    size_t control_room;
    size_t control_size;
    int flags; /* out: MSG_TRUNC and so on */
    int error; /* out: errno value met after other datagrams, in place of one;
                * else 0 */
    socklen_t addr_size;
    hl_address addr;
} hl_received;

/* What a socket was found to be good for. */
typedef struct {
    bool many;     /* recvmmsg() and sendmmsg() are there */
    bool segments; /* GSO may be tried */
    bool joined;   /* GRO is on: what is received may be several datagrams */
    unsigned char failures; /* of GSO */
    size_t segment_max;     /* largest segment that GSO may still be tried
                             * with */
} hl_batch_caps;

/* Finds out about a new socket. */
void hl_batch_probe(hl_batch_caps *caps, int fd);

/* Switches GRO on or off.  False where there is none. */
bool hl_batch_join(hl_batch_caps *caps, int fd, bool on);

/* Receives up to n datagrams, n > 0, without waiting.  How many, or minus an
 * errno value. */
int hl_batch_receive(hl_batch_caps *caps, int fd, hl_received *batch, int n);

/* Of what size were the datagrams that GRO joined; 0 if it joined none. */
size_t hl_batch_segment_size(const hl_received *received);

/* Sends the one datagram, to addr (NULL: to the peer).  0 or an errno
 * value. */
int hl_batch_send_one(int fd, const void *data, size_t size,
                      PyObject *raw_addr);

/* Can hl_batch_send() send the item, or does it take the socket object? */
static inline bool
hl_batch_can_send(const hl_datagram_item *item, bool connected)
{
    return connected || item->raw != NULL;
}

/* Sends from the front of the queue, whose first item hl_batch_can_send(),
 * what one system call takes.  Returns how many items were sent, or minus the
 * errno value that the first one met.  sendmmsg() swallows an error that a
 * later one meets: connected sockets, which get the refusals of their peer,
 * send message by message. */
int hl_batch_send(hl_batch_caps *caps, int fd, const hl_datagramq *queue,
                  bool connected);

#endif
