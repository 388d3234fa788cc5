/* tlsconn.c - TLS connections over non-blocking sockets, with few system calls.
 *
 * SPDX-License-Identifier: MIT
 */
#define _GNU_SOURCE
#include "tlsconn.h"
#include "support.h"

#include <errno.h>
#include <openssl/err.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Beside what TLS_WRITE_MAX bytes become: a handshake. */
#define OUT_SIZE (TLS_WRITE_MAX + TLS_WRITE_MAX / 16)
#define CONNECT_MS 10000

static int
bio_read(BIO *bio, char *buffer, int size)
{
    struct tlsconn *c = BIO_get_data(bio);

    BIO_clear_retry_flags(bio);
    if (c->drained) {
        BIO_set_retry_read(bio);
        return -1;
    }
    ssize_t n = recv(c->fd, buffer, (size_t)size, MSG_DONTWAIT);
    if (n < 0) {
        if (errno == EAGAIN || errno == EINTR) {
            c->drained = errno == EAGAIN;
            BIO_set_retry_read(bio);
        }
        return -1;
    }
    c->ended = n == 0;
    c->drained = n < size;
    return (int)n;
}

static int
bio_write(BIO *bio, const char *bytes, int size)
{
    struct tlsconn *c = BIO_get_data(bio);
    struct tls *tls = c->tls;

    if (tls->held + (size_t)size > OUT_SIZE) {
        fail("too much was written without a flush");
    }
    memcpy(tls->out + tls->held, bytes, (size_t)size);
    tls->held += (size_t)size;
    return size;
}

static long
bio_control(BIO *bio, int command, long number, void *pointer)
{
    struct tlsconn *c = BIO_get_data(bio);

    (void)number;
    (void)pointer;
    if (command == BIO_CTRL_EOF) {
        return c->ended;
    }
    return command == BIO_CTRL_FLUSH;
}

static int
bio_create(BIO *bio)
{
    BIO_set_init(bio, 1);
    return 1;
}

static _Noreturn void
fail_ssl(const char *what)
{
    fail("%s: %s", what, ERR_reason_error_string(ERR_peek_error()));
}

static void
tls_init(struct tls *tls, const SSL_METHOD *method)
{
    memset(tls, 0, sizeof(*tls));
    tls->context = SSL_CTX_new(method);
    tls->method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK,
                               "few system calls");
    tls->out = allocate(1, OUT_SIZE);
    if (tls->context == NULL || tls->method == NULL) {
        fail_ssl("TLS");
    }
    SSL_CTX_set_min_proto_version(tls->context, TLS1_2_VERSION);
    SSL_CTX_set_read_ahead(tls->context, 1);
    BIO_meth_set_create(tls->method, bio_create);
    BIO_meth_set_read(tls->method, bio_read);
    BIO_meth_set_write(tls->method, bio_write);
    BIO_meth_set_ctrl(tls->method, bio_control);
}

void
tls_init_server(struct tls *tls, const char *cert, const char *key)
{
    tls_init(tls, TLS_server_method());
    SSL_CTX_set_session_cache_mode(tls->context, SSL_SESS_CACHE_OFF);
    if (SSL_CTX_use_certificate_chain_file(tls->context, cert) != 1 ||
        SSL_CTX_use_PrivateKey_file(tls->context, key, SSL_FILETYPE_PEM) !=
            1) {
        fail_ssl("the certificate");
    }
}

void
tls_init_client(struct tls *tls)
{
    tls_init(tls, TLS_client_method());
    SSL_CTX_set_verify(tls->context, SSL_VERIFY_NONE, NULL);
}

void
tlsconn_open(struct tlsconn *c, struct tls *tls, int fd)
{
    BIO *bio = BIO_new(tls->method);

    memset(c, 0, sizeof(*c));
    c->fd = fd;
    c->tls = tls;
    c->ssl = SSL_new(tls->context);
    if (bio == NULL || c->ssl == NULL) {
        fail_ssl("a connection");
    }
    BIO_set_data(bio, c);
    SSL_set_bio(c->ssl, bio, bio);
    if (SSL_is_server(c->ssl)) {
        SSL_set_accept_state(c->ssl);
    }
    else {
        SSL_set_connect_state(c->ssl);
    }
}

void
tlsconn_close(struct tlsconn *c)
{
    SSL_set_quiet_shutdown(c->ssl, 1);
    SSL_shutdown(c->ssl);
    SSL_free(c->ssl);
    ERR_clear_error();
    free(c->late);
    close(c->fd);
}

static int
outcome(struct tlsconn *c, int result)
{
    int error = SSL_get_error(c->ssl, result);

    if (error == SSL_ERROR_WANT_READ) {
        return 0;
    }
    ERR_clear_error();
    return -1;
}

int
tlsconn_shake(struct tlsconn *c)
{
    int n = SSL_do_handshake(c->ssl);

    return n == 1 ? 1 : outcome(c, n);
}

void
tlsconn_connect(struct tlsconn *c)
{
    struct pollfd wait = {.fd = c->fd, .events = POLLIN};
    int status;

    while ((status = tlsconn_shake(c)) == 0) {
        if (tlsconn_flush(c) != 1 || poll(&wait, 1, CONNECT_MS) != 1) {
            fail("no answer during the handshake");
        }
        tlsconn_readable(c);
    }
    if (status < 0 || tlsconn_flush(c) != 1) {
        fail("the server refuses the handshake");
    }
}

int
tlsconn_read(struct tlsconn *c, char *buffer, int size)
{
    int n = SSL_read(c->ssl, buffer, size);

    return n > 0 ? n : outcome(c, n);
}

int
tlsconn_write(struct tlsconn *c, const char *bytes, int size)
{
    int n = SSL_write(c->ssl, bytes, size);

    return n == size ? 0 : -1;
}

/* Send what the socket takes: how much that is, or -1. */
static ssize_t
send_some(int fd, const char *bytes, size_t size)
{
    ssize_t n;

    do {
        n = send(fd, bytes, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    return n < 0 && errno == EAGAIN ? 0 : n;
}

static void
keep_late(struct tlsconn *c, const char *bytes, size_t size)
{
    if (c->late_size + size > c->late_room) {
        c->late_room = c->late_size + size;
        c->late = realloc(c->late, c->late_room);
        if (c->late == NULL) {
            fail("out of memory");
        }
    }
    memcpy(c->late + c->late_size, bytes, size);
    c->late_size += size;
}

static int
send_late(struct tlsconn *c)
{
    ssize_t n =
        send_some(c->fd, c->late + c->late_sent, c->late_size - c->late_sent);

    if (n < 0) {
        return -1;
    }
    c->late_sent += (size_t)n;
    if (c->late_sent == c->late_size) {
        c->late_sent = c->late_size = 0;
    }
    return 0;
}

int
tlsconn_flush(struct tlsconn *c)
{
    size_t held = c->tls->held;
    ssize_t sent = 0;

    c->tls->held = 0;
    if (c->late_size != 0 && send_late(c) != 0) {
        return -1;
    }
    if (c->late_size == 0 && held != 0) {
        sent = send_some(c->fd, c->tls->out, held);
    }
    if (sent < 0) {
        return -1;
    }
    if ((size_t)sent < held) {
        keep_late(c, c->tls->out + sent, held - (size_t)sent);
    }
    return c->late_size == 0;
}
