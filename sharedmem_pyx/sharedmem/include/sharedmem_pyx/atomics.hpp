#pragma once
/// \file
/// Atomic operations on one element of an array, sequentially consistent, for code without the GIL: what
/// `cimport sharedmem.atomics` declares. T: bool, an integer of 1 to 8 bytes, float or double; an element is
/// aligned to its own size. The operations that change an element return the value before. Integers wrap.
/// Threads, processes: any number, at any time. A death leaves an element as it was, or changed, nothing in
/// between.
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>

#include <sharedmem/futex.hpp>

namespace sharedmem_pyx::atomics {

/// The operand as an element, so that `add(&counter, 1)` works for counters of every type.
template <class T, class V>
constexpr T as_element(V value) noexcept {
  static_assert(std::is_arithmetic_v<V>);
  static_assert(std::is_floating_point_v<T> || !std::is_floating_point_v<V>,
                "an integer element, and a value that is none");
  return static_cast<T>(value);
}

template <class T>
T load(const T* at) noexcept {
  T value;
  __atomic_load(at, &value, __ATOMIC_SEQ_CST);
  return value;
}
template <class T, class V>
void store(T* at, V value) noexcept {
  std::atomic_ref<T>(*at).store(as_element<T>(value));
}
template <class T, class V>
T exchange(T* at, V value) noexcept {
  return std::atomic_ref<T>(*at).exchange(as_element<T>(value));
}
/// Floats are compared by their bytes.
template <class T, class E, class V>
T compare_exchange(T* at, E expected, V value) noexcept {
  T before = as_element<T>(expected);
  std::atomic_ref<T>(*at).compare_exchange_strong(before, as_element<T>(value));
  return before;
}
template <class T, class V>
T add(T* at, V value) noexcept {
  return std::atomic_ref<T>(*at).fetch_add(as_element<T>(value));
}
template <class T, class V>
T sub(T* at, V value) noexcept {
  return std::atomic_ref<T>(*at).fetch_sub(as_element<T>(value));
}
template <class T, class V>
T and_(T* at, V value) noexcept {
  return std::atomic_ref<T>(*at).fetch_and(as_element<T>(value));
}
template <class T, class V>
T or_(T* at, V value) noexcept {
  return std::atomic_ref<T>(*at).fetch_or(as_element<T>(value));
}
template <class T, class V>
T xor_(T* at, V value) noexcept {
  return std::atomic_ref<T>(*at).fetch_xor(as_element<T>(value));
}

/// Seconds in the kernel's form: 0 for values that are not above 0 or not a number, centuries for infinity.
inline std::chrono::nanoseconds span_of(double seconds) noexcept {
  constexpr double most = 9e9;
  if (!(seconds > 0)) return std::chrono::nanoseconds{0};
  return std::chrono::nanoseconds{static_cast<std::int64_t>((seconds < most ? seconds : most) * 1e9)};
}

/// Sleeps while the element is `value`, `seconds` at most (infinity: for ever). False: it still is. Signal
/// handlers run but do not end the wait. T: integers of 4 bytes. Needs the library libsharedmem, as `notify`
/// does.
/// \throws std::invalid_argument, sharedmem::error  as `sharedmem::wait_on`.
template <class T, class V>
bool wait(const T* at, V value, double seconds) {
  static_assert(std::is_integral_v<T> && sizeof(T) == 4, "the kernel waits for words of 4 bytes");
  using clock = std::chrono::steady_clock;
  std::chrono::nanoseconds left = span_of(seconds);
  const clock::time_point begin = clock::now();
  const T same = as_element<T>(value);
  while (load(at) == same) {
    const std::chrono::nanoseconds passed = clock::now() - begin;
    if (passed >= left) return false;
    (void)sharedmem::wait_on(reinterpret_cast<const std::uint32_t*>(at), static_cast<std::uint32_t>(same),
                             left - passed);
  }
  return true;
}

/// Wakes at most `count` of those who wait for the element, and returns how many those were.
template <class T>
int notify(const T* at, int count) noexcept {
  static_assert(std::is_integral_v<T> && sizeof(T) == 4, "the kernel waits for words of 4 bytes");
  return sharedmem::wake(reinterpret_cast<const std::uint32_t*>(at), count);
}

}  // namespace sharedmem_pyx::atomics
