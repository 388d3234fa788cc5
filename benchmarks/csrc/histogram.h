/* histogram.h - latencies in buckets of at most 1.6% width.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef BENCH_HISTOGRAM_H
#define BENCH_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_SUB_BITS 6
#define HISTOGRAM_SUB (1 << HISTOGRAM_SUB_BITS)
#define HISTOGRAM_BUCKETS ((64 - HISTOGRAM_SUB_BITS + 1) * HISTOGRAM_SUB)

/* All zero is an empty histogram. */
struct histogram {
    uint64_t total;
    uint64_t counts[HISTOGRAM_BUCKETS];
};

/* Count one value. */
void histogram_add(struct histogram *h, uint64_t value);

/* The value that `fraction` (0 to 1) of all values do not exceed; 0 when the
 * histogram is empty. */
uint64_t histogram_quantile(const struct histogram *h, double fraction);

#endif
