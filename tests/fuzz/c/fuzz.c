/* fuzz.c - the interpreter, its memory and the objects of the fuzz targets.
 *
 * SPDX-License-Identifier: MIT */

#include "fuzz.h"

#include <math.h>
#include <unistd.h>

/* How many cases there are between two looks at what free lists hold, and how
 * much that may be. */
#define LOOSE_EVERY 16384
#define LOOSE_MAX 4096

typedef struct {
    PyMemAllocatorEx of[3]; /* what Python had, by domain */
    long blocks[3];
    unsigned fail_in;
    bool failed;
} fuzz_memory;

static fuzz_memory memory;
static PyObject *objects[FUZZ_OBJECTS];
static Py_ssize_t references[FUZZ_OBJECTS];
static long blocks_before[3];
static long loose_before;
static unsigned long cases;
static bool case_failed_allocation;

void
fuzz_failed(const char *file, int line, const char *what)
{
    fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, what);
    if (Py_IsInitialized() && PyErr_Occurred()) {
        PyErr_Print();
    }
    fflush(NULL);
    abort();
}

/* ---- the input ---- */

double
fuzz_time(fuzz_input *in, bool odd)
{
    uint8_t byte = fuzz_byte(in);
    switch (byte) {
    case 0xff:
        return HUGE_VAL;
    case 0xfe:
        return -HUGE_VAL;
    case 0xfd:
        return odd ? (double)NAN : 1e300;
    case 0xfc:
        return 1e9 + fuzz_byte(in);
    default:
        return byte / 4;
    }
}

size_t
fuzz_bytes(fuzz_input *in, size_t max, const uint8_t **at)
{
    size_t size = Py_MIN(max, in->left);
    *at = in->data;
    in->data += size;
    in->left -= size;
    return size;
}

/* ---- memory ---- */

static bool
memory_fails(void)
{
    if (memory.fail_in == 0 || --memory.fail_in > 0) {
        return false;
    }
    memory.failed = case_failed_allocation = true;
    return true;
}

static int
domain_of(void *ctx)
{
    return (int)((PyMemAllocatorEx *)ctx - memory.of);
}

static void *
count_block(void *ctx, void *block)
{
    memory.blocks[domain_of(ctx)] += block != NULL;
    return block;
}

static void *
counting_malloc(void *ctx, size_t size)
{
    PyMemAllocatorEx *of = ctx;
    return memory_fails() ? NULL : count_block(ctx, of->malloc(of->ctx, size));
}

static void *
counting_calloc(void *ctx, size_t count, size_t size)
{
    PyMemAllocatorEx *of = ctx;
    return memory_fails() ? NULL
                          : count_block(ctx, of->calloc(of->ctx, count, size));
}

static void *
counting_realloc(void *ctx, void *block, size_t size)
{
    PyMemAllocatorEx *of = ctx;
    if (memory_fails()) {
        return NULL;
    }
    void *moved = of->realloc(of->ctx, block, size);
    return block == NULL ? count_block(ctx, moved) : moved;
}

static void
counting_free(void *ctx, void *block)
{
    PyMemAllocatorEx *of = ctx;
    memory.blocks[domain_of(ctx)] -= block != NULL;
    of->free(of->ctx, block);
}

static void
memory_watch(void)
{
    for (int domain = 0; domain < 3; domain++) {
        PyMemAllocatorEx *of = &memory.of[domain];
        PyMem_GetAllocator((PyMemAllocatorDomain)domain, of);
        PyMemAllocatorEx counting = {of, counting_malloc, counting_calloc,
                                     counting_realloc, counting_free};
        PyMem_SetAllocator((PyMemAllocatorDomain)domain, &counting);
    }
}

void
fuzz_fail_allocation(unsigned n)
{
    memory.fail_in = n;
    memory.failed = false;
}

bool
fuzz_allocation_failed(void)
{
    bool failed = memory.failed;
    fuzz_fail_allocation(0);
    if (failed) {
        PyErr_Clear();
    }
    return failed;
}

/* ---- the interpreter ---- */

static void
start_python(void)
{
    /* Overruns of the blocks of Python's own allocator would not be seen. */
    PyPreConfig pre;
    PyPreConfig_InitPythonConfig(&pre);
    pre.allocator = PYMEM_ALLOCATOR_MALLOC;
    PyConfig config;
    FUZZ_CHECK(!PyStatus_Exception(Py_PreInitialize(&pre)));
    PyConfig_InitPythonConfig(&config);
    config.install_signal_handlers = 0;
    config.parse_argv = 0;
#ifdef FUZZ_PYTHON
    PyConfig_SetBytesString(&config, &config.executable, FUZZ_PYTHON);
#endif
    FUZZ_CHECK(!PyStatus_Exception(Py_InitializeFromConfig(&config)));
    PyConfig_Clear(&config);
    memory_watch();
    for (size_t i = 0; i < FUZZ_OBJECTS; i++) {
        objects[i] = PyList_New(0);
        FUZZ_CHECK(objects[i] != NULL);
    }
}

PyObject *
fuzz_object(size_t i)
{
    return objects[i % FUZZ_OBJECTS];
}

Py_ssize_t
fuzz_references(size_t i)
{
    return Py_REFCNT(fuzz_object(i)) - 1;
}

void
fuzz_begin(void)
{
    if (!Py_IsInitialized()) {
        start_python();
    }
    fuzz_fail_allocation(0);
    case_failed_allocation = false;
    memcpy(blocks_before, memory.blocks, sizeof(blocks_before));
    for (size_t i = 0; i < FUZZ_OBJECTS; i++) {
        references[i] = Py_REFCNT(objects[i]);
    }
}

/* What grows from case to case is no free list. */
static void
check_loose(void)
{
    if (++cases % LOOSE_EVERY != 0) {
        return;
    }
    long blocks = memory.blocks[0] + memory.blocks[1] + memory.blocks[2];
    if (cases == LOOSE_EVERY) {
        loose_before = blocks;
    }
    FUZZ_CHECK(blocks < loose_before + LOOSE_MAX);
}

void
fuzz_end(bool loose)
{
    FUZZ_CHECK(PyErr_Occurred() == NULL);
    for (size_t i = 0; i < FUZZ_OBJECTS; i++) {
        FUZZ_CHECK(Py_REFCNT(objects[i]) == references[i]);
    }
    check_loose();
    for (int domain = 0; domain < 3 && !loose; domain++) {
        /* A MemoryError that was made goes to a free list. */
        if (domain != PYMEM_DOMAIN_OBJ || !case_failed_allocation) {
            FUZZ_CHECK(memory.blocks[domain] == blocks_before[domain]);
        }
    }
}

int
fuzz_next_fd(void)
{
    int fd = dup(STDERR_FILENO);
    FUZZ_CHECK(fd >= 0);
    close(fd);
    return fd;
}

hl_state *
fuzz_state(PyObject **module)
{
    static PyModuleDef def = {PyModuleDef_HEAD_INIT, .m_name = "fuzz",
                              .m_size = sizeof(hl_state)};
    *module = PyModule_Create(&def);
    FUZZ_CHECK(*module != NULL);
    return PyModule_GetState(*module);
}
