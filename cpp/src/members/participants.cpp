/// Who takes part in an arena: slots, joining, telling the dead from the living.
#include <new>

#include "os/machine.hpp"
#include "state.hpp"

namespace sharedmem {
namespace {

constexpr auto relaxed = std::memory_order_relaxed;
constexpr auto sc = std::memory_order_seq_cst;

}  // namespace

std::uint32_t arena::state::namespace_index() {
  const process_namespaces here = this_namespaces();
  const std::uint64_t mine = std::uint64_t{here.pid} << 32 | here.time;
  // An entry of zero is free; namespaces that cannot be read share the entry 1.
  const std::uint64_t word = mine == 0 ? 1 : mine;
  for (std::uint32_t i = 0; i < max_namespaces; ++i) {
    std::uint64_t seen = words.head().namespaces[i].load(sc);
    if (seen == 0 && words.head().namespaces[i].compare_exchange_strong(seen, word, sc)) return i;
    if (seen == word) return i;
  }
  throw no_memory("processes of " + std::to_string(max_namespaces) +
                  " pid or time namespaces use this arena already, its limit; SHAREDMEM_ARENA=new gives this "
                  "process an arena of its own");
}

/// A server that restarts in place (execve(2)) keeps its pid and start time, and nobody else can tell its slot
/// of before from that of now. Slots of this program are let alone: another copy of this library in this
/// process may have them.
void arena::state::repair_earlier_programs() {
  const std::uint64_t program = this_program();
  if (program == 0 || me.start == 0) return;
  const std::lock_guard lock(repairing);
  const auto mark = static_cast<std::uint32_t>(words.slot_mark().load(sc));
  for (std::uint32_t s = 0; s < mark && s < words.overflow_slot(); ++s) {
    std::uint64_t seen = words.slot(s).ctl.load(sc);
    const auto w = slot_word::from(seen);
    const std::uint64_t repair = slot_word{slot_state::repair, me}.bits();
    const std::uint64_t earlier = words.slot(s).program.load(sc);
    if (earlier == 0 || earlier == program || !takes_part(w.state) || w.who != me) continue;
    try {
      words.sync();  // a slot becomes VOID only after all its traces are gone, in every extent
    } catch (...) {
      return;
    }
    if (!words.slot(s).ctl.compare_exchange_strong(seen, repair, sc)) continue;
    // Another copy of the library may have repaired and taken it since: the same `ctl`, but of this program.
    if (words.slot(s).program.load(sc) == earlier)
      repair_slot(s, repair);
    else
      words.slot(s).ctl.store(seen, sc);
  }
}

std::uint32_t arena::state::take_slot(slot_state as) {
  const process_id self_id = this_process();
  me = {self_id.pid, self_id.start, namespace_index()};
  repair_earlier_programs();
  const slot_word taken{as, me};
  header& h = words.head();
  for (int round = 0; round < 2; ++round) {
    for (std::uint32_t s = 0; s < words.overflow_slot(); ++s) {
      if (words.slot(s).ctl.load(relaxed) != 0) continue;
      std::uint64_t mark = h.slot_mark.load(sc);  // before the slot: it pairs with claimed()
      while (mark <= s && !h.slot_mark.compare_exchange_weak(mark, s + 1, sc)) {
      }
      std::uint64_t none = 0;
      if (!words.slot(s).ctl.compare_exchange_strong(none, taken.bits(), sc)) continue;
      step<point::join_active>();
      words.slot(s).returns.store(0, relaxed);
      words.slot(s).cached.store(0, relaxed);
      words.slot(s).chunks.store(0, relaxed);
      words.slot(s).forking.store(0, relaxed);
      words.slot(s).program.store(this_program(), sc);
      return s;
    }
    if (round == 0) look_for_dead(true);  // only repair can help
  }
  throw no_memory(
      "all " + std::to_string(words.overflow_slot()) +
      " process slots of this arena are taken (254, or four per core, fixed when the first process made "
      "it); end some processes, or give groups of them arenas of their own with SHAREDMEM_ARENA=new");
}

void arena::state::settle() {
  if (identity.known()) [[likely]]
    return;
  for (unsigned round = 0; identity.settling().exchange(1, std::memory_order_acquire) != 0;)
    let_others_run(round++);
  const struct settled {
    std::atomic<std::uint32_t>& at;
    ~settled() { at.store(0, std::memory_order_release); }
  } end{identity.settling()};
  if (identity.known()) return;
  // A child that no fork handler announced: nothing here is ours, and locks may be held by threads that
  // do not exist in this process.
  new (&joining) std::mutex;
  new (&repairing) std::mutex;
  for (std::mutex& m : stripes) new (&m) std::mutex;
  pool.renew_lock();
  words.forget_lock();
  pool.resume_threads();
  ++epoch;  // references that were copied into this process are nobody's
  held.clear();
  references.store(0, relaxed);
  forget_chunks();
  become(take_slot());
}

void arena::state::forget_chunks() noexcept {
  pool.forget_chunks();
  look_holds_until = 0;
}

std::array<std::unique_lock<std::mutex>, stripe_count> arena::state::all_stripes() {
  std::array<std::unique_lock<std::mutex>, stripe_count> locks;
  for (std::uint32_t i = 0; i < stripe_count; ++i) locks[i] = std::unique_lock(stripes[i]);
  return locks;
}

void arena::state::leave_overflow() {
  const std::lock_guard alone(joining);
  if (!in_overflow()) return;
  // RESERVED until our own bits are set: for the census we are still a process without a slot, so that nobody
  // clears the overflow slot, whose bits hold our blocks until then.
  const std::uint32_t own = take_slot(slot_state::reserved);
  const auto locks = all_stripes();
  held.each_held([&](std::uint32_t b, const record& r) { rules.hold(b, own, r.generation); });
  words.slot(own).ctl.store(slot_word{slot_state::active, me}.bits(), sc);
  become(own);
}

liveness arena::state::look(const actor& who) const noexcept {
  if (who == me) return liveness::alive;
  if (who.space != me.space) return liveness::unknown;
  return look_at({who.pid, who.start});
}

/// Whether an actor is surely one of those that the census counts. Exec keeps pid and start time, but not
/// the memory; what cannot be read proves nothing.
bool arena::state::is_counted(const actor& who) const noexcept {
  return who == me || (look(who) == liveness::alive && !is_exiting(who.pid) &&
                       maps_segment(who.pid, words.at(0).memory.name(), false));
}

/// Whether the census counts the actors that take part and that `expected` picks, each of them, and nobody else. `repairing`
/// is held.
template <class Pick>
bool arena::state::census_is(Pick&& expected) const noexcept {
  if (!attendance) return false;
  std::uint32_t active = 0;
  const auto mark = static_cast<std::uint32_t>(words.slot_mark().load(sc));
  for (std::uint32_t s = 0; s < mark && s < words.overflow_slot(); ++s) {
    const auto w = slot_word::from(words.slot(s).ctl.load(sc));
    if (!takes_part(w.state) || !expected(w.who)) continue;
    roll[active++] = w.bits();
  }
  try {
    if (static_cast<std::uint32_t>(attendance.processes()) != active) return false;  // after the slots
  } catch (const error&) {
    return false;
  }
  return std::all_of(&roll[0], &roll[active],
                     [this](std::uint64_t bits) { return is_counted(slot_word::from(bits).who); });
}

/// Whether every process that can touch the arena has a slot.
bool arena::state::no_child_without_slot() const noexcept {
  return census_is([](const actor&) { return true; });
}

/// Whether every process that can touch the arena takes part in it and is of our namespaces. Of an actor in other
/// namespaces nothing can be told by its pid; if this holds it is gone.
bool arena::state::only_we_are_left() const noexcept {
  return census_is([this](const actor& who) { return who.space == me.space; });
}

/// An actor that is alive but no longer maps the arena: exec keeps pid and start time.
bool arena::state::exec_happened(const actor& who) const noexcept {
  if (who == me || who.space != me.space || look(who) != liveness::alive) return false;
  return !maps_segment(who.pid, words.at(0).memory.name(), true);
}

}  // namespace sharedmem
