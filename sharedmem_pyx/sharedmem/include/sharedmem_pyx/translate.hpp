#pragma once
/// \file
/// The C++ exception in flight as a Python exception: `except +set_python_error` in a .pxd.
///
///   | C++                      | Python                                                    |
///   | ------------------------ | --------------------------------------------------------- |
///   | sharedmem::stale_handle  | sharedmem.StaleHandleError, a ValueError                  |
///   | std::invalid_argument    | ValueError                                                |
///   | sharedmem::error         | OSError(errno, text), or its subclass for that errno      |
///   | std::system_error        | OSError(errno, text)                                      |
///   | std::bad_alloc           | MemoryError                                               |
///   | everything else          | RuntimeError                                              |
///
/// Not noexcept: Python up to 3.13 ends daemon threads by unwinding their stacks.
#include <Python.h>

#include <new>
#include <stdexcept>
#include <system_error>

#include <sharedmem/error.hpp>

namespace sharedmem_pyx {

/// Sets an error with a text that may name files, whose names are bytes: decoded as `os.fsdecode` does it.
inline void set_error(PyObject* type, const char* what) {
  PyObject* text = PyUnicode_DecodeFSDefault(what);
  if (text == nullptr) return;
  PyErr_SetObject(type, text);
  Py_DECREF(text);
}

/// Sets sharedmem.StaleHandleError.
inline void set_stale_handle(const char* what) {
  PyObject* module = PyImport_ImportModule("sharedmem.errors");
  PyObject* type = module == nullptr ? nullptr : PyObject_GetAttrString(module, "StaleHandleError");
  Py_XDECREF(module);
  if (type == nullptr) return;
  set_error(type, what);
  Py_DECREF(type);
}

/// Sets OSError, or the subclass that Python has for the number.
inline void set_os_error(int number, const char* what) {
  PyObject* text = PyUnicode_DecodeFSDefault(what);
  PyObject* error = text == nullptr ? nullptr : PyObject_CallFunction(PyExc_OSError, "iO", number, text);
  Py_XDECREF(text);
  if (error == nullptr) return;
  PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(error)), error);
  Py_DECREF(error);
}

/// \pre called while a C++ exception is handled, with the GIL held.
inline int set_python_error() {
  try {
    throw;
  } catch (const sharedmem::stale_handle& e) {
    set_stale_handle(e.what());
  } catch (const std::invalid_argument& e) {
    set_error(PyExc_ValueError, e.what());
  } catch (const std::system_error& e) {
    set_os_error(e.code().value(), e.what());
  } catch (const std::bad_alloc& e) {
    set_error(PyExc_MemoryError, e.what());
  } catch (const std::exception& e) {
    set_error(PyExc_RuntimeError, e.what());
  } catch (...) {
    PyErr_SetString(PyExc_RuntimeError, "an exception of unknown type in C++");
  }
  return -1;
}

}  // namespace sharedmem_pyx
