/* datagramq.c - fuzzes io/datagramq, with addresses that send when they die.
 *
 * SPDX-License-Identifier: MIT */

#include "fuzz.h"

#include "io/datagramq.h"

#define MODEL_MAX 4096

typedef struct {
    PyObject *data; /* borrowed */
    PyObject *addr; /* NULL: an object of hostile_type */
    PyObject *raw;
    PyObject *ancillary;
} model_item;

static hl_datagramq queue;
static model_item model[MODEL_MAX];
static size_t first, last;
static PyObject *datas[8], *hostile_type;
static unsigned hostile_pushes;

static void check(void);
static void push(uint8_t choice);

/* The queue is in its new state: it may be used. */
static void
hostile_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    type->tp_free(op);
    Py_DECREF(type);
    if (hostile_pushes > 0) {
        hostile_pushes--;
        push((uint8_t)hostile_pushes);
    }
}

static void
set_up(void)
{
    static PyType_Slot slots[] = {{Py_tp_dealloc, (void *)hostile_dealloc},
                                  {0, NULL}};
    static PyType_Spec spec = {.name = "fuzz.Hostile",
                               .basicsize = sizeof(PyObject),
                               .flags = Py_TPFLAGS_DEFAULT,
                               .slots = slots};
    hostile_type = PyType_FromSpec(&spec);
    FUZZ_CHECK(hostile_type != NULL);
    for (int i = 0; i < 8; i++) {
        datas[i] = PyBytes_FromStringAndSize(NULL, i * i * 37);
        FUZZ_CHECK(datas[i] != NULL);
        memset(PyBytes_AS_STRING(datas[i]), i, (size_t)(i * i * 37));
    }
}

static void
push(uint8_t choice)
{
    if (last == MODEL_MAX) {
        return;
    }
    model_item item = {datas[choice % 8], fuzz_object(choice),
                       choice & 16 ? datas[1] : NULL,
                       choice & 32 ? datas[2] : NULL};
    PyObject *addr = item.addr;
    if (choice & 64) {
        addr = PyObject_CallNoArgs(hostile_type);
        item.addr = NULL;
    }
    else {
        Py_INCREF(addr);
    }
    FUZZ_CHECK(addr != NULL);
    model[last] = item;
    if (hl_datagramq_push(&queue, item.data, addr, item.raw, item.ancillary) <
        0) {
        FUZZ_CHECK(PyErr_ExceptionMatches(PyExc_MemoryError));
        PyErr_Clear();
    }
    else {
        last++;
    }
    Py_DECREF(addr);
}

static void
check(void)
{
    size_t bytes = 0;
    FUZZ_CHECK(queue.count == last - first);
    FUZZ_CHECK(queue.head + queue.count <= queue.capacity);
    for (uint32_t i = 0; i < queue.count; i++) {
        const hl_datagram_item *item = hl_datagramq_item(&queue, i);
        const model_item *expected = &model[first + i];
        FUZZ_CHECK(item->data == expected->data);
        FUZZ_CHECK(item->raw == expected->raw);
        FUZZ_CHECK(item->ancillary == expected->ancillary);
        FUZZ_CHECK(expected->addr == NULL
                       ? (PyObject *)Py_TYPE(item->addr) == hostile_type
                       : item->addr == expected->addr);
        bytes += hl_datagram_item_size(item);
    }
    FUZZ_CHECK(queue.bytes == bytes);
}

static void
clear(void)
{
    first = last;
    hl_datagramq_clear(&queue);
}

static void
step(fuzz_input *in)
{
    uint32_t n;
    switch (fuzz_upto(in, 6)) {
    case 0:
    case 1:
        push(fuzz_byte(in));
        break;
    case 2:
        n = fuzz_byte(in);
        for (uint8_t choice = fuzz_byte(in); n > 0; n--) {
            push(choice++);
        }
        break;
    case 3:
        n = fuzz_upto(in, queue.count);
        first += n;
        hl_datagramq_pop(&queue, n);
        break;
    case 4:
        hostile_pushes = fuzz_upto(in, 20);
        break;
    case 5: /* fails if it has to grow */
        fuzz_fail_allocation(1);
        push(fuzz_byte(in) & 63);
        fuzz_fail_allocation(0);
        break;
    default:
        clear();
    }
}

static int
count_visit(PyObject *Py_UNUSED(op), void *arg)
{
    ++*(size_t *)arg;
    return 0;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_input in = {data, size};
    if (hostile_type == NULL) {
        fuzz_begin();
        set_up();
    }
    fuzz_begin();
    first = last = 0;
    hostile_pushes = 0;
    while (fuzz_more(&in)) {
        step(&in);
        check();
    }
    size_t visited = 0;
    FUZZ_CHECK(hl_datagramq_traverse(&queue, count_visit, &visited) == 0);
    FUZZ_CHECK(visited == queue.count);
    hostile_pushes = 0;
    clear();
    FUZZ_CHECK(queue.items == NULL && queue.bytes == 0);
    fuzz_end(false);
    return 0;
}
