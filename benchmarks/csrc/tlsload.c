/* tlsload.c - closed-loop load over TLS for a server on this machine.
 *
 * Modes: "echo" has one request under way on each connection; "send" writes
 * blocks of 256 KiB as fast as they are taken; "receive" reads as fast as
 * something comes. Prints one line of JSON: requests or MiB per second,
 * latency, and CPU time of the server for each. Linux only.
 *
 * SPDX-License-Identifier: MIT
 */
#define _GNU_SOURCE
#include "support.h"
#include "tlsconn.h"
#include "window.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#define EVENTS 512
#define BLOCK (256 * 1024)
#define MIB (1 << 20)
#define STALL_NS 5000000000u
#define POLL_MS 500

enum mode {
    MODE_ECHO,
    MODE_SEND,
    MODE_RECEIVE
};

struct options {
    enum mode mode;
    int port;
    int connections;
    int size;
    double warmup;
    double duration;
    pid_t server;
};

struct conn {
    struct tlsconn tls;
    uint32_t wanted;  /* the events it is registered for */
    int received;     /* bytes of the current answer */
    uint64_t started; /* when its request was sent; 0 before the first one */
};

struct load {
    struct tls tls;
    enum mode mode;
    int epoll;
    int count;
    int size;
    struct conn *conns;
    char *payload;
    int verify;                /* compare answers with the payload */
    uint64_t completed;        /* answers, or bytes of a stream */
    struct histogram *latency; /* where to count, or NULL */
};

static char scratch[BLOCK];

static void
parse_options(int argc, char **argv, struct options *o)
{
    if (argc != 8) {
        fail("usage: tlsload echo|send|receive PORT CONNECTIONS SIZE WARMUP "
             "SECONDS SERVER_PID");
    }
    o->mode = strcmp(argv[1], "send") == 0      ? MODE_SEND
              : strcmp(argv[1], "receive") == 0 ? MODE_RECEIVE
                                                : MODE_ECHO;
    o->port = atoi(argv[2]);
    o->connections = atoi(argv[3]);
    o->size = atoi(argv[4]);
    o->warmup = atof(argv[5]);
    o->duration = atof(argv[6]);
    o->server = (pid_t)atol(argv[7]);
    if (o->connections < 1 || o->size < 1 || o->size > TLS_WRITE_MAX ||
        o->duration <= 0 || o->server < 1) {
        fail("an argument is out of range");
    }
}

static _Noreturn void
fail_closed(const struct load *l)
{
    fail("the server closed a connection after %llu requests or bytes",
         (unsigned long long)l->completed);
}

static void
conn_want(struct load *l, struct conn *conn, uint32_t wanted)
{
    struct epoll_event event = {.events = wanted, .data.ptr = conn};
    int how = conn->wanted == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;

    if (wanted != conn->wanted) {
        conn->wanted = wanted;
        if (epoll_ctl(l->epoll, how, conn->tls.fd, &event) != 0) {
            fail("epoll_ctl: %s", strerror(errno));
        }
    }
}

static void
conn_flush(struct load *l, struct conn *conn)
{
    int done = tlsconn_flush(&conn->tls);

    if (done < 0) {
        fail_closed(l);
    }
    int writes = !done || l->mode == MODE_SEND;
    conn_want(l, conn, writes ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

static void
conn_begin(struct load *l, struct conn *conn, uint64_t now)
{
    conn->received = 0;
    conn->started = now;
    if (tlsconn_write(&conn->tls, l->payload, l->size) != 0) {
        fail_closed(l);
    }
}

static void
conn_complete(struct load *l, struct conn *conn)
{
    uint64_t now = now_ns();

    l->completed++;
    if (l->latency != NULL) {
        histogram_add(l->latency, now - conn->started);
    }
    conn_begin(l, conn, now);
}

static void
conn_check(struct load *l, struct conn *conn, int got)
{
    if (got > l->size - conn->received) {
        fail("an answer is longer than its request");
    }
    if (l->verify &&
        memcmp(scratch, l->payload + conn->received, (size_t)got) != 0) {
        fail("an answer differs from its request");
    }
}

/* Read what there is; a complete answer leaves nothing behind it. */
static void
conn_receive(struct load *l, struct conn *conn)
{
    int n;

    while ((n = tlsconn_read(&conn->tls, scratch, BLOCK)) > 0) {
        if (l->mode == MODE_RECEIVE) {
            l->completed += (uint64_t)n;
            continue;
        }
        conn_check(l, conn, n);
        conn->received += n;
        if (conn->received == l->size) {
            conn_complete(l, conn);
        }
    }
    if (n < 0) {
        fail_closed(l);
    }
}

static void
conn_on_event(struct load *l, struct conn *conn)
{
    tlsconn_readable(&conn->tls);
    conn_receive(l, conn);
    conn_flush(l, conn);
    if (l->mode == MODE_SEND && conn->tls.late_size == 0) {
        if (tlsconn_write(&conn->tls, l->payload, BLOCK) != 0) {
            fail_closed(l);
        }
        l->completed += BLOCK;
        conn_flush(l, conn);
    }
}

static void
load_poll(struct load *l)
{
    struct epoll_event events[EVENTS];
    int n = epoll_wait(l->epoll, events, EVENTS, POLL_MS);

    if (n < 0 && errno != EINTR) {
        fail("epoll_wait: %s", strerror(errno));
    }
    for (int i = 0; i < n; i++) {
        conn_on_event(l, events[i].data.ptr);
    }
}

/* One connection after the other, so that none waits for its turn. */
static void
load_open(struct load *l, const struct options *o)
{
    size_t room = o->size > BLOCK ? (size_t)o->size : BLOCK;

    l->mode = o->mode;
    l->count = o->connections;
    l->size = o->size;
    l->conns = allocate((size_t)l->count, sizeof(struct conn));
    l->payload = allocate(1, room);
    fill_lines(l->payload, room);
    l->epoll = epoll_create1(EPOLL_CLOEXEC);
    tls_init_client(&l->tls);
    for (int i = 0; i < l->count; i++) {
        struct conn *conn = &l->conns[i];
        tlsconn_open(&conn->tls, &l->tls, connect_local(o->port));
        conn_want(l, conn, EPOLLIN);
        tlsconn_connect(&conn->tls);
    }
}

static void
load_start(struct load *l)
{
    for (int i = 0; i < l->count; i++) {
        struct conn *conn = &l->conns[i];
        if (l->mode == MODE_ECHO) {
            conn_begin(l, conn, now_ns());
            conn_flush(l, conn);
        }
        else {
            conn_on_event(l, conn);
        }
    }
}

static void
load_run(struct load *l, double seconds)
{
    uint64_t begin = now_ns(), now = begin, moved = begin;
    uint64_t seen = l->completed;

    while ((double)(now - begin) < seconds * 1e9) {
        load_poll(l);
        now = now_ns();
        if (seen != l->completed) {
            seen = l->completed;
            moved = now;
        }
        else if (now - moved > STALL_NS) {
            fail("stalled after %llu requests or bytes",
                 (unsigned long long)seen);
        }
    }
}

static void
measure(struct load *l, const struct options *o)
{
    struct window w;
    uint64_t before = l->completed;

    window_begin(&w, o->server);
    load_run(l, o->duration);
    window_end(&w);
    double counted = (double)(l->completed - before);
    window_print(&w, l->mode == MODE_ECHO ? counted : counted / MIB,
                 l->latency);
}

int
main(int argc, char **argv)
{
    static struct histogram latency;
    static struct load l;
    struct options o;

    parse_options(argc, argv, &o);
    raise_descriptor_limit();
    load_open(&l, &o);
    l.verify = 1;
    load_start(&l);
    load_run(&l, o.warmup);
    l.verify = 0;
    l.latency = o.mode == MODE_ECHO ? &latency : NULL;
    measure(&l, &o);
    return 0;
}
