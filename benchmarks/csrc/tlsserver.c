/* tlsserver.c - TLS server in plain C over OpenSSL: the ceiling of suite tls.
 *
 * Modes: "echo" writes what it reads; "sink" throws it away; "source" writes
 * blocks of 256 KiB as fast as they are taken. Prints its port as one line of
 * JSON and serves until it is killed. One thread. Linux only.
 *
 * SPDX-License-Identifier: MIT
 */
#define _GNU_SOURCE
#include "support.h"
#include "tlsconn.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/signal.h>
#include <sys/socket.h>

#define BACKLOG 1024
#define EVENTS 256
#define BLOCK (256 * 1024)

struct conn {
    struct tlsconn tls;
    uint32_t wanted; /* the events it is registered for */
};

struct server {
    struct tls tls;
    int epoll;
    int listener;
    int (*serve)(struct conn *conn); /* -1 at the end of a connection */
};

static char scratch[BLOCK];

/* Each record that is there, until there is enough for one send(). */
static int
serve_echo(struct conn *conn)
{
    struct tlsconn *tls = &conn->tls;

    for (;;) {
        int n = tlsconn_read(tls, scratch, TLS_RECORD);
        if (n < 0 || (n > 0 && tlsconn_write(tls, scratch, n) != 0)) {
            return -1;
        }
        if (n == 0 || tls->tls->held > BLOCK) {
            int done = tlsconn_flush(tls);
            if (n == 0 || done != 1) {
                return done < 0 ? -1 : 0;
            }
        }
    }
}

static int
serve_sink(struct conn *conn)
{
    int n;

    do {
        n = tlsconn_read(&conn->tls, scratch, TLS_RECORD);
    } while (n > 0);
    return n < 0 || tlsconn_flush(&conn->tls) < 0 ? -1 : 0;
}

static int
serve_source(struct conn *conn)
{
    int n = tlsconn_shake(&conn->tls);

    if (n < 0 || (n == 1 && tlsconn_write(&conn->tls, scratch, BLOCK) != 0) ||
        tlsconn_flush(&conn->tls) < 0) {
        return -1;
    }
    return n;
}

static void
conn_want(struct server *server, struct conn *conn, uint32_t wanted)
{
    struct epoll_event event = {.events = wanted, .data.ptr = conn};

    if (wanted != conn->wanted) {
        conn->wanted = wanted;
        epoll_ctl(server->epoll, EPOLL_CTL_MOD, conn->tls.fd, &event);
    }
}

/* While the socket does not take what there is, nothing more is made. */
static void
conn_on_event(struct server *server, struct conn *conn)
{
    int late = conn->tls.late_size != 0 ? tlsconn_flush(&conn->tls) == 0 : 0;
    int status = 0;

    if (!late) {
        tlsconn_readable(&conn->tls);
        status = server->serve(conn);
    }
    if (status < 0) {
        server->tls.held = 0;
        tlsconn_close(&conn->tls);
        free(conn);
        return;
    }
    int writes = conn->tls.late_size != 0 || status == 1;
    conn_want(server, conn, writes ? EPOLLOUT : EPOLLIN);
}

static void
server_accept(struct server *server)
{
    int fd, on = 1;

    while ((fd = accept4(server->listener, NULL, NULL,
                         SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct conn *conn = allocate(1, sizeof(*conn));
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = conn};
        conn->wanted = EPOLLIN;
        tlsconn_open(&conn->tls, &server->tls, fd);
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        if (epoll_ctl(server->epoll, EPOLL_CTL_ADD, fd, &event) != 0) {
            fail("epoll_ctl: %s", strerror(errno));
        }
    }
    if (errno != EAGAIN && errno != ECONNABORTED) {
        fail("accept: %s", strerror(errno));
    }
}

static void
server_listen(struct server *server)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    socklen_t size = sizeof(address);
    struct epoll_event event = {.events = EPOLLIN};

    server->epoll = epoll_create1(EPOLL_CLOEXEC);
    server->listener =
        socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (bind(server->listener, (struct sockaddr *)&address, size) != 0 ||
        listen(server->listener, BACKLOG) != 0 ||
        epoll_ctl(server->epoll, EPOLL_CTL_ADD, server->listener, &event) !=
            0 ||
        getsockname(server->listener, (struct sockaddr *)&address, &size) !=
            0) {
        fail("listen: %s", strerror(errno));
    }
    printf("{\"port\": %d}\n", ntohs(address.sin_port));
    fflush(stdout);
}

static void
server_run(struct server *server)
{
    struct epoll_event events[EVENTS];

    for (;;) {
        int n = epoll_wait(server->epoll, events, EVENTS, -1);
        if (n < 0 && errno != EINTR) {
            fail("epoll_wait: %s", strerror(errno));
        }
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr == NULL) {
                server_accept(server);
            }
            else {
                conn_on_event(server, events[i].data.ptr);
            }
        }
    }
}

int
main(int argc, char **argv)
{
    static struct server server;

    if (argc != 4) {
        fail("usage: tlsserver echo|sink|source CERTIFICATE KEY");
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    server.serve = strcmp(argv[1], "sink") == 0     ? serve_sink
                   : strcmp(argv[1], "source") == 0 ? serve_source
                                                    : serve_echo;
    raise_descriptor_limit();
    tls_init_server(&server.tls, argv[2], argv[3]);
    server_listen(&server);
    server_run(&server);
}
