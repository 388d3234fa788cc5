/* proctime.c - wall clock, and CPU time of this and another process.
 *
 * SPDX-License-Identifier: MIT
 */
#define _GNU_SOURCE
#include "proctime.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static uint64_t
clock_ns(clockid_t clock)
{
    struct timespec t;

    if (clock_gettime(clock, &t) != 0) {
        return 0;
    }
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t
now_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

/* utime and stime are the 14th and 15th field of /proc/PID/stat; the second
 * is a name in brackets that may hold blanks. */
static int
parse_stat(const char *line, struct proctime *out)
{
    const char *rest = strrchr(line, ')');
    unsigned long long user, kernel;

    if (rest == NULL) {
        return -1;
    }
    if (sscanf(rest + 1,
               " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user,
               &kernel) != 2) {
        return -1;
    }
    out->user = user;
    out->kernel = kernel;
    return 0;
}

static int
read_line(pid_t pid, const char *name, char *line, int size)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/%ld/%s", (long)pid, name);
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        return -1;
    }
    char *got = fgets(line, size, file);
    fclose(file);
    return got == NULL ? -1 : 0;
}

/* The second field of /proc/PID/schedstat, a file not every kernel has. */
static uint64_t
read_waited(pid_t pid)
{
    char line[128];
    unsigned long long waited;

    if (read_line(pid, "schedstat", line, sizeof(line)) != 0 ||
        sscanf(line, "%*u %llu", &waited) != 1) {
        return 0;
    }
    return waited;
}

int
proctime_read(pid_t pid, struct proctime *out)
{
    char line[1024];
    clockid_t clock;

    if (clock_getcpuclockid(pid, &clock) != 0) {
        return -1;
    }
    memset(out, 0, sizeof(*out));
    out->total_ns = clock_ns(clock);
    out->waited_ns = read_waited(pid);
    if (read_line(pid, "stat", line, sizeof(line)) != 0) {
        return 0;
    }
    return parse_stat(line, out);
}
