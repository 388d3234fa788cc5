/* module.c - the extension module hotloop._core.
 *
 * SPDX-License-Identifier: MIT */

#include "base/hotloop.h"

#include "aio/task.h"
#include "aio/work.h"
#include "api/api.h"
#include "io/connect.h"
#include "io/packet.h"
#include "io/reader.h"
#include "io/sock.h"
#include "io/stream.h"
#include "io/stream_op.h"
#include "io/subclass.h"
#include "io/transport.h"
#include "io/writer.h"
#include "loop/handle.h"
#include "tls/tls.h"

PyDoc_STRVAR(libuv_version__doc__,
             "libuv_version($module, /)\n--\n\n"
             "Return the version of the libuv in use, a str.");

static PyObject *
libuv_version(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    return PyUnicode_FromString(uv_version_string());
}

PyDoc_STRVAR(_restore_new__doc__,
             "_restore_new($module, cls, /)\n--\n\n"
             "Undo what setting and deleting cls.__new__ has left behind.");

static PyObject *
_restore_new(PyObject *Py_UNUSED(module), PyObject *cls)
{
    if (!PyType_Check(cls)) {
        PyErr_SetString(PyExc_TypeError, "a class is needed");
        return NULL;
    }
    return hl_subclass_restore_new((PyTypeObject *)cls) < 0
               ? NULL
               : Py_NewRef(Py_None);
}

PyDoc_STRVAR(_set_release__doc__,
             "_set_release($module, names_types, accepts_one_more, "
             "skips_aborted, moves_file, chains_by_thread, "
             "eager_takes_start, checks_context, "
             "tls_looks_below, /)\n--\n\n"
             "Say what this release of asyncio does (hotloop._release).");

static PyObject *
_set_release(PyObject *module, PyObject *args)
{
    int is[8];
    if (!PyArg_ParseTuple(args, "pppppppp:_set_release", &is[0], &is[1],
                          &is[2], &is[3], &is[4], &is[5], &is[6], &is[7])) {
        return NULL;
    }
    hl_state *st = PyModule_GetState(module);
    st->release = (hl_release){
        .names_types = is[0],
        .accepts_one_more = is[1],
        .skips_aborted = is[2],
        .moves_file = is[3],
        .chains_by_thread = is[4],
        .eager_takes_start = is[5],
        .checks_context = is[6],
        .tls_looks_below = is[7],
    };
    Py_RETURN_NONE;
}

static PyMethodDef module_methods[] = {
    {"_restore_new", _restore_new, METH_O, _restore_new__doc__},
    {"_set_release", _set_release, METH_VARARGS, _set_release__doc__},
    {"libuv_version", libuv_version, METH_NOARGS, libuv_version__doc__},
    {NULL, NULL, 0, NULL},
};

static int
module_add_types(PyObject *module, hl_state *st)
{
    PyTypeObject *const types[] = {st->Loop_type,
                                   st->Handle_type,
                                   st->TimerHandle_type,
                                   st->Future_type,
                                   st->Task_type,
                                   st->SocketTransport_type,
                                   st->DatagramTransport_type,
                                   st->ReadPipeTransport_type,
                                   st->WritePipeTransport_type,
                                   st->SockWait_type,
                                   st->Connector_type,
                                   st->SSLTransport_type,
                                   st->StreamReader_type,
                                   st->StreamWriter_type,
                                   st->StreamReaderProtocol_type,
                                   st->StreamOperation_type};
    for (size_t i = 0; i < Py_ARRAY_LENGTH(types); i++) {
        if (PyModule_AddType(module, types[i]) < 0) {
            return -1;
        }
    }
    return 0;
}

static int
module_exec(PyObject *module)
{
    hl_state *st = PyModule_GetState(module);
    if (hl_state_init(module, st) < 0 || hl_context_find_layout(st) < 0 ||
        hl_handle_type_init(module, st) < 0 ||
        hl_loop_type_init(module, st) < 0 ||
        hl_future_type_init(module, st) < 0 ||
        hl_task_type_init(module, st) < 0 ||
        hl_work_type_init(module, st) < 0 ||
        hl_transport_type_init(module, st) < 0 ||
        hl_stream_type_init(module, st) < 0 ||
        hl_datagram_type_init(module, st) < 0 ||
        hl_pipe_types_init(module, st) < 0 ||
        hl_listener_type_init(module, st) < 0 ||
        hl_sock_wait_type_init(module, st) < 0 ||
        hl_connector_type_init(module, st) < 0 ||
        hl_packet_type_init(module, st) < 0 ||
        hl_stream_op_type_init(module, st) < 0 ||
        hl_reader_type_init(module, st) < 0 ||
        hl_stream_protocol_type_init(module, st) < 0 ||
        hl_writer_type_init(module, st) < 0 || hl_streamreader_init(st) < 0 ||
        hl_tls_type_init(module, st) < 0) {
        return -1;
    }
    hl_loop_describe_create_task(st);
    return module_add_types(module, st);
}

static int
module_traverse(PyObject *module, visitproc visit, void *arg)
{
    return hl_state_traverse(PyModule_GetState(module), visit, arg);
}

/* There is no m_clear on purpose: loops keep the module, and so the state they
 * point to, whole until they die.  A collection of all of it is broken open by
 * the types, whose clearing lets go of the module. */
static void
module_free(void *module)
{
    hl_state *st = PyModule_GetState((PyObject *)module);
    hl_stream_op_free_pool(st); /* while it has the type */
    hl_state_clear(st);
    hl_openssl_unload(st);
    PyMem_Free(st->loop_methods);
    PyMem_Free(st->tls_methods);
    st->loop_methods = st->tls_methods = NULL;
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, HL_SLOT(module_exec)},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_SUPPORTED},
#endif
    {0, NULL},
};

PyModuleDef hl_module_def = {
    PyModuleDef_HEAD_INIT,
    .m_name = "hotloop._core",
    .m_doc = "The C core of hotloop: an asyncio event loop over libuv.",
    .m_size = sizeof(hl_state),
    .m_methods = module_methods,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__core(void); /* Python.h declares no init function */

PyMODINIT_FUNC
PyInit__core(void)
{
    return PyModuleDef_Init(&hl_module_def);
}
