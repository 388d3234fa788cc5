/* reader_buffer.c - fuzzes io/reader_buffer: the bytes that wait are those of a
 * plain array, whatever store they are in.
 *
 * SPDX-License-Identifier: MIT */

#include "fuzz.h"

#include "io/reader.h"

#define MODEL_MAX 600000
#define PIECE_MAX 50000

static hl_reader reader;
static char model[MODEL_MAX + PIECE_MAX];
static size_t count;
static uint8_t filler;
static PyObject *view; /* somebody uses the bytearray, which keeps its size */

static size_t
some_size(fuzz_input *in)
{
    static const uint32_t most[] = {3, 300, 1100, 2100, PIECE_MAX, 40000};
    return fuzz_upto(in, most[fuzz_upto(in, 5)]);
}

static void
expect(bool failed, PyObject *type)
{
    FUZZ_CHECK(failed == (PyErr_Occurred() != NULL));
    FUZZ_CHECK(!failed || PyErr_ExceptionMatches(type) ||
               PyErr_ExceptionMatches(PyExc_MemoryError));
    PyErr_Clear();
}

/* As feed_data(): who waits for so many bytes is woken. */
static void
grown(void)
{
    if (reader.need > 0 && hl_reader_size(&reader) >= reader.need) {
        reader.need = 0;
    }
}

static void
append(size_t size, unsigned fail)
{
    if (count > MODEL_MAX || size == 0) {
        return;
    }
    char *data = malloc(size);
    FUZZ_CHECK(data != NULL);
    for (size_t i = 0; i < size; i++) {
        data[i] = (char)(filler++ * 3);
    }
    fuzz_fail_allocation(fail);
    int rv = hl_reader_append(&reader, data, (Py_ssize_t)size);
    fuzz_fail_allocation(0);
    expect(rv < 0, PyExc_BufferError);
    if (rv == 0) {
        memcpy(model + count, data, size);
        count += size;
        grown();
    }
    free(data);
}

/* What is received into the room. */
static void
receive(size_t size)
{
    Py_ssize_t room;
    char *at = reader.need == 0 ? NULL : hl_reader_room(&reader, &room);
    if (at == NULL || count > MODEL_MAX) {
        return;
    }
    FUZZ_CHECK(room > 0 && hl_reader_size(&reader) + room <= reader.need);
    memset(at + room - 1, 0, 1);
    size = Py_MIN(size, (size_t)room);
    for (size_t i = 0; i < size; i++) {
        at[i] = model[count + i] = (char)(filler++ * 5);
    }
    hl_reader_commit(&reader, (Py_ssize_t)size);
    count += size;
    grown();
}

static void
forget(size_t size)
{
    memmove(model, model + size, count - size);
    count -= size;
}

static void
take(size_t size, unsigned fail)
{
    size = Py_MIN(size, count);
    fuzz_fail_allocation(fail);
    PyObject *taken = hl_reader_take(&reader, (Py_ssize_t)size);
    fuzz_fail_allocation(0);
    expect(taken == NULL, PyExc_BufferError);
    if (taken == NULL && fail > 0 && hl_reader_size(&reader) == 0) {
        forget(size); /* its store could not be made smaller */
    }
    if (taken != NULL) {
        FUZZ_CHECK(PyBytes_GET_SIZE(taken) == (Py_ssize_t)size);
        FUZZ_CHECK(memcmp(PyBytes_AS_STRING(taken), model, size) == 0);
        FUZZ_CHECK(PyBytes_AS_STRING(taken)[size] == '\0');
        forget(size);
        Py_DECREF(taken);
    }
}

static void
drop(size_t size, unsigned fail)
{
    size = Py_MIN(size, count);
    fuzz_fail_allocation(fail);
    int rv = hl_reader_drop(&reader, (Py_ssize_t)size);
    fuzz_fail_allocation(0);
    expect(rv < 0, PyExc_BufferError);
    if (rv == 0) {
        forget(size);
    }
}

/* As readexactly() begins to wait; a read of another kind may end it. */
static void
want(size_t size)
{
    reader.need = 0;
    if (size > count) {
        hl_reader_reserve(&reader, (Py_ssize_t)size);
        reader.need = (Py_ssize_t)size;
    }
}

static void
expose(unsigned fail)
{
    fuzz_fail_allocation(fail);
    PyObject *exposed = hl_reader_expose(&reader);
    fuzz_fail_allocation(0);
    expect(exposed == NULL, PyExc_MemoryError);
    FUZZ_CHECK(exposed == NULL || PyByteArray_CheckExact(exposed));
}

/* What the program does with it. */
static void
use_exposed(fuzz_input *in)
{
    if (view != NULL) {
        Py_CLEAR(view);
    }
    else if (reader.exposed != NULL && fuzz_byte(in) & 1) {
        view = PyMemoryView_FromObject(reader.exposed);
        FUZZ_CHECK(view != NULL);
    }
    else if (reader.exposed != NULL && count > 0) {
        size_t i = fuzz_upto(in, 300) % count;
        PyByteArray_AS_STRING(reader.exposed)[i] = model[i] = 'x';
    }
    else if (count < MODEL_MAX) {
        size_t size = fuzz_upto(in, 300);
        memset(model, '=', size);
        PyObject *other =
            PyByteArray_FromStringAndSize(model, (Py_ssize_t)size);
        FUZZ_CHECK(other != NULL);
        hl_reader_replace(&reader, other);
        Py_DECREF(other);
        count = size;
    }
}

static void
check_content(unsigned fail)
{
    fuzz_fail_allocation(fail);
    const char *data = hl_reader_data(&reader);
    fuzz_fail_allocation(0);
    expect(data == NULL, PyExc_MemoryError);
    FUZZ_CHECK(data == NULL || memcmp(data, model, count) == 0);
}

static void
step(fuzz_input *in)
{
    unsigned fail = fuzz_byte(in);
    fail = fail < 192 ? 0 : fail % 4; /* most do not */
    switch (fuzz_upto(in, 9)) {
    case 0:
    case 1:
    case 2:
        append(some_size(in), fail);
        break;
    case 3:
        receive(some_size(in));
        break;
    case 4:
        take(some_size(in), fail);
        break;
    case 5: /* all that was waited for, or all there is */
        take(reader.full != NULL ? (size_t)PyBytes_GET_SIZE(reader.full)
                                 : count,
             fail);
        break;
    case 6:
        drop(some_size(in), fail);
        break;
    case 7:
        want(count + some_size(in));
        break;
    case 8:
        if (fuzz_byte(in) % 4 == 0) { /* rarely: for good, nearly */
            expose(fail);
        }
        else if (reader.exposed != NULL) {
            use_exposed(in);
        }
        break;
    default:
        check_content(fail);
    }
}

static void
check(void)
{
    FUZZ_CHECK(hl_reader_size(&reader) == (Py_ssize_t)count);
    FUZZ_CHECK(reader.exposed == NULL ||
               (reader.store == NULL && reader.full == NULL));
    FUZZ_CHECK(reader.start >= 0 && reader.start <= reader.end);
    FUZZ_CHECK(reader.store == NULL
                   ? reader.end == 0
                   : reader.end <= PyBytes_GET_SIZE(reader.store));
    FUZZ_CHECK(reader.store == NULL || Py_REFCNT(reader.store) == 1);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_input in = {data, size};
    fuzz_begin();
    memset(&reader, 0, sizeof(reader));
    count = 0;
    while (fuzz_more(&in)) {
        step(&in);
        check();
    }
    check_content(0);
    Py_CLEAR(view);
    Py_CLEAR(reader.store);
    Py_CLEAR(reader.full);
    Py_CLEAR(reader.exposed);
    fuzz_end(false);
    return 0;
}
