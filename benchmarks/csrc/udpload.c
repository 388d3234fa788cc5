/* udpload.c - load for a UDP server on this machine.
 *
 * Mode "echo": PEERS connected sockets, each with one datagram under way; the
 * rate is that of answers. Mode "burst": bursts of datagrams one way, the last
 * of which the server answers with how many it has seen; the rate is that of
 * datagrams seen. Prints one line of JSON. Linux only.
 *
 * SPDX-License-Identifier: MIT
 */
#define _GNU_SOURCE
#include "client.h"
#include "proctime.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define BURST 120         /* fits a receive buffer of the usual size */
#define BURST_SEGMENTS 40 /* of them in one system call */
#define LOST_MS 100
#define LAST 'L' /* first byte of the datagram that is answered */
#define SIZE_MAX_UDP 1400

struct options {
    const char *mode;
    int port;
    int peers;
    size_t size;
    double warmup;
    double duration;
    pid_t server;
};

struct load {
    struct options o;
    int epoll;
    int *fds;
    char *answered; /* since the last look at what was lost, by peer */
    char *payload;
    uint64_t completed;
    uint64_t lost;
};

void
fail(const char *format, ...)
{
    va_list args;

    fputs("udpload: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(1);
}

static void
parse_options(int argc, char **argv, struct options *o)
{
    if (argc != 8) {
        fail("usage: udpload echo|burst PORT PEERS SIZE WARMUP SECONDS "
             "SERVER_PID");
    }
    o->mode = argv[1];
    o->port = atoi(argv[2]);
    o->peers = atoi(argv[3]);
    o->size = (size_t)atol(argv[4]);
    o->warmup = atof(argv[5]);
    o->duration = atof(argv[6]);
    o->server = (pid_t)atol(argv[7]);
    if (o->port < 1 || o->port > 65535 || o->peers < 1 || o->size < 1 ||
        o->size > SIZE_MAX_UDP || o->duration <= 0 || o->server < 1) {
        fail("an argument is out of range");
    }
}

static int
connect_one(int port)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_port = htons((uint16_t)port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0 ||
        connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
        fail("socket: %s", strerror(errno));
    }
    return fd;
}

static void
load_open(struct load *l)
{
    l->epoll = epoll_create1(EPOLL_CLOEXEC);
    l->fds = calloc((size_t)l->o.peers, sizeof(int));
    l->answered = calloc((size_t)l->o.peers, 1);
    l->payload = calloc(BURST_SEGMENTS, l->o.size);
    if (l->epoll < 0 || l->fds == NULL || l->answered == NULL ||
        l->payload == NULL) {
        fail("out of memory");
    }
    for (size_t i = 0; i < BURST_SEGMENTS * l->o.size; i++) {
        l->payload[i] = (char)('a' + i % 26);
    }
    for (int i = 0; i < l->o.peers; i++) {
        struct epoll_event event = {.events = EPOLLIN,
                                    .data.u32 = (uint32_t)i};
        l->fds[i] = connect_one(l->o.port);
        if (epoll_ctl(l->epoll, EPOLL_CTL_ADD, l->fds[i], &event) != 0) {
            fail("epoll_ctl: %s", strerror(errno));
        }
    }
}

static void
peer_send(struct load *l, int i)
{
    if (send(l->fds[i], l->payload, l->o.size, 0) < 0 && errno != EAGAIN) {
        fail("send: %s", strerror(errno));
    }
}

static void
peer_answered(struct load *l, int i)
{
    char answer[SIZE_MAX_UDP + 1];
    ssize_t n = recv(l->fds[i], answer, sizeof(answer), 0);

    if (n < 0) {
        if (errno == EAGAIN) {
            return;
        }
        fail("recv: %s", strerror(errno));
    }
    if ((size_t)n != l->o.size ||
        memcmp(answer, l->payload, 64 < n ? 64 : (size_t)n) != 0) {
        fail("an answer differs from its request");
    }
    l->answered[i] = 1;
    l->completed++;
    peer_send(l, i);
}

/* Whoever got no answer for so long begins again. */
static void
resend_lost(struct load *l)
{
    for (int i = 0; i < l->o.peers; i++) {
        if (!l->answered[i]) {
            l->lost++;
            peer_send(l, i);
        }
        l->answered[i] = 0;
    }
}

static uint64_t
run_echo(struct load *l, uint64_t duration_ns)
{
    struct epoll_event events[256];
    uint64_t begin = now_ns(), now = begin, looked = begin;

    while (now - begin < duration_ns) {
        int n = epoll_wait(l->epoll, events, 256, LOST_MS);
        for (int i = 0; i < n; i++) {
            peer_answered(l, (int)events[i].data.u32);
        }
        now = now_ns();
        if (now - looked > LOST_MS * 1000000ull) {
            resend_lost(l);
            looked = now;
        }
    }
    return now - begin;
}

/* Sends count datagrams, cut by the kernel from one piece. */
static void
burst_send(struct load *l, int count)
{
    while (send(l->fds[0], l->payload, (size_t)count * l->o.size, 0) < 0) {
        struct pollfd full = {.fd = l->fds[0], .events = POLLOUT};
        if (errno != EAGAIN && errno != ENOBUFS) {
            fail("send: %s", strerror(errno));
        }
        poll(&full, 1, 10);
    }
}

/* What the server answers to the last datagram: how many it saw, as text.
 * Answers that came late are overtaken. */
static uint64_t
burst_await(struct load *l)
{
    struct pollfd ready = {.fd = l->fds[0], .events = POLLIN};
    char answer[64];
    uint64_t seen = 0;

    if (poll(&ready, 1, LOST_MS) <= 0) {
        l->lost++;
        return 0;
    }
    for (;;) {
        ssize_t n = recv(l->fds[0], answer, sizeof(answer) - 1, 0);
        if (n < 0) {
            return seen;
        }
        answer[n] = '\0';
        seen = strtoull(answer, NULL, 10);
    }
}

static uint64_t
run_burst(struct load *l, uint64_t duration_ns)
{
    uint64_t begin = now_ns(), now = begin;

    while (now - begin < duration_ns) {
        for (int i = 0; i < BURST; i += BURST_SEGMENTS) {
            int is_last = i + BURST_SEGMENTS >= BURST;
            l->payload[(BURST_SEGMENTS - 1) * l->o.size] =
                is_last ? LAST : 'a';
            burst_send(l, BURST_SEGMENTS);
        }
        uint64_t seen = burst_await(l);
        l->completed = seen > l->completed ? seen : l->completed;
        now = now_ns();
    }
    return now - begin;
}

static uint64_t
load_run(struct load *l, double seconds)
{
    uint64_t duration = (uint64_t)(seconds * 1e9);

    return strcmp(l->o.mode, "burst") == 0 ? run_burst(l, duration)
                                           : run_echo(l, duration);
}

static struct proctime
times_of(pid_t pid)
{
    struct proctime times;

    if (proctime_read(pid, &times) != 0) {
        fail("process %ld is gone", (long)pid);
    }
    return times;
}

static void
print_result(const struct load *l, uint64_t wall_ns, uint64_t datagrams,
             const struct proctime before[2], const struct proctime after[2])
{
    uint64_t ticks =
        after[0].user + after[0].kernel - before[0].user - before[0].kernel;
    double wall = (double)wall_ns;
    double busy = (double)(after[0].total_ns - before[0].total_ns);
    double us = busy / 1e3 / (double)datagrams;
    double waited[2];

    for (int i = 0; i < 2; i++) {
        waited[i] = (double)(after[i].waited_ns - before[i].waited_ns);
    }
    printf("{\"rps\": %.1f, \"requests\": %" PRIu64 ", \"lost\": %" PRIu64
           ", ",
           (double)datagrams / wall * 1e9, datagrams, l->lost);
    if (ticks != 0) {
        double share =
            (double)(after[0].user - before[0].user) / (double)ticks;
        printf("\"user_us\": %.4f, \"kernel_us\": %.4f, ", us * share,
               us * (1.0 - share));
    }
    printf("\"server_busy\": %.4f, \"client_busy\": %.4f, \"waited\": %.4f}\n",
           busy / wall,
           (double)(after[1].total_ns - before[1].total_ns) / wall,
           (waited[0] > waited[1] ? waited[0] : waited[1]) / wall);
}

int
main(int argc, char **argv)
{
    static struct load l;
    struct proctime before[2], after[2];

    parse_options(argc, argv, &l.o);
    load_open(&l);
    if (strcmp(l.o.mode, "burst") == 0) {
        int size = (int)l.o.size;
        if (setsockopt(l.fds[0], IPPROTO_UDP, UDP_SEGMENT, &size,
                       sizeof(size)) != 0) {
            fail("UDP_SEGMENT: %s", strerror(errno));
        }
    }
    else {
        for (int i = 0; i < l.o.peers; i++) {
            peer_send(&l, i);
        }
    }
    load_run(&l, l.o.warmup);
    l.lost = 0;
    uint64_t completed = l.completed;
    before[0] = times_of(l.o.server);
    before[1] = times_of(getpid());
    uint64_t wall = load_run(&l, l.o.duration);
    after[0] = times_of(l.o.server);
    after[1] = times_of(getpid());
    if (l.completed == completed) {
        fail("nothing was answered");
    }
    print_result(&l, wall, l.completed - completed, before, after);
    return 0;
}
