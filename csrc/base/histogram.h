/* histogram.h - how long something took, many times.
 *
 * Buckets are 64 ns wide below 1024 ns and a sixteenth of a power of two from
 * there on: no value is told worse than to 6.25 %.
 * Threading: touched with the GIL held only.
 * SPDX-License-Identifier: MIT */

#ifndef HL_BASE_HISTOGRAM_H
#define HL_BASE_HISTOGRAM_H

#include "base/hotloop.h"

#define HL_HISTOGRAM_LINEAR_BITS 10 /* below 2 to the 10th ns */
#define HL_HISTOGRAM_SUB_BITS 4     /* 16 buckets there and per octave */
#define HL_HISTOGRAM_TOP_BITS 37    /* up to 137 s; the last takes the rest */
#define HL_HISTOGRAM_BUCKETS                                 \
    (((HL_HISTOGRAM_TOP_BITS - HL_HISTOGRAM_LINEAR_BITS + 1) \
      << HL_HISTOGRAM_SUB_BITS) +                            \
     1)

typedef struct {
    uint64_t count;
    uint64_t total_ns;
    uint64_t max_ns;
    uint64_t buckets[HL_HISTOGRAM_BUCKETS];
} hl_histogram;

/* Adds a sample; a negative one counts as 0. */
void hl_histogram_add(hl_histogram *histogram, int64_t ns);

/* The state as a tuple for Python: (count, total, max, ((low, high, count),
 * ...)) with times in seconds and the buckets that have samples.  New
 * reference or NULL. */
PyObject *hl_histogram_tell(const hl_histogram *histogram);

#endif
