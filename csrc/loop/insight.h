/* insight.h - where a loop's time goes, while somebody wants to know.
 *
 * A loop of which nobody asked that has no hl_insight, and tests for it once
 * per turn and once per poll.  With times on there are two readings of the
 * clock per poll beside the one that every poll takes; with a profile two per
 * callback.
 * Threading: GIL held, except hl_insight_polled().
 * SPDX-License-Identifier: MIT */

#ifndef HL_LOOP_INSIGHT_H
#define HL_LOOP_INSIGHT_H

#include "base/histogram.h"
#include "loop/loop.h"
#include "loop/profile.h"

/* What the loop does at this moment, as far as its clocks go. */
typedef enum {
    HL_PHASE_OFF,  /* the clocks stand */
    HL_PHASE_IDLE, /* it does not run */
    HL_PHASE_BUSY,
    HL_PHASE_POLL
} hl_phase;

typedef struct hl_insight {
    hl_phase phase;
    bool profiling;
    int64_t mark;       /* clock when the phase began, ns */
    int64_t polled;     /* clock when the poll had ended and the GIL was not
                           * had yet; 0: it was kept */
    int64_t busy_since; /* clock at the end of the last poll */
    size_t busy_from;   /* the ready queue's head at that time */
    int64_t busy_ns;
    int64_t poll_ns;
    int64_t gil_ns;
    size_t ready_max;
    uint64_t slow_callbacks;
    hl_histogram lag;
    hl_histogram timer_lag;
    hl_histogram callbacks;
    hl_profile profile;
} hl_insight;

/* Starts or stops the clocks, and the profile.  0, or -1 with MemoryError. */
int hl_insight_enable(hl_loop *loop, bool enabled, bool profile);

/* Frees what there is; the loop dies. */
void hl_insight_free(hl_loop *loop);
int hl_insight_traverse(hl_loop *loop, visitproc visit, void *arg);

/* The following are called for a loop that has an hl_insight only. */

/* A run begins or ends that is not inside of another. */
void hl_insight_begin(hl_loop *loop);
void hl_insight_end(hl_loop *loop);

/* Before and after a poll.  In between hl_insight_polled(), from the loop's
 * thread without the GIL, before it waits for that. */
void hl_insight_poll_begins(hl_loop *loop);
void hl_insight_poll_ends(hl_loop *loop);
void hl_insight_polled(hl_loop *loop);

/* The callbacks of a turn are about to run. */
void hl_insight_turn(hl_loop *loop);

/* A timer is taken late by so many seconds. */
void hl_insight_timer(hl_loop *loop, double late);

/* The times up to now, as hl_insight has them. */
typedef struct {
    int64_t busy_ns, poll_ns, gil_ns;
} hl_insight_times;
hl_insight_times hl_insight_times_now(const hl_loop *loop);

#endif
