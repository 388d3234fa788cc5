/* histogram.c - how long something took, many times.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "base/histogram.h"

#define LINEAR_SHIFT (HL_HISTOGRAM_LINEAR_BITS - HL_HISTOGRAM_SUB_BITS)
#define PER_OCTAVE (1 << HL_HISTOGRAM_SUB_BITS)

static unsigned
bucket_of(uint64_t ns)
{
    if (ns < (1u << HL_HISTOGRAM_LINEAR_BITS)) {
        return (unsigned)(ns >> LINEAR_SHIFT);
    }
    if (ns >> HL_HISTOGRAM_TOP_BITS != 0) {
        return HL_HISTOGRAM_BUCKETS - 1;
    }
    unsigned exponent = 63u - (unsigned)__builtin_clzll(ns);
    unsigned octave = exponent - HL_HISTOGRAM_LINEAR_BITS + 1;
    unsigned sub = (unsigned)(ns >> (exponent - HL_HISTOGRAM_SUB_BITS)) &
                   (PER_OCTAVE - 1);
    return octave * PER_OCTAVE + sub;
}

/* The smallest number of ns in a bucket. */
static uint64_t
bucket_low(unsigned bucket)
{
    unsigned octave = bucket / PER_OCTAVE, sub = bucket % PER_OCTAVE;
    if (octave == 0) {
        return (uint64_t)sub << LINEAR_SHIFT;
    }
    unsigned exponent = octave - 1 + HL_HISTOGRAM_LINEAR_BITS;
    return (uint64_t)(PER_OCTAVE + sub) << (exponent - HL_HISTOGRAM_SUB_BITS);
}

void
hl_histogram_add(hl_histogram *histogram, int64_t ns)
{
    uint64_t value = ns < 0 ? 0 : (uint64_t)ns;
    histogram->count++;
    histogram->total_ns += value;
    histogram->max_ns = Py_MAX(histogram->max_ns, value);
    histogram->buckets[bucket_of(value)]++;
}

static PyObject *
tell_bucket(const hl_histogram *histogram, unsigned i)
{
    uint64_t high =
        i + 1 < HL_HISTOGRAM_BUCKETS ? bucket_low(i + 1) : histogram->max_ns;
    return Py_BuildValue("(ddK)", (double)bucket_low(i) / 1e9,
                         (double)high / 1e9,
                         (unsigned long long)histogram->buckets[i]);
}

PyObject *
hl_histogram_tell(const hl_histogram *histogram)
{
    PyObject *buckets = PyList_New(0);
    if (buckets == NULL) {
        return NULL;
    }
    for (unsigned i = 0; i < HL_HISTOGRAM_BUCKETS; i++) {
        if (histogram->buckets[i] == 0) {
            continue;
        }
        PyObject *bucket = tell_bucket(histogram, i);
        if (bucket == NULL || PyList_Append(buckets, bucket) < 0) {
            Py_XDECREF(bucket);
            Py_DECREF(buckets);
            return NULL;
        }
        Py_DECREF(bucket);
    }
    return Py_BuildValue("(KddN)", (unsigned long long)histogram->count,
                         (double)histogram->total_ns / 1e9,
                         (double)histogram->max_ns / 1e9, buckets);
}
