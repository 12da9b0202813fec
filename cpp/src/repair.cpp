/// Taking back what the dead held. There is no thread and no daemon: whoever needs room, joins, forks or
/// asks for it makes a pass, at most each 100 ms; every step may be repeated.
#include <algorithm>

#include "machine.hpp"
#include "state.hpp"

namespace sharedmem {
namespace {

constexpr auto relaxed = std::memory_order_relaxed;
constexpr auto sc = std::memory_order_seq_cst;

}  // namespace

/// Several processes may be in the overflow slot: in its name one could take another's FREEING for its own.
/// They leave the block LIVE, and whoever clears that slot looks at all blocks.
bool arena::state::free_if_unclaimed(std::uint32_t b) { return has_slot() && free_if_unclaimed(b, slot()); }

/// `signer`: the slot that FREEING names; nobody else may use it at this time.
bool arena::state::free_if_unclaimed(std::uint32_t b, std::uint32_t signer) {
  const std::uint64_t place = words.block(b)[at_place].load(relaxed);
  const bool freed = rules.try_free(
      b, signer, [this](std::uint32_t x) { return may_keep(x); },
      [this](std::uint32_t x) { empty_pages(x); });
  if (freed) after_free(b, place);
  return freed;
}

bool arena::state::look_for_dead(bool now) {
  const std::uint64_t time = monotonic_ns();
  std::uint64_t last = last_look.load(relaxed);
  if (!now && time - last < look_pause.load(relaxed)) return false;
  const std::unique_lock lock(repairing, std::try_to_lock);
  if (!lock.owns_lock()) return false;  // another thread of ours is at it
  last_look.store(time, relaxed);
  try {
    words.sync();  // a slot becomes VOID only after all its traces are gone, in every extent
  } catch (...) {
    return false;
  }
  bool repaired = false;
  bool fewer = false;
  const auto mark = static_cast<std::uint32_t>(words.slot_mark().load(sc));
  std::uint32_t active = 0;
  for (std::uint32_t s = 0; s < mark && s < words.overflow_slot(); ++s) {
    const std::uint64_t seen = words.slot(s).ctl.load(sc);
    const auto w = slot_word::from(seen);
    if (takes_part(w.state)) ++active;
    if ((takes_part(w.state) || w.state == slot_state::repair) && look(w.who) == liveness::dead) {
      repair_slot(s, seen);
      repaired = true;
    }
  }
  if (attendance) {
    try {
      fewer = static_cast<std::uint32_t>(attendance.processes()) < active;
    } catch (const error&) {
    }
  }
  for (std::uint32_t s = 0; s < mark && s < words.overflow_slot(); ++s) {
    const std::uint64_t seen = words.slot(s).ctl.load(sc);
    const auto w = slot_word::from(seen);
    if (takes_part(w.state) && fewer &&
        (exec_happened(w.who) || (w.who.space != me.space && only_we_are_left()))) {
      repair_slot(s, seen);
      repaired = true;
    }
    if (w.state == slot_state::reserved && s != child_slot &&
        (w.who == me || look(w.who) == liveness::dead) && no_child_without_slot()) {
      repair_slot(s, seen);
      repaired = true;
    }
  }
  clear_overflow();
  // A pass costs some microseconds a participant: never more than one part in fifty of the time.
  look_pause.store(std::max(look_interval_ns, 50 * (monotonic_ns() - time)), relaxed);
  return repaired;
}

/// All that the process of a slot held, and what it left half-done.
void arena::state::take_back(std::uint32_t slot_of_dead) {
  // Who joins a full arena has no slot yet, but while it repairs this one nobody else signs with it.
  const std::uint32_t signer = has_slot() ? slot() : slot_of_dead;
  rules.repair(
      slot_of_dead, on_arena_clock() ? monotonic_ns() + lease_grace_ns : UINT64_MAX,
      [this](std::uint32_t d) {
        const auto mark = static_cast<std::uint32_t>(words.head().chunk_mark.load(sc));
        for (std::uint32_t c = 0; c < mark; ++c) {
          std::uint64_t owner = words.chunk(c).owner.load(sc);
          const auto w = owner_word::from(owner);
          if (w.state != chunk_state::owned || w.slot != d) continue;
          if (words.chunk(c).owner.compare_exchange_strong(owner,
                                                           owner_word{chunk_state::orphan, 0, 0}.bits(), sc))
            words.head().orphans.fetch_add(1, relaxed);
        }
      },
      [this, signer](std::uint32_t b) {
        const auto v = life_word::from(words.block(b)[at_life].load(sc));
        if (v.state == life_state::free || rules.claimed(b, v.generation))
          return;  // what try_free would see first
        const std::lock_guard lock(stripe(b));
        free_if_unclaimed(b, signer);
      });
}

void arena::state::repair_slot(std::uint32_t dead, std::uint64_t seen) {
  const slot_word mine{slot_state::repair, me};
  if (!words.slot(dead).ctl.compare_exchange_strong(seen, mine.bits(), sc)) return;
  step<point::repair_claimed>();
  take_back(dead);
  participant_entry& slot_line = words.slot(dead);
  slot_line.cached.store(0, relaxed);
  slot_line.chunks.store(0, relaxed);
  words.head().repairs.fetch_add(1, std::memory_order_release);
  std::uint64_t done = mine.bits();
  slot_line.ctl.compare_exchange_strong(done, 0, std::memory_order_release);
  step<point::repair_done>();
}

/// Whether this process has the clock of deadlines, that of the arena's first process: time namespaces have
/// clocks of their own. Who has another writes none, and such a lease is kept until `collect(leases)`.
bool arena::state::on_arena_clock() const noexcept {
  const auto clock_of = [this](std::uint32_t space) {
    return static_cast<std::uint32_t>(words.head().namespaces[space].load(relaxed));
  };
  return clock_of(me.space) == clock_of(0);
}

/// Gives back leases of dead senders whose grace is over (`now`: all of them).
std::uint64_t arena::state::expire(bool now) {
  if (!now && !on_arena_clock()) return 0;
  const std::uint64_t time = monotonic_ns();
  return rules.leases.expire(
      [&](lease_word v, std::uint64_t deadline) { return v.slot == nobody && (now || deadline <= time); },
      [this](std::uint32_t b) {
        if (!words.has_block(b)) return;
        const std::lock_guard lock(stripe(b));
        free_if_unclaimed(b);
      });
}

/// Settles for clearing the overflow slot: true if from now on no fork gives its bits to a child until
/// `overflow` changes again, none is doing so, and no process has them.
bool arena::state::stop_overflow() noexcept {
  word64& overflow = words.head().overflow;
  std::uint64_t seen = overflow.load(sc);
  if ((seen & overflow_used) == 0 || !no_child_without_slot()) return false;
  // The version: a fork that takes over from a dead process that was clearing makes this fail.
  const std::uint64_t stopped = (seen | overflow_clearing) + 1;
  if (!overflow.compare_exchange_strong(seen, stopped, sc)) return false;
  bool under_way = false;
  for (std::uint32_t s = 0; s < words.overflow_slot(); ++s)
    under_way = under_way || (words.slot(s).ctl.load(sc) != 0 && words.slot(s).forking.load(sc) != 0);
  if (!under_way && no_child_without_slot()) return true;  // again: a fork may have ended in between
  overflow.store((stopped & ~overflow_clearing) + 1, sc);
  return false;
}

/// Bits and leases of the overflow slot belong to all children without a slot together: they are taken
/// back when the census shows that there is no such child. The slot's `ctl` says who is at it.
void arena::state::clear_overflow() {
  if ((words.head().overflow.load(sc) & overflow_used) == 0 || !has_slot()) return;
  const std::uint32_t shared_slot = words.overflow_slot();
  std::uint64_t ctl = words.slot(shared_slot).ctl.load(sc);
  if (ctl != 0 && look(slot_word::from(ctl).who) != liveness::dead) return;
  const std::uint64_t mine = slot_word{slot_state::repair, me}.bits();
  if (!words.slot(shared_slot).ctl.compare_exchange_strong(ctl, mine, sc)) return;
  if (stop_overflow()) {
    take_back(shared_slot);
    words.head().overflow.store(words.head().overflow.load(sc) & ~(overflow_used | overflow_clearing), sc);
  }
  words.slot(shared_slot).ctl.store(0, std::memory_order_release);
}

}  // namespace sharedmem
