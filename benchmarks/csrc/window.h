/* window.h - a stretch of time in which something is counted.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef BENCH_WINDOW_H
#define BENCH_WINDOW_H

#include "histogram.h"
#include "proctime.h"

struct window {
    pid_t pid; /* the server */
    uint64_t wall_ns;
    struct proctime server;
    struct proctime client; /* this process */
};

/* Note the times, of which window_end() makes differences. */
void window_begin(struct window *w, pid_t server);
void window_end(struct window *w);

/* Print a line of JSON: so many requests (or what else was counted) per
 * second, their latency unless it is NULL, and the CPU time of each. Ends the
 * process when there were none. */
void window_print(const struct window *w, double requests,
                  const struct histogram *latency);

#endif
