#pragma once
/// \file
/// Atomic operations on elements whose type is known at run time only, with values that are Python objects.
#include <Python.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include <sharedmem_pyx/atomics.hpp>

namespace sharedmem_pyx {

enum class element : std::uint8_t { other, flag, i1, i2, i4, i8, u1, u2, u4, u8, f4, f8 };

enum class operation : std::uint8_t { load, store, exchange, add, sub, and_, or_, xor_ };

/// The element of an ndarray of the built-in type with this number of NumPy's; `bytes` is its size.
inline element element_of(int type_number, std::size_t bytes) noexcept {
  constexpr std::array<char, 13> kinds = {'b', 'i', 'u', 'i', 'u', 'i', 'u', 'i', 'u', 'i', 'u', 'f', 'f'};
  if (type_number < 0 || static_cast<std::size_t>(type_number) >= kinds.size()) return element::other;
  const auto sized = [bytes](element one, element two, element four, element eight) {
    return bytes == 1 ? one : bytes == 2 ? two : bytes == 4 ? four : bytes == 8 ? eight : element::other;
  };
  switch (kinds[static_cast<std::size_t>(type_number)]) {
    case 'b': return element::flag;
    case 'i': return sized(element::i1, element::i2, element::i4, element::i8);
    case 'u': return sized(element::u1, element::u2, element::u4, element::u8);
    default: return sized(element::other, element::other, element::f4, element::f8);
  }
}

/// bool in an array: a byte, which may have any value there.
struct flag_values {
  using type = std::uint8_t;
  static bool read(PyObject* object, type* out) noexcept {
    const int truth = object == Py_True ? 1 : object == Py_False ? 0 : read_number(object);
    if (truth < 0) return false;
    *out = static_cast<type>(truth);
    return true;
  }
  static PyObject* make(type value) noexcept { return PyBool_FromLong(value); }

 private:
  /// numpy.bool, and the numbers 0 and 1.
  static int read_number(PyObject* object) noexcept {
    if (std::strncmp(Py_TYPE(object)->tp_name, "numpy.bool", 10) == 0) return PyObject_IsTrue(object);
    PyObject* number = PyNumber_Index(object);
    if (number == nullptr) {
      PyErr_Clear();
      PyErr_Format(PyExc_TypeError, "an element of type bool takes True or False, not %.200s",
                   Py_TYPE(object)->tp_name);
      return -1;
    }
    int overflow = 0;
    const long value = PyLong_AsLongAndOverflow(number, &overflow);
    if (overflow != 0 || value < 0 || value > 1) {
      PyErr_Format(PyExc_OverflowError, "an element of type bool takes True or False, not %S", number);
      Py_DECREF(number);
      return -1;
    }
    Py_DECREF(number);
    return static_cast<int>(value);
  }
};

template <class T>
struct integer_values {
  using type = T;
  static bool read(PyObject* object, T* out) noexcept {
    PyObject* number = PyNumber_Index(object);
    if (number == nullptr) {
      if (PyErr_ExceptionMatches(PyExc_TypeError)) {
        PyErr_Clear();
        PyErr_Format(PyExc_TypeError, "an element of type %s%d takes an integer, not %.200s", name, bits,
                     Py_TYPE(object)->tp_name);
      }
      return false;
    }
    const bool fits = convert(number, out);
    if (!fits) {
      PyErr_Clear();
      PyErr_Format(PyExc_OverflowError, "%S is out of the range of %s%d", number, name, bits);
    }
    Py_DECREF(number);
    return fits;
  }
  static PyObject* make(T value) noexcept {
    if constexpr (std::is_signed_v<T>) {
      return PyLong_FromLongLong(value);
    } else {
      return PyLong_FromUnsignedLongLong(value);
    }
  }

 private:
  static constexpr const char* name = std::is_signed_v<T> ? "int" : "uint";
  static constexpr int bits = 8 * sizeof(T);

  static bool convert(PyObject* number, T* out) noexcept {
    if constexpr (std::is_signed_v<T>) {
      int overflow = 0;
      const long long value = PyLong_AsLongLongAndOverflow(number, &overflow);
      *out = static_cast<T>(value);
      return overflow == 0 && *out == value;
    } else {
      const unsigned long long value = PyLong_AsUnsignedLongLong(number);
      *out = static_cast<T>(value);
      return PyErr_Occurred() == nullptr && *out == value;
    }
  }
};

template <class T>
struct real_values {
  using type = T;
  static bool read(PyObject* object, T* out) noexcept {
    const double value = PyFloat_AsDouble(object);
    if (value == -1.0 && PyErr_Occurred() != nullptr) return false;
    *out = static_cast<T>(value);
    return true;
  }
  static PyObject* make(T value) noexcept { return PyFloat_FromDouble(static_cast<double>(value)); }
};

/// `f` called with the values that an element has. \pre  of != other.
template <class F>
auto with_values(element of, F&& f) {
  switch (of) {
    case element::flag: return f(flag_values{});
    case element::i1: return f(integer_values<std::int8_t>{});
    case element::i2: return f(integer_values<std::int16_t>{});
    case element::i4: return f(integer_values<std::int32_t>{});
    case element::i8: return f(integer_values<std::int64_t>{});
    case element::u1: return f(integer_values<std::uint8_t>{});
    case element::u2: return f(integer_values<std::uint16_t>{});
    case element::u4: return f(integer_values<std::uint32_t>{});
    case element::u8: return f(integer_values<std::uint64_t>{});
    case element::f4: return f(real_values<float>{});
    default: return f(real_values<double>{});
  }
}

/// Alignment that an atomic operation needs: never less than the size, also where the compiler's is.
inline std::size_t alignment_of(element of) noexcept {
  return with_values(of, [](auto values) { return sizeof(typename decltype(values)::type); });
}

inline bool has_bits(element of) noexcept { return of != element::f4 && of != element::f8; }
inline bool is_number(element of) noexcept { return of != element::flag; }
inline bool can_be_waited_for(element of) noexcept { return of == element::i4 || of == element::u4; }

/// The operation's result as a new reference; nullptr with an exception set if `operand` is no value of the
/// element.
/// \pre  the element has the operation: `has_bits`, `is_number`.
inline PyObject* apply(operation what, element of, void* at, PyObject* operand) {
  return with_values(of, [=](auto values) -> PyObject* {
    using V = decltype(values);
    using T = typename V::type;
    auto* place = static_cast<T*>(at);
    if (what == operation::load) return V::make(atomics::load(place));
    T value{};
    if (!V::read(operand, &value)) return nullptr;
    switch (what) {
      case operation::store: atomics::store(place, value); Py_RETURN_NONE;
      case operation::exchange: return V::make(atomics::exchange(place, value));
      case operation::add: return V::make(atomics::add(place, value));
      case operation::sub: return V::make(atomics::sub(place, value));
      default: break;
    }
    if constexpr (std::is_integral_v<T>) {
      switch (what) {
        case operation::and_: return V::make(atomics::and_(place, value));
        case operation::or_: return V::make(atomics::or_(place, value));
        default: return V::make(atomics::xor_(place, value));
      }
    }
    Py_UNREACHABLE();
  });
}

/// The same for a compare-and-swap: the value before.
inline PyObject* apply_compare_exchange(element of, void* at, PyObject* expected, PyObject* operand) {
  return with_values(of, [=](auto values) -> PyObject* {
    using V = decltype(values);
    using T = typename V::type;
    T before{};
    T value{};
    if (!V::read(expected, &before) || !V::read(operand, &value)) return nullptr;
    return V::make(atomics::compare_exchange(static_cast<T*>(at), before, value));
  });
}

/// Writes what `object` means for an element to `out`, which is of the element's size. False: an exception is
/// set.
inline bool read_value(element of, PyObject* object, void* out) {
  return with_values(of, [=](auto values) {
    using V = decltype(values);
    return V::read(object, static_cast<typename V::type*>(out));
  });
}

/// The value of an integer element of 4 bytes as a futex has it.
inline bool read_word(element of, PyObject* object, std::uint32_t* out) {
  return read_value(of, object, out);
}

/// A row of elements: where the first is, the bytes from one to the next, how many there are.
struct row {
  char* first;
  std::ptrdiff_t step;
  std::ptrdiff_t count;
};

/// Adds the nth of `values` to the element of `to` with the nth of the `count` indices, one atomic addition
/// after the other. Negative indices count from the end.
/// \return  -1; or the number of the first index that is out of range, before which all have been added.
/// Indices that
///          another process changes meanwhile do no harm: each is read once.
inline std::ptrdiff_t add_each(element of, row to, const std::ptrdiff_t* indices, std::ptrdiff_t count,
                               const char* values, std::ptrdiff_t step) noexcept {
  return with_values(of, [=](auto kind) -> std::ptrdiff_t {
    using T = typename decltype(kind)::type;
    const auto index = [indices](std::ptrdiff_t i) {
      return static_cast<const volatile std::ptrdiff_t*>(indices)[i];
    };
    const auto add = [=](std::ptrdiff_t i) {
      std::ptrdiff_t at = index(i);
      at += at < 0 ? to.count : 0;
      if (at < 0 || at >= to.count) return false;
      T value;
      std::memcpy(&value, values + i * step, sizeof value);
      (void)atomics::add(reinterpret_cast<T*>(to.first + at * to.step), value);
      return true;
    };
    constexpr std::ptrdiff_t in_cache = 256 * 1024;  // of a processor that other programs do not use
    std::ptrdiff_t i = 0;
    if (to.step > in_cache || to.step < -in_cache || to.count > in_cache ||
        to.count * (to.step < 0 ? -to.step : to.step) > in_cache) {
      // An atomic operation waits for its cache line, and the processor does not go on meanwhile: the lines
      // are asked for early. An address that is none does no harm there.
      constexpr std::ptrdiff_t ahead = 32;
      for (; i + ahead < count; ++i) {
        __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<std::uintptr_t>(to.first) +
                                                         static_cast<std::uintptr_t>(index(i + ahead)) *
                                                             static_cast<std::uintptr_t>(to.step)),
                           1);
        if (!add(i)) return i;
      }
    }
    for (; i < count; ++i)
      if (!add(i)) return i;
    return -1;
  });
}

/// The number of the first of the indices that is out of range; -1: none is.
inline std::ptrdiff_t first_wrong(const std::ptrdiff_t* indices, std::ptrdiff_t count,
                                  std::ptrdiff_t size) noexcept {
  // One of the two sums is negative for an index that is out of range: no branch, so that the compiler takes
  // several indices at a time.
  std::size_t signs = 0;
  for (std::ptrdiff_t i = 0; i < count; ++i) {
    const auto index = static_cast<std::size_t>(indices[i]);
    signs |= (index + static_cast<std::size_t>(size)) | (static_cast<std::size_t>(size) - 1 - index);
  }
  if (static_cast<std::ptrdiff_t>(signs) >= 0) return -1;
  for (std::ptrdiff_t i = 0; i < count; ++i) {
    if (indices[i] < -size || indices[i] >= size) return i;
  }
  return -1;
}

}  // namespace sharedmem_pyx
