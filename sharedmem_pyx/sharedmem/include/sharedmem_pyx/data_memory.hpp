#pragma once
/// \file
/// A handler of NumPy's data memory (NEP 49) that allocates in the home arena.
///
/// NumPy keeps the handler of its birth with each array and calls it for as long as the array lives: from any
/// thread, in a forked child for what it inherited, and while the interpreter ends, when Python's API must not be
/// called any more. So no record is kept of allocated memory. The address is sufficient: `arena_of` finds the
/// arena, `arena::find` the block, if this process holds it.
///
/// NumPy asks for zeroed memory (calloc) whenever a dtype has Python objects in it, and for `np.zeros`; the request
/// has no more than a size. Pointers to objects of one process must not lie where others read and write, so
/// `private_zeros` leaves all zeroed memory to NumPy's own handler. Both handlers free and grow what either of them,
/// or NumPy's, has handed out.
///
/// Functions that may take the GIL are not noexcept: up to version 3.13 Python ends a daemon thread that wants the
/// GIL back after the end by `pthread_exit`, which unwinds its stack.
/// To be included by one extension module only, after its `import_array`.
#include <numpy/arrayobject.h>
#include <Python.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>

#include <sharedmem/home.hpp>

namespace sharedmem_pyx {

/// Looks for memory that is kept by messages which can no longer be read; 0: there was none. GIL held.
using memory_search = int (*)();

inline PyDataMemAllocator numpys{};       // of NumPy's default handler
inline memory_search search = nullptr;
inline constexpr std::size_t longest_refusal = 512;
/// Why this thread was last refused memory, for the error that NumPy raises without saying it; "": it was not.
inline thread_local char refusal[longest_refusal] = "";

inline void note_refusal(const char* why) noexcept { std::strncpy(refusal, why, longest_refusal - 1); }

/// A block from the arena proper; false if it is refused. No GIL needed.
inline bool take_anew(std::size_t bytes, sharedmem::allocation& made) noexcept {
  try {
    made = sharedmem::allocate(bytes);
    return true;
  } catch (const std::exception& e) {
    note_refusal(e.what());
    return false;
  }
}

/// A block of at least `bytes`; large ones are allocated without the GIL if the caller has it, as NumPy does.
/// \param may_wait  whether other threads may run meanwhile.
inline bool take(std::size_t bytes, sharedmem::allocation& made, bool may_wait) {
  constexpr std::size_t large_bytes = std::size_t{1} << 20;
  sharedmem::arena* home = sharedmem::home_if_any();
  if (home != nullptr && home->allocate_cached(bytes, 64, made)) return true;
  if (bytes < large_bytes || !may_wait || PyGILState_Check() == 0) return take_anew(bytes, made);
  PyThreadState* thread = PyEval_SaveThread();
  bool done = take_anew(bytes, made);
  PyEval_RestoreThread(thread);
  if (!done && PyErr_Occurred() == nullptr && search() != 0) done = take_anew(bytes, made);
  return done;
}

inline void* allocate_shared(void*, std::size_t bytes) {
  sharedmem::allocation made;
  return take(bytes, made, true) ? made.data : nullptr;
}

inline void* allocate_shared_zeros(void*, std::size_t count, std::size_t size) {
  std::size_t bytes = 0;
  if (__builtin_mul_overflow(count, size, &bytes)) return nullptr;
  sharedmem::allocation made;
  if (!take(bytes, made, true)) return nullptr;
  if (!made.zeroed) std::memset(made.data, 0, bytes);
  return made.data;
}

inline void* allocate_private_zeros(void*, std::size_t count, std::size_t size) {
  return numpys.calloc(numpys.ctx, count, size);
}

inline void free_either(void*, void* data, std::size_t bytes) {
  if (sharedmem::arena* home = sharedmem::home_if_any(); home != nullptr) [[likely]] {
    sharedmem::block_ref held = home->find(data).ref;
    if (held.home != nullptr) [[likely]] {
      home->release(held);
      return;
    }
  }
  const sharedmem::arena* where = sharedmem::arena_of(data);
  if (where == nullptr) {
    numpys.free(numpys.ctx, data, bytes);
    return;
  }
  // Nothing is found in a process that was forked without fork handlers: what it inherited is not its to free.
  sharedmem::block_ref held = where->find(data).ref;
  if (held.home != nullptr) sharedmem::release(held);
}

/// Memory that was never shared stays where it is if the new size suits its block. All other moves: a process that
/// was sent the array keeps what it has. The GIL stays held, since the array that grows has no valid address
/// meanwhile.
inline void* resize_either(void*, void* data, std::size_t bytes) {
  sharedmem::arena* where = sharedmem::arena_of(data);
  if (where == nullptr) return numpys.realloc(numpys.ctx, data, bytes);
  sharedmem::allocation old = where->find(data);
  if (old.ref.home == nullptr) return nullptr;  // forked without fork handlers: nothing says how large it is
  const bool known_to_others = old.ref.owner == nullptr;
  if (!known_to_others && bytes <= old.bytes && bytes >= old.bytes / 2) return data;
  sharedmem::allocation made;
  if (!take(bytes, made, false)) return nullptr;
  std::memcpy(made.data, old.data, std::min<std::uint64_t>(bytes, old.bytes));
  sharedmem::release(old.ref);
  return made.data;
}

inline PyDataMem_Handler private_zeros{
    "sharedmem", 1, {nullptr, allocate_shared, allocate_private_zeros, resize_either, free_either}};
inline PyDataMem_Handler shared_zeros{
    "sharedmem, zeros too", 1, {nullptr, allocate_shared, allocate_shared_zeros, resize_either, free_either}};

/// Once, before the handlers are used. False with an exception set.
inline bool prepare_handlers(memory_search how) {
  auto* found =
      static_cast<PyDataMem_Handler*>(PyCapsule_GetPointer(PyDataMem_DefaultHandler, "mem_handler"));
  if (found == nullptr) return false;
  numpys = found->allocator;
  search = how;
  return true;
}

inline PyObject* handler_capsule(bool zeros) {
  return PyCapsule_New(zeros ? &shared_zeros : &private_zeros, "mem_handler", nullptr);
}

/// What this thread was last refused, and forgets it; empty if nothing.
inline PyObject* take_refusal() {
  PyObject* text = PyUnicode_DecodeUTF8(refusal, static_cast<Py_ssize_t>(std::strlen(refusal)), "replace");
  refusal[0] = '\0';
  return text;
}

}  // namespace sharedmem_pyx
