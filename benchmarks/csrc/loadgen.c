/* loadgen.c - closed-loop load for an echo server on this machine.
 *
 * Prints one line of JSON: requests per second, latency, and CPU time of
 * the server per request. Linux only.
 *
 * SPDX-License-Identifier: MIT
 */
#define _GNU_SOURCE
#include "client.h"
#include "proctime.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

struct options {
    int port;
    int connections;
    long size;
    double warmup;
    double duration;
    pid_t server;
};

struct window {
    uint64_t wall_ns;
    uint64_t requests;
    struct proctime server;
    struct proctime client;
};

static void
parse_options(int argc, char **argv, struct options *o)
{
    if (argc != 7) {
        fail("usage: loadgen PORT CONNECTIONS SIZE WARMUP SECONDS SERVER_PID");
    }
    o->port = atoi(argv[1]);
    o->connections = atoi(argv[2]);
    o->size = atol(argv[3]);
    o->warmup = atof(argv[4]);
    o->duration = atof(argv[5]);
    o->server = (pid_t)atol(argv[6]);
    if (o->port < 1 || o->port > 65535 || o->connections < 1 || o->size < 1 ||
        o->warmup < 0 || o->duration <= 0 || o->server < 1) {
        fail("an argument is out of range");
    }
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

static struct proctime
times_of(pid_t pid)
{
    struct proctime times;

    if (proctime_read(pid, &times) != 0) {
        fail("process %ld is gone", (long)pid);
    }
    return times;
}

static struct proctime
times_since(pid_t pid, const struct proctime *before)
{
    struct proctime times = times_of(pid);

    times.total_ns -= before->total_ns;
    times.waited_ns -= before->waited_ns;
    times.user -= before->user;
    times.kernel -= before->kernel;
    return times;
}

static void
measure(struct client *c, const struct options *o, struct window *w)
{
    struct proctime server = times_of(o->server);
    struct proctime client = times_of(getpid());
    uint64_t requests = c->completed;

    w->wall_ns = client_run(c, (uint64_t)(o->duration * 1e9));
    w->server = times_since(o->server, &server);
    w->client = times_since(getpid(), &client);
    w->requests = c->completed - requests;
}

static void
print_cpu(const struct window *w)
{
    uint64_t ticks = w->server.user + w->server.kernel;
    double us = (double)w->server.total_ns / 1e3 / (double)w->requests;
    uint64_t waited = w->server.waited_ns > w->client.waited_ns
                          ? w->server.waited_ns
                          : w->client.waited_ns;
    double wall = (double)w->wall_ns;

    if (ticks != 0) {
        double share = (double)w->server.user / (double)ticks;
        printf("\"user_us\": %.4f, \"kernel_us\": %.4f, ", us * share,
               us * (1.0 - share));
    }
    printf("\"server_busy\": %.4f, \"client_busy\": %.4f, ",
           (double)w->server.total_ns / wall,
           (double)w->client.total_ns / wall);
    printf("\"waited\": %.4f", (double)waited / wall);
}

static void
print_window(const struct window *w, const struct histogram *latency)
{
    double requests = (double)w->requests;

    printf("{\"rps\": %.1f, \"requests\": %.0f, ",
           requests / (double)w->wall_ns * 1e9, requests);
    printf("\"p50_us\": %.2f, \"p99_us\": %.2f, ",
           (double)histogram_quantile(latency, 0.50) / 1e3,
           (double)histogram_quantile(latency, 0.99) / 1e3);
    print_cpu(w);
    printf("}\n");
}

int
main(int argc, char **argv)
{
    static struct histogram latency;
    struct options o;
    struct client c;
    struct window w;

    parse_options(argc, argv, &o);
    raise_descriptor_limit();
    client_open(&c, o.port, o.connections, (size_t)o.size);
    c.verify = 1;
    client_first_round(&c);
    c.verify = 0;
    client_run(&c, (uint64_t)(o.warmup * 1e9));
    c.latency = &latency;
    measure(&c, &o, &w);
    if (w.requests == 0) {
        fail("no request was answered");
    }
    print_window(&w, &latency);
    return 0;
}
