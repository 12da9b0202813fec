#pragma once
/// \file
/// The newest of a sequence of arrays, in shared memory: the words of `sharedmem.Latest`.
///
///   | step of `put`, under a lock   | killed after it
/// |
///   | ----------------------------- |
/// -------------------------------------------------------------------------------- |
///   | take a lease of the new array | the lease stays until memory would be refused; readers get the
/// previous array    |
///   | write the oldest cell         | the same; a half-written cell is not read, and its seqlock would
/// reject it       |
///   | store the number              | the array is there; sleeping readers check the number ten times a
/// second         |
///   | wake sleeping readers         | the lease of the previous array stays until memory would be refused
/// |
///   | give back the previous lease  | nothing
/// |
///
/// A reader copies the cell of the newest number and sets its bit on the block, without consuming the lease;
/// it then confirms that the block is still that array's (`arena::acquire` of a claim without a lease). If a
/// newer array was put meanwhile that may fail, and the reader tries that one. It writes nothing here, so
/// that any number of readers costs the writer nothing.
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include <sharedmem/futex.hpp>
#include <sharedmem/home.hpp>
#include <sharedmem/seqlock.hpp>

namespace sharedmem_pyx {

/// An array that was put: its handle, the text of its dtype where the handle has none, and its lease.
struct frame {
  static constexpr std::size_t room = 2008;

  std::uint64_t number;  ///< 1 for the first array that was put; 0: none
  std::uint64_t nonce;
  std::uint32_t lease;
  std::uint16_t handle_bytes;
  std::uint16_t dtype_bytes;
  std::array<char, room> bytes;  ///< the handle, then the text

  bool makes_sense() const noexcept { return std::size_t{handle_bytes} + dtype_bytes <= room; }
};

/// Three cells: the newest array, the one before, which readers may be copying, and the one that is written.
/// If all bytes but `mark` are zero, nothing was put into it yet.
/// Threads, processes: `write` and `set_writer` under a lock; the others by any thread at any time.
struct latest_words {
  static constexpr std::uint64_t magic = 0x0100'5453'5445'4c6d;  // "mLETST", a version

  std::uint64_t mark;
  std::uint64_t number;        ///< of the newest array
  std::uint32_t bell;          ///< the lower half of `number`, on which readers sleep
  std::uint32_t writer;        ///< its pid; 0: none
  std::uint64_t writer_start;  ///< its start time, as the kernel counts
  std::array<sharedmem::seqlock<frame>, 3> cells;

  std::uint64_t newest() const noexcept { return __atomic_load_n(&number, __ATOMIC_SEQ_CST); }

  /// Copies the array of this number. False: it is being replaced, or was.
  bool read(std::uint64_t wanted, frame& out) const noexcept {
    return cells[wanted % cells.size()].try_load(out) && out.number == wanted && out.makes_sense();
  }

  /// Makes `next` the newest array; sets its number.
  void write(frame& next) noexcept {
    next.number = newest() + 1;
    cells[next.number % cells.size()].store(next);
    std::atomic_ref<std::uint64_t>(number).store(next.number);
    std::atomic_ref<std::uint32_t>(bell).store(static_cast<std::uint32_t>(next.number));
    (void)sharedmem::wake(&bell, 0x7fffffff);
  }
};

static_assert(std::is_standard_layout_v<latest_words> && offsetof(latest_words, bell) == 16);
static_assert(sizeof(frame) == 2032 && sizeof(latest_words) == 32 + 3 * 2040);

/// Gives back the lease of an array that was put. No effect if it has ended, or if its arena was left.
inline void give_back_lease(const sharedmem::locator& where, std::uint32_t block, std::uint32_t lease,
                            std::uint64_t nonce) noexcept {
  sharedmem::give_back(where.uuid, sharedmem::claim{block, 0, lease, nonce});
}

}  // namespace sharedmem_pyx
