/* faults.c - decides which calls of hotloop fail, see csrc/base/faults.h.
 *
 * Loaded before hotloop with its symbols for all.  While armed it counts the
 * calls that could fail, notes where each one stands, and lets those with the
 * numbers from first to last fail.
 * SPDX-License-Identifier: MIT */

#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>

#define TRACE_MAX 100000

typedef struct {
    const char *name;
    const char *file;
    int line;
} place;

static place trace[TRACE_MAX];
static atomic_long count, failures;
static atomic_bool armed;
static long first, last; /* written while not armed */
static int signal_number;

int hotloop_call_fails(const char *name, const char *file, int line);
void faults_arm(long from, long to);
void faults_disarm(void);
void faults_signal(int number);
long faults_count(void);
long faults_failures(void);
const char *faults_name(long number);
const char *faults_file(long number);
int faults_line(long number);

int
hotloop_call_fails(const char *name, const char *file, int line)
{
    if (!atomic_load(&armed)) {
        return 0;
    }
    long number = atomic_fetch_add(&count, 1) + 1;
    if (number <= TRACE_MAX) {
        trace[number - 1] = (place){name, file, line};
    }
    if (number < first || number > last) {
        return 0;
    }
    atomic_fetch_add(&failures, 1);
    if (signal_number != 0) {
        raise(signal_number);
    }
    return 1;
}

/* Sends the process a signal at each failure: for faulthandler's traceback. */
void
faults_signal(int number)
{
    signal_number = number;
}

/* Begins to count, from 1; nothing fails with 0, 0. */
void
faults_arm(long from, long to)
{
    first = from;
    last = to;
    atomic_store(&count, 0);
    atomic_store(&failures, 0);
    atomic_store(&armed, 1);
}

void
faults_disarm(void)
{
    atomic_store(&armed, 0);
}

long
faults_count(void)
{
    return atomic_load(&count);
}

long
faults_failures(void)
{
    return atomic_load(&failures);
}

/* What the call of this number was, counted from 1. */
static place
at(long number)
{
    return number >= 1 && number <= TRACE_MAX ? trace[number - 1]
                                              : (place){NULL, NULL, 0};
}

const char *
faults_name(long number)
{
    return at(number).name;
}

const char *
faults_file(long number)
{
    return at(number).file;
}

int
faults_line(long number)
{
    return at(number).line;
}
