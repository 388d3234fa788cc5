/* reader_scan.c - fuzzes io/reader_scan: a search that goes on where it stopped
 * finds what one from the start does.
 *
 * Its file is included for its insides: what would make a future, which is not
 * what is tested here, only says that the operation waits.
 * SPDX-License-Identifier: MIT */

#define _GNU_SOURCE

#include "fuzz.h"

#define hl_op_wait_for_data fuzz_wait_for_data
#define hl_op_take fuzz_take
#define hl_reader_incomplete fuzz_incomplete
#define hl_op_end_wait fuzz_end_wait
#define hl_reader_maybe_resume fuzz_maybe_resume
#define hl_reader_raise fuzz_raise

#include "io/reader_scan.c"

#define MODEL_MAX 4096

static hl_state *st;
static hl_reader reader;
static hl_stream_op op;
static bool active, is_line, ended;
static Py_ssize_t model_offset; /* what asyncio's loop goes by */
static char model[MODEL_MAX + 256];
static Py_ssize_t count;

/* ---- what stands in for the rest of the reader ---- */

int
fuzz_wait_for_data(hl_stream_op *Py_UNUSED(one), const char *Py_UNUSED(method))
{
    return 0;
}

int
fuzz_take(hl_reader *self, Py_ssize_t size, PyObject **result)
{
    *result = hl_reader_take(self, size);
    return *result == NULL ? -1 : 1;
}

int
fuzz_incomplete(hl_reader *self, PyObject *Py_UNUSED(expected))
{
    PyObject *partial = hl_reader_take(self, hl_reader_size(self));
    FUZZ_CHECK(partial != NULL);
    PyObject *exc = PyObject_CallFunctionObjArgs(st->IncompleteReadError,
                                                 partial, Py_None, NULL);
    Py_DECREF(partial);
    FUZZ_CHECK(exc != NULL);
    hl_error_restore(exc);
    return -1;
}

void
fuzz_end_wait(hl_stream_op *Py_UNUSED(one))
{
}

int
fuzz_maybe_resume(hl_reader *Py_UNUSED(self))
{
    return 0;
}

int
fuzz_raise(hl_reader *Py_UNUSED(self))
{
    return -1;
}

static void
set_up(void)
{
    PyObject *module;
    st = fuzz_state(&module);
    PyObject *exceptions = PyImport_ImportModule("asyncio.exceptions");
    FUZZ_CHECK(exceptions != NULL);
    st->LimitOverrunError =
        PyObject_GetAttrString(exceptions, "LimitOverrunError");
    st->IncompleteReadError =
        PyObject_GetAttrString(exceptions, "IncompleteReadError");
    Py_DECREF(exceptions);
}

/* ---- the model ---- */

typedef enum {
    WAITS,
    FOUND,
    FOUND_TOO_LONG,
    OVERRUN,
    AT_END
} outcome;

static bool
matches_at(PyObject *separator, Py_ssize_t start)
{
    return memcmp(model + start, PyBytes_AS_STRING(separator),
                  (size_t)PyBytes_GET_SIZE(separator)) == 0;
}

/* The match from model_offset on that ends first. */
static bool
model_find(PyObject *separators, Py_ssize_t *start, Py_ssize_t *end)
{
    for (*end = 1; *end <= count; ++*end) {
        for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(separators); i++) {
            PyObject *one = PyTuple_GET_ITEM(separators, i);
            *start = *end - PyBytes_GET_SIZE(one);
            if (*start >= model_offset && matches_at(one, *start)) {
                return true;
            }
        }
    }
    return false;
}

/* The separators of the operation as a tuple: new reference. */
static PyObject *
op_separators(void)
{
    if (op.arg != NULL && PyTuple_Check(op.arg)) {
        return Py_NewRef(op.arg);
    }
    PyObject *one =
        op.arg == NULL ? PyBytes_FromString("\n") : Py_NewRef(op.arg);
    PyObject *tuple = PyTuple_Pack(1, one);
    Py_DECREF(one);
    return tuple;
}

static outcome
model_step(Py_ssize_t *size)
{
    PyObject *separators = op_separators();
    Py_ssize_t n = PyTuple_GET_SIZE(separators), start, end;
    Py_ssize_t most = PyBytes_GET_SIZE(PyTuple_GET_ITEM(separators, n - 1));
    Py_ssize_t least = PyBytes_GET_SIZE(PyTuple_GET_ITEM(separators, 0));
    bool found = model_find(separators, &start, &end);
    Py_DECREF(separators);
    if (found) {
        *size = start > reader.limit ? start : end;
        return start > reader.limit ? FOUND_TOO_LONG : FOUND;
    }
    if (count - model_offset >= least) {
        model_offset = Py_MAX(0, count + 1 - most);
        if (model_offset > reader.limit) {
            *size = model_offset;
            return OVERRUN;
        }
    }
    *size = count;
    return ended ? AT_END : WAITS;
}

static void
model_drop(Py_ssize_t size)
{
    memmove(model, model + size, (size_t)(count - size));
    count -= size;
}

/* ---- the operation ---- */

/* A readline() drops what is too long, and says so with another error. */
static void
check_overrun(Py_ssize_t consumed, PyObject *error)
{
    PyObject *number = PyObject_GetAttrString(error, "consumed");
    FUZZ_CHECK(number != NULL && PyLong_AsSsize_t(number) == consumed);
    Py_DECREF(number);
}

static void
check_raised(outcome expected, Py_ssize_t size, PyObject *partial)
{
    PyObject *type = expected == AT_END ? st->IncompleteReadError
                     : is_line          ? PyExc_ValueError
                                        : st->LimitOverrunError;
    FUZZ_CHECK(PyErr_ExceptionMatches(type));
    PyObject *error = hl_error_fetch();
    if (expected == AT_END) {
        PyObject *got = PyObject_GetAttrString(error, "partial");
        FUZZ_CHECK(PyObject_RichCompareBool(got, partial, Py_EQ) == 1);
        Py_DECREF(got);
        model_drop(count);
    }
    else if (!is_line) {
        check_overrun(size, error);
    }
    else { /* up to the newline, or everything */
        model_drop(size < count && model[size] == '\n' ? size + 1 : count);
    }
    Py_DECREF(error);
}

static void
op_end(void)
{
    active = false;
    Py_CLEAR(op.arg);
}

static void
op_step(bool first)
{
    PyObject *result = NULL;
    Py_ssize_t size;
    outcome expected = model_step(&size);
    PyObject *content = PyBytes_FromStringAndSize(model, size);
    const hl_stream_op_kind *kind = op.kind;
    int rv = first ? kind->begin(&op, &result) : kind->go_on(&op, &result);
    if (rv < 0 && kind->failed != NULL) {
        rv = kind->failed(&op, &result);
    }
    if (expected == AT_END && is_line) {
        expected = FOUND;
    }
    FUZZ_CHECK(rv == (expected == WAITS ? 0 : expected == FOUND ? 1 : -1));
    if (rv > 0) {
        FUZZ_CHECK(PyObject_RichCompareBool(result, content, Py_EQ) == 1);
        Py_DECREF(result);
        model_drop(size);
    }
    else if (rv < 0) {
        check_raised(expected, size, content);
    }
    Py_DECREF(content);
    if (rv != 0) {
        op_end();
    }
}

/* ---- the steps ---- */

/* Few different bytes, so that separators nearly match. */
static char
letter(uint8_t byte)
{
    return "aab\n"[byte & 3];
}

static PyObject *
make_separator(fuzz_input *in)
{
    char text[8];
    Py_ssize_t size = fuzz_upto(in, 40) == 0 ? 0 : fuzz_upto(in, 5) + 1;
    for (Py_ssize_t i = 0; i < size; i++) {
        text[i] = letter(fuzz_byte(in));
    }
    return PyBytes_FromStringAndSize(text, size);
}

static PyObject *
make_separators(fuzz_input *in)
{
    uint32_t n = fuzz_upto(in, 4);
    if (n < 2 || PY_VERSION_HEX < 0x030D0000) {
        return make_separator(in);
    }
    PyObject *tuple = PyTuple_New((Py_ssize_t)n - 2);
    for (uint32_t i = 0; i < n - 2; i++) {
        PyTuple_SET_ITEM(tuple, i, make_separator(in));
    }
    return tuple;
}

static bool
is_refused(PyObject *arg)
{
    Py_ssize_t n = separators_count(arg);
    return n == 0 || PyBytes_GET_SIZE(separators_get(arg, 0)) == 0;
}

static void
begin(fuzz_input *in)
{
    if (active) {
        op_end(); /* cancelled: the next one is none the wiser */
    }
    memset(&op, 0, sizeof(op));
    op.st = st;
    op.owner = (PyObject *)&reader;
    is_line = fuzz_byte(in) & 1;
    op.kind = is_line ? &hl_op_readline : &hl_op_readuntil;
    if (!is_line) {
        PyObject *separators = make_separators(in);
        FUZZ_CHECK(separators != NULL);
        op.arg = hl_reader_separators(separators);
        Py_DECREF(separators);
        FUZZ_CHECK(op.arg != NULL);
        if (is_refused(op.arg)) {
            PyObject *result;
            FUZZ_CHECK(op.kind->begin(&op, &result) < 0);
            FUZZ_CHECK(PyErr_ExceptionMatches(PyExc_ValueError));
            PyErr_Clear();
            op_end();
            return;
        }
    }
    model_offset = 0;
    active = true;
    op_step(true);
}

static void
feed(fuzz_input *in)
{
    Py_ssize_t size = fuzz_upto(in, fuzz_byte(in) & 1 ? 100 : 6);
    if (ended || count > MODEL_MAX || size == 0) {
        return;
    }
    for (Py_ssize_t i = 0; i < size; i++) {
        model[count + i] = letter(i % 16 < 8 ? fuzz_byte(in) : (uint8_t)i);
    }
    FUZZ_CHECK(hl_reader_append(&reader, model + count, size) == 0);
    count += size;
}

static void
step(fuzz_input *in)
{
    switch (fuzz_upto(in, 11)) {
    case 0:
    case 1:
    case 2:
    case 3:
    case 4:
        feed(in);
        if (active) {
            op_step(false);
        }
        break;
    case 5:
    case 6:
    case 7:
    case 8:
        begin(in);
        break;
    case 9: /* another kind of read, while nobody waits */
        if (!active && count > 0) {
            Py_ssize_t size = fuzz_upto(in, (uint32_t)count);
            FUZZ_CHECK(hl_reader_drop(&reader, size) == 0);
            model_drop(size);
        }
        break;
    case 10: /* somebody changes the content itself */
        if (fuzz_byte(in) % 8 == 0) {
            FUZZ_CHECK(hl_reader_expose(&reader) != NULL);
        }
        if (reader.exposed != NULL && count > 0) {
            Py_ssize_t i = fuzz_upto(in, (uint32_t)count - 1);
            model[i] = letter(fuzz_byte(in));
            PyByteArray_AS_STRING(reader.exposed)[i] = model[i];
        }
        break;
    default:
        if (fuzz_byte(in) % 4 == 0) {
            ended = reader.eof = true;
            if (active) {
                op_step(false);
            }
        }
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_input in = {data, size};
    if (st == NULL) {
        fuzz_begin();
        set_up();
    }
    fuzz_begin();
    memset(&reader, 0, sizeof(reader));
    reader.limit = fuzz_upto(&in, 120) + 1;
    count = 0;
    active = ended = false;
    while (fuzz_more(&in)) {
        step(&in);
        FUZZ_CHECK(hl_reader_size(&reader) == count);
    }
    if (active) {
        op_end();
    }
    const char *content = hl_reader_data(&reader);
    FUZZ_CHECK(memcmp(content, model, (size_t)count) == 0);
    Py_CLEAR(reader.store);
    Py_CLEAR(reader.full);
    Py_CLEAR(reader.exposed);
    fuzz_end(true);
    return 0;
}
