/// \file
/// A lock in shared memory that survives its owner.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

#include <sharedmem/export.hpp>

namespace sharedmem {

/// A lock that lies in shared memory, for threads of any process that has the memory attached.
///
/// | it is      | try_lock, try_lock_for         | unlock   | the thread that holds it ends |
/// | ---------- | ------------------------------ | -------- | ----------------------------- |
/// | free       | taken: held by me              | no       | -                             |
/// | held by me | throws, EDEADLK                | free     | left                          |
/// | held       | busy                           | no       | left                          |
/// | left       | inherited: held by me          | no       | -                             |
///
/// A thread that ends in any way, even by `SIGKILL`, while it holds the lock leaves it to the next
/// one that tries to acquire it: the kernel does that, by the thread's list of robust futexes. The data that the lock
/// guards may then be half-written, which `inherited` reports.
///
/// Ownership: it is a view of `bytes` bytes that belong to the caller. They must stay attached and
/// must not be used for anything else while a thread of this process holds the lock, since the
/// thread's list refers to them.
/// Threads, processes: every member may be called at any time. A forked child does not hold the locks of
/// its parent.
class SHAREDMEM_API robust_mutex {
 public:
  /// Size of the lock in memory, the same for all processes of one word size.
  static constexpr std::size_t bytes = 64;
  static constexpr std::size_t alignment = 16;

  enum class outcome : std::uint8_t { taken, inherited, busy };

  robust_mutex() noexcept = default;

  /// Makes a free lock in `bytes` bytes at `where`, which no other thread uses yet.
  /// \throws std::invalid_argument  `where` is not aligned.
  /// \throws sharedmem::error       ENOTSUP and the like: this system has no such lock.
  [[nodiscard]] static robust_mutex create(void* where);

  /// The lock that is at `where`.
  /// \throws std::invalid_argument  there is none; or it was made by a program of another word size,
  ///         or in another pid namespace, where thread ids are not valid.
  [[nodiscard]] static robust_mutex open(void* where);

  /// Does not wait. \throws sharedmem::error  EDEADLK: this thread holds it; ENOTRECOVERABLE.
  [[nodiscard]] outcome try_lock();

  /// Waits for at most `limit` (not at all if that is negative), by the system's clock: longer if that is set back
  /// meanwhile. Signals do not end the wait. Throws what `try_lock` throws.
  [[nodiscard]] outcome try_lock_for(std::chrono::nanoseconds limit);

  /// \pre  this thread holds it.
  void unlock() noexcept;

  /// The result of `owner`.
  struct owner_report {
    /// `unknown`: this system does not report it; `left`: its owner has ended, and no thread has acquired it since.
    enum class state : std::uint8_t { unknown, free, held, left } what = state::unknown;
    std::uint32_t thread = 0;  ///< if it is held: the system's id of the thread that holds it
  };
  /// Which thread holds it, for reports. It neither acquires the lock nor waits; others go on meanwhile.
  [[nodiscard]] owner_report owner() const noexcept;

 private:
  struct record;
  explicit robust_mutex(record* at) noexcept : at_{at} {}
  outcome outcome_of(int result, const char* call);

  record* at_ = nullptr;
};

}  // namespace sharedmem
