/* clock.c - a monotonic clock that stands still while programs run.
 *
 * Preloaded into a process, and switched on for the length of one program.
 * Then a wait with nothing to wait for but its timeout ends at once, and the
 * clock has moved on by the timeout instead.  It moves by whole ticks, so that
 * loops that count in milliseconds and loops that count in nanoseconds see the
 * same times.  Each reading adds a little, because asyncio knows no order among
 * timers of one deadline.
 * SPDX-License-Identifier: MIT */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#define TICK_NS 62500000LL /* 1/16 s: exact in a double */
#define NS_PER_S 1000000000LL
#define NS_PER_MS 1000000LL
#define READING_NS 20      /* so that no two deadlines are the same */
#define MAX_WAITS 50000

static long long now_ns; /* 0: off, the clock is the system's */
static long long readings; /* what these have added, for good */
static long waits;

#define REAL(name)                                                         \
    ({                                                                     \
        static __typeof__(&name) found;                                    \
        if (found == NULL) {                                               \
            found = (__typeof__(&name))dlsym(RTLD_NEXT, #name);            \
        }                                                                  \
        found;                                                             \
    })

/* Sets the clock, in seconds; 0 gives the system's back. */
void
fuzz_clock_set(int seconds)
{
    now_ns = seconds * NS_PER_S;
    readings = waits = 0;
}

static void
die(const char *text)
{
    fprintf(stderr, "fuzz clock: %s\n", text);
    abort();
}

/* A wait that found nothing is over: its time has passed. */
static void
pass(long long timeout)
{
    if (++waits > MAX_WAITS) {
        die("the loop waits again and again for nothing");
    }
    if (timeout < 0) {
        die("the loop waits for ever");
    }
    if (timeout > 0) {
        long long ticks = (timeout + TICK_NS / 2) / TICK_NS;
        long long at = now_ns / TICK_NS;
        now_ns = (at + (ticks > 0 ? ticks : 1)) * TICK_NS + readings;
    }
}

int
clock_gettime(clockid_t which, struct timespec *ts)
{
    if (now_ns != 0 &&
        (which == CLOCK_MONOTONIC || which == CLOCK_MONOTONIC_COARSE)) {
        now_ns += READING_NS;
        readings += READING_NS;
        ts->tv_sec = (time_t)(now_ns / NS_PER_S);
        ts->tv_nsec = (long)(now_ns % NS_PER_S);
        return 0;
    }
    return REAL(clock_gettime)(which, ts);
}

int
epoll_pwait(int fd, struct epoll_event *events, int count, int timeout,
            const sigset_t *mask)
{
    if (now_ns == 0) {
        return REAL(epoll_pwait)(fd, events, count, timeout, mask);
    }
    int found = REAL(epoll_pwait)(fd, events, count, 0, mask);
    if (found == 0) {
        pass(timeout < 0 ? -1 : timeout * NS_PER_MS);
    }
    return found;
}

int
epoll_wait(int fd, struct epoll_event *events, int count, int timeout)
{
    return epoll_pwait(fd, events, count, timeout, NULL);
}

int
ppoll(struct pollfd *fds, nfds_t count, const struct timespec *timeout,
      const sigset_t *mask)
{
    if (now_ns == 0) {
        return REAL(ppoll)(fds, count, timeout, mask);
    }
    static const struct timespec none;
    int found = REAL(ppoll)(fds, count, &none, mask);
    if (found == 0) {
        pass(timeout == NULL ? -1
                             : timeout->tv_sec * NS_PER_S + timeout->tv_nsec);
    }
    return found;
}

int
poll(struct pollfd *fds, nfds_t count, int timeout)
{
    struct timespec limit = {
        .tv_sec = timeout / 1000,
        .tv_nsec = timeout % 1000 * NS_PER_MS,
    };
    return ppoll(fds, count, timeout < 0 ? NULL : &limit, NULL);
}
