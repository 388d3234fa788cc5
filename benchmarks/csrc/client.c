/* client.c - connections that send a request, await its echo, and repeat.
 *
 * A connection has one request under way at any time, so an answer that is
 * complete leaves nothing to read: edge-triggered events need no last read
 * that fails.
 *
 * SPDX-License-Identifier: MIT
 */
#define _GNU_SOURCE
#include "client.h"
#include "proctime.h"
#include "support.h"
#include "websocket.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define EVENTS 512
#define SCRATCH (256 * 1024)
#define STALL_NS 5000000000u
#define POLL_MS 500

void
client_open(struct client *c, int port, int count, size_t size)
{
    memset(c, 0, sizeof(*c));
    c->count = count;
    c->size = size;
    c->conns = allocate((size_t)count, sizeof(struct conn));
    c->payload = allocate(1, size);
    c->answer = c->payload;
    c->answer_size = size;
    c->scratch = allocate(1, SCRATCH);
    fill_lines(c->payload, size);
    c->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (c->epoll < 0) {
        fail("epoll_create1: %s", strerror(errno));
    }
    for (int i = 0; i < count; i++) {
        struct conn *conn = &c->conns[i];
        struct epoll_event event = {
            .events = EPOLLIN | EPOLLOUT | EPOLLET,
            .data.ptr = conn,
        };
        conn->fd = connect_local(port);
        if (epoll_ctl(c->epoll, EPOLL_CTL_ADD, conn->fd, &event) != 0) {
            fail("epoll_ctl: %s", strerror(errno));
        }
    }
}

void
client_prefix(struct client *c)
{
    size_t rest = c->size - PREFIX;

    for (int i = PREFIX - 1; i >= 0; i--) {
        c->payload[i] = (char)(rest & 0xff);
        rest >>= 8;
    }
}

void
client_websocket(struct client *c)
{
    size_t length = c->size;

    for (int i = 0; i < c->count; i++) {
        websocket_open(c->conns[i].fd);
    }
    c->answer = websocket_message(c->payload, length, 0, &c->answer_size);
    c->payload = websocket_message(c->payload, length, 1, &c->size);
}

static void
conn_send(struct client *c, struct conn *conn)
{
    while (conn->sent < c->size) {
        ssize_t n = send(conn->fd, c->payload + conn->sent,
                         c->size - conn->sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0) {
            if (errno == EINTR) {
                continue;
            }
            if (errno == EAGAIN) {
                return;
            }
            fail("send: %s after %llu requests", strerror(errno),
                 (unsigned long long)c->completed);
        }
        conn->sent += (size_t)n;
    }
}

static void
conn_begin(struct client *c, struct conn *conn, uint64_t now)
{
    conn->sent = 0;
    conn->received = 0;
    conn->started = now;
    conn_send(c, conn);
}

static void
conn_receive(struct client *c, struct conn *conn)
{
    while (conn->received < c->answer_size) {
        ssize_t n = recv(conn->fd, c->scratch, SCRATCH, MSG_DONTWAIT);
        if (n < 0) {
            if (errno == EINTR) {
                continue;
            }
            if (errno == EAGAIN) {
                return;
            }
            fail("recv: %s after %llu requests", strerror(errno),
                 (unsigned long long)c->completed);
        }
        if (n == 0) {
            fail("the server closed a connection after %llu requests",
                 (unsigned long long)c->completed);
        }
        size_t got = (size_t)n;
        if (got > c->answer_size - conn->received) {
            fail("an answer is too long");
        }
        if (c->verify &&
            memcmp(c->scratch, c->answer + conn->received, got) != 0) {
            fail("an answer is not what it should be");
        }
        conn->received += got;
    }
}

static void
conn_complete(struct client *c, struct conn *conn)
{
    uint64_t now = now_ns();

    if (!conn->served) {
        conn->served = 1;
        c->served++;
    }
    c->completed++;
    if (c->latency != NULL) {
        histogram_add(c->latency, now - conn->started);
    }
    conn_begin(c, conn, now);
}

static void
conn_on_event(struct client *c, struct conn *conn)
{
    if (conn->started == 0) {
        return;
    }
    conn_send(c, conn);
    conn_receive(c, conn);
    if (conn->received == c->answer_size) {
        conn_complete(c, conn);
    }
}

static void
client_poll(struct client *c)
{
    struct epoll_event events[EVENTS];
    int n = epoll_wait(c->epoll, events, EVENTS, POLL_MS);

    if (n < 0 && errno != EINTR) {
        fail("epoll_wait: %s", strerror(errno));
    }
    for (int i = 0; i < n; i++) {
        conn_on_event(c, events[i].data.ptr);
    }
}

void
client_first_round(struct client *c)
{
    uint64_t seen = 0, moved = now_ns();

    for (int i = 0; i < c->count; i++) {
        conn_begin(c, &c->conns[i], now_ns());
    }
    while (c->served < c->count) {
        client_poll(c);
        uint64_t now = now_ns();
        if (seen != (uint64_t)c->served) {
            seen = (uint64_t)c->served;
            moved = now;
        }
        else if (now - moved > STALL_NS) {
            fail("%d of %d connections got no answer", c->count - c->served,
                 c->count);
        }
    }
}

uint64_t
client_run(struct client *c, uint64_t duration_ns)
{
    uint64_t begin = now_ns(), now = begin, moved = begin;
    uint64_t seen = c->completed;

    while (now - begin < duration_ns) {
        client_poll(c);
        now = now_ns();
        if (seen != c->completed) {
            seen = c->completed;
            moved = now;
        }
        else if (now - moved > STALL_NS) {
            fail("stalled after %llu requests", (unsigned long long)seen);
        }
    }
    return now - begin;
}
