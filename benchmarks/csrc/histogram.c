/* histogram.c - latencies in buckets of at most 1.6% width.
 *
 * A value below 64 has a bucket of its own. Above, every power of two is
 * split into 64 buckets of equal width.
 *
 * SPDX-License-Identifier: MIT
 */
#include "histogram.h"

static unsigned
bucket_of(uint64_t value)
{
    if (value < HISTOGRAM_SUB) {
        return (unsigned)value;
    }
    unsigned top = 63 - (unsigned)__builtin_clzll(value);
    unsigned shift = top - HISTOGRAM_SUB_BITS;
    unsigned sub = (unsigned)(value >> shift) - HISTOGRAM_SUB;
    return (shift + 1) * HISTOGRAM_SUB + sub;
}

static uint64_t
bucket_middle(unsigned bucket)
{
    if (bucket < HISTOGRAM_SUB) {
        return bucket;
    }
    unsigned shift = bucket / HISTOGRAM_SUB - 1;
    uint64_t sub = bucket % HISTOGRAM_SUB + HISTOGRAM_SUB;
    return (sub << shift) + ((uint64_t)1 << shift) / 2;
}

void
histogram_add(struct histogram *h, uint64_t value)
{
    h->counts[bucket_of(value)]++;
    h->total++;
}

uint64_t
histogram_quantile(const struct histogram *h, double fraction)
{
    uint64_t wanted = (uint64_t)((double)h->total * fraction);
    uint64_t seen = 0;

    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        seen += h->counts[i];
        if (seen > wanted || (seen == h->total && seen != 0)) {
            return bucket_middle(i);
        }
    }
    return 0;
}
