/* client.h - connections that send a request, await its answer, and repeat.
 *
 * The answer is the request itself unless a framing says otherwise.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef BENCH_CLIENT_H
#define BENCH_CLIENT_H

#include "histogram.h"

#include <stddef.h>
#include <stdint.h>

#define PREFIX 4

struct conn {
    int fd;
    size_t sent;      /* bytes of the current request written */
    size_t received;  /* bytes of its answer read */
    uint64_t started; /* when it was sent; 0 before the first one */
    int served;       /* has had an answer */
};

struct client {
    int epoll;
    int count;
    struct conn *conns;
    size_t size;               /* bytes of a request */
    char *payload;             /* one request, ends in the only newline */
    size_t answer_size;        /* bytes of its answer */
    char *answer;              /* what it is to be */
    char *scratch;             /* where answers are read into */
    int verify;                /* compare the answers */
    int served;                /* connections that had their first answer */
    uint64_t completed;        /* answers so far */
    struct histogram *latency; /* where to count, or NULL */
};

/* Connect `count` sockets to 127.0.0.1:port. Ends the process with a
 * message on failure, as every function here does. */
void client_open(struct client *c, int port, int count, size_t size);

/* Have the requests, of more than PREFIX bytes, begin with how many bytes
 * follow: 32 bits, the highest first. */
void client_prefix(struct client *c);

/* Open a WebSocket (RFC 6455) on every connection; requests and answers are
 * binary messages then, with so many bytes in them. Call it before the first
 * round. */
void client_websocket(struct client *c);

/* Send the first request on every connection and wait until each has had an
 * answer: the server has accepted them all then. */
void client_first_round(struct client *c);

/* Keep all connections busy for so long. Returns nanoseconds spent. */
uint64_t client_run(struct client *c, uint64_t duration_ns);

#endif
