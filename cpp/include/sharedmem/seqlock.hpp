/// \file
/// A value in shared memory that one process writes and many read, without a lock.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace sharedmem {

/// A value with a sequence number, which is odd while the value is being written. Readers copy the value and check
/// whether the number has stayed the same; if not, they try again. They never write, so memory that is attached
/// read-only is sufficient, and any number of them costs the writer nothing.
///
/// | who dies   | when                | what is left                                                             |
/// | ---------- | ------------------- | ------------------------------------------------------------------------ |
/// | a reader   | at any time         | nothing                                                                  |
/// | the writer | outside of `store`  | the last value                                                           |
/// | the writer | within `store`      | `try_load` returns false until the next `store`, which repairs the value |
///
/// Zeroed bytes are a seqlock with a value of zeros. Its layout is the same in all processes of one word size.
/// Threads, processes: `store` by one thread at a time, of all processes; `try_load` and `sequence` by any at any time.
///
/// Sources: H.-J. Boehm, "Can Seqlocks Get Along With Programming Language Memory Models?", MSPC 2012: the value is copied
/// by relaxed atomic words between two fences, since a plain copy would be a data race.
template <class T>
class seqlock {
  static_assert(std::is_trivially_copyable_v<T>, "values are copied word by word");
  static_assert(std::is_default_constructible_v<T>,
                "a copy is made before it is known to be one of the value");

 public:
  seqlock() noexcept = default;
  seqlock(const seqlock&) = delete;
  seqlock& operator=(const seqlock&) = delete;

  /// Makes `value` the one that readers get. `sequence` is then twice the number of calls so far.
  /// \pre  no other thread of any process is in `store`; one that was killed there does not count.
  void store(const T& value) noexcept {
    words copy{};
    std::memcpy(copy.data(), &value, sizeof value);
    const std::atomic_ref<std::uint64_t> sequence(sequence_);
    const std::uint64_t writing =
        sequence.load(std::memory_order_relaxed) | 1;  // odd already: a writer died in here
    sequence.store(writing, std::memory_order_relaxed);
    std::atomic_thread_fence(
        std::memory_order_release);  // a reader of one of the words below finds an odd number, or a later one
    for (std::size_t i = 0; i < count; ++i) {
      std::atomic_ref<std::size_t>(value_[i]).store(copy[i], std::memory_order_relaxed);
    }
    sequence.store(writing + 1, std::memory_order_release);
  }

  /// Copies the value to `out` if it was not written meanwhile; otherwise `out` is unspecified, and the caller tries again.
  [[nodiscard]] bool try_load(T& out) const noexcept {
    words copy{};
    const std::uint64_t before = sequence();
    for (std::size_t i = 0; i < count; ++i) copy[i] = __atomic_load_n(&value_[i], __ATOMIC_RELAXED);
    std::atomic_thread_fence(std::memory_order_acquire);  // partner of the fence in `store`
    if (before % 2 != 0 || __atomic_load_n(&sequence_, __ATOMIC_RELAXED) != before) return false;
    std::memcpy(&out, copy.data(), sizeof out);
    return true;
  }

  /// Changes with each `store`; odd while it is being written, or after a writer was killed.
  [[nodiscard]] std::uint64_t sequence() const noexcept {
    return __atomic_load_n(&sequence_, __ATOMIC_ACQUIRE);
  }

 private:
  static constexpr std::size_t count = (sizeof(T) + sizeof(std::size_t) - 1) / sizeof(std::size_t);
  using words = std::array<std::size_t, count>;

  alignas(8) std::uint64_t sequence_ = 0;
  words value_{};
};

}  // namespace sharedmem
