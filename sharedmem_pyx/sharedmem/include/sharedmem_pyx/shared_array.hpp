#pragma once
/// \file
/// The class SharedArray: an ndarray that carries a reference to its block behind ndarray's own bytes.
///
/// A static type without a dict and not tracked by the garbage collector, so that a shared array costs
/// what an ndarray costs. It defines no `__array_finalize__`: views, slices and copies are made by NumPy
/// alone, with a tail of zeros. A view keeps its memory alive as any view does, by its base.
///
/// Functions that call Python are not noexcept: up to version 3.13 Python ends a daemon thread that wants the
/// GIL back after the end by `pthread_exit`, which unwinds its stack and must not meet a noexcept function.
/// To be included by one extension module only, after its `import_array`.
#include <numpy/arrayobject.h>
#include <Python.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include <sharedmem/home.hpp>

namespace sharedmem_pyx {

/// What lies behind ndarray's bytes. Zeros: the array's memory is private, or a base's.
struct tail {
  sharedmem::block_ref ref;  // owned
  bool read_only;            // loaded from a read-only handle: never writeable again
  bool large;                // giving the block back may take long
};

/// Blocks of at least this size are allocated, filled and given back without the GIL.
inline constexpr std::uint64_t large_bytes = std::uint64_t{1} << 20;

/// What `__reduce_ex__(protocol)` returns for a SharedArray.
using reducer = PyObject* (*)(PyObject* array, int protocol);

inline PyTypeObject shared_array_type{};  // `make_shared_array_type` fills it in
inline Py_ssize_t tail_offset = 0;

inline PyObject* cannot_reduce(PyObject*, int) {
  PyErr_SetString(PyExc_RuntimeError,
                  "sharedmem has not been imported as a whole: its arrays cannot be pickled");
  return nullptr;
}

inline reducer reduce = cannot_reduce;
inline PyObject* own_reduce = nullptr;  // the type's own `__reduce__`

inline tail* tail_of(PyObject* array) noexcept {
  return reinterpret_cast<tail*>(reinterpret_cast<char*>(array) + tail_offset);
}

inline void dealloc(PyObject* self) {
  tail mine = std::exchange(*tail_of(self), tail{});
  // Weak references are cleared here, and their callbacks may still look at the memory.
  PyArray_Type.tp_dealloc(self);
  if (mine.ref.home == nullptr) return;
  if (mine.large) {
    PyThreadState* thread = PyEval_SaveThread();
    sharedmem::release(mine.ref);
    PyEval_RestoreThread(thread);
  } else {
    sharedmem::release(mine.ref);
  }
}

// `tp_new` stays ndarray's: `ndarray.__new__(type(a), ...)`, as np.ma calls it, refuses types that have another.
inline PyObject* refuse_call(PyObject*, PyObject* const*, std::size_t, PyObject*) {
  PyErr_SetString(PyExc_TypeError,
                  "SharedArray cannot be created directly: use sharedmem.empty, zeros, ones, full or array, "
                  "or asshared for an existing array");
  return nullptr;
}

/// Refuses to call a subclass that has no `__new__` of its own: it would make an array in private memory.
inline int init(PyObject* self, PyObject*, PyObject*) {
  if (Py_TYPE(self)->tp_new != PyArray_Type.tp_new) return 0;
  refuse_call(nullptr, nullptr, 0, nullptr);
  return -1;
}

inline PyObject* array_wrap(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  if (count < 1 || count > 3 || !PyArray_Check(args[0])) {
    PyErr_SetString(PyExc_TypeError,
                    "__array_wrap__ takes an ndarray, a context and whether a scalar is wanted");
    return nullptr;
  }
  auto* result = reinterpret_cast<PyArrayObject*>(args[0]);
  // NumPy 1 does not say whether it wants a scalar: it does, except for the array that was given as `out`.
  const int scalar = count == 3 ? PyObject_IsTrue(args[2]) : args[0] != self;
  if (scalar < 0) return nullptr;
  if (scalar != 0 && PyArray_NDIM(result) == 0) return PyArray_ToScalar(PyArray_DATA(result), result);
  return Py_NewRef(args[0]);
}

inline PyObject* array_prepare(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count < 1 || count > 2) {
    PyErr_SetString(PyExc_TypeError, "__array_prepare__ takes an ndarray and a context");
    return nullptr;
  }
  return Py_NewRef(args[0]);
}

inline PyObject* setflags(PyObject* self, PyObject* args, PyObject* keywords) {
  static const char* const names[] = {"write", "align", "uic", nullptr};
  PyObject *write = Py_None, *align = Py_None, *uic = Py_None;
  if (!PyArg_ParseTupleAndKeywords(args, keywords, "|OOO:setflags", const_cast<char**>(names), &write, &align,
                                   &uic))
    return nullptr;
  const int wanted = write == Py_None ? 0 : PyObject_IsTrue(write);
  if (wanted < 0) return nullptr;
  auto* array = reinterpret_cast<PyArrayObject*>(self);
  // NumPy warns when an array without a base that does not own its data becomes writeable: that may be
  // memory of any kind. This is not.
  const bool ours = wanted != 0 && tail_of(self)->ref.home != nullptr && PyArray_BASE(array) == nullptr;
  if (ours && tail_of(self)->read_only) {
    PyErr_SetString(PyExc_ValueError,
                    "cannot set WRITEABLE flag to True of this array: it was sent read-only");
    return nullptr;
  }
  PyObject* base = PyObject_GetAttrString(reinterpret_cast<PyObject*>(&PyArray_Type), "setflags");
  if (base == nullptr) return nullptr;
  PyObject* done = PyObject_CallFunctionObjArgs(base, self, ours ? Py_None : write, align, uic, nullptr);
  Py_DECREF(base);
  if (done != nullptr && ours) PyArray_ENABLEFLAGS(array, NPY_ARRAY_WRITEABLE);
  return done;
}

inline PyObject* reduce_ex(PyObject* self, PyObject* protocol) {
  const long number = PyLong_AsLong(protocol);
  if (number == -1 && PyErr_Occurred() != nullptr) return nullptr;
  if (Py_TYPE(self) != &shared_array_type) {
    // A subclass that defines `__reduce__` alone is asked there, as object.__reduce_ex__ does.
    PyObject* theirs = PyObject_GetAttrString(reinterpret_cast<PyObject*>(Py_TYPE(self)), "__reduce__");
    if (theirs == nullptr) return nullptr;
    const bool overridden = theirs != own_reduce;
    Py_DECREF(theirs);
    if (overridden) return PyObject_CallMethod(self, "__reduce__", nullptr);
  }
  return reduce(self, static_cast<int>(std::clamp(number, 0L, 5L)));
}

inline PyObject* reduce_2(PyObject* self, PyObject*) { return reduce(self, 2); }

/// As ndarray's; an empty state, which a handle of a subclass has, leaves the array as it is.
inline PyObject* setstate(PyObject* self, PyObject* state) {
  if (PyTuple_Check(state) && PyTuple_GET_SIZE(state) == 0) Py_RETURN_NONE;
  return PyObject_CallMethod(reinterpret_cast<PyObject*>(&PyArray_Type), "__setstate__", "OO", self, state);
}

inline PyMethodDef* methods() noexcept {
  // Without the casts to void a compiler warns of the signature, which METH_FASTCALL describes.
  static PyMethodDef table[] = {
      {"__array_wrap__", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(array_wrap)),
       METH_FASTCALL,
       "__array_wrap__($self, array, context=None, return_scalar=False, /)\n--\n\n"
       "The result itself: arithmetic makes plain arrays and scalars, `out=` keeps its array."},
      // What NumPy 1 asks before it computes; NumPy 2 does not.
      {"__array_prepare__", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(array_prepare)),
       METH_FASTCALL,
       "__array_prepare__($self, array, context=None, /)\n--\n\n"
       "The array itself."},
      {"__reduce_ex__", reduce_ex, METH_O,
       "__reduce_ex__($self, protocol, /)\n--\n\n"
       "A handle if the memory is shared; otherwise as an ndarray is pickled."},
      {"__reduce__", reduce_2, METH_NOARGS,
       "__reduce__($self, /)\n--\n\n"
       "As `__reduce_ex__`."},
      {"__setstate__", setstate, METH_O,
       "__setstate__($self, state, /)\n--\n\n"
       "As `ndarray.__setstate__`; does nothing for the empty state of a handle."},
      {"setflags", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(setflags)),
       METH_VARARGS | METH_KEYWORDS,
       "setflags($self, /, write=None, align=None, uic=None)\n--\n\n"
       "Sets flags as `ndarray.setflags` does; an array that was sent read-only stays so.\n\n"
       "Parameters\n----------\n"
       "write : bool, optional\n    Whether elements can be written.\n"
       "align : bool, optional\n    Whether the data is aligned as its type asks.\n"
       "uic : bool, optional\n    As `ndarray.setflags`: False, or left out.\n"},
      {nullptr, nullptr, 0, nullptr}};
  return table;
}

inline constexpr const char* shared_array_doc =
    "An ndarray in shared memory.\n\n"
    "Created by `sharedmem.empty`, `zeros`, `ones`, `full`, `array`, `asshared` and the like, never by\n"
    "calling the class. A pickle of it is a handle: loading it, in any process of the same\n"
    "user on the same host, gives the same memory, not a copy. The memory lives as long as any\n"
    "array over it in any process.\n\n"
    "Views, slices, `.T` and `reshape` are SharedArrays over the same memory. Arithmetic gives plain\n"
    "arrays in private memory; in-place operators and `out=` return the array itself. Copies\n"
    "(`a.copy()`, `a[[0, 1]]`, `copy.deepcopy`) are SharedArrays over private memory, which pickle\n"
    "with their data; `sharedmem.is_shared` distinguishes them; `sharedmem.copy` makes a shared copy.\n";

/// Makes the type ready and returns it; null with an exception set.
inline PyObject* make_shared_array_type() {
  PyTypeObject& type = shared_array_type;
  if (PyArray_Type.tp_itemsize != 0 || PyArray_Type.tp_dictoffset != 0 || PyType_IS_GC(&PyArray_Type)) {
    PyErr_SetString(PyExc_ImportError,
                    "sharedmem: this build does not know the layout of this NumPy's ndarray");
    return nullptr;
  }
  constexpr auto alignment = static_cast<Py_ssize_t>(alignof(tail));
  tail_offset = (PyArray_Type.tp_basicsize + alignment - 1) / alignment * alignment;
  const PyVarObject head[] = {PyVarObject_HEAD_INIT(nullptr, 0)};
  type.ob_base = head[0];
  type.tp_name = "sharedmem.SharedArray";
  type.tp_basicsize = tail_offset + static_cast<Py_ssize_t>(sizeof(tail));
  type.tp_base = &PyArray_Type;
  type.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE;
  type.tp_doc = shared_array_doc;
  type.tp_dealloc = dealloc;
  type.tp_methods = methods();
  type.tp_vectorcall = refuse_call;
  type.tp_init = init;
  if (PyType_Ready(&type) < 0) return nullptr;
  own_reduce = PyObject_GetAttrString(reinterpret_cast<PyObject*>(&type), "__reduce__");
  return own_reduce == nullptr ? nullptr : Py_NewRef(reinterpret_cast<PyObject*>(&type));
}

/// Has arrays pickled as `how` says.
inline void reduce_with(reducer how) noexcept { reduce = how; }

/// What `owner` shows as an array of class `cls`, a subclass; `owner` becomes its base before its
/// `__array_finalize__` runs, which may raise and leave the array to a traceback.
/// \param prototype  for the `__array_finalize__`, of class `cls`; None: it is given `owner`, as by `view`.
inline PyObject* as_subclass(PyObject* owner, PyTypeObject* cls, PyObject* prototype) {
  if (prototype == Py_None) return PyArray_View(reinterpret_cast<PyArrayObject*>(owner), nullptr, cls);
  return PyObject_CallMethod(reinterpret_cast<PyObject*>(&PyArray_Type), "__array_wrap__", "OO", prototype,
                             owner);
}

/// A SharedArray over bytes of `block`, whose reference it takes over, also when it fails.
/// \param cls        SharedArray or a subclass; null: SharedArray.
/// \param strides    null: contiguous, in Fortran's order if `flags` has NPY_ARRAY_F_CONTIGUOUS.
/// \param prototype  for the `__array_finalize__` of a subclass: an array of class `cls`, or None.
inline PyObject* adopt(sharedmem::allocation& block, PyTypeObject* cls, PyObject* dtype, int ndim,
                       const npy_intp* shape, const npy_intp* strides, void* data, int flags,
                       PyObject* prototype) {
  PyObject* array =
      PyArray_NewFromDescr(&shared_array_type, reinterpret_cast<PyArray_Descr*>(Py_NewRef(dtype)), ndim,
                           shape, strides, data, flags, nullptr);
  if (array == nullptr) {
    sharedmem::release(block.ref);
    return nullptr;
  }
  tail* mine = tail_of(array);
  mine->ref = std::exchange(block.ref, sharedmem::block_ref{});
  mine->read_only = (flags & NPY_ARRAY_WRITEABLE) == 0;
  mine->large = block.bytes >= large_bytes;
  if (cls == nullptr || cls == &shared_array_type) return array;
  PyObject* result = as_subclass(array, cls, prototype);
  Py_DECREF(array);
  return result;
}

}  // namespace sharedmem_pyx
