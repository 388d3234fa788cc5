/* buffers.c - memory that all transports of a loop share.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "loop/loop.h"

char *
hl_loop_read_buffer(hl_loop *loop)
{
    if (loop->read_buffer == NULL) {
        loop->read_buffer = PyMem_RawMalloc(HL_READ_BUFFER_ROOM);
        if (loop->read_buffer == NULL) {
            PyErr_NoMemory();
        }
    }
    return loop->read_buffer;
}

char *
hl_loop_lend_buffer(hl_loop *loop)
{
    if (HL_LIKELY(loop->buffers_count > 0)) {
        return loop->buffers[--loop->buffers_count];
    }
    char *buffer = PyMem_RawMalloc(HL_BUFFER_SIZE);
    if (buffer == NULL) {
        PyErr_NoMemory();
    }
    return buffer;
}

void
hl_loop_take_back_buffer(hl_loop *loop, char *buffer)
{
    if (buffer != NULL && !loop->closed &&
        loop->buffers_count < (int)Py_ARRAY_LENGTH(loop->buffers)) {
        loop->buffers[loop->buffers_count++] = buffer;
        return;
    }
    PyMem_RawFree(buffer);
}

void
hl_loop_free_buffers(hl_loop *loop)
{
    PyMem_RawFree(loop->read_buffer);
    loop->read_buffer = NULL;
    while (loop->buffers_count > 0) {
        PyMem_RawFree(loop->buffers[--loop->buffers_count]);
    }
}
