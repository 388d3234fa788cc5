/* insight.c - where a loop's time goes, while somebody wants to know.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "loop/insight.h"

static hl_phase
phase_of(const hl_loop *loop)
{
    if (!loop->running) {
        return HL_PHASE_IDLE;
    }
    return loop->parked ? HL_PHASE_POLL : HL_PHASE_BUSY;
}

/* The time from the phase's beginning until now goes where it belongs. */
static void
settle(hl_insight *insight, int64_t now)
{
    int64_t passed = now - insight->mark;
    if (insight->phase == HL_PHASE_BUSY) {
        insight->busy_ns += passed;
    }
    else if (insight->phase == HL_PHASE_POLL) {
        insight->poll_ns += passed;
    }
    insight->mark = now;
}

/* From here on the loop is away from its poller. */
static void
leave_poller(hl_loop *loop, int64_t since)
{
    hl_insight *insight = loop->insight;
    insight->busy_since = since;
    insight->busy_from = loop->ready.head;
}

/* It is back: what came meanwhile waited so long at most. */
static void
reach_poller(hl_loop *loop, int64_t now)
{
    hl_insight *insight = loop->insight;
    if (loop->ready.head != insight->busy_from) {
        hl_histogram_add(&insight->lag, now - insight->busy_since);
    }
}

static int
insight_new(hl_loop *loop)
{
    hl_insight *insight = PyMem_Calloc(1, sizeof(*insight));
    if (insight == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    loop->insight = insight;
    return 0;
}

int
hl_insight_enable(hl_loop *loop, bool enabled, bool profile)
{
    if (loop->insight == NULL && (!enabled || insight_new(loop) < 0)) {
        return enabled ? -1 : 0;
    }
    hl_insight *insight = loop->insight;
    int64_t now = hl_loop_now_ns();
    if (profile && hl_profile_open(&insight->profile) < 0) {
        return -1;
    }
    settle(insight, now);
    if (!enabled) {
        insight->phase = HL_PHASE_OFF;
    }
    else if (insight->phase == HL_PHASE_OFF) {
        insight->phase = phase_of(loop);
        insight->polled = 0;
        leave_poller(loop, now);
    }
    insight->profiling = enabled && profile;
    hl_loop_observe(loop);
    return 0;
}

void
hl_insight_free(hl_loop *loop)
{
    if (loop->insight != NULL) {
        hl_profile_free(&loop->insight->profile);
        PyMem_Free(loop->insight);
        loop->insight = NULL;
    }
}

int
hl_insight_traverse(hl_loop *loop, visitproc visit, void *arg)
{
    return loop->insight == NULL
               ? 0
               : hl_profile_traverse(&loop->insight->profile, visit, arg);
}

void
hl_insight_begin(hl_loop *loop)
{
    hl_insight *insight = loop->insight;
    if (insight->phase != HL_PHASE_OFF) {
        int64_t now = hl_loop_now_ns();
        insight->phase = HL_PHASE_BUSY;
        insight->mark = now;
        leave_poller(loop, now);
    }
}

void
hl_insight_end(hl_loop *loop)
{
    hl_insight *insight = loop->insight;
    if (insight->phase != HL_PHASE_OFF) {
        int64_t now = hl_loop_now_ns();
        settle(insight, now);
        reach_poller(loop, now);
        insight->phase = HL_PHASE_IDLE;
    }
}

void
hl_insight_poll_begins(hl_loop *loop)
{
    hl_insight *insight = loop->insight;
    if (insight->phase != HL_PHASE_OFF) {
        int64_t now = hl_loop_now_ns();
        settle(insight, now);
        reach_poller(loop, now);
        insight->phase = HL_PHASE_POLL;
        insight->polled = 0;
    }
}

void
hl_insight_polled(hl_loop *loop)
{
    loop->insight->polled = hl_loop_now_ns();
}

void
hl_insight_poll_ends(hl_loop *loop)
{
    hl_insight *insight = loop->insight;
    if (insight->phase != HL_PHASE_POLL) {
        return;
    }
    int64_t now = loop->last_poll;
    int64_t back = insight->polled != 0 ? insight->polled : now;
    /* The clocks may have been started after the poll had ended. */
    back = Py_MAX(back, insight->mark);
    settle(insight, back);
    insight->gil_ns += now - back;
    insight->mark = now;
    insight->phase = HL_PHASE_BUSY;
    leave_poller(loop, back);
}

void
hl_insight_turn(hl_loop *loop)
{
    hl_insight *insight = loop->insight;
    if (insight->phase != HL_PHASE_OFF) {
        insight->ready_max =
            Py_MAX(insight->ready_max, hl_ring_count(&loop->ready));
    }
}

void
hl_insight_timer(hl_loop *loop, double late)
{
    if (loop->insight->phase != HL_PHASE_OFF) {
        /* Casting what an overridden time() may give is to be defined. */
        double ns = Py_MIN(late * 1e9, 1e18);
        hl_histogram_add(&loop->insight->timer_lag,
                         ns > 0.0 ? (int64_t)ns : 0);
    }
}

hl_insight_times
hl_insight_times_now(const hl_loop *loop)
{
    hl_insight_times times = {0, 0, 0};
    const hl_insight *insight = loop->insight;
    if (insight != NULL) {
        int64_t passed = hl_loop_now_ns() - insight->mark;
        times.busy_ns = insight->busy_ns;
        times.poll_ns = insight->poll_ns;
        times.gil_ns = insight->gil_ns;
        if (insight->phase == HL_PHASE_BUSY) {
            times.busy_ns += passed;
        }
        else if (insight->phase == HL_PHASE_POLL) {
            times.poll_ns += passed;
        }
    }
    return times;
}
