/* proctime.h - wall clock, and CPU time of this and another process.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef BENCH_PROCTIME_H
#define BENCH_PROCTIME_H

#include <stdint.h>
#include <sys/types.h>

/* CPU time of a process with all its threads. The total is exact. Linux
 * samples where the time goes, so `user` and `kernel`, in clock ticks of
 * /proc, are good for their proportion only. Of the waiting, only that of
 * the main thread is known. What /proc does not tell is 0. */
struct proctime {
    uint64_t total_ns;
    uint64_t waited_ns; /* ready to run, but another program had the core */
    uint64_t user;
    uint64_t kernel;
};

/* Nanoseconds of the monotonic clock. */
uint64_t now_ns(void);

/* Read the times of process `pid`: 0, or -1 when it is gone. */
int proctime_read(pid_t pid, struct proctime *out);

#endif
