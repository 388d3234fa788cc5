/* fuzz.h - what the fuzz targets of the C core share.
 *
 * A target is a file with LLVMFuzzerTestOneInput(), which reads the input as a
 * program, runs it on a part of the core and on a plain model of it, and
 * compares the two after each step.  libFuzzer calls it, or driver.c.
 * SPDX-License-Identifier: MIT */

#ifndef HL_FUZZ_H
#define HL_FUZZ_H

#include "base/hotloop.h"

#include "state/state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUZZ_CHECK(condition)                            \
    do {                                                 \
        if (!(condition)) {                              \
            fuzz_failed(__FILE__, __LINE__, #condition); \
        }                                                \
    } while (0)

_Noreturn void fuzz_failed(const char *file, int line, const char *what);

/* ---- the input ---- */

typedef struct {
    const uint8_t *data;
    size_t left;
} fuzz_input;

static inline bool
fuzz_more(const fuzz_input *in)
{
    return in->left > 0;
}

/* The next byte, 0 at the end. */
static inline uint8_t
fuzz_byte(fuzz_input *in)
{
    if (in->left == 0) {
        return 0;
    }
    in->left--;
    return *in->data++;
}

/* A number from 0 to max. */
static inline uint32_t
fuzz_upto(fuzz_input *in, uint32_t max)
{
    uint32_t value = fuzz_byte(in);
    if (max > 0xff) {
        value = value << 8 | fuzz_byte(in);
    }
    return max == UINT32_MAX ? value : value % (max + 1);
}

/* A time: many are equal, some far away, infinite or (odd) no number. */
double fuzz_time(fuzz_input *in, bool odd);

/* Up to max bytes of the input itself; how many, and where in *at. */
size_t fuzz_bytes(fuzz_input *in, size_t max, const uint8_t **at);

/* ---- the interpreter ---- */

#define FUZZ_OBJECTS 256

/* Starts Python at the first call, and resets what follows at each. */
void fuzz_begin(void);

/* The case has left no exception, no memory (unless loose: free lists of
 * Python keep some) and no reference to the objects behind. */
void fuzz_end(bool loose);

/* One of FUZZ_OBJECTS objects, borrowed, and how many references to it are
 * not ours. */
PyObject *fuzz_object(size_t i);
Py_ssize_t fuzz_references(size_t i);

/* Lets the nth allocation from now fail, in all domains of Python; 0: none. */
void fuzz_fail_allocation(unsigned n);

/* Has one failed since?  Switches it off and clears the MemoryError. */
bool fuzz_allocation_failed(void);

/* The number that the next descriptor gets: the lowest one that is free. */
int fuzz_next_fd(void);

/* A module with an empty state, for types of the core. */
hl_state *fuzz_state(PyObject **module);

#endif
