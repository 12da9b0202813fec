// The module `sharedmem._core`. Its shared object holds all compiled modules of the package: opening one large
// file takes less time than opening thirty small ones. `sharedmem._startup` has them found in it by name.
//
// This one is written by hand, not by Cython, since it is also what refuses subinterpreters. A module made by Cython
// belongs to the first interpreter that loads it, and NumPy does too: if that were a subinterpreter, the main
// interpreter could no longer import them. So none of them may be loaded before this one has looked.
#include <Python.h>

#include "modules.hpp"

namespace {

constexpr const char* compiled[] = {SHAREDMEM_MODULES};

int execute(PyObject* module) {
  if (PyInterpreterState_Get() != PyInterpreterState_Main()) {
    PyErr_SetString(PyExc_ImportError,
                    "sharedmem works in the main interpreter of a process, not in a subinterpreter");
    return -1;
  }
  PyObject* names = PyFrozenSet_New(nullptr);
  if (names == nullptr) return -1;
  for (const char* text : compiled) {
    PyObject* name = PyUnicode_FromString(text);
    const int added = name == nullptr ? -1 : PySet_Add(names, name);
    Py_XDECREF(name);
    if (added < 0) {
      Py_DECREF(names);
      return -1;
    }
  }
  const int added = PyModule_AddObjectRef(module, "modules", names);
  Py_DECREF(names);
  return added;
}

PyModuleDef_Slot slots[] = {
    {Py_mod_exec, reinterpret_cast<void*>(execute)},
#if PY_VERSION_HEX >= 0x030C0000  // so that those with a GIL of their own get as far as our message
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#if PY_VERSION_HEX >= 0x030D0000
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, nullptr},
};

PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "sharedmem._core",
    .m_doc = "The shared object of the compiled modules; refuses subinterpreters.",
    .m_size = 0,
    .m_methods = nullptr,
    .m_slots = slots,
    .m_traverse = nullptr,
    .m_clear = nullptr,
    .m_free = nullptr,
};

}  // namespace

PyMODINIT_FUNC PyInit__core() { return PyModuleDef_Init(&definition); }
