/// Freeing what dead processes held. There is no thread and no daemon: a process that needs memory, joins, forks or
/// calls `collect` makes a pass, at most every 100 ms; every step may be repeated.
#include "members/repair.hpp"

#include <algorithm>
#include <utility>

#include <sharedmem/error.hpp>

#include "os/machine.hpp"
#include "shared/name_table.hpp"

namespace sharedmem {
namespace {

constexpr auto relaxed = std::memory_order_relaxed;
constexpr auto sc = std::memory_order_seq_cst;

}  // namespace

/// Whether this participant reserved a slot, or an earlier program of its process did. Another copy of the library in
/// this process may be about to fork.
bool repairer::reserved_by_us(std::uint32_t s, const actor& who) const noexcept {
  if (who != peers.me()) return false;
  const std::uint64_t reserver = words.slot(s).reserver.load(sc),
                      program = words.slot(s).program.load(relaxed);
  return reserver != 0 && (reserver == peers.slot() + 1 || (program != 0 && program != this_program()));
}

bool repairer::look_for_dead(bool now) {
  const std::uint64_t time = monotonic_ns();
  std::uint64_t last = last_look.load(relaxed);
  if (!now && time - last < look_pause.load(relaxed)) return false;
  const std::unique_lock lock(repairing, std::try_to_lock);
  if (!lock.owns_lock()) return false;  // another thread of this process is doing so
  last_look.store(time, relaxed);
  const std::uint64_t start = thread_time_ns();
  std::uint64_t repairing_took = 0;
  bool repaired = false;
  const auto repair = [&](std::uint32_t s, std::uint64_t seen) {
    const std::uint64_t begun = thread_time_ns();
    if (!repair_slot(s, seen)) return;
    repairing_took += thread_time_ns() - begun;
    repaired = true;
  };
  bool fewer = false;
  const auto mark = static_cast<std::uint32_t>(words.slot_mark().load(sc));
  std::uint32_t active = 0;
  for (std::uint32_t s = 0; s < mark && s < words.overflow_slot(); ++s) {
    const std::uint64_t seen = words.slot(s).ctl.load(sc);
    const auto w = slot_word::from(seen);
    if (takes_part(w.state)) ++active;
    if ((takes_part(w.state) || w.state == slot_state::repair) && peers.look(w.who) == liveness::dead)
      repair(s, seen);
  }
  if (peers.attendance) {
    try {
      fewer = static_cast<std::uint32_t>(peers.attendance.processes()) < active;
    } catch (const error&) {
    }
  }
  for (std::uint32_t s = 0; s < mark && s < words.overflow_slot(); ++s) {
    const std::uint64_t seen = words.slot(s).ctl.load(sc);
    const auto w = slot_word::from(seen);
    if (takes_part(w.state) && fewer &&
        (peers.exec_happened(w.who) || (w.who.space != peers.me().space && peers.only_we_are_left())))
      repair(s, seen);
    if (w.state == slot_state::reserved &&
        (reserved_by_us(s, w.who) || peers.look(w.who) == liveness::dead) && peers.no_child_without_slot())
      repair(s, seen);
  }
  for (std::uint32_t k = 0; k < overflow_slots; ++k) clear_overflow(k);
  // A search takes some microseconds for each participant; it may use at most one part in fifty of the time. Only
  // processor time counts, since on a loaded machine a pass may be suspended for long, and memory of the dead is not
  // reused before the next one. Repairs do not count, as each is done once.
  look_pause.store(std::max(look_interval_ns, 50 * (thread_time_ns() - start - repairing_took)), relaxed);
  return repaired;
}

/// Frees all that the process of a slot held, and what it left half-done. False, with nothing done: a part of the
/// arena cannot be attached here.
bool repairer::take_back(std::uint32_t slot_of_dead) {
  // This must come after the slot was claimed for repair, because the process may have added a segment before it died.
  if (!words.try_sync()) return false;
  if (name_table<native_atomics, tables>(words).settle(slot_of_dead)) words.ring_names_bell();
  // A process that joins a full arena has no slot yet. It signs with the slot that it repairs, which no other uses.
  const std::uint32_t signer = peers.has_slot() ? peers.slot() : slot_of_dead;
  refs.rules.repair(
      slot_of_dead, on_arena_clock() ? monotonic_ns() + lease_grace_ns : UINT64_MAX,
      [this](std::uint32_t d) {
        const auto mark = static_cast<std::uint32_t>(words.head().chunk_mark.load(sc));
        for (std::uint32_t c = 0; c < mark; ++c) {
          std::uint64_t owner = words.chunk(c).owner.load(sc);
          const auto w = owner_word::from(owner);
          if (w.state != chunk_state::owned || w.slot != d) continue;
          words.chunk(c).owner.compare_exchange_strong(owner, owner_word{chunk_state::orphan, 0, 0}.bits(),
                                                       sc);
        }
        // After all chunks, and also if there were none: an earlier repairer may have died before it counted.
        words.head().orphans.fetch_add(1, std::memory_order_release);
      },
      [this, signer](std::uint32_t b) {
        const auto v = life_word::from(words.block(b)[at_life].load(sc));
        if (v.state == life_state::free || refs.rules.claimed(b, v.generation))
          return;  // try_free would find the same; this avoids the lock
        const std::lock_guard lock(refs.stripe(b));
        refs.free_if_unclaimed(b, signer);
      });
  return true;
}

bool repairer::repair_slot(std::uint32_t dead, std::uint64_t seen) {
  const slot_word mine{slot_state::repair, peers.me()};
  participant_entry& slot_line = words.slot(dead);
  if (!slot_line.ctl.compare_exchange_strong(seen, mine.bits(), sc)) return false;
  step<point::repair_claimed>();
  if (!take_back(dead)) {
    slot_line.ctl.store(seen, sc);  // a process that can attach everything will repair it
    return false;
  }
  slot_line.reset(0);  // before the slot becomes VOID, since its next owner may write at once afterwards
  words.head().repairs.fetch_add(1, std::memory_order_release);
  std::uint64_t done = mine.bits();
  slot_line.ctl.compare_exchange_strong(done, 0, std::memory_order_release);
  step<point::repair_done>();
  return true;
}

/// Whether this process has the clock of deadlines, that of the arena's first process: time namespaces have
/// separate clocks. A process with another clock writes none, and such a lease is kept until `collect(leases)`.
bool repairer::on_arena_clock() const noexcept {
  const auto clock_of = [this](std::uint32_t space) {
    return static_cast<std::uint32_t>(words.head().namespaces[space].load(relaxed));
  };
  return clock_of(peers.me().space) == clock_of(0);
}

/// Gives back leases for which `expired(lease_word, clock)` holds, except those on blocks in a part of the arena
/// that is not attached here: a process that gives a lease back must be able to free its block.
template <class Expired>
std::uint64_t repairer::end_leases(Expired&& expired) {
  words.try_sync();
  return refs.rules.leases.expire(std::forward<Expired>(expired), [this](std::uint32_t b) {
    if (!words.has_block(b)) return;
    const std::lock_guard lock(refs.stripe(b));
    refs.free_if_unclaimed(b);
  });
}

/// Gives back leases of dead senders whose grace is over (`now`: all of them).
std::uint64_t repairer::expire(bool now) {
  const std::uint64_t unkept = drop_unkept();
  if (!now && !on_arena_clock()) return unkept;
  const std::uint64_t time = monotonic_ns();
  return unkept + end_leases([&](lease_word v, std::uint64_t deadline) {
           return v.slot == nobody && (now || deadline <= time);
         });
}

/// A freed block that kept a lease may have kept the block of another queue: a queue in a message of a queue.
std::uint64_t repairer::drop_unkept() noexcept {
  std::uint64_t all = 0;
  std::uint64_t some = 0;
  do {
    some = end_leases(
        [&](lease_word v, std::uint64_t clock) { return v.slot == kept && refs.keeper_is_gone(clock); });
    all += some;
  } while (some != 0);
  return all;
}

/// Gives back leases of living senders; their clock is the time when they were acquired.
std::uint64_t repairer::revoke(std::uint64_t older_than_ns) {
  const std::uint64_t time = monotonic_ns();
  return end_leases([&](lease_word v, std::uint64_t taken) {
    return v.slot != nobody && taken <= time && time - taken >= older_than_ns;
  });
}

/// Prepares overflow slot `k` for clearing: true if no process has its bits, and no fork gives them to a child, now or
/// while `overflow_clearing(k)` is set.
bool repairer::stop_overflow(std::uint32_t k) noexcept {
  word64& overflow = words.head().overflow;
  if (!peers.no_child_without_slot()) return false;
  std::uint64_t seen = overflow.load(sc);
  do {
    if ((seen & overflow_clearing(1 - k)) != 0)
      return false;  // the other one is being cleared, and forks need one of them
  } while (!overflow.compare_exchange_weak(seen, seen | overflow_clearing(k), sc));
  bool under_way = false;
  for (std::uint32_t s = 0; s < words.overflow_slot(); ++s)
    under_way = under_way || (words.slot(s).ctl.load(sc) != 0 && words.slot(s).forking.load(sc) != 0);
  if (!under_way && peers.no_child_without_slot())
    return true;  // checked again, as a fork may have ended in between
  overflow.fetch_and(~overflow_clearing(k), sc);
  return false;
}

/// Bits and leases of an overflow slot belong to all children in it together: they are freed when the
/// census shows that there is no child without a slot. The slot's `ctl` says which process does so. While that process
/// lives no other takes over the work, however long it is stopped, because it would later clear bits of newer children.
void repairer::clear_overflow(std::uint32_t k) {
  if ((words.head().overflow.load(sc) & overflow_used(k)) == 0 || !peers.has_slot()) return;
  const std::uint32_t shared_slot = words.overflow_slot() + k;
  std::uint64_t ctl = words.slot(shared_slot).ctl.load(sc);
  if (ctl != 0 && peers.look(slot_word::from(ctl).who) != liveness::dead) return;
  const std::uint64_t mine = slot_word{slot_state::repair, peers.me()}.bits();
  if (!words.slot(shared_slot).ctl.compare_exchange_strong(ctl, mine, sc)) return;
  if (stop_overflow(k)) {
    const bool cleared = take_back(shared_slot);
    words.head().overflow.fetch_and(~(overflow_clearing(k) | (cleared ? overflow_used(k) : 0)), sc);
  }
  words.slot(shared_slot).ctl.store(0, std::memory_order_release);
}

}  // namespace sharedmem
