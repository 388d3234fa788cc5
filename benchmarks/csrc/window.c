/* window.c - a stretch of time in which something is counted.
 *
 * SPDX-License-Identifier: MIT
 */
#define _GNU_SOURCE
#include "window.h"
#include "support.h"

#include <stdio.h>
#include <unistd.h>

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

void
window_begin(struct window *w, pid_t server)
{
    w->pid = server;
    w->server = times_of(server);
    w->client = times_of(getpid());
    w->wall_ns = now_ns();
}

void
window_end(struct window *w)
{
    w->wall_ns = now_ns() - w->wall_ns;
    w->server = times_since(w->pid, &w->server);
    w->client = times_since(getpid(), &w->client);
}

static void
print_cpu(const struct window *w, double requests)
{
    uint64_t ticks = w->server.user + w->server.kernel;
    double us = (double)w->server.total_ns / 1e3 / requests;
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

void
window_print(const struct window *w, double requests,
             const struct histogram *latency)
{
    if (requests <= 0) {
        fail("no request was answered");
    }
    printf("{\"rps\": %.1f, \"requests\": %.0f, ",
           requests / (double)w->wall_ns * 1e9, requests);
    if (latency != NULL) {
        printf("\"p50_us\": %.2f, \"p99_us\": %.2f, ",
               (double)histogram_quantile(latency, 0.50) / 1e3,
               (double)histogram_quantile(latency, 0.99) / 1e3);
    }
    print_cpu(w, requests);
    printf("}\n");
}
