/* tlsstorm.c - TLS handshakes with a server on this machine, one after another.
 *
 * Connects, shakes hands and closes without a word, with several connections
 * under way. Mode "resumed" offers the session of the last ticket that a first
 * connection was sent. Prints one line of JSON: handshakes per second, their
 * latency, and CPU time of the server for each. Linux only.
 *
 * SPDX-License-Identifier: MIT
 */
#define _GNU_SOURCE
#include "support.h"
#include "tlsconn.h"
#include "window.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#define EVENTS 64
#define POLL_MS 500
#define STALL_NS 5000000000u
#define TICKET_MS 5000

struct options {
    int resumed;
    int port;
    int connections;
    double warmup;
    double duration;
    pid_t server;
};

struct conn {
    struct tlsconn tls;
    uint64_t started;
};

struct storm {
    struct tls tls;
    int epoll;
    int port;
    SSL_SESSION *session; /* to offer, or NULL */
    uint64_t completed;
    struct histogram *latency; /* where to count, or NULL */
};

static void
parse_options(int argc, char **argv, struct options *o)
{
    if (argc != 7) {
        fail("usage: tlsstorm full|resumed PORT CONNECTIONS WARMUP SECONDS "
             "SERVER_PID");
    }
    o->resumed = strcmp(argv[1], "resumed") == 0;
    o->port = atoi(argv[2]);
    o->connections = atoi(argv[3]);
    o->warmup = atof(argv[4]);
    o->duration = atof(argv[5]);
    o->server = (pid_t)atol(argv[6]);
    if (o->connections < 1 || o->duration <= 0 || o->server < 1) {
        fail("an argument is out of range");
    }
}

static void
conn_want(struct storm *s, struct conn *conn, int how, uint32_t wanted)
{
    struct epoll_event event = {.events = wanted, .data.ptr = conn};

    if (epoll_ctl(s->epoll, how, conn->tls.fd, &event) != 0) {
        fail("epoll_ctl: %s", strerror(errno));
    }
}

/* The hello is small, and the first thing the socket is given. */
static void
conn_begin(struct storm *s, struct conn *conn)
{
    conn->started = now_ns();
    tlsconn_open(&conn->tls, &s->tls, connect_local(s->port));
    if (s->session != NULL) {
        SSL_set_session(conn->tls.ssl, s->session);
    }
    if (tlsconn_shake(&conn->tls) < 0 || tlsconn_flush(&conn->tls) != 1) {
        fail("no handshake");
    }
    conn_want(s, conn, EPOLL_CTL_ADD, EPOLLIN);
}

static void
conn_complete(struct storm *s, struct conn *conn)
{
    if (SSL_session_reused(conn->tls.ssl) != (s->session != NULL)) {
        fail("the server does not resume sessions");
    }
    tlsconn_close(&conn->tls);
    s->completed++;
    if (s->latency != NULL) {
        histogram_add(s->latency, now_ns() - conn->started);
    }
    conn_begin(s, conn);
}

static void
conn_on_event(struct storm *s, struct conn *conn)
{
    tlsconn_readable(&conn->tls);
    int status = tlsconn_shake(&conn->tls);

    if (status < 0 || tlsconn_flush(&conn->tls) != 1) {
        fail("a handshake failed after %llu others",
             (unsigned long long)s->completed);
    }
    if (status == 1) {
        conn_complete(s, conn);
    }
}

static void
storm_run(struct storm *s, double seconds)
{
    struct epoll_event events[EVENTS];
    uint64_t begin = now_ns(), now = begin, moved = begin;
    uint64_t seen = s->completed;

    while ((double)(now - begin) < seconds * 1e9) {
        int n = epoll_wait(s->epoll, events, EVENTS, POLL_MS);
        for (int i = 0; i < n; i++) {
            conn_on_event(s, events[i].data.ptr);
        }
        now = now_ns();
        if (seen != s->completed) {
            seen = s->completed;
            moved = now;
        }
        else if (now - moved > STALL_NS) {
            fail("stalled after %llu handshakes", (unsigned long long)seen);
        }
    }
}

static int
on_session(SSL *ssl, SSL_SESSION *session)
{
    struct storm *s = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));

    SSL_SESSION_free(s->session);
    s->session = session;
    return 1;
}

/* In TLS 1.3 the ticket comes after the handshake. */
static void
storm_get_session(struct storm *s)
{
    struct tlsconn c;
    char nothing[1];

    SSL_CTX_set_app_data(s->tls.context, s);
    SSL_CTX_set_session_cache_mode(
        s->tls.context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(s->tls.context, on_session);
    tlsconn_open(&c, &s->tls, connect_local(s->port));
    tlsconn_connect(&c);
    while (s->session == NULL) {
        struct pollfd wait = {.fd = c.fd, .events = POLLIN};
        tlsconn_readable(&c);
        if (poll(&wait, 1, TICKET_MS) != 1 ||
            tlsconn_read(&c, nothing, 1) < 0) {
            fail("the server sends no ticket");
        }
    }
    SSL_CTX_set_session_cache_mode(s->tls.context, SSL_SESS_CACHE_OFF);
    tlsconn_close(&c);
}

int
main(int argc, char **argv)
{
    static struct histogram latency;
    static struct storm s;
    struct options o;
    struct window w;

    parse_options(argc, argv, &o);
    s.port = o.port;
    s.epoll = epoll_create1(EPOLL_CLOEXEC);
    tls_init_client(&s.tls);
    if (o.resumed) {
        storm_get_session(&s);
    }
    struct conn *conns = allocate((size_t)o.connections, sizeof(*conns));
    for (int i = 0; i < o.connections; i++) {
        conn_begin(&s, &conns[i]);
    }
    storm_run(&s, o.warmup);
    uint64_t before = s.completed;
    s.latency = &latency;
    window_begin(&w, o.server);
    storm_run(&s, o.duration);
    window_end(&w);
    window_print(&w, (double)(s.completed - before), &latency);
    return 0;
}
