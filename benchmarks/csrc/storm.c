/* storm.c - many connections at once, again and again.
 *
 * Connects so many sockets to a server on this machine and waits until each
 * has been greeted with a byte; resets them all, and repeats. Prints one line
 * of JSON: connections per second in the median storm, and its microseconds.
 * Linux only.
 *
 * SPDX-License-Identifier: MIT
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define EVENTS 256
#define WAIT_MS 10000
#define PAUSE_US 30000 /* between storms: the server closes its ends */

struct storm {
    struct sockaddr_in address;
    int epoll;
    int count;
    int *fds;
};

static void
die(const char *what)
{
    fprintf(stderr, "storm: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t
now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static int
connect_one(struct storm *s)
{
    struct linger reset = {1, 0};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};

    if (fd < 0) {
        die("socket");
    }
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    if (connect(fd, (struct sockaddr *)&s->address, sizeof(s->address)) < 0 &&
        errno != EINPROGRESS) {
        die("connect");
    }
    if (epoll_ctl(s->epoll, EPOLL_CTL_ADD, fd, &event) < 0) {
        die("epoll_ctl");
    }
    return fd;
}

/* Read the byte of every connection. */
static void
await_greetings(struct storm *s)
{
    struct epoll_event events[EVENTS];
    int left = s->count;

    while (left > 0) {
        int n = epoll_wait(s->epoll, events, EVENTS, WAIT_MS);
        if (n <= 0) {
            die("epoll_wait");
        }
        for (int i = 0; i < n; i++) {
            char byte;
            if (recv(events[i].data.fd, &byte, 1, 0) != 1) {
                die("recv");
            }
            epoll_ctl(s->epoll, EPOLL_CTL_DEL, events[i].data.fd, NULL);
            left--;
        }
    }
}

static uint64_t
storm_once(struct storm *s)
{
    uint64_t start = now_ns();

    for (int i = 0; i < s->count; i++) {
        s->fds[i] = connect_one(s);
    }
    await_greetings(s);
    uint64_t spent = now_ns() - start;
    for (int i = 0; i < s->count; i++) {
        close(s->fds[i]);
    }
    usleep(PAUSE_US);
    return spent;
}

static int
compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static void
raise_descriptor_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

int
main(int argc, char **argv)
{
    struct storm s = {.epoll = epoll_create1(0)};

    if (argc != 4 || atoi(argv[2]) < 1 || atoi(argv[3]) < 1) {
        fputs("usage: storm PORT CONNECTIONS STORMS\n", stderr);
        return 2;
    }
    int storms = atoi(argv[3]);
    s.count = atoi(argv[2]);
    s.fds = calloc((size_t)s.count, sizeof(*s.fds));
    uint64_t *spent = calloc((size_t)storms, sizeof(*spent));
    if (s.epoll < 0 || s.fds == NULL || spent == NULL) {
        die("set-up");
    }
    s.address.sin_family = AF_INET;
    s.address.sin_port = htons((uint16_t)atoi(argv[1]));
    s.address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    raise_descriptor_limit();
    storm_once(&s); /* warms up both ends */
    for (int i = 0; i < storms; i++) {
        spent[i] = storm_once(&s);
    }
    qsort(spent, (size_t)storms, sizeof(*spent), compare);
    double median = (double)spent[storms / 2];
    printf("{\"rate\": %.1f, \"storm_us\": %.1f}\n",
           (double)s.count / median * 1e9, median / 1e3);
    free(spent);
    free(s.fds);
    return 0;
}
