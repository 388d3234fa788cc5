/* buffers.c - fuzzes loop/buffers: who borrows memory has it alone.
 *
 * SPDX-License-Identifier: MIT */

#include "fuzz.h"

#include "loop/loop.h"

#define LENT_MAX 16

static hl_loop loop;
static char *lent[LENT_MAX];
static size_t count;

static void
lend(unsigned fail)
{
    if (count == LENT_MAX) {
        return;
    }
    fuzz_fail_allocation(fail);
    char *buffer = hl_loop_lend_buffer(&loop);
    if (fuzz_allocation_failed()) {
        FUZZ_CHECK(buffer == NULL);
        return;
    }
    FUZZ_CHECK(buffer != NULL && PyErr_Occurred() == NULL);
    for (size_t i = 0; i < count; i++) {
        FUZZ_CHECK(lent[i] != buffer);
    }
    /* A sanitizer sees if it is smaller. */
    buffer[0] = buffer[HL_BUFFER_SIZE - 1] = (char)count;
    lent[count++] = buffer;
}

static void
give_back(uint8_t which)
{
    if (count == 0) {
        hl_loop_take_back_buffer(&loop, NULL);
        return;
    }
    size_t i = which % count;
    char *buffer = lent[i];
    lent[i] = lent[--count];
    hl_loop_take_back_buffer(&loop, buffer);
}

static void
read_buffer(unsigned fail)
{
    const char *before = loop.read_buffer;
    fuzz_fail_allocation(fail);
    char *buffer = hl_loop_read_buffer(&loop);
    if (fuzz_allocation_failed()) {
        FUZZ_CHECK(buffer == NULL && before == NULL);
        return;
    }
    FUZZ_CHECK(buffer != NULL && (before == NULL || before == buffer));
    buffer[0] = buffer[HL_READ_BUFFER_ROOM - 1] = 'x';
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_input in = {data, size};
    fuzz_begin();
    memset(&loop, 0, sizeof(loop));
    count = 0;
    while (fuzz_more(&in)) {
        uint8_t op = fuzz_byte(&in);
        switch (op % 8) {
        case 0:
        case 1:
        case 2:
            lend(op / 128);
            break;
        case 3:
        case 4:
            give_back(op / 8);
            break;
        case 5:
            if (op > 200) { /* it is large */
                read_buffer(op / 128);
            }
            break;
        case 6:
            hl_loop_free_buffers(&loop);
            FUZZ_CHECK(loop.buffers_count == 0 && loop.read_buffer == NULL);
            break;
        default: /* of a closed loop, nothing is kept */
            loop.closed = op > 240;
        }
        FUZZ_CHECK(loop.buffers_count >= 0 &&
                   loop.buffers_count <= (int)Py_ARRAY_LENGTH(loop.buffers));
    }
    while (count > 0) {
        give_back(0);
    }
    hl_loop_free_buffers(&loop);
    fuzz_end(false);
    return 0;
}
