/* peers.h - the addresses that one datagram socket has to do with.
 *
 * Turning a raw address into the Python value and back costs more than the
 * rest of what is done for a small datagram, and a socket has few peers.  Two
 * small hash tables remember: raw address to Python value, and, by identity,
 * the Python value that a program sends to.  Both are bounded; what does not
 * fit pushes something else out.
 *
 * What they hold are bytes objects and addresses made of exact str, bytes and
 * int: releasing one runs no Python code.  Threading: GIL held.
 * SPDX-License-Identifier: MIT */

#ifndef HL_IO_PEERS_H
#define HL_IO_PEERS_H

#include "io/address.h"

typedef struct {
    PyObject *addr; /* owned; NULL where the slot is free */
    PyObject *raw;  /* owned: the sockaddr as bytes */
    uint64_t hash;
} hl_peer;

typedef struct {
    hl_peer *slots;
    uint32_t size; /* a power of two, 0 before first use */
    uint32_t next; /* which slot is pushed out next */
} hl_peer_table;

/* All zeros is an empty cache. */
typedef struct {
    hl_peer_table by_raw;
    hl_peer_table by_addr;
} hl_peers;

/* What recvfrom() makes of a raw address of a family that
 * hl_address_is_known(): the same object for the same peer.  New reference or
 * NULL with an exception. */
PyObject *hl_peers_addr(hl_peers *peers, const void *raw, size_t size);

/* The raw form of what sendto() was given for a socket of this family, as
 * bytes, borrowed until the next call.  NULL without an exception where only
 * the socket object can tell (a host name, a wrong value); NULL with
 * MemoryError. */
PyObject *hl_peers_raw(hl_peers *peers, int family, PyObject *addr);

void hl_peers_clear(hl_peers *peers);

#endif
