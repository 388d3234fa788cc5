/* address.c - fuzzes io/address: what goes to Python comes back the same, and
 * what Python gives is taken for what inet_pton() takes it for.
 *
 * SPDX-License-Identifier: MIT */

#include "fuzz.h"

#include "io/address.h"

#include <arpa/inet.h>
#include <stddef.h>

#define PATH_HEAD offsetof(struct sockaddr_un, sun_path)

/* ---- from the system, and back ---- */

static void
inet_back(int family, const hl_address *raw, PyObject *value)
{
    hl_address back;
    socklen_t size;
    FUZZ_CHECK(PyTuple_Check(value));
    bool taken = hl_address_from_python(family, value, &back, &size);
    if (family == AF_INET) {
        FUZZ_CHECK(taken && size == sizeof(back.in));
        FUZZ_CHECK(back.in.sin_port == raw->in.sin_port &&
                   back.in.sin_addr.s_addr == raw->in.sin_addr.s_addr);
        return;
    }
    /* Python does not take back more than the 20 bits of a flow label. */
    FUZZ_CHECK(taken == (ntohl(raw->in6.sin6_flowinfo) <= 0xfffff));
    if (taken) {
        FUZZ_CHECK(size == sizeof(back.in6));
        FUZZ_CHECK(back.in6.sin6_port == raw->in6.sin6_port &&
                   back.in6.sin6_flowinfo == raw->in6.sin6_flowinfo &&
                   back.in6.sin6_scope_id == raw->in6.sin6_scope_id);
        FUZZ_CHECK(memcmp(&back.in6.sin6_addr, &raw->in6.sin6_addr,
                          sizeof(back.in6.sin6_addr)) == 0);
    }
}

static void
unix_back(const hl_address *raw, size_t size, PyObject *value)
{
    hl_address back;
    size_t room = size > PATH_HEAD ? size - PATH_HEAD : 0;
    const char *path = raw->un.sun_path;
    size_t length = strnlen(path, room);
    size_t got = hl_address_from_name(&back, value);
    if (room > 0 && path[0] == '\0') { /* an abstract name */
        FUZZ_CHECK(PyBytes_Check(value));
        FUZZ_CHECK((size_t)PyBytes_GET_SIZE(value) == room);
        FUZZ_CHECK(got == size);
    }
    else if (length == 0 || length == sizeof(raw->un.sun_path)) {
        FUZZ_CHECK(got == 0); /* unnamed; or without room for the NUL */
        return;
    }
    else {
        FUZZ_CHECK(PyUnicode_Check(value) && got == PATH_HEAD + length + 1);
    }
    FUZZ_CHECK(memcmp(back.un.sun_path, path, got - PATH_HEAD - 1) == 0);
}

static void
from_system(fuzz_input *in)
{
    static const int families[] = {AF_INET, AF_INET6, AF_UNIX};
    int family = families[fuzz_upto(in, 2)];
    size_t max = family == AF_INET    ? sizeof(struct sockaddr_in)
                 : family == AF_INET6 ? sizeof(struct sockaddr_in6)
                                      : sizeof(struct sockaddr_un);
    size_t whole = fuzz_upto(in, 3) == 0 ? fuzz_upto(in, (uint32_t)max) : max;
    size_t size = Py_MAX(whole, sizeof(sa_family_t));
    const uint8_t *bytes;
    hl_address raw;
    memset(&raw, 0, sizeof(raw));
    size_t got = fuzz_bytes(in, size, &bytes);
    memcpy(&raw, bytes, got);
    memset((char *)&raw + size, 0, sizeof(raw) - size);
    raw.sa.sa_family = (sa_family_t)family;
    /* Not aligned, and nothing behind it. */
    char *odd = malloc(size + 1);
    FUZZ_CHECK(odd != NULL && hl_address_is_known(family));
    memcpy(odd + 1, &raw, size);
    PyObject *value = hl_address_to_python(odd + 1, size);
    free(odd);
    FUZZ_CHECK(value != NULL);
    if (family == AF_UNIX) {
        unix_back(&raw, size, value);
    }
    else {
        inet_back(family, &raw, value);
    }
    Py_DECREF(value);
}

/* ---- from Python ---- */

/* A part of an address: what belongs there, or another object. */
static PyObject *
make_part(fuzz_input *in)
{
    const uint8_t *bytes;
    size_t size;
    switch (fuzz_upto(in, 8)) {
    case 0:
        return PyLong_FromLong(fuzz_upto(in, 70000));
    case 1:
        return PyLong_FromLong(-(long)fuzz_byte(in));
    case 2:
        return PyLong_FromUnsignedLongLong(UINT64_C(1) << fuzz_upto(in, 63));
    case 3:
        return PyLong_FromString("123456789012345678901234567890", NULL, 10);
    case 4:
        return PyFloat_FromDouble(fuzz_time(in, true));
    case 5:
        return Py_NewRef(fuzz_byte(in) & 1 ? Py_None : Py_True);
    case 6:
        size = fuzz_bytes(in, fuzz_upto(in, 130), &bytes);
        return PyBytes_FromStringAndSize((const char *)bytes,
                                         (Py_ssize_t)size);
    case 7:
        size = fuzz_bytes(in, fuzz_upto(in, 130), &bytes);
        return PyUnicode_DecodeUTF8((const char *)bytes, (Py_ssize_t)size,
                                    "surrogateescape");
    default:
        size = fuzz_bytes(in, fuzz_upto(in, 60), &bytes);
        return PyUnicode_DecodeLatin1((const char *)bytes, (Py_ssize_t)size,
                                      NULL);
    }
}

/* The number where it is a plain int from 0 to max, else -1. */
static long long
model_number(PyObject *value, long long max)
{
    long long number = -1;
    if (PyLong_CheckExact(value)) {
        number = PyLong_AsLongLong(value);
        PyErr_Clear();
    }
    return number < 0 || number > max ? -1 : number;
}

static bool
model_host(int family, PyObject *value, void *to)
{
    Py_ssize_t size = 0;
    const char *text =
        PyUnicode_Check(value) ? PyUnicode_AsUTF8AndSize(value, &size) : NULL;
    PyErr_Clear();
    return text != NULL && strlen(text) == (size_t)size &&
           inet_pton(family, text, to) == 1;
}

static void
check_tuple(int family, PyObject *value)
{
    static const long long most[] = {0, 0xffff, 0xfffff, 0xffffffff};
    long long numbers[4] = {0, 0, 0, 0};
    struct in6_addr host;
    Py_ssize_t count = PyTuple_GET_SIZE(value);
    bool good = count >= 2 && count <= (family == AF_INET ? 2 : 4) &&
                model_host(family, PyTuple_GET_ITEM(value, 0), &host);
    for (Py_ssize_t i = 1; i < count && good; i++) {
        numbers[i] = model_number(PyTuple_GET_ITEM(value, i), most[i]);
        good = numbers[i] >= 0;
    }
    hl_address address;
    socklen_t size;
    FUZZ_CHECK(hl_address_from_python(family, value, &address, &size) == good);
    if (good && family == AF_INET) {
        FUZZ_CHECK(memcmp(&address.in.sin_addr, &host, 4) == 0);
        FUZZ_CHECK(ntohs(address.in.sin_port) == numbers[1]);
    }
    if (good && family == AF_INET6) {
        FUZZ_CHECK(memcmp(&address.in6.sin6_addr, &host, sizeof(host)) == 0);
        FUZZ_CHECK(ntohs(address.in6.sin6_port) == numbers[1] &&
                   ntohl(address.in6.sin6_flowinfo) == numbers[2] &&
                   address.in6.sin6_scope_id == numbers[3]);
    }
}

static void
check_name(PyObject *value)
{
    hl_address address;
    size_t got = hl_address_from_name(&address, value);
    FUZZ_CHECK(got <= sizeof(address.un));
    if (got > 0) {
        PyObject *back = hl_address_to_python(&address, got);
        FUZZ_CHECK(back != NULL);
        PyObject *bytes = PyUnicode_Check(value)
                              ? PyUnicode_EncodeFSDefault(value)
                              : Py_NewRef(value);
        PyObject *again = PyUnicode_Check(back)
                              ? PyUnicode_EncodeFSDefault(back)
                              : Py_NewRef(back);
        FUZZ_CHECK(PyObject_RichCompareBool(bytes, again, Py_EQ) == 1);
        Py_DECREF(again);
        Py_DECREF(bytes);
        Py_DECREF(back);
    }
}

static void
from_python(fuzz_input *in)
{
    uint32_t choice = fuzz_byte(in);
    uint32_t count = fuzz_upto(in, 5);
    PyObject *value = PyTuple_New(count);
    FUZZ_CHECK(value != NULL);
    for (uint32_t i = 0; i < count; i++) {
        PyObject *part = i == 1 && choice & 2
                             ? PyLong_FromLong(fuzz_upto(in, 65535))
                             : make_part(in);
        FUZZ_CHECK(part != NULL);
        PyTuple_SET_ITEM(value, i, part);
    }
    check_tuple(choice & 1 ? AF_INET : AF_INET6, value);
    for (uint32_t i = 0; i < count; i++) {
        check_name(PyTuple_GET_ITEM(value, i));
    }
    Py_DECREF(value);
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
            from_python(&in);
        }
        FUZZ_CHECK(PyErr_Occurred() == NULL);
    }
    fuzz_end(true);
    return 0;
}
