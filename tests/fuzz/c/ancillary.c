/* ancillary.c - fuzzes io/ancillary: control messages there and back.
 *
 * SPDX-License-Identifier: MIT */

#include "fuzz.h"

#include "io/datagram.h"

#include <sys/socket.h>

/* Whatever the bytes say, the messages are made of them. */
static void
from_system(fuzz_input *in)
{
    const uint8_t *bytes;
    size_t size = fuzz_bytes(in, fuzz_upto(in, 300), &bytes);
    char *control = malloc(size + 1); /* aligned, nothing behind it */
    FUZZ_CHECK(control != NULL);
    control = realloc(control, size > 0 ? size : 1);
    memcpy(control, bytes, size);
    PyObject *list = hl_ancillary_to_python(control, size);
    FUZZ_CHECK(list != NULL && PyList_Check(list));
    size_t total = 0;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); i++) {
        PyObject *item = PyList_GET_ITEM(list, i);
        FUZZ_CHECK(PyTuple_GET_SIZE(item) == 3);
        total += CMSG_LEN((size_t)PyBytes_GET_SIZE(PyTuple_GET_ITEM(item, 2)));
    }
    FUZZ_CHECK(total <= size);
    Py_DECREF(list);
    free(control);
}

static PyObject *
make_number(fuzz_input *in)
{
    int32_t value = 0;
    for (int i = 0; i < 4; i++) {
        value = (int32_t)((uint32_t)value << 8 | fuzz_byte(in));
    }
    return PyLong_FromLong(value);
}

/* A list of messages, or of something else where bad says so. */
static PyObject *
make_messages(fuzz_input *in, bool *bad)
{
    PyObject *list = PyList_New(0);
    FUZZ_CHECK(list != NULL);
    for (uint32_t n = fuzz_upto(in, 5); n > 0; n--) {
        uint32_t kind = fuzz_upto(in, 15);
        const uint8_t *bytes;
        PyObject *level = make_number(in), *type = make_number(in);
        size_t size = fuzz_bytes(in, fuzz_upto(in, 40), &bytes);
        PyObject *data =
            PyBytes_FromStringAndSize((const char *)bytes, (Py_ssize_t)size);
        PyObject *item = NULL;
        switch (kind) {
        case 0:
            item = PyTuple_Pack(2, level, type);
            break;
        case 1:
            item = PyTuple_Pack(3, data, type, data);
            break;
        case 2:
            item = PyTuple_Pack(3, level, type, level);
            break;
        case 3:
            item = PyLong_FromLong(1);
            break;
        default:
            item = PyTuple_Pack(3, level, type, data);
        }
        *bad = *bad || kind < 4;
        FUZZ_CHECK(item != NULL && PyList_Append(list, item) == 0);
        Py_DECREF(item);
        Py_DECREF(data);
        Py_DECREF(type);
        Py_DECREF(level);
    }
    return list;
}

static void
there_and_back(fuzz_input *in)
{
    bool bad = false;
    PyObject *messages = make_messages(in, &bad);
    PyObject *raw = hl_ancillary_to_raw(messages);
    FUZZ_CHECK((raw == NULL) == bad);
    if (bad) {
        FUZZ_CHECK(PyErr_ExceptionMatches(PyExc_TypeError));
        PyErr_Clear();
    }
    else {
        size_t size = (size_t)PyBytes_GET_SIZE(raw);
        char *control = malloc(size > 0 ? size : 1);
        FUZZ_CHECK(control != NULL);
        memcpy(control, PyBytes_AS_STRING(raw), size);
        PyObject *back = hl_ancillary_to_python(control, size);
        FUZZ_CHECK(back != NULL);
        FUZZ_CHECK(PyObject_RichCompareBool(messages, back, Py_EQ) == 1);
        Py_DECREF(back);
        Py_DECREF(raw);
        free(control);
    }
    Py_DECREF(messages);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_input in = {data, size};
    fuzz_begin();
    while (fuzz_more(&in)) {
        if (fuzz_byte(&in) & 1) {
            from_system(&in);
        }
        else {
            there_and_back(&in);
        }
    }
    fuzz_end(true);
    return 0;
}
