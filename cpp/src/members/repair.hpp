#pragma once

/// Freeing what dead processes held: their references, their messages, their chunks, and last their slots.
///
/// Locks: the object is the lock itself (`std::lock_guard lock(repairer)`), so that one thread of this process
/// repairs at a time. `look_for_dead` acquires it; functions say so if the caller holds it. The stripes of
/// `references` and the lock of the heap are acquired after it.
/// Processes: several may repair at once; each slot is repaired by one of them, and by another one if that dies.
#include <atomic>
#include <cstdint>
#include <mutex>
#include <new>

#include "members/participants.hpp"
#include "references/references.hpp"
#include "shared/tables.hpp"

namespace sharedmem {

/// Least time between two searches for the dead by a process that does not need one.
inline constexpr std::uint64_t look_interval_ns = 100'000'000;

class repairer {
 public:
  repairer(tables& words, references& refs, participant_table& peers) noexcept
      : words(words), refs(refs), peers(peers) {}
  repairer(const repairer&) = delete;
  repairer& operator=(const repairer&) = delete;

  void lock() { repairing.lock(); }
  void unlock() { repairing.unlock(); }
  /// In a child made without fork handlers: the lock may be held by a thread that does not exist there.
  void renew_lock() noexcept { new (&repairing) std::mutex; }

  /// Repairs the slots of dead processes; true if there were any. Not `now`: only if this process has not done so for
  /// a while. No lock.
  bool look_for_dead(bool now);
  /// Makes the next `look_for_dead` search. For a forked child, so that it does not take new memory before it has used
  /// what earlier children left, however recently its parent had searched.
  void forget_last_look() noexcept { last_look.store(0, std::memory_order_relaxed); }
  /// Repairs a slot whose `ctl` is `seen`. False: another process does, or a part of the arena cannot be attached here.
  /// Lock held.
  bool repair_slot(std::uint32_t dead, std::uint64_t seen);

  // ---- messages. No lock.

  bool on_arena_clock() const noexcept;
  /// Gives back leases of dead senders whose grace is over (`now`: all of them). Returns how many. Their messages are
  /// lost, so this is for callers that would have no memory otherwise, or whose user requested it.
  std::uint64_t expire(bool now);
  /// Gives back leases that were kept by blocks freed since. Returns how many.
  std::uint64_t drop_unkept() noexcept;
  /// Gives back leases of living senders that were acquired that long ago. Returns how many.
  std::uint64_t revoke(std::uint64_t older_than_ns);

 private:
  bool reserved_by_us(std::uint32_t s, const actor& who) const noexcept;
  template <class Expired>
  std::uint64_t end_leases(Expired&& expired);
  bool take_back(std::uint32_t slot_of_dead);
  void clear_overflow(std::uint32_t k);
  bool stop_overflow(std::uint32_t k) noexcept;

  tables& words;
  references& refs;
  participant_table& peers;
  std::mutex repairing;
  std::atomic<std::uint64_t> last_look{0}, look_pause{look_interval_ns};
};

}  // namespace sharedmem
