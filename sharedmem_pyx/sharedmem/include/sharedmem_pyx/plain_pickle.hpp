/// \file
/// Pickles of small plain objects, written and read without a pickler.
///
/// Most of the time of a small message is spent on creating a pickler or unpickler, and on looking up how each object is
/// pickled. For None, numbers, strings, bytes, and tuples, lists and dicts of these no look-up is needed. What is written
/// here is an ordinary pickle of protocol 5, which `pickle.loads` loads equally; what is read here may have been written
/// by either. Objects that are not plain are left to the pickle module. So are objects that occur twice, because they
/// have to arrive as one object.
///
/// The GIL is held, and no Python code runs, so nothing changes meanwhile. Without a GIL another thread may change a list
/// or a dict; there these count as not plain.
#pragma once

#include <Python.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace sharedmem_pyx::plain {

#ifdef Py_GIL_DISABLED
inline constexpr bool can_change = true;
#else
inline constexpr bool can_change = false;
#endif

/// Opcodes of pickle, by the names of the module pickletools.
enum opcode : unsigned char {
  op_mark = '(',
  op_stop = '.',
  op_binbytes = 'B',
  op_short_binbytes = 'C',
  op_binfloat = 'G',
  op_binint = 'J',
  op_binint1 = 'K',
  op_binint2 = 'M',
  op_none = 'N',
  op_binunicode = 'X',
  op_empty_list = ']',
  op_append = 'a',
  op_appends = 'e',
  op_setitem = 's',
  op_tuple = 't',
  op_setitems = 'u',
  op_empty_dict = '}',
  op_empty_tuple = ')',
  op_proto = 0x80,
  op_tuple1 = 0x85,
  op_tuple2 = 0x86,
  op_tuple3 = 0x87,
  op_true = 0x88,
  op_false = 0x89,
  op_long1 = 0x8a,
  op_short_binunicode = 0x8c,
  op_memoize = 0x94,
  op_frame = 0x95,
};

/// Writes one pickle.
class writer {
 public:
  writer(unsigned char* to, std::size_t room) noexcept : start_{to}, at_{to}, end_{to + room} {}

  /// \return  the pickle's bytes; 0: the object is not plain, or it does not fit. Never sets an exception.
  std::size_t write(PyObject* object) noexcept {
    if (!room_for(2)) return 0;
    byte(op_proto);
    byte(5);
    if (!put(object, deepest) || !room_for(1)) return 0;
    byte(op_stop);
    return static_cast<std::size_t>(at_ - start_);
  }

 private:
  static constexpr int deepest = 8, most_met = 24, most_items = 64;  // a reader has room for so many

  bool room_for(std::size_t bytes) const noexcept { return static_cast<std::size_t>(end_ - at_) >= bytes; }
  void byte(unsigned char value) noexcept { *at_++ = value; }
  template <class T>
  void little_endian(T value, int bytes) noexcept {
    for (int i = 0; i < bytes; ++i) byte(static_cast<unsigned char>(value >> 8 * i));
  }

  /// Whether the object is met for the first time. One that is met again has to be pickled as a reference to the first.
  bool is_first(const PyObject* object) noexcept {
    for (int i = 0; i < met_count_; ++i)
      if (met_[i] == object) return false;
    if (met_count_ == most_met) return false;
    met_[met_count_++] = object;
    return true;
  }

  bool sized(unsigned char with_one_byte, unsigned char with_four, const void* data,
             Py_ssize_t size) noexcept {
    if (size > INT32_MAX || !room_for(static_cast<std::size_t>(size) + 5)) return false;
    byte(size < 256 ? with_one_byte : with_four);
    little_endian(static_cast<std::uint32_t>(size), size < 256 ? 1 : 4);
    std::memcpy(at_, data, static_cast<std::size_t>(size));
    at_ += size;
    return true;
  }

  bool put_number(PyObject* object) noexcept {
    int overflow = 0;
    const long long value = PyLong_AsLongLongAndOverflow(object, &overflow);
    if (overflow != 0 || !room_for(10)) return false;
    if (value >= 0 && value < 1 << 16) {
      byte(value < 256 ? op_binint1 : op_binint2);
      little_endian(value, value < 256 ? 1 : 2);
    } else if (value >= INT32_MIN && value <= INT32_MAX) {
      byte(op_binint);
      little_endian(static_cast<std::uint32_t>(value), 4);
    } else {
      byte(op_long1);
      byte(8);
      little_endian(static_cast<std::uint64_t>(value), 8);
    }
    return true;
  }

  bool put_float(PyObject* object) noexcept {
    if (!room_for(9)) return false;
    const double value = PyFloat_AS_DOUBLE(object);
    std::uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof bits);
    byte(op_binfloat);
    for (int i = 7; i >= 0; --i) byte(static_cast<unsigned char>(bits >> 8 * i));
    return true;
  }

  bool put_tuple(PyObject* object, int depth) noexcept {
    const Py_ssize_t size = PyTuple_GET_SIZE(object);
    if (size == 0) return put_opcode(op_empty_tuple);
    if (size > most_items || !is_first(object) || (size > 3 && !put_opcode(op_mark))) return false;
    for (Py_ssize_t i = 0; i < size; ++i)
      if (!put(PyTuple_GET_ITEM(object, i), depth)) return false;
    return put_opcode(size > 3 ? op_tuple : op_tuple1 + static_cast<unsigned char>(size - 1));
  }

  bool put_list(PyObject* object, int depth) noexcept {
    const Py_ssize_t size = PyList_GET_SIZE(object);
    if (size > most_items || !is_first(object) || !put_opcode(op_empty_list)) return false;
    if (size == 0) return true;
    if (!put_opcode(op_mark)) return false;
    for (Py_ssize_t i = 0; i < size; ++i)
      if (!put(PyList_GET_ITEM(object, i), depth)) return false;
    return put_opcode(op_appends);
  }

  bool put_dict(PyObject* object, int depth) noexcept {
    const Py_ssize_t size = PyDict_GET_SIZE(object);
    if (size > most_items / 2 || !is_first(object) || !put_opcode(op_empty_dict)) return false;
    if (size == 0) return true;
    if (!put_opcode(op_mark)) return false;
    PyObject *key = nullptr, *value = nullptr;
    for (Py_ssize_t i = 0; PyDict_Next(object, &i, &key, &value);)
      if (!put(key, depth) || !put(value, depth)) return false;
    return put_opcode(op_setitems);
  }

  bool put_opcode(int code) noexcept {
    if (!room_for(1)) return false;
    byte(static_cast<unsigned char>(code));
    return true;
  }

  bool put(PyObject* object, int depth) noexcept {
    if (PyLong_CheckExact(object)) return put_number(object);
    if (PyUnicode_CheckExact(object))
      return PyUnicode_IS_COMPACT_ASCII(object) && is_first(object) &&
             sized(op_short_binunicode, op_binunicode, PyUnicode_DATA(object), PyUnicode_GET_LENGTH(object));
    if (PyBytes_CheckExact(object))
      return is_first(object) &&
             sized(op_short_binbytes, op_binbytes, PyBytes_AS_STRING(object), PyBytes_GET_SIZE(object));
    if (PyFloat_CheckExact(object)) return put_float(object);
    if (object == Py_None) return put_opcode(op_none);
    if (object == Py_True) return put_opcode(op_true);
    if (object == Py_False) return put_opcode(op_false);
    if (depth == 0) return false;
    if (PyTuple_CheckExact(object)) return put_tuple(object, depth - 1);
    if (can_change) return false;
    if (PyList_CheckExact(object)) return put_list(object, depth - 1);
    if (PyDict_CheckExact(object)) return put_dict(object, depth - 1);
    return false;
  }

  unsigned char *start_, *at_, *end_;
  const PyObject* met_[most_met];
  int met_count_ = 0;
};

/// Reads one pickle.
class reader {
 public:
  reader(const unsigned char* from, std::size_t size) noexcept : at_{from}, end_{from + size} {}
  reader(const reader&) = delete;
  reader& operator=(const reader&) = delete;
  ~reader() { drop(0); }

  /// \return  a new reference to the object; null, without an exception: the pickle module has to read it, and says
  ///          what is wrong with it, if something is.
  PyObject* read() noexcept {
    bool more = true;
    while (more && at_ != end_) {
      const unsigned char code = *at_++;
      if (code == op_stop) return size_ == 1 && marks_ == 0 ? stack_[--size_] : nullptr;
      more = step(code);
    }
    PyErr_Clear();
    return nullptr;
  }

 private:
  static constexpr int most = 96, most_marks = 8;

  bool has(std::uint64_t bytes) const noexcept { return static_cast<std::size_t>(end_ - at_) >= bytes; }
  std::uint64_t little_endian(int bytes) noexcept {
    std::uint64_t value = 0;
    for (int i = 0; i < bytes; ++i) value |= std::uint64_t{*at_++} << 8 * i;
    return value;
  }

  /// Takes the reference over. `object` null: there is an exception.
  bool push(PyObject* object) noexcept {
    if (object == nullptr) return false;
    if (size_ == most) {
      Py_DECREF(object);
      return false;
    }
    stack_[size_++] = object;
    return true;
  }
  bool push_new(PyObject* object) noexcept {
    Py_INCREF(object);
    return push(object);
  }
  void drop(int from) noexcept {
    while (size_ > from) Py_DECREF(stack_[--size_]);
  }

  /// Where the topmost mark is, which goes; -1: there is none.
  int take_mark() noexcept { return marks_ == 0 ? -1 : mark_[--marks_]; }
  /// The lowest place of the stack that an opcode without a mark may touch.
  int bottom() const noexcept { return marks_ == 0 ? 0 : mark_[marks_ - 1]; }

  bool number(int bytes, bool is_signed) noexcept {
    if (!has(static_cast<std::uint64_t>(bytes))) return false;
    const std::uint64_t bits = little_endian(bytes);
    const int unused = 64 - 8 * bytes;
    if (bytes == 0) return push(PyLong_FromLong(0));
    return push(PyLong_FromLongLong(is_signed ? static_cast<std::int64_t>(bits << unused) >> unused
                                              : static_cast<std::int64_t>(bits)));
  }

  bool long1() noexcept {
    if (!has(1)) return false;
    const unsigned char bytes = *at_++;
    return bytes <= 8 && number(bytes, true);
  }

  bool real() noexcept {
    if (!has(8)) return false;
    std::uint64_t bits = 0;
    for (int i = 0; i < 8; ++i) bits = bits << 8 | *at_++;
    double value = 0;
    std::memcpy(&value, &bits, sizeof value);
    return push(PyFloat_FromDouble(value));
  }

  bool sized(int bytes_of_size, bool text) noexcept {
    if (!has(static_cast<std::uint64_t>(bytes_of_size))) return false;
    const std::uint64_t size = little_endian(bytes_of_size);
    if (!has(size)) return false;
    const char* from = reinterpret_cast<const char*>(at_);
    at_ += size;
    const auto length = static_cast<Py_ssize_t>(size);
    return push(text ? PyUnicode_DecodeUTF8(from, length, "surrogatepass")
                     : PyBytes_FromStringAndSize(from, length));
  }

  bool tuple_from(int first) noexcept {
    if (first < bottom()) return false;
    PyObject* made = PyTuple_New(size_ - first);
    if (made == nullptr) return false;
    for (int i = first; i < size_; ++i) PyTuple_SET_ITEM(made, i - first, stack_[i]);
    size_ = first;
    return push(made);
  }

  /// Whether there is a container of the kind below the place, within the part that may be touched.
  bool is_on(int first, PyTypeObject* kind) const noexcept {
    return first > bottom() && first <= size_ && Py_TYPE(stack_[first - 1]) == kind;
  }

  bool append_from(int first) noexcept {
    if (!is_on(first, &PyList_Type)) return false;
    for (int i = first; i < size_; ++i)
      if (PyList_Append(stack_[first - 1], stack_[i]) != 0) return false;
    drop(first);
    return true;
  }

  bool set_items_from(int first) noexcept {
    if (!is_on(first, &PyDict_Type) || (size_ - first) % 2 != 0) return false;
    for (int i = first; i < size_; i += 2)
      if (PyDict_SetItem(stack_[first - 1], stack_[i], stack_[i + 1]) != 0) return false;
    drop(first);
    return true;
  }

  bool protocol() noexcept { return has(1) && *at_++ <= 5; }

  bool step(unsigned char code) noexcept {
    switch (code) {
      case op_proto: return protocol();
      case op_frame: return has(8) && has(little_endian(8));
      case op_memoize:
        return size_ > bottom();  // whatever refers to what was memoized is read by the pickle module
      case op_none: return push_new(Py_None);
      case op_true: return push_new(Py_True);
      case op_false: return push_new(Py_False);
      case op_binint: return number(4, true);
      case op_binint1: return number(1, false);
      case op_binint2: return number(2, false);
      case op_long1: return long1();
      case op_binfloat: return real();
      case op_short_binunicode: return sized(1, true);
      case op_binunicode: return sized(4, true);
      case op_short_binbytes: return sized(1, false);
      case op_binbytes: return sized(4, false);
      case op_empty_tuple: return push(PyTuple_New(0));
      case op_tuple1: return tuple_from(size_ - 1);
      case op_tuple2: return tuple_from(size_ - 2);
      case op_tuple3: return tuple_from(size_ - 3);
      case op_tuple: return marks_ != 0 && tuple_from(take_mark());
      case op_empty_list: return push(PyList_New(0));
      case op_append: return append_from(size_ - 1);
      case op_appends: return append_from(take_mark());
      case op_empty_dict: return push(PyDict_New());
      case op_setitem: return set_items_from(size_ - 2);
      case op_setitems: return set_items_from(take_mark());
      case op_mark:
        if (marks_ == most_marks) return false;
        mark_[marks_++] = size_;
        return true;
      default: return false;
    }
  }

  const unsigned char *at_, *end_;
  PyObject* stack_[most];
  int mark_[most_marks];
  int size_ = 0, marks_ = 0;
};

/// As `writer::write`, into `room` bytes.
inline std::size_t write(PyObject* object, std::byte* to, std::size_t room) noexcept {
  return writer(reinterpret_cast<unsigned char*>(to), room).write(object);
}

/// As `reader::read`, but what the pickle module has to read gives a new reference to `otherwise`.
inline PyObject* read(const std::byte* from, std::size_t size, PyObject* otherwise) noexcept {
  PyObject* found = reader(reinterpret_cast<const unsigned char*>(from), size).read();
  if (found != nullptr) return found;
  Py_INCREF(otherwise);
  return otherwise;
}

inline constexpr Py_ssize_t most_looked_at = 64, bytes_like_an_object = 512;

/// Whether an object and all that is in it are plain, and are no more than `budget` objects, or as many bytes as these
/// stand for.
inline bool is_plain(PyObject* object, Py_ssize_t& budget) noexcept {
  if (--budget < 0) return false;
  if (PyLong_CheckExact(object) || PyFloat_CheckExact(object) || object == Py_None || PyBool_Check(object))
    return true;
  if (PyUnicode_CheckExact(object) || PyBytes_CheckExact(object)) {
    budget -= (PyUnicode_CheckExact(object) ? PyUnicode_GET_LENGTH(object) : PyBytes_GET_SIZE(object)) /
              bytes_like_an_object;
    return budget >= 0;
  }
  if (PyTuple_CheckExact(object)) {
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(object); ++i)
      if (!is_plain(PyTuple_GET_ITEM(object, i), budget)) return false;
    return true;
  }
  if (can_change) return false;
  if (PyList_CheckExact(object)) {
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(object); ++i)
      if (!is_plain(PyList_GET_ITEM(object, i), budget)) return false;
    return true;
  }
  if (!PyDict_CheckExact(object)) return false;
  PyObject *key = nullptr, *value = nullptr;
  for (Py_ssize_t i = 0; PyDict_Next(object, &i, &key, &value);)
    if (!is_plain(key, budget) || !is_plain(value, budget)) return false;
  return true;
}

/// Whether no pickler treats an object, or what is in it, in a way of its own. False also for what is large.
inline bool is_plain(PyObject* object) noexcept {
  Py_ssize_t budget = most_looked_at;
  return is_plain(object, budget);
}

}  // namespace sharedmem_pyx::plain
