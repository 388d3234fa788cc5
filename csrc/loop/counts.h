/* counts.h - what a loop counts whether or not somebody asks.
 *
 * Each is an addition to memory beside work that costs hundreds of times as
 * much.  What needs a clock is in insight.h.
 * Threading: touched with the GIL held only.
 * SPDX-License-Identifier: MIT */

#ifndef HL_LOOP_COUNTS_H
#define HL_LOOP_COUNTS_H

#include "base/hotloop.h"

/* What a transport is, for the count of those that are open. */
typedef enum {
    HL_LINK_STREAM,
    HL_LINK_DATAGRAM,
    HL_LINK_PIPE,
    HL_LINK_KINDS
} hl_link;

typedef struct {
    uint64_t turns;
    uint64_t polls;
    uint64_t dropped; /* entries that left the ready queue without running */
    uint64_t task_steps;
    uint64_t tasks_created;
    uint64_t tasks_done;
    uint64_t threadsafe_calls;
    uint64_t executor_jobs;
    uint64_t blocked; /* callbacks that the watchdog reported */
    uint64_t reads;
    uint64_t writes;
    uint64_t bytes_received;
    uint64_t bytes_sent;
    uint64_t datagrams_received;
    uint64_t datagrams_sent;
    uint64_t datagram_bytes_received;
    uint64_t datagram_bytes_sent;
    uint64_t made[HL_LINK_KINDS]; /* transports begun */
    uint64_t lost[HL_LINK_KINDS]; /* and ended */
    uint64_t accepted;
    uint64_t connects_failed;
    uint64_t listeners_started;
    uint64_t listeners_stopped;
} hl_counts;

/* A system call that received, or sent, from or to a stream: size is what it
 * returned. */
static inline void
hl_count_read(hl_counts *counts, ssize_t size)
{
    counts->reads++;
    if (size > 0) {
        counts->bytes_received += (uint64_t)size;
    }
}

static inline void
hl_count_write(hl_counts *counts, ssize_t size)
{
    counts->writes++;
    if (size > 0) {
        counts->bytes_sent += (uint64_t)size;
    }
}

static inline void
hl_count_datagrams_received(hl_counts *counts, size_t count, size_t size)
{
    counts->datagrams_received += count;
    counts->datagram_bytes_received += size;
}

static inline void
hl_count_datagrams_sent(hl_counts *counts, size_t count, size_t size)
{
    counts->datagrams_sent += count;
    counts->datagram_bytes_sent += size;
}

#endif
