/* tlsconn.h - TLS connections over non-blocking sockets, with few system calls.
 *
 * What SSL_write() makes gathers in one buffer and leaves at tlsconn_flush(),
 * in one send(). SSL_read() finds in its own buffer what one recv() got, and
 * a recv() that was not filled is not followed by another one that would fail:
 * level-triggered events tell of what comes later.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef BENCH_TLSCONN_H
#define BENCH_TLSCONN_H

#include <openssl/ssl.h>
#include <stddef.h>

/* Never write more than this without a flush. */
#define TLS_WRITE_MAX (512 * 1024)
#define TLS_RECORD (16 * 1024)

/* What all connections of a process share. */
struct tls {
    SSL_CTX *context;
    BIO_METHOD *method;
    char *out;   /* what was written since the last flush */
    size_t held; /* bytes in it */
};

struct tlsconn {
    int fd;
    SSL *ssl;
    struct tls *tls;
    int drained; /* recv() found less than it had room for */
    int ended;   /* the peer sent its end */
    char *late;  /* what the socket did not take */
    size_t late_size;
    size_t late_sent;
    size_t late_room;
};

/* A context of TLS 1.2 or 1.3 and the default ciphers, as Python makes it.
 * The server's has a certificate and its key; the client's asks for none. */
void tls_init_server(struct tls *tls, const char *cert, const char *key);
void tls_init_client(struct tls *tls);

/* Take over a connected socket. tlsconn_close() closes it and says nothing
 * to the peer. */
void tlsconn_open(struct tlsconn *c, struct tls *tls, int fd);
void tlsconn_close(struct tlsconn *c);

/* To be called before each use of a connection that is readable. */
static inline void
tlsconn_readable(struct tlsconn *c)
{
    c->drained = 0;
}

/* Shake hands, as far as what arrived permits: 1 when that is done, 0 when it
 * is not, -1 when the connection is at its end. To be flushed. */
int tlsconn_shake(struct tlsconn *c);

/* Shake hands to the end, and wait for it. Ends the process on failure. */
void tlsconn_connect(struct tlsconn *c);

/* Read at most `size` bytes: how many, 0 when there are none yet, or -1 at the
 * end. Shakes hands first, so it is to be flushed. */
int tlsconn_read(struct tlsconn *c, char *buffer, int size);

/* Write, once hands are shaken: 0, or -1 when the connection is at its end. */
int tlsconn_write(struct tlsconn *c, const char *bytes, int size);

/* Send what was written, before another connection is used: 1 when all is on
 * its way, 0 when some waits until the socket is writable, -1 at the end. */
int tlsconn_flush(struct tlsconn *c);

#endif
